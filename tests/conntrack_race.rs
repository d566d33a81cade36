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
use conntrack::{Table, tuple};
use podwire::abi::{CtEntry, CtInsert, CtKey, CtRemove};
use podwire::program::{ObjectImage, call};
use podwire::tables::{Connection, CtMap, CtState};

/// tests/bpf/revive.bpf.c
static REVIVE: ObjectImage<'static> =
    ObjectImage::new("revive", include_bytes!(concat!(env!("OUT_DIR"), "/revive.bpf.o")));

/// tests/bpf/meanwhile.bpf.c
static MEANWHILE: ObjectImage<'static> =
    ObjectImage::new("meanwhile", include_bytes!(concat!(env!("OUT_DIR"), "/meanwhile.bpf.o")));

fn table(buckets: u32, entries: u32) -> Table {
    Table::with(buckets, entries, &[bpf::object("revive", REVIVE)])
}

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

/// Lets two writers and a collector work on a table until each has revived or removed enough, or `stop` of what a writer did
/// says so. Comes back with what the writers did, and how many connections the collector removed.
fn race(table: &Table, enough: u64, stop: fn(&Revive) -> bool) -> (Vec<Revive>, u64) {
    let writer = table.programs.program("revive").expect("loaded");
    let began = Instant::now();
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

/// Whoever sets the end of a connection to a time ahead, under its bucket's lock if the connection had ended, finds it until
/// then.
#[test]
fn a_connection_that_is_to_live_is_never_removed() {
    // So large that no bucket is ever full: what is missing was removed, and did not have to make room.
    let table = table(CONNECTIONS, 8 * CONNECTIONS);
    let (written, removed) = race(&table, enough(), |work| work.lost > 0);
    for work in &written {
        assert_eq!(work.lost, 0, "connections were removed while they were to live: {work:?}");
    }
    // What was removed was opened again, but for those that have ended since.
    let opened: u64 = written.iter().map(|work| work.opened).sum();
    let left = table.conntrack.connections().connections().expect("readable").len() as u64;
    assert_eq!(opened, removed + left, "removals and what the writers saw must agree");
    table.empty_and_check();
}

/// Where connections push each other out of full buckets, or there are too few entries for all of them.
#[test]
fn a_crowded_table_stays_in_order() {
    for (buckets, entries) in [(CONNECTIONS / 8, CONNECTIONS), (CONNECTIONS, CONNECTIONS / 2)] {
        let table = table(buckets, entries);
        let (written, _) = race(&table, enough() / 10, |_| false);
        assert!(written.iter().any(|work| work.lost > 0), "nobody had to make room: {written:?}");
        table.check_order();
        table.empty_and_check();
    }
}

/// User space writes connections that are away from home, ended ones, while it removes them and collects.
#[test]
fn what_is_written_while_it_is_removed_stands_once_or_not_at_all() {
    let table = Table::new(2);
    let connections = table.conntrack.connections();
    let of = |home: u32| (0..).filter(move |number| connections.places(&tuple(*number)) == [home, 1 - home]);
    // A home full of others, so that its own have to go to the other bucket.
    of(0).take(8).for_each(|number| table.put(number, CtState::Established, 86_400));
    let away: Vec<u32> = of(0).skip(8).take(3).collect();
    let at_home: Vec<u32> = of(1).take(4).collect();
    let rounds = enough();
    let stop = AtomicBool::new(false);
    let collect = || assert!(table.conntrack.collect(|| false).expect("collectable").complete);
    let remove = || away.iter().for_each(|number| drop(table.conntrack.remove(&tuple(*number))));
    let insert = |numbers: &[u32]| numbers.iter().for_each(|number| drop(table.conntrack.insert(&ended(*number))));
    let until_stopped = |work: &dyn Fn()| {
        while !stop.load(Ordering::Relaxed) {
            work();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| until_stopped(&collect));
        scope.spawn(|| until_stopped(&remove));
        scope.spawn(|| until_stopped(&|| insert(&at_home)));
        (0..5 * rounds).for_each(|_| insert(&away));
        stop.store(true, Ordering::Relaxed);
    });
    table.check_order();
    table.empty_and_check();
}

/// Whoever changes a connection has found it before he has its bucket's lock: by then somebody else may stand there.
#[test]
fn whoever_has_come_meanwhile_is_neither_written_over_nor_removed() {
    let table = Table::of(2, 16, bpf::object("meanwhile", MEANWHILE), &[]);
    let connections = table.conntrack.connections();
    let of = |home: u32| (0..).filter(move |number| connections.places(&tuple(*number)) == [home, 1 - home]);
    let of_home: Vec<u32> = of(0).take(9).collect();
    let (away, other) = (of_home[8], of(1).next().expect("there is no end of them"));
    [&of_home[..8], &[other, away]].concat().iter().for_each(|number| table.put(*number, CtState::Established, 86_400));
    let mut both = vec![away, other];
    both.sort_unstable();
    assert_eq!((table.in_bucket(1), table.away(0)), (both, 1));
    let before = sorted(connections.entries_of(1).expect("readable"));

    let key = tuple(away).key().0;
    let mut work = CtInsert::zeroed();
    work.entry = *before.iter().find(|entry| entry.key == key).expect("it is there");
    work.entry.dir[0].expires += 1;
    call(table.programs.program("podwire_ct_insert").expect("loaded"), &mut work).expect("callable");
    assert_eq!(work.error, -libc::EBUSY, "to be tried again");
    assert_eq!(sorted(connections.entries_of(1).expect("readable")), before);

    let mut work = CtRemove { count: 1, ..CtRemove::zeroed() };
    work.keys[0] = key;
    call(table.programs.program("podwire_ct_remove").expect("loaded"), &mut work).expect("callable");
    assert_eq!(work.removed, 0, "to be tried again");
    assert_eq!(sorted(connections.entries_of(1).expect("readable")), before);
    table.check_order();
}

fn sorted(mut entries: Vec<CtEntry>) -> Vec<CtEntry> {
    entries.sort_unstable_by_key(|entry| entry.key);
    entries
}

/// A connection that ended long ago.
fn ended(number: u32) -> Connection {
    Connection { state: CtState::Established, ..Connection::new(tuple(number)) }
}
