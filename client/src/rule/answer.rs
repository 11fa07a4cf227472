//! The answering of a call by its rule: recognise it, look it up, or run the tool and keep what comes of it.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use castwork_cas::Digest;

use super::book::Rule;
use super::leavings::Leavings;
use super::markers::files_in_markers;
use super::outputs::{Outputs, put_back, taken_out};
use super::reads::Reads;
use super::work::Work;
use crate::answering::{Answered, Source};
use crate::clock::Start;
use crate::config::Config;
use crate::counters::Configuration;
use crate::direct::key::ManifestKey;
use crate::direct::{Entry, Manifest};
use crate::local::Platform;
use crate::reason::Reason;
use crate::run;
use crate::tiers::{Answer, Inputs, Remote, Stack};

/// Most bytes of a preprocessed text.
const TEXT_BYTES_MAX: usize = 256 << 20;

/// Answers a call of a tool by its rule.
///
/// # Errors
/// The reason to pass the call through.
pub fn answer(
    config: &Config,
    rule: &Rule,
    program: &Path,
    words: &[OsString],
    configuration: &Configuration,
) -> Result<Answered, Reason> {
    let work = Work::new(config, rule, program, words)?;
    let named = Reads::of(work.command.inputs.iter(), &work.place, &mut work.hashes())?;
    let key = work.key(&named);
    let mut answering = Answering { work: &work, key, stack: Stack::new(config, configuration) };
    if let Some(source) = answering.recognise() {
        return Ok(answering.stack.answered(source, 0, false));
    }
    let folder = config.dir.join("cache/tmp");
    let start = Start::now(&folder, Path::new(&work.place.absolute(&work.command.inputs[0])))
        .map_err(|_| Reason::new("no folder for temporary files"))?;
    let known = answering.known(&named);
    if let Some(known) = &known
        && let Some(source) = answering.look_up(known)
    {
        return Ok(answering.stack.answered(source, 0, true));
    }
    let code = answering.run(&start, known)?;
    Ok(answering.stack.answered(Source::LocalRun, code, !rule.preprocess.is_empty()))
}

/// An action that is known, with what the tool reads for it.
struct Known {
    action: Digest,
    messages: Vec<(Digest, Bytes)>,
    reads: Reads,
}

struct Answering<'a> {
    work: &'a Work<'a>,
    key: ManifestKey,
    stack: Stack<'a>,
}

