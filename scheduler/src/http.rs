//! The HTTP port: health for load balancers, metrics for Prometheus.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Counters;
use crate::counters::write_gauges;
use crate::dispatch::Dispatch;
use crate::store::Store;

/// What there is to tell.
#[derive(Clone)]
pub(crate) struct Facts {
    pub(crate) counters: Arc<Counters>,
    pub(crate) store: Arc<Store>,
    pub(crate) dispatch: Dispatch,
    /// Cancelled when the server stops.
    pub(crate) stop: CancellationToken,
}

/// Serves until the server stops.
pub(crate) async fn serve(listener: TcpListener, facts: Facts) {
    let stop = facts.stop.clone();
    let router =
        Router::new().route("/healthz", get(health)).route("/metrics", get(metrics)).with_state(facts);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "HTTP failed");
    }
}

async fn health(State(facts): State<Facts>) -> (StatusCode, &'static str) {
    if facts.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

async fn metrics(State(facts): State<Facts>) -> impl IntoResponse {
    let mut text = String::new();
    facts.counters.write_to(&mut text);
    write_gauges(&mut text, &facts.store.gauges());
    write_gauges(&mut text, &facts.dispatch.stats().await.gauges());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
