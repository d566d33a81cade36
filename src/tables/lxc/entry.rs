//! A row of `cilium_lxc` in domain types, and how operators see it.

use std::fmt;
use std::net::IpAddr;

use bitflags::bitflags;

use crate::abi::{EndpointInfo, EndpointKey};
use crate::tables::address;
use crate::{EndpointId, IfIndex, MacAddr, SecurityId};

bitflags! {
    /// What is special about an endpoint.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct EndpointFlags: u32 {
        /// An address of the host itself.
        const HOST = 1;
        /// Runs in the host's network namespace.
        const AT_HOST_NS = 2;
        /// Its IPv4 packets are not masqueraded.
        const NO_SNAT_V4 = 4;
        /// Its IPv6 packets are not masqueraded.
        const NO_SNAT_V6 = 8;
        /// What its policy denies is let through, and reported. Podwire's own.
        const AUDIT = 0x100;
        const _ = !0;
    }
}

/// A local endpoint as the programs know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LxcEndpoint {
    /// Its id on this node.
    pub id: EndpointId,
    /// Its security identity.
    pub identity: SecurityId,
    /// The host side of its veth pair.
    pub ifindex: IfIndex,
    /// The container's MAC address.
    pub mac: MacAddr,
    /// The host side's MAC address.
    pub node_mac: MacAddr,
    /// What is special about it.
    pub flags: EndpointFlags,
    /// The device below, for endpoints that are not veth pairs.
    pub parent_ifindex: Option<IfIndex>,
}

/// What an address of `cilium_lxc` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LxcEntry {
    /// The host itself; printed as `(localhost)`.
    Host,
    /// A local endpoint.
    Endpoint(LxcEndpoint),
    /// A row that no endpoint of this crate can have, such as one without a device.
    Other(EndpointInfo),
}

impl From<LxcEndpoint> for EndpointInfo {
    fn from(endpoint: LxcEndpoint) -> Self {
        Self {
            ifindex: endpoint.ifindex.get(),
            lxc_id: endpoint.id.get(),
            flags: endpoint.flags.bits(),
            mac: endpoint.mac.padded(),
            node_mac: endpoint.node_mac.padded(),
            sec_id: endpoint.identity.get(),
            parent_ifindex: endpoint.parent_ifindex.map_or(0, IfIndex::get),
            ..Self::default()
        }
    }
}

impl From<EndpointInfo> for LxcEntry {
    fn from(info: EndpointInfo) -> Self {
        let flags = EndpointFlags::from_bits_retain(info.flags);
        if flags.contains(EndpointFlags::HOST) {
            return Self::Host;
        }
        let (Some(id), Some(ifindex)) = (EndpointId::new(info.lxc_id), IfIndex::new(info.ifindex)) else {
            return Self::Other(info);
        };
        Self::Endpoint(LxcEndpoint {
            id,
            identity: SecurityId::new(info.sec_id),
            ifindex,
            mac: MacAddr::from_padded(info.mac),
            node_mac: MacAddr::from_padded(info.node_mac),
            flags,
            parent_ifindex: IfIndex::new(info.parent_ifindex),
        })
    }
}

/// The value that marks an address as the host's.
pub(crate) fn host_info() -> EndpointInfo {
    EndpointInfo { flags: EndpointFlags::HOST.bits(), ..EndpointInfo::default() }
}

impl EndpointKey {
    /// The key of an address in this cluster.
    pub const fn of(address: IpAddr) -> Self {
        let (ip, family) = address::encode(address);
        Self { ip, family, key: 0, cluster_id: 0 }
    }

    /// The address; `None` for an unknown family.
    pub const fn address(&self) -> Option<IpAddr> {
        address::decode(self.ip, self.family)
    }
}

/// As `cilium-dbg bpf endpoint list` prints it: `10.0.1.4:0`.
impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(address) => write!(f, "{address}:{}", self.key),
            None => write!(f, "(family {}):{}", self.family, self.key),
        }
    }
}

/// As `cilium-dbg bpf endpoint list` prints it, the padding behind each number included.
impl fmt::Display for EndpointInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if EndpointFlags::from_bits_retain(self.flags).contains(EndpointFlags::HOST) {
            return f.write_str("(localhost)");
        }
        write!(
            f,
            "id={:<5} sec_id={:<5} flags=0x{:04X} ifindex={:<3} mac={:X} nodemac={:X} parent_ifindex={:<3}",
            self.lxc_id,
            self.sec_id,
            self.flags,
            self.ifindex,
            MacAddr::from_padded(self.mac),
            MacAddr::from_padded(self.node_mac),
            self.parent_ifindex,
        )
    }
}

impl fmt::Display for LxcEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Host => host_info().fmt(f),
            Self::Endpoint(endpoint) => EndpointInfo::from(endpoint).fmt(f),
            Self::Other(info) => info.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> LxcEndpoint {
        LxcEndpoint {
            id: EndpointId::new(463).expect("not 0"),
            identity: SecurityId::new(35233),
            ifindex: IfIndex::new(17).expect("not 0"),
            mac: "ba:ca:35:43:56:a3".parse().expect("valid"),
            node_mac: "7e:79:79:23:83:5b".parse().expect("valid"),
            flags: EndpointFlags::default(),
            parent_ifindex: None,
        }
    }

    #[test]
    fn prints_as_operators_know_it() {
        assert_eq!(
            LxcEntry::Endpoint(web()).to_string(),
            "id=463   sec_id=35233 flags=0x0000 ifindex=17  mac=BA:CA:35:43:56:A3 nodemac=7E:79:79:23:83:5B parent_ifindex=0  "
        );
        assert_eq!(LxcEntry::Host.to_string(), "(localhost)");
        assert_eq!(EndpointKey::of("10.0.1.189".parse().expect("valid")).to_string(), "10.0.1.189:0");
        assert_eq!(EndpointKey::of("fd00:10:0:1::7864".parse().expect("valid")).to_string(), "fd00:10:0:1::7864:0");
    }

    #[test]
    fn bytes_are_cilium_s() {
        let info = EndpointInfo::from(web());
        let golden = [
            &[17, 0, 0, 0][..],                          // ifindex
            &[0, 0, 0xcf, 0x01],                         // unused, lxc_id 463
            &[0; 4],                                     // flags
            &[0; 4],                                     // padding
            &[0xba, 0xca, 0x35, 0x43, 0x56, 0xa3, 0, 0], // mac
            &[0x7e, 0x79, 0x79, 0x23, 0x83, 0x5b, 0, 0], // node_mac
            &[0xa1, 0x89, 0, 0],                         // sec_id 35233
            &[0; 12],                                    // parent_ifindex, padding
        ]
        .concat();
        assert_eq!(bytemuck::bytes_of(&info), golden);
        let key = EndpointKey::of("10.0.1.189".parse().expect("valid"));
        assert_eq!(bytemuck::bytes_of(&key), [10, 0, 1, 189, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn entries_round_trip() {
        assert_eq!(LxcEntry::from(EndpointInfo::from(web())), LxcEntry::Endpoint(web()));
        assert_eq!(LxcEntry::from(host_info()), LxcEntry::Host);
        let strange = EndpointInfo { lxc_id: 3, ..EndpointInfo::default() };
        assert_eq!(LxcEntry::from(strange), LxcEntry::Other(strange));
    }
}
