//! Patterns of paths: `*` and `?` within a name, `**` for any folders.

use std::path::Path;

/// Most folders that a pattern is looked for in.
const FOLDERS_MAX: usize = 4096;

/// Whether a path is one that a pattern stands for.
pub fn fits(pattern: &str, path: &str) -> bool {
    let parts =
        |text: &str| text.split('/').filter(|part| *part != ".").map(str::to_owned).collect::<Vec<_>>();
    fit_parts(&parts(pattern), &parts(path))
}

fn fit_parts(pattern: &[String], path: &[String]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "**" => {
            fit_parts(rest, path) || path.split_first().is_some_and(|(_, behind)| fit_parts(pattern, behind))
        }
        (Some((first, rest)), Some((name, behind))) => {
            fits_name(first.as_bytes(), name.as_bytes()) && fit_parts(rest, behind)
        }
        _ => false,
    }
}

fn fits_name(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            fits_name(rest, name) || name.split_first().is_some_and(|(_, behind)| fits_name(pattern, behind))
        }
        (Some((b'?', rest)), Some((_, behind))) => fits_name(rest, behind),
        (Some((a, rest)), Some((b, behind))) => a == b && fits_name(rest, behind),
        _ => false,
    }
}

/// The files that a pattern stands for, by their absolute paths. `None` if they are looked for in too many folders.
pub fn files(pattern: &str, folder: &str) -> Option<Vec<String>> {
    let pattern = if pattern.starts_with('/') { pattern.to_owned() } else { format!("{folder}/{pattern}") };
    let is_fixed = |part: &&str| !part.contains(['*', '?']);
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let fixed: Vec<&str> = parts.iter().copied().take_while(is_fixed).collect();
    let base = format!("/{}", fixed.join("/"));
    if fixed.len() == parts.len() {
        return Some(if Path::new(&base).is_file() { vec![base] } else { Vec::new() });
    }
    let normal = format!("/{}", parts.join("/"));
    let depth = if parts.contains(&"**") { usize::MAX } else { parts.len() - fixed.len() };
    let mut found = Vec::new();
    let mut open = vec![(base, depth)];
    let mut looked_at = 0;
    while let Some((folder, depth)) = open.pop() {
        looked_at += 1;
        if looked_at > FOLDERS_MAX {
            return None;
        }
        for entry in Path::new(&folder).read_dir().into_iter().flatten().flatten() {
            let path = format!("{}/{}", folder.trim_end_matches('/'), entry.file_name().to_str()?);
            let metadata = Path::new(&path).metadata();
            // Links to folders are not followed: they may lead back.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if depth > 1 {
                    open.push((path, depth.saturating_sub(1)));
                }
            } else if metadata.is_ok_and(|metadata| metadata.is_file()) && fits(&normal, &path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_names_and_folders() {
        for (pattern, path) in [("*.py", "a.py"), ("a/**/x", "a/x"), ("a/**/x", "a/b/c/x"), ("./a?", "ab")] {
            assert!(fits(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [("*.py", "b/a.py"), ("a/*/x", "a/x"), ("a?", "a"), ("*.py", "a.pyc")] {
            assert!(!fits(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn files_are_found_by_patterns() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        for name in ["x.h", "a/y.h", "a/b/z.h", "a/b/z.c"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = |pattern: &str| files(pattern, root).unwrap().len();
        assert_eq!(
            (found("*.h"), found("**/*.h"), found("a/*.h"), found("x.h"), found("q.h")),
            (1, 3, 1, 1, 0)
        );
    }
}
