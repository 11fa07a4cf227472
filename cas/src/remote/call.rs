//! One call: its deadline, and the second try.

use std::error::Error as _;
use std::time::Duration;

use tonic::{Code, Request, Response, Status};

use super::Remote;
use crate::StoreError;

/// The wait before the second try, in milliseconds: between the two, so that the many clients of a server
/// that restarts do not come back all at once.
const BACK_OFF_MS: std::ops::Range<u64> = 50..250;

impl Remote {
    /// Makes a call whose repetition does no harm; twice if the server could not be reached.
    pub(super) async fn call<T: Clone, R, Answer>(
        &self,
        message: &T,
        call: impl Fn(Request<T>) -> Answer,
    ) -> Result<R, Box<Status>>
    where
        Answer: Future<Output = Result<Response<R>, Status>>,
    {
        self.call_with_headers(message, call).await.map(Response::into_inner)
    }

    /// The same, with the headers of the answer.
    pub(super) async fn call_with_headers<T: Clone, R, Answer>(
        &self,
        message: &T,
        call: impl Fn(Request<T>) -> Answer,
    ) -> Result<Response<R>, Box<Status>>
    where
        Answer: Future<Output = Result<Response<R>, Status>>,
    {
        let once = || {
            let mut request = self.with_metadata(message.clone());
            request.set_timeout(self.timeout);
            self.within(call(request))
        };
        self.twice(once).await
    }

    /// As [`Remote::call`], for a call that goes on after its first answer: the server is told no deadline.
    pub(super) async fn open<T: Clone, R, Answer>(
        &self,
        message: &T,
        call: impl Fn(Request<T>) -> Answer,
    ) -> Result<R, Box<Status>>
    where
        Answer: Future<Output = Result<R, Status>>,
    {
        self.twice(|| self.within(call(self.with_metadata(message.clone())))).await
    }

    async fn twice<R, Answer>(&self, call: impl Fn() -> Answer) -> Result<R, Box<Status>>
    where
        Answer: Future<Output = Result<R, Box<Status>>>,
    {
        match call().await {
            Err(status) if is_passing(&status) => {
                tokio::time::sleep(back_off()).await;
                call().await
            }
            answer => answer,
        }
    }

    /// Waits for an answer, at most as long as is configured.
    pub(super) async fn within<R>(
        &self,
        answer: impl Future<Output = Result<R, Status>>,
    ) -> Result<R, Box<Status>> {
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer.map_err(Box::new),
            Err(_) => Err(Box::new(self.too_late())),
        }
    }

    pub(super) fn too_late(&self) -> Status {
        Status::deadline_exceeded(format!("nothing came for {:?}", self.timeout))
    }

    /// The error of a step that the server refused, or could not be asked.
    pub(super) fn failed(&self, step: &'static str, status: Box<Status>) -> StoreError {
        StoreError::Remote { step, address: self.address.clone(), source: status }
    }

    /// The error of a step that the server answered in a way that it must not.
    pub(super) fn broken(&self, step: &'static str, reason: impl Into<String>) -> StoreError {
        self.failed(step, Box::new(Status::data_loss(reason)))
    }
}

/// Whether a failure may be gone in a moment, and says nothing about what was asked.
///
/// A status with a source was made on this side, of a connection that broke; a server's has none.
pub(super) fn is_passing(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Aborted => true,
        Code::Unknown | Code::Internal | Code::Cancelled => status.source().is_some(),
        _ => false,
    }
}

fn back_off() -> Duration {
    Duration::from_millis(rand::random_range(BACK_OFF_MS))
}
