//! The node's programs on maps of their own, run by `BPF_PROG_TEST_RUN`: a packet in; verdict, bytes, counters and events out.
//!
//! A test run takes its device from the caller's namespace and the loopback device (index 1) without being told: it stands for
//! the host side of the sending pod's pair, so nothing has to be set up and nothing is left behind.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::{MapCore, MapFlags, MapHandle, RingBufferBuilder};
use podwire::abi::{
    ENDPOINT_ROW_IPV4, ENDPOINT_ROW_IPV6, EndpointInfo, EndpointKey, EndpointRow, EventBudget, ForwardPoint,
    IpCacheKey, MetricsKey, MetricsValue, RemoteEndpointInfo, Runtime,
};
use podwire::program::{Constants, Loader, ObjectImage, ProgramSet, SkBuff, embedded, test_run};
use podwire::tables::{
    PolicyAction, PolicyDirection, PolicyL4, PolicyMap, PolicyMaps, PolicyMatch, PolicyVerdict, Switches,
};
use podwire::{EndpointId, SecurityId};

#[path = "outcome.rs"]
mod outcome;

pub(crate) use outcome::*;

use super::bpf::{BpfRoot, object};
use super::packets::{self, Mac, Upper};

pub(crate) const FROM_CONTAINER: &str = "cil_from_container";
pub(crate) const TO_CONTAINER: &str = "cil_to_container";
pub(crate) const FROM_HOST: &str = "cil_from_host";
pub(crate) const TO_HOST: &str = "cil_to_host";
pub(crate) const FROM_NETDEV: &str = "cil_from_netdev";
pub(crate) const TO_NETDEV: &str = "cil_to_netdev";
pub(crate) const PROGRAMS: [&str; 6] = [FROM_CONTAINER, TO_CONTAINER, FROM_HOST, TO_HOST, FROM_NETDEV, TO_NETDEV];

/// TC_ACT_UNSPEC: programs of other owners on the hook still run.
pub(crate) const PASS: i32 = -1;
/// TC_ACT_SHOT
pub(crate) const SHOT: i32 = 2;
/// TC_ACT_REDIRECT
pub(crate) const REDIRECT: i32 = 7;

/// What the programs of the tests are told; nothing depends on its being true.
pub(crate) const TICKS_PER_SECOND: u32 = 250;
/// Everything stands where it stood the last time.
const HASH_KEYS: [u64; 5] =
    [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9, 0x27d4_eb2f_1656_67c5, 0x85eb_ca77_c2b2_ae63];

pub(crate) const INGRESS: u8 = 1;
pub(crate) const EGRESS: u8 = 2;

/// The index of cilium_host.
pub(crate) const HOST_DEVICE: u32 = 77;
/// Of a device of the host's own: a bridge, a VLAN, a second NIC.
pub(crate) const OTHER_DEVICE: u32 = 78;
pub(crate) const HOST_MAC: Mac = [0x02, 0, 0, 0, 0, 0x01];
/// The loopback device's own, so that the kernel takes frames for it as meant for this node.
pub(crate) const DEVICE_MAC: Mac = [0; 6];
pub(crate) const NEIGHBOUR_MAC: Mac = [0x02, 0, 0, 0, 0, 0x99];
pub(crate) const GATEWAY4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// In the pods' range, but nobody's.
pub(crate) const NOBODY4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 200);
pub(crate) const NOBODY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xc8);
pub(crate) const OUTSIDE4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
pub(crate) const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);

/// An endpoint of the tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pod {
    pub(crate) ifindex: u32,
    pub(crate) id: u16,
    pub(crate) identity: u32,
    pub(crate) mac: Mac,
    pub(crate) node_mac: Mac,
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
}

const fn pod(ifindex: u32, number: u8) -> Pod {
    Pod {
        ifindex,
        id: 1000 + number as u16,
        identity: 40_000 + number as u32,
        mac: [0x8a, 0, 0, 0, 0, number],
        node_mac: [0x66, 0, 0, 0, 0, number],
        ipv4: Some(Ipv4Addr::new(10, 0, 0, number)),
        ipv6: Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number as u16)),
    }
}

