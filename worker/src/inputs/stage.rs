//! [`Stage`]: from an input root's digest to a folder that a command can be started over.

use std::sync::Arc;
use std::time::Duration;

use castwork_cas::Digest;
use castwork_cas::merkle::FlatTree;
use castwork_cas::remote::Remote;
use tokio::time::Instant;

use super::bases::{Base, Bases};
use super::fetch::{Fetcher, Tally};
use super::layout::lay_out;
use super::{Plan, above_outputs};
use crate::action::CheckedAction;
use crate::blocking::blocking;
use crate::data_dir::Scratch;
use crate::failure::Failure;
use crate::local::Local;
use crate::sandbox::{INPUTS, Layout};

/// How often inputs are fetched anew because the local CAS evicted them before they were linked.
const LAYOUTS_MAX: usize = 3;

/// Lays out the inputs of all actions of a worker.
pub(crate) struct Stage {
    /// Blobs that are here.
    pub local: Local,
    /// Brings more.
    pub fetcher: Fetcher,
    /// Trees that are laid out.
    pub bases: Arc<Bases>,
}

/// Inputs that are laid out.
pub(crate) struct Staged {
    /// What lies below the action's own folder, kept as long as this is.
    pub base: Option<Arc<Base>>,
    /// Files, folders and links in the tree.
    pub entries: u64,
    /// Those of them that were made for this action.
    pub entries_made: u64,
    /// How long that took, without fetching.
    pub took: Duration,
}

/// How a tree is to be laid out.
enum Way {
    /// This, over that if it is given.
    Now(Option<Arc<Base>>, Plan),
    /// As a base first.
    AsBase,
}

impl Stage {
    /// Fetches what a tree lacks here and lays it out in [`INPUTS`] of `scratch`.
    ///
    /// # Errors
    /// [`Failure::Missing`] with what the server lacks; [`Failure::Invalid`] if the tree can't be laid out so.
    pub(crate) async fn lay_out(
        &self,
        remote: &Remote,
        tree: &Arc<FlatTree>,
        action: &Arc<CheckedAction>,
        layout: Layout,
        scratch: &Arc<Scratch>,
        tally: &Tally,
    ) -> Result<Staged, Failure> {
        let mut took = Duration::ZERO;
        let mut entries_made = 0;
        for _ in 0..LAYOUTS_MAX {
            let started = Instant::now();
            let (mut way, laid) = self.way_at_once(tree, action, layout, scratch).await?;
            took += started.elapsed();
            if let (Way::Now(base, plan), true) = (&mut way, laid) {
                entries_made += plan.len() as u64;
                return Ok(Staged { base: base.take(), entries: tree.paths(), entries_made, took });
            }
            if matches!(way, Way::AsBase) {
                let contents = tree.file_digests();
                self.fetcher.blobs(remote, contents, tally).await?;
                let started = Instant::now();
                way = match self.make_base(tree, action, layout).await {
                    Err(Failure::Missing(_)) => continue,
                    made => made?,
                };
                entries_made = tree.paths();
                took += started.elapsed();
            }
            let Way::Now(base, plan) = way else { continue };
            let contents = plan.contents().into_iter().map(|(digest, _)| digest);
            self.fetcher.blobs(remote, contents.collect(), tally).await?;
            let started = Instant::now();
            entries_made += plan.len() as u64;
            // Shared with the thread that lays out, so that a cancelled action's folder is removed after that thread
            // has left it.
            let (folder, local) = (scratch.clone(), self.local.clone());
            let laid = blocking(move || lay_out(&plan, &folder.path().join(INPUTS), layout, &local)).await;
            took += started.elapsed();
            match laid {
                Err(Failure::Missing(_)) => {}
                laid => return laid.map(|()| Staged { base, entries: tree.paths(), entries_made, took }),
            }
        }
        let full =
            std::io::Error::other("inputs were evicted again and again; it is too small for what runs");
        Err(Failure::disk("keep inputs in the local CAS")(full))
    }

    /// How a tree is to be laid out; and whether that has been done, as it is if all of it is here. Then one other
    /// thread has to be waited for and not two.
    async fn way_at_once(
        &self,
        tree: &Arc<FlatTree>,
        action: &Arc<CheckedAction>,
        layout: Layout,
        scratch: &Arc<Scratch>,
    ) -> Result<(Way, bool), Failure> {
        let (bases, tree, action) = (self.bases.clone(), tree.clone(), action.clone());
        let (folder, local) = (scratch.clone(), self.local.clone());
        blocking(move || {
            let way = way_of(&bases, &tree, &action, layout)?;
            let Way::Now(_, plan) = &way else { return Ok((way, false)) };
            match lay_out(plan, &folder.path().join(INPUTS), layout, &local) {
                // Then nothing has been laid out.
                Err(Failure::Missing(_)) => Ok((way, false)),
                laid => laid.map(|()| (way, true)),
            }
        })
        .await
    }

    async fn way(
        &self,
        tree: &Arc<FlatTree>,
        action: &Arc<CheckedAction>,
        layout: Layout,
    ) -> Result<Way, Failure> {
        let (bases, tree, action) = (self.bases.clone(), tree.clone(), action.clone());
        blocking(move || way_of(&bases, &tree, &action, layout)).await
    }

    /// Lays out a tree as a base, unless another action has just done so.
    async fn make_base(
        &self,
        tree: &Arc<FlatTree>,
        action: &Arc<CheckedAction>,
        layout: Layout,
    ) -> Result<Way, Failure> {
        let _alone = self.bases.making.lock().await;
        if let way @ Way::Now(..) = self.way(tree, action, layout).await? {
            return Ok(way);
        }
        let (bases, local, tree_made) = (self.bases.clone(), self.local.clone(), tree.clone());
        blocking(move || bases.make(tree_made, &local)).await?;
        self.way(tree, action, layout).await
    }

    /// Brings every directory of a tree, and reads them.
    ///
    /// # Errors
    /// [`Failure::Missing`] with all that the server doesn't have.
    pub(crate) async fn tree(
        &self,
        remote: &Remote,
        root: &Digest,
        tally: &Tally,
    ) -> Result<Arc<FlatTree>, Failure> {
        self.fetcher.tree(remote, root, tally).await.map(Arc::new)
    }
}

fn way_of(bases: &Bases, tree: &FlatTree, action: &CheckedAction, layout: Layout) -> Result<Way, Failure> {
    if layout == Layout::Links {
        if let Some((base, plan)) = bases.pick(tree, action)? {
            return Ok(Way::Now(Some(base), plan));
        }
        if bases.takes(tree) {
            return Ok(Way::AsBase);
        }
    }
    let mut plan = Plan::of(tree)?;
    let is_whole = plan.add_above_outputs(&above_outputs(tree, action)?);
    debug_assert!(is_whole, "a whole tree hides nothing");
    Ok(Way::Now(None, plan))
}
