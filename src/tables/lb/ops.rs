//! Operations on the maps of one family.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::family::{Family, FamilyMaps, ServiceRow};
use super::types::{
    Affinity, Backend, BackendId, Frontend, RevNatId, Service, ServiceFlags, SourceRange, StoredService,
};
use crate::Result;
use crate::abi::LbAffinityMatch;
use crate::maps::{HashMap, Update};
use crate::undo::Undo;

/// `cilium_lb_affinity_match`: which backends belong to which services with affinity.
pub(super) type AffinityMatches = HashMap<LbAffinityMatch, u8>;

impl<F: Family> FamilyMaps<F> {
    /// Backends, then what refers to them, then the slots, then the master; what the service no longer has goes afterwards.
    /// Returns the backends it no longer has.
    pub(super) fn upsert(
        &self,
        service: &Service,
        addresses: &Addresses<F>,
        matches: &AffinityMatches,
    ) -> Result<Vec<BackendId>> {
        let key = |slot| F::key(addresses.frontend, &service.frontend, slot);
        let before = self.stored(&service.frontend, addresses.frontend)?;
        let mut undo = Undo::new();
        for (backend, address) in service.slots().zip(&addresses.backends) {
            put(&self.backends, backend.id.get(), F::encode_backend(*address, backend), &mut undo)?;
        }
        let reverse = F::encode_reverse_nat(addresses.frontend, service.frontend.port);
        put(&self.reverse_nat, service.rev_nat.to_be(), reverse, &mut undo)?;
        if service.flags.contains(ServiceFlags::AFFINITY) {
            for backend in service.slots() {
                put(matches, affinity_match(backend.id, service.rev_nat), 1, &mut undo)?;
            }
        }
        for (slot, backend) in (1..).zip(service.slots()) {
            let row = ServiceRow::slot(backend.id, service.rev_nat, usize::from(slot) > service.backends.len());
            put(&self.services, key(slot), F::encode_service(row), &mut undo)?;
        }
        put(&self.services, key(0), F::encode_service(ServiceRow::master(service)), &mut undo)?;
        undo.keep();
        self.remove_leftovers(service, addresses.frontend, before.as_ref(), matches)
    }

    /// After the master of a service was written: slots and references of what stood there before.
    fn remove_leftovers(
        &self,
        service: &Service,
        frontend: F::Address,
        before: Option<&StoredService>,
        matches: &AffinityMatches,
    ) -> Result<Vec<BackendId>> {
        let Some(before) = before else {
            return Ok(Vec::new());
        };
        let kept = service.slots().count();
        for slot in kept..before.backends.len() + before.quarantined.len() {
            // A count is 16 bits wide, so two of them are at most 17; slots beyond 65535 can't exist.
            let Ok(slot) = u16::try_from(slot + 1) else { break };
            self.services.delete(&F::key(frontend, &service.frontend, slot))?;
        }
        let gone: Vec<_> =
            backends_of(before).into_iter().filter(|id| service.slots().all(|backend| backend.id != *id)).collect();
        let (old, new) = (before.rev_nat, service.rev_nat);
        if let Some(old) = old {
            let keeps = old == new && service.flags.contains(ServiceFlags::AFFINITY);
            let stale = if keeps { gone.clone() } else { backends_of(before) };
            for backend in stale {
                matches.delete(&affinity_match(backend, old))?;
            }
            if old != new {
                self.delete_reverse_nat(old, frontend, service.frontend.port)?;
            }
        }
        Ok(gone)
    }

    /// The master first, then the slots, then what refers to them. Returns the backends it had; nothing when there is no master.
    pub(super) fn delete(
        &self,
        frontend: &Frontend,
        address: F::Address,
        matches: &AffinityMatches,
    ) -> Result<Option<Vec<BackendId>>> {
        let Some(stored) = self.stored(frontend, address)? else {
            return Ok(None);
        };
        let backends = backends_of(&stored);
        let slots = stored.backends.len() + stored.quarantined.len();
        for slot in 0..=slots.min(usize::from(u16::MAX)) {
            self.services.delete(&F::key(address, frontend, slot as u16))?;
        }
        if let Some(rev_nat) = stored.rev_nat {
            for backend in &backends {
                matches.delete(&affinity_match(*backend, rev_nat))?;
            }
            self.delete_reverse_nat(rev_nat, address, frontend.port)?;
        }
        Ok(Some(backends))
    }

    /// Removes a number's entry if it is still this frontend's.
    fn delete_reverse_nat(&self, rev_nat: RevNatId, address: F::Address, port: u16) -> Result<()> {
        let stored = self.reverse_nat.lookup(&rev_nat.to_be())?;
        if stored.is_some_and(|reverse| F::decode_reverse_nat(&reverse) == (address.into(), port)) {
            self.reverse_nat.delete(&rev_nat.to_be())?;
        }
        Ok(())
    }

