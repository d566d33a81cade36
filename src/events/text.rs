//! An event as one line.

use std::fmt;

use super::decode::{DropEvent, Event, TraceEvent};
use super::packet::{Layer4, PacketSummary};
use super::point::TracePoint;
use super::verdict::{PolicyVerdictEvent, RaisedBy};
use crate::SecurityId;
use crate::identity::name_of_reserved;
use crate::tables::PolicyDirection;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop(drop) => drop_line(f, drop)?,
            Self::Trace(trace) => trace_line(f, trace)?,
            Self::PolicyVerdict(verdict) => return verdict_line(f, verdict),
        }
        write!(f, "{}", self.packet())
    }
}

fn drop_line(f: &mut fmt::Formatter<'_>, drop: &DropEvent) -> fmt::Result {
    write!(
        f,
        "xx drop ({}) flow {:#x} from endpoint {} to endpoint {}, ifindex {}, file {}:{}, identity {}->{}: ",
        drop.reason_text(),
        drop.hash,
        drop.source,
        drop.destination,
        drop.ifindex,
        drop.file,
        drop.line,
        identity(drop.source_identity),
        identity(drop.destination_identity),
    )
}

fn trace_line(f: &mut fmt::Formatter<'_>, trace: &TraceEvent) -> fmt::Result {
    match trace.point {
        TracePoint::ToEndpoint => write!(f, "-> endpoint {}", trace.destination)?,
        TracePoint::ToHost => f.write_str("-> host")?,
        TracePoint::ToStack => f.write_str("-> stack")?,
        TracePoint::ToNetwork => f.write_str("-> network")?,
        TracePoint::FromEndpoint => write!(f, "<- endpoint {}", trace.source)?,
        TracePoint::FromHost => f.write_str("<- host")?,
        TracePoint::FromNetwork => f.write_str("<- network")?,
        TracePoint::Other(number) => write!(f, "-- point {number}")?,
    }
    let (source, destination) = (identity(trace.source_identity), identity(trace.destination_identity));
    write!(f, " flow {:#x} , identity {source}->{destination} ifindex {}: ", trace.hash, trace.ifindex)
}

fn verdict_line(f: &mut fmt::Formatter<'_>, verdict: &PolicyVerdictEvent) -> fmt::Result {
    let remote = identity(verdict.remote_identity);
    write!(f, "Policy verdict log: flow {:#x} local EP ID {}, remote ID {remote}, ", verdict.hash, verdict.endpoint)?;
    write!(f, "proto {}, {}, ", verdict.protocol.number(), direction(verdict.direction))?;
    write!(f, "action {}, auth: {}, match {}, ", verdict.action, authentication(verdict.auth_type), verdict.matched)?;
    if let Some(rule) = verdict.rule_text() {
        write!(f, "{rule}, ")?;
    }
    let connection = verdict.connection();
    if let Some(connection) = &connection {
        write!(f, "{connection}")?;
    }
    let comma = if connection.is_some() { ", " } else { "" };
    match verdict.raised_by {
        RaisedBy::Opener => Ok(()),
        RaisedBy::Reply => write!(f, "{comma}raised by a reply"),
        RaisedBy::Error { .. } => write!(f, "{comma}raised by an error: {}", PacketSummary::of(&verdict.head)),
    }
}

/// A reserved identity by its name, as operators know it; any other by its number.
fn identity(id: SecurityId) -> String {
    match name_of_reserved(id) {
        Some(name) => name.to_owned(),
        None if id == SecurityId::UNKNOWN => "unknown".to_owned(),
        None => id.to_string(),
    }
}

/// The direction in the words of events.
pub(super) const fn direction(direction: PolicyDirection) -> &'static str {
    match direction {
        PolicyDirection::Ingress => "ingress",
        PolicyDirection::Egress => "egress",
    }
}

/// Cilium's names of authentication types.
fn authentication(kind: u8) -> String {
    match kind {
        0 => "disabled".to_owned(),
        1 => "spire".to_owned(),
        127 => "test-always-fail".to_owned(),
        other => other.to_string(),
    }
}

impl fmt::Display for PacketSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((source, destination)) = self.addresses else {
            return match (self.macs, self.ethertype) {
                (Some((source, destination)), Some(ethertype)) => {
                    write!(f, "{source} -> {destination} ethertype {ethertype:#06x}")
                }
                _ => f.write_str("(no Ethernet header)"),
            };
        };
        match &self.layer4 {
            Some(Layer4::Tcp { source: sport, destination: dport, flags }) => {
                let source = std::net::SocketAddr::new(source, *sport);
                let destination = std::net::SocketAddr::new(destination, *dport);
                write!(f, "{source} -> {destination} tcp")?;
                if flags.is_empty() { Ok(()) } else { write!(f, " {}", flags.join(", ")) }
            }
            Some(Layer4::Udp { source: sport, destination: dport }) => {
                let source = std::net::SocketAddr::new(source, *sport);
                let destination = std::net::SocketAddr::new(destination, *dport);
                write!(f, "{source} -> {destination} udp")
            }
            Some(Layer4::Icmp { kind, code, v6 }) => {
                write!(f, "{source} -> {destination} icmp {}", icmp_name(*kind, *code, *v6))
            }
            None => match self.protocol {
                Some(protocol) => {
                    let later = if self.is_later_fragment { " later fragment" } else { "" };
                    write!(f, "{source} -> {destination} protocol {protocol}{later}")
                }
                None => write!(f, "{source} -> {destination}"),
            },
        }
    }
}

/// The usual name of an ICMP message, or `type(code)`.
pub(super) fn icmp_name(kind: u8, code: u8, v6: bool) -> String {
    let name = match (v6, kind) {
        (false, 0) | (true, 129) => "EchoReply",
        (false, 8) | (true, 128) => "EchoRequest",
        (false, 3) | (true, 1) => "DestinationUnreachable",
        (false, 11) | (true, 3) => "TimeExceeded",
        (true, 2) => "PacketTooBig",
        (true, 133) => "RouterSolicitation",
        (true, 134) => "RouterAdvertisement",
        (true, 135) => "NeighborSolicitation",
        (true, 136) => "NeighborAdvertisement",
        _ => return format!("{kind}({code})"),
    };
    name.to_owned()
}
