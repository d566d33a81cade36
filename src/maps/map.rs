//! [`Map`]: one value for a key.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};

use bytemuck::Pod;

use super::batch::Batch;
use super::check;
use super::handle::{Handle, Handles, is_unsupported, map_methods};
use super::kind::{ArrayKind, Dynamic, Hash, Lpm, LruHash, Single};
use super::read::{self, Reader, Seen};
use super::spec::MapSpec;
use crate::{Error, Result};

/// Entries that [`Map::iter`] fetches at a time.
const ITER_BATCH: usize = 256;

/// When an insertion is to happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Update {
    /// Insert or overwrite.
    #[default]
    Any,
    /// Insert only; fails with `AlreadyExists`.
    NoExist,
    /// Overwrite only; fails with `NotFound`.
    Exist,
}

impl Update {
    pub(crate) const fn flags(self) -> u64 {
        match self {
            Self::Any => libbpf_sys::BPF_ANY as u64,
            Self::NoExist => libbpf_sys::BPF_NOEXIST as u64,
            Self::Exist => libbpf_sys::BPF_EXIST as u64,
        }
    }
}

/// A map with one value for a key, of the kind `T`.
///
/// The layout is checked once, when the map is created or opened; after that each verb is one system call and allocates
/// nothing. Dropping it closes the descriptor and changes nothing in the kernel's map if it is pinned or in use elsewhere.
pub struct Map<K, V, T> {
    handle: Handle,
    types: Handles<(K, V, T)>,
}

/// A hash table.
pub type HashMap<K, V> = Map<K, V, Hash>;
/// A hash table that evicts what was least recently used.
pub type LruHashMap<K, V> = Map<K, V, LruHash>;
/// A longest-prefix-match trie.
pub type LpmTrie<K, V> = Map<K, V, Lpm>;
/// An array.
pub type Array<V> = Map<u32, V, ArrayKind>;

impl<K: Pod, V: Pod, T: Single> Map<K, V, T> {
    /// Creates an unpinned map.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when `spec` describes another type, or when the kernel refuses sizes or flags; `PermissionDenied`
    /// without CAP_BPF.
    pub fn create(spec: &MapSpec) -> Result<Self> {
        check::rust_types::<K, V>(spec, T::TYPE)?;
        Self::from_handle(Handle::create(spec, None)?, spec)
    }

    map_methods!();

    /// Opens the map with a kernel id out of a map of maps: the kernel lets no map into one that is not like its template.
    pub(crate) fn from_inner_id(id: u32, spec: &MapSpec) -> Result<Self> {
        Self::from_handle(Handle::from_known_id(id, spec)?, spec)
    }

    fn from_handle(handle: Handle, spec: &MapSpec) -> Result<Self> {
        check::rust_types::<K, V>(spec, T::TYPE)?;
        Ok(Self { handle, types: PhantomData })
    }

    /// The value of a key. In a trie, of the longest prefix that covers it.
    #[inline]
    pub fn lookup(&self, key: &K) -> Result<Option<V>> {
        let mut value = V::zeroed();
        Ok(self.lookup_into(key, &mut value)?.then_some(value))
    }

    /// Copies the value of a key into `value`; false, and `value` as it was, when there is none.
    #[inline]
    pub fn lookup_into(&self, key: &K, value: &mut V) -> Result<bool> {
        self.handle
            .raw()
            .lookup(bytemuck::bytes_of(key), bytemuck::bytes_of_mut(value))
            .map_err(|error| self.handle.fail("look up in", error))
    }

    /// Writes an entry.
    ///
    /// # Errors
    ///
    /// `Exhausted` when the map is full; `AlreadyExists` and `NotFound` as [`Update`] says; in an array `InvalidInput` for an
    /// index beyond its end.
    #[inline]
    pub fn insert(&self, key: &K, value: &V, update: Update) -> Result<()> {
        let key = bytemuck::bytes_of(key);
        self.handle
            .raw()
            .update(key, bytemuck::bytes_of(value), update.flags())
            .map_err(|error| self.handle.insert_failed(key, error))
    }

    /// Writes `values[i]` under `keys[i]` for all i, in one system call where the kernel can (5.6; with `Update::Any`).
    ///
    /// # Errors
    ///
    /// `InvalidInput` for slices of different lengths. [`Error::PartialBatch`] says how many entries were written, which are
    /// the first ones.
    pub fn insert_batch(&self, keys: &[K], values: &[V], update: Update) -> Result<()> {
        insert_all(&self.handle, keys, bytemuck::cast_slice(values), values.len(), update)
    }

