//! Policies swapped under traffic, with the node's programs: no packet is judged by a mixture of two policies, and whoever is
//! connected obeys the new one with the next packet. Needs root.

#[path = "common/bpf.rs"]
mod bpf;
#[path = "common/datapath.rs"]
mod datapath;
#[path = "common/packets.rs"]
mod packets;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use datapath::{A, Datapath, FROM_CONTAINER, Pod, REDIRECT, SHOT};
use etherparse::PacketBuilder;
use podwire::enforcement::{PolicyRows, PolicyWriter, Swap};
use podwire::policy::{ALLOW_PRECEDENCE, DENY_PRECEDENCE};
use podwire::program::SkBuff;
use podwire::tables::{
    PolicyAction, PolicyDirection, PolicyL4, PolicyMaps, PolicyMatch, PolicyVerdict, PortPrefix, Protocol, Switches,
};
use podwire::{EndpointId, SecurityId};

/// Endpoints whose policies are swapped, each by a thread of its own.
const ENDPOINTS: u8 = 32;
const SWAPS: usize = 10_000;
const PACKETS: usize = 1_000_000;

/// Allowed by both policies: by the entry for the sender in one, by that for anybody in the other.
const BOTH: u16 = 80;
/// Denied by both, likewise.
const NEITHER: u16 = 84;
/// Allowed by the first one only.
const FIRST: u16 = 90;

fn server(number: u8) -> Pod {
    Pod {
        ifindex: 5000 + u32::from(number),
        id: 2000 + u16::from(number),
        identity: 50_000 + u32::from(number),
        mac: [0x8a, 0, 0, 0, 1, number],
        node_mac: [0x66, 0, 0, 0, 1, number],
        ipv4: Some(Ipv4Addr::new(10, 0, 0, 100 + number)),
        ipv6: Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100 - 1 - u16::from(number))),
    }
}

fn endpoint(pod: &Pod) -> EndpointId {
    EndpointId::new(pod.id).expect("not 0")
}

/// The two policies. What each port is for stands with its constant; a lookup in one and the other in its successor would turn
/// the verdicts of [`BOTH`] and [`NEITHER`] round.
fn policies() -> [PolicyRows; 2] {
    let any = SecurityId::UNKNOWN;
    let sender = SecurityId::new(A.identity);
    let (allow, deny) = (PolicyAction::Allow, PolicyAction::Deny);
    let first = [(sender, BOTH, allow), (any, NEITHER, allow), (sender, NEITHER, deny), (sender, FIRST, allow)];
    let second = [(any, BOTH, allow), (sender, NEITHER, allow), (any, NEITHER, deny)];
    let rows = |entries: &[(SecurityId, u16, PolicyAction)], cookie| {
        let others = (1000..1020).map(|port| (SecurityId::new(300), port, allow));
        let rows = entries.iter().copied().chain(others).map(|(identity, port, action)| {
            let l4 = PolicyL4::port(Protocol::TCP, port);
            let precedence = if action == deny { DENY_PRECEDENCE } else { ALLOW_PRECEDENCE };
            let verdict = PolicyVerdict { cookie, ..PolicyVerdict::new(action, precedence) };
            (PolicyMatch { direction: PolicyDirection::Ingress, identity, l4 }, verdict)
        });
        rows.collect::<PolicyRows>()
    };
    [rows(&first, 1), rows(&second, 2)]
}

/// A packet from A, with SYN or, as one of a connection, with ACK.
fn packet(to: &Pod, v6: bool, ports: (u16, u16), syn: bool) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(A.mac, A.node_mac);
    let ip = match v6 {
        false => ethernet.ipv4(A.v4().octets(), to.v4().octets(), 64),
        true => ethernet.ipv6(A.v6().octets(), to.v6().octets(), 64),
    };
    let tcp = ip.tcp(ports.0, ports.1, 7, 1000);
    let tcp = if syn { tcp.syn() } else { tcp.ack(1) };
    let mut bytes = Vec::new();
    tcp.write(&mut bytes, b"payload").expect("a packet");
    bytes
}

fn is_allowed(datapath: &Datapath, packet: &[u8]) -> bool {
    match datapath.run_quick(FROM_CONTAINER, packet, &SkBuff::default()).0 {
        REDIRECT => true,
        SHOT => false,
        other => panic!("neither delivered nor dropped but {other}"),
    }
}

