//! The running of rustc, and the keeping of what came of it where that is right.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use castwork_trace::Kind;

use super::account;
use super::archive;
use super::asked::{Asked, result_key};
use super::elsewhere::{self, Came};
use super::has_ending;
use super::identity::Compiler;
use super::linking::Watch;
use super::out_dir::{OUT_DIR, is_only_included};
use super::texts::{self, DepInfo};
use crate::answering::{Answered, Source};
use crate::clock::Start;
use crate::config::Config;
use crate::direct::Hashes;
use crate::direct::call::{Call, Content, Variable, value_of};
use crate::direct::key::ManifestKey;
use crate::environment;
use crate::local::Platform;
use crate::reason::Reason;
use crate::run::{self, Ran};
use crate::spans;
use crate::tiers::{Answer, Inputs, Output, Remote, Stack};

/// What the linker would not have been told without us.
const WATCHED: &[u8] = b"dependency-file";

/// Runs rustc, and keeps what comes of it.
///
/// # Errors
/// The reason to pass the call through; nothing has been run then.
pub fn run(config: &Config, asked: &Asked, mut stack: Stack<'_>) -> Result<Answered, Reason> {
    let newest = asked.inputs.iter().max_by_key(|input| input.stamp.changed_ns);
    let newest =
        newest.map_or_else(|| asked.here.place.absolute(&asked.compile.source), |it| it.path.clone());
    let start = Start::now(&config.dir.join("cache/tmp"), Path::new(&newest))
        .or_else(|_| Start::now(&std::env::temp_dir(), Path::new(&newest)))
        .map_err(|_| Reason::new("no folder for temporary files"))?;
    let watch = asked.linker.is_some().then(|| Watch::new(&start)).transpose()?;
    let (ran, source) = match elsewhere::run(config, asked, &mut stack) {
        Some(Came::Remote(ran)) => (ran, Source::RemoteRun),
        Some(Came::Here(ran)) => {
            stack.reasons.push("compiled here while the server was at it".into());
            (ran, Source::LocalRun)
        }
        None => match ran(asked, watch.as_ref(), &stack) {
            Ok(ran) => (ran, Source::LocalRun),
            Err(error) => {
                run::complain(&format!("can't start `{}`: {error}", asked.program.display()));
                return Ok(stack.answered(Source::LocalRun, 127, false));
            }
        },
    };
    let code = Platform::exit_code(ran.status);
    if !ran.status.success() {
        return Ok(stack.answered(source, code, false));
    }
    let took = ran.took;
    let seen = Seen { config, asked, start: &start, watch: watch.as_ref() };
    let refused = match seen.answer_of(ran) {
        Ok((call, action, answer)) => {
            keep(&seen, &mut stack, (&call, &action, &answer), took);
            None
        }
        Err(reason) => Some(reason),
    };
    Ok(Answered { refused, ..stack.answered(source, code, false) })
}

/// Runs it. A link is not heard before it has ended: if it fails, it is run again without us, since its messages say what
/// the linker was told.
fn ran(asked: &Asked, watch: Option<&Watch>, stack: &Stack<'_>) -> std::io::Result<Ran> {
    let _slot = stack.slot_here();
    let mut words = asked.words();
    let Some(watch) = watch else {
        return spans::part("compile here", Kind::Internal, || run::run(&asked.program, &words));
    };
    let plain = words.clone();
    words.extend(watch.words().map(OsString::from));
    let ran = spans::part("compile here", Kind::Internal, || run::run_held(&asked.program, &words))?;
    let says = |said: &Option<Vec<u8>>| {
        said.as_ref().is_some_and(|said| memchr::memmem::find(said, WATCHED).is_some())
    };
    let is_held_whole = ran.stdout.is_some() && ran.stderr.is_some();
    if !is_held_whole || (!ran.status.success() && says(&ran.stderr)) {
        return run::run(&asked.program, &plain);
    }
    let _ = std::io::stdout().write_all(ran.stdout.as_deref().unwrap_or_default());
    let _ = std::io::stderr().write_all(ran.stderr.as_deref().unwrap_or_default());
    Ok(ran)
}

/// A run that has ended well.
struct Seen<'a> {
    config: &'a Config,
    asked: &'a Asked,
    start: &'a Start,
    watch: Option<&'a Watch>,
}

