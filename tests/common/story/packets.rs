//! Random packets of conversations: sense and nonsense, whole and in pieces, by the way they take on a node or by another.

use std::net::IpAddr;

use super::super::datapath::*;
use super::super::model::{Endpoint, World};
use super::super::packets::*;
use super::super::rig::{DEVICES, NETDEV};
use super::noise::{extension_headers, noise};
use super::worlds::{POOL4, POOL6, PORTS};
use super::{Packet, Random};

const TCP: u8 = 6;
const SCTP: u8 = 132;
const ICMP: u8 = 1;

/// Two who talk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Talk {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    from_port: u16,
    to_port: u16,
}

impl Talk {
    pub(super) fn random(random: &mut Random, world: &World) -> Self {
        let ipv4 = if world.has_ipv4 && world.has_ipv6 { random.once_in(2) } else { world.has_ipv4 };
        let address = |at: usize| -> IpAddr { if ipv4 { POOL4[at].into() } else { POOL6[at].into() } };
        let known = |at: usize| world.endpoints.iter().any(|endpoint| endpoint.has(address(at)));
        // One of the two is a pod, and mostly one that is there.
        let pods: Vec<usize> = (0..4).filter(|at| known(*at)).collect();
        let pod = if pods.is_empty() || random.once_in(10) { random.below(4) } else { *random.pick(&pods) };
        let others: Vec<usize> = pods.into_iter().filter(|at| *at != pod).collect();
        let among = [others.as_slice(), &[4, 4, 6, 6, 7, 7]].concat();
        let other = match random.below(16) {
            0 => pod,
            1 => random.below(POOL4.len()),
            _ => *random.pick(&among),
        };
        let (pod, other) = (address(pod), address(other));
        let (from, to) = if random.once_in(2) { (pod, other) } else { (other, pod) };
        let echo = if ipv4 { ICMP } else { ICMPV6 };
        let protocol = *random.pick(&[TCP, TCP, TCP, UDP, UDP, SCTP, echo, echo, 47]);
        Self { from, to, protocol, from_port: *random.pick(&PORTS), to_port: *random.pick(&PORTS) }
    }

    fn answer(self) -> Self {
        Self { from: self.to, to: self.from, from_port: self.to_port, to_port: self.from_port, ..self }
    }
}

/// A datagram that is still to be wrapped.
struct Datagram {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    upper: Vec<u8>,
    what: String,
}

pub(super) fn random_packet(random: &mut Random, world: &World, talks: &[Talk], devices: &[u32; DEVICES]) -> Packet {
    if random.once_in(8) {
        return noise(random, devices);
    }
    let talk = *random.pick(talks);
    let datagram = match random.below(20) {
        0..=3 => error_about(random, &talk),
        4 => odd_message(random, &talk),
        _ => said(random, &talk),
    };
    let (program, ifindex, macs) = way(random, world, datagram.from, datagram.to);
    let (mut frame, how) = wrap(random, macs, &datagram);
    let mut what = format!("{}{how}", datagram.what);
    if random.once_in(16) {
        what.push_str(", damaged");
        for _ in 0..=random.below(2) {
            let at = random.below(frame.len());
            frame[at] ^= 1 << random.below(8);
        }
    }
    if random.once_in(25) {
        what.push_str(", cut");
        frame.truncate(ETH + random.below(frame.len() - ETH));
    } else if random.once_in(25) {
        what.push_str(", padded");
        frame.extend([0; 24]);
    }
    let came_in_by = came_in_by(random, world, datagram.from);
    Packet { program, ifindex, came_in_by, frame, what }
}

/// The device by which a packet from somebody came into the node, mostly.
fn came_in_by(random: &mut Random, world: &World, from: IpAddr) -> u32 {
    if random.once_in(6) {
        *random.pick(&[0, HOST_DEVICE, OTHER_DEVICE, OTHER_DEVICE])
    } else if world.host_addresses.contains(&from) {
        0
    } else if world.endpoints.iter().any(|endpoint| endpoint.has(from)) {
        HOST_DEVICE
    } else {
        OTHER_DEVICE
    }
}

