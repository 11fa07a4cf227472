//! What is done to every call, whatever its service.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::task::futures::TaskLocalFuture;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::transport::server::TcpConnectInfo;

use super::metadata::run_of;
use super::request_body::RequestBody;
use super::room::{Room, Taken};
use crate::caller::Caller;
use crate::counters::Counters;

/// How tonic's messages for requests that can't be read begin, as headers have them. It gives them codes
/// that have clients try again, which is of no use.
const ILLEGIBLE: [(&str, &str); 3] = [
    ("13", "failed%20to%20decode%20Protobuf"),
    ("13", "Error%20decompressing"),
    ("11", "Error,%20decoded%20message%20length%20too%20large"),
];

const INVALID_ARGUMENT: &str = "3";

/// Counts a call.
pub fn count(counters: &Arc<Counters>) -> impl Fn(Request<Body>) -> Request<Body> + Clone + use<> {
    let counters = Arc::clone(counters);
    move |request| {
        counters.requests.add(1);
        counters.calls.add(request.uri().path());
        request
    }
}

/// Has each call be done on behalf of its [`Caller`].
#[derive(Clone, Debug)]
pub struct ForCaller<S>(S);

impl<S> ForCaller<S> {
    /// Around a service.
    pub const fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for ForCaller<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = TaskLocalFuture<Caller, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let caller = caller_of(&request);
        caller.scope(self.0.call(request))
    }
}

/// The stream of a worker.
const ATTACH: &str = "/castwork.worker.v1.Workers/Attach";

/// Calls whose requests are streams, in which a client may pause.
const STREAMS: [&str; 3] = [
    "/google.bytestream.ByteStream/Write",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/RegisterChunkMapping",
    ATTACH,
];

/// What there is for calls to hold in memory.
#[derive(Clone, Debug)]
pub(crate) struct Rooms {
    /// Of clients' requests.
    pub(crate) clients: Room,
    /// Of what workers say, which no upload may hold up: a worker that is not heard is given up.
    pub(crate) workers: Room,
}

/// Has each call take its part of its [`Room`] for what it holds in memory.
#[derive(Clone, Debug)]
pub(crate) struct InRoom<S> {
    service: S,
    rooms: Rooms,
}

impl<S> InRoom<S> {
    /// Around a service.
    pub(crate) const fn new(service: S, rooms: Rooms) -> Self {
        Self { service, rooms }
    }
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for InRoom<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = TaskLocalFuture<Taken, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let is_stream = STREAMS.contains(&path);
        let room = if path == ATTACH { &self.rooms.workers } else { &self.rooms.clients };
        let taken = room.begin();
        let request = request.map(|body| Body::new(RequestBody::new(body, taken.clone(), is_stream)));
        let call = self.service.call(request);
        taken.scope(call)
    }
}

fn caller_of(request: &Request<Body>) -> Caller {
    let peer = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    let principal = peer.map_or_else(|| "".into(), |peer| peer.ip().to_string().into());
    Caller { principal, run: run_of(request.headers()), worker: None }
}

/// Answers a request that can't be read with `INVALID_ARGUMENT`.
pub fn blame_the_client(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (code, message) = (header("grpc-status"), header("grpc-message"));
    if ILLEGIBLE.iter().any(|(wrong, start)| code == *wrong && message.starts_with(start)) {
        response.headers_mut().insert("grpc-status", HeaderValue::from_static(INVALID_ARGUMENT));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prost::Message as _;
    use tonic::Status;

    use super::*;

    #[test]
    fn all_calls_that_stream_their_requests_are_known() {
        let files = prost_types::FileDescriptorSet::decode(castwork_proto::DESCRIPTORS).unwrap();
        let mut streams = Vec::new();
        for file in &files.file {
            for service in &file.service {
                let methods = service.method.iter().filter(|method| method.client_streaming());
                streams.extend(
                    methods.map(|it| format!("/{}.{}/{}", file.package(), service.name(), it.name())),
                );
            }
        }
        streams.sort();
        let mut known = STREAMS.to_vec();
        known.sort_unstable();
        assert_eq!(streams, known);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_heard_however_much_is_uploaded() {
        let room = || Room::new(64 << 10, Duration::from_secs(15));
        let rooms = Rooms { clients: room(), workers: room() };
        let upload = rooms.clients.begin();
        assert!(upload.try_message(64 << 10), "nobody else has room now");
        let mut service = InRoom::new(
            tower::service_fn(async |request: Request<Body>| {
                axum::body::to_bytes(axum::body::Body::new(request.into_body()), 1 << 10).await
            }),
            rooms,
        );
        for (path, is_heard) in [(ATTACH, true), ("/castwork.runs.v1.Runs/TellRun", false)] {
            let message = axum::body::Body::from(vec![0, 0, 0, 0, 2, 7, 7]);
            let request = Request::post(path).body(Body::new(message)).unwrap();
            assert_eq!(service.call(request).await.is_ok(), is_heard, "{path}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_the_clients_fault_and_nothing_else_is() {
        let code = |status: Status| {
            let response = blame_the_client(status.into_http());
            response.headers()["grpc-status"].to_str().unwrap().to_owned()
        };
        let illegible = "failed to decode Protobuf message: invalid varint";
        assert_eq!(code(Status::internal(illegible)), INVALID_ARGUMENT);
        let large = "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes";
        assert_eq!(code(Status::out_of_range(large)), INVALID_ARGUMENT);
        assert_eq!(code(Status::internal("the store failed")), "13");
        assert_eq!(code(Status::not_found(illegible)), "5");
    }
}