impl Answering<'_> {
    /// Answers by what has been seen with such calls, without starting a process.
    fn recognise(&mut self) -> Option<Source> {
        let mut hashes = self.work.hashes();
        let place = &self.work.place;
        let mut fits = |manifest: &Manifest| {
            let entry = manifest.check(place, None, &mut hashes).fitting?;
            Some((entry.action.parse::<Digest>().ok()?, entry.clone()))
        };
        let local = self.stack.local_manifest(&self.key).and_then(|manifest| fits(&manifest));
        if let Some((action, _)) = &local
            && let Some(answer) = self.stack.local_answer(action)
            && self.deliver(&answer)
        {
            return Some(Source::LocalHit);
        }
        if self.work.config.remotes.is_empty() {
            return None;
        }
        let is_new = local.is_none();
        let mut found = local;
        if is_new {
            self.stack.remote_manifest(&self.key, |manifest| {
                found = fits(manifest);
                found.is_some()
            });
        }
        let (action, entry) = found?;
        let local = if is_new { self.stack.local_answer(&action) } else { None };
        let answer = match local {
            Some(answer) => answer,
            None => self.stack.remote_answer(&action)?,
        };
        if !self.deliver(&answer) {
            return None;
        }
        self.stack.keep_locally(&action, &answer);
        if is_new {
            self.stack.amend_manifests(&self.key, false, |manifest| manifest.add(entry.clone()));
        }
        Some(Source::RemoteHit)
    }

    /// What can be known of the action before the tool has run.
    fn known(&mut self, named: &Reads) -> Option<Known> {
        let work = self.work;
        if work.rule.preprocess.is_empty() {
            if work.rule.tells_what_it_reads() {
                return None;
            }
            let (action, messages) = work.action_on_files(named)?;
            return Some(Known { action, messages, reads: named.clone() });
        }
        let preprocessed = self.preprocess();
        preprocessed.map_err(|reason| self.stack.reasons.push(reason)).ok()
    }

    fn preprocess(&self) -> Result<Known, Reason> {
        let work = self.work;
        let failed = Reason::new("tool that doesn't preprocess");
        let output = Command::new(work.program)
            .args(work.words_to_preprocess())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .map_err(|_| failed.clone())?;
        if !output.status.success() || output.stdout.len() > TEXT_BYTES_MAX {
            return Err(failed);
        }
        let mut files = files_in_markers(&output.stdout).ok_or(failed.clone())?;
        files.extend(work.command.inputs.iter().cloned());
        let reads = Reads::of(files.iter(), &work.place, &mut work.hashes())?;
        let text = taken_out(&output.stdout, &work.place)?;
        let (action, messages) = work.action_on_text(&text).ok_or(failed)?;
        Ok(Known { action, messages, reads })
    }

    fn look_up(&mut self, known: &Known) -> Option<Source> {
        let action = &known.action;
        if let Some(answer) = self.stack.local_answer(action)
            && self.deliver(&answer)
        {
            self.remember(action, &known.reads, false);
            return Some(Source::LocalHit);
        }
        let answer = self.stack.remote_answer(action)?;
        if !self.deliver(&answer) {
            return None;
        }
        self.stack.keep_locally(action, &answer);
        self.remember(action, &known.reads, true);
        Some(Source::RemoteHit)
    }

    /// Leaves an answer where the tool would have.
    fn deliver(&mut self, answer: &Answer) -> bool {
        let place = &self.work.place;
        let outputs = Outputs::unpack(&answer.object).ok_or(Reason::new("result without its outputs"));
        if let Err(reason) = outputs.and_then(|outputs| outputs.write(place)) {
            self.stack.reasons.push(reason);
            return false;
        }
        // Whoever closed our outputs doesn't want to hear.
        let _ = std::io::stdout().write_all(&put_back(&answer.stdout, place));
        let _ = std::io::stdout().flush();
        let _ = std::io::stderr().write_all(&put_back(&answer.stderr, place));
        true
    }

    /// Keeps what lets the call be recognised the next time.
    fn remember(&mut self, action: &Digest, reads: &Reads, remotely: bool) {
        match self.entry(action, reads) {
            Ok(entry) => {
                self.stack.amend_manifests(&self.key, remotely, |manifest| manifest.add(entry.clone()));
            }
            Err(reason) => {
                self.stack.reasons.push(Reason::of(format!("not recognised the next time: {reason}")));
            }
        }
    }

    fn entry(&self, action: &Digest, reads: &Reads) -> Result<Entry, Reason> {
        if !self.work.search.is_empty() && reads.asks_for_time() {
            return Err("`__DATE__` or `__TIME__`".into());
        }
        reads.entry(action, &self.work.search, &self.work.place)
    }

    /// Runs the tool, and returns its exit code.
    fn run(&mut self, start: &Start, known: Option<Known>) -> Result<u8, Reason> {
        let mut leavings = Leavings::prepare(self.work, start)?;
        let words = self.work.words_for(leavings.added_depfile(), leavings.folder());
        let ran = match run::run(self.work.program, &words) {
            Ok(ran) => ran,
            Err(error) => {
                run::complain(&format!("can't start `{}`: {error}", self.work.program.display()));
                return Ok(127);
            }
        };
        let code = Platform::exit_code(ran.status);
        let gathered = leavings.gather(self.work, start);
        if ran.status.success()
            && let Err(reason) = gathered.and_then(|()| self.keep(start, &leavings, ran, known))
        {
            self.stack.reasons.push(reason);
        }
        Ok(code)
    }

    /// Keeps what came of a run, where that is right.
    fn keep(
        &mut self,
        start: &Start,
        leavings: &Leavings,
        ran: run::Ran,
        known: Option<Known>,
    ) -> Result<(), Reason> {
        let work = self.work;
        let messages =
            ran.stdout.zip(ran.stderr).ok_or(Reason::new("messages that are too long to be kept"))?;
        let outputs = Outputs::gather(leavings.outputs.iter(), &work.place)?;
        let files = leavings.read.iter().chain(&work.command.inputs);
        let mut reads = Reads::of(files, &work.place, &mut work.hashes())?;
        let (action, parts) = match known {
            Some(known) => {
                for (name, (_, hash)) in &known.reads.files {
                    if reads.files.get(name).is_some_and(|(_, now)| now != hash) {
                        return Err("file changed while the tool ran".into());
                    }
                }
                reads.add(known.reads);
                (known.action, known.messages)
            }
            None => work.action_on_files(&reads).ok_or(Reason::new("file with an unusual name"))?,
        };
        if !reads.is_older_than(start.instant_ns) {
            return Err("file changed while the tool ran".into());
        }
        if !work.is_tool_unchanged() {
            return Err("tool changed while it ran".into());
        }
        let answer = Answer {
            object: outputs.pack(),
            stdout: taken_out(&messages.0, &work.place)?.into(),
            stderr: taken_out(&messages.1, &work.place)?.into(),
        };
        self.stack.keep_locally(&action, &answer);
        let inputs = Inputs { messages: parts, files: Vec::new(), toolchain: Vec::new() };
        self.stack.keep_remotely(|remote| match remote {
            Remote::Folder(tier) => tier.put(&action, &answer),
            Remote::Server(tier) => match tier.capabilities()? {
                (_, true) => tier.put(&action, &inputs, &answer, ran.took),
                _ => Ok(()),
            },
        });
        self.remember(&action, &reads, true);
        Ok(())
    }
}
