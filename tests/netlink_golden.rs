//! The bytes of requests, as include/uapi/linux of the kernel lays them out; no privileges needed. Written down for
//! machines that store the lowest byte first.
#![cfg(target_endian = "little")]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use podwire::netlink::{
    AddressSpec, DeviceSpec, Direction, FilterSpec, LinkChange, NeighbourSpec, Request, RouteKind, RouteSpec, Scope,
    VethSpec,
};
use podwire::{IfIndex, MacAddr, Result};

/// Sequence number of every request here.
const SEQ: u32 = 0x0a0b_0c0d;

const MAC: MacAddr = MacAddr::new([0x02, 0, 0, 0, 0, 0x01]);

fn device(index: u32) -> IfIndex {
    IfIndex::new(index).expect("not 0")
}

/// The bytes written in hexadecimal; what follows `#` on a line is a remark, `FD` stands for a descriptor.
fn bytes(text: &str, fd: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in text.lines().flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace()) {
        match word {
            "FD" => bytes.extend(fd.to_le_bytes()),
            "SEQ" => bytes.extend(SEQ.to_le_bytes()),
            word => bytes.push(u8::from_str_radix(word, 16).expect("hexadecimal")),
        }
    }
    bytes
}

#[track_caller]
fn expect_with_fd(request: Result<Request>, fd: i32, text: &str) {
    let found = request.expect("valid").to_bytes(SEQ).expect("encode");
    let expected = bytes(text, fd);
    let show = |bytes: &[u8]| {
        bytes.chunks(4).map(|chunk| chunk.iter().map(|byte| format!("{byte:02x} ")).collect()).collect::<Vec<String>>()
    };
    assert_eq!(show(&found), show(&expected));
}

#[track_caller]
fn expect(request: Result<Request>, text: &str) {
    expect_with_fd(request, -1, text);
}

#[test]
fn veth_with_peer_elsewhere() {
    let netns = File::open("/proc/self/ns/net").expect("open");
    let spec = VethSpec {
        device: DeviceSpec {
            name: "lxc1",
            index: Some(device(77)),
            mac: Some(MAC),
            mtu: Some(1500),
            group: Some(5),
            gso_max_size: Some(0x1_0000),
            gro_max_size: Some(0x2_0000),
            gso_ipv4_max_size: Some(0x3_0000),
            gro_ipv4_max_size: Some(0x4_0000),
            tx_queues: Some(1),
            rx_queues: Some(2),
            ..DeviceSpec::default()
        },
        up: true,
        peer: DeviceSpec { name: "eth0", mtu: Some(1400), netns: Some(netns.as_fd()), ..DeviceSpec::default() },
    };
    expect_with_fd(
        Request::link_create_veth(&spec),
        netns.as_raw_fd(),
        "bc 00 00 00  10 00 05 06  SEQ  00 00 00 00  # RTM_NEWLINK, REQUEST|ACK|EXCL|CREATE
         00 00 00 00  4d 00 00 00  01 00 00 00  01 00 00 00  # index 77, flags UP, change UP
         09 00 03 00  6c 78 63 31 00 00 00 00  # IFLA_IFNAME lxc1
         0a 00 01 00  02 00 00 00 00 01 00 00  # IFLA_ADDRESS
         08 00 04 00  dc 05 00 00  # IFLA_MTU 1500
         08 00 1b 00  05 00 00 00  # IFLA_GROUP
         08 00 29 00  00 00 01 00  # IFLA_GSO_MAX_SIZE
         08 00 3a 00  00 00 02 00  # IFLA_GRO_MAX_SIZE
         08 00 3f 00  00 00 03 00  # IFLA_GSO_IPV4_MAX_SIZE
         08 00 40 00  00 00 04 00  # IFLA_GRO_IPV4_MAX_SIZE
         08 00 1f 00  01 00 00 00  # IFLA_NUM_TX_QUEUES
         08 00 20 00  02 00 00 00  # IFLA_NUM_RX_QUEUES
         44 00 12 00  # IFLA_LINKINFO
           09 00 01 00  76 65 74 68 00 00 00 00  # IFLA_INFO_KIND veth
           34 00 02 00  # IFLA_INFO_DATA
             30 00 01 00  # VETH_INFO_PEER
               00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00
               09 00 03 00  65 74 68 30 00 00 00 00  # IFLA_IFNAME eth0
               08 00 1c 00  FD  # IFLA_NET_NS_FD
               08 00 04 00  78 05 00 00  # IFLA_MTU 1400",
    );
}

