//! `toPorts` and `icmps`.

use super::super::rule::{EGRESS_NAME, ICMP_NAME, PORT_NAME, is_icmp, is_port_name};
use super::super::{L4Match, L4Ports};
use super::node::Node;
use super::reader::{Fields, Reader};
use crate::tables::{PolicyDirection, Protocol};

/// The most ports of one item of `toPorts`, and the most fields of one of `icmps`: Cilium's own bounds.
const ITEMS_MAX: usize = 40;

const PORT_RULE: Fields = Fields {
    known: &["ports"],
    unsupported: &["rules", "listener", "terminatingTLS", "originatingTLS", "serverNames"],
};
const PORT: Fields = Fields { known: &["port", "endPort", "protocol"], unsupported: &[] };
const ICMP_RULE: Fields = Fields { known: &["fields"], unsupported: &[] };
const ICMP: Fields = Fields { known: &["family", "type"], unsupported: &[] };

/// The protocols that a port can have, by their names in upper case.
const PROTOCOLS: [(&str, Protocol); 6] = [
    ("TCP", Protocol::TCP),
    ("UDP", Protocol::UDP),
    ("SCTP", Protocol::SCTP),
    ("ICMP", Protocol::ICMP),
    ("ICMPV6", Protocol::ICMPV6),
    ("ANY", Protocol::ANY),
];

/// Names of ICMP types (RFC 792 and later) as Cilium spells them.
pub(super) const ICMP_TYPES: [(&str, u8); 14] = [
    ("EchoReply", 0),
    ("DestinationUnreachable", 3),
    ("Redirect", 5),
    ("Echo", 8),
    ("EchoRequest", 8),
    ("RouterAdvertisement", 9),
    ("RouterSelection", 10),
    ("TimeExceeded", 11),
    ("ParameterProblem", 12),
    ("Timestamp", 13),
    ("TimestampReply", 14),
    ("Photuris", 40),
    ("ExtendedEchoRequest", 42),
    ("ExtendedEchoReply", 43),
];

/// Names of ICMPv6 types (RFC 4443 and later) as Cilium spells them.
pub(super) const ICMPV6_TYPES: [(&str, u8); 27] = [
    ("DestinationUnreachable", 1),
    ("PacketTooBig", 2),
    ("TimeExceeded", 3),
    ("ParameterProblem", 4),
    ("EchoRequest", 128),
    ("EchoReply", 129),
    ("MulticastListenerQuery", 130),
    ("MulticastListenerReport", 131),
    ("MulticastListenerDone", 132),
    ("RouterSolicitation", 133),
    ("RouterAdvertisement", 134),
    ("NeighborSolicitation", 135),
    ("NeighborAdvertisement", 136),
    ("RedirectMessage", 137),
    ("RouterRenumbering", 138),
    ("ICMPNodeInformationQuery", 139),
    ("ICMPNodeInformationResponse", 140),
    ("InverseNeighborDiscoverySolicitation", 141),
    ("InverseNeighborDiscoveryAdvertisement", 142),
    ("HomeAgentAddressDiscoveryRequest", 144),
    ("HomeAgentAddressDiscoveryReply", 145),
    ("MobilePrefixSolicitation", 146),
    ("MobilePrefixAdvertisement", 147),
    ("DuplicateAddressRequestCodeSuffix", 157),
    ("DuplicateAddressConfirmationCodeSuffix", 158),
    ("ExtendedEchoRequest", 160),
    ("ExtendedEchoReply", 161),
];

/// `toPorts`: a list of objects with a list of ports each.
pub(super) fn ports(reader: &mut Reader, node: &Node, direction: PolicyDirection) -> Option<Vec<L4Match>> {
    let items = reader.list(node, |reader, node| {
        let object = reader.object(node, &PORT_RULE)?;
        reader.required(object, "ports");
        reader
            .field(object, "ports", |reader, node| bounded(reader, node, |reader, node| port(reader, node, direction)))
    })?;
    Some(items.into_iter().flatten().collect())
}

/// `icmps`: a list of objects with a list of types each.
pub(super) fn icmps(reader: &mut Reader, node: &Node) -> Option<Vec<L4Match>> {
    let items = reader.list(node, |reader, node| {
        let object = reader.object(node, &ICMP_RULE)?;
        reader.required(object, "fields");
        reader.field(object, "fields", |reader, node| bounded(reader, node, icmp))
    })?;
    Some(items.into_iter().flatten().collect())
}

/// A list of 1 to 40 items: whether an empty one would mean all or none, nobody could tell.
fn bounded<'n>(
    reader: &mut Reader,
    node: &'n Node,
    read: impl FnMut(&mut Reader, &'n Node) -> Option<L4Match>,
) -> Option<Vec<L4Match>> {
    match node {
        Node::List(items) if items.is_empty() || items.len() > ITEMS_MAX => {
            reader.refuse(node, format!("has {} items, 1 to {ITEMS_MAX} are allowed", items.len()))
        }
        _ => reader.list(node, read),
    }
}

