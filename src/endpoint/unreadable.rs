//! Endpoints whose files can't be read: what the kernel and the address journal hold of them stays as it is.
//!
//! Such a pod goes on: its rows, policy, programs and addresses are those of before, whatever changes. It ends when its file was
//! moved away: then they are leftovers to the next process, which also frees the addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use log::{info, warn};

use super::manager::EndpointManager;
use super::record::EndpointRecord;
use super::scrub;
use super::store::Unreadable;
use crate::abi::{ENDPOINT_ROW_IPV4, ENDPOINT_ROW_IPV6, EndpointRow};
use crate::ipam::{Lease, Lifetime};
use crate::tables::LxcEntry;
use crate::{EndpointId, ErrorKind, IfIndex, Result, SecurityId};

/// What the kernel holds of an endpoint.
#[derive(Default)]
struct Traces {
    addresses: BTreeSet<IpAddr>,
    devices: BTreeSet<IfIndex>,
    identities: BTreeSet<SecurityId>,
}

/// An address by which the kernel knew an endpoint of which no file says anything, and to whom it is allocated.
pub(super) struct Orphan {
    address: IpAddr,
    owner: Arc<str>,
}

/// Makes sure that nobody gets what belongs to endpoints whose files can't be read. To be called before the others' policies
/// come into force, which may speak of these endpoints' identities.
pub(super) fn keep(manager: &EndpointManager, unreadable: &[Unreadable]) -> Result<()> {
    for Unreadable { id, reason } in unreadable {
        warn!("endpoint {id} can't be restored and is left as it is: {reason}");
        let traces = take_over(manager, *id)?;
        for address in &traces.addresses {
            if let Err(error) = keep_address(manager, *id, *address) {
                warn!("endpoint {id}: {error}");
            }
        }
        let identities = manager.wiring.enforcement.identities();
        for identity in traces.identities.into_iter().filter_map(|identity| identities.get(identity)) {
            // Never released: its number must not come to mean somebody else while addresses are mapped to it.
            identities.acquire(identity.labels())?;
        }
        manager.table.lock().keep(*id, traces.addresses, traces.devices);
    }
    Ok(())
}

/// What the kernel holds of an endpoint; its entries of `cilium_lxc` are ours from here on.
fn take_over(manager: &EndpointManager, id: EndpointId) -> Result<Traces> {
    let mut traces = Traces::default();
    for row in manager.wiring.rows.dump()?.iter().filter(|row| row.lxc_id == id.get()) {
        traces.addresses.extend(addresses_of(row));
        traces.devices.extend(IfIndex::new(row.ifindex));
        traces.identities.insert(SecurityId::new(row.sec_id));
    }
    for (address, entry) in manager.wiring.reach.entries()? {
        if let LxcEntry::Endpoint(endpoint) = entry
            && endpoint.id == id
        {
            manager.wiring.reach.adopt(address, endpoint)?;
            traces.addresses.insert(address);
            traces.devices.insert(endpoint.ifindex);
            traces.identities.insert(endpoint.identity);
        }
    }
    Ok(traces)
}

fn addresses_of(row: &EndpointRow) -> impl Iterator<Item = IpAddr> {
    let has = |flag| row.flags & flag != 0;
    let ipv4 = has(ENDPOINT_ROW_IPV4).then(|| Ipv4Addr::from(row.ipv4.to_ne_bytes()).into());
    ipv4.into_iter().chain(has(ENDPOINT_ROW_IPV6).then(|| Ipv6Addr::from(row.ipv6).into()))
}

/// Makes sure that an address stays allocated: a crash may have come before it was claimed, or the journal may be lost.
fn keep_address(manager: &EndpointManager, id: EndpointId, address: IpAddr) -> Result<()> {
    let ipam = &manager.wiring.ipam;
    match ipam.lease(address) {
        Some(lease) => lease.expiration.map_or(Ok(()), |expiration| ipam.claim(address, expiration.id)),
        None => ipam.allocate(address, &format!("unreadable endpoint {id}"), Lifetime::Permanent).map(drop),
    }
}

/// The addresses by which the kernel knows endpoints that no file tells of: those that were unreadable until somebody moved them
/// away. To be called before anybody can ask for an address.
pub(super) fn orphans(manager: &EndpointManager, known: &[(EndpointRecord, bool)]) -> Result<Vec<Orphan>> {
    let is_known = |id| known.iter().any(|(record, _)| record.id == id) || manager.table.lock().is_kept(id);
    let entries = manager.wiring.reach.entries()?.into_iter();
    let left = entries.filter(|(_, entry)| matches!(entry, LxcEntry::Endpoint(endpoint) if !is_known(endpoint.id)));
    let leases = left.filter_map(|(address, _)| manager.wiring.ipam.lease(address));
    // What nobody claimed expires by itself.
    let leases = leases.filter(|lease| lease.expiration.is_none());
    Ok(leases.map(|lease| Orphan { address: lease.address, owner: lease.owner }).collect())
}

/// Frees the addresses of endpoints that no file tells of, once the programs do not find them any more and everybody who
/// should exist does.
pub(super) fn release_orphans(manager: &EndpointManager) -> Result<()> {
    let orphans = std::mem::take(&mut *manager.orphans.lock());
    for Orphan { address, owner } in orphans {
        // Held, so that no endpoint takes the address meanwhile. Somebody may have it by now.
        let table = manager.table.lock();
        let ipam = &manager.wiring.ipam;
        let is_still = |lease: Lease| lease.owner == owner && lease.expiration.is_none();
        if table.by_address(address).is_some() || !ipam.lease(address).is_some_and(is_still) {
            continue;
        }
        drop(table);
        scrub::freed(manager, [address]);
        match ipam.release(address) {
            Ok(_) => info!("address {address} of {owner} is free: nothing tells of its endpoint any more"),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::WrongState) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