    /// One service as it stands in the map.
    pub(super) fn stored(&self, frontend: &Frontend, address: F::Address) -> Result<Option<StoredService>> {
        let Some(master) = self.services.lookup(&F::key(address, frontend, 0))? else {
            return Ok(None);
        };
        let master = F::decode_service(&master);
        let slot = |slot: usize| -> Result<Option<BackendId>> {
            let Ok(slot) = u16::try_from(slot) else { return Ok(None) };
            let row = self.services.lookup(&F::key(address, frontend, slot))?;
            Ok(row.and_then(|row| F::decode_service(&row).backend()))
        };
        let active = usize::from(master.count);
        let all = active + usize::from(master.quarantined);
        let backends = (1..=active).map(slot).collect::<Result<_>>()?;
        let quarantined = (active + 1..=all).map(slot).collect::<Result<_>>()?;
        Ok(Some(stored_service(*frontend, &master, backends, quarantined)))
    }

    /// Every service that has a master, read in one pass.
    pub(super) fn all_stored(&self) -> Result<Vec<StoredService>> {
        let mut masters = BTreeMap::new();
        let mut slots = BTreeMap::new();
        for row in &self.services {
            let (key, value) = row?;
            let row = F::decode_service(&value);
            match F::frontend(&key) {
                (frontend, 0) => drop(masters.insert(frontend, row)),
                (frontend, slot) => drop(slots.insert((frontend, slot), row.backend())),
            }
        }
        let slot = |frontend: Frontend, slot: usize| {
            u16::try_from(slot).ok().and_then(|slot| slots.get(&(frontend, slot)).copied().flatten())
        };
        let services = masters.into_iter().map(|(frontend, master)| {
            let active = usize::from(master.count);
            let all = active + usize::from(master.quarantined);
            let backends = (1..=active).map(|number| slot(frontend, number)).collect();
            let quarantined = (active + 1..=all).map(|number| slot(frontend, number)).collect();
            stored_service(frontend, &master, backends, quarantined)
        });
        Ok(services.collect())
    }

    pub(super) fn all_backends(&self) -> Result<Vec<Backend>> {
        let mut backends = Vec::new();
        for row in &self.backends {
            let (id, value) = row?;
            match BackendId::new(id) {
                Some(id) => backends.push(F::decode_backend(id, &value)),
                None => log::warn!("{}: a backend has the number 0", self.backends.label()),
            }
        }
        backends.sort_unstable_by_key(|backend| backend.id);
        Ok(backends)
    }

    pub(super) fn all_reverse_nat(&self) -> Result<Vec<(RevNatId, (IpAddr, u16))>> {
        let mut entries = Vec::new();
        for row in &self.reverse_nat {
            let (id, value) = row?;
            if let Some(id) = RevNatId::from_be(id) {
                entries.push((id, F::decode_reverse_nat(&value)));
            }
        }
        entries.sort_unstable();
        Ok(entries)
    }

    pub(super) fn all_source_ranges(&self) -> Result<Vec<SourceRange>> {
        let mut ranges = Vec::new();
        for row in &self.source_ranges {
            let (key, _) = row?;
            ranges.extend(F::decode_source_range(&key));
        }
        ranges.sort_unstable();
        Ok(ranges)
    }

    pub(super) fn all_affinities(&self) -> Result<Vec<Affinity>> {
        self.affinity.iter().map(|row| row.map(|(key, value)| F::decode_affinity(&key, &value))).collect()
    }
}

/// The addresses of a service, checked to be of one family: its frontend's and those of its slots, in their order.
pub(super) struct Addresses<F: Family> {
    pub(super) frontend: F::Address,
    pub(super) backends: Vec<F::Address>,
}

pub(super) fn affinity_match(backend: BackendId, rev_nat: RevNatId) -> LbAffinityMatch {
    LbAffinityMatch { backend_id: backend.get(), rev_nat_id_be: rev_nat.to_be(), pad: 0 }
}

/// The backends of a stored service, each once, in the order of their numbers.
fn backends_of(service: &StoredService) -> Vec<BackendId> {
    let mut backends: Vec<_> = service.backends.iter().chain(&service.quarantined).flatten().copied().collect();
    backends.sort_unstable();
    backends.dedup();
    backends
}

fn stored_service(
    frontend: Frontend,
    master: &ServiceRow,
    backends: Vec<Option<BackendId>>,
    quarantined: Vec<Option<BackendId>>,
) -> StoredService {
    StoredService {
        frontend,
        rev_nat: master.rev_nat,
        flags: master.flags,
        algorithm: master.algorithm(),
        affinity_timeout: master.affinity_timeout(),
        backends,
        quarantined,
    }
}

/// Writes an entry and remembers how to undo that.
fn put<'a, K: bytemuck::Pod, V: bytemuck::Pod>(
    map: &'a HashMap<K, V>,
    key: K,
    value: V,
    undo: &mut Undo<'a>,
) -> Result<()> {
    let before = map.lookup(&key)?;
    map.insert(&key, &value, Update::Any)?;
    undo.attempt("table write", move || match before {
        Some(before) => map.insert(&key, &before, Update::Any),
        None => map.delete(&key).map(drop),
    });
    Ok(())
}
