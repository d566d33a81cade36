//! Policies tried out: what would be in force with them, without anything of it coming into force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::cidrs;
use super::engine::Enforcement;
use super::policies::difference;
use crate::identity::{Changes, Identity, World, cidr_labels};
use crate::policy::{
    CompiledPolicy, Policy, PolicyOptions, Repository, RuleChanges, RuleNumber, RuleSource, RulesInForce, Subject,
};
use crate::{EndpointId, Error, Result, SecurityId};

/// The policies in force with others in the place of those with their names, over the identities and endpoints of one moment.
///
/// A prefix that only the others name has the identity that is kept for it from an earlier time, or one that exists nowhere else.
#[derive(Clone, Debug)]
pub struct Trial {
    repository: Repository,
    rules: RulesInForce,
    options: PolicyOptions,
    subjects: BTreeMap<EndpointId, Subject>,
    /// Prefixes that are new.
    prefixes: BTreeMap<IpNetwork, Identity>,
}

impl Enforcement {
    /// Tries policies out: in the place of those with their names, or beside the others, as [`upsert`](Self::upsert) would
    /// put them. Nothing changes.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a rule that is none.
    pub fn try_out(&self, policies: impl IntoIterator<Item = Policy>) -> Result<Trial> {
        let state = self.lock();
        let mut repository = state.repository.clone();
        policies.into_iter().try_for_each(|policy| repository.replace(policy).map(drop))?;
        let (removed, added) = difference(&state.repository, &repository);
        let wanted = cidrs::named_by(repository.flat());
        let new = wanted.into_iter().filter(|prefix| !state.cidrs.contains_key(prefix));
        let prefixes = self.invent(new, state.rules.world())?;

        let mut rules = state.rules.clone();
        let subjects = state.endpoints.iter().map(|(id, local)| (*id, local.subject().clone())).collect();
        let (options, known) = (state.options.clone(), self.identities.changes_since(state.seen));
        drop(state);
        // Policies are compiled from these rules afterwards, so that none has to follow.
        let _ = rules.apply(&known);
        let _ = rules.change(&RuleChanges { added, removed: removed.into_iter().collect() });
        let _ = rules.apply(&Changes { added: prefixes.values().cloned().collect(), ..Changes::default() });
        Ok(Trial { repository, rules, options, subjects, prefixes })
    }

    /// Identities for prefixes: those that exist, and else of numbers that nobody has.
    fn invent(&self, prefixes: impl Iterator<Item = IpNetwork>, world: World) -> Result<BTreeMap<IpNetwork, Identity>> {
        let taken: BTreeSet<SecurityId> = self.ipcache.peers().iter().map(|peer| peer.entry.identity).collect();
        let free = |id: &SecurityId| !taken.contains(id) && self.identities.get(*id).is_none();
        // From the top down: allocators count up.
        let mut numbers = (0..1 << 24).rev().map(|number| SecurityId::new(1 << 24 | number)).filter(free);
        let mut invented = BTreeMap::new();
        for prefix in prefixes {
            let labels = cidr_labels(prefix, world)?;
            let identity = match self.identities.find(&labels) {
                Some(identity) => identity,
                None => {
                    let none = || Error::not_found("unused identity for prefix", prefix.to_string());
                    Identity::new(numbers.next().ok_or_else(none)?, labels)
                }
            };
            invented.insert(prefix, identity);
        }
        Ok(invented)
    }
}

impl Trial {
    /// What an endpoint's policy would be.
    ///
    /// # Errors
    ///
    /// `NotFound` for an endpoint that has no policy; `Exhausted` for a policy that would be too large.
    pub fn compile(&self, endpoint: EndpointId) -> Result<CompiledPolicy> {
        let subject =
            self.subjects.get(&endpoint).ok_or_else(|| Error::not_found("policy of endpoint", endpoint.to_string()))?;
        self.rules.compile(subject.clone(), &self.options).map_err(|error| self.repository.name_rules(error))
    }

    /// Where the rule with this number comes from.
    pub fn source(&self, number: RuleNumber) -> Option<&RuleSource> {
        self.repository.source(number)
    }

    /// The identity that an address would have by a prefix that only the policies tried out name, with the prefix.
    pub fn prefix_of(&self, address: IpAddr) -> Option<(IpNetwork, &Identity)> {
        let around = self.prefixes.iter().filter(|(prefix, _)| prefix.contains(address));
        around.max_by_key(|(prefix, _)| prefix.prefix()).map(|(prefix, identity)| (*prefix, identity))
    }
}
