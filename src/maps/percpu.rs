//! [`PerCpuMap`]: a value for each CPU under a key.

use std::fmt;
use std::marker::PhantomData;
use std::mem::size_of;
use std::os::fd::{AsFd, BorrowedFd};

use bytemuck::{Pod, Zeroable};

use super::check;
use super::handle::{Handle, Handles, map_methods};
use super::kind::{Dynamic, LruPerCpuHash, PerCpu, PerCpuArrayKind, PerCpuHash};
use super::map::{Update, delete_all, insert_all};
use super::read::{Buffers, Reader, Seen};
use super::spec::MapSpec;
use crate::sys::bpf;
use crate::{Error, Result};

/// A map with a value for each possible CPU under a key, of the kind `T`.
///
/// Values are exchanged through buffers that the caller keeps, so that no call allocates. A CPU's slot is read and written
/// while programs may change it: a single word is never torn, a struct of several words may be.
pub struct PerCpuMap<K, V, T> {
    handle: Handle,
    types: Handles<(K, V, T)>,
}

/// A hash table with a value for each CPU.
pub type PerCpuHashMap<K, V> = PerCpuMap<K, V, PerCpuHash>;
/// A hash table with a value for each CPU that evicts.
pub type LruPerCpuHashMap<K, V> = PerCpuMap<K, V, LruPerCpuHash>;
/// An array with a value for each CPU.
pub type PerCpuArray<V> = PerCpuMap<u32, V, PerCpuArrayKind>;

impl<K: Pod, V: Pod, T: PerCpu> PerCpuMap<K, V, T> {
    /// Creates an unpinned map.
    ///
    /// # Errors
    ///
    /// As for [`Map::create`](super::Map::create).
    pub fn create(spec: &MapSpec) -> Result<Self> {
        check::rust_types::<K, V>(spec, T::TYPE)?;
        Self::from_handle(Handle::create(spec, None)?, spec)
    }

    map_methods!();

    fn from_handle(handle: Handle, spec: &MapSpec) -> Result<Self> {
        check::rust_types::<K, V>(spec, T::TYPE)?;
        Ok(Self { handle, types: PhantomData })
    }

    /// Copies every CPU's value of a key out; false when there is none.
    pub fn lookup(&self, key: &K, values: &mut PerCpuValues<V>) -> Result<bool> {
        self.handle
            .raw()
            .lookup(bytemuck::bytes_of(key), &mut values.bytes)
            .map_err(|error| self.handle.fail("look up in", error))
    }

    /// Writes every CPU's value of a key.
    ///
    /// # Errors
    ///
    /// As for [`Map::insert`](super::Map::insert).
    pub fn insert(&self, key: &K, values: &PerCpuValues<V>, update: Update) -> Result<()> {
        let key = bytemuck::bytes_of(key);
        self.handle
            .raw()
            .update(key, &values.bytes, update.flags())
            .map_err(|error| self.handle.insert_failed(key, error))
    }

    /// Writes many entries: `values` has, key after key, one value for each CPU.
    ///
    /// # Errors
    ///
    /// As for [`Map::insert_batch`](super::Map::insert_batch).
    pub fn insert_batch(&self, keys: &[K], values: &[V], update: Update) -> Result<()> {
        let cpus = possible_cpus()?;
        if values.len() != keys.len() * cpus {
            let given = format!("{} keys, {} values", keys.len(), values.len());
            return Err(Error::invalid("batch", given, format!("needs {cpus} values for each key")));
        }
        let stride = bpf::per_cpu_stride(size_of::<V>());
        let mut packed = vec![0; values.len() * stride];
        for (slot, value) in packed.chunks_exact_mut(stride).zip(values) {
            slot[..size_of::<V>()].copy_from_slice(bytemuck::bytes_of(value));
        }
        insert_all(&self.handle, keys, &packed, keys.len(), update)
    }

