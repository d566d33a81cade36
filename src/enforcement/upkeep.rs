//! Policies that somebody else has changed, or taken out of force.

use super::rows::PolicyRows;
use super::writer::PolicyWriter;
use crate::tables::PolicyMap;
use crate::{EndpointId, Result};

impl PolicyWriter {
    /// What is wrong with the policy that the programs find for an endpoint, in words: nothing, if it is the one that was
    /// put into force last. Reads all of it.
    pub fn fault(&self, endpoint: EndpointId) -> Result<Option<String>> {
        let in_force = self.in_force.lock();
        self.fault_in(endpoint, in_force.get(&endpoint))
    }

    /// Puts an endpoint's policy into force again if the programs do not find it as it was written; says whether that was
    /// so. Reads all of it.
    ///
    /// # Errors
    ///
    /// As for [`begin`](Self::begin).
    pub fn repair(&self, endpoint: EndpointId) -> Result<bool> {
        let mut in_force = self.in_force.lock();
        let Some(rows) = in_force.get(&endpoint).cloned() else { return Ok(false) };
        if self.fault_in(endpoint, Some(&rows))?.is_none() {
            return Ok(false);
        }
        let mut swap = self.nothing();
        self.replace_slots(&mut in_force, vec![(endpoint, rows)], &mut swap)?;
        drop(in_force);
        swap.wait()?;
        Ok(true)
    }

    /// Puts the policies of all endpoints for which the programs find none into force again, and returns whose they were.
    /// What is in the others is not looked at.
    ///
    /// # Errors
    ///
    /// As for [`begin`](Self::begin).
    pub fn repair_missing(&self) -> Result<Vec<EndpointId>> {
        let mut in_force = self.in_force.lock();
        let mut missing = Vec::new();
        for (endpoint, rows) in in_force.iter() {
            if !self.is_in_force(*endpoint)? {
                missing.push((*endpoint, rows.clone()));
            }
        }
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let mut swap = self.nothing();
        self.replace_slots(&mut in_force, missing, &mut swap)?;
        drop(in_force);
        Ok(swap.wait()?.endpoints)
    }

    fn fault_in(&self, endpoint: EndpointId, written: Option<&PolicyRows>) -> Result<Option<String>> {
        let Some(id) = self.outer.policy_id(endpoint)? else {
            return Ok(Some("its policy is not in force".to_owned()));
        };
        let Some(written) = written else { return Ok(None) };
        let found: PolicyRows = PolicyMap::from_id(id, endpoint)?.entries()?.into_iter().collect();
        let differs = || format!("the policy in force is not the one that was written: map {id} was changed");
        Ok((found != *written).then(differs))
    }
}
