//! `cilium_ipcache_v2`: identity and whereabouts of a peer by longest prefix.

use super::shared::shared_struct;

shared_struct! {
    /// Key of `cilium_ipcache_v2`.
    pub struct IpCacheKey = ipcache_key {
        /// [`IpCacheKey::STATIC_BITS`] and the significant bits of the address.
        pub prefixlen: u32,
        /// Cluster the address belongs to; 0 is this one.
        pub cluster_id: u16,
        /// Padding, zero.
        pub pad1: u8,
        /// 1 for IPv4, 2 for IPv6.
        pub family: u8,
        /// The address; an IPv4 one in the first four bytes, the rest zero.
        pub ip: [u8; 16],
    }
}

impl IpCacheKey {
    /// Bits between the prefix length and the address.
    pub const STATIC_BITS: u32 = 32;
}

shared_struct! {
    /// Value of `cilium_ipcache_v2`.
    pub struct RemoteEndpointInfo = remote_endpoint_info {
        /// Security identity.
        pub sec_identity: u32,
        /// Node to which packets are tunnelled; an IPv4 address in the first four bytes, the rest zero.
        pub tunnel_endpoint: [u8; 16],
        /// Padding, zero.
        pub pad: u16,
        /// Encryption key in use; 0 for none.
        pub key: u8,
        /// The constants of this type, or'ed.
        pub flags: u8,
    }
}

impl RemoteEndpointInfo {
    /// Reached without a tunnel.
    pub const SKIP_TUNNEL: u8 = 1;
    /// `tunnel_endpoint` is set.
    pub const HAS_TUNNEL: u8 = 2;
    /// `tunnel_endpoint` is an IPv6 address.
    pub const TUNNEL_IPV6: u8 = 4;
    /// The peer is in another cluster.
    pub const REMOTE_CLUSTER: u8 = 8;
}
