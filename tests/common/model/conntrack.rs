//! Connections: who opened them, how far they are, how long they are kept.

use std::net::IpAddr;

use super::packet::{ACK, Content, FIN, RST, SYN, TCP, Tuple};
use super::policy::{Judgement, VerdictEvent};
use super::{Drop, Lifetimes, World};

/// A connection's two sides, the smaller (address, port) first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) lo: (IpAddr, u16),
    pub(crate) hi: (IpAddr, u16),
    pub(crate) protocol: u8,
    /// Of ICMP echo, who sends the requests.
    pub(crate) asker: Option<Side>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Lo = 0,
    Hi = 1,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Lo => Self::Hi,
            Self::Hi => Self::Lo,
        }
    }
}

impl Key {
    /// The connection of a packet, and the side that sent it.
    fn of(packet: &Tuple) -> (Self, Side) {
        let (from, to) = match packet.content {
            Content::Tcp { ports, .. } | Content::Ports { ports } => ports,
            Content::Echo { id, .. } => (id, id),
            Content::Icmp { .. } | Content::Plain => (0, 0),
        };
        let (source, destination) = ((packet.source, from), (packet.destination, to));
        let (lo, hi, sender) =
            if source <= destination { (source, destination, Side::Lo) } else { (destination, source, Side::Hi) };
        let asker = match packet.content {
            Content::Echo { .. } if packet.content.is_echo_request() => Some(sender),
            Content::Echo { .. } => Some(sender.other()),
            _ => None,
        };
        (Self { lo, hi, protocol: packet.protocol, asker }, sender)
    }

    /// A packet of the connection's opener, as policy is asked about it.
    fn opening(&self, opener: Side) -> Tuple {
        let (from, to) = match opener {
            Side::Lo => (self.lo, self.hi),
            Side::Hi => (self.hi, self.lo),
        };
        let ports = (from.1, to.1);
        let content = match (self.asker, self.protocol) {
            (Some(_), _) => Content::Echo { id: from.1, kind: if from.0.is_ipv4() { 8 } else { 128 } },
            (None, TCP) => Content::Tcp { ports, flags: Some(SYN) },
            (None, _) => Content::Ports { ports },
        };
        Tuple { source: from.0, destination: to.0, protocol: self.protocol, content }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    New = 0,
    Established = 1,
    Closing = 2,
    Closed = 3,
}

/// When a direction's claim on the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// It has ended, or there never was one.
    Over,
    /// So many seconds after the latest packet.
    In(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Half {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) tcp_flags: u8,
    pub(crate) expiry: Expiry,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) opener: Side,
    pub(crate) state: State,
    pub(crate) seen_non_syn: bool,
    pub(crate) reset: bool,
    /// By side that sends.
    pub(crate) halves: [Half; 2],
    pub(crate) source_identity: u32,
    pub(crate) destination_identity: u32,
    pub(crate) egress_rule: u32,
    pub(crate) ingress_rule: u32,
    /// The generation for which its verdict was reported.
    pub(crate) judged: u32,
}

impl Connection {
    fn new(opener: Side) -> Self {
        let unused = Half { packets: 0, bytes: 0, tcp_flags: 0, expiry: Expiry::Over };
        Self {
            opener,
            state: State::New,
            seen_non_syn: false,
            reset: false,
            halves: [unused; 2],
            source_identity: 0,
            destination_identity: 0,
            egress_rule: 0,
            ingress_rule: 0,
            judged: 0,
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.halves.iter().any(|half| half.expiry != Expiry::Over)
    }

    fn take_over(&mut self, judgement: &Judgement, generation: u32) {
        self.source_identity = judgement.source_identity;
        self.destination_identity = judgement.destination_identity;
        self.egress_rule = judgement.egress.map_or(0, |decision| decision.cookie);
        self.ingress_rule = judgement.ingress.map_or(0, |decision| decision.cookie);
        self.judged = generation;
    }

    /// A packet of the connection that was let through.
    fn note(&mut self, sender: Side, content: &Content, length: u64, lifetimes: &Lifetimes) {
        let was_over = self.state == State::Closed;
        if self.state == State::New && sender != self.opener {
            self.state = State::Established;
        }
        if let Content::Tcp { flags, .. } = content {
            self.note_tcp(sender, flags.unwrap_or(ACK), lifetimes);
        }
        let lifetime = match content {
            Content::Tcp { .. } if self.state == State::Closed => lifetimes.closing,
            Content::Tcp { .. } if !self.seen_non_syn => lifetimes.tcp_syn,
            Content::Tcp { .. } => lifetimes.tcp,
            _ => lifetimes.any,
        };
        if !was_over {
            self.halves[sender as usize].expiry = Expiry::In(lifetime);
        }
        self.count(sender, length);
    }

    fn note_tcp(&mut self, sender: Side, flags: u8, lifetimes: &Lifetimes) {
        self.halves[sender as usize].tcp_flags |= flags;
        self.seen_non_syn |= flags & (SYN | ACK | FIN | RST) != SYN;
        let before = self.state;
        if flags & RST != 0 {
            self.reset = true;
            self.state = State::Closed;
        } else if self.halves.iter().all(|half| half.tcp_flags & FIN != 0) {
            self.state = State::Closed;
        } else if flags & FIN != 0 {
            self.state = self.state.max(State::Closing);
        }
        if before != State::Closed && self.state == State::Closed {
            for half in &mut self.halves {
                half.expiry = Expiry::In(lifetimes.closing);
            }
        }
    }

    fn count(&mut self, sender: Side, length: u64) {
        let half = &mut self.halves[sender as usize];
        half.packets += 1;
        half.bytes += length;
    }
}

impl World {
    /// Whether a packet is one of a connection that is there, or an error about one, and no beginning.
    pub(super) fn belongs(&self, packet: &Tuple) -> bool {
        let told = match &packet.content {
            Content::Icmp { about, .. } => about.as_deref().filter(|about| self.may_tell(packet, about)),
            content if content.opens() => None,
            _ => Some(packet),
        };
        told.is_some_and(|told| {
            let (key, sender) = Key::of(told);
            let connection = self.connections.get(&key).filter(|connection| connection.is_live());
            let is_message = matches!(packet.content, Content::Icmp { .. });
            connection.is_some_and(|it| is_message || !self.begins(&key, it, sender))
        })
    }

