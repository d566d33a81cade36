//! Who is selected: the distinct selectors of the rules in force, each with the identities it selects.

mod index;
mod peer;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ipnetwork::IpNetwork;
pub use peer::WorldIdentities;

use self::index::{IdentityIndex, SelectorIndex};
use super::flat::Peer;
use crate::SecurityId;
use crate::identity::{Changes, Identity, World};

/// The number of a selector in its [`SelectorCache`]. Numbers only grow: that of a selector which is gone never comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SelectorId(u64);

/// Keeps the distinct selectors with the identities that each selects, as identities and users of selectors come and go.
///
/// A selector stays as long as it has a user. What has come or gone is compared only with the selectors that ask for one of its
/// labels or for a prefix around its own, and with the few that can't be found that way.
#[derive(Clone, Debug)]
pub struct SelectorCache {
    world: WorldIdentities,
    ids: HashMap<Peer, SelectorId>,
    // Clones share what they don't change.
    selectors: BTreeMap<SelectorId, Arc<Cached>>,
    identities: HashMap<SecurityId, Arc<Known>>,
    selector_index: SelectorIndex,
    identity_index: Arc<IdentityIndex>,
    next: u64,
}

#[derive(Clone, Debug)]
struct Cached {
    peer: Peer,
    users: usize,
    identities: BTreeSet<SecurityId>,
}

impl Cached {
    fn seen_as(&self, id: SelectorId) -> CachedSelector<'_> {
        CachedSelector { id, peer: &self.peer, users: self.users, identities: &self.identities }
    }
}

#[derive(Clone, Debug)]
struct Known {
    identity: Identity,
    prefix: Option<IpNetwork>,
    /// In order.
    selectors: Vec<SelectorId>,
}

/// A selector in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachedSelector<'a> {
    /// Its number.
    pub id: SelectorId,
    /// What it asks for.
    pub peer: &'a Peer,
    /// How often it is used.
    pub users: usize,
    /// Whom it selects.
    pub identities: &'a BTreeSet<SecurityId>,
}

/// The selectors that select others than before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectorChanges(BTreeMap<SelectorId, SelectorChange>);

/// Whom a selector selects in addition, and whom no more. Nobody is in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectorChange {
    /// Selected now.
    pub added: Vec<SecurityId>,
    /// Selected no more.
    pub removed: Vec<SecurityId>,
}

impl SelectorChanges {
    /// Whether every selector selects whom it did.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The selectors concerned.
    pub fn iter(&self) -> impl Iterator<Item = (SelectorId, &SelectorChange)> {
        self.0.iter().map(|(id, change)| (*id, change))
    }

    /// Notes that `before` selected an identity, and `after` does; both in order.
    fn note(&mut self, identity: SecurityId, before: &[SelectorId], after: &[SelectorId]) {
        for gone in before.iter().filter(|id| after.binary_search(id).is_err()) {
            self.0.entry(*gone).or_default().removed.push(identity);
        }
        for come in after.iter().filter(|id| before.binary_search(id).is_err()) {
            self.0.entry(*come).or_default().added.push(identity);
        }
    }
}

impl SelectorCache {
    /// Without selectors and identities, on a node whose world has these.
    pub fn new(world: WorldIdentities) -> Self {
        Self {
            world,
            ids: HashMap::new(),
            selectors: BTreeMap::new(),
            identities: HashMap::new(),
            selector_index: SelectorIndex::default(),
            identity_index: Arc::default(),
            next: 0,
        }
    }

    /// Which identities the world has on the node.
    pub(super) fn world(&self) -> World {
        self.world.world()
    }

    /// The number of a selector, which has one user more.
    pub fn acquire(&mut self, peer: &Peer) -> SelectorId {
        if let Some(id) = self.ids.get(peer) {
            if let Some(cached) = self.selectors.get_mut(id) {
                Arc::make_mut(cached).users += 1;
            }
            return *id;
        }
        let id = SelectorId(self.next);
        self.next += 1;
        let candidates =
            self.identity_index.candidates(peer).unwrap_or_else(|| self.identities.keys().copied().collect());
        let mut selected = BTreeSet::new();
        for candidate in candidates {
            let Some(known) = self.identities.get_mut(&candidate) else { continue };
            if peer.selects(&known.identity, &self.world) {
                Arc::make_mut(known).selectors.push(id); // the highest number so far
                selected.insert(candidate);
            }
        }
        self.selector_index.insert(id, peer);
        self.ids.insert(peer.clone(), id);
        self.selectors.insert(id, Arc::new(Cached { peer: peer.clone(), users: 1, identities: selected }));
        id
    }

