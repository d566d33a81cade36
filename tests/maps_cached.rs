//! Desired and real content: drift, repair and back-off.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use podwire::maps::{BackOff, CachedMap, HashMap, LpmTrie, MapSpec, Outcomes, Store, SyncState, Update};
use podwire::{Error, ErrorKind, Result};

/// A clock that only moves when told to.
#[derive(Clone)]
struct Clock(Arc<Mutex<Instant>>);

impl Clock {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn advance(&self, by: Duration) {
        *self.0.lock().expect("no panic while locked") += by;
    }

    fn reader(&self) -> impl Fn() -> Instant + Send + Sync + 'static {
        let clock = self.clone();
        move || *clock.0.lock().expect("no panic while locked")
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn cached(entries: u32) -> (CachedMap<HashMap<u32, u64>>, Clock) {
    let map = HashMap::create(&MapSpec::hash::<u32, u64>("t_cached", entries)).expect("created");
    let clock = Clock::new();
    (CachedMap::with_clock(map, BackOff::new(SECOND, 4 * SECOND), clock.reader()), clock)
}

fn states<M: Store<Key = u32, Value = u64>>(cache: &CachedMap<M>) -> Vec<(u32, u64, &'static str, bool)> {
    let dump = cache.dump().into_iter();
    dump.map(|entry| (entry.key, entry.value, entry.state.as_str(), entry.last_error.is_some())).collect()
}

#[test]
fn what_others_change_is_found_and_repaired() {
    let (cache, _) = cached(16);
    for key in 1..=3 {
        cache.upsert(&key, &10).expect("room");
    }
    assert_eq!(cache.resync().expect("readable"), Default::default());

    cache.map().delete(&1).expect("removable");
    cache.map().insert(&2, &99, Update::Any).expect("room");
    cache.map().insert(&7, &70, Update::Any).expect("room");
    let drift = cache.find_drift().expect("readable");
    assert_eq!((drift.missing, drift.different, drift.foreign, drift.reconciled.repaired), (1, 1, 1, 0));
    assert_eq!(states(&cache), [(1, 10, "insert", false), (2, 10, "insert", false), (3, 10, "sync", false)]);
    assert_eq!(cache.map().lookup(&1).expect("readable"), None, "looking repaired it");

    let drift = cache.resync().expect("readable");
    assert_eq!((drift.missing, drift.different, drift.foreign), (0, 0, 1), "found before");
    assert_eq!((drift.reconciled.repaired, drift.reconciled.next_due), (2, None));
    assert_eq!(cache.map().lookup(&1).expect("readable"), Some(10));
    assert_eq!(cache.map().lookup(&2).expect("readable"), Some(10));
    assert_eq!(cache.map().lookup(&7).expect("readable"), Some(70), "removed before the content was complete");

    cache.mark_complete();
    let drift = cache.resync().expect("readable");
    assert_eq!((drift.foreign, drift.reconciled.repaired), (1, 1));
    assert_eq!(cache.map().lookup(&7).expect("readable"), None);
    assert_eq!(states(&cache), [(1, 10, "sync", false), (2, 10, "sync", false), (3, 10, "sync", false)]);
}

#[test]
fn what_does_not_fit_waits_and_heals() {
    let (cache, clock) = cached(2);
    cache.upsert(&1, &1).expect("room for 2");
    cache.upsert(&2, &2).expect("room for 2");
    assert_eq!(cache.upsert(&3, &3).expect_err("full").kind(), ErrorKind::Exhausted);
    let entry = cache.dump().pop().expect("three entries");
    assert_eq!((entry.key, entry.state), (3, SyncState::Insert));
    assert!(entry.last_error.is_some_and(|error| error.contains("t_cached is full (2 entries)")));
    assert_eq!((cache.pending(), cache.pressure()), (1, 1.5));
    assert_eq!(cache.desired(&3), Some(3));

    assert!(cache.remove(&1).expect("removable"));
    assert_eq!(cache.reconcile().waiting, 1, "tried before its time");
    clock.advance(SECOND);
    assert_eq!(cache.reconcile().repaired, 1);
    assert_eq!(states(&cache), [(2, 2, "sync", false), (3, 3, "sync", false)]);
    assert_eq!(cache.map().lookup(&3).expect("readable"), Some(3));
    let counts = cache.operations();
    assert_eq!(counts.update, Outcomes { success: 3, fail: 1 });
    assert_eq!(counts.delete, Outcomes { success: 1, fail: 0 });
}

#[test]
fn tries_are_reconciled_too() {
    let spec = MapSpec::lpm::<[u8; 8], u32>("t_cached_lpm", 4);
    let cache = CachedMap::new(LpmTrie::<[u8; 8], u32>::create(&spec).expect("created"));
    let key = [8, 0, 0, 0, 10, 0, 0, 0].map(|byte: u8| byte);
    cache.upsert(&key, &1).expect("room");
    cache.map().delete(&key).expect("removable");
    assert_eq!(cache.resync().expect("readable").missing, 1);
    assert_eq!(cache.map().lookup(&key).expect("readable"), Some(1));
}

/// A store that fails on demand, for what needs no kernel.
#[derive(Default)]
struct Flaky {
    content: Mutex<BTreeMap<u32, u64>>,
    broken: AtomicBool,
}

impl Flaky {
    fn check(&self) -> Result<()> {
        match self.broken.load(Ordering::Relaxed) {
            true => Err(Error::system("write", "flaky store", std::io::Error::from_raw_os_error(5))),
            false => Ok(()),
        }
    }
}

impl Store for Flaky {
    type Key = u32;
    type Value = u64;

