//! The running of a call of rustc on a worker, or here in a folder of its own while the worker is at it; and the taking over
//! of what came, where that is what rustc would have made here.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Instant;

use super::action::{Action, CRATES, OUT, words_into};
use super::archive;
use super::asked::Asked;
use super::has_ending;
use super::keeping::other_module;
use super::texts::{ARTIFACT, DepInfo};
use crate::config::Config;
use crate::delivery::say;
use crate::dependencies::position;
use crate::direct::Hashes;
use crate::environment;
use crate::files;
use crate::paths::normal;
use crate::race::{Contender, Race, Won};
use crate::reason::Reason;
use crate::run::Ran;
use crate::tiers::{First, Output, Stack};
use crate::toolchain::resolve;

/// What came of a call, as rustc would have left it.
pub enum Came {
    /// From a worker.
    Remote(Ran),
    /// From this machine, while a worker was at it.
    Here(Ran),
}

/// Has the first server that runs actions run a call, and leaves what came of it where rustc would have. `None` if rustc has to
/// be run here.
pub fn run(config: &Config, asked: &Asked, stack: &mut Stack<'_>) -> Option<Came> {
    let begun = Instant::now();
    let made_of: OnceCell<Result<Action, Reason>> = OnceCell::new();
    let (dir, after) = stack.terms_of_race();
    let first = stack.run_elsewhere(None, |tier| {
        let make = || Action::make(asked, &mut Hashes::new(&config.dir.join("memo")));
        let Ok(action) = made_of.get_or_init(make) else { return Ok(None) };
        let race = Race::new(asked, dir, after);
        tier.execute_or(&action.digest, &action.inputs, race.run(), || race.is_running()).map(Some)
    });
    if let Some(Err(reason)) = made_of.get() {
        stack.reasons.push(Reason::of(format!("run here: {reason}")));
    }
    let taken = match first? {
        First::Server(answer) => {
            let inside = |output: Output| {
                let name = output.name.strip_prefix(&format!("{OUT}/"))?.to_owned();
                Some(Output { name, ..output })
            };
            let outputs: Option<Vec<Output>> = answer.outputs.into_iter().map(inside).collect();
            let made = Made { folder: OUT.to_owned(), outputs: outputs.unwrap_or_default() };
            let ran = Ran {
                status: ExitStatus::default(),
                stdout: Some(answer.stdout.to_vec()),
                stderr: Some(answer.stderr.to_vec()),
                took: begun.elapsed(),
            };
            let sent = made_of.get().and_then(|action| action.as_ref().ok()).map(Action::files);
            take(asked, &made, ran, Some(&sent.unwrap_or_default())).map(Came::Remote)
        }
        First::Other(Won { ran, made: Some(made) }) => take(asked, &made, ran, None).map(Came::Here),
        // What it leaves and says then is for it to leave and say in its own folder.
        First::Other(Won { made: None, .. }) => return None,
    };
    taken.map_err(|reason| stack.fell_back(reason)).ok()
}

/// What a call has left in a folder that is not the one it was told.
pub struct Made {
    /// What the folder is called in what was said.
    folder: String,
    outputs: Vec<Output>,
}

impl Contender for Asked {
    type Made = Made;

    fn command_into(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words_into(self, &folder.to_string_lossy()));
        command
    }

    fn made_in(&self, folder: &Path) -> io::Result<Made> {
        let mut outputs = Vec::new();
        for entry in folder.read_dir()? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|_| io::ErrorKind::InvalidFilename)?;
            outputs.push(Output { name, data: std::fs::read(entry.path())?.into(), is_executable: false });
        }
        Ok(Made { folder: folder.to_string_lossy().into_owned(), outputs })
    }

    fn is_shown_in(&self, messages: &[u8]) -> bool {
        let is_of_people = |line: &[u8]| !line.starts_with(ARTIFACT.as_bytes());
        let shows = |line: &[u8]| memchr::memmem::find(line, b"cache/tmp/race-").is_some();
        messages.split(|byte| *byte == b'\n').any(|line| is_of_people(line) && shows(line))
    }
}

/// Leaves what was made where rustc would have left it, and says what it said; `sent` are the files that a worker had.
///
/// # Errors
/// The reason to run rustc here; nothing has been left then.
fn take(asked: &Asked, made: &Made, ran: Ran, sent: Option<&HashSet<&Path>>) -> Result<Ran, Reason> {
    let folder = &asked.compile.folder;
    let name = asked.compile.dep_info();
    let unfit = Reason::new("result that is not whole");
    let said = ran.stderr.clone().and_then(|said| String::from_utf8(said).ok()).ok_or(unfit.clone())?;
    let messages = messages_of_here(&said, &made.folder, folder)?;
    let found = made.outputs.iter().find(|output| output.name == name).ok_or(unfit.clone())?;
    let dep_info = std::str::from_utf8(&found.data).map_err(|_| unfit.clone())?;
    let dep_info = dep_info_of_here(dep_info, &made.folder, folder);
    let info = DepInfo::read(&dep_info);
    let told: BTreeSet<String> = info.outputs.iter().map(|path| asked.here.place.absolute(path)).collect();
    let path_of = |name: &str| format!("{}/{name}", asked.here.outputs);
    let left: BTreeSet<String> = made.outputs.iter().map(|output| path_of(&output.name)).collect();
    if left.iter().any(|path| !told.contains(path) && *path != path_of(&name))
        || told.iter().any(|path| !left.contains(path))
    {
        return Err(unfit);
    }
    check_variables(asked, &info)?;
    if let Some(sent) = sent {
        check_files(asked, &info, &made.outputs, sent)?;
    }
    let inside = format!("{}/", made.folder);
    if made
        .outputs
        .iter()
        .any(|output| output.name != name && position(&output.data, inside.as_bytes()).is_some())
    {
        return Err("output that names another folder".into());
    }
    if !Path::new(&asked.here.outputs).is_dir() {
        return Err("no folder for outputs".into());
    }
    let outputs = made.outputs.iter().filter(|output| output.name != name);
    let written = outputs
        .map(|output| {
            files::write_made(Path::new(&path_of(&output.name)), &output.data, output.is_executable)
        })
        .chain(std::iter::once_with(|| files::write_output(Path::new(&path_of(&name)), dep_info.as_bytes())))
        .collect::<io::Result<Vec<()>>>();
    written.map_err(|_| Reason::new("outputs can't be written"))?;
    say(ran.stdout.as_deref().unwrap_or_default(), messages.as_bytes());
    Ok(Ran { stderr: Some(messages.into_bytes()), ..ran })
}

