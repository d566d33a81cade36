//! The collector against programs that use, end and revive the same connections at the same time. Needs root and a bpffs.

#[path = "common/bpf.rs"]
mod bpf;
#[path = "common/conntrack.rs"]
mod conntrack;

use std::env;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytemuck::{Pod, Zeroable};
use conntrack::{COLLECT, Table};
use podwire::abi::{CtCollect, CtKey};
use podwire::program::{ObjectImage, Program, call};

/// tests/bpf/revive.bpf.c
static REVIVE: ObjectImage<'static> =
    ObjectImage::new("revive", include_bytes!(concat!(env!("OUT_DIR"), "/revive.bpf.o")));

/// `struct revive` of tests/bpf/revive.bpf.c
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct Revive {
    first: u32,
    mask: u32,
    lifetime: u32,
    pad: u32,
    opened: u64,
    used: u64,
    ended: u64,
    revived: u64,
    claimed: u64,
    lost: u64,
}

/// Connections of a writer: few, so that all meet often.
const CONNECTIONS: u32 = 32;
/// What each side must have done before the test may end; `PODWIRE_BATCH_ENTRIES` (50,000 unless set) makes it less.
fn enough() -> u64 {
    let entries = env::var("PODWIRE_BATCH_ENTRIES").ok();
    entries.map_or(10_000, |entries| entries.parse::<u64>().expect("a number") / 5)
}

const DEADLINE: Duration = Duration::from_secs(120);

/// The key of a connection, as `make_key()` of tests/bpf/revive.bpf.c.
fn key(number: u32) -> CtKey {
    let mut key = CtKey::zeroed();
    (key.lo_addr[0], key.hi_addr[0]) = (10, 11);
    (key.lo_port_be, key.proto, key.family) = (number as u16, 17, 1);
    key
}

/// Has every connection of a writer looked at, whether it seems dead or not.
fn collect_all(collector: &Program, first: u32) -> CtCollect {
    let mut work = CtCollect::zeroed();
    work.count = CONNECTIONS;
    for (slot, number) in work.keys.iter_mut().zip(first..) {
        *slot = key(number);
    }
    call(collector, &mut work).expect("callable");
    work
}

/// Whoever sets the end of a connection to a time ahead, under its claim if the connection had ended, finds it until then.
#[test]
fn a_connection_that_is_to_live_is_never_removed() {
    // Far from full: what is missing was removed, not evicted.
    let table = Table::with(4096, &[REVIVE]);
    let [writer, collector] = ["revive", COLLECT].map(|name| table.programs.program(name).expect("loaded"));
    let (began, enough) = (Instant::now(), enough());
    let (removed, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let firsts = [0, 512];
    let (mut alive, mut gone) = (0, 0);
    let written: Vec<Revive> = thread::scope(|scope| {
        let writers = firsts.map(|first| {
            let (removed, stop) = (&removed, &stop);
            scope.spawn(move || {
                // An hour, so that none ends by itself.
                let mut work = Revive { first, mask: CONNECTIONS - 1, lifetime: 3600, ..Revive::default() };
                while !stop.load(Ordering::Relaxed) {
                    call(writer, &mut work).expect("callable");
                    let done = work.revived >= enough && removed.load(Ordering::Relaxed) >= enough;
                    if done || work.lost > 0 || began.elapsed() > DEADLINE {
                        break;
                    }
                }
                work
            })
        });
        while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
            for first in firsts {
                let work = collect_all(collector, first);
                removed.fetch_add(work.removed.into(), Ordering::Relaxed);
                alive += work.alive;
                gone += work.gone;
            }
            let pass = table.conntrack.collect(|| false).expect("collectable");
            removed.fetch_add(pass.removed as u64, Ordering::Relaxed);
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().expect("no panic")).collect()
    });
    let removed = removed.into_inner();
    println!("removed {removed}, alive {alive}, gone {gone}; {written:?}");
    for work in &written {
        assert_eq!(work.lost, 0, "connections were removed while they were to live: {work:?}");
        assert!(work.revived >= enough && removed >= enough, "too slow to tell: {work:?}");
        assert!(work.opened > 0 && work.used > 0 && work.ended > 0, "{work:?}");
    }
    // What was removed was opened again, but for those that have ended since.
    let opened: u64 = written.iter().map(|work| work.opened).sum();
    let left = table.conntrack.connections().map().len().expect("readable") as u64;
    assert_eq!(opened, removed + left, "removals and what the writers saw must agree");
}
