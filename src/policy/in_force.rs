//! The rules in force, whom they select, and the policies that follow.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::compile::{BoundRule, CompiledPolicy, PolicyOptions, Subject};
use super::flat::{FlatRule, Peer, RuleNumber};
use super::repository::RuleChanges;
use super::selectors::{SelectorCache, SelectorChanges, SelectorId, WorldIdentities};
use crate::identity::{Changes, World};
use crate::{Error, Result, SecurityId};

/// The rules in force, bound to the selectors they use.
///
/// Identities are told by [`apply`](Self::apply) as they come and go, before policies are compiled in which they matter. A clone shares the
/// rules and can be changed apart, so that a candidate policy can be tried.
///
/// ```
/// use podwire::identity::Identity;
/// use podwire::policy::{FlatRule, PolicyOptions, Peers, Peer, RuleNumber, RulesInForce, Selector, Subject, WorldIdentities};
/// use podwire::tables::PolicyDirection;
/// use podwire::{EndpointId, Labels, SecurityId};
///
/// let (web, client) = (SecurityId::new(256), SecurityId::new(257));
/// let mut rules = RulesInForce::new(WorldIdentities::of_node(true, true));
/// rules.insert(&[FlatRule {
///     subject: Selector::new().label("k8s:app=web")?,
///     direction: PolicyDirection::Ingress,
///     peers: Peers::Some(vec![Peer::Labels(Selector::new().label("k8s:app=client")?)]),
///     l4: Vec::new(),
///     deny: false,
///     default_deny: true,
///     rule: RuleNumber::new(1),
/// }]);
/// rules.add_identities([Identity::new(web, Labels::parse(["k8s:app=web"])?)]);
///
/// let endpoint = EndpointId::new(7).expect("not 0");
/// let subject = Subject { endpoint, identity: web, named_ports: Default::default() };
/// let mut policy = rules.compile(subject, &PolicyOptions::default())?;
/// assert!(policy.is_enforced(PolicyDirection::Ingress) && !policy.is_enforced(PolicyDirection::Egress));
///
/// let changes = rules.add_identities([Identity::new(client, Labels::parse(["k8s:app=client"])?)]);
/// let delta = policy.update(rules.selectors(), &changes)?;
/// assert_eq!(delta.written[0].0.identity, client);
/// # Ok::<(), podwire::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RulesInForce {
    /// Peers.
    selectors: SelectorCache,
    /// Subjects.
    subjects: SelectorCache,
    rules: BTreeMap<RuleNumber, Vec<Bound>>,
    by_subject: HashMap<SelectorId, Vec<Arc<BoundRule>>>,
}

#[derive(Clone, Debug)]
struct Bound {
    subject: SelectorId,
    rule: Arc<BoundRule>,
}

impl RulesInForce {
    /// No rules and no identities, on a node whose world has these.
    pub fn new(world: WorldIdentities) -> Self {
        Self {
            selectors: SelectorCache::new(world),
            subjects: SelectorCache::new(world),
            rules: BTreeMap::new(),
            by_subject: HashMap::new(),
        }
    }

    /// Which identities the world has on the node.
    pub(crate) fn world(&self) -> World {
        self.selectors.world()
    }

    /// Adds rules to those in force. Several may have one number: they come from one document's rule.
    pub fn insert(&mut self, rules: &[FlatRule]) {
        for flat in rules {
            let subject = self.subjects.acquire(&Peer::Labels(flat.subject.clone()));
            let rule = Arc::new(BoundRule::bind(flat, &mut self.selectors));
            self.by_subject.entry(subject).or_default().push(rule.clone());
            self.rules.entry(flat.rule).or_default().push(Bound { subject, rule });
        }
    }

    /// Removes the rules of a number and says how many there were.
    pub fn remove(&mut self, number: RuleNumber) -> usize {
        let removed = self.rules.remove(&number).unwrap_or_default();
        for Bound { subject, rule } in &removed {
            rule.release(&mut self.selectors);
            self.subjects.release(*subject);
            if let Some(rules) = self.by_subject.get_mut(subject) {
                rules.retain(|other| !Arc::ptr_eq(other, rule));
                if rules.is_empty() {
                    self.by_subject.remove(subject);
                }
            }
        }
        removed.len()
    }

    /// Takes over a change of policies, and says which identities' endpoints it concerns: their policies are to be compiled anew.
    ///
    /// The identities of the prefixes that new rules name ([`FlatRule::prefixes`]) have to be there by the time of that.
    #[must_use = "policies compiled before are not those of the rules in force any more"]
    pub fn change(&mut self, changes: &RuleChanges) -> BTreeSet<SecurityId> {
        let mut concerned = BTreeSet::new();
        for number in &changes.removed {
            concerned.extend(self.subjects_of(*number));
            self.remove(*number);
        }
        self.insert(&changes.added);
        for rule in &changes.added {
            concerned.extend(self.subjects_of(rule.rule));
        }
        concerned
    }

    /// The numbers in force, in order.
    pub fn numbers(&self) -> impl Iterator<Item = RuleNumber> {
        self.rules.keys().copied()
    }

    /// The identities whose endpoints the rules of a number select: those whose policies change with it.
    pub fn subjects_of(&self, number: RuleNumber) -> BTreeSet<SecurityId> {
        let bound = self.rules.get(&number).into_iter().flatten();
        bound.flat_map(|bound| self.subjects.selected(bound.subject)).collect()
    }

    /// Takes over which identities have come and gone. Policies follow by [`CompiledPolicy::update`] with the result.
    #[must_use = "compiled policies follow only if they are told"]
    pub fn apply(&mut self, changes: &Changes) -> SelectorChanges {
        self.subjects.apply(changes);
        self.selectors.apply(changes)
    }

    /// The same as [`apply`](Self::apply) for identities that have come.
    pub fn add_identities(
        &mut self,
        identities: impl IntoIterator<Item = crate::identity::Identity>,
    ) -> SelectorChanges {
        self.apply(&Changes { added: identities.into_iter().collect(), ..Changes::default() })
    }

    /// The selectors of peers.
    pub fn selectors(&self) -> &SelectorCache {
        &self.selectors
    }

    /// The selectors of subjects.
    pub fn subject_selectors(&self) -> &SelectorCache {
        &self.subjects
    }

    /// Compiles the policy of an endpoint.
    ///
    /// # Errors
    ///
    /// `NotFound` for an identity that isn't known; `Exhausted` where more entries are needed than the options allow.
    pub fn compile(&self, subject: Subject, options: &PolicyOptions) -> Result<CompiledPolicy> {
        if self.subjects.identity(subject.identity).is_none() {
            return Err(Error::not_found("identity", subject.identity.to_string()));
        }
        let rules = self.selecting(&subject);
        CompiledPolicy::compile(subject, options, &rules, &self.selectors)
    }

    /// In place of a policy that can't be compiled: its rules, without entries, until an [update](CompiledPolicy::update) for which
    /// there is room.
    pub(crate) fn compile_behind(&self, subject: Subject, options: &PolicyOptions) -> CompiledPolicy {
        let rules = self.selecting(&subject);
        CompiledPolicy::behind(subject, options, &rules)
    }

    /// The rules that select an endpoint.
    fn selecting(&self, subject: &Subject) -> Vec<Arc<BoundRule>> {
        let selecting = self.subjects.selectors_of(subject.identity);
        selecting.iter().filter_map(|selector| self.by_subject.get(selector)).flatten().cloned().collect()
    }
}
