//! What this call did when, told to who draws traces, if somebody does.
//!
//! A process answers one call, so what is told of is a state of the process: nothing on the way has to know of it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use castwork_cas::Digest;
use castwork_trace::{Begun, Context, Exporter, Kind, Settings, Span, Value};

use crate::tiers::breaker::Breaker;

/// How long the collector may take. Who has the compiler's answer waits for it.
const SEND_TIMEOUT: Duration = Duration::from_millis(500);

/// Spans of one call, at most.
const SPANS_MAX: usize = 64;

static CALL: OnceLock<Traced> = OnceLock::new();

thread_local! {
    /// The span that is under way.
    static CURRENT: Cell<Option<Context>> = const { Cell::new(None) };
}

/// A call that is traced.
struct Traced {
    settings: Settings,
    begun: Begun,
    from: SystemTime,
    spans: Mutex<Vec<Span>>,
    /// What was said of the call.
    about: Mutex<BTreeMap<&'static str, Value>>,
}

/// Begins to note what this call does, if the environment names a collector.
pub fn begin() {
    let settings = Settings::from_environment(|name| std::env::var(name).ok());
    let settings = settings.unwrap_or_else(|error| {
        tracing::debug!(%error, "no traces");
        None
    });
    if let Some(settings) = settings.filter(Settings::chooses) {
        let begun = Begun::root();
        CURRENT.set(Some(begun.context));
        // A second call in one process is a test's.
        let _ = CALL.set(Traced {
            settings,
            begun,
            from: SystemTime::now(),
            spans: Mutex::default(),
            about: Mutex::default(),
        });
    }
}

/// The span that is under way, as servers are told of it.
pub fn traceparent() -> Option<String> {
    CURRENT.get().map(|context| context.to_string())
}

/// Says something of the call, instead of what was said under that name before.
pub fn say(name: &'static str, value: impl FnOnce() -> Value) {
    if let Some(traced) = CALL.get() {
        locked(&traced.about).insert(name, value());
    }
}

/// Says which action the call came to.
pub fn say_action(action: &Digest) {
    say("castwork.action", || action.to_string().into());
}

/// Does a part of the call.
pub fn part<T>(name: &'static str, kind: Kind, work: impl FnOnce() -> T) -> T {
    let Some((traced, parent)) = CALL.get().zip(CURRENT.get()) else { return work() };
    let begun = Begun::within(&parent);
    let from = SystemTime::now();
    CURRENT.set(Some(begun.context));
    let done = work();
    CURRENT.set(Some(parent));
    traced.note(Span::until_now(name, kind, begun, from));
    done
}

/// Tells of the call, which has been answered. It takes no longer than a set time; and if the collector is away, the
/// calls of the next seconds do not ask for it. `folder` is where that is remembered.
pub fn end(folder: &Path) {
    let Some(traced) = CALL.get() else { return };
    let span = Span::until_now("compile", Kind::Internal, traced.begun, traced.from);
    let about = std::mem::take(&mut *locked(&traced.about));
    traced.note(about.into_iter().fold(span, |span, (name, value)| span.with(name, value)));
    let spans = std::mem::take(&mut *locked(&traced.spans));
    let breaker = Breaker::new(folder, &format!("traces {}", traced.settings.address()));
    if !breaker.allows() {
        return;
    }
    match send(&traced.settings, spans) {
        Ok(()) => breaker.worked(),
        Err(reason) => {
            tracing::debug!(reason, "the collector does not take the trace");
            breaker.failed();
        }
    }
}

fn send(settings: &Settings, spans: Vec<Span>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let exporter = Exporter::new(settings.clone(), "castwork");
        exporter.send(spans, SEND_TIMEOUT).await.map_err(|status| status.message().to_owned())
    })
}

fn locked<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Traced {
    fn note(&self, span: Span) {
        let mut spans = locked(&self.spans);
        if spans.len() < SPANS_MAX {
            spans.push(span);
        }
    }
}
