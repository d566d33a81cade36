//! One direction of one endpoint's policy.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::super::flat::RuleNumber;
use super::super::selectors::{SelectorCache, SelectorChanges, SelectorId};
use super::Statement;
use super::bound::BoundRule;
use super::layer::Layer;
use super::named_ports::NamedPorts;
use super::options::{EnforcementMode, PolicyOptions};
use crate::SecurityId;
use crate::tables::{PolicyDirection, PolicyL4, PolicyMatch, PolicyVerdict};

/// How the entries of a policy have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyDelta {
    /// Entries that are new or say something else, in no particular order.
    pub written: Vec<(PolicyMatch, PolicyVerdict)>,
    /// Entries that are gone.
    pub removed: Vec<PolicyMatch>,
}

impl PolicyDelta {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty() && self.removed.is_empty()
    }
}

/// A rule about this side, by its place among them.
type RuleIndex = u32;

/// What one rule says here.
#[derive(Clone, Debug)]
pub(super) struct SideRule {
    bound: Arc<BoundRule>,
    by_name: Vec<PolicyL4>,
}

impl SideRule {
    pub fn rule(&self) -> RuleNumber {
        self.bound.rule
    }

    /// Whose traffic it is about; `None` for everyone's.
    pub fn selectors(&self) -> Option<&[SelectorId]> {
        self.bound.peers.as_deref()
    }

    fn statements(&self) -> impl Iterator<Item = Statement> {
        let (deny, rule) = (self.bound.deny, self.bound.rule);
        self.bound.l4.iter().chain(&self.by_name).map(move |l4| Statement { l4: *l4, deny, rule })
    }
}

/// What does not depend on who exists.
#[derive(Debug)]
pub(super) struct SideRules {
    direction: PolicyDirection,
    enforced: bool,
    pub rules: Vec<SideRule>,
    /// In order.
    by_selector: Vec<(SelectorId, RuleIndex)>,
    /// The rule by which the host is let in.
    host: Option<RuleIndex>,
    any: Layer,
    unresolved: Vec<(RuleNumber, String)>,
}

/// The entries of the peers that some rules select.
#[derive(Debug)]
struct Profile {
    /// In order.
    rules: Box<[RuleIndex]>,
    layer: Layer,
}

/// A profile, found by its rules.
#[derive(Clone, Debug)]
struct ByRules(Arc<Profile>);

impl Borrow<[RuleIndex]> for ByRules {
    fn borrow(&self) -> &[RuleIndex] {
        &self.0.rules
    }
}

impl Hash for ByRules {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.rules.hash(state);
    }
}

impl PartialEq for ByRules {
    fn eq(&self, other: &Self) -> bool {
        self.0.rules == other.0.rules
    }
}

impl Eq for ByRules {}

/// One direction of one endpoint's policy.
#[derive(Clone, Debug)]
pub(super) struct Side {
    rules: Arc<SideRules>,
    /// The peers about whom there is an entry of their own.
    peers: BTreeMap<SecurityId, Arc<Profile>>,
    /// Those in use.
    profiles: HashSet<ByRules>,
    len: usize,
}

/// New profiles of some peers, not yet in force; `None` where no entry is left.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    peers: Vec<(SecurityId, Option<Arc<Profile>>)>,
    /// How many entries the new ones have.
    pub grows: usize,
    /// How many those have that they replace.
    pub shrinks: usize,
}

impl SideRules {
    fn of(direction: PolicyDirection, options: &PolicyOptions, bound: &[Arc<BoundRule>], named: &NamedPorts) -> Self {
        let never = options.mode == EnforcementMode::Never;
        let bound = || bound.iter().filter(|rule| rule.direction == direction && !never);
        let enforced = match options.mode {
            EnforcementMode::Default => bound().any(|rule| rule.default_deny),
            EnforcementMode::Always => true,
            EnforcementMode::Never => false,
        };
        let mut unresolved = Vec::new();
        let side_rule = |bound: &Arc<BoundRule>| {
            let by_name = bound.l4_by_name(named, &mut unresolved);
            SideRule { bound: bound.clone(), by_name }
        };
        let mut rules: Vec<_> = bound().map(side_rule).collect();
        let mut by_default = |selectors| {
            rules.push(SideRule { bound: BoundRule::by_default(direction, selectors).into(), by_name: Vec::new() });
            RuleIndex::try_from(rules.len() - 1).ok()
        };
        if !enforced {
            by_default(None);
        }
        let lets_host_in = enforced && options.allow_localhost && direction == PolicyDirection::Ingress;
        let host = lets_host_in.then(|| by_default(Some(Vec::new()))).flatten();
        let mut by_selector = Vec::new();
        for (index, rule) in (0..).zip(&rules) {
            by_selector.extend(rule.selectors().unwrap_or_default().iter().map(|selector| (*selector, index)));
        }
        by_selector.sort_unstable();
        let any = Layer::of(about_everyone(&rules), &Layer::default());
        Self { direction, enforced, rules, by_selector, host, any, unresolved }
    }

