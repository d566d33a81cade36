//! Who has the gateway's address: ARP and neighbour discovery are answered by cil_from_container.

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

const BROADCAST: Mac = [0xff; 6];
const NOBODY: Mac = [0; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x8800, 0xff, 0xfe00, 10);

fn request(target: Ipv4Addr) -> Vec<u8> {
    Arp { operation: 1, sender: (A.mac, A.v4()), target: (NOBODY, target) }.frame(A.mac, BROADCAST)
}

#[test]
fn arp_for_the_gateway_is_answered() {
    let node = Datapath::load();
    let reply = Arp { operation: 2, sender: (A.node_mac, GATEWAY4), target: (A.mac, A.v4()) }.frame(A.node_mac, A.mac);
    node.run(FROM_CONTAINER, &request(GATEWAY4)).forwarded(REDIRECT, &reply, None);
    // Asked again of the address that is known already (RFC 1122, 2.3.2.1).
    let unicast = Arp { operation: 1, sender: (A.mac, A.v4()), target: (A.node_mac, GATEWAY4) };
    node.run(FROM_CONTAINER, &unicast.frame(A.mac, A.node_mac)).forwarded(REDIRECT, &reply, None);
    // Ethernet pads short frames.
    let padding = [0u8; 18];
    let padded = [request(GATEWAY4), padding.to_vec()].concat();
    node.run(FROM_CONTAINER, &padded).forwarded(REDIRECT, &[reply, padding.to_vec()].concat(), None);
}

#[test]
fn arp_for_anybody_else_is_not() {
    let node = Datapath::load();
    for target in [B.v4(), A.v4(), NOBODY4, OUTSIDE4, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST] {
        node.run(FROM_CONTAINER, &request(target)).dropped(150);
    }
}

#[test]
fn arp_that_is_no_request() {
    let node = Datapath::load();
    for operation in [0, 2, 3, 4, 8, 9, 0x0100, 0xffff] {
        let arp = Arp { operation, sender: (A.mac, A.v4()), target: (NOBODY, GATEWAY4) };
        node.run(FROM_CONTAINER, &arp.frame(A.mac, BROADCAST)).dropped(150);
    }
}

#[test]
fn arp_of_a_forged_sender() {
    let node = Datapath::load();
    let forged_mac = Arp { operation: 1, sender: (B.mac, A.v4()), target: (NOBODY, GATEWAY4) };
    node.run(FROM_CONTAINER, &forged_mac.frame(A.mac, BROADCAST)).dropped(130);
    node.run(FROM_CONTAINER, &forged_mac.frame(B.mac, BROADCAST)).dropped(130);
    for sender in [B.v4(), GATEWAY4, Ipv4Addr::UNSPECIFIED] {
        let arp = Arp { operation: 1, sender: (A.mac, sender), target: (NOBODY, GATEWAY4) };
        node.run(FROM_CONTAINER, &arp.frame(A.mac, BROADCAST)).dropped(132);
    }
    node.add(&Pod { ipv4: None, ..A });
    for sender in [A.v4(), Ipv4Addr::UNSPECIFIED] {
        let arp = Arp { operation: 1, sender: (A.mac, sender), target: (NOBODY, GATEWAY4) };
        node.run(FROM_CONTAINER, &arp.frame(A.mac, BROADCAST)).dropped(132);
    }
}

#[test]
fn arp_of_other_hardware_or_protocol() {
    let node = Datapath::load();
    let frame = request(GATEWAY4);
    for (offset, bytes) in
        [(0, [0, 6]), (0, [1, 0]), (2, [0x86, 0xdd]), (2, [0x08, 0x06]), (4, [8, 4]), (4, [6, 16]), (4, [0, 0])]
    {
        node.run(FROM_CONTAINER, &with(&frame, ETH + offset, &bytes)).dropped(134);
    }
}

#[test]
fn a_node_without_ipv4_answers_no_arp() {
    let mut setup = Setup::new();
    setup.constants.set("cfg_router_ipv4", [0u8; 4]);
    let node = setup.load();
    for target in [GATEWAY4, Ipv4Addr::UNSPECIFIED] {
        node.run(FROM_CONTAINER, &request(target)).dropped(150);
    }
}

#[test]
fn arp_from_the_host_and_the_network_is_left_alone() {
    let node = Datapath::load();
    let frame = Arp { operation: 1, sender: (A.node_mac, GATEWAY4), target: (NOBODY, A.v4()) }.frame(A.node_mac, A.mac);
    node.run(TO_CONTAINER, &frame).forwarded(PASS, &frame, Some(StackToPod));
    node.run(FROM_HOST, &frame).forwarded(PASS, &frame, None);
    node.run(FROM_NETDEV, &frame).forwarded(PASS, &frame, Some(FromNetwork));
}