/// The programs with A, who sends, and servers.
fn set_up() -> (Datapath, PolicyWriter, Vec<Pod>) {
    let datapath = Datapath::load();
    let servers: Vec<Pod> = (0..ENDPOINTS).map(server).collect();
    servers.iter().for_each(|server| datapath.add(server));
    let outer = PolicyMaps::open_pinned(datapath.maps()).expect("pinned");
    let switches = Arc::new(Switches::open_pinned(datapath.maps()).expect("pinned"));
    let writer = PolicyWriter::open(outer, switches, &datapath.maps()).expect("opens");
    (datapath, writer, servers)
}

#[test]
fn connections_obey_with_the_next_packet() {
    let (datapath, writer, servers) = set_up();
    let server = &servers[0];
    let [first, second] = policies();
    for v6 in [false, true] {
        writer.replace([(endpoint(server), first.clone())]).expect("fits");
        assert!(is_allowed(&datapath, &packet(server, v6, (7000, FIRST), true)));
        assert!(is_allowed(&datapath, &packet(server, v6, (7000, BOTH), true)));
        for round in 0..10 {
            for (port, allowed) in [(FIRST, round % 2 == 0), (BOTH, true), (NEITHER, false)] {
                // Not from the second policy's first packet on, but with it; and again and again.
                for _ in 0..3 {
                    let verdict = is_allowed(&datapath, &packet(server, v6, (7000, port), false));
                    assert_eq!(verdict, allowed, "port {port} in round {round}, IPv6 {v6}");
                }
            }
            let next = if round % 2 == 0 { &second } else { &first };
            // In force when it begins to wait; what it waits for is those under way on other CPUs.
            drop(writer.begin([(endpoint(server), next.clone())]).expect("fits"));
        }
    }
}

#[test]
fn a_policy_is_not_asked_for_what_the_outline_of_just_its_map_leaves_out() {
    let (datapath, writer, servers) = set_up();
    let server = &servers[0];
    writer.replace([(endpoint(server), policies()[0].clone())]).expect("fits");
    let outer = PolicyMaps::open_pinned(datapath.maps()).expect("pinned");
    let id = outer.policy_id(endpoint(server)).expect("readable").expect("in force");
    let connect = || is_allowed(&datapath, &packet(server, false, (7000, BOTH), true));
    assert!(connect());
    for (map, allowed) in [(id, false), (id + 1, true), (id, false), (id - 1, true)] {
        outer.outlines().write(endpoint(server), map, &[]).expect("written");
        datapath.advance();
        assert_eq!(connect(), allowed, "the policy is map {id}, the empty outline that of {map}");
    }
}

#[test]
fn an_entry_of_every_kind_is_found_behind_its_outline() {
    let (datapath, writer, servers) = set_up();
    let (sender, other) = (SecurityId::new(A.identity), SecurityId::new(A.identity + 1));
    let (port, ports) = (PolicyL4::port(Protocol::TCP, BOTH), PortPrefix::new(64, 11).expect("32 ports"));
    let few = PolicyL4::Ports(Protocol::TCP, ports);
    let whole = PolicyL4::protocol(Protocol::TCP);
    for (server, (identity, l4, allowed)) in servers.iter().zip([
        (sender, port, [true, false]),
        (sender, few, [true, false]),
        (sender, whole, [true, true]),
        (sender, PolicyL4::Any, [true, true]),
        (SecurityId::UNKNOWN, port, [true, false]),
        (SecurityId::UNKNOWN, few, [true, false]),
        (SecurityId::UNKNOWN, whole, [true, true]),
        (SecurityId::UNKNOWN, PolicyL4::Any, [true, true]),
        (other, whole, [false, false]),
        (other, PolicyL4::Any, [false, false]),
    ]) {
        let verdict = PolicyVerdict::new(PolicyAction::Allow, ALLOW_PRECEDENCE);
        let matched = PolicyMatch { direction: PolicyDirection::Ingress, identity, l4 };
        writer.replace([(endpoint(server), [(matched, verdict)].into_iter().collect())]).expect("fits");
        let connects = [BOTH, 200].map(|port| is_allowed(&datapath, &packet(server, false, (7000, port), true)));
        assert_eq!(connects, allowed, "{matched}");
    }
}

