//! A row of a policy map in domain types.

use std::fmt;
use std::num::NonZeroU16;

use crate::SecurityId;
use crate::abi::{PolicyEntry, PolicyKey};
use crate::tables::ports::PortPrefix;
use crate::tables::protocol::Protocol;

/// The way of the traffic that an entry judges, seen from the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyDirection {
    /// Into the endpoint (0).
    Ingress,
    /// Out of the endpoint (1).
    Egress,
}

impl fmt::Display for PolicyDirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        })
    }
}

/// The protocols and ports that an entry judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyL4 {
    /// Every protocol.
    Any,
    /// A protocol and the destination ports; for ICMP the type stands for the port.
    Ports(Protocol, PortPrefix),
}

impl PolicyL4 {
    /// Every port of a protocol.
    pub const fn protocol(protocol: Protocol) -> Self {
        Self::Ports(protocol, PortPrefix::ALL)
    }

    /// One port of a protocol.
    pub const fn port(protocol: Protocol, port: u16) -> Self {
        Self::Ports(protocol, PortPrefix::single(port))
    }

    /// Significant bits of the key behind the static ones: none, 8 with a protocol, and those of the port.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Any => 0,
            Self::Ports(_, ports) => 8 + ports.bits(),
        }
    }

    /// Whether all that `other` judges is judged by this too. What contains another sorts before it, with only what it
    /// contains in between.
    pub fn contains(self, other: Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Ports(..), Self::Any) => false,
            (Self::Ports(protocol, ports), Self::Ports(other, narrow)) => {
                protocol == other && ports.bits() <= narrow.bits() && ports.contains(narrow.port())
            }
        }
    }
}

/// As `cilium-dbg bpf policy get` prints it: `8080/TCP`, `8/ICMP`, `1024-2047/UDP`, `TCP`, `ANY`.
impl fmt::Display for PolicyL4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.pad("ANY"),
            Self::Ports(protocol, ports) if ports.bits() == 0 => f.pad(&protocol.to_string()),
            Self::Ports(protocol, ports) if ports.bits() == 16 => f.pad(&format!("{}/{protocol}", ports.port())),
            Self::Ports(protocol, ports) => f.pad(&format!("{}-{}/{protocol}", ports.port(), ports.last())),
        }
    }
}

/// What traffic an entry judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyMatch {
    /// The way of the traffic.
    pub direction: PolicyDirection,
    /// The peer's identity; [`SecurityId::UNKNOWN`] stands for any.
    pub identity: SecurityId,
    /// Protocols and ports.
    pub l4: PolicyL4,
}

/// As `cilium-dbg map get` prints it: `Ingress: 8474 8080/TCP`.
impl fmt::Display for PolicyMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.direction, self.identity, self.l4)
    }
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyAction {
    /// Let the traffic through.
    Allow,
    /// Send it through the proxy on this port.
    Redirect(NonZeroU16),
    /// Drop it.
    Deny,
}

/// The value of an entry in domain types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PolicyVerdict {
    /// What happens.
    pub action: PolicyAction,
    /// Of two entries that match the one of higher precedence decides.
    pub precedence: u32,
    /// The type of authentication asked for; 0 for none. At most 127.
    pub auth_type: u8,
    /// Whether the rule itself named the type of authentication.
    pub explicit_auth: bool,
    /// Number of the rule; 0 for none.
    pub cookie: u32,
}

impl PolicyVerdict {
    /// An action of a precedence, without authentication or rule number.
    pub const fn new(action: PolicyAction, precedence: u32) -> Self {
        Self { action, precedence, auth_type: 0, explicit_auth: false, cookie: 0 }
    }

    /// The value to store under the key of `matched`: an entry holds its key's prefix length too.
    pub(super) fn encode(&self, matched: &PolicyMatch) -> PolicyEntry {
        let (deny, proxy_port) = match self.action {
            PolicyAction::Allow => (0, 0),
            PolicyAction::Redirect(port) => (0, port.get()),
            PolicyAction::Deny => (PolicyEntry::DENY, 0),
        };
        let explicit = if self.explicit_auth { PolicyEntry::AUTH_EXPLICIT } else { 0 };
        PolicyEntry {
            proxy_port_be: proxy_port.to_be(),
            flags: deny | (matched.l4.bits() << PolicyEntry::PREFIX_SHIFT),
            auth: (self.auth_type & PolicyEntry::AUTH_TYPE_MASK) | explicit,
            precedence: self.precedence,
            cookie: self.cookie,
        }
    }
}

impl From<PolicyEntry> for PolicyVerdict {
    fn from(entry: PolicyEntry) -> Self {
        let action = match NonZeroU16::new(u16::from_be(entry.proxy_port_be)) {
            _ if entry.flags & PolicyEntry::DENY != 0 => PolicyAction::Deny,
            Some(port) => PolicyAction::Redirect(port),
            None => PolicyAction::Allow,
        };
        Self {
            action,
            precedence: entry.precedence,
            auth_type: entry.auth & PolicyEntry::AUTH_TYPE_MASK,
            explicit_auth: entry.auth & PolicyEntry::AUTH_EXPLICIT != 0,
            cookie: entry.cookie,
        }
    }
}

impl PolicyKey {
    /// The key of an entry.
    pub const fn of(matched: &PolicyMatch) -> Self {
        let (protocol, port) = match matched.l4 {
            PolicyL4::Any => (0, 0),
            PolicyL4::Ports(protocol, ports) => (protocol.number(), ports.port()),
        };
        Self {
            prefixlen: Self::STATIC_BITS + matched.l4.bits() as u32,
            sec_label: matched.identity.get(),
            egress: matched.direction as u8,
            protocol,
            dport_be: port.to_be(),
        }
    }

