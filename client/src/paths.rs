//! Virtual paths: what a file is called in the action, wherever the project lies.
//!
//! The input root of an action appears at `/build`. What is below the project's root is called `p/…` there, and
//! everything else `abs/…` with its absolute path behind. Relative paths stay as they are, because the working
//! folder keeps its place below the root.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::builds::Build;
use crate::local::Platform;
use crate::reason::Reason;

/// Where the input root appears on every worker.
pub const INPUT_ROOT: &str = "/build";

/// What the project's root is called in the input root.
pub const PROJECT: &str = "p";

/// What the root of the file system is called in the input root.
pub const ABSOLUTE: &str = "abs";

/// What the folder of a build is called in the input root, if it isn't in the project's own.
pub const BUILD: &str = "b";

/// What the folder is called that an isolated build's packages are installed to.
pub const ISOLATED: &str = "e";

/// What the folder is called that a package's sources were unpacked to.
pub const UNPACKED: &str = "s";

/// What the folder of a build is called that lies right in the project's own, from where its command leads back (`../a.c`).
/// No project may have a folder of this name.
pub const BUILD_INSIDE: &str = "p/.castwork-build";

/// What the folder with Python's own headers is called, of whichever version.
pub const PYTHON: &str = "y";

/// All that have names of their own; a name within another comes before it.
pub const MOUNTS: [&str; 6] = [BUILD_INSIDE, PROJECT, BUILD, ISOLATED, UNPACKED, PYTHON];

/// Why a path has no virtual name: it climbs out of a folder that is called something of its own.
pub const LEADS_OUT: Reason = Reason::new("path that leads out of the project and back");

/// What lies at the root of a project.
const ROOT_MARKS: [&str; 6] =
    [".git", ".hg", "WORKSPACE", "WORKSPACE.bazel", "MODULE.bazel", "castwork.toml"];

/// Where a compile happens: its working folder and the root of its project.
#[derive(Clone, Debug)]
pub struct Place {
    /// The working folder: absolute, without `.`, `..` and double slashes, as the compiler will write it.
    pub folder: String,
    /// The project's root, in the same form; `None` if nothing is called `p/…`.
    pub root: Option<String>,
    /// Whether the root is a guess: nobody named it, and nothing marks it.
    pub is_guess: bool,
    /// All folders that are called the same wherever they lie, the project among them: those with longer names first,
    /// so that one within another is found.
    mounts: Vec<Mount>,
    /// Folders that have been asked whether a `..` after them leads to where it reads.
    plain: RefCell<HashMap<String, bool>>,
}

/// A folder that is called the same wherever it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What it is called below the input root. None is the beginning of another, but for a folder within the project: maps of
    /// paths compare letters.
    pub name: &'static str,
    /// Where it is: absolute, without `.`, `..` and double slashes.
    pub real: String,
}

/// A file or folder by its two names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Located {
    /// Absolute, without `.` and `..`.
    pub real: PathBuf,
    /// Below the input root, e.g. `p/src/a.cc`.
    pub name: String,
    /// Folders, below the input root, that have to be there for the way to lead through them (`a` in `a/../b`).
    pub passed: BTreeSet<String>,
}

impl Place {
    /// Finds where this process is.
    ///
    /// # Errors
    /// The reason to pass through, if names of this kind can't be made virtual.
    pub fn find(root: Option<&Path>) -> Result<Self, Reason> {
        if !Platform::HAS_VIRTUAL_PATHS {
            return Err("paths of this operating system".into());
        }
        Self::of_folder(Path::new(&working_folder()?), root)
    }

    /// Finds where a folder is, as if this process were there.
    ///
    /// # Errors
    /// The reason to pass through, if names of this kind can't be made virtual.
    pub fn of_folder(folder: &Path, root: Option<&Path>) -> Result<Self, Reason> {
        let folder = folder.to_str().ok_or(Reason::new("folder with an unusual name"))?.to_owned();
        let marked = root.map(|root| root.to_string_lossy().into_owned()).or_else(|| marked_root(&folder));
        let is_guess = marked.is_none();
        let root = marked.or_else(|| guessed_root(&folder));
        Ok(Self { is_guess, ..Self::new(folder, root)? })
    }

    /// Puts together a place from a working folder and the root of a project; both absolute.
    ///
    /// # Errors
    /// The reason to pass through, if a name has something in it that compilers escape or maps can't hold.
    pub fn new(folder: String, root: Option<String>) -> Result<Self, Reason> {
        let root = root.map(|root| root.trim_end_matches('/').to_owned()).filter(|root| !root.is_empty());
        for name in std::iter::once(&folder).chain(&root) {
            if name.chars().any(|letter| letter.is_control() || matches!(letter, '"' | '\\')) {
                return Err("folder with an unusual name".into());
            }
            if !name.starts_with('/') || (name.len() > 1 && normal(name) != *name) {
                return Err("folder with an unusual name".into());
            }
        }
        let project = root.iter().map(|root| Mount { name: PROJECT, real: root.clone() });
        Ok(Self { mounts: project.collect(), folder, root, is_guess: false, plain: RefCell::default() })
    }