    fn label(&self) -> &str {
        "flaky"
    }

    fn capacity(&self) -> usize {
        4
    }

    fn put(&self, key: &u32, value: &u64) -> Result<()> {
        self.check()?;
        self.content.lock().expect("no panic while locked").insert(*key, *value);
        Ok(())
    }

    fn remove(&self, key: &u32) -> Result<bool> {
        self.check()?;
        Ok(self.content.lock().expect("no panic while locked").remove(key).is_some())
    }

    fn for_each(&self, visit: &mut dyn FnMut(&u32, &u64)) -> Result<()> {
        self.check()?;
        self.content.lock().expect("no panic while locked").iter().for_each(|(key, value)| visit(key, value));
        Ok(())
    }
}

fn flaky() -> (CachedMap<Flaky>, Clock) {
    let clock = Clock::new();
    (CachedMap::with_clock(Flaky::default(), BackOff::new(SECOND, 4 * SECOND), clock.reader()), clock)
}

#[test]
fn retries_come_later_and_later() {
    let (cache, clock) = flaky();
    cache.map().broken.store(true, Ordering::Relaxed);
    cache.upsert(&1, &1).expect_err("broken");
    // Delays of 1, 2, 4 and again 4 seconds.
    for delay in [1, 2, 4, 4] {
        clock.advance(delay * SECOND - Duration::from_millis(1));
        let early = cache.reconcile();
        assert_eq!((early.failed, early.waiting), (0, 1), "before {delay} s");
        clock.advance(Duration::from_millis(1));
        assert_eq!(cache.reconcile().failed, 1, "after {delay} s");
    }
    assert_eq!(cache.operations().update, Outcomes { success: 0, fail: 5 });
    cache.map().broken.store(false, Ordering::Relaxed);
    clock.advance(4 * SECOND);
    let healed = cache.reconcile();
    assert_eq!((healed.repaired, healed.next_due), (1, None));
    assert_eq!(states(&cache), [(1, 1, "sync", false)]);
}

#[test]
fn failed_removals_are_tried_again_and_come_first() {
    let (cache, clock) = flaky();
    cache.upsert(&1, &1).expect("works");
    cache.map().broken.store(true, Ordering::Relaxed);
    cache.remove(&1).expect_err("broken");
    // Nothing was known of this one.
    cache.remove(&5).expect_err("broken");
    assert_eq!(states(&cache), [(1, 1, "delete", true), (5, 0, "delete", true)]);
    assert_eq!(cache.desired(&1), None);
    cache.map().broken.store(false, Ordering::Relaxed);
    clock.advance(SECOND);
    assert_eq!(cache.reconcile().repaired, 2);
    assert!(cache.is_empty() && cache.map().content.lock().expect("no panic while locked").is_empty());
}

#[test]
fn a_comparison_that_fails_changes_nothing() {
    let (cache, _) = flaky();
    cache.upsert(&1, &1).expect("works");
    cache.mark_complete();
    cache.map().broken.store(true, Ordering::Relaxed);
    cache.resync().expect_err("unreadable");
    assert_eq!(states(&cache), [(1, 1, "sync", false)]);
    assert_eq!(cache.operations().dump, Outcomes { success: 0, fail: 1 });
}

#[test]
fn a_pending_entry_that_someone_else_settled_is_in_sync() {
    let (cache, _) = flaky();
    cache.upsert(&2, &2).expect("works");
    cache.map().broken.store(true, Ordering::Relaxed);
    cache.upsert(&1, &1).expect_err("broken");
    cache.remove(&2).expect_err("broken");
    cache.map().broken.store(false, Ordering::Relaxed);
    *cache.map().content.lock().expect("no panic while locked") = BTreeMap::from([(1, 1)]);
    let drift = cache.resync().expect("readable");
    assert_eq!((drift.missing, drift.reconciled.repaired, drift.reconciled.waiting), (0, 0, 0));
    assert_eq!(states(&cache), [(1, 1, "sync", false)]);
}

#[test]
fn writing_what_is_there_costs_no_call() {
    let (cache, _) = flaky();
    cache.upsert(&1, &1).expect("works");
    cache.upsert(&1, &1).expect("works");
    cache.upsert(&1, &2).expect("works");
    assert_eq!(cache.operations().update.success, 2);
}

#[test]
fn a_map_s_content_is_taken_over() {
    let (cache, _) = cached(16);
    for key in 1..=4 {
        cache.map().insert(&key, &u64::from(key), Update::Any).expect("room");
    }
    cache.upsert(&1, &10).expect("room");
    assert_eq!(cache.adopt(|key, _| *key != 3).expect("readable"), 2, "2 and 4: 1 is desired otherwise");
    assert_eq!(states(&cache), [(1, 10, "sync", false), (2, 2, "sync", false), (4, 4, "sync", false)]);
    let written = cache.apply(&[(2, 2), (4, 5)], &[]);
    assert_eq!((written.upserted, written.removed, written.failed), (1, 0, 0));
    assert_eq!(cache.operations().update.success, 2, "what was found there was written");
    cache.mark_complete();
    let drift = cache.resync().expect("readable");
    assert_eq!((drift.missing, drift.different, drift.foreign), (0, 0, 1));
    assert_eq!(cache.map().lookup(&3).expect("readable"), None);
}

#[test]
fn many_changes_at_once() {
    let (cache, clock) = cached(10_000);
    let all: Vec<_> = (0..10_000).map(|key: u32| (key, u64::from(key))).collect();
    let written = cache.apply(&all, &[]);
    assert!(written.changed());
    assert_eq!((written.upserted, written.failed), (10_000, 0));
    assert_eq!(cache.map().len().expect("readable"), 10_000);
    assert!(!cache.apply(&all, &[]).changed());

    // two more find no room, then room for one
    let written = cache.apply(&[(5, 50), (20_000, 1), (20_001, 1)], &[]);
    assert_eq!((written.upserted, written.failed), (1, 2), "an overwrite needs no room");
    assert_eq!(written.first_error.expect("no room").kind(), ErrorKind::Exhausted);
    assert_eq!(cache.pending(), 2);
    let written = cache.apply(&[(20_000, 2), (20_001, 2)], &[1, 77_777]);
    assert_eq!((written.upserted, written.removed, written.failed), (1, 1, 1), "77,777 was not there");
    let removals: Vec<_> = (0..10_000).collect();
    assert_eq!(cache.apply(&[], &removals).removed, 9_999);
    clock.advance(4 * SECOND);
    assert_eq!(cache.reconcile().repaired, 1);
    assert_eq!(states(&cache), [(20_000, 2, "sync", false), (20_001, 2, "sync", false)]);
    assert_eq!(cache.map().len().expect("readable"), 2);
}

#[test]
fn a_store_that_fails_fails_each_entry() {
    let (cache, clock) = flaky();
    cache.upsert(&1, &1).expect("works");
    cache.map().broken.store(true, Ordering::Relaxed);
    let written = cache.apply(&[(1, 1), (2, 2), (3, 3)], &[9]);
    assert_eq!((written.upserted, written.removed, written.failed), (0, 0, 3));
    assert_eq!(
        states(&cache),
        [(1, 1, "sync", false), (2, 2, "insert", true), (3, 3, "insert", true), (9, 0, "delete", true)]
    );
    cache.map().broken.store(false, Ordering::Relaxed);
    clock.advance(SECOND);
    assert_eq!(cache.reconcile().repaired, 3);
    assert_eq!(states(&cache), [(1, 1, "sync", false), (2, 2, "sync", false), (3, 3, "sync", false)]);
}
