//! Selectors, CIDRs and entities.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::super::rule::{MAPPED, is_mapped, masked, within};
use super::super::{Entity, Operator, Peer, Requirement, Selector, SelectorKey};
use super::node::Node;
use super::object::Scope;
use super::reader::{Fields, Object, Reader};
use crate::tables::PolicyDirection;

const SELECTOR: Fields = Fields { known: &["matchLabels", "matchExpressions"], unsupported: &[] };
const EXPRESSION: Fields = Fields { known: &["key", "operator", "values"], unsupported: &[] };
const CIDR_SET: Fields = Fields { known: &["cidr", "except"], unsupported: &["cidrGroupRef", "cidrGroupSelector"] };

/// The peers of a section; none if it has no field for peers.
pub(super) fn read(
    reader: &mut Reader,
    object: Object<'_>,
    direction: PolicyDirection,
    scope: &Scope,
    init: bool,
) -> Option<Vec<Peer>> {
    let names = match direction {
        PolicyDirection::Ingress => ["fromEndpoints", "fromEntities", "fromCIDR", "fromCIDRSet"],
        PolicyDirection::Egress => ["toEndpoints", "toEntities", "toCIDR", "toCIDRSet"],
    };
    let [endpoints, entities, cidr, cidr_set] = names;
    let endpoint = |reader: &mut Reader, node| Some(Peer::Labels(scope.peers(selector(reader, node, scope)?, init)));
    let kinds = [
        reader.field(object, endpoints, |reader, node| reader.list(node, endpoint)),
        reader.field(object, entities, |reader, node| reader.list(node, entity)),
        reader.field(object, cidr, |reader, node| {
            reader.list(node, |reader, node| Some(Peer::cidr(prefix(reader, node)?)))
        }),
        reader.field(object, cidr_set, |reader, node| reader.list(node, cidr_set_item)),
    ];
    let used = |(kind, name): (&Option<Vec<Peer>>, &'static str)| {
        kind.as_ref().is_some_and(|peers| !peers.is_empty()).then_some(name)
    };
    let used: Vec<_> = kinds.iter().zip(names).filter_map(used).collect();
    if used.len() > 1 && !matches!(scope, Scope::Stored) {
        let reason = format!("has {}; write a section for each", used.join(" and "));
        reader.problem(String::new(), reason);
    }
    let given = kinds.iter().any(Option::is_some);
    given.then(|| kinds.into_iter().flatten().flatten().collect())
}

/// Whether a selector is about endpoints that have no labels yet.
pub(super) fn is_init(selector: &Selector) -> bool {
    let init = |requirement: &Requirement| {
        requirement.key().source() == Some("reserved") && requirement.key().key() == Entity::Init.name()
    };
    selector.requirements().iter().any(init)
}

/// `{matchLabels, matchExpressions}`; both may be missing.
pub(super) fn selector(reader: &mut Reader, node: &Node, scope: &Scope) -> Option<Selector> {
    let object = reader.object(node, &SELECTOR)?;
    let labels = reader.field(object, "matchLabels", |reader, node| {
        reader.map(node, |reader, key, node| {
            let value = reader.text(node)?;
            requirement(reader, node, key, Operator::In, &[value])
        })
    });
    let expressions = reader.field(object, "matchExpressions", |reader, node| reader.list(node, expression));
    let requirements: Vec<_> = labels.into_iter().chain(expressions).flatten().collect();
    let most = scope.requirements_max();
    if requirements.len() > most {
        return reader.refuse(node, format!("has {} requirements, at most {most} are allowed", requirements.len()));
    }
    match Selector::all_of(requirements) {
        Ok(selector) => Some(selector),
        Err(error) => reader.refuse(node, error.to_string()),
    }
}

fn expression(reader: &mut Reader, node: &Node) -> Option<Requirement> {
    let object = reader.object(node, &EXPRESSION)?;
    reader.required(object, "key");
    reader.required(object, "operator");
    let key = reader.field(object, "key", Reader::text);
    let operator = reader.field(object, "operator", |reader, node| {
        let name = reader.text(node)?;
        let known = Operator::ALL.into_iter().find(|operator| operator.name() == name);
        known.or_else(|| reader.refuse(node, format!("not one of {}", Operator::ALL.map(Operator::name).join(", "))))
    });
    let values = reader.field(object, "values", |reader, node| reader.list(node, Reader::text));
    let values = if object.get("values").is_some() { values? } else { Vec::new() };
    requirement(reader, node, key?, operator?, &values)
}

fn requirement(
    reader: &mut Reader,
    node: &Node,
    key: &str,
    operator: Operator,
    values: &[&str],
) -> Option<Requirement> {
    let requirement =
        key.parse::<SelectorKey>().and_then(|key| Requirement::new(key, operator, values.iter().copied()));
    match requirement {
        Ok(requirement) => Some(requirement),
        Err(error) => reader.refuse(node, error.to_string()),
    }
}

fn entity(reader: &mut Reader, node: &Node) -> Option<Peer> {
    match reader.text(node)?.parse() {
        Ok(entity) => Some(Peer::Entity(entity)),
        Err(_) => reader.refuse(node, format!("not one of {}", Entity::EVERY.map(Entity::name).join(", "))),
    }
}

fn cidr_set_item(reader: &mut Reader, node: &Node) -> Option<Peer> {
    let object = reader.object(node, &CIDR_SET)?;
    reader.required(object, "cidr");
    let net = reader.field(object, "cidr", prefix);
    let except = reader.field(object, "except", |reader, node| {
        reader.list(node, |reader, node| {
            let except = prefix(reader, node)?;
            match net {
                Some(net) if !within(except, net) => reader.refuse(node, format!("not within {net}")),
                _ => Some(except),
            }
        })
    });
    Some(Peer::cidr_except(net?, except.unwrap_or_default()))
}

/// A prefix, or an address that stands for itself alone. Bits behind the prefix are allowed and count as 0.
fn prefix(reader: &mut Reader, node: &Node) -> Option<IpNetwork> {
    let text = reader.text(node)?;
    match parse(text) {
        Some(net) if is_mapped(net) => reader.refuse(node, MAPPED),
        Some(net) => Some(masked(net)),
        None => reader.refuse(node, "not an address or a prefix such as 192.0.2.0/24 or 2001:db8::/32"),
    }
}

fn parse(text: &str) -> Option<IpNetwork> {
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.parse().ok()?;
    let Some(length) = length else { return Some(address.into()) };
    let digits = length.bytes().all(|byte| byte.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
    IpNetwork::new(address, length.parse().ok().filter(|_| digits)?).ok()
}