    /// The same place, with folders beside the project that have names of their own; or with another project, where its root
    /// was a guess.
    #[must_use]
    pub fn with_mounts(mut self, more: Vec<Mount>) -> Self {
        let is_usual = |real: &str| {
            real.len() > 1
                && normal(real) == real
                && !real.contains(|letter: char| letter.is_control() || matches!(letter, '"' | '\\'))
        };
        for mount in more {
            if mount.name == PROJECT && self.is_guess && is_usual(&mount.real) {
                self.mounts.retain(|known| known.name != PROJECT);
            }
            let is_known =
                self.mounts.iter().any(|known| known.name == mount.name || known.real == mount.real);
            if !is_known && is_usual(&mount.real) {
                self.mounts.push(mount);
            }
        }
        self.mounts.sort_by_key(|mount| std::cmp::Reverse(mount.real.len()));
        self
    }

    /// The same place without those beside the project; `None` if there are none.
    #[must_use]
    pub fn without_mounts(&self) -> Option<Self> {
        let project: Vec<Mount> =
            self.root.iter().map(|root| Mount { name: PROJECT, real: root.clone() }).collect();
        (project != self.mounts).then(|| Self { mounts: project, ..self.clone() })
    }

    /// The folders that are called the same wherever they lie; of two within each other the inner one comes first.
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// The names that make a text belong to this place: of the working folder, and of all with names of their own.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.folder.as_str()).chain(self.mounts.iter().map(|mount| mount.real.as_str()))
    }

    /// The folder with a name of its own that a path is in, and what comes behind its name.
    fn mount_of<'a>(&self, path: &'a str) -> Option<(&Mount, &'a str)> {
        self.mounts.iter().find_map(|mount| below(path, &mount.real).map(|rest| (mount, rest)))
    }

    /// Whether a normal path is called by the name of one of the folders.
    pub fn is_named(&self, path: &str) -> bool {
        self.mount_of(path).is_some()
    }

    /// Whether a path, found through a folder, is called by another folder's name than that one: where folders lie otherwise
    /// to each other, the same way leads elsewhere.
    pub fn crosses(&self, folder: &str, path: &str) -> bool {
        let named = |path: &str| {
            let path = if is_normal(path) { Cow::Borrowed(path) } else { normal(path).into() };
            self.mount_of(&path).map(|(mount, _)| mount.name)
        };
        let folder =
            if folder.starts_with('/') { Cow::Borrowed(folder) } else { self.absolute(folder).into() };
        named(&folder) != named(path)
    }

    /// The working folder below the input root.
    pub fn virtual_folder(&self) -> String {
        self.name_of(&self.folder)
    }

    /// What an absolute, normal path is called below the input root.
    fn name_of(&self, real: &str) -> String {
        match self.mount_of(real) {
            Some((mount, "")) => mount.name.to_owned(),
            Some((mount, rest)) => format!("{}/{rest}", mount.name),
            None => format!("{ABSOLUTE}{real}").trim_end_matches('/').to_owned(),
        }
    }

    /// What an absolute path is called wherever the project lies; unlike [`Place::locate`] it leaves `..` alone, so
    /// that looking there is what it was.
    pub fn alias(&self, path: &str) -> String {
        match self.mount_of(path) {
            Some((mount, "")) => mount.name.to_owned(),
            Some((mount, rest)) => format!("{}/{rest}", mount.name),
            None => format!("{ABSOLUTE}{path}"),
        }
    }

    /// The path that is called so here: the inverse of [`Place::alias`], and for normal paths of the name that
    /// [`Place::locate`] gives. `None` if nothing is called so here.
    pub fn real_of(&self, name: &str) -> Option<String> {
        if let Some(rest) =
            name.strip_prefix(ABSOLUTE).filter(|rest| rest.is_empty() || rest.starts_with('/'))
        {
            let path = if rest.is_empty() { "/" } else { rest };
            return self.mount_of(path).is_none().then(|| path.to_owned());
        }
        let (mount, rest) = self.mounts.iter().find_map(|mount| {
            let rest = name.strip_prefix(mount.name)?;
            (rest.is_empty() || rest.starts_with('/')).then_some((mount, rest))
        })?;
        let path = format!("{}{rest}", mount.real);
        // What is called otherwise here was something else where it was called so.
        self.mount_of(&path).is_some_and(|(inner, _)| inner.name == mount.name).then_some(path)
    }

    /// A path as spelled, made absolute by its letters alone.
    pub fn absolute(&self, spelled: &str) -> String {
        if spelled.starts_with('/') { spelled.to_owned() } else { format!("{}/{spelled}", self.folder) }
    }

    /// What the action's command line says for a path: the same if it is relative, else below `/build`.
    pub fn spelled_in_action(&self, path: &str) -> String {
        if !path.starts_with('/') {
            return path.to_owned();
        }
        match self.mount_of(path) {
            Some((mount, "")) => format!("{INPUT_ROOT}/{}", mount.name),
            Some((mount, _)) => format!("{INPUT_ROOT}/{}{}", mount.name, &path[mount.real.len()..]),
            None => format!("{INPUT_ROOT}/{ABSOLUTE}{path}"),
        }
    }

    /// Finds the names of a file or folder that the command line or the compiler spells so.
    ///
    /// # Errors
    /// The reason to pass through, if the virtual name would lead elsewhere than the real one.
    pub fn locate(&self, spelled: &str) -> Result<Located, Reason> {
        let absolute = self.absolute(spelled);
        let mut passed = BTreeSet::new();
        let mut real = String::new();
        for part in absolute.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    if !self.is_plain(&real) {
                        return Err("`..` after a symbolic link".into());
                    }
                    passed.insert(self.name_of(&real));
                    real.truncate(real.rfind('/').unwrap_or(0));
                }
                part => {
                    real.push('/');
                    real.push_str(part);
                }
            }
        }
        let name = self.name_of(&real);
        let in_action = self.spelled_in_action(spelled);
        let in_action = if in_action.starts_with('/') {
            in_action
        } else {
            format!("{INPUT_ROOT}/{}/{in_action}", self.virtual_folder())
        };
        if normal(&in_action) != format!("{INPUT_ROOT}/{name}") {
            return Err(LEADS_OUT);
        }
        Ok(Located { real: real.into(), name, passed })
    }

    /// What a path in debug information is called wherever it lies. `None` if that would read like another's name.
    pub fn virtual_name(&self, path: &str) -> Option<String> {
        match self.mount_of(path) {
            Some((mount, _)) => Some(format!("{INPUT_ROOT}/{}{}", mount.name, &path[mount.real.len()..])),
            None => below(path, INPUT_ROOT).is_none().then(|| path.to_owned()),
        }
    }

    /// The path that is called so here: the inverse of [`Place::virtual_name`]. `None` if nothing is called so here.
    pub fn real_name(&self, name: &str) -> Option<String> {
        if below(name, INPUT_ROOT).is_none() {
            return self.mount_of(name).is_none().then(|| name.to_owned());
        }
        let in_mount = |called: &&'static str| below(name, &format!("{INPUT_ROOT}/{called}")).is_some();
        let called = MOUNTS.into_iter().find(in_mount)?;
        let mount = self.mounts.iter().find(|mount| mount.name == called)?;
        let path = format!("{}{}", mount.real, &name[INPUT_ROOT.len() + 1 + called.len()..]);
        // What is called otherwise here was something else where it was called so.
        self.mount_of(&path).is_some_and(|(inner, _)| inner == mount).then_some(path)
    }

    fn is_plain(&self, folder: &str) -> bool {
        if let Some(known) = self.plain.borrow().get(folder) {
            return *known;
        }
        let is_plain = Path::new(folder).symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        self.plain.borrow_mut().insert(folder.to_owned(), is_plain);
        is_plain
    }
}

