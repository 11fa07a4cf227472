//! The answering of one compile: recognise it, look it up, have it run elsewhere, or run it here and keep what came of it.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use castwork_cas::Digest;

use crate::config::Config;
use crate::direct::key::ManifestKey;
use crate::direct::{Entry, Hashes, Manifest};
use crate::environment;
use crate::files;
use crate::local::Platform;
use crate::messages;
use crate::prepare::{Prepared, Understood};
use crate::reason::Reason;
use crate::run::{self, Ran};
use crate::tiers::{Answer, Inputs, Remote, ServerTier, Stack, TierError};

/// Where the answer to a compile came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The local cache.
    LocalHit,
    /// A remote cache.
    RemoteHit,
    /// A worker.
    RemoteRun,
    /// The compiler, here.
    LocalRun,
}

/// What came of a compile, to be counted.
pub struct Answered {
    /// From where.
    pub source: Source,
    /// The exit code to end with.
    pub code: u8,
    /// What else happened.
    pub reasons: Vec<Reason>,
    /// Whether something remote failed.
    pub has_fallen_back: bool,
    /// Whether the preprocessor had to be run.
    pub is_preprocessed: bool,
}

/// Answers a compile that is understood.
///
/// # Errors
/// The reason to pass the call through.
pub fn answer(
    config: &Config,
    compiler: &Path,
    arguments: &[OsString],
    call: Understood,
) -> Result<Answered, Reason> {
    let mut stack = Stack::new(config);
    let answered = |stack: Stack<'_>, (source, code), is_preprocessed| {
        let Stack { reasons, has_fallen_back, .. } = stack;
        Ok(Answered { source, code, reasons, has_fallen_back, is_preprocessed })
    };
    if let Some(source) = recognise(config, &call, &mut stack) {
        return answered(stack, (source, 0), false);
    }
    let prepared = call.prepare(config)?;
    let mut answering = Answering { compiler, arguments, prepared: &prepared, stack, inputs: None };
    let ended = answering.answer();
    answered(answering.stack, ended, true)
}

/// Answers by the first level of the key, if what is known of such calls fits.
fn recognise(config: &Config, call: &Understood, stack: &mut Stack<'_>) -> Option<Source> {
    let mut hashes = Hashes::new(&config.dir.join("memo"));
    let key = call.key(&call.source(&mut hashes)?);
    let date = environment::of_process(environment::DATE);
    let mut fits = |manifest: &Manifest| {
        let checked = manifest.check(&call.place, date.as_deref(), &mut hashes);
        tracing::debug!(misfit = ?checked.misfit, fits = checked.fitting.is_some(), "a manifest was found");
        checked.fitting.and_then(|entry| Some((entry.action.parse::<Digest>().ok()?, entry.clone())))
    };
    let local = stack.local_manifest(&key).and_then(|manifest| fits(&manifest));
    if let Some((action, entry)) = &local
        && let Some(answer) = stack.local_answer(action)
        && deliver(call, &answer, Some(entry), stack)
    {
        return Some(Source::LocalHit);
    }
    if config.remotes.is_empty() {
        return None;
    }
    let is_new = local.is_none();
    let (action, entry) = if let Some(known) = local {
        known
    } else {
        let mut found = None;
        stack.remote_manifest(&key, |manifest| {
            found = fits(manifest);
            found.is_some()
        });
        found?
    };
    let answer = match stack.local_answer(&action).filter(|_| is_new) {
        Some(answer) => answer,
        None => stack.remote_answer(&action)?,
    };
    if !deliver(call, &answer, Some(&entry), stack) {
        return None;
    }
    stack.keep_locally(&action, &answer);
    if is_new {
        add_locally(stack, &key, entry);
    }
    Some(Source::RemoteHit)
}

fn add_locally(stack: &mut Stack<'_>, key: &ManifestKey, entry: Entry) {
    let mut manifest = stack.local_manifest(key).unwrap_or_default();
    manifest.add(entry);
    stack.keep_manifest_locally(key, &manifest);
}

/// Leaves an answer where the compiler would have left it. If that fails, the compiler will say why.
///
/// An `entry` tells the dependency file; without one, it is written already.
fn deliver(call: &Understood, answer: &Answer, entry: Option<&Entry>, stack: &mut Stack<'_>) -> bool {
    let driver = file_name(&call.toolchain().driver);
    let Some(stderr) = messages::to_real(&answer.stderr, &call.place) else {
        stack.reasons.push("messages that don't fit this folder".into());
        return false;
    };
    if messages::names_program(&stderr, &driver) {
        stack.reasons.push("messages of the driver".into());
        return false;
    }
    if let (Some(entry), Some(path)) = (entry, call.compile.dependency_file_name()) {
        let text = entry.depfile.as_ref().and_then(|depfile| depfile.text(&call.place));
        if text.is_none_or(|text| files::write_output(Path::new(&path), text.as_bytes()).is_err()) {
            stack.reasons.push("dependency file can't be written".into());
            return false;
        }
    }
    if let Err(error) = files::write_output(Path::new(&call.compile.output), &answer.object) {
        tracing::debug!(%error, "the object can't be written");
        stack.reasons.push("object can't be written".into());
        return false;
    }
    // Whoever closed our outputs doesn't want to hear; the compiler would not fail over that either.
    let _ = std::io::stdout().write_all(&answer.stdout).and_then(|()| std::io::stdout().flush());
    let _ = std::io::stderr().write_all(&stderr);
    true
}