    /// Hands every entry to `visit` and returns how many there were. The buffer can be used again.
    ///
    /// Every entry that is present throughout comes exactly once, whatever happens to others meanwhile and whatever the size
    /// of the batch. An entry inserted or removed meanwhile may come or not; a value is never a mixture of two in a hash map.
    ///
    /// # Errors
    ///
    /// [`Error::PartialBatch`] when it fails after the first entry; `Busy` when a trie's entries are removed faster than it
    /// can be walked.
    pub fn lookup_batch(&self, batch: &mut Batch<K, V>, visit: impl FnMut(&K, &V)) -> Result<usize> {
        self.read(Reader::new(false), batch, visit)
    }

    /// The same until `visit` breaks off; true when it saw the whole map. Nothing is held between two batches, nor while `visit`
    /// runs, which may itself change the map.
    pub fn lookup_batch_while(
        &self,
        batch: &mut Batch<K, V>,
        visit: impl FnMut(&K, &V) -> ControlFlow<()>,
    ) -> Result<bool> {
        self.read_while(Reader::new(false), batch, visit)
    }

    /// The same, one entry at a time with `BPF_MAP_GET_NEXT_KEY`: several times slower, and with less of a promise for hash
    /// maps: an entry that is overwritten or shares its bucket with one that is removed meanwhile may be left out, because
    /// the kernel moves them while the walk holds no lock. For comparison, and for kernels before 5.6.
    pub fn walk(&self, visit: impl FnMut(&K, &V)) -> Result<usize> {
        self.read(Reader::walking(false), &mut Batch::new(1)?, visit)
    }

