//! [`CachedMap`]: the desired content of a map, and its reconciliation with the real one.

mod apply;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use bytemuck::{Pod, Zeroable};
use parking_lot::Mutex;

use super::backoff::BackOff;
use super::batch::Batch;
use super::kind::{Dynamic, Single};
use super::map::{Map, Update};
use super::operations::{OperationCounts, Operations};
use super::read::KeyBytes;
pub use apply::Written;

use crate::{Error, Result};

/// Entries that a comparison with the real content fetches at a time.
const RESYNC_BATCH: usize = 1024;

/// What a [`CachedMap`] writes to. [`Map`] is one; tests bring their own.
pub trait Store: Send + Sync {
    /// A key, compared byte by byte. In a trie its bits beyond the prefix must be zero.
    type Key: Pod + Send + Sync;
    /// A value.
    type Value: Pod + Send + Sync;

    /// Its name in messages.
    fn label(&self) -> &str;
    /// How many entries fit.
    fn capacity(&self) -> usize;
    /// Inserts or overwrites.
    fn put(&self, key: &Self::Key, value: &Self::Value) -> Result<()>;
    /// Removes; false when there was nothing.
    fn remove(&self, key: &Self::Key) -> Result<bool>;
    /// Inserts or overwrites these, one after the other; on failure says how many are done.
    fn put_batch(&self, keys: &[Self::Key], values: &[Self::Value]) -> Result<(), usize> {
        for (done, (key, value)) in keys.iter().zip(values).enumerate() {
            self.put(key, value).map_err(|_| done)?;
        }
        Ok(())
    }
    /// Removes these and says how many were there; on failure some of them may be gone.
    fn remove_batch(&self, keys: &[Self::Key]) -> Result<usize> {
        keys.iter().try_fold(0, |removed, key| Ok(removed + usize::from(self.remove(key)?)))
    }
    /// Hands out every entry.
    fn for_each(&self, visit: &mut dyn FnMut(&Self::Key, &Self::Value)) -> Result<()>;
}

impl<K, V, T> Store for Map<K, V, T>
where
    K: Pod + Send + Sync,
    V: Pod + Send + Sync,
    T: Single + Dynamic,
{
    type Key = K;
    type Value = V;

    fn label(&self) -> &str {
        Map::label(self)
    }

    fn capacity(&self) -> usize {
        self.max_entries()
    }

    fn put(&self, key: &K, value: &V) -> Result<()> {
        self.insert(key, value, Update::Any)
    }

    fn remove(&self, key: &K) -> Result<bool> {
        self.delete(key)
    }

    fn put_batch(&self, keys: &[K], values: &[V]) -> Result<(), usize> {
        self.insert_batch(keys, values, Update::Any).map_err(|error| match error {
            Error::PartialBatch { done, .. } => done,
            _ => 0,
        })
    }

    fn remove_batch(&self, keys: &[K]) -> Result<usize> {
        self.delete_batch(keys)
    }

    fn for_each(&self, visit: &mut dyn FnMut(&K, &V)) -> Result<()> {
        self.lookup_batch(&mut Batch::new(RESYNC_BATCH)?, visit).map(drop)
    }
}

/// What is still to be done for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyncState {
    /// Nothing: the map has it as desired, as far as known.
    Sync,
    /// It is to be inserted or overwritten.
    Insert,
    /// It is to be removed.
    Delete,
}

impl SyncState {
    /// `sync`, `insert` or `delete`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Insert => "insert",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for SyncState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An entry as [`CachedMap::dump`] shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedEntry<K, V> {
    /// The key.
    pub key: K,
    /// The desired value; for one to be removed the last known.
    pub value: V,
    /// What is still to be done.
    pub state: SyncState,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

/// What [`CachedMap::reconcile`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Entries that are now as desired.
    pub repaired: usize,
    /// Entries that were tried and failed again.
    pub failed: usize,
    /// Entries whose time has not come.
    pub waiting: usize,
    /// When the next entry is due; nothing when all is in order.
    pub next_due: Option<Instant>,
}

/// What [`CachedMap::resync`] found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// Entries that the map should have had and had not.
    pub missing: usize,
    /// Entries with another value.
    pub different: usize,
    /// Entries nobody asked for.
    pub foreign: usize,
    /// What became of these and of what was due.
    pub reconciled: Reconciled,
}

