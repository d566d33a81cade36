//! The ledger's journal: changes become durable together.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::record::Record;
use crate::state::{Journal, Lock, Replay, create_dir, remove_leftovers};
use crate::{Error, Result};

const JOURNAL: &str = "ipam.journal";
const LOCK: &str = "ipam.lock";

/// The journal, and the lock that keeps it ours.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) path: PathBuf,
    pub(super) writer: Mutex<Writer>,
    _lock: Lock,
}

#[derive(Debug)]
pub(super) struct Writer {
    journal: Journal<Record>,
    /// Set after a failed compaction: the number of records from which on it is tried again.
    compact_from: usize,
}

/// Changes that wait for the same `fsync`, and what became of them.
#[derive(Debug, Default)]
pub(super) struct Group {
    outcome: OnceLock<Option<Failure>>,
}

#[derive(Clone, Debug)]
struct Failure {
    path: PathBuf,
    errno: Option<i32>,
    text: String,
}

impl Store {
    pub(super) fn open(dir: &Path) -> Result<(Self, Replay<Record>)> {
        create_dir(dir)?;
        let lock = Lock::acquire(dir.join(LOCK))?;
        remove_leftovers(dir)?;
        let path = dir.join(JOURNAL);
        let (journal, replay) = Journal::open(&path)?;
        Ok((Self { path, writer: Mutex::new(Writer { journal, compact_from: 0 }), _lock: lock }, replay))
    }
}

impl Writer {
    pub(super) fn wants_compaction(&self, live: usize) -> bool {
        self.journal.records() >= self.compact_from && self.journal.is_mostly_garbage(live)
    }

    pub(super) fn append(&mut self, records: &[Record]) -> Result<()> {
        self.journal.append(records)
    }

    /// Makes `snapshot`, which includes `changes`, the whole journal; where that fails, appends the changes alone.
    pub(super) fn compact(&mut self, snapshot: &[Record], changes: &[Record]) -> Result<()> {
        if let Err(error) = self.journal.rewrite(snapshot) {
            log::warn!("compaction put off: {error}");
            self.compact_from = self.journal.records().saturating_mul(2);
            return self.journal.append(changes);
        }
        self.compact_from = 0;
        Ok(())
    }

    /// Goes back to what is durable.
    pub(super) fn reopen(&mut self) -> Result<Vec<Record>> {
        Ok(self.journal.reopen()?.records)
    }

    pub(super) fn path(&self) -> &Path {
        self.journal.path()
    }
}

impl Group {
    /// What became of the changes, if that is known.
    pub(super) fn outcome(&self) -> Option<Result<()>> {
        self.outcome.get().map(|outcome| outcome.as_ref().map_or(Ok(()), |failure| Err(failure.error())))
    }

    pub(super) fn succeed(&self) {
        // only the one who writes the group ever settles it
        let _ = self.outcome.set(None);
    }

    pub(super) fn fail(&self, path: &Path, error: &Error) {
        let failure = Failure { path: path.to_owned(), errno: error.errno(), text: error.to_string() };
        let _ = self.outcome.set(Some(failure));
    }
}

impl Failure {
    fn error(&self) -> Error {
        let source = match self.errno {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::other(self.text.clone()),
        };
        Error::system("append to", self.path.display().to_string(), source)
    }
}

pub(super) type SharedGroup = Arc<Group>;
