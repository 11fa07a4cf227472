//! From a command line to an action: everything before a cache is asked by the action's digest.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::Command;

use crate::action::{Action, Making};
use crate::clock::Start;
use crate::command_line::msvc::{self, Driver};
use crate::command_line::{Compile, Language};
use crate::config::Config;
use crate::debug_names;
use crate::dependencies::{Closure, Watch, gather};
use crate::direct::depfile::Depfile;
use crate::direct::key::{self, ManifestKey};
use crate::direct::manifest::Seen;
use crate::direct::memo::Hash;
use crate::direct::{Entry, Hashes};
use crate::environment;
use crate::link_time;
use crate::messages;
use crate::mounts;
use crate::paths::{LEADS_OUT, Place};
use crate::race::Contender;
use crate::reason::Reason;
use crate::tiers::Inputs;
use crate::toolchain::{Family, Messages, Mode, Toolchain, ToolchainMemory, resolve};

/// Where the object goes in a folder of ours.
const OBJECT_HERE: &str = "object.o";

/// A call that is understood; nothing is known yet of what it reads.
pub struct Understood {
    /// What was asked for.
    pub compile: Compile,
    /// The compiler.
    pub memory: ToolchainMemory,
    /// Where we are.
    pub place: Place,
    /// How messages look here.
    pub messages: Messages,
    /// Whether they are coloured.
    pub is_colored: bool,
    /// Whether debug information may move.
    pub may_move_debug: bool,
    /// The place as it would be called, and whether debug information might move there, but for files that climb out of its
    /// folders, or objects that don't move.
    pub left: Option<(Place, bool)>,
}

impl Understood {
    /// Understands the call of a compiler.
    ///
    /// # Errors
    /// The reason to pass it through.
    pub fn new(config: &Config, compiler: &Path, arguments: &[OsString]) -> Result<Self, Reason> {
        let real = resolve::real(compiler)?;
        let (mode, arguments) = Mode::take([compiler, &real], arguments)?;
        let words: Option<Vec<String>> =
            arguments.iter().map(|word| word.to_str().map(str::to_owned)).collect();
        let words = words.ok_or(Reason::new("word that is not Unicode"))?;
        let folder = std::env::current_dir().map_err(|_| Reason::new("folder with an unusual name"))?;
        let mut compile = parse(compiler, &words, &folder)?;
        if mode.is_some() {
            Mode::check(&mut compile)?;
        }
        environment::check(environment::of_process)?;
        let place = Place::find(config.project_root.as_deref())?;
        let guessed = guessed_language(&compile, [compiler, &real], mode);
        let mut memory = ToolchainMemory::recall(&config.dir, (compiler, &real), mode, guessed)?;
        check_family(&compile, &memory.toolchain, guessed)?;
        if compile.dialect != memory.toolchain.dialect {
            return Err("compiler with an unusual name".into());
        }
        if config.shares_link_time {
            link_time::share(&mut compile, &memory.toolchain);
        }
        let may_move = debug_names::may_move(&compile, &memory.toolchain);
        let more = mounts::of(&compile, &place, may_move);
        let place = place.with_mounts(more);
        let may_move_debug = may_move && place.mounts().iter().all(debug_names::is_in_table);
        let messages = memory.messages()?;
        // Now, because a call that is recognised never asks for more.
        memory.save();
        let is_terminal =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        let is_colored = compile.color.unwrap_or(is_terminal);
        Ok(Self { compile, memory, place, messages, is_colored, may_move_debug, left: None })
    }

    /// The compiler.
    pub const fn toolchain(&self) -> &Toolchain {
        &self.memory.toolchain
    }

    /// Whether the compiler has to be told to colour its messages, because it will write to us and not to the
    /// terminal.
    pub const fn has_to_be_told_of_color(&self) -> bool {
        self.is_colored && self.compile.color.is_none()
    }

