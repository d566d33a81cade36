//! Who knows something of a prefix.

use std::fmt;

use crate::SecurityId;
use crate::tables::IpCacheEntry;

/// Who says which identity a prefix has. Of two the greater one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// What holds where nobody knows better: the world.
    World,
    /// A prefix that a policy names.
    Policy,
    /// Another node, its endpoints and its ranges.
    Node,
    /// The addresses of this node.
    Host,
    /// The endpoints of this node.
    Endpoint,
}

impl Source {
    /// Every source, the lowest first.
    pub const ALL: [Self; 5] = [Self::World, Self::Policy, Self::Node, Self::Host, Self::Endpoint];

    /// `world`, `policy`, `node`, `host` or `endpoint`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::World => "world",
            Self::Policy => "policy",
            Self::Node => "node",
            Self::Host => "host",
            Self::Endpoint => "endpoint",
        }
    }

    /// Where in [`ALL`](Self::ALL) it stands.
    pub(super) const fn index(self) -> usize {
        self as usize
    }

    /// The lowest source that an entry found in the map can have come from.
    pub(super) fn guess(entry: &IpCacheEntry) -> Self {
        match entry.identity {
            _ if entry.tunnel_endpoint.is_some() => Self::Node,
            SecurityId::HOST => Self::Host,
            id if id.is_world() => Self::World,
            id if id.is_cidr() => Self::Policy,
            _ => Self::Node,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
