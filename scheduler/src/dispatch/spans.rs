//! [`Stages`]: when an operation got to which stage, told to who draws traces when it ends.

use std::time::SystemTime;

use castwork_trace::{Kind, Span, Tracer, unix_nanos};

use super::response::{code_name, code_of};
use super::watch::STAGES_MAX;
use crate::queue::{Ending, Origin, Stage};

/// When an operation got to each of its stages.
#[derive(Debug, Default)]
pub(super) struct Stages(Vec<(Stage, SystemTime)>);

impl Stages {
    /// Notes that it has got to a stage.
    pub(super) fn enter(&mut self, stage: Stage) {
        if self.0.len() < STAGES_MAX && self.0.last().is_none_or(|(last, _)| *last != stage) {
            self.0.push((stage, SystemTime::now()));
        }
    }

    /// Tells of an operation that has ended: a span for all of it, and one for each stage.
    pub(super) fn record(&self, tracer: &Tracer, origin: &Origin, action: &str, ending: &Ending) {
        let Some(begun) = origin.trace else { return };
        let from = unix_nanos(origin.queued_unix_nanos);
        let mut span = Span::until_now("operation", Kind::Server, begun, from)
            .with("castwork.action", action)
            .with("castwork.run", origin.run());
        match ending {
            Ending::Answered(response) => {
                span = span.with("castwork.cached", response.cached_result);
                if let Some(result) = &response.result {
                    span = span.with("castwork.exit_code", result.exit_code);
                }
                let status = response.status.as_ref().filter(|status| status.code != 0);
                let text = |status: &castwork_proto::rpc::Status| {
                    format!("{}: {}", code_name(status.code.into()), status.message)
                };
                span.failure = status.map(text);
            }
            Ending::Refused(refusal) => {
                span.failure = Some(format!("{}: {refusal}", code_name(code_of(refusal))));
            }
        }
        let ends = self.0.iter().skip(1).map(|(_, time)| *time).chain([span.to]);
        for ((stage, from), to) in self.0.iter().zip(ends) {
            tracer.record(span.part(name(*stage), *from, to));
        }
        tracer.record(span);
    }
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Checking => "check",
        Stage::Queued => "queue",
        Stage::Executing => "with a worker",
    }
}