    /// The compile with another output, with more words before its source, and without a dependency file.
    pub fn command_to<'a>(&self, output: &Path, more: impl IntoIterator<Item = &'a str>) -> Command {
        let Compile { arguments, language, source, is_language_explicit, .. } = &self.compile;
        let mut command = self.toolchain().command();
        for argument in arguments {
            command.args(argument.words());
        }
        if *is_language_explicit {
            command.args(["-x", language.name()]);
        }
        command.args(more).args(["-c", source, "-o"]).arg(output);
        command
    }

    /// What the source holds now; `None` if it can't be read.
    pub fn source(&self, hashes: &mut Hashes) -> Option<Hash> {
        hashes.of(&self.place.absolute(&self.compile.source))
    }

    /// The key under which is kept what was seen with this command and such a source.
    pub fn key(&self, source: &Hash) -> ManifestKey {
        ManifestKey::new(&self.making(source), environment::of_process)
    }

    /// Calls folders beside the project, and those in debug information, what they are called here; returns whether there
    /// were any with other names.
    pub fn leave_mounts(&mut self) -> bool {
        let alone = self.place.without_mounts();
        if alone.is_none() && !self.may_move_debug {
            return false;
        }
        let alone = alone.unwrap_or_else(|| self.place.clone());
        let moved = std::mem::take(&mut self.may_move_debug);
        self.left = Some((std::mem::replace(&mut self.place, alone), moved));
        true
    }

    /// The key under which is kept that such a call was seen, if it wants a dependency file: with another one it comes to
    /// the same action.
    pub fn key_without_dependency_file(&self, source: &Hash) -> Option<ManifestKey> {
        self.compile.dependency_file.with_system_headers?;
        Some(ManifestKey::without_dependency_file(&self.making(source), environment::of_process))
    }

    fn making<'a>(&'a self, source: &'a Hash) -> key::Making<'a> {
        key::Making {
            compile: &self.compile,
            toolchain: self.toolchain(),
            place: &self.place,
            messages: &self.messages,
            is_colored: self.is_colored,
            source,
            may_move_debug: self.may_move_debug,
        }
    }

    /// Finds what the compile reads, and makes its action; writes the dependency file if one is wanted.
    ///
    /// # Errors
    /// The reason to pass the call through.
    pub fn prepare(self, config: &Config) -> Result<Prepared, Reason> {
        let start = self.start(config)?;
        self.prepare_since(&start)
    }

    /// The same, for files that must not have changed since a moment that is past already.
    ///
    /// # Errors
    /// The reason to pass the call through.
    pub fn prepare_since(mut self, start: &Start) -> Result<Prepared, Reason> {
        let mut gathered = gather(&self.compile, &mut self.memory, &self.place, start);
        if gathered.as_ref().is_err_and(|reason| *reason == LEADS_OUT) && self.leave_mounts() {
            gathered = gather(&self.compile, &mut self.memory, &self.place, start);
        }
        self.memory.save();
        self.with(gathered?)
    }

    /// Whether the compile itself will tell what it reads.
    pub fn can_be_watched(&self, start: &Start) -> bool {
        Watch::new(&self.compile, self.toolchain(), &self.place, start).is_some()
    }

    /// Takes the time, from which on files must not change.
    ///
    /// # Errors
    /// The reason to pass the call through.
    pub fn start(&self, config: &Config) -> Result<Start, Reason> {
        start(config, &self.compile)
    }

    /// Makes the action of the compile, given what it reads.
    ///
    /// # Errors
    /// The reason to pass the call through.
    pub fn with(self, closure: Closure) -> Result<Prepared, Reason> {
        let action = Action::make(&Making {
            compile: &self.compile,
            toolchain: self.toolchain(),
            closure: &closure,
            place: &self.place,
            messages: &self.messages,
            is_colored: self.is_colored,
            may_move_debug: self.may_move_debug,
        })?;
        Ok(Prepared { call: self, closure, action })
    }
}

/// A compile with its key, ready to be looked up or run.
pub struct Prepared {
    /// What was asked for, of which compiler, and where.
    pub call: Understood,
    /// What the compile reads.
    pub closure: Closure,
    /// The key, and what is sent to a server.
    pub action: Action,
}

impl Prepared {
    /// Prepares the call of a compiler.
    ///
    /// # Errors
    /// The reason to pass it through.
    pub fn new(config: &Config, compiler: &Path, arguments: &[OsString]) -> Result<Self, Reason> {
        Understood::new(config, compiler, arguments)?.prepare(config)
    }

    /// What a server has to have to run it.
    pub fn inputs(&self) -> Inputs {
        Inputs {
            toolchain: self.call.toolchain().traveling_files(),
            messages: self.action.messages.clone(),
            files: self.closure.inputs.values().map(|input| (input.digest, input.bytes.clone())).collect(),
        }
    }

