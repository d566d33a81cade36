//! bpf(2) for many entries at once (kernel 5.6).

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use libbpf_sys as raw;

use super::bpf::{MapFd, addr, addr_mut, bpf, fd_bits};

/// Attribute of the batch commands.
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// How a batch read ended.
#[derive(Debug)]
pub(crate) enum BatchEnd {
    /// More may follow from the cursor.
    More,
    /// The end of the map was reached.
    Done,
    /// The call stopped early with this error; the entries reported before it are valid.
    Error(io::Error),
}

/// Where the kernel is to continue a batch read. Hash maps keep a bucket's number in it, the others a key.
#[derive(Debug, Default)]
pub(crate) struct BatchCursor {
    bytes: Vec<u8>,
    started: bool,
}

impl BatchCursor {
    /// Back to the start of the map.
    pub(crate) fn rewind(&mut self) {
        self.started = false;
    }

    /// Moves on by one key and copies it out; false at the end.
    pub(crate) fn step(&mut self, map: &MapFd, key: &mut [u8]) -> io::Result<bool> {
        let last = self.started.then_some(&self.bytes[..]);
        if !map.next_key(last, key)? {
            return Ok(false);
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(key);
        self.started = true;
        Ok(true)
    }
}

impl MapFd {
    /// Reads (and with `delete` removes) the next entries into the buffers and returns how many there were.
    pub(crate) fn read_batch(
        &self,
        delete: bool,
        cursor: &mut BatchCursor,
        keys: &mut [u8],
        values: &mut [u8],
    ) -> io::Result<(usize, BatchEnd)> {
        let count = self.batch_len(keys, Some(values))?;
        let asked = u32::try_from(count).unwrap_or(u32::MAX);
        // The kernel writes a bucket number (4 bytes) or a key.
        cursor.bytes.resize(self.key_len().max(size_of::<u32>()), 0);
        let mut attr = BatchAttr {
            in_batch: if cursor.started { addr(&cursor.bytes) } else { 0 },
            out_batch: addr_mut(&mut cursor.bytes),
            keys: addr_mut(keys),
            values: addr_mut(values),
            count: asked,
            map_fd: fd_bits(self.as_fd().as_raw_fd()),
            elem_flags: 0,
            flags: 0,
        };
        let cmd = if delete { raw::BPF_MAP_LOOKUP_AND_DELETE_BATCH } else { raw::BPF_MAP_LOOKUP_BATCH };
        // SAFETY: keys and values have room for `count` entries of this map, the cursor for a bucket number or a key.
        let result = unsafe { bpf(cmd, &mut attr) };
        let done = attr.count as usize;
        match result {
            Ok(_) => {
                cursor.started = true;
                Ok((done, BatchEnd::More))
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => Ok((done, BatchEnd::Done)),
                // The kernel set the count to 0 before it started, and to what it copied when it stopped.
                Some(libc::ENOSPC | libc::EINTR) => {
                    cursor.started |= done > 0;
                    Ok((done, BatchEnd::Error(error)))
                }
                _ => Err(error),
            },
        }
    }

    /// Writes entries; on failure the number written before it.
    pub(crate) fn update_batch(&self, keys: &[u8], values: &[u8]) -> Result<(), (usize, io::Error)> {
        let count = self.batch_len(keys, Some(values)).map_err(|error| (0, error))?;
        // SAFETY: keys and values hold `count` entries of this map; the kernel only reads them.
        unsafe { self.write_batch(raw::BPF_MAP_UPDATE_BATCH, addr(keys), addr(values), count) }
    }

    /// Removes entries; on failure (a missing key included) the number removed before it.
    pub(crate) fn delete_batch(&self, keys: &[u8]) -> Result<(), (usize, io::Error)> {
        let count = self.batch_len(keys, None).map_err(|error| (0, error))?;
        // SAFETY: keys holds `count` keys of this map; the kernel only reads them.
        unsafe { self.write_batch(raw::BPF_MAP_DELETE_BATCH, addr(keys), 0, count) }
    }

    /// # Safety
    ///
    /// `keys` and, where the command reads them, `values` must point to `count` elements of this map.
    unsafe fn write_batch(
        &self,
        cmd: raw::bpf_cmd,
        keys: u64,
        values: u64,
        count: usize,
    ) -> Result<(), (usize, io::Error)> {
        let total = u32::try_from(count).map_err(|_| (0, io::Error::from_raw_os_error(libc::E2BIG)))?;
        let mut attr = BatchAttr {
            in_batch: 0,
            out_batch: 0,
            keys,
            values,
            count: total,
            map_fd: fd_bits(self.as_fd().as_raw_fd()),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: see the caller's promise.
        match unsafe { bpf(cmd, &mut attr) } {
            Ok(_) => Ok(()),
            // Checks that come before the first element leave the count as it was.
            Err(error) if attr.count == total => Err((0, error)),
            Err(error) => Err((attr.count as usize, error)),
        }
    }

    /// How many entries the buffers hold, which must be the same whole number for both.
    fn batch_len(&self, keys: &[u8], values: Option<&[u8]>) -> io::Result<usize> {
        let count = keys.len() / self.key_len().max(1);
        let whole = count * self.key_len() == keys.len();
        if whole && values.is_none_or(|values| values.len() == count * self.value_len()) {
            Ok(count)
        } else {
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        }
    }
}
