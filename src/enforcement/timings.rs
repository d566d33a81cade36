//! How long it takes to bring policy into force.

use std::time::Duration;

/// A stage over all the times it ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Span {
    /// How often.
    pub count: u64,
    /// All of them together.
    pub total: Duration,
    /// The longest.
    pub longest: Duration,
    /// The latest.
    pub last: Duration,
}

impl Span {
    pub(super) fn note(&mut self, took: Duration) {
        self.count += 1;
        self.total += took;
        self.longest = self.longest.max(took);
        self.last = took;
    }
}

/// What swapping policies took, and how much was swapped, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SwapTimings {
    /// Creating the maps, filling and pinning them; nothing of it is in force yet.
    pub fill: Span,
    /// From there until the next packet is judged by them.
    pub swap: Span,
    /// The wait until no program uses the maps that were replaced. It delays nothing but the caller, if the caller waits.
    pub wait: Span,
    /// Policies swapped.
    pub policies: u64,
    /// Their entries.
    pub entries: u64,
    /// Policies that were in force already and were not written.
    pub unchanged: u64,
    /// Calls that were refused or failed.
    pub failed: u64,
}
