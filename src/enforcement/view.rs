//! What is in force, for those who look.

use super::engine::Enforcement;
use super::rows::PolicyRows;
use super::state::Local;
use crate::identity::Identity;
use crate::policy::{Peer, Policy, RuleNumber, RuleSource, Subject};
use crate::tables::{PolicyAction, PolicyDirection, PolicyL4, PolicyMatch, PolicyVerdict};
use crate::{EndpointId, Result, SecurityId};

/// An endpoint's policy in force.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RealizedPolicy {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its identity.
    pub identity: SecurityId,
    /// The revision of the policies; 0 where what is in force is what an earlier process left, because the policy of now would be too
    /// large.
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
        state.endpoints.get(&endpoint).map(|local| self.realized_of(local, state.settled))
    }

    /// The policies in force for all endpoints, in the order of their ids.
    pub fn realized_all(&self) -> Vec<RealizedPolicy> {
        let state = self.lock();
        state.endpoints.values().map(|local| self.realized_of(local, state.settled)).collect()
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
        let error = self.lock().endpoints.get(&endpoint).map(|local| self.error_of(local));
        Ok(match error {
            None => Some("it has no policy".to_owned()),
            Some(Some(error)) => Some(error),
            Some(None) => self.writer.fault(endpoint)?,
        })
    }

    /// The identity of an endpoint, with its labels.
    pub fn identity_of(&self, endpoint: EndpointId) -> Option<Identity> {
        let id = self.lock().endpoints.get(&endpoint)?.subject().identity;
        self.identities.get(id)
    }

    fn realized_of(&self, local: &Local, revision: u64) -> RealizedPolicy {
        let Subject { endpoint, identity, .. } = *local.subject();
        let (entries, [ingress, egress]) = match local.is_kept {
            true => {
                let rows = self.writer.rows(endpoint).unwrap_or_default();
                (rows.len(), DIRECTIONS.map(|direction| needs_rules(&rows, direction)))
            }
            false => (local.policy.len(), DIRECTIONS.map(|direction| local.policy.is_enforced(direction))),
        };
        let revision = if local.is_kept { 0 } else { revision };
        RealizedPolicy { endpoint, identity, revision, ingress, egress, entries, error: self.error_of(local) }
    }

    fn error_of(&self, local: &Local) -> Option<String> {
        let error = local.error.as_ref()?;
        Some(if local.is_kept { self.left_in_force(local.subject().endpoint, error) } else { error.clone() })
    }

    /// An error for which an endpoint has no policy by the rules of now, with what that leaves it.
    pub(super) fn left_in_force(&self, endpoint: EndpointId, error: &str) -> String {
        let left = match self.writer.rows(endpoint) {
            Some(_) => "the policy of before the restart stays in force",
            None => "it has none of before the restart, so that all its traffic is dropped",
        };
        format!("{error}; {left}")
    }
}

const DIRECTIONS: [PolicyDirection; 2] = [PolicyDirection::Ingress, PolicyDirection::Egress];

/// Whether traffic needs a rule that allows it by these entries: whether they lack what allows all of it without a rule.
fn needs_rules(rows: &PolicyRows, direction: PolicyDirection) -> bool {
    let everything = PolicyMatch { direction, identity: SecurityId::UNKNOWN, l4: PolicyL4::Any };
    let by_default = |verdict: &PolicyVerdict| {
        verdict.action == PolicyAction::Allow && RuleNumber::new(verdict.cookie) == RuleNumber::NONE
    };
    !rows.iter().any(|(matched, verdict)| *matched == everything && by_default(verdict))
}

fn in_use(selector: &crate::policy::CachedSelector<'_>) -> SelectorInUse {
    SelectorInUse {
        peer: selector.peer.clone(),
        users: selector.users,
        identities: selector.identities.iter().copied().collect(),
    }
}
