//! IPv6 through the programs of the pods' devices.

#[path = "common/bpf.rs"]
mod bpf;
#[path = "common/datapath.rs"]
mod datapath;
#[path = "common/packets.rs"]
mod packets;

use std::net::Ipv6Addr;

use datapath::*;
use packets::*;
use podwire::abi::ForwardPoint::*;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTH: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;

/// The frame as the pod it is for receives it.
fn delivered(frame: &[u8], pod: &Pod) -> Vec<u8> {
    readdressed(&with(frame, ETH + 7, &[frame[ETH + 7] - 1]), pod.mac, pod.node_mac)
}

fn handed_to_host(frame: &[u8]) -> Vec<u8> {
    with(frame, 0, &HOST_MAC)
}

/// Extension headers: the number of each, and the header without its first byte.
type Chain = Vec<(u8, Vec<u8>)>;

/// A packet from A to B with a chain of extension headers.
fn chained(headers: &[(u8, Vec<u8>)], last: u8, upper: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (index, (_, body)) in headers.iter().enumerate() {
        payload.push(headers.get(index + 1).map_or(last, |(kind, _)| *kind));
        payload.extend_from_slice(body);
    }
    payload.extend_from_slice(upper);
    ipv6_raw(A.to_gateway(), (A.v6(), B.v6()), 64, headers.first().map_or(last, |(kind, _)| *kind), &payload)
}

/// The rest of an options header of 8 × (`more` + 1) bytes, filled by one PadN option.
fn options(more: u8) -> Vec<u8> {
    let length = (usize::from(more) + 1) * 8;
    let mut body = vec![more, 1, (length.min(257) - 4) as u8];
    body.resize(length - 1, 0);
    body
}

fn routing(kind: u8, more: u8) -> Vec<u8> {
    let mut body = vec![more, kind, 0];
    body.resize((usize::from(more) + 1) * 8 - 1, 0);
    body
}

/// A fragment header: offset in units of 8 bytes, whether more follow.
fn fragment(offset: u16, more: bool) -> Vec<u8> {
    let field = (offset << 3 | u16::from(more)).to_be_bytes();
    vec![0, field[0], field[1], 0, 0, 0, 7]
}

/// An authentication header of 4 × (`length` + 2) bytes.
fn auth(length: u8) -> Vec<u8> {
    let mut body = vec![length];
    body.resize((usize::from(length) + 2) * 4 - 1, 0x11);
    body
}

const UDP_BYTES: [u8; 8] = [0x13, 0x88, 0, 53, 0, 8, 0, 0];

#[test]
fn pod_to_pod() {
    let node = Datapath::load();
    for upper in UPPERS {
        let frame = A.sends6(B.v6(), upper);
        node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &delivered(&frame, &B), Some(PodToPod));
    }
    // Traffic class and flow label are the sender's.
    let frame = with(&A.sends6(B.v6(), Upper::Udp), ETH, &[0x6b, 0xcd, 0xef, 0x01]);
    node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &delivered(&frame, &B), Some(PodToPod));
}

#[test]
fn every_hop_limit() {
    let node = Datapath::load();
    for hops in 2..=255 {
        let frame = with(&A.sends6(B.v6(), Upper::Udp), ETH + 7, &[hops]);
        node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &delivered(&frame, &B), Some(PodToPod));
    }
    for hops in [0, 1] {
        let frame = with(&A.sends6(B.v6(), Upper::Udp), ETH + 7, &[hops]);
        let run = node.run(FROM_CONTAINER, &frame);
        run.reported(196, (A.id, A.identity));
        assert_eq!(run.verdict, REDIRECT, "the stack owes the sender an ICMPv6 error");
        assert_eq!(hex(&run.packet), hex(&handed_to_host(&frame)));
        assert_eq!(run.forwards, []);

        let frame = with(&A.sends6(OUTSIDE6, Upper::Udp), ETH + 7, &[hops]);
        node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &handed_to_host(&frame), Some(PodToStack));
    }
}

#[test]
fn pod_to_host_and_outside() {
    let node = Datapath::load();
    let near_the_range = ["fd00::100", "fcff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fd00:0:0:1::b"];
    let near_the_range = near_the_range.map(|text| text.parse().expect("an address"));
    for to in [GATEWAY6, OUTSIDE6].into_iter().chain(near_the_range) {
        let frame = A.sends6(to, Upper::Tcp);
        node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &handed_to_host(&frame), Some(PodToStack));
    }
}

