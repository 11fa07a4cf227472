//! A server, clients and scripted workers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use castwork_cas::files::FileBlobs;
use castwork_cas::merkle::TreeBuilder;
use castwork_cas::store::stream_of;
use castwork_cas::{ActionCache as _, ActionKey, BlobStore as _, Complete, Digest, DigestFunction};
use castwork_proto::admin::admin_client::AdminClient;
use castwork_proto::longrunning::{Operation, operation, operations_client::OperationsClient};
use castwork_proto::reapi::capabilities_client::CapabilitiesClient;
use castwork_proto::reapi::capabilities_server::CapabilitiesServer;
use castwork_proto::reapi::execution_client::ExecutionClient;
use castwork_proto::reapi::{
    self, Action, ActionResult, Command, ExecuteOperationMetadata, ExecuteRequest, ExecuteResponse,
    OutputFile, execution_stage::Value as Stage,
};
use castwork_proto::rpc;
use castwork_proto::worker::workers_client::WorkersClient;
use castwork_proto::worker::{
    Draining, Hello, Lease, Outcome, Running, SchedulerMessage, WorkerMessage, scheduler_message,
    worker_message,
};
use castwork_scheduler::dispatch::{self, Dispatch, Journal, Limits};
use castwork_scheduler::front;
use castwork_scheduler::front::capabilities::CapabilitiesService;
use castwork_scheduler::front::instance::Instances;
use castwork_scheduler::store::Durability;
use castwork_scheduler::store::pins::Pins;
use castwork_scheduler::{Counters, Services, queue};
use prost::Message as _;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status, Streaming};

pub(crate) const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// A server that executes, over a store in a temporary folder.
pub(crate) struct Farm {
    folder: Arc<TempDir>,
    pub(crate) blobs: FileBlobs,
    pub(crate) dispatch: Dispatch,
    channel: Channel,
}

/// Time passes quickly, and nobody is waited for who was not there at the start.
pub(crate) fn limits() -> Limits {
    Limits {
        tick_interval: Duration::from_millis(10),
        queue: queue::Limits {
            start_grace: Duration::ZERO,
            first_grace: Duration::ZERO,
            return_grace: Duration::ZERO,
            reconnect_grace: Duration::ZERO,
            ..queue::Limits::default()
        },
        ..Limits::default()
    }
}

/// The same, but actions wait for a worker as long as it takes.
pub(crate) fn patient() -> Limits {
    let mut limits = limits();
    limits.queue.start_grace = Duration::from_secs(3_600);
    limits
}

impl Farm {
    pub(crate) async fn start(limits: Limits) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), limits).await
    }

    /// Another life of the scheduler over the same store.
    pub(crate) async fn restart(self, limits: Limits) -> Self {
        self.dispatch.shutdown().await;
        Self::start_in(self.folder, limits).await
    }

    async fn start_in(folder: Arc<TempDir>, limits: Limits) -> Self {
        let blobs = FileBlobs::open(folder.path(), u64::MAX).unwrap();
        let instances = Arc::new(Instances::new([("other".to_owned(), DigestFunction::Sha256)]));
        let services = Services {
            blobs: Arc::new(blobs.clone()),
            results: Arc::new(Complete::new(blobs.results(), blobs.clone())),
            instances: instances.clone(),
            pins: Pins::default(),
            counters: Arc::new(Counters::default()),
            runs: Arc::default(),
            tracer: castwork_trace::Tracer::default(),
        };
        let (journal, recovered) = Journal::open(&folder.path().join("journal")).unwrap();
        let dispatch = dispatch::resume(services, limits, journal, recovered);
        let front = front::limits::Limits::default();
        let capabilities =
            CapabilitiesService::new(instances, &front, &(0..=0), Durability::Relaxed, dispatch.clone());
        let router = Server::builder()
            .add_service(CapabilitiesServer::new(capabilities))
            .add_service(dispatch.execution_service())
            .add_service(dispatch.operations_service())
            .add_service(dispatch.workers_service())
            .add_service(dispatch.admin_service(None));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // It ends with the test's runtime.
        tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { folder, blobs, dispatch, channel }
    }

    pub(crate) fn execution(&self) -> ExecutionClient<Channel> {
        ExecutionClient::new(self.channel.clone())
    }

    pub(crate) fn capabilities(&self) -> CapabilitiesClient<Channel> {
        CapabilitiesClient::new(self.channel.clone())
    }

    pub(crate) fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel.clone())
    }

    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    pub(crate) async fn put(&self, data: impl Into<Bytes>) -> Digest {
        let data = data.into();
        let digest = Digest::of(FUNCTION, &data);
        self.blobs.put(&digest, stream_of(data)).await.unwrap();
        digest
    }

    /// Uploads an action without inputs; `salt` makes it another than the others.
    pub(crate) async fn action(&self, salt: &str) -> Digest {
        self.action_with(salt, |_, _| ()).await
    }

    pub(crate) async fn action_with(
        &self,
        salt: &str,
        change: impl FnOnce(&mut Action, &mut Command),
    ) -> Digest {
        let mut command = Command { arguments: vec!["cc".to_owned()], ..Default::default() };
        let root = self.tree(&[]).await;
        let mut action = Action {
            salt: Bytes::copy_from_slice(salt.as_bytes()),
            input_root_digest: Some(root.to_proto()),
            ..Default::default()
        };
        change(&mut action, &mut command);
        let command = self.put(command.encode_to_vec()).await;
        action.command_digest.get_or_insert(command.to_proto());
        self.put(action.encode_to_vec()).await
    }

    /// Uploads a tree and its files, which hold their paths.
    pub(crate) async fn tree(&self, paths: &[&str]) -> Digest {
        let mut tree = TreeBuilder::new();
        for path in paths {
            tree.add_file(path, self.put(path.as_bytes().to_vec()).await, false).unwrap();
        }
        let built = tree.build(FUNCTION);
        for (_, data) in built.directories {
            self.put(data).await;
        }
        built.root
    }

    pub(crate) async fn execute(&self, action: Digest) -> Execution {
        self.execute_with(action, |_| ()).await.unwrap()
    }

    pub(crate) async fn execute_with(
        &self,
        action: Digest,
        change: impl FnOnce(&mut ExecuteRequest),
    ) -> Result<Execution, Status> {
        let mut request = ExecuteRequest { action_digest: Some(action.to_proto()), ..Default::default() };
        change(&mut request);
        let operations = self.execution().execute(request).await?.into_inner();
        Execution::follow(operations).await
    }

    pub(crate) async fn wait(&self, name: &str) -> Result<Execution, Status> {
        let request = reapi::WaitExecutionRequest { name: name.to_owned() };
        Execution::follow(self.execution().wait_execution(request).await?.into_inner()).await
    }

    pub(crate) async fn kept(&self, action: Digest) -> Option<ActionResult> {
        self.blobs.results().get(&ActionKey { instance: "".into(), action }).await.unwrap()
    }

    pub(crate) async fn worker(&self, name: &str) -> Worker {
        Worker::attach(self, hello(name)).await.unwrap()
    }

    /// Waits until the scheduler counts what `reached` wants to see.
    pub(crate) async fn until(&self, reached: impl Fn(&queue::Counts) -> bool) {
        while !reached(&self.dispatch.stats().await.counts) {
            tokio::task::yield_now().await;
        }
    }
}