    fn read(&self, reader: Reader, batch: &mut Batch<K, V>, mut visit: impl FnMut(&K, &V)) -> Result<usize> {
        let mut count = 0;
        self.read_while(reader, batch, |key, value| {
            visit(key, value);
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    fn read_while(
        &self,
        mut reader: Reader,
        batch: &mut Batch<K, V>,
        mut visit: impl FnMut(&K, &V) -> ControlFlow<()>,
    ) -> Result<bool> {
        let mut seen = Seen::new();
        while let Some(filled) = reader.next(&self.handle, batch)? {
            let repeats = reader.repeats(&self.handle);
            for (key, value) in batch.entries(filled) {
                if seen.is_new(key, repeats) && visit(key, value).is_break() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Iterates over all entries; the promise is that of [`lookup_batch`](Self::lookup_batch). Ends after an error.
    pub fn iter(&self) -> Iter<'_, K, V, T> {
        Iter { map: self, reader: Reader::new(false), batch: None, at: 0, filled: 0, seen: Seen::new(), failed: false }
    }

    /// Iterates over all keys; see [`iter`](Self::iter).
    pub fn keys(&self) -> impl Iterator<Item = Result<K>> {
        self.iter().map(|entry| entry.map(|(key, _)| key))
    }

    /// Counts the entries by reading all of them: the kernel keeps no count that user space could ask for.
    pub fn len(&self) -> Result<usize> {
        self.lookup_batch(&mut Batch::new(ITER_BATCH)?, |_, _| ())
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.iter().next().transpose()?.is_none())
    }

    /// How many entries fit.
    pub fn max_entries(&self) -> usize {
        self.handle.max_entries()
    }
}

impl<K: Pod, V: Pod, T: Single + Dynamic> Map<K, V, T> {
    /// Removes an entry; false when there is none.
    #[inline]
    pub fn delete(&self, key: &K) -> Result<bool> {
        self.handle.raw().delete(bytemuck::bytes_of(key)).map_err(|error| self.handle.fail("delete from", error))
    }

    /// Takes an entry out; nothing when there is none.
    ///
    /// One step for hash maps from kernel 5.14 on. Elsewhere a lookup and then a deletion: of several callers only one gets
    /// the entry, but a value written in between is lost.
    pub fn lookup_and_delete(&self, key: &K) -> Result<Option<V>> {
        let mut value = V::zeroed();
        let (key_bytes, value_bytes) = (bytemuck::bytes_of(key), bytemuck::bytes_of_mut(&mut value));
        match self.handle.raw().lookup_and_delete(key_bytes, value_bytes) {
            Ok(found) => Ok(found.then_some(value)),
            Err(error) if is_unsupported(&error) => match self.lookup(key)? {
                Some(value) => Ok(self.delete(key)?.then_some(value)),
                None => Ok(None),
            },
            Err(error) => Err(self.handle.fail("take from", error)),
        }
    }

    /// Removes keys and returns how many were there, in as few system calls as the kernel allows: one (5.6), and one more for
    /// each key that is missing.
    ///
    /// # Errors
    ///
    /// [`Error::PartialBatch`] says how many of the keys are done.
    pub fn delete_batch(&self, keys: &[K]) -> Result<usize> {
        delete_all(&self.handle, keys)
    }

    /// Takes every entry out, hands it to `visit` and returns how many there were.
    ///
    /// Reading and removing are one step for hash maps (kernel 5.6). In a trie a value written between the two is lost.
    ///
    /// # Errors
    ///
    /// As for [`lookup_batch`](Self::lookup_batch); what was handed to `visit` is removed.
    pub fn drain(&self, batch: &mut Batch<K, V>, visit: impl FnMut(&K, &V)) -> Result<usize> {
        self.read_taking(batch, visit)
    }

    fn read_taking(&self, batch: &mut Batch<K, V>, mut visit: impl FnMut(&K, &V)) -> Result<usize> {
        let (mut reader, mut count) = (Reader::new(true), 0);
        while let Some(filled) = reader.next(&self.handle, batch)? {
            batch.entries(filled).for_each(|(key, value)| visit(key, value));
            count += filled;
        }
        Ok(count)
    }
}

impl<K, V, T> fmt::Debug for Map<K, V, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Map").field(&self.handle.label()).finish()
    }
}

impl<K, V, T> AsFd for Map<K, V, T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl<'a, K: Pod, V: Pod, T: Single> IntoIterator for &'a Map<K, V, T> {
    type Item = Result<(K, V)>;
    type IntoIter = Iter<'a, K, V, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Entries of a [`Map`]; see [`Map::iter`].
#[derive(Debug)]
pub struct Iter<'a, K, V, T> {
    map: &'a Map<K, V, T>,
    reader: Reader,
    batch: Option<Batch<K, V>>,
    at: usize,
    filled: usize,
    seen: Seen<K>,
    failed: bool,
}

impl<K: Pod, V: Pod, T: Single> Iter<'_, K, V, T> {
    fn advance(&mut self) -> Result<Option<(K, V)>> {
        let batch = match &mut self.batch {
            Some(batch) => batch,
            empty => empty.insert(Batch::new(ITER_BATCH.min(self.map.max_entries().max(1)))?),
        };
        loop {
            while self.at < self.filled {
                let (key, value) = batch.entry(self.at);
                self.at += 1;
                if self.seen.is_new(key, self.reader.repeats(&self.map.handle)) {
                    return Ok(Some((*key, *value)));
                }
            }
            match self.reader.next(&self.map.handle, batch)? {
                Some(filled) => (self.at, self.filled) = (0, filled),
                None => return Ok(None),
            }
        }
    }
}

impl<K: Pod, V: Pod, T: Single> Iterator for Iter<'_, K, V, T> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let entry = self.advance();
        self.failed = !matches!(entry, Ok(Some(_)));
        entry.transpose()
    }
}

/// Writes entries in one call where the kernel can; values are as long as the map's.
pub(crate) fn insert_all<K: Pod>(
    handle: &Handle,
    keys: &[K],
    values: &[u8],
    value_count: usize,
    update: Update,
) -> Result<()> {
    let total = keys.len();
    if total != value_count {
        let given = format!("{total} keys, {value_count} values");
        return Err(Error::invalid("batch", given, "needs as many values as keys"));
    }
    if total == 0 {
        return Ok(());
    }
    let failed = |done: usize, error: io::Error| handle.partial("insert into", done, total, error);
    // The kernel's batch takes no BPF_NOEXIST or BPF_EXIST.
    if update == Update::Any {
        match handle.raw().update_batch(bytemuck::cast_slice(keys), values) {
            Ok(()) => return Ok(()),
            Err((0, error)) if is_unsupported(&error) => {}
            Err((done, error)) => return Err(failed(done, error)),
        }
    }
    let value_len = handle.raw().value_len();
    for (done, key) in keys.iter().enumerate() {
        let value = &values[done * value_len..(done + 1) * value_len];
        let written = handle.raw().update(bytemuck::bytes_of(key), value, update.flags());
        written.map_err(|error| failed(done, error))?;
    }
    Ok(())
}

/// Removes keys, missing ones included.
pub(crate) fn delete_all<K: Pod>(handle: &Handle, keys: &[K]) -> Result<usize> {
    read::delete_keys(handle, bytemuck::cast_slice(keys))
        .map_err(|(done, error)| handle.partial("delete from", done, keys.len(), error))
}
