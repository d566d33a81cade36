//! `cilium_node_map_v2`: ids of the cluster's nodes by address.

use super::shared::shared_struct;

shared_struct! {
    /// Key of `cilium_node_map_v2`.
    pub struct NodeKey = node_key {
        /// Padding, zero.
        pub pad1: u16,
        /// Padding, zero.
        pub pad2: u8,
        /// 1 for IPv4, 2 for IPv6.
        pub family: u8,
        /// The address; an IPv4 one in the first four bytes, the rest zero.
        pub ip: [u8; 16],
    }
}

shared_struct! {
    /// Value of `cilium_node_map_v2`.
    pub struct NodeValue = node_value {
        /// The node's id.
        pub id: u16,
        /// The node's encryption key; 0 for none.
        pub spi: u8,
        /// Padding, zero.
        pub pad: u8,
    }
}
