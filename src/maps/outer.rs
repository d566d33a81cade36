//! [`MapInMap`]: maps under a key.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use bytemuck::Pod;

use super::batch::Batch;
use super::check;
use super::handle::{Handle, map_methods};
use super::kind::{ArrayOfMapsKind, HashOfMapsKind, Outer};
use super::map::{Update, delete_all, insert_all};
use super::read::{Reader, Seen};
use super::spec::MapSpec;
use crate::Result;

/// A map of maps, of the kind `T`.
///
/// A program that looks a key up sees the old inner map or the new one, never something in between, which is what swaps a
/// whole table at once. An inner hash map or trie may have another size than the first one. An update returns once no
/// program uses the map that was replaced, which takes some milliseconds: batch them.
pub struct MapInMap<K, T> {
    handle: Handle,
    types: PhantomData<fn() -> (K, T)>,
}

/// Maps by key.
pub type HashOfMaps<K> = MapInMap<K, HashOfMapsKind>;
/// Maps by index.
pub type ArrayOfMaps = MapInMap<u32, ArrayOfMapsKind>;

impl<K: Pod, T: Outer> MapInMap<K, T> {
    /// Creates an unpinned map that takes inner maps like `inner`.
    ///
    /// # Errors
    ///
    /// As for [`Map::create`](super::Map::create).
    pub fn create(spec: &MapSpec, inner: &MapSpec) -> Result<Self> {
        check::rust_types::<K, u32>(spec, T::TYPE)?;
        // The kernel copies the properties of this one and does not keep it.
        let template = Handle::create(inner, None)?;
        Self::from_handle(Handle::create(spec, Some(template.as_fd()))?, spec)
    }

    map_methods!();

    fn from_handle(handle: Handle, spec: &MapSpec) -> Result<Self> {
        check::rust_types::<K, u32>(spec, T::TYPE)?;
        Ok(Self { handle, types: PhantomData })
    }

    /// The kernel's id of the map under a key; open it with `from_id` of its type.
    pub fn lookup_id(&self, key: &K) -> Result<Option<u32>> {
        let mut id = 0u32;
        let found = self.handle.raw().lookup(bytemuck::bytes_of(key), bytemuck::bytes_of_mut(&mut id));
        Ok(found.map_err(|error| self.handle.fail("look up in", error))?.then_some(id))
    }

    /// Puts a map under a key.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when the map does not resemble the template; otherwise as for [`Map::insert`](super::Map::insert).
    pub fn insert(&self, key: &K, inner: &impl AsFd, update: Update) -> Result<()> {
        let fd = inner.as_fd().as_raw_fd();
        let key = bytemuck::bytes_of(key);
        self.handle
            .raw()
            .update(key, bytemuck::bytes_of(&fd), update.flags())
            .map_err(|error| self.handle.insert_failed(key, error))
    }

    /// Puts maps under keys and waits for programs once, not once for each.
    ///
    /// # Errors
    ///
    /// As for [`Map::insert_batch`](super::Map::insert_batch).
    pub fn insert_batch(&self, keys: &[K], inners: &[BorrowedFd<'_>], update: Update) -> Result<()> {
        let fds: Vec<i32> = inners.iter().map(AsRawFd::as_raw_fd).collect();
        insert_all(&self.handle, keys, bytemuck::cast_slice(&fds), fds.len(), update)
    }

    /// Removes the map under a key; false when there is none. The map lives on while something else refers to it.
    pub fn delete(&self, key: &K) -> Result<bool> {
        self.handle.raw().delete(bytemuck::bytes_of(key)).map_err(|error| self.handle.fail("delete from", error))
    }

    /// Removes the maps under keys and returns how many there were; see [`Map::delete_batch`](super::Map::delete_batch).
    ///
    /// # Errors
    ///
    /// [`Error::PartialBatch`](crate::Error::PartialBatch) says how many of the keys are done.
    pub fn delete_batch(&self, keys: &[K]) -> Result<usize> {
        delete_all(&self.handle, keys)
    }

    /// All keys with the kernel's ids of the maps under them.
    pub fn entries(&self) -> Result<Vec<(K, u32)>> {
        let mut batch = Batch::new(self.handle.max_entries().clamp(1, 1024))?;
        let (mut reader, mut seen, mut entries) = (Reader::new(false), Seen::new(), Vec::new());
        while let Some(filled) = reader.next(&self.handle, &mut batch)? {
            let repeats = reader.repeats(&self.handle);
            entries.extend(
                batch.entries(filled).map(|(key, id)| (*key, *id)).filter(|(key, _)| seen.is_new(key, repeats)),
            );
        }
        Ok(entries)
    }

    /// How many entries fit.
    pub fn max_entries(&self) -> usize {
        self.handle.max_entries()
    }
}

impl<K, T> fmt::Debug for MapInMap<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MapInMap").field(&self.handle.label()).finish()
    }
}

impl<K, T> AsFd for MapInMap<K, T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}
