//! What the maps hold, addresses and their identities, metrics, and everything at once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::endpoint::Endpoint;
use super::policy::Policy;
use super::status::StatusResponse;
use super::text::{is_zero, null_as_default, optional, wire_enum};
use crate::SecurityId;

wire_enum! {
    /// What remains to be done for an entry of a map.
    MapAction {
        /// Nothing: the kernel has it.
        Sync = "sync",
        /// It must be written.
        Insert = "to-be-inserted",
        /// It must be removed.
        Delete = "to-be-deleted",
    }
}

/// Answer to `GET /v1/map`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BpfMapList {
    /// The maps.
    #[serde(deserialize_with = "null_as_default")]
    pub maps: Vec<BpfMap>,
}

/// A map and, where the agent keeps one, its cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BpfMap {
    /// The desired content; `None` when the agent keeps none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Vec<BpfMapEntry>>,
    /// Where it is pinned.
    pub path: String,
}

impl BpfMap {
    /// The map's name: the last part of its path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// How many entries could not be written or removed.
    pub fn errors(&self) -> usize {
        self.cache.iter().flatten().filter(|entry| entry.last_error.is_some()).count()
    }
}

/// An entry of a map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct BpfMapEntry {
    /// What remains to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_action: Option<MapAction>,
    /// The key as text.
    pub key: String,
    /// Why it could not be done.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The value as text.
    pub value: String,
}

/// An address or prefix and whose it is; `GET /v1/ip` has a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpListEntry {
    /// The prefix.
    pub cidr: IpNetwork,
    /// The key with which traffic is encrypted; 0 for none.
    #[serde(rename = "encryptKey", default, skip_serializing_if = "is_zero")]
    pub encrypt_key: i64,
    /// The node behind which it is.
    #[serde(rename = "hostIP", default, with = "optional", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// Its identity.
    #[serde(default)]
    pub identity: SecurityId,
    /// Who told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<IpListEntryMetadata>,
}

/// Who told of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpListEntryMetadata {
    /// The pod's name.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The pod's namespace.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Where the knowledge comes from.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// One value of one metric; `GET /v1/metrics` has a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metric {
    /// What tells it from others of its name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(skip_serializing_if = "is_zero")]
    pub value: f64,
}

/// Answer to `GET /v1/debuginfo`: everything at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct DebugInfo {
    /// The agent's memory mappings.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub cilium_memory_map: Option<String>,
    /// The status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cilium_status: Option<StatusResponse>,
    /// The agent's version.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub cilium_version: Option<String>,
    /// All endpoints.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub endpoint_list: Vec<Endpoint>,
    /// The configuration, each as `key:value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub environment_variables: Vec<String>,
    /// The kernel's version.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub kernel_version: Option<String>,
    /// The rules in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// Named texts from the agent's parts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub subsystem: BTreeMap<String, String>,
    /// Fields that this build has no name for, kept as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