    /// What the key matches; `None` for an impossible prefix length.
    pub fn matched(&self) -> Option<PolicyMatch> {
        let bits = u8::try_from(self.prefixlen.checked_sub(Self::STATIC_BITS)?).ok()?;
        let port = u16::from_be(self.dport_be);
        let l4 = match bits {
            0 => PolicyL4::Any,
            8..=24 => PolicyL4::Ports(Protocol::new(self.protocol), PortPrefix::new(port, bits - 8)?),
            _ => return None,
        };
        let direction = if self.egress & 1 == 0 { PolicyDirection::Ingress } else { PolicyDirection::Egress };
        Some(PolicyMatch { direction, identity: SecurityId::new(self.sec_label), l4 })
    }
}

impl PolicyEntry {
    /// The value to store under the key of `matched`.
    pub fn of(matched: &PolicyMatch, verdict: &PolicyVerdict) -> Self {
        verdict.encode(matched)
    }
}

/// As `cilium-dbg map get` prints it.
impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.matched() {
            Some(matched) => matched.fmt(f),
            None => write!(f, "{self:?}"),
        }
    }
}

/// As `cilium-dbg map get` prints it: the proxy port and the significant bits behind the static ones.
impl fmt::Display for PolicyEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", u16::from_be(self.proxy_port_be), self.flags >> Self::PREFIX_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ingress(identity: u32, l4: PolicyL4) -> PolicyMatch {
        PolicyMatch { direction: PolicyDirection::Ingress, identity: SecurityId::new(identity), l4 }
    }

    #[test]
    fn prefix_lengths() {
        assert_eq!(PolicyKey::of(&ingress(1, PolicyL4::Any)).prefixlen, 40);
        assert_eq!(PolicyKey::of(&ingress(1, PolicyL4::protocol(Protocol::TCP))).prefixlen, 48);
        assert_eq!(PolicyKey::of(&ingress(1, PolicyL4::port(Protocol::TCP, 80))).prefixlen, 64);
        let range = PolicyL4::Ports(Protocol::UDP, PortPrefix::new(1024, 6).expect("valid"));
        assert_eq!(PolicyKey::of(&ingress(1, range)).prefixlen, 54);
    }

    #[test]
    fn bytes_are_cilium_s() {
        // From a recorded map: ingress, identity 8474, 8080/TCP; flags 192, DestPortNetwork 36895.
        let matched = ingress(8474, PolicyL4::port(Protocol::TCP, 8080));
        let golden = [64, 0, 0, 0, 0x1a, 0x21, 0, 0, 0, 6, 0x1f, 0x90];
        assert_eq!(bytemuck::bytes_of(&PolicyKey::of(&matched)), golden);
        let entry = PolicyVerdict::new(PolicyAction::Allow, 4_294_967_041).encode(&matched);
        assert_eq!(bytemuck::bytes_of(&entry), [0, 0, 192, 0, 0x01, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        let deny = PolicyVerdict::new(PolicyAction::Deny, u32::MAX).encode(&ingress(16_777_217, PolicyL4::Any));
        assert_eq!(deny.flags, 1);
        let port = NonZeroU16::new(10_080).expect("not 0");
        let redirect = PolicyVerdict::new(PolicyAction::Redirect(port), 0).encode(&matched);
        assert_eq!(&bytemuck::bytes_of(&redirect)[..2], [0x27, 0x60]);
    }

    #[test]
    fn prints_as_operators_know_it() {
        assert_eq!(ingress(0, PolicyL4::port(Protocol::ICMP, 8)).to_string(), "Ingress: 0 8/ICMP");
        assert_eq!(ingress(0, PolicyL4::port(Protocol::ICMPV6, 128)).to_string(), "Ingress: 0 128/ICMPv6");
        let egress = PolicyMatch { direction: PolicyDirection::Egress, ..ingress(0, PolicyL4::Any) };
        assert_eq!(PolicyKey::of(&egress).to_string(), "Egress: 0 ANY");
        let entry = PolicyVerdict::new(PolicyAction::Allow, 0).encode(&ingress(0, PolicyL4::port(Protocol::ICMP, 8)));
        assert_eq!(entry.to_string(), "0 24");
    }

    proptest! {
        #[test]
        fn keys_and_values_round_trip(
            egress: bool, identity: u32, protocol: u8, port: u16, bits in 0_u8..=16, any: bool,
            kind in 0_u8..3, proxy in 1_u16.., precedence: u32, auth_type in 0_u8..128, explicit_auth: bool, cookie: u32,
        ) {
            let base = if bits == 0 { 0 } else { port & (u16::MAX << (16 - bits)) };
            let ports = PortPrefix::new(base, bits).expect("masked");
            let matched = PolicyMatch {
                direction: if egress { PolicyDirection::Egress } else { PolicyDirection::Ingress },
                identity: SecurityId::new(identity),
                l4: if any { PolicyL4::Any } else { PolicyL4::Ports(Protocol::new(protocol), ports) },
            };
            let key = PolicyKey::of(&matched);
            prop_assert_eq!(key.matched(), Some(matched));
            let action = match kind {
                0 => PolicyAction::Allow,
                1 => PolicyAction::Deny,
                _ => PolicyAction::Redirect(NonZeroU16::new(proxy).expect("from 1")),
            };
            let verdict = PolicyVerdict { action, precedence, auth_type, explicit_auth, cookie };
            let entry = verdict.encode(&matched);
            prop_assert_eq!(PolicyVerdict::from(entry), verdict);
            // The entry alone tells its key's prefix length.
            prop_assert_eq!(PolicyKey::STATIC_BITS + u32::from(entry.flags >> PolicyEntry::PREFIX_SHIFT), key.prefixlen);
        }
    }
}
