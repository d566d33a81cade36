//! The table of connections as packets meet it: away from home, in a flood, and while somebody holds a lock. Needs root.

#[path = "common/programs.rs"]
mod programs;

use std::collections::HashMap;
use std::mem::offset_of;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;

use podwire::abi::{CT_WAYS, CtBucket, CtEntry};
use podwire::program::{SkBuff, test_run};
use podwire::tables::{CtMap, FlowTuple, Protocol};
use programs::datapath::{FROM_CONTAINER, PASS, REDIRECT, TO_CONTAINER};
use programs::model::{Direction, Endpoint, Entry, PortPrefix, World};
use programs::packets::*;
use programs::rig;
use programs::rig::{Devices, Rig, SLOTS};

const WEB: usize = 0;
const DB: usize = 1;
/// Web's, of the connections that the tests follow.
const PORT: u16 = 4000;

/// So many packets that could not be noted because of a lock.
fn busy(count: u64) -> Vec<(i32, u64)> {
    vec![(libc::EBUSY, count)]
}

/// Two pods that may do everything.
struct Node {
    rig: Rig,
    world: World,
}

/// On one whose table has an entry for each place of its buckets.
fn on_a_node(buckets: u32, play: impl FnOnce(&mut Node) + Send) {
    with_entries(buckets, buckets * CT_WAYS as u32, play);
}

fn with_entries(buckets: u32, entries: u32, play: impl FnOnce(&mut Node) + Send) {
    let devices = Devices::new();
    devices.run(|| {
        let mut world = World::bare(true, true);
        for (number, id) in SLOTS.into_iter().enumerate().take(2) {
            let last = 10 + number as u8;
            world.endpoints.push(Endpoint {
                id,
                ifindex: devices.indices[number],
                identity: 40_000 + number as u32,
                audit: false,
                mac: [0x8a, 0, 0, 0, 0, last],
                node_mac: [0x66, 0, 0, 0, 0, last],
                ipv4: Some([10, 0, 0, last].into()),
                ipv6: None,
            });
            let line = |direction| Entry {
                identity: 0,
                direction,
                protocol: None,
                ports: PortPrefix::ALL,
                deny: false,
                precedence: 1,
                cookie: 1,
                proxy_port: 0,
            };
            world.policies.insert(id, vec![line(Direction::Ingress), line(Direction::Egress)]);
        }
        let rig = Rig::with_table(&world, buckets, entries);
        world.generation = rig.fresh_generation();
        rig.install(&world);
        play(&mut Node { rig, world });
    });
}

impl Node {
    fn address(&self, pod: usize) -> IpAddr {
        self.world.endpoints[pod].ipv4.expect("it has one").into()
    }

    /// A packet of a connection between Web's port and Db's port 53.
    fn packet(&self, from: usize, port: u16) -> Vec<u8> {
        let ports = if from == WEB { (port, 53) } else { (53, port) };
        let upper = [ports.0.to_be_bytes(), ports.1.to_be_bytes(), [0, 8], [0, 0]].concat();
        let addresses = (self.address(from), self.address(1 - from));
        let pod = &self.world.endpoints[from];
        let datagram = ipv4_datagram(addresses, 64, UDP, (1, 0), &[], &upper);
        frame(pod.mac, pod.node_mac, TYPE_IPV4, &datagram)
    }

    /// Sends one; it passes.
    #[track_caller]
    fn say(&self, from: usize, port: u16) {
        let ifindex = self.world.endpoints[from].ifindex;
        assert_eq!(self.rig.meet(FROM_CONTAINER, ifindex, &self.packet(from, port)).verdict, REDIRECT);
    }

    /// Web's packet again and again, as the host's stack would hand it to Db: there no time to live is taken from it.
    fn repeat(&self, port: u16, times: u32) {
        let program = self.rig.node.set().program(TO_CONTAINER).expect("the program is loaded");
        let context = SkBuff { ifindex: self.world.endpoints[DB].ifindex, ..SkBuff::default() };
        let run = test_run(program, &self.packet(WEB, port), &context, times).expect("the test run is accepted");
        assert_eq!(run.retval as i32, PASS);
    }

    /// Both sides say something, so that the connection is open and both paths are known.
    fn open(&self, port: u16) {
        self.say(WEB, port);
        self.say(DB, port);
    }

    fn tuple(&self, port: u16) -> FlowTuple {
        let side = |pod, port| SocketAddr::new(self.address(pod), port);
        FlowTuple::new(Protocol::UDP, side(WEB, port), side(DB, 53)).expect("one family")
    }

    /// The packets that Web and Db sent, as the entry has them.
    fn counted(&self, port: u16) -> Option<(u64, u64)> {
        let connection = self.rig.table.lookup(&self.tuple(port)).expect("readable")?;
        Some((connection.forward.packets, connection.reply.packets))
    }

