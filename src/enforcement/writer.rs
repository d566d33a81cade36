//! Swapping the policies of endpoints whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use log::warn;
use parking_lot::Mutex;

use super::patch::Patch;
use super::pins::Pins;
use super::rows::PolicyRows;
use super::swap::{self, Change, Swap, Swapped};
use super::timings::SwapTimings;
use crate::tables::{PolicyMap, PolicyMaps, Switches};
use crate::{EndpointId, Error, ErrorKind, Result, SecurityId};

/// Brings the policies of endpoints into force.
///
/// Each policy is an inner map of its own, made and filled aside, sized to its content; one update of the outer map
/// replaces the old one by it, and moves the generation. A packet is judged by the old policy or by the new one, never by a
/// mixture. Whatever can fail comes before that update: then nothing has changed.
///
/// Threads may swap side by side. One process at a time is to have one for a folder.
#[derive(Debug)]
pub struct PolicyWriter {
    pub(super) outer: Arc<PolicyMaps>,
    pub(super) switches: Arc<Switches>,
    pub(super) pins: Pins,
    pub(super) limit: usize,
    /// Held from the comparison with what is in force until the change is in place, not while programs are waited for.
    pub(super) in_force: Mutex<InForce>,
    /// Numbers that no endpoint has and whose slots have an empty policy, with its map's id. Locked while `in_force` is.
    pub(super) spares: Mutex<BTreeMap<EndpointId, u32>>,
    /// The endpoint for whose policy was looked last.
    pub(super) looked_at: Mutex<Option<EndpointId>>,
    timings: Arc<Mutex<SwapTimings>>,
}

/// The policies in force.
pub(super) type InForce = BTreeMap<EndpointId, PolicyRows>;

/// A policy that is filled and pinned aside.
type Prepared = (EndpointId, PolicyMap);

impl PolicyWriter {
    /// The most entries one endpoint's policy may have unless told otherwise.
    pub const LIMIT: usize = 65_536;
    /// Room in the map of an empty policy.
    const SPARE: usize = 256;

    /// Takes over the policies in force: those whose pins are in `folder`, where new ones will be. Nothing is written but
    /// pins that a crash kept from following their maps.
    ///
    /// # Errors
    ///
    /// `LayoutMismatch` for a map that is no policy.
    pub fn open(outer: PolicyMaps, switches: Arc<Switches>, folder: &Path) -> Result<Self> {
        let writer = Self {
            outer: Arc::new(outer),
            switches,
            pins: Pins::new(folder),
            limit: Self::LIMIT,
            in_force: Mutex::default(),
            spares: Mutex::default(),
            looked_at: Mutex::default(),
            timings: Arc::default(),
        };
        writer.adopt()?;
        Ok(writer)
    }

    /// Allows at most `entries` in one endpoint's policy.
    pub fn with_limit(mut self, entries: usize) -> Self {
        self.limit = entries;
        self
    }

    /// Puts policies into force; when it returns, each endpoint's next packet is judged by its new one. [`Swap::wait`] waits
    /// for the programs that were under way. A policy that is in force already is not written.
    ///
    /// # Errors
    ///
    /// `Exhausted` for a policy beyond the limit, or for which there is no memory; then, as whenever a map can't be made, filled or
    /// pinned, nothing has changed. Should the update itself fail half-way, `Partial` says how many of the policies are in
    /// force, which are the first ones by their endpoints' ids.
    pub fn begin(&self, policies: impl IntoIterator<Item = (EndpointId, PolicyRows)>) -> Result<Swap> {
        self.begin_around(policies, &BTreeSet::new())
    }

    /// The same where no address is mapped to some identities: no packet asks for entries about them, so that a policy which
    /// changes by such entries alone is changed in place if it has room.
    ///
    /// # Errors
    ///
    /// As for [`begin`](Self::begin); but policies may have been changed in place.
    pub fn begin_around(
        &self,
        policies: impl IntoIterator<Item = (EndpointId, PolicyRows)>,
        unmapped: &BTreeSet<SecurityId>,
    ) -> Result<Swap> {
        let mut in_force = self.in_force.lock();
        let outcome = self.swap(&mut in_force, policies.into_iter().collect(), unmapped);
        outcome.inspect_err(|_| self.timings.lock().failed += 1)
    }

