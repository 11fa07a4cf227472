//! Which outputs a result may name: paths that stay below the folder they are meant for.

use std::collections::HashSet;

use castwork_proto::reapi::{ActionResult, OutputSymlink};
use tonic::Status;

use super::errors::bad;
use super::instance::clip;

/// Checks the paths of a result that a client states, so that no other client writes beside its outputs.
///
/// # Errors
/// `INVALID_ARGUMENT` that names the path and what is wrong with it.
pub(crate) fn check(result: &ActionResult) -> Result<(), Status> {
    let mut seen = HashSet::new();
    for file in &result.output_files {
        check_path(&file.path)?;
        once(&mut seen, &file.path)?;
        if file.digest.is_none() {
            return Err(bad(format!("output `{}` has no digest", clip(&file.path))));
        }
    }
    for directory in &result.output_directories {
        // The empty path is the working directory itself.
        if !directory.path.is_empty() {
            check_path(&directory.path)?;
        }
        once(&mut seen, &directory.path)?;
        if directory.tree_digest.is_none() && directory.root_directory_digest.is_none() {
            return Err(bad(format!("output `{}` has no digest", clip(&directory.path))));
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

fn check_link(link: &OutputSymlink) -> Result<(), Status> {
    check_path(&link.path)?;
    if link.target.is_empty() || link.target.contains('\0') {
        return Err(bad(format!("output `{}` is a link to an illegal target", clip(&link.path))));
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), Status> {
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
    Err(bad(format!("output path `{}` {reason}", clip(path))))
}

fn once<'a>(seen: &mut HashSet<&'a str>, path: &'a str) -> Result<(), Status> {
    if seen.insert(path) { Ok(()) } else { Err(bad(format!("output path `{}` is there twice", clip(path)))) }
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
