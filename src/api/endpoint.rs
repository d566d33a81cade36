//! Endpoints.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::address::{AddressPair, NodeAddressing};
use super::config::Options;
use super::status::{ControllerStatus, Identity};
use super::text::{is_false, is_zero, null_as_default, optional, wire_enum};
use crate::{EndpointId, MacAddr};

wire_enum! {
    /// Where an endpoint is in its life.
    EndpointState {
        /// Its identity is not known yet.
        WaitingForIdentity = "waiting-for-identity",
        /// Not fit for traffic.
        NotReady = "not-ready",
        /// A change waits to be put in force.
        WaitingToRegenerate = "waiting-to-regenerate",
        /// A change is being put in force.
        Regenerating = "regenerating",
        /// Being taken over after a restart.
        Restoring = "restoring",
        /// In service.
        Ready = "ready",
        /// Being removed.
        Disconnecting = "disconnecting",
        /// Removed.
        Disconnected = "disconnected",
        /// Could not be understood.
        Invalid = "invalid",
    }
}

wire_enum! {
    /// How well a part of an endpoint does.
    EndpointHealthStatus {
        /// Well.
        Ok = "OK",
        /// Not begun.
        Bootstrap = "Bootstrap",
        /// Under way.
        Pending = "Pending",
        /// Impaired.
        Warning = "Warning",
        /// Broken.
        Failure = "Failure",
        /// Not in use.
        Disabled = "Disabled",
    }
}

wire_enum! {
    /// In which directions policy is enforced.
    EndpointPolicyEnabled {
        /// In neither.
        None = "none",
        /// For what reaches the endpoint.
        Ingress = "ingress",
        /// For what leaves it.
        Egress = "egress",
        /// In both.
        Both = "both",
        /// Ingress, reported only.
        AuditIngress = "audit-ingress",
        /// Egress, reported only.
        AuditEgress = "audit-egress",
        /// Both, reported only.
        AuditBoth = "audit-both",
    }
}

/// Body of `PUT` and `PATCH /v1/endpoint/{id}`: what an endpoint shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct EndpointChangeRequest {
    /// Its addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addressing: Option<AddressPair>,
    /// The runtime's name for the container.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// The device's name in the container.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub container_interface_name: Option<String>,
    /// The container's human name.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Where the container's network namespace is found.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub container_netns_path: Option<String>,
    /// Exceptions from the usual wiring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datapath_configuration: Option<EndpointDatapathConfiguration>,
    /// Address of the device on the host's side.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub host_mac: Option<MacAddr>,
    /// The endpoint's number, where the caller chooses it.
    #[serde(skip_serializing_if = "is_zero")]
    pub id: i64,
    /// Index of the device on the host's side.
    #[serde(skip_serializing_if = "is_zero")]
    pub interface_index: i64,
    /// Name of the device on the host's side.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub interface_name: Option<String>,
    /// Namespace of the pod.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub k8s_namespace: Option<String>,
    /// Name of the pod.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub k8s_pod_name: Option<String>,
    /// The pod's unique id.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub k8s_uid: Option<String>,
    /// Labels as `source:key=value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub labels: Vec<String>,
    /// Address of the device in the container.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Names by which rules call its ports. Podwire's own: Cilium learns them from Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named_ports: Option<Vec<Port>>,
    /// The kernel's number for the container's network namespace.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub netns_cookie: Option<String>,
    /// The state asked for; required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<EndpointState>,
    /// Whether the answer waits until the endpoint is in service.
    #[serde(skip_serializing_if = "is_false")]
    pub sync_build_endpoint: bool,
}

/// A port that has a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Port {
    /// The name.
    pub name: String,
    /// The port.
    pub port: u16,
    /// `TCP`, the default, `UDP` or `SCTP`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// Exceptions from the usual wiring of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct EndpointDatapathConfiguration {
    /// Packets go to the other end through the host's routes.
    #[serde(skip_serializing_if = "is_false")]
    pub disable_sip_verification: bool,
    /// Addresses are managed by somebody else.
    #[serde(skip_serializing_if = "is_false")]
    pub external_ipam: bool,
    /// A route per endpoint is installed.
    #[serde(skip_serializing_if = "is_false")]
    pub install_endpoint_route: bool,
    /// ARP requests are passed on.
    #[serde(skip_serializing_if = "is_false")]
    pub require_arp_passthrough: bool,
    /// Programs on the egress side of the device are wanted.
    #[serde(skip_serializing_if = "is_false")]
    pub require_egress_prog: bool,
}

/// Body of `DELETE /v1/endpoint`: which endpoints to remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct EndpointBatchDeleteRequest {
    /// All endpoints of this container.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
}

/// An endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Its number; `None` only in an answer that lacks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<EndpointId>,
    /// What can be changed at run time, as it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<EndpointConfigurationSpec>,
    /// What is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<EndpointStatus>,
}

/// What can be changed of an endpoint at run time; body of `PATCH /v1/endpoint/{id}/config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct EndpointConfigurationSpec {
    /// Labels asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_configuration: Option<LabelConfigurationSpec>,
    /// Named options.
    #[serde(skip_serializing_if = "Options::is_empty")]
    pub options: Options,
}

/// Answer to `GET /v1/endpoint/{id}/config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConfigurationStatus {
    /// What can be changed at run time, as it is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realized: Option<EndpointConfigurationSpec>,
}

