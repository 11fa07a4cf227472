//! [`Services`]: what every gRPC service of the server is built from.

use std::sync::Arc;

use castwork_cas::{ActionCache, BlobStore};

use castwork_trace::Tracer;

use crate::counters::Counters;
use crate::front::instance::Instances;
use crate::runs::Runs;
use crate::store::pins::Pins;

/// The parts that the services share. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// Blobs of all instances: a blob proves itself, so they share one store.
    pub blobs: Arc<dyn BlobStore>,
    /// Results of all instances, under their instance's name. A result is answered only if every
    /// blob that it names is there, and those count as used just now.
    pub results: Arc<dyn ActionCache>,
    /// Which instance names there are.
    pub instances: Arc<Instances>,
    /// Keeps blobs from being evicted while they are needed.
    pub pins: Pins,
    /// What the server has done, for `/metrics`.
    pub counters: Arc<Counters>,
    /// What became of each run, for its report.
    pub runs: Arc<Runs>,
    /// Takes what was done when for an action.
    pub tracer: Tracer,
}
