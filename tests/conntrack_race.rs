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
use conntrack::Table;
use podwire::abi::{CtEntry, CtKey};
use podwire::conntrack::CtFilter;
use podwire::program::{ObjectImage, call};
use podwire::tables::{CtDirection, CtMap};

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
    used_fast: u64,
    ended: u64,
    revived: u64,
    busy: u64,
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

/// Lets two writers and a collector work on a table of so many buckets until each has done enough, or `stop` of what a writer
/// did says so. Comes back with what the writers did, and how many connections the collector removed.
fn race(table: &Table, stop: fn(&Revive) -> bool) -> (Vec<Revive>, u64) {
    let writer = table.programs.program("revive").expect("loaded");
    let (began, enough) = (Instant::now(), enough());
    let (removed, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (mut looked_at, mut busy) = (0, 0);
    let written: Vec<Revive> = thread::scope(|scope| {
        let writers = [0, 512].map(|first| {
            let (removed, over) = (&removed, &over);
            scope.spawn(move || {
                // An hour, so that none ends by itself.
                let mut work = Revive { first, mask: CONNECTIONS - 1, lifetime: 3600, ..Revive::default() };
                while !over.load(Ordering::Relaxed) {
                    call(writer, &mut work).expect("callable");
                    let done = work.revived >= enough && removed.load(Ordering::Relaxed) >= enough;
                    if done || stop(&work) || began.elapsed() > DEADLINE {
                        break;
                    }
                }
                work
            })
        });
        while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
            let pass = table.conntrack.collect(|| false).expect("collectable");
            removed.fetch_add(pass.removed as u64, Ordering::Relaxed);
            looked_at += pass.looked_at;
            busy += pass.busy;
            stand_where_they_belong(table.conntrack.connections());
        }
        over.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().expect("no panic")).collect()
    });
    let removed = removed.into_inner();
    println!("looked at {looked_at}, removed {removed}, busy {busy}; {written:?}");
    for work in &written {
        assert!(stop(work) || (work.revived >= enough && removed >= enough), "too slow to tell: {work:?}");
        assert!(work.opened > 0 && work.used > 0 && work.used_fast > 0 && work.ended > 0, "{work:?}");
    }
    (written, removed)
}

/// What is read while others write is whole: every entry is a writer's connection, in one of its two buckets.
fn stand_where_they_belong(table: &CtMap) {
    let check = |entry: &CtEntry| {
        let CtKey { lo_addr, hi_addr, lo_port_be, .. } = entry.key;
        let number = lo_port_be & !(512 | (CONNECTIONS as u16 - 1));
        assert_eq!((lo_addr[0], hi_addr[0], number), (10, 11, 0), "{entry:?}");
    };
    table.for_each_entry(check).expect("readable");
    for bucket in 0..table.buckets() {
        let entries = table.entries_of(bucket).expect("readable");
        entries.iter().for_each(check);
    }
}

/// Each connection is where the index says that it is, and there once; every other entry is free, and there once.
fn is_in_order(table: &CtMap) {
    let mut keys = Vec::new();
    for bucket in 0..table.buckets() {
        for entry in table.entries_of(bucket).expect("readable") {
            let tuple = entry.key.tuple(CtDirection::FromLo).expect("of a family");
            assert!(table.places(&tuple).contains(&bucket), "{tuple} in {bucket}");
            keys.push(entry.key);
        }
    }
    let mut listed = Vec::new();
    table.for_each_entry(|entry| listed.push(entry.key)).expect("readable");
    keys.sort_unstable();
    listed.sort_unstable();
    assert!(keys.is_sorted_by(|a, b| a < b), "a connection stands twice: {keys:?}");
    assert_eq!(keys, listed);
    let free = table.free().expect("readable");
    let mut once = free.clone();
    once.sort_unstable();
    assert!(once.is_sorted_by(|a, b| a < b), "an entry is free twice: {free:?}");
    assert_eq!(free.len() + keys.len(), table.used().expect("readable") as usize, "an entry is lost");
}

/// Nothing is counted, locked or marked any more.
fn is_empty_and_idle(table: &Table) {
    table.conntrack.flush(&CtFilter::all()).expect("nobody else is there");
    for row in 0..table.conntrack.connections().buckets() {
        let bucket = table.conntrack.connections().index().read(row).expect("in the table");
        assert_eq!((bucket.lock, bucket.away, bucket.tag, bucket.rank), (0, 0, [0; 8], [0; 8]), "bucket {row}");
    }
    is_in_order(table.conntrack.connections());
}

/// Whoever sets the end of a connection to a time ahead, under its bucket's lock if the connection had ended, finds it until
/// then.
#[test]
fn a_connection_that_is_to_live_is_never_removed() {
    // So large that no bucket is ever full: what is missing was removed, and did not have to make room.
    let table = Table::with(CONNECTIONS, 8 * CONNECTIONS, &[REVIVE]);
    let (written, removed) = race(&table, |work| work.lost > 0);
    for work in &written {
        assert_eq!(work.lost, 0, "connections were removed while they were to live: {work:?}");
    }
    // What was removed was opened again, but for those that have ended since.
    let opened: u64 = written.iter().map(|work| work.opened).sum();
    let left = table.conntrack.connections().connections().expect("readable").len() as u64;
    assert_eq!(opened, removed + left, "removals and what the writers saw must agree");
    is_empty_and_idle(&table);
}

/// Where connections push each other out of full buckets, or there are too few entries for all of them.
#[test]
fn a_crowded_table_stays_in_order() {
    for (buckets, entries) in [(CONNECTIONS / 8, CONNECTIONS), (CONNECTIONS, CONNECTIONS / 2)] {
        let table = Table::with(buckets, entries, &[REVIVE]);
        let (written, _) = race(&table, |_| false);
        assert!(written.iter().any(|work| work.lost > 0), "nobody had to make room: {written:?}");
        is_in_order(table.conntrack.connections());
        is_empty_and_idle(&table);
    }
}