#[test]
fn link_changes() {
    let netns = File::open("/proc/self/ns/net").expect("open");
    let change = LinkChange {
        name: Some("eth0"),
        up: Some(false),
        arp: Some(false),
        netns: Some(netns.as_fd()),
        ..LinkChange::default()
    };
    expect_with_fd(
        Request::link_set(device(77), &change),
        netns.as_raw_fd(),
        "34 00 00 00  13 00 05 00  SEQ  00 00 00 00  # RTM_SETLINK, REQUEST|ACK
         00 00 00 00  4d 00 00 00  80 00 00 00  81 00 00 00  # flags NOARP, change NOARP|UP
         09 00 03 00  65 74 68 30 00 00 00 00  # IFLA_IFNAME
         08 00 1c 00  FD  # IFLA_NET_NS_FD",
    );
    expect(
        Request::link_set(device(77), &LinkChange { rp_filter: Some(2), ..LinkChange::default() }),
        "34 00 00 00  13 00 05 00  SEQ  00 00 00 00  # RTM_SETLINK
         00 00 00 00  4d 00 00 00  00 00 00 00  00 00 00 00
         14 00 1a 00  # IFLA_AF_SPEC
           10 00 02 00  # AF_INET
             0c 00 01 00  # IFLA_INET_CONF
               08 00 08 00  02 00 00 00  # IPV4_DEVCONF_RP_FILTER",
    );
    expect(
        Request::link_add_alt_name(device(77), "web"),
        "2c 00 00 00  6c 00 05 0e  SEQ  00 00 00 00  # RTM_NEWLINKPROP, REQUEST|ACK|EXCL|CREATE|APPEND
         00 00 00 00  4d 00 00 00  00 00 00 00  00 00 00 00
         0c 00 34 80  # IFLA_PROP_LIST, nested
           08 00 35 00  77 65 62 00  # IFLA_ALT_IFNAME",
    );
    expect(
        Request::link_delete(device(77)),
        "20 00 00 00  11 00 05 00  SEQ  00 00 00 00  # RTM_DELLINK
         00 00 00 00  4d 00 00 00  00 00 00 00  00 00 00 00",
    );
    expect(
        Request::links_delete_group(5),
        "28 00 00 00  11 00 05 00  SEQ  00 00 00 00  # RTM_DELLINK
         00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00  # no index
         08 00 1b 00  05 00 00 00  # IFLA_GROUP",
    );
}

#[test]
fn addresses() {
    let v4 = AddressSpec::new(device(77), "10.0.0.77/24".parse().expect("a prefix")).no_prefix_route();
    expect(
        Request::address_add(&v4),
        "30 00 00 00  14 00 05 06  SEQ  00 00 00 00  # RTM_NEWADDR, REQUEST|ACK|EXCL|CREATE
         02 18 00 00  4d 00 00 00  # AF_INET, /24, scope universe, device 77
         08 00 02 00  0a 00 00 4d  # IFA_LOCAL
         08 00 01 00  0a 00 00 4d  # IFA_ADDRESS
         08 00 08 00  00 02 00 00  # IFA_FLAGS: NOPREFIXROUTE",
    );
    let v6 = AddressSpec::new(device(77), "fd00::77/128".parse().expect("a prefix")).scope(Scope::Link).replace();
    expect(
        Request::address_add(&v6),
        "48 00 00 00  14 00 05 05  SEQ  00 00 00 00  # RTM_NEWADDR, REQUEST|ACK|REPLACE|CREATE
         0a 80 00 fd  4d 00 00 00  # AF_INET6, /128, scope link, device 77
         14 00 02 00  fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 77  # IFA_LOCAL
         14 00 01 00  fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 77  # IFA_ADDRESS
         08 00 08 00  02 00 00 00  # IFA_FLAGS: NODAD",
    );
    expect(
        Request::address_delete(device(77), v4.address),
        "28 00 00 00  15 00 05 00  SEQ  00 00 00 00  # RTM_DELADDR
         02 18 00 00  4d 00 00 00
         08 00 02 00  0a 00 00 4d
         08 00 01 00  0a 00 00 4d",
    );
}