    /// Puts policies into force and waits until nothing is judged by those they replace. See [`begin`](Self::begin).
    pub fn replace(&self, policies: impl IntoIterator<Item = (EndpointId, PolicyRows)>) -> Result<Swapped> {
        self.begin(policies)?.wait()
    }

    /// Takes the policies of endpoints out of force: what concerns them is dropped from the next packet on. An endpoint without a
    /// policy is passed over.
    pub fn remove(&self, endpoints: impl IntoIterator<Item = EndpointId>) -> Result<Swap> {
        let mut in_force = self.in_force.lock();
        let start = Instant::now();
        let mut present = Vec::new();
        for endpoint in endpoints.into_iter().collect::<BTreeSet<_>>() {
            if self.slot(endpoint)?.is_some() {
                present.push(endpoint);
            }
            self.pins.remove(endpoint)?;
            in_force.remove(&endpoint);
            self.spares.lock().remove(&endpoint);
        }
        let mut swap = self.nothing();
        if !present.is_empty() {
            swap.completion = swap::begin(&self.outer, Change::Remove(present.clone()))?;
            self.switches.advance()?;
        }
        swap.swapped = Swapped { endpoints: present, swap: start.elapsed(), ..Swapped::default() };
        Ok(swap)
    }

    /// Waits until every program that is under way has ended. The kernel does so whenever a slot is written, even with the map that
    /// it has.
    pub fn wait_for_programs(&self) -> Result<()> {
        let in_force = self.in_force.lock();
        for endpoint in in_force.keys() {
            if let Some(id) = self.slot(*endpoint)? {
                return self.outer.replace(&[(*endpoint, &PolicyMap::from_slot(id, *endpoint)?)]);
            }
        }
        // Nobody's packets are judged.
        Ok(())
    }

    /// Takes out of force what belongs to none of these endpoints, pins included; returns whose it was. What an earlier process
    /// had [in stock](Self::stock) goes, too, and was nobody's. Before Linux 6.8 only pins are looked at, since looking into every
    /// slot [takes minutes](PolicyMaps::lookups_wait): an empty policy in stock then stays until its number is used.
    pub fn retain(&self, keep: impl Fn(EndpointId) -> bool) -> Result<Vec<EndpointId>> {
        let pinned = self.pins.endpoints()?;
        let mut known = pinned.clone();
        if !PolicyMaps::lookups_wait() {
            known.extend(self.outer.endpoints()?);
        }
        known.retain(|endpoint| !keep(*endpoint) && !self.spares.lock().contains_key(endpoint));
        let mut stray = Vec::with_capacity(known.len());
        for endpoint in &known {
            if pinned.contains(endpoint) || !self.looks_spare(*endpoint)? {
                stray.push(*endpoint);
            }
        }
        self.remove(known)?.wait()?;
        Ok(stray)
    }

    /// The policy in force for an endpoint, as it was written.
    pub fn rows(&self, endpoint: EndpointId) -> Option<PolicyRows> {
        self.in_force.lock().get(&endpoint).cloned()
    }

    /// The id of the map in an endpoint's slot. Where the kernel [would wait](PolicyMaps::lookups_wait), that of the pin counts: it follows the
    /// slot, but for a crash or a failure in between, which leaves a pin aside.
    fn slot(&self, endpoint: EndpointId) -> Result<Option<u32>> {
        let by_pin = PolicyMaps::lookups_wait() && !self.pins.has_aside(endpoint);
        match by_pin.then(|| self.pins.map_id(endpoint)).flatten() {
            Some(id) => Ok(Some(id)),
            None => self.outer.policy_id(endpoint),
        }
    }

    /// Whether the programs find a policy for an endpoint.
    pub fn is_in_force(&self, endpoint: EndpointId) -> Result<bool> {
        Ok(self.outer.policy_id(endpoint)?.is_some())
    }

