//! Random nodes: who is on them, what they know, what their policies say; and what may change about them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::super::datapath::{A, B, GATEWAY4, GATEWAY6, NOBODY4, NOBODY6, OUTSIDE4, OUTSIDE6};
use super::super::model::{Direction, Endpoint, Entry, HOST, PortPrefix, World};
use super::super::rig::{DEVICES, SLOTS};
use super::packets::{Talk, random_packet};
use super::{Change, Random, Step, Story};

/// The first four are pods', if anybody's; then the gateway's, one inside and two outside of the range.
pub(super) const POOL4: [Ipv4Addr; 8] = [
    A.v4(),
    B.v4(),
    Ipv4Addr::new(10, 0, 0, 12),
    Ipv4Addr::new(10, 0, 0, 13),
    GATEWAY4,
    NOBODY4,
    OUTSIDE4,
    Ipv4Addr::new(198, 51, 100, 9),
];
pub(super) const POOL6: [Ipv6Addr; 8] = [
    A.v6(),
    B.v6(),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 12),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 13),
    GATEWAY6,
    NOBODY6,
    OUTSIDE6,
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 9),
];

/// Ports and echo identifiers, few so that packets meet again.
pub(super) const PORTS: [u16; 5] = [80, 443, 5000, 40_000, 81];

const CIDR_IDENTITY: u32 = (1 << 24) + 1;
const POD_IDENTITIES: [u32; 3] = [40_000, 40_001, 40_002];
/// What the compiler gives allowing lines, and what it gives denying ones; two more that are neither.
const PRECEDENCES: [u32; 6] = [4_294_967_041, 4_294_967_041, 4_294_967_041, u32::MAX, u32::MAX, 5];

/// A node, some conversations across it, and so many steps of them.
pub(crate) fn random_story(random: &mut Random, world: World, devices: &[u32; DEVICES], steps: usize) -> Story {
    let world = populate(random, world, devices);
    let talks: Vec<Talk> = (0..1 + random.below(3)).map(|_| Talk::random(random, &world)).collect();
    // Where packets come from changes with the world; what they say was settled above.
    let mut now = world.clone();
    let steps = (0..steps)
        .map(|_| {
            let step = random_step(random, &now, &talks, devices);
            if let Step::Change(change) = &step {
                change.apply(&mut now);
            }
            step
        })
        .collect();
    Story { world, steps }
}

fn random_step(random: &mut Random, world: &World, talks: &[Talk], devices: &[u32; DEVICES]) -> Step {
    match random.below(24) {
        0..=2 => Step::Change(random_change(random, world)),
        3 => Step::Age { connection: random.below(8), lo: random.below(3) > 0, hi: random.below(3) > 0 },
        4 if random.once_in(2) => Step::Evict { connection: random.below(8) },
        _ => Step::Packet(random_packet(random, world, talks, devices)),
    }
}

fn populate(random: &mut Random, mut world: World, devices: &[u32; DEVICES]) -> World {
    for number in 0..DEVICES {
        let known = !random.once_in(12);
        let ready = !random.once_in(12);
        let endpoint = Endpoint {
            // One without a policy has an id without a slot.
            id: if ready { SLOTS[number] } else { 2001 + number as u16 },
            ifindex: devices[number],
            identity: *random.pick(&POD_IDENTITIES),
            audit: random.once_in(10),
            mac: if number == 0 { A.mac } else { [0x8a, 0, 0, 0, 1, number as u8] },
            node_mac: [0x66, 0, 0, 0, 1, number as u8],
            ipv4: (!random.once_in(8)).then(|| POOL4[number]),
            ipv6: (!random.once_in(8)).then(|| POOL6[number]),
        };
        if known {
            world.endpoints.push(endpoint);
        }
    }
    // The host has the gateway's address, and now and then one from the middle of the pods' or from outside.
    for index in [4, 5, 6] {
        if index == 4 || random.once_in(6) {
            world.host_addresses.extend([IpAddr::from(POOL4[index]), POOL6[index].into()]);
        }
    }
    for _ in 0..random.below(4) {
        world.ipcache.insert(random_prefix(random), random_identity(random));
    }
    for id in SLOTS {
        let policy = random_policy(random);
        world.policies.insert(id, policy);
    }
    world
}

fn random_prefix(random: &mut Random) -> IpNetwork {
    let all = [
        "192.0.2.0/24",
        "192.0.2.7/32",
        "192.0.0.0/8",
        "0.0.0.0/0",
        "198.51.100.0/25",
        "10.0.0.0/24",
        "2001:db8::/32",
        "2001:db8::7/128",
        "2001:db8:1::/48",
        "::/0",
        "fd00::/16",
    ];
    let all: Vec<IpNetwork> = all.iter().map(|text| text.parse().expect("a prefix")).collect();
    let prefix = *random.pick(&all);
    // As the kernel does: no bits behind the prefix.
    IpNetwork::new(prefix.network(), prefix.prefix()).expect("as it was")
}

