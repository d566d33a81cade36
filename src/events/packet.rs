//! The head of a packet, summed up.

use std::net::IpAddr;

use etherparse::{
    Icmpv4Slice, Icmpv6Slice, IpFragOffset, IpNumber, Ipv6ExtensionSlice, LaxIpPayloadSlice, LaxIpv6Slice, LaxNetSlice,
    LaxSlicedPacket, LinkSlice, TcpSlice, TransportSlice, UdpSlice,
};

use crate::MacAddr;

/// What an event's bytes say of its packet. Whatever is truncated or malformed is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PacketSummary {
    /// Source and destination of the frame.
    pub macs: Option<(MacAddr, MacAddr)>,
    /// The frame's ethertype, in host order.
    pub ethertype: Option<u16>,
    /// Source and destination of the packet.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// The transport protocol's number.
    pub protocol: Option<u8>,
    /// The transport's header. Of a packet in fragments the first one bears it.
    pub layer4: Option<Layer4>,
    /// Whether it is a fragment behind the first.
    pub is_later_fragment: bool,
}

/// A transport header, summed up. Ports are in host order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layer4 {
    /// A TCP segment.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Names of the flags set, in the order SYN, ACK, FIN, RST, PSH.
        flags: Vec<&'static str>,
    },
    /// A UDP datagram.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// An ICMP message of either family.
    Icmp {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
        /// Whether it is ICMPv6.
        v6: bool,
    },
}

impl PacketSummary {
    /// Sums up the first bytes of an Ethernet frame.
    pub fn of(frame: &[u8]) -> Self {
        LaxSlicedPacket::from_ethernet(frame).map_or_else(|_| Self::default(), |packet| Self::of_packet(&packet))
    }

    /// Sums up what an ICMP error, in an Ethernet frame, bears of the packet that it is about: at the least its ports.
    /// `None` if there is nothing of it.
    pub fn borne_by(frame: &[u8]) -> Option<Self> {
        let error = LaxSlicedPacket::from_ethernet(frame).ok()?;
        let borne = match &error.transport {
            Some(TransportSlice::Icmpv4(icmp)) => icmp.payload(),
            Some(TransportSlice::Icmpv6(icmp)) => icmp.payload(),
            _ => return None,
        };
        let packet = LaxSlicedPacket::from_ip(borne).ok()?;
        let mut summary = Self::of_packet(&packet);
        if summary.layer4.is_none() && !summary.is_later_fragment {
            summary.layer4 = packet.net.as_ref().and_then(LaxNetSlice::ip_payload_ref).and_then(ports_alone);
        }
        Some(summary)
    }

    /// The same packet on its way back. Nothing is said of a frame.
    #[must_use]
    pub fn turned(mut self) -> Self {
        self.macs = None;
        self.addresses = self.addresses.map(|(source, destination)| (destination, source));
        if let Some(Layer4::Tcp { source, destination, .. } | Layer4::Udp { source, destination }) = &mut self.layer4 {
            std::mem::swap(source, destination);
        }
        self
    }

    fn of_packet(packet: &LaxSlicedPacket<'_>) -> Self {
        let mut summary = Self::default();
        if let Some(LinkSlice::Ethernet2(link)) = &packet.link {
            summary.macs = Some((MacAddr::new(link.source()), MacAddr::new(link.destination())));
            summary.ethertype = Some(link.ether_type().0);
        }
        let payload = match &packet.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header();
                summary.addresses = Some((header.source_addr().into(), header.destination_addr().into()));
                summary.is_later_fragment = header.fragments_offset() != IpFragOffset::ZERO;
                ip.payload()
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let header = ip.header();
                summary.addresses = Some((header.source_addr().into(), header.destination_addr().into()));
                summary.is_later_fragment = is_later_ipv6(ip);
                ip.payload()
            }
            _ => return summary,
        };
        summary.protocol = Some(payload.ip_number.0);
        summary.layer4 = match &packet.transport {
            Some(transport) => layer4(transport),
            None if payload.fragmented && !summary.is_later_fragment => first_fragment(payload),
            None => None,
        };
        summary
    }
}

/// Whether it is a fragment behind the first.
pub(crate) fn is_later_ipv6(ip: &LaxIpv6Slice<'_>) -> bool {
    ip.extensions().clone().into_iter().any(|extension| match extension {
        Ipv6ExtensionSlice::Fragment(fragment) => fragment.fragment_offset() != IpFragOffset::ZERO,
        _ => false,
    })
}

/// The transport header of a first fragment, which the parser leaves alone: what is behind it is not whole.
fn first_fragment(ip: &LaxIpPayloadSlice<'_>) -> Option<Layer4> {
    let transport = match ip.ip_number {
        IpNumber::TCP => TransportSlice::Tcp(TcpSlice::from_slice(ip.payload).ok()?),
        IpNumber::UDP => TransportSlice::Udp(UdpSlice::from_slice_lax(ip.payload).ok()?),
        IpNumber::ICMP => TransportSlice::Icmpv4(Icmpv4Slice::from_slice(ip.payload).ok()?),
        IpNumber::IPV6_ICMP => TransportSlice::Icmpv6(Icmpv6Slice::from_slice(ip.payload).ok()?),
        _ => return None,
    };
    layer4(&transport)
}

