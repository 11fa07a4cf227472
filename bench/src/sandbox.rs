//! What confining a command costs: `true` in the sandbox, by `bwrap` with the same layers, and plain.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use castwork_worker::sandbox::{
    Bounds, Confined, End, Ended, INPUTS, Root, RunSpec, STAGE, Sandbox, Surroundings, remove_tree,
};
use tokio_util::sync::CancellationToken;

use crate::spread::{Spread, milliseconds};
use crate::table;

/// What is run; on every Linux.
const TRUE: &str = "/bin/true";

/// How it is told to put what a command writes over its inputs, where it can.
const OVERLAY: &str = "--overlay-src";

/// What `bwrap` is told so that a command sees and can do as much as in ours.
const BWRAP: &str = "--unshare-user --unshare-pid --unshare-ipc --unshare-uts --unshare-net --unshare-cgroup \
    --new-session --die-with-parent --clearenv --cap-drop ALL --proc /proc --dev /dev --tmpfs /tmp --chdir /build";

/// Measures all three in turn; Markdown.
///
/// # Errors
/// What could not be started or did not end with exit code 0.
pub async fn run(worker: &Path, bwrap: &Path, rounds: usize) -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("make a folder: {error}"))?;
    let surroundings = Surroundings {
        data_dir: folder.path().to_owned(),
        hidden: Vec::new(),
        level: None,
        bounds: Bounds::for_this_machine(1),
        allows_network: false,
        program: Some(worker.to_owned()),
    };
    let sandbox = Confined::probe(&surroundings).await.map_err(|error| error.to_string())?;
    let costs = costs(&sandbox, &Bwrap::find(bwrap), folder.path(), rounds).await?;
    let ends = leftovers(&sandbox, folder.path(), (rounds / 50).max(3)).await?;
    Ok(format!("{costs}\n{ends}"))
}

async fn costs(
    sandbox: &Confined,
    bwrap: &Bwrap<'_>,
    folder: &Path,
    rounds: usize,
) -> Result<String, String> {
    let has_bwrap = bwrap.run(folder).is_ok();
    let (mut plain, mut peer, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let times = [timed(Command::new(TRUE).env_clear())?, confined(sandbox, folder, round, &[]).await?];
        let by_peer = if has_bwrap { Some(bwrap.run(folder)?) } else { None };
        // The first round pays for what is made once.
        if round > 0 {
            plain.push(times[0]);
            own.push(times[1]);
            peer.extend(by_peer);
        }
    }
    let needed = files_of_true()?;
    let (mut in_a_row, mut by_inputs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        in_a_row.push(confined(sandbox, folder, rounds + 1 + round, &[]).await?);
    }
    for round in 0..rounds {
        by_inputs.push(confined(sandbox, folder, 2 * rounds + 1 + round, &needed).await?);
    }
    let plain = Spread::new(plain);
    let mut rows = vec![row("plain", &plain, &plain), row(sandbox.level(), &Spread::new(own), &plain)];
    if has_bwrap {
        rows.push(row(bwrap.what(), &Spread::new(peer), &plain));
    }
    let again = format!("{}, one right after the other", sandbox.level());
    rows.push(row(&again, &Spread::new(in_a_row), &plain));
    let again = format!("{}, `root=inputs`, one right after the other", sandbox.level());
    rows.push(row(&again, &Spread::new(by_inputs), &plain));
    let heading = ["spawn to exit of `true`", "p50", "p99", "over plain, p50"];
    Ok(table::markdown(&heading, &rows))
}

fn row(name: &str, spread: &Spread, plain: &Spread) -> Vec<String> {
    let over = spread.median().saturating_sub(plain.median());
    vec![
        name.to_owned(),
        milliseconds(spread.median()),
        milliseconds(spread.percentile(99)),
        milliseconds(over),
    ]
}

/// How long it takes from the last thing that a command does until all that it has left is gone.
async fn leftovers(sandbox: &Confined, folder: &Path, rounds: usize) -> Result<String, String> {
    let mut rows = Vec::new();
    for count in [0, 100, 1000] {
        let mut times = Vec::new();
        for round in 0..rounds {
            let scratch = folder.join(STAGE).join(format!("left-{count}-{round}"));
            let mut spec = prepared(sandbox, scratch)?;
            let script = format!(
                "trap '' TERM HUP INT; i=0; while [ $i -lt {count} ]; do setsid sleep 1000 & i=$((i+1)); done
                sleep 1; date +%s%N"
            );
            spec.arguments = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
            let ended = run_one(sandbox, &spec).await?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
            let said = ended.stdout.path.clone().and_then(|path| std::fs::read_to_string(path).ok());
            let said = said.and_then(|said| said.trim().parse().ok());
            let said = Duration::from_nanos(said.ok_or("the command did not tell the time")?);
            times.push(now.saturating_sub(said));
            drop(ended);
            remove_tree(&spec.scratch).map_err(|error| format!("remove a folder: {error}"))?;
        }
        let times = Spread::new(times);
        rows.push(vec![count.to_string(), milliseconds(times.median()), milliseconds(times.percentile(99))]);
    }
    Ok(table::markdown(&["processes left behind", "all gone after, p50", "at most"], &rows))
}

