//! What the programs report: drop events and their limit, trace events, a full ring, and the counters beside them.

#[path = "common/bpf.rs"]
mod bpf;
#[path = "common/datapath.rs"]
mod datapath;
#[path = "common/packets.rs"]
mod packets;

use std::collections::BTreeSet;

use datapath::*;
use libbpf_rs::{MapCore, MapFlags};
use packets::*;
use podwire::abi::{EventBudget, ForwardPoint::*, TraceNotify};
use podwire::program::SkBuff;

/// Event windows last 2^8 ticks of the kernel's clock.
const ATTEMPTS: usize = 100;

fn spoofed() -> Vec<u8> {
    ipv4_with(&A.sends4(B.v4(), Upper::Udp), 12, &[10, 0, 0, 99])
}

#[test]
fn a_drop_carries_the_packets_head() {
    let node = Datapath::load();
    // Shorter than a head, exactly one, longer; the table's own checks compare every field and byte of the event.
    for length in [42, 64, 127, 128, 129, 1400] {
        let mut frame = spoofed();
        frame.resize(length.max(frame.len()), 0x5a);
        let frame = ipv4_with(&frame, 2, &((frame.len() - ETH) as u16).to_be_bytes());
        node.run(FROM_CONTAINER, &frame).dropped(132);
    }
    node.run_prepared(FROM_CONTAINER, &spoofed(), Prepare::Length(ETH)).dropped(134);
    node.run(FROM_CONTAINER, &with(&A.sends6(B.v6(), Upper::Udp), ETH + 8, &[0])).dropped(132);
}

#[test]
fn counters_are_kept_by_reason_direction_and_line() {
    let node = Datapath::load();
    let frames = [
        spoofed(),
        A.sends4(NOBODY4, Upper::Udp),
        A.sends6(NOBODY6, Upper::Udp),
        with(&A.sends4(B.v4(), Upper::Udp), 6, &B.mac),
    ];
    for frame in &frames {
        for _ in 0..3 {
            node.run_quick(FROM_CONTAINER, frame, &SkBuff::default());
        }
    }
    node.run_quick(TO_CONTAINER, &ipv4(A.to_gateway(), (OUTSIDE4, B.v4()), 64, Upper::Udp), &SkBuff::default());
    let drops = node.drops();
    let by_reason: Vec<_> = drops.iter().map(|(key, value)| (key.reason, key.dir, value.count, value.bytes)).collect();
    let bytes = |frame: &[u8]| 3 * frame.len() as u64;
    let mut expected = vec![
        (130, EGRESS, 3, bytes(&frames[3])),
        (132, EGRESS, 3, bytes(&frames[0])),
        (151, INGRESS, 1, frames[1].len() as u64),
        (151, EGRESS, 3, bytes(&frames[1])),
        (151, EGRESS, 3, bytes(&frames[2])),
    ];
    expected.sort_unstable();
    let mut found = by_reason;
    found.sort_unstable();
    assert_eq!(found, expected);
    let places: BTreeSet<_> = drops.keys().map(|key| (key.file, key.line)).collect();
    assert_eq!(places.len(), 5, "each place in the source has its counter: {drops:?}");
}

/// Drops `count` packets within one window of the budget; the budget of the CPU they ran on, before and after.
fn drops_in_one_window(node: &Datapath, count: usize) -> (EventBudget, EventBudget, Vec<Event>) {
    for _ in 0..ATTEMPTS {
        node.run_quick(FROM_CONTAINER, &spoofed(), &SkBuff::default());
        let before = node.budgets();
        node.events();
        for _ in 0..count {
            node.run_quick(FROM_CONTAINER, &spoofed(), &SkBuff::default());
        }
        let after = node.budgets();
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        // Neither a new window nor another CPU came in between.
        if let [(before, after)] = moved.as_slice()
            && before.window == after.window
        {
            return (**before, **after, node.events());
        }
    }
    panic!("{ATTEMPTS} times a window of the budget ended within {count} test runs")
}

