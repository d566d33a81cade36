//! An endpoint as it stands on disk, and as callers see it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::state::EndpointState;
use super::timings::Timings;
use crate::enforcement::Admission;
use crate::policy::NamedPorts;
use crate::tables::Protocol;
use crate::{EndpointId, IfIndex, Labels, MacAddr, Result, SecurityId};

/// Everything about an endpoint that outlives the process. Written to disk before the kernel hears of the endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Its number on this node.
    pub id: EndpointId,
    /// `namespace/pod`, or another owner's name.
    pub name: String,
    /// Labels by which policy selects it.
    #[serde(default)]
    pub labels: Labels,
    /// The runtime's id for the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// The orchestrator's unique id for the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The device's name inside the pod.
    pub interface: String,
    /// The pod's namespace, as it was named at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// Host side of the veth pair.
    pub ifindex: IfIndex,
    /// Its name.
    pub device: String,
    /// Its MAC address.
    pub node_mac: MacAddr,
    /// The pod side's MAC address.
    pub mac: MacAddr,
    /// The pod's IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// The pod's IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// To whom its addresses are allocated, where that is not `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_owner: Option<String>,
    /// When it was created.
    pub created: SystemTime,
    /// Its security identity, which follows from its labels.
    #[serde(default = "without_labels")]
    pub identity: SecurityId,
    /// The names it has given to its ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named_ports: Vec<NamedPort>,
    /// What its policy denies is let through, and reported.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub audit: bool,
}

/// Endpoints of before identities had none other.
fn without_labels() -> SecurityId {
    SecurityId::INIT
}

/// A port of an endpoint that rules may call by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// The number of the protocol: 6 for TCP, 17 for UDP, 132 for SCTP.
    pub protocol: u8,
    /// The port.
    pub port: u16,
}

impl NamedPort {
    /// Fails for what no rule could mean.
    pub(super) fn check(&self) -> Result<()> {
        NamedPorts::check(&self.name, Protocol::new(self.protocol), self.port)
    }
}

impl EndpointRecord {
    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }

    /// To whom its addresses are allocated.
    pub fn owner(&self) -> &str {
        self.address_owner.as_deref().unwrap_or(&self.name)
    }

    /// Namespace and pod, where the name has the form `namespace/pod`.
    pub fn pod(&self) -> Option<(&str, &str)> {
        self.name.split_once('/').filter(|(namespace, pod)| !namespace.is_empty() && !pod.is_empty())
    }

    /// The identity in force for it.
    pub fn identity(&self) -> SecurityId {
        self.identity
    }

    /// The endpoint as policy sees it.
    pub(super) fn admission(&self) -> Admission {
        admission(self.id, self.labels.clone(), &self.named_ports)
    }
}

/// An endpoint as policy sees it.
pub(super) fn admission(endpoint: EndpointId, labels: Labels, named_ports: &[NamedPort]) -> Admission {
    Admission { endpoint, labels, named_ports: names_of(named_ports) }
}

/// The names as policy sees them.
pub(super) fn names_of(ports: &[NamedPort]) -> NamedPorts {
    ports.iter().map(|port| (port.name.as_str(), Protocol::new(port.protocol), port.port)).collect()
}

/// A line of an endpoint's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// When.
    pub time: SystemTime,
    /// The state it then had.
    pub state: EndpointState,
    /// Whether the step succeeded.
    pub ok: bool,
    /// What happened.
    pub message: String,
}

/// An endpoint at one moment.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// What is known of it for good.
    pub record: EndpointRecord,
    /// Where it stands.
    pub state: EndpointState,
    /// The stages of its last creation or regeneration.
    pub timings: Timings,
    /// Its latest steps, oldest first.
    pub log: Vec<LogEntry>,
}

impl Endpoint {
    /// Its number on this node.
    pub fn id(&self) -> EndpointId {
        self.record.id
    }

    /// The pod's IPv4 address.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.record.ipv4
    }

    /// The pod's IPv6 address.
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        self.record.ipv6
    }
}
