//! [`HttpCache`]: from a request to its answer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts as Head;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use castwork_cas::{ActionCache, BlobStore as _, BlobStream, ByteRange, Complete, Digest};
use tokio::sync::OwnedSemaphorePermit;

use super::answer::Refusal;
use super::bazel::{self, RESULT_BYTES_MAX, Results, Sized};
use super::body::{self, Upload};
use super::counters::HttpCounters;
use super::memory::Memory;
use super::range::{Part, Wanted, wanted};
use super::route::{Place, Protocol};
use super::values::{self, PIECE_BYTES, Value, Values};
use super::webdav;
use crate::config::Access;
use crate::front::instance::Instances;
use crate::front::limits::Limits;
use crate::store::Store;

/// The methods below `/ac/` and `/cas/`.
const BAZEL_METHODS: &str = "GET, HEAD, PUT";

/// What the cache is made of.
pub(crate) struct Parts<'a> {
    pub(crate) store: &'a Store,
    pub(crate) instances: Arc<Instances>,
    pub(crate) limits: Limits,
    pub(crate) access: Access,
}

/// The cache for clients that speak HTTP.
pub(crate) struct HttpCache {
    values: Values,
    results: Results,
    blobs: Sized,
    instances: Arc<Instances>,
    limits: Limits,
    access: Access,
    memory: Memory,
    counters: HttpCounters,
}

impl HttpCache {
    pub(crate) fn new(parts: Parts<'_>) -> Self {
        let Parts { store, instances, limits, access } = parts;
        let results: Arc<dyn ActionCache> = Arc::new(store.results());
        let complete = Arc::new(Complete::new(store.results(), store.blobs()));
        let values =
            Values { results: Arc::clone(&results), complete, blobs: store.blobs(), pins: store.pins() };
        let blobs = Sized { blobs: store.blobs(), results };
        let memory = Memory::new(limits.turn_wait);
        Self {
            results: Results { values: values.clone(), blobs: blobs.clone(), memory: memory.clone() },
            values,
            blobs,
            instances,
            limits,
            access,
            memory,
            counters: HttpCounters::default(),
        }
    }

    pub(crate) fn counters(&self) -> &HttpCounters {
        &self.counters
    }

    /// Answers any request below the paths of the caches.
    pub(crate) async fn answer(&self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        if self.access == Access::Off {
            return Refusal::Missing.into_response();
        }
        let place = match Place::read(head.uri.path(), &self.instances) {
            Ok(place) => place,
            Err(refusal) => {
                refuse(&head, Upload::new(body, 0, self.limits.upload_idle)).await;
                return refusal.into_response();
            }
        };
        let row = self.counters.of(place.protocol());
        row.requests.add(1);
        let bytes_max = match place {
            Place::Result { .. } => RESULT_BYTES_MAX.min(self.limits.blob_bytes_max),
            Place::Blob { .. } | Place::Entry { .. } => self.limits.blob_bytes_max,
        };
        let mut upload = Upload::new(body, bytes_max, self.limits.upload_idle);
        let is_lookup = matches!(head.method, Method::GET | Method::HEAD);
        match self.act(&head, &place, &mut upload).await {
            Ok(response) => {
                match head.method {
                    Method::PUT => row.stored.add(1),
                    _ if is_lookup => row.hits.add(1),
                    _ => {}
                }
                if head.method == Method::PUT {
                    // What is there already need not have been read, but nearly all clients send it first.
                    upload.discard(bytes_max, self.limits.upload_idle).await;
                } else {
                    upload.discard_unwanted().await;
                }
                response
            }
            Err(refusal) => {
                if is_lookup && refusal.is_missing() {
                    row.misses.add(1);
                }
                refuse(&head, upload).await;
                refusal.into_response()
            }
        }
    }

    async fn act(&self, head: &Head, place: &Place, upload: &mut Upload) -> Result<Response, Refusal> {
        match (&head.method, place) {
            (&Method::GET | &Method::HEAD, _) => self.hand_out(head, self.find(place).await?).await,
            (&Method::PUT, _) => {
                self.may_write("uploads")?;
                self.may_write_under(place)?;
                upload.check(body::length(&head.headers))?;
                let _memory = self.take_memory(head, place).await?;
                self.keep(head, place, upload).await?;
                Ok(StatusCode::CREATED.into_response())
            }
            (method, Place::Entry { protocol, path }) => {
                self.act_on_entry(head, method, *protocol, path).await
            }
            _ => Err(Refusal::Method(BAZEL_METHODS)),
        }
    }

    async fn find(&self, place: &Place) -> Result<Found, Refusal> {
        Ok(match place {
            Place::Result { instance, hash } => Found::Value(self.results.find(instance, hash).await?),
            Place::Blob { hash, .. } => Found::Blob(self.blobs.find(hash).await?.ok_or(Refusal::Missing)?),
            Place::Entry { protocol, path } => Found::Value(self.find_entry(*protocol, path).await?),
        })
    }

    async fn find_entry(&self, protocol: Protocol, path: &str) -> Result<Value, Refusal> {
        self.values.find(&values::key(protocol.name(), path)).await
    }

