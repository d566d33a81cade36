//! What a simulator has to know of a packet before it runs: between whom it goes, and which connections may matter to it.

use std::net::{IpAddr, SocketAddr};

use etherparse::{LaxNetSlice, LaxSlicedPacket};

use crate::events::is_later_ipv6;
use crate::tables::{Echo, FlowTuple, Protocol};

/// A packet's addresses and connections. What the bytes do not say is left out: the programs judge them, not this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    /// Source and destination.
    pub(super) addresses: Option<(IpAddr, IpAddr)>,
    /// The connection it belongs to, or may open.
    pub(super) tuple: Option<FlowTuple>,
    /// Of an ICMP error: the tuple of the packet that it is about.
    pub(super) inner: Option<FlowTuple>,
    /// Whether it opens a connection whatever there is: a SYN, an echo request.
    pub(super) opens: bool,
}

impl Parsed {
    /// Of an Ethernet frame.
    pub(super) fn of(frame: &[u8]) -> Self {
        LaxSlicedPacket::from_ethernet(frame).map_or_else(|_| Self::default(), |packet| Self::of_packet(&packet, true))
    }

    /// The addresses that the programs may ask for: the packet's, and of an error those of the connection that it is about,
    /// which is judged in its place.
    pub(super) fn all_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let inner = self.inner.map(|inner| (inner.source().ip(), inner.destination().ip()));
        self.addresses.into_iter().chain(inner).flat_map(|(source, destination)| [source, destination])
    }

    /// The connections that they may ask for.
    pub(super) fn connections(&self) -> impl Iterator<Item = &FlowTuple> {
        self.tuple.iter().chain(&self.inner)
    }

    fn of_packet(packet: &LaxSlicedPacket<'_>, is_outer: bool) -> Self {
        let mut parsed = Self::default();
        let (ip, is_later) = match &packet.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header();
                parsed.addresses = Some((header.source_addr().into(), header.destination_addr().into()));
                (ip.payload(), header.fragments_offset().value() > 0)
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let header = ip.header();
                parsed.addresses = Some((header.source_addr().into(), header.destination_addr().into()));
                (ip.payload(), is_later_ipv6(ip))
            }
            _ => return parsed,
        };
        let Some((source, destination)) = parsed.addresses.filter(|_| !is_later) else { return parsed };
        let (protocol, payload) = (Protocol::new(ip.ip_number.0), ip.payload);
        match protocol {
            Protocol::TCP | Protocol::UDP | Protocol::SCTP => {
                let Some(&[a, b, c, d]) = payload.first_chunk() else { return parsed };
                let ports = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                parsed.tuple = tuple(protocol, (source, ports.0), (destination, ports.1));
                parsed.opens = protocol == Protocol::TCP && payload.get(13).is_some_and(|flags| flags & 0x12 == 0x02);
            }
            Protocol::ICMP if source.is_ipv4() => {
                parsed.icmp(payload, (8, 0), |kind| [3, 11, 12].contains(&kind), is_outer)
            }
            Protocol::ICMPV6 if source.is_ipv6() => {
                parsed.icmp(payload, (128, 129), |kind| (1..=4).contains(&kind), is_outer)
            }
            _ => parsed.tuple = tuple(protocol, (source, 0), (destination, 0)),
        }
        parsed
    }

    /// `echo` has the types of request and reply.
    fn icmp(&mut self, message: &[u8], echo: (u8, u8), is_error: impl Fn(u8) -> bool, is_outer: bool) {
        let (Some(&[kind, _, _, _, a, b, _, _]), Some((source, destination))) = (message.first_chunk(), self.addresses)
        else {
            return;
        };
        let identifier = u16::from_be_bytes([a, b]);
        let echo = match kind {
            kind if kind == echo.0 => Some(Echo::Request),
            kind if kind == echo.1 => Some(Echo::Reply),
            _ => None,
        };
        if let Some(echo) = echo {
            self.tuple = FlowTuple::echo(echo, source, destination, identifier).ok();
            self.opens = echo == Echo::Request;
        } else if is_outer && is_error(kind) {
            self.inner = inner(&message[8..], destination);
        }
    }
}

/// The tuple of the packet in an error, if the error's receiver sent it.
fn inner(bytes: &[u8], receiver: IpAddr) -> Option<FlowTuple> {
    let packet = LaxSlicedPacket::from_ip(bytes).ok()?;
    let parsed = Parsed::of_packet(&packet, false);
    parsed.addresses.filter(|(source, _)| *source == receiver).and(parsed.tuple)
}

fn tuple(protocol: Protocol, source: (IpAddr, u16), destination: (IpAddr, u16)) -> Option<FlowTuple> {
    FlowTuple::new(protocol, SocketAddr::from(source), SocketAddr::from(destination)).ok()
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const A: [u8; 4] = [10, 0, 0, 1];
    const B: [u8; 4] = [10, 0, 0, 2];

    fn udp() -> Vec<u8> {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(A, B, 9).udp(7, 53);
        builder.write(&mut bytes, b"text").expect("into memory");
        bytes
    }

    fn udp_tuple() -> FlowTuple {
        FlowTuple::new(Protocol::UDP, (A, 7).into(), (B, 53).into()).expect("one family")
    }

    #[test]
    fn ports_echoes_and_errors() {
        assert_eq!(Parsed::of(&udp()).tuple, Some(udp_tuple()));

        let mut echo = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([1; 16], [2; 16], 9).icmpv6_echo_request(77, 1);
        builder.write(&mut echo, &[]).expect("into memory");
        let parsed = Parsed::of(&echo);
        let tuple = FlowTuple::echo(Echo::Request, [1; 16].into(), [2; 16].into(), 77).expect("one family");
        assert_eq!((parsed.tuple, parsed.opens), (Some(tuple), true));

        for (receiver, related) in [(A, Some(udp_tuple())), (B, None)] {
            let mut error = Vec::new();
            let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 0, 2, 1], receiver, 9);
            builder.icmpv4_raw(3, 1, [0; 4]).write(&mut error, &udp()[14..]).expect("into memory");
            let parsed = Parsed::of(&error);
            assert_eq!((parsed.tuple, parsed.inner), (None, related));
        }
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        let mut bytes = udp();
        bytes[14 + 7] = 5;
        let parsed = Parsed::of(&bytes);
        assert_eq!((parsed.tuple, parsed.addresses), (None, Some((A.into(), B.into()))));

        let ipv6 = |place: u16| {
            let mut bytes =
                [&[2; 12], [0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, 44, 9].as_slice(), &[1; 16], &[2; 16]].concat();
            bytes.extend([17, 0]);
            bytes.extend(place.to_be_bytes());
            bytes.extend([0, 0, 0, 1, 0, 7, 0, 53, 0, 8, 0, 0]);
            Parsed::of(&bytes).tuple
        };
        let tuple = FlowTuple::new(Protocol::UDP, ([1; 16], 7).into(), ([2; 16], 53).into());
        assert_eq!((ipv6(1), ipv6(9)), (Some(tuple.expect("one family")), None));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_parsed(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), kind in 0..3usize) {
            if let (Some(at), Some(ethertype)) = (bytes.get_mut(12..14), [[8, 0], [0x86, 0xdd]].get(kind)) {
                at.copy_from_slice(ethertype);
            }
            Parsed::of(&bytes);
        }
    }
}
