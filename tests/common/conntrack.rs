//! Connections in maps of their own, with the program that collects them.
#![allow(dead_code, unreachable_pub, reason = "every test program compiles all of this and uses some")]

use std::net::SocketAddr;

use std::sync::atomic::{AtomicU32, Ordering};

use podwire::abi::{CT_WAYS, CtBucket, CtEntry};
use podwire::conntrack::{Conntrack, CtFilter, ticks_per_second};
use podwire::program::{Constants, Loader, ObjectImage, ProgramSet, embedded};
use podwire::tables::{Connection, CtDirection, CtPath, CtState, FlowTuple, HashKeys, Protocol, Switches};

use super::bpf::{BpfRoot, object};

pub const COLLECT: &str = "podwire_ct_collect";

/// Everything stands where it stood the last time.
const HASH_KEYS: HashKeys =
    [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9, 0x27d4_eb2f_1656_67c5, 0x85eb_ca77_c2b2_ae63];

pub struct Table {
    pub root: BpfRoot,
    pub programs: ProgramSet,
    pub conntrack: Conntrack,
}

impl Table {
    /// An empty one of so many buckets, with an entry for each of their places.
    pub fn new(buckets: u32) -> Self {
        Self::with(buckets, buckets * CT_WAYS as u32, &[])
    }

    /// One of so many buckets and entries, with other objects beside the collector's.
    pub fn with(buckets: u32, entries: u32, objects: &[ObjectImage<'static>]) -> Self {
        Self::of(buckets, entries, object("conntrack", embedded::CONNTRACK), objects)
    }

    /// The same with an object in the place of the collector's.
    pub fn of(buckets: u32, entries: u32, own: ObjectImage<'static>, objects: &[ObjectImage<'static>]) -> Self {
        let root = BpfRoot::new();
        let mut constants = Constants::new();
        constants.set("cfg_ticks_per_second", ticks_per_second());
        let loader = Loader::new(root.maps()).object(own).constants(constants);
        let loader = objects.iter().fold(loader, |loader, image| loader.object(*image));
        let loader = loader.max_entries("podwire_ct", entries).max_entries("podwire_ct_index", buckets);
        let programs = loader.load_or_adopt(&root.programs()).expect("the programs load");
        let switches = Switches::open_pinned(root.maps()).expect("pinned");
        let runtime = podwire::abi::Runtime { generation: 1, hash_keys: HASH_KEYS, ..Default::default() };
        switches.map().write(0, &runtime).expect("the only row");
        let conntrack = Conntrack::open_pinned(&root.maps(), &root.programs()).expect("pinned");
        Self { root, programs, conntrack }
    }

    pub fn now(&self) -> u64 {
        self.conntrack.clock().now().expect("the program can be called").jiffies
    }

    /// Writes connections that end so many milliseconds from now: `(number, of the opener's direction, of the other)`.
    pub fn write(&self, connections: impl IntoIterator<Item = (u32, i64, i64)>) {
        let now = self.now();
        let at = |time: i64| now.saturating_add_signed(time * i64::from(ticks_per_second()) / 1000);
        for (number, forward, reply) in connections {
            let connection = Connection {
                state: CtState::Established,
                forward: CtPath { expires: at(forward), ..CtPath::default() },
                reply: CtPath { expires: at(reply), ..CtPath::default() },
                ..Connection::new(tuple(number))
            };
            self.conntrack.insert(&connection).expect("room");
        }
    }

    /// Writes a connection in a state that ends so many seconds from now.
    pub fn put(&self, number: u32, state: CtState, seconds: i64) {
        let expires = self.now().saturating_add_signed(seconds * i64::from(ticks_per_second()));
        let forward = CtPath { expires, ..CtPath::default() };
        let connection = Connection { state, forward, ..Connection::new(tuple(number)) };
        self.conntrack.insert(&connection).expect("there is always a place");
    }

    /// The numbers of those that stand in a bucket.
    pub fn in_bucket(&self, bucket: u32) -> Vec<u32> {
        let entries = self.conntrack.connections().entries_of(bucket).expect("readable");
        let opener = |entry: &CtEntry| entry.key.tuple(CtDirection::from_number(entry.opener)).expect("of a family");
        let mut numbers: Vec<u32> = entries.iter().map(|entry| number(&opener(entry))).collect();
        numbers.sort_unstable();
        numbers
    }

