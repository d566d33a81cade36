//! Reading a whole map while others change it.
//!
//! Hash and LRU maps are read in batches, for which the kernel copies bucket after bucket, each under its lock
//! (`__htab_map_lookup_and_delete_batch()` in `kernel/bpf/hashtab.c`). A key never changes its bucket, so every key that is
//! present throughout comes exactly once. A bucket that does not fit into the buffer is refused whole with `ENOSPC`; the
//! buffer then grows. A short batch is not the last one: only `ENOENT` ends the map.
//!
//! The other kinds are walked from key to key, by the kernel in batches or, where it has no batches, by us. When the key at
//! hand has been removed, such a walk starts again at the first key; the keys already seen are therefore remembered and
//! left out.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::io;

use bytemuck::Pod;

use super::handle::{Handle, is_unsupported};
use crate::sys::bpf_batch::{BatchCursor, BatchEnd};
use crate::{Error, Result};

/// Interruptions in a row without an entry, after which a read gives up.
const MAX_STALLS: u32 = 64;
/// How many times its size a map without buckets may be walked over before a read gives up.
const MAX_LAPS: usize = 64;
/// Least entries fetched at a time from a map without buckets: the fewer cursors, the fewer of them are removed.
const LEAST_WALKED: usize = 256;

/// Where a read puts keys and values.
pub(crate) trait Buffers {
    /// Room for keys and as many values.
    fn bytes(&mut self) -> (&mut [u8], &mut [u8]);
    /// Doubles the room.
    fn grow(&mut self);
    /// Room in entries.
    fn capacity(&self) -> usize;
}

/// A position in a map being read.
#[derive(Debug)]
pub(crate) struct Reader {
    mode: Mode,
    cursor: BatchCursor,
    /// Whether what is read is removed.
    take: bool,
    stalls: u32,
    /// Entries handed out.
    done: usize,
    /// Keys the kernel returned, the ones seen before included.
    walked: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The kernel's batches.
    Batch,
    /// Batches for reading, removal afterwards.
    BatchThenDelete,
    /// One key after the other.
    Walk,
    /// At the end.
    Done,
}

impl Reader {
    pub(crate) fn new(take: bool) -> Self {
        Self { mode: Mode::Batch, cursor: BatchCursor::default(), take, stalls: 0, done: 0, walked: 0 }
    }

    /// A read that never uses batches.
    pub(crate) fn walking(take: bool) -> Self {
        Self { mode: Mode::Walk, ..Self::new(take) }
    }

    /// Whether keys may come more than once, so that the caller has to remember them.
    pub(crate) fn repeats(&self, map: &Handle) -> bool {
        !map.map_type().is_array() && (self.mode == Mode::Walk || !map.map_type().has_buckets())
    }

    /// Fills the buffers from their start; nothing at the end of the map.
    pub(crate) fn next(&mut self, map: &Handle, buffers: &mut impl Buffers) -> Result<Option<usize>> {
        loop {
            let filled = match self.mode {
                Mode::Batch | Mode::BatchThenDelete => self.batch(map, buffers)?,
                Mode::Walk => self.step(map, buffers)?,
                Mode::Done => return Ok(None),
            };
            self.done += filled;
            self.walked += filled;
            self.check_laps(map)?;
            if filled > 0 {
                return Ok(Some(filled));
            }
        }
    }

    fn batch(&mut self, map: &Handle, buffers: &mut impl Buffers) -> Result<usize> {
        let take_here = self.take && self.mode == Mode::Batch;
        while !map.map_type().has_buckets() && buffers.capacity() < LEAST_WALKED.min(map.max_entries()) {
            buffers.grow();
        }
        let (keys, values) = buffers.bytes();
        let (filled, end) = match map.raw().read_batch(take_here, &mut self.cursor, keys, values) {
            Ok(read) => read,
            Err(error) if self.done == 0 && is_unsupported(&error) => {
                self.mode = match self.mode {
                    Mode::Batch if self.take => Mode::BatchThenDelete,
                    _ => Mode::Walk,
                };
                return Ok(0);
            }
            Err(error) => return Err(self.failed(map, error)),
        };
        match end {
            BatchEnd::More => self.stalls = 0,
            BatchEnd::Done => self.mode = Mode::Done,
            BatchEnd::Error(error) if filled == 0 => self.stalled(map, buffers, error)?,
            BatchEnd::Error(_) => self.stalls = 0,
        }
        if self.mode == Mode::BatchThenDelete || (self.take && !take_here) {
            self.delete_read(map, buffers, filled)?;
        }
        Ok(filled)
    }