/// The sender: its device is the one that test runs take.
pub(crate) const A: Pod = pod(1, 10);
pub(crate) const B: Pod = pod(4011, 11);

impl Pod {
    pub(crate) const fn v4(&self) -> Ipv4Addr {
        self.ipv4.expect("the pod has IPv4")
    }

    pub(crate) const fn v6(&self) -> Ipv6Addr {
        self.ipv6.expect("the pod has IPv6")
    }

    /// A frame's addresses as the pod writes them: from itself to the gateway.
    pub(crate) const fn to_gateway(self) -> (Mac, Mac) {
        (self.mac, self.node_mac)
    }

    pub(crate) fn sends4(&self, to: Ipv4Addr, upper: Upper) -> Vec<u8> {
        packets::ipv4(self.to_gateway(), (self.v4(), to), 64, upper)
    }

    pub(crate) fn sends6(&self, to: Ipv6Addr, upper: Upper) -> Vec<u8> {
        packets::ipv6(self.to_gateway(), (self.v6(), to), 64, upper)
    }

    pub(crate) fn row(&self) -> EndpointRow {
        EndpointRow {
            ifindex: self.ifindex,
            lxc_id: self.id,
            flags: self.ipv4.map_or(0, |_| ENDPOINT_ROW_IPV4) | self.ipv6.map_or(0, |_| ENDPOINT_ROW_IPV6),
            ipv4: self.ipv4.map_or(0, |address| u32::from_ne_bytes(address.octets())),
            sec_id: self.identity,
            ipv6: self.ipv6.map_or([0; 16], |address| address.octets()),
            mac: padded(self.mac),
            node_mac: padded(self.node_mac),
            pad: [0; 4],
        }
    }

    fn info(&self) -> EndpointInfo {
        EndpointInfo {
            ifindex: self.ifindex,
            lxc_id: self.id,
            mac: padded(self.mac),
            node_mac: padded(self.node_mac),
            sec_id: self.identity,
            ..EndpointInfo::default()
        }
    }
}

pub(crate) fn padded(mac: Mac) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..6].copy_from_slice(&mac);
    bytes
}

pub(crate) fn key4(address: Ipv4Addr) -> EndpointKey {
    let mut key = EndpointKey { family: 1, ..EndpointKey::default() };
    key.ip[..4].copy_from_slice(&address.octets());
    key
}

pub(crate) fn key6(address: Ipv6Addr) -> EndpointKey {
    EndpointKey { ip: address.octets(), family: 2, ..EndpointKey::default() }
}

/// tests/bpf/prelude.bpf.c
static PRELUDE: ObjectImage<'static> =
    ObjectImage::new("prelude", include_bytes!(concat!(env!("OUT_DIR"), "/prelude.bpf.o")));

/// What the kernel allows the tests no other way: see tests/bpf/prelude.bpf.c.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Prepare {
    /// Cut or lengthen (with zeroes) the packet to so many bytes.
    Length(usize),
    /// Put a VLAN tag beside the frame.
    TagBeside(u16),
}

/// How a node is set up before its programs are loaded.
pub(crate) struct Setup {
    pub(crate) constants: Constants,
    pub(crate) ring_bytes: Option<u32>,
    /// Tables of another size than the node's.
    pub(crate) sizes: Vec<(&'static str, u32)>,
    /// An object to load beside the node's.
    pub(crate) beside: Option<ObjectImage<'static>>,
}

impl Setup {
    /// A node with both families.
    pub(crate) fn new() -> Self {
        let mut constants = Constants::new();
        constants
            .set("cfg_host_ifindex", HOST_DEVICE)
            .set("cfg_host_mac", padded(HOST_MAC))
            .set("cfg_router_ipv4", GATEWAY4.octets())
            .set("cfg_router_ipv6", GATEWAY6.octets())
            .set("cfg_pods_ipv4", [10u8, 0, 0, 0])
            .set("cfg_pods_ipv4_mask", [255u8, 255, 255, 0])
            .set("cfg_pods_ipv6", Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0).octets())
            .set("cfg_pods_ipv6_mask", Ipv6Addr::from(!0u128 << 8).octets())
            .set("cfg_world_ipv4", 9u32)
            .set("cfg_world_ipv6", 10u32)
            .set("cfg_ticks_per_second", TICKS_PER_SECOND)
            .set("cfg_ct_lifetime_tcp", 21_600u32)
            .set("cfg_ct_lifetime_tcp_syn", 60u32)
            .set("cfg_ct_lifetime_closing", 10u32)
            .set("cfg_ct_lifetime_any", 60u32);
        Self { constants, ring_bytes: None, sizes: Vec::new(), beside: None }
    }

