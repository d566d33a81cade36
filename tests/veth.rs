//! The plumbing of endpoints, in namespaces of its own. Needs root.
mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use common::bpf::kernel_at_least;
use common::netns::TestNetns;
use podwire::ErrorKind;
use podwire::endpoint::veth::{OffloadLimits, PodNetwork, Veth, VethSpec};
use podwire::netlink::{AddressSpec, RouteKind, RouteSpec, Socket};

const PATIENCE: Duration = Duration::from_secs(5);
const POD_V4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const POD_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1);

fn attach(host: &TestNetns, pod: &TestNetns) -> Veth {
    host.run(|| {
        let socket = Socket::open().expect("a socket");
        let spec =
            VethSpec::new("lxc0123456789ab", "eth0", pod.netns()).expect("random bytes").mtu(1400).alias("a note");
        let spec = spec.offload(OffloadLimits { gro: 65_000, gso: 64_000, gro_ipv4: 63_000, gso_ipv4: 62_000 });
        let veth = Veth::create(&socket, &spec).expect("a pair");
        let network = PodNetwork::new(&veth)
            .ipv4(POD_V4, GATEWAY_V4)
            .ipv6(POD_V6, GATEWAY_V6)
            .alt_name("cilium_cni:eth0")
            .route_mtu(1350);
        let settling = network.configure(pod.netns()).expect("configured");
        veth.wait_until_running(&socket, PATIENCE).expect("carrier");
        settling.wait().expect("carrier");
        veth
    })
}

/// Gives the host's side what a node has: the gateways' addresses and routes to the pod.
fn route_from_host(host: &TestNetns, veth: &Veth) {
    let socket = host.socket();
    let device = veth.host_ifindex;
    for (gateway, pod) in [(IpAddr::from(GATEWAY_V4), IpAddr::from(POD_V4)), (GATEWAY_V6.into(), POD_V6.into())] {
        socket.address_add(&AddressSpec::new(device, gateway.into())).expect("the gateway's address");
        let route = RouteSpec::new(pod.into()).device(device);
        socket.route_add(&route).expect("a route to the pod");
        let deadline = Instant::now() + PATIENCE;
        while socket.route_to(gateway).map(|route| route.kind).ok() != Some(RouteKind::Local) {
            assert!(Instant::now() < deadline, "{gateway} never became local");
        }
    }
}

#[test]
fn a_pod_has_what_it_needs() {
    let (host, pod) = (TestNetns::new(), TestNetns::new());
    let veth = attach(&host, &pod);

    let outside = host.socket().link_by_name("lxc0123456789ab").expect("the host side");
    assert_eq!((outside.index, outside.mac, outside.mtu), (veth.host_ifindex, Some(veth.host_mac), 1400));
    assert!(outside.is_up && outside.is_running);
    assert_eq!(outside.alias.as_deref(), Some("a note"));
    assert_eq!((outside.tx_queues, outside.rx_queues), (1, 1), "more cost an RCU wait");
    let rp_filter = host.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/lxc0123456789ab/rp_filter"));
    assert_eq!(rp_filter.expect("readable").trim(), "0");

    let socket = pod.socket();
    let inside = socket.link_by_name("eth0").expect("the pod's side");
    assert_eq!((inside.index, inside.mac, inside.mtu), (veth.pod_ifindex, Some(veth.pod_mac), 1400));
    assert_eq!(inside.alt_names, ["cilium_cni:eth0"]);
    assert_eq!((inside.tx_queues, inside.rx_queues), (1, 1), "more cost an RCU wait");
    assert_eq!((inside.gro_max_size, inside.gso_max_size), (Some(65_000), Some(64_000)));
    // Older kernels have one limit for both families, and ignore the other.
    let ipv4_limits = if kernel_at_least(6, 3) { (Some(63_000), Some(62_000)) } else { (None, None) };
    assert_eq!((inside.gro_ipv4_max_size, inside.gso_ipv4_max_size), ipv4_limits);
    assert!(socket.link_by_name("lo").expect("loopback").is_up);

    let addresses = socket.addresses(Some(inside.index)).expect("addresses");
    for expected in [IpAddr::from(POD_V4), POD_V6.into()] {
        let address = addresses.iter().find(|address| address.address == expected.into()).expect("the pod's address");
        assert!(!address.is_tentative, "{expected} must be usable at once");
    }
    let routes = socket.routes().expect("routes");
    for gateway in [IpAddr::from(GATEWAY_V4), GATEWAY_V6.into()] {
        let device = Some(inside.index);
        assert!(routes.iter().any(|route| route.destination == gateway.into() && route.device == device));
        let default = routes.iter().find(|route| route.gateway == Some(gateway)).expect("a default route");
        assert_eq!((default.destination.prefix(), default.device, default.mtu), (0, device, Some(1350)));
    }
    let neighbours = socket.neighbours(Some(inside.index)).expect("neighbours");
    for gateway in [IpAddr::from(GATEWAY_V4), GATEWAY_V6.into()] {
        let known = neighbours.iter().find(|neighbour| neighbour.address == gateway).expect("the gateway is known");
        assert!(known.is_permanent && known.mac == Some(veth.host_mac));
    }
}

