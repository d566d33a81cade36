//! Many changes at once.

use std::time::Instant;

use super::{CachedMap, Content, Entry, KeyBytes, Store, SyncState, same};
use crate::{Error, ErrorKind, Result};

/// Entries handed to the store at a time.
const CHUNK: usize = 4096;

/// What [`CachedMap::apply`] did.
#[derive(Debug, Default)]
#[must_use = "what failed is tried again by reconcile"]
pub struct Written {
    /// Entries inserted or overwritten.
    pub upserted: usize,
    /// Entries removed.
    pub removed: usize,
    /// Entries that could not be written; each is tried again by [`CachedMap::reconcile`].
    pub failed: usize,
    /// Why the first of these could not.
    pub first_error: Option<Error>,
}

impl Written {
    /// Whether the map is another than before.
    pub fn changed(&self) -> bool {
        self.upserted + self.removed > 0
    }

    fn fail(&mut self, error: Error) {
        self.failed += 1;
        self.first_error.get_or_insert(error);
    }
}

impl<M: Store> CachedMap<M> {
    /// Desires the real content as it is: what the map has, `wanted` wants and is not desired otherwise counts from now on as
    /// desired and in sync. For whoever takes over a map: after this only differences are written. Returns how many
    /// entries were taken over.
    ///
    /// # Errors
    ///
    /// When the map can't be read; nothing has changed then.
    pub fn adopt(&self, mut wanted: impl FnMut(&M::Key, &M::Value) -> bool) -> Result<usize> {
        let now = (self.clock)();
        let content = &mut *self.content.lock();
        let mut found = Vec::new();
        let read = self.map.for_each(&mut |key, value| {
            if wanted(key, value) {
                found.push((KeyBytes(*key), *value));
            }
        });
        self.operations.count_dump(read)?;
        let before = content.entries.len();
        for (key, value) in found {
            content.entries.entry(key).or_insert_with(|| Entry::new(value, SyncState::Sync, now));
        }
        Ok(content.entries.len() - before)
    }

    /// Desires these entries, and that there is none under the keys to be removed; no key may be in both lists. What is known
    /// to be as desired is not written. Entries are written before others are removed, so that what takes another's place
    /// is there first; those that found no room are tried once more after the removals.
    pub fn apply(&self, upserts: &[(M::Key, M::Value)], removals: &[M::Key]) -> Written {
        let now = (self.clock)();
        let content = &mut *self.content.lock();
        let mut written = Written::default();
        let missing: Vec<_> = upserts.iter().filter(|(key, value)| content.differs(key, value)).copied().collect();
        let mut without_room = Vec::new();
        for chunk in missing.chunks(CHUNK) {
            self.put_chunk(content, chunk, now, |key, value, error| match error.kind() {
                ErrorKind::Exhausted => without_room.push((key, value, error)),
                _ => written.fail(error),
            });
        }
        written.upserted = missing.len() - written.failed - without_room.len();
        for chunk in removals.chunks(CHUNK) {
            self.remove_chunk(content, chunk, now, &mut written);
        }
        for (key, value, error) in without_room {
            if written.removed == 0 {
                written.fail(error);
            } else {
                match self.put_one(content, &key, &value, now) {
                    Ok(()) => written.upserted += 1,
                    Err(error) => written.fail(error),
                }
            }
        }
        written
    }

    fn put_chunk(
        &self,
        content: &mut Content<M::Key, M::Value>,
        chunk: &[(M::Key, M::Value)],
        now: Instant,
        mut failed: impl FnMut(M::Key, M::Value, Error),
    ) {
        let (keys, values): (Vec<_>, Vec<_>) = chunk.iter().copied().unzip();
        let mut at = 0;
        while at < keys.len() {
            let done = match self.map.put_batch(&keys[at..], &values[at..]) {
                Ok(()) => keys.len() - at,
                Err(done) => done.min(keys.len() - at),
            };
            for (key, value) in keys[at..].iter().zip(&values[at..]).take(done) {
                let entry = Entry::new(*value, SyncState::Sync, now);
                content.entries.insert(KeyBytes(*key), entry);
                // the result is only counted
                let _ = self.operations.count_update(Ok(()));
            }
            at += done;
            // the one that stopped the batch says by itself what is wrong with it
            if let (Some(key), Some(value)) = (keys.get(at), values.get(at)) {
                if let Err(error) = self.put_one(content, key, value, now) {
                    failed(*key, *value, error);
                }
                at += 1;
            }
        }
    }

    fn put_one(
        &self,
        content: &mut Content<M::Key, M::Value>,
        key: &M::Key,
        value: &M::Value,
        now: Instant,
    ) -> Result<()> {
        let written = self.operations.count_update(self.map.put(key, value));
        let mut entry = Entry::new(*value, SyncState::Insert, now);
        entry.settle(&written, now, self.back_off);
        content.entries.insert(KeyBytes(*key), entry);
        written
    }

    fn remove_chunk(
        &self,
        content: &mut Content<M::Key, M::Value>,
        keys: &[M::Key],
        now: Instant,
        written: &mut Written,
    ) {
        if let Ok(removed) = self.map.remove_batch(keys) {
            written.removed += removed;
            for key in keys {
                content.entries.remove(&KeyBytes(*key));
                let _ = self.operations.count_delete(Ok(()));
            }
            return;
        }
        // some are gone, some not: each says by itself how it ends
        for key in keys {
            match self.remove_one(content, key, now) {
                Ok(removed) => written.removed += usize::from(removed),
                Err(error) => written.fail(error),
            }
        }
    }
}

impl<K: bytemuck::Pod, V: bytemuck::Pod> Content<K, V> {
    /// Whether this entry is not known to be in the map.
    fn differs(&self, key: &K, value: &V) -> bool {
        let known = self.entries.get(&KeyBytes(*key));
        known.is_none_or(|entry| entry.state != SyncState::Sync || !same(&entry.value, value))
    }
}
