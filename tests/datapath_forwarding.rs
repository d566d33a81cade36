//! What the host's settings for forwarding are, and what the kernel changes beside when they are written. Needs root.
mod common;

use std::fs;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use common::netns::TestNetns;
use common::node::{PATIENCE, TestNode};
use podwire::netlink::{DeviceSpec, VethSpec};
use podwire::{Datapath, Devices, IfIndex, NodeConfig};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket, sockopt};

/// A setting below `net` in the node's namespace.
fn read(node: &TestNode, key: &str) -> String {
    node.netns.run(|| fs::read_to_string(format!("/proc/sys/net/{key}")).expect("readable").trim().to_owned())
}

fn write(node: &TestNode, key: &str, value: &str) {
    node.netns.run(|| fs::write(format!("/proc/sys/net/{key}"), value).expect("writable"));
}

fn clean_up(node: &TestNode) -> Vec<String> {
    node.netns.run(|| Datapath::cleanup(node.bpf.path(), &node.state_dir())).expect("cleaned up").done
}

/// Whether the node forwards: IPv4, IPv6.
fn forwards(node: &TestNode) -> [bool; 2] {
    ["ipv4/ip_forward", "ipv6/conf/all/forwarding"].map(|key| read(node, key) == "1")
}

#[test]
fn only_families_that_pods_have_are_forwarded() {
    let config = || NodeConfig::new("test-node").devices(Devices::Named(Vec::new()));
    let ipv4 = config().ipv4("10.50.0.0/24".parse().expect("a range"));
    let ipv6 = config().ipv6("fd00:50::/120".parse().expect("a range"));
    for (config, wanted) in [(ipv4, [true, false]), (ipv6, [false, true]), (TestNode::config(), [true, true])] {
        let node = TestNode::new();
        let datapath = node.try_open(config).expect("opens");
        assert_eq!(forwards(&node), wanted);
        let own = ["ipv4", "ipv6"].map(|family| read(&node, &format!("{family}/conf/cilium_host/forwarding")) == "1");
        assert_eq!(own, wanted);
        node.netns.run(|| datapath.maintain()).expect("maintained");
        assert!(node.netns.run(|| datapath.status()).is_ok());
        assert_eq!(forwards(&node), wanted);
        drop(datapath);
        clean_up(&node);
        assert_eq!(forwards(&node), [false, false]);
    }
}

#[test]
fn devices_that_forwarded_before_forward_afterwards() {
    let node = TestNode::new();
    let [device, peer] = ["wire0", "wire1"].map(|name| DeviceSpec { name, ..DeviceSpec::default() });
    node.netns.socket().link_create_veth(&VethSpec { device, peer, up: true }).expect("created");
    let config = TestNode::config().devices(Devices::Named(vec!["wire0".to_owned()]));
    let path = |family: &str, device: &str| format!("/proc/sys/net/{family}/conf/{device}/forwarding");
    let read = |family: &str, device: &str| fs::read_to_string(path(family, device)).expect("readable");
    let write = |family: &str, device: &str, value: &str| fs::write(path(family, device), value).expect("writable");
    let all = || ["ipv4", "ipv6"].map(|family| [read(family, "wire0"), read(family, "wire1"), read(family, "lo")]);
    node.netns.run(|| {
        for family in ["ipv4", "ipv6"] {
            write(family, "wire0", "1");
            write(family, "lo", "1");
        }
    });
    for _ in 0..2 {
        drop(node.try_open(config.clone()).expect("opens"));
    }
    assert_eq!(node.netns.run(all).concat(), ["1\n"; 6]);
    // Turned off by somebody meanwhile.
    node.netns.run(|| write("ipv4", "lo", "0"));
    node.netns.run(|| Datapath::cleanup(node.bpf.path(), &node.state_dir())).expect("cleaned up");
    assert_eq!(node.netns.run(all), [["1\n", "0\n", "0\n"], ["1\n", "0\n", "1\n"]]);
}

const REDIRECTS: &str = "ipv4/conf/all/accept_redirects";

#[test]
fn redirects_that_were_refused_are_refused_after_the_clean_up() {
    let node = TestNode::new();
    write(&node, REDIRECTS, "0");
    let datapath = node.open();
    assert_eq!(read(&node, REDIRECTS), "0");
    // Somebody turns forwarding off, the kernel believes redirects, and a later start must not take that for the host's own wish.
    write(&node, "ipv4/ip_forward", "0");
    assert_eq!(read(&node, REDIRECTS), "1");
    node.netns.run(|| datapath.maintain()).expect("maintained");
    assert_eq!(read(&node, REDIRECTS), "0");
    drop(datapath);
    write(&node, "ipv4/ip_forward", "0");
    drop(node.open());
    let done = clean_up(&node);
    assert_eq!([read(&node, "ipv4/ip_forward"), read(&node, REDIRECTS)], ["0", "0"]);
    assert!(done.contains(&"restored sysctl net.ipv4.conf.all.accept_redirects = 0".to_owned()), "{done:?}");

    // A host that believed them does so again.
    let node = TestNode::new();
    write(&node, REDIRECTS, "1");
    drop(node.open());
    clean_up(&node);
    assert_eq!(read(&node, REDIRECTS), "1");
}

