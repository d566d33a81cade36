//! A model of the datapath in plain Rust, written from its rules and not from its code: what has to become of a packet.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podwire::abi::ForwardPoint;

use crate::datapath::*;
use crate::packets::*;

/// What a node knows: the sender behind the device, local addresses, its own constants.
pub(crate) struct World {
    pub(crate) sender: Option<Pod>,
    pub(crate) addresses: BTreeMap<IpAddr, Owner>,
    pub(crate) has_ipv4: bool,
    pub(crate) has_ipv6: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner {
    Host,
    Pod { mac: Mac, node_mac: Mac },
}

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) verdict: i32,
    pub(crate) packet: Vec<u8>,
    /// The reason counted and reported.
    pub(crate) drop: Option<u8>,
    /// Where it is counted as forwarded.
    pub(crate) point: Option<ForwardPoint>,
}

const INVALID_SMAC: u8 = 130;
const INVALID_SIP: u8 = 132;
const INVALID_PACKET: u8 = 134;
const UNSUPPORTED_L3: u8 = 139;
const UNKNOWN_TARGET: u8 = 150;
const UNROUTABLE: u8 = 151;
const INVALID_EXTHDR: u8 = 156;
const UNKNOWN_SENDER: u8 = 172;
const FORBIDDEN_ICMP6: u8 = 176;
const VLAN_FILTERED: u8 = 182;
const TTL_EXCEEDED: u8 = 196;

/// Why a packet goes no further.
struct Drop(u8);

/// Where a packet that may go on goes.
enum Way {
    Pass(Option<ForwardPoint>),
    Redirect(Vec<u8>, Option<ForwardPoint>),
    /// Dropped for its time to live, yet shown to the stack.
    Expire(Vec<u8>),
}

impl World {
    pub(crate) fn fate(&self, program: &str, frame: &[u8]) -> Fate {
        let way = match program {
            FROM_CONTAINER => self.sent_by_pod(frame),
            TO_CONTAINER => self.sent_to_pod(frame),
            FROM_HOST => self.sent_by_host(frame),
            FROM_NETDEV => self.received(frame),
            TO_HOST => Ok(Way::Pass(Some(ForwardPoint::ToHost))),
            _ => Ok(Way::Pass(Some(ForwardPoint::ToNetwork))),
        };
        let unchanged = frame.to_vec();
        match way {
            Ok(Way::Pass(point)) => Fate { verdict: PASS, packet: unchanged, drop: None, point },
            Ok(Way::Redirect(packet, point)) => Fate { verdict: REDIRECT, packet, drop: None, point },
            Ok(Way::Expire(packet)) => Fate { verdict: REDIRECT, packet, drop: Some(TTL_EXCEEDED), point: None },
            Err(Drop(reason)) => Fate { verdict: SHOT, packet: unchanged, drop: Some(reason), point: None },
        }
    }

    fn sent_by_pod(&self, frame: &[u8]) -> Result<Way, Drop> {
        let sender = self.sender.ok_or(Drop(UNKNOWN_SENDER))?;
        ensure(frame[6..12] == sender.mac, INVALID_SMAC)?;
        match ethertype(frame) {
            0x8100 | 0x88a8 => Err(Drop(VLAN_FILTERED)),
            TYPE_IPV4 => self.ipv4_from_pod(&sender, frame),
            TYPE_IPV6 => self.ipv6_from_pod(&sender, frame),
            TYPE_ARP => self.arp(&sender, frame),
            _ => Err(Drop(UNSUPPORTED_L3)),
        }
    }

