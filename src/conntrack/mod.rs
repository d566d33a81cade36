//! Connections as user space sees them: listing, flushing, and collecting those that have ended.
//!
//! The programs open, follow and revive connections in `podwire_ct`. User space reads the table without locks, and has a
//! program do what changes it: see [`CtMap`].
//!
//! ```no_run
//! use std::path::Path;
//! use std::time::Instant;
//!
//! use podwire::conntrack::{Conntrack, CtFilter};
//!
//! let root = Path::new("/sys/fs/bpf");
//! let conntrack = Conntrack::open_pinned(&root.join("tc/globals"), &root.join("podwire/programs"))?;
//! for connection in conntrack.list(&CtFilter::address("10.0.0.7".parse()?))? {
//!     println!("{} {}", connection.opener, connection.state);
//! }
//! // Called every few seconds; most of the time there is nothing to do yet.
//! if let Some(pass) = conntrack.collect_if_due(Instant::now(), || false)? {
//!     println!("{} of {} had ended", pass.removed, pass.looked_at);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod clock;
mod collector;
mod filter;
mod lifetimes;
mod pace;
mod programs;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use clock::{Clock, Moment, ticks_per_second};
pub use collector::Collected;
use collector::Collector;
pub use filter::CtFilter;
pub use lifetimes::CtLifetimes;
pub use pace::Interval;
use programs::Programs;

use crate::Result;
use crate::maps::MapInfo;
use crate::program::ProgramSet;
use crate::tables::{Connection, CtErrors, CtMap, FlowTuple};

/// The connections of a node.
pub struct Conntrack {
    connections: CtMap,
    errors: CtErrors,
    clock: Clock,
    programs: Programs,
    collecting: Mutex<Collecting>,
    past: Mutex<CtPasses>,
}

/// Who collects, and when.
struct Collecting {
    collector: Collector,
    bounds: Interval,
    interval: Duration,
    /// When the last pass ended, or this was opened.
    last: Instant,
}

/// The passes of a collector since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtPasses {
    /// Those that went through the whole table.
    pub complete: u64,
    /// Those that were interrupted or failed.
    pub incomplete: u64,
    /// Entries that they removed.
    pub removed: u64,
    /// How long all of them took.
    pub time: Duration,
    /// CPU time of all of them.
    pub cpu: Duration,
    /// The last complete one.
    pub last: Option<Collected>,
    /// The time until the next one, from the end of the last one.
    pub interval: Duration,
}

impl Conntrack {
    /// Over the maps pinned in a folder, with the programs that work on them.
    ///
    /// # Errors
    ///
    /// `NotFound` where the maps are not pinned or the programs not in the set, `LayoutMismatch` for maps of another layout.
    pub fn open(maps: &Path, programs: &ProgramSet) -> Result<Self> {
        Self::with(maps, Programs::of(programs)?)
    }

    /// The same with the programs that are pinned in one of the generations below `programs` and work on these maps. No agent
    /// needs to run.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open), and `NotFound` where there are no such programs.
    pub fn open_pinned(maps: &Path, programs: &Path) -> Result<Self> {
        let map = MapInfo::of_pin(maps.join(CtMap::spec().name()))?.id;
        Self::with(maps, Programs::open_pinned(programs, map)?)
    }

    fn with(maps: &Path, programs: Programs) -> Result<Self> {
        let bounds = Interval::default();
        let interval = bounds.first();
        Ok(Self {
            connections: CtMap::open_pinned(maps)?,
            errors: CtErrors::open_pinned(maps)?,
            clock: Clock::new(programs.collect.clone()),
            collecting: Mutex::new(Collecting {
                collector: Collector::new(programs.clone()),
                bounds,
                interval,
                last: Instant::now(),
            }),
            programs,
            past: Mutex::new(CtPasses { interval, ..CtPasses::default() }),
        })
    }

    /// Between which bounds the interval from one collection to the next moves.
    pub fn set_interval(&self, bounds: Interval) {
        let mut collecting = self.collecting.lock();
        (collecting.bounds, collecting.interval) = (bounds, bounds.first());
        self.past.lock().interval = collecting.interval;
    }

    /// How many entries a call of a collection's program looks at; 4096 unless told.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for 0.
    pub fn set_batch(&self, entries: u32) -> Result<()> {
        self.collecting.lock().collector.set_entries(entries)
    }

    /// The table, to be read.
    pub const fn connections(&self) -> &CtMap {
        &self.connections
    }

    /// Packets that could not be noted.
    pub const fn errors(&self) -> &CtErrors {
        &self.errors
    }

