//! One direction of one endpoint's policy.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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
    pub rule: RuleNumber,
    deny: bool,
    l4: Vec<PolicyL4>,
    /// Whose traffic it is about; `None` for everyone's.
    pub selectors: Option<Vec<SelectorId>>,
}

impl SideRule {
    fn statements(&self) -> impl Iterator<Item = Statement> {
        self.l4.iter().map(|l4| Statement { l4: *l4, deny: self.deny, rule: self.rule })
    }
}

/// What does not depend on who exists.
#[derive(Debug)]
pub(super) struct SideRules {
    direction: PolicyDirection,
    enforced: bool,
    pub rules: Vec<SideRule>,
    by_selector: HashMap<SelectorId, Vec<RuleIndex>>,
    /// The rule by which the host is let in.
    host: Option<RuleIndex>,
    /// What everyone's rules say, before and after what can't decide is left out.
    any_statements: Vec<Statement>,
    any: Layer,
    unresolved: Vec<(RuleNumber, String)>,
}

/// A peer's entries, with the rules that select it.
#[derive(Clone, Debug)]
struct PeerLayer {
    rules: Arc<[RuleIndex]>,
    layer: Arc<Layer>,
}

/// One direction of one endpoint's policy.
#[derive(Clone, Debug)]
pub(super) struct Side {
    rules: Arc<SideRules>,
    /// The peers about whom there is an entry of their own.
    peers: BTreeMap<SecurityId, PeerLayer>,
    /// The layers in use, by the rules they come from.
    layers: HashMap<Arc<[RuleIndex]>, Arc<Layer>>,
    len: usize,
}

