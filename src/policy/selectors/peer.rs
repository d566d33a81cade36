//! Whom a peer selects.

use std::fmt;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::super::entity::Entity;
use super::super::flat::Peer;
use crate::SecurityId;
use crate::identity::{Identity, World};

/// The identities that stand for all the rest of the world on a node, by family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorldIdentities {
    /// That of IPv4; `None` on a node without IPv4.
    pub ipv4: Option<SecurityId>,
    /// That of IPv6; `None` on a node without IPv6.
    pub ipv6: Option<SecurityId>,
}

impl WorldIdentities {
    /// Those of a node with these families.
    pub fn of_node(ipv4: bool, ipv6: bool) -> Self {
        let world = World::new(ipv4, ipv6);
        Self { ipv4: ipv4.then_some(world.ipv4()), ipv6: ipv6.then_some(world.ipv6()) }
    }

    /// Which those are.
    pub(super) fn world(&self) -> World {
        World::new(self.ipv4.is_some(), self.ipv6.is_some())
    }

    /// The prefix that an identity stands for: the world is that of length 0.
    pub(super) fn prefix_of(&self, identity: &Identity) -> Option<IpNetwork> {
        let id = Some(identity.id());
        identity.cidr().or_else(|| match () {
            () if id == self.ipv4 => Ipv4Network::new(std::net::Ipv4Addr::UNSPECIFIED, 0).ok().map(Into::into),
            () if id == self.ipv6 => Ipv6Network::new(std::net::Ipv6Addr::UNSPECIFIED, 0).ok().map(Into::into),
            () => None,
        })
    }
}

impl Peer {
    /// Whether it selects everyone, those with unknown identities too.
    pub fn is_everyone(&self) -> bool {
        match self {
            Self::Labels(selector) => selector.is_empty(),
            Self::Cidr { .. } => false,
            Self::Entity(entity) => *entity == Entity::All,
        }
    }

    /// Whether it selects an identity.
    pub fn selects(&self, identity: &Identity, world: &WorldIdentities) -> bool {
        match self {
            Self::Labels(selector) => selector.matches(identity.labels()),
            Self::Entity(entity) => {
                // the labels of the world, and of prefixes, don't say the family on a node with one
                let is_of_family = match entity {
                    Entity::WorldIpv4 => world.prefix_of(identity).is_some_and(|prefix| prefix.is_ipv4()),
                    Entity::WorldIpv6 => world.prefix_of(identity).is_some_and(|prefix| prefix.is_ipv6()),
                    _ => false,
                };
                is_of_family || entity.matches(identity.labels())
            }
            Self::Cidr { net, except } => world
                .prefix_of(identity)
                .is_some_and(|prefix| within(prefix, *net) && !except.iter().any(|except| within(prefix, *except))),
        }
    }
}

/// Whether all addresses of `inner` are in `outer`.
fn within(inner: IpNetwork, outer: IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.network())
}

/// As `cilium-dbg policy selectors` prints prefixes: `cidr:192.0.2.0/24-[192.0.2.128/25]`; entities as `entity:world`.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Labels(selector) => selector.fmt(f),
            Self::Entity(entity) => write!(f, "entity:{entity}"),
            Self::Cidr { net, except } if except.is_empty() => write!(f, "cidr:{net}"),
            Self::Cidr { net, except } => {
                let except: Vec<_> = except.iter().map(IpNetwork::to_string).collect();
                write!(f, "cidr:{net}-[{}]", except.join(","))
            }
        }
    }
}
