//! [`Jobs`]: what takes time and runs beside the queue's own task.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use castwork_cas::ActionKey;
use castwork_proto::rpc;
use futures::FutureExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::Code;

use super::Limits;
use super::check::{Findings, check, prepare};
use super::prepared::Prepared;
use super::publish::{Publication, publish};
use super::response::{failed, status};
use crate::Services;
use crate::queue::{Checked, LeaseId, Response, TaskId, Unpublished};

/// A job that is done.
pub(super) enum Done {
    /// A task was checked.
    Checked { task: TaskId, key: ActionKey, findings: Findings },
    /// An outcome was published.
    Published { task: TaskId, result: Result<Response, Unpublished> },
    /// A result of earlier was replaced, if it could be.
    Corrected,
    /// The messages for a lease were read again.
    Prepared { lease: LeaseId, key: ActionKey, prepared: Result<Prepared, rpc::Status> },
}

/// The jobs that run. Bounded by the tasks of the queue; of each kind only some work at a time.
pub(super) struct Jobs {
    running: JoinSet<Done>,
    services: Services,
    limits: Arc<Limits>,
    checks: Arc<Semaphore>,
    publications: Arc<Semaphore>,
}

impl Jobs {
    pub(super) fn new(services: Services, limits: &Limits) -> Self {
        Self {
            running: JoinSet::new(),
            services,
            limits: Arc::new(limits.clone()),
            checks: Arc::new(Semaphore::new(limits.checks_at_once)),
            publications: Arc::new(Semaphore::new(limits.publications_at_once)),
        }
    }

    /// The next job that is done; never, while there is none.
    pub(super) async fn next(&mut self) -> Done {
        match self.running.join_next().await {
            Some(done) => done.expect("a job catches its panics, and none is aborted while this runs"),
            None => std::future::pending().await,
        }
    }

    pub(super) async fn stop(&mut self) {
        self.running.shutdown().await;
    }

    pub(super) fn check(&mut self, task: TaskId, key: ActionKey, lookup: bool) {
        let (services, limits) = (self.services.clone(), Arc::clone(&self.limits));
        let turn = Arc::clone(&self.checks);
        self.running.spawn(async move {
            let work = async {
                let _turn = turn.acquire().await;
                check(&services, &limits, &key, lookup).await
            };
            let findings = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
                let verdict =
                    Checked::Answered(failed(status(Code::Internal, "the check of the action failed")));
                Findings { verdict, prepared: None, pins: None }
            });
            Done::Checked { task, key, findings }
        });
    }

    pub(super) fn publish(&mut self, task: TaskId, publication: Publication) {
        let (services, limits) = (self.services.clone(), Arc::clone(&self.limits));
        let turn = Arc::clone(&self.publications);
        self.running.spawn(async move {
            let work = async {
                let _turn = turn.acquire().await;
                publish(&services, &limits, publication).await
            };
            let result = AssertUnwindSafe(work).catch_unwind().await;
            let panicked = || Unpublished::Failed("the outcome could not be published".to_owned());
            let result = result.unwrap_or_else(|_| Err(panicked()));
            Done::Published { task, result }
        });
    }

    /// Publishes what nobody waits for.
    pub(super) fn correct(&mut self, publication: Publication) {
        let (services, limits) = (self.services.clone(), Arc::clone(&self.limits));
        self.running.spawn(async move {
            let action = publication.key.action;
            let work = publish(&services, &limits, publication);
            match AssertUnwindSafe(work).catch_unwind().await {
                Ok(Ok(_)) => {}
                Ok(Err(Unpublished::Refused(reason) | Unpublished::Failed(reason))) => {
                    tracing::warn!(%action, reason, "a wrong result was not replaced");
                }
                Err(_) => tracing::error!(%action, "replacing a result panicked"),
            }
            Done::Corrected
        });
    }

    pub(super) fn prepare(&mut self, lease: LeaseId, key: ActionKey) {
        let (services, limits) = (self.services.clone(), Arc::clone(&self.limits));
        self.running.spawn(async move {
            let work = prepare(&services, &limits, &key);
            let prepared = AssertUnwindSafe(work).catch_unwind().await;
            let prepared =
                prepared.unwrap_or_else(|_| Err(status(Code::Internal, "the action could not be read")));
            Done::Prepared { lease, key, prepared }
        });
    }
}
