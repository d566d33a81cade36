//! The consumer's half of `BPF_MAP_TYPE_RINGBUF`, after the kernel's `Documentation/bpf/ringbuf.rst` and
//! `kernel/bpf/ringbuf.c`: one page with the consumer's position (writable), one with the producer's, then the data twice in
//! a row, so that a record that wraps can be read as one piece.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use super::mmap::{ReadOnlyMemory, SharedMemory};

/// Set in a record's length while its producer still writes to it.
const BUSY: u32 = 1 << 31;
/// Set in a record's length when its producer threw it away.
const DISCARDED: u32 = 1 << 30;
/// Length of a record's header, and the alignment of records.
const HEADER: usize = 8;

/// The mapped ring.
#[derive(Debug)]
pub(crate) struct Ring {
    consumer: SharedMemory,
    producer: ReadOnlyMemory,
    /// Where the data start in `producer`.
    data: usize,
    mask: u64,
}

impl Ring {
    /// Maps a ring buffer of `size` bytes (a power of two).
    pub(crate) fn map(fd: BorrowedFd<'_>, size: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let mask = (size as u64).checked_sub(1).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        let consumer = SharedMemory::map(fd, 0, page)?;
        let producer = ReadOnlyMemory::map(fd, page as u64, page + 2 * size)?;
        Ok(Self { consumer, producer, data: page, mask })
    }

    /// Bytes written and not consumed yet.
    pub(crate) fn pending(&self) -> u64 {
        let consumed = self.consumer.u64_at(0).map_or(0, |position| position.load(Ordering::Relaxed));
        self.produced().saturating_sub(consumed)
    }

    fn produced(&self) -> u64 {
        self.producer.load_u64(0, Ordering::Acquire).unwrap_or(0)
    }

    /// Hands every finished record that there is at the call to `visit` in order, up to the first unfinished one or until
    /// `visit` breaks, and returns how many were handed out. A record's room is given back when `visit` returns. It comes to an
    /// end also where records are written faster than they are visited.
    pub(crate) fn consume(&mut self, mut visit: impl FnMut(&[u8]) -> ControlFlow<()>) -> usize {
        let Some(consumed) = self.consumer.u64_at(0) else { return 0 };
        let mut seen = 0;
        // This side is the only writer of its position: `&mut self` in this process, one consumer per ring by contract.
        let mut position = consumed.load(Ordering::Relaxed);
        let end = self.produced();
        while position < end {
            let offset = self.data + (position & self.mask) as usize;
            // Acquire pairs with the producer's commit: after it the record's bytes are complete.
            let Some(length) = self.producer.load_u32(offset, Ordering::Acquire).filter(|length| length & BUSY == 0)
            else {
                break;
            };
            let payload = (length & !DISCARDED) as usize;
            let mut flow = ControlFlow::Continue(());
            if length & DISCARDED == 0 {
                // SAFETY: a committed record is not written to before the consumer's position passes it, which only the
                // store below does.
                let Some(bytes) = (unsafe { self.producer.stable_bytes(offset + HEADER, payload) }) else { break };
                flow = visit(bytes);
                seen += 1;
            }
            position += (payload + HEADER).next_multiple_of(HEADER) as u64;
            // Sequentially consistent, so that the producer's position, when it is read next, here or by the kernel's poll, can't
            // be older than what a producer saw of this one: otherwise it would leave out the wake-up while this side waits.
            consumed.store(position, Ordering::SeqCst);
            if flow.is_break() {
                break;
            }
        }
        seen
    }
}
