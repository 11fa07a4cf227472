//! The answering of one compile: recognise it, look it up, have it run elsewhere, or run it here and keep what came of it.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use bytes::Bytes;
use castwork_cas::Digest;
use castwork_trace::Kind;

use crate::command_line::Dialect;
use crate::compile_first;
use crate::config::Config;
use crate::counters::Configuration;
use crate::debug_names;
use crate::delivery::{Delivery, STAYS, deliver, file_name, say};
use crate::dependencies::position;
use crate::direct::{Hashes, Manifest};
use crate::environment;
use crate::files;
use crate::link_time;
use crate::local::Platform;
use crate::messages;
use crate::prepare::{Prepared, Understood};
use crate::race::{Race, Won};
use crate::reason::Reason;
use crate::run::{self, Ran};
use crate::spans;
use crate::tiers::{Answer, First, Inputs, Remote, Stack};
use crate::why::Account;

/// Fewest bytes in the name of a folder that is looked for in objects: shorter ones are there by chance.
const NAME_BYTES_MIN: usize = 4;

/// How Microsoft's names begin that are made from the name of the source.
const UNNAMED: &str = "?A0x";

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

impl Source {
    /// As counters, and those who trace us, are told.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LocalHit => "local_hit",
            Self::RemoteHit => "remote_hit",
            Self::RemoteRun => "remote_run",
            Self::LocalRun => "local_run",
        }
    }
}

/// What came of a compile, to be counted.
pub struct Answered {
    /// From where.
    pub source: Source,
    /// The exit code to end with.
    pub code: u8,
    /// How the tool ended, if that was by a signal by which this process is to end as well.
    pub died: Option<ExitStatus>,
    /// What else happened.
    pub reasons: Vec<Reason>,
    /// Whether something remote failed.
    pub has_fallen_back: bool,
    /// Whether the preprocessor had to be run.
    pub is_preprocessed: bool,
    /// Set if the compiler has been run, and nothing of that can be kept: why.
    pub refused: Option<Reason>,
}

/// Answers a compile that is understood.
///
/// # Errors
/// The reason to pass the call through.
pub fn answer(
    config: &Config,
    compiler: &Path,
    arguments: &[OsString],
    mut call: Understood,
    configuration: &Configuration,
) -> Result<Answered, Reason> {
    let mut stack = Stack::new(config, configuration);
    let mut hints = Hints::default();
    let mut found = recognise(config, &call, &mut stack, &mut hints);
    if found.is_none() && hints.leads_out && call.leave_mounts() {
        found = recognise(config, &call, &mut stack, &mut hints);
    }
    if let Some(source) = found {
        return Ok(stack.answered(source, 0, false));
    }
    let start = call.start(config)?;
    // Nobody else runs what is for link-time optimisation; of others, servers are asked last, because that takes time.
    let mut is_run_here = || call.compile.shares_link_time() || !stack.may_run_elsewhere();
    if !hints.asks_for_preprocessing && call.can_be_watched(&start) && is_run_here() {
        return Ok(compile_first::answer(compiler, arguments, call, &start, stack));
    }
    let prepared = call.prepare_since(&start)?;
    let mut answering = Answering {
        compiler,
        arguments,
        prepared: &prepared,
        stack,
        inputs: None,
        is_read_afterwards: false,
    };
    let (source, code) = answering.answer();
    Ok(answering.stack.answered(source, code, true))
}

/// What is known of calls that can't be answered at once.
#[derive(Default)]
struct Hints {
    /// Whether preprocessing should come before compiling.
    asks_for_preprocessing: bool,
    /// Whether such calls are known without the names of folders beside the project.
    leads_out: bool,
}

/// Answers by the first level of the key, if what is known of such calls fits.
fn recognise(config: &Config, call: &Understood, stack: &mut Stack<'_>, hints: &mut Hints) -> Option<Source> {
    let mut hashes = Hashes::new(&config.dir.join("memo"));
    let source = call.source(&mut hashes)?;
    let key = call.key(&source);
    let known = stack.local_manifest(&key);
    if known.is_none()
        && let Some(other) = call.key_without_dependency_file(&source)
    {
        hints.asks_for_preprocessing |= stack.local_manifest(&other).is_some();
    }
    let date = environment::of_process(environment::DATE);
    let mut fits = |manifest: &Manifest| {
        hints.asks_for_preprocessing |= manifest.asks_for_preprocessing();
        hints.leads_out |= manifest.leads_out;
        let checked = manifest.check(&call.place, date.as_deref(), &mut hashes);
        tracing::debug!(misfit = ?checked.misfit, fits = checked.fitting.is_some(), "a manifest was found");
        checked.fitting.and_then(|entry| Some((entry.action.parse::<Digest>().ok()?, entry.clone())))
    };
    let local = known.and_then(|manifest| fits(&manifest));
    if let Some((action, entry)) = &local
        && let Some(answer) = stack.local_answer(action)
        && deliver(call, &answer, &Delivery::known(entry, false), stack)
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
    let (answer, is_foreign) = match stack.local_answer(&action).filter(|_| is_new) {
        Some(answer) => (answer, false),
        None => (stack.remote_answer(&action)?, true),
    };
    if !deliver(call, &answer, &Delivery::known(&entry, is_foreign), stack) {
        return None;
    }
    stack.keep_locally(&action, &answer);
    if is_new {
        stack.amend_manifests(&key, false, |manifest| manifest.add(entry.clone()));
    }
    Some(Source::RemoteHit)
}

