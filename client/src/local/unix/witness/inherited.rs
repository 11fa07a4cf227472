//! The open files that a program was started with.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::process::Process;

/// Device and number of a file.
type Identity = (u64, u64);

/// The open files that a program was started with.
#[derive(Debug)]
pub(super) struct Inherited {
    /// What its standard output and error are.
    outputs: Vec<Identity>,
    /// What all others are.
    others: Vec<Identity>,
    /// Whether its standard input is `/dev/null`.
    input_is_nothing: bool,
}

/// What an open file is that a program was started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its standard output or error.
    Output,
    /// Its standard input, which is `/dev/null`; or that file, opened once more.
    Nothing,
    /// Any other.
    Other,
}

impl Inherited {
    pub(super) fn of(process: Process) -> Self {
        let mut inherited = Self { outputs: Vec::new(), others: Vec::new(), input_is_nothing: false };
        for descriptor in process.descriptors() {
            let Some(metadata) = process.metadata(descriptor) else { continue };
            match descriptor {
                _ if is_nothing(&metadata) => inherited.input_is_nothing |= descriptor == 0,
                1 | 2 => inherited.outputs.push(identity(&metadata)),
                _ => inherited.others.push(identity(&metadata)),
            }
        }
        inherited
    }

    /// What an open file is, if the program was started with it.
    pub(super) fn kind(&self, process: Process, descriptor: u64) -> Option<Kind> {
        if self.outputs.is_empty() && self.others.is_empty() && !self.input_is_nothing {
            return None;
        }
        let metadata = process.metadata(descriptor)?;
        let identity = identity(&metadata);
        if self.outputs.contains(&identity) {
            Some(Kind::Output)
        } else if self.others.contains(&identity) {
            Some(Kind::Other)
        } else {
            (self.input_is_nothing && is_nothing(&metadata)).then_some(Kind::Nothing)
        }
    }

    /// Whether an open file is one that the program was started with, or none that is known.
    pub(super) fn has(&self, process: Process, descriptor: u64) -> bool {
        process.path_of(descriptor).is_none() || self.kind(process, descriptor).is_some()
    }
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// Whether it is the device of which nothing is ever read.
pub(super) fn is_nothing(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == nix::libc::makedev(1, 3)
}
