//! `cilium_lxc`: local endpoints by address.

use super::shared::shared_struct;

shared_struct! {
    /// Key of `cilium_lxc`.
    pub struct EndpointKey = endpoint_key {
        /// The address; an IPv4 one in the first four bytes, the rest zero.
        pub ip: [u8; 16],
        /// 1 for IPv4, 2 for IPv6.
        pub family: u8,
        /// Unused, zero.
        pub key: u8,
        /// Cluster the address belongs to; 0 is this one.
        pub cluster_id: u16,
    }
}

shared_struct! {
    /// Value of `cilium_lxc`.
    pub struct EndpointInfo = endpoint_info {
        /// Host side of the endpoint's veth pair.
        pub ifindex: u32,
        /// Unused, zero.
        pub unused: u16,
        /// The endpoint's id.
        pub lxc_id: u16,
        /// 1 host, 2 in the host's namespace, 4 no SNAT for IPv4, 8 no SNAT for IPv6.
        pub flags: u32,
        /// Padding, zero.
        pub pad1: u32,
        /// The container's MAC address, then two zero bytes.
        pub mac: [u8; 8],
        /// The host side's MAC address, then two zero bytes.
        pub node_mac: [u8; 8],
        /// Security identity.
        pub sec_id: u32,
        /// Device below, for endpoints that are not veth pairs; 0 otherwise.
        pub parent_ifindex: u32,
        /// Padding, zero.
        pub pad: [u32; 2],
    }
}