impl Seen<'_> {
    /// What is to be kept, and under which keys.
    fn answer_of(&self, ran: Ran) -> Result<(Call, ManifestKey, Answer), Reason> {
        let Asked { compile, here, .. } = self.asked;
        let (stdout, stderr) =
            ran.stdout.zip(ran.stderr).ok_or(Reason::new("messages that are too long to be kept"))?;
        let messages = texts::messages_to_virtual(&stderr, here);
        let messages = messages.ok_or(Reason::new("messages that can't be kept"))?;
        let path = format!("{}/{}", here.outputs, compile.dep_info());
        let text = std::fs::read_to_string(&path).map_err(|_| Reason::new("dep-info that can't be read"))?;
        let info = DepInfo::read(&text);
        let outputs = self.outputs(&info)?;
        let mut read = self.sources(&info);
        self.add_libraries(&outputs, &mut read)?;
        let mut hashes = Hashes::new(&self.config.dir.join("memo"));
        if !self.asked.is_current() {
            return Err("file changed while compiling".into());
        }
        let compiler = Compiler::find(&self.asked.program, &self.config.dir, &mut hashes);
        self.asked.check_package(&mut hashes)?;
        if compiler.as_ref() != Ok(&self.asked.compiler) {
            return Err("compiler changed while compiling".into());
        }
        let shows_place = messages.name_the_place
            || info.sources.iter().any(|source| here.shows_build(source))
            || here.shows_build("")
            || names_place(&outputs, self.asked)
            || here.names().any(|name| memchr::memmem::find(&stdout, name.as_bytes()).is_some());
        let mut call = Call {
            action: String::new(),
            files: self.contents(&read.files, &mut hashes)?,
            absent: read.absent.iter().map(|path| here.place.alias(path)).collect(),
            variables: self.variables(&info)?,
            place: Vec::new(),
            width: compile.width.clone().filter(|_| messages.are_for_people),
            has_messages: messages.are_for_people,
        };
        if shows_place {
            call.place = crate::direct::manifest::place_hash(&here.place).to_vec();
        }
        let action = result_key(&self.asked.key, &call);
        call.action = action.digest.to_string();
        let paths: Vec<&str> =
            call.variables.iter().filter(|it| it.is_path).map(|it| it.name.as_str()).collect();
        let moved = texts::dep_info_to_virtual(&text, &paths, here);
        let moved = moved.ok_or(Reason::new("dep-info that can't be moved"))?;
        let dep_info = Output { name: compile.dep_info(), data: moved.into(), is_executable: false };
        let answer = Answer {
            outputs: outputs.into_iter().chain([dep_info]).collect(),
            stdout: stdout.into(),
            stderr: Bytes::from(messages.text),
        };
        Ok((call, action, answer))
    }

    /// What rustc left, without dep-info.
    fn outputs(&self, info: &DepInfo) -> Result<Vec<Output>, Reason> {
        let Asked { compile, here, .. } = self.asked;
        let mut outputs = Vec::new();
        for path in &info.outputs {
            let absolute = here.place.absolute(path);
            let name = absolute.strip_prefix(&format!("{}/", here.outputs));
            let name = name.filter(|name| !name.contains('/'));
            let name = name.ok_or(Reason::new("output in another folder"))?;
            if name == compile.dep_info() {
                continue;
            }
            let unread = |_| Reason::new("output that can't be read");
            let is_executable = Platform::is_executable(&Path::new(path).metadata().map_err(unread)?);
            let data = std::fs::read(path).map_err(unread)?.into();
            outputs.push(Output { name: name.to_owned(), data, is_executable });
        }
        Ok(outputs)
    }

    /// The sources, and where others would be taken instead, or be too many.
    fn sources(&self, info: &DepInfo) -> Read {
        let mut read = Read::default();
        // What is in its folder is its own.
        let first = self.asked.here.place.absolute(&self.asked.compile.source);
        for source in &info.sources {
            let path = self.asked.here.place.absolute(source);
            let other = other_module(&path).filter(|other| path != first && !Path::new(other).exists());
            read.absent.extend(other);
            read.files.insert(path);
        }
        read
    }

    /// What the linker read, and the static libraries that were put into a crate.
    fn add_libraries(&self, outputs: &[Output], read: &mut Read) -> Result<(), Reason> {
        let Asked { compile, here, linker, compiler, .. } = self.asked;
        let sources = read.files.clone();
        if let Some((watch, linker)) = self.watch.zip(linker.as_ref()) {
            let linked = watch.read(linker, compile, &compiler.files)?;
            read.files.extend(linked.files);
            read.absent.extend(linked.absent);
        }
        let is_archive = |output: &&Output| has_ending(&output.name, "rlib");
        let archives: Vec<&[u8]> = outputs.iter().filter(is_archive).map(|output| &output.data[..]).collect();
        let (files, absent) =
            archive::static_libraries(&archives, compile, Path::new(&here.place.folder), &sources)?;
        read.files.extend(files.iter().map(|path| here.place.absolute(path)));
        read.absent.extend(absent.iter().map(|path| here.place.absolute(path)));
        Ok(())
    }

    /// The files with what they hold, none of which has changed since the run began.
    fn contents(&self, files: &BTreeSet<String>, hashes: &mut Hashes) -> Result<Vec<Content>, Reason> {
        let place = &self.asked.here.place;
        let source = place.absolute(&self.asked.compile.source);
        let mut contents = Vec::with_capacity(files.len());
        for path in files {
            let unread = Reason::new("source that can't be read");
            let metadata = Path::new(path).metadata().map_err(|_| unread.clone())?;
            let hash = hashes.of(path).ok_or(unread)?;
            if archive::is_thin(Path::new(path)) {
                return Err("thin archive".into());
            }
            let is_settled = Platform::stamp(&metadata).is_settled_before(self.start.instant_ns);
            if !is_settled || (*path == source && hash != self.asked.source) {
                return Err("file changed while compiling".into());
            }
            let name = place.alias(path);
            if place.real_of(&name).as_ref() != Some(path) {
                return Err("files without a name in every place".into());
            }
            contents.push(Content { name, hash: hash.to_vec() });
        }
        Ok(contents)
    }

    /// The variables that were asked for.
    fn variables(&self, info: &DepInfo) -> Result<Vec<Variable>, Reason> {
        let here = &self.asked.here;
        let mut variables = Vec::new();
        for (name, value) in &info.variables {
            if environment::of_process(name) != *value {
                return Err("variable that rustc sees otherwise".into());
            }
            let is_path = name == OUT_DIR
                && here.is_build_mapped
                && is_only_included(&info.sources, &self.asked.behind.asking, here);
            let value = value_of(name, is_path, &here.place, &environment::of_process);
            variables.push(Variable { name: name.clone(), value, is_path });
        }
        Ok(variables)
    }
}

