//! `cilium_lb4_*` and `cilium_lb6_*`: services, their backends and what goes with them.
//!
//! A frontend has a master entry (slot 0) with the number of its backends, and an entry for each backend's slot. Reverse-NAT
//! numbers lie in the maps in network order, slots and backend numbers in host order.

mod family;
mod maglev;
mod ops;
mod types;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use family::{Family, FamilyMaps, MAX_AFFINITY_TIMEOUT, MAX_ENTRIES, V4, V6};
pub use maglev::{MAGLEV_SLOTS, MaglevTables};
use ops::{Addresses, AffinityMatches};
pub use types::{
    Affinity, AffinityClient, Algorithm, Backend, BackendId, BackendState, Frontend, RevNatId, Scope, Service,
    ServiceFlags, SourceRange, StoredService,
};

use crate::abi::LbAffinityMatch;
use crate::maps::{HashMap, MapSpec, Update};
use crate::tables::address::check_no_host_bits;
use crate::tables::table::pin_path;
use crate::{Error, Result};

/// Services of both families, except their Maglev tables ([`MaglevTables`]).
#[derive(Debug)]
pub struct LbMap {
    v4: FamilyMaps<V4>,
    v6: FamilyMaps<V6>,
    affinity_match: AffinityMatches,
}

/// Calls a method of the family's maps with the address of that family.
macro_rules! by_family {
    ($self:ident, $address:expr, |$maps:ident, $own:ident| $call:expr) => {
        match $address {
            IpAddr::V4($own) => {
                let $maps = &$self.v4;
                $call
            }
            IpAddr::V6($own) => {
                let $maps = &$self.v6;
                $call
            }
        }
    };
}

impl LbMap {
    const AFFINITY_MATCH: MapSpec =
        MapSpec::hash::<LbAffinityMatch, u8>("cilium_lb_affinity_match", MAX_ENTRIES).key_layout::<LbAffinityMatch>();

    /// The specifications of all maps at their default size.
    pub fn specs() -> Vec<MapSpec> {
        fn family<F: Family>() -> [MapSpec; 5] {
            [
                FamilyMaps::<F>::SERVICES,
                FamilyMaps::<F>::BACKENDS,
                FamilyMaps::<F>::REVERSE_NAT,
                FamilyMaps::<F>::AFFINITY,
                FamilyMaps::<F>::SOURCE_RANGES,
            ]
        }
        family::<V4>().into_iter().chain(family::<V6>()).chain([Self::AFFINITY_MATCH]).collect()
    }

    /// Creates unpinned maps of `max_entries` each.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` without CAP_BPF, `InvalidInput` for a size the kernel refuses.
    pub fn create(max_entries: u32) -> Result<Self> {
        Ok(Self {
            v4: FamilyMaps::create(max_entries)?,
            v6: FamilyMaps::create(max_entries)?,
            affinity_match: HashMap::create(&Self::AFFINITY_MATCH.with_max_entries(max_entries))?,
        })
    }

    /// Opens the maps pinned in a directory under their own names, of any size.
    ///
    /// # Errors
    ///
    /// `NotFound` where a pin is missing, `LayoutMismatch` naming every difference.
    pub fn open_pinned(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let spec = Self::AFFINITY_MATCH.any_max_entries();
        Ok(Self {
            v4: FamilyMaps::open_pinned(directory)?,
            v6: FamilyMaps::open_pinned(directory)?,
            affinity_match: HashMap::open_pinned(pin_path(directory, spec.name()), &spec)?,
        })
    }

    /// Writes a service, over what stood under its frontend, and returns the backends that it had and has no longer.
    ///
    /// A reader never finds a slot whose backend is missing: backends are written before the slots that name them, slots before
    /// the master that counts them, and superfluous slots are removed after the master that no longer counts them. On failure
    /// before the master is written, everything is as it was. The backends returned are left in place, because other services
    /// may have them: see [`delete_backend`](Self::delete_backend).
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a backend of another family than the frontend, more than 65,535 backends or an affinity timeout beyond
    /// 24 bits; `Exhausted` when a map is full.
    pub fn upsert_service(&self, service: &Service) -> Result<Vec<BackendId>> {
        check(service)?;
        match service.frontend.address {
            IpAddr::V4(frontend) => {
                let backends = addresses(service, |address| match address {
                    IpAddr::V4(address) => Some(address),
                    IpAddr::V6(_) => None,
                })?;
                self.v4.upsert(service, &Addresses { frontend, backends }, &self.affinity_match)
            }
            IpAddr::V6(frontend) => {
                let backends = addresses(service, |address| match address {
                    IpAddr::V6(address) => Some(address),
                    IpAddr::V4(_) => None,
                })?;
                self.v6.upsert(service, &Addresses { frontend, backends }, &self.affinity_match)
            }
        }
    }

    /// Removes a service, its master first, and returns the backends it had; `None` when it was not there. The backends are left
    /// in place.
    pub fn delete_service(&self, frontend: &Frontend) -> Result<Option<Vec<BackendId>>> {
        by_family!(self, frontend.address, |maps, address| maps.delete(frontend, address, &self.affinity_match))
    }

    /// The service under a frontend.
    pub fn service(&self, frontend: &Frontend) -> Result<Option<StoredService>> {
        by_family!(self, frontend.address, |maps, address| maps.stored(frontend, address))
    }