/// A map with its desired content.
///
/// The desired content counts: a write that fails is remembered with its error and tried again by
/// [`reconcile`](Self::reconcile), later and later; [`resync`](Self::resync) finds what others changed and repairs it.
/// Entries that nobody asked for are only removed after [`mark_complete`](Self::mark_complete). Writers wait for each other
/// and for a running comparison, so that desired and real content can't pass each other.
pub struct CachedMap<M: Store> {
    map: M,
    back_off: BackOff,
    clock: Box<dyn Fn() -> Instant + Send + Sync>,
    content: Mutex<Content<M::Key, M::Value>>,
    operations: Operations,
}

struct Content<K, V> {
    entries: BTreeMap<KeyBytes<K>, Entry<V>>,
    /// Whether what is not desired may be removed.
    complete: bool,
}

struct Entry<V> {
    value: V,
    state: SyncState,
    last_error: Option<String>,
    failures: u32,
    /// When it is due, if it is not in sync.
    due: Instant,
}

impl<M: Store> CachedMap<M> {
    /// An empty desired content over a map, whose real content stays as it is for now.
    pub fn new(map: M) -> Self {
        Self::with_clock(map, BackOff::default(), Instant::now)
    }

    /// The same with another back-off and another clock.
    pub fn with_clock(map: M, back_off: BackOff, clock: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        let content = Mutex::new(Content { entries: BTreeMap::new(), complete: false });
        Self { map, back_off, clock: Box::new(clock), content, operations: Operations::default() }
    }

    /// The map itself. What is written to it directly is drift.
    pub fn map(&self) -> &M {
        &self.map
    }

    /// Desires an entry and writes it unless it is known to be there.
    ///
    /// # Errors
    ///
    /// The write's; the entry stays desired and is tried again.
    pub fn upsert(&self, key: &M::Key, value: &M::Value) -> Result<()> {
        let now = (self.clock)();
        let entries = &mut self.content.lock().entries;
        let entry = entries.entry(KeyBytes(*key)).or_insert_with(|| Entry::new(*value, SyncState::Insert, now));
        if entry.state == SyncState::Sync && same(&entry.value, value) {
            return Ok(());
        }
        *entry = Entry::new(*value, SyncState::Insert, now);
        let written = self.operations.count_update(self.map.put(key, value));
        entry.settle(&written, now, self.back_off);
        written
    }

    /// Desires that there is no entry and removes it; false when there was none.
    ///
    /// # Errors
    ///
    /// The removal's; it is tried again.
    pub fn remove(&self, key: &M::Key) -> Result<bool> {
        let now = (self.clock)();
        self.remove_one(&mut self.content.lock(), key, now)
    }

    fn remove_one(&self, content: &mut Content<M::Key, M::Value>, key: &M::Key, now: Instant) -> Result<bool> {
        let entries = &mut content.entries;
        let removed = self.operations.count_delete(self.map.remove(key));
        if removed.is_ok() {
            entries.remove(&KeyBytes(*key));
        } else {
            let value = entries.get(&KeyBytes(*key)).map_or_else(M::Value::zeroed, |entry| entry.value);
            let mut entry = Entry::new(value, SyncState::Delete, now);
            entry.settle(&removed, now, self.back_off);
            entries.insert(KeyBytes(*key), entry);
        }
        removed
    }

    /// Declares the desired content complete: from now on [`resync`](Self::resync) removes what is not part of it.
    pub fn mark_complete(&self) {
        self.content.lock().complete = true;
    }

    /// Tries again what failed and is due; removals first, since they make room.
    pub fn reconcile(&self) -> Reconciled {
        self.settle_due(&mut self.content.lock())
    }

    /// Compares desired and real content, and repairs the differences at once, along with what is due.
    ///
    /// # Errors
    ///
    /// When the map can't be read; nothing has changed then.
    pub fn resync(&self) -> Result<Drift> {
        let mut content = self.content.lock();
        let mut drift = self.compare(&mut content)?;
        drift.reconciled = self.settle_due(&mut content);
        Ok(drift)
    }

    /// Compares desired and real content, and notes the differences as the entries' states without repairing them: see
    /// [`dump`](Self::dump).
    ///
    /// # Errors
    ///
    /// When the map can't be read; nothing has changed then.
    pub fn find_drift(&self) -> Result<Drift> {
        self.compare(&mut self.content.lock())
    }

    fn compare(&self, content: &mut Content<M::Key, M::Value>) -> Result<Drift> {
        let now = (self.clock)();
        let mut real = BTreeMap::new();
        let read = self.map.for_each(&mut |key, value| _ = real.insert(KeyBytes(*key), *value));
        self.operations.count_dump(read)?;

        let mut drift = Drift::default();
        content.entries.retain(|key, entry| {
            let found = real.remove(key);
            entry.compare(found.as_ref(), now, &mut drift)
        });
        drift.foreign = real.len();
        if content.complete {
            let foreign = real.into_iter().map(|(key, value)| (key, Entry::new(value, SyncState::Delete, now)));
            content.entries.extend(foreign);
        }
        Ok(drift)
    }

