//! Random states of a node and random packets, damaged ones and plain noise among them, through all six programs: what the
//! kernel's programs do and count is what the model in plain Rust says.
//!
//! `PODWIRE_RANDOM_CASES` sets how many (10,000 unless set), `PODWIRE_RANDOM_SEED` repeats a run; a failure prints its seed.

#[path = "common/bpf.rs"]
mod bpf;
#[path = "common/datapath.rs"]
mod datapath;
#[path = "common/model.rs"]
mod model;
#[path = "common/packets.rs"]
mod packets;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{SystemTime, UNIX_EPOCH};

use datapath::*;
use model::{Fate, Owner, World};
use packets::*;
use podwire::program::SkBuff;

/// What a test run takes whatever the frame's type says.
const TAKEN: usize = ETH + IPV6;

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// How many packets see the same state of the node.
const PACKETS_A_WORLD: u64 = 250;

#[test]
fn the_programs_do_what_the_model_says() {
    let seed = number("PODWIRE_RANDOM_SEED")
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos() as u64);
    let cases = number("PODWIRE_RANDOM_CASES").unwrap_or(10_000);
    println!("PODWIRE_RANDOM_SEED={seed} PODWIRE_RANDOM_CASES={cases}");

    let mut kernel_log = KernelLog::open();
    let nodes = [(true, true), (true, false), (false, true)].map(|(ipv4, ipv6)| (node(ipv4, ipv6), ipv4, ipv6));
    let mut random = Random(seed);
    let mut seen = BTreeMap::<_, u64>::new();
    for world_number in 0..cases.div_ceil(PACKETS_A_WORLD) {
        // Half of the worlds have both families.
        let (node, ipv4, ipv6) = &nodes[[0, 0, 1, 2][random.below(4)]];
        let world = random_world(&mut random, node, (*ipv4, *ipv6));
        let mut expected = Counters::default();
        let before = Counters::of(node);
        for case in 0..PACKETS_A_WORLD {
            let frame = random_frame(&mut random);
            for program in PROGRAMS {
                let fate = world.fate(program, &frame);
                let (verdict, packet) = run(node, program, &frame);
                assert!(
                    verdict == fate.verdict && packet == fate.packet,
                    "world {world_number}, case {case} of seed {seed}: {program} gave {verdict}, not {} ({:?}, {:?}), for\n{}\nand made\n{}\nof it, not\n{}",
                    fate.verdict,
                    fate.drop,
                    fate.point,
                    hex(&frame),
                    hex(&packet),
                    hex(&fate.packet),
                );
                expected.count(program, &frame, &fate);
                *seen.entry((program, fate.verdict, fate.drop)).or_default() += 1;
            }
        }
        assert_eq!(Counters::of(node).less(&before), expected, "counters in world {world_number} of seed {seed}");
    }
    println!("{seen:?}");
    if cases >= 10_000 {
        check_coverage(&seen);
    }
    for (node, ..) in &nodes {
        assert!(node.budgets().iter().all(|budget| budget.lost == 0 && budget.emitted == 0));
    }
    kernel_log.assert_quiet();
}

fn node(ipv4: bool, ipv6: bool) -> Datapath {
    let mut setup = Setup::new();
    if !ipv4 {
        for constant in ["cfg_router_ipv4", "cfg_pods_ipv4", "cfg_pods_ipv4_mask"] {
            setup.constants.set(constant, [0u8; 4]);
        }
    }
    if !ipv6 {
        for constant in ["cfg_router_ipv6", "cfg_pods_ipv6", "cfg_pods_ipv6_mask"] {
            setup.constants.set(constant, [0u8; 16]);
        }
    }
    let node = setup.load();
    node.switch(0, 0);
    node
}

