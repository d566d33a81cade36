//! Headers: what the datapath reads of a packet.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::packets::{ETH, ICMPV6, IPV4, IPV6, UDP};
use super::{Drop, INVALID_EXTHDR, INVALID_PACKET, NO_FIRST_FRAGMENT, ensure};

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
const SCTP: u8 = 132;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;

/// A packet as policy and connection tracking see it.
#[derive(Clone, Debug)]
pub(super) struct Tuple {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) content: Content,
}

/// What is above IP.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Flags are those of the header's fourteenth byte; a fragment behind the first has none.
    Tcp { ports: (u16, u16), flags: Option<u8> },
    /// UDP and SCTP.
    Ports { ports: (u16, u16) },
    /// ICMP and ICMPv6 echo. Types 8 and 128 are requests.
    Echo { id: u16, kind: u8 },
    /// Any other message, and the packet that an error is about.
    Icmp { kind: u8, about: Option<Box<Tuple>> },
    /// A protocol without ports.
    Plain,
}

impl Content {
    pub(super) fn is_echo_request(&self) -> bool {
        matches!(self, Self::Echo { kind: 8 | 128, .. })
    }

    /// Whether somebody begins anew with it, rather than go on.
    pub(super) fn opens(&self) -> bool {
        match self {
            Self::Tcp { flags: Some(flags), .. } => flags & (SYN | ACK) == SYN,
            _ => self.is_echo_request(),
        }
    }
}

/// A packet that was sent in several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FragmentId {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) number: u32,
}

/// What is remembered of a first fragment: ports; of ICMP the identifier and the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recorded(pub(crate) u16, pub(crate) u16);

enum Fragment {
    Whole,
    First(FragmentId),
    Later(FragmentId),
}

/// A packet's fixed header and what is above all IP headers.
pub(super) struct Ip<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) hops: u8,
    protocol: u8,
    fragment: Fragment,
    upper: &'a [u8],
}

impl<'a> Ip<'a> {
    pub(super) fn parse(frame: &'a [u8]) -> Option<Result<Self, Drop>> {
        match frame.get(12..14)? {
            [0x08, 0x00] => Some(Self::v4(&frame[ETH..]).ok_or(Drop::new(INVALID_PACKET))),
            [0x86, 0xdd] => Some(Ipv6::parse(frame).ok_or(Drop::new(INVALID_PACKET)).and_then(|ip| ip.walk())),
            _ => None,
        }
    }

    fn v4(packet: &'a [u8]) -> Option<Self> {
        let header = Ipv4::parse(packet)?;
        let number = u16::from_be_bytes([packet[4], packet[5]]).into();
        let fragment = u16::from_be_bytes([packet[6], packet[7]]);
        let (source, destination) = (header.source.into(), header.destination.into());
        let protocol = packet[9];
        let id = FragmentId { source, destination, protocol, number };
        Some(Self {
            source,
            destination,
            hops: header.ttl,
            protocol,
            fragment: match (fragment & 0x1fff, fragment & 0x2000) {
                (0, 0) => Fragment::Whole,
                (0, _) => Fragment::First(id),
                _ => Fragment::Later(id),
            },
            upper: &packet[header.length..header.total],
        })
    }

    /// Reads on, with the help of earlier fragments, and helps later ones.
    pub(super) fn tuple(
        &self,
        fragments: &mut BTreeMap<FragmentId, Recorded>,
        trail: &mut Vec<&'static str>,
    ) -> Result<Tuple, Drop> {
        let mut protocol = self.protocol;
        let content = match self.fragment {
            Fragment::Later(id) => match self.first(id, fragments) {
                Some((of_the_first, recorded)) => {
                    trail.push("fragment by its first");
                    protocol = of_the_first;
                    recall(protocol, recorded)
                }
                None => {
                    ensure(!self.has_content(), NO_FIRST_FRAGMENT)?;
                    trail.push("fragment without ports");
                    Content::Plain
                }
            },
            Fragment::First(_) | Fragment::Whole => self.read()?,
        };
        if let Fragment::First(id) = self.fragment
            && let Some(recorded) = self.record(&content)
        {
            // The protocol behind extension headers, which later fragments do not show.
            fragments.insert(FragmentId { protocol: self.protocol, ..id }, recorded);
        }
        Ok(Tuple { source: self.source, destination: self.destination, protocol, content })
    }

    /// The first fragment's protocol and what is remembered of it. Those behind it may announce an extension header that it bears.
    fn first(&self, id: FragmentId, fragments: &BTreeMap<FragmentId, Recorded>) -> Option<(u8, Recorded)> {
        let is_extended = self.source.is_ipv6() && is_extension(self.protocol);
        let protocols = if is_extended { vec![TCP, UDP, SCTP, ICMPV6] } else { vec![self.protocol] };
        protocols.into_iter().find_map(|protocol| {
            let recorded = fragments.get(&FragmentId { protocol, ..id })?;
            Some((protocol, *recorded))
        })
    }

