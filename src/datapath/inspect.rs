//! The node's maps, for an operator to look at.

use std::fmt::Display;
use std::path::PathBuf;

use super::Datapath;
use crate::abi::{PolicyEntry, PolicyKey};
use crate::enforcement::{PolicyRowState, PolicyRows};
use crate::maps::{CachedEntry, MapInfo, OperationCounts};
use crate::tables::PolicyMap;
use crate::{Error, ErrorKind, Result};

/// The maps whose desired content is kept, beside the endpoints' policies.
const LXC: &str = "cilium_lxc";
const IPCACHE: &str = "cilium_ipcache_v2";
/// The map of which a listing in rows says nothing, and whose entries collections count.
const CONNECTIONS: &str = "podwire_ct";

/// A map in a list.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct MapOverview {
    /// Its name, which is that of its pin.
    pub name: String,
    /// How many entries it has; `None` where nobody keeps count.
    pub entries: Option<usize>,
    /// How many of them are not as desired.
    pub errors: usize,
    /// Whether its desired content is known.
    pub cached: bool,
    /// How many entries it can hold.
    pub max_entries: u32,
    /// How full it is, from 0 to 1; `None` where nobody keeps count.
    pub pressure: Option<f64>,
    /// Operations by kind and outcome; `None` where nobody keeps count.
    pub operations: Option<OperationCounts>,
}

/// An entry of a map whose desired content is known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapRow {
    /// The key, in the map's usual notation.
    pub key: String,
    /// The value, in the map's usual notation.
    pub value: String,
    /// `sync`, or what is still to be done: `insert`, `delete`.
    pub state: &'static str,
    /// Why the last attempt failed; empty as a rule.
    pub error: String,
}

impl Datapath {
    /// Every map that the programs share, in the order of the names, and then the endpoints' policies.
    pub fn maps(&self) -> Result<Vec<MapOverview>> {
        let shared = self.shared_maps().into_iter();
        let mut maps = shared.map(|name| self.overview(name)).collect::<Result<Vec<_>>>()?;
        for policy in self.policy().realized_all() {
            match self.overview(&PolicyMap::name(policy.endpoint)) {
                // The endpoint went meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                overview => maps.push(overview?),
            }
        }
        Ok(maps)
    }

    /// Where a map of this name is pinned.
    pub fn map_pin(&self, name: &str) -> PathBuf {
        self.paths.maps().join(name)
    }

    /// The desired content of a map, with the state of each entry as the kernel has it now; what is there and should not be, too.
    ///
    /// # Errors
    ///
    /// `NotFound` for a map that the node does not have, `Unsupported` for one whose desired content nobody keeps.
    pub fn map_content(&self, name: &str) -> Result<Vec<MapRow>> {
        if name == LXC {
            let reach = self.endpoints.reach();
            reach.find_drift()?;
            return Ok(reach.dump().into_iter().map(MapRow::from).collect());
        }
        if name == IPCACHE {
            let cache = self.ipcache().cache();
            cache.find_drift()?;
            return Ok(cache.dump().into_iter().map(MapRow::from).collect());
        }
        let policy = PolicyMap::endpoint_of(name).map(|endpoint| self.policy().writer().entries(endpoint));
        if let Some(entries) = policy.transpose()?.flatten() {
            return Ok(entries.into_iter().map(MapRow::from).collect());
        }
        if self.shared_maps().contains(&name) {
            let remedy = match name {
                CONNECTIONS => "nobody keeps it; read the connections themselves with podwire bpf ct list".into(),
                _ => format!("nobody keeps it; read the map itself with bpftool map dump name {name}").into(),
            };
            return Err(Error::Unsupported { feature: "listing the desired content of this map", remedy });
        }
        Err(Error::not_found("map", name))
    }

    /// The policy in force of the endpoint whose map has this name.
    fn policy_rows(&self, name: &str) -> Option<PolicyRows> {
        self.policy().writer().rows(PolicyMap::endpoint_of(name)?)
    }

    /// The names of the maps that the programs share.
    pub(super) fn shared_maps(&self) -> Vec<&str> {
        self.programs.map_names().filter(|name| !name.contains('.')).collect()
    }

    fn overview(&self, name: &str) -> Result<MapOverview> {
        let info = MapInfo::of_pin(self.paths.maps().join(name))?;
        let mut overview = MapOverview {
            name: name.to_owned(),
            entries: None,
            errors: 0,
            cached: false,
            max_entries: info.max_entries,
            pressure: None,
            operations: None,
        };
        if name == LXC {
            let reach = self.endpoints.reach();
            overview.describe(&reach.dump(), reach.pressure(), reach.operations());
        }
        if name == IPCACHE {
            let cache = self.ipcache().cache();
            overview.describe(&cache.dump(), cache.pressure(), cache.operations());
        }
        if let Some(policy) = self.policy_rows(name) {
            (overview.entries, overview.cached) = (Some(policy.len()), true);
        }
        if name == CONNECTIONS {
            let occupancy = self.conntrack.occupancy();
            overview.entries = occupancy.map(|(entries, _)| entries);
            overview.pressure = occupancy.map(|(_, pressure)| pressure);
        }
        Ok(overview)
    }
}

impl MapOverview {
    fn describe<K, V>(&mut self, rows: &[CachedEntry<K, V>], pressure: f64, operations: OperationCounts) {
        self.entries = Some(rows.len());
        self.errors = rows.iter().filter(|row| row.last_error.is_some()).count();
        self.cached = true;
        self.pressure = Some(pressure);
        self.operations = Some(operations);
    }
}

impl From<PolicyRowState> for MapRow {
    fn from((matched, verdict, state): PolicyRowState) -> Self {
        Self {
            key: PolicyKey::of(&matched).to_string(),
            value: PolicyEntry::of(&matched, &verdict).to_string(),
            state: state.as_str(),
            error: String::new(),
        }
    }
}

impl<K: Display, V: Display> From<CachedEntry<K, V>> for MapRow {
    fn from(entry: CachedEntry<K, V>) -> Self {
        Self {
            key: entry.key.to_string(),
            value: entry.value.to_string(),
            state: entry.state.as_str(),
            error: entry.last_error.unwrap_or_default(),
        }
    }
}
