//! Packets that are cut, lie about themselves, or are of no kind that a pod may send: each has its verdict.

#[path = "common/bpf.rs"]
mod bpf;
#[path = "common/datapath.rs"]
mod datapath;
#[path = "common/packets.rs"]
mod packets;

use datapath::*;
use packets::*;
use podwire::ErrorKind;
use podwire::abi::ForwardPoint::*;
use podwire::program::{SkBuff, test_run};

/// A valid packet of each kind, as A sends it.
fn valid() -> Vec<(&'static str, Vec<u8>)> {
    let arp = Arp { operation: 1, sender: (A.mac, A.v4()), target: ([0; 6], GATEWAY4) };
    let solicitation = ndp(135, 0, GATEWAY6, &link_layer_option(1, A.mac));
    vec![
        ("IPv4 UDP", A.sends4(B.v4(), Upper::Udp)),
        ("IPv4 TCP", A.sends4(B.v4(), Upper::Tcp)),
        ("IPv4 ICMP", A.sends4(B.v4(), Upper::Icmp)),
        ("IPv6 UDP", A.sends6(B.v6(), Upper::Udp)),
        ("IPv6 TCP", A.sends6(B.v6(), Upper::Tcp)),
        ("IPv6 ICMPv6", A.sends6(B.v6(), Upper::Icmp)),
        ("ARP", arp.frame(A.mac, [0xff; 6])),
        ("NS", icmpv6(A.to_gateway(), (A.v6(), solicited_node(GATEWAY6)), 255, &solicitation)),
    ]
}

