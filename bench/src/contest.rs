//! Commands in turn on the same work: wall time and CPU time of each.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::spread::Spread;

/// Someone who takes part: a name for the table, and how to do the work once.
pub struct Contestant<'a> {
    /// What the table calls it.
    pub name: String,
    /// Brings about what the work starts from (removes an output, empties a cache); not measured.
    pub prepare: Box<dyn FnMut() -> Result<(), String> + 'a>,
    /// The work, one command.
    pub command: Box<dyn FnMut() -> Command + 'a>,
}

/// How one contestant did.
#[derive(Clone, Debug)]
pub struct Score {
    /// The contestant's name.
    pub name: String,
    /// Wall time of the command, from start to end.
    pub wall: Spread,
    /// CPU time, user and system, of the command and the children it waited for.
    pub cpu: Spread,
}

/// Lets everyone do the work `rounds` times, in turn, after one round that is not counted.
///
/// # Errors
/// Names the contestant whose command could not be started, or ended with something else than 0.
pub fn hold(contestants: &mut [Contestant<'_>], rounds: usize) -> Result<Vec<Score>, String> {
    let mut times = vec![(Vec::new(), Vec::new()); contestants.len()];
    for round in 0..=rounds {
        for (contestant, (walls, cpus)) in contestants.iter_mut().zip(&mut times) {
            (contestant.prepare)().map_err(|error| format!("{}: {error}", contestant.name))?;
            let (wall, cpu) = timed(&mut (contestant.command)())
                .map_err(|error| format!("{}: {error}", contestant.name))?;
            if round > 0 {
                walls.push(wall);
                cpus.push(cpu);
            }
        }
    }
    let scored = contestants.iter().zip(times).map(|(contestant, (walls, cpus))| Score {
        name: contestant.name.clone(),
        wall: Spread::new(walls),
        cpu: Spread::new(cpus),
    });
    Ok(scored.collect())
}

/// Runs a command to its end: wall and CPU time.
///
/// CPU time is read from this process's account of children, so nothing else may be waited for
/// meanwhile.
fn timed(command: &mut Command) -> Result<(Duration, Duration), String> {
    let program = Path::new(command.get_program()).display().to_string();
    let cpu_before = cpu_of_children()?;
    let begin = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| format!("start `{program}`: {error}"))?;
    let wall = begin.elapsed();
    if !output.status.success() {
        return Err(format!("`{program}` {}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    Ok((wall, cpu_of_children()?.saturating_sub(cpu_before)))
}

#[cfg(unix)]
fn cpu_of_children() -> Result<Duration, String> {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike as _;

    let usage =
        getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|error| format!("getrusage of children: {error}"))?;
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(microseconds).unwrap_or(0)))
}

#[cfg(not(unix))]
fn cpu_of_children() -> Result<Duration, String> {
    Err("this platform does not tell the CPU time of children".to_owned())
}
