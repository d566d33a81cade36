//! Random worlds: who exists, and rules about them.

use ipnetwork::IpNetwork;
use podwire::identity::{Identity, World, cidr_labels, labels_of_reserved};
use podwire::policy::{
    EnforcementMode, Entity, FlatRule, L4Match, L4Ports, NamedPorts, Operator, Peer, Peers, PolicyOptions, Requirement,
    RuleNumber, RulesInForce, Selector, SelectorKey, Subject, WorldIdentities,
};
use podwire::tables::{PolicyDirection, Protocol};
use podwire::{EndpointId, Labels, SecurityId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::model::{Condition, Endpoint, Ports, Rule, Someone, Traffic, Whom};

const NETS: [&str; 10] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "192.0.2.0/24",
    "0.0.0.0/0",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "2001:db8:1::1/128",
    "::/0",
];
const RESERVED: [u32; 8] = [1, 3, 4, 5, 6, 7, 9, 10];
/// The identity of the endpoint whose policy is compiled.
pub const ME: u32 = 256;
const PORTS: [u16; 8] = [0, 1, 79, 80, 81, 1023, 1024, 65535];
pub const PROTOCOLS: [u8; 7] = [6, 17, 132, 1, 58, 47, 0];
const NAMED: [&str; 3] = ["http", "dns", "nobody-has-it"];

fn net(text: &str) -> IpNetwork {
    text.parse().expect("a prefix")
}

/// Everyone there may be: reserved ones, pods, prefixes of length above 0.
pub fn everyone() -> Vec<Someone> {
    let mut all: Vec<_> =
        RESERVED.iter().map(|id| someone(*id, labels_of_reserved(SecurityId::new(*id)).expect("reserved"))).collect();
    let pods = [
        &["k8s:app=a", "k8s:tier=x"][..],
        &["k8s:app=a"],
        &["k8s:app=b", "k8s:tier=x"],
        &["k8s:app=b", "container:app=a"],
        &["container:tier=y"],
        &["k8s:app=c", "k8s:tier=y", "k8s:name"],
    ];
    all.extend((ME..).zip(pods).map(|(id, labels)| someone(id, Labels::parse(labels).expect("labels"))));
    for (id, prefix) in (1 << 24..).zip(NETS.iter().map(|text| net(text)).filter(|net| net.prefix() > 0)) {
        all.push(someone(id, cidr_labels(prefix, World::BothFamilies).expect("no host bits")));
    }
    all
}

fn someone(id: u32, labels: Labels) -> Someone {
    let parts = |label: &podwire::Label| (label.source().to_owned(), label.key().to_owned(), label.value().to_owned());
    let cidr = Identity::new(SecurityId::new(id), labels.clone()).cidr();
    Someone { id, labels: labels.iter().map(parts).collect(), cidr }
}

pub fn identity(someone: &Someone) -> Identity {
    let texts = someone.labels.iter().map(|(source, key, value)| format!("{source}:{key}={value}"));
    Identity::new(SecurityId::new(someone.id), Labels::parse(texts).expect("labels"))
}

pub fn endpoint() -> Endpoint {
    let me = everyone().into_iter().find(|someone| someone.id == ME).expect("among them");
    Endpoint { me, named_ports: vec![("http", 6, 80), ("http", 6, 8080), ("dns", 17, 53), ("dns", 6, 53)] }
}

pub fn subject(endpoint: &Endpoint) -> Subject {
    let ports = endpoint.named_ports.iter().map(|(name, protocol, port)| (*name, Protocol::new(*protocol), *port));
    Subject {
        endpoint: EndpointId::new(7).expect("not 0"),
        identity: SecurityId::new(endpoint.me.id),
        named_ports: NamedPorts::from_iter(ports),
    }
}

fn condition() -> impl Strategy<Value = Condition> {
    let source = select(vec![None, Some("k8s"), Some("container"), Some("reserved")]);
    let key = select(vec!["app", "tier", "name", "host", "world-ipv4"]);
    let values = proptest::sample::subsequence(vec!["a", "b", "x", "y", ""], 1..3);
    let operator = select(Operator::ALL.to_vec());
    (source, key, operator, values).prop_map(|(source, key, operator, values)| {
        let values = if operator.takes_values() { values } else { Vec::new() };
        // Of the reserved labels there are just a few, and others are refused.
        let is_there = source != Some("reserved") || ["host", "world-ipv4"].contains(&key);
        Condition { source: source.filter(|_| is_there), key, operator, values }
    })
}

fn whom() -> impl Strategy<Value = Whom> {
    let nets = || select(NETS.to_vec()).prop_map(net);
    prop_oneof![
        4 => vec(condition(), 1..3).prop_map(Whom::Labels),
        1 => Just(Whom::Labels(Vec::new())),
        3 => (nets(), vec(nets(), 0..3)).prop_map(|(net, except)| Whom::Cidr(net, except)),
        3 => select(Entity::EVERY.to_vec()).prop_map(Whom::Entity),
    ]
}

