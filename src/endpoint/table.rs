//! The endpoints in memory, and who is about to become one.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::record::{Endpoint, EndpointRecord, LogEntry};
use super::state::EndpointState;
use super::timings::Timings;
use crate::{EndpointId, Error, IfIndex, Result, SecurityId};

/// How many log lines an endpoint keeps.
const LOG_MAX: usize = 64;

/// One endpoint. `work` is held by whoever changes it in the kernel, `view` only for as long as it takes to look.
pub(super) struct Entry {
    pub(super) work: Mutex<()>,
    view: Mutex<View>,
}

struct View {
    record: EndpointRecord,
    state: EndpointState,
    timings: Timings,
    log: VecDeque<LogEntry>,
    former: Vec<SecurityId>,
}

impl Entry {
    pub(super) fn new(record: EndpointRecord, state: EndpointState) -> Arc<Self> {
        let view = View { record, state, timings: Timings::default(), log: VecDeque::new(), former: Vec::new() };
        Arc::new(Self { work: Mutex::new(()), view: Mutex::new(view) })
    }

    pub(super) fn record(&self) -> EndpointRecord {
        self.view.lock().record.clone()
    }

    pub(super) fn state(&self) -> EndpointState {
        self.view.lock().state
    }

    pub(super) fn snapshot(&self) -> Endpoint {
        let view = self.view.lock();
        Endpoint {
            record: view.record.clone(),
            state: view.state,
            timings: view.timings.clone(),
            log: view.log.iter().cloned().collect(),
        }
    }

    pub(super) fn set_record(&self, record: EndpointRecord) {
        self.view.lock().record = record;
    }

    /// Puts another identity in its record's place. The one before is held until nothing is mapped to it any more.
    pub(super) fn change_identity(&self, record: EndpointRecord, former: SecurityId) {
        let mut view = self.view.lock();
        view.record = record;
        view.former.push(former);
    }

    /// The identities before the present one that are still held, which the caller is to release.
    pub(super) fn take_former(&self) -> Vec<SecurityId> {
        std::mem::take(&mut self.view.lock().former)
    }

    pub(super) fn set_timings(&self, timings: Timings) {
        self.view.lock().timings = timings;
    }

    /// Moves on to another state and notes why.
    pub(super) fn advance(&self, next: EndpointState, ok: bool, message: impl Into<String>) -> Result<()> {
        let mut view = self.view.lock();
        view.state = view.state.advance(next, view.record.id)?;
        note(&mut view, ok, message.into());
        Ok(())
    }

    /// Whether this is what was noted last.
    pub(super) fn said_last(&self, message: &str) -> bool {
        self.view.lock().log.back().is_some_and(|line| line.message == message)
    }

    /// Notes something without moving on.
    pub(super) fn note(&self, ok: bool, message: impl Into<String>) {
        note(&mut self.view.lock(), ok, message.into());
    }
}

fn note(view: &mut View, ok: bool, message: String) {
    if view.log.len() == LOG_MAX {
        view.log.pop_front();
    }
    let state = view.state;
    view.log.push_back(LogEntry { time: SystemTime::now(), state, ok, message });
}

/// The sandbox with the device's name inside it: no two endpoints share it.
pub(super) type AttachmentKey = (String, String);

/// All endpoints by id, and by what else is theirs alone.
#[derive(Default)]
pub(super) struct Table {
    entries: BTreeMap<EndpointId, Arc<Entry>>,
    /// Endpoints under creation, which have no entry yet.
    reserved: BTreeMap<EndpointId, Option<AttachmentKey>>,
    attachments: BTreeMap<AttachmentKey, EndpointId>,
    addresses: BTreeMap<IpAddr, EndpointId>,
    devices: BTreeMap<IfIndex, EndpointId>,
    last: u16,
}

impl Table {
    /// Takes the next free id. Ids are given out in a circle, so that one just freed is not used again at once.
    pub(super) fn reserve(&mut self, attachment: Option<AttachmentKey>) -> Result<EndpointId> {
        if let Some((key, id)) = attachment.as_ref().and_then(|key| self.attachments.get_key_value(key)) {
            return Err(Error::AlreadyExists {
                what: "endpoint of container",
                name: format!("{}:{}", key.0, key.1),
                detail: format!("it is endpoint {id}"),
            });
        }
        let id = self.free().next().ok_or_else(|| Error::Full {
            object: "the table of endpoints".to_owned(),
            limit: u16::MAX.into(),
            remedy: "delete endpoints".into(),
        })?;
        self.last = id.get();
        if let Some(key) = &attachment {
            self.attachments.insert(key.clone(), id);
        }
        self.reserved.insert(id, attachment);
        Ok(id)
    }