/// What comes after `root/` in `path`; empty if they are one.
fn below<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(root)?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/').map(|rest| rest.trim_start_matches('/')) }
}

/// Whether an absolute path is what [`normal`] makes of it.
fn is_normal(path: &str) -> bool {
    let is_part = |part: &str| !matches!(part, "" | "." | "..");
    path.strip_prefix('/').is_some_and(|path| path.is_empty() || path.split('/').all(is_part))
}

/// The path without `.`, `..` and doubled slashes, by its letters alone.
pub(crate) fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The working folder in the spelling that compilers take: `$PWD` if that is where we are, else the real one.
fn working_folder() -> Result<String, Reason> {
    let unusual = Reason::new("folder with an unusual name");
    let here = std::env::current_dir().map_err(|_| unusual.clone())?;
    let same = |other: &str| {
        let of = |path: &Path| path.metadata().map(|metadata| Platform::stamp(&metadata)).ok();
        let (a, b) = (of(Path::new(other)), of(Path::new(".")));
        matches!((a, b), (Some(a), Some(b)) if (a.device, a.inode) == (b.device, b.inode))
    };
    match std::env::var("PWD") {
        Ok(spelled) if spelled.starts_with('/') && same(&spelled) => Ok(spelled),
        _ => here.into_os_string().into_string().map_err(|_| unusual),
    }
}

