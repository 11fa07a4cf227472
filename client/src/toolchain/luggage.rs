//! [`Luggage`]: a compiler's files as a tree, at the paths that they have here, for a root that holds nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Component, Path, PathBuf};

use castwork_cas::Digest;
use castwork_cas::merkle::{MerkleError, TreeBuilder};
use serde::{Deserialize, Serialize};

use super::{Roles, Tool, loader};
use crate::local::Platform;
use crate::paths::{ABSOLUTE, INPUT_ROOT, PROJECT};

/// Most symbolic links on the way to a file; as in Linux.
const LINKS_MAX: usize = 40;

/// Folders that each action has of its own: nothing of a compiler's can be there.
const OWN_FOLDERS: [&str; 3] = ["/proc", "/dev", "/tmp"];

/// A file that travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// `HASH/SIZE`, SHA-256.
    pub digest: String,
    /// Whether it may be started.
    pub is_executable: bool,
}

/// A compiler ready to travel. All paths are absolute and plain, and lead through no link of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Luggage {
    /// Files.
    pub files: BTreeMap<PathBuf, Packed>,
    /// Symbolic links with what they point to, relative to the folder that they are in.
    pub links: BTreeMap<PathBuf, String>,
    /// Folders that have to be there though they may hold nothing: ways with `..` lead through them.
    pub folders: BTreeSet<PathBuf>,
    /// `LD_LIBRARY_PATH` for the action, where its loader would not find everything by itself.
    pub library_path: Option<String>,
    /// Whether its messages look there under `LC_ALL=C.UTF-8` as they look here.
    pub has_utf8: bool,
}

impl Luggage {
    /// Packs files by the paths under which they are opened, with every link on the way.
    ///
    /// # Errors
    /// Why they can't travel, for people.
    pub(super) fn pack(tools: &[Tool]) -> Result<Self, String> {
        let mut luggage = Self::default();
        for tool in tools {
            luggage.add(&tool.path, &tool.digest)?;
        }
        luggage.check_places()?;
        Ok(luggage)
    }

    /// Packs a program with its files, and what its loader has to be told.
    ///
    /// # Errors
    /// Why they can't travel, for people.
    pub fn of_program(program: &Path, files: &[(PathBuf, Digest)]) -> Result<Self, String> {
        let mut luggage = Self::default();
        for (path, digest) in files {
            luggage.add(path, &digest.to_string())?;
        }
        luggage.check_places()?;
        loader::settle(&mut luggage, &Roles::from([(program.to_owned(), String::new())]))?;
        Ok(luggage)
    }

    /// How many bytes the files have, each content counted once.
    pub fn size_bytes(&self) -> u64 {
        let contents: BTreeSet<&String> = self.files.values().map(|file| &file.digest).collect();
        contents
            .iter()
            .filter_map(|digest| digest.parse::<Digest>().ok())
            .map(|digest| digest.size_bytes())
            .sum()
    }

    /// Adds everything to a tree whose root is `/`.
    ///
    /// # Errors
    /// If the tree has something else at one of the paths.
    pub fn add_to(&self, tree: &mut TreeBuilder) -> Result<(), MerkleError> {
        for folder in &self.folders {
            tree.add_directory(&below_root(folder))?;
        }
        for (path, target) in &self.links {
            tree.add_symlink(&below_root(path), target)?;
        }
        for (path, file) in &self.files {
            let digest: Digest = file.digest.parse().expect("written by us, from a digest");
            tree.add_file(&below_root(path), digest, file.is_executable)?;
        }
        Ok(())
    }

    /// Follows a path as it would be followed in a root that holds this alone; `None` if it leads to no file.
    pub(super) fn file_at(&self, path: &Path) -> Option<PathBuf> {
        let mut way = Way::new(path);
        while let Some(step) = way.next() {
            match step {
                Step::Up(_) => {}
                Step::Down(place) => match self.links.get(&place) {
                    Some(target) => way.turn(target).ok()?,
                    None if way.is_at_end() => return self.files.contains_key(&place).then_some(place),
                    None => way.enter(place),
                },
            }
        }
        None
    }

    fn check_places(&self) -> Result<(), String> {
        self.files.keys().chain(self.links.keys()).chain(&self.folders).try_for_each(|path| check_place(path))
    }

    fn add(&mut self, path: &Path, digest: &str) -> Result<(), String> {
        let place = self.place(path)?;
        let packed = Packed { digest: digest.to_owned(), is_executable: Platform::is_program(&place) };
        self.files.insert(place, packed);
        Ok(())
    }

    /// Finds the place of a file or folder that is opened under this path, and packs the way to it.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(super) fn place(&mut self, path: &Path) -> Result<PathBuf, String> {
        let shown = path.display();
        let gone = |error| format!("`{shown}` is gone: {error}");
        let mut way = Way::new(path);
        while let Some(step) = way.next() {
            let place = match step {
                Step::Up(left) => {
                    self.folders.insert(left);
                    continue;
                }
                Step::Down(place) => place,
            };
            if place.symlink_metadata().map_err(gone)?.is_symlink() {
                let target = place.read_link().map_err(gone)?;
                let target = target.to_str().ok_or_else(|| format!("`{shown}` has an unusual name"))?;
                self.links.insert(place.clone(), relative(target, &way.here));
                way.turn(target)?;
            } else {
                way.enter(place);
            }
        }
        Ok(way.here)
    }
}

/// A way along a path, one name at a time.
struct Way {
    /// The folder that has been reached; no part of it is a link.
    here: PathBuf,
    ahead: VecDeque<String>,
    links: usize,
}

enum Step {
    /// Out of this folder.
    Up(PathBuf),
    /// To this place in the folder that has been reached; whoever asked looks what is there.
    Down(PathBuf),
}

