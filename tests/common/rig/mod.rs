//! The node's programs on maps filled from a model's world: a packet through any hook and any device, and what came of it.
//!
//! Devices exist in a network namespace of the test's own, so that a packet can come from each of several pods; everything
//! here has to run on a thread inside it: see [`Devices::run`].
#![allow(dead_code)]

pub(crate) mod agreement;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::Instant;

use bytemuck::{Pod, Zeroable};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, RingBuffer, RingBufferBuilder};
use podwire::abi::{
    CT_WAYS, CtCollect, CtEntry, CtInsert, CtKey, CtRemove, DropNotify, ENDPOINT_ROW_IPV4, ENDPOINT_ROW_IPV6,
    EndpointInfo, EndpointRow, IpCacheKey, PolicyEntry, PolicyKey, PolicyVerdictNotify, RemoteEndpointInfo, Runtime,
};
use podwire::netlink::{DeviceSpec, VethSpec};
use podwire::program::{SkBuff, call, test_run};
use podwire::tables::{
    CtMap, PolicyAction, PolicyDirection, PolicyL4, PolicyMaps, PolicyMatch, PolicyVerdict, PortPrefix, Protocol,
};
use podwire::{EndpointId, SecurityId};

use super::datapath::{Datapath, Setup, key4, key6, padded};
use super::model::{Direction, Endpoint, Entry, World};
use super::netns::TestNetns;
use super::packets::{ETH, IPV6};

/// Endpoint ids that have a policy map from the start, so that another policy costs no wait for RCU.
pub(crate) const SLOTS: [u16; 4] = [1001, 1002, 1003, 1004];
/// How many devices there are for pods.
pub(crate) const DEVICES: usize = 4;
/// The device that stands for the network's: loopback.
pub(crate) const NETDEV: u32 = 1;
/// jiffies64 a second, as the programs are told. The kernel's own rate does not matter here: nothing waits.
pub(crate) const TICKS: u64 = 250;
/// Of the table of connections.
const BUCKETS: u32 = 512;
/// What a test run takes whatever the frame's type says.
const TAKEN: usize = ETH + IPV6;

/// A map's content as bytes.
type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// A namespace with devices of pods.
pub(crate) struct Devices {
    netns: TestNetns,
    pub(crate) indices: [u32; DEVICES],
}

impl Devices {
    pub(crate) fn new() -> Self {
        let netns = TestNetns::with_loopback();
        let socket = netns.socket();
        let mut indices = Vec::new();
        for pair in 0..DEVICES / 2 {
            let (one, other) = (format!("pod{pair}a"), format!("pod{pair}b"));
            let named = |name| DeviceSpec { name, ..DeviceSpec::default() };
            let spec = VethSpec { device: named(&one), up: false, peer: named(&other) };
            let pair = socket.link_create_veth(&spec).expect("a pair");
            indices.extend([pair.index.get(), pair.peer_index.get()]);
        }
        Self { netns, indices: indices.try_into().expect("as many as there are pods") }
    }

    /// Does something where the devices are.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.run(work)
    }
}

/// Programs and maps.
pub(crate) struct Rig {
    pub(crate) node: Datapath,
    maps: BTreeMap<&'static str, MapHandle>,
    pub(crate) table: CtMap,
    policies: BTreeMap<u16, MapHandle>,
    outer: PolicyMaps,
    written: RefCell<BTreeMap<String, Content>>,
    records: Rc<RefCell<Vec<Vec<u8>>>>,
    ring: RingBuffer<'static>,
    began: (Instant, u64),
    generation: Cell<u32>,
}

/// What one packet brought about.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub(crate) verdict: i32,
    pub(crate) packet: Vec<u8>,
    pub(crate) drops: Vec<DropNotify>,
    pub(crate) verdicts: Vec<PolicyVerdictNotify>,
    /// The records of these verdicts as they stood in the ring.
    pub(crate) told: Vec<Vec<u8>>,
}

const MAPS: [&str; 9] = [
    "cilium_lxc",
    "podwire_endpoints",
    "cilium_ipcache_v2",
    "podwire_runtime",
    "podwire_ct_errors",
    "cilium_ipv4_frag_datagrams",
    "cilium_ipv6_frag_datagrams",
    "podwire_events",
    "prelude_next",
];

