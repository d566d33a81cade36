//! Collecting ended connections out of half a million: how long it takes, how much CPU, and what other users of the table notice.
//! Run as root: `cargo bench --bench collect [-- --quick]`.
//!
//! A second thread looks up, inserts and removes connections of its own all the while, first alone, then during collections. What an
//! operation took by the clock includes whatever else took the CPU from it; its CPU time does not, but does include waiting for a lock.
#![allow(missing_docs)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use podwire::conntrack::{Collected, Conntrack, ticks_per_second};
use podwire::program::{Constants, Loader, embedded};
use podwire::tables::{Connection, CtMap, CtPath, CtState, FlowTuple, Protocol};
use support::Effort;
use support::figures::{median, milliseconds, print_head, print_row};

/// Connections of the other thread.
const OWN: u32 = 1024;

/// Pins that go with the bench.
struct Root(PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("remove {}: {error}", self.0.display());
        }
    }
}

fn main() {
    let effort = Effort::asked();
    let entries = effort.choose(5000, 500_000, 500_000) as u32;
    let rounds = effort.choose(1, 3, 10);
    let root = Root(PathBuf::from(format!("/sys/fs/bpf/podwire_bench_{}", std::process::id())));
    fs::create_dir(&root.0).expect("root, and a bpffs at /sys/fs/bpf");
    let conntrack = open(&root, (entries + OWN).next_power_of_two());

    let alone = Latencies::of(&conntrack, || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(effort.choose(20, 1000, 3000) as u64) {
            thread::yield_now();
        }
    });
    let (mut passes, mut walks) = (Vec::new(), Vec::new());
    let mut during = Latencies::default();
    for _ in 0..rounds {
        fill(&conntrack, entries);
        // An address that nobody has: the walk alone.
        let began = Instant::now();
        assert_eq!(conntrack.flush_addresses(|address| address.is_ipv6()).expect("readable"), 0);
        walks.push(milliseconds(began.elapsed()));
        during.merge(Latencies::of(&conntrack, || passes.push(conntrack.collect(|| false).expect("collectable"))));
        let pass = passes[passes.len() - 1];
        // Where both buckets of a connection are full one has to go, and it is one of those that have ended.
        let few = entries / 200;
        assert!(pass.removed as u32 + few >= entries / 2 && pass.looked_at as u32 + few >= entries, "{pass:?}");
    }
    report(entries, &passes);
    print_row("looking through them for addresses", &walks);
    print_head("another thread's operation on the table, ms");
    alone.print("without collecting");
    during.print("while collecting");
}

fn open(root: &Root, max_entries: u32) -> Conntrack {
    let mut constants = Constants::new();
    constants.set("cfg_ticks_per_second", ticks_per_second());
    let (maps, programs) = (root.0.join("maps"), root.0.join("programs"));
    let loader = Loader::new(&maps).object(embedded::CONNTRACK).constants(constants);
    let sizes = CtMap::sizes(max_entries);
    let loader = sizes.into_iter().fold(loader, |loader, (map, size)| loader.max_entries(map, size));
    loader.load_or_adopt(&programs).expect("the programs load");
    Conntrack::open_pinned(&maps, &programs).expect("pinned")
}

fn connection(number: u32, expires: u64) -> Connection {
    let (source, destination) = ((number.to_be_bytes(), 1).into(), ([255, 0, 0, 0], 1).into());
    let opener = FlowTuple::new(Protocol::UDP, source, destination).expect("one family");
    let path = CtPath { expires, ..CtPath::default() };
    Connection { state: CtState::Established, forward: path, reply: path, ..Connection::new(opener) }
}

/// Half of the connections have ended.
fn fill(conntrack: &Conntrack, entries: u32) {
    let now = conntrack.clock().now().expect("callable").jiffies;
    let second = u64::from(ticks_per_second());
    for number in 0..entries {
        let expires = if number % 2 == 0 { now - 10 * second } else { now + 3600 * second };
        conntrack.insert(&connection(number, expires)).expect("room");
    }
}

/// How long each operation took, in milliseconds.
#[derive(Default)]
struct Latencies {
    lookups: Times,
    inserts: Times,
    removals: Times,
}

/// By the clock, and of the CPU.
#[derive(Default)]
struct Times {
    clock: Vec<f64>,
    cpu: Vec<f64>,
}

impl Latencies {
    /// Those of another thread while `work` goes on here.
    fn of(conntrack: &Conntrack, work: impl FnOnce()) -> Self {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let user = scope.spawn(|| {
                let mut latencies = Self::default();
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let live = connection(u32::MAX - number, u64::MAX);
                    number = (number + 1) % OWN;
                    timed(&mut latencies.inserts, || conntrack.insert(&live).expect("room"));
                    let table = conntrack.connections();
                    timed(&mut latencies.lookups, || assert!(table.lookup(&live.opener).expect("readable").is_some()));
                    timed(&mut latencies.removals, || assert!(conntrack.remove(&live.opener).expect("removable")));
                }
                latencies
            });
            work();
            stop.store(true, Ordering::Relaxed);
            user.join().expect("no panic")
        })
    }

    fn merge(&mut self, other: Self) {
        for (own, other) in [
            (&mut self.lookups, other.lookups),
            (&mut self.inserts, other.inserts),
            (&mut self.removals, other.removals),
        ] {
            own.clock.extend(other.clock);
            own.cpu.extend(other.cpu);
        }
    }

    fn print(&self, when: &str) {
        for (name, times) in [("lookup", &self.lookups), ("insert", &self.inserts), ("remove", &self.removals)] {
            if !times.clock.is_empty() {
                print_row(&format!("{name} {when}"), &times.clock);
                print_row(&format!("{name} {when}, CPU"), &times.cpu);
            }
        }
    }
}

fn timed(into: &mut Times, operation: impl FnOnce()) {
    let (began, cpu) = (Instant::now(), cpu_time());
    operation();
    into.cpu.push(milliseconds(cpu_time().saturating_sub(cpu)));
    into.clock.push(milliseconds(began.elapsed()));
}

fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn report(entries: u32, passes: &[Collected]) {
    let of = |value: fn(&Collected) -> Duration| -> Vec<f64> {
        passes.iter().map(|pass| milliseconds(value(pass))).collect()
    };
    print_head(&format!("collecting {entries} entries, half of them dead, ms"));
    print_row("time", &of(|pass| pass.time));
    print_row("CPU", &of(|pass| pass.cpu));
    let nanoseconds = median(&of(|pass| pass.cpu)) * 1e6 / f64::from(entries);
    println!("{nanoseconds:.0} ns of CPU an entry");
}
