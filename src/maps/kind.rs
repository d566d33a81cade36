//! Map types: as the kernel numbers them, and as markers of [`Map`](super::Map) and [`PerCpuMap`](super::PerCpuMap).

use std::fmt;

/// `enum bpf_map_type`, as far as this crate gives the types names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MapType(u32);

impl MapType {
    /// A hash table.
    pub const HASH: Self = Self(libbpf_sys::BPF_MAP_TYPE_HASH);
    /// An array, zeroed when created.
    pub const ARRAY: Self = Self(libbpf_sys::BPF_MAP_TYPE_ARRAY);
    /// Programs by index.
    pub const PROG_ARRAY: Self = Self(libbpf_sys::BPF_MAP_TYPE_PROG_ARRAY);
    /// A hash table with a value for each CPU.
    pub const PERCPU_HASH: Self = Self(libbpf_sys::BPF_MAP_TYPE_PERCPU_HASH);
    /// An array with a value for each CPU.
    pub const PERCPU_ARRAY: Self = Self(libbpf_sys::BPF_MAP_TYPE_PERCPU_ARRAY);
    /// A hash table that evicts what was least recently used.
    pub const LRU_HASH: Self = Self(libbpf_sys::BPF_MAP_TYPE_LRU_HASH);
    /// The same with a value for each CPU.
    pub const LRU_PERCPU_HASH: Self = Self(libbpf_sys::BPF_MAP_TYPE_LRU_PERCPU_HASH);
    /// A longest-prefix-match trie.
    pub const LPM_TRIE: Self = Self(libbpf_sys::BPF_MAP_TYPE_LPM_TRIE);
    /// Maps by index.
    pub const ARRAY_OF_MAPS: Self = Self(libbpf_sys::BPF_MAP_TYPE_ARRAY_OF_MAPS);
    /// Maps by key.
    pub const HASH_OF_MAPS: Self = Self(libbpf_sys::BPF_MAP_TYPE_HASH_OF_MAPS);
    /// A ring buffer (kernel 5.8).
    pub const RINGBUF: Self = Self(libbpf_sys::BPF_MAP_TYPE_RINGBUF);

    /// The type with a kernel number.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The kernel's number.
    pub const fn as_raw(self) -> u32 {
        self.0
    }

    /// Whether a value has a slot for each CPU.
    pub const fn is_per_cpu(self) -> bool {
        matches!(self, Self::PERCPU_HASH | Self::PERCPU_ARRAY | Self::LRU_PERCPU_HASH)
    }

    /// Whether every key exists from the start and none can be removed.
    pub const fn is_array(self) -> bool {
        matches!(self, Self::ARRAY | Self::PERCPU_ARRAY | Self::ARRAY_OF_MAPS | Self::PROG_ARRAY)
    }

    /// Whether batches walk it bucket by bucket, each under its lock, which yields every key exactly once.
    pub(crate) const fn has_buckets(self) -> bool {
        matches!(self, Self::HASH | Self::PERCPU_HASH | Self::LRU_HASH | Self::LRU_PERCPU_HASH | Self::HASH_OF_MAPS)
    }

    const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::HASH => "hash",
            Self::ARRAY => "array",
            Self::PROG_ARRAY => "prog_array",
            Self::PERCPU_HASH => "percpu_hash",
            Self::PERCPU_ARRAY => "percpu_array",
            Self::LRU_HASH => "lru_hash",
            Self::LRU_PERCPU_HASH => "lru_percpu_hash",
            Self::LPM_TRIE => "lpm_trie",
            Self::ARRAY_OF_MAPS => "array_of_maps",
            Self::HASH_OF_MAPS => "hash_of_maps",
            Self::RINGBUF => "ringbuf",
            _ => return None,
        })
    }
}

/// bpftool's name of the type, or its number.
impl fmt::Display for MapType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "type {}", self.0),
        }
    }
}

impl fmt::Debug for MapType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A map type as a marker. Sealed.
pub trait Kind: sealed::Sealed + Send + Sync + 'static {
    /// The kernel's type.
    const TYPE: MapType;
}

/// Kinds with one value for a key. Sealed.
pub trait Single: Kind {}

/// Kinds whose entries come and go. Sealed.
pub trait Dynamic: Kind {}

/// Kinds with a value for each CPU. Sealed.
pub trait PerCpu: Kind {}

/// Kinds whose values are maps. Sealed.
pub trait Outer: Kind {}

macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident = $kind:ident: $($marker:ident)*;)+) => {$(
        $(#[$meta])*
        #[derive(Debug)]
        pub enum $name {}
        impl sealed::Sealed for $name {}
        impl Kind for $name {
            const TYPE: MapType = MapType::$kind;
        }
        $(impl $marker for $name {})*
    )+};
}

kinds! {
    /// `BPF_MAP_TYPE_HASH`.
    Hash = HASH: Single Dynamic;
    /// `BPF_MAP_TYPE_LRU_HASH` (kernel 4.10).
    LruHash = LRU_HASH: Single Dynamic;
    /// `BPF_MAP_TYPE_LPM_TRIE` (kernel 4.11). The key starts with the prefix length in bits, a `u32` in host order.
    Lpm = LPM_TRIE: Single Dynamic;
    /// `BPF_MAP_TYPE_ARRAY`.
    ArrayKind = ARRAY: Single;
    /// `BPF_MAP_TYPE_PERCPU_HASH`.
    PerCpuHash = PERCPU_HASH: PerCpu Dynamic;
    /// `BPF_MAP_TYPE_LRU_PERCPU_HASH` (kernel 4.10).
    LruPerCpuHash = LRU_PERCPU_HASH: PerCpu Dynamic;
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    PerCpuArrayKind = PERCPU_ARRAY: PerCpu;
    /// `BPF_MAP_TYPE_HASH_OF_MAPS` (kernel 4.12).
    HashOfMapsKind = HASH_OF_MAPS: Outer;
    /// `BPF_MAP_TYPE_ARRAY_OF_MAPS` (kernel 4.12).
    ArrayOfMapsKind = ARRAY_OF_MAPS: Outer;
}
