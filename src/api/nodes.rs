//! The nodes of the cluster.

use serde::{Deserialize, Serialize};

use super::address::{NodeAddressing, NodeAddressingElement};
use super::text::{is_zero, null_as_default, optional};

/// Answer to `GET /v1/cluster/nodes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ClusterNodes {
    /// Sent back by a client that wants only what changed since.
    #[serde(skip_serializing_if = "is_zero")]
    pub client_id: i64,
    /// Nodes that are there.
    pub nodes_added: Option<Vec<NodeElement>>,
    /// Nodes that are gone.
    pub nodes_removed: Option<Vec<NodeElement>>,
    /// The name of the node that answers.
    #[serde(rename = "self", with = "optional", skip_serializing_if = "Option::is_none")]
    pub self_: Option<String>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct NodeElement {
    /// Its name.
    pub name: String,
    /// The addresses at which others reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_address: Option<NodeAddressing>,
    /// Its other addresses.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub secondary_addresses: Vec<NodeAddressingElement>,
    /// Who told of it.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}
