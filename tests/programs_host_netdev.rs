//! The programs of cilium_host, cilium_net and the native device.

#[path = "common/bpf.rs"]
mod bpf;
#[path = "common/datapath.rs"]
mod datapath;
#[path = "common/packets.rs"]
mod packets;

use std::net::{Ipv4Addr, Ipv6Addr};

use datapath::*;
use packets::*;
use podwire::abi::ForwardPoint::*;

/// As routed by the stack out of cilium_host.
const FROM_STACK: (Mac, Mac) = (HOST_MAC, HOST_MAC);
/// As received from a neighbour.
const RECEIVED: (Mac, Mac) = (NEIGHBOUR_MAC, DEVICE_MAC);

fn to_pod(frame: &[u8], pod: &Pod) -> Vec<u8> {
    readdressed(frame, pod.mac, pod.node_mac)
}

#[test]
fn host_to_pod() {
    let node = Datapath::load();
    for upper in UPPERS {
        // What the host itself sends, and what it forwards, which it has counted down: 1 is enough.
        for (source, ttl) in [(GATEWAY4, 64), (OUTSIDE4, 1), (OUTSIDE4, 255)] {
            let frame = ipv4(FROM_STACK, (source, B.v4()), ttl, upper);
            node.run(FROM_HOST, &frame).forwarded(REDIRECT, &to_pod(&frame, &B), Some(HostToPod));
        }
        for (source, hops) in [(GATEWAY6, 64), (OUTSIDE6, 1), (OUTSIDE6, 255)] {
            let frame = ipv6(FROM_STACK, (source, B.v6()), hops, upper);
            node.run(FROM_HOST, &frame).forwarded(REDIRECT, &to_pod(&frame, &B), Some(HostToPod));
        }
    }
}

#[test]
fn host_to_nobody_in_the_pods_range() {
    let node = Datapath::load();
    // The host's own address is in the range too, but the stack keeps what is for it.
    for (v4, v6) in [(NOBODY4, NOBODY6), (GATEWAY4, GATEWAY6)] {
        node.run(FROM_HOST, &ipv4(FROM_STACK, (GATEWAY4, v4), 64, Upper::Udp)).dropped(151);
        node.run(FROM_HOST, &ipv6(FROM_STACK, (GATEWAY6, v6), 64, Upper::Udp)).dropped(151);
    }
}

#[test]
fn host_to_elsewhere_goes_on() {
    let node = Datapath::load();
    for to in [OUTSIDE4, Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::new(10, 0, 1, 0)] {
        let frame = ipv4(FROM_STACK, (GATEWAY4, to), 64, Upper::Udp);
        node.run(FROM_HOST, &frame).forwarded(PASS, &frame, None);
    }
    for to in [OUTSIDE6, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16)] {
        let frame = ipv6(FROM_STACK, (GATEWAY6, to), 64, Upper::Icmp);
        node.run(FROM_HOST, &frame).forwarded(PASS, &frame, None);
    }
}

#[test]
fn what_enters_the_host_or_leaves_the_node_is_counted() {
    let node = Datapath::load();
    let frames = [
        A.sends4(GATEWAY4, Upper::Tcp),
        A.sends6(GATEWAY6, Upper::Tcp),
        Arp { operation: 1, sender: (A.mac, A.v4()), target: ([0; 6], GATEWAY4) }.frame(A.mac, [0xff; 6]),
        frame(A.mac, B.mac, 0x88cc, &[0xaa; 46]),
        frame(A.mac, B.mac, 0xffff, &[]),
    ];
    for frame in frames {
        node.run(TO_HOST, &frame).forwarded(PASS, &frame, Some(ToHost));
        node.run(TO_NETDEV, &frame).forwarded(PASS, &frame, Some(ToNetwork));
    }
}

#[test]
fn network_to_pod() {
    let node = Datapath::load();
    for upper in UPPERS {
        for ttl in [2, 64, 255] {
            let frame = ipv4(RECEIVED, (OUTSIDE4, B.v4()), ttl, upper);
            let expected = to_pod(&ipv4_with(&frame, 8, &[ttl - 1]), &B);
            node.run(FROM_NETDEV, &frame).forwarded(REDIRECT, &expected, Some(NetworkToPod));

            let frame = ipv6(RECEIVED, (OUTSIDE6, B.v6()), ttl, upper);
            let expected = to_pod(&with(&frame, ETH + 7, &[ttl - 1]), &B);
            node.run(FROM_NETDEV, &frame).forwarded(REDIRECT, &expected, Some(NetworkToPod));
        }
    }
}

#[test]
fn the_stack_answers_what_comes_to_its_end_on_the_way_to_a_pod() {
    let node = Datapath::load();
    for ttl in [0, 1] {
        let v4 = ipv4(RECEIVED, (OUTSIDE4, B.v4()), ttl, Upper::Udp);
        let v6 = ipv6(RECEIVED, (OUTSIDE6, B.v6()), ttl, Upper::Udp);
        for frame in [v4, v6] {
            node.run(FROM_NETDEV, &frame).forwarded(PASS, &frame, Some(FromNetwork));
        }
    }
}

