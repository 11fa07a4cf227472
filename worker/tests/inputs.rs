//! Inputs over inputs: what one action has laid out, the next finds, and no difference to a fresh folder shows.
//!
//! Runs twice where it is started as root: as root, and once more as a user without privileges.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it has to be")]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use castwork_cas::merkle::TreeBuilder;
use castwork_proto::reapi::{self, command::EnvironmentVariable};
use castwork_proto::worker::scheduler_message::Message as Says;
use castwork_proto::worker::{ExecutionFacts, Lease, Outcome};
use castwork_worker::{Stop, WorkerConfig, WorkerError};
use common::scheduler::{FUNCTION, Scheduler, Session};
use prost::Message;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Path to content.
type Files = BTreeMap<String, String>;

struct Farm {
    scheduler: Scheduler,
    session: Session,
    stop: Stop,
    worker: JoinHandle<Result<(), WorkerError>>,
    actions: usize,
    _folder: TempDir,
}

impl Farm {
    async fn set() -> Option<Self> {
        common::Stage::set().await?;
        let mut scheduler = Scheduler::start().await;
        let (folder, stop) = (TempDir::new().unwrap(), Stop::default());
        let mut config = WorkerConfig::new(&scheduler.address, folder.path().join("data"));
        config.slots = 2;
        config.sandbox_program = Some(PathBuf::from(env!("CARGO_BIN_EXE_castwork-worker")));
        let worker = tokio::spawn(castwork_worker::run(config, stop.clone()));
        let session = scheduler.session().await;
        Some(Self { scheduler, session, stop, worker, actions: 0, _folder: folder })
    }

    /// Runs a script over inputs; what it wrote to stdout, and what the worker says of it.
    async fn run(&mut self, files: &Files, script: &str) -> (String, ExecutionFacts) {
        self.actions += 1;
        let lease = self.lease(&self.actions.to_string(), files, script);
        let id = lease.lease_id.clone();
        self.session.say(Says::Lease(lease)).await;
        let (outcome, _) = self.session.outcome().await;
        self.session.keep(&id).await;
        let Outcome { status, result, .. } = outcome;
        let result = result.unwrap_or_else(|| panic!("{status:?}"));
        let stdout = String::from_utf8(self.scheduler.get(result.stdout_digest.as_ref())).unwrap();
        let stderr = self.scheduler.get(result.stderr_digest.as_ref());
        assert_eq!(result.exit_code, 0, "{}", String::from_utf8_lossy(&stderr));
        let facts = &result.execution_metadata.unwrap().auxiliary_metadata[0];
        (stdout, facts.to_msg().unwrap())
    }

    fn lease(&self, id: &str, files: &Files, script: &str) -> Lease {
        let mut tree = TreeBuilder::new();
        for (path, content) in files {
            tree.add_file(path, self.scheduler.put(content.as_bytes()), false).unwrap();
        }
        let built = tree.build(FUNCTION);
        for (_, bytes) in &built.directories {
            self.scheduler.put(bytes);
        }
        let path = EnvironmentVariable { name: "PATH".to_owned(), value: "/usr/bin:/bin".to_owned() };
        let command = reapi::Command {
            arguments: ["sh", "-c", script].map(str::to_owned).to_vec(),
            environment_variables: vec![path],
            output_paths: vec!["out/deep/file".to_owned()],
            ..Default::default()
        };
        let command = command.encode_to_vec();
        let action = reapi::Action {
            command_digest: Some(self.scheduler.put(&command).to_proto()),
            input_root_digest: Some(built.root.to_proto()),
            ..Default::default()
        };
        let action = action.encode_to_vec();
        Lease {
            lease_id: id.to_owned(),
            action_digest: Some(self.scheduler.put(&action).to_proto()),
            action: action.into(),
            command: command.into(),
            timeout: Some(prost_types::Duration { seconds: 120, nanos: 0 }),
            ..Default::default()
        }
    }

