//! Collecting: what the command left becomes blobs of the local CAS and lists for the result.
//!
//! Nobody changes the folder any more, and it is read through [`Folder`], so no symlink that the
//! command left leads anywhere. Symlinks stay symlinks; what can't be an output is an error with
//! its path.

use std::collections::BTreeSet;
use std::ffi::OsString;

use castwork_cas::complete::TREES;
use castwork_cas::merkle::{TreeBuilder, tree_bytes};
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::reapi;

use crate::action::CheckedAction;
use crate::failure::Failure;
use crate::inputs::leads_out;
use crate::local::Local;
use crate::sandbox::{Folder, Kind};

/// Most files, folders and symlinks in all outputs together.
const ENTRIES_MAX: usize = 100_000;

/// Most bytes in all output files together.
const BYTES_MAX: u64 = 8 << 30;

/// Most folders on the way from an output directory to a file in it.
const DEPTH_MAX: usize = 128;

/// Most bytes of names and of what symlinks point to, in all outputs together. As many as there may be in the trees
/// that describe them.
const TEXT_BYTES_MAX: u64 = TREES.bytes_max;

/// What was collected; the lists are in the order of their paths.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// Regular files.
    pub files: Vec<reapi::OutputFile>,
    /// Directories, each with its `Tree`.
    pub directories: Vec<reapi::OutputDirectory>,
    /// Symlinks that are outputs themselves.
    pub symlinks: Vec<reapi::OutputSymlink>,
    /// Every blob of the above.
    pub blobs: BTreeSet<Digest>,
}

impl Collected {
    /// Adds the lists to a result; those for older clients too, if such a one asked.
    #[allow(deprecated, reason = "clients of before REAPI 2.1 only know the older fields")]
    pub(crate) fn add_to(self, result: &mut reapi::ActionResult, action: &CheckedAction) {
        let asked = |paths: &BTreeSet<String>| {
            self.symlinks.iter().filter(|link| paths.contains(&link.path)).cloned().collect()
        };
        result.output_file_symlinks = asked(&action.outputs.older_files);
        result.output_directory_symlinks = asked(&action.outputs.older_directories);
        result.output_symlinks = self.symlinks;
        result.output_files = self.files;
        result.output_directories = self.directories;
    }
}

/// Collects the outputs of an action from its input root. `own_names` in it are the sandbox's. Blocks.
///
/// # Errors
/// [`Failure::Precondition`] with the path of an output that is none: a FIFO, a symlink out of the
/// input root, something behind a symlink, or too much.
pub(crate) fn collect(
    root: &Folder,
    own_names: &[&str],
    action: &CheckedAction,
    function: DigestFunction,
    local: &Local,
) -> Result<Collected, Failure> {
    let mut collector = Collector {
        own_names,
        function,
        local,
        out: Collected::default(),
        entries_left: ENTRIES_MAX,
        bytes_left: BYTES_MAX,
        text_left: TEXT_BYTES_MAX,
        tree_left: TREES.bytes_max,
    };
    for path in &action.outputs.paths {
        let collected =
            collector.collect(root, path, &action.place_of(path), action.outputs.wants_directories);
        collected.map_err(printable)?;
    }
    Ok(collector.out)
}

/// The names in a refusal are the command's, and may hold what terminals and logs obey.
fn printable(failure: Failure) -> Failure {
    let Failure::Precondition(text) = failure else { return failure };
    let shown = |letter: char| {
        if letter.is_control() { letter.escape_default().collect() } else { letter.to_string() }
    };
    Failure::Precondition(text.chars().map(shown).collect())
}

struct Collector<'a> {
    own_names: &'a [&'a str],
    function: DigestFunction,
    local: &'a Local,
    out: Collected,
    entries_left: usize,
    bytes_left: u64,
    text_left: u64,
    tree_left: u64,
}

