//! Packets for a simulator: described by their fields, or given as bytes.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use etherparse::{IpNumber, PacketBuilder};

use crate::endpoint::EndpointRef;
use crate::tables::Protocol;
use crate::{EndpointId, Error, MacAddr, Result};

/// One end of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// An endpoint of this node.
    Endpoint(EndpointRef),
    /// An address, whoever has it: an endpoint, the node itself, or somebody outside.
    Address(IpAddr),
    /// The node itself.
    Host,
    /// Somebody outside, of whom nothing is known: an address for documentation, as 192.0.2.1 or 2001:db8::1, or where somebody has these or
    /// policies name them, another one of the world's identity.
    World,
}

/// `host`, `world`, an address, `namespace/pod`, an endpoint's number, or another form of [`EndpointRef`].
impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "host" => return Ok(Self::Host),
            "world" => return Ok(Self::World),
            _ => {}
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        if text.contains('/') && !text.contains(':') {
            return Ok(Self::Endpoint(EndpointRef::PodName(text.to_owned())));
        }
        let bad =
            |_| Error::invalid("place", text, "is neither host, world, an address, namespace/pod nor an endpoint's id");
        text.parse().map(Self::Endpoint).map_err(bad)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(endpoint) => endpoint.fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Host => f.write_str("host"),
            Self::World => f.write_str("world"),
        }
    }
}

impl From<EndpointId> for Place {
    fn from(id: EndpointId) -> Self {
        Self::Endpoint(EndpointRef::Id(id))
    }
}

impl From<IpAddr> for Place {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

/// Where bytes come in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry {
    /// An endpoint sends them.
    FromEndpoint(EndpointRef),
    /// The network sends them, to a native device.
    FromNetwork,
    /// The host's stack sends them to an endpoint.
    ToEndpoint(EndpointRef),
}

/// A packet to simulate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet(pub(super) Content);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Fields(Fields),
    Bytes(Entry, Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) transport: Transport,
    pub(super) source_port: u16,
    pub(super) tcp_flags: TcpFlags,
    pub(super) hop_limit: u8,
    pub(super) ipv6: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Ports(Protocol, u16),
    /// An echo request of whichever family, with its identifier.
    Echo(u16),
    /// A message of a type, of one family's ICMP.
    Icmp {
        protocol: Protocol,
        kind: u8,
        identifier: u16,
    },
}

bitflags::bitflags! {
    /// Flags of a TCP segment, as in the header's fourteenth byte.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TcpFlags: u8 {
        /// The sender is done.
        const FIN = 0x01;
        /// Opens a connection.
        const SYN = 0x02;
        /// Ends a connection.
        const RST = 0x04;
        /// Is to be handed on at once.
        const PSH = 0x08;
        /// Acknowledges.
        const ACK = 0x10;
    }
}

impl Packet {
    /// A TCP segment that opens a connection (SYN).
    pub fn tcp(from: impl Into<Place>, to: impl Into<Place>, port: u16) -> Self {
        Self::with_ports(Protocol::TCP, from, to, port)
    }

    /// A UDP datagram.
    pub fn udp(from: impl Into<Place>, to: impl Into<Place>, port: u16) -> Self {
        Self::with_ports(Protocol::UDP, from, to, port)
    }

    /// An SCTP packet.
    pub fn sctp(from: impl Into<Place>, to: impl Into<Place>, port: u16) -> Self {
        Self::with_ports(Protocol::SCTP, from, to, port)
    }

    /// An ICMP echo request, of the addresses' family, with this identifier.
    pub fn echo(from: impl Into<Place>, to: impl Into<Place>, identifier: u16) -> Self {
        Self::of(from.into(), to.into(), Transport::Echo(identifier))
    }

    /// An ICMP message of this type and code 0, between IPv4 addresses, with an identifier where an echo request has one.
    pub fn icmp(from: impl Into<Place>, to: impl Into<Place>, kind: u8, identifier: u16) -> Self {
        Self::of(from.into(), to.into(), Transport::Icmp { protocol: Protocol::ICMP, kind, identifier })
    }

    /// The same of ICMPv6, between IPv6 addresses.
    pub fn icmpv6(from: impl Into<Place>, to: impl Into<Place>, kind: u8, identifier: u16) -> Self {
        Self::of(from.into(), to.into(), Transport::Icmp { protocol: Protocol::ICMPV6, kind, identifier })
    }

    /// An Ethernet frame, which comes in where it is said.
    pub fn raw(entry: Entry, frame: impl Into<Vec<u8>>) -> Self {
        Self(Content::Bytes(entry, frame.into()))
    }

    /// The port it comes from; 40000 unless told.
    pub fn source_port(self, port: u16) -> Self {
        self.change(|fields| fields.source_port = port)
    }

    /// A TCP segment's flags; SYN unless told.
    pub fn tcp_flags(self, flags: TcpFlags) -> Self {
        self.change(|fields| fields.tcp_flags = flags)
    }

    /// The time to live or hop limit; 64 unless told.
    pub fn hop_limit(self, hops: u8) -> Self {
        self.change(|fields| fields.hop_limit = hops)
    }

    /// IPv6 where both ends have both families and no address says which; IPv4 unless told.
    pub fn ipv6(self) -> Self {
        self.change(|fields| fields.ipv6 = true)
    }

    fn with_ports(protocol: Protocol, from: impl Into<Place>, to: impl Into<Place>, port: u16) -> Self {
        Self::of(from.into(), to.into(), Transport::Ports(protocol, port))
    }

    fn of(from: Place, to: Place, transport: Transport) -> Self {
        let (source_port, tcp_flags, hop_limit) = (40_000, TcpFlags::SYN, 64);
        Self(Content::Fields(Fields { from, to, transport, source_port, tcp_flags, hop_limit, ipv6: false }))
    }