/// `{port, endPort, protocol}`.
fn port(reader: &mut Reader, node: &Node, direction: PolicyDirection) -> Option<L4Match> {
    let object = reader.object(node, &PORT)?;
    reader.required(object, "port");
    let protocol = reader.field(object, "protocol", protocol);
    let protocol = if object.get("protocol").is_some() { protocol? } else { Protocol::ANY };
    let first = reader.field(object, "port", |reader, node| first_port(reader, node, protocol, direction));
    let last = reader.field(object, "endPort", |reader, node| last_port(reader, node, protocol, first.as_ref()?));
    let ports = match (first?, last) {
        (L4Ports::Range(range), Some(last)) => L4Ports::Range(*range.start()..=last),
        (ports, _) => ports,
    };
    Some(L4Match { protocol, ports })
}

fn protocol(reader: &mut Reader, node: &Node) -> Option<Protocol> {
    let name = reader.text(node)?;
    let known = PROTOCOLS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
    match known {
        Some((_, protocol)) => Some(*protocol),
        None => reader.refuse(node, format!("not one of {}", PROTOCOLS.map(|(name, _)| name).join(", "))),
    }
}

/// The highest port, or type, of a protocol.
fn most(protocol: Protocol) -> u16 {
    if is_icmp(protocol) { u8::MAX.into() } else { u16::MAX }
}

/// `port`: 0 for all, a number, or a name.
fn first_port(reader: &mut Reader, node: &Node, protocol: Protocol, direction: PolicyDirection) -> Option<L4Ports> {
    let most = most(protocol);
    let number = match node {
        Node::Number(number) => number.as_u64(),
        Node::Text(text) if is_port_name(text) => {
            return match (direction, protocol) {
                (PolicyDirection::Egress, _) => reader.refuse(node, EGRESS_NAME),
                (_, protocol) if is_icmp(protocol) => reader.refuse(node, ICMP_NAME),
                _ => Some(L4Ports::Named(text.to_ascii_lowercase())),
            };
        }
        Node::Text(text) if is_decimal(text) => text.parse().ok(),
        _ => None,
    };
    match number.and_then(|number| u16::try_from(number).ok()) {
        Some(0) => Some(L4Ports::ALL),
        Some(port) if port <= most => Some(L4Ports::single(port)),
        _ => reader.refuse(node, format!("neither a port from 1 to {most}, nor 0 for all, nor a name; {PORT_NAME}")),
    }
}

/// A number as one writes it, so without leading zeros, which some take for octal.
fn is_decimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
}

/// `endPort`: the last port of a range that begins with `port`.
fn last_port(reader: &mut Reader, node: &Node, protocol: Protocol, first: &L4Ports) -> Option<u16> {
    let first = match first {
        L4Ports::Range(range) if *range.start() > 0 => *range.start(),
        L4Ports::Range(_) => return reader.refuse(node, "port 0 already stands for all ports"),
        L4Ports::Named(_) => return reader.refuse(node, "a range begins with a number, not with a name"),
    };
    let most = most(protocol);
    let number = match node {
        Node::Number(number) => number.as_u64(),
        _ => return reader.refuse(node, "not a number"),
    };
    match number.and_then(|number| u16::try_from(number).ok()) {
        Some(last) if (first..=most).contains(&last) => Some(last),
        _ => reader.refuse(node, format!("not a port from {first} to {most}")),
    }
}

/// `{family, type}`.
fn icmp(reader: &mut Reader, node: &Node) -> Option<L4Match> {
    let object = reader.object(node, &ICMP)?;
    reader.required(object, "type");
    let family = reader.field(object, "family", |reader, node| match reader.text(node)? {
        "IPv4" => Some(Protocol::ICMP),
        "IPv6" => Some(Protocol::ICMPV6),
        _ => reader.refuse(node, "neither IPv4 nor IPv6"),
    });
    let protocol = if object.get("family").is_some() { family? } else { Protocol::ICMP };
    let icmp_type = reader.field(object, "type", |reader, node| icmp_type(reader, node, protocol))?;
    Some(L4Match { protocol, ports: L4Ports::single(icmp_type.into()) })
}

fn icmp_type(reader: &mut Reader, node: &Node, protocol: Protocol) -> Option<u8> {
    let names: &[(&str, u8)] = if protocol == Protocol::ICMP { &ICMP_TYPES } else { &ICMPV6_TYPES };
    let found = match node {
        Node::Number(number) => number.as_u64().and_then(|number| u8::try_from(number).ok()),
        Node::Text(text) if is_decimal(text) => text.parse().ok(),
        Node::Text(text) => names.iter().find(|(name, _)| name == text).map(|(_, number)| *number),
        _ => None,
    };
    found.or_else(|| {
        let names: Vec<_> = names.iter().map(|(name, _)| *name).collect();
        reader.refuse(node, format!("neither a number from 0 to 255 nor one of {}", names.join(", ")))
    })
}
