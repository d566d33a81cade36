//! What is to be done from time to time, and policies that somebody else has changed or taken out of force.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::engine::Enforcement;
use super::rows::PolicyRows;
use super::swap::Swap;
use super::writer::PolicyWriter;
use crate::maps::SyncState;
use crate::tables::{PolicyMap, PolicyMatch, PolicyVerdict};
use crate::{EndpointId, Result};

/// The ipcache is looked through no sooner than after so many times as long as it took the last time: what costs much with many
/// prefixes, and lets changes wait, takes half a percent of the time.
const SURVEY_PAUSE: u32 = 200;
/// How long policies are looked for that somebody else has taken out of force, each time.
const LOOK: Duration = Duration::from_millis(20);

impl Enforcement {
    /// What is to be done from time to time: forgets identities that nobody has used for long enough, tries again what failed,
    /// puts back what somebody else has changed in the ipcache, and policies that somebody else has taken out of force.
    ///
    /// # Errors
    ///
    /// The first; what fails keeps nothing else from being done.
    pub fn maintain(&self) -> Result<()> {
        let steps =
            [Self::expire_identities, Self::look_through_ipcache, Self::repair_missing, Self::follow_identities];
        steps.map(|step| step(self)).into_iter().collect()
    }

    fn expire_identities(&self) -> Result<()> {
        for identity in self.identities.expire()? {
            info!("identity {identity} was not used any more and is gone");
        }
        Ok(())
    }

    fn look_through_ipcache(&self) -> Result<()> {
        let mut survey = self.survey.lock();
        let start = Instant::now();
        if start < *survey {
            return if self.ipcache.reconcile().changed() { self.advance() } else { Ok(()) };
        }
        let applied = self.ipcache.resync()?;
        *survey = start + start.elapsed() * SURVEY_PAUSE;
        if applied.changed() {
            warn!("{} entries of cilium_ipcache_v2 were not what they should be; they are again", applied.changed);
            self.advance()?;
        }
        Ok(())
    }

    fn repair_missing(&self) -> Result<()> {
        for endpoint in self.writer.repair_missing()? {
            warn!("endpoint {endpoint}: somebody else had taken its policy out of force; it is back");
        }
        Ok(())
    }
}

/// An entry of a policy, with what is still to be done for it.
pub type PolicyRowState = (PolicyMatch, PolicyVerdict, SyncState);

impl PolicyWriter {
    /// What is wrong with the policy that the programs find for an endpoint, in words: nothing, if it is the one that was
    /// put into force last. Reads all of it.
    pub fn fault(&self, endpoint: EndpointId) -> Result<Option<String>> {
        let written = self.rows(endpoint);
        match self.fault_in(endpoint, written.as_ref()) {
            Ok(None) => Ok(None),
            // It may have been replaced meanwhile; for a second look it must not be.
            _ => {
                let in_force = self.in_force.lock();
                self.fault_in(endpoint, in_force.get(&endpoint))
            }
        }
    }

    /// Puts an endpoint's policy into force again if the programs do not find it as it was written; says whether that was
    /// so. Reads all of it.
    ///
    /// # Errors
    ///
    /// As for [`begin`](Self::begin).
    pub fn repair(&self, endpoint: EndpointId) -> Result<bool> {
        if self.fault(endpoint)?.is_none() {
            return Ok(false);
        }
        Ok(self.write_again(endpoint)?.map(Swap::wait).transpose()?.is_some())
    }

    /// Puts the policies of all endpoints for which the programs find none into force again, and returns whose they were.
    /// What is in the others is not looked at. Where looking [takes long](crate::tables::PolicyMaps::lookups_wait) it goes on with the next call.
    ///
    /// # Errors
    ///
    /// As for [`begin`](Self::begin), of the first that can't be put back.
    pub fn repair_missing(&self) -> Result<Vec<EndpointId>> {
        let mut missing = self.look_for_missing()?;
        let mut outcome = Ok(());
        missing.retain(|endpoint| match self.write_again(*endpoint) {
            Ok(written) => written.is_some(),
            Err(error) => {
                if outcome.is_ok() {
                    outcome = Err(error);
                }
                false
            }
        });
        outcome.map(|()| missing)
    }

    fn look_for_missing(&self) -> Result<Vec<EndpointId>> {
        let mut last = self.looked_at.lock();
        let mut endpoints = self.endpoints();
        let seen = last.map_or(0, |last| endpoints.partition_point(|endpoint| *endpoint <= last));
        endpoints.rotate_left(seen);
        let deadline = Instant::now() + LOOK;
        let mut missing = Vec::new();
        for endpoint in endpoints {
            if !self.is_in_force(endpoint)? {
                missing.push(endpoint);
            }
            *last = Some(endpoint);
            if Instant::now() >= deadline {
                break;
            }
        }
        Ok(missing)
    }

    /// Brings what was written last for an endpoint into force once more, unless it has gone.
    fn write_again(&self, endpoint: EndpointId) -> Result<Option<Swap>> {
        let mut in_force = self.in_force.lock();
        let Some(rows) = in_force.get(&endpoint).cloned() else { return Ok(None) };
        let mut swap = self.nothing();
        self.replace_slots(&mut in_force, vec![(endpoint, rows)], &mut swap)?;
        Ok(Some(swap))
    }

    /// The entries of the policy that was put into force last for an endpoint, and those of somebody else that the programs
    /// find beside them, with what is to be done for each; `None` for an endpoint without a policy. Reads all of it.
    pub fn entries(&self, endpoint: EndpointId) -> Result<Option<Vec<PolicyRowState>>> {
        let Some(written) = self.rows(endpoint) else { return Ok(None) };
        let mut found: BTreeMap<_, _> = match self.outer.policy_id(endpoint)? {
            Some(id) => PolicyMap::from_id(id, endpoint)?.entries()?.into_iter().collect(),
            None => BTreeMap::new(),
        };
        let state = |found: Option<PolicyVerdict>, wanted| {
            if found == Some(wanted) { SyncState::Sync } else { SyncState::Insert }
        };
        let written =
            written.iter().map(|(matched, verdict)| (*matched, *verdict, state(found.remove(matched), *verdict)));
        let mut entries: Vec<_> = written.collect();
        entries.extend(found.into_iter().map(|(matched, verdict)| (matched, verdict, SyncState::Delete)));
        entries.sort_unstable_by_key(|(matched, ..)| *matched);
        Ok(Some(entries))
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
