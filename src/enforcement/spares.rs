//! Slots of the outer map that are filled before there is an endpoint for them.
//!
//! Filling a slot takes an RCU wait, or a thread that waits in the caller's place (see [`swap`](super::swap)). So that the
//! creation of an endpoint has neither, the numbers that come next have an empty policy in their slots in advance, and the
//! endpoint's first policy is written into it: no packet is judged by that before the endpoint has a row and addresses.

use std::collections::BTreeSet;

use super::rows::PolicyRows;
use super::swap::{self, Change, Swapped};
use super::writer::{InForce, PolicyWriter};
use crate::tables::PolicyMap;
use crate::{EndpointId, Error, Result};

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
        let stale: Vec<_> = spares.difference(&wanted).copied().collect();
        let lacking: Vec<_> = wanted.difference(&spares).copied().collect();
        if !stale.is_empty() {
            spares.retain(|endpoint| wanted.contains(endpoint));
            swap::begin(&self.outer, Change::Remove(stale))?;
        }
        if !lacking.is_empty() {
            let size = Self::size_for(ROOM);
            let made = lacking.iter().map(|endpoint| Ok((*endpoint, PolicyMap::create(*endpoint, size)?)));
            swap::begin(&self.outer, Change::Replace(made.collect::<Result<_>>()?))?;
            spares.extend(lacking);
        }
        Ok(())
    }

    /// How many of these numbers have spare slots.
    pub fn stocked(&self, endpoints: &[EndpointId]) -> usize {
        let spares = self.spares.lock();
        endpoints.iter().filter(|endpoint| spares.contains(endpoint)).count()
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
    ) -> Vec<(EndpointId, PolicyRows)> {
        let mut spares = self.spares.lock();
        let is_spared = |(endpoint, rows): &mut (EndpointId, PolicyRows)| {
            // its slot is no spare one from here on, whatever becomes of it
            let spare = spares.remove(endpoint) && !in_force.contains_key(endpoint);
            spare && rows.len() <= ROOM.min(self.limit) && self.is_in_force(*endpoint).unwrap_or_default()
        };
        changed.extract_if(.., is_spared).collect()
    }

    /// Writes first policies into slots that were filled for them.
    pub(super) fn move_in(
        &self,
        in_force: &mut InForce,
        policies: Vec<(EndpointId, PolicyRows)>,
        done: &mut Swapped,
    ) -> Result<()> {
        for (endpoint, rows) in policies {
            if let Err(error) = self.move_in_one(endpoint, &rows) {
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

    fn move_in_one(&self, endpoint: EndpointId, rows: &PolicyRows) -> Result<()> {
        let id = self
            .outer
            .policy_id(endpoint)?
            .ok_or_else(|| Error::not_found("spare policy of endpoint", endpoint.to_string()))?;
        let policy = PolicyMap::from_slot(id, endpoint)?;
        policy.fill(rows.as_slice())?;
        self.outer.outlines().write(endpoint, id, rows.as_slice())?;
        self.pins.put_aside(endpoint, &policy)?;
        self.pins.take_over(endpoint)
    }
}