    /// The clock that entries go by.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The connections that a filter picks, in the order of their first packets' tuples. Those that have ended and were not
    /// collected yet are among them.
    pub fn list(&self, filter: &CtFilter) -> Result<Vec<Connection>> {
        let mut connections = Vec::new();
        self.connections.for_each(|connection| {
            if filter.matches(&connection) {
                connections.push(connection);
            }
        })?;
        connections.sort_unstable_by_key(|connection| connection.opener);
        Ok(connections)
    }

    /// Notes a connection, over what is known of it.
    ///
    /// The programs count in an entry while they use it: this is for connections that they do not know yet, as on a restore.
    /// Where there is no room it takes another one's place, as a packet's would.
    ///
    /// # Errors
    ///
    /// `Busy` where programs hold its bucket's lock each time one tries, `Exhausted` where all entries are in use and nobody near
    /// can spare one.
    pub fn insert(&self, connection: &Connection) -> Result<()> {
        self.programs.insert(&connection.encode())
    }

    /// Removes the connection that a packet of either direction belongs to; false when there is none.
    ///
    /// # Errors
    ///
    /// `Busy` where programs hold its bucket's lock each time one tries.
    pub fn remove(&self, packet: &FlowTuple) -> Result<bool> {
        Ok(self.programs.remove(&self.connections, &[packet.key().0])? > 0)
    }

    /// Removes the connections that a filter picks, alive or not, and returns how many there were. The next packet of one
    /// that is alive opens it anew, if the policy lets it.
    ///
    /// # Errors
    ///
    /// As for [`remove`](Self::remove); what was removed until then stays removed.
    pub fn flush(&self, filter: &CtFilter) -> Result<usize> {
        if filter.is_all() {
            return self.programs.remove_all(self.connections.used()?, Collector::ENTRIES);
        }
        let mut keys = Vec::new();
        self.connections.for_each(|connection| {
            if filter.matches(&connection) {
                keys.push(connection.opener.key().0);
            }
        })?;
        self.programs.remove(&self.connections, &keys)
    }

    /// Removes the connections of which one side's address is meant, alive or not, and returns how many there were: in one walk
    /// for as many addresses as there are.
    ///
    /// # Errors
    ///
    /// As for [`remove`](Self::remove); what was removed until then stays removed.
    pub fn flush_addresses(&self, is_meant: impl Fn(IpAddr) -> bool) -> Result<usize> {
        let mut keys = Vec::new();
        self.connections.for_each_key(|key| {
            if key.has_address(&is_meant) {
                keys.push(*key);
            }
        })?;
        self.programs.remove(&self.connections, &keys)
    }

    /// A collection now. `stop` is asked between calls of the program; when it says so, the collection ends there, and another
    /// one is due.
    ///
    /// # Errors
    ///
    /// When the program can't be called; what was removed until then stays removed.
    pub fn collect(&self, stop: impl Fn() -> bool) -> Result<Collected> {
        self.collect_with(&mut self.collecting.lock(), stop)
    }

    /// A collection if it is time for one and none is under way: for callers that ask every few seconds.
    pub fn collect_if_due(&self, now: Instant, stop: impl Fn() -> bool) -> Result<Option<Collected>> {
        match self.collecting.try_lock() {
            Some(mut collecting) if now.saturating_duration_since(collecting.last) >= collecting.interval => {
                self.collect_with(&mut collecting, stop).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn collect_with(&self, collecting: &mut Collecting, stop: impl Fn() -> bool) -> Result<Collected> {
        let result = collecting.collector.pass(&self.connections, stop);
        let mut past = self.past.lock();
        let done = result.as_ref().map_or(Collected::default(), Clone::clone);
        past.removed += done.removed as u64;
        past.time += done.time;
        past.cpu += done.cpu;
        if !done.complete {
            past.incomplete += 1;
            return result;
        }
        past.complete += 1;
        past.last = Some(done);
        collecting.last = Instant::now();
        let pressure = self.pressure_of(&done);
        collecting.interval = collecting.bounds.next(collecting.interval, done.dead_share(), pressure);
        past.interval = collecting.interval;
        result
    }

    /// What the collections did so far.
    pub fn passes(&self) -> CtPasses {
        *self.past.lock()
    }

    /// Entries in the table and how full that makes it, from 0 to 1, as of the last complete collection: nobody keeps count.
    pub fn occupancy(&self) -> Option<(usize, f64)> {
        let last = self.past.lock().last?;
        Some((last.left(), self.pressure_of(&last)))
    }

    fn pressure_of(&self, collected: &Collected) -> f64 {
        collected.left() as f64 / self.connections.capacity().max(1) as f64
    }
}

impl fmt::Debug for Conntrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conntrack").field("connections", &self.connections).finish_non_exhaustive()
    }
}