    /// The endpoints that have a policy.
    pub fn endpoints(&self) -> Vec<EndpointId> {
        self.in_force.lock().keys().copied().collect()
    }

    /// How long things took.
    pub fn timings(&self) -> SwapTimings {
        *self.timings.lock()
    }

    /// The switches that the programs read.
    pub fn switches(&self) -> &Switches {
        &self.switches
    }

    fn swap(
        &self,
        in_force: &mut InForce,
        policies: BTreeMap<EndpointId, PolicyRows>,
        unmapped: &BTreeSet<SecurityId>,
    ) -> Result<Swap> {
        let (total, start) = (policies.len(), Instant::now());
        let mut changed: Vec<_> =
            policies.into_iter().filter(|(endpoint, rows)| in_force.get(endpoint) != Some(rows)).collect();
        self.timings.lock().unchanged += (total - changed.len()) as u64;
        let mut swap = self.nothing();
        swap.swapped = self.patch(in_force, &mut changed, unmapped)?;
        let spared = self.split_off_spared(in_force, &mut changed);
        if changed.is_empty() {
            swap.swapped.swap = start.elapsed();
        } else {
            self.replace_slots(in_force, changed, &mut swap)?;
        }
        if !spared.is_empty() {
            self.move_in(in_force, spared, &mut swap.swapped)?;
        }
        swap.swapped.endpoints.sort_unstable();
        self.note(&swap.swapped);
        Ok(swap)
    }

    /// Makes a map for each policy and puts them into the slots.
    pub(super) fn replace_slots(
        &self,
        in_force: &mut InForce,
        changed: Vec<(EndpointId, PolicyRows)>,
        swap: &mut Swap,
    ) -> Result<()> {
        let start = Instant::now();
        let prepared = self.prepare(&changed)?;
        let ids: Vec<u32> = prepared.iter().map(|(_, policy)| policy.map().info().id).collect();
        let filled = Instant::now();
        let begun = swap::begin(&self.outer, Change::Replace(prepared));
        let done = begun.as_ref().map_or_else(done_before, |_| changed.len());
        if done > 0 {
            self.switches.advance()?;
        }
        swap.swapped.endpoints.extend(changed.iter().map(|(endpoint, _)| *endpoint));
        swap.swapped.entries += changed.iter().map(|(_, rows)| rows.len()).sum::<usize>();
        (swap.swapped.fill, swap.swapped.swap) = (filled - start, filled.elapsed());
        self.settle(in_force, changed, &ids[..done.min(ids.len())]);
        swap.completion = begun?;
        Ok(())
    }

    /// Changes in place what can be, and leaves the others in `changed`.
    fn patch(
        &self,
        in_force: &mut InForce,
        changed: &mut Vec<(EndpointId, PolicyRows)>,
        unmapped: &BTreeSet<SecurityId>,
    ) -> Result<Swapped> {
        let mut done = Swapped::default();
        for (endpoint, rows) in std::mem::take(changed) {
            let patch = in_force.get(&endpoint).and_then(|before| Patch::between(before, &rows, unmapped));
            match patch {
                Some(patch) if self.patch_one(endpoint, &rows, &patch)? => {
                    in_force.insert(endpoint, rows);
                    done.endpoints.push(endpoint);
                    (done.patched, done.entries) = (done.patched + 1, done.entries + patch.len());
                }
                _ => changed.push((endpoint, rows)),
            }
        }
        if done.patched > 0 {
            self.switches.advance()?;
        }
        Ok(done)
    }

    /// Whether a policy in force had room for what it lacks.
    fn patch_one(&self, endpoint: EndpointId, rows: &PolicyRows, patch: &Patch) -> Result<bool> {
        let Some(id) = self.slot(endpoint)? else { return Ok(false) };
        let policy = PolicyMap::from_slot(id, endpoint)?;
        if rows.len() > self.limit.min(policy.map().max_entries()) {
            return Ok(false);
        }
        self.outer.outlines().widen(endpoint, id, patch.written())?;
        match patch.apply(&policy) {
            Err(error) if error.kind() == ErrorKind::Exhausted => Ok(false),
            applied => applied.map(|()| true),
        }
    }