    /// Whether an error goes to the one whose packet caused it, and comes from who may say so: anybody on the way, and of the pods
    /// the one for whom the packet was.
    fn may_tell(&self, error: &Tuple, about: &Tuple) -> bool {
        let is_routers = self.endpoint_of(error.source).is_none();
        about.source == error.destination && (is_routers || about.destination == error.source)
    }

    /// Whether a packet in the midst of a connection is judged for itself: it comes from the other side of what may be no longer.
    /// In the midst of TCP nobody begins anything.
    fn begins(&self, key: &Key, connection: &Connection, sender: Side) -> bool {
        sender != connection.opener && key.protocol != TCP && !self.may_pass(key, connection)
    }

    /// Whether a packet may pass, by connections and policy; what there is to remember of it is remembered.
    pub(super) fn admit(&mut self, packet: &Tuple, length: u64, events: &mut Vec<VerdictEvent>) -> Result<(), Drop> {
        let (key, sender) = Key::of(packet);
        let connection = self.connections.get(&key).filter(|connection| connection.is_live()).cloned();
        match (&packet.content, connection) {
            (Content::Icmp { about, .. }, _) => self.admit_message(packet, about.as_deref(), events),
            (Content::Echo { .. }, None) if !packet.content.is_echo_request() => {
                self.trail.push("echo reply judged alone");
                self.admit_alone(packet, events)
            }
            (content, None) => {
                let dead = self.connections.contains_key(&key);
                let silent = packet.protocol == TCP && !content.opens();
                self.open(key, sender, packet, length, events)?;
                self.trail.push(match (dead, silent) {
                    (true, _) => "opened in place of a dead one",
                    (false, true) => "opened without a SYN",
                    (false, false) => "opened",
                });
                Ok(())
            }
            (content, Some(connection)) if content.opens() && sender != connection.opener => {
                self.open_against(key, connection, sender, packet, length, events)
            }
            (_, Some(connection)) if self.begins(&key, &connection, sender) => {
                self.speak_for_itself(key, connection, sender, packet, length, events)
            }
            (_, Some(connection)) => self.go_on(key, connection, sender, packet, length, events),
        }
    }

    /// ICMP other than echo: an error passes with the connection that it is about, anything else is judged by itself.
    fn admit_message(
        &mut self,
        packet: &Tuple,
        about: Option<&Tuple>,
        events: &mut Vec<VerdictEvent>,
    ) -> Result<(), Drop> {
        let Some(about) = about.filter(|about| self.may_tell(packet, about)) else {
            self.trail.push("message judged alone");
            return self.admit_alone(packet, events);
        };
        let (key, sender) = Key::of(about);
        let Some(connection) = self.connections.get(&key).filter(|connection| connection.is_live()) else {
            self.trail.push("about nothing known");
            return self.admit_alone(packet, events);
        };
        let raised_by = 2 + u8::from(sender != connection.opener);
        let judgement = self.judge(&key.opening(connection.opener)).raised_by(raised_by);
        self.trail.push(if judgement.allows() { "related" } else { "related, denied" });
        self.check(packet, &judgement, events)
    }

