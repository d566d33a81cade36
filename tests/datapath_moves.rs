//! An address moves to and fro between two pods, both of which answer, while others talk to it on several CPUs: every question is
//! answered, so no move loses a packet of an established connection. Needs root.
mod common;

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::netns::TestNetns;
use common::node::{PATIENCE, TestNode};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use podwire::abi::{EndpointInfo, EndpointKey, EndpointRow};
use podwire::netlink::{AddressSpec, Socket};
use podwire::tables::Switches;

const CLIENTS: usize = 4;
const EXCHANGES: u64 = 4_000;
const MOVES: u64 = 1_000;
const PORT: u16 = 9999;

#[test]
fn every_packet_arrives_while_its_receiver_moves() {
    let node = TestNode::new();
    let [client, one, other] = [(); 3].map(|()| TestNetns::new());
    let datapath = node.open();
    node.create(&datapath, "default/client", &client);
    let here = node.create(&datapath, "default/here", &one);
    let there = node.create(&datapath, "default/there", &other);
    for (address, second) in [
        (IpAddr::from(here.ipv4().expect("IPv4")), IpAddr::from(there.ipv4().expect("IPv4"))),
        (here.ipv6().expect("IPv6").into(), there.ipv6().expect("IPv6").into()),
    ] {
        give(&other.socket(), second, address);
        let places = Places::new(&node, address, second);
        let (moves, exchanges) = talk(&client, [&one, &other], address, || places.swap());
        assert!(moves >= MOVES && exchanges >= EXCHANGES * CLIENTS as u64, "{moves} moves, {exchanges} exchanges");
        places.settle();
    }
}

/// Gives the device with one address another.
fn give(socket: &Socket, beside: IpAddr, address: IpAddr) {
    let devices = socket.addresses(None).expect("addresses");
    let device = devices.iter().find(|it| it.address.ip() == beside).expect("the pod's own").device;
    let prefix = if address.is_ipv4() { 32 } else { 128 };
    let network = ipnetwork::IpNetwork::new(address, prefix).expect("an address");
    socket.address_add(&AddressSpec::new(device, network).detect_duplicates(false)).expect("added");
}

/// Both pods answer, some clients ask, one question at a time each; an answer that does not come is a packet that was lost.
/// Returns how often `change` was called, and how many questions were answered.
fn talk(client: &TestNetns, servers: [&TestNetns; 2], address: IpAddr, mut change: impl FnMut()) -> (u64, u64) {
    let (over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0u8; 16].into() };
    let mut moves = 0;
    let servers = servers.map(|netns| netns.run(|| UdpSocket::bind((address, PORT)).expect("bind in the pod")));
    thread::scope(|scope| {
        for server in &servers {
            server.set_read_timeout(Some(PATIENCE / 50)).expect("a timeout");
            scope.spawn(|| echo(server, &over));
        }
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let socket = client.run(|| UdpSocket::bind((any, 0)).expect("bind"));
                socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                socket.connect((address, PORT)).expect("connect");
                let answered = &answered;
                scope.spawn(move || ask(&socket, answered))
            })
            .collect();
        while moves < MOVES || clients.iter().any(|client| !client.is_finished()) {
            change();
            moves += 1;
            thread::yield_now();
        }
        over.store(true, Ordering::SeqCst);
    });
    (moves, answered.load(Ordering::SeqCst))
}

fn ask(socket: &UdpSocket, answered: &AtomicU64) {
    for number in 0..EXCHANGES {
        socket.send(&number.to_be_bytes()).expect("send");
        let mut answer = [0; 8];
        socket.recv(&mut answer).unwrap_or_else(|error| panic!("exchange {number}: {error}"));
        assert_eq!(u64::from_be_bytes(answer), number);
        answered.fetch_add(1, Ordering::SeqCst);
    }
}

fn echo(socket: &UdpSocket, over: &AtomicBool) {
    let mut question = [0; 8];
    while !over.load(Ordering::SeqCst) {
        if let Ok((length, from)) = socket.recv_from(&mut question) {
            socket.send_to(&question[..length], from).expect("answer");
        }
    }
}

/// The two places where an address may be: each a device with its Ethernet addresses.
struct Places {
    addresses: MapHandle,
    switches: Switches,
    key: EndpointKey,
    places: [EndpointInfo; 2],
    now: std::cell::Cell<usize>,
}

impl Places {
    /// `address` is here now; it may also be where `second` is. Who it is stays the same in both places.
    fn new(node: &TestNode, address: IpAddr, second: IpAddr) -> Self {
        let open = |name| MapHandle::from_pinned_path(node.bpf.maps().join(name)).expect("the map is pinned");
        let (addresses, rows) = (open("cilium_lxc"), open("podwire_endpoints"));
        let here: EndpointInfo = read(&addresses, bytemuck::bytes_of(&key(address)));
        let there: EndpointInfo = read(&addresses, bytemuck::bytes_of(&key(second)));
        let there = EndpointInfo { lxc_id: here.lxc_id, sec_id: here.sec_id, ..there };
        // What the second device's pod may send from is the address as well.
        let [here_row, there_row] = [here.ifindex, there.ifindex].map(|index| (index & 0xffff).to_ne_bytes());
        let from: EndpointRow = read(&rows, &here_row);
        let row = EndpointRow {
            lxc_id: from.lxc_id,
            sec_id: from.sec_id,
            ipv4: from.ipv4,
            ipv6: from.ipv6,
            ..read(&rows, &there_row)
        };
        rows.update(&there_row, bytemuck::bytes_of(&row), MapFlags::ANY).expect("the map takes it");
        let switches = Switches::open_pinned(node.bpf.maps()).expect("podwire_runtime is pinned");
        Self { addresses, switches, key: key(address), places: [here, there], now: 0.into() }
    }

    fn swap(&self) {
        self.now.set(1 - self.now.get());
        let place = bytemuck::bytes_of(&self.places[self.now.get()]);
        self.addresses.update(bytemuck::bytes_of(&self.key), place, MapFlags::ANY).expect("the map takes it");
        self.switches.advance().expect("the only row");
    }

    /// Back to where it was.
    fn settle(&self) {
        if self.now.get() == 1 {
            self.swap();
        }
    }
}

fn key(address: IpAddr) -> EndpointKey {
    let mut key = EndpointKey { family: if address.is_ipv4() { 1 } else { 2 }, ..EndpointKey::default() };
    match address {
        IpAddr::V4(address) => key.ip[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => key.ip = address.octets(),
    }
    key
}

fn read<T: bytemuck::Pod>(map: &MapHandle, key: &[u8]) -> T {
    let value = map.lookup(key, MapFlags::ANY).expect("readable").expect("there");
    bytemuck::pod_read_unaligned(&value)
}
