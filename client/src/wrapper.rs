//! The way of a call: understand, look up, have it run elsewhere, run it here; and whatever fails, run it here.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::config::{Address, Config, RemoteEntry, Wrong};
use crate::counters::Counters;
use crate::files;
use crate::local::Platform;
use crate::messages;
use crate::prepare::Prepared;
use crate::reason::Reason;
use crate::run::{self, Ran};
use crate::tiers::{Answer, FolderTier, Inputs, Server, ServerTier, TierError};
use crate::toolchain::resolve::{self, Found};

/// A compiler that someone calls.
pub struct Call {
    /// Its name or path, as it was called.
    pub name: String,
    /// The words after that.
    pub arguments: Vec<OsString>,
}

/// Where the answer to a compile came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    LocalHit,
    RemoteHit,
    RemoteRun,
    LocalRun,
}

/// Answers a call as the compiler would, and returns the exit code to end with.
///
/// Calls that are passed through are taken over by the compiler, in this process where the system can.
pub fn wrap(config: Result<Config, Wrong>, call: &Call) -> u8 {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let folder = std::env::current_dir().unwrap_or_default();
    let Some(Found { program, compiler }) = resolve::find(&call.name, &search, &folder) else {
        run::complain(&format!("no compiler `{}` on PATH", call.name));
        return 127;
    };
    if std::env::var_os("CASTWORK_DISABLE").is_some_and(|value| !value.is_empty() && value != "0") {
        return run::pass_through(&program, &call.arguments);
    }
    let dir = config.as_ref().map_or_else(|wrong| wrong.dir.clone(), |config| config.dir.clone());
    let prepared =
        config.map_err(|_| Reason::new("configuration is wrong; see `castwork config`")).and_then(|config| {
            let compiler = compiler?;
            let prepared = Prepared::new(&config, &compiler, &call.arguments)?;
            Ok((config, compiler, prepared))
        });
    match prepared {
        Ok((config, compiler, prepared)) => {
            let mut answering = Answering::new(&config, &compiler, &call.arguments, &prepared);
            let (source, code) = answering.answer();
            answering.count(source);
            code
        }
        Err(reason) => {
            tracing::debug!(%reason, "passed through");
            count(&dir, |counters| {
                counters.passed_through += 1;
                counters.count(&reason);
            });
            run::pass_through(&program, &call.arguments)
        }
    }
}

fn count(dir: &Path, change: impl FnOnce(&mut Counters)) {
    if let Err(error) = Counters::update(dir, change) {
        tracing::debug!(%error, "a call isn't counted");
    }
}

/// The answering of one compile.
struct Answering<'a> {
    config: &'a Config,
    compiler: &'a Path,
    arguments: &'a [OsString],
    prepared: &'a Prepared,
    /// What has to be counted beside where the answer came from.
    reasons: Vec<Reason>,
    has_fallen_back: bool,
    local: Option<FolderTier>,
    /// The servers and folders beyond, in order; those that failed are gone.
    remotes: Vec<(Remote, bool)>,
    inputs: Option<Inputs>,
}

/// A tier beyond the local one.
enum Remote {
    Folder(FolderTier),
    Server(Box<ServerTier>),
}

impl<'a> Answering<'a> {
    fn new(
        config: &'a Config,
        compiler: &'a Path,
        arguments: &'a [OsString],
        prepared: &'a Prepared,
    ) -> Self {
        let mut reasons = Vec::new();
        let local = match FolderTier::open(&config.dir.join("cache"), config.max_size_bytes) {
            Ok(tier) => Some(tier),
            Err(error) => {
                tracing::debug!(%error, "no local cache");
                reasons.push("local cache can't be opened".into());
                None
            }
        };
        let remotes = Vec::new();
        Self {
            config,
            compiler,
            arguments,
            prepared,
            reasons,
            has_fallen_back: false,
            local,
            remotes,
            inputs: None,
        }
    }

