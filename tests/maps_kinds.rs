//! Every kind of map, verb by verb.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use podwire::ErrorKind;
use podwire::maps::{
    Array, ArrayOfMaps, Batch, HashMap, HashOfMaps, LpmTrie, LruHashMap, MapSpec, MmapArray, PerCpuArray, PerCpuBatch,
    PerCpuHashMap, PerCpuValues, RingBuffer, Update,
};

/// The prefix length in bits, then an IPv4 address.
fn prefix(address: [u8; 4], bits: u32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&bits.to_ne_bytes());
    key[4..].copy_from_slice(&address);
    key
}

#[test]
fn hash_verbs() {
    let map = HashMap::<u32, u64>::create(&MapSpec::hash::<u32, u64>("t_verbs", 8)).expect("created");
    assert_eq!(map.lookup(&1).expect("readable"), None);
    map.insert(&1, &10, Update::NoExist).expect("room");
    assert_eq!(map.insert(&1, &11, Update::NoExist).expect_err("is there").kind(), ErrorKind::AlreadyExists);
    map.insert(&1, &12, Update::Exist).expect("is there");
    assert_eq!(map.insert(&2, &20, Update::Exist).expect_err("is not there").kind(), ErrorKind::NotFound);
    assert_eq!(map.lookup(&1).expect("readable"), Some(12));
    let mut value = 7;
    assert!(!map.lookup_into(&2, &mut value).expect("readable"));
    assert_eq!(value, 7);
    assert_eq!(map.keys().map(|key| key.expect("readable")).collect::<Vec<_>>(), [1]);
    assert_eq!(map.lookup_and_delete(&1).expect("removable"), Some(12));
    assert_eq!(map.lookup_and_delete(&1).expect("removable"), None);
    map.insert(&3, &30, Update::Any).expect("room");
    assert!(map.delete(&3).expect("removable"));
    assert!(!map.delete(&3).expect("removable"));
    assert!(map.is_empty().expect("readable"));
    assert_eq!(map.max_entries(), 8);
}

#[test]
fn a_full_hash_names_itself_and_its_size() {
    let map = HashMap::<u32, u64>::create(&MapSpec::hash::<u32, u64>("t_full", 2)).expect("created");
    map.insert_batch(&[1, 2], &[1, 2], Update::Any).expect("room for 2");
    let error = map.insert(&3, &3, Update::Any).expect_err("full");
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(error.to_string().starts_with("map t_full is full (2 entries): "), "{error}");
    map.insert(&2, &4, Update::Any).expect("overwriting needs no room");
}

#[test]
fn a_full_trie_names_itself_and_its_size() {
    let map = LpmTrie::<[u8; 8], u32>::create(&MapSpec::lpm::<[u8; 8], u32>("t_full_lpm", 1)).expect("created");
    map.insert(&prefix([10, 0, 0, 0], 8), &1, Update::Any).expect("room for 1");
    let error = map.insert(&prefix([11, 0, 0, 0], 8), &2, Update::Any).expect_err("full");
    assert!(error.to_string().starts_with("map t_full_lpm is full (1 entries): "), "{error}");
}

#[test]
fn lru_evicts_instead_of_refusing() {
    let map = LruHashMap::<u32, u64>::create(&MapSpec::lru_hash::<u32, u64>("t_evict", 64)).expect("created");
    for key in 0..1000 {
        map.insert(&key, &1, Update::Any).expect("evicts");
    }
    assert!(map.len().expect("readable") <= 64);
    assert_eq!(map.lookup(&999).expect("readable"), Some(1));
}

#[test]
fn array_verbs() {
    let map = Array::<u64>::create(&MapSpec::array::<u64>("t_array", 3)).expect("created");
    map.insert(&2, &5, Update::Any).expect("in range");
    assert_eq!(map.lookup(&0).expect("readable"), Some(0));
    assert_eq!(map.lookup(&3).expect("readable"), None);
    let error = map.insert(&3, &5, Update::Any).expect_err("out of range");
    assert_eq!(error.to_string(), "index: \"3\": map t_array has 3 rows");
    let rows: Vec<(u32, u64)> = map.iter().map(|row| row.expect("readable")).collect();
    assert_eq!(rows, [(0, 0), (1, 0), (2, 5)]);
    map.insert_batch(&[0, 1], &[7, 8], Update::Any).expect("in range");
    let mut sum = 0;
    assert_eq!(map.lookup_batch(&mut Batch::new(2).expect("not 0"), |_, value| sum += value).expect("readable"), 3);
    assert_eq!(sum, 20);
}

