//! `podwire_ct`: one entry per connection, found by the packets of both directions and of both families.
//!
//! The key holds the connection's two sides in a fixed order, so that a packet and its answer need one entry and one lookup;
//! the entry holds, for each direction, all that an established packet needs. `bpf/abi/conntrack.h` has the bytes.
//!
//! The table is three arrays in memory that user space shares with the programs and only reads: the entries, an index of buckets of
//! [`CT_WAYS`] places, and what is known of free entries. Writers hold a bucket's lock, which nobody who may die at any moment
//! should have. What is to be changed is handed to a program: see [`crate::conntrack`].

mod connection;
mod errors;
mod placement;
mod tuple;

use std::hint;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::thread;

pub use connection::{Connection, CtFlags, CtPath, CtPathFlags, CtState};
pub use errors::{CtErrno, CtErrors};
use placement::Placement;
pub use tuple::{CtDirection, Echo, FlowTuple};

use crate::Result;
use crate::abi::{CT_WAYS, CtBucket, CtDir, CtEntry, CtKey, CtPool};
use crate::maps::{MapSpec, MmapArray};
use crate::tables::switches::{HashKeys, Switches};

/// Entries unless told.
const ENTRIES: u32 = 262_144;
/// Entries for each bucket of eight places: at most half of the places are in use, so that one of a key's two buckets has room.
const ENTRIES_PER_BUCKET: u32 = 4;

/// How often an entry is read that somebody writes at the same time, before it is left out.
const ATTEMPTS: u32 = 100;
/// So many of these without giving the CPU away: a writer on another one is through within a microsecond.
const SPINS: u32 = 20;

/// `podwire_ct` with its index: the connections of the node, as they are read.
///
/// Nothing is locked: an entry whose path a program writes while it is read is read again, and left out where that happens a
/// hundred times in a row, as is one that changes its connection. Counters and times may be a packet apart from each other.
#[derive(Debug)]
pub struct CtMap {
    entries: MmapArray<CtEntry>,
    index: MmapArray<CtBucket>,
    pool: MmapArray<CtPool>,
    hash_keys: HashKeys,
}

impl CtMap {
    /// The entries as the programs declare them, at their default number.
    pub const fn spec() -> MapSpec {
        MapSpec::mmap_array::<CtEntry>("podwire_ct", ENTRIES).value_layout::<CtEntry>()
    }

    /// Where the entries of keys are.
    pub const fn index_spec() -> MapSpec {
        MapSpec::mmap_array::<CtBucket>("podwire_ct_index", ENTRIES / ENTRIES_PER_BUCKET).value_layout::<CtBucket>()
    }

    /// Which entries are free.
    pub const fn pool_spec() -> MapSpec {
        MapSpec::mmap_array::<CtPool>("podwire_ct_pool", 1).value_layout::<CtPool>()
    }

