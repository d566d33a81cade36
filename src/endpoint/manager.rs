//! The endpoints of a node, and what callers do with them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use log::{info, warn};
use parking_lot::{Mutex, MutexGuard};

use super::reach::Reach;
use super::reaper::Reaper;
use super::record::{Endpoint, EndpointRecord, NamedPort, names_of};
use super::reference::EndpointRef;
use super::removal::Removal;
use super::scrub::Stale;
use super::spec::EndpointSpec;
use super::state::EndpointState;
use super::stock::{STOCK, Stocker};
use super::store::{Store, Unreadable};
use super::table::{Entry, Table};
use super::timings::{Stage, Timings};
use super::unreadable::Orphan;
use super::wiring::Wiring;
use super::{creation, regeneration, removal, restoration, scrub, unreadable};
use crate::enforcement::Relabelled;
use crate::netlink::Socket;
use crate::{EndpointId, Error, IfIndex, Label, Result};

/// The endpoints of a node. Shared between threads; operations on different endpoints run side by side.
///
/// Creation and regeneration return when the endpoint is in force: the next packet is judged by what they wrote.
pub struct EndpointManager {
    pub(super) wiring: Wiring,
    pub(super) store: Store,
    pub(super) table: Mutex<Table>,
    pub(super) reaper: Reaper,
    /// The devices of the node itself, which can be no endpoint's.
    pub(super) node_devices: Mutex<Vec<IfIndex>>,
    pub(super) stale: Mutex<Stale>,
    pub(super) unreadable: Mutex<Vec<Unreadable>>,
    pub(super) orphans: Mutex<Vec<Orphan>>,
    stocker: Stocker,
}

impl EndpointManager {
    /// Opens the endpoints on disk and brings those whose devices exist into force again. Nothing is removed: endpoints
    /// whose devices are gone stay, not ready, until [`collect`](Self::collect).
    pub(crate) fn open(state_dir: &Path, wiring: Wiring) -> Result<Self> {
        let (store, reaper) = (Store::open(state_dir)?, Reaper::new()?);
        let manager = Self {
            wiring,
            store,
            table: Mutex::default(),
            reaper,
            node_devices: Mutex::default(),
            stale: Mutex::new(Stale::unknown()),
            unreadable: Mutex::default(),
            orphans: Mutex::default(),
            stocker: Stocker::default(),
        };
        restoration::restore(&manager)?;
        manager.restock();
        Ok(manager)
    }

    /// Creates an endpoint, which is live when this returns.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a malformed request, `AlreadyExists` for a container that has an endpoint under that interface,
    /// `Exhausted` where addresses, ids or maps are used up, `NotFound` for a namespace or device that is gone. Everything
    /// done until then is undone.
    pub fn create(&self, spec: EndpointSpec) -> Result<Endpoint> {
        let entry = creation::create(self, &spec)?;
        self.restock();
        let endpoint = entry.snapshot();
        info!("endpoint {} ({}) is live after {:?}", endpoint.id(), endpoint.record.name, endpoint.timings.total());
        Ok(endpoint)
    }

    /// Writes everything of an endpoint anew: its row, its addresses, its attachments; its policy, if what is in force is not
    /// as it was written.
    pub fn regenerate(&self, id: EndpointId) -> Result<Endpoint> {
        let entry = self.entry(id)?;
        let _work = self.begin(&entry)?;
        let repaired = self.wiring.enforcement.writer().repair(id);
        if let Ok(true) = repaired {
            warn!("endpoint {id}: somebody else had changed its policy; it is as it was");
        }
        regeneration::regenerate(self, &entry, "regeneration on request")?;
        repaired.map(|_| entry.snapshot())
    }

    /// Adds labels to an endpoint and removes others, by source and key. In force when this returns.
    pub fn change_labels(&self, id: EndpointId, add: &[Label], remove: &[Label]) -> Result<Endpoint> {
        let entry = self.entry(id)?;
        let _work = self.begin_change(&entry)?;
        let mut record = entry.record();
        for label in remove {
            if !record.labels.remove(label.source(), label.key()) {
                return Err(Error::not_found("label", label.to_string()));
            }
        }
        for label in add {
            record.labels.insert(label.clone())?;
        }
        // Policies first: whoever meets the new identity knows it.
        let Relabelled { identity, before } = self.wiring.enforcement.relabel(id, &record.labels)?;
        record.identity = identity;
        if let Err(error) = self.store.save(&record) {
            self.wiring.enforcement.relabel(id, &entry.record().labels)?;
            self.wiring.enforcement.release_identity(identity);
            self.wiring.enforcement.release_identity(before);
            return Err(error);
        }
        entry.change_identity(record, before);
        regeneration::regenerate(self, &entry, "labels changed")?;
        Ok(entry.snapshot())
    }