impl Rig {
    /// Loads the programs for a world's constants.
    pub(crate) fn load(world: &World) -> Self {
        // Enough that nothing is evicted, few enough to be read often.
        Self::with_table(world, BUCKETS, BUCKETS * CT_WAYS as u32)
    }

    /// The same with a table of connections of so many buckets and entries.
    pub(crate) fn with_table(world: &World, buckets: u32, entries: u32) -> Self {
        let mut setup = Setup::new();
        if !world.has_ipv4 {
            for constant in ["cfg_router_ipv4", "cfg_pods_ipv4", "cfg_pods_ipv4_mask"] {
                setup.constants.set(constant, [0u8; 4]);
            }
        }
        if !world.has_ipv6 {
            for constant in ["cfg_router_ipv6", "cfg_pods_ipv6", "cfg_pods_ipv6_mask"] {
                setup.constants.set(constant, [0u8; 16]);
            }
        }
        let lifetimes = world.lifetimes;
        setup
            .constants
            .set("cfg_world_ipv4", world.world_ipv4)
            .set("cfg_world_ipv6", world.world_ipv6)
            .set("cfg_ticks_per_second", TICKS as u32)
            .set("cfg_ct_lifetime_tcp", u32::from(lifetimes.tcp))
            .set("cfg_ct_lifetime_tcp_syn", u32::from(lifetimes.tcp_syn))
            .set("cfg_ct_lifetime_closing", u32::from(lifetimes.closing))
            .set("cfg_ct_lifetime_any", u32::from(lifetimes.any));
        setup.sizes = vec![("podwire_ct", entries), ("podwire_ct_index", buckets)];
        let node = setup.load();
        node.clear("cilium_lxc");
        for endpoint in [super::datapath::A, super::datapath::B] {
            node.set_row(endpoint.ifindex & 0xffff, &EndpointRow::default());
        }
        let maps: BTreeMap<_, _> = MAPS.into_iter().map(|name| (name, node.map(name))).collect();
        let records = Rc::new(RefCell::new(Vec::new()));
        let taken = Rc::clone(&records);
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&maps["podwire_events"], move |record: &[u8]| {
                taken.borrow_mut().push(record.to_vec());
                0
            })
            .expect("the ring is readable");
        let ring = builder.build().expect("the ring is readable");
        let policies = policy_slots(&node);
        let outer = PolicyMaps::open_pinned(node.maps()).expect("pinned");
        let began = (Instant::now(), jiffies());
        // Not far from where it begins anew.
        let generation = Cell::new(u32::MAX - 100);
        let table = CtMap::open_pinned(node.maps()).expect("podwire_ct is pinned");
        Self { node, maps, table, policies, outer, written: RefCell::default(), records, ring, began, generation }
    }

    /// The generation under which another world may be written: none is used twice, as the programs remember verdicts by it.
    pub(crate) fn fresh_generation(&self) -> u32 {
        self.generation.get().checked_add(1).unwrap_or(1)
    }

    /// jiffies64, give or take a few.
    pub(crate) fn ticks(&self) -> u64 {
        self.began.1 + self.began.0.elapsed().as_millis() as u64 * TICKS / 1000
    }

    /// Writes what is different from the world that was written last, then moves the generation.
    pub(crate) fn install(&self, world: &World) {
        self.write_content("cilium_lxc", &self.maps["cilium_lxc"], addresses(world));
        self.write_content("cilium_ipcache_v2", &self.maps["cilium_ipcache_v2"], prefixes(world));
        for slot in SLOTS {
            let entries = world.policies.get(&slot).map(Vec::as_slice).unwrap_or_default();
            self.write_policy(slot, entries);
        }
        self.write_rows(world);
        let only = 0u32.to_ne_bytes();
        let before = self.maps["podwire_runtime"].lookup(&only, MapFlags::ANY).expect("read").expect("the only row");
        let runtime = Runtime {
            drop_events_per_window: 1_000_000,
            generation: world.generation,
            verdict_events: 1,
            // What stands in the table is found by them.
            hash_keys: bytemuck::pod_read_unaligned::<Runtime>(&before).hash_keys,
            ..Runtime::default()
        };
        self.put("podwire_runtime", &only, bytemuck::bytes_of(&runtime));
        self.generation.set(world.generation);
    }

    /// With its outline. Between two of them there is none, as the map stays the same; the last slot never has one.
    fn write_policy(&self, slot: u16, entries: &[Entry]) {
        let (endpoint, map) = (EndpointId::new(slot).expect("not 0"), &self.policies[&slot]);
        let outline = |id, entries: &[_]| self.outer.outlines().write(endpoint, id, entries).expect("written");
        outline(0, &[]);
        self.write_content(&format!("policy {slot}"), map, policy(entries));
        if slot != SLOTS[3] {
            let entries: Vec<_> = entries.iter().map(rule).collect();
            outline(map.info().expect("its info").info.id, &entries);
        }
    }

    /// Forgets connections and fragments.
    pub(crate) fn forget(&self) {
        let mut work = CtCollect { count: self.table.capacity(), everything: 1, ..CtCollect::zeroed() };
        self.call("podwire_ct_collect", &mut work);
        assert_eq!((work.looked_at, work.busy), (work.removed, 0));
        for name in ["cilium_ipv4_frag_datagrams", "cilium_ipv6_frag_datagrams"] {
            let map = &self.maps[name];
            let keys: Vec<_> = map.keys().collect();
            for key in keys {
                map.delete(&key).expect("the key is there");
            }
        }
        self.ring.consume().expect("the ring is readable");
        self.records.borrow_mut().clear();
    }

    /// Hands a packet to a program as if it came in or went out by a device.
    pub(crate) fn meet(&self, program: &str, ifindex: u32, frame: &[u8]) -> Observed {
        self.meet_from(program, (0, ifindex), frame)
    }

    /// As [`meet`](Self::meet), of a packet that came into the node by the first device, 0 if by none.
    pub(crate) fn meet_from(&self, program: &str, (ingress_ifindex, ifindex): (u32, u32), frame: &[u8]) -> Observed {
        let mut context = SkBuff { ingress_ifindex, ifindex, ..SkBuff::default() };
        let loaded = |name: &str| self.node.set().program(name).expect("the program is loaded");
        let run = if frame.len() >= TAKEN {
            test_run(loaded(program), frame, &context, 1)
        } else {
            // Cut after the kernel has looked at it.
            let target = loaded(program).as_fd().as_raw_fd();
            self.put("prelude_next", &0u32.to_ne_bytes(), &target.to_ne_bytes());
            context.cb[0] = frame.len() as u32;
            let mut long_enough = frame.to_vec();
            long_enough.resize(TAKEN, 0);
            test_run(loaded("prelude"), &long_enough, &context, 1)
        };
        let run = run.expect("the test run is accepted");
        let mut observed = Observed { verdict: run.retval as i32, packet: run.data, ..Observed::default() };
        self.take_records(&mut observed);
        observed
    }

    fn take_records(&self, observed: &mut Observed) {
        self.ring.consume().expect("the ring is readable");
        for record in self.records.borrow_mut().drain(..) {
            match record[0] {
                DropNotify::TYPE => {
                    observed.drops.push(bytemuck::pod_read_unaligned(&record[..size_of::<DropNotify>()]));
                }
                PolicyVerdictNotify::TYPE => {
                    let notify = bytemuck::pod_read_unaligned(&record[..size_of::<PolicyVerdictNotify>()]);
                    observed.verdicts.push(notify);
                    observed.told.push(record);
                }
                other => panic!("an event of type {other}"),
            }
        }
    }

    pub(crate) fn connection(&self, key: &CtKey) -> Option<CtEntry> {
        self.table.entry(key).expect("read")
    }

    pub(crate) fn connection_keys(&self) -> Vec<CtKey> {
        let mut keys = Vec::new();
        self.table.for_each_entry(|entry| keys.push(entry.key)).expect("read");
        keys
    }

    pub(crate) fn put_connection(&self, entry: &CtEntry) {
        let mut work = CtInsert { entry: *entry, ..CtInsert::zeroed() };
        self.call("podwire_ct_insert", &mut work);
        assert_eq!(work.error, 0);
    }

    pub(crate) fn evict(&self, key: &CtKey) {
        let mut work = CtRemove { count: 1, ..CtRemove::zeroed() };
        work.keys[0] = *key;
        self.call("podwire_ct_remove", &mut work);
        assert_eq!(work.removed, 1, "it is there");
    }

    /// Removes one in so many connections, as far as nobody else is at them.
    pub(crate) fn evict_some(&self, one_in: usize) {
        for keys in self.connection_keys().chunks(one_in) {
            let mut work = CtRemove { count: 1, ..CtRemove::zeroed() };
            work.keys[0] = keys[0];
            self.call("podwire_ct_remove", &mut work);
        }
    }

    fn call<T: Pod>(&self, program: &str, work: &mut T) {
        let program = self.node.set().program(program).expect("the program is loaded");
        call(program, work).expect("the program can be called");
    }

    /// Everything in a table, as bytes.
    pub(crate) fn content(&self, name: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let map = &self.maps[name];
        let keys: Vec<_> = map.keys().collect();
        let value = |key: &[u8]| map.lookup(key, MapFlags::ANY).expect("read").expect("nobody removes it");
        keys.into_iter().map(|key| (key.clone(), value(&key))).collect()
    }

    /// How many packets could not be noted, by errno, on all CPUs.
    pub(crate) fn connection_errors(&self) -> Vec<(i32, u64)> {
        let map = &self.maps["podwire_ct_errors"];
        let of = |errno: i32| map.lookup_percpu(&errno.to_ne_bytes(), MapFlags::ANY).expect("read").unwrap_or_default();
        let sum = |values: Vec<Vec<u8>>| -> u64 {
            values.iter().map(|bytes| u64::from_ne_bytes(*bytes.first_chunk().expect("eight bytes"))).sum()
        };
        (0..128).map(|errno| (errno, sum(of(errno)))).filter(|(_, count)| *count != 0).collect()
    }

    fn put(&self, map: &str, key: &[u8], value: &[u8]) {
        self.maps[map].update(key, value, MapFlags::ANY).expect("the map takes it");
    }

    fn write_content(&self, name: &str, map: &MapHandle, content: Content) {
        let mut written = self.written.borrow_mut();
        let before = written.entry(name.to_owned()).or_default();
        for key in before.keys().filter(|key| !content.contains_key(*key)) {
            map.delete(key).expect("it is there");
        }
        for (key, value) in &content {
            if before.get(key) != Some(value) {
                map.update(key, value, MapFlags::ANY).expect("the map takes it");
            }
        }
        *before = content;
    }

    fn write_rows(&self, world: &World) {
        let rows = world.endpoints.iter().map(|endpoint| {
            let index = endpoint.ifindex & 0xffff;
            (index.to_ne_bytes().to_vec(), bytemuck::bytes_of(&row(endpoint)).to_vec())
        });
        let rows: Content = rows.collect();
        let mut written = self.written.borrow_mut();
        let before = written.entry("rows".to_owned()).or_default();
        for key in before.keys().filter(|key| !rows.contains_key(*key)) {
            self.put("podwire_endpoints", key, bytemuck::bytes_of(&EndpointRow::default()));
        }
        for (key, value) in &rows {
            self.put("podwire_endpoints", key, value);
        }
        *before = rows;
    }
}

