//! The crates behind those that are named: rustc looks for them in the folders of dependencies.
//!
//! Which they are is in the metadata of a crate, by what was appended to their names. All that looks so is taken for such a
//! name: cargo's are sixteen digits that are met by no chance. Other files there count always, as far as they are crates.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::direct::Hashes;
use crate::files;
use crate::reason::Reason;

/// Digits that cargo appends to a name.
const DIGITS: usize = 16;

/// Most bytes of a crate that is read.
const CRATE_BYTES_MAX: u64 = 512 << 20;

/// What shows that a shared library is a crate, and that it is one of macros.
const CRATE: &[u8] = b".rustc\0";
const MACROS: &[u8] = b"rustc_proc_macro_decls_";

/// The folder of what a build script made.
const OUT_DIR: &str = "OUT_DIR";

/// What macros ask for that read files of the package.
const PACKAGE: [&str; 2] = ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH"];

/// The endings of shared libraries, with or without metadata.
pub const SHARED: [&str; 3] = ["so", "dylib", "dll"];

/// What a crate's bytes say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// What may be appended to the names of crates that it uses.
    endings: BTreeSet<String>,
    /// Whether it is a crate, if it is a shared library.
    is_crate: bool,
    /// Whether that is one of macros.
    is_of_macros: bool,
    /// Variables with folders that macros of it may ask for.
    asks: BTreeSet<String>,
    /// All that reads like the names of variables, if it is one of macros; blanks between.
    capitals: String,
}

/// What is behind the crates that are named.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// The files.
    pub files: BTreeSet<String>,
    /// Whether there are macros among these or those that are named, which are programs.
    pub has_programs: bool,
    /// Those of all in which macros may ask where a build script writes.
    pub asking: BTreeSet<String>,
    /// Whether macros may ask where the package is: then they may read and list what is there.
    pub may_look: bool,
    /// All that reads like the names of variables in macros.
    pub capitals: String,
}

impl Behind {
    /// Finds it in `folders`, for the crates at `named`. What is written by this call, `own`, is not among them.
    ///
    /// # Errors
    /// The reason to pass the call through.
    pub fn find(
        named: &[String],
        folders: &[String],
        own: &[String],
        memory: &Path,
        hashes: &mut Hashes,
    ) -> Result<Self, Reason> {
        if named.is_empty() {
            return Ok(Self::default());
        }
        let there = There::look(folders, own)?;
        let mut behind = Self::default();
        let mut open: Vec<String> = named.to_vec();
        for path in &there.others {
            if !is_shared(path) || holds(path, memory, hashes)?.is_crate {
                open.push(path.clone());
                behind.files.insert(path.clone());
            }
        }
        let mut seen: BTreeSet<String> = open.iter().cloned().collect();
        while let Some(path) = open.pop() {
            let holds = holds(&path, memory, hashes)?;
            if holds.asks.contains(OUT_DIR) {
                behind.asking.insert(path.clone());
            }
            if is_shared(&path) {
                behind.has_programs = true;
                behind.capitals += &holds.capitals;
                behind.may_look |= PACKAGE.iter().any(|name| holds.asks.contains(*name));
                if holds.is_crate && !holds.is_of_macros {
                    return Err("crate in a shared library".into());
                }
                // What they use is within.
                continue;
            }
            for ending in &holds.endings {
                for found in there.by_ending.get(ending).into_iter().flatten() {
                    if seen.insert(found.clone()) {
                        behind.files.insert(found.clone());
                        open.push(found.clone());
                    }
                }
            }
        }
        Ok(behind)
    }
}

/// The crates in some folders.
#[derive(Default)]
struct There {
    by_ending: BTreeMap<String, BTreeSet<String>>,
    others: BTreeSet<String>,
}

impl There {
    fn look(folders: &[String], own: &[String]) -> Result<Self, Reason> {
        let mut there = Self::default();
        for folder in folders.iter().collect::<BTreeSet<_>>() {
            for entry in Path::new(folder).read_dir().into_iter().flatten().flatten() {
                let name = entry.file_name();
                let is_crate = Path::new(&name).extension().is_some_and(|ending| {
                    ending == "rlib" || ending == "rmeta" || SHARED.iter().any(|shared| ending == *shared)
                });
                if !is_crate {
                    continue;
                }
                let name = name.to_str().ok_or(Reason::new("crate with an unusual name"))?;
                if own.iter().any(|own| own == name) {
                    continue;
                }
                let path = format!("{folder}/{name}");
                // What both hold of the crate is the same; a whole crate may still be on its way.
                if Path::new(name).extension().is_some_and(|ending| ending == "rlib") && has_metadata(&path) {
                    continue;
                }
                match ending_of(name) {
                    Some(ending) => there.by_ending.entry(ending.to_owned()).or_default().insert(path),
                    None => there.others.insert(path),
                };
            }
        }
        Ok(there)
    }
}