/// The hook that a packet from one to the other meets, mostly.
fn way(random: &mut Random, world: &World, from: IpAddr, to: IpAddr) -> (&'static str, u32, (Mac, Mac)) {
    let at = |address| world.endpoints.iter().find(|endpoint| endpoint.has(address));
    let network = (FROM_NETDEV, NETDEV, (NEIGHBOUR_MAC, DEVICE_MAC));
    let into = |pod: &Endpoint| (TO_CONTAINER, pod.ifindex, (pod.node_mac, pod.mac));
    let out_of = |pod: &Endpoint| (FROM_CONTAINER, pod.ifindex, (pod.mac, pod.node_mac));
    if random.once_in(20)
        && let Some(pod) = world.endpoints.first()
    {
        return *random.pick(&[out_of(pod), into(pod), network, (FROM_HOST, NETDEV, (HOST_MAC, HOST_MAC))]);
    }
    // A pod that pretends to be who it talks to, from a device or an address that is no one's.
    if random.once_in(40)
        && let Some(receiver) = at(to)
    {
        return (FROM_CONTAINER, receiver.ifindex, (*random.pick(&[receiver.mac, [0; 6]]), receiver.node_mac));
    }
    if random.once_in(40)
        && let Some(sender) = at(from)
    {
        return into(sender);
    }
    match (at(from), at(to)) {
        // A pod's packets reach another through the host's stack only by an odd route.
        (Some(_), Some(receiver)) if random.once_in(10) => into(receiver),
        (Some(sender), _) => out_of(sender),
        (None, Some(receiver)) if world.host_addresses.contains(&from) || random.once_in(4) => into(receiver),
        (None, _) => network,
    }
}

/// A packet of a conversation, from either side.
fn said(random: &mut Random, talk: &Talk) -> Datagram {
    let talk = if random.once_in(2) { *talk } else { talk.answer() };
    let (upper, what) = upper(random, &talk);
    let what = format!("{} → {} {what}", talk.from, talk.to);
    Datagram { from: talk.from, to: talk.to, protocol: talk.protocol, upper, what }
}

fn upper(random: &mut Random, talk: &Talk) -> (Vec<u8>, String) {
    let (from, to) = (talk.from_port, talk.to_port);
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&from.to_be_bytes());
    bytes.extend_from_slice(&to.to_be_bytes());
    let what = match talk.protocol {
        TCP => {
            let flags = tcp_flags(random);
            bytes.extend([0, 0, 0, 7, 0, 0, 0, 9]);
            bytes.push(if random.once_in(40) { 0x40 } else { 0x50 });
            bytes.extend([flags, 1, 0, 0xab, 0xcd, 0, 0]);
            format!("TCP {from} → {to} flags {flags:#04x}")
        }
        UDP => {
            bytes.extend([0, 30, 0xab, 0xcd]);
            format!("UDP {from} → {to}")
        }
        SCTP => {
            bytes.extend([0, 0, 0, 1, 0xab, 0xcd, 0xef, 0x01]);
            format!("SCTP {from} → {to}")
        }
        ICMP | ICMPV6 => {
            let request = if talk.from.is_ipv4() { 8 } else { 128 };
            let reply = if talk.from.is_ipv4() { 0 } else { 129 };
            let kind = *random.pick(&[request, request, reply]);
            // Both sides may use the same identifier.
            let id = *random.pick(&[7u8, 7, 7, 8]);
            bytes = vec![kind, 0, 0xab, 0xcd, 0, id, 0, 1];
            format!("echo type {kind} id {id}")
        }
        other => format!("protocol {other}"),
    };
    bytes.extend_from_slice(PAYLOAD);
    (bytes, what)
}

/// Mostly what stacks send, in no order.
fn tcp_flags(random: &mut Random) -> u8 {
    const USUAL: [u8; 20] = [
        0x02, 0x02, 0x02, 0x02, 0x12, 0x12, 0x12, 0x10, 0x10, 0x10, 0x18, 0x18, 0x38, 0x30, 0x11, 0x11, 0x19, 0x04,
        0x14, 0xc2,
    ];
    if random.once_in(12) { random.next() as u8 } else { *random.pick(&USUAL) }
}

/// An ICMP error about a packet of a conversation, to who sent that; some tell of no such packet.
fn error_about(random: &mut Random, talk: &Talk) -> Datagram {
    let about = if random.once_in(2) { *talk } else { talk.answer() };
    let ipv4 = talk.from.is_ipv4();
    let kind: u8 = if ipv4 { *random.pick(&[3, 3, 11, 12]) } else { *random.pick(&[1, 2, 3, 4]) };
    let (mut inner_upper, inner_what) = upper(random, &about);
    let mut source = about.from;
    let mut how = String::new();
    match random.below(12) {
        0 => {
            inner_upper.truncate(random.below(9));
            how.push_str(", inner truncated");
        }
        1 => {
            source = about.to;
            how.push_str(", inner foreign");
        }
        _ => {}
    }
    let (place, tail) =
        *random.pick(&[(0u16, ""), (0, ""), (0, ""), (0x2000, ", inner first"), (0x0001, ", inner later")]);
    how.push_str(tail);
    let mut inner = if ipv4 {
        let options = if random.once_in(6) { vec![1; 8] } else { Vec::new() };
        ipv4_datagram((source, about.to), 63, about.protocol, (0x0101, place), &options, &inner_upper)
    } else if random.once_in(4) {
        how.push_str(", inner extended");
        let (first, payload) = extension_headers(random, about.protocol, &inner_upper);
        ipv6_datagram((source, about.to), 63, first, &payload)
    } else {
        ipv6_datagram((source, about.to), 63, about.protocol, &inner_upper)
    };
    if random.once_in(10) {
        inner.truncate(random.below(inner.len()));
        how.push_str(", inner cut");
    }
    let mut message = vec![kind, 0, 0xab, 0xcd, 0, 0, 5, 0];
    message.extend(inner);
    // From the far end, from a router on the way, or from a pod that has nothing to do with it.
    let pool: [IpAddr; 4] = if ipv4 {
        [about.to, POOL4[4].into(), POOL4[7].into(), POOL4[random.below(3)].into()]
    } else {
        [about.to, POOL6[4].into(), POOL6[7].into(), POOL6[random.below(3)].into()]
    };
    let from = *random.pick(&pool);
    let what = format!("{from} → {} ICMP error {kind} about {} → {} {inner_what}{how}", about.from, source, about.to);
    let protocol = if ipv4 { ICMP } else { ICMPV6 };
    Datagram { from, to: about.from, protocol, upper: message, what }
}

