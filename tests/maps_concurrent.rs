//! Reading while others write.

use std::collections::HashMap as Counts;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use podwire::maps::kinds::{Dynamic, Single};
use podwire::maps::{Batch, HashMap, LpmTrie, LruHashMap, Map, MapSpec, Update};

/// Entries nobody touches, entries that are overwritten all the time, and keys that come and go.
const STEADY: u32 = 4000;
const OVERWRITTEN: u32 = 1000;
const CHURN: u32 = 3000;

type Key = [u8; 8];

/// A key that serves a trie as a full-length prefix.
fn key(n: u32) -> Key {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&32u32.to_ne_bytes());
    key[4..].copy_from_slice(&n.to_be_bytes());
    key
}

fn number(key: &Key) -> u32 {
    u32::from_be_bytes([key[4], key[5], key[6], key[7]])
}

/// Stops the writers when the readers are through, also when an assertion fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn with_writers<T: Single + Dynamic>(map: &Map<Key, u64, T>, read: impl FnOnce()) {
    for n in 0..STEADY + OVERWRITTEN {
        map.insert(&key(n), &u64::from(n), Update::Any).expect("room");
    }
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for n in STEADY..STEADY + OVERWRITTEN {
                    map.insert(&key(n), &u64::from(n), Update::Any).expect("room");
                }
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            let first = STEADY + OVERWRITTEN;
            while !stop.load(Ordering::Relaxed) {
                for n in first..first + CHURN {
                    map.insert(&key(n), &u64::from(n), Update::Any).expect("room");
                }
                for n in first..first + CHURN {
                    map.delete(&key(n)).expect("removable");
                }
            }
        });
        while rounds.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        read();
    });
}

/// Every entry that was there throughout came exactly once, with its value, and no key came twice.
fn check(entries: impl Iterator<Item = (Key, u64)>, what: &str) {
    let mut counts: Counts<u32, u32> = Counts::new();
    for (key, value) in entries {
        assert_eq!(u64::from(number(&key)), value, "{what}: a value of another key");
        *counts.entry(number(&key)).or_default() += 1;
    }
    let missing: Vec<u32> = (0..STEADY + OVERWRITTEN).filter(|n| !counts.contains_key(n)).collect();
    assert!(missing.is_empty(), "{what}: {} entries missing, first {:?}", missing.len(), missing.first());
    assert!(counts.values().all(|&count| count == 1), "{what}: a key came twice");
}

fn read_in_every_way<T: Single + Dynamic>(map: &Map<Key, u64, T>) {
    for size in [1, 7, 64, 1000, 65_536] {
        let mut entries = Vec::new();
        let mut batch = Batch::new(size).expect("not 0");
        map.lookup_batch(&mut batch, |key, value| entries.push((*key, *value))).expect("readable");
        check(entries.into_iter(), &format!("batch size {size}"));
    }
    for _ in 0..5 {
        check(map.iter().map(|entry| entry.expect("readable")), "iteration");
    }
}

#[test]
fn hash_under_change() {
    let spec = MapSpec::hash::<Key, u64>("t_churn", STEADY + OVERWRITTEN + CHURN + 64);
    let map = HashMap::<Key, u64>::create(&spec).expect("created");
    with_writers(&map, || read_in_every_way(&map));
}

#[test]
fn hash_without_preallocation_under_change() {
    let spec = MapSpec::hash::<Key, u64>("t_churn", STEADY + OVERWRITTEN + CHURN + 64).no_prealloc();
    let map = HashMap::<Key, u64>::create(&spec).expect("created");
    with_writers(&map, || read_in_every_way(&map));
}

#[test]
fn lru_under_change() {
    // Four times the room: an LRU map keeps free entries per CPU and would evict before it is full.
    let spec = MapSpec::lru_hash::<Key, u64>("t_churn", 4 * (STEADY + OVERWRITTEN + CHURN));
    let map = LruHashMap::<Key, u64>::create(&spec).expect("created");
    with_writers(&map, || read_in_every_way(&map));
}

#[test]
fn trie_under_change() {
    let spec = MapSpec::lpm::<Key, u64>("t_churn", STEADY + OVERWRITTEN + CHURN + 64);
    let map = LpmTrie::<Key, u64>::create(&spec).expect("created");
    with_writers(&map, || read_in_every_way(&map));
}

#[test]
fn a_drain_hands_out_each_entry_once_while_others_insert() {
    const TOTAL: u32 = 30_000;
    let map = HashMap::<Key, u64>::create(&MapSpec::hash::<Key, u64>("t_drain", TOTAL)).expect("created");
    let done = AtomicBool::new(false);
    let mut taken = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..TOTAL {
                map.insert(&key(n), &u64::from(n), Update::NoExist).expect("room");
            }
            done.store(true, Ordering::Release);
        });
        let mut batch = Batch::new(100).expect("not 0");
        loop {
            let last = done.load(Ordering::Acquire);
            map.drain(&mut batch, |key, value| taken.push((number(key), *value))).expect("drainable");
            if last {
                break;
            }
        }
    });
    taken.sort_unstable();
    let expected: Vec<(u32, u64)> = (0..TOTAL).map(|n| (n, u64::from(n))).collect();
    assert!(taken == expected, "{} taken", taken.len());
    assert!(map.is_empty().expect("readable"));
}
