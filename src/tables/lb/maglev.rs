//! Maglev tables: for each service an array of backends that a hash of the connection indexes.

use std::net::IpAddr;
use std::path::Path;

use super::family::{Family, MAX_ENTRIES, V4, V6};
use super::types::{BackendId, RevNatId};
use crate::maps::{Array, HashOfMaps, MapSpec, Update};
use crate::tables::table::pin_path;
use crate::{Error, Result};

/// Slots of a table by default: a prime, so that the algorithm's steps reach all of them.
pub const MAGLEV_SLOTS: usize = 16_381;

/// The Maglev tables of both families, of `SLOTS` each.
///
/// A table is one value of an inner map: it is replaced whole, and a program sees the old one or the new one. Replacing one
/// waits until no program uses the old one, which takes some milliseconds.
#[derive(Debug)]
pub struct MaglevTables<const SLOTS: usize = MAGLEV_SLOTS> {
    v4: HashOfMaps<u16>,
    v6: HashOfMaps<u16>,
}

impl<const SLOTS: usize> MaglevTables<SLOTS> {
    const INNER: MapSpec = MapSpec::array::<[u32; SLOTS]>("cilium_maglev_i", 1);

    /// The specifications of the two outer maps at their default size, IPv4 first.
    pub const fn specs() -> [MapSpec; 2] {
        [MapSpec::hash_of_maps::<u16>(V4::MAGLEV, MAX_ENTRIES), MapSpec::hash_of_maps::<u16>(V6::MAGLEV, MAX_ENTRIES)]
    }

    /// The specification of an inner map.
    pub const fn inner_spec() -> MapSpec {
        Self::INNER
    }

    /// Creates unpinned maps for `max_entries` services of each family.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` without CAP_BPF, `InvalidInput` for a size the kernel refuses.
    pub fn create(max_entries: u32) -> Result<Self> {
        let [v4, v6] = Self::specs().map(|spec| HashOfMaps::create(&spec.with_max_entries(max_entries), &Self::INNER));
        Ok(Self { v4: v4?, v6: v6? })
    }

    /// Opens the maps pinned in a directory under their own names, of any size.
    ///
    /// # Errors
    ///
    /// `NotFound` where there is no pin, `LayoutMismatch` naming every difference. Tables of another number of slots show when
    /// one is written or read.
    pub fn open_pinned(directory: impl AsRef<Path>) -> Result<Self> {
        let [v4, v6] = Self::specs().map(|spec| {
            let spec = spec.any_max_entries();
            HashOfMaps::open_pinned(pin_path(directory.as_ref(), spec.name()), &spec)
        });
        Ok(Self { v4: v4?, v6: v6? })
    }

    /// Writes a service's table: the backend of each slot.
    ///
    /// `frontend` is any address of the service's family.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a table of another length than `SLOTS`; `Exhausted` when there are too many services.
    pub fn write(&self, frontend: IpAddr, rev_nat: RevNatId, table: &[BackendId]) -> Result<()> {
        let ids: Vec<u32> = table.iter().map(|id| id.get()).collect();
        let Ok(slots) = <&[u32; SLOTS]>::try_from(ids.as_slice()) else {
            let reason = format!("must have {SLOTS} slots");
            return Err(Error::invalid("maglev table", format!("{} slots", table.len()), reason));
        };
        let inner = Array::<[u32; SLOTS]>::create(&Self::INNER)?;
        inner.insert(&0, slots, Update::Any)?;
        self.outer(frontend).insert(&rev_nat.to_be(), &inner, Update::Any)
    }

    /// A service's table; `None` where it has none. A slot without a backend is `None`.
    ///
    /// # Errors
    ///
    /// `LayoutMismatch` for a table of another number of slots.
    pub fn read(&self, frontend: IpAddr, rev_nat: RevNatId) -> Result<Option<Vec<Option<BackendId>>>> {
        let Some(id) = self.outer(frontend).lookup_id(&rev_nat.to_be())? else {
            return Ok(None);
        };
        let inner = Array::<[u32; SLOTS]>::from_id(id, &Self::INNER)?;
        let mut ids = vec![0; SLOTS];
        let Ok(slots) = <&mut [u32; SLOTS]>::try_from(ids.as_mut_slice()) else {
            return Ok(None);
        };
        let found = inner.lookup_into(&0, slots)?;
        Ok(found.then(|| ids.into_iter().map(BackendId::new).collect()))
    }

    /// Removes a service's table; false when it had none.
    pub fn delete(&self, frontend: IpAddr, rev_nat: RevNatId) -> Result<bool> {
        self.outer(frontend).delete(&rev_nat.to_be())
    }

    /// The services of a family that have a table, in the order of their numbers.
    pub fn services(&self, family: IpAddr) -> Result<Vec<RevNatId>> {
        let entries = self.outer(family).entries()?;
        let mut services: Vec<_> = entries.into_iter().filter_map(|(id, _)| RevNatId::from_be(id)).collect();
        services.sort_unstable();
        Ok(services)
    }

    /// The outer maps, IPv4 first.
    pub const fn maps(&self) -> [&HashOfMaps<u16>; 2] {
        [&self.v4, &self.v6]
    }

    fn outer(&self, family: IpAddr) -> &HashOfMaps<u16> {
        if family.is_ipv4() { &self.v4 } else { &self.v6 }
    }
}
