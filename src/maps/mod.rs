//! Generic typed maps: no domain knowledge.
//!
//! A [`MapSpec`] says what a map is; [`Map`] (one value for a key), [`PerCpuMap`], [`MapInMap`], [`RingBuffer`] and
//! [`MmapArray`] create it or open its pin, compare it with the specification once, and then offer a few verbs, each one
//! system call. What needs more than one call says so. [`CachedMap`] adds the desired content, retries and repair.
//!
//! ```no_run
//! use podwire::maps::{Batch, HashMap, MapSpec, Update};
//!
//! const PORTS: MapSpec = MapSpec::hash::<u32, u64>("podwire_ports", 1024);
//!
//! let ports = HashMap::<u32, u64>::create(&PORTS)?;
//! ports.pin("/sys/fs/bpf/podwire_ports")?;
//! ports.insert(&80, &1, Update::NoExist)?;
//! assert_eq!(ports.lookup(&80)?, Some(1));
//! let mut batch = Batch::new(512)?;
//! ports.lookup_batch(&mut batch, |port, value| println!("{port}: {value}"))?;
//! # Ok::<(), podwire::Error>(())
//! ```

mod backoff;
mod batch;
pub(crate) mod btf;
mod cached;
pub(crate) mod check;
mod handle;
mod kind;
mod map;
mod mmap;
mod operations;
mod outer;
mod percpu;
mod read;
mod ring;
mod spec;

pub use backoff::BackOff;
pub use batch::Batch;
pub use cached::{CachedEntry, CachedMap, Drift, Reconciled, Store, SyncState, Written};
pub use handle::MapInfo;
pub use kind::MapType;
pub use map::{Array, HashMap, Iter, LpmTrie, LruHashMap, Map, Update};
pub use mmap::MmapArray;
pub use operations::{OperationCounts, Outcomes};
pub use outer::{ArrayOfMaps, HashOfMaps, MapInMap};
pub use percpu::{CpuValues, LruPerCpuHashMap, PerCpuArray, PerCpuBatch, PerCpuHashMap, PerCpuMap, PerCpuValues};
pub use ring::RingBuffer;
pub use spec::{MapSpec, StructLayout};

/// Markers of map types, the third parameter of [`Map`].
pub mod kinds {
    pub use super::kind::{
        ArrayKind, ArrayOfMapsKind, Dynamic, Hash, HashOfMapsKind, Kind, Lpm, LruHash, LruPerCpuHash, Outer, PerCpu,
        PerCpuArrayKind, PerCpuHash, Single,
    };
}
