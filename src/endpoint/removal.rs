//! Removing an endpoint. Every step accepts that its object is gone already.

use std::net::IpAddr;

use log::{info, warn};

use super::manager::EndpointManager;
use super::record::EndpointRecord;
use super::state::EndpointState;
use super::table::Entry;
use super::{ownership, scrub, wiring};
use crate::netlink::Link;
use crate::{EndpointId, ErrorKind, Result};

/// What a removal found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The endpoint as it was.
    pub record: EndpointRecord,
    /// What of it was gone already, in words; empty as a rule.
    pub missing: Vec<String>,
}

/// Removes an endpoint whose `work` the caller holds. First it becomes unreachable, then its addresses become free, then its
/// device goes; the file goes last, so that a crash in between is taken up again.
pub(super) fn remove(manager: &EndpointManager, entry: &Entry) -> Result<Removal> {
    let record = entry.record();
    match entry.state() {
        // An earlier removal failed half-way.
        EndpointState::Disconnecting => {}
        _ => entry.advance(EndpointState::Disconnecting, true, "removal")?,
    }
    let missing = take_apart(manager, &record).inspect_err(|error| entry.note(false, error.to_string()))?;
    for identity in entry.take_former() {
        manager.wiring.enforcement.release_identity(identity);
    }
    entry.advance(EndpointState::Disconnected, true, "removed")?;
    manager.table.lock().remove(record.id);
    info!("endpoint {} ({}) is gone", record.id, record.name);
    Ok(Removal { record, missing })
}

fn take_apart(manager: &EndpointManager, record: &EndpointRecord) -> Result<Vec<String>> {
    let wiring = &manager.wiring;
    manager.store.begin_removal(record.id)?;
    let mut missing = Vec::new();
    let addresses: Vec<IpAddr> = record.addresses().collect();
    let removed = wiring.unmap(record)?;
    if removed < addresses.len() {
        missing.push(format!("{} of {} entries of cilium_lxc", addresses.len() - removed, addresses.len()));
    }
    if !wiring.rows.delete(record.ifindex)? {
        missing.push(format!("the row of device {}", record.ifindex));
    }
    wiring.enforcement.dismiss(record.id)?;
    scrub::freed(manager, record.addresses());
    for address in addresses {
        // Released by somebody else, it may belong to another by now.
        let held = wiring.ipam.lease(address).is_some_and(|lease| *lease.owner == *record.owner());
        match held.then(|| wiring.ipam.release(address)).transpose() {
            Ok(Some(_)) => {}
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => missing.push(format!("the allocation of {address}")),
        }
    }
    let was_there = match device(manager, record)? {
        Some(link) if ownership::is_ours(&link) => manager.reaper.delete(record.ifindex)?,
        Some(_) => wiring.attacher.detach_all(wiring::device(record)).map(|()| true)?,
        None => false,
    };
    if !was_there {
        missing.push(format!("device {}", record.device));
    }
    wiring.attacher.forget(&record.device)?;
    manager.store.remove(record.id)?;
    Ok(missing)
}

/// Removes every endpoint whose device is gone, and those whose removal began but did not end.
pub(super) fn collect(manager: &EndpointManager) -> Result<Vec<EndpointId>> {
    let links = manager.wiring.socket.links()?;
    let mut collected = Vec::new();
    let entries = manager.table.lock().entries();
    for entry in entries {
        let record = entry.record();
        let unfinished = entry.state() == EndpointState::Disconnecting;
        if !unfinished && links.iter().any(|link| link.index == record.ifindex && link.name == record.device) {
            continue;
        }
        // Somebody may have removed it since the devices were listed.
        let Ok(_work) = manager.begin(&entry) else { continue };
        if !unfinished && device(manager, &record)?.is_some() {
            continue;
        }
        let why = if unfinished { "its removal was cut short" } else { "its device is gone" };
        info!("endpoint {} ({}): {why}", record.id, record.name);
        match remove(manager, &entry) {
            Ok(removal) => collected.push(removal.record.id),
            Err(error) => warn!("endpoint {} can't be removed: {error}", record.id),
        }
    }
    Ok(collected)
}

/// The endpoint's device: only one that bears its name under its index is it.
fn device(manager: &EndpointManager, record: &EndpointRecord) -> Result<Option<Link>> {
    match manager.wiring.socket.link_by_index(record.ifindex) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        link => Ok(Some(link?).filter(|link| link.name == record.device)),
    }
}