    /// What lets this compile be recognised without preprocessing, with the key to keep it under.
    ///
    /// # Errors
    /// Why it can't be.
    pub fn entry(&self) -> Result<(ManifestKey, Entry), Reason> {
        let Self { call: Understood { place, .. }, closure, action } = self;
        let looked = closure.looked.as_ref().ok_or(Reason::new("search that was not looked at"))?;
        let looked = looked.as_ref().map_err(Clone::clone)?;
        let entry = Entry::new(Seen {
            action: &action.digest,
            closure,
            looked,
            place,
            is_bound_to_place: action.is_of_place || closure.is_place_unproven,
            is_unproven: closure.is_place_unproven && !action.is_of_place,
            date: if closure.holds_date { environment::of_process(environment::DATE) } else { None },
            moves_debug: action.moves_debug,
            depfile: closure.rules.as_deref().map(|text| Depfile::learn(text, self.family(), place)),
        });
        let unnamed = Reason::new("files without a name in every place");
        self.key().zip(entry).ok_or(unnamed)
    }

    /// The key of what is known of such a call; `None` if the source has no name.
    pub fn key(&self) -> Option<ManifestKey> {
        Some(self.call.key(&self.source()?))
    }

    /// The key that such calls are looked for under first, if files turned out to climb out of folders of that place.
    pub fn key_left(&self) -> Option<ManifestKey> {
        let (place, may_move_debug) = self.call.left.as_ref()?;
        let source = self.source()?;
        let making = key::Making { place, may_move_debug: *may_move_debug, ..self.call.making(&source) };
        Some(ManifestKey::new(&making, environment::of_process))
    }

    /// What the source holds; `None` if it has no name.
    pub fn source(&self) -> Option<Hash> {
        let source = self.call.place.locate(&self.call.compile.source).ok()?.name;
        self.closure.inputs.get(&source)?.digest.hash().try_into().ok()
    }

    const fn family(&self) -> Family {
        self.call.memory.toolchain.family
    }
}

impl Contender for Understood {
    type Made = Vec<u8>;

    fn command_into(&self, folder: &Path) -> Command {
        // The dependency file is written already.
        let color = self.has_to_be_told_of_color().then_some("-fdiagnostics-color=always");
        self.command_to(&folder.join(OBJECT_HERE), color)
    }

    fn made_in(&self, folder: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(folder.join(OBJECT_HERE))
    }

    fn is_shown_in(&self, messages: &[u8]) -> bool {
        let driver = self.toolchain().driver.file_name().unwrap_or_default().to_string_lossy();
        messages::names_program(messages, &driver)
    }
}

/// Understands the words after a compiler's name as that compiler does.
fn parse(compiler: &Path, words: &[String], folder: &Path) -> Result<Compile, Reason> {
    let Some(driver) = Driver::named(compiler) else { return Compile::parse(words, folder) };
    let compile = msvc::parse(words, folder, driver)?;
    if driver == Driver::Cl {
        return Err(msvc::UNTESTED);
    }
    environment::check_msvc(environment::of_process)?;
    Ok(compile)
}

/// Takes the time by a file in our folder, or where temporary files go if ours can't be written.
fn start(config: &Config, compile: &Compile) -> Result<Start, Reason> {
    let source = Path::new(&compile.source);
    // The cache's cleaning takes away what a killed process leaves there.
    Start::now(&config.dir.join("cache/tmp"), source)
        .or_else(|_| Start::now(&std::env::temp_dir(), source))
        .map_err(|_| "no folder for temporary files".into())
}

/// The language of the source, as far as the compiler's name tells whether it takes C for C++.
fn guessed_language(compile: &Compile, names: [&Path; 2], mode: Option<Mode>) -> Language {
    let is_named_so =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("++"));
    let is_cxx = mode.map_or_else(|| names.into_iter().any(is_named_so), |mode| mode == Mode::Cxx);
    compile.language_for(is_cxx)
}

fn check_family(compile: &Compile, toolchain: &Toolchain, guessed: Language) -> Result<(), Reason> {
    if compile.language_for(toolchain.is_cxx_driver) != guessed {
        return Err("compiler with an unusual name".into());
    }
    match &compile.clang_refusal {
        Some(reason) if toolchain.family == Family::Clang => Err(reason.clone()),
        _ => Ok(()),
    }
}
