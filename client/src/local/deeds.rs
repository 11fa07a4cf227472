//! [`Deeds`]: what a program, and all that it started, was seen to do.

use std::collections::{BTreeMap, BTreeSet};

use super::Stamp;
use crate::reason::Reason;

/// What a run was seen to do. Paths are absolute.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Deeds {
    /// Paths that were asked for, whatever came of it; with links and `..` in them.
    pub looked: BTreeSet<String>,
    /// Files of others that were opened to be read, or started, by their true names.
    pub read: BTreeSet<String>,
    /// Folders whose entries were listed, by their true names.
    pub listed: BTreeSet<String>,
    /// Programs that were started, by the names that they were asked for under.
    pub started: BTreeSet<String>,
    /// Files that the run made, or emptied and filled, and that are left; by their true names.
    pub made: BTreeSet<String>,
    /// What the file system said of those when they were closed.
    pub closed: BTreeMap<String, Option<Stamp>>,
    /// Folders that it made, and that are left.
    pub made_folders: BTreeSet<String>,
    /// All that it made, whether it is left or not.
    pub ever_made: BTreeSet<String>,
    /// What it made or removed, with whether there was something before it did the first of that.
    pub before: BTreeMap<String, bool>,
    /// Files that were there and that it emptied and filled: their permissions are as they were.
    pub filled: BTreeSet<String>,
    /// Files that it made by opening them as they are, to write behind what they hold: which was nothing.
    pub grown: BTreeSet<String>,
    /// Paths, as they were spelled, that it made something at.
    pub spelled: BTreeSet<String>,
    /// Files that were there before and have been removed.
    pub removed: BTreeSet<String>,
    /// Whether it asked what this system is.
    pub asked_system: bool,
    /// Whether it asked who it is run by.
    pub asked_user: bool,
    /// Whether it wrote to our standard output or error.
    pub said: bool,
    /// Whether it can't do what it does while it is watched: what came of it is not what would have come.
    pub is_disturbed: bool,
    /// The first thing it did of which we can't tell what it depends on, or what it changes.
    pub refused: Option<Reason>,
}

impl Deeds {
    /// Whether a file that was made is as the run left it, for all that its stamp tells.
    pub fn is_as_left(&self, path: &str, stamp: &Stamp) -> bool {
        let of = |stamp: &Stamp| (stamp.device, stamp.inode, stamp.size_bytes, stamp.modified_ns);
        self.closed.get(path).is_some_and(|then| then.as_ref().map(of) == Some(of(stamp)))
    }

    /// Notes the first thing that is not understood.
    pub fn refuse(&mut self, reason: impl Into<Reason>) {
        if self.refused.is_none() {
            self.refused = Some(reason.into());
        }
    }
}