#[test]
fn network_to_host_or_nobody_is_the_stacks() {
    let node = Datapath::load();
    for to in [GATEWAY4, OUTSIDE4, NOBODY4, Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 251)] {
        let frame = ipv4(RECEIVED, (OUTSIDE4, to), 64, Upper::Udp);
        node.run(FROM_NETDEV, &frame).forwarded(PASS, &frame, Some(FromNetwork));
    }
    for to in [GATEWAY6, OUTSIDE6, NOBODY6, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)] {
        let frame = ipv6(RECEIVED, (OUTSIDE6, to), 64, Upper::Udp);
        node.run(FROM_NETDEV, &frame).forwarded(PASS, &frame, Some(FromNetwork));
    }
}

#[test]
fn the_network_may_not_speak_for_a_pod() {
    let node = Datapath::load();
    for source in [A.v4(), B.v4(), NOBODY4, GATEWAY4] {
        for to in [B.v4(), GATEWAY4, OUTSIDE4] {
            node.run(FROM_NETDEV, &ipv4(RECEIVED, (source, to), 64, Upper::Udp)).dropped(132);
        }
    }
    for source in [A.v6(), B.v6(), NOBODY6, GATEWAY6] {
        for to in [B.v6(), GATEWAY6, OUTSIDE6] {
            node.run(FROM_NETDEV, &ipv6(RECEIVED, (source, to), 64, Upper::Udp)).dropped(132);
        }
    }
}

#[test]
fn a_node_without_ranges_takes_any_source() {
    let mut setup = Setup::new();
    setup.constants.set("cfg_pods_ipv4", [0u8; 4]).set("cfg_pods_ipv4_mask", [0u8; 4]);
    setup.constants.set("cfg_pods_ipv6", [0u8; 16]).set("cfg_pods_ipv6_mask", [0u8; 16]);
    let node = setup.load();
    let frame = ipv4(RECEIVED, (NOBODY4, NOBODY4), 64, Upper::Udp);
    node.run(FROM_NETDEV, &frame).forwarded(PASS, &frame, Some(FromNetwork));
    node.run(FROM_HOST, &frame).forwarded(PASS, &frame, None);
    let frame = ipv6(RECEIVED, (NOBODY6, NOBODY6), 64, Upper::Udp);
    node.run(FROM_NETDEV, &frame).forwarded(PASS, &frame, Some(FromNetwork));
    node.run(FROM_HOST, &frame).forwarded(PASS, &frame, None);
}

#[test]
fn frames_for_other_machines_are_not_forwarded() {
    let node = Datapath::load();
    // A device in promiscuous mode sees them; broadcast and multicast frames are everybody's, but no pod's.
    for mac in [NEIGHBOUR_MAC, [0xff; 6], [0x33, 0x33, 0, 0, 0, 1], [1, 0, 0x5e, 0, 0, 1]] {
        for frame in [
            ipv4((NEIGHBOUR_MAC, mac), (OUTSIDE4, B.v4()), 64, Upper::Udp),
            ipv6((NEIGHBOUR_MAC, mac), (OUTSIDE6, B.v6()), 64, Upper::Udp),
            ipv4((NEIGHBOUR_MAC, mac), (A.v4(), B.v4()), 64, Upper::Udp),
        ] {
            node.run(FROM_NETDEV, &frame).forwarded(PASS, &frame, Some(FromNetwork));
        }
    }
}

#[test]
fn malformed_packets_of_the_network_are_the_stacks() {
    let node = Datapath::load();
    let v4 = ipv4(RECEIVED, (OUTSIDE4, B.v4()), 64, Upper::Udp);
    let v6 = ipv6(RECEIVED, (OUTSIDE6, B.v6()), 64, Upper::Udp);
    for frame in [
        with(&v4, ETH, &[0x55]),
        with(&v4, ETH, &[0x44]),
        ipv4_with(&v4, 2, &[0xff, 0xff]),
        ipv4_with(&v4, 2, &[0, 19]),
        with(&v6, ETH, &[0x40]),
        with(&v6, ETH + 4, &[0xff, 0xff]),
    ] {
        node.run(FROM_NETDEV, &frame).forwarded(PASS, &frame, Some(FromNetwork));
    }
    // Extension headers are looked through for what goes past the stack.
    let routing_0 = ipv6_raw(RECEIVED, (OUTSIDE6, B.v6()), 64, 43, &[17, 0, 0, 0, 0, 0, 0, 0]);
    node.run(FROM_NETDEV, &routing_0).dropped(156);
    let cut = ipv6_raw(RECEIVED, (OUTSIDE6, B.v6()), 64, 60, &[17, 3, 0, 0, 0, 0, 0, 0]);
    node.run(FROM_NETDEV, &cut).dropped(156);
    let options_and_udp = [17, 0, 1, 4, 0, 0, 0, 0, 0x13, 0x88, 0, 53, 0, 8, 0, 0];
    let whole = ipv6_raw(RECEIVED, (OUTSIDE6, B.v6()), 64, 60, &options_and_udp);
    let expected = to_pod(&with(&whole, ETH + 7, &[63]), &B);
    node.run(FROM_NETDEV, &whole).forwarded(REDIRECT, &expected, Some(NetworkToPod));
    let to_the_host = ipv6_raw(RECEIVED, (OUTSIDE6, GATEWAY6), 64, 43, &[17, 0, 0, 0, 0, 0, 0, 0]);
    node.run(FROM_NETDEV, &to_the_host).forwarded(PASS, &to_the_host, Some(FromNetwork));
}