    fn settle_due(&self, content: &mut Content<M::Key, M::Value>) -> Reconciled {
        let now = (self.clock)();
        let mut done = Reconciled::default();
        for state in [SyncState::Delete, SyncState::Insert] {
            content.entries.retain(|key, entry| {
                if entry.state != state {
                    return true;
                }
                if entry.due > now {
                    done.note_waiting(entry.due);
                    return true;
                }
                let result = match state {
                    SyncState::Delete => self.operations.count_delete(self.map.remove(&key.0)).map(drop),
                    _ => self.operations.count_update(self.map.put(&key.0, &entry.value)),
                };
                entry.settle(&result, now, self.back_off);
                match result {
                    Ok(()) => done.repaired += 1,
                    Err(_) => done.note_failed(entry.due),
                }
                // What is settled as removed is forgotten.
                !(state == SyncState::Delete && entry.state == SyncState::Sync)
            });
        }
        done
    }

    /// Every entry, in the order of the keys' bytes.
    pub fn dump(&self) -> Vec<CachedEntry<M::Key, M::Value>> {
        let content = self.content.lock();
        let shown = content.entries.iter().map(|(key, entry)| CachedEntry {
            key: key.0,
            value: entry.value,
            state: entry.state,
            last_error: entry.last_error.clone(),
        });
        shown.collect()
    }

    /// The desired value of a key.
    pub fn desired(&self, key: &M::Key) -> Option<M::Value> {
        let content = self.content.lock();
        let entry = content.entries.get(&KeyBytes(*key))?;
        (entry.state != SyncState::Delete).then_some(entry.value)
    }

    /// How many entries are desired or still to be removed.
    pub fn len(&self) -> usize {
        self.content.lock().entries.len()
    }

    /// Whether nothing is desired and nothing is to be removed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries are not in sync.
    pub fn pending(&self) -> usize {
        self.content.lock().entries.values().filter(|entry| entry.state != SyncState::Sync).count()
    }

    /// How full the map is with what is known here, from 0 to 1; above 1 when more is desired than fits.
    pub fn pressure(&self) -> f64 {
        self.len() as f64 / self.map.capacity().max(1) as f64
    }

    /// How many operations went well and how many failed.
    pub fn operations(&self) -> OperationCounts {
        self.operations.snapshot()
    }
}

impl<M: Store> fmt::Debug for CachedMap<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedMap")
            .field("map", &self.map.label())
            .field("entries", &self.len())
            .finish_non_exhaustive()
    }
}

impl<V: Pod> Entry<V> {
    fn new(value: V, state: SyncState, due: Instant) -> Self {
        Self { value, state, last_error: None, failures: 0, due }
    }

    /// Notes how an attempt ended.
    fn settle<T>(&mut self, result: &Result<T>, now: Instant, back_off: BackOff) {
        match result {
            Ok(_) => *self = Self::new(self.value, SyncState::Sync, now),
            Err(error) => {
                self.failures += 1;
                self.last_error = Some(error.to_string());
                self.due = now + back_off.delay(self.failures);
            }
        }
    }

    /// Compares with what the map has; false when the entry can be forgotten.
    fn compare(&mut self, found: Option<&V>, now: Instant, drift: &mut Drift) -> bool {
        match (self.state, found) {
            (SyncState::Delete, None) => return false,
            (SyncState::Insert, Some(found)) if same(found, &self.value) => {
                *self = Self::new(self.value, SyncState::Sync, now);
            }
            (SyncState::Sync, None) => {
                drift.missing += 1;
                *self = Self::new(self.value, SyncState::Insert, now);
            }
            (SyncState::Sync, Some(found)) if !same(found, &self.value) => {
                drift.different += 1;
                *self = Self::new(self.value, SyncState::Insert, now);
            }
            _ => {}
        }
        true
    }
}

impl Reconciled {
    fn note_waiting(&mut self, due: Instant) {
        self.waiting += 1;
        self.next_due = Some(self.next_due.map_or(due, |earliest| earliest.min(due)));
    }

    fn note_failed(&mut self, due: Instant) {
        self.failed += 1;
        self.next_due = Some(self.next_due.map_or(due, |earliest| earliest.min(due)));
    }
}

fn same<V: Pod>(one: &V, other: &V) -> bool {
    bytemuck::bytes_of(one) == bytemuck::bytes_of(other)
}
