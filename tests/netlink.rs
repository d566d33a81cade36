//! Requests against the real kernel, each test in namespaces of its own.

mod common;

use std::net::IpAddr;
use std::os::fd::AsFd;

use common::bpf::kernel_at_least;
use common::netns::TestNetns;
use ipnetwork::IpNetwork;
use podwire::netlink::{
    AddressSpec, DeviceSpec, LinkChange, NeighbourSpec, Request, RouteKind, RouteSpec, Scope, Socket, VethPair,
    VethSpec,
};
use podwire::{Error, ErrorKind, IfIndex, MacAddr};

const HOST_MAC: MacAddr = MacAddr::new([0x02, 0, 0, 0, 0, 0x01]);
const POD_MAC: MacAddr = MacAddr::new([0x02, 0, 0, 0, 0, 0x02]);

/// A veth pair from `host` to `pod`, both ends up.
fn veth(host: &Socket, name: &str, pod: &TestNetns) -> VethPair {
    let spec = VethSpec {
        device: DeviceSpec { name, mac: Some(HOST_MAC), mtu: Some(1400), ..DeviceSpec::default() },
        up: true,
        peer: DeviceSpec {
            name: "eth0",
            mac: Some(POD_MAC),
            mtu: Some(1400),
            netns: Some(pod.netns().as_fd()),
            ..DeviceSpec::default()
        },
    };
    let pair = host.link_create_veth(&spec).expect("create a veth pair");
    pod.socket().link_set_up(pair.peer_index).expect("up");
    pair
}