    /// Puts open connections of others into a bucket, which end in a day.
    fn fill(&self, bucket: u32, count: usize) -> Vec<CtEntry> {
        let stranger = |number: u32| {
            let [_, _, a, b] = number.to_be_bytes();
            let side = |last, port| SocketAddr::new([172, 16, last, b].into(), port);
            FlowTuple::new(Protocol::TCP, side(a, 1), side(200, 2)).expect("one family")
        };
        let at_home = (0..).map(stranger).filter(|tuple| self.rig.table.places(tuple)[0] == bucket);
        let entries = at_home.take(count).map(|tuple| {
            let mut entry = CtEntry { key: tuple.key().0, state: 1, ..CtEntry::default() };
            entry.dir[0].expires = self.rig.ticks() + 86_400 * rig::TICKS;
            entry
        });
        let entries: Vec<_> = entries.collect();
        entries.iter().for_each(|entry| self.rig.put_connection(entry));
        entries
    }

    /// Two ports of Web's whose connections have the same tag, in a table of one bucket.
    fn of_one_tag(&self) -> [u16; 2] {
        let mut seen = HashMap::new();
        let both = (PORT..).find_map(|port| {
            self.say(WEB, port);
            let tag = self.rig.table.index().read(0).expect("the only bucket").tag[0];
            self.rig.evict(&self.tuple(port).key().0);
            seen.insert(tag, port).map(|first| [first, port])
        });
        both.expect("there are more ports than tags")
    }

    fn away(&self, bucket: u32) -> u32 {
        self.rig.table.index().half_word(bucket, offset_of!(CtBucket, away)).expect("a bucket").load(Ordering::Relaxed)
    }

    /// Does something while a bucket's lock is held.
    fn while_locked(&self, bucket: u32, work: impl FnOnce()) {
        let lock = self.rig.table.index().half_word(bucket, offset_of!(CtBucket, lock)).expect("a bucket");
        assert_eq!(lock.swap(1, Ordering::Acquire), 0);
        work();
        lock.store(0, Ordering::Release);
    }

    /// A port of Web's whose connection has two different buckets, with these.
    fn spot(&self) -> (u16, [u32; 2]) {
        let places = |port| (port, self.rig.table.places(&self.tuple(port)));
        (PORT..).map(places).find(|(_, [home, other])| home != other).expect("most have")
    }
}

#[test]
fn packets_find_their_connection_away_from_home() {
    on_a_node(4, |node| {
        let (port, [home, other]) = node.spot();
        let strangers = node.fill(home, CT_WAYS);
        node.open(port);
        assert_eq!(node.counted(port), Some((1, 1)), "one entry for both");
        let key = node.tuple(port).key().0;
        let table = CtMap::open_pinned(node.rig.node.maps()).expect("pinned");
        let leads = |bucket| table.entries_of(bucket).expect("readable").iter().any(|entry| entry.key == key);
        let look = || (0..table.buckets()).filter(|bucket| leads(*bucket)).collect::<Vec<_>>();
        assert_eq!((look(), node.away(home)), (vec![other], 1));
        // On the short way, which needs no lock, and on the long one of another generation.
        node.while_locked(home, || node.while_locked(other, || node.open(port)));
        assert_eq!(node.counted(port), Some((2, 2)));
        node.world.next_generation();
        node.rig.install(&node.world);
        node.open(port);
        assert_eq!((node.counted(port), look()), (Some((3, 3)), vec![other]));
        // It stays where it is, also when its home has room.
        strangers.iter().for_each(|stranger| node.rig.evict(&stranger.key));
        node.open(port);
        assert_eq!((node.counted(port), look(), node.away(home)), (Some((4, 4)), vec![other], 1));
        node.rig.evict(&key);
        assert_eq!((node.counted(port), node.away(home)), (None, 0));
        node.open(port);
        assert_eq!((node.counted(port), look(), node.away(home)), (Some((1, 1)), vec![home], 0));
        assert_eq!(node.rig.connection_errors(), []);
    });
}

#[test]
fn every_place_of_a_bucket_is_found_on_the_short_way() {
    on_a_node(1, |node| {
        let ports = PORT..PORT + CT_WAYS as u16;
        ports.clone().for_each(|port| node.open(port));
        node.while_locked(0, || ports.clone().for_each(|port| node.open(port)));
        for port in ports {
            assert_eq!(node.counted(port), Some((2, 2)), "port {port}");
        }
        assert_eq!(node.rig.connection_errors(), []);
    });
}

/// A packet meets the other one's place first.
#[test]
fn connections_with_the_same_tag_are_told_apart() {
    on_a_node(1, |node| {
        let [first, second] = node.of_one_tag();
        for round in 1..=3 {
            node.open(first);
            node.open(second);
            assert_eq!((node.counted(first), node.counted(second)), (Some((round, round)), Some((round, round))));
        }
        node.rig.evict(&node.tuple(first).key().0);
        node.open(second);
        assert_eq!((node.counted(first), node.counted(second)), (None, Some((4, 4))));
        assert_eq!(node.rig.connection_errors(), []);
    });
}

