//! [`Situation`]: where a crate is compiled, and which of the folders there show in what comes of it.
//!
//! rustc writes the names of sources and of its working folder into what it makes, but not where that is put. So the
//! build's folder has a virtual name, and the working folder has one if a map takes its name out of the outputs.

use std::path::Path;

use super::arguments::Compile;
use crate::local::Platform;
use crate::paths::{BUILD, Mount, PROJECT, Place};
use crate::reason::Reason;

/// What lies in the folder of a build by cargo.
const BUILD_MARK: &str = "CACHEDIR.TAG";

/// What lies in the folder of a profile, within that; the former is missing if cargo didn't make the folder.
const PROFILE_MARK: &str = ".cargo-lock";

/// How far above the outputs that folder may be.
const LEVELS_MAX: usize = 8;

/// What names are written for folders that are mapped by us.
const MAPPED: &str = "/castwork";

/// Folders of cargo's home, with sources that nobody changes.
const SHARED: [&str; 2] = [REGISTRY, "/git/checkouts/"];
const REGISTRY: &str = "/registry/src/";

/// What cargo leaves where it has unpacked a package, or checked out a repository.
const UNPACKED: &str = ".cargo-ok";

/// Where a crate is compiled.
#[derive(Clone, Debug)]
pub struct Situation {
    /// The working folder, with names for the build's folder and a mapped one.
    pub place: Place,
    /// Where outputs go; absolute.
    pub outputs: String,
    /// The maps that we add.
    pub own_maps: Vec<(String, String)>,
    /// Whether the working folder's name doesn't show in the outputs.
    pub is_folder_mapped: bool,
    /// Whether the build's doesn't.
    pub is_build_mapped: bool,
}

impl Situation {
    /// Finds where this process is. If it `remaps`, folders get fixed names in the outputs.
    ///
    /// # Errors
    /// The reason to pass the call through.
    pub fn find(compile: &Compile, remaps: bool) -> Result<Self, Reason> {
        if !Platform::HAS_VIRTUAL_PATHS {
            return Err("paths of this operating system".into());
        }
        let folder = std::env::current_dir().ok().and_then(|folder| folder.to_str().map(str::to_owned));
        let folder = folder.ok_or(Reason::new("folder with an unusual name"))?;
        Self::of(compile, remaps, &folder)
    }

    fn of(compile: &Compile, remaps: bool, folder: &str) -> Result<Self, Reason> {
        let plain = Place::new(folder.to_owned(), None)?;
        let outputs = match compile.folder.as_str() {
            "" => folder.to_owned(),
            spelled => plain.absolute(spelled).trim_end_matches('/').to_owned(),
        };
        let build = build_folder(&outputs).unwrap_or_else(|| outputs.clone());
        let own_maps = if remaps { own_maps(folder, &build) } else { Vec::new() };
        // The last that fits counts, to rustc.
        let maps: Vec<&String> = compile.maps.iter().chain(&own_maps).map(|(old, _)| old).collect();
        let map_of = |path: &str| maps.iter().rev().find(|old| is_within(path, old)).copied().cloned();
        let (project, is_build_mapped) = (map_of(folder), map_of(&build).is_some());
        let is_folder_mapped = project.is_some();
        let mut mounts = Vec::new();
        if build != folder {
            mounts.push(Mount { name: BUILD, real: build });
        }
        mounts.extend(project.map(|real| Mount { name: PROJECT, real }));
        mounts.retain(|mount| mount.real.len() > 1);
        let is_plain = |letter: char| {
            letter.is_ascii_alphanumeric() || matches!(letter, '/' | '.' | '_' | '-' | '+' | '@')
        };
        let is_usual = |mount: &Mount| mount.real.chars().all(is_plain);
        let number = mounts.len();
        let all_usual = mounts.iter().all(is_usual);
        let place = plain.with_mounts(mounts);
        if !all_usual || place.mounts().len() != number {
            return Err("folder with an unusual name".into());
        }
        Ok(Self { place, outputs, own_maps, is_folder_mapped, is_build_mapped })
    }

    /// What an absolute path is called wherever the build lies; others are as they are, since the working folder counts.
    pub fn alias(&self, path: &str) -> String {
        if path.starts_with('/') { self.place.alias(path) } else { path.to_owned() }
    }

