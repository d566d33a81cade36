//! One kernel map behind each library, and the keys to ask it for.
#![allow(dead_code, unreachable_pub)]

pub mod raw;

use std::os::fd::{AsFd, OwnedFd};

use podwire::maps::{HashMap, MapSpec, Update};

pub type Key = [u8; 20];
pub type Value = [u64; 6];

/// Entries in the map.
pub const ENTRIES: u32 = 20_000;
/// Entries a batch fetches at a time.
pub const BATCH: usize = 4096;

pub struct Contenders {
    pub podwire: HashMap<Key, Value>,
    pub libbpf: libbpf_rs::MapHandle,
    pub aya: aya::maps::HashMap<aya::maps::MapData, Key, Value>,
    /// The descriptor for bpf(2).
    pub raw: OwnedFd,
    /// Every key in random order.
    pub keys: Vec<Key>,
    /// Keys that are not there.
    pub absent: Vec<Key>,
}

impl Contenders {
    /// A map of 20-byte keys and 48-byte values, full but for a few.
    pub fn new() -> Self {
        let spec = MapSpec::hash::<Key, Value>("bench", ENTRIES + 16);
        let podwire = HashMap::create(&spec).expect("the bench runs as root");
        let mut keys: Vec<Key> = (0..ENTRIES).map(key).collect();
        let absent: Vec<Key> = (ENTRIES..2 * ENTRIES).map(key).collect();
        let values: Vec<Value> = (0..ENTRIES).map(|n| [u64::from(n); 6]).collect();
        podwire.insert_batch(&keys, &values, Update::Any).expect("room for every entry");
        shuffle(&mut keys);
        let fd = || podwire.as_fd().try_clone_to_owned().expect("descriptors are left");
        let aya = aya::maps::MapData::from_fd(fd()).expect("aya takes the map");
        Self {
            libbpf: libbpf_rs::MapHandle::from_map_id(podwire.info().id).expect("libbpf-rs takes the map"),
            aya: aya::maps::Map::HashMap(aya).try_into().expect("aya takes the layout"),
            raw: fd(),
            podwire,
            keys,
            absent,
        }
    }
}

fn key(n: u32) -> Key {
    let mut key = Key::default();
    key[4..8].copy_from_slice(&n.to_be_bytes());
    key[16] = 1;
    key
}

/// Fisher and Yates' shuffle with a xorshift generator of fixed seed.
fn shuffle(keys: &mut [Key]) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for last in (1..keys.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        keys.swap(last, (state % (last as u64 + 1)) as usize);
    }
}
