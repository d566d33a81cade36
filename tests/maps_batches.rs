//! Batches return every entry, whatever their size. `PODWIRE_BATCH_ENTRIES` sets how many entries (50,000 unless set), for
//! machines on which each system call takes long.

use std::collections::BTreeMap;
use std::env;
use std::sync::LazyLock;

use podwire::maps::{Batch, HashMap, LpmTrie, LruHashMap, MapSpec, Update, kinds};

static ENTRIES: LazyLock<u32> = LazyLock::new(|| {
    let text = env::var("PODWIRE_BATCH_ENTRIES").ok();
    text.map_or(50_000, |text| text.parse().expect("PODWIRE_BATCH_ENTRIES is a number"))
});
const SIZES: [usize; 8] = [1, 2, 7, 64, 1000, 4096, 50_000, 65_536];

type Key = [u8; 20];
type Value = [u64; 6];

fn key(n: u32) -> Key {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&n.to_be_bytes());
    key
}

fn value(n: u32) -> Value {
    [u64::from(n); 6]
}

fn fill<T: kinds::Single + kinds::Dynamic>(map: &podwire::maps::Map<Key, Value, T>, size: usize) {
    let keys: Vec<Key> = (0..*ENTRIES).map(key).collect();
    let values: Vec<Value> = (0..*ENTRIES).map(value).collect();
    for (keys, values) in keys.chunks(size).zip(values.chunks(size)) {
        map.insert_batch(keys, values, Update::Any).expect("room for every entry");
    }
}

/// Fills, reads, drains and deletes with each size, and counts what comes back.
fn every_size<T: kinds::Single + kinds::Dynamic>(map: &podwire::maps::Map<Key, Value, T>) {
    let expected: BTreeMap<Key, Value> = (0..*ENTRIES).map(|n| (key(n), value(n))).collect();
    for size in SIZES {
        fill(map, size);
        let mut batch = Batch::new(size).expect("not 0");
        let mut found = BTreeMap::new();
        let count = map.lookup_batch(&mut batch, |key, value| _ = found.insert(*key, *value)).expect("readable");
        assert_eq!(count, expected.len(), "lookup, batch size {size}");
        assert!(found == expected, "lookup, batch size {size}: other entries came back");

        found.clear();
        let count = map.drain(&mut batch, |key, value| _ = found.insert(*key, *value)).expect("drainable");
        assert_eq!(count, expected.len(), "drain, batch size {size}");
        assert!(found == expected, "drain, batch size {size}: other entries came back");
        assert!(map.is_empty().expect("readable"), "drain, batch size {size} left entries");

        fill(map, size);
        let keys: Vec<Key> = (0..*ENTRIES).map(key).collect();
        let deleted: usize = keys.chunks(size).map(|keys| map.delete_batch(keys).expect("deletable")).sum();
        assert_eq!(deleted, keys.len(), "delete, batch size {size}");
        assert!(map.is_empty().expect("readable"), "delete, batch size {size} left entries");
    }
}

#[test]
fn hash_map_returns_all_entries_for_any_batch_size() {
    let map = HashMap::<Key, Value>::create(&MapSpec::hash::<Key, Value>("t_hash", *ENTRIES)).expect("created");
    every_size(&map);
}

#[test]
fn lru_map_returns_all_entries_for_any_batch_size() {
    // Twice the room, so that nothing is evicted.
    let spec = MapSpec::lru_hash::<Key, Value>("t_lru", 2 * *ENTRIES);
    every_size(&LruHashMap::<Key, Value>::create(&spec).expect("created"));
}

#[test]
fn trie_returns_every_prefix_for_any_batch_size() {
    let spec = MapSpec::lpm::<[u8; 8], u32>("t_lpm", 5000);
    let map = LpmTrie::<[u8; 8], u32>::create(&spec).expect("created");
    let keys: Vec<[u8; 8]> = (0..5000u32)
        .map(|n| {
            let mut key = [0; 8];
            key[..4].copy_from_slice(&32u32.to_ne_bytes());
            key[4..].copy_from_slice(&n.to_be_bytes());
            key
        })
        .collect();
    let values: Vec<u32> = (0..5000).collect();
    for size in SIZES {
        map.insert_batch(&keys, &values, Update::Any).expect("room");
        let mut found = Vec::new();
        let mut batch = Batch::new(size).expect("not 0");
        map.lookup_batch(&mut batch, |_, value| found.push(*value)).expect("readable");
        found.sort_unstable();
        assert_eq!(found, values, "lookup, batch size {size}");
        found.clear();
        map.drain(&mut batch, |_, value| found.push(*value)).expect("drainable");
        found.sort_unstable();
        assert_eq!(found, values, "drain, batch size {size}");
        assert_eq!(map.len().expect("readable"), 0, "drain, batch size {size} left entries");
    }
}

#[test]
fn a_walk_returns_every_entry_of_a_quiet_map() {
    let map = HashMap::<Key, Value>::create(&MapSpec::hash::<Key, Value>("t_walk", *ENTRIES)).expect("created");
    fill(&map, 4096);
    let mut found = BTreeMap::new();
    let count = map.walk(|key, value| _ = found.insert(*key, *value)).expect("walkable");
    assert_eq!((count, found.len()), (*ENTRIES as usize, *ENTRIES as usize));
    let iterated: BTreeMap<Key, Value> = map.iter().map(|entry| entry.expect("readable")).collect();
    assert!(iterated == found);
}

#[test]
fn empty_and_uneven_batches() {
    let map = HashMap::<u32, u64>::create(&MapSpec::hash::<u32, u64>("t_edge", 4)).expect("created");
    assert_eq!(Batch::<u32, u64>::new(0).expect_err("0 is refused").kind(), podwire::ErrorKind::InvalidInput);
    map.insert_batch(&[], &[], Update::Any).expect("nothing to do");
    assert_eq!(map.delete_batch(&[]).expect("nothing to do"), 0);
    let uneven = map.insert_batch(&[1, 2], &[1], Update::Any).expect_err("one value short");
    assert_eq!(uneven.kind(), podwire::ErrorKind::InvalidInput);
}

#[test]
fn a_batch_says_how_far_it_came() {
    let map = HashMap::<u32, u64>::create(&MapSpec::hash::<u32, u64>("t_partial", 4)).expect("created");
    let error = map.insert_batch(&[1, 2, 3, 4, 5, 6], &[0; 6], Update::Any).expect_err("room for 4");
    let podwire::Error::PartialBatch { done, total, .. } = &error else { panic!("{error}") };
    assert_eq!((*done, *total), (4, 6));
    assert_eq!(error.kind(), podwire::ErrorKind::Exhausted);
    assert_eq!(map.len().expect("readable"), 4);

    // Deleting skips what is not there.
    assert_eq!(map.delete_batch(&[9, 1, 10, 3, 11]).expect("deletable"), 2);
    let error = map.insert_batch(&[7, 2, 8], &[0; 3], Update::NoExist).expect_err("2 is there");
    assert!(matches!(error, podwire::Error::PartialBatch { done: 1, total: 3, .. }), "{error}");
    assert_eq!(error.kind(), podwire::ErrorKind::AlreadyExists);
}