    /// The rules that use a selector.
    fn using(&self, selector: SelectorId) -> &[(SelectorId, RuleIndex)] {
        let from = self.by_selector.partition_point(|(used, _)| *used < selector);
        let rest = self.by_selector.get(from..).unwrap_or_default();
        rest.get(..rest.partition_point(|(used, _)| *used == selector)).unwrap_or_default()
    }

    /// The rules about a peer, in order and without those about everyone.
    fn about(&self, peer: SecurityId, selectors: &SelectorCache) -> Vec<RuleIndex> {
        if peer == SecurityId::UNKNOWN {
            return Vec::new();
        }
        let using = selectors.selectors_of(peer).iter().flat_map(|selector| self.using(*selector));
        let mut rules: Vec<_> = using.map(|(_, rule)| *rule).collect();
        rules.extend(self.host.filter(|_| peer == SecurityId::HOST));
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    fn statements(&self, rules: &[RuleIndex]) -> Vec<Statement> {
        let rules = rules.iter().filter_map(|index| self.rules.get(usize::try_from(*index).ok()?));
        rules.flat_map(SideRule::statements).collect()
    }

    /// Every peer with each rule about it, sorted.
    fn pairs(&self, selectors: &SelectorCache) -> Vec<(SecurityId, RuleIndex)> {
        let mut pairs: Vec<_> = self.host.map(|rule| (SecurityId::HOST, rule)).into_iter().collect();
        for (selector, rule) in &self.by_selector {
            let known = selectors.selected(*selector).filter(|peer| *peer != SecurityId::UNKNOWN);
            pairs.extend(known.map(|peer| (peer, *rule)));
        }
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    }
}

fn about_everyone(rules: &[SideRule]) -> Vec<Statement> {
    rules.iter().filter(|rule| rule.selectors().is_none()).flat_map(SideRule::statements).collect()
}

impl Side {
    pub fn compile(
        direction: PolicyDirection,
        options: &PolicyOptions,
        rules: &[Arc<BoundRule>],
        named: &NamedPorts,
        selectors: &SelectorCache,
    ) -> Self {
        Self::with_peers(Arc::new(SideRules::of(direction, options, rules, named)), selectors)
    }

    /// The rules alone.
    pub fn without_peers(
        direction: PolicyDirection,
        options: &PolicyOptions,
        rules: &[Arc<BoundRule>],
        named: &NamedPorts,
    ) -> Self {
        let rules = Arc::new(SideRules::of(direction, options, rules, named));
        Self { rules, peers: BTreeMap::new(), profiles: HashSet::new(), len: 0 }
    }

    /// Whether a rule uses a selector.
    pub fn uses(&self, selector: SelectorId) -> bool {
        !self.rules.using(selector).is_empty()
    }

    /// The same rules with the selectors as they are now.
    pub fn recompiled(&self, selectors: &SelectorCache) -> Self {
        Self::with_peers(self.rules.clone(), selectors)
    }

    fn with_peers(rules: Arc<SideRules>, selectors: &SelectorCache) -> Self {
        let len = rules.any.len();
        let mut side = Self { rules, peers: BTreeMap::new(), profiles: HashSet::new(), len };
        let pairs = side.rules.pairs(selectors);
        let (mut peers, mut about) = (Vec::new(), Vec::new());
        for pairs in pairs.chunk_by(|(one, _), (other, _)| one == other) {
            about.clear();
            about.extend(pairs.iter().map(|(_, rule)| *rule));
            let profile = side.profile(&about);
            if profile.layer.len() > 0 {
                side.len += profile.layer.len();
                peers.extend(pairs.first().map(|(peer, _)| (*peer, profile)));
            }
        }
        side.peers = peers.into_iter().collect();
        side.profiles.retain(|profile| profile.0.layer.len() > 0);
        side
    }

    /// What rules make of a peer; worked out once for all peers whom they select.
    fn profile(&mut self, rules: &[RuleIndex]) -> Arc<Profile> {
        if let Some(ByRules(profile)) = self.profiles.get(rules) {
            return profile.clone();
        }
        let layer = Layer::of(self.rules.statements(rules), &self.rules.any);
        let profile = Arc::new(Profile { rules: rules.into(), layer });
        self.profiles.insert(ByRules(profile.clone()));
        profile
    }

    fn profile_unless_empty(&mut self, rules: &[RuleIndex]) -> Option<Arc<Profile>> {
        if rules.is_empty() {
            return None;
        }
        let profile = self.profile(rules);
        if profile.layer.len() == 0 {
            self.forget_unused(&profile);
            return None;
        }
        Some(profile)
    }