/// A map for each of [`SLOTS`], in force for good; what is in them changes.
fn policy_slots(node: &Datapath) -> BTreeMap<u16, MapHandle> {
    let outer = node.map("podwire_policy");
    let slot = |id: u16| {
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as _,
            map_flags: libbpf_sys::BPF_F_NO_PREALLOC | libbpf_sys::BPF_F_RDONLY_PROG,
            ..Default::default()
        };
        let (key, value) = (size_of::<PolicyKey>() as u32, size_of::<PolicyEntry>() as u32);
        let inner = MapHandle::create(MapType::LpmTrie, Some("policy"), key, value, 256, &options).expect("a map");
        let fd = inner.as_fd().as_raw_fd();
        outer.update(&u32::from(id).to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY).expect("the map takes it");
        (id, inner)
    };
    SLOTS.into_iter().map(slot).collect()
}

fn jiffies() -> u64 {
    let text = fs::read_to_string("/proc/timer_list").expect("root may read it");
    let line = text.lines().find_map(|line| line.strip_prefix("jiffies: ")).expect("the time in ticks");
    line.parse().expect("a number")
}

fn row(endpoint: &Endpoint) -> EndpointRow {
    EndpointRow {
        ifindex: endpoint.ifindex,
        lxc_id: endpoint.id,
        flags: endpoint.ipv4.map_or(0, |_| ENDPOINT_ROW_IPV4) | endpoint.ipv6.map_or(0, |_| ENDPOINT_ROW_IPV6),
        ipv4: endpoint.ipv4.map_or(0, |address| u32::from_ne_bytes(address.octets())),
        sec_id: endpoint.identity,
        ipv6: endpoint.ipv6.map_or([0; 16], |address| address.octets()),
        mac: padded(endpoint.mac),
        node_mac: padded(endpoint.node_mac),
        pad: [0; 4],
    }
}

