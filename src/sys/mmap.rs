//! Memory shared with the kernel, accessed only through atomics.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::mm::{MapFlags, ProtFlags};

/// A shared mapping of a file descriptor, unmapped on drop.
///
/// Programs and other processes write to the memory at any time; it is therefore only ever lent out as atomics.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    base: NonNull<u8>,
    len: usize,
    /// What is handed out as memory that may be stored to.
    writable: bool,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is only accessed through atomics.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps `len` bytes from `offset`.
    pub(crate) fn map(fd: BorrowedFd<'_>, offset: u64, len: usize, writable: bool) -> io::Result<Self> {
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a fresh mapping at an address of the kernel's choice disturbs no other memory.
        let base = unsafe { rustix::mm::mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, fd, offset)? };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))?;
        Ok(Self { base, len, writable })
    }

    /// The length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The 8 bytes at an aligned offset.
    #[inline]
    pub(crate) fn u64_at(&self, offset: usize) -> Option<&AtomicU64> {
        let address = self.locate(offset, size_of::<u64>())?;
        // SAFETY: in bounds and aligned (checked); the memory lives as long as `self`. A mapping that is only readable is
        // only ever loaded from, which callers ensure by asking `writable` (see `is_writable`).
        Some(unsafe { AtomicU64::from_ptr(address.cast().as_ptr()) })
    }

    /// The 4 bytes at an aligned offset.
    #[inline]
    pub(crate) fn u32_at(&self, offset: usize) -> Option<&AtomicU32> {
        let address = self.locate(offset, size_of::<u32>())?;
        // SAFETY: as in `u64_at`.
        Some(unsafe { AtomicU32::from_ptr(address.cast().as_ptr()) })
    }

    /// Whether stores are allowed.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    #[inline]
    fn locate(&self, offset: usize, size: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(size)?;
        if end > self.len || offset % size != 0 {
            return None;
        }
        // SAFETY: `offset + size` lies inside the mapping.
        Some(unsafe { self.base.add(offset) })
    }

    /// The bytes at an offset, for memory that nobody writes to while the slice lives.
    ///
    /// # Safety
    ///
    /// No one, the kernel included, may write to the range during the borrow.
    pub(crate) unsafe fn stable_bytes(&self, offset: usize, len: usize) -> Option<&[u8]> {
        let end = offset.checked_add(len)?;
        if end > self.len {
            return None;
        }
        // SAFETY: the range lies inside the mapping; the caller promises that it stands still.
        Some(unsafe { std::slice::from_raw_parts(self.base.add(offset).as_ptr(), len) })
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `map`; nothing borrowed from it outlives `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        if let Err(error) = unmapped {
            log::warn!("unmap {} bytes: {error}", self.len);
        }
    }
}
