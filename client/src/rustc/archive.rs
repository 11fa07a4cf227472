//! Static libraries that rustc puts into a crate's: it doesn't say which, so it is seen in what it made.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;

use super::arguments::Compile;
use crate::reason::Reason;

const MAGIC: &[u8] = b"!<arch>\n";

/// How an archive begins that names its members, but doesn't hold them.
const THIN: &[u8; 8] = b"!<thin>\n";

/// Bytes of a member's head.
const HEAD_BYTES: usize = 60;

/// Most static libraries that are taken for read.
const LIBRARIES_MAX: usize = 64;

/// What rustc itself puts into an archive.
const OWN: [&str; 2] = [".rmeta", ".rcgu.o"];

/// Whether a file is an archive of which the members are other files.
pub fn is_thin(path: &Path) -> bool {
    let mut head = [0; THIN.len()];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head == *THIN
}

/// The static libraries that may be in a crate's archive, and where others might appear; none if nothing of that kind is
/// in it. Paths are as they were spelled.
///
/// # Errors
/// The reason not to keep it.
pub fn static_libraries(
    archives: &[&[u8]],
    compile: &Compile,
    folder: &Path,
    sources: &BTreeSet<String>,
) -> Result<(BTreeSet<String>, BTreeSet<String>), Reason> {
    if archives.is_empty() {
        return Ok((BTreeSet::new(), BTreeSet::new()));
    }
    let mut is_plain = !names_library(compile, sources)?;
    for archive in archives {
        let members = members(archive).ok_or(Reason::new("crate that can't be read"))?;
        is_plain &= members.iter().all(|name| OWN.iter().any(|own| name.ends_with(own)));
    }
    if is_plain || compile.search.is_empty() {
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

/// Whether a crate says that there is a library in it.
fn names_library(compile: &Compile, sources: &BTreeSet<String>) -> Result<bool, Reason> {
    let mut words = compile.words.windows(2).filter(|pair| pair[0] == "-l").map(|pair| pair[1].as_str());
    let mut has_any = false;
    let mut is_verbatim = words.clone().any(|word| word.contains("verbatim"));
    for path in sources {
        let bytes = std::fs::read(path).map_err(|_| Reason::new("source that can't be read"))?;
        let bytes: Vec<u8> = bytes.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
        // `unlink(` is none.
        let is_part = |at: usize| at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        if memchr::memmem::find_iter(&bytes, b"link(").any(|at| !is_part(at)) {
            has_any = true;
            is_verbatim |= memchr::memmem::find(&bytes, b"verbatim").is_some();
        }
    }
    if is_verbatim {
        return Err("library by the name of its file".into());
    }
    Ok(has_any || words.any(|word| word.starts_with("static")))
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
        let of = |name: &str, sources: &BTreeSet<String>| {
            static_libraries(&[&archive(&[(name, "x")])], &compile, Path::new("/"), sources)
        };
        assert!(of("x.rcgu.o/", &BTreeSet::new()).unwrap().0.is_empty());
        let (found, absent) = of("c.o/", &BTreeSet::new()).unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), [&format!("{path}/libx.a")]);
        let source = folder.path().join("a.rs");
        let sources = BTreeSet::from([source.to_str().unwrap().to_owned()]);
        std::fs::write(&source, "#[link (name = \"x\")]").unwrap();
        assert_eq!(of("x.rcgu.o/", &sources).unwrap().0, found);
        std::fs::write(&source, "#[link(name = \"x\", modifiers = \"+verbatim\")]").unwrap();
        assert!(of("x.rcgu.o/", &sources).is_err());
        assert_eq!(absent.into_iter().collect::<Vec<_>>(), [format!("{path}/empty/libx.a")]);
    }
}
