//! Whether a crate uses `OUT_DIR`, the folder of what its build script made, for nothing but to include what is there.

use std::collections::BTreeSet;

use super::has_ending;
use super::situation::Situation;
use super::texts::DepInfo;

/// The folder of what a build script made.
pub const OUT_DIR: &str = "OUT_DIR";

/// Macros that take a path and leave nothing of it behind.
const INCLUDING: [&str; 3] = ["include!(", "include_str!(", "include_bytes!("];

/// How a variable is asked for, in a crate's source.
const ASKING: &str = "env!(";

/// Whether the sources of a crate, and of the crates in `asking`, use that name only so. Macros of those may be used in it.
pub fn is_only_included(sources: &[String], asking: &BTreeSet<String>, here: &Situation) -> bool {
    let absolute = |sources: &[String]| sources.iter().map(|path| here.place.absolute(path)).collect();
    let of_crate = |path: &String| {
        let info = sources_of(path).map(|sources| absolute(&sources));
        info.is_some_and(|sources| are_only_included(&sources))
    };
    are_only_included(&absolute(sources)) && asking.iter().all(of_crate)
}

/// The sources of a crate, as the dep-info beside it says.
fn sources_of(path: &str) -> Option<Vec<String>> {
    let (folder, name) = path.rsplit_once('/')?;
    let name = name.strip_suffix(".rmeta").or_else(|| name.strip_suffix(".rlib"))?.strip_prefix("lib")?;
    let text = std::fs::read_to_string(format!("{folder}/{name}.d")).ok()?;
    Some(DepInfo::read(&text).sources)
}

fn are_only_included(sources: &BTreeSet<String>) -> bool {
    let mut uses = 0;
    for path in sources {
        let Ok(bytes) = std::fs::read(path) else { return false };
        let Ok(text) = std::str::from_utf8(&bytes) else {
            // Included as it is, or not read as a source.
            if memchr::memmem::find(&bytes, OUT_DIR.as_bytes()).is_some() || has_ending(path, "rs") {
                return false;
            }
            continue;
        };
        let text: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
        if text.match_indices(ASKING).any(|(at, _)| !is_plain(&text[at + ASKING.len()..])) {
            return false;
        }
        for (at, _) in text.match_indices(OUT_DIR) {
            let before = text[..at].strip_suffix("concat!(env!(\"");
            if !before.is_some_and(|before| INCLUDING.iter().any(|macro_| before.ends_with(macro_))) {
                return false;
            }
            uses += 1;
        }
    }
    uses > 0
}

/// Whether what is asked for is a name that stands there as it is.
fn is_plain(asked: &str) -> bool {
    let name = asked.strip_prefix('"').and_then(|name| name.split('"').next());
    name.is_some_and(|name| !name.contains('\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_used_for_more_than_to_include_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.rs");
        let holds = |text: &str| {
            std::fs::write(&file, text).unwrap();
            are_only_included(&BTreeSet::from([file.to_str().unwrap().to_owned()]))
        };
        let include = "include!(concat!(env!(\"OUT_DIR\"), \"/x.rs\"));\n";
        assert!(holds(include));
        assert!(holds(&format!(
            "{include}const A: &str = include_str!(\n concat!(env!(\"OUT_DIR\"), \"/y\"));"
        )));
        for more in [
            "const A: &str = env!(\"OUT_DIR\");",
            "const A: &str = concat!(env!(\"OUT_DIR\"), \"/x\");",
            "const A: &str = env!(\"OUT\\u{5f}DIR\");",
            "const A: &str = env!(concat!(\"OUT_\", \"DIR\"));",
        ] {
            assert!(!holds(&format!("{include}{more}")), "{more}");
        }
        assert!(!holds("fn main() {}"), "another crate's macro asks for it");
    }
}
