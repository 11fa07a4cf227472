//! [`Bases`]: input roots that are laid out once, and lie below those of actions that differ little from them.
//!
//! An action's own folder holds only what differs, and hides what the base has too much of; the sandbox puts one over
//! the other. So a compiler, a tree of headers or a checkout is laid out once, however many actions use it. Nobody
//! writes into a base, and none outlives the worker.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use castwork_cas::merkle::FlatTree;

use super::delta::delta;
use super::layout::lay_out;
use super::{Plan, above_outputs};
use crate::action::CheckedAction;
use crate::failure::Failure;
use crate::local::Local;
use crate::sandbox::{Layout, make_whiteout, remove_tree};

/// Most bases at once.
const BASES_MAX: usize = 64;

/// Most entries of all bases together: each is an inode or a link.
const PATHS_MAX: u64 = 1_000_000;

/// How many of the last used ones are compared with what is wanted.
const CANDIDATES_MAX: usize = 8;

/// Trees with fewer entries are laid out as they are.
const BASE_PATHS_MIN: u64 = 32;

/// A difference of up to so many entries is taken as it is, in the hope for no better.
const GOOD_ENTRIES: usize = 16;

/// Beyond this share of a tree's entries a base of its own pays.
const DELTA_DIVISOR: u64 = 4;

/// Bases of one worker.
#[derive(Debug)]
pub(crate) struct Bases {
    folder: PathBuf,
    bytes_max: u64,
    /// The last used one last.
    kept: Mutex<Vec<Arc<Base>>>,
    next: AtomicU64,
    /// Whether this system lets us hide what lies below.
    can_hide: bool,
    /// Held while one is made, so that two actions don't make the same.
    pub(super) making: tokio::sync::Mutex<()>,
}

/// An input root that is laid out. Removed when it is dropped, on a thread that may block.
#[derive(Debug)]
pub(crate) struct Base {
    path: PathBuf,
    tree: Arc<FlatTree>,
    size_bytes: u64,
}

impl Base {
    /// Its name in the folder of bases.
    pub(crate) fn name(&self) -> &Path {
        self.path.file_name().map_or(Path::new(""), Path::new)
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        let remove = move || {
            if let Err(error) = remove_tree(&path) {
                tracing::warn!(path = %path.display(), %error, "a laid-out tree can't be removed");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

impl Bases {
    /// Keeps bases in the empty folder `folder`, whose contents may hold `bytes_max` bytes.
    pub(crate) fn new(folder: &Path, bytes_max: u64) -> Self {
        let trial = folder.join("whiteout");
        let can_hide = make_whiteout(&trial).and_then(|()| fs::remove_file(&trial));
        if let Err(error) = &can_hide {
            tracing::debug!(%error, "inputs can't be hidden here; trees are laid out anew where they lack some");
        }
        Self {
            folder: folder.to_owned(),
            bytes_max,
            kept: Mutex::default(),
            next: AtomicU64::new(1),
            can_hide: can_hide.is_ok(),
            making: tokio::sync::Mutex::default(),
        }
    }

    /// Finds the base that a tree differs least from, and the difference, if there is one that will do. Blocks.
    ///
    /// # Errors
    /// [`Failure::Invalid`] if the tree can't be laid out for the action.
    pub(super) fn pick(
        &self,
        tree: &FlatTree,
        action: &CheckedAction,
    ) -> Result<Option<(Arc<Base>, Plan)>, Failure> {
        let above = above_outputs(tree, action)?;
        let mut best: Option<(Arc<Base>, Plan)> = None;
        let most = usize::try_from((tree.paths() / DELTA_DIVISOR).max(BASE_PATHS_MIN)).unwrap_or(usize::MAX);
        for base in self.candidates() {
            let entries_max = best.as_ref().map_or(most, |(_, plan)| plan.len());
            let Some(mut plan) = delta(&base.tree, tree, entries_max)? else { continue };
            let can_be = (self.can_hide || plan.gone.is_empty()) && plan.add_above_outputs(&above);
            if can_be && best.as_ref().is_none_or(|(_, best)| plan.len() < best.len()) {
                best = Some((base, plan));
            }
            if best.as_ref().is_some_and(|(_, plan)| plan.len() <= GOOD_ENTRIES) {
                break;
            }
        }
        if let Some((base, _)) = &best {
            self.touch(base);
        }
        Ok(best)
    }

    /// Whether a base of its own may be made for a tree.
    pub(super) fn takes(&self, tree: &FlatTree) -> bool {
        (BASE_PATHS_MIN..=PATHS_MAX).contains(&tree.paths()) && size_bytes(tree) <= self.bytes_max
    }

    /// Lays out a tree whose files are in the local CAS. Blocks.
    ///
    /// # Errors
    /// As [`lay_out`].
    pub(super) fn make(&self, tree: Arc<FlatTree>, local: &Local) -> Result<(), Failure> {
        let plan = Plan::of(&tree)?;
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let base = Base { path: self.folder.join(name), size_bytes: size_bytes(&tree), tree };
        fs::create_dir(&base.path).map_err(Failure::disk("make a folder for a tree"))?;
        // If that fails, dropping it removes what is there of it.
        lay_out(&plan, &base.path, Layout::Links, local)?;
        self.keep(Arc::new(base));
        Ok(())
    }

    fn candidates(&self) -> Vec<Arc<Base>> {
        self.kept().iter().rev().take(CANDIDATES_MAX).cloned().collect()
    }

    fn touch(&self, base: &Arc<Base>) {
        let mut kept = self.kept();
        if let Some(at) = kept.iter().position(|own| Arc::ptr_eq(own, base)) {
            let base = kept.remove(at);
            kept.push(base);
        }
    }

    fn keep(&self, base: Arc<Base>) {
        let mut evicted = Vec::new();
        {
            let mut kept = self.kept();
            kept.push(base);
            let is_too_much = |kept: &[Arc<Base>]| {
                kept.len() > BASES_MAX
                    || kept.iter().map(|base| base.tree.paths()).sum::<u64>() > PATHS_MAX
                    || kept.iter().map(|base| base.size_bytes).sum::<u64>() > self.bytes_max
            };
            while kept.len() > 1 && is_too_much(&kept) {
                evicted.push(kept.remove(0));
            }
        }
        // Those that no action uses are removed here, the others with the last action.
        drop(evicted);
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Base>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of all files, each content once.
fn size_bytes(tree: &FlatTree) -> u64 {
    tree.file_digests().iter().map(castwork_cas::Digest::size_bytes).sum()
}
