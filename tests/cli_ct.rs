//! `podwire bpf ct`, on maps with connections written by hand. Needs root and a bpffs.
#![cfg(feature = "programs")]

#[path = "common/bpf.rs"]
mod bpf;
#[path = "common/bpf_command.rs"]
mod bpf_command;
#[path = "common/conntrack.rs"]
mod conntrack;
#[path = "common/example.rs"]
mod example;
#[path = "common/fake_agent.rs"]
mod fake_agent;

use std::net::SocketAddr;

use bpf::BpfRoot;
use bpf_command::{fails, prints, prints_json};
use conntrack::Table;
use podwire::conntrack::ticks_per_second;
use podwire::tables::{
    Connection, CtFlags, CtPath, CtPathFlags, CtState, Echo, EndpointFlags, FlowTuple, LxcEndpoint, LxcMap, Protocol,
};
use podwire::{EndpointId, IfIndex, MacAddr, SecurityId};
use serde_json::json;

fn endpoint(id: u16) -> EndpointId {
    EndpointId::new(id).expect("not 0")
}

/// A web connection of endpoint 7, a ping of endpoint 8, and one that ended.
fn table() -> Table {
    let table = Table::new(512);
    let now = table.now();
    let at = |seconds: i64| now.saturating_add_signed(seconds * i64::from(ticks_per_second()));
    let side = |text: &str| -> SocketAddr { text.parse().expect("valid") };
    let tuple =
        |protocol, source, destination| FlowTuple::new(protocol, side(source), side(destination)).expect("one family");
    let passed = CtPathFlags::JUDGED | CtPathFlags::ALLOWED;
    let web = Connection {
        state: CtState::Established,
        flags: CtFlags::SEEN_NON_SYN,
        source_identity: SecurityId::new(300),
        destination_identity: SecurityId::new(2),
        egress_rule: 5,
        forward: CtPath {
            packets: 7,
            bytes: 700,
            expires: at(21_600),
            tcp_flags: 0x12,
            lifetime: 21_600,
            flags: passed,
            generation: 3,
            in_device: IfIndex::new(6),
            ..CtPath::default()
        },
        reply: CtPath {
            packets: 6,
            bytes: 4000,
            expires: at(100),
            tcp_flags: 0x10,
            receiver: Some(endpoint(7)),
            ..CtPath::default()
        },
        ..Connection::new(tuple(Protocol::TCP, "10.0.0.7:40000", "192.0.2.1:443"))
    };
    let ip = |text: &str| text.parse().expect("valid");
    let ping = FlowTuple::echo(Echo::Request, ip("fd00::8"), ip("2001:db8::1"), 4660).expect("one family");
    let ping = Connection {
        forward: CtPath {
            packets: 1,
            bytes: 118,
            expires: at(60),
            flags: passed | CtPathFlags::AUDITED,
            ..CtPath::default()
        },
        ..Connection::new(ping)
    };
    let ended = Connection {
        state: CtState::Closed,
        flags: CtFlags::SEEN_NON_SYN | CtFlags::RST,
        forward: CtPath { expires: at(-30), ..CtPath::default() },
        ..Connection::new(tuple(Protocol::TCP, "10.0.0.9:40000", "192.0.2.1:443"))
    };
    for connection in [web, ping, ended] {
        table.conntrack.insert(&connection).expect("room");
    }
    let lxc = LxcMap::create(16).expect("a map");
    for (id, address) in [(7, "10.0.0.7"), (8, "fd00::8"), (9, "10.0.0.99")] {
        let entry = LxcEndpoint {
            ifindex: IfIndex::new(6).expect("not 0"),
            id: endpoint(id),
            identity: SecurityId::new(300),
            mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
            node_mac: MacAddr::new([2, 0, 0, 0, 0, 2]),
            flags: EndpointFlags::empty(),
            parent_ifindex: None,
        };
        let (ipv4, ipv6) = match ip(address) {
            std::net::IpAddr::V4(ip) => (Some(ip), None),
            std::net::IpAddr::V6(ip) => (None, Some(ip)),
        };
        lxc.write_endpoint(ipv4, ipv6, &entry).expect("room");
    }
    lxc.map().pin(table.root.maps().join("cilium_lxc")).expect("pinned");
    table
}

/// The number behind `name` in a line; what it is depends on the clock.
fn number(line: &str, name: &str) -> i64 {
    let rest = line.split_once(name).unwrap_or_else(|| panic!("no {name} in {line}")).1;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(rest.len());
    rest[..end].parse().unwrap_or_else(|_| panic!("no number after {name} in {line}"))
}

