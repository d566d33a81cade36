//! A rule and its sections.

use super::super::rule::{DESCRIPTION_MAX, NO_ENDPOINT};
use super::super::{Peers, Requirement, Rule, Section, SectionKind};
use super::node::Node;
use super::object::Scope;
use super::reader::{Fields, Object, Reader};
use super::{peers, ports};
use crate::tables::PolicyDirection;
use crate::{Label, Labels};

const RULE: Fields = Fields {
    known: &[
        "endpointSelector",
        "ingress",
        "ingressDeny",
        "egress",
        "egressDeny",
        "enableDefaultDeny",
        "labels",
        "description",
    ],
    unsupported: &["nodeSelector", "log", "authentication"],
};

const INGRESS: Fields = Fields {
    known: &["fromEndpoints", "fromEntities", "fromCIDR", "fromCIDRSet", "toPorts", "icmps"],
    unsupported: &["fromRequires", "fromNodes", "fromGroups", "authentication"],
};

const EGRESS: Fields = Fields {
    known: &["toEndpoints", "toEntities", "toCIDR", "toCIDRSet", "toPorts", "icmps"],
    unsupported: &["toRequires", "toNodes", "toGroups", "toFQDNs", "toServices", "authentication"],
};

const DEFAULT_DENY: Fields = Fields { known: &["ingress", "egress"], unsupported: &[] };
const LABEL: Fields = Fields { known: &["key", "value", "source"], unsupported: &[] };

/// A rule whose selectors look where the scope says.
pub(super) fn read(reader: &mut Reader, node: &Node, scope: &Scope) -> Option<Rule> {
    let object = reader.object(node, &RULE)?;
    reader.required(object, "endpointSelector");
    let mut init = false;
    let subject = reader.field(object, "endpointSelector", |reader, node| {
        let selector = peers::selector(reader, node, scope)?;
        init = peers::is_init(&selector);
        if selector.requirements().iter().any(Requirement::asks_for_no_endpoint) {
            return reader.refuse(node, NO_ENDPOINT);
        }
        scope.subject(reader, node, selector)
    });
    let sections = SectionKind::ALL.map(|kind| {
        let read = |reader: &mut Reader, node| section(reader, node, kind, scope, init);
        reader.field(object, kind.name(), |reader, node| reader.list(node, read)).unwrap_or_default()
    });
    if !matches!(scope, Scope::Stored) && SectionKind::ALL.iter().all(|kind| is_empty(object, *kind)) {
        let reason = "has none of ingress, ingressDeny, egress, egressDeny, or only empty ones, and so no effect; \
                      to allow nothing write [{}]";
        reader.problem(String::new(), reason);
    }
    let (ingress, egress) = reader.field(object, "enableDefaultDeny", default_deny).unwrap_or_default();
    let labels = reader.field(object, "labels", labels);
    let description = reader.field(object, "description", description);

    let mut rule = Rule::new(subject?);
    for (kind, sections) in SectionKind::ALL.into_iter().zip(sections) {
        *rule.sections_mut(kind) = sections;
    }
    (rule.ingress_default_deny, rule.egress_default_deny) = (ingress, egress);
    rule.labels = labels.unwrap_or_default();
    rule.description = description.unwrap_or_default().to_owned();
    Some(rule)
}

fn description<'n>(reader: &mut Reader, node: &'n Node) -> Option<&'n str> {
    let text = reader.text(node)?;
    match text.len() <= DESCRIPTION_MAX {
        true => Some(text),
        false => reader.refuse(node, format!("has {} bytes, at most {DESCRIPTION_MAX} are allowed", text.len())),
    }
}

fn is_empty(object: Object<'_>, kind: SectionKind) -> bool {
    object.get(kind.name()).is_none_or(|node| matches!(node, Node::List(list) if list.is_empty()))
}

fn section(reader: &mut Reader, node: &Node, kind: SectionKind, scope: &Scope, init: bool) -> Option<Section> {
    let direction = kind.direction();
    let object = reader.object(node, if direction == PolicyDirection::Ingress { &INGRESS } else { &EGRESS })?;
    let peers = peers::read(reader, object, direction, scope, init);
    let ports = reader.field(object, "toPorts", |reader, node| ports::ports(reader, node, direction));
    let icmps = reader.field(object, "icmps", ports::icmps);
    let mut l4 = ports.unwrap_or_default();
    let is_document = !matches!(scope, Scope::Stored);
    if is_document && !l4.is_empty() && icmps.as_ref().is_some_and(|icmps| !icmps.is_empty()) {
        reader.problem(String::new(), "has toPorts and icmps; write a section for each");
    }
    l4.extend(icmps.unwrap_or_default());
    let peers = match peers {
        Some(peers) => Peers::Some(peers),
        None if l4.is_empty() => Peers::Some(Vec::new()),
        None => Peers::Any,
    };
    Some(Section { peers, l4 })
}

fn default_deny(reader: &mut Reader, node: &Node) -> Option<(Option<bool>, Option<bool>)> {
    let object = reader.object(node, &DEFAULT_DENY)?;
    let ingress = reader.field(object, "ingress", Reader::flag);
    let egress = reader.field(object, "egress", Reader::flag);
    Some((ingress, egress))
}

/// Labels as `source:key=value` or as objects of key, value and source.
fn labels(reader: &mut Reader, node: &Node) -> Option<Labels> {
    let mut labels = Labels::new();
    reader.list(node, |reader, node| {
        let label = match node {
            Node::Text(text) => text.parse(),
            _ => {
                let object = reader.object(node, &LABEL)?;
                reader.required(object, "key");
                let key = reader.field(object, "key", Reader::text)?;
                let value = reader.field(object, "value", Reader::text).unwrap_or_default();
                let source = reader.field(object, "source", Reader::text).filter(|source| !source.is_empty());
                Label::new(source.unwrap_or("unspec"), key, value)
            }
        };
        let before = labels.len();
        match label.and_then(|label| labels.insert(label)) {
            Ok(()) if labels.len() == before => reader.refuse(node, "a label of this source and key was there already"),
            Ok(()) => Some(()),
            Err(error) => reader.refuse(node, error.to_string()),
        }
    })?;
    Some(labels)
}
