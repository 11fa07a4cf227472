//! [`RunsFile`]: the account on disk: a file of lines that is appended to, and now and then written anew.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::asker::Configuration;
use super::record::Record;

/// Below this many bytes the file is not written anew.
const COMPACT_BYTES_MIN: u64 = 1 << 20;

/// A line of the file; of those about the same, the last one counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    Run(Record),
    First { instance: String, configuration: Configuration, run: String, last_seen_ms: u64 },
}

/// The file. It is not synced: a power cut may cost counts, and nothing that a build depends on.
pub(crate) struct RunsFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// When it was last written anew.
    bytes_then: u64,
    /// Whether it may end in half a line, as writing has failed; that must not take the next line along.
    is_torn: bool,
}

impl RunsFile {
    /// Reads the file at `path`, if there is one, and goes on with it.
    pub(crate) fn open(path: &Path, mut take: impl FnMut(Line)) -> io::Result<Self> {
        let text = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(line) => take(line),
                Err(error) => warn!(%error, path = %path.display(), "a line about a run means nothing"),
            }
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if text.last().is_some_and(|last| *last != b'\n') {
            // What was cut short must not take the next line along.
            file.write_all(b"\n")?;
        }
        let bytes = text.len() as u64;
        Ok(Self { path: path.to_owned(), file, bytes, bytes_then: bytes / 2, is_torn: false })
    }

    /// Adds lines, or writes the file anew with `all` if most of it is outdated. Blocks.
    pub(crate) fn write(&mut self, lines: &[Line], all: impl FnOnce() -> Vec<Line>) -> io::Result<()> {
        let text = text_of(lines)?;
        if self.bytes + text.len() as u64 <= COMPACT_BYTES_MIN.max(3 * self.bytes_then) {
            return self.append(&text);
        }
        let text = text_of(&all())?;
        let fresh = self.path.with_extension("new");
        std::fs::write(&fresh, &text)?;
        std::fs::rename(&fresh, &self.path)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.bytes = text.len() as u64;
        self.bytes_then = self.bytes;
        self.is_torn = false;
        Ok(())
    }
}

impl RunsFile {
    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.file.write_all(b"\n")?;
        }
        self.is_torn = true;
        self.file.write_all(text)?;
        self.is_torn = false;
        self.bytes += text.len() as u64;
        Ok(())
    }
}

fn text_of(lines: &[Line]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
    }
    Ok(text)
}
