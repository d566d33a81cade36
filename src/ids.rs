//! Numbers that name things: endpoints, identities, devices.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// An endpoint's number on its node: 1 to 65535, stable over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointId(NonZeroU16);

impl EndpointId {
    /// The id with this number; `None` for 0.
    pub const fn new(id: u16) -> Option<Self> {
        match NonZeroU16::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for EndpointId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let id = text.parse().map_err(|_| Error::invalid("endpoint id", text, "not a number from 1 to 65535"))?;
        Ok(Self(id))
    }
}

/// A numeric security identity.
///
/// | numbers | what they stand for |
/// |---|---|
/// | 0 | not known |
/// | 1 to 255 | reserved ones; those in use have a constant here |
/// | 256 to 65535 | label sets of endpoints |
/// | from 16777216 (2^24) | prefixes that policies name |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecurityId(u32);

impl SecurityId {
    /// Not known.
    pub const UNKNOWN: Self = Self(0);
    /// The node itself.
    pub const HOST: Self = Self(1);
    /// Everything outside the cluster, on a node with one family of addresses.
    pub const WORLD: Self = Self(2);
    /// An endpoint that somebody else manages.
    pub const UNMANAGED: Self = Self(3);
    /// The endpoint that probes other nodes.
    pub const HEALTH: Self = Self(4);
    /// An endpoint that has no labels yet.
    pub const INIT: Self = Self(5);
    /// Another node of the cluster.
    pub const REMOTE_NODE: Self = Self(6);
    /// A node that serves the Kubernetes API.
    pub const KUBE_APISERVER: Self = Self(7);
    /// A proxy at the cluster's edge.
    pub const INGRESS: Self = Self(8);
    /// The world by IPv4, on a node with both families.
    pub const WORLD_IPV4: Self = Self(9);
    /// The world by IPv6, on a node with both families.
    pub const WORLD_IPV6: Self = Self(10);

    /// The lowest identity of a label set.
    pub const FIRST_OF_LABELS: Self = Self(256);
    /// The highest identity of a label set.
    pub const LAST_OF_LABELS: Self = Self(65_535);
    /// From here on identities stand for prefixes.
    pub const FIRST_OF_CIDRS: Self = Self(1 << 24);

    /// The identity with this number.
    pub const fn new(id: u32) -> Self {
        Self(id)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether the number's meaning is fixed: 1 to 255.
    pub const fn is_reserved(self) -> bool {
        0 < self.0 && self.0 < Self::FIRST_OF_LABELS.0
    }

    /// Whether it stands for a prefix.
    pub const fn is_cidr(self) -> bool {
        self.0 >= Self::FIRST_OF_CIDRS.0
    }

    /// Whether it is one of the world's own: not that of a prefix in it.
    pub const fn is_world(self) -> bool {
        matches!(self, Self::WORLD | Self::WORLD_IPV4 | Self::WORLD_IPV6)
    }
}

impl fmt::Display for SecurityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SecurityId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let id = text.parse().map_err(|_| Error::invalid("identity", text, "not a number from 0 to 4294967295"))?;
        Ok(Self(id))
    }
}

/// A network device's index in its namespace; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IfIndex(NonZeroU32);

impl IfIndex {
    /// The device with this index; `None` for 0.
    pub const fn new(index: u32) -> Option<Self> {
        match NonZeroU32::new(index) {
            Some(index) => Some(Self(index)),
            None => None,
        }
    }

    /// The index.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_by_number() {
        // number, reserved, prefix, world
        let table = [
            (0, false, false, false),
            (1, true, false, false),
            (2, true, false, true),
            (9, true, false, true),
            (10, true, false, true),
            (11, true, false, false),
            (255, true, false, false),
            (256, false, false, false),
            (65_535, false, false, false),
            ((1 << 24) - 1, false, false, false),
            (1 << 24, false, true, false),
            (u32::MAX, false, true, false),
        ];
        for (number, reserved, cidr, world) in table {
            let id: SecurityId = number.to_string().parse().expect("a number");
            assert_eq!((id.get(), id.is_reserved(), id.is_cidr(), id.is_world()), (number, reserved, cidr, world));
        }
        for bad in ["", "-1", "4294967296", "host", "1 ", "0x1"] {
            let error = bad.parse::<SecurityId>().expect_err("no number");
            assert!(error.to_string().starts_with("identity: "), "{error}");
        }
    }
}