impl Stack<'_> {
    /// What came of a compile, with all that was noted on the way.
    pub fn answered(self, source: Source, code: u8, is_preprocessed: bool) -> Answered {
        let Stack { reasons, has_fallen_back, .. } = self;
        Answered { source, code, reasons, has_fallen_back, is_preprocessed, refused: None, died: None }
    }
}

/// Runs the compiler here; if it can't be started, the exit code to end with.
pub fn run_here(compiler: &Path, arguments: &[OsString], call: &Understood) -> Result<Ran, u8> {
    let mut arguments = arguments.to_vec();
    if call.has_to_be_told_of_color() {
        match call.compile.dialect {
            Dialect::Gnu => arguments.push("-fdiagnostics-color=always".into()),
            // Behind `--` there are sources alone.
            Dialect::Msvc => arguments.insert(0, "-fcolor-diagnostics".into()),
        }
    }
    spans::part("compile here", Kind::Internal, || run::run(compiler, &arguments)).map_err(|error| {
        run::complain(&format!("can't start `{}`: {error}", compiler.display()));
        127
    })
}

/// The answering of a compile by its action.
pub struct Answering<'a> {
    /// The compiler, as it was found.
    pub compiler: &'a Path,
    /// What it was called with.
    pub arguments: &'a [OsString],
    /// The compile with its action.
    pub prepared: &'a Prepared,
    /// Where to look, and to keep.
    pub stack: Stack<'a>,
    /// What a server has to have to run it, once somebody has asked.
    pub inputs: Option<Inputs>,
    /// Whether its files were read when it had been compiled, and found to be older than that.
    pub is_read_afterwards: bool,
}