#[test]
fn trie_finds_the_longest_prefix() {
    let map = LpmTrie::<[u8; 8], u32>::create(&MapSpec::lpm::<[u8; 8], u32>("t_lpm", 16)).expect("created");
    map.insert(&prefix([10, 0, 0, 0], 8), &8, Update::Any).expect("room");
    map.insert(&prefix([10, 1, 0, 0], 16), &16, Update::Any).expect("room");
    assert_eq!(map.lookup(&prefix([10, 1, 2, 3], 32)).expect("readable"), Some(16));
    assert_eq!(map.lookup(&prefix([10, 2, 2, 3], 32)).expect("readable"), Some(8));
    assert_eq!(map.lookup(&prefix([11, 0, 0, 0], 32)).expect("readable"), None);
    assert_eq!(map.lookup_and_delete(&prefix([10, 1, 0, 0], 16)).expect("removable"), Some(16));
    assert_eq!(map.lookup(&prefix([10, 1, 2, 3], 32)).expect("readable"), Some(8));
    assert_eq!(map.len().expect("readable"), 1);
}

#[test]
fn per_cpu_hash_verbs() {
    let spec = MapSpec::per_cpu_hash::<u32, [u32; 3]>("t_pcpu", 4);
    let map = PerCpuHashMap::<u32, [u32; 3]>::create(&spec).expect("created");
    let mut values = PerCpuValues::new().expect("CPUs are known");
    values.fill(|cpu| [cpu as u32, 1, 2]);
    map.insert(&9, &values, Update::NoExist).expect("room");
    let mut found = PerCpuValues::new().expect("CPUs are known");
    assert!(map.lookup(&9, &mut found).expect("readable"));
    assert_eq!(found, values);
    assert_eq!(found.iter().enumerate().filter(|(cpu, value)| *value == [*cpu as u32, 1, 2]).count(), found.cpus());
    assert!(!map.lookup(&8, &mut found).expect("readable"));

    let cpus = values.cpus();
    let many: Vec<[u32; 3]> = (0..3 * cpus as u32).map(|n| [n, n, n]).collect();
    map.insert_batch(&[1, 2, 3], &many, Update::Any).expect("room");
    let mut batch = PerCpuBatch::new(1).expect("not 0");
    let (mut keys, mut sum) = (Vec::new(), 0);
    let count = map.lookup_batch(&mut batch, |key, values| {
        keys.push(*key);
        sum += if *key == 9 { 0 } else { values.iter().map(|value| value[2]).sum::<u32>() };
    });
    assert_eq!(count.expect("readable"), 4);
    keys.sort_unstable();
    assert_eq!(keys, [1, 2, 3, 9]);
    assert_eq!(sum, (0..3 * cpus as u32).sum::<u32>());
    assert!(map.delete(&9).expect("removable"));
    assert_eq!(map.drain(&mut batch, |_, _| ()).expect("removable"), 3);
    assert_eq!(map.insert_batch(&[1], &[], Update::Any).expect_err("no values").kind(), ErrorKind::InvalidInput);
}

#[test]
fn per_cpu_array_verbs() {
    let map = PerCpuArray::<u64>::create(&MapSpec::per_cpu_array::<u64>("t_pcpu_arr", 2)).expect("created");
    let mut values = PerCpuValues::new().expect("CPUs are known");
    values.fill(|cpu| 100 + cpu as u64);
    map.insert(&1, &values, Update::Any).expect("in range");
    let mut sums = Vec::new();
    map.lookup_batch(&mut PerCpuBatch::new(8).expect("not 0"), |row, values| sums.push((*row, values.iter().sum())))
        .expect("readable");
    assert_eq!(sums, [(0, 0), (1, values.iter().sum::<u64>())]);
}