/// The multicast MAC address of an IPv6 group (RFC 2464, 7).
fn group_mac(group: Ipv6Addr) -> Mac {
    let o = group.octets();
    [0x33, 0x33, o[12], o[13], o[14], o[15]]
}

fn solicit(source: Ipv6Addr, destination: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let mac = if destination.is_multicast() { group_mac(destination) } else { A.node_mac };
    icmpv6((A.mac, mac), (source, destination), 255, &ndp(135, 0, target, options))
}

fn advertised(to: Ipv6Addr) -> Vec<u8> {
    let message = ndp(136, 0xe0, GATEWAY6, &link_layer_option(2, A.node_mac));
    icmpv6((A.node_mac, A.mac), (GATEWAY6, to), 255, &message)
}

#[test]
fn solicitations_for_the_gateway_are_answered() {
    let node = Datapath::load();
    let option = link_layer_option(1, A.mac);
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    for source in [A.v6(), LINK_LOCAL] {
        for destination in [solicited_node(GATEWAY6), GATEWAY6] {
            for options in [vec![], option.clone(), [&option[..], &nonce[..]].concat(), nonce.to_vec(), vec![0; 200]] {
                let frame = solicit(source, destination, GATEWAY6, &options);
                node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &advertised(source), None);
            }
        }
    }
}

#[test]
fn an_answer_takes_over_nothing_of_the_question_but_the_source() {
    let node = Datapath::load();
    let frame = solicit(A.v6(), solicited_node(GATEWAY6), GATEWAY6, &link_layer_option(1, A.mac));
    let busy = with(&with(&frame, ETH, &[0x6e, 0xf1, 0x23, 0x45]), ETH + IPV6 + 4, &[0xff, 1, 2, 3]);
    node.run(FROM_CONTAINER, &busy).forwarded(REDIRECT, &advertised(A.v6()), None);
}

#[test]
fn the_checksum_of_the_answer_is_right_for_any_address() {
    let node = Datapath::load();
    for seed in 0..64u64 {
        let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995;
        let mut next = || {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (bits >> 40) as u16 | if seed % 4 == 0 { 0xff00 } else { 0 }
        };
        let address = Ipv6Addr::new(0xfd00, next(), next(), next(), next(), next(), next(), next());
        let pod =
            Pod { ipv6: Some(address), node_mac: [0x66, 0xff, next() as u8, next() as u8, next() as u8, 0xff], ..A };
        node.add(&pod);
        let answer = ndp(136, 0xe0, GATEWAY6, &link_layer_option(2, pod.node_mac));
        let expected = icmpv6((pod.node_mac, pod.mac), (GATEWAY6, address), 255, &answer);
        let frame = solicit(address, solicited_node(GATEWAY6), GATEWAY6, &[]);
        node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &expected, None);
    }
}

#[test]
fn solicitations_for_anybody_else_are_not() {
    let node = Datapath::load();
    for target in [B.v6(), NOBODY6, OUTSIDE6, Ipv6Addr::UNSPECIFIED, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)] {
        node.run(FROM_CONTAINER, &solicit(A.v6(), solicited_node(target), target, &[])).dropped(150);
    }
    // Duplicate address detection: silence means that the address is free.
    for own in [A.v6(), LINK_LOCAL] {
        node.run(FROM_CONTAINER, &solicit(Ipv6Addr::UNSPECIFIED, solicited_node(own), own, &[])).dropped(150);
    }
}

#[test]
fn solicitations_of_a_forged_source() {
    let node = Datapath::load();
    for source in [B.v6(), GATEWAY6, OUTSIDE6, Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST] {
        node.run(FROM_CONTAINER, &solicit(source, solicited_node(GATEWAY6), GATEWAY6, &[])).dropped(132);
    }
    let frame = solicit(A.v6(), solicited_node(GATEWAY6), GATEWAY6, &[]);
    node.run(FROM_CONTAINER, &with(&frame, 6, &B.mac)).dropped(130);
    // An endpoint without an address is not the one whose address is all zeroes.
    node.add(&Pod { ipv6: None, ..A });
    for source in [A.v6(), Ipv6Addr::UNSPECIFIED] {
        node.run(FROM_CONTAINER, &solicit(source, solicited_node(GATEWAY6), GATEWAY6, &[])).dropped(132);
    }
}