    /// Every service, in the order of the frontends.
    pub fn services(&self) -> Result<Vec<StoredService>> {
        let mut services = self.v4.all_stored()?;
        services.extend(self.v6.all_stored()?);
        Ok(services)
    }

    /// Writes a backend: to change its state, say. [`upsert_service`](Self::upsert_service) writes those of its service.
    ///
    /// # Errors
    ///
    /// `Exhausted` when the map is full.
    pub fn upsert_backend(&self, backend: &Backend) -> Result<()> {
        match backend.address {
            IpAddr::V4(address) => {
                self.v4.backends.insert(&backend.id.get(), &V4::encode_backend(address, backend), Update::Any)
            }
            IpAddr::V6(address) => {
                self.v6.backends.insert(&backend.id.get(), &V6::encode_backend(address, backend), Update::Any)
            }
        }
    }

    /// Removes a backend of both families; false when it was not there. It must be in no service any more.
    pub fn delete_backend(&self, id: BackendId) -> Result<bool> {
        let v4 = self.v4.backends.delete(&id.get())?;
        let v6 = self.v6.backends.delete(&id.get())?;
        Ok(v4 || v6)
    }

    /// A backend of either family.
    pub fn backend(&self, id: BackendId) -> Result<Option<Backend>> {
        if let Some(backend) = self.v4.backends.lookup(&id.get())? {
            return Ok(Some(V4::decode_backend(id, &backend)));
        }
        Ok(self.v6.backends.lookup(&id.get())?.map(|backend| V6::decode_backend(id, &backend)))
    }

    /// Every backend, those of IPv4 first, in the order of their numbers.
    pub fn backends(&self) -> Result<Vec<Backend>> {
        let mut backends = self.v4.all_backends()?;
        backends.extend(self.v6.all_backends()?);
        Ok(backends)
    }

    /// The frontends behind the reverse-NAT numbers, those of IPv4 first.
    pub fn reverse_nat(&self) -> Result<Vec<(RevNatId, SocketAddr)>> {
        let mut entries = self.v4.all_reverse_nat()?;
        entries.extend(self.v6.all_reverse_nat()?);
        Ok(entries.into_iter().map(|(id, address)| (id, address.into())).collect())
    }

    /// Adds a source range to a frontend.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a range with bits set behind its length; `Exhausted` when the map is full.
    pub fn add_source_range(&self, range: &SourceRange) -> Result<()> {
        check_no_host_bits("source range", range.range)?;
        by_family!(self, range.range.ip(), |maps, address| {
            maps.source_ranges.insert(&encode_range(maps, range, address), &1, Update::Any)
        })
    }

    /// Removes a source range from a frontend; false when it was not there.
    pub fn delete_source_range(&self, range: &SourceRange) -> Result<bool> {
        by_family!(self, range.range.ip(), |maps, address| {
            maps.source_ranges.delete(&encode_range(maps, range, address))
        })
    }

    /// Whether a client is in one of a frontend's source ranges.
    pub fn in_source_ranges(&self, rev_nat: RevNatId, client: IpAddr) -> Result<bool> {
        let range = SourceRange { rev_nat, range: client.into() };
        let found = by_family!(self, client, |maps, address| {
            maps.source_ranges.lookup(&encode_range(maps, &range, address))
        })?;
        Ok(found.is_some())
    }

    /// Every source range, those of IPv4 first.
    pub fn source_ranges(&self) -> Result<Vec<SourceRange>> {
        let mut ranges = self.v4.all_source_ranges()?;
        ranges.extend(self.v6.all_source_ranges()?);
        Ok(ranges)
    }

    /// Every client that keeps its backend, as the programs have noted it.
    pub fn affinities(&self) -> Result<Vec<Affinity>> {
        let mut affinities = self.v4.all_affinities()?;
        affinities.extend(self.v6.all_affinities()?);
        Ok(affinities)
    }

    /// Whether a client of a service may be kept on a backend: whether the backend is the service's.
    pub fn is_affinity_match(&self, backend: BackendId, rev_nat: RevNatId) -> Result<bool> {
        Ok(self.affinity_match.lookup(&ops::affinity_match(backend, rev_nat))?.is_some())
    }
}

fn check(service: &Service) -> Result<()> {
    let slots = service.slots().count();
    if slots > usize::from(u16::MAX) {
        let reason = "a service has at most 65535 backends";
        return Err(Error::invalid("service", service.frontend.to_string(), format!("{slots} backends: {reason}")));
    }
    if service.affinity_timeout > MAX_AFFINITY_TIMEOUT {
        let reason = format!("must be at most {MAX_AFFINITY_TIMEOUT} seconds");
        return Err(Error::invalid("affinity timeout", service.affinity_timeout.to_string(), reason));
    }
    Ok(())
}

/// The addresses of a service's slots, of the family that `own` accepts.
fn addresses<A>(service: &Service, own: impl Fn(IpAddr) -> Option<A>) -> Result<Vec<A>> {
    service
        .slots()
        .map(|backend| {
            own(backend.address).ok_or_else(|| {
                let reason = format!("is of another family than the frontend {}", service.frontend);
                Error::invalid("backend", backend.to_string(), reason)
            })
        })
        .collect()
}

fn encode_range<F: Family>(_: &FamilyMaps<F>, range: &SourceRange, address: F::Address) -> F::SourceRange {
    F::encode_source_range(range.rev_nat, address, range.range.prefix())
}