impl Collector<'_> {
    /// Collects one output: `path` for the result, `place` from the input root.
    fn collect(
        &mut self,
        root: &Folder,
        path: &str,
        place: &str,
        wants_directories: bool,
    ) -> Result<(), Failure> {
        if place.is_empty() {
            return self.directory(root, path, place, wants_directories);
        }
        let (above, name) = place.rsplit_once('/').unwrap_or(("", place));
        let opened = descend(root, above, path)?;
        let folder = match &opened {
            Above::Root => root,
            Above::Folder(folder) => folder,
            Above::Nowhere => return Ok(()),
        };
        if self.is_own(place) {
            return Ok(());
        }
        self.take_entry(path)?;
        self.take_text(path, path)?;
        match folder.kind_of(name).map_err(at("look at", path))? {
            None => self.entries_left += 1,
            Some(Kind::File { size_bytes, is_executable }) => {
                let digest = self.file(folder, name, path, size_bytes)?;
                let digest = Some(digest.to_proto());
                self.out.files.push(reapi::OutputFile {
                    path: path.to_owned(),
                    digest,
                    is_executable,
                    ..Default::default()
                });
            }
            Some(Kind::Folder) => {
                let inner = folder.folder(name).map_err(at("open", path))?;
                self.directory(&inner, path, place, wants_directories)?;
            }
            Some(Kind::Symlink) => {
                let target = link_target(folder, name, path, place)?;
                self.take_text(path, &target)?;
                self.out.symlinks.push(reapi::OutputSymlink {
                    path: path.to_owned(),
                    target,
                    ..Default::default()
                });
            }
            Some(Kind::Other(what)) => return Err(no_output(path, what)),
        }
        Ok(())
    }

    fn file(&mut self, folder: &Folder, name: &str, path: &str, size_bytes: u64) -> Result<Digest, Failure> {
        // By logical size: a sparse file costs nothing here, but its digest would.
        self.bytes_left = self.bytes_left.checked_sub(size_bytes).ok_or_else(|| {
            Failure::Precondition(format!("outputs of more than {BYTES_MAX} bytes; `{path}` is one too many"))
        })?;
        let file = folder.file(name).map_err(at("open", path))?;
        let digest = self.local.keep_file(self.function, file).map_err(Failure::store("keep an output"))?;
        self.out.blobs.insert(digest);
        Ok(digest)
    }

    fn directory(
        &mut self,
        folder: &Folder,
        path: &str,
        place: &str,
        wants_directories: bool,
    ) -> Result<(), Failure> {
        let mut tree = TreeBuilder::new();
        self.fill(&mut tree, folder, &Spot { path, place, inner: "" }, DEPTH_MAX)?;
        let built = tree.build(self.function);
        let tree = tree_bytes(&built);
        self.take_tree(path, tree.len())?;
        for (_, bytes) in &built.directories {
            if bytes.len() as u64 > TREES.directory_bytes_max {
                return Err(too_much(path, "one of its folders"));
            }
            if wants_directories {
                self.take_tree(path, bytes.len())?;
            }
        }
        let tree_digest = self.keep(&tree)?;
        let mut output = reapi::OutputDirectory {
            path: path.to_owned(),
            tree_digest: Some(tree_digest.to_proto()),
            is_topologically_sorted: true,
            root_directory_digest: None,
        };
        if wants_directories {
            for (_, bytes) in &built.directories {
                self.keep(bytes)?;
            }
            output.root_directory_digest = Some(built.root.to_proto());
        }
        self.out.directories.push(output);
        Ok(())
    }

    fn fill(
        &mut self,
        tree: &mut TreeBuilder,
        folder: &Folder,
        spot: &Spot<'_>,
        depth_left: usize,
    ) -> Result<(), Failure> {
        let whole = spot.whole();
        if depth_left == 0 {
            return Err(Failure::Precondition(format!(
                "output `{whole}` lies more than {DEPTH_MAX} folders deep"
            )));
        }
        for name in folder.names(self.entries_left).map_err(at("list", &whole))? {
            let name = utf8(name, &whole)?;
            let inner = if spot.inner.is_empty() { name.clone() } else { format!("{}/{name}", spot.inner) };
            let spot = Spot { inner: &inner, ..*spot };
            let path = spot.whole();
            if spot.place.is_empty() && self.is_own(&inner) {
                continue;
            }
            self.take_entry(&path)?;
            self.take_text(&path, &name)?;
            let added = match folder.kind_of(&name).map_err(at("look at", &path))? {
                None => return Err(no_output(&path, "gone while it was collected")),
                Some(Kind::File { size_bytes, is_executable }) => {
                    let digest = self.file(folder, &name, &path, size_bytes)?;
                    tree.add_file(&inner, digest, is_executable)
                }
                Some(Kind::Folder) => {
                    let added = tree.add_directory(&inner);
                    let below = folder.folder(&name).map_err(at("open", &path))?;
                    self.fill(tree, &below, &spot, depth_left - 1)?;
                    added
                }
                Some(Kind::Symlink) => {
                    let place = format!("{}/{inner}", spot.place);
                    let target = link_target(folder, &name, &path, place.trim_start_matches('/'))?;
                    self.take_text(&path, &target)?;
                    tree.add_symlink(&inner, &target)
                }
                Some(Kind::Other(what)) => return Err(no_output(&path, what)),
            };
            added.map_err(|error| Failure::Precondition(format!("output `{path}`: {error}")))?;
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<Digest, Failure> {
        let digest = self.local.keep_bytes(self.function, bytes).map_err(Failure::store("keep an output"))?;
        self.out.blobs.insert(digest);
        Ok(digest)
    }

    /// Whether that is in the input root only because the sandbox needs it.
    fn is_own(&self, place: &str) -> bool {
        self.own_names.contains(&place)
    }

    /// Takes note of a name, or of what a symlink points to.
    fn take_text(&mut self, path: &str, text: &str) -> Result<(), Failure> {
        let left = self.text_left.checked_sub(text.len() as u64);
        self.text_left = left.ok_or_else(|| too_much(path, "all outputs up to there"))?;
        Ok(())
    }

    /// Takes note of what describes an output directory: nobody takes more of that.
    fn take_tree(&mut self, path: &str, bytes: usize) -> Result<(), Failure> {
        let left = self.tree_left.checked_sub(bytes as u64);
        self.tree_left = left.ok_or_else(|| too_much(path, "all output directories up to there"))?;
        Ok(())
    }

    fn take_entry(&mut self, path: &str) -> Result<(), Failure> {
        self.entries_left = self.entries_left.checked_sub(1).ok_or_else(|| {
            Failure::Precondition(format!("more than {ENTRIES_MAX} outputs; `{path}` is one too many"))
        })?;
        Ok(())
    }
}

/// Where the collector is, below an output directory.
#[derive(Clone, Copy)]
struct Spot<'a> {
    /// The output directory, as it was asked for.
    path: &'a str,
    /// The same, from the input root.
    place: &'a str,
    /// From there on.
    inner: &'a str,
}