/// A state of the node: who is behind the device, which addresses are whose.
fn random_world(random: &mut Random, node: &Datapath, (has_ipv4, has_ipv6): (bool, bool)) -> World {
    node.clear("cilium_lxc");
    let mut world = World { sender: None, addresses: BTreeMap::new(), has_ipv4, has_ipv6 };
    node.set_row(1, &Default::default());
    for number in [0, 1, 2, 3] {
        let pod = Pod {
            ifindex: if number == 0 { A.ifindex } else { 4000 + number },
            mac: if number == 0 { A.mac } else { [0x8a, 0, 0, 0, 1, number as u8] },
            node_mac: [0x66, 0, 0, 0, 1, number as u8],
            ipv4: (random.below(8) > 0).then(|| POOL4[number as usize]),
            ipv6: (random.below(8) > 0).then(|| POOL6[number as usize]),
            ..A
        };
        if random.below(12) == 0 {
            continue;
        }
        node.add(&pod);
        let owner = Owner::Pod { mac: pod.mac, node_mac: pod.node_mac };
        world.addresses.extend(pod.ipv4.map(|address| (address.into(), owner)));
        world.addresses.extend(pod.ipv6.map(|address| (address.into(), owner)));
        if number == 0 {
            world.sender = Some(pod);
        }
    }
    // The host has the gateway's address, and now and then one from the middle of the pods' or from outside.
    for index in [4, 5, 6] {
        if index == 4 || random.below(3) == 0 {
            node.add_host_address(&key4(POOL4[index]));
            node.add_host_address(&key6(POOL6[index]));
            world.addresses.insert(POOL4[index].into(), Owner::Host);
            world.addresses.insert(POOL6[index].into(), Owner::Host);
        }
    }
    world
}

/// The first four are pods', if anybody's; then the gateway's, one inside and one outside of the range.
const POOL4: [Ipv4Addr; 7] =
    [A.v4(), B.v4(), Ipv4Addr::new(10, 0, 0, 12), Ipv4Addr::new(10, 0, 0, 13), GATEWAY4, NOBODY4, OUTSIDE4];
const POOL6: [Ipv6Addr; 7] = [
    A.v6(),
    B.v6(),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 12),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 13),
    GATEWAY6,
    NOBODY6,
    OUTSIDE6,
];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn run(node: &Datapath, program: &str, frame: &[u8]) -> (i32, Vec<u8>) {
    if frame.len() >= TAKEN {
        return node.run_quick(program, frame, &SkBuff::default());
    }
    let mut long_enough = frame.to_vec();
    long_enough.resize(TAKEN, 0);
    node.run_cut(program, &long_enough, frame.len())
}

/// An address of the pool, mostly, or one that stands for nobody.
fn address4(random: &mut Random) -> Ipv4Addr {
    let odd = [
        "224.0.0.1",
        "255.255.255.255",
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.255",
        "10.0.1.1",
        "169.254.42.1",
        "198.51.100.9",
    ];
    match random.below(4) {
        0 => random.pick(&odd).parse().expect("an address"),
        _ => *random.pick(&POOL4),
    }
}

fn address6(random: &mut Random) -> Ipv6Addr {
    let odd = ["ff02::1", "ff02::1:ff00:1", "::1", "::", "fe80::1", "febf::2", "fd00::100", "2001:db8::9"];
    match random.below(4) {
        0 => random.pick(&odd).parse().expect("an address"),
        _ => *random.pick(&POOL6),
    }
}

