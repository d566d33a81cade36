//! The journal on disk.

use std::path::Path;

use super::record::Record;
use crate::state::{Journal, Lock, create_dir, remove_leftovers};
use crate::{Error, Result};

const JOURNAL: &str = "identities.journal";
const LOCK: &str = "identities.lock";

/// The journal, and the lock that keeps it ours.
#[derive(Debug)]
pub(super) struct Store {
    journal: Journal<Record>,
    /// Set after a failed compaction: the number of records from which on it is tried again.
    compact_from: usize,
    _lock: Lock,
}

impl Store {
    pub(super) fn open(dir: &Path) -> Result<(Self, Vec<Record>)> {
        create_dir(dir)?;
        let lock = Lock::acquire(dir.join(LOCK))?;
        remove_leftovers(dir)?;
        let (journal, replay) = Journal::open(dir.join(JOURNAL))?;
        Ok((Self { journal, compact_from: 0, _lock: lock }, replay.records))
    }

    /// Makes these durable, all or none.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<()> {
        match self.journal.append(records) {
            // the end of the file is in doubt since an earlier failure; what was acknowledged is not
            Err(Error::WrongState { .. }) => {
                self.journal.reopen()?;
                self.journal.append(records)
            }
            other => other,
        }
    }

    /// Whether the journal has grown too far beyond `live` records.
    pub(super) fn wants_compaction(&self, live: usize) -> bool {
        self.journal.records() >= self.compact_from && self.journal.is_mostly_garbage(live)
    }

    /// Makes a snapshot the whole journal. It is no harm if that fails.
    pub(super) fn compact(&mut self, snapshot: &[Record]) {
        self.compact_from = match self.journal.rewrite(snapshot) {
            Ok(()) => 0,
            Err(error) => {
                log::warn!("compaction put off: {error}");
                self.journal.records().saturating_mul(2)
            }
        };
    }

    pub(super) fn path(&self) -> &Path {
        self.journal.path()
    }
}
