//! IPv4 through the programs of the pods' devices.

#[path = "common/bpf.rs"]
mod bpf;
#[path = "common/datapath.rs"]
mod datapath;
#[path = "common/packets.rs"]
mod packets;

use std::net::Ipv4Addr;

use datapath::*;
use packets::*;
use podwire::abi::ForwardPoint::*;
use podwire::program::SkBuff;

/// The frame as the pod it is for receives it: its addresses, one less to live, the checksum computed anew.
fn delivered(frame: &[u8], pod: &Pod) -> Vec<u8> {
    let frame = ipv4_with(frame, 8, &[frame[ETH + 8] - 1]);
    readdressed(&frame, pod.mac, pod.node_mac)
}

fn handed_to_host(frame: &[u8]) -> Vec<u8> {
    with(frame, 0, &HOST_MAC)
}

#[test]
fn pod_to_pod() {
    let node = Datapath::load();
    for upper in UPPERS {
        let frame = A.sends4(B.v4(), upper);
        node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &delivered(&frame, &B), Some(PodToPod));
    }
}

#[test]
fn the_checksum_is_right_for_every_time_to_live_and_value() {
    let node = Datapath::load();
    for ttl in 2..=255u8 {
        // The id makes the checksum run through its values, the two representations of zero among them.
        for id in [0u16, 1, 0x00ff, 0x1234, 0x7fff, 0x8000, 0xff00, 0xfffe, 0xffff] {
            let frame = ipv4_with(&A.sends4(B.v4(), Upper::Udp), 8, &[ttl]);
            let frame = ipv4_with(&frame, 4, &id.to_be_bytes());
            let run = node.run_quick(FROM_CONTAINER, &frame, &SkBuff::default());
            assert_eq!((run.0, hex(&run.1)), (REDIRECT, hex(&delivered(&frame, &B))), "ttl {ttl} id {id}");
        }
    }
    for checksum in [0x0000u16, 0x0001, 0x00ff, 0x0100, 0xfeff, 0xff00, 0xfffe] {
        // The id that makes the header's checksum exactly this.
        let blank = ipv4_with(&A.sends4(B.v4(), Upper::Udp), 4, &[0, 0]);
        let now = u16::from_be_bytes([blank[ETH + 10], blank[ETH + 11]]);
        let id = u32::from(now) + u32::from(!checksum);
        let id = (id & 0xffff) + (id >> 16);
        let frame = ipv4_with(&blank, 4, &(id as u16).to_be_bytes());
        assert_eq!(frame[ETH + 10..ETH + 12], checksum.to_be_bytes(), "the table's own arithmetic");
        let run = node.run_quick(FROM_CONTAINER, &frame, &SkBuff::default());
        assert_eq!((run.0, hex(&run.1)), (REDIRECT, hex(&delivered(&frame, &B))), "checksum {checksum:#06x}");
    }
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    let node = Datapath::load();
    let frame = A.sends4(B.v4(), Upper::Udp);
    let broken = with(&frame, ETH + 10, &[frame[ETH + 10] ^ 0x55, frame[ETH + 11]]);
    let run = node.run(FROM_CONTAINER, &broken);
    assert_eq!(run.verdict, REDIRECT);
    assert_ne!(internet_checksum(&run.packet[ETH..ETH + IPV4]), 0, "the receiver must still see that it was damaged");
}

#[test]
fn pod_to_host_and_outside() {
    let node = Datapath::load();
    let near_the_range = [Ipv4Addr::new(10, 0, 1, 0), Ipv4Addr::new(9, 255, 255, 255)];
    for to in [GATEWAY4, OUTSIDE4, Ipv4Addr::new(169, 254, 42, 1)].into_iter().chain(near_the_range) {
        let frame = A.sends4(to, Upper::Tcp);
        node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &handed_to_host(&frame), Some(PodToStack));
    }
}

#[test]
fn nobodys_address_in_the_pods_range_is_unroutable() {
    let node = Datapath::load();
    for to in [NOBODY4, Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::new(10, 0, 0, 255)] {
        node.run(FROM_CONTAINER, &A.sends4(to, Upper::Udp)).dropped(151);
    }
}

#[test]
fn destinations_that_no_pod_may_send_to() {
    let node = Datapath::load();
    let refused =
        ["224.0.0.1", "239.255.255.255", "255.255.255.255", "127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3"];
    for to in refused {
        let to: Ipv4Addr = to.parse().expect("an address");
        node.run(FROM_CONTAINER, &A.sends4(to, Upper::Udp)).dropped(150);
    }
}

#[test]
fn time_to_live_ends_between_pods_with_an_error_from_the_host() {
    let node = Datapath::load();
    for ttl in [0, 1] {
        let frame = ipv4_with(&A.sends4(B.v4(), Upper::Udp), 8, &[ttl]);
        let run = node.run(FROM_CONTAINER, &frame);
        run.reported(196, (A.id, A.identity));
        assert_eq!(run.verdict, REDIRECT, "the stack owes the sender an ICMP error");
        assert_eq!(hex(&run.packet), hex(&handed_to_host(&frame)));
        assert_eq!(run.forwards, []);

        // The stack itself looks at the time to live of what is for it or goes through it.
        let frame = ipv4_with(&A.sends4(OUTSIDE4, Upper::Udp), 8, &[ttl]);
        node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &handed_to_host(&frame), Some(PodToStack));
    }
    let frame = ipv4_with(&A.sends4(B.v4(), Upper::Udp), 8, &[2]);
    node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &delivered(&frame, &B), Some(PodToPod));
}

