//! Packets to trace, and what would become of them. Podwire's own: Cilium's API has no counterpart.

use serde::{Deserialize, Serialize};

use super::text::{null_as_default, optional};

/// A packet of which somebody asks what would become of it; body of `POST /v1/policy/trace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyTraceRequest {
    /// Who sends it: an endpoint's id, `namespace/pod`, an address, `host` or `world`.
    pub from: String,
    /// Whom it is for, likewise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub to: String,
    /// `TCP`, `UDP`, `SCTP`, `ICMP` (of IPv4) or `ICMPv6`; TCP unless given.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The destination's port; ICMP has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// The sender's port; of an ICMP echo request the identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// An ICMP message's type; that of an echo request unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// Names of a TCP segment's flags: `SYN`, `ACK`, `FIN`, `RST`, `PSH`; SYN alone unless given.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub tcp_flags: Vec<String>,
    /// The time to live, or hop limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hop_limit: Option<u8>,
    /// Whether it is IPv6 where both families would do.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ipv6: bool,
    /// An Ethernet frame in hexadecimal digits, in the place of all that describes a packet. `from` says where it comes in: an endpoint
    /// sends it; `world`, to the first native device; or `host`, to the endpoint that `to` names then and only then.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// A document of policies, YAML or JSON, to be tried out in the place of those with their names.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// What would become of a packet; answer to `POST /v1/policy/trace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyTrace {
    /// Whether it would be let through.
    pub allowed: bool,
    /// Why it would be dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop: Option<TraceDrop>,
    /// The program that it would meet.
    pub program: String,
    /// Who sends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<TraceSide>,
    /// Whom it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<TraceSide>,
    /// What the policies that were asked said, egress first.
    pub policies: Vec<TracePolicy>,
    /// Its part in its connection: `new`, `established`, `reply`, `related`, `none`.
    pub relation: String,
    /// The connection as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_before: Option<TraceConnection>,
    /// The connection as the packet would leave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_after: Option<TraceConnection>,
    /// Where it would go: `endpoint`, `stack`, `back`, `dropped`.
    pub way: String,
    /// The device through which it would go there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<TraceDevice>,
    /// What the program would write into it.
    pub changes: Vec<TraceChange>,
    /// The frame as it comes, in hexadecimal digits.
    pub before: String,
    /// The frame as it would go on.
    pub after: String,
}

/// Why a packet would be dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TraceDrop {
    /// The reason's number.
    pub code: u8,
    /// The reason.
    pub reason: String,
    /// The program's file.
    pub file: String,
    /// The line in it.
    pub line: u16,
}

/// One side of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TraceSide {
    /// Its address.
    pub address: String,
    /// Its identity.
    pub identity: u32,
    /// What the identity stands for.
    pub labels: Vec<String>,
    /// The endpoint's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<u16>,
    /// The endpoint's name.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What an endpoint's policy said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TracePolicy {
    /// `egress` or `ingress`.
    pub direction: String,
    /// The endpoint.
    pub endpoint: u16,
    /// Whether traffic needs a rule that allows it.
    pub enforced: bool,
    /// The identity of the other side.
    pub peer: u32,
    /// `allow`, `deny`, `redirect`, `audit`.
    pub action: String,
    /// Which parts of the policy's entry named the packet, as the monitor has it.
    pub r#match: String,
    /// The number of the rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    /// Where the rule stands: policy, rule, section.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub rule_name: Option<String>,
    /// The rule's labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rule_labels: Vec<String>,
    /// The rule's description.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub rule_description: Option<String>,
}

/// A connection at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TraceConnection {
    /// `new`, `established`, `closing`, `closed`.
    pub state: String,
    /// Protocol and sides of the packet that opened it.
    pub opener: String,
    /// Packets of the side that opened it.
    pub forward_packets: u64,
    /// Packets of the other side.
    pub reply_packets: u64,
}

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TraceDevice {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
}

/// A field that would be written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TraceChange {
    /// Its name.
    pub field: String,
    /// What it was.
    pub before: String,
    /// What it would be.
    pub after: String,
}