    /// The next ids that will be given out, should none of the others become free before.
    pub(super) fn upcoming(&self, count: usize) -> Vec<EndpointId> {
        self.free().take(count).collect()
    }

    fn free(&self) -> impl Iterator<Item = EndpointId> {
        let candidates = (1..=u16::MAX).filter_map(|step| EndpointId::new(self.last.wrapping_add(step)));
        candidates.filter(|id| !self.entries.contains_key(id) && !self.reserved.contains_key(id))
    }

    /// Gives up what was reserved and did not become an endpoint.
    pub(super) fn unreserve(&mut self, id: EndpointId) {
        if let Some(Some(key)) = self.reserved.remove(&id) {
            self.attachments.remove(&key);
        }
    }

    /// Enters an endpoint under its id.
    pub(super) fn insert(&mut self, entry: Arc<Entry>) {
        let record = entry.record();
        let id = record.id;
        self.reserved.remove(&id);
        self.last = self.last.max(id.get());
        self.addresses.extend(record.addresses().map(|address| (address, id)));
        self.devices.insert(record.ifindex, id);
        if let Some(container) = record.container_id {
            self.attachments.insert((container, record.interface), id);
        }
        self.entries.insert(id, entry);
    }

    /// Keeps an id, addresses and devices from becoming an endpoint's.
    pub(super) fn keep(
        &mut self,
        id: EndpointId,
        addresses: impl IntoIterator<Item = IpAddr>,
        devices: impl IntoIterator<Item = IfIndex>,
    ) {
        self.reserved.insert(id, None);
        self.last = self.last.max(id.get());
        self.addresses.extend(addresses.into_iter().map(|address| (address, id)));
        self.devices.extend(devices.into_iter().map(|device| (device, id)));
    }

    /// Whether an id is kept from becoming an endpoint's.
    pub(super) fn is_kept(&self, id: EndpointId) -> bool {
        self.reserved.contains_key(&id)
    }

    /// Takes an endpoint out.
    pub(super) fn remove(&mut self, id: EndpointId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        let record = entry.record();
        for address in record.addresses() {
            self.addresses.remove(&address);
        }
        self.devices.remove(&record.ifindex);
        if let Some(container) = record.container_id {
            self.attachments.remove(&(container, record.interface));
        }
    }

    /// The addresses of all endpoints.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.keys().copied()
    }

    /// The endpoint that has an address.
    pub(super) fn by_address(&self, address: IpAddr) -> Option<EndpointId> {
        self.addresses.get(&address).copied()
    }

    /// The endpoint behind a device.
    pub(super) fn by_device(&self, ifindex: IfIndex) -> Option<EndpointId> {
        self.devices.get(&ifindex).copied()
    }

    pub(super) fn entry(&self, id: EndpointId) -> Result<Arc<Entry>> {
        self.entries.get(&id).cloned().ok_or_else(|| Error::not_found("endpoint", id.to_string()))
    }

    pub(super) fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.values().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_round_and_attachments_are_unique() {
        let mut table = Table::default();
        let key = Some(("c1".to_owned(), "eth0".to_owned()));
        let first = table.reserve(key.clone()).expect("free");
        assert_eq!(first.get(), 1);
        let error = table.reserve(key.clone()).expect_err("taken");
        assert_eq!(error.to_string(), "endpoint of container c1:eth0 already exists (it is endpoint 1)");
        table.unreserve(first);
        assert_eq!(table.upcoming(2).iter().map(|id| id.get()).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(table.reserve(key).expect("free again").get(), 2, "an id just freed comes last");
    }

    #[test]
    fn after_the_last_id_comes_the_first_free_one() {
        let mut table = Table { last: u16::MAX - 1, ..Table::default() };
        assert_eq!(table.reserve(None).expect("free").get(), u16::MAX);
        assert_eq!(table.reserve(None).expect("free").get(), 1);
        for _ in 0..u16::MAX - 2 {
            table.reserve(None).expect("free");
        }
        assert_eq!(table.reserve(None).expect_err("full").kind(), crate::ErrorKind::Exhausted);
    }
}
