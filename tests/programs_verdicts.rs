//! Verdicts that a CPU remembers: each connection meets its own, whatever others have the same row. Needs root.

#[path = "common/bpf.rs"]
mod bpf;
#[path = "common/datapath.rs"]
mod datapath;
#[path = "common/packets.rs"]
mod packets;

use datapath::*;
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
