//! [`MmapArray`]: an array in memory shared with the programs.

use std::fmt;
use std::marker::PhantomData;
use std::mem::size_of;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytemuck::Pod;

use super::check;
use super::handle::{Handle, map_methods};
use super::kind::MapType;
use super::spec::{MMAPABLE, MapSpec};
use crate::sys::mmap::SharedMemory;
use crate::{Error, Result};

const WORD: usize = size_of::<u64>();

/// An array with `BPF_F_MMAPABLE` (kernel 5.5): rows are read and written without a system call.
///
/// Rows are copied in words of 8 bytes, each whole; a row that a program or another thread writes at the same time may be a
/// mixture of old and new words. What must be seen whole belongs into one word, or behind a word that is written last with
/// [`word`](Self::word) and `Ordering::Release`.
pub struct MmapArray<V> {
    handle: Handle,
    memory: SharedMemory,
    rows: usize,
    value: PhantomData<fn(V) -> V>,
}

impl<V: Pod> MmapArray<V> {
    /// Creates an unpinned array.
    ///
    /// # Errors
    ///
    /// `InvalidInput` unless `spec` is an array's with `BPF_F_MMAPABLE`.
    pub fn create(spec: &MapSpec) -> Result<Self> {
        check_spec::<V>(spec)?;
        Self::from_handle(Handle::create(spec, None)?, spec)
    }

    map_methods!();

    fn from_handle(handle: Handle, spec: &MapSpec) -> Result<Self> {
        check_spec::<V>(spec)?;
        let rows = handle.max_entries();
        let len = (rows * Self::STRIDE).next_multiple_of(rustix::param::page_size());
        let memory =
            SharedMemory::map(handle.as_fd(), 0, len).map_err(|error| handle.fail("map into memory", error))?;
        Ok(Self { handle, memory, rows, value: PhantomData })
    }

    /// Bytes from row to row (`array->elem_size` in `kernel/bpf/arraymap.c`).
    const STRIDE: usize = size_of::<V>().next_multiple_of(WORD);

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Copies a row out.
    ///
    /// # Errors
    ///
    /// `InvalidInput` beyond the last row.
    #[inline]
    pub fn read(&self, row: u32) -> Result<V> {
        self.read_at(row, 0)
    }

    /// Copies out what stands at `offset` (a multiple of 8) of a row.
    ///
    /// # Errors
    ///
    /// `InvalidInput` beyond the last row or the row's end.
    #[inline]
    pub fn read_at<T: Pod>(&self, row: u32, offset: usize) -> Result<T> {
        let mut value = T::zeroed();
        for (index, bytes) in bytemuck::bytes_of_mut(&mut value).chunks_mut(WORD).enumerate() {
            let word = self.word(row, offset + index * WORD)?.load(Ordering::Relaxed).to_ne_bytes();
            bytes.copy_from_slice(&word[..bytes.len()]);
        }
        Ok(value)
    }

    /// Overwrites a row, from its first word to its last.
    ///
    /// # Errors
    ///
    /// `InvalidInput` beyond the last row.
    #[inline]
    pub fn write(&self, row: u32, value: &V) -> Result<()> {
        for (index, bytes) in bytemuck::bytes_of(value).chunks(WORD).enumerate() {
            let mut word = [0; WORD];
            word[..bytes.len()].copy_from_slice(bytes);
            // Release: who reads a word written here also sees those before it.
            self.word(row, index * WORD)?.store(u64::from_ne_bytes(word), Ordering::Release);
        }
        Ok(())
    }

    /// The 8 bytes at `offset` (a multiple of 8) of a row, for generations, locks and counters.
    ///
    /// # Errors
    ///
    /// `InvalidInput` beyond the last row or the row's end.
    #[inline]
    pub fn word(&self, row: u32, offset: usize) -> Result<&AtomicU64> {
        self.place(row, offset, WORD)
            .and_then(|place| self.memory.u64_at(place))
            .ok_or_else(|| self.outside(row, offset))
    }

    /// The 4 bytes at `offset` (a multiple of 4) of a row.
    ///
    /// # Errors
    ///
    /// `InvalidInput` beyond the last row or the row's end.
    #[inline]
    pub fn half_word(&self, row: u32, offset: usize) -> Result<&AtomicU32> {
        self.place(row, offset, size_of::<u32>())
            .and_then(|place| self.memory.u32_at(place))
            .ok_or_else(|| self.outside(row, offset))
    }

    #[inline]
    fn place(&self, row: u32, offset: usize, size: usize) -> Option<usize> {
        let inside = (row as usize) < self.rows && offset.checked_add(size)? <= Self::STRIDE;
        inside.then(|| row as usize * Self::STRIDE + offset)
    }

    #[cold]
    fn outside(&self, row: u32, offset: usize) -> Error {
        let reason =
            format!("{} has {} rows of {} bytes, accessed in aligned words", self.label(), self.rows, Self::STRIDE);
        Error::invalid("row", format!("{row}, byte {offset}"), reason)
    }
}

impl<V> fmt::Debug for MmapArray<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MmapArray").field(&self.handle.label()).finish()
    }
}

impl<V> AsFd for MmapArray<V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

fn check_spec<V: Pod>(spec: &MapSpec) -> Result<()> {
    check::rust_types::<u32, V>(spec, MapType::ARRAY)?;
    if spec.map_flags() & MMAPABLE != 0 {
        return Ok(());
    }
    Err(Error::invalid("map specification", spec.name().to_owned(), "lacks BPF_F_MMAPABLE"))
}
