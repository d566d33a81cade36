//! Entities: names for groups of peers that have no labels of their own.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Label, Labels, Result};

/// The source of labels that the datapath itself gives.
const RESERVED: &str = "reserved";

/// A named group of peers.
///
/// Which identities it stands for follows from their reserved labels, so that an identity with several of them (a node that
/// serves the Kubernetes API, say) belongs to several entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entity {
    /// Everybody: every identity, also those that do not exist yet.
    All,
    /// Everything outside the cluster, of both families, prefixes that rules name included.
    World,
    /// What of the world has an IPv4 address. On a node with one family, the world as such and prefixes have only the label
    /// `reserved:world`, whatever family they are of: [`Peer::selects`](super::Peer::selects) knows.
    WorldIpv4,
    /// What of the world has an IPv6 address; otherwise like [`Entity::WorldIpv4`].
    WorldIpv6,
    /// Every endpoint and node of the cluster: whatever is not of the world.
    Cluster,
    /// This node.
    Host,
    /// The other nodes.
    RemoteNode,
    /// The servers of the Kubernetes API, in the cluster or outside.
    KubeApiServer,
    /// The endpoints for health checks.
    Health,
    /// Endpoints that have no labels yet.
    Init,
    /// The addresses of Ingress proxies.
    Ingress,
    /// Endpoints that somebody else manages.
    Unmanaged,
    /// Nobody.
    None,
}

impl Entity {
    /// Every entity, in the order of their names' importance.
    pub const EVERY: [Self; 13] = [
        Self::All,
        Self::World,
        Self::WorldIpv4,
        Self::WorldIpv6,
        Self::Cluster,
        Self::Host,
        Self::RemoteNode,
        Self::KubeApiServer,
        Self::Health,
        Self::Init,
        Self::Ingress,
        Self::Unmanaged,
        Self::None,
    ];

    /// The name in documents; where an entity is one reserved label, also that label's key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::World => "world",
            Self::WorldIpv4 => "world-ipv4",
            Self::WorldIpv6 => "world-ipv6",
            Self::Cluster => "cluster",
            Self::Host => "host",
            Self::RemoteNode => "remote-node",
            Self::KubeApiServer => "kube-apiserver",
            Self::Health => "health",
            Self::Init => "init",
            Self::Ingress => "ingress",
            Self::Unmanaged => "unmanaged",
            Self::None => "none",
        }
    }

    /// Whether it stands for an identity with these labels.
    pub fn matches(self, labels: &Labels) -> bool {
        let reserved = |entity: Self| labels.iter().any(|label| is_reserved(label, entity.name()));
        match self {
            Self::All => true,
            Self::None => false,
            Self::World => is_world(labels),
            Self::Cluster => !labels.is_empty() && (!is_world(labels) || reserved(Self::KubeApiServer)),
            single => reserved(single),
        }
    }
}

fn is_reserved(label: &Label, key: &str) -> bool {
    label.source() == RESERVED && label.key() == key
}

/// Whether they are those of the world or of a part of it.
fn is_world(labels: &Labels) -> bool {
    let worlds = [Entity::World, Entity::WorldIpv4, Entity::WorldIpv6];
    labels.iter().any(|label| worlds.iter().any(|world| is_reserved(label, world.name())))
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Entity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::EVERY.into_iter().find(|entity| entity.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::EVERY.iter().map(|entity| entity.name()).collect();
            Error::invalid("entity", text, format!("not one of {}", names.join(", ")))
        })
    }
}