/// One run in the sandbox. The folder for it is made before and removed after, which is not measured:
/// it holds the inputs, and would be there without a sandbox. If there are inputs, they are the root.
async fn confined(
    sandbox: &Confined,
    folder: &Path,
    round: usize,
    inputs: &[PathBuf],
) -> Result<Duration, String> {
    let mut spec = prepared(sandbox, folder.join(STAGE).join(round.to_string()))?;
    for path in inputs {
        let place = spec.scratch.join(INPUTS).join(path.strip_prefix("/").unwrap_or(path));
        std::fs::create_dir_all(place.parent().expect("it has a name"))
            .and_then(|()| std::fs::copy(path, &place))
            .map_err(|error| format!("copy `{}`: {error}", path.display()))?;
        spec.root = Root::Inputs;
    }
    let begin = Instant::now();
    let ended = run_one(sandbox, &spec).await?;
    let took = begin.elapsed();
    drop(ended);
    remove_tree(&spec.scratch).map_err(|error| format!("remove a folder: {error}"))?;
    Ok(took)
}

/// The program and all that its start needs, as the loader tells.
fn files_of_true() -> Result<Vec<PathBuf>, String> {
    let told = Command::new("ldd").arg(TRUE).output().map_err(|error| format!("start `ldd`: {error}"))?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let libraries = told.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(libraries.chain([PathBuf::from(TRUE)]).collect())
}

fn prepared(sandbox: &Confined, scratch: PathBuf) -> Result<RunSpec, String> {
    std::fs::create_dir_all(scratch.join(INPUTS))
        .and_then(|()| sandbox.owner().take(&scratch.join(INPUTS)))
        .map_err(|error| format!("make a folder for inputs: {error}"))?;
    Ok(RunSpec {
        scratch,
        base: None,
        root: Root::Worker,
        network: false,
        arguments: vec![TRUE.to_owned()],
        environment: Vec::new(),
        working_directory: String::new(),
        timeout: Duration::from_secs(60),
        memory_bytes: 0,
    })
}

async fn run_one(sandbox: &Confined, spec: &RunSpec) -> Result<Ended, String> {
    let ended = sandbox.run(spec, &CancellationToken::new()).await.map_err(|error| error.to_string())?;
    if ended.end == End::Exited(0) {
        Ok(ended)
    } else {
        Err(format!("the command ended with {:?}", ended.end))
    }
}

/// The peer.
struct Bwrap<'a> {
    program: &'a Path,
    has_overlay: bool,
}

impl<'a> Bwrap<'a> {
    fn find(program: &'a Path) -> Self {
        let help = Command::new(program).arg("--help").output();
        let has_overlay = help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains(OVERLAY));
        Self { program, has_overlay }
    }

    fn what(&self) -> &'static str {
        if self.has_overlay {
            "bwrap, the same namespaces, mounts and overlay"
        } else {
            "bwrap, the same namespaces and mounts, but no overlay"
        }
    }

    /// Its folders are made before and removed after, like ours.
    fn run(&self, folder: &Path) -> Result<Duration, String> {
        let scratch = folder.join("bwrap");
        let places = [INPUTS, "upper", "work"].map(|name| scratch.join(name));
        let made = places.iter().try_for_each(std::fs::create_dir_all);
        made.map_err(|error| format!("make folders for bwrap: {error}"))?;
        let took = timed(&mut self.command(&places));
        remove_tree(&scratch).map_err(|error| format!("remove a folder: {error}"))?;
        took
    }

    fn command(&self, [inputs, upper, work]: &[PathBuf; 3]) -> Command {
        let mut command = Command::new(self.program);
        command.env_clear().env("PATH", "/usr/bin:/bin");
        for name in ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt"] {
            let path = PathBuf::from("/").join(name);
            command.arg("--ro-bind-try").arg(&path).arg(&path);
        }
        if self.has_overlay {
            command.arg(OVERLAY).arg(inputs).arg("--overlay").args([upper, work]).arg("/build");
        } else {
            command.arg("--bind").arg(inputs).arg("/build");
        }
        command.args(BWRAP.split_whitespace()).arg(TRUE);
        command
    }
}

fn timed(command: &mut Command) -> Result<Duration, String> {
    let program = Path::new(command.get_program()).display().to_string();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begin = Instant::now();
    let status = command.status().map_err(|error| format!("start `{program}`: {error}"))?;
    let took = begin.elapsed();
    if status.success() { Ok(took) } else { Err(format!("`{program}` {status}")) }
}
