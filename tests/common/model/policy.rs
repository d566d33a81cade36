//! Who an address is, and what the policies of both ends say about a packet between two.

use std::net::IpAddr;

use super::super::datapath::FROM_CONTAINER;
use super::packet::{Content, Tuple};
use super::{Drop, ENDPOINT_NOT_READY, Endpoint, Ends, HOST, POLICY_DENIED, POLICY_DENY_RULE, World};

/// Seen from the endpoint. The numbers are those of counters and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    Ingress = 1,
    Egress = 2,
}

impl Direction {
    /// That of a program's own drops.
    pub(crate) fn of_program(program: &str) -> Self {
        if program == FROM_CONTAINER { Self::Egress } else { Self::Ingress }
    }
}

/// A line of an endpoint's policy: the peer, the direction, perhaps a protocol, perhaps a range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// 0: whoever.
    pub(crate) identity: u32,
    pub(crate) direction: Direction,
    pub(crate) protocol: Option<u8>,
    /// Only with a protocol.
    pub(crate) ports: PortPrefix,
    pub(crate) deny: bool,
    pub(crate) precedence: u32,
    /// The rule's number.
    pub(crate) cookie: u32,
    pub(crate) proxy_port: u16,
}

/// Ports that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortPrefix {
    pub(crate) port: u16,
    /// 0 to 16.
    pub(crate) bits: u8,
}

impl PortPrefix {
    pub(crate) const ALL: Self = Self { port: 0, bits: 0 };

    fn has(self, port: u16) -> bool {
        self.bits == 0 || (self.port ^ port) >> (16 - self.bits) == 0
    }
}

impl Entry {
    /// How much of the traffic it names beyond identity and direction, in bits.
    pub(crate) fn bits(&self) -> u8 {
        if self.protocol.is_some() { 8 + self.ports.bits } else { 0 }
    }

    fn matches(&self, identity: u32, direction: Direction, protocol: u8, port: u16) -> bool {
        self.identity == identity
            && self.direction == direction
            && self.protocol.is_none_or(|own| own == protocol && self.ports.has(port))
    }

    /// The number under which a verdict event says what the entry named.
    fn kind(&self) -> u8 {
        match (self.identity != 0, self.bits()) {
            (true, 0) => 1,
            (true, 8) => 5,
            (true, _) => 2,
            (false, 0) => 4,
            (false, 8) => 6,
            (false, _) => 3,
        }
    }
}

/// What a policy says of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// The drop reason, 0 for allowed.
    reason: u8,
    /// Let through only because the endpoint is in audit mode; `reason` is then what it would have been dropped for.
    audited: bool,
    kind: u8,
    pub(super) cookie: u32,
}

impl Decision {
    fn allows(&self) -> bool {
        self.reason == 0 || self.audited
    }
}

/// What both policies say of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judgement {
    pub(super) source_identity: u32,
    pub(super) destination_identity: u32,
    source_id: u16,
    destination_id: u16,
    protocol: u8,
    port: u16,
    ipv6: bool,
    pub(super) egress: Option<Decision>,
    pub(super) ingress: Option<Decision>,
    /// What the packet at hand is to the connection: 0 one of its opener's, 1 a reply; 2 and 3 an error about the one and the other.
    raised_by: u8,
}

/// A verdict as an event reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VerdictEvent {
    pub(crate) source: u16,
    pub(crate) remote_identity: u32,
    /// 0 allowed, the drop reason below 0 denied.
    pub(crate) verdict: i32,
    pub(crate) direction: Direction,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    pub(crate) ipv6: bool,
    pub(crate) kind: u8,
    pub(crate) audited: bool,
    pub(crate) cookie: u32,
    pub(crate) raised_by: u8,
}

impl Judgement {
    /// The reason for which the packet may not pass, and the direction whose policy says so.
    fn denial(&self) -> Option<(u8, Direction)> {
        let directions = [(self.egress, Direction::Egress), (self.ingress, Direction::Ingress)];
        let mut denials = directions.into_iter().filter_map(|(decision, direction)| {
            decision.filter(|decision| !decision.allows()).map(|decision| (decision.reason, direction))
        });
        denials.next()
    }

    pub(super) fn raised_by(self, raised_by: u8) -> Self {
        Self { raised_by, ..self }
    }

    pub(super) fn allows(&self) -> bool {
        self.denial().is_none()
    }

