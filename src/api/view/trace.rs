//! From a request to a packet, and from a verdict to an answer.

use std::fmt::Write as _;

use crate::api::{
    PolicyTrace, PolicyTraceRequest, TraceChange, TraceConnection, TraceDevice, TraceDrop, TracePolicy, TraceSide,
};
use crate::simulator::{Changes, Device, Dropped, Judgement, Packet, Place, Side, TcpFlags, Verdict, Way};
use crate::tables::{Connection, PolicyDirection};
use crate::{Error, Label, Result};

impl PolicyTraceRequest {
    /// The packet that is asked about.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a place, protocol or flag that there is not, and where a port is missing or has no place.
    pub fn packet(&self) -> Result<Packet> {
        let (from, to): (Place, Place) = (self.from.parse()?, self.to.parse()?);
        let protocol = self.protocol.as_deref().unwrap_or("TCP").to_uppercase();
        let port = || {
            let missing = || Error::invalid("destination port", "none", format!("{protocol} needs one"));
            self.destination_port.ok_or_else(missing)
        };
        let mut packet = match (protocol.as_str(), self.destination_port) {
            ("TCP", _) => Packet::tcp(from, to, port()?),
            ("UDP", _) => Packet::udp(from, to, port()?),
            ("SCTP", _) => Packet::sctp(from, to, port()?),
            ("ICMP" | "ICMPV6", None) => Packet::echo(from, to, self.source_port.unwrap_or(1)),
            ("ICMP" | "ICMPV6", Some(port)) => {
                return Err(Error::invalid("destination port", port.to_string(), "ICMP has no ports"));
            }
            _ => return Err(Error::invalid("protocol", protocol, "must be TCP, UDP, SCTP or ICMP")),
        };
        if let Some(port) = self.source_port {
            packet = packet.source_port(port);
        }
        if let Some(hops) = self.hop_limit {
            packet = packet.hop_limit(hops);
        }
        if !self.tcp_flags.is_empty() {
            packet = packet.tcp_flags(flags(&self.tcp_flags)?);
        }
        Ok(if self.ipv6 { packet.ipv6() } else { packet })
    }
}

fn flags(names: &[String]) -> Result<TcpFlags> {
    names.iter().try_fold(TcpFlags::empty(), |flags, name| {
        let unknown = || Error::invalid("TCP flag", name.as_str(), "must be SYN, ACK, FIN, RST or PSH");
        Ok(flags | TcpFlags::from_name(&name.to_uppercase()).ok_or_else(unknown)?)
    })
}

impl From<&Verdict> for PolicyTrace {
    fn from(verdict: &Verdict) -> Self {
        let (way, device) = match &verdict.way {
            Way::Endpoint(device) => ("endpoint", Some(device)),
            Way::Stack(device) => ("stack", Some(device)),
            Way::Back(device) => ("back", Some(device)),
            Way::Dropped => ("dropped", None),
        };
        Self {
            allowed: verdict.allowed,
            drop: verdict.drop.as_ref().map(TraceDrop::from),
            program: verdict.program.to_owned(),
            source: verdict.source.as_ref().map(TraceSide::from),
            destination: verdict.destination.as_ref().map(TraceSide::from),
            policies: verdict.policies.iter().map(TracePolicy::from).collect(),
            relation: verdict.relation.to_string(),
            connection_before: verdict.connection_before.as_ref().map(TraceConnection::from),
            connection_after: verdict.connection_after.as_ref().map(TraceConnection::from),
            way: way.to_owned(),
            device: device.map(TraceDevice::from),
            changes: changes(&verdict.changes()),
            before: hex(&verdict.before),
            after: hex(&verdict.after),
        }
    }
}

impl From<&Dropped> for TraceDrop {
    fn from(drop: &Dropped) -> Self {
        Self { code: drop.number, reason: drop.text(), file: drop.file.to_string(), line: drop.line }
    }
}

impl From<&Side> for TraceSide {
    fn from(side: &Side) -> Self {
        Self {
            address: side.address.to_string(),
            identity: side.identity.get(),
            labels: side.labels.iter().map(Label::to_string).collect(),
            endpoint: side.endpoint.as_ref().map(|(id, _)| id.get()),
            name: side.endpoint.as_ref().map(|(_, name)| name.clone()),
        }
    }
}

impl From<&Judgement> for TracePolicy {
    fn from(judgement: &Judgement) -> Self {
        let direction = match judgement.direction {
            PolicyDirection::Ingress => "ingress",
            PolicyDirection::Egress => "egress",
        };
        let source = judgement.source.as_ref();
        Self {
            direction: direction.to_owned(),
            endpoint: judgement.endpoint.get(),
            enforced: judgement.enforced,
            peer: judgement.peer.get(),
            action: judgement.action.to_string(),
            r#match: judgement.matched.to_string(),
            rule: judgement.rule.map(|rule| rule.get()),
            rule_name: source.map(ToString::to_string),
            rule_labels: source.map(|source| source.labels.iter().map(Label::to_string).collect()).unwrap_or_default(),
            rule_description: source.map(|source| source.description.clone()).filter(|text| !text.is_empty()),
        }
    }
}

impl From<&Connection> for TraceConnection {
    fn from(connection: &Connection) -> Self {
        Self {
            state: connection.state.to_string(),
            opener: connection.opener.to_string(),
            forward_packets: connection.forward.packets,
            reply_packets: connection.reply.packets,
        }
    }
}

impl From<&Device> for TraceDevice {
    fn from(device: &Device) -> Self {
        Self { ifindex: device.ifindex.get(), name: device.name.clone() }
    }
}

fn changes(changes: &Changes) -> Vec<TraceChange> {
    let mut list = Vec::new();
    let mut add = |field: &str, before: String, after: String| {
        list.push(TraceChange { field: field.to_owned(), before, after });
    };
    if let Some((before, after)) = changes.destination_mac {
        add("destination MAC", before.to_string(), after.to_string());
    }
    if let Some((before, after)) = changes.source_mac {
        add("source MAC", before.to_string(), after.to_string());
    }
    if let Some((before, after)) = changes.hop_limit {
        add("hop limit", before.to_string(), after.to_string());
    }
    list
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to memory does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(protocol: Option<&str>, destination_port: Option<u16>) -> PolicyTraceRequest {
        let ends = PolicyTraceRequest { from: "7".to_owned(), to: "host".to_owned(), ..Default::default() };
        PolicyTraceRequest { protocol: protocol.map(str::to_owned), destination_port, ..ends }
    }

    #[test]
    fn a_request_is_a_packet_or_says_what_is_wrong() {
        let ends = || ("7".parse::<Place>().expect("a place"), Place::Host);
        let ((a, b), (c, d)) = (ends(), ends());
        assert_eq!(request(None, Some(80)).packet().expect("a packet"), Packet::tcp(a, b, 80));
        assert_eq!(request(Some("icmp"), None).packet().expect("a packet"), Packet::echo(c, d, 1).source_port(40_000));
        for (wrong, word) in [
            (request(None, None), "TCP needs one"),
            (request(Some("icmp"), Some(8)), "ICMP has no ports"),
            (request(Some("gre"), Some(8)), "GRE"),
            (PolicyTraceRequest { from: "nobody".to_owned(), ..request(None, Some(1)) }, "nobody"),
            (PolicyTraceRequest { tcp_flags: vec!["URG".to_owned()], ..request(None, Some(1)) }, "URG"),
        ] {
            let error = wrong.packet().expect_err(word);
            assert!(error.kind() == crate::ErrorKind::InvalidInput && error.to_string().contains(word), "{error}");
        }
    }
}
