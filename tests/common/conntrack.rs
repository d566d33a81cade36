//! Connections in maps of their own, with the program that collects them.
#![allow(dead_code, unreachable_pub, reason = "every test program compiles all of this and uses some")]

use std::net::SocketAddr;

use podwire::conntrack::{Conntrack, ticks_per_second};
use podwire::program::{Constants, Loader, ObjectImage, ProgramSet, embedded};
use podwire::tables::{Connection, CtPath, FlowTuple, Protocol};

use super::bpf::BpfRoot;

pub const COLLECT: &str = "podwire_ct_collect";

pub struct Table {
    pub root: BpfRoot,
    pub programs: ProgramSet,
    pub conntrack: Conntrack,
}

impl Table {
    /// An empty one with room for so many entries.
    pub fn new(max_entries: u32) -> Self {
        Self::with(max_entries, &[])
    }

    /// The same, with other objects beside the collector's.
    pub fn with(max_entries: u32, objects: &[ObjectImage<'static>]) -> Self {
        let root = BpfRoot::new();
        let mut constants = Constants::new();
        constants.set("cfg_ticks_per_second", ticks_per_second());
        let loader = Loader::new(root.maps()).object(embedded::COLLECT).constants(constants);
        let loader = objects.iter().fold(loader, |loader, object| loader.object(*object));
        let loader = loader.max_entries("podwire_ct", max_entries);
        let programs = loader.load_or_adopt(&root.programs()).expect("the programs load");
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
                forward: CtPath { expires: at(forward), ..CtPath::default() },
                reply: CtPath { expires: at(reply), ..CtPath::default() },
                ..Connection::new(tuple(number))
            };
            self.conntrack.connections().insert(&connection).expect("room");
        }
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