    fn ipv4_from_pod(&self, sender: &Pod, frame: &[u8]) -> Result<Way, Drop> {
        let ip = Ipv4Header::parse(frame).ok_or(Drop(INVALID_PACKET))?;
        ensure(sender.ipv4 == Some(ip.source), INVALID_SIP)?;
        let to = ip.destination;
        match self.addresses.get(&to.into()) {
            Some(Owner::Pod { .. }) if ip.ttl <= 1 => Ok(Way::Expire(for_host(frame))),
            Some(Owner::Pod { mac, node_mac }) => {
                let packet = readdressed(&one_less(frame, &ip), *mac, *node_mac);
                Ok(Way::Redirect(packet, Some(ForwardPoint::PodToPod)))
            }
            Some(Owner::Host) => Ok(Way::Redirect(for_host(frame), Some(ForwardPoint::PodToStack))),
            None => {
                ensure(!self.in_range4(to), UNROUTABLE)?;
                let nowhere = to.is_multicast() || to.is_broadcast() || to.is_loopback() || to.octets()[0] == 0;
                ensure(!nowhere, UNKNOWN_TARGET)?;
                Ok(Way::Redirect(for_host(frame), Some(ForwardPoint::PodToStack)))
            }
        }
    }

    fn ipv6_from_pod(&self, sender: &Pod, frame: &[u8]) -> Result<Way, Drop> {
        let ip = Ipv6Header::parse(frame).ok_or(Drop(INVALID_PACKET))?;
        let to = ip.destination;
        if ip.next == ICMPV6 && frame.get(ETH + IPV6).is_some_and(is_discovery) {
            return self.discovery(sender, frame, &ip);
        }
        ensure(extensions_pass(frame, ip.next), INVALID_EXTHDR)?;
        if to.is_multicast() {
            return Err(Drop(if ip.next == ICMPV6 || ip.next == 0 { FORBIDDEN_ICMP6 } else { UNKNOWN_TARGET }));
        }
        ensure(sender.ipv6 == Some(ip.source), INVALID_SIP)?;
        match self.addresses.get(&to.into()) {
            Some(Owner::Pod { .. }) if ip.hops <= 1 => Ok(Way::Expire(for_host(frame))),
            Some(Owner::Pod { mac, node_mac }) => {
                let packet = readdressed(&with(frame, ETH + 7, &[ip.hops - 1]), *mac, *node_mac);
                Ok(Way::Redirect(packet, Some(ForwardPoint::PodToPod)))
            }
            Some(Owner::Host) => Ok(Way::Redirect(for_host(frame), Some(ForwardPoint::PodToStack))),
            None => {
                ensure(!self.in_range6(to), UNROUTABLE)?;
                let nowhere = is_link_local(to) || to.is_loopback() || to.is_unspecified();
                ensure(!nowhere, UNKNOWN_TARGET)?;
                Ok(Way::Redirect(for_host(frame), Some(ForwardPoint::PodToStack)))
            }
        }
    }

    fn arp(&self, sender: &Pod, frame: &[u8]) -> Result<Way, Drop> {
        let arp = frame.get(ETH..ETH + 28).ok_or(Drop(INVALID_PACKET))?;
        ensure(arp[..6] == [0, 1, 8, 0, 6, 4], INVALID_PACKET)?;
        ensure(arp[8..14] == sender.mac, INVALID_SMAC)?;
        let asks_for_us = arp[6..8] == [0, 1] && self.has_ipv4 && arp[24..28] == GATEWAY4.octets();
        ensure(asks_for_us, UNKNOWN_TARGET)?;
        let address = Ipv4Addr::from([arp[14], arp[15], arp[16], arp[17]]);
        ensure(sender.ipv4 == Some(address), INVALID_SIP)?;
        let reply = Arp { operation: 2, sender: (sender.node_mac, GATEWAY4), target: (sender.mac, address) };
        let mut packet = reply.frame(sender.node_mac, sender.mac);
        packet.extend_from_slice(&frame[ETH + 28..]);
        Ok(Way::Redirect(packet, None))
    }