    /// Gives back one use; without another the selector is forgotten. False for one that is not known.
    pub fn release(&mut self, id: SelectorId) -> bool {
        let Some(cached) = self.selectors.get_mut(&id) else { return false };
        if cached.users > 1 {
            Arc::make_mut(cached).users -= 1;
            return true;
        }
        let Some(cached) = self.selectors.remove(&id) else { return false };
        self.ids.remove(&cached.peer);
        self.selector_index.remove(id, &cached.peer);
        for identity in &cached.identities {
            if let Some(known) = self.identities.get_mut(identity) {
                Arc::make_mut(known).selectors.retain(|selector| *selector != id);
            }
        }
        true
    }

    /// Takes over what has come and gone, and says which selectors that concerns.
    pub fn apply(&mut self, changes: &Changes) -> SelectorChanges {
        let mut before: BTreeMap<SecurityId, Vec<SelectorId>> = BTreeMap::new();
        let added: BTreeMap<SecurityId, &Identity> =
            changes.added.iter().map(|identity| (identity.id(), identity)).collect();
        let all: Vec<SecurityId> = match changes.everything {
            true => self.identities.keys().copied().collect(),
            false => changes.removed.iter().map(Identity::id).collect(),
        };
        let stays =
            |cache: &Self, id| cache.identities.get(&id).map(|known| &known.identity) == added.get(&id).copied();
        for id in all.into_iter().chain(added.keys().copied()) {
            if !before.contains_key(&id) && !stays(self, id) {
                before.insert(id, self.forget(id));
            }
        }
        let mut selected = SelectorChanges::default();
        for (id, before) in before {
            let after = added.get(&id).map(|identity| self.learn(identity)).unwrap_or_default();
            selected.note(id, &before, &after);
        }
        selected
    }

    /// The same as [`apply`](Self::apply) for identities that have come.
    pub fn add(&mut self, identities: impl IntoIterator<Item = Identity>) -> SelectorChanges {
        self.apply(&Changes { added: identities.into_iter().collect(), ..Changes::default() })
    }

    /// Removes an identity and returns who selected it.
    fn forget(&mut self, id: SecurityId) -> Vec<SelectorId> {
        let Some(known) = self.identities.remove(&id) else { return Vec::new() };
        Arc::make_mut(&mut self.identity_index).remove(id, known.identity.labels(), known.prefix);
        for selector in &known.selectors {
            if let Some(cached) = self.selectors.get_mut(selector) {
                Arc::make_mut(cached).identities.remove(&id);
            }
        }
        known.selectors.clone()
    }

    /// Adds an identity that isn't known and returns who selects it.
    fn learn(&mut self, identity: &Identity) -> Vec<SelectorId> {
        let (id, prefix) = (identity.id(), self.world.prefix_of(identity));
        Arc::make_mut(&mut self.identity_index).insert(id, identity.labels(), prefix);
        let mut selectors = self.selector_index.candidates(identity.labels(), prefix);
        selectors.retain(|selector| match self.selectors.get_mut(selector) {
            Some(cached) if cached.peer.selects(identity, &self.world) => Arc::make_mut(cached).identities.insert(id),
            _ => false,
        });
        let known = Known { identity: identity.clone(), prefix, selectors: selectors.clone() };
        self.identities.insert(id, Arc::new(known));
        selectors
    }

    /// A selector in use.
    pub fn get(&self, id: SelectorId) -> Option<CachedSelector<'_>> {
        self.selectors.get(&id).map(|cached| cached.seen_as(id))
    }

    /// Whom a selector selects; nobody for one that is not known.
    pub fn selected(&self, id: SelectorId) -> impl Iterator<Item = SecurityId> {
        self.selectors.get(&id).into_iter().flat_map(|cached| cached.identities.iter().copied())
    }

    /// Who selects an identity, in order.
    pub fn selectors_of(&self, identity: SecurityId) -> &[SelectorId] {
        self.identities.get(&identity).map_or(&[], |known| &known.selectors)
    }

    /// A known identity.
    pub fn identity(&self, id: SecurityId) -> Option<&Identity> {
        self.identities.get(&id).map(|known| &known.identity)
    }

    /// Every selector in use, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = CachedSelector<'_>> {
        self.selectors.iter().map(|(id, cached)| cached.seen_as(*id))
    }

    /// How many selectors are in use.
    pub fn len(&self) -> usize {
        self.selectors.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.selectors.is_empty()
    }
}