#[test]
fn hash_of_maps_holds_maps() {
    let inner_spec = MapSpec::hash::<u32, u64>("t_inner", 4);
    let outer = HashOfMaps::<u16>::create(&MapSpec::hash_of_maps::<u16>("t_outer", 8), &inner_spec).expect("created");
    let inner = HashMap::<u32, u64>::create(&inner_spec).expect("created");
    inner.insert(&1, &42, Update::Any).expect("room");
    outer.insert(&7, &inner, Update::NoExist).expect("alike");
    assert_eq!(outer.lookup_id(&8).expect("readable"), None);
    let id = outer.lookup_id(&7).expect("readable").expect("was inserted");
    assert_eq!(id, inner.info().id);
    let again = HashMap::<u32, u64>::from_id(id, &inner_spec).expect("the same map");
    assert_eq!(again.lookup(&1).expect("readable"), Some(42));

    // Another size is fine, another layout is not.
    let larger = HashMap::<u32, u64>::create(&MapSpec::hash::<u32, u64>("t_larger", 400)).expect("created");
    outer.insert_batch(&[1, 2], &[larger.as_fd(), inner.as_fd()], Update::Any).expect("alike");
    let other = HashMap::<u32, u32>::create(&MapSpec::hash::<u32, u32>("t_other", 4)).expect("created");
    assert_eq!(outer.insert(&3, &other, Update::Any).expect_err("another layout").kind(), ErrorKind::InvalidInput);
    let mut entries = outer.entries().expect("readable");
    entries.sort_unstable();
    assert_eq!(entries, [(1, larger.info().id), (2, id), (7, id)]);
    assert_eq!(outer.delete_batch(&[1, 5, 2]).expect("removable"), 2);
    assert!(outer.delete(&7).expect("removable"));
    assert!(outer.entries().expect("readable").is_empty());
}

#[test]
fn array_of_maps_holds_maps() {
    let inner_spec = MapSpec::lpm::<[u8; 8], u32>("t_inner", 4);
    let outer = ArrayOfMaps::create(&MapSpec::array_of_maps("t_outer", 2), &inner_spec).expect("created");
    let inner = LpmTrie::<[u8; 8], u32>::create(&inner_spec).expect("created");
    assert_eq!(outer.lookup_id(&1).expect("readable"), None);
    outer.insert(&1, &inner, Update::Any).expect("alike");
    assert_eq!(outer.lookup_id(&1).expect("readable"), Some(inner.info().id));
    assert_eq!(outer.entries().expect("readable"), [(1, inner.info().id)]);
    assert!(outer.delete(&1).expect("removable"));
    assert_eq!(outer.lookup_id(&1).expect("readable"), None);
}

#[test]
fn mmapable_array_is_the_same_memory() {
    // 12 bytes: a row is padded to 16.
    let spec = MapSpec::mmap_array::<[u32; 3]>("t_mmap", 1000);
    let shared = MmapArray::<[u32; 3]>::create(&spec).expect("created");
    let path = pin_path("mmap");
    shared.pin(&path).expect("pinned");
    let array = Array::<[u32; 3]>::open_pinned(&path, &spec).expect("the same map");
    assert!(shared.unpin(&path).expect("removable"));

    shared.write(999, &[1, 2, 3]).expect("in range");
    assert_eq!(array.lookup(&999).expect("readable"), Some([1, 2, 3]));
    array.insert(&5, &[4, 5, 6], Update::Any).expect("in range");
    assert_eq!(shared.read(5).expect("in range"), [4, 5, 6]);
    shared.half_word(5, 8).expect("in range").fetch_add(10, Ordering::Relaxed);
    assert_eq!(array.lookup(&5).expect("readable"), Some([4, 5, 16]));
    shared.word(5, 0).expect("in range").store(0, Ordering::Relaxed);
    assert_eq!(shared.read(5).expect("in range"), [0, 0, 16]);
    for (row, offset) in [(1000, 0), (0, 16), (0, 4), (u32::MAX, 0)] {
        assert_eq!(shared.word(row, offset).expect_err("outside").kind(), ErrorKind::InvalidInput);
    }
    let plain = MapSpec::array::<u64>("t_plain", 1);
    assert_eq!(MmapArray::<u64>::create(&plain).expect_err("not mmapable").kind(), ErrorKind::InvalidInput);
}

#[test]
fn ring_buffer_checks_its_size_and_starts_empty() {
    let page = rustix_page();
    for size in [0, 100, page + 1, 3 * page] {
        let error = RingBuffer::create(&MapSpec::ring_buffer("t_ring", size)).expect_err("no such size");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{size}");
    }
    let mut ring = RingBuffer::create(&MapSpec::ring_buffer("t_ring", 4 * page)).expect("created");
    assert_eq!((ring.size(), ring.pending_bytes()), (4 * page as usize, 0));
    assert!(!ring.wait(Some(std::time::Duration::ZERO)).expect("pollable"));
    assert_eq!(ring.consume(|_| panic!("nothing was written")), 0);
}

fn rustix_page() -> u32 {
    u32::try_from(rustix::param::page_size()).expect("pages are small")
}

fn pin_path(name: &str) -> std::path::PathBuf {
    std::path::PathBuf::from(format!("/sys/fs/bpf/podwire-test-{}-{name}", std::process::id()))
}