    /// How many connections a bucket says are away from it.
    pub fn away(&self, bucket: u32) -> u32 {
        self.word(bucket, std::mem::offset_of!(CtBucket, away)).load(Ordering::Relaxed)
    }

    /// Does something while a bucket's lock is held, as a program would.
    pub fn while_locked<T>(&self, bucket: u32, work: impl FnOnce() -> T) -> T {
        let lock = self.word(bucket, std::mem::offset_of!(CtBucket, lock));
        assert_eq!(lock.swap(1, Ordering::Acquire), 0);
        let done = work();
        assert_eq!(lock.swap(0, Ordering::Release), 1, "somebody else gave it back");
        done
    }

    /// Each connection is where the index says that it is, and there once; every other entry is free, and there once.
    pub fn check_order(&self) {
        let table = self.conntrack.connections();
        let (mut keys, mut away) = (Vec::new(), vec![0; table.buckets() as usize]);
        for bucket in 0..table.buckets() {
            for entry in table.entries_of(bucket).expect("readable") {
                let tuple = entry.key.tuple(CtDirection::FromLo).expect("of a family");
                let places = table.places(&tuple);
                assert!(places.contains(&bucket), "{tuple} in {bucket}");
                away[places[0] as usize] += u32::from(places[0] != bucket);
                keys.push(entry.key);
            }
        }
        let mut listed = Vec::new();
        table.for_each_entry(|entry| listed.push(entry.key)).expect("readable");
        keys.sort_unstable();
        listed.sort_unstable();
        assert!(keys.is_sorted_by(|a, b| a < b), "a connection stands twice: {keys:?}");
        assert_eq!(keys, listed);
        assert_eq!((0..table.buckets()).map(|bucket| self.away(bucket)).collect::<Vec<_>>(), away);
        let free = table.free().expect("readable");
        let mut once = free.clone();
        once.sort_unstable();
        assert!(once.is_sorted_by(|a, b| a < b), "an entry is free twice: {free:?}");
        assert_eq!(free.len() + keys.len(), table.used().expect("readable") as usize, "an entry is lost");
    }

    /// When every connection has been removed, nothing is counted, locked or marked any more.
    pub fn empty_and_check(&self) {
        self.conntrack.flush(&CtFilter::all()).expect("nobody else is there");
        for row in 0..self.conntrack.connections().buckets() {
            let bucket = self.conntrack.connections().index().read(row).expect("in the table");
            assert_eq!((bucket.lock, bucket.away, bucket.tag, bucket.rank), (0, 0, [0; 8], [0; 8]), "bucket {row}");
        }
        self.check_order();
        assert!(self.numbers().is_empty());
    }

    fn word(&self, bucket: u32, offset: usize) -> &AtomicU32 {
        self.conntrack.connections().index().half_word(bucket, offset).expect("in the table")
    }

    /// The numbers of those that are there.
    pub fn numbers(&self) -> Vec<u32> {
        let connections = self.conntrack.connections().connections().expect("readable");
        let mut numbers: Vec<_> = connections.iter().map(|connection| number(&connection.opener)).collect();
        numbers.sort_unstable();
        numbers
    }
}

/// A tuple for each number; odd ones are IPv6, and of every second pair the greater side opens.
pub fn tuple(number: u32) -> FlowTuple {
    let [.., a, b] = number.to_be_bytes();
    let c = (number >> 16) as u8;
    let (own, other): (SocketAddr, SocketAddr) = if number.is_multiple_of(2) {
        (([10, a, b, c], 40_000).into(), ([9, 0, 0, 1], 53).into())
    } else {
        let own = [0xfd00, 0, 0, 0, 0, c.into(), a.into(), b.into()];
        ((own, 40_000).into(), ([0xfc00, 0, 0, 0, 0, 0, 0, 1], 53).into())
    };
    let (source, destination) = if number & 2 == 0 { (own, other) } else { (other, own) };
    FlowTuple::new(Protocol::UDP, source, destination).expect("one family")
}

/// The number of a tuple.
pub fn number(tuple: &FlowTuple) -> u32 {
    let own = if tuple.source().port() == 40_000 { tuple.source() } else { tuple.destination() };
    match own.ip() {
        std::net::IpAddr::V4(ip) => {
            let [_, a, b, c] = ip.octets();
            u32::from_be_bytes([0, c, a, b])
        }
        std::net::IpAddr::V6(ip) => {
            let [.., c, a, b] = ip.segments();
            u32::from_be_bytes([0, c as u8, a as u8, b as u8])
        }
    }
}