    pub(crate) fn load(self) -> Datapath {
        let root = BpfRoot::new();
        let mut loader = Loader::new(root.maps())
            .object(object("lxc", embedded::LXC))
            .object(object("host", embedded::HOST))
            .object(object("netdev", embedded::NETDEV))
            .object(object("conntrack", embedded::CONNTRACK))
            .object(PRELUDE)
            .constants(self.constants);
        if let Some(bytes) = self.ring_bytes {
            loader = loader.max_entries("podwire_events", bytes);
        }
        for (map, entries) in self.sizes {
            loader = loader.max_entries(map, entries);
        }
        if let Some(image) = self.beside {
            loader = loader.object(image);
        }
        let set = loader.load().expect("the programs load");
        let datapath = Datapath { root, set };
        let switches = Switches::open_pinned(datapath.maps()).expect("podwire_runtime is pinned");
        let runtime = Runtime { generation: 1, hash_keys: HASH_KEYS, ..Runtime::default() };
        switches.map().write(0, &runtime).expect("the only row");
        datapath.switch(0, 1_000_000);
        datapath.add(&A);
        datapath.add(&B);
        datapath.add_host_address(&key4(GATEWAY4));
        datapath.add_host_address(&key6(GATEWAY6));
        datapath
    }
}

/// The loaded programs with A, B and the host's own addresses in their maps, and no limit on drop events.
pub(crate) struct Datapath {
    root: BpfRoot,
    set: ProgramSet,
}

impl Datapath {
    pub(crate) fn load() -> Self {
        Setup::new().load()
    }

    /// Where the maps are pinned.
    pub(crate) fn maps(&self) -> std::path::PathBuf {
        self.root.maps()
    }

    pub(crate) fn set(&self) -> &ProgramSet {
        &self.set
    }

    pub(crate) fn map(&self, name: &str) -> MapHandle {
        MapHandle::from_pinned_path(self.root.maps().join(name)).expect("the map is pinned")
    }

    pub(crate) fn write(&self, map: &str, key: &[u8], value: &[u8]) {
        self.map(map).update(key, value, MapFlags::ANY).expect("the map takes it");
        if ["cilium_lxc", "podwire_endpoints", "cilium_ipcache_v2"].contains(&map) {
            self.advance();
        }
    }

    pub(crate) fn clear(&self, map: &str) {
        let map = self.map(map);
        let keys: Vec<_> = map.keys().collect();
        for key in keys {
            map.delete(&key).expect("the key is there");
        }
        self.advance();
    }

    /// A pod with its row, its addresses, and a policy that allows everything.
    pub(crate) fn add(&self, pod: &Pod) {
        self.allow_all(pod.id);
        self.add_addresses(pod);
    }

    /// A pod's row and addresses. Its policy is that of its id.
    pub(crate) fn add_addresses(&self, pod: &Pod) {
        self.set_row(pod.ifindex & 0xffff, &pod.row());
        let info = pod.info();
        if let Some(address) = pod.ipv4 {
            self.write("cilium_lxc", bytemuck::bytes_of(&key4(address)), bytemuck::bytes_of(&info));
        }
        if let Some(address) = pod.ipv6 {
            self.write("cilium_lxc", bytemuck::bytes_of(&key6(address)), bytemuck::bytes_of(&info));
        }
    }

    /// Puts a policy into force.
    pub(crate) fn set_policy(&self, id: u16, entries: &[(PolicyMatch, PolicyVerdict)]) {
        let endpoint = EndpointId::new(id).expect("an endpoint's id");
        let policy = PolicyMap::create(endpoint, entries.len().max(1) as u32).expect("a policy map");
        for (matched, verdict) in entries {
            policy.upsert(matched, verdict).expect("the policy map takes it");
        }
        let policies = PolicyMaps::open_pinned(self.root.maps()).expect("podwire_policy is pinned");
        policies.outlines().write(endpoint, policy.map().info().id, entries).expect("the outline is written");
        policies.replace(&[(endpoint, &policy)]).expect("the policy comes into force");
        self.advance();
    }

