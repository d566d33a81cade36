//! Slots of the outer map that are filled before there is an endpoint for them.
//!
//! Filling a slot takes an RCU wait, or a thread that waits in the caller's place (see [`swap`](super::swap)). So that the
//! creation of an endpoint has neither, the numbers that come next have an empty policy in their slots in advance, and the
//! endpoint's first policy is written into it: no packet is judged by that before the endpoint has a row and addresses.

use std::collections::BTreeSet;

use super::rows::PolicyRows;
use super::swap::{self, Change, Swapped};
use super::writer::{InForce, PolicyWriter};
use crate::tables::{PolicyMap, PolicyMaps};
use crate::{EndpointId, Result};

/// The most entries of a policy that is written into a spare slot, which has room for as many again, and some.
const ROOM: usize = 128;

impl PolicyWriter {
    /// Puts an empty policy into the slot of each of these numbers, which endpoints will get next, so that bringing their
    /// first policies into force does not have to. Numbers that have a policy are passed over; spare slots of other numbers are emptied.
    ///
    /// # Errors
    ///
    /// Where a map can't be made, or the outer map refuses it. Endpoints can be given policies all the same.
    pub fn stock(&self, endpoints: &[EndpointId]) -> Result<()> {
        let in_force = self.in_force.lock();
        let wanted: BTreeSet<_> =
            endpoints.iter().filter(|endpoint| !in_force.contains_key(endpoint)).copied().collect();
        let mut spares = self.spares.lock();
        let stale: Vec<_> = spares.keys().filter(|endpoint| !wanted.contains(endpoint)).copied().collect();
        let lacking: Vec<_> = wanted.into_iter().filter(|endpoint| !spares.contains_key(endpoint)).collect();
        if !stale.is_empty() {
            spares.retain(|endpoint, _| !stale.contains(endpoint));
            swap::begin(&self.outer, Change::Remove(stale))?;
        }
        if !lacking.is_empty() {
            let size = Self::size_for(ROOM);
            let made = lacking.iter().map(|endpoint| Ok((*endpoint, PolicyMap::create(*endpoint, size)?)));
            let made: Vec<_> = made.collect::<Result<_>>()?;
            let ids: Vec<_> = made.iter().map(|(endpoint, policy)| (*endpoint, policy.map().info().id)).collect();
            swap::begin(&self.outer, Change::Replace(made))?;
            spares.extend(ids);
        }
        Ok(())
    }

    /// How many of these numbers have spare slots.
    pub fn stocked(&self, endpoints: &[EndpointId]) -> usize {
        let spares = self.spares.lock();
        endpoints.iter().filter(|endpoint| spares.contains_key(endpoint)).count()
    }

    /// Whether a slot that has no pin is one that an earlier process filled in advance.
    pub(super) fn looks_spare(&self, endpoint: EndpointId) -> Result<bool> {
        let Some(id) = self.outer.policy_id(endpoint)? else { return Ok(false) };
        let policy = PolicyMap::from_slot(id, endpoint)?;
        Ok(policy.map().max_entries() == Self::size_for(ROOM) as usize && policy.entries()?.is_empty())
    }

    /// Takes those policies out of `changed` that fit into spare slots.
    pub(super) fn split_off_spared(
        &self,
        in_force: &InForce,
        changed: &mut Vec<(EndpointId, PolicyRows)>,
    ) -> Vec<(EndpointId, u32, PolicyRows)> {
        let mut spares = self.spares.lock();
        let mut spared = Vec::new();
        changed.retain(|(endpoint, rows)| {
            // its slot is no spare one from here on, whatever becomes of it
            let spare = spares.remove(endpoint).filter(|_| !in_force.contains_key(endpoint));
            let fits = rows.len() <= ROOM.min(self.limit);
            let found = spare.filter(|_| fits && !self.was_emptied(*endpoint));
            spared.extend(found.map(|map| (*endpoint, map, rows.clone())));
            found.is_none()
        });
        spared
    }

    /// Whether somebody else took a spare policy away. Where looking takes long, nobody has.
    fn was_emptied(&self, endpoint: EndpointId) -> bool {
        !PolicyMaps::lookups_wait() && !self.is_in_force(endpoint).unwrap_or_default()
    }

    /// Writes first policies into slots that were filled for them.
    pub(super) fn move_in(
        &self,
        in_force: &mut InForce,
        policies: Vec<(EndpointId, u32, PolicyRows)>,
        done: &mut Swapped,
    ) -> Result<()> {
        for (endpoint, map, rows) in policies {
            if let Err(error) = self.move_in_one(endpoint, map, &rows) {
                // nothing is to find half a policy
                self.discard(endpoint);
                swap::begin(&self.outer, Change::Remove(vec![endpoint]))?;
                return Err(error);
            }
            done.entries += rows.len();
            done.endpoints.push(endpoint);
            in_force.insert(endpoint, rows);
        }
        self.switches.advance().map(drop)
    }

    fn move_in_one(&self, endpoint: EndpointId, map: u32, rows: &PolicyRows) -> Result<()> {
        let policy = PolicyMap::from_slot(map, endpoint)?;
        policy.fill(rows.as_slice())?;
        self.outer.outlines().write(endpoint, map, rows.as_slice())?;
        self.pins.put_aside(endpoint, &policy)?;
        self.pins.take_over(endpoint)
    }
}
