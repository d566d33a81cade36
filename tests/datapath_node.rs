//! The node's own addresses and native devices, at the start and as they come and go. Needs root.
mod common;

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::Command;

use common::netns::TestNetns;
use common::node::{TestNode, arrives, exchange_udp};
use podwire::abi::ForwardPoint;
use podwire::endpoint::EndpointSpec;
use podwire::netlink::{AddressSpec, DeviceSpec, LinkChange, RouteSpec, VethSpec};
use podwire::policy::Policy;
use podwire::sysctl::{Key, Sysctls};
use podwire::tables::{LxcEntry, LxcMap};
use podwire::{Datapath, Devices, Health, IfIndex, Labels, MacAddr, NodeConfig, SecurityId};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn loopback(node: &TestNode) -> IfIndex {
    node.netns.socket().link_by_name("lo").expect("always there").index
}

fn add_address(node: &TestNode, device: IfIndex, address: &str) {
    let spec = AddressSpec::new(device, address.parse().expect("a prefix"));
    node.netns.socket().address_add(&spec).expect("added");
}

fn remove_address(node: &TestNode, device: IfIndex, address: &str) {
    node.netns.socket().address_delete(device, address.parse().expect("a prefix")).expect("removed");
}

fn maintain(node: &TestNode, datapath: &Datapath) {
    node.netns.run(|| datapath.maintain()).expect("maintained");
}

/// Whether an address is the host's, for the programs and for policies.
fn is_host(node: &TestNode, datapath: &Datapath, address: IpAddr) -> bool {
    let lxc = LxcMap::open_pinned(node.bpf.maps()).expect("the pin");
    let row = lxc.lookup(address).expect("readable") == Some(LxcEntry::Host);
    let peer = datapath.ipcache().longest_match(address).expect("the world at least");
    assert_eq!(row, peer.entry.identity == SecurityId::HOST, "{address}: the maps disagree");
    row
}

#[test]
fn every_address_of_the_node_is_the_hosts() {
    let (node, pod) = (TestNode::new(), TestNetns::new());
    let lo = loopback(&node);
    for address in ["198.18.2.2/32", "fd00:18::2/128"] {
        add_address(&node, lo, address);
    }
    let datapath = node.open();
    let spec = EndpointSpec::new("default/a").labels(Labels::parse(["k8s:app=a"]).expect("labels"));
    node.netns.run(|| datapath.endpoints().create(spec.netns(pod.path()))).expect("created");
    for address in ["198.18.2.2", "fd00:18::2"].map(ip) {
        assert!(is_host(&node, &datapath, address), "{address}");
        assert!(arrives(&pod, &node.netns, address), "{address}");
    }
    for address in ["127.0.0.1", "::1"].map(ip) {
        assert!(!datapath.node().addresses().any(|own| own == address));
    }
    let policy = r#"{"endpointSelector": {}, "egress": [{"toEntities": ["world"]}],
        "egressDeny": [{"toEntities": ["host"]}]}"#;
    datapath.policy().upsert(Policy::from_json(policy).expect("a policy")).expect("in force");
    for address in ["198.18.2.2", "fd00:18::2"].map(ip) {
        assert!(!arrives(&pod, &node.netns, address), "{address} is taken for the world's");
    }

    // While it is open.
    for (prefix, address) in [("198.18.0.9/32", ip("198.18.0.9")), ("fd00:18::9/128", ip("fd00:18::9"))] {
        add_address(&node, lo, prefix);
        maintain(&node, &datapath);
        assert!(is_host(&node, &datapath, address), "{address}");
        assert!(!arrives(&pod, &node.netns, address), "{address} is taken for the world's");
        remove_address(&node, lo, prefix);
        maintain(&node, &datapath);
        assert!(!is_host(&node, &datapath, address), "{address} is the node's no more");
    }
    assert!(is_host(&node, &datapath, ip("198.18.2.2")), "the others stay");

    // While it is not.
    drop(datapath);
    remove_address(&node, lo, "198.18.2.2/32");
    let datapath = node.open();
    node.netns.run(|| datapath.mark_synced()).expect("synced");
    assert!(!is_host(&node, &datapath, ip("198.18.2.2")));
    assert!(is_host(&node, &datapath, ip("fd00:18::2")));
}

