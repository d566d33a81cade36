//! Frames for tests: etherparse builds those that are right, plain bytes those that are wrong.
#![allow(dead_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;

pub(crate) type Mac = [u8; 6];

pub(crate) const ETH: usize = 14;
pub(crate) const IPV4: usize = 20;
pub(crate) const IPV6: usize = 40;
pub(crate) const PAYLOAD: &[u8] = b"twenty-two bytes, even";

pub(crate) const TYPE_IPV4: u16 = 0x0800;
pub(crate) const TYPE_ARP: u16 = 0x0806;
pub(crate) const TYPE_IPV6: u16 = 0x86dd;

pub(crate) const ICMPV6: u8 = 58;
pub(crate) const UDP: u8 = 17;
pub(crate) const NO_NEXT_HEADER: u8 = 59;

/// A frame of this type around these bytes.
pub(crate) fn frame(source: Mac, destination: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETH + payload.len());
    frame.extend_from_slice(&destination);
    frame.extend_from_slice(&source);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The layer above IP.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Upper {
    Udp,
    Tcp,
    Icmp,
}

pub(crate) const UPPERS: [Upper; 3] = [Upper::Udp, Upper::Tcp, Upper::Icmp];

pub(crate) fn ipv4(macs: (Mac, Mac), addresses: (Ipv4Addr, Ipv4Addr), ttl: u8, upper: Upper) -> Vec<u8> {
    ipv4_of(macs, addresses, ttl, upper, PAYLOAD)
}

pub(crate) fn ipv4_of(
    macs: (Mac, Mac),
    addresses: (Ipv4Addr, Ipv4Addr),
    ttl: u8,
    upper: Upper,
    payload: &[u8],
) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(macs.0, macs.1).ipv4(addresses.0.octets(), addresses.1.octets(), ttl);
    let mut bytes = Vec::new();
    match upper {
        Upper::Udp => builder.udp(5000, 53).write(&mut bytes, payload),
        Upper::Tcp => builder.tcp(40000, 80, 7, 1000).syn().write(&mut bytes, payload),
        Upper::Icmp => builder.icmpv4_echo_request(7, 1).write(&mut bytes, payload),
    }
    .expect("a Vec takes all");
    bytes
}

pub(crate) fn ipv6(macs: (Mac, Mac), addresses: (Ipv6Addr, Ipv6Addr), hops: u8, upper: Upper) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(macs.0, macs.1).ipv6(addresses.0.octets(), addresses.1.octets(), hops);
    let mut bytes = Vec::new();
    match upper {
        Upper::Udp => builder.udp(5000, 53).write(&mut bytes, PAYLOAD),
        Upper::Tcp => builder.tcp(40000, 80, 7, 1000).syn().write(&mut bytes, PAYLOAD),
        Upper::Icmp => builder.icmpv6_echo_request(7, 1).write(&mut bytes, PAYLOAD),
    }
    .expect("a Vec takes all");
    bytes
}

/// An IPv6 frame whose fixed header announces `next` and is followed by exactly these bytes.
pub(crate) fn ipv6_raw(
    macs: (Mac, Mac),
    addresses: (Ipv6Addr, Ipv6Addr),
    hops: u8,
    next: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[next, hops]);
    packet.extend_from_slice(&addresses.0.octets());
    packet.extend_from_slice(&addresses.1.octets());
    packet.extend_from_slice(payload);
    frame(macs.0, macs.1, TYPE_IPV6, &packet)
}

/// An IPv4 datagram without a frame around it: `(number, place)` are its identification, and its flags and fragment offset.
pub(crate) fn ipv4_datagram(
    (from, to): (IpAddr, IpAddr),
    ttl: u8,
    protocol: u8,
    (number, place): (u16, u16),
    options: &[u8],
    upper: &[u8],
) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { unreachable!("IPv4 on both sides") };
    let header = IPV4 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend_from_slice(&((header + upper.len()) as u16).to_be_bytes());
    packet.extend_from_slice(&number.to_be_bytes());
    packet.extend_from_slice(&place.to_be_bytes());
    packet.extend_from_slice(&[ttl, protocol, 0, 0]);
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    packet.extend_from_slice(options);
    let checksum = internet_checksum(&packet);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend_from_slice(upper);
    packet
}

