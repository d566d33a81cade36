//! Collecting, listing and flushing connections in real maps, with the collector's program. Needs root and a bpffs.
//! `PODWIRE_BATCH_ENTRIES` sets how many entries many are (50,000 unless set).

#[path = "common/bpf.rs"]
mod bpf;
#[path = "common/conntrack.rs"]
mod conntrack;

use std::cell::Cell;
use std::env;
use std::hint;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use conntrack::{COLLECT, Table, tuple};
use podwire::ErrorKind;
use podwire::abi::CtCollect;
use podwire::conntrack::{Clock, Collected, Conntrack, CtFilter, Interval, ticks_per_second};
use podwire::maps::{PerCpuValues, Update};
use podwire::program::call;

/// Ends of a connection, in milliseconds from now.
const ENDED: i64 = -9000;
const ALIVE: i64 = 3_600_000;

fn many() -> u32 {
    let text = env::var("PODWIRE_BATCH_ENTRIES").ok();
    text.map_or(50_000, |text| text.parse().expect("PODWIRE_BATCH_ENTRIES is a number"))
}

/// Calls the program as it is, without the collector.
fn collect(table: &Table, first: u32, count: u32, everything: bool) -> CtCollect {
    let mut argument: CtCollect = bytemuck::Zeroable::zeroed();
    (argument.first, argument.count, argument.everything) = (first, count, everything.into());
    let program = table.programs.program(COLLECT).expect("loaded");
    assert_eq!(call(program, &mut argument).expect("callable"), 0);
    argument
}

fn outcome(argument: &CtCollect) -> (u32, u32, u32) {
    (argument.looked_at, argument.removed, argument.busy)
}

#[test]
fn what_ended_is_removed_and_nothing_else() {
    let table = Table::new(512);
    let cases = [
        (0, ENDED, ENDED, false),
        (1, ENDED, ENDED, false),
        (2, -3000, -100_000_000, false),
        (3, -1100, -1100, false),
        // The program leaves a second to whoever is about to write a later end.
        (4, -500, -500, true),
        (5, ENDED, -500, true),
        (6, -500, ENDED, true),
        // One direction is enough, of either side and whoever opened it.
        (8, ALIVE, ENDED, true),
        (9, ENDED, ALIVE, true),
        (10, ALIVE, ENDED, true),
        (11, ENDED, ALIVE, true),
        (12, ENDED, ALIVE, true),
        (14, ENDED, ALIVE, true),
        (15, ALIVE, ALIVE, true),
    ];
    table.write(cases.map(|(number, forward, reply, _)| (number, forward, reply)));
    let kept: Vec<u32> = cases.iter().filter(|case| case.3).map(|case| case.0).collect();
    let pass = table.conntrack.collect(|| false).expect("collectable");
    assert_eq!((pass.looked_at, pass.removed, pass.busy, pass.complete), (14, 4, 0, true));
    assert_eq!((pass.left(), pass.dead_share()), (10, 4.0 / 14.0));
    assert_eq!(table.numbers(), kept);
}

#[test]
fn the_program_looks_through_the_entries_it_is_given() {
    let table = Table::new(16);
    table.write((0..40).map(|number| (number, ENDED, ENDED)));
    assert_eq!(outcome(&collect(&table, 0, 0, true)), (0, 0, 0), "0 only asks for the time");
    assert!(collect(&table, 0, 0, false).now >= table.now() - 1);
    assert_eq!(outcome(&collect(&table, 3, 2, false)), (2, 2, 0));
    assert_eq!(table.numbers(), (0..3).chain(5..40).collect::<Vec<_>>(), "entries are used one after the other");
    assert_eq!(outcome(&collect(&table, 3, 2, false)), (0, 0, 0));
    assert_eq!(outcome(&collect(&table, 37, 100, false)), (3, 3, 0), "those behind were never in use");
    assert_eq!(outcome(&collect(&table, 40, 1, true)), (0, 0, 0));
    assert_eq!(outcome(&collect(&table, u32::MAX, 16, true)), (0, 0, 0));
    assert_eq!(outcome(&collect(&table, 0, u32::MAX, false)), (35, 35, 0));
    assert!(table.numbers().is_empty());

    table.write((0..40).map(|number| (number, ALIVE, ALIVE)));
    assert_eq!(table.conntrack.connections().used().expect("readable"), 40, "the same ones again");
    assert_eq!(outcome(&collect(&table, 0, 128, false)), (40, 0, 0));
    assert_eq!(outcome(&collect(&table, 0, 128, true)), (40, 40, 0), "whatever their state");
    assert!(table.numbers().is_empty());
}

