//! Packets that are only simulated, on a real node: what the simulator says, that it is what happens, and that it leaves no
//! trace. Needs root.

mod common;
#[path = "simulator/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use common::bpf::BpfRoot;
use common::netns::TestNetns;
use common::node::{Echo, TestNode, arrives};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};
use podwire::events::{VerdictAction, VerdictMatch};
use podwire::simulator::{Entry, Packet, Place, Relation, TcpFlags, Way};
use podwire::tables::{CtState, DropReason, PolicyDirection};
use podwire::{Datapath, ErrorKind, SecurityId};
use world::{CLIENTS_TO_OTHERS, ONLY_CLIENTS, World, at, place, policy};

#[test]
fn allowed_by_a_rule_denied_by_none_denied_by_a_rule() {
    let world = World::with_policy();
    let [allowed, none, denied] = world.simulate(|simulator| {
        [(&world.client, 80), (&world.other, 80), (&world.client, 81)]
            .map(|(from, port)| simulator.run(&Packet::tcp(at(from), at(&world.web), port)).expect("a packet"))
    });

    assert!(allowed.allowed && allowed.drop.is_none(), "{allowed:?}");
    let [egress, ingress] = &allowed.policies[..] else { panic!("{allowed:?}") };
    assert_eq!(
        (egress.endpoint, egress.direction, egress.enforced),
        (world.client.id(), PolicyDirection::Egress, false)
    );
    assert_eq!(
        (ingress.endpoint, ingress.direction, ingress.enforced),
        (world.web.id(), PolicyDirection::Ingress, true)
    );
    assert_eq!((ingress.action, ingress.matched), (VerdictAction::Allow, VerdictMatch::L3L4));
    let source = ingress.source.as_ref().expect("a rule in force");
    assert_eq!(source.to_string(), "default/web[0].ingress[0]");
    assert_eq!(ingress.peer, world.client.record.identity());
    assert_eq!((allowed.relation, allowed.connection_before), (Relation::New, None));
    let entry = allowed.connection_after.expect("it opens one");
    assert_eq!((entry.state, entry.forward.packets), (CtState::New, 1));
    assert_eq!(entry.forward.out_device, Some(world.web.record.ifindex));
    let Way::Endpoint(device) = &allowed.way else { panic!("{:?}", allowed.way) };
    assert_eq!((device.ifindex, &device.name), (world.web.record.ifindex, &world.web.record.device));
    let changes = allowed.changes();
    assert_eq!(changes.hop_limit, Some((64, 63)));
    assert_eq!(changes.destination_mac.map(|(_, new)| new), Some(world.web.record.mac));
    assert_eq!(changes.source_mac.map(|(_, new)| new), Some(world.web.record.node_mac));
    assert_eq!(changes.other_bytes, 0);
    let destination = allowed.destination.expect("an IP packet");
    assert_eq!(destination.endpoint, Some((world.web.id(), "default/web".to_owned())));
    assert!(destination.labels.to_string().contains("k8s:app=web"), "{}", destination.labels);

    assert_eq!((none.allowed, none.reason()), (false, Some(DropReason::PolicyDenied)));
    let by = none.denied_by().expect("ingress");
    assert_eq!((by.direction, by.rule, by.matched), (PolicyDirection::Ingress, None, VerdictMatch::None));
    assert_eq!((none.way, none.connection_after), (Way::Dropped, None));

    assert_eq!((denied.allowed, denied.reason()), (false, Some(DropReason::PolicyDenyRule)));
    let source = denied.denied_by().and_then(|by| by.source.clone()).expect("the rule");
    assert_eq!(source.to_string(), "default/web[0].ingressDeny[0]");
}

/// Everything that is pinned, byte for byte; times aside nothing of it may move by a simulation.
fn content(root: &BpfRoot) -> BTreeMap<String, Vec<u8>> {
    let mut content = BTreeMap::new();
    for pin in fs::read_dir(root.maps()).expect("pins") {
        let pin = pin.expect("readable");
        let map = MapHandle::from_pinned_path(pin.path()).expect("a map");
        if map.map_type() == MapType::RingBuf {
            continue;
        }
        let mut bytes = Vec::new();
        let per_cpu = [MapType::PercpuArray, MapType::PercpuHash, MapType::LruPercpuHash].contains(&map.map_type());
        let mut keys: Vec<_> = map.keys().collect();
        keys.sort();
        for key in keys {
            bytes.extend_from_slice(&key);
            if per_cpu {
                bytes.extend(map.lookup_percpu(&key, MapFlags::ANY).expect("readable").into_iter().flatten().flatten());
            } else {
                bytes.extend(map.lookup(&key, MapFlags::ANY).expect("readable").into_iter().flatten());
            }
        }
        content.insert(pin.file_name().to_string_lossy().into_owned(), bytes);
    }
    content
}