fn addresses(world: &World) -> Content {
    let mut content = Content::new();
    let mut add = |address, info: &EndpointInfo| {
        let key = match address {
            std::net::IpAddr::V4(address) => key4(address),
            std::net::IpAddr::V6(address) => key6(address),
        };
        content.insert(bytemuck::bytes_of(&key).to_vec(), bytemuck::bytes_of(info).to_vec());
    };
    for address in &world.host_addresses {
        add(*address, &EndpointInfo { flags: 1, sec_id: 1, ..EndpointInfo::default() });
    }
    for endpoint in &world.endpoints {
        let info = EndpointInfo {
            ifindex: endpoint.ifindex,
            lxc_id: endpoint.id,
            flags: if endpoint.audit { 0x100 } else { 0 },
            mac: padded(endpoint.mac),
            node_mac: padded(endpoint.node_mac),
            sec_id: endpoint.identity,
            ..EndpointInfo::default()
        };
        endpoint.ipv4.iter().for_each(|address| add((*address).into(), &info));
        endpoint.ipv6.iter().for_each(|address| add((*address).into(), &info));
    }
    content
}

fn prefixes(world: &World) -> Content {
    let entry = |(prefix, identity): (&ipnetwork::IpNetwork, &u32)| {
        let (base, family) = match prefix.network() {
            std::net::IpAddr::V4(address) => (key4(address), 1),
            std::net::IpAddr::V6(address) => (key6(address), 2),
        };
        let key = IpCacheKey {
            prefixlen: IpCacheKey::STATIC_BITS + u32::from(prefix.prefix()),
            family,
            ip: base.ip,
            ..IpCacheKey::default()
        };
        let value = RemoteEndpointInfo { sec_identity: *identity, ..RemoteEndpointInfo::default() };
        (bytemuck::bytes_of(&key).to_vec(), bytemuck::bytes_of(&value).to_vec())
    };
    world.ipcache.iter().map(entry).collect()
}

