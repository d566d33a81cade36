//! A packet's tuple, and the key that the packets of both directions of a connection share.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::abi::CtKey;
use crate::tables::address;
use crate::tables::protocol::Protocol;
use crate::{Error, Result};

/// Which side of a [`CtKey`] sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CtDirection {
    /// The side with the smaller (address, port), or either of two equal sides (0).
    FromLo,
    /// The other (1).
    FromHi,
}

impl CtDirection {
    /// The other direction.
    pub const fn reverse(self) -> Self {
        match self {
            Self::FromLo => Self::FromHi,
            Self::FromHi => Self::FromLo,
        }
    }

    /// The direction's place in an entry's arrays.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The direction in an entry's byte.
    pub const fn from_number(number: u8) -> Self {
        if number == 0 { Self::FromLo } else { Self::FromHi }
    }
}

/// Where a packet comes from, where it goes to, by which protocol. Both addresses are of one family.
///
/// For ICMP echo both ports are the echo identifier, and the tuple knows whether the packet asks or answers; for protocols
/// without ports both are 0. So a reply's tuple is the [`reverse`](Self::reverse) of the request's for every protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowTuple {
    source: SocketAddr,
    destination: SocketAddr,
    protocol: Protocol,
    echo: Option<Echo>,
}

/// Which way an ICMP echo goes. Two hosts that ask each other with one identifier have two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Echo {
    /// From the side that asks.
    Request,
    /// From the side that answers.
    Reply,
}

impl Echo {
    fn reverse(self) -> Self {
        match self {
            Self::Request => Self::Reply,
            Self::Reply => Self::Request,
        }
    }
}

impl FlowTuple {
    /// The tuple of a packet. Scope and flow information of IPv6 socket addresses are dropped.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for addresses of different families.
    pub fn new(protocol: Protocol, source: SocketAddr, destination: SocketAddr) -> Result<Self> {
        if source.is_ipv4() != destination.is_ipv4() {
            let reason = format!("is of another family than the source {source}");
            return Err(Error::invalid("destination", destination.to_string(), reason));
        }
        let plain = |address: SocketAddr| SocketAddr::new(address.ip(), address.port());
        Ok(Self { source: plain(source), destination: plain(destination), protocol, echo: None })
    }

    /// The tuple of an ICMP echo request or reply, of the addresses' family.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for addresses of different families.
    pub fn echo(echo: Echo, source: IpAddr, destination: IpAddr, identifier: u16) -> Result<Self> {
        let protocol = if source.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
        let ports = Self::new(protocol, SocketAddr::new(source, identifier), SocketAddr::new(destination, identifier))?;
        Ok(Self { echo: Some(echo), ..ports })
    }

    /// Whether the packet is an ICMP echo, and of which kind.
    pub const fn echo_kind(&self) -> Option<Echo> {
        self.echo
    }

    /// Where the packet comes from.
    pub const fn source(&self) -> SocketAddr {
        self.source
    }

    /// Where it goes to.
    pub const fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// By which protocol.
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The tuple of a packet the other way.
    pub fn reverse(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
            echo: self.echo.map(Echo::reverse),
        }
    }

    /// The key under which the connection is found, the same for both directions, and the packet's direction.
    ///
    /// The smaller of the two sides comes first: compared by address as a number, then by port. So a tuple and its reverse
    /// give the same key and opposite directions, except that a packet from a side to itself is [`CtDirection::FromLo`] both
    /// ways.
    pub fn key(&self) -> (CtKey, CtDirection) {
        let side = |address: SocketAddr| (address.ip(), address.port());
        let direction =
            if side(self.source) <= side(self.destination) { CtDirection::FromLo } else { CtDirection::FromHi };
        let (lo, hi) = match direction {
            CtDirection::FromLo => (self.source, self.destination),
            CtDirection::FromHi => (self.destination, self.source),
        };
        let (lo_addr, family) = address::encode(lo.ip());
        let key = CtKey {
            lo_addr,
            hi_addr: address::encode(hi.ip()).0,
            lo_port_be: lo.port().to_be(),
            hi_port_be: hi.port().to_be(),
            proto: self.protocol.number(),
            family,
            asker: match (self.echo, direction) {
                (None, _) => 0,
                (Some(Echo::Request), CtDirection::FromLo) | (Some(Echo::Reply), CtDirection::FromHi) => 1,
                _ => 2,
            },
            pad: 0,
        };
        (key, direction)
    }
}

/// `TCP 10.0.0.1:40000 -> 10.0.0.2:80`.
impl fmt::Display for FlowTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.protocol, self.source, self.destination)
    }
}

impl CtKey {
    /// Whether the address of one of the sides is meant.
    pub fn has_address(&self, is_meant: impl Fn(IpAddr) -> bool) -> bool {
        [self.lo_addr, self.hi_addr].into_iter().filter_map(|side| address::decode(side, self.family)).any(is_meant)
    }

