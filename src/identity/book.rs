//! Every identity and who uses it: pure logic, without a lock, a clock or a disk.

mod replay;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::changes::{ChangeLog, Changes, Presence, Version};
use super::numbers::Numbers;
use super::record::Record;
use super::reserved::{self, Kind, RESERVED};
use super::types::Identity;
use crate::{Error, Labels, Result, SecurityId};

/// How many prefixes can have an identity at a time.
const MAX_CIDRS: u32 = (1 << 20) - 1;

#[derive(Debug)]
pub(super) struct Book {
    release_delay: Duration,
    reserved: BTreeMap<SecurityId, Identity>,
    entries: BTreeMap<SecurityId, Entry>,
    by_labels: HashMap<Arc<Labels>, SecurityId>,
    /// Those without a user, the earliest deadline first.
    deadlines: BTreeSet<(Instant, SecurityId)>,
    of_labels: Numbers,
    of_cidrs: Numbers,
    log: ChangeLog,
}

#[derive(Debug)]
struct Entry {
    identity: Identity,
    references: u64,
    /// When it goes; set while nobody uses it.
    deadline: Option<Instant>,
    /// Whether those who follow the changes have it. They lose that of a prefix with its last user.
    is_present: bool,
}

impl Book {
    pub(super) fn new(release_delay: Duration) -> Self {
        let reserved = RESERVED.iter().filter_map(|(id, _)| Some((*id, reserved::labels_of_reserved(*id)?)));
        let first_cidr = SecurityId::FIRST_OF_CIDRS.get() + 1;
        Self {
            release_delay,
            reserved: reserved.map(|(id, labels)| (id, Identity::new(id, labels))).collect(),
            entries: BTreeMap::new(),
            by_labels: HashMap::new(),
            deadlines: BTreeSet::new(),
            of_labels: Numbers::new(SecurityId::FIRST_OF_LABELS.get()..=SecurityId::LAST_OF_LABELS.get()),
            of_cidrs: Numbers::new(first_cidr..=first_cidr + MAX_CIDRS - 1),
            log: ChangeLog::new(),
        }
    }

    /// One reference more for each of these sets, which have been checked, if all of them are in use already.
    pub(super) fn acquire_used(&mut self, wanted: &[Wanted]) -> Option<Vec<Identity>> {
        let ids: Vec<_> = wanted.iter().map(|wanted| self.id_of(wanted)).collect::<Option<_>>()?;
        let used = |id: &SecurityId| self.entries.get(id).is_none_or(|entry| entry.references > 0);
        ids.iter().all(used).then(|| self.reference(&ids))
    }

    /// What has to be added before [`acquire_known`](Self::acquire_known) finds all of these.
    pub(super) fn plan_missing(&self, wanted: &[Wanted]) -> Result<Vec<Record>> {
        let mut seen = BTreeSet::new();
        let (mut of_labels, mut of_cidrs) = (self.of_labels.free(), self.of_cidrs.free());
        let mut records = Vec::new();
        for wanted in wanted {
            let Wanted::Set { labels, cidr } = wanted else { continue };
            if self.by_labels.contains_key(*labels) || !seen.insert(*labels) {
                continue;
            }
            let free = if *cidr { of_cidrs.next() } else { of_labels.next() };
            let id = free.ok_or_else(|| self.exhausted(*cidr))?;
            records.push(Record::Add { id, labels: (*labels).clone() });
        }
        Ok(records)
    }

    /// One reference more for each of these, all of which exist.
    pub(super) fn acquire_known(&mut self, wanted: &[Wanted]) -> Result<Vec<Identity>> {
        let ids = wanted
            .iter()
            .map(|wanted| self.id_of(wanted).ok_or_else(|| Error::not_found("identity of", wanted.to_string())));
        let ids: Vec<_> = ids.collect::<Result<_>>()?;
        Ok(self.reference(&ids))
    }

    fn id_of(&self, wanted: &Wanted) -> Option<SecurityId> {
        match wanted {
            Wanted::Reserved(id) => Some(*id),
            Wanted::Set { labels, .. } => self.by_labels.get(*labels).copied(),
        }
    }