/// What is in force for an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct EndpointStatus {
    /// Recurring work for the endpoint.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub controllers: Vec<ControllerStatus>,
    /// Names that others have for the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_identifiers: Option<EndpointIdentifiers>,
    /// How well it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<EndpointHealth>,
    /// Its security identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Its labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelConfigurationStatus>,
    /// The latest entry of its log.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub log: Vec<EndpointStatusChange>,
    /// Names by which rules call its ports.
    #[serde(rename = "namedPorts", skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub named_ports: Vec<Port>,
    /// Devices and addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networking: Option<EndpointNetworking>,
    /// Policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<EndpointPolicyStatus>,
    /// What can be changed at run time, as it is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realized: Option<EndpointConfigurationSpec>,
    /// Where it is in its life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<EndpointState>,
}

/// Names that others have for an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct EndpointIdentifiers {
    /// The container's id and the device's name in it, joined by a colon.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub cni_attachment_id: Option<String>,
    /// The runtime's name for the container.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// The container's human name.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Namespace of the pod.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub k8s_namespace: Option<String>,
    /// Name of the pod.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub k8s_pod_name: Option<String>,
    /// Namespace and name of the pod, joined by a slash.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
}

/// Answer to `GET /v1/endpoint/{id}/healthz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointHealth {
    /// Its programs and map entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf: Option<EndpointHealthStatus>,
    /// Whether its device is there and carries packets.
    #[serde(skip_serializing_if = "is_false")]
    pub connected: bool,
    /// The worst of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overall_health: Option<EndpointHealthStatus>,
    /// Its policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<EndpointHealthStatus>,
    /// What is wrong, in words. Podwire's own.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub reasons: Vec<String>,
}

/// An entry of an endpoint's log; `GET /v1/endpoint/{id}/log` has them newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointStatusChange {
    /// `OK`, `Warning` or `Failure`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What happened.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The state after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<EndpointState>,
    /// When, as in RFC 3339.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
}

/// An endpoint's devices and addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct EndpointNetworking {
    /// Its addresses.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub addressing: Vec<AddressPair>,
    /// The device's name in the container.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub container_interface_name: Option<String>,
    /// The node's addresses, where the agent says them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_addressing: Option<NodeAddressing>,
    /// Address of the device on the host's side.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub host_mac: Option<MacAddr>,
    /// Index of the device on the host's side.
    #[serde(skip_serializing_if = "is_zero")]
    pub interface_index: u32,
    /// Name of the device on the host's side.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub interface_name: Option<String>,
    /// Address of the device in the container.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
}

/// An endpoint's policy, asked for and in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct EndpointPolicyStatus {
    /// The policy revision that the proxy has.
    #[serde(skip_serializing_if = "is_zero")]
    pub proxy_policy_revision: u64,
    /// Counters of the proxy.
    #[serde(deserialize_with = "null_as_default")]
    pub proxy_statistics: Vec<serde_json::Value>,
    /// In force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realized: Option<EndpointPolicy>,
    /// Asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<EndpointPolicy>,
}

/// An endpoint's policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct EndpointPolicy {
    /// Identities it may reach; `[0]` means all.
    pub allowed_egress_identities: Option<Vec<u32>>,
    /// Identities that may reach it; `[0]` means all.
    pub allowed_ingress_identities: Option<Vec<u32>>,
    /// How often it was built.
    #[serde(skip_serializing_if = "is_zero")]
    pub build: u64,
    /// Identities it must not reach.
    pub denied_egress_identities: Option<Vec<u32>>,
    /// Identities that must not reach it.
    pub denied_ingress_identities: Option<Vec<u32>>,
    /// The endpoint's identity.
    #[serde(skip_serializing_if = "is_zero")]
    pub id: u32,
    /// Rules with ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l4: Option<L4Policy>,
    /// In which directions it is enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_enabled: Option<EndpointPolicyEnabled>,
    /// The revision it was made from.
    #[serde(skip_serializing_if = "is_zero")]
    pub policy_revision: u64,
}

/// Rules with ports, per direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct L4Policy {
    /// For what leaves the endpoint.
    #[serde(deserialize_with = "null_as_default")]
    pub egress: Vec<PolicyRule>,
    /// For what reaches it.
    #[serde(deserialize_with = "null_as_default")]
    pub ingress: Vec<PolicyRule>,
}

/// A rule with a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct PolicyRule {
    /// Labels of the rules it comes from.
    #[serde(deserialize_with = "null_as_default")]
    pub derived_from_rules: Vec<Vec<String>>,
    /// The rule as text.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Labels of the rules it comes from, per selector.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub rules_by_selector: BTreeMap<String, Vec<Vec<String>>>,
}

/// Labels asked for; body of `PATCH /v1/endpoint/{id}/labels`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LabelConfigurationSpec {
    /// Labels that a user set, as `source:key=value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub user: Vec<String>,
}

/// Labels in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct LabelConfigurationStatus {
    /// Labels that say something about the endpoint but not about its identity.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub derived: Vec<String>,
    /// Labels taken away.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub disabled: Vec<String>,
    /// Labels that a user set.
    pub realized: LabelConfigurationSpec,
    /// Labels that make the identity.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub security_relevant: Vec<String>,
}

/// Answer to `GET /v1/endpoint/{id}/labels`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LabelConfiguration {
    /// Asked for.
    pub spec: LabelConfigurationSpec,
    /// In force.
    pub status: LabelConfigurationStatus,
}