    /// Makes these all the names that an endpoint has given to its ports. In force when this returns, and kept over restarts.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a name that no rule could call, a protocol without ports and port 0; `Exhausted` where its policy would grow
    /// too large.
    pub fn name_ports(&self, id: EndpointId, ports: Vec<NamedPort>) -> Result<Endpoint> {
        ports.iter().try_for_each(NamedPort::check)?;
        let entry = self.entry(id)?;
        let _work = self.begin_change(&entry)?;
        self.wiring.enforcement.name_ports(id, names_of(&ports))?;
        let record = EndpointRecord { named_ports: ports, ..entry.record() };
        if let Err(error) = self.store.save(&record) {
            self.wiring.enforcement.name_ports(id, names_of(&entry.record().named_ports))?;
            return Err(error);
        }
        entry.set_record(record);
        regeneration::regenerate(self, &entry, "ports named")?;
        Ok(entry.snapshot())
    }

    /// Whether what an endpoint's policy denies is only reported. In force when this returns, and kept over restarts.
    pub fn set_audit(&self, id: EndpointId, on: bool) -> Result<Endpoint> {
        let entry = self.entry(id)?;
        let _work = self.begin_change(&entry)?;
        let record = EndpointRecord { audit: on, ..entry.record() };
        self.store.save(&record)?;
        entry.set_record(record);
        regeneration::regenerate(self, &entry, if on { "policy is audited" } else { "policy is enforced" })?;
        Ok(entry.snapshot())
    }

    /// Whether what policy denies is only reported, of every endpoint.
    pub fn audits_all(&self) -> bool {
        self.wiring.audit.load(Ordering::Relaxed)
    }

    /// Sets whether what policy denies is only reported, of every endpoint. In force when this returns.
    ///
    /// # Errors
    ///
    /// That of the first endpoint that can't be regenerated, for which it comes into force with the rest that it lacks. It is in
    /// force for the others.
    pub fn set_audit_all(&self, on: bool) -> Result<()> {
        self.wiring.audit.store(on, Ordering::Relaxed);
        // Not in the loop's head, where the lock would be held to the end.
        let entries = self.table.lock().entries();
        let mut outcome = Ok(());
        for entry in entries {
            let Ok(_work) = self.begin_change(&entry) else { continue };
            outcome = outcome.and(regeneration::regenerate(self, &entry, "audit of policy changed"));
        }
        outcome
    }

    /// Removes an endpoint: its reachability, its addresses, its device. What of it is gone already is reported. A device that
    /// the caller made stays, without programs: deleting it, or taking it down, is the caller's work, too.
    ///
    /// # Errors
    ///
    /// `NotFound` for an id that no endpoint has. Other failures leave the endpoint disconnecting; removing it again goes on.
    pub fn delete(&self, id: EndpointId) -> Result<Removal> {
        let entry = self.entry(id)?;
        let _work = self.begin(&entry)?;
        removal::remove(self, &entry)
    }

    /// The endpoint with an id.
    pub fn get(&self, id: EndpointId) -> Result<Endpoint> {
        Ok(self.entry(id)?.snapshot())
    }

    /// Every endpoint that a reference names, in the order of their ids.
    pub fn find(&self, reference: &EndpointRef) -> Vec<Endpoint> {
        if let EndpointRef::Id(id) = reference {
            return self.get(*id).into_iter().collect();
        }
        let entries = self.table.lock().entries();
        entries.iter().filter(|entry| reference.matches(&entry.record())).map(|entry| entry.snapshot()).collect()
    }

