//! Packets of no conversation: ARP, discovery, odd destinations, damaged headers, plain noise, by any hook.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::datapath::*;
use super::super::packets::*;
use super::super::rig::{DEVICES, NETDEV};
use super::worlds::{POOL4, POOL6};
use super::{Packet, Random};

pub(super) fn noise(random: &mut Random, devices: &[u32; DEVICES]) -> Packet {
    let program = if random.once_in(2) { FROM_CONTAINER } else { *random.pick(&PROGRAMS) };
    // The last one is nobody's.
    let ifindex = match program {
        FROM_CONTAINER | TO_CONTAINER => *random.pick(&[devices[0], devices[0], devices[0], devices[1], NETDEV]),
        _ => NETDEV,
    };
    let came_in_by = *random.pick(&[0, HOST_DEVICE, OTHER_DEVICE]);
    Packet { program, ifindex, came_in_by, frame: random_frame(random), what: "noise".to_owned() }
}

/// An address of the pool, mostly, or one that stands for nobody.
fn address4(random: &mut Random) -> Ipv4Addr {
    let odd = [
        "224.0.0.1",
        "255.255.255.255",
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.255",
        "10.0.1.1",
        "169.254.42.1",
        "198.51.100.9",
    ];
    match random.below(4) {
        0 => random.pick(&odd).parse().expect("an address"),
        _ => *random.pick(&POOL4),
    }
}

fn address6(random: &mut Random) -> Ipv6Addr {
    let odd = ["ff02::1", "ff02::1:ff00:1", "::1", "::", "fe80::1", "febf::2", "fd00::100", "2001:db8::9"];
    match random.below(4) {
        0 => random.pick(&odd).parse().expect("an address"),
        _ => *random.pick(&POOL6),
    }
}

/// A well-formed packet: from A two times in three, else from the network or the host.
fn whole_frame(random: &mut Random) -> Vec<u8> {
    let from_pod = random.below(3) > 0;
    let macs = if from_pod { (A.mac, A.node_mac) } else { (NEIGHBOUR_MAC, DEVICE_MAC) };
    let upper = *random.pick(&UPPERS);
    let hops = *random.pick(&[0, 1, 2, 64, 64, 255]);
    let (usual4, usual6) = if from_pod { (A.v4(), A.v6()) } else { (OUTSIDE4, OUTSIDE6) };
    let usual = random.below(8) > 0;
    let source4 = if usual { usual4 } else { address4(random) };
    let source6 = if usual { usual6 } else { address6(random) };
    match random.below(10) {
        0..=2 => ipv4(macs, (source4, address4(random)), hops, upper),
        3 | 4 => ipv6(macs, (source6, address6(random)), hops, upper),
        5 => {
            let arp = Arp {
                operation: 1,
                sender: (A.mac, source4),
                target: ([0; 6], *random.pick(&[GATEWAY4, GATEWAY4, B.v4()])),
            };
            arp.frame(macs.0, [0xff; 6])
        }
        6 => {
            let target = *random.pick(&[GATEWAY6, GATEWAY6, GATEWAY6, B.v6(), A.v6()]);
            let kind = *random.pick(&[135, 135, 135, 133, 136]);
            let options = link_layer_option(1, A.mac);
            let options = &options[..*random.pick(&[0, 8])];
            let destination = *random.pick(&[solicited_node(target), target]);
            icmpv6(macs, (source6, destination), *random.pick(&[255, 255, 255, 64]), &ndp(kind, 0, target, options))
        }
        7 => tagged(&ipv4(macs, (source4, address4(random)), hops, upper), *random.pick(&[0x8100, 0x88a8]), 7),
        _ => {
            let addresses = (source6, address6(random));
            let last = *random.pick(&[17, 6, 58, 58, 59, 200]);
            let kind = *random.pick(&[128, 129, 135, 143]);
            let (first, payload) = extension_headers(random, last, &[kind, 0, 0, 0, 0, 0, 0, 0]);
            ipv6_raw(macs, addresses, hops, first, &payload)
        }
    }
}

/// Up to ten extension headers before what comes `last`: the first one's number, and all bytes.
pub(super) fn extension_headers(random: &mut Random, last: u8, rest: &[u8]) -> (u8, Vec<u8>) {
    let length = *random.pick(&[1, 1, 1, 1, 1, 2, 2, 3, 7, 8, 9, 10]);
    let kinds: Vec<u8> = (0..length)
        .map(|index| {
            if index == 0 {
                *random.pick(&[0, 60, 60, 43, 44])
            } else {
                *random.pick(&[60, 60, 60, 60, 43, 44, 51, 135, 0])
            }
        })
        .collect();
    let mut payload = Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        payload.push(kinds.get(index + 1).copied().unwrap_or(last));
        match kind {
            44 => payload.extend_from_slice(&[0, 0, *random.pick(&[0, 0, 0, 1, 8]), 0, 0, 0, 1]),
            51 => payload.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            43 => payload.extend_from_slice(&[0, *random.pick(&[2, 4, 4, 0]), 0, 0, 0, 0, 0]),
            _ => payload.extend_from_slice(&[0, 1, 4, 0, 0, 0, 0]),
        }
    }
    payload.extend_from_slice(rest);
    (kinds[0], payload)
}

fn random_frame(random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0..=2 => whole_frame(random),
        // Nothing but noise.
        3 => {
            let length = ETH + random.below(200);
            random.bytes(length)
        }
        // Noise that begins like something of A's.
        4 => {
            let length = random.below(120);
            let mut body = random.bytes(length);
            let types = [(TYPE_IPV4, 0x45), (TYPE_IPV4, 0x4f), (TYPE_IPV6, 0x60), (TYPE_ARP, 0), (0x8100, 0)];
            let &(ethertype, first) = random.pick(&types);
            if let Some(byte) = body.first_mut() {
                *byte = first;
            }
            frame(A.mac, A.node_mac, ethertype, &body)
        }
        // Some bits turned over, most of them in the headers.
        5 | 6 => {
            let mut frame = whole_frame(random);
            for _ in 0..=random.below(4) {
                let end = if random.below(4) == 0 { frame.len() } else { frame.len().min(80) };
                let at = random.below(end);
                frame[at] ^= 1 << random.below(8);
            }
            frame
        }
        // Cut or lengthened, a byte replaced by a telling one.
        _ => {
            let mut frame = whole_frame(random);
            if random.below(2) == 0 {
                frame.truncate(ETH + random.below(frame.len() - ETH));
            } else {
                let more = random.below(100);
                frame.extend(random.bytes(more));
            }
            let at = random.below(frame.len());
            let telling =
                [0, 1, 4, 5, 6, 0x0f, 0x40, 0x45, 0x4f, 0x60, 0x7f, 0x80, 0xfe, 0xff, 43, 44, 51, 58, 60, 135];
            frame[at] = *random.pick(&telling);
            frame
        }
    }
}
