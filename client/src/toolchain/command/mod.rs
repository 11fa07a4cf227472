//! `castwork toolchain`: what goes along with a compiler's actions and why, all of it as files, and whether that is
//! enough.

mod check;
mod pack;
mod show;
mod subject;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::Config;
use crate::run::complain;
use subject::Subject;

/// What can be asked about compilers.
#[derive(Debug, Subcommand)]
pub(crate) enum Question {
    /// Says which files go along with compiles and why, with digests and sizes.
    ///
    /// Exit code 0, or 1 if a compiler is not understood or stays here.
    Show {
        #[command(flatten)]
        which: Which,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Writes a compiler with its headers as a folder or an archive that runs alone.
    ///
    /// The files have the paths that they have here, so what is written is a root: `chroot DIR g++ ...`, or an image's
    /// layer. An archive of the same files is the same, bit by bit. Exit code 0, or 1 if it can't be written.
    Pack {
        /// Name or path of a compiler.
        compiler: String,
        /// The folder, or the archive if its name ends with `.tar`; it must not be there yet.
        #[arg(long, value_name = "DIR|FILE.tar")]
        into: PathBuf,
        /// With what it links with, too.
        #[arg(long)]
        link: bool,
        /// Leaves the headers out.
        #[arg(long)]
        without_headers: bool,
    },
    /// Compiles in a root that holds nothing but the compiler, and on the servers that are set, and compares.
    ///
    /// Says as well what each server lacks of it. Exit code 0 if all came out the same, 1 if not or if it could not be
    /// tried anywhere.
    Check {
        #[command(flatten)]
        which: Which,
    },
}

/// Which compilers, and for what.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Names or paths of compilers.
    #[arg(default_values = ["cc", "c++"])]
    compilers: Vec<String>,
    /// With what they link with, which doesn't go along with compiles.
    #[arg(long)]
    link: bool,
}

/// Answers a question, and returns the exit code.
pub(crate) fn run(config: &Config, question: &Question) -> u8 {
    let is_well = match question {
        Question::Show { which, json } => {
            let (subjects, is_well) = subjects(config, which);
            show::show(&subjects, *json) && is_well
        }
        Question::Pack { compiler, into, link, without_headers } => {
            let packed = Subject::find(config, compiler, *link)
                .and_then(|subject| pack::pack(&subject, into, !without_headers));
            packed.map_err(|what| complain(&what)).is_ok()
        }
        Question::Check { which } => {
            let (subjects, is_well) = subjects(config, which);
            subjects.iter().fold(is_well, |is_well, subject| check::check(config, subject) && is_well)
        }
    };
    u8::from(!is_well)
}

/// The compilers that are meant, and whether all of them are understood.
fn subjects(config: &Config, which: &Which) -> (Vec<Subject>, bool) {
    let found = which.compilers.iter().map(|name| Subject::find(config, name, which.link));
    let found: Vec<_> = found.map(|subject| subject.map_err(|what| complain(&what)).ok()).collect();
    let is_well = found.iter().all(Option::is_some);
    (found.into_iter().flatten().collect(), is_well)
}
