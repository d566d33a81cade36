//! What the sources say and what of it is in force: pure logic, without a map.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::source::Source;
use crate::tables::IpCacheEntry;
use crate::{Error, Result};

/// What a source says anew of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The prefix has this entry.
    Upsert(IpNetwork, IpCacheEntry),
    /// Nothing any more.
    Withdraw(IpNetwork),
}

impl Change {
    fn prefix(&self) -> IpNetwork {
        match self {
            Self::Upsert(prefix, _) | Self::Withdraw(prefix) => *prefix,
        }
    }
}

/// What is in force for a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The prefix.
    pub prefix: IpNetwork,
    /// What the datapath knows of it.
    pub entry: IpCacheEntry,
    /// Who says so. Of an entry found in the map, and not confirmed yet, a guess.
    pub source: Source,
    /// Whether it was found in the map and no source has confirmed it yet.
    pub found: bool,
}

/// The map's entries before and after some changes, for prefixes where the two differ.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Difference {
    pub(super) upserts: Vec<(IpNetwork, IpCacheEntry)>,
    pub(super) removals: Vec<IpNetwork>,
}

#[derive(Debug)]
pub(super) struct Directory {
    prefixes: HashMap<IpNetwork, Claims>,
    /// How many prefixes of each length there are, for IPv4 and IPv6.
    lengths: [[usize; 129]; 2],
}

/// What is said of one prefix.
#[derive(Clone, Copy, Debug, Default)]
struct Claims {
    of: [Option<IpCacheEntry>; Source::ALL.len()],
    /// What the map had when it was taken over, until somebody says more.
    found: Option<IpCacheEntry>,
}

/// Prefixes that some changes are about, in the order of these, and what was in force for each before the first.
#[derive(Default)]
struct Touched {
    order: Vec<IpNetwork>,
    before: HashMap<IpNetwork, Option<IpCacheEntry>>,
}

impl Touched {
    fn note(&mut self, prefix: IpNetwork, before: Option<IpCacheEntry>) {
        if let Entry::Vacant(first) = self.before.entry(prefix) {
            first.insert(before);
            self.order.push(prefix);
        }
    }
}

impl Directory {
    pub(super) fn new() -> Self {
        Self { prefixes: HashMap::new(), lengths: [[0; 129]; 2] }
    }

    /// Notes what the map has. Not after the first change.
    pub(super) fn note_found(&mut self, prefix: IpNetwork, entry: IpCacheEntry) {
        self.change(prefix, |claims| claims.found = Some(entry));
    }

    /// Carries out a source's changes in their order, and says what they come to. On failure nothing is changed.
    pub(super) fn apply(&mut self, source: Source, changes: &[Change]) -> Result<Difference> {
        changes.iter().try_for_each(|change| check(change.prefix()))?;
        let mut touched = Touched::default();
        for change in changes {
            let entry = match change {
                Change::Upsert(_, entry) => Some(entry.normalised()),
                Change::Withdraw(_) => None,
            };
            let before = self.claim(source, change.prefix(), entry);
            touched.note(change.prefix(), before);
        }
        Ok(self.difference(touched))
    }

    /// Makes these entries all that a source says.
    pub(super) fn replace(&mut self, source: Source, entries: &[(IpNetwork, IpCacheEntry)]) -> Result<Difference> {
        let wanted: HashSet<_> = entries.iter().map(|(prefix, _)| *prefix).collect();
        let said = self.prefixes.iter().filter(|(_, claims)| claims.of[source.index()].is_some());
        let gone = said.map(|(prefix, _)| *prefix).filter(|prefix| !wanted.contains(prefix)).map(Change::Withdraw);
        let upserts = entries.iter().map(|(prefix, entry)| Change::Upsert(*prefix, *entry));
        let changes: Vec<_> = upserts.chain(gone).collect();
        self.apply(source, &changes)
    }

    /// Gives up what was found and nobody confirmed.
    pub(super) fn forget_found(&mut self) -> Difference {
        let found = self.prefixes.iter().filter(|(_, claims)| claims.found.is_some()).map(|(prefix, _)| *prefix);
        let mut touched = Touched::default();
        for prefix in found.collect::<Vec<_>>() {
            touched.note(prefix, self.change(prefix, |claims| claims.found = None));
        }
        self.difference(touched)
    }

