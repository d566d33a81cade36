//! `cilium_policy_v2_<id>`: what an endpoint lets in and out.

mod entry;
mod outer;
mod outline;
mod stats;

use std::path::Path;

pub use entry::{PolicyAction, PolicyDirection, PolicyL4, PolicyMatch, PolicyVerdict};
pub use outer::PolicyMaps;
pub use outline::PolicyOutlines;
pub use stats::{PolicyCount, PolicyStats};

use crate::abi::{PolicyEntry, PolicyKey};
use crate::maps::{LpmTrie, MapSpec, Update};
use crate::tables::table::{RDONLY_PROG, pin_path};
use crate::{EndpointId, Error, Result};

/// The policy of one endpoint.
///
/// Programs look up the peer's identity first and then identity 0, which stands for any peer; of what they find the entry of
/// higher precedence decides.
#[derive(Debug)]
pub struct PolicyMap {
    map: LpmTrie<PolicyKey, PolicyEntry>,
}

impl PolicyMap {
    /// What the name of every policy map begins with.
    pub const NAME_PREFIX: &'static str = "cilium_policy_v2_";
    /// The default size.
    pub const MAX_ENTRIES: u32 = 16_384;

    /// The name of an endpoint's map: the id in five digits.
    pub fn name(endpoint: EndpointId) -> String {
        format!("{}{:05}", Self::NAME_PREFIX, endpoint.get())
    }

    /// The endpoint whose map has this name.
    pub fn endpoint_of(name: &str) -> Option<EndpointId> {
        let digits = name.strip_prefix(Self::NAME_PREFIX)?;
        let well_formed = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
        well_formed.then(|| digits.parse().ok()).flatten().and_then(EndpointId::new)
    }

    /// The specification of an endpoint's map at the default size.
    pub fn spec(endpoint: EndpointId) -> MapSpec {
        Self::inner_spec().layouts::<PolicyKey, PolicyEntry>().named(Self::name(endpoint))
    }

    /// What every endpoint's map looks like, but for its name and size. It has no type information: the programs' template has none,
    /// and Linux 6.1 takes no inner map that has (`bpf_map_meta_equal`, by `timer_off`).
    pub const fn inner_spec() -> MapSpec {
        MapSpec::lpm::<PolicyKey, PolicyEntry>("cilium_policy_v2", Self::MAX_ENTRIES).flags(RDONLY_PROG)
    }

    /// Creates an unpinned map of `max_entries` for an endpoint.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` without CAP_BPF, `InvalidInput` for a size the kernel refuses.
    pub fn create(endpoint: EndpointId, max_entries: u32) -> Result<Self> {
        Ok(Self {
            map: LpmTrie::create(&Self::inner_spec().named(Self::name(endpoint)).with_max_entries(max_entries))?,
        })
    }

    /// Opens an endpoint's pinned map of any size; `path` is the pin, or the directory that holds it under its own name.
    ///
    /// # Errors
    ///
    /// `NotFound` where there is no pin, `LayoutMismatch` naming every difference.
    pub fn open_pinned(path: impl AsRef<Path>, endpoint: EndpointId) -> Result<Self> {
        let spec = Self::spec(endpoint).any_max_entries();
        let pin = pin_path(path.as_ref(), spec.name());
        Ok(Self { map: LpmTrie::open_pinned(pin, &spec)? })
    }

    /// Opens a map of any size by the kernel's id, such as the one that [`PolicyMaps::policy_id`] names.
    ///
    /// # Errors
    ///
    /// `NotFound` for a map that is gone, `LayoutMismatch` naming every difference; needs `CAP_SYS_ADMIN`.
    pub fn from_id(id: u32, endpoint: EndpointId) -> Result<Self> {
        Ok(Self { map: LpmTrie::from_id(id, &Self::spec(endpoint).any_max_entries())? })
    }

    /// Opens the map that stands in a slot, by the id that [`PolicyMaps::policy_id`] names. It is not compared with the specification:
    /// the kernel did that when it was put there.
    pub(crate) fn from_slot(id: u32, endpoint: EndpointId) -> Result<Self> {
        Ok(Self { map: LpmTrie::from_inner_id(id, &Self::spec(endpoint).any_max_entries())? })
    }

    /// The map below.
    pub const fn map(&self) -> &LpmTrie<PolicyKey, PolicyEntry> {
        &self.map
    }

    /// Writes an entry, over what stood there.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an authentication type above 127; `Exhausted` when the map is full.
    pub fn upsert(&self, matched: &PolicyMatch, verdict: &PolicyVerdict) -> Result<()> {
        check_auth_type(verdict)?;
        self.map.insert(&PolicyKey::of(matched), &verdict.encode(matched), Update::Any)
    }

    /// Writes entries, in one system call.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an authentication type above 127, before anything is written; `Exhausted` when the map is full,
    /// with the first entries written.
    pub fn fill(&self, entries: &[(PolicyMatch, PolicyVerdict)]) -> Result<()> {
        entries.iter().try_for_each(|(_, verdict)| check_auth_type(verdict))?;
        let keys: Vec<_> = entries.iter().map(|(matched, _)| PolicyKey::of(matched)).collect();
        let values: Vec<_> = entries.iter().map(|(matched, verdict)| verdict.encode(matched)).collect();
        self.map.insert_batch(&keys, &values, Update::Any)
    }

    /// Removes exactly this entry; false when it was not there.
    pub fn delete(&self, matched: &PolicyMatch) -> Result<bool> {
        self.map.delete(&PolicyKey::of(matched))
    }

    /// What the longest match for traffic says: of the entries for exactly its identity (0 for those for any peer).
    pub fn lookup(&self, traffic: &PolicyMatch) -> Result<Option<PolicyVerdict>> {
        Ok(self.map.lookup(&PolicyKey::of(traffic))?.map(PolicyVerdict::from))
    }

    /// Every entry, in the order of what they match. Keys of an impossible prefix length are left out.
    pub fn entries(&self) -> Result<Vec<(PolicyMatch, PolicyVerdict)>> {
        let mut entries = Vec::new();
        for row in &self.map {
            let (key, value) = row?;
            match key.matched() {
                Some(matched) => entries.push((matched, PolicyVerdict::from(value))),
                None => log::warn!("{}: key {key:?} has an impossible prefix length", self.map.label()),
            }
        }
        entries.sort_unstable_by_key(|(matched, _)| *matched);
        Ok(entries)
    }
}

fn check_auth_type(verdict: &PolicyVerdict) -> Result<()> {
    if verdict.auth_type > PolicyEntry::AUTH_TYPE_MASK {
        return Err(Error::invalid("authentication type", verdict.auth_type.to_string(), "must be at most 127"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_the_id_in_five_digits() {
        let id = EndpointId::new(463).expect("not 0");
        assert_eq!(PolicyMap::name(id), "cilium_policy_v2_00463");
        assert_eq!(PolicyMap::endpoint_of("cilium_policy_v2_00463"), Some(id));
        for name in
            ["cilium_policy_v2_463", "cilium_policy_v2_00000", "cilium_policy_v2_99999", "cilium_policy_v2_+0463"]
        {
            assert_eq!(PolicyMap::endpoint_of(name), None, "{name}");
        }
    }
}