    /// Drops a profile that only the caller and `self.profiles` hold.
    fn forget_unused(&mut self, profile: &Arc<Profile>) {
        if Arc::strong_count(profile) <= 2 {
            self.profiles.remove(&*profile.rules);
        }
    }

    /// Works out what a change of the selectors means, without putting it into force.
    pub fn prepare(&mut self, selectors: &SelectorCache, changes: &SelectorChanges) -> Prepared {
        let ours = changes.iter().filter(|(selector, _)| self.uses(*selector));
        let concerned: BTreeSet<_> =
            ours.flat_map(|(_, change)| change.added.iter().chain(&change.removed)).copied().collect();
        let mut prepared = Prepared::default();
        for peer in concerned {
            let about = self.rules.about(peer, selectors);
            let new = self.profile_unless_empty(&about);
            let old = self.peers.get(&peer);
            if new.as_ref().map(|new| &new.rules) == old.map(|old| &old.rules) {
                continue;
            }
            prepared.grows += new.as_ref().map_or(0, |new| new.layer.len());
            prepared.shrinks += old.map_or(0, |old| old.layer.len());
            prepared.peers.push((peer, new));
        }
        prepared
    }

    /// Puts into force what was prepared, and adds to `delta` how that changes the entries.
    pub fn commit(&mut self, prepared: Prepared, delta: &mut PolicyDelta) {
        self.len = (self.len + prepared.grows).saturating_sub(prepared.shrinks);
        for (peer, new) in prepared.peers {
            let old = match &new {
                Some(new) => self.peers.insert(peer, new.clone()),
                None => self.peers.remove(&peer),
            };
            difference(self.rules.direction, peer, old.as_deref(), new.as_deref(), delta);
            if let Some(old) = old {
                self.forget_unused(&old);
            }
        }
    }

    /// Adds to `delta` what has to be done to these entries to make them those of `new`.
    pub fn difference(&self, new: &Self, delta: &mut PolicyDelta) {
        let peers: BTreeSet<_> = self.peers.keys().chain(new.peers.keys()).collect();
        for peer in peers {
            let profile = |side: &'_ Self| side.peers.get(peer).cloned();
            difference(self.rules.direction, *peer, profile(self).as_deref(), profile(new).as_deref(), delta);
        }
    }

    pub fn is_enforced(&self) -> bool {
        self.rules.enforced
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn unresolved(&self) -> impl Iterator<Item = &(RuleNumber, String)> {
        self.rules.unresolved.iter()
    }

    pub fn rules(&self) -> &SideRules {
        &self.rules
    }

    /// Every statement that is an entry, with its peer.
    pub fn statements(&self) -> impl Iterator<Item = (SecurityId, &Statement)> {
        let any = self.rules.any.statements().map(|statement| (SecurityId::UNKNOWN, statement));
        let peers = self.peers.iter();
        any.chain(peers.flat_map(|(peer, own)| own.layer.statements().map(|statement| (*peer, statement))))
    }

    pub fn entries(&self) -> impl Iterator<Item = (PolicyMatch, PolicyVerdict)> {
        let direction = self.rules.direction;
        self.statements().map(move |(peer, statement)| (matched(direction, peer, statement.l4), statement.verdict()))
    }

    /// What rules say of a peer, sorted out anew; see [`Layer::build`].
    pub fn sort_out(
        &self,
        peer: SecurityId,
        selectors: &SelectorCache,
        covered: impl FnMut(Statement, super::layer::Cover),
    ) -> Layer {
        if peer == SecurityId::UNKNOWN {
            return Layer::build(about_everyone(&self.rules.rules), &Layer::default(), covered);
        }
        Layer::build(self.rules.statements(&self.rules.about(peer, selectors)), &self.rules.any, covered)
    }

    pub fn matched(&self, peer: SecurityId, l4: PolicyL4) -> PolicyMatch {
        matched(self.rules.direction, peer, l4)
    }
}

fn matched(direction: PolicyDirection, identity: SecurityId, l4: PolicyL4) -> PolicyMatch {
    PolicyMatch { direction, identity, l4 }
}

/// Adds to `delta` what turns the entries of one peer from `old` into `new`.
fn difference(
    direction: PolicyDirection,
    peer: SecurityId,
    old: Option<&Profile>,
    new: Option<&Profile>,
    delta: &mut PolicyDelta,
) {
    let find = |profile: Option<&Profile>, l4| profile.and_then(|profile| profile.layer.get(l4).copied());
    for statement in new.iter().flat_map(|new| new.layer.statements()) {
        if find(old, statement.l4) != Some(*statement) {
            delta.written.push((matched(direction, peer, statement.l4), statement.verdict()));
        }
    }
    for statement in old.iter().flat_map(|old| old.layer.statements()) {
        if find(new, statement.l4).is_none() {
            delta.removed.push(matched(direction, peer, statement.l4));
        }
    }
}