fn pins(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        found.push(path.display().to_string());
        if path.is_dir() {
            found.extend(pins(&path));
        }
    }
    found.sort();
    found
}

#[test]
fn nothing_that_is_live_moves_and_nothing_stays() {
    let world = World::with_policy();
    arrives(&world.pods[0], &world.pods[2], world.other.ipv4().expect("IPv4").into());
    // Of themselves, stacks send neighbour discovery; now they can't.
    for netns in world.pods.iter().chain([&world.node.netns]) {
        let socket = netns.socket();
        for link in socket.links().expect("devices").into_iter().filter(|link| link.name != "lo") {
            socket.link_set_down(link.index).expect("down");
        }
    }
    let (maps, before) = (pins(world.node.bpf.path()), content(&world.node.bpf));
    world.simulate(|simulator| {
        let trial = world.datapath.policy().try_out(policy(&ONLY_CLIENTS.replace("81", "80"))).expect("a policy");
        for _ in 0..3 {
            for (from, to) in [(&world.client, &world.web), (&world.other, &world.web), (&world.web, &world.other)] {
                for packet in [Packet::tcp(at(from), at(to), 80), Packet::udp(at(from), at(to), 53).ipv6()] {
                    simulator.run(&packet).expect("a packet");
                    simulator.run_under(&trial, &packet).expect("a packet");
                }
            }
            simulator.run(&Packet::raw(Entry::FromEndpoint("1".parse().expect("a number")), [0; 60])).ok();
        }
        assert_eq!(pins(world.node.bpf.path()), maps, "while it exists");
    });
    let after = content(&world.node.bpf);
    for (name, bytes) in &before {
        assert!(after[name] == *bytes, "{name} changed");
    }
    assert_eq!(before.len(), after.len());
    assert_eq!(pins(world.node.bpf.path()), maps);
}

/// What a process that died while it loaded has left is no obstacle, and goes.
#[test]
fn leftovers_go() {
    let world = World::new();
    let folder = world.node.bpf.path().join("podwire/simulator");
    fs::create_dir(&folder).expect("a folder");
    let map = world.node.bpf.maps().join("cilium_lxc");
    MapHandle::from_pinned_path(map).and_then(|mut map| map.pin(folder.join("cilium_lxc"))).expect("a pin");
    assert!(world.run(&Packet::tcp(at(&world.client), at(&world.web), 80)).allowed);
    assert!(!folder.exists());
    fs::create_dir(&folder).expect("a folder");
    let World { datapath, node, .. } = world;
    drop(datapath);
    node.netns.run(|| Datapath::cleanup(node.bpf.path(), &node.state_dir())).expect("it is podwire's own");
    assert!(!folder.exists());
}

