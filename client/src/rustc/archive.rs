//! Static libraries that rustc puts into a crate's: it doesn't say which, so it is seen in what it made.

use std::collections::BTreeSet;
use std::path::Path;

use super::arguments::Compile;
use crate::reason::Reason;

const MAGIC: &[u8] = b"!<arch>\n";

/// Bytes of a member's head.
const HEAD_BYTES: usize = 60;

/// Most static libraries that are taken for read.
const LIBRARIES_MAX: usize = 64;

/// What rustc itself puts into an archive.
const OWN: [&str; 2] = [".rmeta", ".rcgu.o"];

/// The static libraries that may be in a crate's archive, and where others might appear; none if nothing of that kind is
/// in it. Paths are as they were spelled.
///
/// # Errors
/// The reason not to keep it.
pub fn static_libraries(
    archives: &[&[u8]],
    compile: &Compile,
    folder: &Path,
) -> Result<(BTreeSet<String>, BTreeSet<String>), Reason> {
    let mut is_plain = true;
    for archive in archives {
        let members = members(archive).ok_or(Reason::new("crate that can't be read"))?;
        is_plain &= members.iter().all(|name| OWN.iter().any(|own| name.ends_with(own)));
    }
    let names_one = compile.words.windows(2).any(|pair| pair[0] == "-l" && pair[1].starts_with("static"));
    if (is_plain && !names_one) || compile.search.is_empty() {
        return Ok((BTreeSet::new(), BTreeSet::new()));
    }
    let folders: BTreeSet<&String> = compile.search.iter().map(|(_, path)| path).collect();
    let (mut names, mut found) = (BTreeSet::new(), BTreeSet::new());
    for searched in &folders {
        for entry in folder.join(searched).read_dir().into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if Path::new(&name).extension().is_some_and(|ending| ending == "a") {
                found.insert(format!("{searched}/{name}"));
                names.insert(name);
            }
        }
    }
    if found.len() > LIBRARIES_MAX || found.is_empty() {
        return Err("static library among many".into());
    }
    let all = folders.iter().flat_map(|folder| names.iter().map(move |name| format!("{folder}/{name}")));
    let absent = all.filter(|path| !found.contains(path)).collect();
    Ok((found, absent))
}

/// The names of an archive's members; `None` if it is none.
fn members(archive: &[u8]) -> Option<Vec<String>> {
    let mut rest = archive.strip_prefix(MAGIC)?;
    let (mut names, mut long_names) = (Vec::new(), &[][..]);
    while !rest.is_empty() {
        let (head, after) = rest.split_at_checked(HEAD_BYTES)?;
        let size: usize = std::str::from_utf8(&head[48..58]).ok()?.trim().parse().ok()?;
        let data = after.get(..size)?;
        let name = std::str::from_utf8(&head[..16]).ok()?.trim_end();
        match name {
            "//" => long_names = data,
            "/" | "/SYM64/" => {}
            _ => names.push(match name.strip_prefix('/').and_then(|at| at.parse::<usize>().ok()) {
                Some(at) => {
                    let long = long_names.get(at..)?;
                    let end = long.iter().position(|byte| *byte == b'\n')?;
                    String::from_utf8_lossy(&long[..end]).trim_end_matches('/').to_owned()
                }
                None => name.trim_end_matches('/').to_owned(),
            }),
        }
        rest = after.get(size + size % 2..).unwrap_or_default();
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(members: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (name, data) in members {
            bytes.extend(format!("{name:<16}{:<32}{:<10}`\n{data}", "0", data.len()).bytes());
            bytes.extend((data.len() % 2 == 1).then_some(b'\n'));
        }
        bytes
    }

    #[test]
    fn members_are_named_short_and_long() {
        let bytes =
            archive(&[("/", "abc"), ("//", "a_long_name.rcgu.o/\n"), ("/0", "x"), ("lib.rmeta/", "yy")]);
        assert_eq!(members(&bytes).unwrap(), ["a_long_name.rcgu.o", "lib.rmeta"]);
        assert_eq!(members(&bytes[..bytes.len() - 1]), None);
    }

    #[test]
    fn a_member_of_another_make_means_the_static_libraries_that_were_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        std::fs::write(folder.path().join("libx.a"), "").unwrap();
        let search =
            vec![("native".to_owned(), format!("{path}/empty")), ("native".to_owned(), path.to_owned())];
        let compile = Compile { search, ..Compile::default() };
        let of =
            |name: &str| static_libraries(&[&archive(&[(name, "x")])], &compile, Path::new("/")).unwrap();
        assert!(of("x.rcgu.o/").0.is_empty());
        let (found, absent) = of("c.o/");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [format!("{path}/libx.a")]);
        assert_eq!(absent.into_iter().collect::<Vec<_>>(), [format!("{path}/empty/libx.a")]);
    }
}