    fn allow_all(&self, id: u16) {
        let entry = |direction| {
            let matched = PolicyMatch { direction, identity: SecurityId::UNKNOWN, l4: PolicyL4::Any };
            (matched, PolicyVerdict::new(PolicyAction::Allow, 1))
        };
        self.set_policy(id, &[entry(PolicyDirection::Ingress), entry(PolicyDirection::Egress)]);
    }

    /// What is known of a prefix outside of the node.
    pub(crate) fn set_identity(&self, address: IpAddr, bits: u32, identity: u32) {
        let (octets, family) = match address {
            IpAddr::V4(address) => (address.octets().to_vec(), 1),
            IpAddr::V6(address) => (address.octets().to_vec(), 2),
        };
        let mut key = IpCacheKey { prefixlen: 32 + bits, family, ..IpCacheKey::default() };
        key.ip[..octets.len()].copy_from_slice(&octets);
        let value = RemoteEndpointInfo { sec_identity: identity, ..RemoteEndpointInfo::default() };
        self.write("cilium_ipcache_v2", bytemuck::bytes_of(&key), bytemuck::bytes_of(&value));
    }

    /// Moves the generation: all that the programs remember is void.
    pub(crate) fn advance(&self) {
        Switches::open_pinned(self.root.maps()).and_then(|switches| switches.advance()).expect("podwire_runtime");
    }

    pub(crate) fn set_row(&self, index: u32, row: &EndpointRow) {
        self.write("podwire_endpoints", &index.to_ne_bytes(), bytemuck::bytes_of(row));
    }

    pub(crate) fn add_host_address(&self, key: &EndpointKey) {
        let info = EndpointInfo { flags: 1, sec_id: 1, ..EndpointInfo::default() };
        self.write("cilium_lxc", bytemuck::bytes_of(key), bytemuck::bytes_of(&info));
    }

    pub(crate) fn switch(&self, trace: u32, drop_events_per_window: u32) {
        let switches = Switches::open_pinned(self.root.maps()).expect("podwire_runtime is pinned");
        switches.set_tracing(trace != 0).expect("the only row");
        switches.set_drop_limit(drop_events_per_window).expect("the only row");
    }

    pub(crate) fn run(&self, program: &str, packet: &[u8]) -> Outcome {
        self.run_in(program, packet, &SkBuff::default())
    }

    pub(crate) fn run_in(&self, program: &str, packet: &[u8], context: &SkBuff) -> Outcome {
        self.observe(program, packet, || self.run_quick(program, packet, context))
    }

    /// Verdict and bytes of a packet cut to `length`, however short for its type.
    pub(crate) fn run_cut(&self, program: &str, packet: &[u8], length: usize) -> (i32, Vec<u8>) {
        let mut context = SkBuff::default();
        context.cb[0] = length as u32;
        self.go_on_with(program);
        self.run_quick("prelude", packet, &context)
    }

    /// Runs a program on a packet that could not be handed to it directly.
    pub(crate) fn run_prepared(&self, program: &str, packet: &[u8], prepare: Prepare) -> Outcome {
        let mut context = SkBuff::default();
        let mut input = packet.to_vec();
        match prepare {
            Prepare::Length(length) => {
                context.cb[0] = length as u32;
                input.resize(length, 0);
            }
            Prepare::TagBeside(tag) => context.cb[1] = tag.into(),
        }
        self.go_on_with(program);
        self.observe(program, &input, || self.run_quick("prelude", packet, &context))
    }

    fn go_on_with(&self, program: &str) {
        let target = self.set.program(program).expect("the program is loaded").as_fd().as_raw_fd();
        self.write("prelude_next", &0u32.to_ne_bytes(), &target.to_ne_bytes());
    }

    fn observe(&self, program: &str, input: &[u8], run: impl FnOnce() -> (i32, Vec<u8>)) -> Outcome {
        let forwards = self.forwards();
        let drops = self.drops();
        let (verdict, packet) = run();
        Outcome {
            program: program.to_owned(),
            input: input.to_vec(),
            verdict,
            packet,
            forwards: difference(&forwards, self.forwards()),
            drops: difference(&drops, self.drops()),
            events: self.events(),
        }
    }

