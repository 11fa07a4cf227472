//! A worker, its scheduler, and leases on shell scripts.

use std::path::PathBuf;

use castwork_cas::merkle::TreeBuilder;
use castwork_proto::reapi::{self, command::EnvironmentVariable};
use castwork_proto::rpc;
use castwork_proto::worker::scheduler_message::Message as Says;
use castwork_proto::worker::{Lease, Outcome};
use castwork_worker::{SandboxChoice, Stop, WorkerConfig, WorkerError};
use prost::Message;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::scheduler::{FUNCTION, Scheduler, Session};

/// A worker with its scheduler and its one session.
pub(crate) struct Farm {
    pub scheduler: Scheduler,
    pub session: Session,
    pub folder: TempDir,
    pub stop: Stop,
    pub worker: JoinHandle<Result<(), WorkerError>>,
}

impl Farm {
    /// `None`, with the reason printed, where this machine can't confine anything.
    pub(crate) async fn set() -> Option<Self> {
        Self::set_with(|_| {}).await
    }

    /// The same, with a worker that is told more.
    pub(crate) async fn set_with(tell: impl FnOnce(&mut WorkerConfig)) -> Option<Self> {
        super::Stage::set().await?;
        let mut scheduler = Scheduler::start().await;
        let (folder, stop) = (TempDir::new().unwrap(), Stop::default());
        let mut config = config(&scheduler, &folder);
        tell(&mut config);
        let worker = tokio::spawn(castwork_worker::run(config, stop.clone()));
        let session = scheduler.session().await;
        Some(Self { scheduler, session, folder, stop, worker })
    }

    /// A lease on a shell script with inputs.
    pub(crate) fn lease(&self, id: &str, inputs: &[(&str, &str)], script: &str, outputs: &[&str]) -> Lease {
        lease(&self.scheduler, id, inputs, script, outputs, &[])
    }

    pub(crate) async fn run(&mut self, lease: Lease) -> Outcome {
        let id = lease.lease_id.clone();
        self.session.say(Says::Lease(lease)).await;
        let (outcome, _) = self.session.outcome().await;
        assert_eq!(outcome.lease_id, id);
        self.session.keep(&id).await;
        outcome
    }

    pub(crate) fn text(&self, digest: Option<&reapi::Digest>) -> String {
        String::from_utf8(self.scheduler.get(digest)).unwrap()
    }
}

pub(crate) fn config(scheduler: &Scheduler, folder: &TempDir) -> WorkerConfig {
    let mut config = WorkerConfig::new(&scheduler.address, folder.path().join("data"));
    config.slots = 2;
    if super::filters_only() {
        config.sandbox = SandboxChoice::Filters;
    }
    "tester".clone_into(&mut config.name);
    config.sandbox_program = Some(PathBuf::from(env!("CARGO_BIN_EXE_castwork-worker")));
    config
}

pub(crate) fn lease(
    scheduler: &Scheduler,
    id: &str,
    inputs: &[(&str, &str)],
    script: &str,
    outputs: &[&str],
    properties: &[(&str, &str)],
) -> Lease {
    let mut tree = TreeBuilder::new();
    for (path, content) in inputs {
        tree.add_file(path, scheduler.put(content.as_bytes()), false).unwrap();
    }
    let built = tree.build(FUNCTION);
    for (_, bytes) in &built.directories {
        scheduler.put(bytes);
    }
    let command = reapi::Command {
        arguments: ["sh", "-c", script].map(str::to_owned).to_vec(),
        environment_variables: vec![EnvironmentVariable {
            name: "PATH".to_owned(),
            value: "/usr/bin:/bin".to_owned(),
        }],
        output_paths: outputs.iter().map(|path| (*path).to_owned()).collect(),
        ..Default::default()
    };
    let property = |(name, value): &(&str, &str)| reapi::platform::Property {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    let command = command.encode_to_vec();
    let action = reapi::Action {
        command_digest: Some(scheduler.put(&command).to_proto()),
        input_root_digest: Some(built.root.to_proto()),
        platform: Some(reapi::Platform { properties: properties.iter().map(property).collect() }),
        ..Default::default()
    };
    let action = action.encode_to_vec();
    Lease {
        lease_id: id.to_owned(),
        action_digest: Some(scheduler.put(&action).to_proto()),
        action: action.into(),
        command: command.into(),
        timeout: Some(prost_types::Duration { seconds: 120, nanos: 0 }),
        queued_unix_nanos: 1_000_000_000,
        ..Default::default()
    }
}

pub(crate) fn code(outcome: &Outcome) -> (rpc::Code, &str) {
    let status = outcome.status.as_ref().unwrap();
    (rpc::Code::try_from(status.code).unwrap(), &status.message)
}
