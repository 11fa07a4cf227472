//! The HTTP port: health for load balancers, metrics for Prometheus, and the cache for clients that speak
//! HTTP and no gRPC.
//!
//! ```text
//! /healthz  /metrics  /autoscale
//! /[INSTANCE/]ac/HASH    /[INSTANCE/]cas/HASH      Bazel's HTTP cache
//! /ccache/ANYTHING                                 ccache, in any of its layouts
//! /sccache/ANYTHING                                sccache, by WebDAV
//! ```

mod answer;
mod bazel;
mod body;
mod cache;
mod connections;
mod counters;
mod guests;
mod memory;
mod range;
mod route;
mod values;
mod webdav;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::guests::Guests;

pub(crate) use self::cache::{HttpCache, Parts};

use crate::Counters;
use crate::counters::write_gauges;
use crate::dispatch::{Dispatch, wanted, write_metrics};
use crate::store::{Durability, Store};
use crate::tier::Tier;

/// Connections at a time, and how many of them from one address. Who comes then takes the place of one that stands
/// still, or waits.
const CONNECTIONS_MAX: usize = 1024;
const CONNECTIONS_EACH_MAX: usize = 768;

/// What there is to tell, and to keep.
#[derive(Clone)]
pub(crate) struct Facts {
    pub(crate) counters: Arc<Counters>,
    pub(crate) store: Arc<Store>,
    pub(crate) dispatch: Dispatch,
    pub(crate) cache: Arc<HttpCache>,
    pub(crate) tier: Option<Arc<Tier>>,
    /// Cancelled when the server stops.
    pub(crate) stop: CancellationToken,
}

/// Serves until the server stops; then lets requests end.
pub(crate) async fn serve(listener: TcpListener, facts: Facts) {
    let stop = facts.stop.clone();
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .route("/autoscale", get(autoscale))
        .fallback(cached)
        .with_state(facts);
    connections::serve(listener, Guests::new(CONNECTIONS_MAX, CONNECTIONS_EACH_MAX), router, stop).await;
}

async fn health(State(facts): State<Facts>) -> (StatusCode, &'static str) {
    if facts.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        match facts.store.durability() {
            Durability::Durable => (StatusCode::OK, "ok\n"),
            Durability::Relaxed => (StatusCode::OK, "ok, durability relaxed\n"),
        }
    }
}

async fn metrics(State(facts): State<Facts>) -> impl IntoResponse {
    let mut text = String::new();
    facts.counters.write_to(&mut text);
    facts.cache.counters().write_to(&mut text);
    write_gauges(&mut text, &facts.store.gauges());
    if let Some(tier) = &facts.tier {
        write_gauges(&mut text, &tier.gauges());
    }
    write_gauges(&mut text, &facts.dispatch.stats().await.gauges());
    // Without an answer the server is stopping, and there is nothing to count any more.
    if let Ok(overview) = facts.dispatch.overview().await {
        write_metrics(&mut text, &overview);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// Reads a path and a range of any kind; for `fuzz/`.
#[cfg(fuzzing)]
pub(crate) fn read_anything(path: &str, range: &str) {
    let instances = crate::front::instance::Instances::new([(
        "team/main".to_owned(),
        castwork_cas::DigestFunction::Blake3,
    )]);
    let _ = route::Place::read(path, &instances);
    let mut headers = axum::http::HeaderMap::new();
    if let Ok(value) = range.parse() {
        headers.insert(header::RANGE, value);
    }
    if let range::Wanted::Some(part) = range::wanted(&headers, 1000) {
        assert!(part.start < part.end && part.end <= 1000);
    }
}

/// What an autoscaler asks: `{"platforms": [{"platform", "queued", "workers", "workers_wanted", …}]}`.
async fn autoscale(State(facts): State<Facts>) -> Response {
    facts.dispatch.note_scaler();
    match facts.dispatch.overview().await {
        Ok(overview) => {
            let body = serde_json::json!({ "platforms": wanted(&overview.view) });
            ([(header::CONTENT_TYPE, "application/json")], format!("{body:#}\n")).into_response()
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response(),
    }
}

async fn cached(State(facts): State<Facts>, request: Request) -> Response {
    facts.cache.answer(request).await
}
