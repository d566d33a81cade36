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
    /// What is in force, if anything, is an earlier process's: by the rules of now the policy would be too large, and has no entries.
    pub(super) is_kept: bool,
}

impl Local {
    pub(super) fn new(policy: CompiledPolicy) -> Self {
        Self { policy, error: None, missing: BTreeSet::new(), is_kept: false }
    }

    /// The same endpoint by the rules that `inputs` are about. One of which an earlier process's policy is kept goes on keeping it
    /// where that of now is still too large, unless `must_fit`.
    pub(super) fn recompiled(&self, inputs: &Inputs<'_>, must_fit: bool) -> Result<Self> {
        let subject = self.subject().clone();
        match inputs.compile(subject.clone()) {
            Err(error) if self.is_kept && !must_fit => {
                Ok(Self { missing: self.missing.clone(), ..inputs.keep(subject, &error) })
            }
            compiled => compiled.map(Self::new),
        }
    }

    pub(super) fn subject(&self) -> &Subject {
        self.policy.subject()
    }

    pub(super) fn rows(&self) -> PolicyRows {
        self.policy.entries().collect()
    }
}

/// What policies are compiled from.
pub(super) struct Inputs<'a> {
    pub(super) rules: &'a RulesInForce,
    pub(super) options: &'a PolicyOptions,
    /// Where the rules stand.
    pub(super) repository: &'a Repository,
}

impl Inputs<'_> {
    fn compile(&self, subject: Subject) -> Result<CompiledPolicy> {
        self.rules.compile(subject, self.options).map_err(|error| self.repository.name_rules(error))
    }

    fn keep(&self, subject: Subject, error: &Error) -> Local {
        let policy = self.rules.compile_behind(subject, self.options);
        Local { error: Some(error.to_string()), is_kept: true, ..Local::new(policy) }
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
    /// Identities of prefixes held because addresses were mapped to them before this process, until
    /// [strays](super::Enforcement::remove_strays) have gone.
    pub(super) leftovers: Vec<SecurityId>,
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
            if local.error.is_some() && !local.policy.is_concerned(&selectors) {
                // Nothing that would make it fit.
                continue;
            }
            match local.policy.update(self.rules.selectors(), &selectors) {
                Ok(delta) => {
                    local.error = None;
                    local.missing.clear();
                    if std::mem::take(&mut local.is_kept) || !delta.is_empty() {
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
        let policy = self.inputs().compile(subject)?;
        self.endpoints.insert(endpoint, Local::new(policy));
        self.pending.insert(endpoint);
        Ok(())
    }

    /// Enters an endpoint whose policy could not be compiled. It keeps what an earlier process left in force for it, which does not
    /// know who has come since.
    pub(super) fn keep(&mut self, subject: Subject, error: &Error) {
        let endpoint = subject.endpoint;
        let kept = self.inputs().keep(subject, error);
        self.endpoints.insert(endpoint, Local { missing: self.unmapped.clone(), ..kept });
    }

    pub(super) fn inputs(&self) -> Inputs<'_> {
        Inputs { rules: &self.rules, options: &self.options, repository: &self.repository }
    }

    /// Fails if a policy, other than one that is about to be replaced, does not know an identity: a rule that denies it would not be
    /// heard.
    pub(super) fn check_known(&self, identity: SecurityId, replaced: Option<EndpointId>) -> Result<()> {
        let staying = self.endpoints.iter().filter(|(endpoint, _)| Some(**endpoint) != replaced);
        match staying.map(|(_, local)| local).find(|local| local.missing.contains(&identity)) {
            Some(local) => Err(Error::Full {
                object: format!("the policy of endpoint {}", local.subject().endpoint),
                limit: self.options.max_entries,
                remedy: format!("it can't follow identity {identity}: {}", local.error.as_deref().unwrap_or_default())
                    .into(),
            }),
            None => Ok(()),
        }
    }

    /// Takes over policies that have been written.
    pub(super) fn settle(&mut self, policies: BTreeMap<EndpointId, Local>) {
        for (endpoint, local) in policies {
            self.pending.remove(&endpoint);
            self.endpoints.insert(endpoint, local);
        }
    }

    /// The policies that are to be written.
    pub(super) fn pending(&self) -> Vec<(EndpointId, PolicyRows)> {
        // What an earlier process left in force for some is not theirs to write.
        let known = self.pending.iter().filter_map(|id| self.endpoints.get(id).map(|local| (*id, local)));
        known.filter(|(_, local)| !local.is_kept).map(|(id, local)| (id, local.rows())).collect()
    }
}

/// Rules that are to come into force, with the policies that change by them.
pub(super) struct Candidate {
    pub(super) rules: RulesInForce,
    pub(super) policies: BTreeMap<EndpointId, Local>,
}

impl Candidate {
    /// The rules in force as `repository` has them, without those of some numbers and with others, over the identities as they
    /// are after `changes`.
    pub(super) fn compile(
        state: &State,
        changes: &Changes,
        repository: &Repository,
        (removed, added): (&BTreeSet<RuleNumber>, &[FlatRule]),
    ) -> Result<Self> {
        let mut rules = state.rules.clone();
        // Policies that no rule of these concerns follow the identities when `state` does.
        let _ = rules.apply(changes);
        let (mut loses, mut gains): (BTreeSet<SecurityId>, BTreeSet<SecurityId>) = Default::default();
        for number in removed {
            loses.extend(rules.subjects_of(*number));
            rules.remove(*number);
        }
        rules.insert(added);
        for number in added.iter().map(|rule| rule.rule).collect::<BTreeSet<_>>() {
            gains.extend(rules.subjects_of(number));
        }
        let inputs = Inputs { rules: &rules, options: &state.options, repository };
        let mut policies = BTreeMap::new();
        for local in state.endpoints.values() {
            let Subject { endpoint, identity, .. } = local.subject();
            let gains = gains.contains(identity);
            if gains || loses.contains(identity) {
                // That a policy was too large before is no reason to refuse that it gets smaller.
                policies.insert(*endpoint, local.recompiled(&inputs, gains)?);
            }
        }
        Ok(Self { rules, policies })
    }

    /// The entries of the policies that change.
    pub(super) fn rows(&self) -> Vec<(EndpointId, PolicyRows)> {
        rows(&self.policies)
    }

    /// Becomes what is in force.
    pub(super) fn settle(self, state: &mut State) {
        state.rules = self.rules;
        state.settle(self.policies);
    }
}

/// What is to be written of policies.
pub(super) fn rows(policies: &BTreeMap<EndpointId, Local>) -> Vec<(EndpointId, PolicyRows)> {
    let written = policies.iter().filter(|(_, local)| !local.is_kept);
    written.map(|(endpoint, local)| (*endpoint, local.rows())).collect()
}
