//! How long to wait before something is tried again.

use std::time::Duration;

/// Delays that double with every failure in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    first: Duration,
    longest: Duration,
}

impl BackOff {
    /// `first` after the first failure, at most `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The delay after so many failures in a row; none after none.
    pub fn delay(self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        // 2^31 times anything above a nanosecond is longer than anybody waits.
        self.first.saturating_mul(1 << doublings.min(31)).min(self.longest)
    }
}

/// From 100 ms to 30 s.
impl Default for BackOff {
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(30))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let back_off = BackOff::new(Duration::from_secs(1), Duration::from_secs(10));
        let delays: Vec<u64> = (0..7).map(|failures| back_off.delay(failures).as_secs()).collect();
        assert_eq!(delays, [0, 1, 2, 4, 8, 10, 10]);
        assert_eq!(back_off.delay(u32::MAX).as_secs(), 10);
    }
}
