//! [`Tracer`]: takes spans from a server or a worker; [`Exporter`]: sends them to the collector.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use castwork_proto::otlp::collector::trace::v1::ExportTraceServiceRequest;
use castwork_proto::otlp::collector::trace::v1::trace_service_client::TraceServiceClient;
use castwork_proto::otlp::common::v1::InstrumentationScope;
use castwork_proto::otlp::resource::v1::Resource;
use castwork_proto::otlp::trace::v1::{ResourceSpans, ScopeSpans, Span as ProtoSpan};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tracing::{debug, warn};

use crate::span::attribute;
use crate::{Begun, Context, Settings, Span};

/// Spans that wait for the collector, at most; what comes then is left out.
const WAITING_MAX: usize = 8_192;

/// Spans of one message.
const BATCH_MAX: usize = 512;

/// How long a span waits for others to go with it.
const BATCH_WAIT: Duration = Duration::from_secs(1);

/// How long the collector may take for a message.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long what is left may take at the end.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Sends spans to the collector.
#[derive(Clone, Debug)]
pub struct Exporter {
    client: TraceServiceClient<Channel>,
    settings: Settings,
    resource: Resource,
}

impl Exporter {
    /// Sends in the name of a program, if nothing else was set. It connects when there is something to send. Has
    /// to be called in a runtime of tokio.
    pub fn new(settings: Settings, program: &str) -> Self {
        let service = settings.service.as_deref().unwrap_or(program);
        let own = [("service.name", service), ("service.version", env!("CARGO_PKG_VERSION"))];
        let set = settings.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let attributes = own.into_iter().chain(set).map(|(name, value)| attribute(name, value.into()));
        let resource = Resource { attributes: attributes.collect() };
        let client = TraceServiceClient::new(settings.endpoint().connect_lazy());
        Self { client, settings, resource }
    }

    /// Sends spans.
    ///
    /// # Errors
    /// What the collector, or the way to it, has against that.
    pub async fn send(&self, spans: Vec<Span>, timeout: Duration) -> Result<(), Status> {
        self.send_protos(spans.into_iter().map(Span::into_proto).collect(), timeout).await
    }

    async fn send_protos(&self, spans: Vec<ProtoSpan>, timeout: Duration) -> Result<(), Status> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let scope = Some(InstrumentationScope { name: "castwork".to_owned(), version });
        let of_us = ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![ScopeSpans { scope, spans }],
        };
        let mut request = Request::new(ExportTraceServiceRequest { resource_spans: vec![of_us] });
        for (name, value) in &self.settings.headers {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        let mut client = self.client.clone();
        let sent = tokio::time::timeout(timeout, client.export(request)).await;
        sent.map_err(|_| Status::deadline_exceeded("the collector takes too long"))??;
        Ok(())
    }
}

/// Takes spans, and never waits. Cheap to clone; as it is by default, it takes none.
#[derive(Clone, Debug, Default)]
pub struct Tracer {
    spans: Option<mpsc::Sender<ProtoSpan>>,
    settings: Option<Arc<Settings>>,
    left_out: Arc<AtomicU64>,
}

impl Tracer {
    /// Begins to take spans, and to send them. Has to be called in a runtime of tokio.
    pub fn start(settings: Settings, program: &str) -> (Self, Exporting) {
        let (sender, spans) = mpsc::channel(WAITING_MAX);
        let left_out = Arc::<AtomicU64>::default();
        let exporter = Exporter::new(settings.clone(), program);
        let (stop, stopped) = oneshot::channel();
        let waiting = Waiting { spans, stop: stopped };
        let task = tokio::spawn(export(exporter, waiting, Arc::clone(&left_out)));
        (Self { spans: Some(sender), settings: Some(Arc::new(settings)), left_out }, Exporting { stop, task })
    }

