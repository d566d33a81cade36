//! Taking up, after a restart, what the disk and the kernel hold.

use std::collections::HashMap;

use log::{info, warn};

use super::manager::EndpointManager;
use super::record::EndpointRecord;
use super::state::EndpointState;
use super::store::Loaded;
use super::{regeneration, unreadable};
use crate::ipam::Lifetime;
use crate::netlink::Link;
use crate::{ErrorKind, IfIndex, Result};

/// Enters every endpoint on disk and brings those whose devices exist into force. What can't be brought into force stays,
/// not ready: nothing is removed here.
pub(super) fn restore(manager: &EndpointManager) -> Result<()> {
    let Loaded { records, unreadable } = manager.store.load()?;
    unreadable::keep(manager, &unreadable)?;
    *manager.orphans.lock() = unreadable::orphans(manager, &records)?;
    *manager.unreadable.lock() = unreadable;
    let links: HashMap<IfIndex, Link> =
        manager.wiring.socket.links()?.into_iter().map(|link| (link.index, link)).collect();
    let (mut live, total) = (0, records.len());
    let records = with_identities(manager, records)?;
    for (record, removing) in records {
        if removing {
            // Taken up again by collect(): nothing is removed before the caller says so.
            manager.enter(record, EndpointState::Restoring).advance(
                EndpointState::Disconnecting,
                true,
                "restoration",
            )?;
            continue;
        }
        let device = links.get(&record.ifindex).filter(|link| link.name == record.device);
        live += usize::from(restore_one(manager, record, device)?);
    }
    info!("restored {live} of {total} endpoints");
    Ok(())
}

/// Finds the endpoints' identities and brings their policies into force, all together and before anything else of them.
fn with_identities(
    manager: &EndpointManager,
    mut records: Vec<(EndpointRecord, bool)>,
) -> Result<Vec<(EndpointRecord, bool)>> {
    let staying = || records.iter().filter(|(_, removing)| !removing);
    let admissions = staying().map(|(record, _)| record.admission()).collect();
    let mut identities = manager.wiring.enforcement.restore(admissions)?.into_iter();
    for (record, _) in records.iter_mut().filter(|(_, removing)| !removing) {
        let Some(identity) = identities.next().filter(|identity| *identity != record.identity) else { continue };
        info!("endpoint {} has identity {identity}, it had {}", record.id, record.identity);
        record.identity = identity;
        manager.store.save(record)?;
    }
    Ok(records)
}

fn restore_one(manager: &EndpointManager, record: EndpointRecord, device: Option<&Link>) -> Result<bool> {
    if let Err(error) = keep_addresses(manager, &record) {
        warn!("endpoint {}: {error}", record.id);
    }
    let entry = manager.enter(record, EndpointState::Restoring);
    let _work = entry.work.lock();
    let Some(device) = device else {
        entry.advance(EndpointState::Regenerating, true, "restoration")?;
        entry.advance(EndpointState::NotReady, false, "its device is gone")?;
        return Ok(false);
    };
    // A creation that died at its last step leaves the device down.
    let raised = |()| if device.is_up { Ok(()) } else { manager.wiring.socket.link_set_up(device.index) };
    match regeneration::regenerate(manager, &entry, "restoration").and_then(raised) {
        Ok(()) => Ok(true),
        Err(error) => {
            warn!("endpoint {} can't be restored: {error}", entry.record().id);
            Ok(false)
        }
    }
}

/// Makes sure that the endpoint's addresses are its own for good: a crash may have come before they were claimed, and state
/// of IPAM may have been lost while the endpoint's was not.
fn keep_addresses(manager: &EndpointManager, record: &EndpointRecord) -> Result<()> {
    let ipam = &manager.wiring.ipam;
    for address in record.addresses() {
        match ipam.lease(address) {
            Some(lease) => {
                if let Some(expiration) = lease.expiration {
                    ipam.claim(address, expiration.id)?;
                }
            }
            None => match ipam.allocate(address, record.owner(), Lifetime::Permanent) {
                // Not part of the range any more: the endpoint keeps it while it lives.
                Err(error) if error.kind() == ErrorKind::InvalidInput => warn!("endpoint {}: {error}", record.id),
                allocated => {
                    allocated?;
                }
            },
        }
    }
    Ok(())
}
