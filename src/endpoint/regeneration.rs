//! Writing an endpoint anew, and checking that what it needs is there.

use super::manager::EndpointManager;
use super::record::EndpointRecord;
use super::state::EndpointState;
use super::table::Entry;
use super::timings::{Stage, Timings};
use super::wiring::row;
use crate::tables::LxcEntry;
use crate::{ErrorKind, Result};

/// Writes everything of an endpoint whose `work` the caller holds. Its programs are attached again only where they are not
/// in place: what is attached serves every endpoint, so that a regeneration is map writes alone.
pub(super) fn regenerate(manager: &EndpointManager, entry: &Entry, reason: &str) -> Result<()> {
    entry.advance(EndpointState::Regenerating, true, reason)?;
    let mut timings = Timings::default();
    let outcome = write(manager, &entry.record(), &mut timings);
    entry.set_timings(timings);
    match outcome {
        Ok(()) => entry.advance(EndpointState::Ready, true, "regenerated"),
        Err(error) => {
            entry.advance(EndpointState::NotReady, false, error.to_string())?;
            Err(error)
        }
    }
}

fn write(manager: &EndpointManager, record: &EndpointRecord, timings: &mut Timings) -> Result<()> {
    let wiring = &manager.wiring;
    timings.time(Stage::Row, || wiring.write_row(record))?;
    timings.time(Stage::Attach, || if wiring.is_attached(record)? { Ok(()) } else { wiring.attach(record) })?;
    timings.time(Stage::Map, || wiring.write_addresses(record))
}

/// What is not as the endpoint needs it, in words.
pub(super) fn check(manager: &EndpointManager, record: &EndpointRecord) -> Result<Vec<String>> {
    let wiring = &manager.wiring;
    let mut wrong = Vec::new();
    match wiring.socket.link_by_index(record.ifindex) {
        Err(error) if error.kind() == ErrorKind::NotFound => wrong.push(format!("device {} is gone", record.device)),
        link => {
            let link = link?;
            if link.name != record.device {
                wrong.push(format!("device {} is named {}, not {}", record.ifindex, link.name, record.device));
            } else if !link.is_up {
                wrong.push(format!("device {} is down", record.device));
            } else if !wiring.is_attached(record)? {
                wrong.push(format!("the programs are not attached to {}", record.device));
            }
        }
    }
    if wiring.rows.lookup(record.ifindex)? != Some(row(record)) {
        wrong.push(format!("podwire_endpoints has no or another row for device {}", record.ifindex));
    }
    for address in record.addresses() {
        if wiring.reach.lookup(address)? != Some(LxcEntry::Endpoint(wiring.lxc_endpoint(record))) {
            wrong.push(format!("cilium_lxc has no or another entry for {address}"));
        }
    }
    wrong.extend(wiring.enforcement.problem(record.id)?);
    Ok(wrong)
}