fn random_identity(random: &mut Random) -> u32 {
    let others = [HOST, 2, 9, 10, CIDR_IDENTITY, CIDR_IDENTITY + 1];
    if random.once_in(2) { *random.pick(&POD_IDENTITIES) } else { *random.pick(&others) }
}

/// Lines that do not repeat each other's key.
pub(super) fn random_policy(random: &mut Random) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    if random.once_in(8) {
        return entries;
    }
    let mut add = |entry: Entry| {
        let key = |entry: &Entry| (entry.identity, entry.direction, entry.protocol, entry.bits(), entry.ports.port);
        if entries.iter().all(|other| key(other) != key(&entry)) {
            entries.push(entry);
        }
    };
    // Where a direction is not enforced, all may pass.
    for direction in [Direction::Ingress, Direction::Egress] {
        if random.below(5) > 0 {
            let all = Entry { direction, deny: false, precedence: PRECEDENCES[0], ..random_entry(random) };
            add(Entry { identity: 0, protocol: None, ports: PortPrefix::ALL, ..all });
        }
    }
    for _ in 0..random.below(6) {
        add(random_entry(random));
    }
    entries
}

/// Everything may pass but what one identity, or anybody, opens in one direction: what is open by then may be turned.
fn one_way(random: &mut Random) -> Vec<Entry> {
    let whole = |direction| Entry {
        identity: 0,
        direction,
        protocol: None,
        ports: PortPrefix::ALL,
        deny: false,
        precedence: PRECEDENCES[0],
        cookie: 7,
        proxy_port: 0,
    };
    let all = [Direction::Ingress, Direction::Egress].map(whole);
    let identity = *random.pick(&POD_IDENTITIES);
    let denied = Entry { identity, deny: true, precedence: u32::MAX, ..*random.pick(&all) };
    // Of anybody, there is no line but the other direction's.
    if random.once_in(2) { vec![*random.pick(&all)] } else { vec![all[0], all[1], denied] }
}

fn random_entry(random: &mut Random) -> Entry {
    let protocol = *random.pick(&[None, Some(6), Some(6), Some(17), Some(1), Some(58), Some(132), Some(47)]);
    let deny = random.once_in(3);
    Entry {
        identity: if random.once_in(3) { 0 } else { random_identity(random) },
        direction: *random.pick(&[Direction::Ingress, Direction::Egress]),
        protocol,
        ports: if protocol.is_some() { random_ports(random, protocol) } else { PortPrefix::ALL },
        deny,
        precedence: if random.once_in(4) {
            *random.pick(&PRECEDENCES)
        } else if deny {
            u32::MAX
        } else {
            PRECEDENCES[0]
        },
        cookie: random.below(1000) as u32,
        proxy_port: if random.once_in(12) { 10_001 } else { 0 },
    }
}

fn random_ports(random: &mut Random, protocol: Option<u8>) -> PortPrefix {
    let port = match protocol {
        Some(1) => *random.pick(&[8, 0, 3, 11, 5]),
        Some(58) => *random.pick(&[128, 129, 1, 2, 3, 143]),
        _ => *random.pick(&PORTS),
    };
    let bits = *random.pick(&[0, 16, 16, 16, 15, 12, 4, 1]);
    let mask = if bits == 0 { 0 } else { u16::MAX << (16 - bits) };
    PortPrefix { port: port & mask, bits }
}

fn random_change(random: &mut Random, world: &World) -> Change {
    let endpoint = random.below(world.endpoints.len().max(1));
    match random.below(12) {
        9.. => Change::Policy { id: *random.pick(&SLOTS), entries: one_way(random) },
        0..=2 => Change::Policy { id: *random.pick(&SLOTS), entries: random_policy(random) },
        3 => Change::Identity { endpoint, identity: *random.pick(&POD_IDENTITIES) },
        4 => Change::Audit { endpoint, audit: random.once_in(2) },
        5 => {
            let mac = [0x8a, 0, 0, 0, 2, random.below(200) as u8];
            Change::Macs { endpoint, mac, node_mac: [0x66, 0, 0, 0, 2, random.below(200) as u8] }
        }
        6 => Change::Swap { one: endpoint, other: random.below(world.endpoints.len().max(1)) },
        7 => {
            let identity = random.below(3) > 0;
            Change::Prefix { prefix: random_prefix(random), identity: identity.then(|| random_identity(random)) }
        }
        _ => Change::Nothing,
    }
}
