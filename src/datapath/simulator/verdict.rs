//! What became of a simulated packet.

use std::fmt;
use std::net::IpAddr;

use crate::events::{PolicyVerdictEvent, VerdictAction, VerdictMatch};
use crate::policy::{RuleNumber, RuleSource};
use crate::tables::{Connection, DropReason, PolicyDirection, SourceFile};
use crate::{EndpointId, IfIndex, Labels, MacAddr, SecurityId};

/// What becomes of a packet, and why.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// Whether it is let through. What policy denies and audit mode lets through is.
    pub allowed: bool,
    /// Why it is dropped.
    pub drop: Option<Dropped>,
    /// The program that it met.
    pub program: &'static str,
    /// Who sent it; `None` where it is no IP packet.
    pub source: Option<Side>,
    /// Whom it is for.
    pub destination: Option<Side>,
    /// What the policies that were asked said, egress first: of the packet, or of the one that opened its connection.
    pub policies: Vec<Judgement>,
    /// Its part in its connection.
    pub relation: Relation,
    /// The connection as it is; `None` where there is none that lives.
    pub connection_before: Option<Connection>,
    /// The connection as the packet would leave it.
    pub connection_after: Option<Connection>,
    /// How it goes on.
    pub way: Way,
    /// The frame as it came.
    pub before: Vec<u8>,
    /// The frame as it goes on.
    pub after: Vec<u8>,
}

/// Why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The reason's number.
    pub number: u8,
    /// The file that drops it.
    pub file: SourceFile,
    /// The line.
    pub line: u16,
}

/// One side of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Side {
    /// Its address.
    pub address: IpAddr,
    /// Its identity.
    pub identity: SecurityId,
    /// What the identity stands for; empty where nothing is known of it.
    pub labels: Labels,
    /// The endpoint, with its name.
    pub endpoint: Option<(EndpointId, String)>,
}

/// What an endpoint's policy said in one direction.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Judgement {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Out of it, or into it.
    pub direction: PolicyDirection,
    /// Whether traffic needs a rule that allows it.
    pub enforced: bool,
    /// The identity of the other side.
    pub peer: SecurityId,
    /// What it said.
    pub action: VerdictAction,
    /// Which parts of its entry named the packet.
    pub matched: VerdictMatch,
    /// The rule that decided; `None` where no rule did.
    pub rule: Option<RuleNumber>,
    /// Where that rule stands.
    pub source: Option<RuleSource>,
}

/// A packet's part in its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Relation {
    /// It opens one, where there may be one of the other side's that policy has ended.
    New,
    /// It belongs to one, in the direction in which that was opened.
    Established,
    /// It belongs to one, in the other direction.
    Reply,
    /// It is an error about a packet of one.
    Related,
    /// It belongs to none, or to one whose opener may no longer have it, and opens none.
    None,
}

impl Relation {
    /// The name that users read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::Reply => "reply",
            Self::Related => "related",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a packet goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Way {
    /// Into an endpoint, through this device.
    Endpoint(Device),
    /// Into the host's stack, through this device; from there its routes lead it.
    Stack(Device),
    /// Back out of the device it came in by, as an answer (ARP, neighbour discovery).
    Back(Device),
    /// Nowhere.
    Dropped,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub ifindex: IfIndex,
    /// Its name; empty for one that is gone.
    pub name: String,
}

/// A field of the frame that a program wrote: what it was, what it is.
pub type Change<T> = Option<(T, T)>;

/// What the program wrote into a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// The destination's MAC address.
    pub destination_mac: Change<MacAddr>,
    /// The source's.
    pub source_mac: Change<MacAddr>,
    /// The time to live, or hop limit.
    pub hop_limit: Change<u8>,
    /// Bytes that differ elsewhere, the IPv4 header's checksum aside.
    pub other_bytes: usize,
}

impl Verdict {
    /// Why it is dropped, where the reason has a name.
    pub fn reason(&self) -> Option<DropReason> {
        self.drop.and_then(|drop| DropReason::from_number(drop.number))
    }

    /// What the policy said that denied it, in which direction.
    pub fn denied_by(&self) -> Option<&Judgement> {
        self.policies.iter().find(|judgement| judgement.action == VerdictAction::Deny)
    }

    /// What the program wrote into the frame.
    pub fn changes(&self) -> Changes {
        Changes::between(&self.before, &self.after)
    }
}

impl Dropped {
    /// The reason, as operators read it.
    pub fn text(&self) -> String {
        DropReason::from_number(self.number).map_or_else(|| self.number.to_string(), |reason| reason.text().to_owned())
    }
}

impl Changes {
    fn between(before: &[u8], after: &[u8]) -> Self {
        let mac = |at: usize| field::<6>(before, after, at).map(|(old, new)| (MacAddr::new(old), MacAddr::new(new)));
        // The fields that forwarding changes, by ethertype: time to live and checksum.
        let (hops, checksum) = match before.get(12..14) {
            Some([0x08, 0x00]) => (Some(14 + 8), 14 + 10..14 + 12),
            Some([0x86, 0xdd]) => (Some(14 + 7), 0..0),
            _ => (None, 0..0),
        };
        let named = |at: &usize| *at < 12 || Some(*at) == hops || checksum.contains(at);
        let differs = |at: &usize| before.get(*at) != after.get(*at);
        Self {
            destination_mac: mac(0),
            source_mac: mac(6),
            hop_limit: hops.and_then(|at| field::<1>(before, after, at)).map(|([old], [new])| (old, new)),
            other_bytes: (0..before.len().max(after.len())).filter(|at| !named(at) && differs(at)).count(),
        }
    }
}

fn field<const N: usize>(before: &[u8], after: &[u8], at: usize) -> Change<[u8; N]> {
    let of = |frame: &[u8]| frame.get(at..)?.first_chunk::<N>().copied();
    of(before).zip(of(after)).filter(|(old, new)| old != new)
}

impl Judgement {
    /// From an event; `None` for one that names no endpoint.
    pub(super) fn of(event: &PolicyVerdictEvent, enforced: bool, source: Option<RuleSource>) -> Option<Self> {
        Some(Self {
            endpoint: event.endpoint_id()?,
            direction: event.direction,
            enforced,
            peer: event.remote_identity,
            action: event.action,
            matched: event.matched,
            rule: (event.rule != 0).then(|| RuleNumber::new(event.rule)),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_a_frame_are_named() {
        let mut before = vec![0; 34];
        before[12] = 8;
        before[22] = 64;
        let mut after = before.clone();
        assert_eq!(Changes::between(&before, &after), Changes::default());
        after[0] = 2;
        after[22] = 63;
        after[25] = 1;
        after[33] = 9;
        after.push(0);
        let changes = Changes::between(&before, &after);
        let mac = |first| MacAddr::new([first, 0, 0, 0, 0, 0]);
        let expected =
            Changes { destination_mac: Some((mac(0), mac(2))), hop_limit: Some((64, 63)), other_bytes: 2, ..changes };
        assert_eq!((changes, changes.source_mac), (expected, None));
        for length in 0..before.len() {
            Changes::between(&before[..length], &after);
        }
    }
}
