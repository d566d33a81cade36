//! What a map is expected to be: the base of creation and of the check when one is opened.

use std::borrow::Cow;
use std::mem::size_of;

use bytemuck::Pod;

use super::kind::MapType;
use crate::abi::{Field, Shared};

/// `BPF_F_NO_PREALLOC`: entries are allocated when they are inserted.
pub(crate) const NO_PREALLOC: u32 = libbpf_sys::BPF_F_NO_PREALLOC;
/// `BPF_F_NO_COMMON_LRU`: an LRU list for each CPU.
pub(crate) const NO_COMMON_LRU: u32 = libbpf_sys::BPF_F_NO_COMMON_LRU;
/// `BPF_F_MMAPABLE`: user space may map the array's memory (kernel 5.5).
pub(crate) const MMAPABLE: u32 = libbpf_sys::BPF_F_MMAPABLE;

/// The C struct behind a key or a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StructLayout {
    /// The struct's name in C.
    pub name: &'static str,
    /// Its size in bytes.
    pub size: usize,
    /// Its fields in order.
    pub fields: &'static [Field],
}

impl StructLayout {
    /// The layout of a struct shared with the programs.
    pub const fn of<T: Shared>() -> Self {
        Self { name: T::NAME, size: size_of::<T>(), fields: T::FIELDS }
    }
}

/// What a map is expected to be.
///
/// Made by one of the constructors, refined by the other methods; all are `const`, so a table's specification can be a
/// constant. Sizes are in bytes.
///
/// ```
/// use podwire::abi::{EndpointInfo, EndpointKey};
/// use podwire::maps::MapSpec;
///
/// const LXC: MapSpec =
///     MapSpec::hash::<EndpointKey, EndpointInfo>("cilium_lxc", 65_535).no_prealloc().layouts::<EndpointKey, EndpointInfo>();
/// assert_eq!((LXC.key_size(), LXC.value_size()), (20, 48));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapSpec {
    name: Cow<'static, str>,
    map_type: MapType,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    key: Option<StructLayout>,
    value: Option<StructLayout>,
    any_max_entries: bool,
}

impl MapSpec {
    /// Any map. The kernel keeps the first 15 bytes of the name.
    pub const fn new(name: &'static str, map_type: MapType, key_size: u32, value_size: u32, max_entries: u32) -> Self {
        Self {
            name: Cow::Borrowed(name),
            map_type,
            key_size,
            value_size,
            max_entries,
            flags: 0,
            key: None,
            value: None,
            any_max_entries: false,
        }
    }

    /// A hash table.
    pub const fn hash<K: Pod, V: Pod>(name: &'static str, max_entries: u32) -> Self {
        Self::new(name, MapType::HASH, size::<K>(), size::<V>(), max_entries)
    }

    /// A hash table that evicts.
    pub const fn lru_hash<K: Pod, V: Pod>(name: &'static str, max_entries: u32) -> Self {
        Self::new(name, MapType::LRU_HASH, size::<K>(), size::<V>(), max_entries)
    }

    /// A longest-prefix-match trie; the kernel demands `BPF_F_NO_PREALLOC`, which is set.
    pub const fn lpm<K: Pod, V: Pod>(name: &'static str, max_entries: u32) -> Self {
        Self::new(name, MapType::LPM_TRIE, size::<K>(), size::<V>(), max_entries).flags(NO_PREALLOC)
    }

    /// An array.
    pub const fn array<V: Pod>(name: &'static str, max_entries: u32) -> Self {
        Self::new(name, MapType::ARRAY, size::<u32>(), size::<V>(), max_entries)
    }

    /// An array whose memory user space maps (kernel 5.5); see [`MmapArray`](super::MmapArray).
    pub const fn mmap_array<V: Pod>(name: &'static str, max_entries: u32) -> Self {
        Self::array::<V>(name, max_entries).flags(MMAPABLE)
    }

