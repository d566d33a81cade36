//! [`RingBuffer`]: records from programs.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::handle::{Handle, map_methods};
use super::kind::MapType;
use super::spec::MapSpec;
use crate::sys::ringbuf::Ring;
use crate::{Error, Result};

/// The reading end of a `BPF_MAP_TYPE_RINGBUF` (kernel 5.8).
///
/// A ring has one reader: two of them, also in different processes, would hand each other's records out twice. The descriptor
/// is readable while records wait, for callers with an event loop of their own.
#[derive(Debug)]
pub struct RingBuffer {
    handle: Handle,
    ring: Ring,
}

impl RingBuffer {
    /// Creates an unpinned ring buffer.
    ///
    /// # Errors
    ///
    /// `InvalidInput` unless its size is a power of two and a multiple of the page size.
    pub fn create(spec: &MapSpec) -> Result<Self> {
        check_type(spec)?;
        let size = spec.max_entries();
        if !size.is_power_of_two() || !(size as usize).is_multiple_of(rustix::param::page_size()) {
            let reason =
                format!("must be a power of two and a multiple of the page size {}", rustix::param::page_size());
            return Err(Error::invalid("ring buffer size", size.to_string(), reason));
        }
        Self::from_handle(Handle::create(spec, None)?, spec)
    }

    map_methods!();

    fn from_handle(handle: Handle, spec: &MapSpec) -> Result<Self> {
        check_type(spec)?;
        let ring =
            Ring::map(handle.as_fd(), handle.max_entries()).map_err(|error| handle.fail("map into memory", error))?;
        Ok(Self { handle, ring })
    }

    /// Hands every finished record to `visit`, in order and without waiting, and returns how many there were.
    pub fn consume(&mut self, mut visit: impl FnMut(&[u8])) -> usize {
        self.consume_while(|record| {
            visit(record);
            ControlFlow::Continue(())
        })
    }

    /// The same, until `visit` breaks; the record it breaks at counts as consumed.
    pub fn consume_while(&mut self, visit: impl FnMut(&[u8]) -> ControlFlow<()>) -> usize {
        self.ring.consume(visit)
    }

    /// Bytes that wait, headers and padding included.
    pub fn pending_bytes(&self) -> u64 {
        self.ring.pending()
    }

    /// Size in bytes.
    pub fn size(&self) -> usize {
        self.handle.max_entries()
    }

    /// Waits until records wait, at most `timeout`, for ever without one; false when the time is up or a signal came.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut fds = [PollFd::new(&self.handle, PollFlags::IN)];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(self.handle.fail("poll", error.into())),
        }
    }
}

impl AsFd for RingBuffer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

fn check_type(spec: &MapSpec) -> Result<()> {
    if spec.map_type() == MapType::RINGBUF {
        return Ok(());
    }
    Err(Error::invalid("map specification", spec.name().to_owned(), "is not a ring buffer's"))
}