fn prefix(text: &str) -> IpNetwork {
    text.parse().expect("a prefix")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn text_of(error: &Error) -> &str {
    match error {
        Error::Netlink { text, .. } => text,
        other => panic!("expected the kernel's own error, got {other}"),
    }
}

#[test]
fn veth_is_born_in_both_namespaces_as_specified() {
    let (host, pod) = (TestNetns::new(), TestNetns::new());
    let (host_socket, pod_socket) = (host.socket(), pod.socket());
    let index = IfIndex::new(4711).expect("not 0");
    let spec = VethSpec {
        device: DeviceSpec {
            name: "lxc1",
            index: Some(index),
            mac: Some(HOST_MAC),
            mtu: Some(1400),
            group: Some(77),
            gso_max_size: Some(32_000),
            gro_max_size: Some(33_000),
            gso_ipv4_max_size: Some(34_000),
            gro_ipv4_max_size: Some(35_000),
            tx_queues: Some(2),
            rx_queues: Some(3),
            ..DeviceSpec::default()
        },
        up: false,
        peer: DeviceSpec {
            name: "eth0",
            mac: Some(POD_MAC),
            mtu: Some(1300),
            netns: Some(pod.netns().as_fd()),
            ..DeviceSpec::default()
        },
    };
    let pair = host_socket.link_create_veth(&spec).expect("create a veth pair");
    assert_eq!((pair.index, pair.mac), (index, HOST_MAC));

    let link = host_socket.link_by_index(index).expect("the host's end");
    assert_eq!((link.name.as_str(), link.kind.as_deref()), ("lxc1", Some("veth")));
    assert_eq!((link.mac, link.mtu, link.group, link.is_up), (Some(HOST_MAC), 1400, 77, false));
    assert_eq!((link.gso_max_size, link.gro_max_size), (Some(32_000), Some(33_000)));
    // Older kernels have one limit for both families, and ignore the other.
    let ipv4_limits = if kernel_at_least(6, 3) { (Some(34_000), Some(35_000)) } else { (None, None) };
    assert_eq!((link.gso_ipv4_max_size, link.gro_ipv4_max_size), ipv4_limits);
    assert_eq!((link.tx_queues, link.rx_queues), (2, 3));
    assert!(link.peer_netns_id.is_some(), "the other end is in another namespace");

    let peer = pod_socket.link_by_name("eth0").expect("the pod's end");
    assert_eq!(peer.index, pair.peer_index);
    assert_eq!((peer.mac, peer.mtu, peer.is_up), (Some(POD_MAC), 1300, false));
    assert_eq!(peer.peer_index, Some(pair.index));
    assert!(host_socket.link_by_name("eth0").is_err(), "the peer was never here");
}

#[test]
fn first_end_elsewhere_is_found_there() {
    let (host, pod) = (TestNetns::new(), TestNetns::new());
    let spec = VethSpec {
        device: DeviceSpec { name: "a", netns: Some(pod.netns().as_fd()), ..DeviceSpec::default() },
        peer: DeviceSpec { name: "b", ..DeviceSpec::default() },
        up: true,
    };
    let pair = host.socket().link_create_veth(&spec).expect("create a veth pair");
    assert_eq!(pod.socket().link_by_name("a").expect("there").index, pair.index);
}

#[test]
fn device_lives_through_every_change() {
    let (host, pod) = (TestNetns::new(), TestNetns::new());
    let (socket, pod_socket) = (host.socket(), pod.socket());
    let pair = veth(&socket, "lxc1", &pod);
    assert!(socket.link_by_index(pair.index).expect("there").is_up);

    socket.link_set_down(pair.index).expect("down");
    let mac = MacAddr::new([0x02, 1, 2, 3, 4, 5]);
    let change = LinkChange {
        name: Some("renamed"),
        up: Some(true),
        mac: Some(mac),
        mtu: Some(1300),
        group: Some(9),
        arp: Some(false),
        gso_max_size: Some(20_000),
        gro_max_size: Some(21_000),
        ..LinkChange::default()
    };
    socket.link_set(pair.index, &change).expect("all at once");
    let link = socket.link_by_name("renamed").expect("by its new name");
    assert_eq!((link.index, link.mac, link.mtu, link.group), (pair.index, Some(mac), 1300, 9));
    assert_eq!((link.gso_max_size, link.gro_max_size), (Some(20_000), Some(21_000)));
    assert!(link.is_up && link.flags & 0x80 != 0, "up, and without ARP");

    let long = "the-pod-that-is-called-default-slash-web-and-then-some";
    socket.link_add_alt_name(pair.index, long).expect("a long name");
    socket.link_add_alt_name(pair.index, "short").expect("a short one");
    let link = socket.link_by_name(long).expect("by the long name");
    assert_eq!((link.index, link.alt_names.len()), (pair.index, 2));
    assert_eq!(socket.link_by_name("short").expect("by the short one").index, pair.index);
    let again = socket.link_add_alt_name(pair.index, long).expect_err("twice");
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    socket.link_remove_alt_name(pair.index, long).expect("remove it");
    assert_eq!(socket.link_by_name(long).expect_err("gone").kind(), ErrorKind::NotFound);

    socket
        .link_set(pair.index, &LinkChange { netns: Some(pod.netns().as_fd()), ..LinkChange::default() })
        .expect("move");
    assert_eq!(socket.link_by_name("renamed").expect_err("moved away").kind(), ErrorKind::NotFound);
    let moved = pod_socket.link_by_name("renamed").expect("arrived");
    pod_socket.link_delete(moved.index).expect("delete");
    assert_eq!(pod_socket.links().expect("list").len(), 1, "only lo is left: the peer went, too");
    assert_eq!(pod_socket.link_delete(moved.index).expect_err("gone").kind(), ErrorKind::NotFound);
}

#[test]
fn errors_carry_the_kernels_own_text() {
    let (host, pod) = (TestNetns::new(), TestNetns::new());
    let socket = host.socket();
    let pair = veth(&socket, "lxc1", &pod);

    let error = socket.link_set(pair.index, &LinkChange { mtu: Some(1 << 20), ..LinkChange::default() });
    let error = error.expect_err("no veth can do that");
    assert_eq!((error.errno(), text_of(&error)), (Some(libc::EINVAL), "mtu greater than device maximum"));
    let shown = error.to_string();
    assert!(shown.starts_with(&format!("change device {}: Invalid argument", pair.index)), "{shown}");
    assert!(shown.ends_with(": mtu greater than device maximum"), "{shown}");

    let unreachable = RouteSpec::new(prefix("10.9.0.0/16")).gateway(ip("192.0.2.1"));
    let error = socket.route_add(&unreachable).expect_err("nobody knows that gateway");
    assert_eq!((error.errno(), text_of(&error)), (Some(libc::ENETUNREACH), "Nexthop has invalid gateway"));

    let duplicate = VethSpec {
        device: DeviceSpec { name: "lxc1", ..DeviceSpec::default() },
        peer: DeviceSpec { name: "other", ..DeviceSpec::default() },
        up: false,
    };
    assert_eq!(socket.link_create_veth(&duplicate).expect_err("taken").kind(), ErrorKind::AlreadyExists);
}

#[test]
fn bad_input_never_reaches_the_kernel() {
    let host = TestNetns::new();
    let socket = host.socket();
    let before = socket.links().expect("list");
    let spec = |name, mac| VethSpec {
        device: DeviceSpec { name, mac, ..DeviceSpec::default() },
        peer: DeviceSpec { name: "peer", ..DeviceSpec::default() },
        up: false,
    };
    for bad in [spec("a-name-too-long-for-a-device", None), spec("a/b", None), spec("", None)] {
        assert_eq!(socket.link_create_veth(&bad).expect_err("refused").kind(), ErrorKind::InvalidInput);
    }
    let multicast = Some(MacAddr::new([0x01, 0, 0x5e, 0, 0, 1]));
    assert_eq!(socket.link_create_veth(&spec("a", multicast)).expect_err("refused").kind(), ErrorKind::InvalidInput);
    assert_eq!(socket.links_delete_group(0).expect_err("refused").kind(), ErrorKind::InvalidInput);
    let mixed = RouteSpec::new(prefix("10.0.0.0/8")).gateway(ip("fd00::1"));
    assert_eq!(socket.route_add(&mixed).expect_err("refused").kind(), ErrorKind::InvalidInput);
    assert_eq!(socket.links().expect("list"), before);
}

#[test]
fn addresses_of_both_families() {
    let (host, pod) = (TestNetns::new(), TestNetns::new());
    let socket = host.socket();
    let device = veth(&socket, "lxc1", &pod).index;
    for address in ["10.0.0.1/24", "10.0.0.77/32", "fd00::1/64", "fd00::77/128"].map(prefix) {
        socket.address_add(&AddressSpec::new(device, address)).expect("add");
        let all = socket.addresses(Some(device)).expect("list");
        let found = all.iter().find(|found| found.address == address).expect("listed");
        assert_eq!((found.device, found.scope, found.is_tentative), (device, Scope::Universe, false));
        let twice = socket.address_add(&AddressSpec::new(device, address)).expect_err("twice");
        assert_eq!(twice.kind(), ErrorKind::AlreadyExists);
        socket.address_add(&AddressSpec::new(device, address).replace()).expect("replace");
    }
    let quiet = AddressSpec::new(device, prefix("10.1.0.1/16")).no_prefix_route().scope(Scope::Link);
    socket.address_add(&quiet).expect("add");
    assert!(!socket.routes().expect("list").iter().any(|route| route.destination == prefix("10.1.0.0/16")));
    let all = socket.addresses(None).expect("list");
    assert_eq!(all.iter().find(|found| found.address == quiet.address).expect("listed").scope, Scope::Link);

    socket.address_delete(device, quiet.address).expect("delete");
    let gone = socket.address_delete(device, quiet.address).expect_err("twice");
    assert_eq!(gone.errno(), Some(libc::EADDRNOTAVAIL));
    let detected = AddressSpec::new(device, prefix("fd00::99/64")).detect_duplicates(true);
    socket.address_add(&detected).expect("add");
    let all = socket.addresses(Some(device)).expect("list");
    assert!(all.iter().find(|found| found.address == detected.address).expect("listed").is_tentative);
    let loopback = socket.link_by_name("lo").expect("lo").index;
    assert_eq!(socket.addresses(Some(loopback)).expect("list"), [], "another device's are left out");
}

#[test]
fn routes_of_both_families() {
    let (host, pod) = (TestNetns::new(), TestNetns::new());
    veth(&host.socket(), "lxc1", &pod);
    let socket = pod.socket();
    let device = socket.link_by_name("eth0").expect("eth0").index;
    socket.address_add(&AddressSpec::new(device, prefix("10.0.0.77/32"))).expect("add");
    socket.address_add(&AddressSpec::new(device, prefix("fd00::77/128"))).expect("add");
    for (default, gateway, far) in [("0.0.0.0/0", "10.0.0.1", "192.0.2.9"), ("::/0", "fd00::1", "2001:db8::9")] {
        let route = RouteSpec::new(prefix(default)).gateway(ip(gateway)).device(device).mtu(1350);
        let error = socket.route_add(&route).expect_err("the gateway is not on the link");
        assert!(matches!(error.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)), "{error}");
        socket.route_add(&route.clone().onlink()).expect("on the link by decree");
        let routes = socket.routes().expect("list");
        let found = routes.iter().find(|found| found.destination == route.destination).expect("listed");
        assert_eq!((found.gateway, found.device, found.mtu), (Some(ip(gateway)), Some(device), Some(1350)));
        assert!(found.onlink);
        assert_eq!((found.table, found.protocol, found.kind), (254, 4, RouteKind::Unicast));
        let taken = socket.route_to(ip(far)).expect("a way");
        assert_eq!((taken.gateway, taken.device), (Some(ip(gateway)), Some(device)));

        socket.route_replace(&route.clone().onlink().mtu(1280)).expect("replace");
        let routes = socket.routes().expect("list");
        let found: Vec<_> = routes.iter().filter(|found| found.destination == route.destination).collect();
        assert_eq!((found.len(), found[0].mtu), (1, Some(1280)));
        assert_eq!(socket.route_add(&route.clone().onlink()).expect_err("twice").kind(), ErrorKind::AlreadyExists);
        socket.route_delete(&RouteSpec::new(route.destination)).expect("delete");
        assert_eq!(
            socket.route_delete(&RouteSpec::new(route.destination)).expect_err("gone").kind(),
            ErrorKind::NotFound
        );
    }
    let dropped = RouteSpec::new(prefix("198.51.100.0/24")).kind(RouteKind::Blackhole).table(4242).priority(7);
    socket.route_add(&dropped).expect("add");
    let routes = socket.routes().expect("list");
    let found = routes.iter().find(|found| found.destination == dropped.destination).expect("listed");
    assert_eq!((found.kind, found.table, found.priority, found.device), (RouteKind::Blackhole, 4242, Some(7), None));
}

