//! `podwire_ct`: one entry per connection, found by the packets of both directions and of both families.
//!
//! The key holds the connection's two sides in a fixed order, so that a packet and its answer need one entry and one lookup;
//! the entry holds, for each direction, all that an established packet needs. `bpf/abi/conntrack.h` has the bytes.
//!
//! The table is an array of buckets of [`CT_WAYS`] entries, in memory that user space shares with the programs and only reads:
//! writers hold a bucket's lock, which nobody who may die at any moment should have. What is to be changed is handed to a
//! program: see [`crate::conntrack`].

mod connection;
mod errors;
mod placement;
mod tuple;

use std::hint;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::thread;

pub use connection::{Connection, CtFlags, CtPath, CtPathFlags, CtState};
pub use errors::{CtErrno, CtErrors};
use placement::Placement;
pub use tuple::{CtDirection, Echo, FlowTuple};

use crate::Result;
use crate::abi::{CT_WAYS, CtBucket, CtDir, CtEntry, CtKey};
use crate::maps::{MapSpec, MmapArray};
use crate::tables::switches::{HashKeys, Switches};

/// How often an entry is read that somebody writes at the same time, before it is left out.
const ATTEMPTS: u32 = 100;
/// So many of these without giving the CPU away: a writer on another one is through within a microsecond.
const SPINS: u32 = 20;

/// `podwire_ct`: the connections of the node, as they are read.
///
/// Nothing is locked: an entry that a program replaces while it is read is read again, and left out where that happens a
/// hundred times in a row. Counters and times may be a packet apart from each other.
#[derive(Debug)]
pub struct CtMap {
    buckets: MmapArray<CtBucket>,
    hash_keys: HashKeys,
}

impl CtMap {
    /// The map as the programs declare it, at its default size: 32,768 buckets of [`CT_WAYS`] entries.
    pub const fn spec() -> MapSpec {
        MapSpec::mmap_array::<CtBucket>("podwire_ct", 32_768).value_layout::<CtBucket>()
    }

    /// The map pinned in a folder under its name, of any size, with the hash keys of the `podwire_runtime` beside it.
    ///
    /// # Errors
    ///
    /// `NotFound` where either is not pinned, `LayoutMismatch` naming every difference.
    pub fn open_pinned(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let spec = Self::spec().any_max_entries();
        let buckets = MmapArray::open_pinned(folder.join(spec.name()), &spec)?;
        Ok(Self::over(buckets, Switches::open_pinned(folder)?.hash_keys()?))
    }

    /// The table in a map that is open already, whose entries are placed by these hash keys.
    pub const fn over(buckets: MmapArray<CtBucket>, hash_keys: HashKeys) -> Self {
        Self { buckets, hash_keys }
    }

    /// The map below.
    pub const fn map(&self) -> &MmapArray<CtBucket> {
        &self.buckets
    }

    /// How many buckets there are.
    pub fn buckets(&self) -> u32 {
        u32::try_from(self.buckets.rows()).unwrap_or(u32::MAX)
    }

    /// How many connections there is room for.
    pub fn capacity(&self) -> usize {
        self.buckets.rows() * CT_WAYS
    }

    /// The buckets in which a connection may stand: where it belongs, and where it stands when that one was full. They may be
    /// the same.
    pub fn places(&self, packet: &FlowTuple) -> [u32; 2] {
        let Placement { home, other, .. } = Placement::of(&packet.key().0, &self.hash_keys, self.buckets());
        [home, other]
    }

    /// The connection that a packet of either direction belongs to.
    pub fn lookup(&self, packet: &FlowTuple) -> Result<Option<Connection>> {
        let (key, _) = packet.key();
        Ok(self.entry(&key)?.and_then(|entry| Connection::decode(&entry)))
    }

