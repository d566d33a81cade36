//! Events: addresses and default routes that come, change and go.

use std::io;
use std::net::IpAddr;
use std::time::Instant;

use super::events::{subscribe, wait};
use super::route::TABLE_MAIN;
use super::{address, route, socket, wire};
use crate::netns::NetNs;
use crate::{Error, Result};

/// The multicast groups of addresses and routes (`RTNLGRP_IPV4_IFADDR`, `…_IPV4_ROUTE`, `…_IPV6_IFADDR`, `…_IPV6_ROUTE`).
const GROUPS: [u32; 4] = [5, 7, 9, 11];

/// Tells that addresses or default routes of a network namespace are others than before, from the moment of opening; which
/// they are, [`Socket::addresses`](super::Socket::addresses) and [`Socket::routes`](super::Socket::routes) say.
///
/// The kernel tells of no route that goes because its device goes down.
#[derive(Debug)]
pub struct AddressEvents {
    socket: netlink_sys::Socket,
    buffer: Vec<u8>,
}

impl AddressEvents {
    /// Opens in the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        let socket = subscribe(&GROUPS).map_err(|error| Error::system("open", "address events", error))?;
        Ok(Self { socket, buffer: vec![0; 8 * 1024] })
    }

    /// Opens in another network namespace.
    pub fn open_in(namespace: &NetNs) -> Result<Self> {
        namespace.run(Self::open)?
    }

    /// Whether anything has changed since the last call, or does so until the deadline. IPv6 addresses of the link don't count: every
    /// device has one, which comes and goes with it.
    pub fn changed(&mut self, deadline: Instant) -> Result<bool> {
        let mut changed = false;
        loop {
            match socket::receive(&self.socket, &mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(length) => changed |= matters(self.buffer.get(..length).unwrap_or_default()),
                // Events were lost.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if changed || !wait(&self.socket, deadline)? {
                        return Ok(changed);
                    }
                }
                Err(error) => return Err(Error::system("receive", "address events", error)),
            }
        }
    }
}

/// Whether a datagram tells of an address or a default route. What can't be read may do so.
fn matters(datagram: &[u8]) -> bool {
    wire::frames(datagram).any(|frame| frame.and_then(|frame| frame_matters(&frame)).unwrap_or(true))
}

fn frame_matters(frame: &wire::Frame<'_>) -> Result<bool> {
    if let Some(address) = address::parse(frame)? {
        return Ok(!matches!(address.address.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local()));
    }
    Ok(route::parse(frame)?.is_some_and(|route| route.destination.prefix() == 0 && route.table == TABLE_MAIN))
}