/// A well-formed packet: from A two times in three, else from the network or the host.
fn whole_frame(random: &mut Random) -> Vec<u8> {
    let from_pod = random.below(3) > 0;
    let macs = if from_pod { (A.mac, A.node_mac) } else { (NEIGHBOUR_MAC, DEVICE_MAC) };
    let upper = *random.pick(&UPPERS);
    let hops = *random.pick(&[0, 1, 2, 64, 64, 255]);
    let (usual4, usual6) = if from_pod { (A.v4(), A.v6()) } else { (OUTSIDE4, OUTSIDE6) };
    let usual = random.below(8) > 0;
    let source4 = if usual { usual4 } else { address4(random) };
    let source6 = if usual { usual6 } else { address6(random) };
    match random.below(9) {
        0..=2 => ipv4(macs, (source4, address4(random)), hops, upper),
        3 | 4 => ipv6(macs, (source6, address6(random)), hops, upper),
        5 => {
            let arp = Arp {
                operation: 1,
                sender: (A.mac, source4),
                target: ([0; 6], *random.pick(&[GATEWAY4, GATEWAY4, B.v4()])),
            };
            arp.frame(macs.0, [0xff; 6])
        }
        6 => {
            let target = *random.pick(&[GATEWAY6, GATEWAY6, GATEWAY6, B.v6(), A.v6()]);
            let kind = *random.pick(&[135, 135, 135, 133, 136]);
            let options = link_layer_option(1, A.mac);
            let options = &options[..*random.pick(&[0, 8])];
            let destination = *random.pick(&[solicited_node(target), target]);
            icmpv6(macs, (source6, destination), *random.pick(&[255, 255, 255, 64]), &ndp(kind, 0, target, options))
        }
        _ => {
            let addresses = (source6, address6(random));
            ipv6_chain(random, macs, addresses, hops)
        }
    }
}

/// An IPv6 packet with up to ten extension headers.
fn ipv6_chain(random: &mut Random, macs: (Mac, Mac), addresses: (Ipv6Addr, Ipv6Addr), hops: u8) -> Vec<u8> {
    let length = *random.pick(&[1, 1, 1, 2, 3, 7, 8, 9, 10]);
    let kinds: Vec<u8> = (0..length)
        .map(|index| {
            if index == 0 {
                *random.pick(&[0, 60, 43, 44])
            } else {
                *random.pick(&[60, 60, 60, 60, 43, 44, 51, 135, 0])
            }
        })
        .collect();
    let last = *random.pick(&[17, 6, 58, 58, 59, 200]);
    let mut payload = Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        payload.push(kinds.get(index + 1).copied().unwrap_or(last));
        match kind {
            44 => payload.extend_from_slice(&[0, 0, *random.pick(&[0, 0, 0, 1, 8]), 0, 0, 0, 1]),
            51 => payload.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            43 => payload.extend_from_slice(&[0, *random.pick(&[2, 4, 4, 0]), 0, 0, 0, 0, 0]),
            _ => payload.extend_from_slice(&[0, 1, 4, 0, 0, 0, 0]),
        }
    }
    let kind = *random.pick(&[128, 129, 135, 143]);
    payload.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
    ipv6_raw(macs, addresses, hops, kinds[0], &payload)
}

fn random_frame(random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0..=2 => whole_frame(random),
        // Nothing but noise.
        3 => {
            let length = ETH + random.below(200);
            random.bytes(length)
        }
        // Noise that begins like something of A's.
        4 => {
            let length = random.below(120);
            let mut body = random.bytes(length);
            let types = [(TYPE_IPV4, 0x45), (TYPE_IPV4, 0x4f), (TYPE_IPV6, 0x60), (TYPE_ARP, 0), (0x8100, 0)];
            let &(ethertype, first) = random.pick(&types);
            if let Some(byte) = body.first_mut() {
                *byte = first;
            }
            frame(A.mac, A.node_mac, ethertype, &body)
        }
        // Some bits turned over, most of them in the headers.
        5 | 6 => {
            let mut frame = whole_frame(random);
            for _ in 0..=random.below(4) {
                let end = if random.below(4) == 0 { frame.len() } else { frame.len().min(80) };
                let at = random.below(end);
                frame[at] ^= 1 << random.below(8);
            }
            frame
        }
        // Cut or lengthened, a byte replaced by a telling one.
        _ => {
            let mut frame = whole_frame(random);
            if random.below(2) == 0 {
                frame.truncate(ETH + random.below(frame.len() - ETH));
            } else {
                let more = random.below(100);
                frame.extend(random.bytes(more));
            }
            let at = random.below(frame.len());
            let telling =
                [0, 1, 4, 5, 6, 0x0f, 0x40, 0x45, 0x4f, 0x60, 0x7f, 0x80, 0xfe, 0xff, 43, 44, 51, 58, 60, 135];
            frame[at] = *random.pick(&telling);
            frame
        }
    }
}