    /// The entry of a key, as it is.
    pub fn entry(&self, key: &CtKey) -> Result<Option<CtEntry>> {
        let Placement { home, other, tag } = Placement::of(key, &self.hash_keys, self.buckets());
        // Whether any of its entries stand elsewhere is not asked: that can change in between.
        for bucket in [home, other] {
            let tags: [u16; CT_WAYS] = self.buckets.read_at(bucket, offset_of!(CtBucket, tag))?;
            for way in (0..CT_WAYS).filter(|way| tags[*way] == tag) {
                match self.read(bucket, way)? {
                    Some(entry) if entry.key == *key => return Ok(Some(entry)),
                    _ => {}
                }
            }
        }
        Ok(None)
    }

    /// Hands every entry to `visit` as it is, with the bucket in which it stands.
    ///
    /// What comes or goes meanwhile may be among them or not; a connection that goes and comes back may be there twice.
    pub fn for_each_entry(&self, mut visit: impl FnMut(u32, &CtEntry)) -> Result<()> {
        for bucket in 0..self.buckets() {
            let ranks: [u8; CT_WAYS] = self.buckets.read_at(bucket, offset_of!(CtBucket, rank))?;
            for way in (0..CT_WAYS).filter(|way| ranks[*way] != 0) {
                if let Some(entry) = self.read(bucket, way)? {
                    visit(bucket, &entry);
                }
            }
        }
        Ok(())
    }

    /// Hands every connection to `visit` and returns how many there were; see [`for_each_entry`](Self::for_each_entry).
    /// Entries of an unknown family are left out.
    pub fn for_each(&self, mut visit: impl FnMut(Connection)) -> Result<usize> {
        let mut visited = 0;
        self.for_each_entry(|_, entry| {
            if let Some(connection) = Connection::decode(entry) {
                visit(connection);
                visited += 1;
            }
        })?;
        Ok(visited)
    }

    /// Every connection, in the order of the first packets' tuples.
    pub fn connections(&self) -> Result<Vec<Connection>> {
        let mut connections = Vec::new();
        self.for_each(|connection| connections.push(connection))?;
        connections.sort_unstable_by_key(|connection| connection.opener);
        Ok(connections)
    }

    /// The entry at a place; `None` where none stands, or where another one does each time one looks.
    fn read(&self, bucket: u32, way: usize) -> Result<Option<CtEntry>> {
        let life = self.life(bucket, way)?;
        let seals = [self.seal(bucket, way, 0)?, self.seal(bucket, way, 1)?];
        // What comes behind an acquiring load is read after it.
        let state = |order| (life.load(order), seals.map(|seal| seal.load(order)));
        for attempt in 0..ATTEMPTS {
            let before = state(Ordering::Acquire);
            if before.0.is_multiple_of(2) {
                if self.buckets.read_at::<[u8; CT_WAYS]>(bucket, offset_of!(CtBucket, rank))?[way] == 0 {
                    return Ok(None);
                }
                let entry = self.buckets.read_at(bucket, entry_at(way))?;
                // What comes before the fence is read before it.
                fence(Ordering::Acquire);
                if state(Ordering::Relaxed) == before {
                    return Ok(Some(entry));
                }
            }
            if attempt < SPINS { hint::spin_loop() } else { thread::yield_now() }
        }
        Ok(None)
    }

    /// Odd while one connection makes room for another.
    fn life(&self, bucket: u32, way: usize) -> Result<&AtomicU32> {
        self.buckets.half_word(bucket, offset_of!(CtBucket, life) + way * size_of::<u32>())
    }

    /// Changes with the path of a direction.
    fn seal(&self, bucket: u32, way: usize, direction: usize) -> Result<&AtomicU64> {
        let path = offset_of!(CtEntry, dir) + direction * size_of::<CtDir>();
        self.buckets.word(bucket, entry_at(way) + path + offset_of!(CtDir, seal))
    }
}

const fn entry_at(way: usize) -> usize {
    offset_of!(CtBucket, entry) + way * size_of::<CtEntry>()
}