    fn reference(&mut self, ids: &[SecurityId]) -> Vec<Identity> {
        let mut identities = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.references += 1;
                if !std::mem::replace(&mut entry.is_present, true) {
                    self.log.note(entry.identity.clone(), Presence::Added);
                }
                if let Some(deadline) = entry.deadline.take() {
                    self.deadlines.remove(&(deadline, *id));
                }
            }
            identities.extend(self.get(*id));
        }
        identities
    }

    pub(super) fn release(&mut self, ids: &[SecurityId], now: Instant) -> Result<()> {
        let mut counts: BTreeMap<SecurityId, u64> = BTreeMap::new();
        for id in ids.iter().filter(|id| !self.reserved.contains_key(id)) {
            *counts.entry(*id).or_default() += 1;
        }
        let held = |id: &SecurityId| self.entries.get(id).map_or(0, |entry| entry.references);
        if let Some((id, _)) = counts.iter().find(|(id, count)| held(id) < **count) {
            return Err(Error::not_found("reference to identity", id.to_string()));
        }
        for (id, count) in counts {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.references -= count;
            if entry.references == 0 {
                let deadline = now + self.release_delay;
                entry.deadline = Some(deadline);
                self.deadlines.insert((deadline, id));
                if entry.identity.cidr().is_some() && std::mem::replace(&mut entry.is_present, false) {
                    self.log.note(entry.identity.clone(), Presence::Removed);
                }
            }
        }
        Ok(())
    }

    /// What has had no user for long enough.
    pub(super) fn plan_expiry(&self, now: Instant) -> Option<Record> {
        let due = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now);
        let ids: Vec<_> = due.map(|(_, id)| *id).collect();
        (!ids.is_empty()).then_some(Record::Remove { ids })
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Carries out what was planned, and gives what it was about. What comes has no user yet.
    pub(super) fn apply(&mut self, record: &Record, now: Instant) -> Vec<Identity> {
        match record {
            Record::Add { id, labels } => vec![self.add(*id, labels, now)],
            Record::Remove { ids } => ids.iter().filter_map(|id| self.remove(*id)).collect(),
            Record::Rest { ids } => {
                for id in ids {
                    if let Some(numbers) = self.numbers_mut(*id) {
                        numbers.put_back(*id);
                    }
                }
                Vec::new()
            }
        }
    }

    fn add(&mut self, id: SecurityId, labels: &Labels, now: Instant) -> Identity {
        let labels = Arc::new(labels.clone());
        let identity = Identity::new(id, labels.clone());
        let deadline = now + self.release_delay;
        if let Some(numbers) = self.numbers_mut(id) {
            numbers.take(id);
        }
        self.by_labels.insert(labels, id);
        self.deadlines.insert((deadline, id));
        let entry = Entry { identity: identity.clone(), references: 0, deadline: Some(deadline), is_present: true };
        self.entries.insert(id, entry);
        self.log.note(identity.clone(), Presence::Added);
        identity
    }

    fn remove(&mut self, id: SecurityId) -> Option<Identity> {
        let entry = self.entries.remove(&id)?;
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        self.by_labels.remove(entry.identity.labels());
        if let Some(numbers) = self.numbers_mut(id) {
            numbers.put_back(id);
        }
        if entry.is_present {
            self.log.note(entry.identity.clone(), Presence::Removed);
        }
        Some(entry.identity)
    }

    /// Makes these the last numbers to be given out, as far as they are free.
    pub(super) fn avoid(&mut self, ids: impl IntoIterator<Item = SecurityId>) {
        let free: BTreeSet<_> = ids.into_iter().filter(|id| !self.entries.contains_key(id)).collect();
        for numbers in [&mut self.of_labels, &mut self.of_cidrs] {
            let of_these = free.iter().filter(|id| numbers.contains(**id)).map(|id| id.get());
            numbers.avoid(&of_these.collect());
        }
    }

    pub(super) fn get(&self, id: SecurityId) -> Option<Identity> {
        self.reserved.get(&id).or_else(|| Some(&self.entries.get(&id)?.identity)).cloned()
    }

    pub(super) fn find(&self, wanted: &Wanted) -> Option<Identity> {
        self.get(self.id_of(wanted)?)
    }

    pub(super) fn references(&self, id: SecurityId) -> Option<u64> {
        self.entries.get(&id).map(|entry| entry.references)
    }

    pub(super) fn list(&self) -> Vec<Identity> {
        self.reserved.values().chain(self.entries.values().map(|entry| &entry.identity)).cloned().collect()
    }

    pub(super) fn version(&self) -> Version {
        self.log.version()
    }

    pub(super) fn changes_since(&self, seen: Version) -> Changes {
        let everything = || {
            let present = self.entries.values().filter(|entry| entry.is_present).map(|entry| &entry.identity);
            let added = self.reserved.values().chain(present).cloned().collect();
            Changes { version: self.version(), everything: true, removed: Vec::new(), added }
        };
        self.log.since(seen).unwrap_or_else(everything)
    }

    fn numbers_mut(&mut self, id: SecurityId) -> Option<&mut Numbers> {
        [&mut self.of_labels, &mut self.of_cidrs].into_iter().find(|numbers| numbers.contains(id))
    }

    fn exhausted(&self, cidr: bool) -> Error {
        let (what, numbers) = match cidr {
            true => ("identities of prefixes", &self.of_cidrs),
            false => ("identities of label sets", &self.of_labels),
        };
        Error::Full {
            object: what.to_owned(),
            limit: numbers.len(),
            remedy:
                "give endpoints fewer different label sets, or name fewer prefixes; those without a user go after the \
                     release delay"
                    .into(),
        }
    }
}

/// What somebody asks an identity for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    Reserved(SecurityId),
    Set { labels: &'a Labels, cidr: bool },
}

impl<'a> Wanted<'a> {
    pub(super) fn of(labels: &'a Labels) -> Result<Self> {
        Ok(match reserved::kind_of(labels)? {
            Kind::Reserved(id) => Self::Reserved(id),
            Kind::Labels => Self::Set { labels, cidr: false },
            Kind::Cidr => Self::Set { labels, cidr: true },
        })
    }
}

impl std::fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reserved(id) => id.fmt(f),
            Self::Set { labels, .. } => labels.fmt(f),
        }
    }
}