impl Answering<'_> {
    /// Answers, and returns from where, and the exit code.
    fn answer(&mut self) -> (Source, u8) {
        let action = self.prepared.action.digest;
        if let Some(answer) = self.stack.local_answer(&action)
            && self.deliver(&answer, false)
        {
            self.remember(false);
            return (Source::LocalHit, 0);
        }
        if !self.stack.is_foreign
            && let Some(answer) = self.stack.remote_answer(&action)
            && self.deliver(&answer, true)
        {
            self.stack.keep_locally(&action, &answer);
            self.remember(true);
            return (Source::RemoteHit, 0);
        }
        let taken = match self.remote_run() {
            Some(First::Server(answer)) if self.deliver(&answer, true) => {
                self.stack.keep_locally(&action, &answer);
                self.account();
                self.remember(true);
                return (Source::RemoteRun, 0);
            }
            Some(First::Other(won)) => self.take(won),
            _ => None,
        };
        (Source::LocalRun, taken.unwrap_or_else(|| self.local_run()))
    }

    fn deliver(&mut self, answer: &Answer, is_foreign: bool) -> bool {
        let moves_debug = self.prepared.action.moves_debug;
        let how = Delivery { entry: None, moves_debug, is_foreign };
        deliver(&self.prepared.call, answer, &how, &mut self.stack)
    }

    /// Keeps what lets the call be recognised the next time.
    fn remember(&mut self, remotely: bool) {
        let call = &self.prepared.call;
        if let Some(other) =
            self.prepared.source().and_then(|source| call.key_without_dependency_file(&source))
        {
            self.stack.keep_manifest_locally(&other, &Manifest { is_blind: true, ..Manifest::default() });
        }
        if let Some(key) = self.prepared.key_left() {
            self.stack.amend_manifests(&key, remotely, |manifest| manifest.leads_out = true);
        }
        match self.prepared.entry() {
            Ok((key, entry)) => {
                self.stack.amend_manifests(&key, remotely, |manifest| manifest.add(entry.clone()));
            }
            Err(reason) => {
                if let Some(key) = self.prepared.key() {
                    self.stack.amend_manifests(&key, remotely, |manifest| manifest.is_blind = true);
                }
                self.stack.reasons.push(Reason::of(format!("always preprocessed: {reason}")));
            }
        }
    }

    /// Has the first server that runs actions run this one.
    fn remote_run(&mut self) -> Option<First<Won<Vec<u8>>>> {
        let Self { prepared, stack, inputs, .. } = self;
        if stack.is_foreign {
            return None;
        }
        let (dir, after) = stack.terms_of_race();
        stack.run_elsewhere(prepared.action.is_bound_here.as_ref(), |tier| {
            let inputs = inputs.get_or_insert_with(|| prepared.inputs());
            let race = Race::new(&prepared.call, dir, after);
            tier.execute_or(&prepared.action.digest, inputs, race.run(), || race.is_running()).map(Some)
        })
    }

    /// Delivers and keeps what was compiled here before the server was done; returns the exit code, unless that can't be.
    fn take(&mut self, won: Won<Vec<u8>>) -> Option<u8> {
        let Won { ran, made: object } = won;
        let (stdout, stderr) = ran.stdout.as_ref().zip(ran.stderr.as_ref())?;
        if let Some(object) = &object {
            files::write_object(Path::new(&self.prepared.call.compile.output), object).ok()?;
        }
        say(stdout, stderr);
        self.stack.reasons.push("compiled here while the server was at it".into());
        let code = Platform::exit_code(ran.status);
        if object.is_some() {
            self.keep_what_came(ran);
        }
        Some(code)
    }

    /// Runs the compiler here, and keeps what came of it where that is right.
    fn local_run(&mut self) -> u8 {
        let _slot = self.stack.slot_here();
        match run_here(self.compiler, self.arguments, &self.prepared.call) {
            Ok(ran) => {
                let code = Platform::exit_code(ran.status);
                if ran.status.success() {
                    self.keep_what_came(ran);
                }
                code
            }
            Err(code) => code,
        }
    }

    /// Keeps what came of a run here, where that is right.
    pub fn keep_what_came(&mut self, ran: Ran) {
        let took = ran.took;
        match self.answer_of(ran) {
            Ok(answer) => self.keep(&answer, took),
            Err(reason) => {
                // The next such call is one for this folder alone.
                if let Some(key) = self.prepared.key().filter(|_| reason == STAYS) {
                    self.stack.amend_manifests(&key, false, |manifest| manifest.leads_out = true);
                }
                self.stack.reasons.push(reason);
            }
        }
    }

    /// What a local run leaves, if it may be kept.
    fn answer_of(&self, ran: Ran) -> Result<Answer, Reason> {
        let Prepared { call: Understood { compile, memory, place, .. }, closure, .. } = self.prepared;
        let object = std::fs::read(&compile.output).map_err(|_| Reason::new("object can't be read"))?;
        let (stdout, stderr) =
            ran.stdout.zip(ran.stderr).ok_or(Reason::new("messages that are too long to be kept"))?;
        if !self.is_read_afterwards && !closure.is_unchanged() {
            return Err("file changed while compiling".into());
        }
        if !memory.toolchain.is_current() {
            return Err("compiler changed while compiling".into());
        }
        let driver = file_name(&memory.toolchain.driver);
        // clang-cl calls itself by the name of the file that it is.
        let itself = file_name(&memory.toolchain.frontend);
        if compile.dialect == Dialect::Msvc && messages::names_program(&stderr, &itself) {
            return Err("messages of the driver".into());
        }
        if messages::names_program(&stderr, &file_name(self.compiler))
            || messages::names_program(&stderr, &driver)
        {
            return Err("messages of the driver".into());
        }
        if closure.names_lines && !stderr.is_empty() {
            return Err("messages of lines that say where they are from".into());
        }
        let stderr =
            messages::to_virtual(&stderr, place).ok_or(Reason::new("messages that name the folder"))?;
        if compile.dialect == Dialect::Msvc && !self.prepared.action.is_of_place {
            let is_named = |name: &str| position(&object, name.as_bytes()).is_some();
            let is_absolute = compile.source.starts_with('/');
            let mut names = place.names().filter(|name| name.len() >= NAME_BYTES_MIN);
            if names.any(is_named) || is_absolute && is_named(UNNAMED) {
                return Err("object that names its folder".into());
            }
        }
        let moved = messages::to_virtual(&stdout, place);
        let moved = moved.filter(|moved| compile.dialect == Dialect::Msvc || *moved == stdout);
        let stdout = moved.ok_or(Reason::new("messages that name the folder"))?;
        if compile.shares_link_time() && !self.prepared.action.is_of_place {
            link_time::check(&object, place, closure.is_place_unproven)?;
        }
        let object = if self.prepared.action.moves_debug {
            debug_names::to_virtual(&object, place).ok_or(STAYS)?
        } else {
            object
        };
        Ok(Answer::of_object(object.into(), stdout.into(), Bytes::from(stderr)))
    }

    /// Writes down what this compile was made of, to explain why it was no hit.
    fn account(&mut self) {
        if let Some(account) = Account::of(self.prepared) {
            self.stack.keep_account(account);
        }
    }

    /// Keeps an answer of our own locally, and in the first remote tier that takes it.
    fn keep(&mut self, answer: &Answer, took: Duration) {
        let Self { prepared, stack, inputs, .. } = self;
        let action = &prepared.action.digest;
        stack.keep_locally(action, answer);
        stack.keep_remotely(|remote| match remote {
            Remote::Folder(tier) => tier.put(action, answer).map(|()| true),
            Remote::Objects(tier) => spans::part("keep it", Kind::Client, || tier.put(action, answer)),
            Remote::Server(tier) => {
                let inputs = inputs.get_or_insert_with(|| prepared.inputs());
                tier.keep(action, inputs, answer, took)
            }
        });
        self.account();
        self.remember(true);
    }
}