#[test]
fn the_sources_are_checked() {
    let node = Datapath::load();
    let good = A.sends4(B.v4(), Upper::Udp);
    for octet in 0..6 {
        node.run(FROM_CONTAINER, &with(&good, 6 + octet, &[good[6 + octet] ^ 1])).dropped(130);
    }
    let spoofed = [B.v4(), GATEWAY4, OUTSIDE4, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, Ipv4Addr::LOCALHOST];
    for source in spoofed {
        node.run(FROM_CONTAINER, &ipv4_with(&good, 12, &source.octets())).dropped(132);
    }
    for octet in 0..4 {
        node.run(FROM_CONTAINER, &ipv4_with(&good, 12 + octet, &[good[ETH + 12 + octet] ^ 1])).dropped(132);
    }
}

#[test]
fn a_device_without_a_row_sends_nothing() {
    let node = Datapath::load();
    let frame = A.sends4(B.v4(), Upper::Udp);
    node.set_row(1, &Default::default());
    node.run(FROM_CONTAINER, &frame).dropped_of(172, (0, 0));
    // Another device's row in the place of this one's.
    node.set_row(1, &Pod { ifindex: 1 + 65536, ..A }.row());
    node.run(FROM_CONTAINER, &frame).dropped_of(172, (0, 0));
}

#[test]
fn a_row_may_stand_up_to_three_places_further_on() {
    let node = Datapath::load();
    let frame = A.sends4(B.v4(), Upper::Udp);
    let other = Pod { ifindex: 1 + 65536, mac: B.mac, ..A }.row();
    for place in 1..=3 {
        node.set_row(place, &other);
        node.set_row(place + 1, &A.row());
        node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &delivered(&frame, &B), Some(PodToPod));
    }
    node.set_row(4, &other);
    node.set_row(5, &A.row());
    node.run(FROM_CONTAINER, &frame).dropped_of(172, (0, 0));
}

#[test]
fn an_endpoint_without_ipv4_sends_and_receives_none() {
    let node = Datapath::load();
    node.add(&Pod { ipv4: None, ..A });
    for source in [A.v4(), Ipv4Addr::UNSPECIFIED] {
        let frame = ipv4(A.to_gateway(), (source, B.v4()), 64, Upper::Udp);
        node.run(FROM_CONTAINER, &frame).dropped(132);
    }
    for destination in [A.v4(), Ipv4Addr::UNSPECIFIED] {
        let frame = ipv4((HOST_MAC, A.mac), (OUTSIDE4, destination), 64, Upper::Udp);
        node.run(TO_CONTAINER, &frame).dropped(151);
    }
}

#[test]
fn a_node_without_ipv4_has_no_range() {
    let mut setup = Setup::new();
    setup.constants.set("cfg_pods_ipv4", [0u8; 4]).set("cfg_pods_ipv4_mask", [0u8; 4]);
    let node = setup.load();
    let frame = A.sends4(NOBODY4, Upper::Udp);
    node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &handed_to_host(&frame), Some(PodToStack));
}

#[test]
fn options_and_fragments_are_carried() {
    let node = Datapath::load();
    let plain = A.sends4(B.v4(), Upper::Udp);
    // Four bytes (no-operation, end) up to the forty that a header can have.
    for words in 1..=10usize {
        let mut options = vec![1u8; words * 4];
        options[words * 4 - 1] = 0;
        let mut frame = insert(&plain, ETH + IPV4, &options);
        frame[ETH] = 0x45 + words as u8;
        let total = (frame.len() - ETH) as u16;
        let frame = ipv4_with(&frame, 2, &total.to_be_bytes());
        node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &delivered(&frame, &B), Some(PodToPod));
    }
    // Don't fragment; first, middle and last fragment; the reserved bit.
    for bits in [0x4000u16, 0x2000, 0x2003, 0x0005, 0x8000] {
        let frame = ipv4_with(&plain, 6, &bits.to_be_bytes());
        node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &delivered(&frame, &B), Some(PodToPod));
    }
}

#[test]
fn any_protocol_above_is_carried() {
    let node = Datapath::load();
    let plain = A.sends4(B.v4(), Upper::Udp);
    for protocol in 0..=255 {
        let frame = ipv4_with(&plain, 9, &[protocol]);
        node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &delivered(&frame, &B), Some(PodToPod));
    }
}

#[test]
fn what_enters_a_pod_is_for_it() {
    let node = Datapath::load();
    for upper in UPPERS {
        let frame = ipv4((A.node_mac, A.mac), (OUTSIDE4, A.v4()), 1, upper);
        node.run(TO_CONTAINER, &frame).forwarded(PASS, &frame, Some(StackToPod));
    }
    for other in [B.v4(), GATEWAY4, Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1)] {
        node.run(TO_CONTAINER, &ipv4((A.node_mac, A.mac), (OUTSIDE4, other), 64, Upper::Udp)).dropped(151);
    }
    node.set_row(1, &Default::default());
    let frame = ipv4((A.node_mac, A.mac), (OUTSIDE4, A.v4()), 64, Upper::Udp);
    node.run(TO_CONTAINER, &frame).dropped_of(151, (0, 0));
}