    /// The one of ICMP and ICMPv6 that belongs to the family.
    fn icmp(&self) -> u8 {
        if self.source.is_ipv4() { ICMP } else { ICMPV6 }
    }

    fn has_content(&self) -> bool {
        [TCP, UDP, SCTP, self.icmp()].contains(&self.protocol)
    }

    fn read(&self) -> Result<Content, Drop> {
        let upper = self.upper;
        let has = |length| ensure(upper.len() >= length, INVALID_PACKET);
        let pair = |at: usize| u16::from_be_bytes([upper[at], upper[at + 1]]);
        match self.protocol {
            TCP => {
                has(20)?;
                ensure(upper[12] >> 4 >= 5, INVALID_PACKET)?;
                ensure(tcp_flags_make_sense(upper[13]), INVALID_PACKET)?;
                Ok(Content::Tcp { ports: (pair(0), pair(2)), flags: Some(upper[13]) })
            }
            UDP => has(8).map(|()| Content::Ports { ports: (pair(0), pair(2)) }),
            SCTP => has(12).map(|()| Content::Ports { ports: (pair(0), pair(2)) }),
            protocol if protocol == self.icmp() => {
                has(8)?;
                Ok(match (protocol, upper[0]) {
                    (ICMP, kind @ (0 | 8)) | (ICMPV6, kind @ (128 | 129)) => Content::Echo { id: pair(4), kind },
                    (ICMP, kind @ (3 | 11 | 12)) => Content::Icmp { kind, about: inner_v4(&upper[8..]).map(Box::new) },
                    (ICMPV6, kind @ 1..=4) => Content::Icmp { kind, about: inner_v6(&upper[8..]).map(Box::new) },
                    (_, kind) => Content::Icmp { kind, about: None },
                })
            }
            _ => Ok(Content::Plain),
        }
    }

    fn record(&self, content: &Content) -> Option<Recorded> {
        match *content {
            Content::Tcp { ports, .. } | Content::Ports { ports } => Some(Recorded(ports.0, ports.1)),
            Content::Echo { id, kind } => Some(Recorded(id, kind.into())),
            Content::Icmp { kind, .. } => {
                Some(Recorded(u16::from_be_bytes([self.upper[4], self.upper[5]]), kind.into()))
            }
            Content::Plain => None,
        }
    }
}

fn recall(protocol: u8, recorded: Recorded) -> Content {
    let ports = (recorded.0, recorded.1);
    let kind = recorded.1 as u8;
    match (protocol, kind) {
        (TCP, _) => Content::Tcp { ports, flags: None },
        (UDP | SCTP, _) => Content::Ports { ports },
        (ICMP, 0 | 8) | (ICMPV6, 128 | 129) => Content::Echo { id: recorded.0, kind },
        _ => Content::Icmp { kind, about: None },
    }
}

/// Of SYN, FIN, RST and ACK only some go together.
fn tcp_flags_make_sense(flags: u8) -> bool {
    let telling = flags & (SYN | FIN | RST | ACK);
    [SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK].contains(&telling)
}

/// The packet that an ICMP error carries: its header and at least eight bytes behind it.
fn inner_v4(packet: &[u8]) -> Option<Tuple> {
    let fixed = packet.get(..IPV4)?;
    let length = usize::from(fixed[0] & 0x0f) * 4;
    let is_later_fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x1fff != 0;
    if fixed[0] >> 4 != 4 || length < IPV4 || is_later_fragment {
        return None;
    }
    let source = Ipv4Addr::from([fixed[12], fixed[13], fixed[14], fixed[15]]).into();
    let destination = Ipv4Addr::from([fixed[16], fixed[17], fixed[18], fixed[19]]).into();
    inner_upper(source, destination, fixed[9], packet.get(length..length + 8)?)
}

/// As [`inner_v4`], behind extension headers such as the packet itself may bear.
fn inner_v6(packet: &[u8]) -> Option<Tuple> {
    let ip = Ipv6::borne(packet)?;
    let (protocol, at, fragment) = ip.headers().ok()?;
    if matches!(fragment, Fragment::Later(_)) {
        return None;
    }
    inner_upper(ip.source.into(), ip.destination.into(), protocol, ip.rest.get(at..at + 8)?)
}

fn inner_upper(source: IpAddr, destination: IpAddr, protocol: u8, upper: &[u8]) -> Option<Tuple> {
    let pair = |at: usize| u16::from_be_bytes([upper[at], upper[at + 1]]);
    let ports = (pair(0), pair(2));
    let content = match (protocol, source.is_ipv4()) {
        (TCP, _) => Content::Tcp { ports, flags: None },
        (UDP | SCTP, _) => Content::Ports { ports },
        (ICMP, true) if [0, 8].contains(&upper[0]) => Content::Echo { id: pair(4), kind: upper[0] },
        (ICMPV6, false) if [128, 129].contains(&upper[0]) => Content::Echo { id: pair(4), kind: upper[0] },
        // Of other messages no connection is known.
        (ICMP, true) | (ICMPV6, false) => return None,
        _ => Content::Plain,
    };
    Some(Tuple { source, destination, protocol, content })
}

