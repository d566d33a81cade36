//! One pass over the connections.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::programs::{Programs, ranges};
use crate::tables::CtMap;
use crate::{Error, Result};

/// What a pass over the connections found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Connections that were there.
    pub looked_at: usize,
    /// Those that had ended and were removed.
    pub removed: usize,
    /// Those that had ended and were left alone, because a program was writing to their buckets all the time. They stay until
    /// the next pass.
    pub busy: usize,
    /// Whether the pass went through the whole table; false when it was interrupted.
    pub complete: bool,
    /// How long it took.
    pub time: Duration,
    /// CPU time of the thread, with that of the program.
    pub cpu: Duration,
}

impl Collected {
    /// Entries that are left of those that were looked at.
    pub const fn left(&self) -> usize {
        self.looked_at.saturating_sub(self.removed)
    }

    /// The share of the entries that had ended, from 0 to 1.
    pub fn dead_share(&self) -> f64 {
        self.removed as f64 / self.looked_at.max(1) as f64
    }
}

/// Has the program `podwire_ct_collect` walk over the entries, some at a time, and remove what has ended.
///
/// A bucket is locked only while something is removed from it, which packets of established connections do not notice; one
/// that opens a connection there waits for it. A connection has ended when both directions' claims ended more than a second ago.
#[derive(Debug)]
pub(super) struct Collector {
    programs: Programs,
    at_once: u32,
}

impl Collector {
    /// Entries a call, unless told.
    pub(super) const ENTRIES: u32 = 4096;

    pub(super) const fn new(programs: Programs) -> Self {
        Self { programs, at_once: Self::ENTRIES }
    }

    /// # Errors
    ///
    /// `InvalidInput` for 0.
    pub(super) fn set_entries(&mut self, entries: u32) -> Result<()> {
        if entries == 0 {
            return Err(Error::invalid("entries to look at at a time", "0", "must be at least 1"));
        }
        self.at_once = entries;
        Ok(())
    }

    /// One pass over the whole table. `stop` is asked before each call but the first; when it says so, the pass ends there.
    ///
    /// # Errors
    ///
    /// When the program can't be called; what was removed until then stays removed.
    pub(super) fn pass(&self, connections: &CtMap, stop: impl Fn() -> bool) -> Result<Collected> {
        let (began, cpu_before) = (Instant::now(), cpu_time());
        let mut collected = Collected { complete: true, ..Collected::default() };
        for (first, count) in ranges(connections.used()?, self.at_once) {
            if first > 0 && stop() {
                collected.complete = false;
                break;
            }
            let work = self.programs.collect(first, count, false)?;
            collected.looked_at += work.looked_at as usize;
            collected.removed += work.removed as usize;
            collected.busy += work.busy as usize;
        }
        (collected.time, collected.cpu) = (began.elapsed(), cpu_time().saturating_sub(cpu_before));
        Ok(collected)
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left() {
        let collected = Collected { looked_at: 10, removed: 4, busy: 1, ..Collected::default() };
        assert_eq!((collected.left(), collected.dead_share()), (6, 0.4));
        assert_eq!(Collected::default().dead_share(), 0.0);
    }
}
