//! From and to disk.

use std::time::Instant;

use super::super::changes::Presence;
use super::super::numbers::Numbers;
use super::super::record::Record;
use super::super::reserved::{self, Kind};
use super::Book;
use crate::{Labels, SecurityId};

/// Numbers in a record of those that rest.
const PER_REST: usize = 64;

impl Book {
    /// Applies an earlier run's records; on contradiction says which. Nobody uses what they hold.
    pub(in crate::identity) fn replay(&mut self, records: &[Record], now: Instant) -> Result<(), String> {
        for record in records {
            match record {
                Record::Add { id, labels } => self.check_add(*id, labels)?,
                Record::Remove { ids } => {
                    if let Some(id) = ids.iter().find(|id| !self.entries.contains_key(id)) {
                        return Err(format!("identity {id} is removed without having been there"));
                    }
                }
                Record::Rest { ids } => {
                    if let Some(id) = ids.iter().find(|id| self.entries.contains_key(id)) {
                        return Err(format!("identity {id} is said to be free while it is in use"));
                    }
                }
            }
            self.apply(record, now);
        }
        // Of prefixes only the numbers are kept: they come back with who acquires them.
        for entry in self.entries.values_mut().filter(|entry| entry.identity.cidr().is_some()) {
            entry.is_present = false;
            self.log.note(entry.identity.clone(), Presence::Removed);
        }
        let entries = &self.entries;
        for numbers in [&mut self.of_labels, &mut self.of_cidrs] {
            numbers.find_lost(|id| entries.contains_key(&id));
        }
        Ok(())
    }

    fn check_add(&self, id: SecurityId, labels: &Labels) -> Result<(), String> {
        let numbers = match reserved::kind_of(labels).map_err(|error| error.to_string())? {
            Kind::Labels => &self.of_labels,
            Kind::Cidr => &self.of_cidrs,
            Kind::Reserved(reserved) => return Err(format!("{labels} is {reserved}, never {id}")),
        };
        if !numbers.contains(id) {
            return Err(format!("identity {id} can't stand for {labels}"));
        }
        if self.entries.contains_key(&id) {
            return Err(format!("identity {id} is given to {labels} while it is in use"));
        }
        match self.by_labels.get(labels) {
            Some(other) => Err(format!("{labels} is identity {other} and gets {id} too")),
            None => Ok(()),
        }
    }

    /// Records that lead to this state.
    pub(in crate::identity) fn snapshot(&self) -> Vec<Record> {
        let added =
            self.entries.iter().map(|(id, entry)| Record::Add { id: *id, labels: entry.identity.labels().clone() });
        let mut records: Vec<_> = added.collect();
        for numbers in [&self.of_labels, &self.of_cidrs] {
            let resting: Vec<_> = numbers.resting().map(SecurityId::new).collect();
            records.extend(resting.chunks(PER_REST).map(|ids| Record::Rest { ids: ids.to_vec() }));
        }
        records
    }

    /// How many records a snapshot has.
    pub(in crate::identity) fn live_records(&self) -> usize {
        let rest = |numbers: &Numbers| numbers.resting().len().div_ceil(PER_REST);
        self.entries.len() + rest(&self.of_labels) + rest(&self.of_cidrs)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_snapshot_leads_to_the_same_state() {
        let now = Instant::now();
        let new = || Book::new(Duration::from_secs(1));
        let mut book = new();
        let labels = |n: u32| Labels::parse([format!("k8s:n={n}")]).expect("a label");
        for n in 0..300 {
            book.apply(&Record::Add { id: SecurityId::new(256 + n), labels: labels(n) }, now);
        }
        // released in an order of its own, the highest number among them
        let released: Vec<_> =
            (0..200).map(|n| SecurityId::new(256 + n * 77 % 200)).chain([SecurityId::new(555)]).collect();
        book.apply(&Record::Remove { ids: released.clone() }, now);

        let snapshot = book.snapshot();
        assert_eq!(snapshot.len(), book.live_records());
        let mut again = new();
        again.replay(&snapshot, now).expect("no contradiction");
        assert_eq!(again.list(), book.list());
        let free = |book: &Book| book.of_labels.free().collect::<Vec<_>>();
        assert_eq!(free(&again), free(&book));
        assert!(free(&book).ends_with(&released));
        assert_eq!(again.snapshot(), snapshot);
    }
}