#[test]
fn connections_a_line_each() {
    let table = table();
    let text = prints(&table.root, &["ct", "list"]);
    assert_eq!(
        prints(&table.root, &["ct", "ls", "global"]).lines().count(),
        text.lines().count(),
        "global is the default"
    );
    let lines: Vec<_> = text.lines().collect();
    let expires = number(lines[0], "expires=");
    assert_eq!(
        lines[0],
        format!(
            "TCP ESTABLISHED 10.0.0.7:40000 -> 192.0.2.1:443 expires={expires} TxPackets=7 TxBytes=700 TxFlagsSeen=0x12 \
             RxPackets=6 RxBytes=4000 RxFlagsSeen=0x10 Flags=0x0001 [ SeenNonSyn ] RevNAT=0 SourceSecurityID=300 \
             DestinationSecurityID=2 BackendID=0 EgressRule=5 IngressRule=0"
        )
    );
    assert!(
        lines[1].starts_with("TCP CLOSED 10.0.0.9:40000 -> 192.0.2.1:443 ")
            && lines[1].contains("[ SeenNonSyn Reset ]")
    );
    assert!(lines[2].starts_with("ICMPv6 NEW [fd00::8]:4660 -> [2001:db8::1]:4660 ") && lines[2].contains(" [ ] "));
    assert_eq!(lines.len(), 3);

    let text = prints(&table.root, &["ct", "list", "global", "--time-diff"]);
    let remaining: Vec<_> = text.lines().map(|line| number(line, "(remaining: ")).collect();
    for (found, written) in remaining.iter().zip([21_600, -30, 60]) {
        assert!((written - 120..=written).contains(found), "{remaining:?}");
    }
    // Both count from the start of the machine.
    assert!((number(lines[0], "expires=") - number(lines[1], "expires=") - 21_630).abs() <= 1, "{text}");
    assert!(prints(&table.root, &["ct", "list", "-d"]).contains(" (remaining: "));
}

#[test]
fn connections_as_json() {
    let table = table();
    let all = prints_json(&table.root, &["ct", "list"]);
    let web = &all[0];
    assert!((21_400..=21_600).contains(&web["remaining"].as_i64().expect("a number")), "{web}");
    for (pointer, value) in [
        ("/protocol", json!("TCP")),
        ("/source", json!("10.0.0.7:40000")),
        ("/destination", json!("192.0.2.1:443")),
        ("/state", json!("established")),
        ("/flags", json!(["seen-non-syn"])),
        ("/source-identity", json!(300)),
        ("/destination-identity", json!(2)),
        ("/egress-rule", json!(5)),
        ("/forward/packets", json!(7)),
        ("/forward/allowed", json!(true)),
        ("/forward/generation", json!(3)),
        ("/forward/in-device", json!(6)),
        ("/forward/lifetime", json!(21_600)),
        ("/reply/bytes", json!(4000)),
        ("/reply/allowed", json!(null)),
        ("/reply/receiver", json!(7)),
    ] {
        assert_eq!(web.pointer(pointer), Some(&value), "{pointer}");
    }
    assert_eq!(all[2]["forward"]["audited"], true);
    assert_eq!(all.as_array().map(Vec::len), Some(3));
}

#[test]
fn connections_of_one_endpoint() {
    let table = table();
    let sources = |args: &[&str]| -> Vec<String> {
        let listed = prints_json(&table.root, args);
        let listed = listed.as_array().expect("a list").iter();
        listed.map(|connection| connection["source"].as_str().expect("text").to_owned()).collect()
    };
    assert_eq!(sources(&["ct", "list", "7"]), ["10.0.0.7:40000"]);
    assert_eq!(sources(&["ct", "list", "8"]), ["[fd00::8]:4660"]);
    assert!(sources(&["ct", "list", "9"]).is_empty(), "10.0.0.9 belongs to nobody");
    fails(&table.root, &["ct", "list", "10"], 1, "endpoint 10 has no address: see `podwire bpf endpoint list`");
    fails(&table.root, &["ct", "flush", "10"], 1, "endpoint 10 has no address");
    fails(&table.root, &["ct", "list", "everything"], 2, "expected global, or the number of an endpoint");
    fails(&table.root, &["ct", "list", "0"], 2, "expected global, or the number of an endpoint");

    let pin = table.root.maps().join("podwire_ct");
    let flushed = prints(&table.root, &["ct", "flush", "8"]);
    assert_eq!(flushed, format!("Flushed 1 entries from {}\n", pin.display()));
    assert_eq!(sources(&["ct", "list"]), ["10.0.0.7:40000", "10.0.0.9:40000"]);
    assert_eq!(prints_json(&table.root, &["ct", "flush"]), json!({ "flushed": 2 }));
    assert!(sources(&["ct", "list"]).is_empty());
    assert_eq!(prints(&table.root, &["ct", "list"]), "");
}

#[test]
fn without_a_node_it_says_where_it_looked() {
    let root = BpfRoot::new();
    for args in [["ct", "list"], ["ct", "flush"]] {
        fails(&root, &args, 1, "choose another with --bpf-root");
    }
}