#[test]
fn without_an_ethernet_header_there_is_no_test_run() {
    let node = Datapath::load();
    for program in PROGRAMS {
        let handle = node.set().program(program).expect("it is loaded");
        for length in 0..ETH {
            let error = test_run(handle, &vec![0; length], &SkBuff::default(), 1).expect_err("too short");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        assert!(test_run(handle, &[0; ETH], &SkBuff::default(), 1).is_ok(), "{program} takes a bare header");
    }
}

#[test]
fn every_cut_of_every_packet_a_pod_sends() {
    let node = Datapath::load();
    for (kind, frame) in valid() {
        assert_eq!(node.run(FROM_CONTAINER, &frame).verdict, REDIRECT, "{kind} is valid as a whole");
        for length in ETH..frame.len() {
            let run = node.run_prepared(FROM_CONTAINER, &frame, Prepare::Length(length));
            assert_eq!(run.verdict, SHOT, "{kind} cut to {length}");
            run.dropped(134);
        }
    }
}

#[test]
fn every_cut_of_what_reaches_a_pod() {
    let node = Datapath::load();
    for upper in UPPERS {
        let v4 = ipv4((A.node_mac, A.mac), (B.v4(), A.v4()), 64, upper);
        let v6 = ipv6((A.node_mac, A.mac), (B.v6(), A.v6()), 64, upper);
        for frame in [v4, v6] {
            for length in ETH..frame.len() {
                node.run_prepared(TO_CONTAINER, &frame, Prepare::Length(length)).dropped(134);
            }
        }
    }
}

#[test]
fn every_cut_of_what_the_host_sends() {
    let node = Datapath::load();
    for upper in UPPERS {
        let v4 = ipv4((HOST_MAC, HOST_MAC), (GATEWAY4, B.v4()), 64, upper);
        let v6 = ipv6((HOST_MAC, HOST_MAC), (GATEWAY6, B.v6()), 64, upper);
        for frame in [v4, v6] {
            for length in ETH..frame.len() {
                node.run_prepared(FROM_HOST, &frame, Prepare::Length(length)).dropped(134);
            }
        }
    }
}

#[test]
fn every_cut_of_what_the_network_sends_is_the_stacks() {
    let node = Datapath::load();
    for upper in UPPERS {
        let v4 = ipv4((NEIGHBOUR_MAC, DEVICE_MAC), (OUTSIDE4, B.v4()), 64, upper);
        let v6 = ipv6((NEIGHBOUR_MAC, DEVICE_MAC), (OUTSIDE6, B.v6()), 64, upper);
        for frame in [v4, v6] {
            for length in ETH..frame.len() {
                let run = node.run_prepared(FROM_NETDEV, &frame, Prepare::Length(length));
                run.forwarded(PASS, &frame[..length], Some(FromNetwork));
            }
        }
    }
}

#[test]
fn padding_behind_a_packet_is_no_matter() {
    let node = Datapath::load();
    for (kind, frame) in valid() {
        for more in [1, 2, 18, 1000] {
            let mut padded = frame.clone();
            padded.resize(frame.len() + more, 0);
            assert_eq!(node.run(FROM_CONTAINER, &padded).verdict, REDIRECT, "{kind} and {more} bytes");
        }
    }
}

#[test]
fn ipv4_headers_that_lie() {
    let node = Datapath::load();
    let frame = A.sends4(B.v4(), Upper::Udp);
    let total = (frame.len() - ETH) as u16;
    for words in 0..5 {
        node.run(FROM_CONTAINER, &with(&frame, ETH, &[0x40 | words])).dropped(134);
    }
    for version in (0..16).filter(|version| *version != 4) {
        node.run(FROM_CONTAINER, &with(&frame, ETH, &[version << 4 | 5])).dropped(134);
    }
    for length in [0, 1, 19, total + 1, 0x7fff, 0xffff] {
        node.run(FROM_CONTAINER, &ipv4_with(&frame, 2, &length.to_be_bytes())).dropped(134);
    }
    // A header that is longer than the packet says, and one longer than the frame.
    let long_header = with(&ipv4_with(&frame, 2, &36u16.to_be_bytes()), ETH, &[0x4a]);
    node.run(FROM_CONTAINER, &long_header).dropped(134);
    node.run(FROM_CONTAINER, &with(&frame, ETH, &[0x4f])).dropped(134);
    // A packet that ends before its ports, or in the middle of them.
    for length in [20, 27] {
        node.run(FROM_CONTAINER, &ipv4_with(&frame, 2, &u16::to_be_bytes(length))).dropped(134);
    }
    // Less than the frame holds is padding.
    for length in [28, total - 1] {
        let frame = ipv4_with(&frame, 2, &length.to_be_bytes());
        assert_eq!(node.run(FROM_CONTAINER, &frame).verdict, REDIRECT, "total length {length}");
    }
}

#[test]
fn ipv6_headers_that_lie() {
    let node = Datapath::load();
    let frame = A.sends6(B.v6(), Upper::Udp);
    let payload = (frame.len() - ETH - IPV6) as u16;
    for version in (0..16).filter(|version| *version != 6) {
        node.run(FROM_CONTAINER, &with(&frame, ETH, &[version << 4])).dropped(134);
    }
    for length in [payload + 1, 0x7fff, 0xffff] {
        node.run(FROM_CONTAINER, &with(&frame, ETH + 4, &length.to_be_bytes())).dropped(134);
    }
    for length in [0, 1, 7] {
        node.run(FROM_CONTAINER, &with(&frame, ETH + 4, &u16::to_be_bytes(length))).dropped(134);
    }
    for length in [8, payload - 1] {
        let frame = with(&frame, ETH + 4, &length.to_be_bytes());
        assert_eq!(node.run(FROM_CONTAINER, &frame).verdict, REDIRECT, "payload length {length}");
    }
}

#[test]
fn a_family_under_the_others_type() {
    let node = Datapath::load();
    let v4_as_v6 = with(&A.sends4(B.v4(), Upper::Tcp), 12, &TYPE_IPV6.to_be_bytes());
    let v6_as_v4 = with(&A.sends6(B.v6(), Upper::Tcp), 12, &TYPE_IPV4.to_be_bytes());
    for frame in [v4_as_v6, v6_as_v4] {
        node.run(FROM_CONTAINER, &frame).dropped(134);
        node.run(TO_CONTAINER, &frame).dropped(134);
        node.run(FROM_HOST, &frame).dropped(134);
    }
}

#[test]
fn vlan_tags_in_the_frame_and_beside_it() {
    let node = Datapath::load();
    let (v4, v6) = (A.sends4(B.v4(), Upper::Udp), A.sends6(B.v6(), Upper::Udp));
    for frame in [&v4, &v6] {
        for tci in [0, 1, 0x0fff, 0xe005] {
            let single = tagged(frame, 0x8100, tci);
            let service = tagged(frame, 0x88a8, tci);
            let double = tagged(&single, 0x88a8, 100);
            for frame in [single, service, double] {
                node.run(FROM_CONTAINER, &frame).dropped(182);
            }
        }
        node.run_prepared(FROM_CONTAINER, frame, Prepare::TagBeside(5)).dropped(182);
        node.run_prepared(TO_CONTAINER, frame, Prepare::TagBeside(5)).dropped(182);
        let inward = tagged(&readdressed(frame, A.mac, A.node_mac), 0x8100, 5);
        node.run(TO_CONTAINER, &inward).dropped(182);
        node.run(FROM_NETDEV, &inward).forwarded(PASS, &inward, Some(FromNetwork));
        let beside = node.run_prepared(FROM_NETDEV, &with(frame, 0, &DEVICE_MAC), Prepare::TagBeside(5));
        beside.forwarded(PASS, &with(frame, 0, &DEVICE_MAC), Some(FromNetwork));
    }
}

#[test]
fn other_types_of_frame() {
    let node = Datapath::load();
    // IEEE 802.3 lengths, PROFINET, RARP, IPX, MPLS, PPPoE, EAPOL, LLDP, MACsec, ERSPAN, loopback, none at all.
    let types = [
        0x0004, 0x05dc, 0x8892, 0x8035, 0x8137, 0x8847, 0x8863, 0x888e, 0x88cc, 0x88e5, 0x88be, 0x9000, 0x0000, 0xffff,
    ];
    for ethertype in types {
        let frame = frame(A.mac, [0x01, 0x80, 0xc2, 0, 0, 0x0e], ethertype, &[0x55; 60]);
        node.run(FROM_CONTAINER, &frame).dropped(139);
        node.run(TO_CONTAINER, &frame).dropped(139);
        node.run(FROM_HOST, &frame).forwarded(PASS, &frame, None);
        node.run(FROM_NETDEV, &frame).forwarded(PASS, &frame, Some(FromNetwork));
    }
}

#[test]
fn frames_longer_than_a_page() {
    let node = Datapath::load();
    for length in [3000usize, 9000, 15_000] {
        let v4 = ipv4_with(&A.sends4(B.v4(), Upper::Udp), 2, &((length - ETH) as u16).to_be_bytes());
        let run = node.run_prepared(FROM_CONTAINER, &v4, Prepare::Length(length));
        let mut expected = readdressed(&ipv4_with(&v4, 8, &[63]), B.mac, B.node_mac);
        expected.resize(length, 0);
        run.forwarded(REDIRECT, &expected, Some(PodToPod));

        let v6 = with(&A.sends6(B.v6(), Upper::Udp), ETH + 4, &((length - ETH - IPV6) as u16).to_be_bytes());
        let run = node.run_prepared(FROM_CONTAINER, &v6, Prepare::Length(length));
        let mut expected = readdressed(&with(&v6, ETH + 7, &[63]), B.mac, B.node_mac);
        expected.resize(length, 0);
        run.forwarded(REDIRECT, &expected, Some(PodToPod));

        let short = ipv4_with(&v4, 2, &((length - ETH + 1) as u16).to_be_bytes());
        node.run_prepared(FROM_CONTAINER, &short, Prepare::Length(length)).dropped(134);
    }
}

#[test]
fn segments_yet_to_be_cut_are_one_packet() {
    let node = Datapath::load();
    let context = SkBuff { gso_size: 10, gso_segs: 4, wire_len: 200, ..SkBuff::default() };
    let v4 = A.sends4(B.v4(), Upper::Tcp);
    let expected = readdressed(&ipv4_with(&v4, 8, &[63]), B.mac, B.node_mac);
    node.run_in(FROM_CONTAINER, &v4, &context).forwarded(REDIRECT, &expected, Some(PodToPod));
    let v6 = A.sends6(B.v6(), Upper::Tcp);
    let expected = readdressed(&with(&v6, ETH + 7, &[63]), B.mac, B.node_mac);
    node.run_in(FROM_CONTAINER, &v6, &context).forwarded(REDIRECT, &expected, Some(PodToPod));
}
