//! Policies that are larger than allowed.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::super::flat::RuleNumber;
use super::super::selectors::{CachedSelector, SelectorCache};
use super::side::Side;
use crate::{EndpointId, Error};

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
    let named = counts.into_iter().take(NAMED);
    let contributors =
        named.map(|(rule, count)| format!("rule {rule} makes {count}{}", peers_of(rule, sides, selectors))).collect();
    Error::PolicyTooLarge { endpoint: endpoint.get(), count, limit, contributors }
}

/// The selectors of a rule's peers, those that select the most first: ` (k8s:app=web: 300 identities, …)`.
fn peers_of(rule: RuleNumber, sides: [&Side; 2], selectors: &SelectorCache) -> String {
    let rules = sides.iter().flat_map(|side| &side.rules().rules).filter(|own| own.rule() == rule);
    let mut used: Vec<_> =
        rules.flat_map(|own| own.selectors().unwrap_or_default()).filter_map(|id| selectors.get(*id)).collect();
    used.sort_by_key(|selector| (Reverse(selector.identities.len()), selector.id));
    used.dedup();
    let more = if used.len() > SELECTORS_NAMED { ", …" } else { "" };
    let name = |selector: &CachedSelector<'_>| format!("{}: {} identities", selector.peer, selector.identities.len());
    let named: Vec<_> = used.iter().take(SELECTORS_NAMED).map(name).collect();
    if named.is_empty() { String::new() } else { format!(" ({}{more})", named.join(", ")) }
}
