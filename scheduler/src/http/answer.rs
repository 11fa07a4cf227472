//! [`Refusal`]: why a request is not done, as HTTP says it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use castwork_cas::StoreError;

use crate::front::errors::with_cause;

/// How long a client should wait before it tries again, in seconds.
const RETRY_SECONDS: &str = "10";

/// Why a request is not done; a variant for each thing that a client may do about it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("there is no such entry")]
    Missing,
    #[error("{0}")]
    Bad(String),
    #[error("this cache does not take {0}")]
    Forbidden(&'static str),
    #[error("there is no such method here; there are {0}")]
    Method(&'static str),
    #[error("an upload has to state its `Content-Length`")]
    NoLength,
    #[error("at most {0} bytes are taken")]
    TooLarge(u64),
    #[error("the path is longer than {0} bytes")]
    LongPath(usize),
    #[error("the range is past the end of {0} bytes")]
    Range(u64),
    #[error("the upload was silent for too long")]
    Silent,
    #[error("the upload broke off")]
    BrokenOff(#[source] axum::Error),
    #[error("the server has as many uploads as it takes")]
    Busy,
    #[error("the store")]
    Store(#[from] StoreError),
}

impl Refusal {
    /// Whether what was looked for is not there.
    pub(super) fn is_missing(&self) -> bool {
        self.status() == StatusCode::NOT_FOUND
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Missing | Self::Store(StoreError::Missing(_)) => StatusCode::NOT_FOUND,
            Self::Bad(_) | Self::BrokenOff(_) => StatusCode::BAD_REQUEST,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoLength => StatusCode::LENGTH_REQUIRED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::LongPath(_) => StatusCode::URI_TOO_LONG,
            Self::Range(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Silent => StatusCode::REQUEST_TIMEOUT,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(error) => match error {
                StoreError::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
                StoreError::Mismatch { .. } | StoreError::Digest(_) | StoreError::Encoding(_) => {
                    StatusCode::BAD_REQUEST
                }
                StoreError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }

    /// What the client is told.
    fn text(&self) -> String {
        match self {
            Self::Store(error) => with_cause(error),
            _ => with_cause(self),
        }
    }

    /// A header that goes with the status.
    fn header(&self) -> Option<(header::HeaderName, HeaderValue)> {
        let text = |text: String| HeaderValue::try_from(text).ok();
        match self {
            Self::Method(allowed) => Some((header::ALLOW, HeaderValue::from_static(allowed))),
            Self::Range(bytes) => Some((header::CONTENT_RANGE, text(format!("bytes */{bytes}"))?)),
            Self::Busy | Self::Store(StoreError::Full { .. }) => {
                Some((header::RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS)))
            }
            _ => None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut text = self.text();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            // It ends here; the paths of our disk are not for clients.
            tracing::error!(error = text, "the store failed");
            text = String::from("the store failed");
        }
        text.push('\n');
        let header = self.header();
        let mut response = (status, text).into_response();
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use castwork_cas::{Digest, DigestFunction};

    use super::*;

    #[test]
    fn every_refusal_has_the_status_that_clients_act_on() {
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        let status = |refusal: Refusal| refusal.into_response().status().as_u16();
        assert_eq!(status(Refusal::Missing), 404);
        assert_eq!(status(StoreError::Missing(digest).into()), 404);
        assert_eq!(status(StoreError::Full { digest, source: None }.into()), 507);
        assert_eq!(status(StoreError::mismatch(&digest, digest).into()), 400);
        assert_eq!(status(Refusal::TooLarge(9)), 413);
        let broken =
            StoreError::Disk { step: "open `x`".to_owned(), source: std::io::ErrorKind::Other.into() };
        assert_eq!(status(broken.into()), 500);
    }

    #[test]
    fn what_has_to_go_with_a_status_does() {
        let header = |refusal: Refusal, name| refusal.into_response().headers()[name].clone();
        assert_eq!(header(Refusal::Method("GET, PUT"), "allow"), "GET, PUT");
        assert_eq!(header(Refusal::Range(7), "content-range"), "bytes */7");
        assert_eq!(header(Refusal::Busy, "retry-after"), RETRY_SECONDS);
    }
}
