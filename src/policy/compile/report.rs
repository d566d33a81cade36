//! Where entries come from, and why others are missing.

use super::super::flat::RuleNumber;
use super::super::selectors::SelectorCache;
use super::layer::Statement;
use super::side::Side;
use crate::SecurityId;
use crate::tables::PolicyMatch;

/// What a rule says about some traffic of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The traffic; an entry matches just that, unless it is shadowed.
    pub matched: PolicyMatch,
    /// Whether the rule denies it.
    pub deny: bool,
    /// The rule; [`RuleNumber::NONE`] for what holds by default.
    pub rule: RuleNumber,
    /// What decides instead, so that no entry is needed.
    pub shadowed_by: Option<Shadow>,
}

/// The entry that decides in place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// What it matches.
    pub matched: PolicyMatch,
    /// Whether it denies.
    pub deny: bool,
    /// The rule it comes from.
    pub rule: RuleNumber,
}

impl Side {
    pub fn origins(&self, peer: SecurityId, selectors: &SelectorCache) -> Vec<Origin> {
        let origin = |Statement { l4, deny, rule }, shadowed_by| Origin {
            matched: self.matched(peer, l4),
            deny,
            rule,
            shadowed_by,
        };
        let mut origins = Vec::new();
        let kept = self.sort_out(peer, selectors, |statement, cover| {
            let of = if cover.any_peer { SecurityId::UNKNOWN } else { peer };
            let Statement { l4, deny, rule } = cover.by;
            origins.push(origin(statement, Some(Shadow { matched: self.matched(of, l4), deny, rule })));
        });
        origins.extend(kept.statements().map(|statement| origin(*statement, None)));
        origins.sort_by_key(|origin| (origin.matched, origin.shadowed_by.is_some(), !origin.deny, origin.rule));
        origins
    }
}
