//! Connections of a whole node: opened by its programs, listed and collected by the library. Needs root.
mod common;

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use common::netns::TestNetns;
use common::node::{TestNode, exchange_udp};
use podwire::conntrack::{Conntrack, CtFilter, CtLifetimes, ticks_per_second};
use podwire::endpoint::EndpointSpec;
use podwire::ipam::Lifetime;
use podwire::program::{Constants, Program};
use podwire::tables::{CtState, Protocol};
use podwire::{Datapath, ErrorKind};

const LIFETIMES: CtLifetimes = CtLifetimes { tcp: 1000, tcp_syn: 20, closing: 3, any: 1 };

#[test]
fn a_connection_is_opened_listed_ends_and_is_collected() {
    let node = TestNode::new();
    let datapath = node.try_open(TestNode::config().connection_lifetimes(LIFETIMES)).expect("a node opens");
    let (a, b) = (TestNetns::new(), TestNetns::new());
    let [from, to] = [("default/a", &a), ("default/b", &b)].map(|(name, pod)| node.create(&datapath, name, pod));
    let server = to.ipv4().expect("an address").into();
    exchange_udp(&a, &b, server);

    let conntrack = datapath.conntrack();
    let listed = conntrack.list(&CtFilter::endpoint(to.id(), [server])).expect("readable");
    let udp: Vec<_> = listed.iter().filter(|connection| connection.opener.protocol() == Protocol::UDP).collect();
    let [connection] = udp[..] else { panic!("one connection: {listed:?}") };
    assert_eq!(connection.opener.destination().ip(), server);
    assert_eq!((connection.state, connection.forward.lifetime), (CtState::Established, LIFETIMES.any));
    assert_eq!((connection.forward.packets, connection.reply.packets), (1, 1));
    assert_eq!(connection.forward.receiver, Some(to.id()));
    assert_eq!(connection.reply.receiver, Some(from.id()));
    assert_eq!(conntrack.errors().counts().expect("readable"), []);

    // A second of life, and one more until it may go.
    let deadline = Instant::now() + Duration::from_secs(60);
    let opener = connection.opener;
    while conntrack.connections().lookup(&opener).expect("readable").is_some() {
        conntrack.collect(|| false).expect("collectable");
        assert!(Instant::now() < deadline, "{opener} is still there");
    }
    let now = conntrack.clock().now().expect("callable");
    assert!(now.seconds_until(connection.expires()) <= -1, "it was collected before its time");
    exchange_udp(&a, &b, server);

    conntrack.collect(|| false).expect("collectable");
    let (entries, pressure) = conntrack.occupancy().expect("counted");
    let overview = datapath.maps().expect("maps").into_iter().find(|map| map.name == "podwire_ct").expect("listed");
    assert_eq!((overview.entries, overview.pressure), (Some(entries), Some(pressure)));
    assert_eq!(datapath.collect_connections(|| false).expect("collectable"), None, "just done");
}

#[test]
fn lifetimes_are_constants_of_the_programs() {
    let node = TestNode::new();
    let datapath = node.try_open(TestNode::config().connection_lifetimes(LIFETIMES)).expect("a node opens");
    let programs = node.bpf.programs().join(&datapath.node().generation);
    for (program, lifetimes) in [("cil_from_container", true), ("podwire_ct_collect", false)] {
        let program = Program::open_pinned(&programs.join(program)).expect("pinned");
        let constants = Constants::of(&program).expect("readable");
        let value =
            |name: &str| constants.bytes(name).map(|bytes| u32::from_ne_bytes(bytes.try_into().expect("4 bytes")));
        assert_eq!(value("cfg_ticks_per_second"), Some(ticks_per_second()));
        if lifetimes {
            let names = ["tcp", "tcp_syn", "closing", "any"].map(|name| value(&format!("cfg_ct_lifetime_{name}")));
            assert_eq!(names, [1000, 20, 3, 1].map(Some));
        }
    }
    drop(datapath);
    let bad = TestNode::config().connection_lifetimes(CtLifetimes { tcp: 0, ..LIFETIMES });
    assert_eq!(node.try_open(bad).err().expect("refused").kind(), ErrorKind::InvalidInput);
    // Without the process that opened it: from its pins.
    let conntrack = Conntrack::open_pinned(&node.bpf.maps(), &node.bpf.programs()).expect("pinned");
    conntrack.list(&CtFilter::all()).expect("readable");
}

/// A datagram from a pod to another one, which opens a connection that nobody answers.
fn opens_a_connection(datapath: &Datapath, from: &TestNetns, source: IpAddr, to: IpAddr) {
    let socket = from.run(|| UdpSocket::bind((source, 5353)).expect("bind"));
    socket.send_to(b"ask", (to, 9999)).expect("sent");
    let deadline = Instant::now() + Duration::from_secs(5);
    while connections_of(datapath, source) == 0 {
        assert!(Instant::now() < deadline, "no connection was opened");
    }
}

fn connections_of(datapath: &Datapath, address: IpAddr) -> usize {
    datapath.conntrack().list(&CtFilter::address(address)).expect("readable").len()
}

#[test]
fn who_gets_an_address_does_not_inherit_its_connections() {
    let node = TestNode::new();
    let datapath = node.open();
    let (server, a, heir) = (TestNetns::new(), TestNetns::new(), TestNetns::new());
    let to = node.create(&datapath, "default/server", &server).ipv4().expect("IPv4").into();
    let first = node.create(&datapath, "default/a", &a);
    let address = first.ipv4().expect("IPv4");
    opens_a_connection(&datapath, &a, address.into(), to);
    datapath.endpoints().delete(first.id()).expect("deleted");

    // At once: the very next one has the address.
    datapath.ipam().allocate(address.into(), "heir", Lifetime::Permanent).expect("free");
    let spec = EndpointSpec::new("heir").netns(heir.path()).ipv4(Some((address, None)));
    let second = node.netns.run(|| datapath.endpoints().create(spec)).expect("created");
    assert_eq!(connections_of(&datapath, address.into()), 0);

    // Nor after a while, or after a restart; what lives stays.
    opens_a_connection(&datapath, &heir, address.into(), to);
    datapath.endpoints().scrub().expect("scrubbed");
    assert_eq!(connections_of(&datapath, address.into()), 1);
    datapath.endpoints().delete(second.id()).expect("deleted");
    node.netns.run(|| datapath.maintain()).expect("maintained");
    assert_eq!(connections_of(&datapath, address.into()), 0);

    let b = TestNetns::new();
    let third = node.create(&datapath, "default/b", &b);
    let (stays, goes) = (to, third.ipv4().expect("IPv4").into());
    opens_a_connection(&datapath, &b, goes, stays);
    opens_a_connection(&datapath, &server, stays, "192.0.2.1".parse().expect("an address"));
    datapath.endpoints().delete(third.id()).expect("deleted");
    drop(datapath);
    let datapath = node.open();
    let c = TestNetns::new();
    node.create(&datapath, "default/c", &c);
    assert_eq!((connections_of(&datapath, goes), connections_of(&datapath, stays)), (0, 1));
}