#[test]
fn neighbours_of_both_families() {
    let (host, pod) = (TestNetns::new(), TestNetns::new());
    let socket = host.socket();
    let device = veth(&socket, "lxc1", &pod).index;
    for address in ["10.0.0.77", "fd00::77"].map(ip) {
        for mac in [HOST_MAC, POD_MAC] {
            socket.neighbour_set(&NeighbourSpec { device, address, mac }).expect("set");
            let all = socket.neighbours(Some(device)).expect("list");
            let found = all.iter().find(|found| found.address == address).expect("listed");
            assert_eq!((found.mac, found.is_permanent), (Some(mac), true));
        }
        let loopback = socket.link_by_name("lo").expect("lo").index;
        assert!(socket.neighbours(Some(loopback)).expect("list").iter().all(|found| found.device == loopback));
        socket.neighbour_delete(device, address).expect("delete");
        assert!(!socket.neighbours(None).expect("list").iter().any(|found| found.address == address));
        assert_eq!(socket.neighbour_delete(device, address).expect_err("gone").kind(), ErrorKind::NotFound);
    }
}

#[test]
fn pod_is_configured_in_one_go_and_a_failure_is_named() {
    let (host, pod) = (TestNetns::new(), TestNetns::new());
    veth(&host.socket(), "lxc1", &pod);
    let socket = pod.socket();
    let device = socket.link_by_name("eth0").expect("eth0").index;
    let loopback = socket.link_by_name("lo").expect("lo").index;
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    let requests = [
        Request::link_set(loopback, &up).expect("encode"),
        Request::link_set(device, &up).expect("encode"),
        Request::address_add(&AddressSpec::new(device, prefix("10.0.0.77/32"))).expect("encode"),
        Request::address_add(&AddressSpec::new(device, prefix("fd00::77/128"))).expect("encode"),
        Request::route_add(&RouteSpec::new(prefix("10.0.0.1/32")).device(device)).expect("encode"),
        Request::route_add(&RouteSpec::new(prefix("0.0.0.0/0")).gateway(ip("10.0.0.1")).device(device))
            .expect("encode"),
        Request::route_add(&RouteSpec::new(prefix("fd00::1/128")).device(device)).expect("encode"),
        Request::route_add(&RouteSpec::new(prefix("::/0")).gateway(ip("fd00::1")).device(device)).expect("encode"),
        Request::neighbour_set(&NeighbourSpec { device, address: ip("10.0.0.1"), mac: HOST_MAC }).expect("encode"),
    ];
    socket.execute_all(&requests).expect("all of it");
    assert_eq!(socket.route_to(ip("192.0.2.1")).expect("a way").gateway, Some(ip("10.0.0.1")));
    assert_eq!(socket.route_to(ip("2001:db8::1")).expect("a way").gateway, Some(ip("fd00::1")));

    let outcomes = socket.outcomes(&requests).expect("asked again");
    let failed: Vec<_> = outcomes.iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, false, true, true, true, true, true, true, false]);
    let error = socket.execute_all(&requests).expect_err("the address is there already");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().starts_with(&format!("add address 10.0.0.77/32 of device {device}")), "{error}");
    // what fails last is heard of, and so is what fails before a success
    let refused =
        |requests: &[Request]| socket.outcomes(requests).expect("asked").iter().map(Result::is_err).collect::<Vec<_>>();
    assert_eq!(refused(&requests[..3]), [false, false, true]);
    assert_eq!(refused(&[requests[2].clone(), requests[0].clone()]), [true, false]);
}

#[test]
fn group_is_deleted_whole_and_alone() {
    let (host, pod) = (TestNetns::new(), TestNetns::new());
    let socket = host.socket();
    for (name, group) in [("a", 5), ("b", 5), ("c", 6)] {
        let device = DeviceSpec { name, group: Some(group), ..DeviceSpec::default() };
        let peer = DeviceSpec { name, netns: Some(pod.netns().as_fd()), ..DeviceSpec::default() };
        socket.link_create_veth(&VethSpec { device, peer, up: false }).expect("create");
    }
    socket.links_delete_group(5).expect("delete");
    let mut names: Vec<_> = socket.links().expect("list").into_iter().map(|link| link.name).collect();
    names.sort();
    assert_eq!(names, ["c", "lo"]);
    assert_eq!(socket.links_delete_group(5).expect_err("empty").kind(), ErrorKind::NotFound);
}
