//! A rule with its selectors as numbers and its ports as prefixes: worked out once, for all the endpoints it selects.

use super::super::flat::{FlatRule, L4Match, L4Ports, Peer, Peers, RuleNumber};
use super::super::selectors::{SelectorCache, SelectorId};
use super::named_ports::NamedPorts;
use crate::tables::{PolicyDirection, PolicyL4, PortPrefix, Protocol};

/// The protocols that have ports, for rules about a port of whichever.
const WITH_PORTS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

/// A rule bound to the selectors of a cache, of each of which it is a user.
#[derive(Clone, Debug)]
pub(in crate::policy) struct BoundRule {
    pub rule: RuleNumber,
    pub direction: PolicyDirection,
    pub deny: bool,
    pub default_deny: bool,
    /// `None` for everyone.
    pub peers: Option<Vec<SelectorId>>,
    /// Those selected whether or not `peers` are everyone, so that each can be shown and given back.
    acquired: Vec<SelectorId>,
    /// What it is about on every endpoint.
    pub l4: Vec<PolicyL4>,
    /// Names of ports, each with the protocols of which one has to have it.
    named: Vec<(Vec<Protocol>, String)>,
}

impl BoundRule {
    /// What holds by default, without a rule: all traffic of `peers` is allowed.
    pub fn by_default(direction: PolicyDirection, peers: Option<Vec<SelectorId>>) -> Self {
        Self {
            rule: RuleNumber::NONE,
            direction,
            deny: false,
            default_deny: false,
            peers,
            acquired: Vec::new(),
            l4: vec![PolicyL4::Any],
            named: Vec::new(),
        }
    }

    /// Binds a rule to selectors of this cache.
    pub fn bind(rule: &FlatRule, selectors: &mut SelectorCache) -> Self {
        let listed: &[Peer] = match &rule.peers {
            Peers::Any => &[],
            Peers::Some(peers) => peers,
        };
        let acquired: Vec<_> = listed.iter().map(|peer| selectors.acquire(peer)).collect();
        let everyone = rule.peers == Peers::Any || listed.iter().any(Peer::is_everyone);
        let mut l4: Vec<_> = match rule.l4.is_empty() {
            true => vec![PolicyL4::Any],
            false => rule.l4.iter().flat_map(prefixes).collect(),
        };
        l4.sort_unstable();
        l4.dedup();
        Self {
            rule: rule.rule,
            direction: rule.direction,
            deny: rule.deny,
            default_deny: rule.default_deny,
            peers: (!everyone).then(|| acquired.clone()),
            acquired,
            l4,
            named: rule.l4.iter().filter_map(named).collect(),
        }
    }

    /// Gives the selectors back.
    pub fn release(&self, selectors: &mut SelectorCache) {
        for selector in &self.acquired {
            selectors.release(*selector);
        }
    }

    /// What it is about by names, on an endpoint with these; what has no name there goes to `unresolved`.
    ///
    /// At egress a name would be the destination's, which one entry for all endpoints of an identity can't know: there it
    /// stays unresolved.
    pub fn l4_by_name(&self, named: &NamedPorts, unresolved: &mut Vec<(RuleNumber, String)>) -> Vec<PolicyL4> {
        let mut l4 = Vec::new();
        for (protocols, name) in &self.named {
            let before = l4.len();
            if self.direction == PolicyDirection::Ingress {
                let of = |protocol| named.resolve(name, protocol).map(move |port| PolicyL4::port(protocol, port));
                l4.extend(protocols.iter().flat_map(|protocol| of(*protocol)));
            }
            if l4.len() == before {
                unresolved.push((self.rule, name.clone()));
            }
        }
        l4
    }
}

fn protocols(protocol: Protocol) -> Vec<Protocol> {
    if protocol == Protocol::ANY { WITH_PORTS.to_vec() } else { vec![protocol] }
}

fn prefixes(l4: &L4Match) -> Vec<PolicyL4> {
    let L4Ports::Range(range) = &l4.ports else { return Vec::new() };
    if l4.protocol == Protocol::ANY && l4.ports == L4Ports::ALL {
        return vec![PolicyL4::Any];
    }
    let cover = PortPrefix::cover(range.clone());
    let of = |protocol| cover.iter().map(move |ports| PolicyL4::Ports(protocol, *ports));
    protocols(l4.protocol).into_iter().flat_map(of).collect()
}

fn named(l4: &L4Match) -> Option<(Vec<Protocol>, String)> {
    let L4Ports::Named(name) = &l4.ports else { return None };
    Some((protocols(l4.protocol), name.clone()))
}
