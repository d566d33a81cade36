//! Writing an endpoint anew, and checking that what it needs is there.

use log::warn;

use super::manager::EndpointManager;
use super::record::EndpointRecord;
use super::state::EndpointState;
use super::table::Entry;
use super::timings::{Stage, Timings};
use super::wiring::row;
use crate::tables::LxcEntry;
use crate::{Error, ErrorKind, Result};

/// Writes everything of an endpoint whose `work` the caller holds. Its programs are attached again only where they are not
/// in place: what is attached serves every endpoint, so that a regeneration is map writes alone.
pub(super) fn regenerate(manager: &EndpointManager, entry: &Entry, reason: &str) -> Result<()> {
    entry.advance(EndpointState::Regenerating, true, reason)?;
    let mut timings = Timings::default();
    let outcome = write(manager, &entry.record(), &mut timings);
    entry.set_timings(timings);
    conclude(manager, entry, outcome)
}

fn conclude(manager: &EndpointManager, entry: &Entry, outcome: Result<()>) -> Result<()> {
    match outcome {
        Ok(()) => {
            for identity in entry.take_former() {
                manager.wiring.enforcement.release_identity(identity);
            }
            entry.advance(EndpointState::Ready, true, "regenerated")
        }
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

/// Whether an endpoint that is settled lacks its programs though its device is there.
pub(super) fn is_detached(manager: &EndpointManager, entry: &Entry) -> bool {
    let record = entry.record();
    is_settled(entry) && matches!(manager.wiring.is_attached(&record), Ok(false)) && has_device(manager, &record)
}

/// What an endpoint that is settled lacks though its device is there, in words: somebody has taken its programs, or the row by which they
/// know it, or not all of it could be written the last time.
fn deprived(manager: &EndpointManager, entry: &Entry) -> Option<&'static str> {
    if is_detached(manager, entry) {
        return Some("its programs had been taken off");
    }
    let record = entry.record();
    if entry.state() == EndpointState::NotReady && has_device(manager, &record) {
        return Some("it was not ready");
    }
    let lacks_row = is_settled(entry)
        && manager.wiring.rows.lookup(record.ifindex).is_ok_and(|found| found != Some(row(&record)))
        && has_device(manager, &record);
    lacks_row.then_some("its row in podwire_endpoints had been changed")
}

fn is_settled(entry: &Entry) -> bool {
    matches!(entry.state(), EndpointState::Ready | EndpointState::NotReady)
}

/// Whether its device is there; another one may have its number by now.
fn has_device(manager: &EndpointManager, record: &EndpointRecord) -> bool {
    manager.wiring.socket.link_by_index(record.ifindex).is_ok_and(|link| link.name == record.device)
}

/// Regenerates every endpoint that lacks what lets its packets pass. A failure that was told is told again only when it is another.
pub(super) fn restore_deprived(manager: &EndpointManager) {
    let entries = manager.table.lock().entries();
    for entry in entries.iter().filter(|entry| deprived(manager, entry).is_some()) {
        let Ok(_work) = manager.begin(entry) else { continue };
        // Somebody may have worked on it meanwhile.
        let Some(what) = deprived(manager, entry) else { continue };
        let (record, mut timings) = (entry.record(), Timings::default());
        let outcome = write(manager, &record, &mut timings);
        let told = |error: &Error| entry.state() == EndpointState::NotReady && entry.said_last(&error.to_string());
        if outcome.as_ref().is_err_and(told) {
            continue;
        }
        let begun = entry.advance(EndpointState::Regenerating, true, what);
        match begun.and_then(|()| conclude(manager, entry, outcome)) {
            Ok(()) => warn!("endpoint {} ({}): {what}; it is as it should be", record.id, record.device),
            Err(error) => warn!("endpoint {} ({}): {what}: {error}", record.id, record.device),
        }
    }
}

/// Why no packet passes the endpoint's device, in words.
pub(super) fn unconnected(manager: &EndpointManager, record: &EndpointRecord) -> Result<Option<String>> {
    let name = &record.device;
    let link = match manager.wiring.socket.link_by_index(record.ifindex) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(format!("device {name} is gone"))),
        link => link?,
    };
    Ok(if link.name != *name {
        Some(format!("device {} is named {}, not {name}", record.ifindex, link.name))
    } else if !link.is_up {
        Some(format!("device {name} is down"))
    } else if !link.is_running {
        Some(format!("device {name} has no carrier: {} inside of the container is down", record.interface))
    } else {
        None
    })
}

/// What, but for its policy, is not as the endpoint needs it, in words.
pub(super) fn check(manager: &EndpointManager, record: &EndpointRecord) -> Result<Vec<String>> {
    let wiring = &manager.wiring;
    let mut wrong: Vec<String> = unconnected(manager, record)?.into_iter().collect();
    if wrong.is_empty() && !wiring.is_attached(record)? {
        wrong.push(format!("the programs are not attached to {}", record.device));
    }
    if wiring.rows.lookup(record.ifindex)? != Some(row(record)) {
        wrong.push(format!("podwire_endpoints has no or another row for device {}", record.ifindex));
    }
    for address in record.addresses() {
        if wiring.reach.lookup(address)? != Some(LxcEntry::Endpoint(wiring.lxc_endpoint(record))) {
            wrong.push(format!("cilium_lxc has no or another entry for {address}"));
        }
    }
    Ok(wrong)
}