    /// Answers, and returns from where, and the exit code.
    fn answer(&mut self) -> (Source, u8) {
        if let Some(answer) = self.local_answer()
            && self.deliver(&answer)
        {
            return (Source::LocalHit, 0);
        }
        for entry in &self.config.remotes {
            self.open(entry);
        }
        if let Some(answer) = self.remote_answer()
            && self.deliver(&answer)
        {
            self.keep_locally(&answer);
            return (Source::RemoteHit, 0);
        }
        if let Some(answer) = self.remote_run()
            && self.deliver(&answer)
        {
            self.keep_locally(&answer);
            return (Source::RemoteRun, 0);
        }
        (Source::LocalRun, self.local_run())
    }

    fn action(&self) -> &'a castwork_cas::Digest {
        &self.prepared.action.digest
    }

    fn local_answer(&mut self) -> Option<Answer> {
        let found = self.local.as_ref()?.get(self.action());
        found.unwrap_or_else(|error| {
            self.reasons.push(error.reason());
            None
        })
    }

    /// Makes ready to ask a remote cache; nothing is sent yet.
    fn open(&mut self, entry: &RemoteEntry) {
        match &entry.address {
            Address::Folder(folder) => match FolderTier::open(folder, u64::MAX) {
                Ok(tier) => self.remotes.push((Remote::Folder(tier), entry.is_read_only)),
                Err(error) => self.failed(&TierError::at("open a cache folder")(error)),
            },
            Address::Server { .. } => {
                let Some(server) = Server::new(&entry.address, self.config) else { return };
                let tier = ServerTier::new(server, *self.action(), &self.config.dir);
                if tier.may_be_asked() {
                    self.remotes.push((Remote::Server(Box::new(tier)), entry.is_read_only));
                } else {
                    self.fell_back("server that was down a moment ago".into());
                }
            }
        }
    }

    fn failed(&mut self, error: &TierError) {
        tracing::debug!(error = error as &dyn std::error::Error, "a remote cache failed");
        self.fell_back(error.reason());
    }

    fn fell_back(&mut self, reason: Reason) {
        self.has_fallen_back = true;
        self.reasons.push(reason);
    }

    /// Asks each remote in order; those that fail are not asked again.
    fn remote_answer(&mut self) -> Option<Answer> {
        let mut answer = None;
        for (remote, is_read_only) in std::mem::take(&mut self.remotes) {
            if answer.is_none() {
                let found = match &remote {
                    Remote::Folder(tier) => tier.get(self.action()),
                    Remote::Server(tier) => tier.get(),
                };
                match found {
                    Ok(found) => answer = found,
                    Err(error) => {
                        self.failed(&error);
                        continue;
                    }
                }
            }
            self.remotes.push((remote, is_read_only));
        }
        answer
    }

    /// Has the first server that runs actions run this one.
    fn remote_run(&mut self) -> Option<Answer> {
        let remotes = std::mem::take(&mut self.remotes);
        let mut answer = None;
        for (remote, is_read_only) in &remotes {
            let Remote::Server(tier) = remote else { continue };
            if answer.is_some() || *is_read_only {
                continue;
            }
            if let Some(reason) = &self.prepared.action.is_bound_here {
                self.reasons.push(Reason::of(format!("run here: {reason}")));
                continue;
            }
            match self.run_at(tier) {
                Ok(ran) => answer = ran,
                Err(error) => self.failed(&error),
            }
        }
        self.remotes = remotes;
        answer
    }

    fn run_at(&mut self, tier: &ServerTier) -> Result<Option<Answer>, TierError> {
        if !tier.may_execute() {
            self.fell_back("server that refused to run this a moment ago".into());
            return Ok(None);
        }
        let (executes, _) = tier.capabilities()?;
        if !executes {
            return Ok(None);
        }
        tier.execute(self.inputs.get_or_insert_with(|| self.prepared.inputs())).map(Some)
    }

    /// Leaves an answer where the compiler would have left it. If that fails, the compiler will say why.
    fn deliver(&mut self, answer: &Answer) -> bool {
        let place = &self.prepared.place;
        let driver = file_name(&self.prepared.toolchain.driver);
        let Some(stderr) = messages::to_real(&answer.stderr, place) else {
            self.reasons.push("messages that don't fit this folder".into());
            return false;
        };
        if messages::names_program(&stderr, &driver) {
            self.reasons.push("messages of the driver".into());
            return false;
        }
        if let Err(error) = files::write_output(Path::new(&self.prepared.compile.output), &answer.object) {
            tracing::debug!(%error, "the object can't be written");
            self.reasons.push("object can't be written".into());
            return false;
        }
        // Whoever closed our outputs doesn't want to hear; the compiler would not fail over that either.
        let _ = std::io::stdout().write_all(&answer.stdout).and_then(|()| std::io::stdout().flush());
        let _ = std::io::stderr().write_all(&stderr);
        true
    }

    /// Runs the compiler here, and keeps what came of it where that is right.
    fn local_run(&mut self) -> u8 {
        let mut arguments = self.arguments.to_vec();
        if self.prepared.has_to_be_told_of_color {
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
                Err(reason) => self.reasons.push(reason),
            }
        }
        code
    }

    /// What a local run leaves, if it may be kept.
    fn answer_of(&self, ran: Ran) -> Result<Answer, Reason> {
        let Prepared { compile, toolchain, place, closure, .. } = self.prepared;
        let object = std::fs::read(&compile.output).map_err(|_| Reason::new("object can't be read"))?;
        let (stdout, stderr) =
            ran.stdout.zip(ran.stderr).ok_or(Reason::new("messages that are too long to be kept"))?;
        if !closure.is_unchanged() {
            return Err("file changed while compiling".into());
        }
        if !toolchain.is_current() {
            return Err("compiler changed while compiling".into());
        }
        let driver = file_name(&toolchain.driver);
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
        self.keep_locally(answer);
        for (remote, is_read_only) in std::mem::take(&mut self.remotes) {
            if is_read_only {
                continue;
            }
            let kept = match &remote {
                Remote::Folder(tier) => tier.put(self.action(), answer),
                Remote::Server(tier) => self.keep_at(tier, answer),
            };
            if let Err(error) = kept {
                tracing::debug!(error = &error as &dyn std::error::Error, "a result isn't kept remotely");
                self.reasons.push(Reason::of(format!("not kept remotely: {}", error.reason())));
            }
        }
    }

    fn keep_at(&mut self, tier: &ServerTier, answer: &Answer) -> Result<(), TierError> {
        let (_, takes_results) = tier.capabilities()?;
        if !takes_results {
            return Ok(());
        }
        tier.put(self.inputs.get_or_insert_with(|| self.prepared.inputs()), answer)
    }

    fn keep_locally(&mut self, answer: &Answer) {
        let Some(local) = &self.local else { return };
        if let Err(error) = local.put(self.action(), answer) {
            tracing::debug!(error = &error as &dyn std::error::Error, "a result isn't kept");
            self.reasons.push(Reason::of(format!("not kept locally: {}", error.reason())));
        }
    }

    fn count(&self, source: Source) {
        tracing::debug!(action = %self.action(), ?source, "answered");
        count(&self.config.dir, |counters| {
            counters.compiles += 1;
            *match source {
                Source::LocalHit => &mut counters.local_hits,
                Source::RemoteHit => &mut counters.remote_hits,
                Source::RemoteRun => &mut counters.remote_runs,
                Source::LocalRun => &mut counters.local_runs,
            } += 1;
            counters.fallbacks += u64::from(self.has_fallen_back && source == Source::LocalRun);
            self.reasons.iter().for_each(|reason| counters.count(reason));
        });
    }
}

fn file_name(path: &Path) -> String {
    PathBuf::from(path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