    /// Judges a packet that neither belongs to a connection nor opens one.
    fn admit_alone(&mut self, packet: &Tuple, events: &mut Vec<VerdictEvent>) -> Result<(), Drop> {
        let judgement = self.judge(packet);
        self.check(packet, &judgement, events)?;
        events.extend(judgement.events());
        Ok(())
    }

    /// A denial is reported for every packet that it meets.
    fn check(&mut self, packet: &Tuple, judgement: &Judgement, events: &mut Vec<VerdictEvent>) -> Result<(), Drop> {
        match self.denied(packet, judgement) {
            None => {
                let seen = judgement.events();
                if seen.iter().any(|event| event.audited) {
                    self.trail.push("audited");
                }
                if packet.source == packet.destination {
                    self.trail.push("to itself");
                }
                Ok(())
            }
            Some(drop) => {
                self.trail.push("denied");
                events.extend(judgement.events());
                Err(drop)
            }
        }
    }

    /// The first packet of a connection, or of one in the place of another.
    fn open(
        &mut self,
        key: Key,
        sender: Side,
        packet: &Tuple,
        length: u64,
        events: &mut Vec<VerdictEvent>,
    ) -> Result<(), Drop> {
        let judgement = self.judge(packet);
        self.check(packet, &judgement, events)?;
        events.extend(judgement.events());
        let mut connection = Connection::new(sender);
        connection.take_over(&judgement, self.generation);
        connection.note(sender, &packet.content, length, &self.lifetimes);
        self.connections.insert(key, connection);
        Ok(())
    }

    /// The other side opens what it is already part of.
    fn open_against(
        &mut self,
        key: Key,
        mut connection: Connection,
        sender: Side,
        packet: &Tuple,
        length: u64,
        events: &mut Vec<VerdictEvent>,
    ) -> Result<(), Drop> {
        if connection.state == State::Closed {
            self.open(key, sender, packet, length, events)?;
            self.trail.push("opened from the other side in place of a closed one");
            return Ok(());
        }
        if !self.may_pass(&key, &connection) {
            self.open(key, sender, packet, length, events)?;
            self.trail.push("opened from the other side in place of a denied one");
            return Ok(());
        }
        self.admit_alone(packet, events)?;
        self.trail.push("opened from both sides");
        connection.count(sender, length);
        self.connections.insert(key, connection);
        Ok(())
    }

    /// What would be a reply if the opener still might have the connection. It keeps none: what it is answered would be the opener's.
    fn speak_for_itself(
        &mut self,
        key: Key,
        mut connection: Connection,
        sender: Side,
        packet: &Tuple,
        length: u64,
        events: &mut Vec<VerdictEvent>,
    ) -> Result<(), Drop> {
        if key.asker.is_some() {
            self.trail.push("echo reply to what is denied");
            return self.admit_alone(packet, events);
        }
        self.trail.push("reply to what is denied");
        self.admit_alone(packet, events)?;
        self.trail.push("passes for itself");
        connection.count(sender, length);
        self.connections.insert(key, connection);
        Ok(())
    }

    /// A packet of a connection that is known: what holds for its opener holds for it.
    fn go_on(
        &mut self,
        key: Key,
        mut connection: Connection,
        sender: Side,
        packet: &Tuple,
        length: u64,
        events: &mut Vec<VerdictEvent>,
    ) -> Result<(), Drop> {
        let raised_by = u8::from(sender != connection.opener);
        let judgement = self.judge(&key.opening(connection.opener)).raised_by(raised_by);
        if !judgement.allows() {
            self.trail.push("denied anew");
        }
        self.check(packet, &judgement, events)?;
        if packet.content.opens() && connection.state >= State::Closing {
            let closed = connection.state == State::Closed;
            self.trail.push(if closed {
                "opened in place of a closed one"
            } else {
                "opened in place of a closing one"
            });
            return self.open(key, sender, packet, length, events);
        }
        self.trail.push(if sender == connection.opener { "goes on" } else { "answered" });
        if connection.judged != self.generation {
            self.trail.push("judged anew");
            events.extend(judgement.events());
            connection.take_over(&judgement, self.generation);
        }
        let before = connection.state;
        connection.note(sender, &packet.content, length, &self.lifetimes);
        if before < State::Closed && connection.state == State::Closed {
            self.trail.push(if connection.reset { "reset" } else { "closed" });
        }
        self.connections.insert(key, connection);
        Ok(())
    }
}

impl World {
    /// Whether the policies now let a connection's opener through.
    pub(crate) fn may_pass(&self, key: &Key, connection: &Connection) -> bool {
        self.judge(&key.opening(connection.opener)).allows()
    }
}
