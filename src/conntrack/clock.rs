//! The clock of connections: jiffies64, which user space can't read and has to ask a program for.

use std::path::Path;
use std::time::Duration;

use bytemuck::Zeroable;
use rustix::time::{ClockId, clock_getres, clock_gettime};

use super::programs::generation;
use crate::Result;
use crate::abi::CtCollect;
use crate::program::{self, Program};

/// How often jiffies64 advances in a second: the kernel's `CONFIG_HZ`.
pub fn ticks_per_second() -> u32 {
    // The coarse clocks advance with the ticks, and their resolution is a tick (`LOW_RES_NSEC` in include/linux/ktime.h).
    let tick = clock_getres(ClockId::MonotonicCoarse);
    ticks_of(tick.tv_nsec as u64)
}

/// Ticks in a second, where a tick is this long; the kernel rounds its length to whole nanoseconds.
fn ticks_of(nanoseconds: u64) -> u32 {
    const SECOND: u64 = 1_000_000_000;
    let tick = nanoseconds.clamp(1, SECOND);
    ((SECOND + tick / 2) / tick) as u32
}

/// Tells the time in jiffies64, and what a time in jiffies64 means.
#[derive(Clone, Debug)]
pub struct Clock {
    program: Program,
    ticks_per_second: u64,
}

/// A moment, in jiffies64 and in the time since the machine started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// In jiffies64.
    pub jiffies: u64,
    /// By the monotonic clock.
    pub since_boot: Duration,
    ticks_per_second: u64,
}

impl Clock {
    /// The clock that the program `podwire_ct_collect` reads.
    pub fn new(program: Program) -> Self {
        Self { program, ticks_per_second: ticks_per_second().into() }
    }

    /// The clock of a node whose programs are pinned below a folder, whether or not an agent runs.
    ///
    /// # Errors
    ///
    /// `NotFound` where no generation of programs is pinned.
    pub fn open_pinned(programs: &Path) -> Result<Self> {
        generation(programs, |_| Ok(true)).map(|(_, program)| Self::new(program))
    }

    /// Now.
    pub fn now(&self) -> Result<Moment> {
        let mut question = CtCollect::zeroed();
        program::call(&self.program, &mut question)?;
        let monotonic = clock_gettime(ClockId::Monotonic);
        Ok(Moment {
            jiffies: question.now,
            since_boot: Duration::new(monotonic.tv_sec as u64, monotonic.tv_nsec as u32),
            ticks_per_second: self.ticks_per_second,
        })
    }
}

impl Moment {
    /// Seconds until another moment, given in jiffies64; negative when it has passed.
    pub fn seconds_until(&self, jiffies: u64) -> i64 {
        let ticks = i128::from(jiffies) - i128::from(self.jiffies);
        let seconds = ticks.div_euclid(i128::from(self.ticks_per_second));
        seconds.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// Another moment, given in jiffies64, in seconds since the machine started; 0 for one before that.
    pub fn since_boot_at(&self, jiffies: u64) -> u64 {
        let started = i64::try_from(self.since_boot.as_secs()).unwrap_or(i64::MAX);
        started.saturating_add(self.seconds_until(jiffies)).max(0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_tick_gives_hz_back() {
        // Every CONFIG_HZ of the kernel's architectures, with the length of a tick as include/linux/jiffies.h computes it.
        for hz in [24_u32, 32, 48, 64, 100, 128, 200, 250, 256, 300, 500, 512, 1000, 1024, 1200] {
            let tick = (1_000_000_000 + u64::from(hz) / 2) / u64::from(hz);
            assert_eq!(ticks_of(tick), hz, "a tick of {tick} ns");
        }
        assert_eq!(ticks_of(0), 1_000_000_000, "no division by zero");
        assert_eq!(ticks_of(u64::MAX), 1);
    }

    #[test]
    fn this_kernel_has_a_hz_that_kernels_have() {
        assert!([100, 250, 300, 1000].contains(&ticks_per_second()), "{}", ticks_per_second());
    }

    #[test]
    fn moments_in_seconds() {
        let now = Moment { jiffies: 1000, since_boot: Duration::from_millis(50_900), ticks_per_second: 250 };
        for (jiffies, until, since_boot) in
            [(1000, 0, 50), (1249, 0, 50), (1250, 1, 51), (999, -1, 49), (0, -4, 46), (2500, 6, 56)]
        {
            assert_eq!((now.seconds_until(jiffies), now.since_boot_at(jiffies)), (until, since_boot), "{jiffies}");
        }
        assert!(now.seconds_until(u64::MAX) > 1 << 40);
        let early = Moment { since_boot: Duration::from_secs(1), ..now };
        assert_eq!(early.since_boot_at(0), 0);
    }
}
