//! Rules judged one by one, slowly and plainly: what compiled policies are compared with.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;
use podwire::policy::{EnforcementMode, Entity, Operator, PolicyOptions};
use podwire::tables::PolicyDirection;

/// Someone whom the node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Someone {
    pub id: u32,
    /// Source, key, value.
    pub labels: Vec<(String, String, String)>,
    pub cidr: Option<IpNetwork>,
}

#[derive(Clone, Debug)]
pub struct Condition {
    pub source: Option<&'static str>,
    pub key: &'static str,
    pub operator: Operator,
    pub values: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub enum Whom {
    Labels(Vec<Condition>),
    Cidr(IpNetwork, Vec<IpNetwork>),
    Entity(Entity),
}

#[derive(Clone, Debug)]
pub enum Ports {
    Range(RangeInclusive<u16>),
    Named(&'static str),
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub number: u32,
    pub subject: Vec<Condition>,
    pub direction: PolicyDirection,
    /// `None` for everyone.
    pub peers: Option<Vec<Whom>>,
    /// Protocol (0 any) and ports; empty for all.
    pub l4: Vec<(u8, Ports)>,
    pub deny: bool,
    pub default_deny: bool,
}

/// The endpoint whose traffic is judged.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub me: Someone,
    pub named_ports: Vec<(&'static str, u8, u16)>,
}

/// Traffic of the endpoint; a peer that nobody knows has a number alone.
#[derive(Clone, Debug)]
pub struct Traffic {
    pub direction: PolicyDirection,
    pub peer: Result<Someone, u32>,
    pub protocol: u8,
    pub port: u16,
}

/// What becomes of traffic, and the rules that may be named as the reason (0 for what holds by default).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed(BTreeSet<u32>),
    DeniedByRule(BTreeSet<u32>),
    NothingMatches,
}

pub fn judge(rules: &[Rule], endpoint: &Endpoint, options: &PolicyOptions, traffic: &Traffic) -> Verdict {
    let mut about_me: Vec<&Rule> = Vec::new();
    if options.mode != EnforcementMode::Never {
        about_me.extend(
            rules
                .iter()
                .filter(|rule| rule.direction == traffic.direction && labels_match(&rule.subject, &endpoint.me)),
        );
    }
    let enforced = match options.mode {
        EnforcementMode::Never => false,
        EnforcementMode::Always => true,
        EnforcementMode::Default => about_me.iter().any(|rule| rule.default_deny),
    };
    let matching = |deny: bool| {
        let rules = about_me.iter().filter(move |rule| rule.deny == deny);
        rules.filter(|rule| peers_match(rule, traffic) && l4_matches(rule, endpoint, traffic)).map(|rule| rule.number)
    };
    let denying: BTreeSet<u32> = matching(true).collect();
    if !denying.is_empty() {
        return Verdict::DeniedByRule(denying);
    }
    let mut allowing: BTreeSet<u32> = matching(false).collect();
    let from_host = traffic.direction == PolicyDirection::Ingress && number(&traffic.peer) == 1;
    if !enforced || (from_host && options.allow_localhost) {
        allowing.insert(0);
    }
    if allowing.is_empty() { Verdict::NothingMatches } else { Verdict::Allowed(allowing) }
}

pub fn number(peer: &Result<Someone, u32>) -> u32 {
    peer.as_ref().map_or_else(|id| *id, |someone| someone.id)
}

fn labels_match(conditions: &[Condition], someone: &Someone) -> bool {
    conditions.iter().all(|condition| {
        let with_key = |(source, key, _): &&(String, String, String)| {
            key == condition.key && condition.source.is_none_or(|wanted| source == wanted)
        };
        let values: Vec<&str> = someone.labels.iter().filter(with_key).map(|(.., value)| value.as_str()).collect();
        let one_of_them = values.iter().any(|value| condition.values.contains(value));
        match condition.operator {
            Operator::In => one_of_them,
            Operator::NotIn => !one_of_them,
            Operator::Exists => !values.is_empty(),
            Operator::DoesNotExist => values.is_empty(),
        }
    })
}

fn peers_match(rule: &Rule, traffic: &Traffic) -> bool {
    let Some(peers) = &rule.peers else { return true };
    peers.iter().any(|whom| match &traffic.peer {
        Ok(someone) => selects(whom, someone),
        // who isn't known has no labels that could be asked for
        Err(_) => match whom {
            Whom::Labels(conditions) => conditions.is_empty(),
            Whom::Entity(entity) => *entity == Entity::All,
            Whom::Cidr(..) => false,
        },
    })
}

pub fn selects(whom: &Whom, someone: &Someone) -> bool {
    match whom {
        Whom::Labels(conditions) => labels_match(conditions, someone),
        Whom::Entity(entity) => entity_is(*entity, someone),
        Whom::Cidr(net, except) => {
            let prefix = match someone.id {
                9 => Some("0.0.0.0/0".parse().expect("a prefix")),
                10 => Some("::/0".parse().expect("a prefix")),
                _ => someone.cidr,
            };
            prefix.is_some_and(|prefix| is_within(prefix, *net) && !except.iter().any(|out| is_within(prefix, *out)))
        }
    }
}

/// The node has both families: its world is 9 and 10.
fn entity_is(entity: Entity, someone: &Someone) -> bool {
    let id = someone.id;
    let v4 = id == 9 || someone.cidr.is_some_and(|cidr| cidr.is_ipv4());
    let v6 = id == 10 || someone.cidr.is_some_and(|cidr| cidr.is_ipv6());
    match entity {
        Entity::All => true,
        Entity::None => false,
        Entity::World => v4 || v6 || id == 2,
        Entity::WorldIpv4 => v4,
        Entity::WorldIpv6 => v6,
        Entity::Cluster => !(v4 || v6 || id == 2 || someone.labels.is_empty()),
        Entity::Host => id == 1,
        Entity::Unmanaged => id == 3,
        Entity::Health => id == 4,
        Entity::Init => id == 5,
        Entity::RemoteNode => id == 6 || id == 7,
        Entity::KubeApiServer => id == 7,
        Entity::Ingress => id == 8,
    }
}

fn is_within(inner: IpNetwork, outer: IpNetwork) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    let same_family = inner.is_ipv4() == outer.is_ipv4();
    let differing = (bits(inner.ip()) ^ bits(outer.ip())).leading_zeros();
    same_family && inner.prefix() >= outer.prefix() && differing >= u32::from(outer.prefix())
}

fn l4_matches(rule: &Rule, endpoint: &Endpoint, traffic: &Traffic) -> bool {
    rule.l4.is_empty()
        || rule.l4.iter().any(|(protocol, ports)| {
            let has_ports = [6, 17, 132].contains(&traffic.protocol);
            // 0 is a protocol in a packet, and any in a rule
            let right_protocol = if *protocol == 0 { has_ports } else { *protocol == traffic.protocol };
            match ports {
                Ports::Range(range) if *protocol == 0 && *range == (0..=u16::MAX) => true,
                Ports::Range(range) => right_protocol && range.contains(&traffic.port),
                Ports::Named(name) => {
                    right_protocol
                        && rule.direction == PolicyDirection::Ingress
                        && endpoint.named_ports.contains(&(name, traffic.protocol, traffic.port))
                }
            }
        })
}
