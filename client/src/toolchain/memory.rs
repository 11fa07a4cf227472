//! What was learned about compilers, remembered from one call to the next and checked by stat.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use castwork_cas::{Digest, DigestFunction};
use serde::{Deserialize, Serialize};

use super::{IncludeDirs, Messages, Mode, Toolchain, probe};
use crate::command_line::Language;
use crate::files;
use crate::reason::Reason;

/// Raised when the meaning of what is remembered changes.
const FORMAT: u32 = 7;

/// Files that were changed less than this ago may change again without another stamp.
const SETTLED_AFTER_NS: i128 = 2_000_000_000;

/// Most sets of flags remembered for a compiler; a project has a handful.
const FLAG_SETS_MAX: usize = 256;

/// Variables that choose which libraries a compiler runs with, and where gcc looks for specs: they belong to its name.
const NAME_VARIABLES: [&str; 4] = ["LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT", "LIBRARY_PATH"];

/// A compiler with what is known of it, and where that is kept.
pub struct ToolchainMemory {
    /// The compiler.
    pub toolchain: Toolchain,
    language: Language,
    file: PathBuf,
    is_changed: bool,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    format: u32,
    toolchain: Toolchain,
}

impl ToolchainMemory {
    /// Recalls a compiler, or asks it; by the path that it was called by, and what [`super::resolve::real`] says of that.
    ///
    /// # Errors
    /// The reason to pass through, if it is not one that is understood.
    pub fn recall(
        folder: &Path,
        (compiler, real): (&Path, &Path),
        mode: Option<Mode>,
        language: Language,
    ) -> Result<Self, Reason> {
        // A link, or a folder on the way, may be turned to another compiler while the one that it led to stays.
        let mut name = format!("{}\0{}\0{}", compiler.display(), real.display(), language.name());
        name.extend(mode.map(|mode| format!("\0as {}", mode.word())));
        // Set and empty is not the same as unset: to gcc it is the working folder.
        name.extend(NAME_VARIABLES.map(|variable| format!("\0{:?}", std::env::var_os(variable))));
        let digest = Digest::of(DigestFunction::Sha256, name.as_bytes());
        let file = folder.join("toolchains").join(format!("{}.json", digest.hash_hex()));
        if let Some(toolchain) = read(&file).filter(Toolchain::is_current) {
            return Ok(Self { toolchain, language, file, is_changed: false });
        }
        let toolchain = probe::identify(compiler, mode, language)?;
        Ok(Self { toolchain, language, file, is_changed: true })
    }

    /// The compiler's own folders of headers, as `flags` choose them.
    ///
    /// # Errors
    /// The reason to pass through, if the compiler doesn't say.
    pub fn include_dirs(&mut self, flags: &[String]) -> Result<IncludeDirs, Reason> {
        let key = flags.join("\0");
        if let Some(known) = self.toolchain.include_dirs.get(&key) {
            return Ok(known.clone());
        }
        let dirs = probe::include_dirs(&self.toolchain, self.language, flags)?;
        if self.toolchain.include_dirs.len() < FLAG_SETS_MAX {
            self.toolchain.include_dirs.insert(key, dirs.clone());
            self.is_changed = true;
        }
        Ok(dirs)
    }

    /// Forgets folders that turned out to be others now.
    pub fn forget_include_dirs(&mut self) {
        self.toolchain.include_dirs.clear();
        self.is_changed = true;
        self.save();
    }

    /// How messages look under the user's locale.
    ///
    /// # Errors
    /// The reason to pass through, if the compiler can't be started.
    pub fn messages(&mut self) -> Result<Messages, Reason> {
        let values = probe::LOCALE_VARIABLES.map(|variable| std::env::var(variable).unwrap_or_default());
        if values.iter().all(|value| matches!(value.as_str(), "" | "C" | "POSIX")) {
            return Ok(Messages::Ascii);
        }
        let locale = values.join(":");
        if let Some(known) = self.toolchain.messages.get(&locale) {
            return Ok(known.clone());
        }
        let messages = probe::messages(&self.toolchain, self.language, &locale)?;
        if self.toolchain.messages.len() < FLAG_SETS_MAX {
            self.toolchain.messages.insert(locale, messages.clone());
            self.is_changed = true;
        }
        Ok(messages)
    }

    /// Writes down what was learned; a failure costs the next call the same questions.
    pub fn save(&mut self) {
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let now_ns = i128::try_from(now_ns).unwrap_or(0);
        let stamps = self.toolchain.tools.iter().map(|tool| &tool.stamp);
        let watched = self.toolchain.watched.iter().filter_map(|(_, stamp)| stamp.as_ref());
        let is_settled =
            stamps.chain(watched).all(|stamp| stamp.is_settled_before(now_ns - SETTLED_AFTER_NS));
        if !self.is_changed || !is_settled {
            return;
        }
        self.is_changed = false;
        let kept = Kept { format: FORMAT, toolchain: self.toolchain.clone() };
        let written = serde_json::to_vec(&kept)
            .map_err(std::io::Error::from)
            .and_then(|bytes| files::write_one_of_many(&self.file, &bytes));
        if let Err(error) = written {
            tracing::debug!(%error, "what was learned about the compiler isn't kept");
        }
    }
}

fn read(file: &Path) -> Option<Toolchain> {
    let kept: Kept = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    (kept.format == FORMAT).then_some(kept.toolchain)
}
