//! Why a call was no hit: what differs from the nearest compile of the same source that was kept.
//!
//! Each compile that is kept leaves an [`Account`] of its parts beside its result, in the local cache and under its bound.
//! Two of them side by side tell what a key, being a hash, can't.

mod account;
mod explain;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

pub use account::{Account, Accounts, Part};
pub use explain::{Culprit, explain};

use crate::commands::print;
use crate::config::Config;
use crate::files;
use crate::paths::Place;
use crate::run::complain;
use crate::tiers::FolderTier;

/// The last call that was no hit, for `--last`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Last {
    /// A compile that was kept: the key of the accounts of its source.
    Compile(String),
    /// A call that was passed through, or not kept: its words, and why.
    Passed {
        /// What was called.
        words: Vec<String>,
        /// Why.
        reason: String,
    },
}

impl Last {
    /// Writes down that this was the last. A failure costs an answer nobody may ask for.
    pub fn note(&self, dir: &Path) {
        let written = serde_json::to_vec(self)
            .map_err(std::io::Error::from)
            .and_then(|bytes| files::write_whole(&place_of_last(dir), &bytes));
        if let Err(error) = written {
            tracing::debug!(%error, "the last call isn't noted");
        }
    }

    fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(place_of_last(dir)).ok()?).ok()
    }
}

fn place_of_last(dir: &Path) -> PathBuf {
    dir.join("last.json")
}

/// Of which compile to tell.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// The source, as seen from here.
    file: Option<PathBuf>,
    /// Whatever was no hit most recently.
    #[arg(long)]
    last: bool,
}

/// `castwork why`: prints what made a compile a miss, and returns the exit code.
pub fn run(config: &Config, which: &Which, json: bool) -> u8 {
    let key = match (&which.file, Last::read(&config.dir)) {
        (Some(file), _) => match key_of_file(config, file) {
            Ok(key) => key,
            Err(why) => return fail(&why),
        },
        (None, Some(Last::Compile(key))) => key,
        (None, Some(Last::Passed { words, reason })) => {
            let call = words.join(" ");
            print(&if json {
                format!("{:#}\n", json!({ "call": call, "passed_through": reason }))
            } else {
                format!("{call}\n  passed through: {reason}\n")
            });
            return 0;
        }
        (None, None) => return fail("nothing has been compiled yet that was no hit"),
    };
    let known = key.parse().ok().and_then(|key| {
        let tier = FolderTier::open(&config.dir.join("cache"), config.max_size_bytes).ok()?;
        tier.accounts(&key).ok()?
    });
    let Some(accounts) = known.filter(|accounts| !accounts.latest.is_empty()) else {
        return fail("no compile of it is known here; either it was never kept, or the cache has forgotten");
    };
    let (latest, earlier) = accounts.latest.split_first().expect("there is one");
    let (culprits, nearest) = explain(latest, earlier);
    print(&if json { as_json(latest, &culprits) } else { as_text(latest, &culprits, nearest.is_some()) });
    0
}

fn fail(why: &str) -> u8 {
    complain(why);
    1
}

/// The key of the accounts of a source.
fn key_of_file(config: &Config, file: &Path) -> Result<String, String> {
    let here = std::env::current_dir().map_err(|error| format!("no working folder: {error}"))?;
    let name = name_of_file(config, &here.join(file))?;
    Ok(Accounts::key(&name).to_string())
}

/// What a source is called in its accounts, wherever it was compiled from.
///
/// # Errors
/// Why it has no name, for people.
pub fn name_of_file(config: &Config, file: &Path) -> Result<String, String> {
    let folder = file.parent().and_then(|folder| folder.canonicalize().ok());
    let folder = folder.ok_or_else(|| format!("there is no folder of `{}`", file.display()))?;
    let root = config.project_root.clone();
    let place = Place::of_folder(&folder, root.as_deref()).map_err(|reason| reason.to_string())?;
    let spelled = folder.join(file.file_name().unwrap_or_default());
    Ok(place.locate(&spelled.to_string_lossy()).map_err(|reason| reason.to_string())?.name)
}

fn as_json(latest: &Account, culprits: &[Culprit]) -> String {
    let culprits: Vec<_> =
        culprits.iter().map(|culprit| json!({ "what": culprit.what, "text": culprit.text })).collect();
    format!("{:#}\n", json!({ "source": latest.source, "action": latest.action, "culprits": culprits }))
}

fn as_text(latest: &Account, culprits: &[Culprit], has_nearest: bool) -> String {
    let mut text = format!("{}\n", latest.source);
    if has_nearest && !culprits.is_empty() {
        text += "  against the nearest compile before it:\n";
    }
    let lines = culprits.iter().map(|culprit| format!("  {}\n", culprit.text));
    text.extend(lines);
    text
}