#[test]
fn destinations_that_no_pod_may_send_to() {
    let node = Datapath::load();
    for to in [NOBODY6, Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xff)] {
        node.run(FROM_CONTAINER, &A.sends6(to, Upper::Udp)).dropped(151);
    }
    for to in ["ff02::1", "ff02::fb", "ff0e::1", "fe80::1", "febf::1", "::1", "::"] {
        let to: Ipv6Addr = to.parse().expect("an address");
        node.run(FROM_CONTAINER, &A.sends6(to, Upper::Udp)).dropped(150);
    }
    // Site-local of old and what else begins with ::, IPv4-mapped included, are the stack's to judge.
    for to in ["fec0::1", "::2", "::ffff:10.0.0.11", "0:0:0:1::"] {
        let frame = A.sends6(to.parse().expect("an address"), Upper::Udp);
        node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &handed_to_host(&frame), Some(PodToStack));
    }
}

#[test]
fn the_sources_are_checked() {
    let node = Datapath::load();
    let good = A.sends6(B.v6(), Upper::Udp);
    for octet in 0..6 {
        node.run(FROM_CONTAINER, &with(&good, 6 + octet, &[good[6 + octet] ^ 0x80])).dropped(130);
    }
    for octet in 0..16 {
        node.run(FROM_CONTAINER, &with(&good, ETH + 8 + octet, &[good[ETH + 8 + octet] ^ 1])).dropped(132);
    }
    for source in [B.v6(), GATEWAY6, OUTSIDE6, Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST] {
        node.run(FROM_CONTAINER, &with(&good, ETH + 8, &source.octets())).dropped(132);
    }
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 10);
    node.run(FROM_CONTAINER, &with(&good, ETH + 8, &link_local.octets())).dropped(132);
}

#[test]
fn an_endpoint_without_ipv6_sends_and_receives_none() {
    let node = Datapath::load();
    node.add(&Pod { ipv6: None, ..A });
    for source in [A.v6(), Ipv6Addr::UNSPECIFIED] {
        let frame = ipv6(A.to_gateway(), (source, B.v6()), 64, Upper::Udp);
        node.run(FROM_CONTAINER, &frame).dropped(132);
    }
    for destination in [A.v6(), Ipv6Addr::UNSPECIFIED] {
        let frame = ipv6((A.node_mac, A.mac), (OUTSIDE6, destination), 64, Upper::Udp);
        node.run(TO_CONTAINER, &frame).dropped(151);
    }
}

#[test]
fn a_node_without_ipv6_has_no_range() {
    let mut setup = Setup::new();
    setup.constants.set("cfg_pods_ipv6", [0u8; 16]).set("cfg_pods_ipv6_mask", [0u8; 16]);
    let node = setup.load();
    let frame = A.sends6(NOBODY6, Upper::Udp);
    node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &handed_to_host(&frame), Some(PodToStack));
}

#[test]
fn extension_headers_that_are_carried() {
    let node = Datapath::load();
    let chains: Vec<Chain> = vec![
        vec![],
        vec![(HOP_BY_HOP, options(0))],
        vec![(DESTINATION, options(0))],
        vec![(DESTINATION, options(31))],
        vec![(MOBILITY, options(1))],
        vec![(AUTH, auth(1))],
        vec![(AUTH, auth(4))],
        vec![(ROUTING, routing(2, 2))],
        vec![(ROUTING, routing(4, 2))],
        vec![(FRAGMENT, fragment(0, true))],
        vec![(FRAGMENT, fragment(0, false))],
        vec![(FRAGMENT, fragment(1, true))],
        vec![(FRAGMENT, fragment(0x1fff, false))],
        // In the order that RFC 8200 recommends.
        vec![
            (HOP_BY_HOP, options(1)),
            (DESTINATION, options(0)),
            (ROUTING, routing(3, 1)),
            (FRAGMENT, fragment(0, true)),
            (AUTH, auth(4)),
            (DESTINATION, options(0)),
        ],
        // The longest chain that is looked through.
        vec![(DESTINATION, options(0)); 8],
    ];
    for chain in chains {
        for last in [UDP, 50, 59, 253] {
            let frame = chained(&chain, last, &UDP_BYTES);
            node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &delivered(&frame, &B), Some(PodToPod));
        }
    }
}

