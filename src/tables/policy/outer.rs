//! `podwire_policy`: the policy in force for each endpoint.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::OnceLock;

use super::{PolicyMap, PolicyOutlines};
use crate::maps::{ArrayOfMaps, MapSpec, Update};
use crate::{EndpointId, Result};

/// Slots: one for every endpoint id.
const ENDPOINTS: u32 = 65_536;

/// The policies of all endpoints, by endpoint id.
///
/// A packet is judged by the map that stands here or by the one that replaces it, never by both. An endpoint without a map
/// neither sends nor receives.
#[derive(Debug)]
pub struct PolicyMaps {
    map: ArrayOfMaps,
    outlines: PolicyOutlines,
}

impl PolicyMaps {
    /// The outer map as the programs declare it.
    pub const fn spec() -> MapSpec {
        MapSpec::array_of_maps("podwire_policy", ENDPOINTS)
    }

    /// An outer map of one's own with its outlines, unpinned.
    pub fn create() -> Result<Self> {
        let map = ArrayOfMaps::create(&Self::spec(), &PolicyMap::inner_spec())?;
        Ok(Self { map, outlines: PolicyOutlines::create()? })
    }

    /// The maps pinned in a folder under their names.
    pub fn open_pinned(folder: impl AsRef<Path>) -> Result<Self> {
        let spec = Self::spec();
        let map = ArrayOfMaps::open_pinned(folder.as_ref().join(spec.name()), &spec)?;
        Ok(Self { map, outlines: PolicyOutlines::open_pinned(folder)? })
    }

    /// The map below.
    pub const fn map(&self) -> &ArrayOfMaps {
        &self.map
    }

    /// The outlines of the policies.
    pub const fn outlines(&self) -> &PolicyOutlines {
        &self.outlines
    }

    /// Puts policies into force, each with the next packet, and waits once until no program uses those they replace.
    ///
    /// # Errors
    ///
    /// `Partial` says how many are in force.
    pub fn replace(&self, policies: &[(EndpointId, &PolicyMap)]) -> Result<()> {
        let slots: Vec<u32> = policies.iter().map(|(endpoint, _)| endpoint.get().into()).collect();
        let inners: Vec<BorrowedFd<'_>> = policies.iter().map(|(_, policy)| policy.map().as_fd()).collect();
        self.map.insert_batch(&slots, &inners, Update::Any)
    }

    /// Takes an endpoint's policy out of force; false when it had none.
    pub fn remove(&self, endpoint: EndpointId) -> Result<bool> {
        self.map.delete(&endpoint.get().into())
    }

    /// The endpoints that have a policy, and those to come whose policy is still empty. Before Linux 6.8 this takes
    /// [minutes](Self::lookups_wait).
    pub fn endpoints(&self) -> Result<Vec<EndpointId>> {
        let slots = self.map.entries()?;
        Ok(slots.into_iter().filter_map(|(slot, _)| EndpointId::new(u16::try_from(slot).ok()?)).collect())
    }

    /// Whether the kernel waits for an RCU grace period, some milliseconds, at the end of every lookup in a map of maps, also of an
    /// empty slot, and also in a batch: `bpf_map_copy_value` of kernel/bpf/syscall.c did so before Linux 6.8.
    pub fn lookups_wait() -> bool {
        static WAIT: OnceLock<bool> = OnceLock::new();
        *WAIT.get_or_init(|| {
            let release = rustix::system::uname().release().to_string_lossy().into_owned();
            let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0u32));
            (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (6, 8)
        })
    }

    /// The kernel's id of the policy in force for an endpoint. See [`lookups_wait`](Self::lookups_wait).
    pub fn policy_id(&self, endpoint: EndpointId) -> Result<Option<u32>> {
        self.map.lookup_id(&endpoint.get().into())
    }
}
