//! A connection in domain types.

use std::fmt;

use bitflags::bitflags;

use super::tuple::{CtDirection, FlowTuple};
use crate::abi::{CtDir, CtEntry};
use crate::{EndpointId, IfIndex, MacAddr, SecurityId};

/// How far a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CtState {
    /// Packets of one direction only (0).
    #[default]
    New,
    /// Packets of both directions (1).
    Established,
    /// A FIN of one side was seen (2).
    Closing,
    /// FINs of both sides, or a RST: only late packets are to come (3).
    Closed,
}

impl CtState {
    /// The state in an entry's byte; unknown ones count as closed.
    const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::New,
            1 => Self::Established,
            2 => Self::Closing,
            _ => Self::Closed,
        }
    }
}

impl fmt::Display for CtState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::New => "new",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Closed => "closed",
        })
    }
}

bitflags! {
    /// What is special about a connection.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct CtFlags: u16 {
        /// TCP: more than the opening SYN was seen.
        const SEEN_NON_SYN = CtEntry::SEEN_NON_SYN;
        /// A RST was seen.
        const RST = CtEntry::RST;
        const _ = !0;
    }
}

bitflags! {
    /// What happens to the packets of one direction.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct CtPathFlags: u8 {
        /// Verdict and path hold for the generation noted.
        const JUDGED = CtDir::JUDGED;
        /// The verdict: let through.
        const ALLOWED = CtDir::ALLOWED;
        /// Leave into the peer of the device noted.
        const REDIRECT_PEER = CtDir::REDIRECT_PEER;
        /// Leave to the stack, no redirect.
        const TO_STACK = CtDir::TO_STACK;
        /// Let through only because the policy is in audit mode.
        const AUDITED = CtDir::AUDITED;
        const _ = !0;
    }
}

/// What an established packet of one direction meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtPath {
    /// Packets seen.
    pub packets: u64,
    /// Bytes seen.
    pub bytes: u64,
    /// When this direction's claim on the entry ends, in jiffies64.
    pub expires: u64,
    /// The generation of policy, identities and endpoints under which the verdict was given; 0 for none.
    pub generation: u32,
    /// Seconds for which a packet keeps the entry.
    pub lifetime: u16,
    /// The device the packets must come in by.
    pub in_device: Option<IfIndex>,
    /// The device they leave by.
    pub out_device: Option<IfIndex>,
    /// What happens to them.
    pub flags: CtPathFlags,
    /// Every TCP flag seen, as in the header's fourteenth byte.
    pub tcp_flags: u8,
    /// The endpoint that receives them.
    pub receiver: Option<EndpointId>,
    /// The source address they must come in with.
    pub in_mac: MacAddr,
    /// The source address they leave with.
    pub src_mac: MacAddr,
    /// The destination address they leave with.
    pub dst_mac: MacAddr,
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The tuple of its first packet.
    pub opener: FlowTuple,
    /// How far it is.
    pub state: CtState,
    /// What is special about it.
    pub flags: CtFlags,
    /// The identity of the side that opened it.
    pub source_identity: SecurityId,
    /// The identity of the other side.
    pub destination_identity: SecurityId,
    /// Number of the rule that let the opener send; 0 for none.
    pub egress_rule: u32,
    /// Number of the rule that let the other side receive; 0 for none.
    pub ingress_rule: u32,
    /// The packets of the side that opened it.
    pub forward: CtPath,
    /// The packets of the other side.
    pub reply: CtPath,
}

impl Connection {
    /// A connection of which nothing is known but its first packet's tuple.
    pub fn new(opener: FlowTuple) -> Self {
        Self {
            opener,
            state: CtState::New,
            flags: CtFlags::default(),
            source_identity: SecurityId::UNKNOWN,
            destination_identity: SecurityId::UNKNOWN,
            egress_rule: 0,
            ingress_rule: 0,
            forward: CtPath::default(),
            reply: CtPath::default(),
        }
    }

    /// When the entry may go, in jiffies64: after the later of the directions' claims.
    pub fn expires(&self) -> u64 {
        self.forward.expires.max(self.reply.expires)
    }

    /// The entry in the map.
    pub(crate) fn encode(&self) -> CtEntry {
        let (key, direction) = self.opener.key();
        let mut entry = CtEntry {
            key,
            src_label: self.source_identity.get(),
            dst_label: self.destination_identity.get(),
            state: self.state as u8,
            opener: direction as u8,
            flags: self.flags.bits(),
            egress_rule: self.egress_rule,
            ingress_rule: self.ingress_rule,
            ..CtEntry::default()
        };
        entry.dir[direction.index()] = self.forward.encode();
        entry.dir[direction.reverse().index()] = self.reply.encode();
        entry
    }

