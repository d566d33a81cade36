//! Events: devices that come, change and go.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use neli::consts::rtnl::Rtm;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;

use super::link::{self, Link};
use super::socket::{self, Socket};
use super::wire;
use crate::netns::NetNs;
use crate::{Error, IfIndex, Result};

/// The multicast group of devices' events (`RTNLGRP_LINK`).
const RTNLGRP_LINK: u32 = 1;

/// Bytes that the kernel may keep for us: about a thousand events.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// Something that happened to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkEvent {
    /// It was created, came from another namespace, or changed.
    New(Box<Link>),
    /// It was deleted or went to another namespace.
    Deleted {
        /// The index that it had.
        index: IfIndex,
        /// The name that it had.
        name: String,
    },
    /// Events were lost, because they were not taken quickly enough: read the state anew with
    /// [`Socket::links`](super::Socket::links).
    Lost,
}

/// The events of all devices in a network namespace, from the moment of opening.
///
/// To wait together with other things, poll the descriptor for reading, then call [`LinkEvents::next`] with a deadline
/// that has passed until it returns `None`.
#[derive(Debug)]
pub struct LinkEvents {
    socket: netlink_sys::Socket,
    /// Asks again after a loss.
    queries: Socket,
    buffer: Vec<u8>,
    ready: VecDeque<LinkEvent>,
}

impl LinkEvents {
    /// Opens in the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        let socket = subscribe(&[RTNLGRP_LINK]).map_err(|error| Error::system("open", "device events", error))?;
        Ok(Self { socket, queries: Socket::open()?, buffer: vec![0; 8 * 1024], ready: VecDeque::new() })
    }

    /// Opens in another network namespace.
    pub fn open_in(namespace: &NetNs) -> Result<Self> {
        namespace.run(Self::open)?
    }

    /// The next event; `None` when there is none until the deadline.
    pub fn next(&mut self, deadline: Instant) -> Result<Option<LinkEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            match socket::receive(&self.socket, &mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(length) => self.ready.extend(parse(self.buffer.get(..length).unwrap_or_default())?),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Some(LinkEvent::Lost)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !wait(&self.socket, deadline)? {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(Error::system("receive", "device events", error)),
            }
        }
    }

    /// Passes events by until the device with this index is deleted, or leaves the namespace; `false` when that does not
    /// happen until the deadline. After a loss of events it looks whether the device is still there.
    ///
    /// Open the events before whatever deletes the device: they tell of it up to 20 ms before the deletion returns.
    pub fn wait_deleted(&mut self, index: IfIndex, deadline: Instant) -> Result<bool> {
        loop {
            match self.next(deadline)? {
                Some(LinkEvent::Deleted { index: deleted, .. }) if deleted == index => return Ok(true),
                Some(LinkEvent::Lost) if self.queries.link_if_any(index)?.is_none() => return Ok(true),
                Some(_) => (),
                None => return Ok(false),
            }
        }
    }
}

impl AsFd for LinkEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket that hears what the kernel tells these multicast groups.
pub(super) fn subscribe(groups: &[u32]) -> io::Result<netlink_sys::Socket> {
    let socket = socket::open_route_socket()?;
    // beyond the usual limit where that is allowed
    sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER))?;
    groups.iter().try_for_each(|group| socket.add_membership(*group))?;
    Ok(socket)
}

/// Waits until there is something to read; `false` when the deadline comes first.
pub(super) fn wait(socket: &netlink_sys::Socket, deadline: Instant) -> Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // a duration beyond what the system can express is as good as none
        let timeout = Timespec::try_from(left).ok();
        let mut descriptors = [PollFd::new(socket, PollFlags::IN)];
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => (),
            Err(error) => return Err(Error::system("wait for", "events", error)),
        }
    }
}

/// The events of a datagram.
fn parse(datagram: &[u8]) -> Result<Vec<LinkEvent>> {
    let mut events = Vec::new();
    for frame in wire::frames(datagram) {
        let frame = frame?;
        let Some(link) = link::parse(&frame)? else { continue };
        events.push(if frame.is(Rtm::Dellink) {
            LinkEvent::Deleted { index: link.index, name: link.name }
        } else {
            LinkEvent::New(Box::new(link))
        });
    }
    Ok(events)
}
