//! What is in force, for those who look.

use super::engine::Enforcement;
use super::state::Local;
use crate::identity::Identity;
use crate::policy::{Peer, Policy, RuleNumber, RuleSource};
use crate::tables::PolicyDirection;
use crate::{EndpointId, Result, SecurityId};

/// An endpoint's policy in force.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RealizedPolicy {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its identity.
    pub identity: SecurityId,
    /// The revision of the policies.
    pub revision: u64,
    /// Whether traffic to it needs a rule that allows it.
    pub ingress: bool,
    /// Whether traffic from it needs a rule that allows it.
    pub egress: bool,
    /// Entries of its map.
    pub entries: usize,
    /// Why what is in force is not what should be.
    pub error: Option<String>,
}

/// A selector of rules in force.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SelectorInUse {
    /// What it asks for.
    pub peer: Peer,
    /// How many sections of rules use it.
    pub users: usize,
    /// Whom it selects, by number.
    pub identities: Vec<SecurityId>,
}

impl RealizedPolicy {
    /// Whether traffic in this direction needs a rule that allows it.
    pub fn is_enforced(&self, direction: PolicyDirection) -> bool {
        match direction {
            PolicyDirection::Ingress => self.ingress,
            PolicyDirection::Egress => self.egress,
        }
    }
}

impl Enforcement {
    /// The policy in force for an endpoint.
    pub fn realized(&self, endpoint: EndpointId) -> Option<RealizedPolicy> {
        let state = self.lock();
        state.endpoints.get(&endpoint).map(|local| realized(local, state.settled))
    }

    /// The policies in force for all endpoints, in the order of their ids.
    pub fn realized_all(&self) -> Vec<RealizedPolicy> {
        let state = self.lock();
        state.endpoints.values().map(|local| realized(local, state.settled)).collect()
    }

    /// The policies that were accepted last, in the order of their names.
    pub fn policies(&self) -> Vec<Policy> {
        let state = self.lock();
        let repository = &state.repository;
        let policy = |name: &str| {
            let rules = repository.rules(name).cloned();
            rules.fold(Policy::new(name), Policy::rule)
        };
        repository.names().map(policy).collect()
    }

    /// How often the policies changed, plus 1.
    pub fn revision(&self) -> u64 {
        self.lock().repository.revision()
    }

    /// How many rules are in force.
    pub fn rules(&self) -> usize {
        self.lock().repository.all_rules().count()
    }

    /// Where the rule with this number comes from; `None` for one that is not in force.
    pub fn source(&self, number: RuleNumber) -> Option<RuleSource> {
        self.lock().repository.source(number).cloned()
    }

    /// Where all rules in force come from, by their numbers.
    pub fn sources(&self) -> Vec<(RuleNumber, RuleSource)> {
        let state = self.lock();
        let mut sources: Vec<_> = state.repository.sources().map(|(number, source)| (number, source.clone())).collect();
        drop(state);
        sources.sort_unstable_by_key(|(number, _)| *number);
        sources
    }

    /// The selectors of peers in use, with whom they select.
    pub fn selectors(&self) -> Vec<SelectorInUse> {
        let state = self.lock();
        state.rules.selectors().iter().map(|selector| in_use(&selector)).collect()
    }

    /// The selectors of the endpoints that rules are about, with the identities they select.
    pub fn subject_selectors(&self) -> Vec<SelectorInUse> {
        let state = self.lock();
        state.rules.subject_selectors().iter().map(|selector| in_use(&selector)).collect()
    }

    /// What is wrong with an endpoint's policy, in words.
    pub fn problem(&self, endpoint: EndpointId) -> Result<Option<String>> {
        let error = self.lock().endpoints.get(&endpoint).map(|local| local.error.clone());
        Ok(match error {
            None => Some("it has no policy".to_owned()),
            Some(Some(error)) => Some(error),
            Some(None) if !self.writer.is_in_force(endpoint)? => Some("its policy is not in force".to_owned()),
            Some(None) => None,
        })
    }

    /// The identity of an endpoint, with its labels.
    pub fn identity_of(&self, endpoint: EndpointId) -> Option<Identity> {
        let id = self.lock().endpoints.get(&endpoint)?.subject().identity;
        self.identities.get(id)
    }
}

fn realized(local: &Local, revision: u64) -> RealizedPolicy {
    let subject = local.subject();
    RealizedPolicy {
        endpoint: subject.endpoint,
        identity: subject.identity,
        revision,
        ingress: local.policy.is_enforced(PolicyDirection::Ingress),
        egress: local.policy.is_enforced(PolicyDirection::Egress),
        entries: local.policy.len(),
        error: local.error.clone(),
    }
}

fn in_use(selector: &crate::policy::CachedSelector<'_>) -> SelectorInUse {
    SelectorInUse {
        peer: selector.peer.clone(),
        users: selector.users,
        identities: selector.identities.iter().copied().collect(),
    }
}
