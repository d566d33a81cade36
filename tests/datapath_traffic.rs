//! Pods and the host talk to each other, with either way of attaching. Needs root.
mod common;

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use common::bpf::tcx_or_skip;
use common::netns::TestNetns;
use common::node::{Echo, TestNode, arrives, exchange_udp};
use podwire::abi::ForwardPoint;
use podwire::netlink::{AddressSpec, DeviceSpec, RouteSpec, VethSpec};
use podwire::{AttachMode, Devices};

fn both_families(endpoint: &podwire::endpoint::Endpoint) -> [IpAddr; 2] {
    [endpoint.ipv4().expect("IPv4").into(), endpoint.ipv6().expect("IPv6").into()]
}

fn pods_talk(mode: AttachMode) {
    let (node, a, b) = (TestNode::new(), TestNetns::new(), TestNetns::new());
    let datapath = node.open_with(mode);
    node.create(&datapath, "default/a", &a);
    let server = node.create(&datapath, "default/b", &b);
    for address in both_families(&server) {
        // The very first packet of a pod's life gets through.
        assert!(arrives(&a, &b, address), "{address}");
        exchange_udp(&a, &b, address);
        let mut connection = Echo::connect(&a, &b, address);
        connection.exchange(1);
        connection.exchange(3_000_000);
    }
    let (packets, bytes) = datapath.forwards().count(ForwardPoint::PodToPod).expect("counted");
    assert!(packets > 100 && bytes > 6_000_000, "{packets} packets, {bytes} bytes");
}

#[test]
fn pods_talk_with_clsact() {
    pods_talk(AttachMode::Clsact);
}

#[test]
fn pods_talk_with_tcx() {
    if tcx_or_skip() {
        pods_talk(AttachMode::Tcx);
    }
}

#[test]
fn pods_and_the_host_talk() {
    let (node, pod) = (TestNode::new(), TestNetns::new());
    let datapath = node.open();
    let endpoint = node.create(&datapath, "default/a", &pod);
    let router = [datapath.node().router_ipv4.expect("IPv4").into(), datapath.node().router_ipv6.expect("IPv6").into()];
    for (address, router) in both_families(&endpoint).into_iter().zip(router) {
        exchange_udp(&node.netns, &pod, address);
        exchange_udp(&pod, &node.netns, router);
        Echo::connect(&node.netns, &pod, address).exchange(200_000);
        Echo::connect(&pod, &node.netns, router).exchange(200_000);
    }
}