impl Way {
    fn new(path: &Path) -> Self {
        let ahead = path.components().filter_map(name_of).collect();
        Self { here: PathBuf::from("/"), ahead, links: 0 }
    }

    fn next(&mut self) -> Option<Step> {
        let name = self.ahead.pop_front()?;
        if name != ".." {
            return Some(Step::Down(self.here.join(name)));
        }
        let left = self.here.clone();
        self.here.pop();
        Some(Step::Up(left))
    }

    fn is_at_end(&self) -> bool {
        self.ahead.is_empty()
    }

    fn enter(&mut self, place: PathBuf) {
        self.here = place;
    }

    /// Goes on where a link points to.
    fn turn(&mut self, target: &str) -> Result<(), String> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(format!("too many symbolic links on the way through `{}`", self.here.display()));
        }
        if target.starts_with('/') {
            self.here = PathBuf::from("/");
        }
        for name in Path::new(target).components().rev().filter_map(name_of) {
            self.ahead.push_front(name);
        }
        Ok(())
    }
}

fn name_of(part: Component<'_>) -> Option<String> {
    match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        Component::ParentDir => Some("..".to_owned()),
        _ => None,
    }
}

/// A link's target, relative to the folder that the link is in: absolute ones are refused by workers.
fn relative(target: &str, folder: &Path) -> String {
    let Some(from_root) = target.strip_prefix('/') else { return target.to_owned() };
    let depth = folder.components().filter(|part| matches!(part, Component::Normal(_))).count();
    let target = format!("{}{}", "../".repeat(depth), from_root.trim_matches('/'));
    if target.is_empty() { ".".to_owned() } else { target }
}

fn below_root(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}

/// Refuses what an action could not see, or would take for its inputs.
///
/// # Errors
/// Why, for people.
pub fn check_place(path: &Path) -> Result<(), String> {
    let inputs = [PROJECT, ABSOLUTE].map(|name| format!("{INPUT_ROOT}/{name}"));
    let taken = OWN_FOLDERS.iter().copied().chain(inputs.iter().map(String::as_str));
    let shown = path.display();
    if path.to_str().is_none() {
        return Err(format!("`{shown}` has an unusual name"));
    }
    match taken.into_iter().find(|taken| path.starts_with(taken)) {
        Some(taken) => Err(format!("`{shown}` lies in `{taken}`, which each action has of its own")),
        None => Ok(()),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use castwork_cas::DigestFunction;

    use super::*;
    use crate::toolchain::identify_file;

    fn write(path: &Path, mode: u32) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, path.to_str().unwrap()).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    /// A folder outside of those that actions have of their own, wherever the sources lie.
    fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in("/var/tmp").unwrap()
    }

    #[test]
    fn a_farm_of_links_travels_with_every_link_and_each_file_once() {
        let folder = folder();
        let base = folder.path().canonicalize().unwrap();
        let real = base.join("usr/bin/x86_64-g++-12");
        write(&real, 0o755);
        std::fs::create_dir_all(base.join("etc/alternatives")).unwrap();
        symlink("x86_64-g++-12", base.join("usr/bin/g++-12")).unwrap();
        symlink(base.join("usr/bin/g++-12"), base.join("etc/alternatives/c++")).unwrap();
        symlink(base.join("etc/alternatives/c++"), base.join("usr/bin/c++")).unwrap();
        symlink("usr/bin", base.join("bin")).unwrap();
        let tools: Vec<Tool> =
            ["bin/c++", "usr/bin/g++-12"].map(|name| identify_file(&base.join(name), "").unwrap()).into();
        let luggage = Luggage::pack(&tools).unwrap();
        assert_eq!(luggage.files.keys().collect::<Vec<_>>(), [&real]);
        assert_eq!(luggage.links.len(), 4);
        let depth = base.join("usr/bin").components().count() - 1;
        let expected = format!("{}{}", "../".repeat(depth), below_root(&base.join("etc/alternatives/c++")));
        assert_eq!(luggage.links[&base.join("usr/bin/c++")], expected);
        assert_eq!(luggage.file_at(&base.join("bin/c++")), Some(real.clone()));
        assert_eq!(luggage.file_at(&base.join("bin/gcc")), None);
        assert!(luggage.files[&real].is_executable);
        let mut tree = TreeBuilder::new();
        luggage.add_to(&mut tree).unwrap();
        assert!(!tree.build(DigestFunction::Sha256).directories.is_empty());
    }

    #[test]
    fn a_way_back_through_a_folder_keeps_that_folder() {
        let folder = folder();
        let base = folder.path().canonicalize().unwrap();
        write(&base.join("aarch64/bin/as"), 0o755);
        std::fs::create_dir_all(base.join("lib/gcc/12")).unwrap();
        let path = base.join("lib/gcc/12/../../../aarch64/bin/as");
        let luggage = Luggage::pack(&[identify_file(&path, "").unwrap()]).unwrap();
        assert!(luggage.folders.contains(&base.join("lib/gcc/12")));
        assert_eq!(luggage.file_at(&path), Some(base.join("aarch64/bin/as")));
    }

    #[test]
    fn what_an_action_would_not_see_is_refused() {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let path = folder.path().join("gcc");
        write(&path, 0o755);
        let refused = Luggage::pack(&[identify_file(&path, "").unwrap()]).unwrap_err();
        assert!(refused.contains("`/tmp`"), "{refused}");
    }

    #[test]
    fn a_link_that_leads_to_itself_is_no_file() {
        let folder = folder();
        let path = folder.path().join("loop");
        write(&path, 0o755);
        let tool = identify_file(&path, "").unwrap();
        std::fs::remove_file(&path).unwrap();
        symlink("loop", &path).unwrap();
        assert!(Luggage::pack(&[tool]).is_err());
    }
}