#[test]
fn an_address_that_a_pod_has_stays_the_pods() {
    let (node, a, b) = (TestNode::new(), TestNetns::new(), TestNetns::new());
    let datapath = node.open();
    node.create(&datapath, "default/a", &a);
    let server = node.create(&datapath, "default/b", &b);
    let (lo, address) = (loopback(&node), IpAddr::from(server.ipv4().expect("IPv4")));
    let prefix = format!("{address}/32");
    add_address(&node, lo, &prefix);
    maintain(&node, &datapath);
    assert!(!is_host(&node, &datapath, address));
    assert!(arrives(&a, &b, address));
    remove_address(&node, lo, &prefix);
    maintain(&node, &datapath);
    assert!(arrives(&a, &b, address));
    // Once the pod has gone, it is the node's.
    add_address(&node, lo, &prefix);
    maintain(&node, &datapath);
    node.netns.run(|| datapath.endpoints().delete(server.id())).expect("deleted");
    maintain(&node, &datapath);
    assert!(is_host(&node, &datapath, address));
}

/// What other programs take away comes back: a network manager that restarts, `sysctl --system`.
#[test]
fn what_others_take_away_is_put_back() {
    let (node, pod) = (TestNode::new(), TestNetns::new());
    let datapath = node.open();
    let endpoint = node.create(&datapath, "default/a", &pod);
    let (ipv4, ipv6) = (IpAddr::from(endpoint.ipv4().expect("IPv4")), IpAddr::from(endpoint.ipv6().expect("IPv6")));
    let routing = || {
        let status = node.netns.run(|| datapath.status());
        let part = status.parts.into_iter().find(|(part, _)| part == "routing");
        part.expect("it is one of the parts").1
    };
    let socket = node.netns.socket();
    let host = datapath.node().host.ifindex;
    let forwards = Key::new(["net", "ipv4", "ip_forward"]).expect("a key");
    let remove_routes = || {
        let routes = socket.routes().expect("routes");
        let ours = routes.iter().filter(|route| route.device == Some(host) && route.table == 254);
        let ours: Vec<_> =
            ours.filter(|route| route.destination.contains(ipv4) || route.destination.contains(ipv6)).collect();
        assert_eq!(ours.len(), 2);
        ours.iter().for_each(|route| socket.route_delete(route).expect("deleted"));
    };
    let remove_addresses = || {
        let addresses = socket.addresses(Some(host)).expect("addresses");
        addresses.iter().for_each(|it| socket.address_delete(host, it.address).expect("deleted"));
    };
    let take_down = || {
        let down = LinkChange { up: Some(false), ..LinkChange::default() };
        socket.link_set(host, &down).expect("down");
    };
    let stop_forwarding = || node.netns.run(|| Sysctls::system().write(&forwards, "0")).expect("written");
    let takes: [(&str, &dyn Fn()); 4] = [
        ("no route to 10.50.0.0/24 by cilium_host", &remove_routes),
        ("cilium_host has not 10.50.0.1", &remove_addresses),
        ("cilium_host is down", &take_down),
        ("sysctl net.ipv4.ip_forward was changed", &stop_forwarding),
    ];
    assert_eq!(routing(), Health::Ok);
    for (told, take) in takes {
        take();
        let Health::Degraded(reason) = routing() else { panic!("{told}: not noticed") };
        assert!(reason.contains(told), "{reason}");
        maintain(&node, &datapath);
        assert_eq!(routing(), Health::Ok, "{told}");
        assert!(arrives(&node.netns, &pod, ipv4) && arrives(&node.netns, &pod, ipv6), "{told}");
    }
}

