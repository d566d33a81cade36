//! Counts of map operations by outcome.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Result;

/// Operations of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Went well.
    pub success: u64,
    /// Failed.
    pub fail: u64,
}

/// How many operations a [`CachedMap`](super::CachedMap) did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationCounts {
    /// Insertions and overwrites.
    pub update: Outcomes,
    /// Removals.
    pub delete: Outcomes,
    /// Reads of the whole map.
    pub dump: Outcomes,
}

impl OperationCounts {
    /// Each count with the names of its operation and outcome, as metrics label them.
    pub fn labelled(&self) -> [(&'static str, &'static str, u64); 6] {
        [
            ("update", "success", self.update.success),
            ("update", "fail", self.update.fail),
            ("delete", "success", self.delete.success),
            ("delete", "fail", self.delete.fail),
            ("dump", "success", self.dump.success),
            ("dump", "fail", self.dump.fail),
        ]
    }
}

#[derive(Debug, Default)]
pub(crate) struct Operations {
    update: Counter,
    delete: Counter,
    dump: Counter,
}

#[derive(Debug, Default)]
struct Counter {
    success: AtomicU64,
    fail: AtomicU64,
}

impl Operations {
    pub(crate) fn count_update<T>(&self, result: Result<T>) -> Result<T> {
        self.update.count(result)
    }

    pub(crate) fn count_delete<T>(&self, result: Result<T>) -> Result<T> {
        self.delete.count(result)
    }

    pub(crate) fn count_dump<T>(&self, result: Result<T>) -> Result<T> {
        self.dump.count(result)
    }

    pub(crate) fn snapshot(&self) -> OperationCounts {
        OperationCounts { update: self.update.outcomes(), delete: self.delete.outcomes(), dump: self.dump.outcomes() }
    }
}

impl Counter {
    fn count<T>(&self, result: Result<T>) -> Result<T> {
        let counter = if result.is_ok() { &self.success } else { &self.fail };
        counter.fetch_add(1, Ordering::Relaxed);
        result
    }

    fn outcomes(&self) -> Outcomes {
        Outcomes { success: self.success.load(Ordering::Relaxed), fail: self.fail.load(Ordering::Relaxed) }
    }
}
