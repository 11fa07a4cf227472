//! A stand-in for the service behind GitHub Actions' cache, version 2: entries that never change, found by their whole
//! key; and the storage that their signed URLs name.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use axum::{Router, serve};
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) const TOKEN: &str = "of-this-job";

/// The server; it ends when this is dropped.
pub(crate) struct Gha {
    address: SocketAddr,
    kept: Arc<Kept>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Kept {
    address: Mutex<Option<SocketAddr>>,
    entries: Mutex<BTreeMap<String, Entry>>,
}

#[derive(Default)]
struct Entry {
    blocks: BTreeMap<String, Bytes>,
    data: Option<Bytes>,
    is_final: bool,
}

/// What all three calls ask with, as far as it matters here: the fields of one have these numbers in the others too.
#[derive(Clone, PartialEq, prost::Message)]
struct Asked {
    #[prost(string, tag = "2")]
    key: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answered {
    #[prost(bool, tag = "1")]
    ok: bool,
    #[prost(string, tag = "2")]
    url: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Finished {
    #[prost(bool, tag = "1")]
    ok: bool,
    #[prost(int64, tag = "2")]
    entry: i64,
}

impl Gha {
    pub(crate) async fn start() -> Self {
        let kept = Arc::<Kept>::default();
        let router = Router::new()
            .route("/twirp/github.actions.results.api.v1.CacheService/{method}", post(call))
            .route("/storage/{*key}", any(storage))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&kept));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        *kept.address.lock().unwrap() = Some(address);
        let serving = tokio::spawn(async move { serve(listener, router).await.unwrap() });
        Self { address, kept, serving }
    }

    /// What a runner sets for a step that asks for it.
    pub(crate) fn variables(&self) -> [(&'static str, String); 3] {
        [
            ("ACTIONS_RUNTIME_TOKEN", TOKEN.to_owned()),
            ("ACTIONS_RESULTS_URL", format!("http://{}/", self.address)),
            ("ACTIONS_CACHE_SERVICE_V2", "true".to_owned()),
        ]
    }

    /// How many entries there are: as many as there were uploads.
    pub(crate) fn uploads(&self) -> usize {
        self.kept.entries.lock().unwrap().values().filter(|entry| entry.is_final).count()
    }
}

impl Drop for Gha {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn call(
    State(kept): State<Arc<Kept>>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if headers.get(header::AUTHORIZATION).is_none_or(|value| value != &format!("Bearer {TOKEN}")) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let key = Asked::decode(body).unwrap().key;
    let address = kept.address.lock().unwrap().unwrap();
    let url = format!("http://{address}/storage/c/{}?sig=secret", key.replace('/', "~"));
    let mut entries = kept.entries.lock().unwrap();
    let answer = match method.as_str() {
        "CreateCacheEntry" => {
            let ok = !entries.contains_key(&key);
            entries.entry(key).or_default();
            Answered { ok, url: if ok { url } else { String::new() } }.encode_to_vec()
        }
        "FinalizeCacheEntryUpload" => {
            let entry = entries.get_mut(&key).filter(|entry| entry.data.is_some());
            let ok = entry.map(|entry| entry.is_final = true).is_some();
            Finished { ok, entry: 1 }.encode_to_vec()
        }
        "GetCacheEntryDownloadURL" => {
            let ok = entries.get(&key).is_some_and(|entry| entry.is_final);
            Answered { ok, url: if ok { url } else { String::new() } }.encode_to_vec()
        }
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    ([(header::CONTENT_TYPE, "application/protobuf")], answer).into_response()
}

/// A value of a query, in which at most the signs of base 64 are escaped.
fn value_of(uri: &Uri, name: &str) -> Option<String> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.into_iter().find(|(found, _)| *found == name)?;
    Some(value.replace("%3D", "=").replace("%2B", "+").replace("%2F", "/"))
}

async fn storage(
    State(kept): State<Arc<Kept>>,
    Path(key): Path<String>,
    uri: Uri,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let key = key.trim_start_matches("c/").replace('~', "/");
    let mut entries = kept.entries.lock().unwrap();
    let Some(entry) = entries.get_mut(&key) else { return StatusCode::NOT_FOUND.into_response() };
    if method == Method::PUT {
        match value_of(&uri, "comp").as_deref() {
            Some("block") => {
                entry.blocks.insert(value_of(&uri, "blockid").unwrap(), body);
            }
            Some("blocklist") => {
                let text = String::from_utf8(body.to_vec()).unwrap();
                let ids = text.split("<Latest>").skip(1).map(|rest| rest.split('<').next().unwrap());
                let data: Vec<u8> = ids.flat_map(|id| entry.blocks[id].to_vec()).collect();
                entry.data = Some(data.into());
            }
            _ => entry.data = Some(body),
        }
        let when = "Sat, 21 Nov 2026 00:00:00 GMT";
        return (StatusCode::CREATED, [(header::ETAG, "\"1\""), (header::LAST_MODIFIED, when)])
            .into_response();
    }
    let Some(data) = entry.data.clone() else { return StatusCode::NOT_FOUND.into_response() };
    let Some(range) = headers.get(header::RANGE).and_then(|range| range.to_str().ok()) else {
        return data.into_response();
    };
    let (start, end) = range.trim_start_matches("bytes=").split_once('-').unwrap();
    let start: usize = start.parse().unwrap();
    let end = end.parse().map_or(data.len(), |end: usize| data.len().min(end + 1));
    let said = format!("bytes {start}-{}/{}", end - 1, data.len());
    (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, said)], data.slice(start..end)).into_response()
}
