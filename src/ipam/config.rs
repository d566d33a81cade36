//! What an [`Ipam`](super::Ipam) is to manage.

use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::expiration::check_period;
use super::family::Family;
use crate::{Error, Result};

/// How long an address rests after its release, unless configured otherwise.
pub const DEFAULT_REUSE_DELAY: Duration = Duration::from_secs(30);

/// A period for [`Lifetime::UnlessClaimed`](super::Lifetime::UnlessClaimed) that no creation under way exceeds.
pub const DEFAULT_CLAIM_PERIOD: Duration = Duration::from_secs(600);

/// The ranges and the rules of an [`Ipam`](super::Ipam).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpamConfig {
    pub(super) ipv4: Option<IpNetwork>,
    pub(super) ipv6: Option<IpNetwork>,
    pub(super) excluded: Vec<IpNetwork>,
    pub(super) router: bool,
    pub(super) router_addresses: Vec<IpAddr>,
    pub(super) reuse_delay: Duration,
    pub(super) strict_reuse_delay: bool,
}

impl IpamConfig {
    /// A configuration without ranges; add one or two.
    pub fn new() -> Self {
        Self {
            ipv4: None,
            ipv6: None,
            excluded: Vec::new(),
            router: true,
            router_addresses: Vec::new(),
            reuse_delay: DEFAULT_REUSE_DELAY,
            strict_reuse_delay: false,
        }
    }

    /// Sets the range of its family. Any prefix length is good; bits beyond it must be zero.
    pub fn range(mut self, network: IpNetwork) -> Self {
        match network {
            IpNetwork::V4(_) => self.ipv4 = Some(network),
            IpNetwork::V6(_) => self.ipv6 = Some(network),
        }
        self
    }

    /// Whether an address lies in one of the ranges.
    pub fn covers(&self, address: IpAddr) -> bool {
        [self.ipv4, self.ipv6].into_iter().flatten().any(|range| range.contains(address))
    }

    /// Never hands out these addresses. What lies outside the ranges has no effect.
    pub fn exclude(mut self, network: impl Into<IpNetwork>) -> Self {
        self.excluded.push(network.into());
        self
    }

    /// Gives the router this address, instead of the first free one.
    pub fn router_address(mut self, address: IpAddr) -> Self {
        self.router_addresses.retain(|other| Family::of(*other) != Family::of(address));
        self.router_addresses.push(address);
        self
    }

    /// Allocates no address to the router.
    pub fn without_router(mut self) -> Self {
        self.router = false;
        self
    }

    /// How long an address rests after its release; zero to a year.
    pub fn reuse_delay(mut self, delay: Duration) -> Self {
        self.reuse_delay = delay;
        self
    }

    /// Whether a pool in which only resting addresses are left counts as exhausted. Otherwise the one that has rested longest is handed out.
    pub fn strict_reuse_delay(mut self, strict: bool) -> Self {
        self.strict_reuse_delay = strict;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.ipv4.is_none() && self.ipv6.is_none() {
            return Err(Error::invalid("address ranges", "", "expected an IPv4 range, an IPv6 range or both"));
        }
        for network in self.ipv4.iter().chain(&self.ipv6) {
            check_prefix("address range", *network)?;
        }
        for network in &self.excluded {
            check_prefix("excluded range", *network)?;
        }
        for address in &self.router_addresses {
            let wrong = match self.network(Family::of(*address)) {
                _ if !self.router => "the router is configured to have none",
                None => "no range of its family is configured",
                Some(_) => continue,
            };
            return Err(Error::invalid("router address", address.to_string(), wrong));
        }
        check_period("reuse delay", self.reuse_delay, Duration::ZERO)
    }

    pub(super) fn network(&self, family: Family) -> Option<IpNetwork> {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }

    pub(super) fn router_address_of(&self, family: Family) -> Option<IpAddr> {
        self.router_addresses.iter().copied().find(|address| Family::of(*address) == family)
    }
}

impl Default for IpamConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// One range and the default rules.
impl From<IpNetwork> for IpamConfig {
    fn from(network: IpNetwork) -> Self {
        Self::new().range(network)
    }
}

fn check_prefix(field: &'static str, network: IpNetwork) -> Result<()> {
    if network.ip() == network.network() {
        return Ok(());
    }
    let meant = format!("has bits set beyond its prefix: write {}/{}", network.network(), network.prefix());
    Err(Error::invalid(field, network.to_string(), meant))
}