/// A stream of operations of which the first has come.
pub(crate) struct Execution {
    pub(crate) name: String,
    pub(crate) first: Operation,
    rest: Streaming<Operation>,
}

impl Execution {
    async fn follow(mut rest: Streaming<Operation>) -> Result<Self, Status> {
        let first = rest.message().await?.expect("a stream of operations is never empty");
        Ok(Self { name: first.name.clone(), first, rest })
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Operation>, Status> {
        self.rest.message().await
    }

    /// Reads on until the operation has that stage.
    pub(crate) async fn reach(&mut self, stage: Stage) {
        let mut current = self.first.clone();
        while stage_of(&current) != stage {
            current = self.next().await.unwrap().expect("the operation goes on");
        }
    }

    /// Reads to the end; returns the stages in order, and the response.
    pub(crate) async fn end(mut self) -> (Vec<Stage>, ExecuteResponse) {
        let mut stages = vec![stage_of(&self.first)];
        let mut last = self.first.clone();
        while let Some(operation) = self.next().await.unwrap() {
            assert_eq!(operation.name, self.name);
            assert!(!last.done, "nothing comes after the end");
            stages.push(stage_of(&operation));
            last = operation;
        }
        assert!(last.done, "the stream does not end before the operation");
        (stages, response_of(&last))
    }

    pub(crate) async fn response(self) -> ExecuteResponse {
        self.end().await.1
    }

    /// The status in the response.
    pub(crate) async fn status(self) -> rpc::Status {
        self.response().await.status.unwrap_or_default()
    }
}

pub(crate) fn stage_of(operation: &Operation) -> Stage {
    let metadata: ExecuteOperationMetadata = operation.metadata.as_ref().unwrap().to_msg().unwrap();
    assert_eq!(metadata.digest_function, FUNCTION.to_proto() as i32);
    let stage = Stage::try_from(metadata.stage).unwrap();
    assert_eq!(stage == Stage::Completed, operation.done);
    stage
}

pub(crate) fn response_of(operation: &Operation) -> ExecuteResponse {
    let Some(operation::Result::Response(response)) = &operation.result else {
        panic!("an operation ends with a response, never with an error")
    };
    assert_eq!(response.type_url, "type.googleapis.com/build.bazel.remote.execution.v2.ExecuteResponse");
    response.to_msg().unwrap()
}

/// What a worker of that name says first: one slot, x86-64 Linux.
pub(crate) fn hello(name: &str) -> Hello {
    let id = Digest::of(FUNCTION, name.as_bytes()).hash_hex();
    let property = |name: &str, value: &str| reapi::platform::Property {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    Hello {
        worker_id: id[..32].to_owned(),
        name: name.to_owned(),
        version: "0.1.0".to_owned(),
        properties: vec![property("ISA", "x86-64"), property("OSFamily", "linux")],
        slots: 1,
        action_memory_bytes: 0,
        action_memory_bytes_max: 0,
        running: Vec::new(),
        sandbox: "script".to_owned(),
        draining: false,
        condition: None,
    }
}

pub(crate) fn platform(pairs: &[(&str, &str)]) -> reapi::Platform {
    let property = |&(name, value): &(&str, &str)| reapi::platform::Property {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    reapi::Platform { properties: pairs.iter().map(property).collect() }
}

/// A result with that exit code and one output file.
pub(crate) fn result(exit_code: i32, output: Digest) -> ActionResult {
    let file = OutputFile { path: "out".to_owned(), digest: Some(output.to_proto()), ..Default::default() };
    ActionResult { exit_code, output_files: vec![file], ..Default::default() }
}

pub(crate) fn status(code: Code, message: &str) -> rpc::Status {
    rpc::Status { code: code as i32, message: message.to_owned(), details: Vec::new() }
}

/// A worker that says what the test tells it to.
pub(crate) struct Worker {
    says: mpsc::Sender<WorkerMessage>,
    hears: Streaming<SchedulerMessage>,
    /// What it has heard and not been asked for yet.
    early: Vec<scheduler_message::Message>,
}

impl Worker {
    /// Says hello and hears the welcome.
    pub(crate) async fn attach(farm: &Farm, hello: Hello) -> Result<Self, Status> {
        let (says, said) = mpsc::channel(100);
        says.send(message(worker_message::Message::Hello(hello))).await.unwrap();
        let mut client = WorkersClient::new(farm.channel.clone());
        let hears = client.attach(ReceiverStream::new(said)).await?.into_inner();
        let mut worker = Self { says, hears, early: Vec::new() };
        match worker.hear().await? {
            Some(scheduler_message::Message::Welcome(_)) => Ok(worker),
            other => panic!("not a welcome: {other:?}"),
        }
    }

    /// The next message; `None` at the end of the stream.
    pub(crate) async fn hear(&mut self) -> Result<Option<scheduler_message::Message>, Status> {
        Ok(self.hears.message().await?.map(|message| message.message.expect("a message says something")))
    }

    /// The next message that `wanted` has a use for; others wait for their own time.
    async fn next_of<T>(&mut self, wanted: impl Fn(&scheduler_message::Message) -> Option<T>) -> T {
        if let Some((at, found)) =
            self.early.iter().enumerate().find_map(|(at, early)| Some((at, wanted(early)?)))
        {
            self.early.remove(at);
            return found;
        }
        loop {
            let message = self.hear().await.unwrap().expect("the stream goes on");
            match wanted(&message) {
                Some(found) => return found,
                None => self.early.push(message),
            }
        }
    }

    pub(crate) async fn lease(&mut self) -> Lease {
        self.next_of(|message| match message {
            scheduler_message::Message::Lease(lease) => Some(lease.clone()),
            _ => None,
        })
        .await
    }

    /// Hears that a lease is void; returns its id.
    pub(crate) async fn cancelled(&mut self) -> String {
        self.next_of(|message| match message {
            scheduler_message::Message::CancelLease(cancel) => Some(cancel.lease_id.clone()),
            _ => None,
        })
        .await
    }

    /// Hears that an outcome is kept; returns the id of its lease.
    pub(crate) async fn kept(&mut self) -> String {
        self.next_of(|message| match message {
            scheduler_message::Message::OutcomeKept(kept) => Some(kept.lease_id.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn say(&self, said: worker_message::Message) {
        self.says.send(message(said)).await.unwrap();
    }

    pub(crate) async fn drain(&self) {
        self.say(worker_message::Message::Draining(Draining { reason: "done".to_owned() })).await;
    }

    pub(crate) async fn report(&self, lease: &Lease, status: rpc::Status, result: Option<ActionResult>) {
        let lease_id = lease.lease_id.clone();
        let outcome = Outcome { lease_id, status: Some(status), result, ..Outcome::default() };
        self.say(worker_message::Message::Outcome(outcome)).await;
    }

    pub(crate) async fn finish(&self, lease: &Lease, result: ActionResult) {
        self.report(lease, status(Code::Ok, ""), Some(result)).await;
    }

    /// Takes a lease, ends it well, and hears that it is kept.
    pub(crate) async fn run_one(&mut self, farm: &Farm) -> Lease {
        let lease = self.lease().await;
        let output = farm.put("output").await;
        self.finish(&lease, result(0, output)).await;
        assert_eq!(self.kept().await, lease.lease_id);
        lease
    }
}

/// A lease as a worker states it when it attaches.
pub(crate) fn running(lease: &Lease) -> Running {
    Running {
        lease_id: lease.lease_id.clone(),
        instance_name: lease.instance_name.clone(),
        action_digest: lease.action_digest.clone(),
        digest_function: lease.digest_function,
        stage: Stage::Executing as i32,
    }
}

fn message(message: worker_message::Message) -> WorkerMessage {
    WorkerMessage { message: Some(message) }
}