#[test]
fn drop_events_are_limited_and_the_rest_is_counted() {
    let node = Datapath::load();
    for limit in [0, 1, 3] {
        node.switch(0, limit);
        let drops_before: u64 = node.drops().values().map(|value| value.count).sum();
        let (before, after, events) = drops_in_one_window(&node, 10);
        let emitted = after.emitted - before.emitted;
        assert_eq!(events.len() as u64, emitted);
        assert!(after.emitted <= u64::from(limit), "{after:?}");
        assert_eq!(after.limited - before.limited, 10 - emitted, "what is not emitted is counted");
        assert_eq!(after.lost, before.lost);
        let drops: u64 = node.drops().values().map(|value| value.count).sum();
        assert!(drops - drops_before >= 11, "the counters know no limit");
    }
    // The window's first packet had the whole budget: with the limit at 3 as many were emitted, not fewer.
    node.switch(0, 3);
    let (_, after, _) = drops_in_one_window(&node, 10);
    assert_eq!(after.emitted, 3);
}

#[test]
fn a_new_window_has_the_whole_budget_again() {
    let node = Datapath::load();
    node.switch(0, 3);
    // As if the limit had been reached in a window that is over on every CPU.
    let spent = EventBudget { window: 1, emitted: 3, limited: 5, lost: 7 };
    let spent_everywhere = vec![bytemuck::bytes_of(&spent).to_vec(); node.budgets().len()];
    let map = node.map("podwire_event_budget");
    map.update_percpu(&0u32.to_ne_bytes(), &spent_everywhere, MapFlags::ANY).expect("the map takes it");
    node.run(FROM_CONTAINER, &spoofed()).dropped(132);
    let moved: Vec<_> = node.budgets().into_iter().filter(|budget| *budget != spent).collect();
    let [budget] = moved.as_slice() else { panic!("one CPU ran the program: {moved:?}") };
    assert!(budget.window > 1, "{budget:?}");
    assert_eq!((budget.emitted, budget.limited, budget.lost), (1, 5, 7));
}

#[test]
fn a_full_ring_loses_events_and_says_so() {
    let mut setup = Setup::new();
    setup.ring_bytes = Some(4096);
    let node = setup.load();
    let lost = |node: &Datapath| node.budgets().iter().map(|budget| budget.lost).sum::<u64>();
    for _ in 0..100 {
        assert_eq!(node.run_quick(FROM_CONTAINER, &spoofed(), &SkBuff::default()).0, SHOT);
    }
    let first_lost = lost(&node);
    let events = node.events().len() as u64;
    assert!((10..=30).contains(&events), "{events} events of about 200 bytes fit into 4096");
    assert_eq!(events + first_lost, 100, "each drop is reported or counted as lost");
    // Trace events share the ring and the counter.
    node.switch(1, 0);
    let frame = A.sends4(B.v4(), Upper::Udp);
    for _ in 0..100 {
        assert_eq!(node.run_quick(FROM_CONTAINER, &frame, &SkBuff::default()).0, REDIRECT);
    }
    let events = node.events().len() as u64;
    assert_eq!(events + lost(&node) - first_lost, 200, "two points a packet");
    // Once read, there is room again.
    node.switch(0, 1_000_000);
    node.run(FROM_CONTAINER, &spoofed()).dropped(132);
}

fn trace_event(point: u8, (source, identity): (u16, u32), destination: u16, frame: &[u8]) -> Event {
    let notify = TraceNotify {
        r#type: 4,
        subtype: point,
        source,
        len_orig: frame.len() as u32,
        len_cap: frame.len().min(128) as u16,
        version: 2,
        src_label: identity,
        dst_id: destination,
        flags: u8::from(frame[12..14] == [0x86, 0xdd]),
        ifindex: 1,
        ..TraceNotify::default()
    };
    Event::Trace(notify, frame[..frame.len().min(128)].to_vec())
}

/// The packet's hash is the kernel's affair; what connection tracking knew is looked at by the tests of policies.
fn without_hash(events: Vec<Event>) -> Vec<Event> {
    let plain = events.into_iter().map(|event| match event {
        Event::Trace(notify, head) => Event::Trace(TraceNotify { hash: 0, dst_label: 0, reason: 0, ..notify }, head),
        other => other,
    });
    plain.collect()
}

