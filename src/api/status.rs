//! The node's status.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::nodes::NodeElement;
use super::text::{is_false, is_zero, null_as_default, optional, wire_enum};
use crate::SecurityId;

wire_enum! {
    /// How well a part of the node does; the worse, the greater, but for what is not in use.
    StatusState {
        /// Well.
        Ok = "Ok",
        /// Impaired.
        Warning = "Warning",
        /// Broken.
        Failure = "Failure",
        /// Not in use.
        Disabled = "Disabled",
    }
}

/// The status of one part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// More about it.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub msg: Option<String>,
    /// How well it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<StatusState>,
}

impl Status {
    /// A part in this state, with a message.
    pub fn new(state: StatusState, msg: impl Into<String>) -> Self {
        Self { msg: Some(msg.into()), state: Some(state) }
    }
}

/// Answer to `GET /v1/healthz`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct StatusResponse {
    /// How programs are attached: `tcx` or `tc`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub attach_mode: Option<String>,
    /// The maps and their sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_maps: Option<BpfMapStatus>,
    /// The agent as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cilium: Option<Status>,
    /// The clock that programs use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_source: Option<ClockSource>,
    /// The node's place in its cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterStatus>,
    /// Whether other CNI plugins come first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cni_chaining: Option<CniChaining>,
    /// The CNI configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cni_file: Option<Status>,
    /// Recurring work.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub controllers: Vec<ControllerStatus>,
    /// How endpoints are connected: `veth`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub datapath_mode: Option<String>,
    /// The range of cluster-wide identities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_range: Option<IdentityRange>,
    /// Address allocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamStatus>,
    /// Events.
    #[serde(rename = "nodeMonitor", skip_serializing_if = "Option::is_none")]
    pub node_monitor: Option<MonitorStatus>,
    /// Policy: our own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Status>,
    /// How packets travel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing: Option<Routing>,
    /// Probes that have not answered in time, by name, and since when.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub stale: BTreeMap<String, String>,
    /// Fields that this build has no name for, kept as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl StatusResponse {
    /// Adds something that impairs the agent as a whole to what else is wrong with it.
    pub fn warn(&mut self, reason: &str) {
        let agent = self.cilium.get_or_insert_default();
        let others = agent.msg.take().filter(|_| agent.state != Some(StatusState::Ok));
        agent.msg = Some(others.map_or_else(|| reason.to_owned(), |others| format!("{others}; {reason}")));
        agent.state = agent.state.take().max(Some(StatusState::Warning));
    }

    /// The parts that are not well, with their names; empty when all is well.
    pub fn degraded(&self) -> Vec<(String, &Status)> {
        let ill = |status: &&Status| matches!(status.state, Some(StatusState::Failure | StatusState::Warning));
        let agent = self.cilium.iter().filter(ill).map(|status| ("cilium".to_owned(), status));
        let health = self.cluster.iter().filter_map(|cluster| cluster.cilium_health.as_ref()).filter(ill);
        agent.chain(health.map(|status| ("cluster health".to_owned(), status))).collect()
    }
}

/// The maps and their sizes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct BpfMapStatus {
    /// Share of the machine's memory that sizes were derived from; 0 when they were not.
    #[serde(skip_serializing_if = "is_zero")]
    pub dynamic_size_ratio: f64,
    /// The maps.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub maps: Vec<BpfMapProperties>,
}

/// A map's size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BpfMapProperties {
    /// What the map holds.
    pub name: String,
    /// The most entries it can hold.
    pub size: u32,
}

/// The clock that programs use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClockSource {
    /// Ticks per second of `jiffies`.
    #[serde(skip_serializing_if = "is_zero")]
    pub hertz: u32,
    /// `ktime` or `jiffies`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// The node's place in its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterStatus {
    /// The health daemon.
    #[serde(rename = "ciliumHealth", skip_serializing_if = "Option::is_none")]
    pub cilium_health: Option<Status>,
    /// All nodes.
    pub nodes: Option<Vec<NodeElement>>,
    /// The node's name.
    #[serde(rename = "self", with = "optional", skip_serializing_if = "Option::is_none")]
    pub self_: Option<String>,
}

/// Whether other CNI plugins come first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CniChaining {
    /// `none` or the other plugin's name.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// The range of cluster-wide identities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct IdentityRange {
    /// The largest.
    pub max_identity: u32,
    /// The smallest.
    pub min_identity: u32,
}

/// Address allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpamStatus {
    /// Who holds which address.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub allocations: BTreeMap<IpAddr, String>,
    /// The IPv4 addresses allocated.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub ipv4: Vec<IpAddr>,
    /// The IPv6 addresses allocated.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub ipv6: Vec<IpAddr>,
    /// A summary.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// How events reach a monitor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MonitorStatus {
    /// How many CPUs send events.
    #[serde(skip_serializing_if = "is_zero")]
    pub cpus: u64,
    /// Events that were lost because nobody read fast enough.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// Pages of the buffer between kernel and agent, per CPU.
    #[serde(skip_serializing_if = "is_zero")]
    pub npages: u64,
    /// Size of a page in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub pagesize: u64,
    /// Events that could not be understood.
    #[serde(skip_serializing_if = "is_zero")]
    pub unknown: u64,
}

/// How packets travel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Routing {
    /// Between nodes: `Native` or `Tunnel`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub inter_host_routing_mode: Option<String>,
    /// Within the node: `BPF` or `Legacy`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub intra_host_routing_mode: Option<String>,
    /// The tunnel's protocol.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub tunnel_protocol: Option<String>,
}

/// A security identity and its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// Its number.
    pub id: SecurityId,
    /// Its labels, as `source:key=value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub labels: Vec<String>,
    /// Digest of the labels, where the agent says it.
    #[serde(rename = "labelsSHA256", with = "optional", skip_serializing_if = "Option::is_none")]
    pub labels_sha256: Option<String>,
}

/// An identity and how many endpoints have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IdentityEndpoints {
    /// The identity.
    pub identity: Identity,
    /// How many endpoints have it.
    #[serde(skip_serializing_if = "is_zero")]
    pub ref_count: u64,
}

/// Recurring work and how it went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControllerStatus {
    /// How it recurs.
    pub configuration: ControllerConfiguration,
    /// Its name.
    pub name: String,
    /// How it went.
    pub status: ControllerRuns,
    /// Its unique id.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
}

/// How work recurs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ControllerConfiguration {
    /// Whether a failure is retried.
    #[serde(skip_serializing_if = "is_false")]
    pub error_retry: bool,
    /// First pause after a failure, as in `2s`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub error_retry_base: Option<String>,
    /// Pause after a success, as in `5m0s`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
}

/// How recurring work went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ControllerRuns {
    /// Failures since the last success.
    #[serde(skip_serializing_if = "is_zero")]
    pub consecutive_failure_count: u64,
    /// Failures in all.
    #[serde(skip_serializing_if = "is_zero")]
    pub failure_count: u64,
    /// Why it failed last.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub last_failure_msg: Option<String>,
    /// When it failed last, as in RFC 3339; the year 1 for never.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub last_failure_timestamp: Option<String>,
    /// When it succeeded last, as in RFC 3339; the year 1 for never.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub last_success_timestamp: Option<String>,
    /// Successes in all.
    #[serde(skip_serializing_if = "is_zero")]
    pub success_count: u64,
}
