//! The folders in which headers are looked for, in order.

use std::collections::BTreeMap;
use std::path::Path;

use crate::command_line::flags::Search;
use crate::command_line::{Argument, Compile};
use crate::local::Platform;
use crate::paths::Place;
use crate::reason::Reason;
use crate::toolchain::{IncludeDirs, probe_search_list};

/// All folders of headers, as spelled.
#[derive(Debug)]
pub(super) struct SearchPath {
    /// For `#include "…"` alone.
    pub quote: Vec<String>,
    /// For both forms: the user's, the compiler's own, the late ones.
    pub both: Vec<String>,
}

impl SearchPath {
    /// Puts together what the command line says and what the compiler adds.
    pub(super) fn new(compile: &Compile, own: &IncludeDirs) -> Self {
        let of = |wanted: Search| {
            compile.arguments.iter().filter_map(move |argument| match argument {
                Argument::SearchDir { search, folder } if *search == wanted => Some(folder.clone()),
                _ => None,
            })
        };
        let own = own.folders.iter().chain(&own.frameworks).cloned();
        let both = of(Search::User).chain(of(Search::System)).chain(own).chain(of(Search::After));
        Self { quote: of(Search::Quote).collect(), both: both.collect() }
    }

    /// All of them, in the order of a search for `#include "…"`.
    pub(super) fn all(&self) -> impl Iterator<Item = &String> {
        self.quote.iter().chain(&self.both)
    }

    /// Whether the compiler searched these folders and no others, in this order, by what it said under `-v`.
    ///
    /// Folders that are missing or there twice may be left out.
    pub(super) fn is_what_was_searched(&self, about: &str) -> bool {
        let identity = |folder: &str| {
            let metadata = Path::new(folder).metadata().ok().filter(std::fs::Metadata::is_dir)?;
            let stamp = Platform::stamp(&metadata);
            Some((stamp.device, stamp.inode))
        };
        let mut expected = self.both.iter();
        let mut searched = Vec::new();
        for folder in probe_search_list(about) {
            let folder = folder.trim_end_matches(" (framework directory)").trim_end_matches('/');
            if !expected.any(|expected| expected.trim_end_matches('/') == folder) {
                return false;
            }
            searched.push(identity(if folder.is_empty() { "/" } else { folder }));
        }
        self.both.iter().filter_map(|folder| identity(folder)).all(|folder| searched.contains(&Some(folder)))
    }

    /// Checks that folders that are one have one virtual name: compilers skip a folder that they know already.
    ///
    /// # Errors
    /// The reason to pass through.
    pub(super) fn check_links(&self, place: &Place) -> Result<(), Reason> {
        let mut names: BTreeMap<(u64, u64), String> = BTreeMap::new();
        for folder in self.all() {
            let Ok(metadata) = Path::new(folder).metadata() else { continue };
            let stamp = Platform::stamp(&metadata);
            let name = place.locate(folder)?.name;
            let known = names.entry((stamp.device, stamp.inode)).or_insert_with(|| name.clone());
            if *known != name {
                return Err("folder of headers under two names".into());
            }
        }
        Ok(())
    }
}
