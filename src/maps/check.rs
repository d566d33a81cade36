//! The comparison of a map found with the one expected.

use std::fmt;
use std::mem::size_of;

use bytemuck::Pod;

use super::btf::{Btf, FoundField, Struct};
use super::kind::MapType;
use super::spec::{MapSpec, NO_COMMON_LRU, StructLayout};
use crate::abi::Field;
use crate::sys::bpf::{self, KernelInfo, MapFd};
use crate::{Error, Result};

/// Flags that say how a descriptor was opened or where memory lies, not what the map is.
const INCIDENTAL_FLAGS: u32 = libbpf_sys::BPF_F_RDONLY
    | libbpf_sys::BPF_F_WRONLY
    | libbpf_sys::BPF_F_NUMA_NODE
    | libbpf_sys::BPF_F_PATH_FD
    | libbpf_sys::BPF_F_TOKEN_FD;

/// Compares a map with its specification and names every difference.
pub(crate) fn layout(fd: &MapFd, spec: &MapSpec, object: &str) -> Result<()> {
    let found = fd.info();
    let mut differences = Differences::default();
    numbers(found, spec, &mut differences);
    if found.btf_id != 0 && (spec.key().is_some() || spec.value().is_some()) {
        types(found, spec, &mut differences);
    }
    differences.into_result(object)
}

/// Compares what does not need type information.
pub(crate) fn numbers(found: &KernelInfo, spec: &MapSpec, differences: &mut Differences) {
    differences.compare("type", spec.map_type(), MapType::from_raw(found.kind));
    differences.compare("key size", spec.key_size(), found.key_size);
    differences.compare("value size", spec.value_size(), found.value_size);
    if !spec.accepts_any_max_entries() && !same_max_entries(spec, found) {
        differences.compare("max_entries", spec.max_entries(), found.max_entries);
    }
    differences.compare("flags", Hex(spec.map_flags() & !INCIDENTAL_FLAGS), Hex(found.flags & !INCIDENTAL_FLAGS));
}

/// Refuses a specification that does not describe `Map<K, V, …>`: the caller's mistake, not the kernel's state.
pub(crate) fn rust_types<K: Pod, V: Pod>(spec: &MapSpec, map_type: MapType) -> Result<()> {
    let mut differences = Differences::default();
    differences.compare("type", map_type, spec.map_type());
    differences.compare("key size", size_of::<K>(), spec.key_size() as usize);
    differences.compare("value size", size_of::<V>(), spec.value_size() as usize);
    if differences.0.is_empty() {
        return Ok(());
    }
    Err(Error::invalid("map specification", spec.name().to_owned(), differences.0.join("; ")))
}

/// An LRU map with a list for each CPU gets a size that divides by the number of CPUs
/// (`htab_map_alloc()` in `kernel/bpf/hashtab.c`).
fn same_max_entries(spec: &MapSpec, found: &KernelInfo) -> bool {
    if spec.max_entries() == found.max_entries {
        return true;
    }
    let rounds = matches!(spec.map_type(), MapType::LRU_HASH | MapType::LRU_PERCPU_HASH)
        && spec.map_flags() & NO_COMMON_LRU != 0;
    let cpus = bpf::possible_cpus().ok().and_then(|cpus| u32::try_from(cpus).ok()).filter(|&cpus| cpus > 0);
    rounds && cpus.is_some_and(|cpus| spec.max_entries().next_multiple_of(cpus) == found.max_entries)
}

fn types(found: &KernelInfo, spec: &MapSpec, differences: &mut Differences) {
    // Without the privilege to read type information the sizes have to do.
    let bytes = match bpf::btf_bytes(found.btf_id) {
        Ok(bytes) => bytes,
        Err(error) => {
            log::debug!("type information of map {} is not readable: {error}", spec.name());
            return;
        }
    };
    let Some(btf) = Btf::parse(&bytes) else {
        log::debug!("type information of map {} is not understood", spec.name());
        return;
    };
    let sides = [("key", spec.key(), found.btf_key_type_id), ("value", spec.value(), found.btf_value_type_id)];
    for (side, layout, type_id) in sides {
        let Some(layout) = layout.filter(|_| type_id != 0) else { continue };
        match btf.structure(type_id) {
            Some(found) => structs(side, &declared(&layout), &found, differences),
            None => differences.compare(
                format_args!("{side} type"),
                format_args!("struct {}", layout.name),
                btf.describe(type_id),
            ),
        }
    }
}

fn declared(layout: &StructLayout) -> Struct<'static> {
    let field = |field: &Field| FoundField { name: field.name, offset: field.offset, size: field.size };
    Struct { name: layout.name, fields: layout.fields.iter().map(field).collect() }
}

/// Compares two structs by name and field by field.
pub(crate) fn structs(side: &str, expected: &Struct<'_>, found: &Struct<'_>, differences: &mut Differences) {
    if expected.name != found.name {
        let name = if found.name.is_empty() { "an anonymous struct" } else { found.name };
        differences.compare(format_args!("{side} struct"), expected.name, name);
    }
    for field in &expected.fields {
        let what = format_args!("{side} field {}", field.name);
        let wanted = Place { offset: field.offset, size: field.size };
        match found.fields.iter().find(|candidate| candidate.name == field.name) {
            Some(candidate) => {
                differences.compare(what, wanted, Place { offset: candidate.offset, size: candidate.size });
            }
            None => differences.compare(what, wanted, "none"),
        }
    }
    for field in &found.fields {
        if !expected.fields.iter().any(|wanted| wanted.name == field.name) {
            let place = Place { offset: field.offset, size: field.size };
            differences.compare(format_args!("{side} field {}", field.name), "none", place);
        }
    }
}

/// What was found to differ so far.
#[derive(Default)]
pub(crate) struct Differences(Vec<String>);

impl Differences {
    /// Success when there is none, else all in one error.
    pub(crate) fn into_result(self, object: &str) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Error::LayoutMismatch { object: object.to_owned(), differences: self.0 })
    }

    /// Notes a difference if the two read differently.
    pub(crate) fn compare(&mut self, what: impl fmt::Display, expected: impl fmt::Display, found: impl fmt::Display) {
        let (expected, found) = (expected.to_string(), found.to_string());
        if expected != found {
            self.0.push(format!("{what}: expected {expected}, found {found}"));
        }
    }
}

struct Hex(u32);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

struct Place {
    offset: usize,
    size: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at offset {}", self.size, self.offset)
    }
}
