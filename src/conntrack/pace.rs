//! How long to wait from one collection to the next.

use std::time::Duration;

use crate::{Error, Result};

/// Above this share of dead entries a collection came too late.
const MANY: f64 = 0.25;
/// Below this share it came too early.
const FEW: f64 = 0.05;
/// The interval shrinks by no more than this share at a time.
const LARGEST_STEP: f64 = 0.9;
/// By how much it grows.
const GROWTH: f64 = 1.5;

/// Dead entries that lie for longer serve nobody.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The bounds between which the interval moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    shortest: Duration,
    longest: Duration,
}

/// From 10 seconds to half an hour.
impl Default for Interval {
    fn default() -> Self {
        Self { shortest: Duration::from_secs(10), longest: Duration::from_secs(30 * 60) }
    }
}

impl Interval {
    /// Bounds; equal ones make the interval a fixed one.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when the shortest is 0 or longer than the longest, or the longest is more than a day.
    pub fn new(shortest: Duration, longest: Duration) -> Result<Self> {
        if shortest.is_zero() || shortest > longest || longest > DAY {
            let given = format!("{shortest:?} to {longest:?}");
            return Err(Error::invalid(
                "collection interval",
                given,
                "must be more than 0 and at most a day, the shortest first",
            ));
        }
        Ok(Self { shortest, longest })
    }

    /// Up to a longest one; the shortest is that of the default, or the longest itself where that is shorter.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn up_to(longest: Duration) -> Result<Self> {
        Self::new(Self::default().shortest.min(longest), longest)
    }

    /// Where to begin: nothing is known yet, and there is no hurry.
    pub(super) fn first(&self) -> Duration {
        Duration::from_secs(60).clamp(self.shortest, self.longest)
    }

    /// The interval after one of this length, at whose end this share of the entries was dead and this share of the map is in
    /// use after they went.
    ///
    /// Many dead entries shorten it, few lengthen it, as in Cilium's collector. A table that fills up bounds it from above: when
    /// no entry is free, a new connection takes that of a dead one only if there is one in its own two buckets, and else of one
    /// that is alive, while there are dead ones elsewhere that nobody removed.
    pub(super) fn next(&self, last: Duration, dead: f64, pressure: f64) -> Duration {
        let next = if dead > MANY {
            last.mul_f64(1.0 - dead.min(LARGEST_STEP))
        } else if dead < FEW {
            last.mul_f64(GROWTH)
        } else {
            last
        };
        let longest = self.longest.mul_f64(1.0 - pressure.clamp(0.0, 1.0)).max(self.shortest);
        next.clamp(self.shortest, longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_interval_follows_what_was_found() {
        let bounds = Interval::new(seconds(10), seconds(1000)).expect("valid");
        for (last, dead, pressure, next) in [
            (100, 0.0, 0.0, 150),  // nothing to do
            (100, 0.04, 0.0, 150), // little
            (100, 0.05, 0.0, 100), // as it should be
            (100, 0.25, 0.0, 100),
            (100, 0.5, 0.0, 50),   // late
            (1000, 1.0, 0.0, 100), // very late, but what was found once need not come again
            (15, 0.9, 0.0, 10),    // not below the shortest
            (900, 0.0, 0.0, 1000), // not above the longest
            (900, 0.1, 0.5, 500),  // the fuller, the sooner
            (900, 0.0, 0.9, 100),
            (900, 0.0, 1.0, 10),
        ] {
            let found = bounds.next(seconds(last), dead, pressure);
            assert!(found.abs_diff(seconds(next)) < Duration::from_millis(1), "{last} {dead} {pressure}: {found:?}");
        }
    }

    #[test]
    fn equal_bounds_fix_it() {
        let bounds = Interval::new(seconds(7), seconds(7)).expect("valid");
        assert_eq!(bounds.first(), seconds(7));
        assert_eq!(bounds.next(seconds(7), 0.9, 1.0), seconds(7));
        assert_eq!(bounds.next(seconds(7), 0.0, 0.0), seconds(7));
        assert!(Interval::new(seconds(0), seconds(7)).is_err());
        assert!(Interval::new(seconds(8), seconds(7)).is_err());
        assert!(Interval::new(seconds(8), Duration::MAX).is_err());
        assert_eq!(Interval::up_to(seconds(5)).ok(), Interval::new(seconds(5), seconds(5)).ok());
        assert_eq!(Interval::up_to(seconds(500)).ok(), Interval::new(seconds(10), seconds(500)).ok());
        assert!(Interval::up_to(seconds(0)).is_err());
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(last in 0_u64..1 << 40, dead in 0.0..=1.0, pressure in -1.0..=2.0) {
            let bounds = Interval::default();
            let next = bounds.next(seconds(last), dead, pressure);
            prop_assert!((bounds.shortest..=bounds.longest).contains(&next), "{next:?}");
        }
    }
}