    async fn keep(&self, head: &Head, place: &Place, upload: &mut Upload) -> Result<(), Refusal> {
        match place {
            Place::Result { instance, hash } => self.results.keep(instance, hash, upload).await,
            Place::Blob { hash, .. } => {
                let bytes = body::length(&head.headers).ok_or(Refusal::NoLength)?;
                self.blobs.keep(hash, bytes, upload).await
            }
            Place::Entry { path, .. } if is_folder(path) => {
                Err(Refusal::Bad("a folder takes no content".to_owned()))
            }
            Place::Entry { protocol, path } => {
                self.values.keep(&values::key(protocol.name(), path), upload).await
            }
        }
    }

    /// What only entries know: removal, and the rest of `WebDAV`.
    async fn act_on_entry(
        &self,
        head: &Head,
        method: &Method,
        protocol: Protocol,
        path: &str,
    ) -> Result<Response, Refusal> {
        match method.as_str() {
            "OPTIONS" => Ok(webdav::options()),
            "PROPFIND" if is_folder(path) && webdav::is_deep(&head.headers) => Ok(webdav::too_deep()),
            "PROPFIND" if is_folder(path) => Ok(webdav::properties(head.uri.path(), None)),
            "PROPFIND" => {
                let value = self.find_entry(protocol, path).await?;
                Ok(webdav::properties(head.uri.path(), Some(&value)))
            }
            "MKCOL" => {
                self.may_write("folders")?;
                Ok(StatusCode::CREATED.into_response())
            }
            "DELETE" => {
                self.may_write("removals")?;
                self.values.remove(&values::key(protocol.name(), path)).await?;
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            _ => Err(Refusal::Method(webdav::METHODS)),
        }
    }

    fn may_write(&self, what: &'static str) -> Result<(), Refusal> {
        if self.access == Access::ReadWrite { Ok(()) } else { Err(Refusal::Forbidden(what)) }
    }

    /// What can be forged is stored only where the server was configured for it, as over gRPC.
    fn may_write_under(&self, place: &Place) -> Result<(), Refusal> {
        let (Place::Result { instance, hash } | Place::Blob { instance, hash }) = place else {
            return Ok(());
        };
        let instance =
            self.instances.check(instance).map_err(|status| Refusal::Bad(status.message().into()))?;
        instance.may_write(hash.function()).map_err(|_| Refusal::Forbidden("digests that can be forged"))
    }

    /// Waits until there is memory for what an upload holds of itself at a time.
    async fn take_memory(&self, head: &Head, place: &Place) -> Result<OwnedSemaphorePermit, Refusal> {
        let length = body::length(&head.headers).unwrap_or(u64::MAX);
        self.memory
            .take(match place {
                Place::Result { .. } => bazel::held_bytes(length.min(RESULT_BYTES_MAX)),
                Place::Blob { .. } | Place::Entry { .. } => length.min(PIECE_BYTES as u64),
            })
            .await
    }

    async fn hand_out(&self, head: &Head, found: Found) -> Result<Response, Refusal> {
        let bytes = found.bytes();
        let is_head = head.method == Method::HEAD;
        let no_range = HeaderMap::new();
        let headers = if is_head { &no_range } else { &head.headers };
        let (status, part) = match wanted(headers, bytes) {
            Wanted::Whole => (StatusCode::OK, Part { start: 0, end: bytes }),
            Wanted::Some(part) => (StatusCode::PARTIAL_CONTENT, part),
            Wanted::PastTheEnd => return Err(Refusal::Range(bytes)),
        };
        let body = if is_head || part.start == part.end {
            Body::empty()
        } else {
            Body::from_stream(self.read(&found, part).await?)
        };
        let mut response = Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, part.end - part.start)
            .header(header::ACCEPT_RANGES, "bytes");
        if status == StatusCode::PARTIAL_CONTENT {
            let range = format!("bytes {}-{}/{bytes}", part.start, part.end - 1);
            response = response.header(header::CONTENT_RANGE, range);
        }
        Ok(response.body(body).expect("all headers are legal"))
    }

    async fn read(&self, found: &Found, part: Part) -> Result<BlobStream, Refusal> {
        Ok(match found {
            Found::Value(value) => self.values.read(value, part).await?,
            Found::Blob(digest) => {
                let range = ByteRange { offset: part.start, limit: Some(part.end - part.start) };
                self.blobs.get(digest, range).await?
            }
        })
    }
}

/// Reads on, for as long as that makes sense, because many clients look for an answer when all is sent.
async fn refuse(head: &Head, upload: Upload) {
    // Who asks before sending waits for the answer.
    if !head.headers.contains_key(header::EXPECT) {
        upload.discard_unwanted().await;
    }
}

/// Folders are what ends in a slash, and the root of a cache.
fn is_folder(path: &str) -> bool {
    path.is_empty() || path.ends_with('/')
}

/// What a lookup came to.
enum Found {
    Value(Value),
    Blob(Digest),
}

impl Found {
    fn bytes(&self) -> u64 {
        match self {
            Self::Value(value) => value.bytes,
            Self::Blob(digest) => digest.size_bytes(),
        }
    }
}