    /// Makes and fills a map for each policy and pins it aside: all of them or none.
    fn prepare(&self, policies: &[(EndpointId, PolicyRows)]) -> Result<Vec<Prepared>> {
        if let Some((endpoint, rows)) = policies.iter().find(|(_, rows)| rows.len() > self.limit) {
            return Err(Error::Full {
                object: format!("the policy of endpoint {endpoint} (it would have {} entries)", rows.len()),
                limit: self.limit,
                remedy: "select fewer identities or ports, by prefixes, entities or ranges".into(),
            });
        }
        let mut prepared = Vec::with_capacity(policies.len());
        for (endpoint, rows) in policies {
            match self.prepare_one(*endpoint, rows) {
                Ok(policy) => prepared.push((*endpoint, policy)),
                Err(error) => {
                    for (endpoint, _) in &policies[..=prepared.len()] {
                        self.discard(*endpoint);
                    }
                    return Err(error);
                }
            }
        }
        Ok(prepared)
    }

    /// How many entries the map for a policy takes: so many again, and some, for identities that come. What is not used takes
    /// no memory, because a trie's entries are made as they come.
    pub(super) fn size_for(entries: usize) -> u32 {
        u32::try_from(entries.saturating_mul(2).saturating_add(Self::SPARE)).unwrap_or(u32::MAX)
    }

    fn prepare_one(&self, endpoint: EndpointId, rows: &PolicyRows) -> Result<PolicyMap> {
        let policy = PolicyMap::create(endpoint, Self::size_for(rows.len()))?;
        policy.fill(rows.as_slice())?;
        self.pins.put_aside(endpoint, &policy)?;
        Ok(policy)
    }

    /// Notes what is in force, of which the first ones are new, in the maps with these ids; lets outlines and pins follow.
    fn settle(&self, in_force: &mut InForce, changed: Vec<(EndpointId, PolicyRows)>, done: &[u32]) {
        for (index, (endpoint, rows)) in changed.into_iter().enumerate() {
            let Some(id) = done.get(index) else {
                self.discard(endpoint);
                continue;
            };
            let outlined = self.outer.outlines().write(endpoint, *id, rows.as_slice());
            in_force.insert(endpoint, rows);
            if let Err(error) = outlined.and_then(|()| self.pins.take_over(endpoint)) {
                // The policy is in force; the next open lets outline and pin follow.
                warn!("endpoint {endpoint}: {error}");
            }
        }
    }

    pub(super) fn discard(&self, endpoint: EndpointId) {
        if let Err(error) = self.pins.discard(endpoint) {
            warn!("endpoint {endpoint}: {error}");
        }
    }

    fn adopt(&self) -> Result<()> {
        let mut in_force = self.in_force.lock();
        for endpoint in self.pins.endpoints()? {
            let Some(id) = self.slot(endpoint)? else { continue };
            let policy = PolicyMap::from_id(id, endpoint)?;
            if self.pins.map_id(endpoint) != Some(id) {
                self.pins.put_aside(endpoint, &policy)?;
                self.pins.take_over(endpoint)?;
            }
            let rows: PolicyRows = policy.entries()?.into_iter().collect();
            self.outer.outlines().write(endpoint, id, rows.as_slice())?;
            in_force.insert(endpoint, rows);
        }
        Ok(())
    }

    fn note(&self, swapped: &Swapped) {
        let mut timings = self.timings.lock();
        if swapped.patched < swapped.endpoints.len() {
            timings.fill.note(swapped.fill);
        }
        if !swapped.endpoints.is_empty() {
            timings.swap.note(swapped.swap);
        }
        timings.patched += swapped.patched as u64;
        timings.policies += (swapped.endpoints.len() - swapped.patched) as u64;
        timings.entries += swapped.entries as u64;
    }

    pub(super) fn nothing(&self) -> Swap {
        Swap { swapped: Swapped::default(), completion: None, timings: self.timings.clone() }
    }
}

/// How many of a batch were done before it failed.
fn done_before(error: &Error) -> usize {
    match error {
        Error::PartialBatch { done, .. } => *done,
        _ => 0,
    }
}
