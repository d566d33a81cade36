//! `cilium_policy_v2_<id>`: what an endpoint lets in and out; `cilium_policystats`: how often each entry decided.

use super::shared::shared_struct;

shared_struct! {
    /// Key of an endpoint's policy map.
    pub struct PolicyKey = policy_key {
        /// [`PolicyKey::STATIC_BITS`], 8 more with a protocol, and the significant bits of the port.
        pub prefixlen: u32,
        /// The peer's identity; 0 for any.
        pub sec_label: u32,
        /// 0 ingress, 1 egress.
        pub egress: u8,
        /// IP protocol; 0 for any.
        pub protocol: u8,
        /// Destination port, network order.
        pub dport_be: u16,
    }
}

impl PolicyKey {
    /// The bits that are always significant: identity and direction.
    pub const STATIC_BITS: u32 = 40;
}

shared_struct! {
    /// Value of an endpoint's policy map.
    pub struct PolicyEntry = policy_entry {
        /// Proxy port, network order; 0 for none.
        pub proxy_port_be: u16,
        /// [`PolicyEntry::DENY`], and the significant bits behind the static ones from [`PolicyEntry::PREFIX_SHIFT`] on.
        pub flags: u8,
        /// Authentication asked for, with [`PolicyEntry::AUTH_EXPLICIT`].
        pub auth: u8,
        /// Of two matching entries the one of higher precedence wins.
        pub precedence: u32,
        /// Number of the rule.
        pub cookie: u32,
    }
}

impl PolicyEntry {
    /// The entry denies.
    pub const DENY: u8 = 1;
    /// Where the number of significant bits behind the static ones begins in `flags`; five bits.
    pub const PREFIX_SHIFT: u32 = 3;
    /// The bits of `auth` that hold the type.
    pub const AUTH_TYPE_MASK: u8 = 0x7f;
    /// The rule itself named the type of authentication.
    pub const AUTH_EXPLICIT: u8 = 0x80;
}

shared_struct! {
    /// A row of `podwire_policy_outlines`: what the entries of a policy can match at the most.
    pub struct PolicyOutline = podwire_policy_outline {
        /// The kernel's id of the policy's map, for which alone the row holds; 0 for none.
        pub map_id: u64,
        /// By direction (ingress, egress): a bit for each value of the lower six bits of the identities named with ports.
        pub peers: [u64; 2],
        /// The same of those ports.
        pub peer_ports: [u64; 2],
        /// The same of the identities named without ports, or with so many that all bits would be set.
        pub whole_peers: [u64; 2],
        /// The same of the ports that go with any peer.
        pub any_ports: [u64; 2],
    }
}

shared_struct! {
    /// Key of `cilium_policystats`.
    pub struct PolicyStatsKey = policy_stats_key {
        /// The endpoint whose policy decided.
        pub endpoint_id: u16,
        /// Padding, zero.
        pub pad1: u8,
        /// Significant bits behind the static ones.
        pub prefix_len: u8,
        /// The peer's identity; 0 for any.
        pub sec_label: u32,
        /// 0 ingress, 1 egress.
        pub egress: u8,
        /// IP protocol; 0 for any.
        pub protocol: u8,
        /// Destination port, network order.
        pub dport_be: u16,
    }
}

shared_struct! {
    /// Value of `cilium_policystats`, one per CPU.
    pub struct PolicyStatsValue = policy_stats_value {
        /// Packets.
        pub packets: u64,
        /// Bytes.
        pub bytes: u64,
    }
}