/// Whether a crate's metadata is beside it.
fn has_metadata(path: &str) -> bool {
    Path::new(path).with_extension("rmeta").is_file()
}

fn is_shared(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|ending| SHARED.iter().any(|shared| ending == *shared))
}

/// What cargo has appended to a file's name.
fn ending_of(name: &str) -> Option<&str> {
    let (stem, _) = name.rsplit_once('.')?;
    let (_, ending) = stem.rsplit_once('-')?;
    let is_cargos = ending.len() == DIGITS && ending.bytes().all(is_digit);
    is_cargos.then_some(ending)
}

const fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'a'..=b'f')
}

/// What a crate's bytes say, remembered by their hash.
fn holds(path: &str, memory: &Path, hashes: &mut Hashes) -> Result<Holds, Reason> {
    let unread = Reason::new("crate that can't be read");
    let hash = hashes.of(path).ok_or(unread.clone())?;
    let memory = memory.join("crates").join(hex::encode(hash));
    let known = std::fs::read(&memory).ok().and_then(|bytes| serde_json::from_slice::<Holds>(&bytes).ok());
    if let Some(known) = known {
        return Ok(known);
    }
    if !Path::new(path).metadata().is_ok_and(|metadata| metadata.len() <= CRATE_BYTES_MAX) {
        return Err(unread);
    }
    let bytes = std::fs::read(path).map_err(|_| unread.clone())?;
    if crate::direct::hashes::hash_of(&bytes) != hash {
        return Err("crate that changes".into());
    }
    let holds = Holds::of(&bytes);
    // A failure costs the next call the same work.
    let _ = serde_json::to_vec(&holds).map(|bytes| files::write_one_of_many(&memory, &bytes));
    Ok(holds)
}

/// Fewest letters of a word that is taken for a variable's name.
pub const CAPITALS_MIN: usize = 4;

/// The words of capitals, which names of variables are parts of: texts stand in programs without a mark between.
fn capitals(bytes: &[u8]) -> String {
    let is_other = |byte: &u8| !matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_');
    let words = bytes.split(is_other).filter(|word| word.len() >= CAPITALS_MIN);
    let words: BTreeSet<&[u8]> = words.collect();
    words.into_iter().flat_map(|word| [String::from_utf8_lossy(word), " ".into()]).collect()
}

impl Holds {
    fn of(bytes: &[u8]) -> Self {
        let has = |part: &[u8]| memchr::memmem::find(bytes, part).is_some();
        let ending = |at: usize| {
            let ending = bytes.get(at + 1..=at + DIGITS)?;
            let is_cargos = ending.iter().all(|byte| is_digit(*byte));
            is_cargos.then(|| String::from_utf8_lossy(ending).into_owned())
        };
        Self {
            endings: memchr::memchr_iter(b'-', bytes).filter_map(ending).collect(),
            is_crate: has(CRATE),
            is_of_macros: has(MACROS),
            capitals: if has(MACROS) { capitals(bytes) } else { String::new() },
            asks: PACKAGE
                .iter()
                .chain([&OUT_DIR])
                .filter(|name| has(name.as_bytes()))
                .map(|name| (*name).to_owned())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0123456789abcdef";
    const B: &str = "fedcba9876543210";

    #[test]
    fn what_a_crate_uses_is_found_through_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| format!("{}/{name}", folder.path().display());
        let c = path("libc-1111111111111111.rmeta");
        for (name, text) in [
            (c.clone(), format!("x-{B}\u{1}")),
            (path(&format!("libb-{B}.rmeta")), format!("x-{A}")),
            (path(&format!("libb-{B}.rlib")), "not looked at".to_owned()),
            (path(&format!("liba-{A}.so")), ".rustc\0 rustc_proc_macro_decls_ OUT_DIR".to_owned()),
            (path("libd-2222222222222222.rlib"), "nobody names it".to_owned()),
            (path("libe.so"), "a library of C".to_owned()),
            (path("libf.rlib"), "it may be any".to_owned()),
            (path("libown.rlib"), "made by this call".to_owned()),
        ] {
            std::fs::write(name, text).unwrap();
        }
        let find = |named: &[String]| {
            let folders = [folder.path().display().to_string()];
            let own = ["libown.rlib".to_owned()];
            Behind::find(named, &folders, &own, folder.path(), &mut Hashes::new(folder.path())).unwrap()
        };
        let files = [path(&format!("liba-{A}.so")), path(&format!("libb-{B}.rmeta")), path("libf.rlib")];
        let asking = BTreeSet::from([files[0].clone()]);
        let expected = Behind {
            files: files.into(),
            has_programs: true,
            asking,
            may_look: false,
            capitals: "OUT_DIR ".to_owned(),
        };
        assert_eq!(find(&[c]), expected);
        assert_eq!(find(&[]), Behind::default());
    }
}
