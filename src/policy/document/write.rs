//! Rules back as JSON, in the shape in which they are read.

use serde_json::{Map, Value, json};

use super::super::rule::is_icmp;
use super::super::{L4Match, L4Ports, Peer, Peers, Rule, Section, SectionKind, Selector};
use crate::tables::{PolicyDirection, Protocol};

/// The most items of one list of ports or ICMP types.
const ITEMS_MAX: usize = 40;

/// A rule as documents have it.
pub(super) fn rule(rule: &Rule) -> Value {
    let mut object = written(rule, |item, direction| section(item, direction).into_iter().map(Value::from).collect());
    // documents must have a section: one that allows nothing
    if SectionKind::ALL.iter().all(|kind| rule.sections(*kind).is_empty()) {
        let directions = [SectionKind::Ingress, SectionKind::Egress].into_iter();
        let denied = directions.filter(|kind| rule.is_default_deny(kind.direction()));
        object.extend(denied.map(|kind| (kind.name().to_owned(), json!([{}]))));
    }
    object.into()
}

/// A rule with as many sections as it has, which may have together what documents keep apart.
pub(super) fn stored(rule: &Rule) -> Value {
    // no field comes twice with other content
    let whole = |item: &Section, direction| section(item, direction).into_iter().flatten().collect::<Map<_, _>>();
    written(rule, |item, direction| vec![whole(item, direction).into()]).into()
}

fn written(rule: &Rule, section: impl Fn(&Section, PolicyDirection) -> Vec<Value>) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("endpointSelector".to_owned(), selector(&rule.subject));
    for kind in SectionKind::ALL {
        let sections: Vec<Value> =
            rule.sections(kind).iter().flat_map(|item| section(item, kind.direction())).collect();
        if !sections.is_empty() {
            object.insert(kind.name().to_owned(), sections.into());
        }
    }
    let mut default_deny = Map::new();
    let directions =
        [(SectionKind::Ingress, rule.ingress_default_deny), (SectionKind::Egress, rule.egress_default_deny)];
    for (kind, deny) in directions {
        let Some(deny) = deny else { continue };
        default_deny.insert(kind.name().to_owned(), deny.into());
    }
    if !default_deny.is_empty() {
        object.insert("enableDefaultDeny".to_owned(), default_deny.into());
    }
    if !rule.labels.is_empty() {
        let labels = rule.labels.iter();
        let labels: Vec<_> =
            labels.map(|label| json!({"key": label.key(), "value": label.value(), "source": label.source()})).collect();
        object.insert("labels".to_owned(), labels.into());
    }
    if !rule.description.is_empty() {
        object.insert("description".to_owned(), rule.description.as_str().into());
    }
    object
}

/// A selector. An equality is written as a label, a second one of the same key as an expression.
fn selector(selector: &Selector) -> Value {
    let (mut labels, mut expressions) = (Map::new(), Vec::new());
    for requirement in selector.requirements() {
        let key = requirement.key().to_string();
        match requirement.equals() {
            Some(value) if !labels.contains_key(&key) => {
                labels.insert(key, value.into());
            }
            _ if requirement.operator().takes_values() => {
                let values: Vec<_> = requirement.values().collect();
                expressions.push(json!({"key": key, "operator": requirement.operator().name(), "values": values}));
            }
            _ => expressions.push(json!({"key": key, "operator": requirement.operator().name()})),
        }
    }
    let mut object = Map::new();
    if !labels.is_empty() {
        object.insert("matchLabels".to_owned(), labels.into());
    }
    if !expressions.is_empty() {
        object.insert("matchExpressions".to_owned(), expressions.into());
    }
    object.into()
}