/// A strict reverse path filter on all devices, which an operator may have set, must not matter.
#[test]
fn a_strict_reverse_path_filter_is_no_obstacle() {
    let (node, pod) = (TestNode::new(), TestNetns::new());
    node.netns.run(|| std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1")).expect("set in the namespace");
    let datapath = node.open();
    let endpoint = node.create(&datapath, "default/a", &pod);
    exchange_udp(&node.netns, &pod, endpoint.ipv4().expect("IPv4").into());
    exchange_udp(&pod, &node.netns, datapath.node().router_ipv4.expect("IPv4").into());
    let all = node.netns.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/rp_filter"));
    assert_eq!(all.expect("readable").trim(), "1", "it was lowered");
}

/// Another host on a native device: pods reach it and are reached by it.
#[test]
fn pods_reach_the_network_and_back() {
    let (node, pod, outside) = (TestNode::new(), TestNetns::new(), TestNetns::new());
    let socket = node.netns.socket();
    let spec = VethSpec {
        device: DeviceSpec { name: "eth0", ..DeviceSpec::default() },
        peer: DeviceSpec {
            name: "eth0",
            netns: Some(std::os::fd::AsFd::as_fd(outside.netns())),
            ..DeviceSpec::default()
        },
        up: true,
    };
    let pair = socket.link_create_veth(&spec).expect("a wire");
    let far = outside.socket();
    far.link_set_up(pair.peer_index).expect("up");
    for (near_address, far_address, pods) in
        [("192.168.77.1/24", "192.168.77.2/24", "10.50.0.0/24"), ("fd00:77::1/64", "fd00:77::2/64", "fd00:50::/120")]
    {
        let near: ipnetwork::IpNetwork = near_address.parse().expect("a prefix");
        socket.address_add(&AddressSpec::new(pair.index, near)).expect("near");
        far.address_add(&AddressSpec::new(pair.peer_index, far_address.parse().expect("a prefix"))).expect("far");
        far.route_add(&RouteSpec::new(pods.parse().expect("a prefix")).gateway(near.ip()))
            .expect("a route to the pods");
    }
    let config = TestNode::config().devices(Devices::Named(vec!["eth0".to_owned()]));
    let datapath = node.try_open(config).expect("opens");
    let endpoint = node.create(&datapath, "default/a", &pod);
    for (address, outer) in both_families(&endpoint).into_iter().zip(["192.168.77.2", "fd00:77::2"]) {
        exchange_udp(&pod, &outside, outer.parse().expect("an address"));
        exchange_udp(&outside, &pod, address);
        Echo::connect(&outside, &pod, address).exchange(200_000);
        Echo::connect(&pod, &outside, outer.parse().expect("an address")).exchange(200_000);
    }
    let (packets, _) = datapath.forwards().count(ForwardPoint::NetworkToPod).expect("counted");
    assert!(packets > 0, "what the network sends to pods goes past the stack");
}

/// Whether a datagram that bears this source arrives.
fn arrives_as(source: IpAddr, from: &TestNetns, to: &TestNetns, address: IpAddr) -> bool {
    let server = to.run(|| UdpSocket::bind((address, 0)).expect("bind in the pod"));
    let client = from.run(|| UdpSocket::bind((source, 0)).expect("bind to the source"));
    server.set_read_timeout(Some(Duration::from_millis(500))).expect("set a timeout");
    client.send_to(b"ping", server.local_addr().expect("bound")).expect("send");
    server.recv(&mut [0; 16]).is_ok()
}

/// A network behind a device that bears no program of ours: what comes from there the host forwards.
#[test]
fn who_is_behind_another_device_speaks_for_itself_alone() {
    let (node, a, b, outside) = (TestNode::new(), TestNetns::new(), TestNetns::new(), TestNetns::new());
    let socket = node.netns.socket();
    let spec = VethSpec {
        device: DeviceSpec { name: "bridge0", ..DeviceSpec::default() },
        peer: DeviceSpec {
            name: "eth0",
            netns: Some(std::os::fd::AsFd::as_fd(outside.netns())),
            ..DeviceSpec::default()
        },
        up: true,
    };
    let pair = socket.link_create_veth(&spec).expect("a wire");
    let far = outside.socket();
    far.link_set_up(pair.peer_index).expect("up");
    let datapath = node.open();
    // Where the operator has it on, it stops IPv4 before us.
    for device in ["all", "bridge0"] {
        let filter = format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
        node.netns.run(|| std::fs::write(&filter, "0")).expect("set in the namespace");
    }
    let pretended = node.create(&datapath, "default/a", &a);
    let server = node.create(&datapath, "default/b", &b);
    let wires = [
        ("172.31.0.1/24", "172.31.0.2/24", "10.50.0.0/24", datapath.node().router_ipv4.map(IpAddr::from)),
        ("fd55::1/64", "fd55::2/64", "fd00:50::/120", datapath.node().router_ipv6.map(IpAddr::from)),
    ];
    let pods = both_families(&pretended).into_iter().zip(both_families(&server));
    for ((pod, address), (near, own, range, router)) in pods.zip(wires) {
        let near: ipnetwork::IpNetwork = near.parse().expect("a prefix");
        let own: ipnetwork::IpNetwork = own.parse().expect("a prefix");
        socket.address_add(&AddressSpec::new(pair.index, near)).expect("near");
        far.address_add(&AddressSpec::new(pair.peer_index, own)).expect("far");
        far.route_add(&RouteSpec::new(range.parse().expect("a prefix")).gateway(near.ip())).expect("a route");
        let liar = |source: IpAddr| {
            let spec = AddressSpec::new(pair.peer_index, source.into());
            far.address_add(&spec).expect("an address that is another's");
            arrives_as(source, &outside, &b, address)
        };
        exchange_udp(&outside, &b, address);
        assert!(!liar(pod), "{pod} from outside");
        assert!(!liar(router.expect("both families")), "{router:?} from outside");
        assert!(arrives(&a, &b, address) && arrives(&node.netns, &b, address));
    }
    let counters = datapath.metrics().counters().expect("counters");
    let dropped: u64 = counters
        .iter()
        .filter(|counter| counter.counted.reason.to_string() == "Invalid source ip")
        .map(|counter| counter.packets)
        .sum();
    // The kernel itself stops IPv4 with the host's address.
    assert_eq!(dropped, 3, "{counters:?}");
}

#[test]
fn a_pod_that_lies_about_its_address_is_not_heard() {
    let (node, a, b) = (TestNode::new(), TestNetns::new(), TestNetns::new());
    let datapath = node.open();
    node.create(&datapath, "default/a", &a);
    let server = node.create(&datapath, "default/b", &b);
    let address = server.ipv4().expect("IPv4").into();
    assert!(arrives(&a, &b, address));
    // The pod replaces its address by one that is not its own.
    let inside = a.socket();
    let device = inside.link_by_name("eth0").expect("its device").index;
    let mut routes: Vec<_> =
        inside.routes().expect("routes").into_iter().filter(|route| route.destination.is_ipv4()).collect();
    // The gateway has to be reachable before anything goes through it.
    routes.sort_by_key(|route| std::cmp::Reverse(route.destination.prefix()));
    for old in inside.addresses(Some(device)).expect("addresses").iter().filter(|address| address.address.is_ipv4()) {
        inside.address_delete(device, old.address).expect("removed");
    }
    inside.address_add(&AddressSpec::new(device, "10.50.0.200/32".parse().expect("a prefix"))).expect("added");
    for route in routes.iter().filter(|route| route.table == 254) {
        inside.route_replace(route).expect("restored");
    }
    assert!(!arrives(&a, &b, address), "a spoofed source was delivered");
    let counters = datapath.metrics().counters().expect("counters");
    let dropped = counters.iter().find(|counter| counter.counted.reason.to_string() == "Invalid source ip");
    assert!(dropped.is_some_and(|counter| counter.packets >= 1), "{counters:?}");
}
