//! [`Looked`]: where the compiler looked for headers and found none, and what its search went by.
//!
//! A compile depends on files that are not there as much as on those that are: a header that appears earlier in the
//! search comes to shadow another. The preprocessor tells what it looked for (`-dI`) and in which folders (`-v`), so the
//! search is done once more here, and has to come to the same files.

use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::path::Path;
use std::rc::Rc;

use super::above::Above;
use super::search::SearchPath;
use super::text::{Form, Step, Text};
use crate::command_line::{Argument, Compile, Dialect};
use crate::environment;
use crate::local::Platform;
use crate::paths::{LEADS_OUT, Place};
use crate::reason::Reason;
use crate::toolchain::{Family, Toolchain, ignored_folders, probe_search_list};

/// What the search for headers depends on beside the files that were found. All paths are absolute, as they were looked
/// up, and may hold `..`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Where there must go on being no file.
    pub absent: BTreeSet<String>,
    /// Folders that decide the order of the search by being there, or by being one and the same.
    pub folders: Vec<String>,
    /// Folders that the compiler itself chooses by what is in them.
    pub listings: BTreeSet<String>,
    /// Links on the ways to folders of headers, with what each says.
    pub links: Vec<(String, String)>,
}

/// What a search is done again from.
pub(super) struct Search<'a> {
    pub compile: &'a Compile,
    pub toolchain: &'a Toolchain,
    pub place: &'a Place,
    pub text: &'a Text,
    /// What the compiler said under `-v`.
    pub about: &'a str,
    pub path: &'a SearchPath,
    /// Whether a file, as spelled, is among those that are known to be read.
    pub is_known: &'a dyn Fn(&str) -> bool,
}

pub(super) const ELSEWHERE: Reason = Reason::new("header that is found in ways that are not understood");