#[test]
fn a_candidate_is_tried_out_beside_what_is_in_force() {
    let world = World::with_policy();
    let packet = Packet::tcp(at(&world.other), at(&world.web), 80);
    let opened = ONLY_CLIENTS.replace(r#""app": "client""#, r#""app": "other""#);
    let beside =
        r#"{"endpointSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"fromCIDR": ["203.0.113.0/24"]}]}"#;
    world.simulate(|simulator| {
        let trial = world.datapath.policy().try_out(policy(&opened)).expect("a policy");
        for round in 0..2 {
            assert!(!simulator.run(&packet).expect("a packet").allowed, "live, round {round}");
            let tried = simulator.run_under(&trial, &packet).expect("a packet");
            assert!(tried.allowed, "tried out, round {round}: {tried:?}");
            let source = tried.policies[1].source.as_ref().expect("its rule");
            assert_eq!(source.to_string(), "default/web[0].ingress[0]");
        }
        // A prefix that nothing in force names.
        let trial = world.datapath.policy().try_out(policy(beside)).expect("a policy");
        for (from, allowed) in [("203.0.113.9", true), ("203.0.114.9", false)] {
            let packet = Packet::tcp(place(from), at(&world.web), 9);
            assert!(!simulator.run(&packet).expect("a packet").allowed, "live, {from}");
            let tried = simulator.run_under(&trial, &packet).expect("a packet");
            assert_eq!(tried.allowed, allowed, "{from}: {tried:?}");
            let source = tried.source.expect("an IP packet");
            assert_eq!(source.identity.is_cidr(), allowed, "{from}: {source:?}");
            assert_eq!(source.identity, tried.policies[0].peer, "the programs see it so, too");
        }
    });
    assert!(!world.datapath.policy().policies().iter().any(|policy| policy.name.is_empty()));
}

/// A reply, and a packet after the policy changed, are judged as parts of their connection.
#[test]
fn an_open_connection_is_known() {
    let world = World::with_policy();
    let (client, web) = (&world.pods[0], &world.pods[1]);
    let server = web.run(|| UdpSocket::bind((world.web4(), 53)).expect("bind"));
    let sender = client.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind"));
    server.set_read_timeout(Some(common::node::PATIENCE)).expect("a timeout");
    sender.send_to(b"ping", (world.web4(), 53)).expect("sent");
    let (_, peer) = server.recv_from(&mut [0; 16]).expect("it arrives");
    let reply = Packet::udp(at(&world.web), Place::Address(peer.ip()), peer.port()).source_port(53);
    let again = Packet::udp(at(&world.client), at(&world.web), 53).source_port(peer.port());
    let stray = Packet::udp(at(&world.web), Place::Address(peer.ip()), peer.port()).source_port(54);

    let verdict = world.run(&reply);
    assert!(verdict.allowed, "{verdict:?}");
    assert_eq!(verdict.relation, Relation::Reply);
    let before = verdict.connection_before.expect("it is known");
    assert_eq!((before.state, before.forward.packets), (CtState::New, 1));
    let after = verdict.connection_after.expect("it still is");
    assert_eq!((after.state, after.reply.packets), (CtState::Established, 1));
    // The policies asked are those of the packet that opened it.
    assert_eq!(
        verdict.policies.iter().map(|judgement| judgement.endpoint).collect::<Vec<_>>(),
        [world.client.id(), world.web.id()]
    );
    assert_eq!(world.run(&again).relation, Relation::Established);
    assert_eq!(world.run(&stray).relation, Relation::New);

    // The client may no longer ask, and the server still send, but not open anything in the place of what was ended.
    world.datapath.policy().upsert(policy(&ONLY_CLIENTS.replace("53", "54"))).expect("in force");
    let verdict = world.run(&again);
    assert_eq!((verdict.allowed, verdict.relation), (false, Relation::Established));
    let verdict = world.run(&reply);
    assert_eq!((verdict.allowed, verdict.relation), (true, Relation::None), "{verdict:?}");
    let opened_by = |connection: Option<podwire::tables::Connection>| connection.map(|it| it.opener.source().ip());
    let ends = (opened_by(verdict.connection_before), opened_by(verdict.connection_after));
    assert_eq!(ends, (Some(peer.ip()), Some(peer.ip())));
    // Nor may that.
    let closed = r#"{"endpointSelector": {"matchLabels": {"app": "client"}}, "ingress": [{}]}"#;
    world.datapath.policy().upsert(policy(closed)).expect("in force");
    let verdict = world.run(&reply);
    assert_eq!((verdict.allowed, verdict.reason()), (false, Some(DropReason::PolicyDenied)));
    assert_eq!(verdict.relation, Relation::None, "{verdict:?}");
    let asked: Vec<_> = verdict.policies.iter().map(|judgement| judgement.endpoint).collect();
    assert_eq!(asked, [world.web.id(), world.client.id()], "of the packet itself");
    assert_eq!(opened_by(verdict.connection_after), Some(peer.ip()));
}

#[test]
fn from_outside_from_the_host_and_to_both() {
    let world = World::with_policy();
    let host = world.datapath.node().router_ipv4.expect("IPv4");
    let table = [
        (Packet::tcp(place("world"), at(&world.web), 80), false),
        (Packet::tcp(place("world"), at(&world.other), 80), true),
        (Packet::tcp(place("host"), at(&world.web), 9), true),
        (Packet::tcp(place("host"), at(&world.web), 9).ipv6(), true),
        (Packet::tcp(at(&world.client), place("host"), 9), true),
        (Packet::tcp(at(&world.client), place(&host.to_string()), 9), true),
        (Packet::tcp(at(&world.client), place("world"), 443), true),
        (Packet::tcp(at(&world.client), place("world"), 443).ipv6(), true),
        (Packet::tcp(at(&world.client), place("10.50.0.200"), 443), false),
        (Packet::udp(place("default/client"), place("default/web"), 53).hop_limit(1), false),
    ];
    world.simulate(|simulator| {
        for (packet, allowed) in &table {
            let verdict = simulator.run(packet).expect("a packet");
            assert_eq!(verdict.allowed, *allowed, "{packet:?}: {verdict:?}");
        }
        let verdict = simulator.run(&table[6].0).expect("a packet");
        let host = &world.datapath.node().host;
        assert!(matches!(&verdict.way, Way::Stack(device) if device.ifindex == host.ifindex), "{:?}", verdict.way);
        assert_eq!(verdict.destination.map(|side| side.identity), Some(SecurityId::WORLD_IPV4));
        let verdict = simulator.run(&table[2].0).expect("a packet");
        assert_eq!(verdict.source.map(|side| side.identity), Some(SecurityId::HOST));
        let verdict = simulator.run(&table[8].0).expect("a packet");
        assert_eq!(verdict.reason(), Some(DropReason::StaleOrUnroutable));
        let verdict = simulator.run(&table[9].0).expect("a packet");
        assert_eq!(verdict.reason(), Some(DropReason::TtlExceeded));
    });
}

#[test]
fn echo_requests_and_errors_about_connections() {
    let world = World::with_policy();
    world.simulate(|simulator| {
        for ipv6 in [false, true] {
            let echo = |from, to| if ipv6 { Packet::echo(from, to, 7).ipv6() } else { Packet::echo(from, to, 7) };
            let denied = simulator.run(&echo(at(&world.client), at(&world.web))).expect("a packet");
            assert_eq!(denied.reason(), Some(DropReason::PolicyDenied));
            let allowed = simulator.run(&echo(at(&world.client), at(&world.other))).expect("a packet");
            assert!(allowed.allowed && allowed.relation == Relation::New, "{allowed:?}");
        }
    });
    // An error about a connection passes for its sake, as long as that may be; about none it is judged by itself.
    let connection = Echo::connect(&world.pods[0], &world.pods[2], world.other.ipv4().expect("IPv4").into());
    world.datapath.policy().upsert(policy(CLIENTS_TO_OTHERS)).expect("in force");
    let live = world.datapath.node().router_ipv4.expect("IPv4");
    let known = live_connection(&world);
    for (source_port, relation) in [(known.source().port(), Relation::Related), (9, Relation::None)] {
        let (mut inner, mut error) = (Vec::new(), Vec::new());
        let ip = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets(),
            IpAddr::V6(_) => panic!("IPv4 was asked for"),
        };
        etherparse::PacketBuilder::ipv4(ip(known.source().ip()), ip(known.destination().ip()), 9)
            .tcp(source_port, known.destination().port(), 1, 1)
            .write(&mut inner, &[])
            .expect("into memory");
        let macs = (world.client.record.node_mac.octets(), world.client.record.mac.octets());
        etherparse::PacketBuilder::ethernet2(macs.0, macs.1)
            .ipv4(live.octets(), ip(known.source().ip()), 9)
            .icmpv4_raw(3, 1, [0; 4])
            .write(&mut error, &inner)
            .expect("into memory");
        let entry = Entry::ToEndpoint(podwire::endpoint::EndpointRef::Id(world.client.id()));
        let verdict = world.run(&Packet::raw(entry, error));
        assert_eq!((verdict.allowed, verdict.relation), (true, relation), "{verdict:?}");
        assert_eq!(verdict.policies.is_empty(), relation == Relation::Related);
    }
    drop(connection);
}

