//! `cilium_lb4_*` and `cilium_lb6_*`: services, their backends and what goes with them.
//!
//! Reverse-NAT numbers are in network byte order wherever they stand; backend slots and backend ids in host order.

use super::shared::shared_struct;

shared_struct! {
    /// Key of `cilium_lb4_services_v2`.
    pub struct Lb4Key = lb4_key {
        /// The frontend's address.
        pub address: [u8; 4],
        /// The frontend's port, network order.
        pub dport_be: u16,
        /// 0 for the master entry, else the slot's number, host order.
        pub backend_slot: u16,
        /// IP protocol; 0 for any.
        pub proto: u8,
        /// 0 external, 1 internal.
        pub scope: u8,
        /// Padding, zero.
        pub pad: [u8; 2],
    }
}

shared_struct! {
    /// Key of `cilium_lb6_services_v2`.
    pub struct Lb6Key = lb6_key {
        /// The frontend's address.
        pub address: [u8; 16],
        /// The frontend's port, network order.
        pub dport_be: u16,
        /// 0 for the master entry, else the slot's number, host order.
        pub backend_slot: u16,
        /// IP protocol; 0 for any.
        pub proto: u8,
        /// 0 external, 1 internal.
        pub scope: u8,
        /// Padding, zero.
        pub pad: [u8; 2],
    }
}

shared_struct! {
    /// Value of `cilium_lb4_services_v2`: a master entry (slot 0) or a backend slot.
    pub struct Lb4Service = lb4_service {
        /// Master: algorithm shifted by 24 and affinity timeout in seconds, or an L7 proxy's port; slot: backend id.
        pub word: u32,
        /// Master: active slots.
        pub count: u16,
        /// Reverse-NAT number, network order.
        pub rev_nat_index_be: u16,
        /// First byte of service flags.
        pub flags: u8,
        /// Second byte of service flags.
        pub flags2: u8,
        /// Master: quarantined slots, behind the active ones.
        pub qcount: u16,
    }
}

shared_struct! {
    /// Value of `cilium_lb6_services_v2`: a master entry (slot 0) or a backend slot.
    pub struct Lb6Service = lb6_service {
        /// Master: algorithm shifted by 24 and affinity timeout in seconds, or an L7 proxy's port; slot: backend id.
        pub word: u32,
        /// Master: active slots.
        pub count: u16,
        /// Reverse-NAT number, network order.
        pub rev_nat_index_be: u16,
        /// First byte of service flags.
        pub flags: u8,
        /// Second byte of service flags.
        pub flags2: u8,
        /// Master: quarantined slots, behind the active ones.
        pub qcount: u16,
    }
}

shared_struct! {
    /// Value of `cilium_lb4_backends_v3`.
    pub struct Lb4Backend = lb4_backend {
        /// Address.
        pub address: [u8; 4],
        /// Port, network order.
        pub port_be: u16,
        /// IP protocol.
        pub proto: u8,
        /// State: 0 active, 1 terminating, 2 quarantined, 3 maintenance.
        pub flags: u8,
        /// Cluster of the backend; 0 is this one.
        pub cluster_id: u16,
        /// Zone of the backend; 0 for none.
        pub zone: u8,
        /// Padding, zero.
        pub pad: u8,
    }
}

shared_struct! {
    /// Value of `cilium_lb6_backends_v3`.
    pub struct Lb6Backend = lb6_backend {
        /// Address.
        pub address: [u8; 16],
        /// Port, network order.
        pub port_be: u16,
        /// IP protocol.
        pub proto: u8,
        /// State: 0 active, 1 terminating, 2 quarantined, 3 maintenance.
        pub flags: u8,
        /// Cluster of the backend; 0 is this one.
        pub cluster_id: u16,
        /// Zone of the backend; 0 for none.
        pub zone: u8,
        /// Padding, zero.
        pub pad: u8,
    }
}

shared_struct! {
    /// Value of `cilium_lb4_reverse_nat`: the frontend behind a reverse-NAT number.
    pub struct Lb4ReverseNat = lb4_reverse_nat {
        /// Address.
        pub address: [u8; 4],
        /// Port, network order.
        pub port_be: u16,
    }
}

shared_struct! {
    /// Value of `cilium_lb6_reverse_nat`: the frontend behind a reverse-NAT number.
    pub struct Lb6ReverseNat = lb6_reverse_nat {
        /// Address.
        pub address: [u8; 16],
        /// Port, network order.
        pub port_be: u16,
    }
}

shared_struct! {
    /// Key of `cilium_lb4_affinity`.
    pub struct Lb4AffinityKey = lb4_affinity_key {
        /// The client's address in the first four bytes, or a namespace's cookie.
        pub client_id: u64,
        /// Reverse-NAT number, network order.
        pub rev_nat_id_be: u16,
        /// 1 when `client_id` is a cookie.
        pub flags: u8,
        /// Padding, zero.
        pub pad1: u8,
        /// Padding, zero.
        pub pad2: u32,
    }
}

shared_struct! {
    /// Key of `cilium_lb6_affinity`.
    pub struct Lb6AffinityKey = lb6_affinity_key {
        /// The client's address, or a namespace's cookie in the first eight bytes.
        pub client_id: [u8; 16],
        /// Reverse-NAT number, network order.
        pub rev_nat_id_be: u16,
        /// 1 when `client_id` is a cookie.
        pub flags: u8,
        /// Padding, zero.
        pub pad1: u8,
        /// Padding, zero.
        pub pad2: u32,
    }
}

shared_struct! {
    /// Value of `cilium_lb4_affinity` and `cilium_lb6_affinity`.
    pub struct LbAffinityVal = lb_affinity_val {
        /// When the client was last seen, seconds since boot.
        pub last_used: u64,
        /// The backend it sticks to.
        pub backend_id: u32,
        /// Padding, zero.
        pub pad: u32,
    }
}

shared_struct! {
    /// Key of `cilium_lb_affinity_match`: the backend belongs to the service.
    pub struct LbAffinityMatch = lb_affinity_match {
        /// The backend.
        pub backend_id: u32,
        /// Reverse-NAT number, network order.
        pub rev_nat_id_be: u16,
        /// Padding, zero.
        pub pad: u16,
    }
}

shared_struct! {
    /// Key of `cilium_lb4_source_range`.
    pub struct Lb4SrcRangeKey = lb4_src_range_key {
        /// [`Lb4SrcRangeKey::STATIC_BITS`] and the significant bits of the address.
        pub prefixlen: u32,
        /// Reverse-NAT number, network order.
        pub rev_nat_id_be: u16,
        /// Padding, zero.
        pub pad: u16,
        /// The range's address.
        pub addr: [u8; 4],
    }
}

impl Lb4SrcRangeKey {
    /// Bits between the prefix length and the address.
    pub const STATIC_BITS: u32 = 32;
}

shared_struct! {
    /// Key of `cilium_lb6_source_range`.
    pub struct Lb6SrcRangeKey = lb6_src_range_key {
        /// [`Lb6SrcRangeKey::STATIC_BITS`] and the significant bits of the address.
        pub prefixlen: u32,
        /// Reverse-NAT number, network order.
        pub rev_nat_id_be: u16,
        /// Padding, zero.
        pub pad: u16,
        /// The range's address.
        pub addr: [u8; 16],
    }
}

impl Lb6SrcRangeKey {
    /// Bits between the prefix length and the address.
    pub const STATIC_BITS: u32 = 32;
}