    async fn end(self) {
        self.stop.now.cancel();
        self.worker.await.unwrap().unwrap();
    }
}

/// Every path with its content, as a shell prints it.
const SHOW: &str = "find . -path ./out -prune -o -type f -print | LC_ALL=C sort | while read -r f; do echo \"$f=$(cat $f)\"; done";

fn shown(files: &Files) -> String {
    let mut lines: Vec<String> =
        files.iter().map(|(path, content)| format!("./{path}={content}\n")).collect();
    lines.sort();
    lines.concat()
}

fn many() -> Files {
    (0..200).map(|at| (format!("d{}/sub/f{at}.h", at % 10), format!("content {at}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_action_lays_out_only_what_differs_and_sees_exactly_its_own_inputs() {
    let Some(mut farm) = Farm::set().await else { return };
    let mut files = many();
    let vandal = format!(
        "{SHOW}; chmod -R u+w . && rm -r d1 && echo more >> d2/sub/f2.h && mkdir d1 && echo x > d1/new"
    );
    let (out, first) = farm.run(&files, &vandal).await;
    assert_eq!(out, shown(&files));
    assert_eq!(first.input_entries, 220, "200 files, ten folders with a folder each");
    assert!(first.input_entries_made >= 220 && first.fetched_blobs > 200, "{first:?}");
    assert_eq!(first.sandbox, farm.session.hello.sandbox);
    assert!(
        first.memory_bytes_max > 0 && first.uploaded_blobs > 0 && first.layout_time.is_some(),
        "{first:?}"
    );

    let (out, again) = farm.run(&files, &format!("{SHOW}; :")).await;
    assert_eq!(out, shown(&files), "nothing of what the first did is left");
    assert_eq!(
        (again.fetched_blobs, again.input_entries_made),
        (0, 2),
        "the folders above the output: {again:?}"
    );

    files.insert("d3/sub/f3.h".to_owned(), "changed".to_owned());
    files.insert("d3/added/deep/f.h".to_owned(), "added".to_owned());
    files.remove("d4/sub/f4.h");
    files.retain(|path, _| !path.starts_with("d5/"));
    // A file where a folder was, and the other way round.
    files.insert("d5".to_owned(), "no folder any more".to_owned());
    files.remove("d6/sub/f6.h");
    files.insert("d6/sub/f6.h/inner".to_owned(), "no file any more".to_owned());
    let (out, differing) = farm.run(&files, SHOW).await;
    assert_eq!(out, shown(&files));
    assert!(differing.input_entries_made < 24, "{differing:?}");
    farm.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_has_little_in_common_is_laid_out_for_itself() {
    let Some(mut farm) = Farm::set().await else { return };
    farm.run(&many(), SHOW).await;
    let other: Files = (0..100).map(|at| (format!("e{at}/f"), format!("other {at}"))).collect();
    for _ in 0..2 {
        let (out, _) = farm.run(&other, SHOW).await;
        assert_eq!(out, shown(&other));
    }
    let (_, facts) = farm.run(&many(), SHOW).await;
    assert!(facts.input_entries_made <= 2, "the first is still there: {facts:?}");
    farm.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_in_a_folder_that_only_the_base_has_is_found() {
    let Some(mut farm) = Farm::set().await else { return };
    let mut files = many();
    files.insert("out/old".to_owned(), "of the base".to_owned());
    farm.run(&files, SHOW).await;
    files.remove("out/old");
    // `out` is made for the output, and nothing of the base's shows through.
    let (out, _) = farm.run(&files, "ls -A out; echo done > out/deep/file; ls out/deep").await;
    assert_eq!(out, "deep\nfile\n");
    farm.end().await;
}

#[test]
fn all_of_it_holds_for_a_user_without_privileges() {
    common::run_again_unprivileged("all_of_it_holds_for_a_user_without_privileges");
}