#[test]
fn whatever_way_a_policy_comes_its_outline_comes_with_it() {
    let (datapath, writer, servers) = set_up();
    let [first, second] = policies();
    let outer = PolicyMaps::open_pinned(datapath.maps()).expect("pinned");
    let has_outline = |server: &Pod| {
        let outline = outer.outlines().map().read(u32::from(server.id)).expect("a row");
        Some(outline.map_id) == outer.policy_id(endpoint(server)).expect("readable").map(u64::from)
    };
    let connects = |server, port| is_allowed(&datapath, &packet(server, true, (7000, port), true));

    // Swapped; the slot that every pod of this test has is no spare one.
    writer.replace([(endpoint(&servers[0]), first.clone())]).expect("fits");
    assert!(has_outline(&servers[0]) && connects(&servers[0], BOTH));
    // Changed in place: of what comes about an identity that nobody has, nothing is left out.
    let sender = SecurityId::new(A.identity);
    let others: PolicyRows = first.iter().filter(|(matched, _)| matched.identity != sender).copied().collect();
    writer.replace([(endpoint(&servers[1]), others)]).expect("fits");
    assert!(has_outline(&servers[1]) && !connects(&servers[1], BOTH));
    let swap = writer.begin_around([(endpoint(&servers[1]), first.clone())], &[sender].into()).expect("fits");
    assert_eq!(swap.swapped().patched, 1);
    assert!(has_outline(&servers[1]) && connects(&servers[1], BOTH) && connects(&servers[1], FIRST));
    // Written into a slot that was filled in advance.
    writer.remove([endpoint(&servers[2])]).and_then(Swap::wait).expect("removed");
    writer.stock(&[endpoint(&servers[2])]).expect("in stock");
    writer.replace([(endpoint(&servers[2]), second)]).expect("fits");
    assert!(has_outline(&servers[2]) && connects(&servers[2], BOTH) && !connects(&servers[2], NEITHER));
    // Taken over from an earlier process, of which nobody knows whether it wrote outlines.
    outer.outlines().write(endpoint(&servers[0]), 0, &[]).expect("written");
    assert!(!has_outline(&servers[0]));
    drop(writer);
    let switches = Arc::new(Switches::open_pinned(datapath.maps()).expect("pinned"));
    let outer = PolicyMaps::open_pinned(datapath.maps()).expect("pinned");
    let _writer = PolicyWriter::open(outer, switches, &datapath.maps()).expect("opens");
    assert!(has_outline(&servers[0]) && connects(&servers[0], BOTH));
}

#[test]
fn no_packet_is_judged_by_a_mixture() {
    let (datapath, writer, servers) = set_up();
    let policies = policies();
    for server in &servers {
        writer.replace([(endpoint(server), policies[0].clone())]).expect("fits");
    }
    // New connections, and connections that last.
    let probe = |server, port, allowed| {
        let kinds = [false, true].into_iter().flat_map(move |v6| {
            (0..8).map(move |source| packet(server, v6, (20_000 + source, port), true)).chain([packet(
                server,
                v6,
                (30_000, port),
                false,
            )])
        });
        kinds.map(move |packet| (packet, allowed))
    };
    let probes: Vec<(Vec<u8>, bool)> =
        servers.iter().flat_map(|server| probe(server, BOTH, true).chain(probe(server, NEITHER, false))).collect();

    let (swaps, pushed, over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let (swaps, pushed, over, probes, policies) = (&swaps, &pushed, &over, &probes, &policies);
        let (datapath, writer) = (&datapath, &writer);
        for start in [0, probes.len() / 2] {
            scope.spawn(move || {
                let _over = Ended(over);
                for (packet, allowed) in probes.iter().cycle().skip(start) {
                    let number = pushed.fetch_add(1, Ordering::Relaxed);
                    if number >= PACKETS && swaps.load(Ordering::Relaxed) >= SWAPS || over.load(Ordering::Relaxed) {
                        break;
                    }
                    assert_eq!(is_allowed(datapath, packet), *allowed, "after {number} packets: {packet:02x?}");
                }
            });
        }
        for server in &servers {
            scope.spawn(move || {
                for round in 1.. {
                    let done = swaps.load(Ordering::Relaxed) >= SWAPS && pushed.load(Ordering::Relaxed) >= PACKETS;
                    if done || over.load(Ordering::Relaxed) {
                        break;
                    }
                    writer.replace([(endpoint(server), policies[round % 2].clone())]).expect("fits");
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(swaps.into_inner() >= SWAPS && pushed.into_inner() >= PACKETS);
}

/// Ends the others with a thread that panics or is done.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
