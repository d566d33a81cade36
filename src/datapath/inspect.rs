//! The node's maps, for an operator to look at.

use std::path::PathBuf;

use crate::maps::{MapInfo, OperationCounts};
use crate::{Error, Result};

use super::Datapath;

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
    /// Every map that the programs share, in the order of the names.
    pub fn maps(&self) -> Result<Vec<MapOverview>> {
        self.shared_maps().into_iter().map(|name| self.overview(name)).collect()
    }

    /// Where a map of this name is pinned.
    pub fn map_pin(&self, name: &str) -> PathBuf {
        self.paths.maps().join(name)
    }

    /// The desired content of a map, with the state of each entry as the kernel has it now.
    ///
    /// # Errors
    ///
    /// `NotFound` for a map that the node does not have, `Unsupported` for one whose desired content nobody keeps.
    pub fn map_content(&self, name: &str) -> Result<Vec<MapRow>> {
        if name == "cilium_lxc" {
            let reach = self.endpoints.reach();
            reach.find_drift()?;
            let rows = reach.dump();
            return Ok(rows
                .into_iter()
                .map(|entry| MapRow {
                    key: entry.key.to_string(),
                    value: entry.value.to_string(),
                    state: entry.state.as_str(),
                    error: entry.last_error.unwrap_or_default(),
                })
                .collect());
        }
        if self.shared_maps().contains(&name) {
            return Err(Error::Unsupported {
                feature: "listing the desired content of this map",
                remedy: format!("nobody keeps it; read the map itself with bpftool map dump name {name}").into(),
            });
        }
        Err(Error::not_found("map", name))
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
        if name == "cilium_lxc" {
            let reach = self.endpoints.reach();
            let rows = reach.dump();
            overview.entries = Some(rows.len());
            overview.errors = rows.iter().filter(|row| row.last_error.is_some()).count();
            overview.cached = true;
            overview.pressure = Some(reach.pressure());
            overview.operations = Some(reach.operations());
        }
        Ok(overview)
    }
}