/// The answering of a compile by its action.
struct Answering<'a> {
    compiler: &'a Path,
    arguments: &'a [OsString],
    prepared: &'a Prepared,
    stack: Stack<'a>,
    inputs: Option<Inputs>,
}

impl Answering<'_> {
    /// Answers, and returns from where, and the exit code.
    fn answer(&mut self) -> (Source, u8) {
        let action = self.prepared.action.digest;
        if let Some(answer) = self.stack.local_answer(&action)
            && self.deliver(&answer)
        {
            self.remember(false);
            return (Source::LocalHit, 0);
        }
        if let Some(answer) = self.stack.remote_answer(&action)
            && self.deliver(&answer)
        {
            self.stack.keep_locally(&action, &answer);
            self.remember(true);
            return (Source::RemoteHit, 0);
        }
        if let Some(answer) = self.remote_run()
            && self.deliver(&answer)
        {
            self.stack.keep_locally(&action, &answer);
            self.remember(true);
            return (Source::RemoteRun, 0);
        }
        (Source::LocalRun, self.local_run())
    }

    fn deliver(&mut self, answer: &Answer) -> bool {
        deliver(&self.prepared.call, answer, None, &mut self.stack)
    }

    /// Keeps what lets the call be recognised the next time.
    fn remember(&mut self, remotely: bool) {
        match self.prepared.entry() {
            Ok((key, entry)) => {
                if remotely {
                    self.stack.keep_entry_remotely(&key, &entry);
                }
                add_locally(&mut self.stack, &key, entry);
            }
            Err(reason) => self.stack.reasons.push(Reason::of(format!("always preprocessed: {reason}"))),
        }
    }

    /// Has the first server that runs actions run this one.
    fn remote_run(&mut self) -> Option<Answer> {
        let Self { prepared, stack, inputs, .. } = self;
        stack.at_servers(|tier, stack| {
            if let Some(reason) = &prepared.action.is_bound_here {
                stack.reasons.push(Reason::of(format!("run here: {reason}")));
                return Ok(None);
            }
            if !tier.may_execute() {
                stack.fell_back("server that refused to run this a moment ago".into());
                return Ok(None);
            }
            let (executes, _) = tier.capabilities()?;
            if !executes {
                return Ok(None);
            }
            tier.execute(&prepared.action.digest, inputs.get_or_insert_with(|| prepared.inputs())).map(Some)
        })
    }

    /// Runs the compiler here, and keeps what came of it where that is right.
    fn local_run(&mut self) -> u8 {
        let mut arguments = self.arguments.to_vec();
        if self.prepared.call.has_to_be_told_of_color() {
            arguments.push("-fdiagnostics-color=always".into());
        }
        let ran = match run::run(self.compiler, &arguments) {
            Ok(ran) => ran,
            Err(error) => {
                run::complain(&format!("can't start `{}`: {error}", self.compiler.display()));
                return 127;
            }
        };
        let code = Platform::exit_code(ran.status);
        if ran.status.success() {
            match self.answer_of(ran) {
                Ok(answer) => self.keep(&answer),
                Err(reason) => self.stack.reasons.push(reason),
            }
        }
        code
    }

    /// What a local run leaves, if it may be kept.
    fn answer_of(&self, ran: Ran) -> Result<Answer, Reason> {
        let Prepared { call: Understood { compile, memory, place, .. }, closure, .. } = self.prepared;
        let object = std::fs::read(&compile.output).map_err(|_| Reason::new("object can't be read"))?;
        let (stdout, stderr) =
            ran.stdout.zip(ran.stderr).ok_or(Reason::new("messages that are too long to be kept"))?;
        if !closure.is_unchanged() {
            return Err("file changed while compiling".into());
        }
        if !memory.toolchain.is_current() {
            return Err("compiler changed while compiling".into());
        }
        let driver = file_name(&memory.toolchain.driver);
        if messages::names_program(&stderr, &file_name(self.compiler))
            || messages::names_program(&stderr, &driver)
        {
            return Err("messages of the driver".into());
        }
        let stderr =
            messages::to_virtual(&stderr, place).ok_or(Reason::new("messages that name the folder"))?;
        let stdout_moves = messages::to_virtual(&stdout, place).is_some_and(|moved| moved == stdout);
        if !stdout_moves {
            return Err("messages that name the folder".into());
        }
        Ok(Answer { object: object.into(), stdout: stdout.into(), stderr: Bytes::from(stderr) })
    }

    /// Keeps an answer of our own in every tier that takes it.
    fn keep(&mut self, answer: &Answer) {
        let Self { prepared, stack, inputs, .. } = self;
        let action = &prepared.action.digest;
        stack.keep_locally(action, answer);
        stack.keep_remotely(|remote| match remote {
            Remote::Folder(tier) => tier.put(action, answer),
            Remote::Server(tier) => {
                keep_at(tier, action, inputs.get_or_insert_with(|| prepared.inputs()), answer)
            }
        });
        self.remember(true);
    }
}

fn keep_at(tier: &ServerTier, action: &Digest, inputs: &Inputs, answer: &Answer) -> Result<(), TierError> {
    let (_, takes_results) = tier.capabilities()?;
    if takes_results { tier.put(action, inputs, answer) } else { Ok(()) }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
