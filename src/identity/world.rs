//! What is outside the cluster.

use ipnetwork::IpNetwork;

use crate::SecurityId;

/// Which identities the world has on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum World {
    /// [`SecurityId::WORLD`]: the node has one family of addresses.
    OneFamily,
    /// [`SecurityId::WORLD_IPV4`] and [`SecurityId::WORLD_IPV6`]: it has both.
    BothFamilies,
}

impl World {
    /// The world of a node with these families.
    pub const fn new(ipv4: bool, ipv6: bool) -> Self {
        if ipv4 && ipv6 { Self::BothFamilies } else { Self::OneFamily }
    }

    /// Its identity for IPv4.
    pub const fn ipv4(self) -> SecurityId {
        match self {
            Self::OneFamily => SecurityId::WORLD,
            Self::BothFamilies => SecurityId::WORLD_IPV4,
        }
    }

    /// Its identity for IPv6.
    pub const fn ipv6(self) -> SecurityId {
        match self {
            Self::OneFamily => SecurityId::WORLD,
            Self::BothFamilies => SecurityId::WORLD_IPV6,
        }
    }

    /// Its identity for the family of a prefix.
    pub const fn of(self, prefix: IpNetwork) -> SecurityId {
        match prefix {
            IpNetwork::V4(_) => self.ipv4(),
            IpNetwork::V6(_) => self.ipv6(),
        }
    }
}
