//! Taking results back: those of a worker that lied, of somebody who should not have uploaded any, from a time on.
//!
//! Blobs stay: they prove themselves. What is taken back is made anew by whoever asks next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use castwork_cas::{ActionKey, Digest, StoreError};

use super::layout::FileKey;
use super::provenance::Provenance;
use super::results::{self, DiskResults, Entry};
use super::shared::{Shared, blocking};
use crate::queue::name_matches;

/// Results that are listed, at most; all are counted.
const LISTED_MAX: usize = 1000;

/// Which results are meant: those to which all that is set applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultSelector {
    /// Executed by a worker of this name; `*` and `?` stand for letters.
    pub worker: Option<String>,
    /// Uploaded by somebody of this name, or from this address; likewise.
    pub principal: Option<String>,
    /// Made then or later.
    pub since: Option<SystemTime>,
    /// Of an action whose hash begins so, in lower-case hexadecimal.
    pub action_hash: Option<String>,
}

impl ResultSelector {
    fn means(&self, key: &FileKey, provenance: &Provenance, made: SystemTime) -> bool {
        // Of an older version's results nobody knows who made them, so no name means them.
        let names = |pattern: &Option<String>, name: &str| {
            pattern.as_ref().is_none_or(|pattern| !name.is_empty() && name_matches(pattern, name))
        };
        let (FileKey::Blob(action) | FileKey::Result(_, action)) = key;
        names(&self.worker, &provenance.worker)
            && names(&self.principal, &provenance.principal)
            && self.since.is_none_or(|since| made >= since)
            && self.action_hash.as_ref().is_none_or(|start| action.hash_hex().starts_with(start.as_str()))
    }
}

/// A result that was taken back, or would be.
#[derive(Clone, Debug, PartialEq)]
pub struct RevokedResult {
    /// What it is the result of.
    pub action: Digest,
    /// Where it came from.
    pub provenance: Provenance,
    /// When it was made.
    pub made: SystemTime,
}

/// What was taken back, or would be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Revocation {
    /// How many results.
    pub count: u64,
    /// The first of them.
    pub listed: Vec<RevokedResult>,
}

/// Why results can't be taken back.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// The selector means everything, which nobody types on purpose.
    #[error("nothing says which results are meant")]
    Everything,
    /// The server has not read all of the store yet.
    #[error("not all results are known yet, as the server has just started; hint: try again in some seconds")]
    NotKnown,
    /// The disk.
    #[error("results could not be taken back for good; hint: try again")]
    Disk(#[source] std::io::Error),
    /// The tier.
    #[error(
        "{taken} results were taken back here, but {left} of them are still in the tier at {address}; hint: remove what \
         lies below `ac/` there, or have the server answer nothing from before now (`--results-since`)"
    )]
    Tier {
        /// Results that were taken back here.
        taken: u64,
        /// Those that could not be removed there.
        left: usize,
        /// The tier's address as it may be shown.
        address: String,
        /// The first failure.
        source: Box<StoreError>,
    },
}

impl DiskResults {
    /// Takes back all results that `selector` means; those that are stored from now on are not looked at. With
    /// `is_dry` it only says which they are.
    ///
    /// When this returns, nobody is told of them any more, also after a restart or a loss of power.
    ///
    /// # Errors
    /// See [`RevokeError`].
    pub async fn revoke(&self, selector: ResultSelector, is_dry: bool) -> Result<Revocation, RevokeError> {
        if selector == ResultSelector::default() {
            return Err(RevokeError::Everything);
        }
        let shared = Arc::clone(&self.shared);
        if !shared.segments.loaded().await || shared.is_older.load(Ordering::Relaxed) {
            return Err(RevokeError::NotKnown);
        }
        let alone = Arc::clone(&self.shared);
        let _alone = alone.revoking.write().await;
        let tier = self.tier.as_ref().filter(|_| !is_dry);
        let with_keys = tier.is_some_and(|tier| tier.is_written_to());
        let (found, keys) = blocking(move || revoke(&shared, &selector, is_dry, with_keys)).await?;
        if let Some(tier) = tier
            && let Err((left, source)) = tier.take_back(keys).await
        {
            let address = tier.address().to_owned();
            return Err(RevokeError::Tier { taken: found.count, left, address, source: Box::new(source) });
        }
        Ok(found)
    }
}

/// Also returns their keys, if those are wanted.
fn revoke(
    shared: &Shared,
    selector: &ResultSelector,
    is_dry: bool,
    with_keys: bool,
) -> Result<(Revocation, Vec<ActionKey>), RevokeError> {
    let (mut found, mut keys) = (Revocation::default(), Vec::new());
    let revoked = shared.segments.revoke(|key, body, stored_ms| {
        let (FileKey::Result(_, action), Some(Entry { provenance, .. })) = (key, results::decode(key, body))
        else {
            return false;
        };
        let made = UNIX_EPOCH + Duration::from_millis(provenance.made_ms.max(stored_ms));
        if !selector.means(key, &provenance, made) {
            return false;
        }
        found.count += 1;
        if with_keys {
            keys.push(ActionKey { instance: provenance.instance.as_str().into(), action: *action });
        }
        if found.listed.len() < LISTED_MAX {
            found.listed.push(RevokedResult { action: *action, provenance, made });
        }
        !is_dry
    });
    let revoked = revoked.map_err(RevokeError::Disk)?;
    shared.counters.results_revoked.add(revoked);
    if revoked > 0 {
        tracing::warn!(revoked, ?selector, "results were taken back");
    }
    Ok((found, keys))
}
