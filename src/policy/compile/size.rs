//! Policies that are larger than allowed.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::super::flat::RuleNumber;
use super::super::selectors::{CachedSelector, SelectorCache};
use super::side::Side;
use crate::{EndpointId, Error, PolicyShare};

/// How many rules the error names.
const NAMED: usize = 3;
/// How many of a rule's selectors it names.
const SELECTORS_NAMED: usize = 2;

/// The error for a policy that needs `count` entries, with the rules that make the most of them.
pub(super) fn too_large(
    endpoint: EndpointId,
    count: usize,
    limit: usize,
    sides: [&Side; 2],
    selectors: &SelectorCache,
) -> Error {
    let mut counts: BTreeMap<RuleNumber, usize> = BTreeMap::new();
    for (_, statement) in sides.iter().flat_map(|side| side.statements()) {
        *counts.entry(statement.rule).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(rule, count)| (Reverse(*count), *rule));
    let contributors = counts.into_iter().filter(|(rule, _)| *rule != RuleNumber::NONE).take(NAMED);
    let contributors = contributors.map(|(rule, entries)| PolicyShare {
        rule: rule.get(),
        name: None,
        entries,
        selectors: peers_of(rule, sides, selectors),
    });
    Error::PolicyTooLarge { endpoint: endpoint.get(), count, limit, contributors: contributors.collect() }
}

/// The selectors of a rule's peers, those that select the most first: `k8s:app=web: 300 identities`.
fn peers_of(rule: RuleNumber, sides: [&Side; 2], selectors: &SelectorCache) -> Vec<String> {
    let rules = sides.iter().flat_map(|side| &side.rules().rules).filter(|own| own.rule() == rule);
    let mut used: Vec<_> =
        rules.flat_map(|own| own.selectors().unwrap_or_default()).filter_map(|id| selectors.get(*id)).collect();
    used.sort_by_key(|selector| (Reverse(selector.identities.len()), selector.id));
    used.dedup();
    let name = |selector: &CachedSelector<'_>| format!("{}: {} identities", selector.peer, selector.identities.len());
    let more = (used.len() > SELECTORS_NAMED).then(|| "…".to_owned());
    used.iter().take(SELECTORS_NAMED).map(name).chain(more).collect()
}