#[test]
fn solicitations_that_came_from_afar_or_are_wrong() {
    let node = Datapath::load();
    let frame = solicit(A.v6(), solicited_node(GATEWAY6), GATEWAY6, &link_layer_option(1, A.mac));
    for hops in [0, 1, 64, 254] {
        node.run(FROM_CONTAINER, &with(&frame, ETH + 7, &[hops])).dropped(134);
    }
    for code in [1, 255] {
        node.run(FROM_CONTAINER, &with(&frame, ETH + IPV6 + 1, &[code])).dropped(134);
    }
    for length in 0..24u16 {
        node.run(FROM_CONTAINER, &with(&frame, ETH + 4, &length.to_be_bytes())).dropped(134);
    }
}

#[test]
fn other_messages_of_neighbour_discovery_are_forbidden() {
    let node = Datapath::load();
    for kind in [133, 134, 136, 137] {
        for destination in [ALL_NODES, ALL_ROUTERS, GATEWAY6, B.v6()] {
            for source in [A.v6(), LINK_LOCAL, B.v6(), Ipv6Addr::UNSPECIFIED] {
                let message = ndp(kind, 0x60, GATEWAY6, &link_layer_option(2, A.mac));
                node.run(FROM_CONTAINER, &icmpv6(A.to_gateway(), (source, destination), 255, &message)).dropped(176);
                // A router solicitation without an option has eight bytes.
                let short = &message[..8];
                node.run(FROM_CONTAINER, &icmpv6(A.to_gateway(), (source, destination), 255, short)).dropped(176);
            }
        }
    }
}

#[test]
fn router_solicitations_as_stacks_send_them_are_forbidden_by_name() {
    let node = Datapath::load();
    // Eight bytes without an option, sixteen with one (RFC 4861, 4.1); then whatever is shorter still.
    let bare = [133, 0, 0, 0, 0, 0, 0, 0];
    for message in [bare.to_vec(), [&bare[..], &link_layer_option(1, A.mac)].concat(), vec![133, 0, 0, 0]] {
        for source in [LINK_LOCAL, Ipv6Addr::UNSPECIFIED] {
            let macs = (A.mac, group_mac(ALL_ROUTERS));
            node.run(FROM_CONTAINER, &icmpv6(macs, (source, ALL_ROUTERS), 255, &message)).dropped(176);
        }
    }
    let macs = (A.mac, group_mac(ALL_ROUTERS));
    for kind in 133..=137 {
        let frame = ipv6_raw(macs, (LINK_LOCAL, ALL_ROUTERS), 255, ICMPV6, &[kind]);
        node.run(FROM_CONTAINER, &frame).dropped(if kind == 135 { 134 } else { 176 });
    }
}

#[test]
fn multicast_listener_reports_end_here() {
    let node = Datapath::load();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
    // Version 2 behind hop-by-hop options with a router alert (RFC 3810, 5), as every stack sends it; then without.
    let report = [143, 0, 0, 0, 0, 0, 0, 0];
    let mut payload = vec![ICMPV6, 0, 5, 2, 0, 0, 1, 0];
    payload.extend_from_slice(&report);
    for source in [A.v6(), LINK_LOCAL, Ipv6Addr::UNSPECIFIED] {
        node.run(FROM_CONTAINER, &ipv6_raw((A.mac, group_mac(group)), (source, group), 1, 0, &payload)).dropped(176);
        for kind in [130, 131, 132, 143] {
            let frame = icmpv6((A.mac, group_mac(group)), (source, group), 1, &[kind, 0, 0, 0, 0, 0, 0, 0]);
            node.run(FROM_CONTAINER, &frame).dropped(176);
        }
    }
}

#[test]
fn other_icmpv6_messages_are_ordinary_traffic() {
    let node = Datapath::load();
    for kind in (0..=255).filter(|kind| !(133..=137).contains(kind)) {
        let frame = icmpv6(A.to_gateway(), (A.v6(), B.v6()), 64, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        let expected = readdressed(&with(&frame, ETH + 7, &[63]), B.mac, B.node_mac);
        node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &expected, Some(PodToPod));
    }
}

#[test]
fn a_node_without_ipv6_answers_no_solicitation() {
    let mut setup = Setup::new();
    setup.constants.set("cfg_router_ipv6", [0u8; 16]);
    let node = setup.load();
    for target in [GATEWAY6, Ipv6Addr::UNSPECIFIED] {
        node.run(FROM_CONTAINER, &solicit(A.v6(), solicited_node(target), target, &[])).dropped(150);
    }
}