    /// The sizes of the maps, by name, for so many connections.
    pub fn sizes(connections: u32) -> [(&'static str, u32); 2] {
        [("podwire_ct", connections), ("podwire_ct_index", connections.div_ceil(ENTRIES_PER_BUCKET))]
    }

    /// The maps pinned in a folder under their names, of any size, with the hash keys of the `podwire_runtime` beside them.
    ///
    /// # Errors
    ///
    /// `NotFound` where one of them is not pinned, `LayoutMismatch` naming every difference.
    pub fn open_pinned(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let [entries, index] = [Self::spec(), Self::index_spec()].map(MapSpec::any_max_entries);
        Ok(Self {
            entries: MmapArray::open_pinned(folder.join(entries.name()), &entries)?,
            index: MmapArray::open_pinned(folder.join(index.name()), &index)?,
            pool: MmapArray::open_pinned(folder.join(Self::pool_spec().name()), &Self::pool_spec())?,
            hash_keys: Switches::open_pinned(folder)?.hash_keys()?,
        })
    }

    /// The map of the entries.
    pub const fn map(&self) -> &MmapArray<CtEntry> {
        &self.entries
    }

    /// The index.
    pub const fn index(&self) -> &MmapArray<CtBucket> {
        &self.index
    }

    /// How many buckets the index has.
    pub fn buckets(&self) -> u32 {
        u32::try_from(self.index.rows()).unwrap_or(u32::MAX)
    }

    /// How many connections there is room for.
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.entries.rows()).unwrap_or(u32::MAX)
    }

    /// Entries that have been in use, now or before: those from this number on never were.
    pub fn used(&self) -> Result<u32> {
        let used = self.pool.word(0, offset_of!(CtPool, used))?.load(Ordering::Acquire);
        Ok(u32::try_from(used).unwrap_or(u32::MAX).min(self.capacity()))
    }

    /// The entries that were in use and are free now, the one that is taken next first; of a table that nobody writes to.
    pub fn free(&self) -> Result<Vec<u32>> {
        let mut free = Vec::new();
        let mut next = self.pool.word(0, offset_of!(CtPool, free))?.load(Ordering::Acquire) as u32;
        // Whatever the entries say, there are no more of them.
        while let Some(slot) = next.checked_sub(1).filter(|_| free.len() < self.entries.rows()) {
            free.push(slot);
            next = self.entries.half_word(slot, offset_of!(CtEntry, judged))?.load(Ordering::Acquire);
        }
        Ok(free)
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
        // Whether any of its entries are away is not asked: that can change in between.
        for bucket in [home, other] {
            let tags: [u16; CT_WAYS] = self.index.read_at(bucket, offset_of!(CtBucket, tag))?;
            let slots: [u32; CT_WAYS] = self.index.read_at(bucket, offset_of!(CtBucket, slot))?;
            for way in (0..CT_WAYS).filter(|way| tags[*way] == tag) {
                match self.read(slots[way])? {
                    Some(entry) if entry.key == *key => return Ok(Some(entry)),
                    _ => {}
                }
            }
        }
        Ok(None)
    }

    /// The entries that a bucket leads to, as they are.
    pub fn entries_of(&self, bucket: u32) -> Result<Vec<CtEntry>> {
        let ranks: [u8; CT_WAYS] = self.index.read_at(bucket, offset_of!(CtBucket, rank))?;
        let slots: [u32; CT_WAYS] = self.index.read_at(bucket, offset_of!(CtBucket, slot))?;
        let entries = (0..CT_WAYS).filter(|way| ranks[*way] != 0).map(|way| self.read(slots[way]));
        entries.filter_map(Result::transpose).collect()
    }

    /// Hands every entry to `visit` as it is.
    ///
    /// What comes or goes meanwhile may be among them or not; a connection that goes and comes back may be there twice.
    pub fn for_each_entry(&self, mut visit: impl FnMut(&CtEntry)) -> Result<()> {
        for slot in 0..self.used()? {
            if let Some(entry) = self.read(slot)? {
                visit(&entry);
            }
        }
        Ok(())
    }

    /// Hands the key of every connection to `visit`. That is all that is read, which makes this the quick way to find some few.
    pub fn for_each_key(&self, mut visit: impl FnMut(&CtKey)) -> Result<()> {
        for slot in 0..self.used()? {
            if self.seal(slot, 0)?.load(Ordering::Acquire) as u8 & CtDir::MOVING == 0 {
                visit(&self.entries.read_at(slot, offset_of!(CtEntry, key))?);
            }
        }
        Ok(())
    }

    /// Hands every connection to `visit` and returns how many there were; see [`for_each_entry`](Self::for_each_entry).
    /// Entries of an unknown family are left out.
    pub fn for_each(&self, mut visit: impl FnMut(Connection)) -> Result<usize> {
        let mut visited = 0;
        self.for_each_entry(|entry| {
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

    /// An entry; `None` where it is free or changes its connection, or is written each time one looks.
    fn read(&self, slot: u32) -> Result<Option<CtEntry>> {
        let seals = [self.seal(slot, 0)?, self.seal(slot, 1)?];
        // What comes behind an acquiring load is read after it.
        let state = |order| seals.map(|seal| seal.load(order));
        for attempt in 0..ATTEMPTS {
            let before = state(Ordering::Acquire);
            if before.iter().any(|seal| *seal as u8 & CtDir::MOVING != 0) {
                return Ok(None);
            }
            let entry = self.entries.read(slot)?;
            // What comes before the fence is read before it.
            fence(Ordering::Acquire);
            if state(Ordering::Relaxed) == before {
                return Ok(Some(entry));
            }
            if attempt < SPINS { hint::spin_loop() } else { thread::yield_now() }
        }
        Ok(None)
    }

    /// Changes with the path of a direction.
    fn seal(&self, slot: u32, direction: usize) -> Result<&AtomicU64> {
        let path = offset_of!(CtEntry, dir) + direction * size_of::<CtDir>();
        self.entries.word(slot, path + offset_of!(CtDir, seal))
    }
}