impl Search<'_> {
    /// Does the search again.
    ///
    /// # Errors
    /// Why what it depends on is not known: then the compile can't be recognised without preprocessing.
    pub(super) fn repeat(&self) -> Result<Looked, Reason> {
        let otherwise = if self.is_msvc() { searches_otherwise_for_msvc } else { searches_otherwise };
        if self.is_msvc() && !is_bare_msvc(self.about) || self.compile.arguments.iter().any(otherwise) {
            return Err(ELSEWHERE);
        }
        let chains = Chains::read(self.about);
        let mut walk = Walk { place: self.place, known: HashMap::new(), absent: BTreeSet::new() };
        let mut entered_first: Vec<Rc<str>> = Vec::new();
        for argument in &self.compile.arguments {
            let Argument::IncludeFile { flag, file } = argument else { continue };
            if *flag == "-imacros" {
                // What it includes doesn't show.
                return Err("`-imacros`".into());
            }
            let found = walk.find(std::iter::once("").chain(chains.quoted()), file)?.ok_or(ELSEWHERE)?;
            self.check_known(&found)?;
            entered_first.push(found);
        }
        if !self.is_msvc() {
            entered_first.extend(walk.find(chains.angled(), "stdc-predef.h")?);
            // An action includes it by its name, which looks here first.
            walk.find(std::iter::once("").chain(chains.quoted()), "stdc-predef.h")?;
        }
        self.follow(&chains, &mut walk, &entered_first)?;
        let mut folders: Vec<String> = self.path.all().map(|folder| self.place.absolute(folder)).collect();
        folders.extend(ignored_folders(self.about).map(|folder| self.place.absolute(folder)));
        let mut looked = Looked { absent: walk.absent, folders, ..Looked::default() };
        if self.toolchain.family == Family::Clang {
            self.add_choices_of_clang(&mut looked);
        }
        Ok(looked)
    }

    fn follow(&self, chains: &Chains, walk: &mut Walk<'_>, entered_first: &[Rc<str>]) -> Result<(), Reason> {
        let mut steps = self.text.steps.iter().peekable();
        let mut above = Above::default();
        while let Some(step) = steps.next() {
            let (by, name, form) = match step {
                Step::Asked { by, name, form } => (by, name, *form),
                // Without a word that asks, only what comes before the source is entered.
                Step::Entered(file) if entered_first.iter().any(|first| walk.are_one(first, file)) => {
                    continue;
                }
                Step::Entered(_) => return Err(ELSEWHERE),
            };
            let entered = match steps.peek() {
                Some(Step::Entered(file)) => Some(file.clone()),
                _ => None,
            };
            if entered.is_some() {
                steps.next();
            }
            let asking = by.as_deref().unwrap_or(&self.compile.source);
            if let Some(file) = entered.as_ref().filter(|_| self.is_msvc()) {
                above.enter(file, asking);
            }
            let found = match form {
                Form::Quoted if self.is_msvc() => {
                    self.find_above(walk, chains, (asking, name), entered.as_deref(), &above)?
                }
                Form::Quoted => walk.find(std::iter::once(folder_of(asking)).chain(chains.quoted()), name)?,
                Form::Angled => walk.find(chains.angled(), name)?,
                Form::Next => {
                    // Where it begins depends on how the asking file was found: all that isn't there counts.
                    for folder in chains.quoted() {
                        walk.is_there(folder, name)?;
                    }
                    continue;
                }
            };
            let found = found.ok_or(ELSEWHERE)?;
            match entered {
                Some(entered) if !walk.are_one(&found, &entered) => return Err(ELSEWHERE),
                Some(_) => {}
                // It was read before, and is left out this time.
                None => self.check_known(&found)?,
            }
        }
        Ok(())
    }

    /// Finds a header by Microsoft's rules: beside the file that asks, beside those above it, and in the folders of the
    /// search.
    fn find_above(
        &self,
        walk: &mut Walk<'_>,
        chains: &Chains,
        (asking, name): (&str, &str),
        entered: Option<&str>,
        above: &Above,
    ) -> Result<Option<Rc<str>>, Reason> {
        if name.contains('\\') {
            return Err(ELSEWHERE);
        }
        if let Some(found) = walk.is_there(folder_of(asking), name)? {
            return Ok(Some(found));
        }
        let mut found = Vec::new();
        for folder in above.of(asking) {
            // Nobody knows whether that way was gone: the compile needn't be passed through over it.
            let there = walk.is_there(&folder, name);
            found.extend(there.map_err(|reason| if reason == LEADS_OUT { ELSEWHERE } else { reason })?);
        }
        if found.is_empty() {
            return walk.find(chains.quoted(), name);
        }
        // In which order they were asked isn't known, but all that are not there are noted.
        let is_it = |found: &Rc<str>| match entered {
            Some(entered) => walk.are_one(found, entered),
            None => (self.is_known)(found),
        };
        Ok(found.into_iter().find(is_it))
    }

    fn is_msvc(&self) -> bool {
        self.compile.dialect == Dialect::Msvc
    }

    fn check_known(&self, found: &str) -> Result<(), Reason> {
        if (self.is_known)(found) { Ok(()) } else { Err(ELSEWHERE) }
    }

    /// Adds what clang goes by when it chooses its own folders: the installations of GCC that it may find, and the
    /// files of configuration that it would read.
    fn add_choices_of_clang(&self, looked: &mut Looked) {
        let driver = &self.toolchain.driver;
        let real = driver.canonicalize().unwrap_or_else(|_| driver.clone());
        let mut bins: BTreeSet<&Path> = BTreeSet::new();
        bins.extend(driver.parent());
        bins.extend(real.parent());
        let mut prefixes: BTreeSet<String> = BTreeSet::from(["/usr".to_owned()]);
        prefixes.extend(bins.iter().filter_map(|bin| Some(bin.parent()?.to_str()?.to_owned())));
        for prefix in prefixes {
            for lib in ["lib", "lib64", "lib32", "libx32"] {
                for kind in ["gcc", "gcc-cross"] {
                    list_below(&mut looked.listings, &format!("{prefix}/{lib}/{kind}"), 2);
                }
            }
            list_below(&mut looked.listings, &format!("{prefix}/include/c++"), 0);
        }
        list_below(&mut looked.listings, "/opt/rh", 0);
        let target = target(self.about);
        let own = driver.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        for bin in bins.iter().filter_map(|bin| bin.to_str()) {
            for name in ["clang", "clang++", &own] {
                looked.absent.insert(format!("{bin}/{name}.cfg"));
                looked.absent.insert(format!("{bin}/{target}-{name}.cfg"));
            }
            looked.absent.insert(format!("{bin}/{target}.cfg"));
        }
    }
}

/// Adds a folder, whether it is there or not, and those in it, down to a depth.
fn list_below(listings: &mut BTreeSet<String>, folder: &str, depth: usize) {
    listings.insert(folder.to_owned());
    if depth == 0 {
        return;
    }
    let Ok(entries) = Path::new(folder).read_dir() else { return };
    for entry in entries.flatten() {
        if let Some(path) = entry.path().to_str().filter(|path| Path::new(path).is_dir()) {
            list_below(listings, path, depth - 1);
        }
    }
}

/// Whether a flag makes clang look in more places.
fn searches_otherwise(argument: &Argument) -> bool {
    argument.words().iter().any(|word| {
        word.starts_with("-fms-")
            || word.contains("windows")
            || word.contains("msvc")
            || word.contains("mingw")
    })
}

/// The same for clang-cl: with these words it chooses among folders by what is in them, or goes by other rules than
/// Microsoft's.
fn searches_otherwise_for_msvc(argument: &Argument) -> bool {
    let Argument::Words(words) = argument else { return false };
    words.iter().any(|word| {
        let is_root = ["-winsysroot", "-winsdk", "-vctools"].iter().any(|root| word.starts_with(root));
        is_root || word.contains("-fno-ms-") || word.contains("version=0")
    })
}

