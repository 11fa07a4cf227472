//! `castwork toolchain pack`: a compiler with its headers as a root of its own, in a folder or an archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::show::megabytes;
use super::subject::{Subject, root_of};
use crate::commands::print;
use crate::local::Platform;
use crate::toolchain::Luggage;

/// Folders inside of folders of headers, at most: beyond is no tree of headers.
const DEPTH_MAX: usize = 64;

/// Where programs put temporary files.
const TEMPORARY: &str = "/tmp";

/// How much there is of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Files.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// What is packed, by the paths that it has here and there.
#[derive(Debug, Default)]
pub(super) struct Contents {
    luggage: Luggage,
    /// Headers, with their sizes.
    headers: BTreeMap<PathBuf, u64>,
}

/// Packs a compiler, and says what came of it.
///
/// # Errors
/// Why it can't be packed, for people.
pub(super) fn pack(subject: &Subject, into: &Path, with_headers: bool) -> Result<(), String> {
    let contents = Contents::of(subject, with_headers)?;
    let is_archive = into.extension().is_some_and(|extension| extension == "tar");
    let written = if is_archive { contents.write_archive(into) } else { contents.write_folder(into) };
    written.map_err(|error| format!("can't write `{}`: {error}", into.display()))?;
    let luggage = subject.luggage()?;
    let (headers, size) = (contents.size(), megabytes(luggage.size_bytes()));
    let shown = into.display();
    print(&format!("{shown}: {} files, {size}, root {}\n", luggage.files.len(), root_of(luggage)?));
    print(&format!("{shown}: {} headers, {}\n", headers.files, megabytes(headers.bytes)));
    if let Some(folders) = &luggage.library_path {
        print(&format!("{shown}: to be run with LD_LIBRARY_PATH={folders}\n"));
    }
    Ok(())
}

impl Contents {
    /// Everything of a compiler's, with all headers or none.
    ///
    /// # Errors
    /// Why it stays here, or can't be read.
    fn of(subject: &Subject, with_headers: bool) -> Result<Self, String> {
        let mut contents = Self { luggage: subject.luggage()?.clone(), headers: BTreeMap::new() };
        if with_headers {
            for folder in &subject.headers {
                contents.add_headers(folder)?;
            }
            contents.add_files(&subject.marks)?;
        }
        contents.luggage.folders.insert(TEMPORARY.into());
        Ok(contents)
    }

    /// A compiler with those headers that are read, each named as it is opened.
    ///
    /// # Errors
    /// As [`Contents::of`].
    pub(super) fn of_compile(subject: &Subject, read: &[PathBuf]) -> Result<Self, String> {
        let mut contents = Self::of(subject, false)?;
        for folder in subject.headers.iter().filter(|folder| folder.is_dir()) {
            let place = contents.luggage.place(folder)?;
            contents.luggage.folders.insert(place);
        }
        contents.add_files(read)?;
        contents.add_files(&subject.marks)?;
        Ok(contents)
    }

    /// A folder of headers alone.
    ///
    /// # Errors
    /// As [`Contents::of`].
    pub(super) fn of_headers(folder: &Path) -> Result<Self, String> {
        let mut contents = Self::default();
        contents.add_headers(folder)?;
        Ok(contents)
    }

    /// How much there is of headers.
    pub(super) fn size(&self) -> Size {
        Size { files: self.headers.len() as u64, bytes: self.headers.values().sum() }
    }

    /// Adds a folder of headers, as the compiler names it; one that is not there is left out.
    fn add_headers(&mut self, folder: &Path) -> Result<(), String> {
        if !folder.is_dir() {
            return Ok(());
        }
        let place = self.luggage.place(folder)?;
        self.add_folder(&place, DEPTH_MAX)
            .map_err(|error| format!("can't read `{}`: {error}", folder.display()))
    }

    fn add_files(&mut self, files: &[PathBuf]) -> Result<(), String> {
        for file in files {
            let place = self.luggage.place(file)?;
            let size_bytes = place.metadata().map_or(0, |metadata| metadata.len());
            self.headers.insert(place, size_bytes);
        }
        Ok(())
    }

    fn add_folder(&mut self, folder: &Path, depth_left: usize) -> io::Result<()> {
        let Some(depth_left) = depth_left.checked_sub(1) else {
            return Err(io::Error::other("it is too deep"));
        };
        self.luggage.folders.insert(folder.to_owned());
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let metadata = path.symlink_metadata()?;
            if metadata.is_dir() {
                self.add_folder(&path, depth_left)?;
            } else if metadata.is_file() {
                self.headers.insert(path, metadata.len());
            } else if metadata.is_symlink()
                && let Ok(place) = self.luggage.place(&path)
                && let Ok(target) = place.metadata()
                && target.is_file()
            {
                // One that leads to a folder is there as a link, and that folder if it is one of headers.
                self.headers.insert(place, target.len());
            }
        }
        Ok(())
    }

    /// The files with whether they may be started, the luggage's own first.
    fn files(&self) -> impl Iterator<Item = (&Path, bool)> {
        let own = self.luggage.files.iter().map(|(path, file)| (path.as_path(), file.is_executable));
        let headers = self.headers.keys().filter(|path| !self.luggage.files.contains_key(*path));
        own.chain(headers.map(|path| (path.as_path(), false)))
    }

    /// All folders, outer ones first.
    fn folders(&self) -> BTreeSet<&Path> {
        let inner = self.luggage.files.keys().chain(self.luggage.links.keys()).chain(self.headers.keys());
        let inner =
            inner.filter_map(|path| path.parent()).chain(self.luggage.folders.iter().map(PathBuf::as_path));
        inner.flat_map(Path::ancestors).filter(|path| path.parent().is_some()).collect()
    }

    /// Writes a folder, which must not be there.
    pub(super) fn write_folder(&self, root: &Path) -> io::Result<()> {
        fs::create_dir(root)?;
        for folder in self.folders() {
            fs::create_dir(root.join(below_root(folder)))?;
        }
        for (path, target) in &self.luggage.links {
            Platform::make_link(Path::new(target), &root.join(below_root(path)))?;
        }
        for (path, _) in self.files() {
            fs::copy(path, root.join(below_root(path)))?;
        }
        Ok(())
    }

    /// Writes an archive, which must not be there; the same for the same files, whenever and by whomever.
    fn write_archive(&self, file: &Path) -> io::Result<()> {
        let mut archive = tar::Builder::new(io::BufWriter::new(File::create_new(file)?));
        let header = |kind: tar::EntryType, mode: u32, size_bytes: u64| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(size_bytes);
            header
        };
        for folder in self.folders() {
            let mode = if folder == Path::new(TEMPORARY) { 0o1777 } else { 0o755 };
            let mut header = header(tar::EntryType::Directory, mode, 0);
            archive.append_data(&mut header, below_root(folder), io::empty())?;
        }
        for (path, target) in &self.luggage.links {
            let mut header = header(tar::EntryType::Symlink, 0o777, 0);
            archive.append_link(&mut header, below_root(path), target)?;
        }
        for (path, is_executable) in self.files() {
            let content = File::open(path)?;
            let mode = if is_executable { 0o755 } else { 0o644 };
            let mut header = header(tar::EntryType::Regular, mode, content.metadata()?.len());
            archive.append_data(&mut header, below_root(path), content)?;
        }
        archive.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

fn below_root(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}
