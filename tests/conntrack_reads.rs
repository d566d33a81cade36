//! The table of connections as it is read: by packets of both directions, and while entries change. Needs root and a bpffs.

#[path = "common/bpf.rs"]
mod bpf;
#[path = "common/conntrack.rs"]
mod conntrack;

use std::mem::size_of;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use conntrack::{Table, number, tuple};
use podwire::abi::CtDir;
use podwire::maps::MmapArray;
use podwire::tables::{Connection, CtFlags, CtMap, CtPath, CtState, FlowTuple, Protocol, Switches};
use podwire::{IfIndex, SecurityId};

fn tcp(source: &str, destination: &str) -> FlowTuple {
    let socket = |text: &str| -> SocketAddr { text.parse().expect("valid socket address") };
    FlowTuple::new(Protocol::TCP, socket(source), socket(destination)).expect("one family")
}

fn path(packets: u64, device: u32) -> CtPath {
    CtPath { packets, bytes: 60 * packets, in_device: IfIndex::new(device), generation: 7, ..CtPath::default() }
}

#[test]
fn a_connection_is_found_by_packets_of_both_directions() {
    let table = Table::new(32);
    let connections = table.conntrack.connections();
    for opener in [
        tcp("10.0.0.1:40000", "10.0.0.2:80"),
        tcp("10.0.0.4:80", "10.0.0.3:40000"),
        tcp("[fd00::1]:40000", "[fd00::2]:80"),
        tcp("127.0.0.1:7", "127.0.0.1:7"),
    ] {
        let mut connection = Connection {
            state: CtState::Established,
            flags: CtFlags::SEEN_NON_SYN,
            source_identity: SecurityId::new(300),
            forward: path(5, 11),
            reply: if opener == opener.reverse() { CtPath::default() } else { path(4, 12) },
            ..Connection::new(opener)
        };
        // Written over what is there, it is there once.
        for packets in [5, 6] {
            connection.forward.packets = packets;
            table.conntrack.insert(&connection).expect("room");
            assert_eq!(connections.lookup(&opener).expect("readable"), Some(connection), "{opener}");
            assert_eq!(connections.lookup(&opener.reverse()).expect("readable"), Some(connection), "{opener} reversed");
        }
    }
    assert_eq!(connections.connections().expect("readable").len(), 4);
    assert_eq!(connections.lookup(&tcp("10.0.0.1:80", "10.0.0.2:40000")).expect("readable"), None);
    assert!(table.conntrack.remove(&tcp("10.0.0.2:80", "10.0.0.1:40000")).expect("removable"));
    assert_eq!(connections.lookup(&tcp("10.0.0.1:40000", "10.0.0.2:80")).expect("readable"), None);
    let left: Vec<_> =
        connections.connections().expect("readable").iter().map(|connection| connection.opener.to_string()).collect();
    let expected =
        ["TCP 10.0.0.4:80 -> 10.0.0.3:40000", "TCP 127.0.0.1:7 -> 127.0.0.1:7", "TCP [fd00::1]:40000 -> [fd00::2]:80"];
    assert_eq!(left, expected);
}

#[test]
fn every_one_of_many_connections_is_listed() {
    let table = Table::new(4096);
    for port in 1..=10_000 {
        let source = SocketAddr::new([10, 0, 0, 1].into(), port);
        let tuple =
            FlowTuple::new(Protocol::UDP, source, SocketAddr::new([10, 0, 0, 2].into(), 53)).expect("one family");
        table.conntrack.insert(&Connection::new(tuple)).expect("room");
    }
    let listed = table.conntrack.connections().connections().expect("readable");
    assert!(listed.iter().map(|connection| connection.opener.source().port()).eq(1..=10_000));
}

/// An entry that is between two connections is left out.
#[test]
fn an_entry_that_changes_is_left_out_and_the_others_are_read() {
    let table = Table::new(1);
    table.write((0..8).map(|number| (number, 1000, 1000)));
    let connections = table.conntrack.connections();
    for slot in 0..8 {
        let key = connections.map().read(slot).expect("an entry").key;
        assert!(connections.entry(&key).expect("readable").is_some());
        for direction in 0..2 {
            let seal = connections.map().word(slot, direction * size_of::<CtDir>()).expect("a path");
            seal.fetch_or(CtDir::MOVING.into(), Ordering::AcqRel);
            assert_eq!(connections.entry(&key).expect("readable"), None);
            let mut seen = Vec::new();
            connections.for_each_entry(|entry| seen.push(entry.key)).expect("readable");
            assert!(seen.len() == 7 && !seen.contains(&key));
            seal.fetch_and(!u64::from(CtDir::MOVING), Ordering::AcqRel);
        }
        assert!(connections.entry(&key).expect("readable").is_some());
    }
}

