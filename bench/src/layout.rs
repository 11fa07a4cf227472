//! What inputs cost on a worker: large trees that differ little, and a compiler that travels with a C++ file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use castwork_cas::merkle::TreeBuilder;
use castwork_cas::remote::{Remote, RemoteConfig};
use castwork_cas::{BlobStore as _, Digest, DigestFunction};
use castwork_proto::longrunning::operation::Result as Outcome;
use castwork_proto::reapi::execution_client::ExecutionClient;
use castwork_proto::reapi::{self, command::EnvironmentVariable, platform::Property};
use castwork_proto::worker::ExecutionFacts;
use prost::Message;

use crate::spread::{Spread, milliseconds};
use crate::table;

const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// Files of the large tree, and how many of them are others in each further action.
const FILES: usize = 5000;
const CHANGED: usize = 20;

/// Headers of the C++ file.
const HEADERS: usize = 500;

/// The compiler that travels.
const COMPILER: &str = "/usr/bin/g++";

/// What it includes unasked.
const PREDEFINED: &str = "/usr/include/stdc-predef.h";

/// Measures on a farm without any of it; Markdown.
///
/// # Errors
/// What could not be uploaded, or did not end with exit code 0.
pub async fn run(address: &str, rounds: usize) -> Result<String, String> {
    let farm = Farm { remote: connect(address)? };
    let mut rows = Vec::new();
    let tree = |round: usize| {
        let content = |at: usize| if at % (FILES / CHANGED) == 7 { round } else { 0 };
        (0..FILES)
            .map(|at| File::new(format!("d{}/f{at}", at % 100), format!("{at} {}", content(at))))
            .collect()
    };
    let truth = Order { arguments: vec!["/bin/true".to_owned()], root: "worker" };
    measure(&farm, &format!("{FILES} files, {CHANGED} changed"), rounds, tree, &truth, &mut rows).await?;
    let tools = compiler()?;
    let sources = |round: usize| {
        let header = |at: usize| {
            File::new(format!("build/h{at}.h"), format!("inline int f{at}() {{ return {at}; }}\n"))
        };
        let includes: Vec<String> = (0..HEADERS).map(|at| format!("#include \"h{at}.h\"\n")).collect();
        let main = File::new("build/main.cc", format!("{}int number = {round};\n", includes.concat()));
        tools.iter().cloned().chain((0..HEADERS).map(header)).chain([main]).collect()
    };
    let arguments = [COMPILER, "-c", "build/main.cc", "-o", "/tmp/main.o"].map(str::to_owned).to_vec();
    let what = format!("g++ and {HEADERS} headers, `root=inputs`, the source changed");
    measure(&farm, &what, rounds, sources, &Order { arguments, root: "inputs" }, &mut rows).await?;
    let heading =
        ["inputs", "entries made", "fetched", "fetch and layout", "layout alone", "Execute, all of it"];
    Ok(table::markdown(&heading, &rows))
}

/// A file of an input tree.
#[derive(Clone)]
struct File {
    path: String,
    data: bytes::Bytes,
    is_executable: bool,
}

impl File {
    fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), data: text.into().into(), is_executable: false }
    }

    /// One of this machine's, at the same place.
    fn of_machine(path: &Path) -> Result<Self, String> {
        let data = std::fs::read(path).map_err(|error| format!("read `{}`: {error}", path.display()))?;
        let path = path.to_string_lossy().trim_start_matches('/').to_owned();
        Ok(Self { path, data: data.into(), is_executable: true })
    }
}

/// What is run over inputs.
struct Order {
    arguments: Vec<String>,
    root: &'static str,
}

/// What came of one action.
struct Ran {
    facts: ExecutionFacts,
    inputs: Duration,
    whole: Duration,
}

/// Runs an action with a tree that nobody has seen, and others with trees that differ a little.
async fn measure(
    farm: &Farm,
    what: &str,
    rounds: usize,
    tree: impl Fn(usize) -> Vec<File>,
    order: &Order,
    rows: &mut Vec<Vec<String>>,
) -> Result<(), String> {
    let first = farm.run(tree(0), order).await?;
    let mut later = Vec::new();
    for round in 1..=rounds {
        later.push(farm.run(tree(round), order).await?);
    }
    let spread =
        |of: fn(&Ran) -> Duration| milliseconds(Spread::new(later.iter().map(of).collect()).median());
    let last = later.last().ok_or("there are no rounds")?;
    let made = |ran: &Ran| format!("{} of {}", ran.facts.input_entries_made, ran.facts.input_entries);
    let fetched = |ran: &Ran| format!("{} blobs, {} bytes", ran.facts.fetched_blobs, ran.facts.fetched_bytes);
    rows.push(vec![
        format!("{what}: the first"),
        made(&first),
        fetched(&first),
        milliseconds(first.inputs),
        milliseconds(layout(&first)),
        milliseconds(first.whole),
    ]);
    rows.push(vec![
        format!("{what}: later ones, p50"),
        made(last),
        fetched(last),
        spread(|ran| ran.inputs),
        spread(layout),
        spread(|ran| ran.whole),
    ]);
    Ok(())
}

fn layout(ran: &Ran) -> Duration {
    ran.facts.layout_time.and_then(|time| Duration::try_from(time).ok()).unwrap_or_default()
}

