//! What the host forwards from a device of its own: nobody out there is who is here.

use super::*;
use programs::datapath::{HOST_DEVICE, OTHER_DEVICE, TO_CONTAINER};

/// Has the stack send something to Db that came into the node by a device.
fn forwarded(scene: &mut Scene, came_in_by: u32, from: Who, said: &Said) -> Verdict {
    let db = scene.world.endpoints[Db as usize];
    let ethertype = if scene.family == V4 { TYPE_IPV4 } else { TYPE_IPV6 };
    let datagram = scene.datagram(scene.address(from), scene.address(Db), said);
    scene.meet_from(TO_CONTAINER, (came_in_by, db.ifindex), &frame(db.node_mac, db.mac, ethertype, &datagram))
}

#[test]
fn from_another_device_nobody_speaks_for_who_is_here() {
    in_both_families(|scene| {
        let spoofed = Dropped(INVALID_SOURCE, Ingress);
        // IPv4 of the host's from there can only be masqueraded: the kernel takes no other.
        let as_host = if scene.family == V4 { Passed } else { spoofed };
        assert_eq!(forwarded(scene, OTHER_DEVICE, Host, &udp(5000, 53)), as_host);
        assert_eq!(forwarded(scene, HOST_DEVICE, Host, &udp(5001, 53)), Passed, "a pod's, masqueraded");
        assert_eq!(forwarded(scene, 0, Host, &udp(5002, 53)), Passed, "its own");
        for _ in 0..2 {
            assert_eq!(forwarded(scene, OTHER_DEVICE, Outside, &udp(5000, 53)), Passed);
            assert_eq!(forwarded(scene, HOST_DEVICE, Web, &udp(5000, 53)), Passed, "a pod's, redirected by the host");
        }
        // An established connection, which has a short way, is no way in either.
        assert_eq!(forwarded(scene, OTHER_DEVICE, Web, &udp(5000, 53)), spoofed);
        assert_eq!(forwarded(scene, OTHER_DEVICE, Cache, &udp(5000, 53)), spoofed);
        assert_eq!(forwarded(scene, OTHER_DEVICE, Db, &udp(5000, 53)), spoofed, "its own address");
    });
}

#[test]
fn answers_to_what_the_host_translated_bear_its_address() {
    in_both_families(|scene| {
        let spoofed = if scene.family == V4 { Passed } else { Dropped(INVALID_SOURCE, Ingress) };
        assert_eq!(scene.send(Db, Host, &tcp(40_000, 80, SYN)), Passed);
        for _ in 0..2 {
            assert_eq!(forwarded(scene, OTHER_DEVICE, Host, &tcp(80, 40_000, ACK)), Passed);
        }
        assert_eq!(forwarded(scene, OTHER_DEVICE, Host, &tcp(80, 40_000, SYN)), spoofed, "it opens");
        assert_eq!(forwarded(scene, OTHER_DEVICE, Host, &tcp(80, 40_001, ACK)), spoofed, "of no connection");
        let kind = if scene.family == V4 { 3 } else { 2 };
        let about = |scene: &Scene, port| icmp(scene.family, kind, 0, &inner(scene, Db, Host, &tcp(port, 80, ACK)));
        let known = about(scene, 40_000);
        assert_eq!(forwarded(scene, OTHER_DEVICE, Host, &known), Passed);
        let unknown = about(scene, 40_002);
        assert_eq!(forwarded(scene, OTHER_DEVICE, Host, &unknown), spoofed);
    });
}

#[test]
fn answers_to_what_may_be_no_longer_begin_nothing() {
    in_both_families(|scene| {
        let begins = if scene.family == V4 { Passed } else { Dropped(INVALID_SOURCE, Ingress) };
        assert_eq!(scene.send(Db, Host, &udp(4000, 53)), Passed);
        assert_eq!(forwarded(scene, OTHER_DEVICE, Host, &udp(53, 4000)), Passed);
        scene.policy(Db, &[allow(Ingress, ANYBODY, None, 0)]);
        assert_eq!(scene.send(Db, Host, &udp(4000, 53)), Dropped(NO_POLICY_MATCHED, Egress));
        assert_eq!(forwarded(scene, OTHER_DEVICE, Host, &udp(53, 4000)), begins);
        assert_eq!(forwarded(scene, 0, Host, &udp(53, 4000)), Passed, "the host itself may");
    });
}