/// What was read, and where there was nothing.
#[derive(Default)]
struct Read {
    files: BTreeSet<String>,
    absent: BTreeSet<String>,
}

/// The other file that a module in this one could be in.
pub fn other_module(path: &str) -> Option<String> {
    let (folder, name) = path.rsplit_once('/')?;
    match name.strip_suffix(".rs")? {
        "mod" => Some(format!("{folder}.rs")),
        stem => Some(format!("{folder}/{stem}/mod.rs")),
    }
}

/// Whether a folder of this place is named in what was made.
fn names_place(outputs: &[Output], asked: &Asked) -> bool {
    asked.here.names().any(|name| {
        let finder = memchr::memmem::Finder::new(name.as_bytes());
        outputs.iter().any(|output| finder.find(&output.data).is_some())
    })
}

/// Keeps an answer locally, and in the first remote tier that takes it.
fn keep(seen: &Seen<'_>, stack: &mut Stack<'_>, made: (&Call, &ManifestKey, &Answer), took: Duration) {
    let Seen { config, asked, .. } = seen;
    let (call, action, answer) = made;
    stack.keep_locally(&action.digest, answer);
    stack.keep_remotely(|remote| match remote {
        Remote::Folder(tier) => tier.put(&action.digest, answer).map(|()| true),
        Remote::Objects(tier) => spans::part("keep it", Kind::Client, || tier.put(&action.digest, answer)),
        Remote::Server(tier) => {
            let messages = action.messages.to_vec();
            let inputs = Inputs { messages, files: Vec::new(), toolchain: Vec::new() };
            tier.keep(&action.digest, &inputs, answer, took)
        }
    });
    stack.keep_account(account::of(config, asked, call));
    stack.amend_manifests(&asked.key, true, |manifest| manifest.add_call(call.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_has_two_places() {
        assert_eq!(other_module("/x/a.rs").as_deref(), Some("/x/a/mod.rs"));
        assert_eq!(other_module("/x/a/mod.rs").as_deref(), Some("/x/a.rs"));
        assert_eq!(other_module("/x/data.txt"), None);
    }
}
