//! What confining a command costs: `true` in the sandbox, by `bwrap` with the same layers, and plain.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use castwork_worker::sandbox::{
    Bounds, Confined, End, INPUTS, Root, RunSpec, STAGE, Sandbox, Surroundings, remove_tree,
};
use tokio_util::sync::CancellationToken;

use crate::spread::{Spread, milliseconds};
use crate::table;

/// What is run; on every Linux.
const TRUE: &str = "/bin/true";

/// What `bwrap` is told so that a command sees and can do as much as in ours.
const BWRAP: &str = "--unshare-user --unshare-pid --unshare-ipc --unshare-uts --unshare-net --unshare-cgroup \
    --new-session --die-with-parent --clearenv --cap-drop ALL --proc /proc --dev /dev --tmpfs /tmp --chdir /build";

/// Measures all three in turn; Markdown.
///
/// # Errors
/// What could not be started or did not end with exit code 0.
pub async fn run(worker: &Path, rounds: usize) -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("make a folder: {error}"))?;
    let surroundings = Surroundings {
        data_dir: folder.path().to_owned(),
        hidden: Vec::new(),
        level: None,
        bounds: Bounds::for_this_machine(1),
        program: Some(worker.to_owned()),
    };
    let sandbox = Confined::probe(&surroundings).await.map_err(|error| error.to_string())?;
    let has_bwrap = timed(&mut bwrap(folder.path())).is_ok();
    let (mut plain, mut peer, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let times = [timed(Command::new(TRUE).env_clear())?, confined(&sandbox, folder.path(), round).await?];
        let by_peer = if has_bwrap { Some(timed(&mut bwrap(folder.path()))?) } else { None };
        // The first round pays for what is made once.
        if round > 0 {
            plain.push(times[0]);
            own.push(times[1]);
            peer.extend(by_peer);
        }
    }
    let plain = Spread::new(plain);
    let mut rows = vec![row("plain", &plain, &plain), row(sandbox.level(), &Spread::new(own), &plain)];
    if has_bwrap {
        rows.push(row("bwrap, the same namespaces and mounts", &Spread::new(peer), &plain));
    }
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

/// One run in the sandbox. The folder for it is made before and removed after, which is not measured:
/// it holds the inputs, and would be there without a sandbox.
async fn confined(sandbox: &Confined, folder: &Path, round: usize) -> Result<Duration, String> {
    let scratch = folder.join(STAGE).join(round.to_string());
    std::fs::create_dir_all(scratch.join(INPUTS))
        .and_then(|()| sandbox.owner().take(&scratch.join(INPUTS)))
        .map_err(|error| format!("make a folder for inputs: {error}"))?;
    let spec = RunSpec {
        scratch: scratch.clone(),
        base: None,
        root: Root::Worker,
        arguments: vec![TRUE.to_owned()],
        environment: Vec::new(),
        working_directory: String::new(),
        timeout: Duration::from_secs(60),
    };
    let begin = Instant::now();
    let ended = sandbox.run(&spec, &CancellationToken::new()).await.map_err(|error| error.to_string())?;
    let took = begin.elapsed();
    let end = ended.end;
    drop(ended);
    remove_tree(&scratch).map_err(|error| format!("remove `{}`: {error}", scratch.display()))?;
    if end == End::Exited(0) { Ok(took) } else { Err(format!("`{TRUE}` ended with {end:?}")) }
}

fn bwrap(folder: &Path) -> Command {
    let mut command = Command::new("bwrap");
    command.env_clear().env("PATH", "/usr/bin:/bin");
    for name in ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt"] {
        let path = PathBuf::from("/").join(name);
        command.arg("--ro-bind-try").arg(&path).arg(&path);
    }
    // The overlay that it has no option for is to its advantage.
    command.arg("--bind").arg(folder).arg("/build");
    command.args(BWRAP.split_whitespace()).arg(TRUE);
    command
}

fn timed(command: &mut Command) -> Result<Duration, String> {
    let program = Path::new(command.get_program()).display().to_string();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begin = Instant::now();
    let status = command.status().map_err(|error| format!("start `{program}`: {error}"))?;
    let took = begin.elapsed();
    if status.success() { Ok(took) } else { Err(format!("`{program}` {status}")) }
}