    fn discovery(&self, sender: &Pod, frame: &[u8], ip: &Ipv6Header) -> Result<Way, Drop> {
        ensure(frame[ETH + IPV6] == 135, FORBIDDEN_ICMP6)?;
        let message = frame.get(ETH + IPV6..ETH + IPV6 + 24).ok_or(Drop(INVALID_PACKET))?;
        ensure(ip.hops == 255 && message[1] == 0 && ip.payload >= 24, INVALID_PACKET)?;
        ensure(self.has_ipv6 && message[8..24] == GATEWAY6.octets(), UNKNOWN_TARGET)?;
        ensure(sender.ipv6 == Some(ip.source) || is_link_local(ip.source), INVALID_SIP)?;
        let answer = ndp(136, 0xe0, GATEWAY6, &link_layer_option(2, sender.node_mac));
        Ok(Way::Redirect(icmpv6((sender.node_mac, sender.mac), (GATEWAY6, ip.source), 255, &answer), None))
    }

    fn sent_to_pod(&self, frame: &[u8]) -> Result<Way, Drop> {
        let receiver = self.sender.ok_or(Drop(UNROUTABLE))?;
        match ethertype(frame) {
            0x8100 | 0x88a8 => return Err(Drop(VLAN_FILTERED)),
            TYPE_IPV4 => {
                let ip = Ipv4Header::parse(frame).ok_or(Drop(INVALID_PACKET))?;
                ensure(receiver.ipv4 == Some(ip.destination), UNROUTABLE)?;
            }
            TYPE_IPV6 => {
                let to = Ipv6Header::parse(frame).ok_or(Drop(INVALID_PACKET))?.destination;
                let for_it = to.is_multicast() || is_link_local(to) || receiver.ipv6 == Some(to);
                ensure(for_it, UNROUTABLE)?;
            }
            TYPE_ARP => {}
            _ => return Err(Drop(UNSUPPORTED_L3)),
        }
        Ok(Way::Pass(Some(ForwardPoint::StackToPod)))
    }

    fn sent_by_host(&self, frame: &[u8]) -> Result<Way, Drop> {
        let (to, in_range) = match ethertype(frame) {
            TYPE_IPV4 => {
                let to = Ipv4Header::parse(frame).ok_or(Drop(INVALID_PACKET))?.destination;
                (IpAddr::from(to), self.in_range4(to))
            }
            TYPE_IPV6 => {
                let to = Ipv6Header::parse(frame).ok_or(Drop(INVALID_PACKET))?.destination;
                (IpAddr::from(to), self.in_range6(to))
            }
            _ => return Ok(Way::Pass(None)),
        };
        match self.addresses.get(&to) {
            Some(Owner::Pod { mac, node_mac }) => {
                Ok(Way::Redirect(readdressed(frame, *mac, *node_mac), Some(ForwardPoint::HostToPod)))
            }
            _ if in_range => Err(Drop(UNROUTABLE)),
            _ => Ok(Way::Pass(None)),
        }
    }

    fn received(&self, frame: &[u8]) -> Result<Way, Drop> {
        let stack = Ok(Way::Pass(Some(ForwardPoint::FromNetwork)));
        if frame[..6] != DEVICE_MAC {
            return stack;
        }
        let (to, counted_down) = match ethertype(frame) {
            TYPE_IPV4 => {
                let Some(ip) = Ipv4Header::parse(frame) else { return stack };
                ensure(!self.in_range4(ip.source), INVALID_SIP)?;
                (IpAddr::from(ip.destination), (ip.ttl > 1).then(|| one_less(frame, &ip)))
            }
            TYPE_IPV6 => {
                let Some(ip) = Ipv6Header::parse(frame) else { return stack };
                ensure(!self.in_range6(ip.source), INVALID_SIP)?;
                (IpAddr::from(ip.destination), (ip.hops > 1).then(|| with(frame, ETH + 7, &[ip.hops - 1])))
            }
            _ => return stack,
        };
        let (Some(Owner::Pod { mac, node_mac }), Some(packet)) = (self.addresses.get(&to), counted_down) else {
            return stack;
        };
        ensure(to.is_ipv4() || extensions_pass(frame, frame[ETH + 6]), INVALID_EXTHDR)?;
        Ok(Way::Redirect(readdressed(&packet, *mac, *node_mac), Some(ForwardPoint::NetworkToPod)))
    }

