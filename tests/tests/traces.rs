//! Traces: what a collector of OpenTelemetry hears of an action from the client, the server and the worker; and what
//! their logs say of it.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use castwork_proto::otlp::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use castwork_proto::otlp::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use castwork_proto::otlp::common::v1::any_value::Value;
use castwork_proto::otlp::common::v1::{AnyValue, KeyValue};
use castwork_tests::{Farm, Options, binary, have};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// How long spans may take to arrive. Generous: machines are shared.
const SPANS_WITHIN: Duration = Duration::from_secs(60);

/// A span as it arrived.
#[derive(Clone, Debug)]
struct Span {
    service: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    begin: u64,
    end: u64,
    attributes: BTreeMap<String, String>,
}

/// What has arrived so far, and the password that it came with.
#[derive(Default)]
struct Arrived {
    spans: Mutex<Vec<Span>>,
    news: Condvar,
}

/// A collector: it listens to OTLP by gRPC, and keeps what it hears.
struct Collector {
    address: String,
    arrived: Arc<Arrived>,
    _runtime: tokio::runtime::Runtime,
}

struct Receiver(Arc<Arrived>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if request.metadata().get("x-tenant").is_none_or(|tenant| tenant != "tests") {
            return Err(Status::unauthenticated("no tenant"));
        }
        let mut spans = self.0.spans.lock().expect("nobody panics with it");
        for of_one in request.into_inner().resource_spans {
            let resource = attributes(&of_one.resource.unwrap_or_default().attributes);
            let all = of_one.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(all.map(|span| Span {
                service: resource["service.name"].clone(),
                name: span.name,
                trace: hex::encode(span.trace_id),
                id: hex::encode(span.span_id),
                parent: hex::encode(span.parent_span_id),
                begin: span.start_time_unix_nano,
                end: span.end_time_unix_nano,
                attributes: attributes(&span.attributes),
            }));
        }
        self.0.news.notify_all();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attributes(all: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        other => panic!("an attribute of another kind: {other:?}"),
    };
    all.iter().map(|attribute| (attribute.key.clone(), text(&attribute.value))).collect()
}

impl Collector {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        listener.set_nonblocking(true).expect("a listener that waits for nobody");
        let arrived = Arc::<Arrived>::default();
        let service = TraceServiceServer::new(Receiver(Arc::clone(&arrived)));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(TcpIncoming::from(listener)).await
        });
        Self { address, arrived, _runtime: runtime }
    }

    fn variables(&self) -> Vec<(String, String)> {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", self.address.as_str()),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=tests"),
        ];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// Waits until one trace has a span of each of these names, and returns its spans.
    fn trace_with(&self, names: &[&str]) -> Vec<Span> {
        let spans = self.arrived.spans.lock().expect("nobody panics with it");
        let found = |spans: &[Span]| {
            let traces = spans.iter().map(|span| span.trace.clone());
            let of =
                |trace: String| spans.iter().filter(|span| span.trace == trace).cloned().collect::<Vec<_>>();
            let has =
                |trace: &Vec<Span>| names.iter().all(|name| trace.iter().any(|span| span.name == *name));
            traces.map(of).find(has)
        };
        let (spans, _) = self
            .arrived
            .news
            .wait_timeout_while(spans, SPANS_WITHIN, |spans| found(spans).is_none())
            .expect("nobody panics with it");
        found(&spans).unwrap_or_else(|| panic!("no trace with {names:?}: {spans:#?}"))
    }
}

fn compile(farm: &Farm, variables: Vec<(String, String)>, flags: &[&str]) {
    let folder = farm.folder();
    std::fs::write(folder.join("a.c"), "int a(void) { return NUMBER; }\n").expect("write a source");
    let mut command = Command::new(binary("castwork"));
    command.args(["cc", "-c", "a.c", "-o", "a.o"]).args(flags).current_dir(folder).envs(variables);
    command.env("CASTWORK_DIR", folder.join("cache")).env("CASTWORK_REMOTE", farm.address());
    command.env("CASTWORK_RACE_AFTER", "never");
    command.env("CASTWORK_RUN_ID", "run-7").env("CASTWORK_PROJECT_ROOT", folder).env("HOME", folder);
    let output = command.env_remove("CASTWORK_CONFIG").output().expect("start castwork");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn only<'a>(trace: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<_> = trace.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {trace:#?}");
    found[0]
}

