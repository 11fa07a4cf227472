//! What a tool leaves, in one piece that fits every folder: the project's real name is taken out of it, and put back.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use prost::Message as _;

use crate::files;
use crate::local::Platform;
use crate::paths::Place;
use crate::reason::Reason;

/// Stands where the name of the project's folder was.
const PROJECT: &[u8] = b"/\x1fcastwork-project\x1f";

/// Most bytes of all outputs of a call.
const OUTPUTS_BYTES_MAX: usize = 512 << 20;

/// All outputs of a call.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Outputs {
    /// The files, in the order of their names.
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    /// Virtual.
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
    #[prost(bool, tag = "3")]
    is_program: bool,
    /// Whether the project's name was taken out of it.
    #[prost(bool, tag = "4")]
    is_renamed: bool,
}

impl Outputs {
    /// Reads files that a tool has left; `paths` are as they are spelled.
    ///
    /// # Errors
    /// Why they can't be kept.
    pub fn gather<'a>(paths: impl Iterator<Item = &'a String>, place: &Place) -> Result<Self, Reason> {
        let mut named = BTreeMap::new();
        for path in paths {
            let located = place.locate(path)?;
            named.insert(located.name, located.real);
        }
        let (mut files, mut bytes) = (Vec::new(), 0);
        for (name, real) in named {
            let metadata = real.symlink_metadata().map_err(|_| Reason::new("output that was not written"))?;
            if !metadata.is_file() {
                return Err("output that is no file".into());
            }
            let data = std::fs::read(&real).map_err(|_| Reason::new("output that can't be read"))?;
            bytes += data.len();
            if bytes > OUTPUTS_BYTES_MAX {
                return Err("outputs that are too large".into());
            }
            let kept = taken_out(&data, place)?;
            let is_renamed = kept != data;
            files.push(File { name, data: kept.into(), is_program: Platform::is_program(&real), is_renamed });
        }
        Ok(Self { files })
    }

    /// All in one piece.
    pub fn pack(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// Reads what [`Outputs::pack`] made.
    pub fn unpack(bytes: &Bytes) -> Option<Self> {
        Self::decode(bytes.clone()).ok().filter(|outputs| !outputs.files.is_empty())
    }

    /// Writes every file to where it belongs here.
    ///
    /// # Errors
    /// What could not be done; then the tool has to be run.
    pub fn write(&self, place: &Place) -> Result<(), Reason> {
        for File { name, data, is_program, is_renamed } in &self.files {
            let path = place.real_of(name).ok_or(Reason::new("output that has no place here"))?;
            let data = if *is_renamed { put_back(data, place).into() } else { data.clone() };
            let path = Path::new(&path);
            let written = files::write_output(path, &data);
            let written =
                written.and_then(|()| if *is_program { Platform::make_program(path) } else { Ok(()) });
            written.map_err(|_| Reason::new("output can't be written"))?;
        }
        Ok(())
    }
}

/// The bytes without the name of the project's folder.
///
/// # Errors
/// If it stands in something that is no text, whose size or sums may depend on it.
pub fn taken_out(data: &[u8], place: &Place) -> Result<Vec<u8>, Reason> {
    let Some(root) = place.root.as_deref().map(str::as_bytes) else { return Ok(data.to_vec()) };
    let mut kept = Vec::with_capacity(data.len());
    let mut rest = 0;
    for at in memchr::memmem::find_iter(data, root) {
        let is_in_name = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_-.+~".contains(byte))
        };
        let before = at.checked_sub(1).and_then(|before| data.get(before));
        if at < rest || is_in_name(before) || is_in_name(data.get(at + root.len())) {
            continue;
        }
        kept.extend_from_slice(&data[rest..at]);
        kept.extend_from_slice(PROJECT);
        rest = at + root.len();
    }
    kept.extend_from_slice(&data[rest..]);
    if rest > 0 && data.contains(&0) {
        return Err("output that holds the folder's name, and is no text".into());
    }
    if memchr::memmem::find(data, PROJECT).is_some() {
        return Err("output with an unusual content".into());
    }
    Ok(kept)
}

/// The inverse of [`taken_out`], in another place.
pub fn put_back(data: &[u8], place: &Place) -> Vec<u8> {
    let root = place.root.as_deref().unwrap_or_default().as_bytes();
    let mut real = Vec::with_capacity(data.len());
    let mut rest = 0;
    for at in memchr::memmem::find_iter(data, PROJECT) {
        real.extend_from_slice(&data[rest..at]);
        real.extend_from_slice(root);
        rest = at + PROJECT.len();
    }
    real.extend_from_slice(&data[rest..]);
    real
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(root: &str) -> Place {
        Place::new(root.to_owned(), Some(root.to_owned())).unwrap()
    }

    #[test]
    fn a_name_moves_with_the_project() {
        let text =
            b"<File name=\"/home/me/x/a.h\"/>\n/home/me/x\n/home/me/xy/b.h /srv/home/me/x.h /usr/include";
        let kept = taken_out(text, &place("/home/me/x")).unwrap();
        let there = String::from_utf8(put_back(&kept, &place("/tmp/y"))).unwrap();
        assert_eq!(
            there,
            "<File name=\"/tmp/y/a.h\"/>\n/tmp/y\n/home/me/xy/b.h /srv/home/me/x.h /usr/include"
        );
        assert_eq!(put_back(&kept, &place("/home/me/x")), text);
    }

    #[test]
    fn what_is_no_text_does_not_move() {
        assert!(taken_out(b"\0/home/me/x/a", &place("/home/me/x")).is_err());
        assert_eq!(taken_out(b"\0data", &place("/home/me/x")).unwrap(), b"\0data");
    }

    #[test]
    fn all_outputs_come_back() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root =
            |folder: &tempfile::TempDir| folder.path().canonicalize().unwrap().to_str().unwrap().to_owned();
        let (here_place, there_place) = (place(&root(&here)), place(&root(&there)));
        std::fs::write(here.path().join("a.xml"), format!("in {}/a.h", root(&here))).unwrap();
        std::fs::write(here.path().join("a.idx"), "side").unwrap();
        let names = ["a.xml".to_owned(), "a.idx".to_owned()];
        let outputs = Outputs::gather(names.iter(), &here_place).unwrap();
        let outputs = Outputs::unpack(&outputs.pack()).unwrap();
        outputs.write(&there_place).unwrap();
        let read = |name: &str| std::fs::read_to_string(there.path().join(name)).unwrap();
        assert_eq!((read("a.xml"), read("a.idx")), (format!("in {}/a.h", root(&there)), "side".to_owned()));
        std::fs::remove_file(here.path().join("a.idx")).unwrap();
        assert!(Outputs::gather(names.iter(), &here_place).is_err(), "one of them is not there");
    }
}