/// Neither echo nor an error, or of the other family's protocol.
fn odd_message(random: &mut Random, talk: &Talk) -> Datagram {
    let ipv4 = talk.from.is_ipv4();
    let kind = *random.pick(&[0, 5, 8, 13, 100, 128, 129, 143, 255]);
    let protocol = *random.pick(&[ICMP, ICMP, ICMPV6, ICMPV6, NO_NEXT_HEADER, 50, 255]);
    let mut upper = vec![kind, 0, 0xab, 0xcd, 0, 7, 0, 1];
    upper.truncate(if random.once_in(6) { random.below(8) } else { 8 });
    let what = format!("{} → {} protocol {protocol} type {kind} (IPv4 {ipv4})", talk.from, talk.to);
    Datagram { from: talk.from, to: talk.to, protocol, upper, what }
}

/// IP around a datagram: plain, with options or extension headers, or a piece of it.
fn wrap(random: &mut Random, macs: (Mac, Mac), datagram: &Datagram) -> (Vec<u8>, String) {
    let hops = *random.pick(&[64, 64, 64, 64, 64, 255, 2, 1, 0]);
    let mut how = if hops <= 2 { format!(", {hops} hops") } else { String::new() };
    let addresses = (datagram.from, datagram.to);
    let place =
        if random.below(5) > 0 { Place::Whole } else { *random.pick(&[Place::First, Place::Later, Place::Atomic]) };
    let number = *random.pick(&[1u16, 1, 2]);
    let mut upper = datagram.upper.clone();
    if place != Place::Whole {
        how.push_str(&format!(", {place:?} fragment of {number}"));
    }
    if place == Place::First && random.once_in(8) {
        upper.truncate(random.below(24).min(upper.len()));
        how.push_str(", short");
    }
    if addresses.0.is_ipv4() {
        let options = if random.once_in(10) { vec![1; 4 * (1 + random.below(10))] } else { Vec::new() };
        if !options.is_empty() {
            how.push_str(", options");
        }
        let bits = match place {
            Place::Whole => *random.pick(&[0, 0x4000]),
            Place::Atomic => 0,
            Place::First => 0x2000,
            Place::Later => *random.pick(&[0x0001, 0x2003, 0x00b9]),
        };
        let packet = ipv4_datagram(addresses, hops, datagram.protocol, (number, bits), &options, &upper);
        return (frame(macs.0, macs.1, TYPE_IPV4, &packet), how);
    }
    let mut payload = upper;
    let mut next = datagram.protocol;
    if place != Place::Whole {
        if random.once_in(4) {
            how.push_str(", options in the first");
            if place != Place::Later {
                payload = [&[next, 0, 1, 4, 0, 0, 0, 0], &payload[..]].concat();
            }
            next = 60;
        }
        let bits: u16 = match place {
            Place::First => 1,
            Place::Later => *random.pick(&[8, 9, 0x05c8]),
            _ => 0,
        };
        let mut header = vec![next, 0];
        header.extend_from_slice(&bits.to_be_bytes());
        header.extend_from_slice(&u32::from(number).to_be_bytes());
        payload = [header, payload].concat();
        next = 44;
    }
    if random.once_in(8) {
        (next, payload) = extension_headers(random, next, &payload);
        how.push_str(", extended");
    }
    (frame(macs.0, macs.1, TYPE_IPV6, &ipv6_datagram(addresses, hops, next, &payload)), how)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Whole,
    First,
    Later,
    /// A fragment header without fragments (IPv6), the same as whole (IPv4).
    Atomic,
}