    fn claim(&mut self, source: Source, prefix: IpNetwork, entry: Option<IpCacheEntry>) -> Option<IpCacheEntry> {
        self.change(prefix, |claims| {
            claims.of[source.index()] = entry;
            // whoever stands as high as the one that an earlier run heard speaks in its place
            claims.found.take_if(|found| source >= Source::guess(found));
        })
    }

    /// Changes what is said of a prefix, and gives what was in force before.
    fn change(&mut self, prefix: IpNetwork, change: impl FnOnce(&mut Claims)) -> Option<IpCacheEntry> {
        let count = &mut self.lengths[usize::from(prefix.is_ipv6())][usize::from(prefix.prefix())];
        let mut claims = match self.prefixes.entry(prefix) {
            Entry::Occupied(claims) => claims,
            Entry::Vacant(none) => {
                *count += 1;
                none.insert_entry(Claims::default())
            }
        };
        let before = claims.get().in_force();
        change(claims.get_mut());
        if claims.get().winner().is_none() {
            claims.remove();
            *count -= 1;
        }
        before
    }

    fn difference(&self, touched: Touched) -> Difference {
        let mut difference = Difference::default();
        for prefix in touched.order {
            match (touched.before.get(&prefix).copied().flatten(), self.in_force(prefix)) {
                (before, after) if after == before => {}
                (_, Some(entry)) => difference.upserts.push((prefix, entry)),
                (_, None) => difference.removals.push(prefix),
            }
        }
        difference
    }

    fn in_force(&self, prefix: IpNetwork) -> Option<IpCacheEntry> {
        self.prefixes.get(&prefix)?.in_force()
    }

    pub(super) fn exact(&self, prefix: IpNetwork) -> Option<Peer> {
        let (source, entry, found) = self.prefixes.get(&prefix)?.winner()?;
        Some(Peer { prefix, entry, source, found })
    }

    pub(super) fn longest_match(&self, address: IpAddr) -> Option<Peer> {
        let lengths = &self.lengths[usize::from(address.is_ipv6())];
        let used = (0..129_u8).zip(lengths).rev().filter(|(_, count)| **count > 0);
        used.filter_map(|(length, _)| self.exact(truncated(address, length)?)).next()
    }

    pub(super) fn claims(&self, prefix: IpNetwork) -> Vec<(Source, IpCacheEntry)> {
        let claims = self.prefixes.get(&prefix).copied().unwrap_or_default();
        Source::ALL.into_iter().rev().filter_map(|source| Some((source, claims.of[source.index()]?))).collect()
    }

    pub(super) fn peers(&self) -> Vec<Peer> {
        let mut peers: Vec<_> = self.prefixes.keys().filter_map(|prefix| self.exact(*prefix)).collect();
        peers.sort_unstable_by_key(|peer| (peer.prefix.ip(), peer.prefix.prefix()));
        peers
    }

    pub(super) fn len(&self) -> usize {
        self.prefixes.len()
    }
}

impl Claims {
    fn in_force(&self) -> Option<IpCacheEntry> {
        self.winner().map(|(_, entry, _)| entry)
    }

    fn winner(&self) -> Option<(Source, IpCacheEntry, bool)> {
        // nobody who stands as high as what was found has spoken: see claim
        let found = self.found.map(|entry| (Source::guess(&entry), entry, true));
        let said = || Source::ALL.into_iter().rev().find_map(|source| Some((source, self.of[source.index()]?, false)));
        found.or_else(said)
    }
}

fn truncated(address: IpAddr, length: u8) -> Option<IpNetwork> {
    let prefix = IpNetwork::new(address, length).ok()?;
    IpNetwork::new(prefix.network(), length).ok()
}

fn check(prefix: IpNetwork) -> Result<()> {
    if prefix.network() == prefix.ip() {
        return Ok(());
    }
    let expected = format!("has bits set behind its length; the network is {}/{}", prefix.network(), prefix.prefix());
    Err(Error::invalid("prefix", prefix.to_string(), expected))
}