struct Farm {
    remote: Remote,
}

impl Farm {
    async fn run(&self, files: Vec<File>, order: &Order) -> Result<Ran, String> {
        let mut tree = TreeBuilder::new();
        let mut blobs = Vec::new();
        for file in files {
            let digest = Digest::of(FUNCTION, &file.data);
            tree.add_file(&file.path, digest, file.is_executable).map_err(|error| error.to_string())?;
            blobs.push((digest, file.data));
        }
        let built = tree.build(FUNCTION);
        blobs.extend(built.directories);
        let path = EnvironmentVariable { name: "PATH".to_owned(), value: "/usr/bin:/bin".to_owned() };
        let command = reapi::Command {
            arguments: order.arguments.clone(),
            environment_variables: vec![path],
            ..reapi::Command::default()
        };
        let command = blob(&command, &mut blobs);
        let property = Property { name: "root".to_owned(), value: order.root.to_owned() };
        let action = reapi::Action {
            command_digest: Some(command.to_proto()),
            input_root_digest: Some(built.root.to_proto()),
            platform: Some(reapi::Platform { properties: vec![property] }),
            do_not_cache: true,
            ..reapi::Action::default()
        };
        let action = blob(&action, &mut blobs);
        let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
        let missing = self.remote.find_missing(&digests).await.map_err(|error| error.to_string())?;
        let missing: std::collections::HashSet<Digest> = missing.into_iter().collect();
        blobs.retain(|(digest, _)| missing.contains(digest));
        self.remote.put_many(blobs).await.map_err(|error| format!("upload: {error}"))?;
        self.execute(&action).await
    }

    async fn execute(&self, action: &Digest) -> Result<Ran, String> {
        let failed = |status: tonic::Status| format!("Execute: {status}");
        let begin = Instant::now();
        let request = reapi::ExecuteRequest {
            action_digest: Some(action.to_proto()),
            ..reapi::ExecuteRequest::default()
        };
        let mut client = ExecutionClient::new(self.remote.channel());
        let mut operations = client.execute(request).await.map_err(failed)?.into_inner();
        while let Some(operation) = operations.message().await.map_err(failed)? {
            let Some(Outcome::Response(response)) = operation.result else { continue };
            let whole = begin.elapsed();
            let response: reapi::ExecuteResponse = response.to_msg().map_err(|error| error.to_string())?;
            let result = response.result.ok_or_else(|| format!("no result: {:?}", response.status))?;
            if result.exit_code != 0 {
                return Err(format!("the action failed: {}", self.said_by(&result).await));
            }
            let times = result.execution_metadata.ok_or("the result has no metadata")?;
            let facts = times.auxiliary_metadata.first().ok_or("the result has no facts")?;
            let facts: ExecutionFacts = facts.to_msg().map_err(|error| error.to_string())?;
            let at = |time: Option<prost_types::Timestamp>| {
                let time = time.ok_or("a time is missing")?;
                Ok::<_, String>(Duration::new(time.seconds.unsigned_abs(), time.nanos.unsigned_abs()))
            };
            let inputs = at(times.input_fetch_completed_timestamp)?
                .saturating_sub(at(times.input_fetch_start_timestamp)?);
            return Ok(Ran { facts, inputs, whole });
        }
        Err("Execute ended before its operation was done".to_owned())
    }

    /// What a command complained of.
    async fn said_by(&self, result: &reapi::ActionResult) -> String {
        let digest = result.stderr_digest.clone().unwrap_or_default();
        let Ok(digest) = Digest::from_proto(&digest, FUNCTION) else { return String::new() };
        let said = self.remote.get_many(&[digest]).await.pop().and_then(|(_, said)| said.ok());
        String::from_utf8_lossy(&said.unwrap_or_default()).into_owned()
    }
}

fn blob(message: &impl Message, blobs: &mut Vec<(Digest, bytes::Bytes)>) -> Digest {
    let data = message.encode_to_vec();
    let digest = Digest::of(FUNCTION, &data);
    blobs.push((digest, data.into()));
    digest
}

/// The compiler with all that it starts and loads, as far as this file's compiles need it.
fn compiler() -> Result<Vec<File>, String> {
    let part = |name: &str| {
        let told = said(Command::new(COMPILER).arg(format!("-print-prog-name={name}")))?;
        Ok::<_, String>(PathBuf::from("/usr/bin").join(told.trim()))
    };
    let programs = [PathBuf::from(COMPILER), part("cc1plus")?, part("as")?];
    let mut paths: Vec<PathBuf> = programs.iter().cloned().chain([PathBuf::from(PREDEFINED)]).collect();
    for program in &programs {
        let told = said(Command::new("ldd").arg(program))?;
        paths.extend(told.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
    }
    paths.sort();
    paths.dedup();
    paths.iter().map(|path| File::of_machine(path)).collect()
}

fn said(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("start `{program}`: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn connect(address: &str) -> Result<Remote, String> {
    let config = RemoteConfig {
        address: address.to_owned(),
        instance: String::new(),
        function: FUNCTION,
        token: None,
        request_metadata: None,
        timeout: Duration::from_secs(60),
    };
    Remote::connect_lazy(&config).map_err(|error| error.to_string())
}
