//! Values of `const volatile` variables: written before a program is loaded, read back from a loaded one.

use std::collections::BTreeMap;
use std::io;

use bytemuck::NoUninit;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{DataSec, Var};
use libbpf_rs::{MapCore, MapFlags, MapHandle, OpenObject};

use super::Program;
use crate::sys::{object, prog};
use crate::{Error, Result};

const SECTION: &str = ".rodata";

/// The node-wide constants of a set of programs, by the name of their variable in C.
///
/// They live in the `.rodata` map, which is frozen at load: the verifier sees their values and drops the code that they
/// rule out, and nobody changes them later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constants(BTreeMap<String, Vec<u8>>);

impl Constants {
    /// No constant: every variable keeps the value it has in C.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a variable to a value of exactly its size: `set("cfg_mtu", 1500u32)`, `set("cfg_ipv4_gateway",
    /// address.octets())`.
    pub fn set(&mut self, variable: impl Into<String>, value: impl NoUninit) -> &mut Self {
        self.0.insert(variable.into(), bytemuck::bytes_of(&value).to_vec());
        self
    }

    /// A variable's bytes as they lie in memory.
    pub fn bytes(&self, variable: &str) -> Option<&[u8]> {
        self.0.get(variable).map(Vec::as_slice)
    }

    /// Every variable with its bytes, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// Reads every constant back from the kernel, whoever loaded the program.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) without CAP_SYS_ADMIN, and
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when the program was loaded without type information.
    pub fn of(program: &Program) -> Result<Self> {
        let info = prog::info(program.fd()).map_err(|error| Error::system("inspect program", program.name(), error))?;
        let Some(content) = rodata_of(program, &info.map_ids)? else { return Ok(Self::default()) };
        let btf =
            Btf::from_prog_id(info.id).map_err(|_| Error::not_found("type information of program", program.name()))?;
        let variables = variables(&btf)
            .into_iter()
            .filter_map(|(name, at)| Some((name, content.get(at.offset..at.offset + at.size)?.to_vec())));
        Ok(Self(variables.collect()))
    }

    /// Writes the values into an object's `.rodata`; the names that the object does not have are returned.
    pub(super) fn apply(&self, object: &mut OpenObject, object_name: &str) -> Result<Vec<&str>> {
        let known = match object::btf(object).map_err(|error| Error::system("read types of", object_name, error))? {
            Some(btf) => variables(&btf),
            None => BTreeMap::new(),
        };
        let mut map = object.maps_mut().find(|map| is_rodata(map.name().to_string_lossy().as_ref()));
        let mut content = map.as_mut().and_then(|map| map.initial_value_mut());
        let mut unknown = Vec::new();
        for (name, bytes) in self.iter() {
            let target = known
                .get(name)
                .and_then(|at| content.as_mut().and_then(|content| content.get_mut(at.offset..at.offset + at.size)));
            match target {
                None => unknown.push(name),
                Some(target) if target.len() == bytes.len() => target.copy_from_slice(bytes),
                Some(target) => return Err(wrong_size(object_name, name, target.len(), bytes)),
            }
        }
        Ok(unknown)
    }
}

/// Where a variable lies in its section, in bytes.
#[derive(Clone, Copy)]
struct Place {
    offset: usize,
    size: usize,
}

fn variables(btf: &Btf<'_>) -> BTreeMap<String, Place> {
    let Some(section) = btf.type_by_name::<DataSec<'_>>(SECTION) else { return BTreeMap::new() };
    let places = section.iter().filter_map(|entry| {
        let name = btf.type_by_id::<Var<'_>>(entry.ty)?.name()?.to_str()?.to_owned();
        Some((name, Place { offset: entry.offset as usize, size: entry.size }))
    });
    places.collect()
}

fn rodata_of(program: &Program, map_ids: &[u32]) -> Result<Option<Vec<u8>>> {
    let failed = |error: libbpf_rs::Error| {
        Error::system("read constants of program", program.name(), io::Error::other(error.to_string()))
    };
    for &id in map_ids {
        let map = MapHandle::from_map_id(id).map_err(failed)?;
        if is_rodata(map.name().to_string_lossy().as_ref()) {
            return map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).map_err(failed);
        }
    }
    Ok(None)
}

/// libbpf names the map after the object and the section; `.rodata.str1.1` and its like hold no variable.
fn is_rodata(map: &str) -> bool {
    map.ends_with(SECTION)
}

fn wrong_size(object: &str, name: &str, size: usize, bytes: &[u8]) -> Error {
    Error::invalid(
        format!("constant {name} of {object}"),
        format!("{bytes:02x?}"),
        format!("{} bytes given, the variable has {size}", bytes.len()),
    )
}