/// Each connection says in its counters which one it is: what belongs to two of them is never read as one.
#[test]
fn an_entry_that_changes_hands_is_read_as_one_connection() {
    let table = Table::new(1);
    let marked = |number: u32| Connection {
        forward: path(number.into(), 11),
        reply: path(number.into(), 12),
        ..Connection::new(tuple(number))
    };
    let over = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            while !over.load(Ordering::Relaxed) {
                let check = |connection: Connection| {
                    let number: u64 = number(&connection.opener).into();
                    assert_eq!((connection.forward.packets, connection.reply.packets), (number, number));
                };
                seen += table.conntrack.connections().for_each(check).expect("readable");
            }
            seen
        });
        for number in 0..50_000 {
            table.conntrack.insert(&marked(number)).expect("there is always a place");
            if reader.is_finished() {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        reader.join().expect("no connection is mixed up with another")
    });
    assert!(seen > 0);
}

/// What was left behind in an entry that is free again is nobody's.
#[test]
fn what_has_gone_is_not_read_though_its_bytes_are_there() {
    let table = Table::new(1);
    table.write([(0, 1000, 1000), (1, 1000, 1000)]);
    assert!(table.conntrack.remove(&tuple(0)).expect("removable"));
    let entry = table.conntrack.connections().map().read(0).expect("an entry");
    assert_eq!(entry.key, tuple(0).key().0, "the bytes stay");
    assert!(entry.dir.iter().all(|dir| dir.generation() == 0), "but no path holds");
    assert_eq!(table.conntrack.connections().free().expect("readable"), [0]);
    assert_eq!(table.conntrack.connections().lookup(&tuple(0)).expect("readable"), None);
    assert_eq!(table.numbers(), [1]);
}

#[test]
fn a_path_counts_how_often_it_was_written() {
    let table = Table::new(1);
    let mut seals = Vec::new();
    for _ in 0..3 {
        let forward = path(1, 11);
        table.conntrack.insert(&Connection { forward, ..Connection::new(tuple(0)) }).expect("room");
        let entry = table.conntrack.connections().entry(&tuple(0).key().0).expect("readable").expect("there");
        let direction = tuple(0).key().1;
        seals.push(entry.dir[direction.index()].seal);
    }
    assert!(seals.iter().all(|seal| CtDir { seal: *seal, ..CtDir::default() }.generation() == 7));
    assert!(seals.is_sorted_by(|a, b| a < b), "{seals:x?}");
}

/// Who opens the map finds hash keys in it, the same as everybody else.
#[test]
fn hash_keys_are_chosen_once_and_by_one() {
    let root = bpf::BpfRoot::new();
    let pin = root.maps().join(Switches::spec().name());
    let map = MmapArray::create(&Switches::spec()).expect("a map");
    std::fs::create_dir_all(root.maps()).expect("a folder");
    map.pin(&pin).expect("pinned");
    let mut chosen = Vec::new();
    for _ in 0..50 {
        map.write(0, &podwire::abi::Runtime::default()).expect("the only row");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let open = || Switches::open_pinned(root.maps()).and_then(|switches| switches.hash_keys()).expect("pinned");
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert!(keys.iter().all(|own| *own == keys[0]), "{keys:x?}");
        assert!(keys[0].iter().all(|key| key % 2 == 1), "a multiplier that loses bits");
        chosen.push(keys[0]);
    }
    chosen.sort_unstable();
    chosen.dedup();
    assert_eq!(chosen.len(), 50, "keys that repeat are not random");

    // Those that are there stay; what is missing of them is filled in.
    let runtime = podwire::abi::Runtime { hash_keys: [3, 5, 0, 7, 9], ..Default::default() };
    map.write(0, &runtime).expect("the only row");
    let keys = Switches::open_pinned(root.maps()).and_then(|switches| switches.hash_keys()).expect("pinned");
    assert!(keys[2] != 0);
    assert_eq!((keys[0], keys[1], keys[3], keys[4]), (3, 5, 7, 9));
    assert_eq!(CtMap::spec().max_entries(), 262_144);
    assert_eq!(CtMap::sizes(262_144)[1], ("podwire_ct_index", CtMap::index_spec().max_entries()));
    assert_eq!(CtMap::sizes(1), [("podwire_ct", 1), ("podwire_ct_index", 1)]);
}
