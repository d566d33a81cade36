//! `cilium_ipv4_frag_datagrams`, `cilium_ipv6_frag_datagrams`: the ports of fragmented packets, noted by the programs from the first
//! fragment for those behind it.

use crate::abi::{FragPorts, Ipv4FragId, Ipv6FragId};
use crate::maps::MapSpec;

/// The two maps' specifications, IPv4 first.
pub const fn fragment_specs() -> [MapSpec; 2] {
    [
        MapSpec::lru_hash::<Ipv4FragId, FragPorts>("cilium_ipv4_frag_datagrams", 8192)
            .layouts::<Ipv4FragId, FragPorts>(),
        MapSpec::lru_hash::<Ipv6FragId, FragPorts>("cilium_ipv6_frag_datagrams", 8192)
            .layouts::<Ipv6FragId, FragPorts>(),
    ]
}