/// A wire from the node to another namespace, in which a router may be; the far end's index.
fn wire(node: &TestNode, router: &TestNetns, name: &str) -> IfIndex {
    let peer = DeviceSpec { name, netns: Some(router.netns().as_fd()), ..DeviceSpec::default() };
    let spec = VethSpec { device: DeviceSpec { name, ..DeviceSpec::default() }, peer, up: true };
    // Without waiting whether somebody else has the addresses of the link.
    router.run(|| fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").expect("writable"));
    let pair = node.netns.socket().link_create_veth(&spec).expect("a wire");
    router.socket().link_set_up(pair.peer_index).expect("up");
    pair.peer_index
}

/// Announces a router until the node has taken the prefix that it tells of.
fn is_heard(node: &TestNode, router: &TestNetns, far: IfIndex, prefix: Ipv6Addr) -> bool {
    let raw =
        router.run(|| socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).expect("a raw socket"));
    sockopt::set_ipv6_multicast_hops(&raw, 255).expect("set");
    // A router advertisement (RFC 4861): hop limit 64, a default route for 1800 s; and a prefix on the link (option 3) for an hour.
    let mut message = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0x80, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
    message.extend(prefix.octets());
    let all_nodes = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, far.get());
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        // Refused as long as the far end has no address yet.
        let _ = sendto(&raw, &message, SendFlags::empty(), &all_nodes);
        let routes = node.netns.socket().routes().expect("routes");
        if routes.iter().any(|route| route.destination.ip() == prefix && route.destination.prefix() == 64) {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

/// The number of default routes that routers told of.
fn default_routes(node: &TestNode) -> usize {
    let routes = node.netns.socket().routes().expect("routes");
    routes
        .iter()
        .filter(|route| route.destination.prefix() == 0 && route.protocol == 9 && route.device.is_some())
        .count()
}

const ACCEPT: &str = "ipv6/conf/eth0/accept_ra";

fn prefix(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 0, 0)
}

#[test]
fn a_host_that_learns_its_routers_by_advertisements_keeps_them() {
    // The second names other devices: the default route is the host's all the same.
    for devices in [Devices::Detect, Devices::Named(Vec::new())] {
        let (node, router) = (TestNode::new(), TestNetns::new());
        let far = wire(&node, &router, "eth0");
        assert!(is_heard(&node, &router, far, prefix(1)));
        assert_eq!(default_routes(&node), 1);
        for _ in 0..2 {
            drop(node.try_open(TestNode::config().devices(devices.clone())).expect("opens"));
            assert_eq!((forwards(&node)[1], default_routes(&node)), (true, 1), "the kernel forgot the router");
        }
        assert!(is_heard(&node, &router, far, prefix(2)), "later ones are not heard");
        assert_eq!((read(&node, ACCEPT), read(&node, "ipv6/conf/default/accept_ra")), ("2".into(), "1".into()));
        clean_up(&node);
        assert_eq!((read(&node, ACCEPT), forwards(&node)[1], default_routes(&node)), ("1".into(), false, 1));
    }
}

#[test]
fn who_heard_no_routers_hears_none_later() {
    let config = || TestNode::config().devices(Devices::Named(vec!["eth0".to_owned()]));
    // Told not to; forwarding itself; on a node that forwards.
    for (key, value) in [(ACCEPT, "0"), ("ipv6/conf/eth0/forwarding", "1"), ("ipv6/conf/all/forwarding", "1")] {
        let (node, router) = (TestNode::new(), TestNetns::new());
        let _far = wire(&node, &router, "eth0");
        write(&node, key, value);
        let before = read(&node, ACCEPT);
        for _ in 0..2 {
            drop(node.try_open(config()).expect("opens"));
            assert_eq!(read(&node, ACCEPT), before, "{key} = {value}");
        }
        clean_up(&node);
        assert_eq!((read(&node, ACCEPT), read(&node, key)), (before, value.to_owned()));
    }
}

#[test]
fn a_native_device_that_comes_later_hears_routers() {
    let (node, router) = (TestNode::new(), TestNetns::new());
    wire(&node, &router, "eth0");
    let config = TestNode::config().devices(Devices::Named(vec!["eth0".to_owned()]));
    let datapath = node.try_open(config).expect("opens");
    node.netns.socket().link_delete(datapath.node().devices[0].ifindex).expect("deleted");
    let far = wire(&node, &router, "eth0");
    node.netns.run(|| datapath.maintain()).expect("maintained");
    assert_eq!(read(&node, ACCEPT), "2");
    assert!(is_heard(&node, &router, far, prefix(3)));
}