    /// The events that report it: one a direction that was judged.
    pub(super) fn events(&self) -> Vec<VerdictEvent> {
        let report = |decision: Decision, direction, source, remote_identity| VerdictEvent {
            source,
            remote_identity,
            verdict: if decision.allows() { 0 } else { -i32::from(decision.reason) },
            direction,
            protocol: self.protocol,
            port: self.port,
            ipv6: self.ipv6,
            kind: decision.kind,
            audited: decision.audited,
            cookie: decision.cookie,
            raised_by: self.raised_by,
        };
        let egress = self.egress.map(|it| report(it, Direction::Egress, self.source_id, self.destination_identity));
        let ingress = self.ingress.map(|it| report(it, Direction::Ingress, self.destination_id, self.source_identity));
        egress.into_iter().chain(ingress).collect()
    }
}

/// Identity of an address and, if it is a local endpoint's, that.
struct Who<'a> {
    identity: u32,
    endpoint: Option<&'a Endpoint>,
}

impl World {
    fn who(&self, address: IpAddr) -> Who<'_> {
        if let Some(endpoint) = self.endpoint_of(address) {
            return Who { identity: endpoint.identity, endpoint: Some(endpoint) };
        }
        if self.host_addresses.contains(&address) {
            return Who { identity: HOST, endpoint: None };
        }
        let prefixes = self.ipcache.iter().filter(|(prefix, _)| prefix.contains(address));
        let longest = prefixes.max_by_key(|(prefix, _)| prefix.prefix());
        let world = if address.is_ipv4() { self.world_ipv4 } else { self.world_ipv6 };
        Who { identity: longest.map_or(world, |(_, identity)| *identity), endpoint: None }
    }

    /// Judges a packet that opens a connection, or would.
    pub(super) fn judge(&self, packet: &Tuple) -> Judgement {
        let (source, destination) = (self.who(packet.source), self.who(packet.destination));
        let mut judgement = Judgement {
            source_identity: source.identity,
            destination_identity: destination.identity,
            source_id: source.endpoint.map_or(0, |endpoint| endpoint.id),
            destination_id: destination.endpoint.map_or(0, |endpoint| endpoint.id),
            protocol: packet.protocol,
            port: packet.content.judged_port(),
            ipv6: packet.source.is_ipv6(),
            egress: None,
            ingress: None,
            raised_by: 0,
        };
        // What an endpoint tells itself is its own affair.
        if packet.source == packet.destination {
            return judgement;
        }
        let decide = |endpoint: &Endpoint, direction, peer| {
            self.decide(endpoint, direction, peer, judgement.protocol, judgement.port)
        };
        let egress = source.endpoint.map(|endpoint| decide(endpoint, Direction::Egress, destination.identity));
        // Where the source may not send, the destination is not asked.
        let ingress = match egress {
            Some(decision) if !decision.allows() => None,
            _ => destination.endpoint.map(|endpoint| decide(endpoint, Direction::Ingress, source.identity)),
        };
        judgement.egress = egress;
        judgement.ingress = ingress;
        judgement
    }

    fn decide(&self, endpoint: &Endpoint, direction: Direction, peer: u32, protocol: u8, port: u16) -> Decision {
        let Some(policy) = self.policies.get(&endpoint.id) else {
            return Decision { reason: ENDPOINT_NOT_READY, audited: endpoint.audit, kind: 0, cookie: 0 };
        };
        let best = |identity| {
            let matching = policy.iter().filter(|entry| entry.matches(identity, direction, protocol, port));
            matching.max_by_key(|entry| entry.bits())
        };
        let winner = match (best(peer), best(0)) {
            (Some(specific), Some(general)) => {
                let stronger = (general.precedence, general.deny) > (specific.precedence, specific.deny);
                Some(if stronger { general } else { specific })
            }
            (specific, general) => specific.or(general),
        };
        let reason = match winner {
            None => POLICY_DENIED,
            Some(entry) if entry.deny => POLICY_DENY_RULE,
            Some(_) => 0,
        };
        Decision {
            reason,
            audited: reason != 0 && endpoint.audit,
            kind: winner.map_or(0, Entry::kind),
            cookie: winner.map_or(0, |entry| entry.cookie),
        }
    }

    /// The drop of a packet that policy denies, of whichever direction of its connection.
    pub(super) fn denied(&self, packet: &Tuple, judgement: &Judgement) -> Option<Drop> {
        let (reason, direction) = judgement.denial()?;
        let (source, destination) = (self.who(packet.source), self.who(packet.destination));
        let ends = Ends {
            source_identity: source.identity,
            destination_identity: destination.identity,
            destination_id: destination.endpoint.map_or(0, |endpoint| endpoint.id),
        };
        Some(Drop { reason, direction: Some(direction), judged: Some(ends) })
    }
}

impl Content {
    /// What stands for the destination port where policy is asked.
    fn judged_port(&self) -> u16 {
        match *self {
            Self::Tcp { ports, .. } | Self::Ports { ports } => ports.1,
            Self::Echo { kind, .. } | Self::Icmp { kind, .. } => kind.into(),
            Self::Plain => 0,
        }
    }
}
