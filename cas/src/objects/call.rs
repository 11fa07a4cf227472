//! Calls of an object store: bounded, tried once more, and with errors that hold no secret.

use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;

use futures::StreamExt as _;
use opendal::ErrorKind;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::Objects;
use crate::{BlobStream, StoreError};

/// How often a call is made that fails as if for a moment.
const TRIES: u32 = 2;

/// Most characters of what the other side said that are shown.
const SAID_MAX: usize = 300;

impl Objects {
    /// Makes a call; `None` if there is no such object.
    pub(super) async fn attempt<T, F>(
        &self,
        step: &'static str,
        call: impl Fn() -> F,
    ) -> Result<Option<T>, StoreError>
    where
        F: Future<Output = opendal::Result<T>>,
    {
        let _permit = self.calls.acquire().await.map_err(|_| self.late(step))?;
        self.attempt_with_permit(step, call).await
    }

    async fn attempt_with_permit<T, F>(
        &self,
        step: &'static str,
        call: impl Fn() -> F,
    ) -> Result<Option<T>, StoreError>
    where
        F: Future<Output = opendal::Result<T>>,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            match timeout(self.timeout, call()).await {
                Ok(Ok(value)) => return Ok(Some(value)),
                Ok(Err(error)) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Ok(Err(error)) if error.is_temporary() && tries < TRIES => {}
                Ok(Err(error)) => return Err(self.failed(step, &error)),
                Err(_) => return Err(self.late(step)),
            }
        }
    }

    /// Opens an object for reading; its first bytes have come when this returns. `None` if there is no such object.
    pub(super) async fn read(
        &self,
        step: &'static str,
        name: &str,
    ) -> Result<Option<BlobStream>, StoreError> {
        let permit = Arc::clone(&self.calls).acquire_owned().await.map_err(|_| self.late(step))?;
        let opened = self
            .attempt_with_permit(step, || async {
                let mut pieces = self.operator.reader(name).await?.into_bytes_stream(..).await?;
                // The request is made when the first bytes are asked for.
                let first = pieces.next().await.transpose().map_err(unwrap)?;
                Ok((first, pieces))
            })
            .await?;
        let Some((first, pieces)) = opened else {
            return Ok(None);
        };
        let this = self.clone();
        // As long as somebody reads, the connection is in use.
        let rest = futures::stream::try_unfold((pieces, permit), move |(mut pieces, permit)| {
            let this = this.clone();
            async move {
                match timeout(this.timeout, pieces.next()).await {
                    Ok(Some(Ok(piece))) => Ok(Some((piece, (pieces, permit)))),
                    Ok(Some(Err(error))) => Err(this.failed(step, &unwrap(error))),
                    Ok(None) => Ok(None),
                    Err(_) => Err(this.late(step)),
                }
            }
        });
        Ok(Some(futures::stream::iter(first.map(Ok)).chain(rest).boxed()))
    }

    /// The error for an answer that did not come in time.
    pub(super) fn late(&self, step: &'static str) -> StoreError {
        let waited = format!("no answer within {:?}", self.timeout);
        self.refused(step, Status::deadline_exceeded(waited))
    }

    /// The error for a call that failed. What the library says of the request is left out: it names URLs, and those
    /// of some services are signed.
    pub(super) fn failed(&self, step: &'static str, error: &opendal::Error) -> StoreError {
        let code = match error.kind() {
            ErrorKind::PermissionDenied => Code::PermissionDenied,
            ErrorKind::RateLimited => Code::ResourceExhausted,
            ErrorKind::Unsupported | ErrorKind::ConfigInvalid => Code::InvalidArgument,
            _ => Code::Unavailable,
        };
        let mut said = error.message().to_owned();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause
            && said.len() < SAID_MAX
        {
            let text = error.to_string();
            if !text.is_empty() && !said.contains(&text) {
                write!(said, ": {text}").expect("writing to a string never fails");
            }
            cause = error.source();
        }
        // Before it is cut: half of a secret would not be known as one.
        let said: String = self.without_secrets(said).chars().take(SAID_MAX).collect();
        self.refused(step, Status::new(code, format!("{}: {said}", error.kind())))
    }

    fn refused(&self, step: &'static str, status: Status) -> StoreError {
        StoreError::Remote { step, address: self.address.clone(), source: Box::new(status) }
    }

    fn without_secrets(&self, mut text: String) -> String {
        for secret in self.secrets.iter() {
            text = text.replace(secret, "…");
        }
        text
    }
}

/// The library's own error, out of the one that a stream of bytes has to end in.
fn unwrap(error: std::io::Error) -> opendal::Error {
    let kind = error.kind();
    match error.into_inner().map(<dyn std::error::Error + Send + Sync>::downcast::<opendal::Error>) {
        Some(Ok(inner)) => *inner,
        Some(Err(inner)) => opendal::Error::new(ErrorKind::Unexpected, inner.to_string()),
        None if kind == std::io::ErrorKind::NotFound => opendal::Error::new(ErrorKind::NotFound, "not found"),
        None => opendal::Error::new(ErrorKind::Unexpected, kind.to_string()),
    }
}
