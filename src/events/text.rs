//! An event as one line.

use std::fmt;

use super::decode::{DropEvent, Event, TraceEvent};
use super::packet::{Layer4, PacketSummary};
use super::point::TracePoint;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop(drop) => drop_line(f, drop)?,
            Self::Trace(trace) => trace_line(f, trace)?,
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
        drop.source_identity,
        drop.destination_identity,
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
    write!(
        f,
        " flow {:#x} , identity {}->{} ifindex {}: ",
        trace.hash, trace.source_identity, trace.destination_identity, trace.ifindex
    )
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
                write!(f, "{source} -> {destination} tcp {}", flags.join(", "))
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
                Some(protocol) => write!(f, "{source} -> {destination} protocol {protocol}"),
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