#[test]
fn extension_headers_that_are_not() {
    let node = Datapath::load();
    let nine = vec![(DESTINATION, options(0)); 9];
    let chains: Vec<(&str, Chain)> = vec![
        ("nine headers", nine),
        ("nine headers, the last of a later fragment", {
            let mut chain = vec![(DESTINATION, options(0)); 8];
            chain.push((FRAGMENT, fragment(1, false)));
            chain
        }),
        ("thirty headers", vec![(DESTINATION, options(0)); 30]),
        ("hop-by-hop options that are not first", vec![(DESTINATION, options(0)), (HOP_BY_HOP, options(0))]),
        ("hop-by-hop options twice", vec![(HOP_BY_HOP, options(0)), (HOP_BY_HOP, options(0))]),
        ("a routing header of type 0", vec![(ROUTING, routing(0, 2))]),
        ("one without addresses", vec![(ROUTING, routing(0, 0))]),
        ("one behind options", vec![(HOP_BY_HOP, options(0)), (ROUTING, routing(0, 2))]),
        ("one in a first fragment", vec![(FRAGMENT, fragment(0, true)), (ROUTING, routing(0, 2))]),
    ];
    for (what, chain) in chains {
        let run = node.run(FROM_CONTAINER, &chained(&chain, UDP, &UDP_BYTES));
        assert_eq!(run.verdict, SHOT, "{what}");
        run.dropped(156);
    }
}

#[test]
fn extension_headers_that_are_cut() {
    let node = Datapath::load();
    for kind in [HOP_BY_HOP, ROUTING, FRAGMENT, AUTH, DESTINATION, MOBILITY] {
        // Fewer than the eight bytes that each of them has.
        for length in 0..8 {
            let frame = ipv6_raw(A.to_gateway(), (A.v6(), B.v6()), 64, kind, &vec![UDP; length]);
            node.run(FROM_CONTAINER, &frame).dropped(156);
        }
        // One that says it is longer than the packet.
        if kind != FRAGMENT {
            let frame = ipv6_raw(A.to_gateway(), (A.v6(), B.v6()), 64, kind, &[UDP, 9, 2, 0, 0, 0, 0, 0, 0, 0]);
            node.run(FROM_CONTAINER, &frame).dropped(156);
        }
        // And one that ends where the packet does, announcing another.
        let frame = ipv6_raw(A.to_gateway(), (A.v6(), B.v6()), 64, kind, &[DESTINATION, 0, 2, 0, 0, 0, 0, 0]);
        let more_follows = [HOP_BY_HOP, ROUTING, DESTINATION, MOBILITY, AUTH].contains(&kind);
        if more_follows {
            node.run(FROM_CONTAINER, &frame).dropped(156);
        }
    }
}

#[test]
fn neighbour_discovery_behind_extension_headers() {
    let node = Datapath::load();
    for header in [(HOP_BY_HOP, options(0)), (DESTINATION, options(0)), (FRAGMENT, fragment(0, false)), (AUTH, auth(1))]
    {
        for kind in 133..=137 {
            let message = ndp(kind, 0, GATEWAY6, &[]);
            node.run(FROM_CONTAINER, &chained(std::slice::from_ref(&header), ICMPV6, &message)).dropped(156);
        }
        // An echo request may have them; a message that is not even there may not.
        let frame = chained(std::slice::from_ref(&header), ICMPV6, &[128, 0, 0, 0, 0, 1, 0, 1]);
        node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &delivered(&frame, &B), Some(PodToPod));
        node.run(FROM_CONTAINER, &chained(std::slice::from_ref(&header), ICMPV6, &[])).dropped(156);
    }
}

#[test]
fn what_enters_a_pod_is_for_it_or_its_link() {
    let node = Datapath::load();
    for to in [A.v6(), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 10)] {
        let frame = ipv6((A.node_mac, A.mac), (OUTSIDE6, to), 1, Upper::Icmp);
        node.run(TO_CONTAINER, &frame).forwarded(PASS, &frame, Some(StackToPod));
    }
    for other in [B.v6(), GATEWAY6, OUTSIDE6, Ipv6Addr::LOCALHOST] {
        node.run(TO_CONTAINER, &ipv6((A.node_mac, A.mac), (OUTSIDE6, other), 64, Upper::Udp)).dropped(151);
    }
    node.set_row(1, &Default::default());
    let frame = ipv6((A.node_mac, A.mac), (OUTSIDE6, A.v6()), 64, Upper::Udp);
    node.run(TO_CONTAINER, &frame).dropped_of(151, (0, 0));
}
