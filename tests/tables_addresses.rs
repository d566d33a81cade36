//! Endpoints, ipcache and nodes on real kernel maps. Needs root.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podwire::abi::{EndpointInfo, EndpointKey};
use podwire::maps::Update;
use podwire::tables::{EndpointFlags, IpCache, IpCacheEntry, LxcEndpoint, LxcEntry, LxcMap, NodeEntry, NodeMap};
use podwire::{EndpointId, ErrorKind, IfIndex, MacAddr, SecurityId};

const V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x77);

fn endpoint(id: u16) -> LxcEndpoint {
    LxcEndpoint {
        id: EndpointId::new(id).expect("not 0"),
        identity: SecurityId::new(5),
        ifindex: IfIndex::new(u32::from(id)).expect("not 0"),
        mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
        node_mac: MacAddr::new([2, 0, 0, 0, 0, 2]),
        flags: EndpointFlags::default(),
        parent_ifindex: None,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("valid address")
}

#[test]
fn an_endpoint_is_found_by_both_addresses() {
    let lxc = LxcMap::create(16).expect("a map");
    lxc.write_endpoint(Some(V4), Some(V6), &endpoint(33)).expect("room");
    lxc.write_host(ip("192.168.0.1")).expect("room");
    assert_eq!(lxc.lookup(V4.into()).expect("readable"), Some(LxcEntry::Endpoint(endpoint(33))));
    assert_eq!(lxc.lookup(V6.into()).expect("readable"), Some(LxcEntry::Endpoint(endpoint(33))));
    assert_eq!(lxc.lookup(ip("10.0.0.78")).expect("readable"), None);
    let rows: Vec<_> =
        lxc.entries().expect("readable").iter().map(|(address, entry)| format!("{address} {entry}")).collect();
    let value = "id=33    sec_id=5     flags=0x0000 ifindex=33  mac=02:00:00:00:00:01 nodemac=02:00:00:00:00:02 parent_ifindex=0  ";
    assert_eq!(rows, [format!("10.0.0.77 {value}"), "192.168.0.1 (localhost)".into(), format!("fd00::77 {value}")]);
}

#[test]
fn an_endpoint_without_address_is_refused() {
    let lxc = LxcMap::create(16).expect("a map");
    let error = lxc.write_endpoint(None, None, &endpoint(1)).expect_err("no address");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_full_map_takes_neither_address() {
    let lxc = LxcMap::create(1).expect("a map");
    let error = lxc.write_endpoint(Some(V4), Some(V6), &endpoint(1)).expect_err("one row for two addresses");
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert_eq!(lxc.entries().expect("readable"), []);
}

#[test]
fn a_failed_overwrite_puts_the_old_value_back() {
    let lxc = LxcMap::create(1).expect("a map");
    lxc.write_endpoint(Some(V4), None, &endpoint(1)).expect("room for one");
    lxc.write_endpoint(Some(V4), Some(V6), &endpoint(2)).expect_err("no room for the second address");
    assert_eq!(lxc.entries().expect("readable"), [(V4.into(), LxcEntry::Endpoint(endpoint(1)))]);
    // An overwrite alone needs no room.
    lxc.write_endpoint(Some(V4), None, &endpoint(2)).expect("no new row");
    assert_eq!(lxc.lookup(V4.into()).expect("readable"), Some(LxcEntry::Endpoint(endpoint(2))));
}

#[test]
fn deleting_an_endpoint_spares_an_address_that_moved_on() {
    let lxc = LxcMap::create(16).expect("a map");
    lxc.write_endpoint(Some(V4), Some(V6), &endpoint(1)).expect("room");
    lxc.write_endpoint(Some(V4), None, &endpoint(2)).expect("room");
    let id = |number| EndpointId::new(number).expect("not 0");
    assert_eq!(lxc.delete_endpoint(Some(V4), Some(V6), id(1)).expect("deletable"), 1);
    assert_eq!(lxc.entries().expect("readable"), [(V4.into(), LxcEntry::Endpoint(endpoint(2)))]);
    assert_eq!(lxc.delete_endpoint(Some(V4), Some(V6), id(1)).expect("again"), 0);
    assert!(lxc.delete(V4.into()).expect("deletable"));
    assert!(!lxc.delete(V4.into()).expect("gone already"));
}

#[test]
fn rows_that_nobody_here_wrote_are_listed_as_they_are() {
    let lxc = LxcMap::create(16).expect("a map");
    let strange = EndpointInfo { lxc_id: 7, ..EndpointInfo::default() };
    lxc.map().insert(&EndpointKey::of(V4.into()), &strange, Update::Any).expect("room");
    let unknown_family = EndpointKey { family: 9, ..EndpointKey::of(V4.into()) };
    lxc.map().insert(&unknown_family, &strange, Update::Any).expect("room");
    assert_eq!(lxc.entries().expect("readable"), [(V4.into(), LxcEntry::Other(strange))]);
}

#[test]
fn the_longest_prefix_decides() {
    let cache = IpCache::create(64).expect("a map");
    let entry = |identity| IpCacheEntry::direct(SecurityId::new(identity));
    let prefixes = [
        ("0.0.0.0/0", 9),
        ("10.0.0.0/8", 100),
        ("10.1.0.0/16", 101),
        ("10.1.2.3/32", 102),
        ("::/0", 10),
        ("fd00::/16", 200),
        ("fd00::1/128", 201),
    ];
    for (prefix, identity) in prefixes {
        cache.upsert(prefix.parse().expect("valid"), &entry(identity)).expect("room");
    }
    for (address, identity) in [
        ("10.1.2.3", 102),
        ("10.1.2.4", 101),
        ("10.2.0.1", 100),
        ("11.0.0.1", 9),
        ("fd00::1", 201),
        ("fd00::2", 200),
        ("2001::1", 10),
    ] {
        assert_eq!(cache.lookup(ip(address)).expect("readable"), Some(entry(identity)), "{address}");
    }
    assert!(cache.delete("10.1.0.0/16".parse().expect("valid")).expect("deletable"));
    assert!(!cache.delete("10.1.0.0/16".parse().expect("valid")).expect("gone already"));
    assert_eq!(cache.lookup(ip("10.1.2.4")).expect("readable"), Some(entry(100)));
    let listed: Vec<_> = cache.entries().expect("readable").iter().map(|(prefix, _)| prefix.to_string()).collect();
    assert_eq!(listed, ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "::/0", "fd00::/16", "fd00::1/128"]);
}

#[test]
fn ipcache_tells_an_exact_prefix_from_one_around_it() {
    let cache = IpCache::create(64).expect("a map");
    let node = IpCacheEntry::tunnelled(SecurityId::new(6), ip("192.168.0.2"));
    cache.upsert("10.0.2.0/24".parse().expect("valid"), &node).expect("room");
    assert_eq!(cache.exact("10.0.2.0/24".parse().expect("valid")).expect("readable"), Some(node));
    assert_eq!(cache.exact("10.0.2.0/25".parse().expect("valid")).expect("readable"), None);
    assert_eq!(cache.exact("10.0.2.7/32".parse().expect("valid")).expect("readable"), None);
    assert_eq!(cache.lookup(ip("10.0.2.7")).expect("readable"), Some(node));
    assert_eq!(cache.lookup(ip("10.0.3.7")).expect("readable"), None);
}

#[test]
fn a_prefix_with_host_bits_is_refused_and_a_full_cache_says_so() {
    let cache = IpCache::create(1).expect("a map");
    let entry = IpCacheEntry::direct(SecurityId::new(300));
    let error = cache.upsert("10.0.2.1/24".parse().expect("parses"), &entry).expect_err("host bits");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    cache.upsert("10.0.2.0/24".parse().expect("valid"), &entry).expect("room for one");
    let error = cache.upsert("10.0.3.0/24".parse().expect("valid"), &entry).expect_err("full");
    assert_eq!(error.kind(), ErrorKind::Exhausted);
}

#[test]
fn nodes_by_address() {
    let nodes = NodeMap::create(16).expect("a map");
    nodes.upsert(ip("fd00::1"), NodeEntry { id: 7, spi: 3 }).expect("room");
    nodes.upsert(ip("192.168.0.2"), NodeEntry { id: 8, spi: 0 }).expect("room");
    assert_eq!(nodes.lookup(ip("fd00::1")).expect("readable"), Some(NodeEntry { id: 7, spi: 3 }));
    let addresses: Vec<_> = nodes.entries().expect("readable").into_iter().map(|(address, _)| address).collect();
    assert_eq!(addresses, [ip("192.168.0.2"), ip("fd00::1")]);
    assert!(nodes.delete(ip("fd00::1")).expect("deletable"));
    assert_eq!(nodes.lookup(ip("fd00::1")).expect("readable"), None);
}