    /// The tuple of a packet of a direction; `None` for an unknown family.
    pub fn tuple(&self, direction: CtDirection) -> Option<FlowTuple> {
        let lo = SocketAddr::new(address::decode(self.lo_addr, self.family)?, u16::from_be(self.lo_port_be));
        let hi = SocketAddr::new(address::decode(self.hi_addr, self.family)?, u16::from_be(self.hi_port_be));
        let echo = match self.asker {
            0 => None,
            1 => Some(Echo::Request),
            _ => Some(Echo::Reply),
        };
        let from_lo = FlowTuple { source: lo, destination: hi, protocol: Protocol::new(self.proto), echo };
        Some(match direction {
            CtDirection::FromLo => from_lo,
            CtDirection::FromHi => from_lo.reverse(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tcp(source: &str, destination: &str) -> FlowTuple {
        let parse = |text: &str| text.parse().expect("valid socket address");
        FlowTuple::new(Protocol::TCP, parse(source), parse(destination)).expect("one family")
    }

    #[test]
    fn bytes_of_a_key() {
        let (key, direction) = tcp("10.0.0.2:80", "10.0.0.1:40000").key();
        assert_eq!(direction, CtDirection::FromHi);
        let golden = [
            &[10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x9c, 0x40, 0, 80, 6, 1, 0, 0],
        ]
        .concat();
        assert_eq!(bytemuck::bytes_of(&key), golden);
    }

    #[test]
    fn addresses_count_before_ports_and_as_numbers() {
        assert_eq!(tcp("10.0.0.1:65535", "10.0.0.2:1").key().1, CtDirection::FromLo);
        // As little-endian words these two would stand the other way round.
        assert_eq!(tcp("1.0.0.2:1", "2.0.0.1:1").key().1, CtDirection::FromLo);
        assert_eq!(tcp("10.0.0.1:256", "10.0.0.1:255").key().1, CtDirection::FromHi);
        assert_eq!(tcp("10.0.0.1:80", "10.0.0.1:80").key().1, CtDirection::FromLo);
        assert_eq!(tcp("[fd00::ff]:1", "[fd00::1:0]:1").key().1, CtDirection::FromLo);
    }

    #[test]
    fn echo_requests_and_replies_are_one_flow() {
        let parse = |text: &str| -> IpAddr { text.parse().expect("valid") };
        let request = FlowTuple::echo(Echo::Request, parse("fd00::2"), parse("fd00::1"), 77).expect("one family");
        let reply = FlowTuple::echo(Echo::Reply, parse("fd00::1"), parse("fd00::2"), 77).expect("one family");
        assert_eq!(request.key().0, reply.key().0);
        assert_eq!(request.reverse(), reply);
        let asked_back = FlowTuple::echo(Echo::Request, parse("fd00::1"), parse("fd00::2"), 77).expect("one family");
        assert_ne!(request.key().0, asked_back.key().0);
        let (key, direction) = request.key();
        assert_eq!(key.tuple(direction), Some(request));
        assert!(FlowTuple::echo(Echo::Request, parse("fd00::2"), parse("10.0.0.1"), 77).is_err());
    }

    fn side() -> impl Strategy<Value = SocketAddr> {
        // Few values, so that equal addresses and equal ports come up.
        let v4 = (0_u8..4, 0_u16..4).prop_map(|(last, port)| SocketAddr::new([10, 0, last, 1].into(), port));
        let any_v4 = any::<([u8; 4], u16)>().prop_map(|(ip, port)| SocketAddr::new(ip.into(), port));
        prop_oneof![v4, any_v4]
    }

    fn side_v6() -> impl Strategy<Value = SocketAddr> {
        any::<([u8; 16], u16)>().prop_map(|(ip, port)| SocketAddr::new(ip.into(), port))
    }

    fn sides() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        prop_oneof![(side(), side()), (side_v6(), side_v6())]
    }

    proptest! {
        #[test]
        fn both_directions_share_a_key((source, destination) in sides(), protocol: u8) {
            let tuple = FlowTuple::new(Protocol::new(protocol), source, destination).expect("one family");
            let (key, direction) = tuple.key();
            let (reverse_key, reverse_direction) = tuple.reverse().key();
            prop_assert_eq!(key, reverse_key);
            let expected = if source == destination { direction } else { direction.reverse() };
            prop_assert_eq!(reverse_direction, expected);
            prop_assert_eq!(key.tuple(direction), Some(tuple));
            prop_assert_eq!(key.tuple(direction.reverse()), Some(tuple.reverse()));
        }

        #[test]
        fn different_flows_have_different_keys(a in sides(), b in sides()) {
            let tuple = |(source, destination)| FlowTuple::new(Protocol::UDP, source, destination).expect("one family");
            let (a, b) = (tuple(a), tuple(b));
            prop_assert_eq!(a.key().0 == b.key().0, a == b || a == b.reverse());
        }
    }
}