#[test]
fn one_action_is_one_trace_from_the_client_through_the_server_to_the_worker() {
    if !have("the trace of an action", "cc") {
        return;
    }
    let collector = Collector::start();
    let farm = Farm::with(Options { environment: collector.variables(), ..Options::default() });
    compile(&farm, collector.variables(), &["-DNUMBER=1"]);

    // Of each program the outermost is the last.
    let trace = collector.trace_with(&["compile", "operation", "action"]);
    let compile_span = only(&trace, "compile");
    assert_eq!((compile_span.service.as_str(), compile_span.parent.as_str()), ("castwork", ""));
    assert_eq!(compile_span.attributes["castwork.source"], "remote_run");
    let asked = only(&trace, "have it run");
    assert_eq!(asked.parent, compile_span.id);
    let operation = only(&trace, "operation");
    assert_eq!((operation.service.as_str(), &operation.parent), ("castwork-scheduler", &asked.id));
    let action = only(&trace, "action");
    assert_eq!((action.service.as_str(), &action.parent), ("castwork-worker", &operation.id));
    for (part, of) in [
        ("check", operation),
        ("queue", operation),
        ("with a worker", operation),
        ("fetch inputs", action),
        ("run", action),
        ("upload outputs", action),
    ] {
        let part = only(&trace, part);
        assert_eq!(part.parent, of.id, "{trace:#?}");
        assert!(part.begin <= part.end, "{part:?}");
    }
    assert!(operation.begin <= action.begin && action.end <= operation.end, "{trace:#?}");
    for span in [operation, action] {
        assert_eq!(span.attributes["castwork.run"], "run-7");
        assert_eq!(span.attributes["castwork.action"].len(), 64 + "/123".len(), "{span:?}");
        assert_eq!(span.attributes["castwork.action"], compile_span.attributes["castwork.action"]);
    }
    assert_eq!(action.attributes["castwork.exit_code"], "0");
    let ids: std::collections::BTreeSet<_> = trace.iter().map(|span| &span.id).collect();
    assert_eq!(ids.len(), trace.len(), "each span has a name of its own");

    // What is there already is a trace of its own, and short.
    std::fs::remove_dir_all(farm.folder().join("cache")).expect("remove the local cache");
    compile(&farm, collector.variables(), &["-DNUMBER=1"]);
    let traces = collector.arrived.spans.lock().expect("nobody panics with it").clone();
    let second: Vec<_> = traces.iter().filter(|span| span.trace != compile_span.trace).cloned().collect();
    assert_eq!(only(&second, "compile").attributes["castwork.source"], "remote_hit");
    assert!(second.iter().any(|span| span.name == "look it up"), "{second:#?}");
}

#[test]
fn a_client_that_knows_nothing_of_traces_gets_one_by_the_server() {
    if !have("the trace of an action of another client", "cc") {
        return;
    }
    let collector = Collector::start();
    let farm = Farm::with(Options { environment: collector.variables(), ..Options::default() });
    compile(&farm, Vec::new(), &["-DNUMBER=2"]);
    let trace = collector.trace_with(&["operation", "action"]);
    assert_eq!(only(&trace, "operation").parent, "");
    assert_eq!(only(&trace, "action").parent, only(&trace, "operation").id);
}

#[test]
fn a_collector_that_is_gone_harms_nobody_and_logs_name_run_and_action() {
    if !have("a compile without a collector", "cc") {
        return;
    }
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port");
    let variables = vec![("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), format!("http://{gone}"))];
    let environment = variables.clone();
    let logs = || vec!["--log-format".to_owned(), "json".to_owned()];
    let (scheduler_arguments, worker_arguments) = (logs(), logs());
    let options = Options { environment, scheduler_arguments, worker_arguments, ..Options::default() };
    let mut farm = Farm::with(options);
    compile(&farm, variables, &["-DNUMBER=3"]);

    // Both have said it before the client was answered.
    let line = |log: &str, message: &str| -> serde_json::Value {
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut lines = lines.filter(|line| line["fields"]["message"] == message);
        lines.next().unwrap_or_else(|| panic!("`{message}` is not logged: {log}"))
    };
    let scheduler = line(&farm.scheduler().log(), "operation ended");
    let worker = line(&farm.worker(0).log(), "action ended");
    for line in [&scheduler["fields"], &worker["fields"]] {
        assert_eq!(line["run"], "run-7", "{line}");
        assert!(line["trace"].as_str().is_some_and(|trace| trace.len() == 32), "{line}");
    }
    let hash = worker["fields"]["action"].as_str().expect("an action");
    assert!(scheduler["fields"]["action"].as_str().is_some_and(|action| action.starts_with(hash)));
}
