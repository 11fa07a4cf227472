//! The files of the repository, or of a made-up one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::scan::Layers;

/// Files by their path from the root, with `/` between segments.
pub(crate) struct Tree {
    pub(crate) files: BTreeMap<String, String>,
}

/// Folders that hold what nobody wrote. Folders with a dot in front are skipped too, but for `.ci`.
const SKIPPED: [&str; 2] = ["target", "generated"];
const ENDINGS: [&str; 7] = ["rs", "toml", "md", "proto", "sh", "py", "svg"];

impl Tree {
    pub(crate) fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self { files: files.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect() }
    }

    pub(crate) fn of_this_repository() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a parent folder");
        let mut tree = Self { files: BTreeMap::new() };
        tree.add(root, "");
        tree
    }

    /// Rust files, each with its code and its comments apart.
    pub(crate) fn rust(&self) -> impl Iterator<Item = (&str, Layers)> {
        self.with_ending(".rs").map(|(path, text)| (path, Layers::of(text)))
    }

    pub(crate) fn with_ending(&self, ending: &'static str) -> impl Iterator<Item = (&str, &str)> {
        let files = self.files.iter().filter(move |(path, _)| path.ends_with(ending));
        files.map(|(path, text)| (path.as_str(), text.as_str()))
    }

    fn add(&mut self, folder: &Path, prefix: &str) {
        for entry in fs::read_dir(folder).expect("a folder of the repository") {
            let entry = entry.expect("an entry of the folder");
            let name = entry.file_name().into_string().expect("names are UTF-8");
            let kind = entry.file_type().expect("the kind of an entry");
            let hidden = name.starts_with('.') && name != ".ci";
            if kind.is_dir() && !hidden && !SKIPPED.contains(&name.as_str()) {
                self.add(&entry.path(), &format!("{prefix}{name}/"));
            } else if kind.is_file() && !hidden {
                self.add_file(&entry.path(), format!("{prefix}{name}"));
            }
        }
    }

    /// Adds a file that people write: by its ending, or a script without one.
    fn add_file(&mut self, file: &Path, path: String) {
        let ending = file.extension().and_then(|ending| ending.to_str());
        if ending.is_none_or(|ending| ENDINGS.contains(&ending))
            && let Ok(text) = fs::read_to_string(file)
        {
            self.files.insert(path, text);
        }
    }
}

#[test]
fn the_walk_finds_what_we_wrote_and_nothing_else() {
    let tree = Tree::of_this_repository();
    for path in ["Cargo.toml", "cas/src/digest.rs", "tests/tests/house/tree.rs", "proto/Cargo.toml"] {
        assert!(tree.files.contains_key(path), "{path} is missing");
    }
    let strange = |path: &String| path.contains("target/") || path.contains("generated/");
    assert_eq!(tree.files.keys().find(|path| strange(path)), None);
}
