//! From a command line to an action: everything before the first cache is asked.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;

use crate::action::{Action, Making};
use crate::clock::Start;
use crate::command_line::{Compile, Language};
use crate::config::Config;
use crate::dependencies::{Closure, gather};
use crate::environment;
use crate::paths::Place;
use crate::reason::Reason;
use crate::tiers::Inputs;
use crate::toolchain::{Family, Toolchain, ToolchainMemory};

/// A compile with its key, ready to be looked up or run.
pub struct Prepared {
    /// What was asked for.
    pub compile: Compile,
    /// The compiler.
    pub toolchain: Toolchain,
    /// Where we are.
    pub place: Place,
    /// What the compile reads.
    pub closure: Closure,
    /// The key, and what is sent to a server.
    pub action: Action,
    /// Whether the compiler has to be told to colour its messages, because it will write to us and not to the
    /// terminal.
    pub has_to_be_told_of_color: bool,
}

impl Prepared {
    /// Prepares the call of a compiler.
    ///
    /// # Errors
    /// The reason to pass it through.
    pub fn new(config: &Config, compiler: &Path, arguments: &[OsString]) -> Result<Self, Reason> {
        let words: Option<Vec<String>> =
            arguments.iter().map(|word| word.to_str().map(str::to_owned)).collect();
        let words = words.ok_or(Reason::new("word that is not Unicode"))?;
        let folder = std::env::current_dir().map_err(|_| Reason::new("folder with an unusual name"))?;
        let compile = Compile::parse(&words, &folder)?;
        environment::check(environment::of_process)?;
        let place = Place::find(config.project_root.as_deref())?;
        let start = start(config, &compile)?;
        let mut memory =
            ToolchainMemory::recall(&config.dir, compiler, guessed_language(&compile, compiler))?;
        check_family(&compile, &memory.toolchain, guessed_language(&compile, compiler))?;
        let messages = memory.messages()?;
        let is_terminal =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        let is_colored = compile.color.unwrap_or(is_terminal);
        let gathered = gather(&compile, &mut memory, &place, &start);
        memory.save();
        let closure = gathered?;
        let toolchain = memory.toolchain;
        let action = Action::make(&Making {
            compile: &compile,
            toolchain: &toolchain,
            closure: &closure,
            place: &place,
            messages: &messages,
            is_colored,
        })?;
        let has_to_be_told_of_color = is_colored && compile.color.is_none();
        Ok(Self { compile, toolchain, place, closure, action, has_to_be_told_of_color })
    }

    /// What a server has to have to run it.
    pub fn inputs(&self) -> Inputs {
        Inputs {
            messages: self.action.messages.clone(),
            files: self.closure.inputs.values().map(|input| (input.digest, input.bytes.clone())).collect(),
        }
    }
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
fn guessed_language(compile: &Compile, compiler: &Path) -> Language {
    let is_named_so =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("++"));
    let is_cxx = is_named_so(compiler) || compiler.canonicalize().is_ok_and(|real| is_named_so(&real));
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