/// Whether clang-cl looks in its own folder and those that `INCLUDE` names alone: for other targets than Microsoft's, and beside
/// a toolset of Microsoft's that variables lead to, it chooses by what is there.
fn is_bare_msvc(about: &str) -> bool {
    let set = environment::of_msvc(environment::of_process);
    let has_include = set.get("INCLUDE").is_some_and(|folders| folders.contains(|letter| letter != ';'));
    let has_toolset =
        set.keys().any(|name| !matches!(name.as_str(), "INCLUDE" | "EXTERNAL_INCLUDE")) && !has_include;
    target(about).ends_with("-windows-msvc") && !has_toolset
}

/// For which target a compiler compiles, by what it says under `-v`.
fn target(about: &str) -> &str {
    about.lines().find_map(|line| line.strip_prefix("Target: ")).unwrap_or_default()
}

/// The folder of a file as preprocessors take it: all letters before the last slash.
pub(super) fn folder_of(file: &str) -> &str {
    file.rfind('/').map_or("", |slash| if slash == 0 { "/" } else { &file[..slash] })
}

/// The folders that were searched, in order.
struct Chains {
    /// For quotes alone.
    quote: Vec<String>,
    both: Vec<String>,
}

impl Chains {
    fn read(about: &str) -> Self {
        let quote = about
            .lines()
            .skip_while(|line| !line.starts_with("#include \"...\""))
            .skip(1)
            .take_while(|line| line.starts_with(' '))
            .map(|line| line[1..].trim_end().to_owned());
        Self { quote: quote.collect(), both: probe_search_list(about).map(str::to_owned).collect() }
    }

    fn quoted(&self) -> impl Iterator<Item = &str> {
        self.quote.iter().chain(&self.both).map(String::as_str)
    }

    fn angled(&self) -> impl Iterator<Item = &str> {
        self.both.iter().map(String::as_str)
    }
}

/// A search through folders that remembers what it saw.
struct Walk<'a> {
    place: &'a Place,
    /// Paths, and whether there is a file.
    known: HashMap<String, bool>,
    absent: BTreeSet<String>,
}

impl Walk<'_> {
    /// The first file of that name, as spelled.
    fn find<'b>(
        &mut self,
        folders: impl Iterator<Item = &'b str>,
        name: &str,
    ) -> Result<Option<Rc<str>>, Reason> {
        if name.starts_with('/') {
            return Ok(Path::new(name).is_file().then(|| name.into()));
        }
        for folder in folders {
            if let Some(found) = self.is_there(folder, name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The spelling of the file if it is in the folder.
    fn is_there(&mut self, folder: &str, name: &str) -> Result<Option<Rc<str>>, Reason> {
        if let Some(frameworks) = folder.strip_suffix(" (framework directory)") {
            return self.is_in_framework(frameworks, name);
        }
        let spelled = match folder {
            "" => name.to_owned(),
            folder => format!("{}/{name}", folder.trim_end_matches('/')),
        };
        if self.place.crosses(folder, &self.place.absolute(&spelled)) {
            return Err(LEADS_OUT);
        }
        self.look(&spelled).map(|is_there| is_there.then(|| spelled.into()))
    }

    /// Apple's: `<A/b.h>` is `A.framework/Headers/b.h`.
    fn is_in_framework(&mut self, folder: &str, name: &str) -> Result<Option<Rc<str>>, Reason> {
        let Some((framework, header)) = name.split_once('/') else { return Ok(None) };
        for kind in ["Headers", "PrivateHeaders"] {
            let spelled = format!("{folder}/{framework}.framework/{kind}/{header}");
            if self.look(&spelled)? {
                return Ok(Some(spelled.into()));
            }
        }
        Ok(None)
    }

    fn look(&mut self, spelled: &str) -> Result<bool, Reason> {
        if let Some(known) = self.known.get(spelled) {
            return Ok(*known);
        }
        let absolute = self.place.absolute(spelled);
        let is_there = is_file_for_compilers(Path::new(&absolute)).ok_or(ELSEWHERE)?;
        if !is_there {
            self.absent.insert(absolute);
        }
        self.known.insert(spelled.to_owned(), is_there);
        Ok(is_there)
    }

    fn are_one(&self, one: &str, other: &str) -> bool {
        let identity = |spelled: &str| {
            let metadata = Path::new(&self.place.absolute(spelled)).metadata().ok()?;
            let stamp = Platform::stamp(&metadata);
            Some((stamp.device, stamp.inode))
        };
        one == other || identity(one).is_some_and(|one| Some(one) == identity(other))
    }
}

/// Whether compilers take a path for a file, as they look for headers: a folder is none. `None` if they would stop there
/// with an error.
pub fn is_file_for_compilers(path: &Path) -> Option<bool> {
    match path.metadata() {
        Ok(metadata) => Some(!metadata.is_dir()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Some(false),
        Err(_) => None,
    }
}