#[test]
fn the_first_packet_is_not_lost() {
    for round in 0..20 {
        let (host, pod) = (TestNetns::with_loopback(), TestNetns::new());
        let veth = attach(&host, &pod);
        route_from_host(&host, &veth);
        for (gateway, address) in [(IpAddr::from(GATEWAY_V4), IpAddr::from(POD_V4)), (GATEWAY_V6.into(), POD_V6.into())]
        {
            let server = host.run(|| UdpSocket::bind(SocketAddr::new(gateway, 7000))).expect("a server");
            let client = pod.run(|| UdpSocket::bind(SocketAddr::new(address, 0))).expect("a client");
            server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            client.send_to(b"one", server.local_addr().expect("bound")).expect("sent");
            let mut buffer = [0; 16];
            let (length, peer) = server
                .recv_from(&mut buffer)
                .unwrap_or_else(|error| panic!("round {round}, the first packet from {address}: {error}"));
            assert_eq!((&buffer[..length], peer.ip()), (&b"one"[..], address));
            server.send_to(b"two", peer).expect("sent");
            let (length, _) = client.recv_from(&mut buffer).expect("the first answer");
            assert_eq!(&buffer[..length], b"two");
        }
    }
}

#[test]
fn ipv6_is_switched_on_where_a_runtime_switched_it_off() {
    let (host, pod) = (TestNetns::new(), TestNetns::new());
    pod.run(|| {
        for name in ["all", "default", "lo"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").expect("a setting");
        }
    });
    let veth = attach(&host, &pod);
    let socket = pod.socket();
    let addresses = socket.addresses(Some(veth.pod_ifindex)).expect("addresses");
    assert!(addresses.iter().any(|address| address.address == IpAddr::from(POD_V6).into()));
    assert!(socket.routes().expect("routes").iter().any(|route| route.gateway == Some(GATEWAY_V6.into())));
    let neighbours = socket.neighbours(Some(veth.pod_ifindex)).expect("neighbours");
    assert!(neighbours.iter().any(|neighbour| neighbour.address == GATEWAY_V6 && neighbour.is_permanent));
}

#[test]
fn names_that_are_taken_are_refused_and_nothing_stays() {
    let (host, pod, other) = (TestNetns::new(), TestNetns::new(), TestNetns::new());
    let veth = attach(&host, &pod);
    host.run(|| {
        let socket = Socket::open().expect("a socket");
        for (host_ifname, netns) in [("lxc0123456789ab", &other), ("lxc999999999999", &pod)] {
            let spec = VethSpec::new(host_ifname, "eth0", netns.netns()).expect("random bytes");
            let error = Veth::create(&socket, &spec).expect_err("a name is taken");
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        }
        assert_eq!(socket.link_by_name("lxc999999999999").expect_err("gone").kind(), ErrorKind::NotFound);
        // a note that is too long fails after the pair exists
        let long = "x".repeat(256);
        let spec = VethSpec::new("lxc888888888888", "eth0", other.netns()).expect("random bytes").alias(&long);
        Veth::create(&socket, &spec).expect_err("a note of 256 bytes");
        assert_eq!(socket.link_by_name("lxc888888888888").expect_err("gone").kind(), ErrorKind::NotFound);
        veth.delete(&socket).expect("deleted");
        assert_eq!(veth.delete(&socket).expect_err("gone").kind(), ErrorKind::NotFound);
    });
    assert_eq!(other.socket().link_by_name("eth0").expect_err("gone").kind(), ErrorKind::NotFound);
    assert_eq!(pod.socket().link_by_name("eth0").expect_err("gone").kind(), ErrorKind::NotFound);
}

/// The kernel notes on a work queue, for each end by itself, that the other one is up; before, it throws away what is to be sent.
#[test]
fn when_it_has_settled_both_ends_pass_packets() {
    let host = TestNetns::new();
    for round in 0..30 {
        let pod = TestNetns::new();
        host.run(|| {
            let socket = Socket::open().expect("a socket");
            let spec = VethSpec::new("lxc0123456789ab", "eth0", pod.netns()).expect("random bytes").down();
            let veth = Veth::create(&socket, &spec).expect("a pair");
            let settling = PodNetwork::new(&veth).ipv4(POD_V4, GATEWAY_V4).configure(pod.netns()).expect("configured");
            veth.bring_up(&socket).expect("up");
            veth.wait_until_running(&socket, PATIENCE).expect("carrier");
            settling.wait().expect("carrier");
            let ends = [socket.link_by_index(veth.host_ifindex), pod.socket().link_by_index(veth.pod_ifindex)];
            assert!(ends.into_iter().all(|end| end.expect("there").is_running), "round {round}");
            veth.delete(&socket).expect("there");
        });
    }
}
