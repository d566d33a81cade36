//! Compares what an object declares of a map with a map that is pinned.

use std::path::Path;

use libbpf_rs::OpenMap;

use crate::maps::btf::Btf;
use crate::maps::check::{self, Differences};
use crate::maps::{MapSpec, MapType};
use crate::sys::bpf::{self, MapFd};
use crate::sys::object;
use crate::{Error, Result};

/// Every difference between a declaration and the map pinned at `path`, in one error. `types` is the type information
/// of the object; where either side has none the sizes have to do.
pub(super) fn compare(declared: &OpenMap<'_>, types: Option<&Btf<'_>>, path: &Path) -> Result<()> {
    let name = path.display().to_string();
    let pinned =
        bpf::open_pin(path).and_then(MapFd::from_owned).map_err(|error| Error::system("open pin", &name, error))?;
    let found = pinned.info();
    let mut differences = Differences::default();
    check::numbers(found, &spec(declared), &mut differences);
    let found_types = if found.btf_id == 0 { Vec::new() } else { bpf::btf_bytes(found.btf_id).unwrap_or_default() };
    if let (Some(types), Some(found_types)) = (types, Btf::parse(&found_types)) {
        let (key, value) = object::map_types(declared);
        let sides = [("key", key, found.btf_key_type_id), ("value", value, found.btf_value_type_id)];
        for (side, expected, found) in sides.into_iter().filter(|(_, expected, found)| *expected != 0 && *found != 0) {
            match (types.structure(expected), found_types.structure(found)) {
                (Some(expected), Some(found)) => check::structs(side, &expected, &found, &mut differences),
                // An integer or an array: its size was compared.
                (None, None) => {}
                _ => {
                    let what = format_args!("{side} type");
                    differences.compare(what, types.describe(expected), found_types.describe(found));
                }
            }
        }
    }
    differences.into_result(&name)
}

fn spec(declared: &OpenMap<'_>) -> MapSpec {
    let map_type = MapType::from_raw(declared.map_type() as u32);
    let (key, value) = (declared.key_size(), declared.value_size());
    MapSpec::new("", map_type, key, value, declared.max_entries()).flags(declared.map_flags())
}
