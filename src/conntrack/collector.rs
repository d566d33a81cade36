//! One pass over the connections.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytemuck::Zeroable;
use rustix::time::{ClockId, clock_gettime};

use super::clock::ticks_per_second;
use crate::abi::{CT_COLLECT_KEYS, CtCollect, CtEntry, CtKey};
use crate::maps::Batch;
use crate::program::{self, Program};
use crate::tables::CtMap;
use crate::{Error, Result};

/// What a pass over the connections found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Entries read.
    pub looked_at: usize,
    /// Dead ones that were removed.
    pub removed: usize,
    /// Looked dead, but had been used by the time they were to be removed, or somebody was about to.
    pub alive: usize,
    /// Looked dead, and were gone by the time they were to be removed.
    pub gone: usize,
    /// Whether the pass saw the whole map; false when it was interrupted.
    pub complete: bool,
    /// How long it took.
    pub time: Duration,
    /// CPU time of the thread.
    pub cpu: Duration,
}

impl Collected {
    /// Entries that are left of those that were read.
    pub const fn left(&self) -> usize {
        self.looked_at.saturating_sub(self.removed).saturating_sub(self.gone)
    }

    /// The share of the entries that were dead, from 0 to 1.
    pub fn dead_share(&self) -> f64 {
        (self.removed + self.gone) as f64 / self.looked_at.max(1) as f64
    }
}

/// Walks over the connections in batches and has the dead ones removed.
///
/// User space finds candidates: entries of which both directions' claims ended more than a second ago. The program
/// `podwire_ct_collect` claims each, looks again and removes it, so that an entry which a packet revives in the meantime
/// stays. Nothing is locked but a bucket of the map while the kernel copies it; entries may come and go.
#[derive(Debug)]
pub struct Collector {
    program: Program,
    batch: Batch<CtKey, CtEntry>,
    batch_size: usize,
    second: u64,
}

impl Collector {
    /// Entries read at a time, unless told.
    pub const BATCH: usize = 512;

    /// A collector that reads this many entries at a time. `program` is `podwire_ct_collect`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a batch of 0.
    pub fn new(program: Program, batch_size: usize) -> Result<Self> {
        Ok(Self { program, batch: Batch::new(batch_size)?, batch_size, second: ticks_per_second().into() })
    }

    /// Reads this many entries at a time from now on.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a batch of 0.
    pub fn set_batch(&mut self, batch_size: usize) -> Result<()> {
        (self.batch, self.batch_size) = (Batch::new(batch_size)?, batch_size);
        Ok(())
    }

    /// One pass over the whole map. `stop` is asked after each batch; when it says so, the pass ends there.
    ///
    /// # Errors
    ///
    /// When the map can't be read or the program not be called; what was removed until then stays removed.
    pub fn pass(&mut self, connections: &CtMap, stop: impl Fn() -> bool) -> Result<Collected> {
        let (began, cpu_before) = (Instant::now(), cpu_time());
        let mut removal = Removal::new(&self.program)?;
        let mut looked_at = 0;
        let mut failure = None;
        let (second, batch_size) = (self.second, self.batch_size);
        let complete = connections.map().lookup_batch_while(&mut self.batch, |key, entry| {
            looked_at += 1;
            if is_dead(entry, removal.now(), second)
                && let Err(error) = removal.add(key)
            {
                failure = Some(error);
                return ControlFlow::Break(());
            }
            if looked_at % batch_size == 0 && stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        failure.map_or(Ok(()), Err)?;
        let mut collected = removal.finish()?;
        (collected.looked_at, collected.complete) = (looked_at, complete);
        (collected.time, collected.cpu) = (began.elapsed(), cpu_time().saturating_sub(cpu_before));
        Ok(collected)
    }
}

/// As `is_dead()` in `bpf/collect.bpf.c`.
fn is_dead(entry: &CtEntry, now: u64, second: u64) -> bool {
    let before = now.saturating_sub(second);
    entry.dir.iter().all(|direction| direction.expires < before)
}

/// Candidates on their way to the program.
struct Removal<'a> {
    program: &'a Program,
    call: CtCollect,
    collected: Collected,
}

impl<'a> Removal<'a> {
    fn new(program: &'a Program) -> Result<Self> {
        let mut removal = Self { program, call: CtCollect::zeroed(), collected: Collected::default() };
        removal.hand_over()?;
        Ok(removal)
    }

    /// As of the last call, in jiffies64: what is dead by then is dead now.
    fn now(&self) -> u64 {
        self.call.now
    }

    fn add(&mut self, key: &CtKey) -> Result<()> {
        self.call.keys[self.call.count as usize] = *key;
        self.call.count += 1;
        if self.call.count as usize == CT_COLLECT_KEYS { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> Result<()> {
        let asked = self.call.count;
        program::call(self.program, &mut self.call)?;
        let CtCollect { removed, alive, gone, .. } = self.call;
        if u64::from(removed) + u64::from(alive) + u64::from(gone) != u64::from(asked) {
            return Err(Error::WrongState {
                object: format!("program {}", self.program.name()),
                state: "another one than expected: it does not account for every key".to_owned(),
                op: "collect connections",
            });
        }
        self.collected.removed += removed as usize;
        self.collected.alive += alive as usize;
        self.collected.gone += gone as usize;
        self.call.count = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<Collected> {
        if self.call.count > 0 {
            self.hand_over()?;
        }
        Ok(self.collected)
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
    fn an_entry_is_dead_when_both_claims_ended_more_than_a_second_ago() {
        let dead = |lo, hi, now| {
            let mut entry = CtEntry::zeroed();
            (entry.dir[0].expires, entry.dir[1].expires) = (lo, hi);
            is_dead(&entry, now, 250)
        };
        assert!(dead(999, 999, 1250));
        assert!(!dead(1000, 999, 1250), "a second ago is not more than a second ago");
        assert!(!dead(999, 1000, 1250));
        assert!(!dead(0, 2000, 1250));
        assert!(!dead(0, 0, 100), "in the first second of all nothing is dead");
    }

    #[test]
    fn what_is_left() {
        let collected = Collected { looked_at: 10, removed: 4, alive: 1, gone: 1, ..Collected::default() };
        assert_eq!((collected.left(), collected.dead_share()), (5, 0.5));
        assert_eq!(Collected::default().dead_share(), 0.0);
    }
}
