//! [`Build`]: the folder that a build was configured in, and the sources that it is of.

use std::path::{Path, PathBuf};

use crate::paths::ancestors;

/// Most bytes of a file about a build that is read.
const BYTES_MAX: u64 = 8 << 20;

/// What `CMake` leaves in the folder of a build.
const CMAKE: &str = "CMakeCache.txt";

/// What Meson leaves there.
const MESON: &str = "meson-info/meson-info.json";

/// A build that was configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Its folder.
    pub folder: String,
    /// The file that tells of it.
    file: PathBuf,
}

impl Build {
    /// The nearest build that a folder is in.
    pub fn of(folder: &str) -> Option<Self> {
        ancestors(folder).find_map(|ancestor| {
            let file = [CMAKE, MESON].iter().map(|file| ancestor.join(file)).find(|file| file.is_file())?;
            Some(Self { folder: ancestor.to_str()?.to_owned(), file })
        })
    }

    /// Whether Meson makes it.
    pub fn is_meson(&self) -> bool {
        self.file.ends_with(MESON)
    }

    /// The folder of its sources.
    pub fn sources(&self) -> Option<String> {
        let text = read(&self.file)?;
        let sources = if self.is_meson() {
            let about: serde_json::Value = serde_json::from_str(&text).ok()?;
            about["directories"]["source"].as_str()?.to_owned()
        } else {
            text.lines().find_map(|line| line.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="))?.to_owned()
        };
        sources.starts_with('/').then_some(sources)
    }
}

fn read(file: &Path) -> Option<String> {
    if file.metadata().ok()?.len() > BYTES_MAX {
        return None;
    }
    std::fs::read_to_string(file).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_tells_where_its_sources_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir_all(path("a/sub")).unwrap();
        std::fs::create_dir_all(path("b/meson-info")).unwrap();
        std::fs::create_dir_all(path("b/x.p")).unwrap();
        std::fs::write(path("a/CMakeCache.txt"), "X=1\nCMAKE_HOME_DIRECTORY:INTERNAL=/some/where\n").unwrap();
        let about = r#"{"directories": {"source": "/else/where", "build": "/b"}}"#;
        std::fs::write(path("b/meson-info/meson-info.json"), about).unwrap();
        for (inside, build, sources) in [("a/sub", "a", "/some/where"), ("b/x.p", "b", "/else/where")] {
            let found = Build::of(&path(inside)).unwrap();
            assert_eq!((found.folder.clone(), found.sources()), (path(build), Some(sources.to_owned())));
        }
    }
}