/// How the kernel says that a device came by its MAC address, as systemd-udevd reads it before it changes one.
fn mac_origin(node: &TestNode, device: &str) -> String {
    let script = format!("mount -t sysfs sysfs /sys && cat /sys/class/net/{device}/addr_assign_type");
    let namespace = format!("--net={}", node.netns.path().display());
    let output = Command::new("nsenter").args([&namespace, "unshare", "--mount", "sh", "-c", &script]).output();
    let output = output.expect("nsenter runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn the_nodes_devices_have_macs_that_nobody_chose_for_them() {
    /// `NET_ADDR_SET` of linux/netdevice.h.
    const SET: &str = "3";
    let node = TestNode::new();
    drop(node.open());
    for device in ["cilium_host", "cilium_net"] {
        assert_eq!(mac_origin(&node, device), SET, "{device}");
    }

    // Those of an earlier build, which left the choice to the kernel, keep what they have.
    let node = TestNode::new();
    let [device, peer] = ["cilium_host", "cilium_net"].map(|name| DeviceSpec { name, ..DeviceSpec::default() });
    let pair = node.netns.socket().link_create_veth(&VethSpec { device, peer, up: true }).expect("created");
    for (index, mark) in [(pair.index, "podwire_host"), (pair.peer_index, "podwire_net")] {
        node.netns.socket().link_add_alt_name(index, mark).expect("marked");
    }
    assert_ne!(mac_origin(&node, "cilium_host"), SET);
    let datapath = node.open();
    assert_eq!(datapath.node().host.mac, pair.mac);
    for device in ["cilium_host", "cilium_net"] {
        assert_eq!(mac_origin(&node, device), SET, "{device}");
    }
}

/// As systemd-udevd does, or whoever clones addresses.
#[test]
fn another_mac_of_cilium_host_is_put_back() {
    let (node, pod) = (TestNode::new(), TestNetns::new());
    let datapath = node.open();
    node.create(&datapath, "default/a", &pod);
    let (host, router) = (datapath.node().host.clone(), IpAddr::from(datapath.node().router_ipv4.expect("IPv4")));
    assert!(arrives(&pod, &node.netns, router));
    let other = MacAddr::new([2, 0, 0, 0, 0, 1]);
    let change = LinkChange { mac: Some(other), ..LinkChange::default() };
    node.netns.socket().link_set(host.ifindex, &change).expect("changed");
    assert!(!arrives(&pod, &node.netns, router), "the programs send to the address that they know");
    let status = node.netns.run(|| datapath.status());
    let told = format!("cilium_host has the MAC address {other}, not its own");
    assert!(status.parts.contains(&("routing".to_owned(), Health::Degraded(told))), "{:?}", status.parts);
    maintain(&node, &datapath);
    assert_eq!(node.netns.socket().link_by_index(host.ifindex).expect("there").mac, Some(host.mac));
    assert!(arrives(&pod, &node.netns, router));
    assert!(node.netns.run(|| datapath.status()).is_ok());
}

/// A wire to another namespace, in which there is a route to the pods.
fn wire(node: &TestNode, outside: &TestNetns) -> IfIndex {
    let (socket, far) = (node.netns.socket(), outside.socket());
    let peer = DeviceSpec { name: "eth0", netns: Some(outside.netns().as_fd()), ..DeviceSpec::default() };
    let spec = VethSpec { device: DeviceSpec { name: "eth0", ..DeviceSpec::default() }, peer, up: true };
    let pair = socket.link_create_veth(&spec).expect("a wire");
    far.link_set_up(pair.peer_index).expect("up");
    add_address(node, pair.index, "192.168.77.1/24");
    let prefix = "192.168.77.2/24".parse().expect("a prefix");
    far.address_add(&AddressSpec::new(pair.peer_index, prefix)).expect("far");
    let pods = RouteSpec::new("10.50.0.0/24".parse().expect("a prefix")).gateway(ip("192.168.77.1"));
    far.route_add(&pods).expect("a route to the pods");
    pair.index
}

#[test]
fn programs_follow_the_default_routes() {
    let (node, pod, outside) = (TestNode::new(), TestNetns::new(), TestNetns::new());
    let datapath = node.try_open(TestNode::config().devices(Devices::Detect)).expect("opens");
    assert_eq!(datapath.node().devices, []);
    let endpoint = node.create(&datapath, "default/a", &pod);
    let address = endpoint.ipv4().expect("IPv4").into();
    let through_programs = || {
        let before = datapath.forwards().count(ForwardPoint::NetworkToPod).expect("counted");
        exchange_udp(&outside, &pod, address);
        datapath.forwards().count(ForwardPoint::NetworkToPod).expect("counted") != before
    };

    let eth0 = wire(&node, &outside);
    maintain(&node, &datapath);
    assert!(is_host(&node, &datapath, ip("192.168.77.1")), "no native device, but the node's");
    assert!(!through_programs());
    let default = RouteSpec::new("0.0.0.0/0".parse().expect("a prefix")).gateway(ip("192.168.77.2"));
    node.netns.socket().route_add(&default).expect("added");
    maintain(&node, &datapath);
    let names = || datapath.node().devices.iter().map(|device| device.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(), ["eth0"]);
    assert!(through_programs());
    let status = node.netns.run(|| datapath.status());
    assert!(status.is_ok() && status.parts.iter().any(|(part, _)| part == "device eth0"), "{:?}", status.parts);
    let saved = std::fs::read_to_string(node.state_dir().join("node_config.json")).expect("written");
    assert!(saved.contains("eth0"), "a clean-up has to know it: {saved}");

    node.netns.socket().route_delete(&default.device(eth0)).expect("deleted");
    maintain(&node, &datapath);
    assert_eq!(names(), Vec::<String>::new());
    assert!(!through_programs());
    assert!(is_host(&node, &datapath, ip("192.168.77.1")), "still the node's");
}

#[test]
fn a_named_device_that_comes_back_gets_its_programs() {
    let (node, pod, outside) = (TestNode::new(), TestNetns::new(), TestNetns::new());
    wire(&node, &outside);
    let datapath = node.try_open(TestNode::config().devices(Devices::Named(vec!["eth0".to_owned()]))).expect("opens");
    let endpoint = node.create(&datapath, "default/a", &pod);
    node.netns.socket().link_delete(datapath.node().devices[0].ifindex).expect("deleted");
    maintain(&node, &datapath);
    let status = node.netns.run(|| datapath.status());
    assert!(!status.is_ok(), "{:?}", status.parts);

    let anew = wire(&node, &outside);
    maintain(&node, &datapath);
    assert_eq!(datapath.node().devices[0].ifindex, anew);
    let status = node.netns.run(|| datapath.status());
    assert!(status.is_ok(), "{:?}", status.parts);
    exchange_udp(&outside, &pod, endpoint.ipv4().expect("IPv4").into());
    assert_ne!(datapath.forwards().count(ForwardPoint::NetworkToPod).expect("counted"), (0, 0));
}

#[test]
fn a_range_with_an_address_of_the_node_is_refused() {
    let node = TestNode::new();
    add_address(&node, loopback(&node), "10.50.0.7/32");
    let devices = node.devices();
    let error = node.try_open(TestNode::config()).err().expect("refused");
    assert_eq!(error.to_string(), "ipv4-range: \"10.50.0.0/24\": overlaps 10.50.0.7/32 of lo");
    assert_eq!(node.devices(), devices);
    assert!(!node.state_dir().exists(), "nothing was made");

    // Whoever says that no pod gets it may have it.
    let datapath = node.try_open(TestNode::config().exclude("10.50.0.7".parse().expect("an address"))).expect("opens");
    assert!(is_host(&node, &datapath, ip("10.50.0.7")));
    drop(datapath);
    remove_address(&node, loopback(&node), "10.50.0.7/32");
    add_address(&node, loopback(&node), "fd00:50::7/128");
    let error = node.try_open(TestNode::config()).err().expect("refused");
    assert_eq!(error.to_string(), "ipv6-range: \"fd00:50::/120\": overlaps fd00:50::7/128 of lo");
}

#[test]
fn somebody_elses_route_to_the_range_is_refused_and_kept() {
    let (node, outside) = (TestNode::new(), TestNetns::new());
    wire(&node, &outside);
    let socket = node.netns.socket();
    let foreign = RouteSpec::new("10.50.0.0/24".parse().expect("a prefix")).gateway(ip("192.168.77.2"));
    socket.route_add(&foreign).expect("added");
    let to_the_range = || {
        let mut routes = socket.routes().expect("routes");
        routes.retain(|route| route.destination == foreign.destination);
        routes
    };
    let before = to_the_range();
    let error = node.try_open(TestNode::config()).err().expect("refused");
    assert_eq!(
        error.to_string(),
        "ipv4-range: \"10.50.0.0/24\": has a route already via 192.168.77.2 by eth0: delete it, or choose another range"
    );
    assert_eq!(to_the_range(), before);
    // Our own is none of somebody else's.
    socket.route_delete(&foreign).expect("deleted");
    drop(node.open());
    drop(node.open());
}

#[test]
fn no_pod_is_given_an_address_of_the_node() {
    let (node, a) = (TestNode::new(), TestNetns::new());
    let (datapath, lo) = (node.open(), loopback(&node));
    add_address(&node, lo, "10.50.0.2/32");
    maintain(&node, &datapath);
    assert!(is_host(&node, &datapath, ip("10.50.0.2")));
    assert_eq!(node.create(&datapath, "default/a", &a).ipv4(), Some([10, 50, 0, 3].into()));
    remove_address(&node, lo, "10.50.0.2/32");
    maintain(&node, &datapath);
    assert!(datapath.ipam().lease(ip("10.50.0.2")).is_none(), "it is free again");
    let taken = datapath.ipam().allocate(ip("10.50.0.2"), "default/b", podwire::ipam::Lifetime::Permanent);
    taken.expect("a pod may have it");
}

#[test]
fn pods_of_an_earlier_range_stay_within_the_hosts_reach() {
    let (node, pod) = (TestNode::new(), TestNetns::new());
    let datapath = node.open();
    let endpoint = node.create(&datapath, "default/a", &pod);
    let addresses: [IpAddr; 2] = [endpoint.ipv4().expect("IPv4").into(), endpoint.ipv6().expect("IPv6").into()];
    drop(datapath);
    let other = NodeConfig::new("test-node")
        .ipv4("10.51.0.0/24".parse().expect("a range"))
        .ipv6("fd00:51::/120".parse().expect("a range"))
        .devices(Devices::Named(Vec::new()));
    let datapath = node.try_open(other).expect("opens");
    let router = [datapath.node().router_ipv4.expect("IPv4").into(), datapath.node().router_ipv6.expect("IPv6").into()];
    for (address, router) in addresses.into_iter().zip(router) {
        exchange_udp(&node.netns, &pod, address);
        exchange_udp(&pod, &node.netns, router);
    }
    let routed = || {
        let routes = node.netns.socket().routes().expect("routes");
        let destinations: Vec<_> = routes.iter().map(|route| route.destination.to_string()).collect();
        ["10.50.0.2/32", "fd00:50::2/128"].map(|prefix| destinations.iter().filter(|found| **found == prefix).count())
    };
    maintain(&node, &datapath);
    assert_eq!(routed(), [1, 1]);
    node.netns.run(|| datapath.endpoints().delete(endpoint.id())).expect("deleted");
    maintain(&node, &datapath);
    assert_eq!(routed(), [0, 0], "nobody is there any more");
}