/// Packets and bytes by reason and direction, and by the point they were forwarded at.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counters {
    drops: BTreeMap<(u8, u8), (u64, u64)>,
    forwards: BTreeMap<u32, (u64, u64)>,
}

impl Counters {
    fn of(node: &Datapath) -> Self {
        let mut counters = Self::default();
        for (key, value) in node.drops() {
            add(counters.drops.entry((key.reason, key.dir)).or_default(), (value.count, value.bytes));
        }
        for (point, value) in node.forwards() {
            add(counters.forwards.entry(point).or_default(), (value.count, value.bytes));
        }
        counters
    }

    fn count(&mut self, program: &str, frame: &[u8], fate: &Fate) {
        let one = (1, frame.len() as u64);
        if let Some(reason) = fate.drop {
            let direction = if program == FROM_CONTAINER { EGRESS } else { INGRESS };
            add(self.drops.entry((reason, direction)).or_default(), one);
        }
        if let Some(point) = fate.point {
            add(self.forwards.entry(point as u32).or_default(), one);
        }
    }

    fn less(mut self, before: &Self) -> Self {
        for (key, value) in &before.drops {
            subtract(self.drops.entry(*key).or_default(), *value);
        }
        for (point, value) in &before.forwards {
            subtract(self.forwards.entry(*point).or_default(), *value);
        }
        self.drops.retain(|_, value| *value != (0, 0));
        self.forwards.retain(|_, value| *value != (0, 0));
        self
    }
}

fn add(to: &mut (u64, u64), value: (u64, u64)) {
    *to = (to.0 + value.0, to.1 + value.1);
}

fn subtract(from: &mut (u64, u64), value: (u64, u64)) {
    *from = (from.0 - value.0, from.1 - value.1);
}

/// The packets were varied enough to meet every way that a program has.
fn check_coverage(seen: &BTreeMap<(&str, i32, Option<u8>), u64>) {
    let of_pods = [130, 132, 134, 139, 150, 151, 156, 172, 176, 182].map(|reason| (FROM_CONTAINER, SHOT, Some(reason)));
    let others = [
        (FROM_CONTAINER, REDIRECT, None),
        (FROM_CONTAINER, REDIRECT, Some(196)),
        (TO_CONTAINER, PASS, None),
        (TO_CONTAINER, SHOT, Some(151)),
        (TO_CONTAINER, SHOT, Some(134)),
        (FROM_HOST, PASS, None),
        (FROM_HOST, REDIRECT, None),
        (FROM_HOST, SHOT, Some(151)),
        (FROM_HOST, SHOT, Some(134)),
        (FROM_NETDEV, PASS, None),
        (FROM_NETDEV, REDIRECT, None),
        (FROM_NETDEV, SHOT, Some(132)),
        (FROM_NETDEV, SHOT, Some(156)),
    ];
    for way in of_pods.into_iter().chain(others) {
        assert!(seen.contains_key(&way), "no packet was so lucky as to meet {way:?}: {seen:?}");
    }
}

/// The kernel's log from now on.
struct KernelLog(File);

impl KernelLog {
    fn open() -> Self {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(nonblocking)
            .open("/dev/kmsg")
            .expect("root may read the kernel's log");
        file.seek(SeekFrom::End(0)).expect("the log has an end");
        Self(file)
    }

    fn assert_quiet(&mut self) {
        let mut record = [0; 8192];
        // One record a read; EAGAIN ends them.
        while let Ok(length) = self.0.read(&mut record) {
            let text = String::from_utf8_lossy(&record[..length]).into_owned();
            let alarms = ["WARNING:", "BUG:", "Oops", "general protection", "KASAN", "UBSAN", "Call Trace"];
            assert!(!alarms.iter().any(|alarm| text.contains(alarm)), "the kernel says: {text}");
        }
    }
}
