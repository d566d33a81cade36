//! Connections of a whole node: opened by its programs, listed and collected by the library. Needs root.
mod common;

use std::time::{Duration, Instant};

use common::netns::TestNetns;
use common::node::{TestNode, exchange_udp};
use podwire::ErrorKind;
use podwire::conntrack::{Conntrack, CtFilter, CtLifetimes, ticks_per_second};
use podwire::program::{Constants, Program};
use podwire::tables::{CtState, Protocol};

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
