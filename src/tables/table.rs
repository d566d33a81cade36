//! What every table has in common: where its pin is, creation, opening.

use std::path::{Path, PathBuf};

/// `BPF_F_RDONLY_PROG`: programs can't write to the map (kernel 5.2).
pub(super) const RDONLY_PROG: u32 = libbpf_sys::BPF_F_RDONLY_PROG;
/// `BPF_F_NO_COMMON_LRU`: an LRU list for each CPU.
pub(super) const NO_COMMON_LRU: u32 = libbpf_sys::BPF_F_NO_COMMON_LRU;

/// The pin of a map: `path` itself, or the file of the map's name where `path` is a directory.
pub(super) fn pin_path(path: &Path, name: &str) -> PathBuf {
    if path.is_dir() { path.join(name) } else { path.to_owned() }
}

/// Defines what a table over one map has: `spec`, `create`, `open_pinned`, `from_map`, `map`.
macro_rules! one_map_table {
    ($map:ty, $spec:expr) => {
        const SPEC: $crate::maps::MapSpec = $spec;

        /// The map's specification at its default size.
        pub const fn spec() -> $crate::maps::MapSpec {
            Self::SPEC
        }

        /// Creates an unpinned map of `max_entries`.
        ///
        /// # Errors
        ///
        /// `PermissionDenied` without CAP_BPF, `InvalidInput` for a size the kernel refuses.
        pub fn create(max_entries: u32) -> $crate::Result<Self> {
            Ok(Self::from_map(<$map>::create(&Self::SPEC.with_max_entries(max_entries))?))
        }

        /// Opens a pinned map of any size; `path` is the pin, or the directory that holds it under its own name.
        ///
        /// # Errors
        ///
        /// `NotFound` where there is no pin, `LayoutMismatch` naming every difference.
        pub fn open_pinned(path: impl AsRef<std::path::Path>) -> $crate::Result<Self> {
            let spec = Self::SPEC.any_max_entries();
            let pin = $crate::tables::table::pin_path(path.as_ref(), spec.name());
            Ok(Self::from_map(<$map>::open_pinned(pin, &spec)?))
        }

        /// The table over a map that is open already.
        pub const fn from_map(map: $map) -> Self {
            Self { map }
        }

        /// The map below.
        pub const fn map(&self) -> &$map {
            &self.map
        }
    };
}
pub(super) use one_map_table;
