//! The maps that only podwire has: endpoint rows, run-time switches, event budgets.

use super::shared::shared_struct;

/// How many neighbouring rows of `podwire_endpoints` one device index may land in.
pub const ENDPOINT_PROBES: usize = 4;

/// [`EndpointRow::flags`]: the endpoint has an IPv4 address.
pub const ENDPOINT_ROW_IPV4: u16 = 1;
/// [`EndpointRow::flags`]: the endpoint has an IPv6 address.
pub const ENDPOINT_ROW_IPV6: u16 = 2;

shared_struct! {
    /// A row of `podwire_endpoints`: what the programs check of a packet that a pod sends.
    ///
    /// It stands at its `ifindex` modulo the table's size, or in one of the [`ENDPOINT_PROBES`]` - 1` rows after it.
    pub struct EndpointRow = podwire_endpoint {
        /// Host side of the veth pair; 0 marks a free row.
        pub ifindex: u32,
        /// The endpoint's id.
        pub lxc_id: u16,
        /// [`ENDPOINT_ROW_IPV4`] and [`ENDPOINT_ROW_IPV6`].
        pub flags: u16,
        /// The IPv4 address, network order.
        pub ipv4: u32,
        /// Security identity.
        pub sec_id: u32,
        /// The IPv6 address.
        pub ipv6: [u8; 16],
        /// The container's MAC address, then two zero bytes.
        pub mac: [u8; 8],
        /// The host side's MAC address, then two zero bytes.
        pub node_mac: [u8; 8],
        /// Padding, zero.
        pub pad: [u32; 4],
    }
}

shared_struct! {
    /// The only row of `podwire_runtime`.
    pub struct Runtime = podwire_runtime {
        /// Not 0: forwarded packets emit trace events.
        pub trace: u32,
        /// Drop events allowed per CPU and window of 256 ticks; 0 means none.
        pub drop_events_per_window: u32,
        /// The generation of policy, identities and endpoints; what a program remembers holds for one of them. Never 0.
        pub generation: u32,
        /// Not 0: verdicts emit events.
        pub verdict_events: u32,
        /// Padding, zero.
        pub pad: [u32; 2],
        /// Multipliers of the programs' hashes: random and odd, chosen when the map is made.
        pub hash_keys: [u64; 5],
    }
}

shared_struct! {
    /// A row of `podwire_verdicts`, in which each CPU remembers verdicts. Only the programs use it.
    pub struct VerdictRow = podwire_verdict {
        /// The opener's address; an IPv4 one in the first four bytes, the rest zero.
        pub src: [u8; 16],
        /// The other side's.
        pub dst: [u8; 16],
        /// Destination port, or type of an ICMP message, network order.
        pub dport_be: u16,
        /// IP protocol.
        pub proto: u8,
        /// 1 for IPv4, 2 for IPv6.
        pub family: u8,
        /// Generation under which the row holds; 0 for an empty one.
        pub generation: u32,
        /// The opener's identity.
        pub src_label: u32,
        /// The other side's.
        pub dst_label: u32,
        /// Number of the rule that decided for the opener; 0 for none.
        pub egress_rule: u32,
        /// Number of the rule that decided for the other side; 0 for none.
        pub ingress_rule: u32,
        /// The opener's endpoint; 0 if it is no local pod.
        pub src_id: u16,
        /// The other side's.
        pub dst_id: u16,
        /// Host side of the receiving pod's pair; 0 if it is no local pod.
        pub dst_ifindex: u32,
        /// The receiving pod's MAC address, then two zero bytes.
        pub dst_mac: [u8; 8],
        /// That of the host side of its pair, then two zero bytes.
        pub dst_node_mac: [u8; 8],
        /// 0 for allowed, else the drop reason.
        pub reason: u8,
        /// What was asked and audited (`enum podwire_verdict_flags`).
        pub flags: u8,
        /// What part of the traffic the entry that let it out named (`enum policy_match`).
        pub egress_match: u8,
        /// What part of the traffic the entry that let it in named.
        pub ingress_match: u8,
        /// Padding, zero.
        pub pad: u32,
    }
}

shared_struct! {
    /// A row of `podwire_parties`, in which each CPU remembers who is behind an address. Only the programs use it.
    pub struct PartyRow = podwire_party {
        /// The address; an IPv4 one in the first four bytes, the rest zero.
        pub address: [u8; 16],
        /// 1 for IPv4, 2 for IPv6.
        pub family: u32,
        /// Generation under which the row holds; 0 for an empty one.
        pub generation: u32,
        /// The identity behind it.
        pub identity: u32,
        /// The pod's endpoint; 0 if it is no local pod.
        pub id: u16,
        /// What else it is (`enum podwire_party_flags`).
        pub flags: u16,
        /// Host side of the pod's pair; 0 if it is no local pod.
        pub ifindex: u32,
        /// Padding, zero.
        pub pad: u32,
        /// The pod's MAC address, then two zero bytes.
        pub mac: [u8; 8],
        /// That of the host side of its pair, then two zero bytes.
        pub node_mac: [u8; 8],
    }
}

shared_struct! {
    /// `podwire_event_budget`, one per CPU.
    pub struct EventBudget = podwire_event_budget {
        /// Number of the current window of 256 ticks.
        pub window: u64,
        /// Drop events emitted in it.
        pub emitted: u64,
        /// Events withheld by the limit since the map was made.
        pub limited: u64,
        /// Events lost to a full ring since the map was made.
        pub lost: u64,
    }
}

/// Where a forwarded packet went: the index into `podwire_forwards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ForwardPoint {
    /// From one local pod to another.
    PodToPod = 0,
    /// From a pod to the host's stack: to the host itself, or out.
    PodToStack = 1,
    /// From the host's stack towards a pod.
    HostToPod = 2,
    /// From the network to a pod, past the stack.
    NetworkToPod = 3,
    /// Out of the host side of a pod's pair.
    StackToPod = 4,
    /// Into the host's stack through `cilium_host` or `cilium_net`.
    ToHost = 5,
    /// From the network into the host's stack.
    FromNetwork = 6,
    /// Out to the network.
    ToNetwork = 7,
    /// Nowhere: no rule lets the sender send it. Kept here because a flood of denied packets is to be cheap as well.
    DeniedEgress = 8,
    /// Nowhere: no rule lets the receiver have it.
    DeniedIngress = 9,
    /// Nowhere: a rule forbids the sender to send it.
    DenyRuleEgress = 10,
    /// Nowhere: a rule keeps it from the receiver.
    DenyRuleIngress = 11,
}

impl ForwardPoint {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::PodToPod,
        Self::PodToStack,
        Self::HostToPod,
        Self::NetworkToPod,
        Self::StackToPod,
        Self::ToHost,
        Self::FromNetwork,
        Self::ToNetwork,
        Self::DeniedEgress,
        Self::DeniedIngress,
        Self::DenyRuleEgress,
        Self::DenyRuleIngress,
    ];

    /// Why packets counted here went nowhere; `None` where they were forwarded.
    pub const fn drop_reason(self) -> Option<u8> {
        match self {
            Self::DeniedEgress | Self::DeniedIngress => Some(133),
            Self::DenyRuleEgress | Self::DenyRuleIngress => Some(181),
            _ => None,
        }
    }
}
