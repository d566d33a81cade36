//! From a request to a packet, and from a verdict to an answer.

use std::fmt::Write as _;

use crate::api::{
    PolicyTrace, PolicyTraceRequest, TraceChange, TraceConnection, TraceDevice, TraceDrop, TracePolicy, TraceSide,
};
use crate::simulator::{Changes, Device, Dropped, Entry, Judgement, Packet, Place, Side, TcpFlags, Verdict, Way};
use crate::tables::{Connection, PolicyDirection};
use crate::{Error, Label, Result};

impl PolicyTraceRequest {
    /// The packet that is asked about.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a place, protocol or flag that there is not, for what is missing and what has no place, and for digits that are
    /// none.
    pub fn packet(&self) -> Result<Packet> {
        match &self.raw {
            Some(digits) => Ok(Packet::raw(self.entry()?, bytes(digits)?)),
            None => self.described(),
        }
    }

    /// Where the bytes come in.
    fn entry(&self) -> Result<Entry> {
        let ports = self.destination_port.is_some() || self.source_port.is_some();
        let rest = self.icmp_type.is_some() || self.hop_limit.is_some() || self.ipv6 || !self.tcp_flags.is_empty();
        if self.protocol.is_some() || ports || rest {
            return Err(Error::invalid("raw", "", "the frame's bytes say all about it: nothing else may be given"));
        }
        match (self.from.parse()?, self.to.as_str()) {
            (Place::Endpoint(sender), "") => Ok(Entry::FromEndpoint(sender)),
            (Place::World, "") => Ok(Entry::FromNetwork),
            (Place::Host, to) if !to.is_empty() => match to.parse()? {
                Place::Endpoint(receiver) => Ok(Entry::ToEndpoint(receiver)),
                _ => Err(Error::invalid("to", to, "the host gives frames to endpoints only: name one")),
            },
            (_, to) => {
                let ends = if to.is_empty() { self.from.clone() } else { format!("{} to {to}", self.from) };
                let reason = "a frame comes from an endpoint, from world or from host; to whom is to be said if it is host, only";
                Err(Error::invalid("packet", ends, reason))
            }
        }
    }

    fn described(&self) -> Result<Packet> {
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
            ("ICMP" | "ICMPV6", Some(port)) => {
                return Err(Error::invalid("destination port", port.to_string(), "ICMP has no ports"));
            }
            ("ICMP", None) if self.ipv6 => {
                return Err(Error::invalid("protocol", "ICMP", "goes between IPv4 addresses: IPv6 has ICMPv6"));
            }
            ("ICMP", None) => Packet::icmp(from, to, self.icmp_type.unwrap_or(8), self.source_port.unwrap_or(1)),
            ("ICMPV6", None) => Packet::icmpv6(from, to, self.icmp_type.unwrap_or(128), self.source_port.unwrap_or(1)),
            _ => return Err(Error::invalid("protocol", protocol, "must be TCP, UDP, SCTP, ICMP or ICMPv6")),
        };
        if let Some(kind) = self.icmp_type.filter(|_| !protocol.starts_with("ICMP")) {
            return Err(Error::invalid("ICMP type", kind.to_string(), format!("{protocol} has none")));
        }
        if !self.tcp_flags.is_empty() && protocol != "TCP" {
            return Err(Error::invalid("TCP flags", self.tcp_flags.join(","), format!("{protocol} has none")));
        }
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

/// What [`hex`] writes; blanks between bytes are passed over.
fn bytes(digits: &str) -> Result<Vec<u8>> {
    let none = |what: &str| Error::invalid("raw", what, "expected two hexadecimal digits for each byte");
    let digits: Vec<char> = digits.chars().filter(|digit| !digit.is_whitespace()).collect();
    let byte = |pair: &[char]| match *pair {
        [high, low] => Some(high.to_digit(16)? << 4 | low.to_digit(16)?).and_then(|byte| u8::try_from(byte).ok()),
        _ => None,
    };
    digits.chunks(2).map(|pair| byte(pair).ok_or_else(|| none(&pair.iter().collect::<String>()))).collect()
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
        let packet = |request: PolicyTraceRequest| request.packet().expect("a packet");
        let ((a, b), (c, d), (e, f)) = (ends(), ends(), ends());
        assert_eq!(packet(request(None, Some(80))), Packet::tcp(a, b, 80));
        assert_eq!(packet(request(Some("icmp"), None)), Packet::icmp(c, d, 8, 1));
        let reply = PolicyTraceRequest { icmp_type: Some(129), ..request(Some("icmpv6"), None) };
        assert_eq!(packet(reply), Packet::icmpv6(e, f, 129, 1));
        for (wrong, word) in [
            (request(None, None), "TCP needs one"),
            (request(Some("icmp"), Some(8)), "ICMP has no ports"),
            (request(Some("gre"), Some(8)), "GRE"),
            (PolicyTraceRequest { ipv6: true, ..request(Some("icmp"), None) }, "IPv6 has ICMPv6"),
            (PolicyTraceRequest { icmp_type: Some(8), ..request(None, Some(80)) }, "TCP has none"),
            (PolicyTraceRequest { tcp_flags: vec!["SYN".to_owned()], ..request(Some("udp"), Some(1)) }, "UDP has none"),
            (PolicyTraceRequest { from: "nobody".to_owned(), ..request(None, Some(1)) }, "nobody"),
            (PolicyTraceRequest { tcp_flags: vec!["URG".to_owned()], ..request(None, Some(1)) }, "URG"),
        ] {
            let error = wrong.packet().expect_err(word);
            assert!(error.kind() == crate::ErrorKind::InvalidInput && error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn a_frame_comes_in_where_it_is_said() {
        let raw = |from: &str, to: &str, digits: &str| {
            let (from, to) = (from.to_owned(), to.to_owned());
            PolicyTraceRequest { from, to, raw: Some(digits.to_owned()), ..Default::default() }
        };
        let endpoint = || "7".parse().expect("an endpoint");
        for (from, to, entry) in [
            ("7", "", Entry::FromEndpoint(endpoint())),
            ("world", "", Entry::FromNetwork),
            ("host", "7", Entry::ToEndpoint(endpoint())),
        ] {
            let packet = raw(from, to, "00 fF\n80").packet().expect("a packet");
            assert_eq!(packet, Packet::raw(entry, [0, 255, 128]));
        }
        let described = PolicyTraceRequest { hop_limit: Some(3), ..raw("7", "", "00") };
        for (wrong, word) in [
            (raw("7", "", "0"), "two hexadecimal digits"),
            (raw("7", "", "0g"), "\"0g\""),
            (raw("7", "8", "00"), "7 to 8"),
            (raw("host", "", "00"), "if it is host"),
            (raw("host", "world", "00"), "endpoints only"),
            (raw("192.0.2.1", "", "00"), "192.0.2.1"),
            (described, "nothing else"),
        ] {
            let error = wrong.packet().expect_err(word);
            assert!(error.kind() == crate::ErrorKind::InvalidInput && error.to_string().contains(word), "{error}");
        }
    }
}