    /// Bytes stay as they are.
    fn change(mut self, change: impl FnOnce(&mut Fields)) -> Self {
        if let Content::Fields(fields) = &mut self.0 {
            change(fields);
        }
        self
    }
}

impl Fields {
    /// The families that it may have, whether IPv6, the preferred one first.
    pub(super) fn families(&self) -> &'static [bool] {
        match (self.transport, self.ipv6) {
            (Transport::Icmp { protocol: Protocol::ICMP, .. }, _) => &[false],
            (Transport::Icmp { .. }, _) => &[true],
            (_, false) => &[false, true],
            (_, true) => &[true, false],
        }
    }

    /// The frame between two addresses of one family.
    pub(super) fn frame(&self, macs: (MacAddr, MacAddr), source: IpAddr, destination: IpAddr) -> Result<Vec<u8>> {
        let builder = PacketBuilder::ethernet2(macs.0.octets(), macs.1.octets());
        let (builder, is_ipv4) = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                (builder.ipv4(source.octets(), destination.octets(), self.hop_limit), true)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                (builder.ipv6(source.octets(), destination.octets(), self.hop_limit), false)
            }
            _ => {
                return Err(Error::invalid(
                    "packet",
                    format!("{source} to {destination}"),
                    "are of different families",
                ));
            }
        };
        let mut bytes = Vec::new();
        let written = match self.transport {
            Transport::Ports(Protocol::TCP, port) => {
                let set = |flag| self.tcp_flags.contains(flag);
                let mut header = etherparse::TcpHeader::new(self.source_port, port, 1, 65_535);
                (header.fin, header.syn, header.rst) = (set(TcpFlags::FIN), set(TcpFlags::SYN), set(TcpFlags::RST));
                (header.psh, header.ack) = (set(TcpFlags::PSH), set(TcpFlags::ACK));
                builder.tcp_header(header).write(&mut bytes, &[])
            }
            Transport::Ports(Protocol::UDP, port) => builder.udp(self.source_port, port).write(&mut bytes, &[]),
            Transport::Ports(protocol, port) => {
                // An SCTP common header (RFC 9260, 3.1): ports, verification tag, checksum.
                let ports = [self.source_port.to_be_bytes(), port.to_be_bytes()].concat();
                let header = [&ports[..], &[0; 8]].concat();
                builder.write(&mut bytes, IpNumber(protocol.number()), &header)
            }
            Transport::Echo(id) if is_ipv4 => builder.icmpv4_echo_request(id, 1).write(&mut bytes, &[]),
            Transport::Echo(id) => builder.icmpv6_echo_request(id, 1).write(&mut bytes, &[]),
            Transport::Icmp { kind, identifier, .. } => {
                let [a, b] = identifier.to_be_bytes();
                match is_ipv4 {
                    true => builder.icmpv4_raw(kind, 0, [a, b, 0, 1]).write(&mut bytes, &[]),
                    false => builder.icmpv6_raw(kind, 0, [a, b, 0, 1]).write(&mut bytes, &[]),
                }
            }
        };
        written.map_err(|error| Error::invalid("packet", format!("{source} to {destination}"), error.to_string()))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_written() {
        let table = [
            ("host", Place::Host),
            ("world", Place::World),
            ("10.0.0.1", Place::Address([10, 0, 0, 1].into())),
            ("fd00::1", Place::Address("fd00::1".parse().expect("an address"))),
            ("default/web", Place::Endpoint(EndpointRef::PodName("default/web".to_owned()))),
            ("7", Place::from(EndpointId::new(7).expect("not 0"))),
            ("container-id:abc", Place::Endpoint(EndpointRef::ContainerId("abc".to_owned()))),
        ];
        for (text, place) in table {
            assert_eq!(text.parse::<Place>().expect(text), place);
        }
        for bad in ["", "nobody", "10.0.0.0/8:x", "0"] {
            let error = bad.parse::<Place>().expect_err(bad);
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput, "{error}");
        }
    }

    #[test]
    fn frames_are_those_described() {
        let (v4, v6): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [1u8; 16].into());
        let frame = |packet: Packet, from, to| match packet.0 {
            Content::Fields(fields) => fields.frame((MacAddr::new([0; 6]), MacAddr::new([0; 6])), from, to),
            Content::Bytes(..) => panic!("described by fields"),
        };
        let tcp = Packet::tcp(v4, v4, 80).tcp_flags(TcpFlags::ACK | TcpFlags::FIN).hop_limit(3).source_port(7);
        let tcp = frame(tcp, v4, v4).expect("one family");
        assert_eq!((tcp[22], &tcp[34..38], tcp[47]), (3, &[0, 7, 0, 80][..], 0x11));
        let sctp = frame(Packet::sctp(v6, v6, 9), v6, v6).expect("one family");
        assert_eq!((sctp[20], sctp.len()), (132, 14 + 40 + 12));
        let echo = frame(Packet::echo(v6, v6, 9), v6, v6).expect("one family");
        assert_eq!((echo[20], echo[54], &echo[58..60]), (58, 128, &[0, 9][..]));
        let solicitation = frame(Packet::icmpv6(v6, v6, 135, 9), v6, v6).expect("one family");
        assert_eq!((solicitation[20], &solicitation[54..56]), (58, &[135, 0][..]));
        let same = |one: Packet, other: Packet, at| assert_eq!(frame(one, at, at).ok(), frame(other, at, at).ok());
        same(Packet::icmp(v4, v4, 8, 9), Packet::echo(v4, v4, 9), v4);
        same(Packet::icmpv6(v6, v6, 128, 9), Packet::echo(v6, v6, 9), v6);
        assert!(frame(Packet::udp(v4, v6, 9), v4, v6).is_err());
    }
}
