//! From the rules that select an endpoint to the entries of its policy map.
//!
//! The programs look twice, for the peer's identity and for any peer, and get the longest match of each: the higher
//! precedence decides. So a denial has to be the longest match among the entries of its own peer wherever it applies; across the two
//! lookups its precedence is enough. [`layer`] sees to that.

mod bound;
mod layer;
mod named_ports;
mod options;
mod report;
mod side;
mod size;

use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) use bound::BoundRule;
pub use layer::{ALLOW_PRECEDENCE, DENY_PRECEDENCE};
pub use named_ports::NamedPorts;
pub use options::{EnforcementMode, PolicyOptions};
pub use report::{Origin, Shadow};
pub use side::PolicyDelta;

use self::layer::Statement;
use self::side::Side;
use super::selectors::{SelectorCache, SelectorChanges};
use crate::tables::{PolicyDirection, PolicyMatch, PolicyVerdict};
use crate::{EndpointId, Result, SecurityId};

/// The endpoint that a policy is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its number.
    pub endpoint: EndpointId,
    /// Its identity, by which rules select it.
    pub identity: SecurityId,
    /// The names it has given to its ports.
    pub named_ports: NamedPorts,
}

/// The policy of one endpoint as entries of its map, which follows the identities as they come and go.
///
/// Peers that the same rules select share their entries in memory.
#[derive(Clone, Debug)]
pub struct CompiledPolicy {
    subject: Subject,
    max_entries: usize,
    ingress: Side,
    egress: Side,
    /// An update was refused: the sides are those of an earlier state of the selectors.
    behind: bool,
}

impl CompiledPolicy {
    /// Compiles the rules that select a subject.
    ///
    /// # Errors
    ///
    /// `PolicyTooLarge` where more entries are needed than the options allow.
    pub(super) fn compile(
        subject: Subject,
        options: &PolicyOptions,
        rules: &[Arc<BoundRule>],
        selectors: &SelectorCache,
    ) -> Result<Self> {
        let side = |direction| Side::compile(direction, options, rules, &subject.named_ports, selectors);
        let (ingress, egress) = (side(PolicyDirection::Ingress), side(PolicyDirection::Egress));
        let policy = Self { subject, max_entries: options.max_entries, ingress, egress, behind: false };
        policy.check_size(policy.len(), selectors)?;
        Ok(policy)
    }

    /// The rules that select a subject whose policy can't be compiled. It has no entries; what was refused is made up for by the next
    /// update for which there is room.
    pub(super) fn behind(subject: Subject, options: &PolicyOptions, rules: &[Arc<BoundRule>]) -> Self {
        let side = |direction| Side::without_peers(direction, options, rules, &subject.named_ports);
        let (ingress, egress) = (side(PolicyDirection::Ingress), side(PolicyDirection::Egress));
        Self { subject, max_entries: options.max_entries, ingress, egress, behind: true }
    }

    /// Whether a change of the selectors can change it.
    pub fn is_concerned(&self, changes: &SelectorChanges) -> bool {
        let uses = |selector| self.ingress.uses(selector) || self.egress.uses(selector);
        changes.iter().any(|(selector, _)| uses(selector))
    }

    /// Follows a change of the selectors, of which `selectors` is the state after it.
    ///
    /// # Errors
    ///
    /// `PolicyTooLarge`; everything stays as it was then, and the next update makes up for it.
    pub fn update(&mut self, selectors: &SelectorCache, changes: &SelectorChanges) -> Result<PolicyDelta> {
        if self.behind {
            return self.catch_up(selectors);
        }
        let ingress = self.ingress.prepare(selectors, changes);
        let egress = self.egress.prepare(selectors, changes);
        let len = (self.len() + ingress.grows + egress.grows).saturating_sub(ingress.shrinks + egress.shrinks);
        if let Err(refused) = self.check_size_after(len, selectors) {
            self.behind = true;
            return Err(refused);
        }
        let mut delta = PolicyDelta::default();
        self.ingress.commit(ingress, &mut delta);
        self.egress.commit(egress, &mut delta);
        Ok(delta)
    }

    /// Follows whatever has happened to the selectors since the last successful update.
    ///
    /// # Errors
    ///
    /// As for [`update`](Self::update).
    pub fn catch_up(&mut self, selectors: &SelectorCache) -> Result<PolicyDelta> {
        let fresh = self.recompiled(selectors);
        self.behind = true;
        fresh.check_size(fresh.len(), selectors)?;
        let mut delta = PolicyDelta::default();
        self.ingress.difference(&fresh.ingress, &mut delta);
        self.egress.difference(&fresh.egress, &mut delta);
        *self = fresh;
        Ok(delta)
    }

    /// The same rules with the selectors as they are now.
    fn recompiled(&self, selectors: &SelectorCache) -> Self {
        let (ingress, egress) = (self.ingress.recompiled(selectors), self.egress.recompiled(selectors));
        Self { subject: self.subject.clone(), max_entries: self.max_entries, ingress, egress, behind: false }
    }

    /// The endpoint it is for.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Whether traffic in this direction needs a rule that allows it.
    pub fn is_enforced(&self, direction: PolicyDirection) -> bool {
        self.side(direction).is_enforced()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.ingress.len() + self.egress.len()
    }

    /// Whether there is none: then everything is denied.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries, in the order of what they match.
    pub fn entries(&self) -> impl Iterator<Item = (PolicyMatch, PolicyVerdict)> {
        self.ingress.entries().chain(self.egress.entries())
    }

    /// What the rules say about traffic with a peer ([`SecurityId::UNKNOWN`]: with whomever), and what became of it: which
    /// rules made an entry, and what decides in place of those that made none. Broad before narrow.
    pub fn origins(&self, direction: PolicyDirection, peer: SecurityId, selectors: &SelectorCache) -> Vec<Origin> {
        self.side(direction).origins(peer, selectors)
    }

    /// Names of ports that rules use and the endpoint doesn't have, each with the rule.
    pub fn unresolved_ports(&self) -> BTreeSet<(super::RuleNumber, String)> {
        self.ingress.unresolved().chain(self.egress.unresolved()).cloned().collect()
    }

    fn side(&self, direction: PolicyDirection) -> &Side {
        match direction {
            PolicyDirection::Ingress => &self.ingress,
            PolicyDirection::Egress => &self.egress,
        }
    }

    fn check_size_after(&self, len: usize, selectors: &SelectorCache) -> Result<()> {
        match len > self.max_entries {
            true => self.recompiled(selectors).check_size(len, selectors),
            false => Ok(()),
        }
    }

    fn check_size(&self, len: usize, selectors: &SelectorCache) -> Result<()> {
        if len <= self.max_entries {
            return Ok(());
        }
        let sides = [&self.ingress, &self.egress];
        Err(size::too_large(self.subject.endpoint, len, self.max_entries, sides, selectors))
    }
}