/// New layers for some peers, not yet in force; `None` where no entry is left.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    peers: Vec<(SecurityId, Option<PeerLayer>)>,
    /// How many entries the new layers have.
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
        let mut rules: Vec<_> = bound()
            .map(|rule| SideRule {
                rule: rule.rule,
                deny: rule.deny,
                l4: rule.l4(named, &mut unresolved),
                selectors: rule.peers.clone(),
            })
            .collect();
        let by_default =
            |selectors| SideRule { rule: RuleNumber::NONE, deny: false, l4: vec![PolicyL4::Any], selectors };
        if !enforced {
            rules.push(by_default(None));
        }
        let mut host = None;
        if enforced && options.allow_localhost && direction == PolicyDirection::Ingress {
            host = RuleIndex::try_from(rules.len()).ok();
            rules.push(by_default(Some(Vec::new())));
        }
        let mut by_selector: HashMap<SelectorId, Vec<RuleIndex>> = HashMap::new();
        for (index, rule) in (0..).zip(&rules) {
            for selector in rule.selectors.iter().flatten() {
                by_selector.entry(*selector).or_default().push(index);
            }
        }
        let about_everyone = rules.iter().filter(|rule| rule.selectors.is_none());
        let any_statements: Vec<_> = about_everyone.flat_map(SideRule::statements).collect();
        let any = Layer::of(any_statements.clone(), &Layer::default());
        Self { direction, enforced, rules, by_selector, host, any_statements, any, unresolved }
    }

    /// The rules about a peer, in order and without those about everyone.
    fn about(&self, peer: SecurityId, selectors: &SelectorCache) -> Vec<RuleIndex> {
        if peer == SecurityId::UNKNOWN {
            return Vec::new();
        }
        let selecting = selectors.selectors_of(peer).iter().filter_map(|selector| self.by_selector.get(selector));
        let mut rules: Vec<_> = selecting.flatten().copied().collect();
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
        for (selector, rules) in &self.by_selector {
            let known = selectors.selected(*selector).filter(|peer| *peer != SecurityId::UNKNOWN);
            pairs.extend(known.flat_map(|peer| rules.iter().map(move |rule| (peer, *rule))));
        }
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    }
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

    /// The same rules with the selectors as they are now.
    pub fn recompiled(&self, selectors: &SelectorCache) -> Self {
        Self::with_peers(self.rules.clone(), selectors)
    }

    fn with_peers(rules: Arc<SideRules>, selectors: &SelectorCache) -> Self {
        let len = rules.any.len();
        let mut side = Self { rules, peers: BTreeMap::new(), layers: HashMap::new(), len };
        let pairs = side.rules.pairs(selectors);
        let mut about = Vec::new();
        for pairs in pairs.chunk_by(|(one, _), (other, _)| one == other) {
            about.clear();
            about.extend(pairs.iter().map(|(_, rule)| *rule));
            let peer = pairs.first().map(|(peer, _)| *peer);
            let layer = side.layer(&about);
            if let Some(peer) = peer.filter(|_| layer.layer.len() > 0) {
                side.len += layer.layer.len();
                side.peers.insert(peer, layer);
            }
        }
        side.layers.retain(|_, layer| layer.len() > 0);
        side
    }

    /// What rules make of a peer; worked out once for all peers whom they select.
    fn layer(&mut self, rules: &[RuleIndex]) -> PeerLayer {
        if let Some((rules, layer)) = self.layers.get_key_value(rules) {
            return PeerLayer { rules: rules.clone(), layer: layer.clone() };
        }
        let layer = Arc::new(Layer::of(self.rules.statements(rules), &self.rules.any));
        let rules: Arc<[RuleIndex]> = rules.into();
        self.layers.insert(rules.clone(), layer.clone());
        PeerLayer { rules, layer }
    }

    fn layer_unless_empty(&mut self, rules: &[RuleIndex]) -> Option<PeerLayer> {
        if rules.is_empty() {
            return None;
        }
        let layer = self.layer(rules);
        if layer.layer.len() == 0 {
            self.forget_unused(&layer);
            return None;
        }
        Some(layer)
    }

    /// Drops a layer that nobody else holds but `self.layers`.
    fn forget_unused(&mut self, layer: &PeerLayer) {
        if Arc::strong_count(&layer.layer) <= 2 {
            self.layers.remove(&layer.rules);
        }
    }

    /// Works out what a change of the selectors means, without putting it into force.
    pub fn prepare(&mut self, selectors: &SelectorCache, changes: &SelectorChanges) -> Prepared {
        let ours = changes.iter().filter(|(selector, _)| self.rules.by_selector.contains_key(selector));
        let concerned: BTreeSet<_> =
            ours.flat_map(|(_, change)| change.added.iter().chain(&change.removed)).copied().collect();
        let mut prepared = Prepared::default();
        for peer in concerned {
            let about = self.rules.about(peer, selectors);
            let new = self.layer_unless_empty(&about);
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
            let layer = |layer: &Option<PeerLayer>| layer.as_ref().map(|layer| layer.layer.clone()).unwrap_or_default();
            difference(self.rules.direction, peer, &layer(&old), &layer(&new), delta);
            if let Some(old) = old {
                self.forget_unused(&old);
            }
        }
    }

    /// Adds to `delta` what has to be done to these entries to make them those of `new`.
    pub fn difference(&self, new: &Self, delta: &mut PolicyDelta) {
        let none = Layer::default();
        let peers: BTreeSet<_> = self.peers.keys().chain(new.peers.keys()).collect();
        for peer in peers {
            let layer = |side: &'_ Self| side.peers.get(peer).map(|layer| layer.layer.clone());
            let (old, new) = (layer(self), layer(new));
            let (old, new) = (old.as_deref().unwrap_or(&none), new.as_deref().unwrap_or(&none));
            difference(self.rules.direction, *peer, old, new, delta);
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
        let any = self.rules.any.statements().iter().map(|statement| (SecurityId::UNKNOWN, statement));
        let peers = self.peers.iter();
        any.chain(peers.flat_map(|(peer, own)| own.layer.statements().iter().map(|statement| (*peer, statement))))
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
            return Layer::build(self.rules.any_statements.clone(), &Layer::default(), covered);
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
fn difference(direction: PolicyDirection, peer: SecurityId, old: &Layer, new: &Layer, delta: &mut PolicyDelta) {
    let find = |layer: &Layer, l4: PolicyL4| {
        let found = layer.statements().binary_search_by(|statement| statement.l4.cmp(&l4)).ok()?;
        layer.statements().get(found).copied()
    };
    for statement in new.statements() {
        if find(old, statement.l4) != Some(*statement) {
            delta.written.push((matched(direction, peer, statement.l4), statement.verdict()));
        }
    }
    for statement in old.statements() {
        if find(new, statement.l4).is_none() {
            delta.removed.push(matched(direction, peer, statement.l4));
        }
    }
}
