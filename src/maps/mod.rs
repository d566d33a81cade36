//! Generic typed maps: no domain knowledge.

mod batch;
mod btf;
mod check;
mod handle;
mod kind;
mod map;
mod read;
mod spec;

pub use batch::Batch;
pub use handle::MapInfo;
pub use kind::MapType;
pub use map::{Array, HashMap, Iter, LpmTrie, LruHashMap, Map, Update};
pub use spec::{MapSpec, StructLayout};

/// Markers of map types, the third parameter of [`Map`].
pub mod kinds {
    pub use super::kind::{
        ArrayKind, ArrayOfMapsKind, Dynamic, Hash, HashOfMapsKind, Kind, Lpm, LruHash, LruPerCpuHash, Outer, PerCpu,
        PerCpuArrayKind, PerCpuHash, Single,
    };
}