#[test]
fn a_bucket_that_somebody_writes_to_is_left_alone() {
    let table = Table::new(2);
    table.write((0..8).map(|number| (number, ENDED, ENDED)));
    let held = table.in_bucket(0);
    let alive = tuple(held[0]);
    assert!(!held.is_empty() && held.len() < 8, "{held:?}");
    table.while_locked(0, || {
        let pass = table.conntrack.collect(|| false).expect("collectable");
        assert_eq!((pass.looked_at, pass.removed, pass.busy, pass.complete), (8, 8 - held.len(), held.len(), true));
        assert_eq!(pass.left(), held.len());
        assert_eq!(table.numbers(), held, "and can be read meanwhile");
        // What has to be done now says that it can't be.
        let busy = |result: podwire::Result<usize>| assert_eq!(result.expect_err("locked").kind(), ErrorKind::Busy);
        busy(table.conntrack.flush(&CtFilter::all()));
        busy(table.conntrack.flush(&CtFilter::address(alive.source().ip())));
        busy(table.conntrack.remove(&alive).map(usize::from));
        let connection = table.conntrack.connections().lookup(&alive).expect("readable").expect("there");
        busy(table.conntrack.insert(&connection).map(|()| 1));
    });
    assert_eq!(table.numbers(), held);
    // A bucket in which nothing has ended needs no lock.
    table.write(held.iter().map(|number| (*number, ALIVE, ALIVE)));
    table.while_locked(0, || assert_eq!(table.conntrack.collect(|| false).expect("collectable").busy, 0));
    assert!(table.conntrack.remove(&alive).expect("removable"));
    assert!(!table.conntrack.remove(&alive).expect("removable"), "it has gone");
}

#[test]
fn half_of_many_in_batches_of_any_size() {
    let entries = many();
    for batch in [1, 7, 512, 1 << 17] {
        let table = Table::new(entries.next_power_of_two() / 4);
        table.write(
            (0..entries).map(|number| if number % 2 == 0 { (number, ENDED, ENDED) } else { (number, ALIVE, ALIVE) }),
        );
        table.conntrack.set_batch(batch).expect("not 0");
        let pass = table.conntrack.collect(|| false).expect("collectable");
        let half = entries as usize / 2;
        assert_eq!((pass.looked_at, pass.removed, pass.busy), (2 * half, half, 0), "batch {batch}");
        assert!(table.numbers().iter().copied().eq((0..entries).filter(|number| number % 2 == 1)), "batch {batch}");
        let occupancy = half as f64 / f64::from(entries.next_power_of_two() * 2);
        assert_eq!(table.conntrack.occupancy(), Some((half, occupancy)));
        assert!(pass.cpu > Duration::ZERO && pass.cpu <= pass.time * 2, "{pass:?}");
    }
    assert_eq!(Table::new(16).conntrack.set_batch(0).expect_err("no batch").kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_collection_can_be_interrupted() {
    let table = Table::new(8192);
    table.write((0..10_000).map(|number| (number, ENDED, ENDED)));
    let first = 3000;
    table.conntrack.set_batch(1000).expect("not 0");
    let asked = Cell::new(0);
    let pass = table.conntrack.collect(|| asked.replace(asked.get() + 1) == 2).expect("collectable");
    assert_eq!((pass.looked_at, pass.removed, pass.complete, asked.get()), (first, first, false, 3));
    assert_eq!(table.numbers().len(), 10_000 - first);
    assert_eq!(table.conntrack.occupancy(), None, "nobody has counted yet");
    let pass = table.conntrack.collect(|| false).expect("collectable");
    assert_eq!((pass.looked_at, pass.removed, pass.complete), (10_000 - first, 10_000 - first, true));
    let passes = table.conntrack.passes();
    assert_eq!((passes.complete, passes.incomplete, passes.removed), (1, 1, 10_000));
    assert_eq!(passes.last, Some(pass));
}

/// Stops the other threads when the test is through, also when an assertion fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn entries_that_come_and_go_confuse_nobody() {
    const DEAD: u32 = 2000;
    const LIVE: u32 = 2000;
    let table = Table::new(4096);
    table.write((DEAD..DEAD + LIVE).map(|number| (number, ALIVE, ALIVE)));
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let churn = DEAD + LIVE..DEAD + LIVE + 200;
                table.write(churn.clone().map(|number| (number, ENDED, ENDED)));
                churn.for_each(|number| assert!(table.conntrack.remove(&tuple(number)).is_ok()));
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        let deadline = Instant::now() + Duration::from_secs(120);
        let mut total = Collected::default();
        let mut passes = 0;
        while passes < 5 || rounds.load(Ordering::Relaxed) < 3 {
            assert!(Instant::now() < deadline, "the other thread does nothing");
            table.write((0..DEAD).map(|number| (number, ENDED, ENDED)));
            let pass = table.conntrack.collect(|| false).expect("collectable");
            assert!(pass.removed >= DEAD as usize, "{pass:?}");
            total.removed += pass.removed;
            passes += 1;
        }
        assert!(total.removed >= passes * DEAD as usize);
    });
    let left = table.numbers();
    assert!(left.iter().all(|number| *number >= DEAD), "dead ones are left");
    assert_eq!(left.iter().filter(|number| **number < DEAD + LIVE).count(), LIVE as usize);
}