    /// Removes what a batch has just read.
    fn delete_read(&mut self, map: &Handle, buffers: &mut impl Buffers, filled: usize) -> Result<()> {
        let (keys, _) = buffers.bytes();
        delete_keys(map, &keys[..filled * map.raw().key_len()]).map_err(|(_, error)| self.failed(map, error))?;
        // The cursor's key is gone, and all before it.
        self.cursor.rewind();
        Ok(())
    }

    /// One key and its value into the start of the buffers.
    fn step(&mut self, map: &Handle, buffers: &mut impl Buffers) -> Result<usize> {
        let (key_len, value_len) = (map.raw().key_len(), map.raw().value_len());
        let (keys, values) = buffers.bytes();
        let (key, value) = (&mut keys[..key_len], &mut values[..value_len]);
        let found = self.cursor.step(map.raw(), key).map_err(|error| self.failed(map, error))?;
        if !found {
            self.mode = Mode::Done;
            return Ok(0);
        }
        let present = map.raw().lookup(key, value).map_err(|error| self.failed(map, error))?;
        if self.take && present {
            map.raw().delete(key).map_err(|error| self.failed(map, error))?;
            self.cursor.rewind();
        }
        self.walked += usize::from(!present);
        Ok(usize::from(present))
    }

    fn stalled(&mut self, map: &Handle, buffers: &mut impl Buffers, error: io::Error) -> Result<()> {
        self.stalls += 1;
        let whole_map = buffers.capacity() > 2 * map.max_entries();
        if self.stalls > MAX_STALLS || (whole_map && error.raw_os_error() == Some(libc::ENOSPC)) {
            return Err(self.failed(map, error));
        }
        if error.raw_os_error() == Some(libc::ENOSPC) {
            buffers.grow();
        }
        Ok(())
    }

    fn check_laps(&self, map: &Handle) -> Result<()> {
        if map.map_type().has_buckets() && self.mode != Mode::Walk {
            return Ok(());
        }
        if self.walked <= MAX_LAPS * map.max_entries() + MAX_LAPS {
            return Ok(());
        }
        Err(Error::Busy {
            object: map.label().to_owned(),
            detail: "entries are removed faster than the map can be walked; try again".to_owned(),
        })
    }

    fn failed(&self, map: &Handle, error: io::Error) -> Error {
        let op = if self.take { "drain" } else { "read" };
        if self.done == 0 { map.fail(op, error) } else { map.partial(op, self.done, map.max_entries(), error) }
    }
}

/// Removes keys, missing ones included, and returns how many were there; on failure how far it came.
pub(crate) fn delete_keys(map: &Handle, keys: &[u8]) -> Result<usize, (usize, io::Error)> {
    let key_len = map.raw().key_len();
    let (mut at, mut removed) = (0, 0);
    let total = keys.len() / key_len.max(1);
    while at < total {
        match map.raw().delete_batch(&keys[at * key_len..]) {
            Ok(()) => return Ok(removed + total - at),
            // The kernel stops at a missing key.
            Err((done, error)) if error.raw_os_error() == Some(libc::ENOENT) => {
                removed += done;
                at += done + 1;
            }
            Err((0, error)) if is_unsupported(&error) => {
                let key = &keys[at * key_len..(at + 1) * key_len];
                removed += usize::from(map.raw().delete(key).map_err(|error| (at, error))?);
                at += 1;
            }
            Err((done, error)) => return Err((at + done, error)),
        }
    }
    Ok(removed)
}

/// The keys a read has handed out, where the kernel may return one twice.
#[derive(Debug)]
pub(crate) struct Seen<K>(Option<HashSet<KeyBytes<K>>>);

impl<K: Pod> Seen<K> {
    pub(crate) fn new() -> Self {
        Self(None)
    }

    /// Whether this is the first time; `repeats` says whether there can be another.
    pub(crate) fn is_new(&mut self, key: &K, repeats: bool) -> bool {
        !repeats || self.0.get_or_insert_default().insert(KeyBytes(*key))
    }
}

/// A key compared by its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyBytes<K>(pub(crate) K);

impl<K: Pod> Hash for KeyBytes<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(bytemuck::bytes_of(&self.0));
    }
}

impl<K: Pod> PartialEq for KeyBytes<K> {
    fn eq(&self, other: &Self) -> bool {
        bytemuck::bytes_of(&self.0) == bytemuck::bytes_of(&other.0)
    }
}

impl<K: Pod> Eq for KeyBytes<K> {}

impl<K: Pod> PartialOrd for KeyBytes<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Pod> Ord for KeyBytes<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        bytemuck::bytes_of(&self.0).cmp(bytemuck::bytes_of(&other.0))
    }
}