    /// Hands every entry to `visit` and returns how many there were; the promise is that of
    /// [`Map::lookup_batch`](super::Map::lookup_batch).
    ///
    /// # Errors
    ///
    /// [`Error::PartialBatch`] when it fails after the first entry.
    pub fn lookup_batch(
        &self,
        batch: &mut PerCpuBatch<K, V>,
        visit: impl FnMut(&K, CpuValues<'_, V>),
    ) -> Result<usize> {
        self.read(Reader::new(false), batch, visit)
    }

    fn read(
        &self,
        mut reader: Reader,
        batch: &mut PerCpuBatch<K, V>,
        mut visit: impl FnMut(&K, CpuValues<'_, V>),
    ) -> Result<usize> {
        let (mut seen, mut count) = (Seen::new(), 0);
        while let Some(filled) = reader.next(&self.handle, batch)? {
            let repeats = reader.repeats(&self.handle);
            for (key, bytes) in batch.keys[..filled].iter().zip(batch.values.chunks_exact(batch.value_len)) {
                if seen.is_new(key, repeats) {
                    visit(key, CpuValues { bytes, value: PhantomData });
                    count += 1;
                }
            }
        }
        Ok(count)
    }

    /// How many entries fit.
    pub fn max_entries(&self) -> usize {
        self.handle.max_entries()
    }
}

impl<K: Pod, V: Pod, T: PerCpu + Dynamic> PerCpuMap<K, V, T> {
    /// Removes an entry; false when there is none.
    pub fn delete(&self, key: &K) -> Result<bool> {
        self.handle.raw().delete(bytemuck::bytes_of(key)).map_err(|error| self.handle.fail("delete from", error))
    }

    /// Removes keys and returns how many were there; see [`Map::delete_batch`](super::Map::delete_batch).
    ///
    /// # Errors
    ///
    /// [`Error::PartialBatch`] says how many of the keys are done.
    pub fn delete_batch(&self, keys: &[K]) -> Result<usize> {
        delete_all(&self.handle, keys)
    }

    /// Takes every entry out, hands it to `visit` and returns how many there were.
    ///
    /// # Errors
    ///
    /// As for [`lookup_batch`](Self::lookup_batch); what was handed to `visit` is removed.
    pub fn drain(&self, batch: &mut PerCpuBatch<K, V>, visit: impl FnMut(&K, CpuValues<'_, V>)) -> Result<usize> {
        self.read(Reader::new(true), batch, visit)
    }
}

impl<K, V, T> fmt::Debug for PerCpuMap<K, V, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PerCpuMap").field(&self.handle.label()).finish()
    }
}

impl<K, V, T> AsFd for PerCpuMap<K, V, T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// One key's values, borrowed from a batch or from [`PerCpuValues`].
#[derive(Clone, Copy, Debug)]
pub struct CpuValues<'a, V> {
    bytes: &'a [u8],
    value: PhantomData<fn() -> V>,
}

impl<V: Pod> CpuValues<'_, V> {
    /// The values, in the order of the CPUs' numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = V> {
        let stride = bpf::per_cpu_stride(size_of::<V>());
        self.bytes.chunks_exact(stride).map(|slot| bytemuck::pod_read_unaligned(&slot[..size_of::<V>()]))
    }
}

/// Room for one key's values, made once and used for any number of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerCpuValues<V> {
    bytes: Vec<u8>,
    value: PhantomData<fn() -> V>,
}

impl<V: Pod> PerCpuValues<V> {
    /// Zeroes for every possible CPU.
    ///
    /// # Errors
    ///
    /// When the number of CPUs can't be read from sysfs.
    pub fn new() -> Result<Self> {
        Ok(Self { bytes: vec![0; possible_cpus()? * bpf::per_cpu_stride(size_of::<V>())], value: PhantomData })
    }

    /// The number of possible CPUs.
    pub fn cpus(&self) -> usize {
        self.bytes.len() / bpf::per_cpu_stride(size_of::<V>())
    }

    /// The values, in the order of the CPUs' numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = V> {
        let stride = bpf::per_cpu_stride(size_of::<V>());
        self.bytes.chunks_exact(stride).map(|slot| bytemuck::pod_read_unaligned(&slot[..size_of::<V>()]))
    }

    /// Sets each CPU's value from its number.
    pub fn fill(&mut self, mut value: impl FnMut(usize) -> V) {
        let stride = bpf::per_cpu_stride(size_of::<V>());
        for (cpu, slot) in self.bytes.chunks_exact_mut(stride).enumerate() {
            slot[..size_of::<V>()].copy_from_slice(bytemuck::bytes_of(&value(cpu)));
        }
    }
}

/// Room for a batch of entries of a [`PerCpuMap`].
#[derive(Clone, Debug)]
pub struct PerCpuBatch<K, V> {
    keys: Vec<K>,
    values: Vec<u8>,
    value_len: usize,
    value: PhantomData<fn() -> V>,
}

impl<K: Pod, V: Pod> PerCpuBatch<K, V> {
    /// Room for `entries` at a time.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for 0.
    pub fn new(entries: usize) -> Result<Self> {
        if entries == 0 {
            return Err(Error::invalid("batch size", "0", "must be at least 1"));
        }
        let value_len = possible_cpus()? * bpf::per_cpu_stride(size_of::<V>());
        Ok(Self {
            keys: vec![K::zeroed(); entries],
            values: vec![0; entries * value_len],
            value_len,
            value: PhantomData,
        })
    }
}

impl<K: Pod, V: Pod> Buffers for PerCpuBatch<K, V> {
    fn bytes(&mut self) -> (&mut [u8], &mut [u8]) {
        (bytemuck::cast_slice_mut(&mut self.keys), &mut self.values)
    }

    fn grow(&mut self) {
        let entries = self.keys.len() * 2;
        self.keys.resize(entries, Zeroable::zeroed());
        self.values.resize(entries * self.value_len, 0);
    }

    fn capacity(&self) -> usize {
        self.keys.len()
    }
}

fn possible_cpus() -> Result<usize> {
    bpf::possible_cpus().map_err(|error| Error::system("read", "/sys/devices/system/cpu/possible", error))
}