/// Both find the same connection, and one of them is later at its lock.
#[test]
fn two_that_remove_the_same_at_the_same_time_remove_it_once() {
    const ROUNDS: u32 = 50;
    const CONNECTIONS: u32 = 1000;
    let table = Table::new(512);
    let (begun, done, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let everything = || u64::from(collect(&table, 0, u32::MAX, true).removed);
    let removed: u64 = thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let other = scope.spawn(|| {
            let mut removed = 0;
            for round in 1..=u64::from(ROUNDS) {
                // Awake, so that both begin at once.
                while begun.load(Ordering::Acquire) < round && !stop.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
                removed += everything();
                done.store(round, Ordering::Release);
            }
            removed
        });
        let mut removed = 0;
        for round in 1..=ROUNDS {
            table.write((round * CONNECTIONS..(round + 1) * CONNECTIONS).map(|number| (number, ALIVE, ALIVE)));
            begun.store(round.into(), Ordering::Release);
            removed += everything();
            while done.load(Ordering::Acquire) < round.into() {
                thread::yield_now();
            }
        }
        removed + other.join().expect("no panic")
    });
    table.check_order();
    assert_eq!(removed + table.numbers().len() as u64, u64::from(ROUNDS * CONNECTIONS));
}

#[test]
fn a_collection_is_due_after_an_interval_that_adapts() {
    let seconds = Duration::from_secs;
    let table = Table::new(8192);
    let conntrack = &table.conntrack;
    let interval = || conntrack.passes().interval;
    conntrack.set_batch(100).expect("not 0");
    conntrack.set_interval(Interval::new(seconds(10), seconds(1000)).expect("valid"));
    let collect = |after: Duration| conntrack.collect_if_due(Instant::now() + after, || false).expect("collectable");

    assert_eq!(collect(seconds(30)), None);
    table.write((0..1000).map(|number| (number, ENDED, ENDED)));
    assert_eq!(collect(seconds(61)).expect("due").removed, 1000);
    assert_eq!(interval(), seconds(10), "all of them were dead: too late");
    assert_eq!(collect(seconds(5)), None);
    table.write((0..1000).map(|number| (number, ALIVE, ALIVE)));
    assert_eq!(collect(seconds(11)).expect("due").removed, 0);
    assert_eq!(interval(), seconds(15), "none of them was");

    let stopped = conntrack.collect_if_due(Instant::now() + seconds(1000), || true).expect("collectable");
    assert!(stopped.is_some_and(|pass| !pass.complete));
    assert_eq!(interval(), seconds(15), "half a pass says nothing");
    assert!(collect(seconds(16)).is_some(), "and another one is due");
}