    /// The connection behind an entry; `None` for an unknown family.
    pub(super) fn decode(entry: &CtEntry) -> Option<Self> {
        let direction = CtDirection::from_number(entry.opener);
        Some(Self {
            opener: entry.key.tuple(direction)?,
            state: CtState::from_number(entry.state),
            flags: CtFlags::from_bits_retain(entry.flags),
            source_identity: SecurityId::new(entry.src_label),
            destination_identity: SecurityId::new(entry.dst_label),
            egress_rule: entry.egress_rule,
            ingress_rule: entry.ingress_rule,
            forward: CtPath::decode(&entry.dir[direction.index()]),
            reply: CtPath::decode(&entry.dir[direction.reverse().index()]),
        })
    }
}

impl CtPath {
    /// The turn is the program's to count that writes the entry.
    fn encode(&self) -> CtDir {
        let mut dir = CtDir {
            expires: self.expires,
            seal: CtDir::seal(self.generation, 0, self.flags.bits()),
            in_ifindex: self.in_device.map_or(0, IfIndex::get),
            out_ifindex: self.out_device.map_or(0, IfIndex::get),
            dst_mac: self.dst_mac.octets(),
            src_mac: self.src_mac.octets(),
            in_mac: self.in_mac.octets(),
            dst_id: self.receiver.map_or(0, EndpointId::get),
            tcp_flags: self.tcp_flags,
            lifetime: self.lifetime,
            ..CtDir::default()
        };
        dir.set_counts(self.packets, self.bytes);
        dir
    }

    fn decode(dir: &CtDir) -> Self {
        Self {
            packets: dir.packets(),
            bytes: dir.bytes(),
            expires: dir.expires,
            generation: dir.generation(),
            lifetime: dir.lifetime,
            in_device: IfIndex::new(dir.in_ifindex),
            out_device: IfIndex::new(dir.out_ifindex),
            flags: CtPathFlags::from_bits_retain(dir.flags()),
            tcp_flags: dir.tcp_flags,
            receiver: EndpointId::new(dir.dst_id),
            in_mac: MacAddr::new(dir.in_mac),
            src_mac: MacAddr::new(dir.src_mac),
            dst_mac: MacAddr::new(dir.dst_mac),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::protocol::Protocol;

    fn connection(source: &str, destination: &str) -> Connection {
        let parse = |text: &str| text.parse().expect("valid socket address");
        let opener = FlowTuple::new(Protocol::TCP, parse(source), parse(destination)).expect("one family");
        Connection {
            state: CtState::Established,
            flags: CtFlags::SEEN_NON_SYN,
            source_identity: SecurityId::new(300),
            destination_identity: SecurityId::new(400),
            egress_rule: 77,
            ingress_rule: 78,
            forward: CtPath {
                packets: 7,
                bytes: 700,
                expires: 90,
                generation: 3,
                lifetime: 21_600,
                in_device: IfIndex::new(11),
                out_device: IfIndex::new(13),
                flags: CtPathFlags::JUDGED | CtPathFlags::ALLOWED,
                tcp_flags: 0x12,
                receiver: EndpointId::new(9),
                in_mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
                src_mac: MacAddr::new([2, 0, 0, 0, 0, 2]),
                dst_mac: MacAddr::new([2, 0, 0, 0, 0, 3]),
            },
            reply: CtPath { packets: 6, bytes: 60, expires: 99, ..CtPath::default() },
            ..Connection::new(opener)
        }
    }

    #[test]
    fn directions_follow_the_opener() {
        for (source, destination, index) in [("10.0.0.1:1000", "10.0.0.2:80", 0), ("10.0.0.2:80", "10.0.0.1:1000", 1)] {
            let connection = connection(source, destination);
            let entry = connection.encode();
            assert_eq!((entry.opener, entry.dir[index].packets(), entry.dir[1 - index].packets()), (index as u8, 7, 6));
            assert_eq!(Connection::decode(&entry), Some(connection));
            assert_eq!(connection.expires(), 99);
        }
    }

    #[test]
    fn entries_of_no_family_are_nothing() {
        assert_eq!(Connection::decode(&CtEntry::default()), None);
    }
}
