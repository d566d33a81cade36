//! The connections of addresses that change hands.
//!
//! What answers a connection passes without a policy, and connections outlive the pod that had them. So they are removed before
//! their address serves another endpoint. The walk over the table that this takes is made once for all addresses that became
//! free since the last one: every few seconds, or when one of them is about to be used again.

use std::collections::HashSet;
use std::net::IpAddr;

use super::manager::EndpointManager;
use crate::Result;

/// Free addresses that may still have connections.
pub(super) struct Stale {
    /// Those freed by this process.
    addresses: HashSet<IpAddr>,
    /// What a predecessor freed is not known: every address without an endpoint counts.
    unknown: bool,
}

impl Stale {
    /// What is to be thought of a table in which a predecessor may have left connections.
    pub(super) fn unknown() -> Self {
        Self { addresses: HashSet::new(), unknown: true }
    }

    fn is_empty(&self) -> bool {
        self.addresses.is_empty() && !self.unknown
    }
}

/// Notes that addresses are nobody's any more. Programs must not find them when this is called.
pub(super) fn freed(manager: &EndpointManager, addresses: impl IntoIterator<Item = IpAddr>) {
    manager.stale.lock().addresses.extend(addresses);
}

/// Makes sure that nothing is left of whoever had these addresses before; programs must not find them yet.
pub(super) fn before_use(manager: &EndpointManager, addresses: impl IntoIterator<Item = IpAddr>) -> Result<()> {
    let mut stale = manager.stale.lock();
    if stale.unknown || addresses.into_iter().any(|address| stale.addresses.contains(&address)) {
        scrub(manager, &mut stale)?;
    }
    Ok(())
}

/// Removes the connections of free addresses, and returns how many there were.
pub(super) fn run(manager: &EndpointManager) -> Result<usize> {
    // Held throughout: nobody begins to use an address of which connections are being removed.
    let mut stale = manager.stale.lock();
    if stale.is_empty() { Ok(0) } else { scrub(manager, &mut stale) }
}

fn scrub(manager: &EndpointManager, stale: &mut Stale) -> Result<usize> {
    let wiring = &manager.wiring;
    let router = wiring.ipam.router();
    let mut taken: HashSet<IpAddr> = manager.table.lock().addresses().collect();
    taken.extend(router.ipv4.map(IpAddr::V4).into_iter().chain(router.ipv6.map(IpAddr::V6)));
    let is_free = |address| wiring.ipam.config().covers(address) && !taken.contains(&address);
    let is_stale = |address| stale.addresses.contains(&address) || stale.unknown && is_free(address);
    let removed = wiring.conntrack.flush_addresses(is_stale)?;
    *stale = Stale { addresses: HashSet::new(), unknown: false };
    Ok(removed)
}