#[test]
fn connections_are_listed_and_flushed_by_filter() {
    let table = Table::new(512);
    table.write((0..8).map(|number| (number, ALIVE, ENDED)));
    let own = if tuple(4).source().port() == 40_000 { tuple(4).source() } else { tuple(4).destination() };
    let one = CtFilter::address(own.ip());
    let listed = table.conntrack.list(&one).expect("readable");
    assert_eq!(listed.iter().map(|connection| connection.opener).collect::<Vec<_>>(), [tuple(4)]);
    assert_eq!(table.conntrack.list(&CtFilter::all()).expect("readable").len(), 8);
    assert_eq!(table.conntrack.flush(&one).expect("deletable"), 1);
    assert_eq!(table.numbers(), [0, 1, 2, 3, 5, 6, 7], "flushed though it was alive");
    let endpoint = podwire::EndpointId::new(7).expect("not 0");
    assert_eq!(table.conntrack.flush(&CtFilter::endpoint(endpoint, [])).expect("deletable"), 0);
    assert_eq!(table.conntrack.flush(&CtFilter::all()).expect("deletable"), 7);
    assert!(table.numbers().is_empty());
}

#[test]
fn insertions_that_failed_are_named() {
    let table = Table::new(512);
    let errors = table.conntrack.errors();
    assert_eq!(errors.counts().expect("readable"), []);
    let mut values = PerCpuValues::new().expect("the number of CPUs");
    for (errno, count) in [(libc::ENOSPC, 3), (libc::EBUSY, 1), (127, 9)] {
        values.fill(|_| count);
        errors.map().insert(&(errno as u32), &values, Update::Any).expect("a row");
    }
    let cpus = values.cpus() as u64;
    let counts: Vec<_> =
        errors.counts().expect("readable").iter().map(|(errno, count)| (errno.to_string(), *count)).collect();
    assert_eq!(counts, [("EBUSY".into(), cpus), ("ENOSPC".into(), 3 * cpus), ("errno 127".into(), 9 * cpus)]);
}

#[test]
fn the_clock_runs_with_the_kernels() {
    let table = Table::new(512);
    let clock = table.conntrack.clock();
    let ticks = u64::from(ticks_per_second()) / 5;
    let (began, first) = (Instant::now(), clock.now().expect("callable"));
    let second = loop {
        let now = clock.now().expect("callable");
        assert!(now.jiffies >= first.jiffies && now.since_boot >= first.since_boot);
        assert!(began.elapsed() < Duration::from_secs(30), "the clock stands still");
        if now.jiffies >= first.jiffies + ticks {
            break now;
        }
    };
    // A tick more or less, since neither reading falls on one.
    let least = Duration::from_secs(1) * (ticks as u32 - 1) / ticks_per_second();
    assert!(began.elapsed() >= least, "{:?} for {} ticks", began.elapsed(), second.jiffies - first.jiffies);
    assert_eq!(first.seconds_until(first.jiffies + 5 * u64::from(ticks_per_second())), 5);
}

#[test]
fn what_is_not_pinned_is_not_found() {
    let table = Table::new(512);
    let nothing = bpf::BpfRoot::new();
    let (maps, programs) = (table.root.maps(), table.root.programs());
    let kind = |result: podwire::Result<Conntrack>| result.map(drop).expect_err("nothing there").kind();
    assert_eq!(kind(Conntrack::open_pinned(&maps, &nothing.programs())), ErrorKind::NotFound);
    assert_eq!(kind(Conntrack::open_pinned(&nothing.maps(), &programs)), ErrorKind::NotFound);
    assert_eq!(Clock::open_pinned(&nothing.programs()).map(drop).expect_err("nothing").kind(), ErrorKind::NotFound);
    Clock::open_pinned(&programs).expect("pinned").now().expect("callable");
    // A program that works on another map would report connections as gone that are there.
    let other = Table::new(256);
    assert_eq!(kind(Conntrack::open_pinned(&maps, &other.root.programs())), ErrorKind::NotFound);
}