fn policy(entries: &[Entry]) -> Content {
    let encode = |entry: &Entry| {
        let key = PolicyKey {
            prefixlen: PolicyKey::STATIC_BITS + u32::from(entry.bits()),
            sec_label: entry.identity,
            egress: u8::from(entry.direction == Direction::Egress),
            protocol: entry.protocol.unwrap_or(0),
            dport_be: entry.ports.port.to_be(),
        };
        let value = PolicyEntry {
            proxy_port_be: entry.proxy_port.to_be(),
            flags: u8::from(entry.deny) | entry.bits() << PolicyEntry::PREFIX_SHIFT,
            auth: 0,
            precedence: entry.precedence,
            cookie: entry.cookie,
        };
        (bytemuck::bytes_of(&key).to_vec(), bytemuck::bytes_of(&value).to_vec())
    };
    entries.iter().map(encode).collect()
}

/// An entry in the library's words.
fn rule(entry: &Entry) -> (PolicyMatch, PolicyVerdict) {
    let ports = PortPrefix::new(entry.ports.port, entry.ports.bits).expect("no bits behind the prefix");
    let matched = PolicyMatch {
        direction: match entry.direction {
            Direction::Ingress => PolicyDirection::Ingress,
            Direction::Egress => PolicyDirection::Egress,
        },
        identity: SecurityId::new(entry.identity),
        l4: entry.protocol.map_or(PolicyL4::Any, |protocol| PolicyL4::Ports(Protocol::new(protocol), ports)),
    };
    let action = if entry.deny { PolicyAction::Deny } else { PolicyAction::Allow };
    (matched, PolicyVerdict::new(action, entry.precedence))
}