    /// Whether a path shows the build's folder, if it gets into the outputs.
    pub fn shows_build(&self, path: &str) -> bool {
        let name = self.place.alias(&self.place.absolute(path));
        !self.is_build_mapped && below(&name, BUILD)
    }

    /// The build's folder, if it isn't the working folder.
    pub fn build(&self) -> Option<&str> {
        self.place.mounts().iter().find(|mount| mount.name == BUILD).map(|mount| mount.real.as_str())
    }

    /// The names that belong to this place, and are virtual elsewhere.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.place.mounts().iter().map(|mount| mount.real.as_str())
    }
}

/// Whether a folder has sources that nobody changes: cargo has unpacked or checked them out, and says so by a file.
pub fn is_shared(folder: &str) -> bool {
    let is_cargos = |folder: &Path| folder.join(UNPACKED).is_file();
    SHARED.iter().any(|shared| folder.contains(shared))
        && Path::new(folder).ancestors().take(LEVELS_MAX).any(is_cargos)
}

/// Whether a folder is of a package that was published: all that it needs is in it.
pub fn is_published(folder: &str) -> bool {
    folder.contains(REGISTRY) && Path::new(folder).join(UNPACKED).is_file()
}

fn below(name: &str, mount: &str) -> bool {
    name.strip_prefix(mount).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a path is a folder's or below it.
fn is_within(path: &str, folder: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    !folder.is_empty() && below(path, folder)
}

/// The folder of a build by cargo that outputs are in.
fn build_folder(outputs: &str) -> Option<String> {
    let with = |mark: &str| {
        let mut ancestors = Path::new(outputs).ancestors().take(LEVELS_MAX);
        ancestors.find(|folder| folder.join(mark).is_file())
    };
    let marked = with(BUILD_MARK).or_else(|| with(PROFILE_MARK)?.parent())?;
    marked.to_str().map(str::to_owned)
}

/// The maps that give a build's folder a fixed name, and the one that the working folder is in.
fn own_maps(folder: &str, build: &str) -> Vec<(String, String)> {
    let mut maps = Vec::new();
    let shared = SHARED.iter().find_map(|shared| Some(&folder[..folder.find(shared)? + shared.len() - 1]));
    if let Some(shared) = shared {
        maps.push((shared.to_owned(), format!("{MAPPED}/r")));
    } else if !is_within(folder, build) {
        maps.push((folder.to_owned(), format!("{MAPPED}/{PROJECT}")));
    }
    maps.push((build.to_owned(), format!("{MAPPED}/{BUILD}")));
    maps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn situation(folder: &str, maps: &[(&str, &str)], remaps: bool) -> Situation {
        let maps = maps.iter().map(|(old, new)| ((*old).to_owned(), (*new).to_owned())).collect();
        let compile = Compile { folder: "/x/t".to_owned(), maps, ..Compile::default() };
        Situation::of(&compile, remaps, folder).unwrap()
    }

    #[test]
    fn outputs_have_a_virtual_name_and_the_working_folder_only_if_it_is_mapped() {
        let here = situation("/x", &[], false);
        assert_eq!((here.alias("/x/t/a").as_str(), here.alias("/x/a").as_str()), ("b/a", "abs/x/a"));
        assert!(here.shows_build("t/gen.rs") && !here.shows_build("src/lib.rs"));
        let mapped = situation("/x", &[("/x", ".")], false);
        assert_eq!((mapped.alias("/x/t/a").as_str(), mapped.alias("/x/a").as_str()), ("b/a", "p/a"));
        assert!(mapped.is_build_mapped && mapped.is_folder_mapped && mapped.own_maps.is_empty());
    }

    #[test]
    fn cargos_own_folder_has_a_fixed_name_as_well() {
        let here = situation("/h/.cargo/registry/src/i/a-1", &[], true);
        assert_eq!(here.own_maps[0], ("/h/.cargo/registry/src".to_owned(), "/castwork/r".to_owned()));
        assert_eq!(here.alias("/h/.cargo/registry/src/i/a-1/x.rs"), "p/i/a-1/x.rs");
        assert!(situation("/y", &[], true).is_folder_mapped);
    }

    #[test]
    fn names_that_are_written_with_escapes_are_refused() {
        assert!(Situation::of(&Compile::default(), true, "/a b").is_err());
    }
}
