//! Memory shared with the kernel, accessed only through atomics.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

/// A shared, writable mapping of a file descriptor, unmapped on drop.
///
/// Programs and other processes write to the memory at any time; it is therefore only lent out as atomics.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is only accessed through atomics.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps `len` bytes from `offset`.
    pub(crate) fn map(fd: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        Self::with_protection(fd, offset, len, ProtFlags::READ | ProtFlags::WRITE)
    }

    fn with_protection(fd: BorrowedFd<'_>, offset: u64, len: usize, protection: ProtFlags) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice disturbs no other memory.
        let base = unsafe { rustix::mm::mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, fd, offset)? };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))?;
        Ok(Self { base, len })
    }

    /// The 8 bytes at an aligned offset.
    #[inline]
    pub(crate) fn u64_at(&self, offset: usize) -> Option<&AtomicU64> {
        let address = self.locate(offset, size_of::<u64>())?;
        // SAFETY: in bounds and aligned (checked); the memory lives as long as `self`.
        Some(unsafe { AtomicU64::from_ptr(address.cast().as_ptr()) })
    }

    /// The 4 bytes at an aligned offset.
    #[inline]
    pub(crate) fn u32_at(&self, offset: usize) -> Option<&AtomicU32> {
        let address = self.locate(offset, size_of::<u32>())?;
        // SAFETY: as in `u64_at`.
        Some(unsafe { AtomicU32::from_ptr(address.cast().as_ptr()) })
    }

    #[inline]
    fn locate(&self, offset: usize, size: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(size)?;
        if end > self.len || !offset.is_multiple_of(size) {
            return None;
        }
        // SAFETY: `offset + size` lies inside the mapping.
        Some(unsafe { self.base.add(offset) })
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

/// The same without the right to write.
#[derive(Debug)]
pub(crate) struct ReadOnlyMemory(SharedMemory);

impl ReadOnlyMemory {
    /// Maps `len` bytes from `offset`.
    pub(crate) fn map(fd: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        SharedMemory::with_protection(fd, offset, len, ProtFlags::READ).map(Self)
    }

    /// Loads the 8 bytes at an aligned offset.
    #[inline]
    pub(crate) fn load_u64(&self, offset: usize, order: Ordering) -> Option<u64> {
        self.0.u64_at(offset).map(|word| word.load(order))
    }

    /// Loads the 4 bytes at an aligned offset.
    #[inline]
    pub(crate) fn load_u32(&self, offset: usize, order: Ordering) -> Option<u32> {
        self.0.u32_at(offset).map(|word| word.load(order))
    }

    /// The bytes at an offset, for memory that nobody writes to while the slice lives.
    ///
    /// # Safety
    ///
    /// No one, the kernel included, may write to the range during the borrow.
    pub(crate) unsafe fn stable_bytes(&self, offset: usize, len: usize) -> Option<&[u8]> {
        if offset.checked_add(len)? > self.0.len {
            return None;
        }
        // SAFETY: the range lies inside the mapping; the caller promises that it stands still.
        Some(unsafe { std::slice::from_raw_parts(self.0.base.add(offset).as_ptr(), len) })
    }
}
