//! [`Leavings`]: what a tool leaves behind when it is run, and what it says that it has read.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::command::found;
use super::work::Work;
use crate::clock::Start;
use crate::dependencies::depfile_rule;
use crate::local::Platform;
use crate::reason::Reason;

/// What a run leaves.
#[derive(Debug, Default)]
pub(super) struct Leavings {
    /// The files that it wrote, as spelled.
    pub(super) outputs: Vec<String>,
    /// The files that it says it has read, as spelled.
    pub(super) read: Vec<String>,
    /// The dependency file.
    depfile: Option<PathBuf>,
    /// Whether only we want it.
    is_depfile_ours: bool,
    /// An empty folder in which it leaves more, to be moved to where that belongs.
    folder: Option<(TempDir, PathBuf)>,
    scratch: Option<TempDir>,
}

impl Leavings {
    /// Makes ready for a run.
    ///
    /// # Errors
    /// The reason to pass the call through.
    pub(super) fn prepare(work: &Work<'_>, start: &Start) -> Result<Self, Reason> {
        let none = |_| Reason::new("no folder for temporary files");
        let mut leavings = Self::default();
        if let Some(path) = &work.command.depfile {
            leavings.depfile = Some(path.into());
        } else if let Some(behind) = &work.rule.depfile_beside {
            let output = work.command.outputs.first().ok_or(Reason::new("no output that is known"))?;
            leavings.depfile = Some(format!("{output}{behind}").into());
            leavings.is_depfile_ours = true;
        } else if !work.rule.depfile_words.is_empty() {
            let folder = start.path().parent().unwrap_or(Path::new("."));
            let scratch = tempfile::Builder::new().prefix("run").tempdir_in(folder).map_err(none)?;
            leavings.depfile = Some(scratch.path().join("depfile"));
            leavings.is_depfile_ours = true;
            leavings.scratch = Some(scratch);
        }
        if let Some(folder) = work.folder() {
            let made = tempfile::Builder::new().prefix(".castwork-").tempdir_in(&folder);
            leavings.folder =
                Some((made.map_err(|_| Reason::new("folder for outputs that can't be written"))?, folder));
        }
        Ok(leavings)
    }

    /// The dependency file that the tool has to be told to write.
    pub(super) fn added_depfile(&self) -> Option<&Path> {
        self.depfile.as_deref().filter(|_| self.is_depfile_ours)
    }

    /// The folder that the tool has to be told to use.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(|(folder, _)| folder.path())
    }

    /// Finds what a run has left, and puts it where it belongs.
    ///
    /// # Errors
    /// Why that is not all known; what was in our folder has been moved nevertheless.
    pub(super) fn gather(&mut self, work: &Work<'_>, start: &Start) -> Result<(), Reason> {
        self.outputs.clone_from(&work.command.outputs);
        self.move_out()?;
        if let Some(path) = &self.depfile {
            let text = std::fs::read_to_string(path)
                .map_err(|_| Reason::new("dependency file that can't be read"))?;
            if self.is_depfile_ours {
                let _ = std::fs::remove_file(path);
            } else {
                self.outputs.push(path.to_string_lossy().into_owned());
            }
            let (targets, prerequisites) = depfile_rule(&text);
            self.read = prerequisites;
            if work.rule.depfile_names_outputs {
                self.outputs.extend(targets);
            }
        }
        for glob in &work.rule.leaves {
            let files = found(glob, &work.place)?;
            let is_new = |path: &&String| {
                let real = work.place.absolute(path);
                let metadata = Path::new(&real).metadata();
                metadata.is_ok_and(|metadata| Platform::stamp(&metadata).changed_ns >= start.instant_ns)
            };
            let new: Vec<String> = files.iter().filter(is_new).cloned().collect();
            if new.is_empty() {
                return Err("output that was not written".into());
            }
            self.outputs.extend(new);
        }
        self.outputs.sort();
        self.outputs.dedup();
        let outputs = &self.outputs;
        self.read.retain(|path| !outputs.contains(path));
        Ok(())
    }

    /// Moves what is in our folder to where the tool was to leave it.
    fn move_out(&mut self) -> Result<(), Reason> {
        let Some((from, to)) = &self.folder else { return Ok(()) };
        let unmoved = |_| Reason::new("output that can't be moved");
        for entry in from.path().read_dir().map_err(unmoved)? {
            let entry = entry.map_err(unmoved)?;
            let place = to.join(entry.file_name());
            std::fs::rename(entry.path(), &place).map_err(unmoved)?;
            let is_file = place.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
            if !is_file {
                return Err("output that is no file".into());
            }
            let place = place.into_os_string().into_string();
            self.outputs.push(place.map_err(|_| Reason::new("file with an unusual name"))?);
        }
        Ok(())
    }
}