    /// Verdict and bytes alone, for long tables.
    pub(crate) fn run_quick(&self, program: &str, packet: &[u8], context: &SkBuff) -> (i32, Vec<u8>) {
        let program = self.set.program(program).expect("the program is loaded");
        let run = test_run(program, packet, context, 1).expect("the test run is accepted");
        (run.retval as i32, run.data)
    }

    /// `podwire_forwards`, summed over the CPUs; points that never counted are left out, and so is what was denied.
    pub(crate) fn forwards(&self) -> BTreeMap<u32, MetricsValue> {
        self.points(|point| point.drop_reason().is_none()).map(|(point, value)| (point as u32, value)).collect()
    }

    /// `cilium_metrics`, summed over the CPUs, and what was denied.
    pub(crate) fn drops(&self) -> BTreeMap<MetricsKey, MetricsValue> {
        let map = self.map("cilium_metrics");
        let denied = self.points(|point| point.drop_reason().is_some()).map(|(point, value)| {
            let egress = matches!(point, ForwardPoint::DeniedEgress | ForwardPoint::DenyRuleEgress);
            let key = MetricsKey {
                reason: point.drop_reason().unwrap_or(0),
                dir: if egress { EGRESS } else { INGRESS },
                line: denial_line(),
                file: 46,
                ..MetricsKey::default()
            };
            (key, value)
        });
        let others = map.keys().map(|key| (bytemuck::pod_read_unaligned(&key), sum(&map, &key)));
        others.chain(denied).collect()
    }

    fn points(&self, which: impl Fn(ForwardPoint) -> bool) -> impl Iterator<Item = (ForwardPoint, MetricsValue)> {
        let map = self.map("podwire_forwards");
        let points = ForwardPoint::ALL.into_iter().filter(move |point| which(*point));
        let values = points.map(move |point| (point, sum(&map, &(point as u32).to_ne_bytes())));
        values.filter(|(_, value)| value.count > 0)
    }

    /// The budgets of all CPUs.
    pub(crate) fn budgets(&self) -> Vec<EventBudget> {
        let map = self.map("podwire_event_budget");
        let values = map.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY).expect("the map is readable");
        values.unwrap_or_default().iter().map(|bytes| bytemuck::pod_read_unaligned(bytes)).collect()
    }

    /// Takes every event out of the ring.
    pub(crate) fn events(&self) -> Vec<Event> {
        let map = self.map("podwire_events");
        let mut events = Vec::new();
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&map, |record: &[u8]| {
                events.push(Event::parse(record));
                0
            })
            .expect("the ring is readable");
        let ring = builder.build().expect("the ring is readable");
        ring.consume().expect("the ring is consumed");
        drop(ring);
        events
    }
}

/// Where a policy's denial becomes a drop. The counters keep no line for it, the events do.
fn denial_line() -> u16 {
    let source = include_str!("../../bpf/lib/admit.h");
    let line = source.lines().position(|line| line.contains("DROP(row->reason)")).expect("the programs deny");
    line as u16 + 1
}

fn sum(map: &MapHandle, key: &[u8]) -> MetricsValue {
    let values = map.lookup_percpu(key, MapFlags::ANY).expect("the map is readable").unwrap_or_default();
    values.iter().fold(MetricsValue::default(), |total, bytes| {
        let value: MetricsValue = bytemuck::pod_read_unaligned(bytes);
        MetricsValue { count: total.count + value.count, bytes: total.bytes + value.bytes }
    })
}

fn difference<K: Ord + Copy>(
    before: &BTreeMap<K, MetricsValue>,
    after: BTreeMap<K, MetricsValue>,
) -> Vec<(K, MetricsValue)> {
    let rows = after.into_iter().map(|(key, now)| {
        let then = before.get(&key).copied().unwrap_or_default();
        (key, MetricsValue { count: now.count - then.count, bytes: now.bytes - then.bytes })
    });
    rows.filter(|(_, value)| *value != MetricsValue::default()).collect()
}