fn live_connection(world: &World) -> podwire::tables::FlowTuple {
    let table = podwire::tables::CtMap::open_pinned(world.node.bpf.maps()).expect("pinned");
    let connections = table.connections().expect("readable");
    let tcp = connections.iter().find(|connection| connection.opener.protocol() == podwire::tables::Protocol::TCP);
    tcp.expect("one is open").opener
}

#[test]
fn malformed_bytes_are_the_programs_to_judge() {
    let world = World::new();
    let id = || podwire::endpoint::EndpointRef::Id(world.client.id());
    let mac = world.client.record.mac.octets();
    let frame = |ethertype: [u8; 2], rest: &[u8]| [&[2; 6][..], &mac, &ethertype, rest].concat();
    let table = [
        (frame([8, 0], &[0x45; 30]), DropReason::InvalidPacket),
        (frame([8, 0], &[0x95; 30]), DropReason::InvalidPacket),
        (frame([0x86, 0xdd], &[0x60; 60]), DropReason::InvalidPacket),
        (frame([0x81, 0], &[0; 40]), DropReason::VlanFiltered),
        (frame([0x12, 0x34], &[0; 40]), DropReason::UnsupportedL3Protocol),
        (vec![7; 60], DropReason::InvalidSourceMac),
    ];
    world.simulate(|simulator| {
        for (frame, reason) in table {
            let verdict = simulator.run(&Packet::raw(Entry::FromEndpoint(id()), frame.clone())).expect("a frame");
            assert_eq!((verdict.allowed, verdict.reason()), (false, Some(reason)), "{frame:02x?}");
        }
        // The kernel runs no program on these.
        for short in [vec![0; 13], frame([8, 0], &[0x45; 19]), frame([0x86, 0xdd], &[0x60; 39])] {
            let error = simulator.run(&Packet::raw(Entry::FromEndpoint(id()), short)).expect_err("no packet");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        let flags = Packet::tcp(at(&world.client), at(&world.web), 80).tcp_flags(TcpFlags::SYN | TcpFlags::FIN);
        assert_eq!(simulator.run(&flags).expect("a packet").reason(), Some(DropReason::InvalidPacket));
    });
}

#[test]
fn what_there_is_not_is_named() {
    let world = World::new();
    world.simulate(|simulator| {
        for (packet, kind, name) in [
            (Packet::tcp(place("default/nobody"), at(&world.web), 80), ErrorKind::NotFound, "default/nobody"),
            (Packet::tcp(at(&world.web), place("65535"), 80), ErrorKind::NotFound, "65535"),
            (Packet::tcp(place("10.0.0.1"), place("fd00::1"), 80), ErrorKind::InvalidInput, "fd00::1"),
            (Packet::raw(Entry::FromNetwork, [0; 60]), ErrorKind::NotFound, "native device"),
        ] {
            let error = simulator.run(&packet).expect_err(name);
            assert!(error.kind() == kind && error.to_string().contains(name), "{error}");
        }
    });
}

/// An address that somebody has is not the world's, and no more one that a policy names.
#[test]
fn the_world_has_an_address_that_nothing_is_known_of() {
    let node = TestNode::new();
    let pod = TestNetns::new();
    let socket = node.netns.socket();
    let device = |name| podwire::netlink::DeviceSpec { name, ..Default::default() };
    let wire = podwire::netlink::VethSpec { device: device("eth0"), peer: device("far0"), up: true };
    let native = socket.link_create_veth(&wire).expect("a wire").index;
    let address = "192.0.2.1/24".parse().expect("an address");
    socket.address_add(&podwire::netlink::AddressSpec::new(native, address)).expect("added");
    let datapath =
        node.try_open(TestNode::config().devices(podwire::Devices::Named(vec!["eth0".to_owned()]))).expect("opens");
    let web = node.create(&datapath, "default/web", &pod);
    let named = r#"{"endpointSelector": {}, "ingress": [{"fromCIDR": ["198.51.100.0/24", "2001:db8::/32"]}]}"#;
    datapath.policy().upsert(policy(named)).expect("in force");
    let other = r#"{"endpointSelector": {}, "ingress": [{"fromCIDR": ["203.0.113.0/24"]}]}"#;
    let trial = datapath.policy().try_out(policy(other)).expect("a policy");
    node.netns.run(|| {
        let mut simulator = datapath.simulator().expect("it loads");
        let packet = Packet::tcp(place("world"), at(&web), 80);
        for (verdict, address, identity) in [
            (simulator.run(&packet), "203.0.113.1", SecurityId::WORLD_IPV4),
            (simulator.run(&packet.clone().ipv6()), "3fff::1", SecurityId::WORLD_IPV6),
            (simulator.run_under(&trial, &packet), "198.18.0.1", SecurityId::WORLD_IPV4),
        ] {
            let verdict = verdict.expect("a packet");
            let source = verdict.source.as_ref().expect("an IP packet");
            assert_eq!((source.address.to_string(), source.identity), (address.to_owned(), identity));
            assert_eq!(verdict.reason(), Some(DropReason::PolicyDenied), "{verdict:?}");
        }
    });
}

/// ICMP is IPv4's and ICMPv6 IPv6's, whatever else a place has.
#[test]
fn icmp_goes_between_addresses_of_its_family() {
    let world = World::new();
    let echoes = r#"{"endpointSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"icmps": [{"fields": [{"family": "IPv4", "type": 8}, {"family": "IPv6", "type": 135}]}]}]}"#;
    world.datapath.policy().upsert(policy(echoes)).expect("in force");
    let (client, web) = (|| at(&world.client), || at(&world.web));
    world.simulate(|simulator| {
        for (packet, allowed) in [
            (Packet::icmp(client(), web(), 8, 1), true),
            (Packet::icmp(client(), web(), 13, 1), false),
            (Packet::icmpv6(client(), web(), 128, 1), false),
            (Packet::icmpv6(client(), web(), 128, 1).ipv6(), false),
        ] {
            let verdict = simulator.run(&packet).expect("a packet");
            assert_eq!(verdict.allowed, allowed, "{packet:?}: {verdict:?}");
        }
        let ipv6 = Place::Address(world.web.ipv6().expect("IPv6").into());
        let error = simulator.run(&Packet::icmp(client(), ipv6, 8, 1)).expect_err("not of its family");
        assert!(error.to_string().contains("no IPv4 addresses"), "{error}");
    });
}

/// The simulated verdict is that of a real packet.
#[test]
fn a_verdict_is_what_happens() {
    let world = World::with_policy();
    let ends = [(&world.client, &world.pods[0]), (&world.web, &world.pods[1]), (&world.other, &world.pods[2])];
    for (from, from_netns) in ends {
        for (to, to_netns) in ends.iter().filter(|(to, _)| to.id() != from.id()) {
            for port in [53u16, 54] {
                for address in to.record.addresses() {
                    let simulated = world.run(&Packet::udp(at(from), Place::Address(address), port)).allowed;
                    let real = reaches(from_netns, to_netns, address, port);
                    assert_eq!(simulated, real, "{} to {} port {port}", from.record.name, address);
                }
            }
        }
    }
}

/// Whether a datagram to a port arrives.
fn reaches(from: &TestNetns, to: &TestNetns, address: IpAddr, port: u16) -> bool {
    let server = to.run(|| UdpSocket::bind((address, port)).expect("bind"));
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0u8; 16].into() };
    let client = from.run(|| UdpSocket::bind((any, 0)).expect("bind"));
    server.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("a timeout");
    client.send_to(b"ping", (address, port)).is_ok() && server.recv(&mut [0; 16]).is_ok()
}

