//! Generic typed maps: no domain knowledge.

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
pub use cached::{CachedEntry, CachedMap, Drift, Reconciled, Store, SyncState};
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