    /// A span that begins now: within another one, or else as the first of a trace. `None` if nobody wants to
    /// hear of it.
    pub fn begin(&self, parent: Option<&Context>) -> Option<Begun> {
        self.spans.as_ref()?;
        match parent {
            Some(parent) => parent.is_sampled().then(|| Begun::within(parent)),
            None => self.settings.as_ref().is_some_and(|it| it.chooses()).then(Begun::root),
        }
    }

    /// Takes a span that has ended.
    pub fn record(&self, span: Span) {
        if let Some(spans) = &self.spans
            && span.begun.context.is_sampled()
            && spans.try_send(span.into_proto()).is_err()
        {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Spans are sent as long as this lives.
#[derive(Debug)]
pub struct Exporting {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Takes no more spans, and waits, not for long, until those that were taken are sent.
    pub async fn finish(self) {
        drop(self.stop);
        if tokio::time::timeout(FINISH_TIMEOUT, self.task).await.is_err() {
            debug!("the last spans were not taken in time");
        }
    }
}

/// What waits to be sent.
struct Waiting {
    spans: mpsc::Receiver<ProtoSpan>,
    /// Gone when no more are to be taken.
    stop: oneshot::Receiver<()>,
}

impl Waiting {
    /// The next spans to send, together; `None` when there are no more.
    async fn batch(&mut self) -> Option<Vec<ProtoSpan>> {
        let mut batch = vec![self.next().await?];
        let until = Instant::now() + BATCH_WAIT;
        while batch.len() < BATCH_MAX
            && let Ok(Some(span)) = tokio::time::timeout_at(until, self.next()).await
        {
            batch.push(span);
        }
        Some(batch)
    }

    /// Cancel-safe.
    async fn next(&mut self) -> Option<ProtoSpan> {
        if !self.spans.is_closed() {
            tokio::select! {
                span = self.spans.recv() => return span,
                _ = &mut self.stop => self.spans.close(),
            }
        }
        self.spans.recv().await
    }
}

/// Sends what comes, until nothing more does.
async fn export(exporter: Exporter, mut waiting: Waiting, left_out: Arc<AtomicU64>) {
    let mut is_well = true;
    while let Some(batch) = waiting.batch().await {
        let count = batch.len();
        let sent = exporter.send_protos(batch, EXPORT_TIMEOUT).await;
        let left_out = left_out.swap(0, Ordering::Relaxed);
        match &sent {
            // Once, not each second.
            Err(status) if is_well => {
                warn!(reason = status.message(), spans = count, "the collector does not take traces");
            }
            Ok(()) if !is_well => debug!("the collector takes traces again"),
            _ if left_out > 0 => debug!(left_out, "more spans than the collector takes"),
            _ => {}
        }
        is_well = sent.is_ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::MILLION;

    fn settings(share_ppm: u32) -> Settings {
        let endpoint =
            |name: &str| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| "http://127.0.0.1:1".to_owned());
        Settings { share_ppm, ..Settings::from_environment(endpoint).unwrap().unwrap() }
    }

    #[tokio::test]
    async fn a_collector_that_is_not_there_costs_spans_and_nothing_else() {
        let (tracer, exporting) = Tracer::start(settings(MILLION), "test");
        for _ in 0..2 * WAITING_MAX {
            let begun = tracer.begin(None).unwrap();
            tracer.record(Span::until_now("x", crate::Kind::Internal, begun, std::time::SystemTime::now()));
        }
        assert!(tracer.left_out.load(Ordering::Relaxed) > 0);
        exporting.finish().await;
    }

    #[tokio::test]
    async fn who_began_a_trace_decides_whether_it_is_told_of() {
        let (tracer, _exporting) = Tracer::start(settings(0), "test");
        assert_eq!(tracer.begin(None), None);
        let asked = Context::root();
        assert_eq!(tracer.begin(Some(&asked)).unwrap().parent, Some(asked.span()));
        let unasked: Context = asked.to_string().replace("-01", "-00").parse().unwrap();
        assert_eq!(tracer.begin(Some(&unasked)), None);
        assert_eq!(Tracer::default().begin(Some(&asked)), None);
    }
}
