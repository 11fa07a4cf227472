//! [`Provenance`]: where a result came from, kept with it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use castwork_cas::ActionKey;
use castwork_proto::reapi::ActionResult;

use super::ledger::now_ms;
use crate::caller::Caller;

/// Bytes of each text that are kept; the rest is left out.
const TEXT_BYTES_MAX: usize = 256;

/// How a result was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By one of the workers, for an action that it was given.
    Executed,
    /// By whoever uploaded it: the server knows nothing but that.
    Uploaded,
}

impl How {
    /// As it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Uploaded => "uploaded",
        }
    }
}

/// Who made a result, when, and how. With which digest function its key says.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Provenance {
    /// The name of the worker that ran the action; empty if it was uploaded.
    #[prost(string, tag = "1")]
    pub worker: String,
    /// Who uploaded it; where nobody is asked who they are, the address they came from; the address of the tier that it
    /// comes from.
    #[prost(string, tag = "2")]
    pub principal: String,
    /// REAPI `tool_invocation_id` of the run it was made for; may be empty.
    #[prost(string, tag = "3")]
    pub run: String,
    /// The instance. Its results' names have only a hash of it.
    #[prost(string, tag = "4")]
    pub instance: String,
    /// When, in milliseconds since the epoch of Unix.
    #[prost(uint64, tag = "5")]
    pub made_ms: u64,
    /// Version of the server's program.
    #[prost(string, tag = "6")]
    pub server: String,
}

impl Provenance {
    /// Of a result that is stored now, on behalf of `caller`.
    pub(super) fn now(key: &ActionKey, caller: &Caller) -> Self {
        Self {
            worker: clip(caller.worker.as_deref().unwrap_or_default()),
            principal: clip(&caller.principal),
            run: clip(&caller.run),
            instance: clip(&key.instance),
            made_ms: now_ms(),
            server: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Of a result that comes from a tier. When it was made it says itself, and it is as old as can be if it does not;
    /// all else that it says nobody here has seen.
    pub(super) fn of_tier(key: &ActionKey, address: &str, result: &ActionResult) -> Self {
        let metadata = result.execution_metadata.as_ref();
        let done = metadata.and_then(|it| it.worker_completed_timestamp.or(it.execution_completed_timestamp));
        let made = done.and_then(|done| SystemTime::try_from(done).ok());
        let made = made.and_then(|made| made.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let made_ms = u64::try_from(made.as_millis()).unwrap_or(u64::MAX).min(now_ms());
        Self { principal: clip(address), made_ms, ..Self::now(key, &Caller::default()) }
    }

    /// How it was made.
    pub fn how(&self) -> How {
        if self.worker.is_empty() { How::Uploaded } else { How::Executed }
    }

    /// When it was made.
    pub fn made(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.made_ms)
    }
}

fn clip(text: &str) -> String {
    let end = text.char_indices().map(|(at, letter)| at + letter.len_utf8());
    let end = end.take_while(|end| *end <= TEXT_BYTES_MAX).last().unwrap_or(0);
    text[..end].to_owned()
}

/// Which results are still answered, by their age. Others are as good as absent, and made anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgeLimit {
    /// None older than this.
    pub age_max: Option<Duration>,
    /// None from before this moment.
    pub since: Option<SystemTime>,
}

impl AgeLimit {
    /// Whether a result that was made then is too old by now.
    pub(super) fn is_over(&self, made: SystemTime) -> bool {
        let age = || SystemTime::now().duration_since(made).unwrap_or_default();
        self.since.is_some_and(|since| made < since) || self.age_max.is_some_and(|age_max| age() > age_max)
    }
}

#[cfg(test)]
mod tests {
    use castwork_cas::{Digest, DigestFunction};
    use castwork_proto::reapi::ExecutedActionMetadata;

    use super::*;

    #[test]
    fn what_a_worker_made_was_executed_and_all_else_was_uploaded() {
        let action = Digest::of(DigestFunction::Sha256, b"abc");
        let key = ActionKey { instance: "team".into(), action };
        let caller = Caller { principal: "ci".into(), run: "é".repeat(200).into(), worker: None };
        let uploaded = Provenance::now(&key, &caller);
        assert_eq!((uploaded.how(), uploaded.how().name()), (How::Uploaded, "uploaded"));
        assert_eq!((&*uploaded.principal, &*uploaded.instance, uploaded.run.len()), ("ci", "team", 256));
        let executed = Provenance::now(&key, &Caller { worker: Some("w-1".into()), ..caller });
        assert_eq!((executed.how(), &*executed.worker), (How::Executed, "w-1"));
        assert!(executed.made() <= SystemTime::now());
    }

    #[test]
    fn a_result_from_a_tier_is_as_old_as_it_says_and_else_as_old_as_can_be() {
        let key = ActionKey { instance: "".into(), action: Digest::of(DigestFunction::Sha256, b"abc") };
        let of = |done: Option<SystemTime>| {
            let metadata = ExecutedActionMetadata {
                worker: "w-1".into(),
                worker_completed_timestamp: done.map(Into::into),
                ..Default::default()
            };
            let result = ActionResult { execution_metadata: Some(metadata), ..Default::default() };
            Provenance::of_tier(&key, "s3://b/p", &result)
        };
        let then = UNIX_EPOCH + Duration::from_secs(86_400);
        assert_eq!(of(Some(then)).made(), then);
        assert_eq!(of(None).made(), UNIX_EPOCH);
        assert!(of(Some(SystemTime::now() + Duration::from_secs(3600))).made() <= SystemTime::now());
        let silent = Provenance::of_tier(&key, "s3://b/p", &ActionResult::default());
        assert_eq!(
            (silent.made(), &*silent.principal, silent.how()),
            (UNIX_EPOCH, "s3://b/p", How::Uploaded)
        );
        // No worker of ours has made it, whatever it says.
        assert_eq!(of(Some(then)).how(), How::Uploaded);
    }

    #[test]
    fn a_result_is_over_by_its_age_or_by_the_day() {
        let hour = Duration::from_secs(3600);
        let then = SystemTime::now() - hour;
        assert!(!AgeLimit::default().is_over(UNIX_EPOCH));
        let by_age = |age_max| AgeLimit { age_max: Some(age_max), since: None };
        assert!(by_age(hour / 2).is_over(then) && !by_age(hour * 2).is_over(then));
        // The clock was set back: nothing is from the future.
        assert!(!by_age(hour).is_over(SystemTime::now() + hour));
        let by_day = |since| AgeLimit { age_max: None, since: Some(since) };
        assert!(by_day(then + hour / 2).is_over(then) && !by_day(then).is_over(then));
    }
}