/// An IPv6 datagram without a frame around it.
pub(crate) fn ipv6_datagram((from, to): (IpAddr, IpAddr), hops: u8, next: u8, payload: &[u8]) -> Vec<u8> {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) else { unreachable!("IPv6 on both sides") };
    ipv6_raw(([0; 6], [0; 6]), (from, to), hops, next, payload)[ETH..].to_vec()
}

/// An IPv6 fragment header: offset in bytes, a multiple of 8.
pub(crate) fn fragment_header(next: u8, offset: u16, more: bool, number: u32) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend_from_slice(&(offset | u16::from(more)).to_be_bytes());
    header.extend_from_slice(&number.to_be_bytes());
    header
}

/// An ICMPv6 message in a frame, its checksum right.
pub(crate) fn icmpv6(macs: (Mac, Mac), addresses: (Ipv6Addr, Ipv6Addr), hops: u8, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let checksum = icmpv6_checksum(addresses.0, addresses.1, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    ipv6_raw(macs, addresses, hops, ICMPV6, &message)
}

/// The checksum of an ICMPv6 message (RFC 4443, 2.3); its own field counts as zero.
pub(crate) fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let mut covered = Vec::new();
    covered.extend_from_slice(&source.octets());
    covered.extend_from_slice(&destination.octets());
    covered.extend_from_slice(&(message.len() as u32).to_be_bytes());
    covered.extend_from_slice(&[0, 0, 0, ICMPV6]);
    covered.extend_from_slice(message);
    covered[42..44].fill(0);
    internet_checksum(&covered)
}

/// The internet checksum (RFC 1071).
pub(crate) fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u64 =
        bytes.chunks(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Computes the checksum of a frame's IPv4 header anew, over as many words as the header says it has.
pub(crate) fn mend_ipv4(frame: &mut [u8]) {
    let end = (ETH + usize::from(frame[ETH] & 0x0f) * 4).min(frame.len());
    frame[ETH + 10..ETH + 12].fill(0);
    let checksum = internet_checksum(&frame[ETH..end]);
    frame[ETH + 10..ETH + 12].copy_from_slice(&checksum.to_be_bytes());
}

/// The frame with some bytes replaced and the IPv4 checksum mended.
pub(crate) fn ipv4_with(frame: &[u8], offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = with(frame, ETH + offset, bytes);
    mend_ipv4(&mut frame);
    frame
}

/// The frame with some bytes replaced.
pub(crate) fn with(frame: &[u8], offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}

/// The frame with bytes put in between.
pub(crate) fn insert(frame: &[u8], offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut longer = frame[..offset].to_vec();
    longer.extend_from_slice(bytes);
    longer.extend_from_slice(&frame[offset..]);
    longer
}

/// The frame with the addresses that the datapath writes into it.
pub(crate) fn readdressed(frame: &[u8], destination: Mac, source: Mac) -> Vec<u8> {
    with(&with(frame, 0, &destination), 6, &source)
}

/// The frame with an IEEE 802.1Q tag in it.
pub(crate) fn tagged(frame: &[u8], tpid: u16, tci: u16) -> Vec<u8> {
    let mut tag = tpid.to_be_bytes().to_vec();
    tag.extend_from_slice(&tci.to_be_bytes());
    insert(frame, 12, &tag)
}

/// An ARP packet in a frame.
pub(crate) struct Arp {
    pub(crate) operation: u16,
    pub(crate) sender: (Mac, Ipv4Addr),
    pub(crate) target: (Mac, Ipv4Addr),
}

impl Arp {
    pub(crate) fn frame(&self, source: Mac, destination: Mac) -> Vec<u8> {
        let mut packet = vec![0, 1, 8, 0, 6, 4];
        packet.extend_from_slice(&self.operation.to_be_bytes());
        for (mac, address) in [self.sender, self.target] {
            packet.extend_from_slice(&mac);
            packet.extend_from_slice(&address.octets());
        }
        frame(source, destination, TYPE_ARP, &packet)
    }
}

/// A neighbour discovery message: type, four bytes, target, options.
pub(crate) fn ndp(kind: u8, flags: u8, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend_from_slice(&target.octets());
    message.extend_from_slice(options);
    message
}

/// The option that carries a link-layer address: 1 the source's, 2 the target's.
pub(crate) fn link_layer_option(kind: u8, mac: Mac) -> Vec<u8> {
    let mut option = vec![kind, 1];
    option.extend_from_slice(&mac);
    option
}

/// The group that a neighbour solicitation for an address is sent to (RFC 4291, 2.7.1).
pub(crate) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let o = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, o[13], o[14], o[15]])
}
