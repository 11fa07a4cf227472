//! The gRPC server: all services, and how connections are kept.

use std::time::Duration;

use castwork_proto::DESCRIPTORS;
use castwork_proto::admin::admin_server::AdminServer;
use castwork_proto::bytestream::byte_stream_server::ByteStreamServer;
use castwork_proto::codec::admit_with;
use castwork_proto::longrunning::operations_server::OperationsServer;
use castwork_proto::reapi::action_cache_server::ActionCacheServer;
use castwork_proto::reapi::capabilities_server::CapabilitiesServer;
use castwork_proto::reapi::content_addressable_storage_server::ContentAddressableStorageServer;
use castwork_proto::reapi::execution_server::ExecutionServer;
use castwork_proto::runs::runs_server::RunsServer;
use castwork_proto::worker::workers_server::WorkersServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;
use tower::ServiceBuilder;
use tower::layer::layer_fn;

use crate::Services;
use crate::connections::Connections;
use crate::dispatch::{Dispatch, PRIORITIES};
use crate::front::action_cache::ActionCacheService;
use crate::front::admin::AdminService;
use crate::front::bytestream::ByteStreamService;
use crate::front::capabilities::CapabilitiesService;
use crate::front::cas::CasService;
use crate::front::chunks::Chunks;
use crate::front::execution::ExecutionService;
use crate::front::layer::{ForCaller, InRoom, Rooms, blame_the_client, count};
use crate::front::limits::{Limits, REQUEST_BYTES_MAX};
use crate::front::operations::OperationsService;
use crate::front::outgoing::in_slices;
use crate::front::room::{self, Room};
use crate::front::runs::RunsService;
use crate::front::workers::WorkersService;
use crate::store::{DiskBlobs, DiskResults, Durability};

/// A ping on a quiet connection after this long, so that one whose other side is gone is noticed.
const PING_EVERY: Duration = Duration::from_secs(30);

/// A ping that is not answered for this long ends its connection.
const PING_WAIT: Duration = Duration::from_secs(20);

/// The same for connections on which nothing is under way, by the system.
const PROBE_AFTER: Duration = Duration::from_secs(60);

/// Connections at a time, and how many of them from one address; of those an address has more of, the last are
/// closed.
const CONNECTIONS_MAX: usize = 4096;
const CONNECTIONS_EACH_MAX: usize = 2048;

/// Calls at a time on one connection.
const STREAMS_MAX: u32 = 1024;

/// Bytes on their way to one stream, and to one connection, before the sender has to wait.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// The largest frame that a client may send. With the 16 KiB that HTTP/2 begins with, a large blob is tens of thousands
/// of small reads.
const FRAME_BYTES_MAX: u32 = 256 << 10;

/// What workers have said and nobody has heard yet: four of the longest messages, or thousands as they mostly are.
const WORKERS_BYTES_MAX: usize = 64 << 20;

/// Bytes of a call's headers.
const HEADERS_BYTES_MAX: u32 = 16 << 10;

/// Streams that a client may have reset before the server got to them.
const PENDING_RESETS_MAX: usize = 1024;

/// Streams that may have ended in a reset by the server over the life of a connection: each upload that
/// is answered early, and each client that leaves as soon as it has its answer, is one. The usual 1024
/// ends the connection of an honest client within one build.
const RESETS_MAX: usize = 100_000;

/// What the services are made of.
pub(crate) struct Parts {
    pub(crate) services: Services,
    pub(crate) blobs: DiskBlobs,
    pub(crate) results: DiskResults,
    pub(crate) durability: Durability,
    pub(crate) limits: Limits,
    pub(crate) dispatch: Dispatch,
    pub(crate) bytestream: ByteStreamService,
}

/// Names of the services, for `grpc.health.v1`.
const SERVICES: [&str; 9] = [
    <CapabilitiesServer<CapabilitiesService> as NamedService>::NAME,
    <ContentAddressableStorageServer<CasService> as NamedService>::NAME,
    <ByteStreamServer<ByteStreamService> as NamedService>::NAME,
    <ActionCacheServer<ActionCacheService> as NamedService>::NAME,
    <ExecutionServer<ExecutionService> as NamedService>::NAME,
    <OperationsServer<OperationsService> as NamedService>::NAME,
    <WorkersServer<WorkersService> as NamedService>::NAME,
    <AdminServer<AdminService> as NamedService>::NAME,
    <RunsServer<RunsService> as NamedService>::NAME,
];

/// Says of every service, and of the server, whether it serves; load balancers act on it.
pub(crate) async fn state_health(health: &HealthReporter, status: ServingStatus) {
    for name in SERVICES.into_iter().chain([""]) {
        health.set_service_status(name, status).await;
    }
}

/// Messages as large as a request may be, compressed or not.
macro_rules! open {
    ($server:expr) => {
        $server.max_decoding_message_size(REQUEST_BYTES_MAX).accept_compressed(Gzip).accept_compressed(Zstd)
    };
}

fn routes(parts: Parts, health_service: HealthServer<impl Health>) -> Routes {
    let Parts { services, blobs, results, durability, limits, dispatch, bytestream } = parts;
    let instances = services.instances.clone();
    let capabilities =
        CapabilitiesService::new(instances.clone(), &limits, &PRIORITIES, durability, dispatch.clone());
    let mappings = services.results.clone();
    let chunks = Chunks::new(blobs.clone(), mappings, limits.blob_bytes_max, limits.turn_wait);
    let cas = CasService::new(instances, blobs, chunks, limits, services.runs.clone());
    let runs = RunsService::new(&services);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let legible = "the descriptors were made by the build";
    Routes::new(health_service)
        .add_service(open!(CapabilitiesServer::new(capabilities)))
        .add_service(open!(ContentAddressableStorageServer::new(cas)))
        .add_service(open!(ByteStreamServer::new(bytestream)))
        .add_service(open!(ActionCacheServer::new(ActionCacheService::new(services))))
        .add_service(open!(dispatch.execution_service()))
        .add_service(open!(dispatch.operations_service()))
        .add_service(open!(dispatch.workers_service()))
        .add_service(open!(dispatch.admin_service(Some(results))))
        .add_service(open!(RunsServer::new(runs)))
        .add_service(reflection().build_v1().expect(legible))
        .add_service(reflection().build_v1alpha().expect(legible))
}

/// Serves all services, behind what is done to every call, until `stop`; then lets calls end.
pub(crate) async fn serve(
    parts: Parts,
    listener: TcpListener,
    health_service: HealthServer<impl Health>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let counters = parts.services.counters.clone();
    admit_with(room::admit);
    let wait = parts.limits.turn_wait;
    let rooms = Rooms {
        clients: Room::new(parts.limits.requests_bytes_max, wait),
        workers: Room::new(WORKERS_BYTES_MAX, wait),
    };
    let layer = ServiceBuilder::new()
        .map_response(in_slices)
        .map_response(blame_the_client)
        .map_request(count(&counters))
        .layer(layer_fn(ForCaller::new))
        .layer(layer_fn(move |service| InRoom::new(service, rooms.clone())))
        .into_inner();
    // Without nodelay a small answer waits for the acknowledgement of the one before.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(PROBE_AFTER));
    let incoming = Connections::new(CONNECTIONS_MAX, CONNECTIONS_EACH_MAX).bound(incoming);
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_WAIT))
        .max_concurrent_streams(STREAMS_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(RESETS_MAX))
        .layer(layer)
        .add_routes(routes(parts, health_service))
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}