#[test]
fn a_flood_leaves_open_connections_in_place() {
    on_a_node(16, |node| {
        let ports: Vec<u16> = (PORT..PORT + 50).collect();
        ports.iter().for_each(|port| node.open(*port));
        assert!(ports.iter().all(|port| node.counted(*port) == Some((1, 1))));
        for port in 10_000..14_000 {
            node.say(WEB, port);
            assert_eq!(node.counted(port), Some((1, 0)), "also the flood's connections are noted");
        }
        assert_eq!(node.rig.connection_keys().len(), 16 * CT_WAYS);
        for port in &ports {
            node.open(*port);
            assert_eq!(node.counted(*port), Some((2, 2)), "port {port}");
        }
        assert_eq!(node.rig.connection_errors(), []);
    });
}

#[test]
fn packets_pass_while_a_lock_is_held_and_what_was_not_noted_is_counted() {
    on_a_node(4, |node| {
        let (port, [home, other]) = node.spot();
        node.while_locked(home, || {
            node.say(WEB, port);
            assert_eq!((node.counted(port), node.rig.connection_errors()), (None, busy(1)));
        });
        node.open(port);
        assert_eq!((node.counted(port), node.rig.connection_errors()), (Some((1, 1)), busy(1)));
        node.while_locked(home, || {
            // The short way needs no lock.
            node.open(port);
            assert_eq!((node.counted(port), node.rig.connection_errors()), (Some((2, 2)), busy(1)));
        });
        node.world.next_generation();
        node.rig.install(&node.world);
        node.while_locked(home, || {
            // The long one does, to note where the next packet goes.
            node.open(port);
            assert_eq!((node.counted(port), node.rig.connection_errors()), (Some((2, 2)), busy(3)));
        });
        node.open(port);
        assert_eq!((node.counted(port), node.rig.connection_errors()), (Some((3, 3)), busy(3)));
        // Noted once, they take the short one again.
        node.while_locked(home, || node.open(port));
        assert_eq!((node.counted(port), node.rig.connection_errors()), (Some((4, 4)), busy(3)));
        // Whoever is at home needs no other lock.
        node.world.next_generation();
        node.rig.install(&node.world);
        node.while_locked(other, || node.open(port));
        assert_eq!((node.counted(port), node.rig.connection_errors()), (Some((5, 5)), busy(3)));
    });
}

/// The only entry is somebody's whom nobody here asks for it.
#[test]
fn packets_pass_though_there_is_no_entry_for_them() {
    const BUCKETS: u32 = 64;
    with_entries(BUCKETS, 1, |node| {
        let (port, [home, other]) = node.spot();
        let asked = |bucket: &u32| *bucket == other || (bucket + BUCKETS - home) % BUCKETS <= 16;
        let far = (0..BUCKETS).find(|bucket| !asked(bucket)).expect("fewer are asked than there are");
        let stranger = node.fill(far, 1)[0].key;
        for packets in [2, 4] {
            // The answer has no connection to belong to, and its own policy lets it pass.
            node.open(port);
            assert_eq!((node.counted(port), node.rig.connection_errors()), (None, vec![(libc::ENOSPC, packets)]));
        }
        assert_eq!(node.rig.connection_keys(), [stranger]);
        node.rig.evict(&stranger);
        node.open(port);
        assert_eq!((node.counted(port), node.rig.connection_errors()), (Some((1, 1)), vec![(libc::ENOSPC, 4)]));
    });
}

/// Packets and bytes share a word; what does not fit goes on in another.
#[test]
fn packets_and_bytes_are_counted_however_many_there_are() {
    const TIMES: u32 = 1_000_000;
    on_a_node(4, |node| {
        node.open(PORT);
        let key = node.tuple(PORT).key().0;
        let length = node.packet(WEB, PORT).len() as u64;
        let counted = || {
            let dir = node.rig.connection(&key).expect("it is open").dir[0];
            (dir.packets(), dir.bytes())
        };
        for (packets, bytes) in [(1, length), ((1 << 20) - 2, (1 << 44) - 200), ((1 << 40) + 7, 1 << 60)] {
            let mut entry = node.rig.connection(&key).expect("it is open");
            entry.dir[0].set_counts(packets, bytes);
            node.rig.put_connection(&entry);
            node.repeat(PORT, TIMES);
            let more = u64::from(TIMES);
            assert_eq!(counted(), (packets + more, bytes + more * length));
            // The upper parts have followed: packets still take the short way, which needs no lock.
            let [home, _] = node.rig.table.places(&node.tuple(PORT));
            node.while_locked(home, || node.repeat(PORT, 1));
            assert_eq!(counted(), (packets + more + 1, bytes + (more + 1) * length));
            let dir = node.rig.connection(&key).expect("it is open").dir[0];
            assert_eq!(u64::from(dir.bytes_high), dir.bytes() >> 42);
        }
        assert_eq!(node.rig.connection_errors(), []);
    });
}