fn ports() -> impl Strategy<Value = Ports> {
    let port = || prop_oneof![select(PORTS.to_vec()), 78..84_u16, any::<u16>()];
    prop_oneof![
        3 => Just(Ports::Range(0..=u16::MAX)),
        4 => port().prop_map(|port| Ports::Range(port..=port)),
        4 => (port(), port()).prop_map(|(one, other)| Ports::Range(one.min(other)..=one.max(other))),
        1 => select(NAMED.to_vec()).prop_map(Ports::Named),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let subject = prop_oneof![4 => Just(Vec::new()), 2 => Just(vec![is_app("a")]), 1 => Just(vec![is_app("b")])];
    let direction = select(vec![PolicyDirection::Ingress, PolicyDirection::Egress]);
    let peers = proptest::option::weighted(0.7, vec(whom(), 0..4));
    // protocols with ports come up often, so that rules meet
    let protocol = prop_oneof![3 => Just(6), 1 => select(PROTOCOLS.to_vec())];
    let l4 = vec((protocol, ports()), 0..4);
    (subject, direction, peers, l4, prop::bool::weighted(0.4), prop::bool::weighted(0.8)).prop_map(
        |(subject, direction, peers, l4, deny, default_deny)| Rule {
            number: 0,
            subject,
            direction,
            peers,
            l4,
            deny,
            default_deny,
        },
    )
}

fn is_app(value: &'static str) -> Condition {
    Condition { source: Some("k8s"), key: "app", operator: Operator::In, values: vec![value] }
}

/// Rules with numbers from 1 on; now and then two have the same one.
pub fn rules(at_most: usize) -> impl Strategy<Value = Vec<Rule>> {
    vec((rule(), prop::bool::weighted(0.2)), 0..=at_most).prop_map(|rules| {
        let mut number = 0;
        let numbered = rules.into_iter().map(|(rule, as_before)| {
            number += u32::from(!as_before || number == 0);
            Rule { number, ..rule }
        });
        numbered.collect()
    })
}

pub fn options() -> impl Strategy<Value = PolicyOptions> {
    let mode = prop_oneof![
        6 => Just(EnforcementMode::Default),
        2 => Just(EnforcementMode::Always),
        1 => Just(EnforcementMode::Never),
    ];
    (mode, prop::bool::weighted(0.7)).prop_map(|(mode, allow_localhost)| PolicyOptions {
        mode,
        allow_localhost,
        ..PolicyOptions::default()
    })
}

fn selector(conditions: &[Condition]) -> Selector {
    let requirement = |condition: &Condition| {
        let key = SelectorKey::new(condition.source, condition.key).expect("a key");
        Requirement::new(key, condition.operator, condition.values.clone()).expect("a requirement")
    };
    Selector::all_of(conditions.iter().map(requirement)).expect("few")
}

pub fn peer(whom: &Whom) -> Peer {
    match whom {
        Whom::Labels(conditions) => Peer::Labels(selector(conditions)),
        Whom::Cidr(net, except) => Peer::Cidr { net: *net, except: except.clone() },
        Whom::Entity(entity) => Peer::Entity(*entity),
    }
}

pub fn flat(rule: &Rule) -> FlatRule {
    let l4 = |(protocol, ports): &(u8, Ports)| {
        let ports = match ports {
            Ports::Range(range) => L4Ports::Range(range.clone()),
            Ports::Named(name) => L4Ports::Named((*name).to_owned()),
        };
        L4Match { protocol: Protocol::new(*protocol), ports }
    };
    FlatRule {
        subject: selector(&rule.subject),
        direction: rule.direction,
        peers: rule.peers.as_ref().map_or(Peers::Any, |peers| Peers::Some(peers.iter().map(peer).collect())),
        l4: rule.l4.iter().map(l4).collect(),
        deny: rule.deny,
        default_deny: rule.default_deny,
        rule: RuleNumber::new(rule.number),
    }
}

/// The rules in force where these exist.
pub fn in_force(rules: &[Rule], present: &[Someone]) -> RulesInForce {
    let mut in_force = RulesInForce::new(WorldIdentities::of_node(true, true));
    let _ = in_force.add_identities(present.iter().map(identity));
    in_force.insert(&rules.iter().map(flat).collect::<Vec<_>>());
    in_force
}

/// Traffic with each of these peers and two unknown ones, at every port where a rule's word begins or ends.
pub fn traffic(rules: &[Rule], endpoint: &Endpoint, present: &[Someone]) -> Vec<Traffic> {
    let mut ports: Vec<u16> = PORTS.to_vec();
    for (_, l4) in rules.iter().flat_map(|rule| &rule.l4) {
        if let Ports::Range(range) = l4 {
            let (first, last) = (*range.start(), *range.end());
            ports.extend([first.saturating_sub(1), first, last, last.saturating_add(1)]);
        }
    }
    ports.extend(endpoint.named_ports.iter().map(|(.., port)| *port));
    ports.sort_unstable();
    ports.dedup();
    let mut traffic = Vec::new();
    let peers: Vec<_> = present.iter().cloned().map(Ok).chain([Err(999), Err(0x0100_0fff)]).collect();
    for direction in [PolicyDirection::Ingress, PolicyDirection::Egress] {
        for peer in &peers {
            for protocol in PROTOCOLS {
                let has_ports = !matches!(protocol, 47 | 0);
                for port in ports.iter().copied().filter(|port| has_ports || *port == 0) {
                    traffic.push(Traffic { direction, peer: peer.clone(), protocol, port });
                }
            }
        }
    }
    traffic
}