impl Spot<'_> {
    fn whole(&self) -> String {
        match (self.path, self.inner) {
            ("", inner) => inner.to_owned(),
            (path, "") => path.to_owned(),
            (path, inner) => format!("{path}/{inner}"),
        }
    }
}

/// What is above an output.
enum Above {
    /// The input root.
    Root,
    /// A folder in it.
    Folder(Folder),
    /// Nothing that could hold it.
    Nowhere,
}

/// Opens the folder above an output, name by name.
fn descend(root: &Folder, above: &str, path: &str) -> Result<Above, Failure> {
    let mut opened = Above::Root;
    for name in above.split('/').filter(|name| !name.is_empty()) {
        let folder = if let Above::Folder(folder) = &opened { folder } else { root };
        match folder.kind_of(name).map_err(at("look at", path))? {
            Some(Kind::Folder) => opened = Above::Folder(folder.folder(name).map_err(at("open", path))?),
            Some(Kind::Symlink) => {
                let text = format!("output `{path}` lies behind the symlink `{name}`, which is not followed");
                return Err(Failure::Precondition(text));
            }
            Some(Kind::File { .. } | Kind::Other(_)) | None => return Ok(Above::Nowhere),
        }
    }
    Ok(opened)
}

fn link_target(folder: &Folder, name: &str, path: &str, place: &str) -> Result<String, Failure> {
    let target = utf8(folder.link(name).map_err(at("read the symlink", path))?, path)?;
    if leads_out(place, &target) {
        let text =
            format!("output `{path}` is a symlink out of the input root, to `{}`", target.escape_debug());
        return Err(Failure::Precondition(text));
    }
    Ok(target)
}

fn utf8(text: OsString, path: &str) -> Result<String, Failure> {
    text.into_string().map_err(|text| {
        Failure::Precondition(format!("a name in output `{path}` is not UTF-8: `{}`", text.to_string_lossy()))
    })
}

fn too_much(path: &str, what: &str) -> Failure {
    Failure::Precondition(format!("output `{path}`: the names and symlinks of {what} take too many bytes"))
}

fn no_output(path: &str, what: &str) -> Failure {
    Failure::Precondition(format!("output `{path}` is {what}, which can't be an output"))
}

/// What the worker can't read, the command has made so.
fn at(step: &'static str, path: &str) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.to_owned();
    move |error| Failure::Precondition(format!("can't {step} output `{path}`: {error}"))
}

#[cfg(test)]
mod tests;
