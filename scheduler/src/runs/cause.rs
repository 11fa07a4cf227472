//! [`Cause`]: why the cache had no answer.

use std::fmt;
use std::sync::Arc;

use castwork_cas::{ActionCache, ActionKey};
use serde::{Deserialize, Serialize};

use crate::store::EvictedResults;

/// Why the cache had no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// No result of it was ever kept, as far as is remembered.
    NeverSeen,
    /// There was a result, and it was let go to make room.
    Evicted,
    /// There is a result, and something that it names is gone.
    Incomplete,
    /// There was a result, and it was older than results may be.
    TooOld,
    /// The action says that its result must not be kept.
    DoNotCache,
    /// The client did not want to know.
    SkipCacheLookup,
}

impl Cause {
    /// Its name, in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NeverSeen => "never_seen",
            Self::Evicted => "evicted",
            Self::Incomplete => "incomplete",
            Self::TooOld => "too_old",
            Self::DoNotCache => "do_not_cache",
            Self::SkipCacheLookup => "skip_cache_lookup",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Finds out why there was no result.
#[derive(Clone)]
pub(crate) struct Causes {
    /// Results as they lie there, whether or not what they name is there.
    pub(crate) results: Arc<dyn ActionCache>,
    pub(crate) evicted: Arc<EvictedResults>,
}

impl Causes {
    /// Why an action, which was just looked up in vain, has no result.
    pub(crate) async fn of(&self, key: &ActionKey) -> Cause {
        match self.results.get(key).await {
            Ok(Some(_)) => Cause::Incomplete,
            _ if self.evicted.has(key) => Cause::Evicted,
            _ => Cause::NeverSeen,
        }
    }
}

#[cfg(test)]
mod tests {
    use castwork_cas::{Digest, DigestFunction, MemoryActions};
    use castwork_proto::reapi::ActionResult;

    use super::*;

    #[tokio::test]
    async fn a_result_that_lies_there_was_not_whole() {
        let folder = tempfile::tempdir().unwrap();
        let evicted = Arc::new(EvictedResults::open(&folder.path().join("evicted")));
        let causes = Causes { results: Arc::new(MemoryActions::new(1 << 20)), evicted };
        let action = Digest::of(DigestFunction::Sha256, b"action");
        let key = ActionKey { instance: "".into(), action };
        assert_eq!(causes.of(&key).await, Cause::NeverSeen);
        causes.evicted.note_result(&key);
        assert_eq!(causes.of(&key).await, Cause::Evicted);
        causes.results.put(&key, ActionResult::default()).await.unwrap();
        assert_eq!(causes.of(&key).await, Cause::Incomplete);
    }
}
