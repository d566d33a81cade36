//! Compares what an object declares of a map with a map that exists.

use std::path::Path;

use libbpf_rs::{MapCore, MapHandle, OpenMap};

use super::loader::libbpf_error;
use crate::{Error, Result};

/// Every difference between the declaration and the pinned map, in one error.
pub(super) fn compare(declared: &OpenMap<'_>, pinned: &MapHandle, path: &Path) -> Result<()> {
    let found = pinned.info().map_err(|error| libbpf_error("inspect map", &path.display().to_string(), &error))?.info;
    let mut differences = Vec::new();
    let mut number = |what: &str, expected: u32, found: u32| {
        if expected != found {
            differences.push(format!("{what}: expected {expected}, found {found}"));
        }
    };
    number("type", declared.map_type() as u32, found.type_);
    number("key size", declared.key_size(), found.key_size);
    number("value size", declared.value_size(), found.value_size);
    number("max entries", declared.max_entries(), found.max_entries);
    number("flags", declared.map_flags(), found.map_flags);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::LayoutMismatch { object: path.display().to_string(), differences })
}
