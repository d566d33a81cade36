//! The agent's configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::address::NodeAddressing;
use super::status::MonitorStatus;
use super::text::{is_false, is_zero, optional};

/// Named options and their values ("Enabled", "Disabled", …).
pub type Options = BTreeMap<String, String>;

/// Answer to `GET /v1/config`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonConfiguration {
    /// What can be changed at run time, as it was asked for.
    pub spec: DaemonConfigurationSpec,
    /// What is in force.
    pub status: DaemonConfigurationStatus,
}

/// The part of the configuration that can be changed at run time; body of `PATCH /v1/config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct DaemonConfigurationSpec {
    /// Named options.
    #[serde(skip_serializing_if = "Options::is_empty")]
    pub options: Options,
    /// When policy is enforced: `default`, `always` or `never`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub policy_enforcement: Option<String>,
}

/// What of the configuration a CNI plugin makes devices by; `device-settings` in the answer to `POST /v1/ipam`, under the
/// names that it has in that to `GET /v1/config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceSettings {
    /// Largest packet in bytes that the kernel may aggregate on receipt over IPv4.
    #[serde(rename = "GROIPv4MaxSize")]
    pub gro_ipv4_max_size: u32,
    /// Largest packet in bytes that the kernel may aggregate on receipt.
    #[serde(rename = "GROMaxSize")]
    pub gro_max_size: u32,
    /// Largest packet in bytes that the kernel may hand to a device over IPv4.
    #[serde(rename = "GSOIPv4MaxSize")]
    pub gso_ipv4_max_size: u32,
    /// Largest packet in bytes that the kernel may hand to a device.
    #[serde(rename = "GSOMaxSize")]
    pub gso_max_size: u32,
    /// How the agent attaches its programs: `clsact`, in which case whoever makes a device may add the discipline, or `tcx`.
    #[serde(rename = "attachMode", with = "optional", skip_serializing_if = "Option::is_none")]
    pub attach_mode: Option<String>,
    /// How endpoints are connected: `veth`.
    #[serde(rename = "datapathMode", with = "optional", skip_serializing_if = "Option::is_none")]
    pub datapath_mode: Option<String>,
    /// MTU in bytes of an endpoint's device.
    #[serde(rename = "deviceMTU")]
    pub device_mtu: u32,
    /// MTU in bytes of an endpoint's default route.
    #[serde(rename = "routeMTU")]
    pub route_mtu: u32,
}

impl From<DaemonConfigurationStatus> for DeviceSettings {
    fn from(status: DaemonConfigurationStatus) -> Self {
        Self {
            gro_ipv4_max_size: status.gro_ipv4_max_size,
            gro_max_size: status.gro_max_size,
            gso_ipv4_max_size: status.gso_ipv4_max_size,
            gso_max_size: status.gso_max_size,
            attach_mode: status.attach_mode,
            datapath_mode: status.datapath_mode,
            device_mtu: status.device_mtu,
            route_mtu: status.route_mtu,
        }
    }
}

/// The configuration in force, as a CNI plugin needs it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonConfigurationStatus {
    /// Largest packet in bytes that the kernel may aggregate on receipt over IPv4.
    #[serde(rename = "GROIPv4MaxSize", skip_serializing_if = "is_zero")]
    pub gro_ipv4_max_size: u32,
    /// Largest packet in bytes that the kernel may aggregate on receipt.
    #[serde(rename = "GROMaxSize", skip_serializing_if = "is_zero")]
    pub gro_max_size: u32,
    /// Largest packet in bytes that the kernel may hand to a device over IPv4.
    #[serde(rename = "GSOIPv4MaxSize", skip_serializing_if = "is_zero")]
    pub gso_ipv4_max_size: u32,
    /// Largest packet in bytes that the kernel may hand to a device.
    #[serde(rename = "GSOMaxSize", skip_serializing_if = "is_zero")]
    pub gso_max_size: u32,
    /// The node's addresses and ranges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addressing: Option<NodeAddressing>,
    /// How the agent attaches its programs: `clsact` or `tcx`.
    #[serde(rename = "attachMode", with = "optional", skip_serializing_if = "Option::is_none")]
    pub attach_mode: Option<String>,
    /// Everything the agent was started with, by name.
    #[serde(rename = "daemonConfigurationMap", skip_serializing_if = "Map::is_empty")]
    pub daemon_configuration_map: Map<String, Value>,
    /// How endpoints are connected: `veth`.
    #[serde(rename = "datapathMode", with = "optional", skip_serializing_if = "Option::is_none")]
    pub datapath_mode: Option<String>,
    /// MTU in bytes of an endpoint's device.
    #[serde(rename = "deviceMTU", skip_serializing_if = "is_zero")]
    pub device_mtu: u32,
    /// Who allocates addresses.
    #[serde(rename = "ipam-mode", with = "optional", skip_serializing_if = "Option::is_none")]
    pub ipam_mode: Option<String>,
    /// Whether traffic that leaves the cluster is masqueraded.
    #[serde(skip_serializing_if = "is_false")]
    pub masquerade: bool,
    /// How events reach a monitor.
    #[serde(rename = "nodeMonitor", skip_serializing_if = "Option::is_none")]
    pub node_monitor: Option<MonitorStatus>,
    /// What can be changed at run time, as it is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realized: Option<DaemonConfigurationSpec>,
    /// MTU in bytes of an endpoint's default route.
    #[serde(rename = "routeMTU", skip_serializing_if = "is_zero")]
    pub route_mtu: u32,
    /// Fields that this build has no name for, kept as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
