//! What the engine knows: rules, identities, and a compiled policy for each endpoint.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;

use super::rows::PolicyRows;
use crate::identity::{Changes, Identity, Version};
use crate::policy::{CompiledPolicy, FlatRule, PolicyOptions, Repository, RuleNumber, RulesInForce, Subject};
use crate::{EndpointId, Error, Result, SecurityId};

/// An endpoint with its policy.
pub(super) struct Local {
    pub(super) policy: CompiledPolicy,
    /// Why the policy is not what it should be.
    pub(super) error: Option<String>,
    /// Identities that it does not know, because it would grow too large.
    pub(super) missing: BTreeSet<SecurityId>,
}

impl Local {
    pub(super) fn new(policy: CompiledPolicy) -> Self {
        Self { policy, error: None, missing: BTreeSet::new() }
    }

    pub(super) fn subject(&self) -> &Subject {
        self.policy.subject()
    }

    pub(super) fn rows(&self) -> PolicyRows {
        self.policy.entries().collect()
    }
}

/// Everything that belongs together. Whoever changes it holds it until the kernel has the change.
pub(super) struct State {
    pub(super) repository: Repository,
    pub(super) rules: RulesInForce,
    /// Up to where identities are known.
    pub(super) seen: Version,
    pub(super) options: PolicyOptions,
    pub(super) endpoints: BTreeMap<EndpointId, Local>,
    /// The prefixes that rules in force name, with the identities held for them.
    pub(super) cidrs: BTreeMap<IpNetwork, SecurityId>,
    /// Endpoints whose policies are to be written.
    pub(super) pending: BTreeSet<EndpointId>,
    /// Identities that have come or gone since pending policies were written last: no address is mapped to them.
    pub(super) unmapped: BTreeSet<SecurityId>,
    /// The revision that no packet is behind of.
    pub(super) settled: u64,
}

impl State {
    /// Lets the policies follow the identities; those that change are pending. Comes back with the endpoints whose policies
    /// can't follow, because they would grow too large.
    pub(super) fn follow(&mut self, changes: &Changes) -> Vec<(EndpointId, Error)> {
        self.seen = changes.version;
        self.unmapped.extend(changes.removed.iter().chain(&changes.added).map(Identity::id));
        let selectors = self.rules.apply(changes);
        let mut failed = Vec::new();
        if selectors.is_empty() {
            return failed;
        }
        for (endpoint, local) in &mut self.endpoints {
            match local.policy.update(self.rules.selectors(), &selectors) {
                Ok(delta) => {
                    local.error = None;
                    local.missing.clear();
                    if !delta.is_empty() {
                        self.pending.insert(*endpoint);
                    }
                }
                Err(error) => {
                    let error = self.repository.name_rules(error);
                    local.error = Some(error.to_string());
                    local.missing.extend(changes.added.iter().map(Identity::id));
                    failed.push((*endpoint, error));
                }
            }
        }
        failed
    }

    /// Compiles an endpoint's policy, which is pending then.
    pub(super) fn enter(&mut self, subject: Subject) -> Result<()> {
        let endpoint = subject.endpoint;
        let policy = self.rules.compile(subject, &self.options).map_err(|error| self.repository.name_rules(error))?;
        self.endpoints.insert(endpoint, Local::new(policy));
        self.pending.insert(endpoint);
        Ok(())
    }

    /// Fails if a policy does not know an identity: a rule that denies it would not be heard.
    pub(super) fn check_known(&self, identity: SecurityId) -> Result<()> {
        match self.endpoints.values().find(|local| local.missing.contains(&identity)) {
            Some(local) => Err(Error::Full {
                object: format!("the policy of endpoint {}", local.subject().endpoint),
                limit: self.options.max_entries,
                remedy: format!("it can't follow identity {identity}: {}", local.error.as_deref().unwrap_or_default())
                    .into(),
            }),
            None => Ok(()),
        }
    }

    /// The policies that are to be written.
    pub(super) fn pending(&self) -> Vec<(EndpointId, PolicyRows)> {
        let known = self.pending.iter().filter_map(|id| self.endpoints.get(id).map(|local| (*id, local.rows())));
        known.collect()
    }
}

/// Rules that are to come into force, with the policies that change by them.
pub(super) struct Candidate {
    pub(super) rules: RulesInForce,
    pub(super) policies: BTreeMap<EndpointId, CompiledPolicy>,
}

impl Candidate {
    /// The rules in force without those of some numbers and with others, over the identities as they are after `changes`.
    pub(super) fn compile(
        state: &State,
        changes: &Changes,
        removed: &BTreeSet<RuleNumber>,
        added: &[FlatRule],
    ) -> Result<Self> {
        let mut rules = state.rules.clone();
        // Policies that no rule of these concerns follow the identities when `state` does.
        let _ = rules.apply(changes);
        let mut concerned: BTreeSet<SecurityId> = BTreeSet::new();
        for number in removed {
            concerned.extend(rules.subjects_of(*number));
            rules.remove(*number);
        }
        rules.insert(added);
        for number in added.iter().map(|rule| rule.rule).collect::<BTreeSet<_>>() {
            concerned.extend(rules.subjects_of(number));
        }
        let subjects = state.endpoints.values().map(Local::subject);
        let policies = subjects.filter(|subject| concerned.contains(&subject.identity)).map(|subject| {
            let policy = rules.compile(subject.clone(), &state.options)?;
            Ok((subject.endpoint, policy))
        });
        let policies = policies.collect::<Result<_>>()?;
        Ok(Self { rules, policies })
    }

    /// The entries of the policies that change.
    pub(super) fn rows(&self) -> Vec<(EndpointId, PolicyRows)> {
        self.policies.iter().map(|(endpoint, policy)| (*endpoint, policy.entries().collect())).collect()
    }

    /// Becomes what is in force.
    pub(super) fn settle(self, state: &mut State) {
        state.rules = self.rules;
        for (endpoint, policy) in self.policies {
            state.pending.remove(&endpoint);
            state.endpoints.insert(endpoint, Local::new(policy));
        }
    }
}