#[test]
fn traces_show_a_packet_as_it_came_and_as_it_goes() {
    const TO_LXC: u8 = 0;
    const HOST: u8 = 2;
    const STACK: u8 = 3;
    const FROM_LXC: u8 = 5;
    const OF_HOST: u8 = 7;
    const OF_NETWORK: u8 = 10;
    const NETWORK: u8 = 11;
    let node = Datapath::load();
    let a = (A.id, A.identity);
    let (host, world) = ((0, 1), (0, 2));
    let out = A.sends6(B.v6(), Upper::Tcp);
    let outside = A.sends4(OUTSIDE4, Upper::Udp);
    let inward = ipv4((HOST_MAC, HOST_MAC), (GATEWAY4, B.v4()), 64, Upper::Icmp);
    let received = ipv6((NEIGHBOUR_MAC, DEVICE_MAC), (OUTSIDE6, B.v6()), 64, Upper::Udp);
    let long = ipv4_of(A.to_gateway(), (A.v4(), B.v4()), 64, Upper::Udp, &[7; 1000]);
    let table = [
        (FROM_CONTAINER, &out, vec![(FROM_LXC, a, 0, false), (TO_LXC, a, B.id, true)]),
        (FROM_CONTAINER, &long, vec![(FROM_LXC, a, 0, false), (TO_LXC, a, B.id, true)]),
        (FROM_CONTAINER, &outside, vec![(FROM_LXC, a, 0, false), (STACK, a, 0, false)]),
        (FROM_HOST, &inward, vec![(OF_HOST, host, 0, false), (TO_LXC, host, B.id, true)]),
        (FROM_NETDEV, &received, vec![(OF_NETWORK, world, 0, false), (TO_LXC, (0, 10), B.id, true)]),
        (TO_HOST, &outside, vec![(HOST, (0, 0), 0, false)]),
        (TO_NETDEV, &outside, vec![(NETWORK, (0, 0), 0, false)]),
    ];
    for (program, frame, points) in table {
        node.switch(0, 1_000_000);
        assert_eq!(node.run(program, frame).events, [], "not unless asked for");
        node.switch(1, 0);
        let run = node.run(program, frame);
        let as_it_goes = |rewritten: bool| if rewritten { &run.packet } else { frame };
        let expected: Vec<_> = points
            .iter()
            .map(|(point, sender, destination, rewritten)| {
                trace_event(*point, *sender, *destination, as_it_goes(*rewritten))
            })
            .collect();
        assert_eq!(without_hash(run.events.clone()), expected, "{program}");
    }
}

#[test]
fn a_traced_drop_shows_where_it_came_from_and_why_it_ended() {
    let node = Datapath::load();
    node.switch(1, 1_000_000);
    let frame = spoofed();
    let run = node.run(FROM_CONTAINER, &frame);
    let [came, Event::Drop(notify, _)] = run.events.as_slice() else { panic!("{run:02x?}") };
    assert_eq!(without_hash(vec![came.clone()]), [trace_event(5, (A.id, A.identity), 0, &frame)]);
    assert_eq!(notify.subtype, 132);
}

#[test]
fn tracing_changes_neither_verdict_nor_packet() {
    let node = Datapath::load();
    for frame in [A.sends4(B.v4(), Upper::Tcp), A.sends6(B.v6(), Upper::Tcp), A.sends4(GATEWAY4, Upper::Tcp)] {
        node.switch(0, 1_000_000);
        let plain = node.run(FROM_CONTAINER, &frame);
        node.switch(1, 1_000_000);
        let traced = node.run(FROM_CONTAINER, &frame);
        assert_eq!((plain.verdict, hex(&plain.packet)), (traced.verdict, hex(&traced.packet)));
        assert_eq!(plain.forwards, traced.forwards);
    }
    node.switch(0, 1_000_000);
    let frame = A.sends4(B.v4(), Upper::Tcp);
    let expected = readdressed(&ipv4_with(&frame, 8, &[63]), B.mac, B.node_mac);
    node.run(FROM_CONTAINER, &frame).forwarded(REDIRECT, &expected, Some(PodToPod));
}
