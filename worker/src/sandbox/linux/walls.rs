//! Landlock: which files a command may read, run and change, whatever mounts and modes say.
//!
//! A second wall where there are namespaces, and the first where there are none.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use nix::errno::Errno;

use super::step::Failed;

/// The youngest version whose rights are asked for; an older kernel is asked for what it knows.
const YOUNGEST: ABI = ABI::V6;

/// What a command may do where.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// Read and execute.
    pub read: Vec<PathBuf>,
    /// All of it, except making devices.
    pub change: Vec<PathBuf>,
    /// Read and write what is there: devices.
    pub use_as_is: Vec<PathBuf>,
}

/// Rules that are not in force yet.
pub(super) struct Wall(RulesetCreated);

impl Wall {
    /// One that allows nothing.
    pub(super) fn new() -> Result<Self, Failed> {
        ruleset(AccessFs::from_all(YOUNGEST)).map(Self).map_err(|error| failed(&error))
    }

    /// Allows what is granted. Places that are not there are left out.
    pub(super) fn with(self, grants: &Grants) -> Result<Self, Failed> {
        let all = AccessFs::from_all(YOUNGEST);
        let devices = AccessFs::MakeChar | AccessFs::MakeBlock;
        let as_is = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
        let rules = add(self.0, &grants.read, AccessFs::from_read(YOUNGEST))?;
        let rules = add(rules, &grants.change, all & !devices & !AccessFs::IoctlDev)?;
        add(rules, &grants.use_as_is, as_is).map(Self)
    }

    /// Forbids the calling process, and whatever it starts, everything else, for good; also to
    /// signal, and to reach by abstract sockets, anyone outside.
    ///
    /// `no_new_privs` has to be set.
    pub(super) fn raise(self) -> Result<(), Failed> {
        self.0.restrict_self().map(drop).map_err(|error| failed(&error))
    }
}

/// Parts the calling process, and whatever it starts, from all others: they can signal each other, and
/// nobody else. So it can end all of them at once, without a process namespace; and what they are
/// walled in further by keeps them from signalling it.
///
/// `no_new_privs` has to be set. Fails where the kernel is older than 6.12.
pub(super) fn fence() -> Result<(), Failed> {
    let fenced = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::Signal)
        .and_then(Ruleset::create)
        .and_then(RulesetCreated::restrict_self);
    fenced.map(drop).map_err(|error| failed(&error))
}

fn ruleset(all: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()
}

fn add(
    mut rules: RulesetCreated,
    places: &[PathBuf],
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, Failed> {
    for place in places {
        let Ok(opened) = PathFd::new(place) else { continue };
        let rights = if is_folder(place) { rights } else { rights & AccessFs::from_file(YOUNGEST) };
        rules = rules.add_rule(PathBeneath::new(opened, rights)).map_err(|error| failed(&error))?;
    }
    Ok(rules)
}

fn is_folder(place: &Path) -> bool {
    place.is_dir()
}

fn failed(error: &RulesetError) -> Failed {
    Failed { step: format!("forbid files with Landlock ({error})"), errno: Errno::last() }
}
