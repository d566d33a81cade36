//! What callers get to see.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::Expiration;

/// Addresses handed out by one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allocation {
    /// The IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Set when the allocation must be claimed; the same for both addresses, each of which is claimed by itself.
    pub expiration: Option<Expiration>,
}

impl Allocation {
    /// The addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }
}

/// An address in use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The address.
    pub address: IpAddr,
    /// Whose it is.
    pub owner: Arc<str>,
    /// Set while nobody has claimed it.
    pub expiration: Option<Expiration>,
    /// Whether the address is not one of the configured range (see [`Stray`]).
    pub stray: bool,
}

/// An allocation found on disk whose address the configuration does not offer any more.
///
/// It stays allocated to its owner until it is released, and is back in its pool if the configuration offers it again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stray {
    /// The address.
    pub address: IpAddr,
    /// Whose it is.
    pub owner: Arc<str>,
    /// Why it is not part of a pool.
    pub reason: Cow<'static, str>,
}

/// What [`Ipam::open`](super::Ipam::open) found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// How many addresses were allocated, the router's and strays included.
    pub allocations: usize,
    /// How many of them are unclaimed; their periods begin anew.
    pub unclaimed: usize,
    /// Those that the configuration does not offer. The caller decides: keep them until their endpoints go, release them, or give up.
    pub strays: Vec<Stray>,
    /// The ranges of the last run (IPv4, IPv6), when they were others than now.
    pub other_ranges: Option<(Option<IpNetwork>, Option<IpNetwork>)>,
    /// Whether the unfinished write of a crash was cut off. What was lost by it had not been handed out.
    pub torn: bool,
}

/// The router's own addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouterAddresses {
    /// The IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

/// How full a pool is. Printed as `4/254 allocated from 10.0.1.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The pool's range.
    pub network: IpNetwork,
    /// Addresses in use, the router's included.
    pub allocated: u128,
    /// Addresses that can be in use at the same time: those of the range without the reserved and the excluded ones.
    pub capacity: u128,
    /// Addresses of the range that are reserved or excluded.
    pub excluded: u128,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} allocated from {}", self.allocated, self.capacity, self.network)
    }
}