    /// A hash table with a value for each CPU; `V` is one CPU's.
    pub const fn per_cpu_hash<K: Pod, V: Pod>(name: &'static str, max_entries: u32) -> Self {
        Self::new(name, MapType::PERCPU_HASH, size::<K>(), size::<V>(), max_entries)
    }

    /// An evicting hash table with a value for each CPU; `V` is one CPU's.
    pub const fn lru_per_cpu_hash<K: Pod, V: Pod>(name: &'static str, max_entries: u32) -> Self {
        Self::new(name, MapType::LRU_PERCPU_HASH, size::<K>(), size::<V>(), max_entries)
    }

    /// An array with a value for each CPU; `V` is one CPU's.
    pub const fn per_cpu_array<V: Pod>(name: &'static str, max_entries: u32) -> Self {
        Self::new(name, MapType::PERCPU_ARRAY, size::<u32>(), size::<V>(), max_entries)
    }

    /// Maps by key.
    pub const fn hash_of_maps<K: Pod>(name: &'static str, max_entries: u32) -> Self {
        Self::new(name, MapType::HASH_OF_MAPS, size::<K>(), size::<u32>(), max_entries)
    }

    /// Maps by index.
    pub const fn array_of_maps(name: &'static str, max_entries: u32) -> Self {
        Self::new(name, MapType::ARRAY_OF_MAPS, size::<u32>(), size::<u32>(), max_entries)
    }

    /// A ring buffer of `bytes` (a power of two and a multiple of the page size).
    pub const fn ring_buffer(name: &'static str, bytes: u32) -> Self {
        Self::new(name, MapType::RINGBUF, 0, 0, bytes)
    }

    /// Adds `BPF_F_*` flags.
    pub const fn flags(mut self, flags: u32) -> Self {
        self.flags |= flags;
        self
    }

    /// Allocates entries when they are inserted, not when the map is created.
    pub const fn no_prealloc(self) -> Self {
        self.flags(NO_PREALLOC)
    }

    /// Declares the C structs behind key and value, so that a difference can be named field by field.
    pub const fn layouts<K: Shared, V: Shared>(self) -> Self {
        self.key_layout::<K>().value_layout::<V>()
    }

    /// Declares the C struct behind the key.
    pub const fn key_layout<K: Shared>(mut self) -> Self {
        self.key = Some(StructLayout::of::<K>());
        self
    }

    /// Declares the C struct behind the value.
    pub const fn value_layout<V: Shared>(mut self) -> Self {
        self.value = Some(StructLayout::of::<V>());
        self
    }

    /// Accepts a map of any size when one is opened.
    pub const fn any_max_entries(mut self) -> Self {
        self.any_max_entries = true;
        self
    }

    /// The same map under another name, for maps that exist once per endpoint.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Cow::Owned(name.into());
        self
    }

    /// The same map with another size.
    pub const fn with_max_entries(mut self, max_entries: u32) -> Self {
        self.max_entries = max_entries;
        self
    }

    /// The map's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its type.
    pub const fn map_type(&self) -> MapType {
        self.map_type
    }

    /// Size of a key in bytes.
    pub const fn key_size(&self) -> u32 {
        self.key_size
    }

    /// Size of a value (one CPU's) in bytes.
    pub const fn value_size(&self) -> u32 {
        self.value_size
    }

    /// Largest number of entries; for a ring buffer its size in bytes.
    pub const fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// The `BPF_F_*` flags it is created with.
    pub const fn map_flags(&self) -> u32 {
        self.flags
    }

    /// The struct behind the key, if declared.
    pub const fn key(&self) -> Option<StructLayout> {
        self.key
    }

    /// The struct behind the value, if declared.
    pub const fn value(&self) -> Option<StructLayout> {
        self.value
    }

    /// Whether a map of another size is accepted.
    pub const fn accepts_any_max_entries(&self) -> bool {
        self.any_max_entries
    }
}

const fn size<T>() -> u32 {
    // A BPF key or value is at most a few hundred KiB.
    size_of::<T>() as u32
}
