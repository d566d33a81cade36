//! What has come and gone.

use std::collections::{BTreeMap, VecDeque};

use super::types::Identity;
use crate::SecurityId;

/// How many changes are remembered. Who is further behind is told everything.
const REMEMBERED: usize = 65_536;

/// A state of an allocator, of this run of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    /// Before everything: nothing is known.
    pub const NONE: Self = Self(0);
}

/// What has come and gone between two versions. What came and went in between is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The version that these lead to.
    pub version: Version,
    /// Whether `added` is everything there is, the reserved identities included, and whatever else was known is gone.
    pub everything: bool,
    /// Gone. A number that was given to other labels in the meantime is in both lists: removals come first.
    pub removed: Vec<Identity>,
    /// Come.
    pub added: Vec<Identity>,
}

impl Changes {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.removed.is_empty() && self.added.is_empty()
    }
}

/// The latest changes in order.
#[derive(Debug)]
pub(super) struct ChangeLog {
    /// The version after the last change.
    version: u64,
    changes: VecDeque<(Identity, Presence)>,
    remembered: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Added,
    Removed,
}

impl ChangeLog {
    pub(super) fn new() -> Self {
        Self { version: 1, changes: VecDeque::new(), remembered: REMEMBERED }
    }

    pub(super) fn version(&self) -> Version {
        Version(self.version)
    }

    pub(super) fn note(&mut self, identity: Identity, presence: Presence) {
        if self.changes.len() >= self.remembered {
            self.changes.pop_front();
        }
        self.changes.push_back((identity, presence));
        self.version += 1;
    }

    /// The changes since `seen`; `None` when not all of them are known any more.
    pub(super) fn since(&self, seen: Version) -> Option<Changes> {
        let behind = usize::try_from(self.version.checked_sub(seen.0)?).ok()?;
        if seen == Version::NONE || behind > self.changes.len() {
            return None;
        }
        // what was there before, and what is there now, of each number concerned
        let mut spans: BTreeMap<SecurityId, (Option<&Identity>, Option<&Identity>)> = BTreeMap::new();
        for (identity, presence) in self.changes.range(self.changes.len() - behind..) {
            let added = *presence == Presence::Added;
            let span = spans.entry(identity.id()).or_insert(((!added).then_some(identity), None));
            span.1 = added.then_some(identity);
        }
        let removed = spans.values().filter_map(|(before, _)| before.cloned()).collect();
        let added = spans.values().filter_map(|(_, now)| now.cloned()).collect();
        Some(Changes { version: self.version(), everything: false, removed, added })
    }
}
