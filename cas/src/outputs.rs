//! Which outputs a result may name: paths that stay below the folder they are meant for.

use std::collections::HashSet;

use castwork_proto::reapi::{ActionResult, OutputSymlink};

/// Most characters of a path that are shown.
const SHOWN_MAX: usize = 100;

/// An output that nobody should write down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("output `{path}` {reason}")]
pub struct OutputError {
    path: String,
    reason: &'static str,
}

/// Checks the paths of a result that somebody states, so that nobody who believes it writes beside its outputs.
///
/// # Errors
/// The first output that is wrong, and what is wrong with it.
pub fn check(result: &ActionResult) -> Result<(), OutputError> {
    let mut seen = HashSet::new();
    for file in &result.output_files {
        check_path(&file.path)?;
        once(&mut seen, &file.path)?;
        if file.digest.is_none() {
            return Err(wrong(&file.path, "has no digest"));
        }
    }
    for directory in &result.output_directories {
        // The empty path is the working directory itself.
        if !directory.path.is_empty() {
            check_path(&directory.path)?;
        }
        once(&mut seen, &directory.path)?;
        if directory.tree_digest.is_none() && directory.root_directory_digest.is_none() {
            return Err(wrong(&directory.path, "has no digest"));
        }
    }
    // Old clients look into the old fields, so a link may be in one of each.
    let mut seen_old = seen.clone();
    for link in &result.output_symlinks {
        check_link(link)?;
        once(&mut seen, &link.path)?;
    }
    #[expect(deprecated, reason = "old clients know no other fields")]
    let old_links = result.output_file_symlinks.iter().chain(&result.output_directory_symlinks);
    for link in old_links {
        check_link(link)?;
        once(&mut seen_old, &link.path)?;
    }
    Ok(())
}

fn check_link(link: &OutputSymlink) -> Result<(), OutputError> {
    check_path(&link.path)?;
    if link.target.is_empty() || link.target.contains('\0') {
        return Err(wrong(&link.path, "is a link to an illegal target"));
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), OutputError> {
    let reason = if path.is_empty() {
        "is empty"
    } else if path.starts_with('/') {
        "is absolute"
    } else if path.contains('\0') {
        "holds a NUL"
    } else if path.split('/').any(|segment| segment == "..") {
        "climbs"
    } else if path.split('/').any(|segment| matches!(segment, "" | ".")) {
        "has a segment that names nothing"
    } else {
        return Ok(());
    };
    Err(wrong(path, reason))
}

fn once<'a>(seen: &mut HashSet<&'a str>, path: &'a str) -> Result<(), OutputError> {
    if seen.insert(path) { Ok(()) } else { Err(wrong(path, "is there twice")) }
}

fn wrong(path: &str, reason: &'static str) -> OutputError {
    OutputError { path: path.chars().take(SHOWN_MAX).collect(), reason }
}

#[cfg(test)]
mod tests {
    use castwork_proto::reapi::{Digest, OutputDirectory, OutputFile};

    use super::*;

    fn files(paths: &[&str]) -> ActionResult {
        let file = |path: &&str| OutputFile {
            path: (*path).to_owned(),
            digest: Some(Digest::default()),
            ..Default::default()
        };
        ActionResult { output_files: paths.iter().map(file).collect(), ..Default::default() }
    }

    #[test]
    fn paths_that_stay_below_are_taken_and_no_others() {
        assert!(check(&files(&["a", "b/c.o", ".hidden", "a..b/..c"])).is_ok());
        for path in ["", "/x", "../x", "a/../x", "a//b", "a/", "./a", "a/.", "a\0b", ".."] {
            assert!(check(&files(&[path])).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_path_is_one_output() {
        assert!(check(&files(&["a", "a"])).is_err());
        let directory = OutputDirectory {
            path: "a".to_owned(),
            tree_digest: Some(Digest::default()),
            ..Default::default()
        };
        let mut result = files(&["a"]);
        result.output_directories.push(directory);
        assert!(check(&result).is_err());
    }

    #[test]
    #[expect(deprecated, reason = "old clients know no other fields")]
    fn a_link_may_be_in_an_old_and_in_the_new_field() {
        let link = |target: &str| OutputSymlink {
            path: "link".to_owned(),
            target: target.to_owned(),
            ..Default::default()
        };
        let mut result = ActionResult {
            output_symlinks: vec![link("../x")],
            output_file_symlinks: vec![link("../x")],
            ..Default::default()
        };
        assert!(check(&result).is_ok());
        result.output_directory_symlinks.push(link("y"));
        assert!(check(&result).is_err());
        let dangling = ActionResult { output_symlinks: vec![link("")], ..Default::default() };
        assert!(check(&dangling).is_err());
    }

    #[test]
    fn an_output_without_a_digest_is_none() {
        let mut result = files(&["a"]);
        result.output_files[0].digest = None;
        assert!(check(&result).is_err());
    }
}