#[test]
fn routes() {
    let default = RouteSpec::new("0.0.0.0/0".parse().expect("a prefix"))
        .gateway("10.0.0.1".parse().expect("an address"))
        .device(device(77))
        .source("10.0.0.77".parse().expect("an address"))
        .mtu(1400)
        .onlink();
    expect(
        Request::route_add(&default),
        "48 00 00 00  18 00 05 06  SEQ  00 00 00 00  # RTM_NEWROUTE, REQUEST|ACK|EXCL|CREATE
         02 00 00 00  fe 04 00 01  04 00 00 00  # AF_INET, /0, main, static, universe, unicast, onlink
         08 00 05 00  0a 00 00 01  # RTA_GATEWAY
         08 00 04 00  4d 00 00 00  # RTA_OIF
         08 00 07 00  0a 00 00 4d  # RTA_PREFSRC
         0c 00 08 00  08 00 02 00  78 05 00 00  # RTA_METRICS: RTAX_MTU 1400
         08 00 0f 00  fe 00 00 00  # RTA_TABLE",
    );
    let host = RouteSpec::new("fd00::1/128".parse().expect("a prefix")).device(device(77)).priority(7);
    expect(
        Request::route_replace(&host),
        "48 00 00 00  18 00 05 05  SEQ  00 00 00 00  # RTM_NEWROUTE, REQUEST|ACK|REPLACE|CREATE
         0a 80 00 00  fe 04 00 01  00 00 00 00  # AF_INET6, /128
         14 00 01 00  fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01  # RTA_DST
         08 00 04 00  4d 00 00 00  # RTA_OIF
         08 00 06 00  07 00 00 00  # RTA_PRIORITY
         08 00 0f 00  fe 00 00 00  # RTA_TABLE",
    );
    let link = RouteSpec::new("10.0.0.1/32".parse().expect("a prefix")).device(device(77));
    expect(
        Request::route_add(&link),
        "34 00 00 00  18 00 05 06  SEQ  00 00 00 00
         02 20 00 00  fe 04 fd 01  00 00 00 00  # /32, scope link: there is no gateway
         08 00 01 00  0a 00 00 01  # RTA_DST
         08 00 04 00  4d 00 00 00  # RTA_OIF
         08 00 0f 00  fe 00 00 00  # RTA_TABLE",
    );
    // host bits do not reach the kernel, which would refuse them; a table above 255 is in its attribute alone
    let dropped = RouteSpec::new("10.9.8.7/16".parse().expect("a prefix")).kind(RouteKind::Unreachable).table(0x1234);
    expect(
        Request::route_delete(&dropped),
        "2c 00 00 00  19 00 05 00  SEQ  00 00 00 00  # RTM_DELROUTE
         02 10 00 00  fc 04 ff 07  00 00 00 00  # /16, RT_TABLE_COMPAT, any scope, unreachable
         08 00 01 00  0a 09 00 00  # RTA_DST
         08 00 0f 00  34 12 00 00  # RTA_TABLE",
    );
}

#[test]
fn neighbours() {
    let v4 = NeighbourSpec { device: device(77), address: "10.0.0.1".parse().expect("an address"), mac: MAC };
    expect(
        Request::neighbour_set(&v4),
        "30 00 00 00  1c 00 05 05  SEQ  00 00 00 00  # RTM_NEWNEIGH, REQUEST|ACK|REPLACE|CREATE
         02 00 00 00  4d 00 00 00  80 00 00 00  # AF_INET, device 77, NUD_PERMANENT
         08 00 01 00  0a 00 00 01  # NDA_DST
         0a 00 02 00  02 00 00 00 00 01 00 00  # NDA_LLADDR",
    );
    expect(
        Request::neighbour_delete(device(77), "fd00::1".parse().expect("an address")),
        "30 00 00 00  1d 00 05 00  SEQ  00 00 00 00  # RTM_DELNEIGH
         0a 00 00 00  4d 00 00 00  00 00 00 00
         14 00 01 00  fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01",
    );
}

#[test]
fn clsact_and_filters() {
    let clsact = "00 00 00 00  4d 00 00 00  00 00 ff ff  f1 ff ff ff  00 00 00 00  # device 77, ffff:, TC_H_CLSACT
                  0b 00 01 00  63 6c 73 61 63 74 00 00  # TCA_KIND";
    expect(
        Request::clsact_add(device(77)),
        &format!("30 00 00 00  24 00 05 06  SEQ  00 00 00 00  # RTM_NEWQDISC\n {clsact}"),
    );
    expect(
        Request::clsact_delete(device(77)),
        &format!("30 00 00 00  25 00 05 00  SEQ  00 00 00 00  # RTM_DELQDISC\n {clsact}"),
    );
    let program = File::open("/dev/null").expect("open");
    let spec = FilterSpec {
        device: device(77),
        direction: Direction::Ingress,
        priority: 1,
        handle: 1,
        program: program.as_fd(),
        name: "cilium-lxc1",
        direct_action: true,
    };
    let filter =
        "00 00 00 00  4d 00 00 00  01 00 00 00  f2 ff ff ff  00 03 01 00  # handle 1, ingress, prio 1, ETH_P_ALL
                  08 00 01 00  62 70 66 00  # TCA_KIND bpf
                  24 00 02 00  # TCA_OPTIONS
                    08 00 06 00  FD  # TCA_BPF_FD
                    10 00 07 00  63 69 6c 69 75 6d 2d 6c 78 63 31 00  # TCA_BPF_NAME
                    08 00 08 00  01 00 00 00  # TCA_BPF_FLAGS: direct action";
    let fd = program.as_raw_fd();
    let create = format!("50 00 00 00  2c 00 05 06  SEQ  00 00 00 00  # RTM_NEWTFILTER, CREATE|EXCL\n {filter}");
    expect_with_fd(Request::filter_create(&spec), fd, &create);
    let replace = format!("50 00 00 00  2c 00 05 04  SEQ  00 00 00 00  # RTM_NEWTFILTER, CREATE\n {filter}");
    expect_with_fd(Request::filter_replace(&spec), fd, &replace);
    expect(
        Request::filter_delete(device(77), Direction::Egress, 2, 3),
        "2c 00 00 00  2d 00 05 00  SEQ  00 00 00 00  # RTM_DELTFILTER
         00 00 00 00  4d 00 00 00  03 00 00 00  f3 ff ff ff  00 03 02 00  # handle 3, egress, prio 2
         08 00 01 00  62 70 66 00",
    );
}