/// The nearest folder above that is marked as the root of a project.
fn marked_root(folder: &str) -> Option<String> {
    let mut ancestors = ancestors(folder);
    let root = ancestors.find(|ancestor| ROOT_MARKS.iter().any(|mark| ancestor.join(mark).exists()))?;
    root.to_str().map(str::to_owned)
}

/// What may be the root of the project that a folder belongs to: what the sources of a build and its folder lie in.
fn guessed_root(folder: &str) -> Option<String> {
    let Some(build) = Build::of(folder) else { return Some(folder.to_owned()) };
    let sources = build.sources()?;
    ancestors(folder).find(|ancestor| Path::new(&sources).starts_with(ancestor))?.to_str().map(str::to_owned)
}

/// A folder and those above it, but for the highest.
pub fn ancestors(folder: &str) -> impl Iterator<Item = &Path> {
    Path::new(folder).ancestors().filter(|ancestor| ancestor.parent().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &str, root: &str) -> Place {
        Place::new(folder.to_owned(), Some(root.to_owned())).unwrap()
    }

    #[test]
    fn names_do_not_tell_where_the_project_lies() {
        let (here, there) = (place("/home/a/x/src", "/home/a/x"), place("/tmp/y/src", "/tmp/y"));
        assert_eq!(here.virtual_folder(), "p/src");
        assert_eq!(here.virtual_folder(), there.virtual_folder());
        assert_eq!(here.locate("a.cc").unwrap().name, there.locate("a.cc").unwrap().name);
        assert_eq!(here.locate("/home/a/x/i/h.h").unwrap().name, there.locate("/tmp/y/i/h.h").unwrap().name);
        assert_eq!(here.spelled_in_action("/home/a/x//i/"), "/build/p//i/");
        assert_eq!(here.spelled_in_action("/home/a/x"), "/build/p");
        assert_eq!(here.spelled_in_action("/home/a/xy/i"), "/build/abs/home/a/xy/i");
        assert_eq!(here.spelled_in_action("../i"), "../i");
    }

    #[test]
    fn what_is_called_so_in_one_place_is_found_in_another() {
        let (here, there) = (place("/home/a/x/src", "/home/a/x"), place("/tmp/y/src", "/tmp/y"));
        for (path, expected) in [
            ("/home/a/x/src/../h.h", "/tmp/y/src/../h.h"),
            ("/home/a/x", "/tmp/y"),
            ("/usr/include/x.h", "/usr/include/x.h"),
            ("/", "/"),
        ] {
            let name = here.alias(path);
            assert_eq!(here.real_of(&name).as_deref(), Some(path));
            assert_eq!(there.real_of(&name).as_deref(), Some(expected));
        }
        assert_eq!(here.real_of("abs/home/a/x/h.h"), None, "it is called otherwise");
        assert_eq!(here.real_of("pony"), None);
        assert_eq!(Place::new("/b".to_owned(), None).unwrap().real_of("p/h.h"), None);
    }

    #[test]
    fn a_way_through_a_folder_asks_for_that_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        let root = folder.path().to_str().unwrap();
        let located = place(root, root).locate("a/b/../../c.h").unwrap();
        assert_eq!(located.name, "p/c.h");
        assert_eq!(located.passed.into_iter().collect::<Vec<_>>(), ["p/a", "p/a/b"]);
    }

    #[test]
    fn a_way_out_of_the_project_is_refused_if_it_is_relative() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("x")).unwrap();
        let outer = folder.path().to_str().unwrap();
        let place = place(&format!("{outer}/x"), &format!("{outer}/x"));
        assert!(place.locate("../y.h").is_err());
        assert_eq!(place.locate(&format!("{outer}/y.h")).unwrap().name, format!("abs{outer}/y.h"));
        assert!(
            place.locate(&format!("{outer}/x/../y.h")).is_err(),
            "the spelling begins within the project"
        );
    }

    #[test]
    fn the_root_is_the_nearest_marked_folder_or_what_cmake_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir_all(path("repo/.git")).unwrap();
        std::fs::create_dir_all(path("repo/build/sub")).unwrap();
        assert_eq!(marked_root(&path("repo/build/sub")), Some(path("repo")));
        std::fs::create_dir_all(path("plain/build/sub")).unwrap();
        std::fs::create_dir_all(path("plain/source")).unwrap();
        assert_eq!(guessed_root(&path("plain/build")), Some(path("plain/build")));
        let cache = format!("X=1\nCMAKE_HOME_DIRECTORY:INTERNAL={}\n", path("plain/source"));
        std::fs::write(path("plain/build/CMakeCache.txt"), cache).unwrap();
        assert_eq!(guessed_root(&path("plain/build/sub")), Some(path("plain")));
    }

    #[test]
    fn names_that_compilers_escape_are_refused() {
        assert!(Place::new("/a\"b".to_owned(), None).is_err());
        assert!(Place::new("/a/../b".to_owned(), None).is_err());
    }
}