fn layer4(transport: &TransportSlice<'_>) -> Option<Layer4> {
    match transport {
        TransportSlice::Tcp(tcp) => {
            let set =
                [("SYN", tcp.syn()), ("ACK", tcp.ack()), ("FIN", tcp.fin()), ("RST", tcp.rst()), ("PSH", tcp.psh())];
            let flags = set.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
            Some(Layer4::Tcp { source: tcp.source_port(), destination: tcp.destination_port(), flags })
        }
        TransportSlice::Udp(udp) => {
            Some(Layer4::Udp { source: udp.source_port(), destination: udp.destination_port() })
        }
        TransportSlice::Icmpv4(icmp) => Some(Layer4::Icmp { kind: icmp.type_u8(), code: icmp.code_u8(), v6: false }),
        TransportSlice::Icmpv6(icmp) => Some(Layer4::Icmp { kind: icmp.type_u8(), code: icmp.code_u8(), v6: true }),
        _ => None,
    }
}

/// The ports of a packet that ends before its transport's header does.
fn ports_alone(ip: &LaxIpPayloadSlice<'_>) -> Option<Layer4> {
    let &[a, b, c, d] = ip.payload.first_chunk()?;
    let (source, destination) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    match ip.ip_number {
        IpNumber::TCP => Some(Layer4::Tcp { source, destination, flags: Vec::new() }),
        IpNumber::UDP => Some(Layer4::Udp { source, destination }),
        _ => None,
    }
}

impl Layer4 {
    /// Source and destination port, where the transport has them.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self {
            Self::Tcp { source, destination, .. } | Self::Udp { source, destination } => Some((*source, *destination)),
            Self::Icmp { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn tcp() -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 2], [10, 0, 0, 3], 64)
            .tcp(40_000, 80, 1, 1024)
            .syn()
            .write(&mut bytes, &[])
            .expect("into memory");
        bytes
    }

    #[test]
    fn a_segment_and_every_truncation_of_it() {
        let bytes = tcp();
        let summary = PacketSummary::of(&bytes);
        assert_eq!(summary.addresses, Some(("10.0.0.2".parse().expect("ip"), "10.0.0.3".parse().expect("ip"))));
        assert_eq!(summary.layer4, Some(Layer4::Tcp { source: 40_000, destination: 80, flags: vec!["SYN"] }));
        for length in 0..bytes.len() {
            let part = PacketSummary::of(&bytes[..length]);
            assert_eq!(part.macs.is_some(), length >= 14, "length {length}");
            assert!(part.layer4.is_none(), "length {length}");
        }
    }

    /// The head of 3,000 bytes in pieces.
    fn ipv4_piece(more_and_offset: u16) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0, 0x45, 0];
        bytes.extend(1500u16.to_be_bytes());
        bytes.extend([0, 7]);
        bytes.extend(more_and_offset.to_be_bytes());
        bytes.extend([64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 3]);
        bytes.extend([0x13, 0x88, 0, 53, 0x0b, 0xc0, 0, 0]);
        bytes.resize(128, b'x');
        bytes
    }

    fn ipv6_piece(place: u16, options: bool) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0];
        bytes.extend(1400u16.to_be_bytes());
        bytes.extend([44, 64]);
        bytes.extend(std::net::Ipv6Addr::LOCALHOST.octets());
        bytes.extend(std::net::Ipv6Addr::LOCALHOST.octets());
        bytes.extend([if options { 60 } else { 17 }, 0]);
        bytes.extend(place.to_be_bytes());
        bytes.extend([0, 0, 0, 7]);
        if options {
            bytes.extend([17, 0, 1, 4, 0, 0, 0, 0]);
        }
        bytes.extend([0x13, 0x88, 0, 53, 0x0b, 0xc0, 0, 0]);
        bytes.resize(128, b'x');
        bytes
    }

    #[test]
    fn a_first_fragment_has_ports_and_those_behind_it_say_what_they_are() {
        for frame in [ipv4_piece(0x2000), ipv6_piece(1, false), ipv6_piece(1, true)] {
            let first = PacketSummary::of(&frame);
            assert_eq!(first.layer4, Some(Layer4::Udp { source: 5000, destination: 53 }));
            assert!(first.to_string().ends_with(" udp") && !first.is_later_fragment, "{first}");
        }
        for frame in [ipv4_piece(0x20b9), ipv4_piece(0x0172), ipv6_piece(0x05a8, false)] {
            let later = PacketSummary::of(&frame);
            assert_eq!((later.layer4.clone(), later.protocol), (None, Some(17)));
            assert!(later.to_string().ends_with(" protocol 17 later fragment"), "{later}");
        }
    }

    #[test]
    fn an_error_about_a_fragment_tells_of_its_ports_if_they_are_there() {
        let error = |piece: &[u8]| {
            let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0, 0x45, 0, 0, 142, 0, 0, 0, 0, 64, 1, 0, 0];
            bytes.extend([10, 0, 0, 1, 10, 0, 0, 2, 3, 4, 0, 0, 0, 0, 5, 0]);
            bytes.extend(&piece[14..]);
            PacketSummary::borne_by(&bytes).expect("it bears one").layer4
        };
        assert_eq!(error(&ipv4_piece(0x2000)), Some(Layer4::Udp { source: 5000, destination: 53 }));
        assert_eq!(error(&ipv4_piece(0x0172)), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_summed_up(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            PacketSummary::of(&bytes);
        }
    }
}