/// An IPv4 header that is whole and true to the packet's length.
pub(super) struct Ipv4 {
    pub(super) ttl: u8,
    pub(super) checksum: u16,
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    length: usize,
    total: usize,
}

impl Ipv4 {
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let fixed: [u8; IPV4] = packet.get(..IPV4)?.try_into().ok()?;
        let length = usize::from(fixed[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        let valid = fixed[0] >> 4 == 4 && length >= IPV4 && length <= total && total <= packet.len();
        valid.then(|| Self {
            ttl: fixed[8],
            checksum: u16::from_be_bytes([fixed[10], fixed[11]]),
            source: Ipv4Addr::from([fixed[12], fixed[13], fixed[14], fixed[15]]),
            destination: Ipv4Addr::from([fixed[16], fixed[17], fixed[18], fixed[19]]),
            length,
            total,
        })
    }
}

/// An IPv6 header that is whole and true to the packet's length.
pub(super) struct Ipv6<'a> {
    pub(super) payload: &'a [u8],
    pub(super) next: u8,
    pub(super) hops: u8,
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    /// Everything behind the header, padding of the frame too.
    pub(super) rest: &'a [u8],
}

impl<'a> Ipv6<'a> {
    pub(super) fn parse(frame: &'a [u8]) -> Option<Self> {
        let packet = &frame[ETH..];
        let ip = Self::borne(packet)?;
        let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
        Some(Self { payload: packet.get(IPV6..IPV6 + length)?, ..ip })
    }

    /// The head of a packet that an error bears: its length says nothing.
    fn borne(packet: &'a [u8]) -> Option<Self> {
        let fixed = packet.get(..IPV6)?;
        let address = |at: usize| <[u8; 16]>::try_from(&fixed[at..at + 16]).map(Ipv6Addr::from);
        if fixed[0] >> 4 != 6 {
            return None;
        }
        Some(Self {
            payload: &packet[IPV6..],
            next: fixed[6],
            hops: fixed[7],
            source: address(8).ok()?,
            destination: address(24).ok()?,
            rest: &packet[IPV6..],
        })
    }

    /// The packet behind its extension headers. Its own account of its length counts, not the frame's.
    pub(super) fn walk(&self) -> Result<Ip<'a>, Drop> {
        let (protocol, at, fragment) = self.headers()?;
        let upper = self.payload.get(at..).ok_or(Drop::new(INVALID_EXTHDR))?;
        let (source, destination) = (self.source.into(), self.destination.into());
        Ok(Ip { source, destination, hops: self.hops, protocol, fragment, upper })
    }

    /// Whether the extension headers are whole, few enough, in order, and none of them forbidden.
    pub(super) fn headers_are_valid(&self) -> Result<(), Drop> {
        self.headers().map(drop)
    }

    /// What is behind the extension headers, where it begins, and whether it is a piece.
    fn headers(&self) -> Result<(u8, usize, Fragment), Drop> {
        let (source, destination) = (self.source.into(), self.destination.into());
        let mut at = 0;
        let mut next = self.next;
        let mut fragment = Fragment::Whole;
        for count in 0.. {
            let rest = &self.rest[at..];
            if !is_extension(next) {
                let hides_discovery = next == ICMPV6 && rest.first().is_none_or(|kind| is_discovery(*kind));
                ensure(count == 0 || !hides_discovery, INVALID_EXTHDR)?;
                break;
            }
            let head = rest.get(..8).ok_or(Drop::new(INVALID_EXTHDR))?;
            let out_of_place = count == 8 || (next == 0 && count > 0) || (next == 43 && head[2] == 0);
            ensure(!out_of_place, INVALID_EXTHDR)?;
            if next == 44 {
                let number = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
                let id = FragmentId { source, destination, protocol: head[0], number };
                let place = u16::from_be_bytes([head[2], head[3]]);
                if place >> 3 != 0 {
                    (fragment, next) = (Fragment::Later(id), head[0]);
                    at += 8;
                    break;
                }
                fragment = if place & 1 == 0 { Fragment::Whole } else { Fragment::First(id) };
            }
            let length = extension_length(next, head[1]);
            ensure(length <= rest.len(), INVALID_EXTHDR)?;
            at += length;
            next = head[0];
        }
        Ok((next, at, fragment))
    }
}

fn is_extension(header: u8) -> bool {
    [0, 43, 44, 51, 60, 135].contains(&header)
}

fn extension_length(header: u8, length: u8) -> usize {
    match header {
        44 => 8,
        51 => (usize::from(length) + 2) * 4,
        _ => (usize::from(length) + 1) * 8,
    }
}

/// Neighbour discovery, of which pods send none through the node.
pub(super) fn is_discovery(kind: u8) -> bool {
    (133..=137).contains(&kind)
}
