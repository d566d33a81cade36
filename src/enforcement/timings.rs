//! How long it takes to bring policy into force.

use std::time::Duration;

/// Bounds of a [`Span`]'s distribution.
const BOUNDS: usize = 21;
/// The first of them; each is twice the one before, so that the last is above 10 s.
const FIRST_BOUND: Duration = Duration::from_micros(10);

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
    /// How often it took at most the bound of this place and more than the one before.
    within: [u64; BOUNDS],
}

impl Span {
    /// How it is distributed: bounds from 10 µs to 10 s, each twice the one before, with how often it took at most that
    /// and more than the bound before. What took longer is in [`count`](Self::count) alone.
    pub fn distribution(&self) -> impl Iterator<Item = (Duration, u64)> {
        (0..).map(|place| FIRST_BOUND * (1 << place)).zip(self.within)
    }

    pub(super) fn note(&mut self, took: Duration) {
        if let Some(place) = (0..BOUNDS).find(|place| took <= FIRST_BOUND * (1 << place)) {
            self.within[place] += 1;
        }
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
    /// Policies changed in place.
    pub patched: u64,
    /// Entries written or removed.
    pub entries: u64,
    /// Policies that were in force already and were not written.
    pub unchanged: u64,
    /// Calls that were refused or failed.
    pub failed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_summed_and_distributed() {
        let mut span = Span::default();
        let times = [0, 10, 11, 20, 21, 10_485_760, 10_485_761].map(Duration::from_micros);
        times.into_iter().for_each(|time| span.note(time));
        assert_eq!((span.count, span.total), (7, times.iter().sum()));
        assert_eq!((span.longest, span.last), (times[6], times[6]));
        let distribution: Vec<_> = span.distribution().collect();
        let filled: Vec<_> = distribution.iter().filter(|(_, count)| *count > 0).copied().collect();
        let expected =
            [(10, 2), (20, 2), (40, 1), (10_485_760, 1)].map(|(us, count)| (Duration::from_micros(us), count));
        assert_eq!(filled, expected);
        assert_eq!(distribution.len(), BOUNDS);
    }
}