/// A section: as several where documents keep apart what it has together, kinds of peers, and ports and ICMP types.
fn section(section: &Section, direction: PolicyDirection) -> Vec<Map<String, Value>> {
    let l4 = l4(&section.l4);
    let peers = match &section.peers {
        Peers::Any if section.l4.is_empty() => vec![(name(direction, "Entities"), json!(["all"]))],
        Peers::Any => Vec::new(),
        Peers::Some(peers) if peers.is_empty() && section.l4.is_empty() => Vec::new(),
        Peers::Some(peers) if peers.is_empty() => vec![(name(direction, "Endpoints"), json!([]))],
        Peers::Some(peers) => kinds(peers, direction),
    };
    let mut sections = Vec::new();
    for l4 in &l4 {
        for (name, peers) in &peers {
            let mut object = l4.clone();
            object.insert(name.clone(), peers.clone());
            sections.push(object);
        }
        if peers.is_empty() {
            sections.push(l4.clone());
        }
    }
    sections
}

fn name(direction: PolicyDirection, peers: &str) -> String {
    let word = if direction == PolicyDirection::Ingress { "from" } else { "to" };
    format!("{word}{peers}")
}

/// The peers by the fields in which they stand; those without any are left out. A prefix without exceptions stands among those that
/// have some, so that one list of them stays one.
fn kinds(peers: &[Peer], direction: PolicyDirection) -> Vec<(String, Value)> {
    let (mut endpoints, mut entities, mut cidrs, mut sets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let has_exceptions = |peer: &Peer| matches!(peer, Peer::Cidr { except, .. } if !except.is_empty());
    let all_in_sets = peers.iter().any(has_exceptions);
    for peer in peers {
        match peer {
            Peer::Labels(labels) => endpoints.push(selector(labels)),
            Peer::Entity(entity) => entities.push(Value::from(entity.name())),
            Peer::Cidr { net, .. } if !all_in_sets => cidrs.push(Value::from(net.to_string())),
            Peer::Cidr { net, except } if except.is_empty() => sets.push(json!({"cidr": net.to_string()})),
            Peer::Cidr { net, except } => {
                let except: Vec<_> = except.iter().map(ToString::to_string).collect();
                sets.push(json!({"cidr": net.to_string(), "except": except}));
            }
        }
    }
    let kinds = [("Endpoints", endpoints), ("Entities", entities), ("CIDR", cidrs), ("CIDRSet", sets)];
    let given = kinds.into_iter().filter(|(_, peers)| !peers.is_empty());
    given.map(|(kind, peers)| (name(direction, kind), peers.into())).collect()
}

/// What stands beside the peers: nothing, `toPorts`, `icmps`, or one of the latter each. Types that stand alone are `icmps`; beside
/// ports, and in ranges, they came from `toPorts`, where all but type 0 have a place.
fn l4(l4: &[L4Match]) -> Vec<Map<String, Value>> {
    let only_types = l4.iter().all(is_type);
    let (mut ports, mut types) = (Vec::new(), Vec::new());
    for item in l4 {
        let name = item.protocol.to_string().to_ascii_uppercase();
        match &item.ports {
            all if *all == L4Ports::ALL => ports.push(json!({"port": "0", "protocol": name})),
            L4Ports::Range(range) if is_icmp(item.protocol) && (only_types || *range.start() == 0) => {
                let family = if item.protocol == Protocol::ICMP { "IPv4" } else { "IPv6" };
                types.extend(range.clone().map(|number| json!({"family": family, "type": number})));
            }
            L4Ports::Named(port) => ports.push(json!({"port": port, "protocol": name})),
            L4Ports::Range(range) if range.start() == range.end() => {
                ports.push(json!({"port": range.start().to_string(), "protocol": name}));
            }
            L4Ports::Range(range) => {
                ports.push(json!({"port": range.start().to_string(), "endPort": range.end(), "protocol": name}));
            }
        }
    }
    let mut found = Vec::new();
    for (field, inner, items) in [("toPorts", "ports", ports), ("icmps", "fields", types)] {
        if !items.is_empty() {
            let lists: Vec<_> = items.chunks(ITEMS_MAX).map(|items| json!({inner: items})).collect();
            found.push(Map::from_iter([(field.to_owned(), lists.into())]));
        }
    }
    if found.is_empty() {
        found.push(Map::new());
    }
    found
}

/// Whether it is one type of ICMP.
fn is_type(item: &L4Match) -> bool {
    is_icmp(item.protocol) && matches!(&item.ports, L4Ports::Range(range) if range.start() == range.end())
}
