//! Taking events out of the ring buffer.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use log::warn;

use super::decode::Event;
use crate::Result;
use crate::abi::EventBudget;
use crate::maps::{MapSpec, PerCpuArray, PerCpuValues, RingBuffer};
use crate::tables::Switches;

/// Bytes of the ring buffer, unless configured otherwise.
const RING_BYTES: u32 = 1 << 20;

/// How many events there should have been but are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Withheld by the limit of drop events per CPU and time.
    pub limited: u64,
    /// Lost because the ring buffer was full.
    pub lost: u64,
}

/// The reading end of `podwire_events`, with the switches that decide what is written into it.
///
/// The ring has one reader: what it takes out, no other process sees. Its descriptor is readable while events wait.
pub struct EventReader {
    ring: RingBuffer,
    budget: PerCpuArray<EventBudget>,
    switches: Switches,
}

impl EventReader {
    /// `podwire_events`.
    pub const fn ring_spec() -> MapSpec {
        MapSpec::ring_buffer("podwire_events", RING_BYTES).any_max_entries()
    }

    /// `podwire_event_budget`.
    pub const fn budget_spec() -> MapSpec {
        MapSpec::per_cpu_array::<EventBudget>("podwire_event_budget", 1).value_layout::<EventBudget>()
    }

    /// Opens the maps pinned in a folder under their names.
    pub fn open_pinned(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let (ring, budget) = (Self::ring_spec(), Self::budget_spec());
        Ok(Self {
            ring: RingBuffer::open_pinned(folder.join(ring.name()), &ring)?,
            budget: PerCpuArray::open_pinned(folder.join(budget.name()), &budget)?,
            switches: Switches::open_pinned(folder)?,
        })
    }

    /// Hands every waiting event to `visit`, without waiting for more; returns how many there were. A record that can't be
    /// decoded is logged and left out.
    pub fn read(&mut self, mut visit: impl FnMut(Event)) -> usize {
        self.ring.consume(|record| match Event::decode(record) {
            Ok(event) => visit(event),
            Err(error) => warn!("unreadable record in podwire_events: {error}"),
        })
    }

    /// Waits for an event, at most `timeout`, for ever without one. False when the time is up.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool> {
        self.ring.wait(timeout)
    }

    /// Events that never came, since the maps were made.
    pub fn losses(&self) -> Result<Losses> {
        let mut losses = Losses::default();
        let mut values = PerCpuValues::<EventBudget>::new()?;
        self.budget.lookup(&0, &mut values)?;
        for budget in values.iter() {
            losses.limited += budget.limited;
            losses.lost += budget.lost;
        }
        Ok(losses)
    }

    /// Switches trace events on or off, for every packet from the next one on.
    pub fn set_tracing(&self, on: bool) -> Result<()> {
        self.switches.set_tracing(on)
    }

    /// Whether trace events are on.
    pub fn tracing(&self) -> Result<bool> {
        self.switches.tracing()
    }

    /// Allows `count` drop events per CPU and window of 256 ticks; 0 for none.
    pub fn set_drop_limit(&self, count: u32) -> Result<()> {
        self.switches.set_drop_limit(count)
    }

    /// Switches events of policy verdicts on or off, for every packet from the next one on.
    pub fn set_verdict_events(&self, on: bool) -> Result<()> {
        self.switches.set_verdict_events(on)
    }
}

impl AsFd for EventReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
