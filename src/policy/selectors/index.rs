//! Finds who may match whom, so that neither every selector nor every identity has to be tried.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::super::flat::Peer;
use super::super::selector::{Operator, Selector};
use super::SelectorId;
use crate::{Labels, SecurityId};

/// What whoever a peer selects must have.
enum Anchor<'a> {
    /// A label with this key and one of these values, of whatever source.
    Values(&'a str, Vec<&'a str>),
    /// A label with this key.
    Key(&'a str),
    /// A prefix within this one.
    Prefix(IpNetwork),
    /// Nothing that could be looked up.
    Nothing,
}

impl<'a> Anchor<'a> {
    fn of(peer: &'a Peer) -> Self {
        match peer {
            Peer::Labels(selector) => Self::of_selector(selector),
            Peer::Cidr { net, .. } => Self::Prefix(whole(*net)),
            Peer::Entity(_) => Self::Nothing,
        }
    }

    fn of_selector(selector: &'a Selector) -> Self {
        let with = |operator| selector.requirements().iter().find(move |needed| needed.operator() == operator);
        match (with(Operator::In), with(Operator::Exists)) {
            (Some(values), _) => Self::Values(values.key().key(), values.values().collect()),
            (None, Some(key)) => Self::Key(key.key().key()),
            (None, None) => Self::Nothing,
        }
    }
}

/// Selectors by what they ask for.
#[derive(Clone, Debug, Default)]
pub(super) struct SelectorIndex {
    by_value: HashMap<String, HashMap<String, BTreeSet<SelectorId>>>,
    by_key: HashMap<String, BTreeSet<SelectorId>>,
    by_prefix: HashMap<IpNetwork, BTreeSet<SelectorId>>,
    others: BTreeSet<SelectorId>,
}

impl SelectorIndex {
    pub fn insert(&mut self, id: SelectorId, peer: &Peer) {
        match Anchor::of(peer) {
            Anchor::Values(key, values) => {
                let by_value = self.by_value.entry(key.to_owned()).or_default();
                for value in values {
                    by_value.entry(value.to_owned()).or_default().insert(id);
                }
            }
            Anchor::Key(key) => _ = self.by_key.entry(key.to_owned()).or_default().insert(id),
            Anchor::Prefix(net) => _ = self.by_prefix.entry(net).or_default().insert(id),
            Anchor::Nothing => _ = self.others.insert(id),
        }
    }

    pub fn remove(&mut self, id: SelectorId, peer: &Peer) {
        match Anchor::of(peer) {
            Anchor::Values(key, values) => {
                let Some(by_value) = self.by_value.get_mut(key) else { return };
                for value in values {
                    take(by_value, value, id);
                }
                if by_value.is_empty() {
                    self.by_value.remove(key);
                }
            }
            Anchor::Key(key) => take(&mut self.by_key, key, id),
            Anchor::Prefix(net) => take(&mut self.by_prefix, &net, id),
            Anchor::Nothing => _ = self.others.remove(&id),
        }
    }

    /// The selectors that may select these labels or this prefix, in order, among them all that do.
    pub fn candidates(&self, labels: &Labels, prefix: Option<IpNetwork>) -> Vec<SelectorId> {
        let mut found: Vec<SelectorId> = self.others.iter().copied().collect();
        for label in labels.iter() {
            let by_value = self.by_value.get(label.key()).and_then(|values| values.get(label.value()));
            found.extend(by_value.into_iter().chain(self.by_key.get(label.key())).flatten());
        }
        if let Some(prefix) = prefix.filter(|_| !self.by_prefix.is_empty()) {
            for wider in (0..=prefix.prefix()).filter_map(|length| IpNetwork::new(prefix.network(), length).ok()) {
                found.extend(self.by_prefix.get(&whole(wider)).into_iter().flatten());
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Identities by what they have.
#[derive(Clone, Debug, Default)]
pub(super) struct IdentityIndex {
    by_label: HashMap<String, HashMap<String, BTreeSet<SecurityId>>>,
    by_prefix: BTreeSet<(IpAddr, u8, SecurityId)>,
}

impl IdentityIndex {
    pub fn insert(&mut self, id: SecurityId, labels: &Labels, prefix: Option<IpNetwork>) {
        for label in labels.iter() {
            let by_value = self.by_label.entry(label.key().to_owned()).or_default();
            by_value.entry(label.value().to_owned()).or_default().insert(id);
        }
        self.by_prefix.extend(prefix.map(|prefix| (prefix.network(), prefix.prefix(), id)));
    }

    pub fn remove(&mut self, id: SecurityId, labels: &Labels, prefix: Option<IpNetwork>) {
        for label in labels.iter() {
            let Some(by_value) = self.by_label.get_mut(label.key()) else { continue };
            take(by_value, label.value(), id);
            if by_value.is_empty() {
                self.by_label.remove(label.key());
            }
        }
        if let Some(prefix) = prefix {
            self.by_prefix.remove(&(prefix.network(), prefix.prefix(), id));
        }
    }

    /// The identities that a peer may select, in order and among them all that it does; `None` for any.
    pub fn candidates(&self, peer: &Peer) -> Option<Vec<SecurityId>> {
        let mut found: Vec<SecurityId> = match Anchor::of(peer) {
            Anchor::Values(key, values) => {
                let Some(by_value) = self.by_label.get(key) else { return Some(Vec::new()) };
                values.into_iter().filter_map(|value| by_value.get(value)).flatten().copied().collect()
            }
            Anchor::Key(key) => {
                self.by_label.get(key).into_iter().flat_map(HashMap::values).flatten().copied().collect()
            }
            Anchor::Prefix(net) => {
                let first = (net.network(), 0, SecurityId::UNKNOWN);
                let last = (net.broadcast(), u8::MAX, SecurityId::new(u32::MAX));
                self.by_prefix.range(first..=last).map(|(_, _, id)| *id).collect()
            }
            Anchor::Nothing => return None,
        };
        found.sort_unstable();
        found.dedup();
        Some(found)
    }
}

/// The prefix without bits behind its length.
fn whole(prefix: IpNetwork) -> IpNetwork {
    IpNetwork::new(prefix.network(), prefix.prefix()).unwrap_or(prefix)
}

/// Removes `value` from the set under `key`, and the set with its last one.
fn take<K, Q, V>(sets: &mut HashMap<K, BTreeSet<V>>, key: &Q, value: V)
where
    K: Hash + Eq + std::borrow::Borrow<Q>,
    Q: Hash + Eq + ?Sized,
    V: Ord,
{
    if let Some(set) = sets.get_mut(key) {
        set.remove(&value);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
