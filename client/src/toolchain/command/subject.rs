//! [`Subject`]: a compiler with all that is known of what it needs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use castwork_cas::merkle::TreeBuilder;
use castwork_cas::{Digest, DigestFunction};

use crate::command_line::Language;
use crate::config::Config;
use crate::reason::Reason;
use crate::toolchain::resolve::{self, Found};
use crate::toolchain::{
    Family, Luggage, Mode, Roles, Toolchain, ToolchainMemory, Travel, identify_files, linking, loader, probe,
};

/// A compiler that someone asks about.
pub(super) struct Subject {
    /// As it was asked about.
    pub name: String,
    /// What runs.
    pub compiler: PathBuf,
    /// The language that it is for, by its name.
    pub language: Language,
    /// What is remembered of it.
    pub toolchain: Toolchain,
    /// What it needs, or why that can't be said.
    pub luggage: Result<Luggage, String>,
    /// What each file of the luggage is there for.
    pub roles: BTreeMap<PathBuf, String>,
    /// Its own folders of headers, as it names them.
    pub headers: Vec<PathBuf>,
    /// Files by whose being there it finds its headers.
    pub marks: Vec<PathBuf>,
    /// Whether the luggage holds what it links with.
    pub links: bool,
}

impl Subject {
    /// Finds a compiler by a name or path.
    ///
    /// # Errors
    /// Why it is not understood, for people.
    pub(super) fn find(config: &Config, name: &str, with_linker: bool) -> Result<Self, String> {
        let (compiler, mode, language) = found(name)?;
        let not_understood = |reason| format!("`{name}` is not understood: {reason}");
        let real = resolve::real(&compiler).map_err(not_understood)?;
        let mut memory = ToolchainMemory::recall(&config.dir, (&compiler, &real), mode, language)
            .map_err(not_understood)?;
        let headers = memory.include_dirs(&[]).map_err(not_understood)?;
        memory.save();
        let toolchain = memory.toolchain;
        let mut tools = toolchain.tools.clone();
        let mut luggage = match &toolchain.travel {
            Travel::Along(luggage) => Ok(luggage.clone()),
            Travel::Stays(reason) => Err(reason.clone()),
        };
        if with_linker && luggage.is_ok() {
            let linking = linking::find(&toolchain, language)
                .map_err(|what| format!("what `{name}` links with is not known: {what}"))?;
            let all: Roles = linking.files.into_iter().chain(linking.programs.clone()).collect();
            tools.extend(identify_files(&all).map_err(|reason| format!("`{name}`: {reason}"))?);
            luggage = Luggage::pack(&tools).and_then(|mut packed| {
                packed.has_utf8 = luggage.as_ref().is_ok_and(|luggage| luggage.has_utf8);
                let compiling = toolchain.tools.iter().filter(|tool| toolchain.is_program(&tool.path));
                let compiling = compiling.map(|tool| (tool.path.clone(), tool.role.clone()));
                loader::settle(&mut packed, &linking.programs.into_iter().chain(compiling).collect())?;
                Ok(packed)
            });
        }
        let place = |path: &Path| luggage.as_ref().ok().and_then(|luggage| luggage.file_at(path));
        let roles =
            tools.iter().rev().filter_map(|tool| Some((place(&tool.path)?, tool.role.clone()))).collect();
        let headers = headers.folders.into_iter().map(PathBuf::from).collect();
        let marks = marks(&toolchain).map_err(not_understood)?;
        Ok(Self {
            name: name.to_owned(),
            compiler,
            language,
            toolchain,
            luggage,
            roles,
            headers,
            marks,
            links: with_linker,
        })
    }

    /// What it needs.
    ///
    /// # Errors
    /// Why it stays here, for people.
    pub(super) fn luggage(&self) -> Result<&Luggage, String> {
        self.luggage.as_ref().map_err(|reason| format!("`{}` stays here: {reason}", self.name))
    }
}

/// The compiler that a name stands for, as what it is called, and the language that it is for by its name.
fn found(name: &str) -> Result<(PathBuf, Option<Mode>, Language), String> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let folder = std::env::current_dir().unwrap_or_default();
    let find = |name: &str| resolve::find(name, &search, &folder);
    let whole = find(name).map(|found| (found, ""));
    let found = whole.or_else(|| name.rsplit_once(' ').and_then(|(name, word)| Some((find(name)?, word))));
    let (Found { compiler, .. }, word) =
        found.ok_or_else(|| format!("no compiler `{name}` on PATH; hint: a path does as well"))?;
    let not_understood = |reason| format!("`{name}` is not understood: {reason}");
    let compiler = compiler.map_err(not_understood)?;
    let real = resolve::real(&compiler).map_err(not_understood)?;
    match Mode::take([&compiler, &real], &[word.into()]).map_err(not_understood)? {
        (Some(mode), _) => {
            let language = if mode == Mode::Cxx { Language::Cxx } else { Language::C };
            return Ok((compiler, Some(mode), language));
        }
        (None, _) if !word.is_empty() => return Err(format!("`{word}` is no part of a compiler's name")),
        (None, _) => {}
    }
    let is_named_so =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("++"));
    let is_cxx = is_named_so(&compiler) || is_named_so(&real);
    Ok((compiler, None, if is_cxx { Language::Cxx } else { Language::C }))
}

/// What makes clang take a gcc's folder for one, and so find the headers of its C++ library; actions name those.
fn marks(toolchain: &Toolchain) -> Result<Vec<PathBuf>, Reason> {
    if toolchain.family != Family::Clang || toolchain.mode.is_some() {
        return Ok(Vec::new());
    }
    let about = probe::complaints(toolchain, &["-v"])?;
    let folder = about.lines().find_map(|line| line.strip_prefix("Selected GCC installation: "));
    let mark = folder.map(|folder| Path::new(folder).join("crtbegin.o")).filter(|mark| mark.is_file());
    Ok(mark.into_iter().collect())
}

/// The digest of a root that holds this alone.
pub(super) fn root_of(luggage: &Luggage) -> Result<Digest, String> {
    let mut tree = TreeBuilder::new();
    luggage.add_to(&mut tree).map_err(|error| error.to_string())?;
    Ok(tree.build(DigestFunction::Sha256).root)
}