/// Through a native device the network's packets go to their endpoint, past the stack; and what is audited passes.
#[test]
fn from_the_network_and_under_audit() {
    let (node, pod) = (TestNode::new(), TestNetns::new());
    let socket = node.netns.socket();
    let device = |name| podwire::netlink::DeviceSpec { name, ..Default::default() };
    let wire = podwire::netlink::VethSpec { device: device("eth0"), peer: device("far0"), up: true };
    let native = socket.link_create_veth(&wire).expect("a wire").index;
    let config = TestNode::config().devices(podwire::Devices::Named(vec!["eth0".to_owned()]));
    let datapath = node.try_open(config).expect("opens");
    let web = node.create(&datapath, "default/web", &pod);
    let closed = r#"{"endpointSelector": {}, "ingress": [{"fromCIDR": ["198.51.100.0/24"]}]}"#;
    datapath.policy().upsert(policy(closed)).expect("in force");
    let run =
        |packet: Packet| node.netns.run(|| datapath.simulator().and_then(|mut s| s.run(&packet))).expect("a packet");

    let known = run(Packet::sctp(place("198.51.100.7"), at(&web), 9));
    assert!(known.allowed && known.program == "cil_from_netdev", "{known:?}");
    assert!(known.source.as_ref().is_some_and(|side| side.identity.is_cidr()), "{known:?}");
    let entry = known.connection_after.expect("it opens one");
    assert_eq!((entry.forward.in_device, entry.forward.out_device), (Some(native), Some(web.record.ifindex)));
    let denied = run(Packet::udp(place("world"), at(&web), 9));
    assert_eq!((denied.program, denied.reason()), ("cil_from_netdev", Some(DropReason::PolicyDenied)));
    let liar = run(Packet::udp(place("10.50.0.77"), at(&web), 9));
    assert_eq!((liar.reason(), liar.policies.len()), (Some(DropReason::InvalidSourceIp), 0));
    let passing = run(Packet::udp(place("world"), place("198.51.100.7"), 9));
    assert!(passing.allowed && matches!(&passing.way, Way::Stack(device) if device.ifindex == native), "{passing:?}");

    node.netns.run(|| datapath.endpoints().set_audit(web.id(), true)).expect("audited");
    let audited = run(Packet::udp(place("world"), at(&web), 9));
    assert!(audited.allowed && audited.policies[0].action == VerdictAction::Audit, "{audited:?}");
}
