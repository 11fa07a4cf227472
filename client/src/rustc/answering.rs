//! The answering of a call of rustc: from a cache if it is recognised, and else by rustc.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use super::asked::{Asked, result_key};
use super::keeping;
use super::texts::{self, DepInfo};
use crate::answering::{Answered, Source};
use crate::config::Config;
use crate::counters::Configuration;
use crate::direct::call::{Call, Here};
use crate::direct::{Hashes, Manifest};
use crate::environment;
use crate::files;
use crate::reason::Reason;
use crate::tiers::{Answer, Output, Stack};

/// Answers a call that is understood.
///
/// # Errors
/// The reason to pass it through.
pub fn answer(
    config: &Config,
    asked: &Asked,
    mut hashes: Hashes,
    configuration: &Configuration,
) -> Result<Answered, Reason> {
    let mut stack = Stack::new(config, configuration);
    if let Some(source) = recognise(config, asked, &mut stack, &mut hashes) {
        return Ok(stack.answered(source, 0, false));
    }
    keeping::run(config, asked, stack)
}

/// Answers from a cache, if what was seen with such calls fits.
fn recognise(config: &Config, asked: &Asked, stack: &mut Stack<'_>, hashes: &mut Hashes) -> Option<Source> {
    let here = Here {
        place: &asked.here.place,
        width: asked.compile.width.as_deref(),
        variable: &environment::of_process,
    };
    let mut fits = |manifest: &Manifest| {
        manifest.calls.iter().find_map(|call| match call.check(&here, hashes) {
            Ok(()) => {
                let read = Call { action: String::new(), ..call.clone() };
                let action = result_key(&asked.key, &read).digest;
                // Whoever names another, names what is not the answer to this.
                (action.to_string() == call.action).then(|| (action, call.clone()))
            }
            Err(misfit) => {
                tracing::debug!(?misfit, "a call that was seen doesn't fit");
                None
            }
        })
    };
    let known = stack.local_manifest(&asked.key).and_then(|manifest| fits(&manifest));
    if let Some((action, _)) = &known
        && let Some(answer) = stack.local_answer(action)
        && deliver(asked, &answer, stack)
    {
        return Some(Source::LocalHit);
    }
    if config.remotes.is_empty() {
        return None;
    }
    let is_new = known.is_none();
    let (action, call) = known.or_else(|| {
        let mut found = None;
        stack.remote_manifest(&asked.key, |manifest| {
            found = fits(manifest);
            found.is_some()
        });
        found
    })?;
    let local = stack.local_answer(&action).filter(|_| is_new);
    let answer = local.or_else(|| stack.remote_answer(&action))?;
    if !deliver(asked, &answer, stack) {
        return None;
    }
    stack.keep_locally(&action, &answer);
    if is_new {
        stack.amend_manifests(&asked.key, false, |manifest| manifest.add_call(call.clone()));
    }
    Some(Source::RemoteHit)
}

/// Leaves an answer where rustc would have left it. If that fails, rustc will say why.
fn deliver(asked: &Asked, answer: &Answer, stack: &mut Stack<'_>) -> bool {
    let Some(texts) = Texts::of(asked, answer) else {
        stack.reasons.push("result that is not whole".into());
        return false;
    };
    let folder = Path::new(&asked.here.outputs);
    if !folder.is_dir() {
        stack.reasons.push("no folder for outputs".into());
        return false;
    }
    let dep_info = asked.compile.dep_info();
    let outputs = answer.outputs.iter().filter(|output| output.name != dep_info);
    let written = outputs
        .map(|output| files::write_made(&folder.join(&output.name), &output.data, output.is_executable))
        // Last: who finds it may take the others for there.
        .chain(std::iter::once_with(|| {
            files::write_output(&folder.join(&dep_info), texts.dep_info.as_bytes())
        }))
        .collect::<Result<Vec<()>, _>>();
    if let Err(error) = written {
        tracing::debug!(%error, "outputs can't be written");
        stack.reasons.push("outputs can't be written".into());
        return false;
    }
    // Whoever closed our outputs doesn't want to hear.
    let _ = std::io::stdout().write_all(&answer.stdout).and_then(|()| std::io::stdout().flush());
    let _ = std::io::stderr().write_all(texts.messages.as_bytes());
    true
}

/// The texts of an answer, with the names of here.
struct Texts {
    dep_info: String,
    messages: String,
}

impl Texts {
    /// `None` if the answer lacks an output that it tells of, or has others.
    fn of(asked: &Asked, answer: &Answer) -> Option<Self> {
        let name = asked.compile.dep_info();
        let kept = std::str::from_utf8(&answer.output(&name)?.data).ok()?;
        let dep_info = texts::to_real(kept, &asked.here);
        let absolute = |path: &String| asked.here.place.absolute(path);
        let mut named: BTreeSet<String> = DepInfo::read(&dep_info).outputs.iter().map(absolute).collect();
        named.insert(format!("{}/{name}", asked.here.outputs));
        let own = asked.compile.outputs();
        let path = |output: &Output| format!("{}/{}", asked.here.outputs, output.name);
        let paths: BTreeSet<String> = answer.outputs.iter().map(path).collect();
        let is_whole = answer.outputs.len() == named.len()
            && paths == named
            && answer.outputs.iter().all(|output| own.contains(&output.name));
        let messages = texts::messages_to_real(std::str::from_utf8(&answer.stderr).ok()?, &asked.here);
        is_whole.then_some(Self { dep_info, messages })
    }
}
