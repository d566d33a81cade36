//! Rules in the form in which they are compiled: one direction and one action each, protocols and ports spelled out.
//!
//! A document's rule becomes one flat rule per section entry (each `ingress`, `egress`, `ingressDeny`, `egressDeny` item); all
//! of them carry the number of the rule they come from.

use std::fmt;
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{Entity, Selector};
use crate::tables::{PolicyDirection, Protocol};

/// The number of a rule in force; map entries, connections and verdict events name the rule that decided by it. 0 stands for no
/// rule: what holds by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleNumber(u32);

impl RuleNumber {
    /// No rule.
    pub const NONE: Self = Self(0);

    /// The rule of this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number, as it stands in a map entry's cookie.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for RuleNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One statement about the traffic of some endpoints in one direction.
///
/// Traffic matches when the endpoint is a subject, the other side is one of the peers, and protocol and destination port are
/// among `l4`. Of the rules that match, one that denies beats all that allow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FlatRule {
    /// The endpoints the rule is about.
    pub subject: Selector,
    /// Whether it is about traffic into or out of them.
    pub direction: PolicyDirection,
    /// The other side.
    pub peers: Peers,
    /// Protocols and destination ports; empty for all.
    pub l4: Vec<L4Match>,
    /// Denies what it matches, instead of allowing it.
    pub deny: bool,
    /// Its mere presence makes the direction enforced: what no rule allows is denied.
    pub default_deny: bool,
    /// The rule it comes from.
    pub rule: RuleNumber,
}

impl FlatRule {
    /// The prefixes that it names, exceptions too. Each needs an identity, or the rule can't tell its addresses from others.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNetwork> {
        let peers: &[Peer] = match &self.peers {
            Peers::Any => &[],
            Peers::Some(peers) => peers,
        };
        peers.iter().flat_map(|peer| {
            let (net, except): (_, &[IpNetwork]) = match peer {
                Peer::Cidr { net, except } => (Some(*net), except),
                Peer::Labels(_) | Peer::Entity(_) => (None, &[]),
            };
            net.into_iter().chain(except.iter().copied())
        })
    }
}

/// The other side of a rule's traffic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peers {
    /// Everyone, known or not.
    Any,
    /// Everyone whom one of them selects; nobody when there is none.
    Some(Vec<Peer>),
}

/// One selection of peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Those whose labels match.
    Labels(Selector),
    /// Addresses outside the cluster: the CIDR identities whose prefix lies within `net` and within none of `except`.
    Cidr {
        /// The prefix.
        net: IpNetwork,
        /// Prefixes within it that are left out.
        except: Vec<IpNetwork>,
    },
    /// A group that has a name.
    Entity(Entity),
}

/// A protocol and its destination ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct L4Match {
    /// The protocol. [`Protocol::ANY`] stands for every protocol where `ports` are all of them, else for TCP, UDP and SCTP.
    pub protocol: Protocol,
    /// The ports; for ICMP and ICMPv6 the types.
    pub ports: L4Ports,
}

/// Destination ports of a protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum L4Ports {
    /// From the first to the last; [`L4Ports::ALL`] also matches protocols without ports.
    Range(RangeInclusive<u16>),
    /// The port that the subject itself has given this name for the protocol. A name that it hasn't given selects nothing.
    Named(String),
}

impl L4Ports {
    /// All ports, 0 too.
    pub const ALL: Self = Self::Range(0..=u16::MAX);

    /// One port.
    pub const fn single(port: u16) -> Self {
        Self::Range(port..=port)
    }
}