    fn in_range4(&self, address: Ipv4Addr) -> bool {
        self.has_ipv4 && address.octets()[..3] == [10, 0, 0]
    }

    fn in_range6(&self, address: Ipv6Addr) -> bool {
        self.has_ipv6 && address.octets()[..15] == [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    }
}

fn ensure(holds: bool, reason: u8) -> Result<(), Drop> {
    if holds { Ok(()) } else { Err(Drop(reason)) }
}

fn ethertype(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[12], frame[13]])
}

fn for_host(frame: &[u8]) -> Vec<u8> {
    with(frame, 0, &HOST_MAC)
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

fn is_discovery(kind: &u8) -> bool {
    (133..=137).contains(kind)
}

struct Ipv4Header {
    ttl: u8,
    checksum: u16,
    source: Ipv4Addr,
    destination: Ipv4Addr,
}

impl Ipv4Header {
    fn parse(frame: &[u8]) -> Option<Self> {
        let packet = &frame[ETH..];
        let fixed: [u8; IPV4] = packet.get(..IPV4)?.try_into().ok()?;
        let header = usize::from(fixed[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        let valid = fixed[0] >> 4 == 4 && header >= IPV4 && header <= total && total <= packet.len();
        valid.then(|| Self {
            ttl: fixed[8],
            checksum: u16::from_be_bytes([fixed[10], fixed[11]]),
            source: Ipv4Addr::from([fixed[12], fixed[13], fixed[14], fixed[15]]),
            destination: Ipv4Addr::from([fixed[16], fixed[17], fixed[18], fixed[19]]),
        })
    }
}

/// The frame with one less to live. The checksum, which may have been wrong, moves by as much as the header did (RFC 1141).
fn one_less(frame: &[u8], ip: &Ipv4Header) -> Vec<u8> {
    let checksum = u32::from(ip.checksum) + 0x0100;
    let checksum = (checksum + u32::from(checksum >= 0xffff)) as u16;
    with(&with(frame, ETH + 8, &[ip.ttl - 1]), ETH + 10, &checksum.to_be_bytes())
}

struct Ipv6Header {
    payload: usize,
    next: u8,
    hops: u8,
    source: Ipv6Addr,
    destination: Ipv6Addr,
}

impl Ipv6Header {
    fn parse(frame: &[u8]) -> Option<Self> {
        let packet = &frame[ETH..];
        let fixed = packet.get(..IPV6)?;
        let payload = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let address = |at: usize| <[u8; 16]>::try_from(&fixed[at..at + 16]).map(Ipv6Addr::from);
        if fixed[0] >> 4 != 6 || payload > packet.len() - IPV6 {
            return None;
        }
        Some(Self { payload, next: fixed[6], hops: fixed[7], source: address(8).ok()?, destination: address(24).ok()? })
    }
}

/// Whether a packet's extension headers are whole, few enough, in order, and none of them forbidden.
fn extensions_pass(frame: &[u8], first: u8) -> bool {
    let mut rest = &frame[ETH + IPV6..];
    let mut next = first;
    for count in 0.. {
        let known = [0, 43, 44, 51, 60, 135].contains(&next);
        if !known {
            let hides_discovery = next == ICMPV6 && rest.first().is_none_or(is_discovery);
            return count == 0 || !hides_discovery;
        }
        let Some(head) = rest.get(..8) else { return false };
        let length = match next {
            44 => 8,
            51 => (usize::from(head[1]) + 2) * 4,
            _ => (usize::from(head[1]) + 1) * 8,
        };
        if count == 8 || (next == 0 && count > 0) || (next == 43 && head[2] == 0) {
            return false;
        }
        if next == 44 && (u16::from_be_bytes([head[2], head[3]]) >> 3) != 0 {
            return true;
        }
        if length > rest.len() {
            return false;
        }
        rest = &rest[length..];
        next = head[0];
    }
    false
}