/// Checks that what was asked for has the value that it would have here.
fn check_variables(asked: &Asked, info: &DepInfo) -> Result<(), Reason> {
    let is_same = |(name, value): &(String, Option<String>)| environment::of_process(name) == *value;
    // What stands in for rustc sets more.
    let is_own = || resolve::real(&asked.program).is_ok_and(|real| real == asked.compiler.program);
    if info.variables.iter().all(is_same) && (info.variables.is_empty() || is_own()) {
        return Ok(());
    }
    Err("variable that is another on a worker".into())
}

/// Checks that what was read by a worker is what rustc would have read here.
fn check_files(
    asked: &Asked,
    info: &DepInfo,
    outputs: &[Output],
    sent: &HashSet<&Path>,
) -> Result<(), Reason> {
    let place = &asked.here.place;
    let folder = Path::new(&place.folder);
    let first = place.absolute(&asked.compile.source);
    for source in &info.sources {
        let path = normal(&place.absolute(source));
        // After a link it may lead elsewhere than it reads; links are not sent.
        let leads_there = || folder.join(source).canonicalize().ok() == Path::new(&path).canonicalize().ok();
        if !sent.contains(Path::new(&path)) || (source.contains("..") && !leads_there()) {
            return Err("source that is another on a worker".into());
        }
        // Had it been there, it might have been taken, or been one too many.
        let other = other_module(&path).filter(|_| path != first);
        let is_here = |other: &String| Path::new(other).symlink_metadata().is_ok();
        if other.is_some_and(|other| is_here(&other) && !sent.contains(Path::new(&other))) {
            return Err("module that was not sent".into());
        }
    }
    // Had another library of that name come first, it would not have been there.
    let sources = info.sources.iter().map(|path| place.absolute(path)).collect();
    let archives = outputs.iter().filter(|output| has_ending(&output.name, "rlib"));
    let archives: Vec<&[u8]> = archives.map(|output| &output.data[..]).collect();
    let (libraries, _) = archive::static_libraries(&archives, &asked.compile, folder, &sources)?;
    if libraries.iter().any(|path| !sent.contains(Path::new(&normal(&place.absolute(path))))) {
        return Err("static library that was not sent".into());
    }
    Ok(())
}

/// Dep-info as it would be here: what was made is named at the beginnings of lines, and else nowhere.
fn dep_info_of_here(text: &str, from: &str, to: &str) -> String {
    let line = |line: &str| match line.strip_prefix(from).and_then(|rest| rest.strip_prefix('/')) {
        Some(rest) => joined(to, rest),
        None => line.to_owned(),
    };
    text.split_inclusive('\n').map(line).collect()
}

/// Messages as they would be here: those for cargo name what was made.
fn messages_of_here(said: &str, from: &str, to: &str) -> Result<String, Reason> {
    let mut here = String::with_capacity(said.len());
    for line in said.split_inclusive('\n') {
        if !line.starts_with(ARTIFACT) {
            if line.contains(&format!("{from}/")) || line.contains(CRATES) {
                return Err("messages that name another folder".into());
            }
            here += line;
            continue;
        }
        let named = format!("\"artifact\":\"{from}/");
        here += &line.replacen(&named, &format!("\"artifact\":\"{}", joined(to, "")), 1);
    }
    Ok(here)
}

/// A name in a folder as rustc writes it.
fn joined(folder: &str, name: &str) -> String {
    if folder.is_empty() || folder.ends_with('/') {
        format!("{folder}{name}")
    } else {
        format!("{folder}/{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_elsewhere_is_named_as_it_would_be_here() {
        let text = "castwork-out/a.d: src/castwork-out/x.rs\n\ncastwork-out/liba.rlib: src/lib.rs\n\n# env-dep:X=castwork-out/\n";
        let here = dep_info_of_here(text, OUT, "/t/deps");
        assert_eq!(
            here,
            "/t/deps/a.d: src/castwork-out/x.rs\n\n/t/deps/liba.rlib: src/lib.rs\n\n# env-dep:X=castwork-out/\n"
        );
        assert_eq!(dep_info_of_here("castwork-out/a.d: x\n", OUT, ""), "a.d: x\n");
        assert_eq!(dep_info_of_here("castwork-outer/a.d: x\n", OUT, "t"), "castwork-outer/a.d: x\n");
        let artifact =
            format!("{ARTIFACT},\"artifact\":\"castwork-out/liba.rmeta\",\"emit\":\"metadata\"}}\n");
        let here = messages_of_here(&artifact, OUT, "/t/deps").unwrap();
        assert_eq!(here, artifact.replace("castwork-out", "/t/deps"));
        assert!(messages_of_here("warning: castwork-out/x\n", OUT, "/t/deps").is_err());
    }
}
