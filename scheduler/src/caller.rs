//! [`Caller`]: on whose behalf the server is at work at this moment.
//!
//! It goes along with the task, not with the arguments: the stores' traits are those of every client too, and
//! know nothing of callers. Whoever spawns a task on behalf of a caller takes it along with [`Caller::scope`].

use std::sync::Arc;

use tokio::task::futures::TaskLocalFuture;

tokio::task_local! {
    static CALLER: Caller;
}

/// Who asked, as part of which run, and which worker did it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Who asked: where nobody is asked who they are, the address that they came from. May be empty.
    pub principal: Arc<str>,
    /// REAPI `tool_invocation_id`; empty if the client does not name its run.
    pub run: Arc<str>,
    /// The worker that made what is stored, if one did.
    pub worker: Option<Arc<str>>,
}

impl Caller {
    /// The caller that the current task works for; nobody, where it works for the server itself.
    pub fn current() -> Self {
        CALLER.try_with(Clone::clone).unwrap_or_default()
    }

    /// Has `work` be done on behalf of this caller.
    pub fn scope<F: Future>(self, work: F) -> TaskLocalFuture<Self, F> {
        CALLER.scope(self, work)
    }

    /// The run of the current task's caller, if it has a name.
    pub(crate) fn current_run() -> Option<Arc<str>> {
        let run = CALLER.try_with(|caller| Arc::clone(&caller.run)).ok()?;
        (!run.is_empty()).then_some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_caller_goes_along_with_the_work_and_no_further() {
        assert_eq!(Caller::current(), Caller::default());
        let caller = Caller { principal: "ci".into(), run: "run-1".into(), worker: None };
        let work = async {
            tokio::task::yield_now().await;
            let elsewhere = tokio::spawn(async { Caller::current() }).await.unwrap();
            (Caller::current(), Caller::current_run(), elsewhere)
        };
        let (seen, run, elsewhere) = caller.clone().scope(work).await;
        assert_eq!((seen, run.as_deref()), (caller, Some("run-1")));
        assert_eq!(elsewhere, Caller::default());
        assert_eq!(Caller::current_run(), None);
    }
}
