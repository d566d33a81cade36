//! Verdicts that a CPU remembers: each connection meets its own, whatever others have the same row. And pods whose addresses are not
//! theirs (any more), on which there is none. Needs root.

#[path = "common/bpf.rs"]
mod bpf;
#[path = "common/datapath.rs"]
mod datapath;
#[path = "common/packets.rs"]
mod packets;

use datapath::*;
use libbpf_rs::{MapCore, MapFlags};
use packets::*;
use podwire::SecurityId;
use podwire::program::SkBuff;
use podwire::tables::{PolicyAction, PolicyDirection, PolicyL4, PolicyMatch, PolicyVerdict, PortPrefix, Protocol};

/// Far more connections than there are rows, so that every row is wanted by several.
const PORTS: u16 = 8192;

/// A may send by UDP to the lower half of all ports, or to the upper one.
fn allow_half(node: &Datapath, upper: bool) {
    let ports = PortPrefix::new(if upper { 0x8000 } else { 0 }, 1).expect("half of all ports");
    let l4 = PolicyL4::Ports(Protocol::UDP, ports);
    let matched = PolicyMatch { direction: PolicyDirection::Egress, identity: SecurityId::UNKNOWN, l4 };
    node.set_policy(A.id, &[(matched, PolicyVerdict::new(PolicyAction::Allow, 1))]);
}

#[test]
fn connections_that_share_a_row_do_not_share_a_verdict() {
    let node = Datapath::load();
    node.switch(0, 0);
    let frame = A.sends4(B.v4(), Upper::Udp);
    for upper in [false, true, false] {
        allow_half(&node, upper);
        for number in 0..PORTS {
            for port in [number, 0x8000 + number] {
                let frame = with(&frame, ETH + IPV4 + 2, &port.to_be_bytes());
                let (verdict, _) = node.run_quick(FROM_CONTAINER, &frame, &SkBuff::default());
                let expected = if (port >= 0x8000) == upper { REDIRECT } else { SHOT };
                assert_eq!(verdict, expected, "port {port} while the upper half is allowed: {upper}");
            }
        }
    }
}

/// One packet that a pod sends and one that it is sent, of a family: the program, the frame, and whom a drop is put down to.
fn from_and_to_a(is_ipv6: bool) -> [(&'static str, Vec<u8>, u32); 2] {
    let inward = (A.node_mac, A.mac);
    if is_ipv6 {
        let from_host = ipv6(inward, (GATEWAY6, A.v6()), 64, Upper::Udp);
        return [(FROM_CONTAINER, A.sends6(B.v6(), Upper::Udp), 10), (TO_CONTAINER, from_host, 1)];
    }
    let from_host = ipv4(inward, (GATEWAY4, A.v4()), 64, Upper::Udp);
    [(FROM_CONTAINER, A.sends4(B.v4(), Upper::Udp), 9), (TO_CONTAINER, from_host, 1)]
}

/// A device's pod and the pod that has its address must be the same one, in both directions, or some other policy would be asked,
/// or none.
#[test]
fn who_has_lost_its_address_neither_sends_nor_receives() {
    const NOT_READY: u8 = 203;
    for (is_ipv6, key) in [(false, key4(A.v4())), (true, key6(A.v6()))] {
        for is_known in [false, true] {
            let node = Datapath::load();
            let addresses = node.map("cilium_lxc");
            let of = |key| addresses.lookup(bytemuck::bytes_of(&key), MapFlags::ANY).expect("readable").expect("there");
            let (own, of_b) = (of(key), of(if is_ipv6 { key6(B.v6()) } else { key4(B.v4()) }));
            let put = |info: &[u8]| node.write("cilium_lxc", bytemuck::bytes_of(&key), info);
            let all_pass = || {
                for (program, frame, _) in from_and_to_a(is_ipv6) {
                    assert_ne!(node.run(program, &frame).verdict, SHOT, "{program}");
                }
            };
            if is_known {
                all_pass();
            }
            addresses.delete(bytemuck::bytes_of(&key)).expect("it is there");
            node.advance();
            for (program, frame, nobody) in from_and_to_a(is_ipv6) {
                node.run(program, &frame).dropped_of(NOT_READY, (A.id, nobody));
            }
            put(&of_b);
            for (program, frame, _) in from_and_to_a(is_ipv6) {
                let sender = if program == FROM_CONTAINER { B.identity } else { 1 };
                node.run(program, &frame).dropped_of(NOT_READY, (A.id, sender));
            }
            put(&own);
            all_pass();
        }
    }
}