    /// Every endpoint, in the order of their ids.
    pub fn list(&self) -> Vec<Endpoint> {
        let entries = self.table.lock().entries();
        entries.iter().map(|entry| entry.snapshot()).collect()
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.table.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes the endpoints whose devices are gone: the namespace ended without anybody deleting the endpoint. Returns
    /// their ids.
    ///
    /// To be called only when nobody is about to bring their devices back.
    pub fn collect(&self) -> Result<Vec<EndpointId>> {
        removal::collect(self)
    }

    /// Removes the connections that endpoints left which are gone, so that nobody who gets their addresses inherits them; returns
    /// how many there were. Where this was not called, the next creation with such an address does it first.
    pub fn scrub(&self) -> Result<usize> {
        scrub::run(self)
    }

    /// The endpoints off whose devices somebody took the programs.
    pub fn detached(&self) -> Vec<EndpointId> {
        let entries = self.table.lock().entries();
        entries.iter().filter(|entry| regeneration::is_detached(self, entry)).map(|entry| entry.record().id).collect()
    }

    /// Writes the endpoints anew whose programs or rows somebody took away.
    pub(crate) fn restore_deprived(&self) {
        regeneration::restore_deprived(self);
    }

    /// Whether a device is an endpoint's.
    pub(crate) fn has_device(&self, index: IfIndex) -> bool {
        self.table.lock().by_device(index).is_some()
    }

    /// Checks that what is in the kernel is what the endpoint needs: its device, up and with a carrier; its row; its addresses; its programs.
    /// The answer lists what is wrong, its policy included; empty for a healthy endpoint.
    pub fn check(&self, id: EndpointId) -> Result<Vec<String>> {
        let mut wrong = self.check_wiring(id)?;
        wrong.extend(self.wiring.enforcement.problem(id)?);
        Ok(wrong)
    }

    /// The same [check](Self::check) without its policy, of which [`Enforcement::problem`](crate::enforcement::Enforcement::problem) tells.
    pub fn check_wiring(&self, id: EndpointId) -> Result<Vec<String>> {
        let entry = self.entry(id)?;
        regeneration::check(self, &entry.record())
    }

    /// Why no packet passes the endpoint's device, where that is so: it is gone, down, or without a carrier.
    pub fn unconnected(&self, id: EndpointId) -> Result<Option<String>> {
        let entry = self.entry(id)?;
        regeneration::unconnected(self, &entry.record())
    }

    /// Says which devices are the node's own: none of them can be an endpoint's.
    pub(crate) fn set_node_devices(&self, devices: Vec<IfIndex>) {
        *self.node_devices.lock() = devices;
    }

    /// A socket in the node's namespace.
    pub(crate) fn socket(&self) -> &Socket {
        &self.wiring.socket
    }

    /// How the endpoints are reached.
    pub(crate) fn reach(&self) -> &Reach {
        &self.wiring.reach
    }

    /// Removes rows of devices that no endpoint has; returns how many there were.
    pub(crate) fn remove_stray_rows(&self) -> Result<usize> {
        let mut removed = 0;
        for row in self.wiring.rows.dump()? {
            let Some(ifindex) = IfIndex::new(row.ifindex) else { continue };
            // Held, so that no creation takes the device meanwhile.
            let table = self.table.lock();
            if table.by_device(ifindex).is_none() && self.wiring.rows.delete(ifindex)? {
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The endpoints whose files could not be read when this was opened. Their pods may be alive: what they have is no leftover.
    pub(crate) fn unreadable(&self) -> Vec<Unreadable> {
        self.unreadable.lock().clone()
    }

    /// Frees the addresses of endpoints that no file tells of; to be called when their entries of `cilium_lxc` are gone.
    pub(crate) fn release_orphans(&self) -> Result<()> {
        unreadable::release_orphans(self)
    }

    /// Policies in advance for the endpoints that come next.
    fn restock(&self) {
        let upcoming = self.table.lock().upcoming(STOCK);
        self.stocker.refill(&self.wiring.enforcement, upcoming);
    }

    /// Waits until nobody else works on an endpoint; an error where it ended meanwhile.
    pub(super) fn begin<'a>(&self, entry: &'a Arc<Entry>) -> Result<MutexGuard<'a, ()>> {
        let work = entry.work.lock();
        let id = entry.record().id;
        match self.entry(id) {
            Ok(current) if Arc::ptr_eq(&current, entry) => Ok(work),
            _ => Err(Error::not_found("endpoint", id.to_string())),
        }
    }

    /// The same, to change it: an error where its removal has begun, which a change must not undo.
    fn begin_change<'a>(&self, entry: &'a Arc<Entry>) -> Result<MutexGuard<'a, ()>> {
        let work = self.begin(entry)?;
        entry.state().advance(EndpointState::Regenerating, entry.record().id)?;
        Ok(work)
    }

    pub(super) fn entry(&self, id: EndpointId) -> Result<Arc<Entry>> {
        self.table.lock().entry(id)
    }

    /// Brings what `record` says into force. In this order, so that a packet from the pod is judged by its row as soon as
    /// a program sees it, and one for the pod finds the pod ready.
    pub(super) fn wire(&self, record: &EndpointRecord, timings: &mut Timings) -> Result<()> {
        timings.time(Stage::Row, || self.wiring.write_row(record))?;
        timings.time(Stage::Attach, || self.wiring.attach(record))?;
        timings.time(Stage::Map, || self.wiring.write_addresses(record))
    }

    /// An entry in the table, in the state with which it begins.
    pub(super) fn enter(&self, record: EndpointRecord, state: EndpointState) -> Arc<Entry> {
        let entry = Entry::new(record, state);
        self.table.lock().insert(entry.clone());
        entry
    }
}
