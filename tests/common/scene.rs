//! Tables about policy and connections: three pods, the host and the world talk; each packet's fate is compared with what the
//! table says, and with the model.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::IpAddr;

use podwire::abi::{CtEntry, MetricsKey, PolicyVerdictNotify};
use podwire::events::Event;
use podwire::tables::{PolicyDirection, VerdictCounts};

use super::datapath::{A, B, DEVICE_MAC, FROM_CONTAINER, FROM_NETDEV, GATEWAY4, GATEWAY6, NEIGHBOUR_MAC, OUTSIDE4};
use super::datapath::{OUTSIDE6, PASS, REDIRECT, SHOT, TO_CONTAINER, hex, source_line};
use super::model::{Direction, Endpoint, Entry, Key, PortPrefix, Side, World};
use super::packets::*;
use super::rig::{Devices, NETDEV, Observed, Rig, SLOTS, agreement};

/// Who talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// A pod of identity 40,000, then of 40,001 and 40,002.
    Web,
    Db,
    Cache,
    Host,
    /// 192.0.2.7 or 2001:db8::7
    Outside,
}

pub(crate) use Who::{Cache, Db, Host, Outside, Web};

pub(crate) const WEB: u32 = 40_000;
pub(crate) const DB: u32 = 40_001;
pub(crate) const CACHE: u32 = 40_002;
pub(crate) const ANYBODY: u32 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

pub(crate) use Family::{V4, V6};

pub(crate) const FAMILIES: [Family; 2] = [V4, V6];

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// Reason and the direction it is counted for.
    Dropped(u8, Direction),
    /// Dropped and reported, and shown to the host's stack, which owes the sender an error.
    Expired,
}

pub(crate) use Direction::{Egress, Ingress};
pub(crate) use Verdict::{Dropped, Expired, Passed};

/// A datagram above IP.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) protocol: u8,
    pub(crate) upper: Vec<u8>,
}

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

pub(crate) const TCP: u8 = 6;
pub(crate) const SCTP: u8 = 132;

/// TCP between these ports, 20 bytes of header and 4 of content.
pub(crate) fn tcp(from: u16, to: u16, flags: u8) -> Said {
    let mut upper = [from.to_be_bytes(), to.to_be_bytes()].concat();
    upper.extend([0, 0, 0, 7, 0, 0, 0, 9, 0x50, flags, 1, 0, 0xab, 0xcd, 0, 0]);
    upper.extend(b"data");
    Said { protocol: TCP, upper }
}

pub(crate) fn udp(from: u16, to: u16) -> Said {
    let mut upper = [from.to_be_bytes(), to.to_be_bytes()].concat();
    upper.extend([0, 12, 0xab, 0xcd]);
    upper.extend(b"data");
    Said { protocol: UDP, upper }
}

pub(crate) fn sctp(from: u16, to: u16) -> Said {
    let mut upper = [from.to_be_bytes(), to.to_be_bytes()].concat();
    upper.extend([0, 0, 0, 1, 0xab, 0xcd, 0xef, 1]);
    Said { protocol: SCTP, upper }
}

/// A protocol without ports.
pub(crate) fn plain(protocol: u8) -> Said {
    Said { protocol, upper: b"whatever".to_vec() }
}

/// An ICMP or ICMPv6 message of a type, with what an echo has as identifier, and what follows its eight bytes.
pub(crate) fn icmp(family: Family, kind: u8, id: u16, rest: &[u8]) -> Said {
    let mut upper = vec![kind, 0, 0xab, 0xcd];
    upper.extend_from_slice(&id.to_be_bytes());
    upper.extend([0, 1]);
    upper.extend_from_slice(rest);
    Said { protocol: if family == V4 { 1 } else { ICMPV6 }, upper }
}

pub(crate) fn echo(family: Family, id: u16) -> Said {
    icmp(family, if family == V4 { 8 } else { 128 }, id, b"ping")
}

pub(crate) fn echo_reply(family: Family, id: u16) -> Said {
    icmp(family, if family == V4 { 0 } else { 129 }, id, b"ping")
}

/// A line of a policy. Without a protocol it is for everything, with port 0 for every port.
pub(crate) fn allow(direction: Direction, identity: u32, protocol: Option<u8>, port: u16) -> Entry {
    let bits = if port == 0 { 0 } else { 16 };
    let ports = PortPrefix { port, bits };
    // The number of the rule that nothing else has.
    let cookie = 7000 + u32::from(port);
    Entry { identity, direction, protocol, ports, deny: false, precedence: ALLOWS, cookie, proxy_port: 0 }
}

pub(crate) fn deny(direction: Direction, identity: u32, protocol: Option<u8>, port: u16) -> Entry {
    Entry { deny: true, precedence: DENIES, ..allow(direction, identity, protocol, port) }
}

/// What the compiler gives entries that allow, and those that deny.
pub(crate) const ALLOWS: u32 = 4_294_967_041;
pub(crate) const DENIES: u32 = u32::MAX;

/// A node in the middle of something.
pub(crate) struct Scene {
    rig: Rig,
    devices: [u32; 4],
    pub(crate) world: World,
    pub(crate) family: Family,
    /// Verdicts that the latest packet made the programs report.
    pub(crate) reported: Vec<PolicyVerdictNotify>,
    /// The same, as a monitor gets to know them.
    pub(crate) told: Vec<Event>,
    since: u64,
}

/// Plays something in each family, on a node where everybody may do everything until the play says otherwise.
pub(crate) fn in_both_families(mut play: impl FnMut(&mut Scene) + Send) {
    let devices = Devices::new();
    devices.run(|| {
        let world = World::bare(true, true);
        let rig = Rig::load(&world);
        let since = rig.ticks();
        let (reported, told) = (Vec::new(), Vec::new());
        let mut scene = Scene { rig, devices: devices.indices, world, family: V4, reported, told, since };
        for family in FAMILIES {
            scene.family = family;
            scene.begin_anew();
            play(&mut scene);
        }
    });
}

impl Scene {
    /// Three pods that may do everything; no connections.
    pub(crate) fn begin_anew(&mut self) {
        let mut world = World::bare(true, true);
        for (number, id) in SLOTS.into_iter().enumerate().take(3) {
            let last = 10 + number as u8;
            world.endpoints.push(Endpoint {
                id,
                ifindex: self.devices[number],
                identity: WEB + number as u32,
                audit: false,
                mac: [0x8a, 0, 0, 0, 0, last],
                node_mac: [0x66, 0, 0, 0, 0, last],
                ipv4: Some([10, 0, 0, last].into()),
                ipv6: Some([0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into()),
            });
            world.policies.insert(id, everything().to_vec());
        }
        world.host_addresses.extend([IpAddr::from(GATEWAY4), GATEWAY6.into()]);
        world.generation = self.rig.fresh_generation();
        self.rig.forget();
        self.rig.install(&world);
        self.since = self.rig.ticks();
        self.world = world;
    }

    /// Changes the world, as user space does: the maps first, then the generation.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut World)) {
        change(&mut self.world);
        self.world.next_generation();
        self.rig.install(&self.world);
    }

    /// Gives a pod a policy.
    pub(crate) fn policy(&mut self, of: Who, entries: &[Entry]) {
        let id = SLOTS[of as usize];
        self.change(|world| {
            world.policies.insert(id, entries.to_vec());
        });
    }

    pub(crate) fn pod(&mut self, who: Who) -> &mut Endpoint {
        &mut self.world.endpoints[who as usize]
    }

    pub(crate) fn address(&self, who: Who) -> IpAddr {
        let pods = [(A.v4(), A.v6()), (B.v4(), B.v6()), ([10, 0, 0, 12].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 12].into())];
        let (ipv4, ipv6) = match who {
            Web | Db | Cache => pods[who as usize],
            Host => (GATEWAY4, GATEWAY6),
            Outside => (OUTSIDE4, OUTSIDE6),
        };
        if self.family == V4 { ipv4.into() } else { ipv6.into() }
    }

    /// Somebody says something to somebody.
    #[track_caller]
    pub(crate) fn send(&mut self, from: Who, to: Who, said: &Said) -> Verdict {
        let datagram = self.datagram(self.address(from), self.address(to), said);
        self.send_datagram(from, to, &datagram)
    }

    /// IP around it, nothing special.
    pub(crate) fn datagram(&self, from: IpAddr, to: IpAddr, said: &Said) -> Vec<u8> {
        match self.family {
            V4 => ipv4_datagram((from, to), 64, said.protocol, (1, 0), &[], &said.upper),
            V6 => ipv6_datagram((from, to), 64, said.protocol, &said.upper),
        }
    }

    /// A piece of what somebody says: from this byte on, a multiple of 8, and whether more follows.
    #[track_caller]
    pub(crate) fn send_piece(&mut self, from: Who, to: Who, said: &Said, offset: u16, more: bool) -> Verdict {
        let addresses = (self.address(from), self.address(to));
        let datagram = match self.family {
            V4 => {
                let place = (offset / 8) | (u16::from(more) << 13);
                ipv4_datagram(addresses, 64, said.protocol, (77, place), &[], &said.upper)
            }
            V6 => {
                let header = fragment_header(said.protocol, offset, more, 77);
                ipv6_datagram(addresses, 64, 44, &[&header, &said.upper[..]].concat())
            }
        };
        self.send_datagram(from, to, &datagram)
    }

    /// Sends bytes of IP the way that packets between the two take.
    #[track_caller]
    pub(crate) fn send_datagram(&mut self, from: Who, to: Who, datagram: &[u8]) -> Verdict {
        let ethertype = if self.family == V4 { TYPE_IPV4 } else { TYPE_IPV6 };
        let pod = |who: Who| self.world.endpoints[who as usize];
        let (program, ifindex, macs) = match (from, to) {
            (Web | Db | Cache, _) => (FROM_CONTAINER, pod(from).ifindex, (pod(from).mac, pod(from).node_mac)),
            (Host, Web | Db | Cache) => (TO_CONTAINER, pod(to).ifindex, (pod(to).node_mac, pod(to).mac)),
            _ => (FROM_NETDEV, NETDEV, (NEIGHBOUR_MAC, DEVICE_MAC)),
        };
        self.meet(program, ifindex, &frame(macs.0, macs.1, ethertype, datagram))
    }

    /// Hands a frame to a program by a device, and has the model look at it as well.
    #[track_caller]
    pub(crate) fn meet(&mut self, program: &str, ifindex: u32, frame: &[u8]) -> Verdict {
        self.meet_from(program, (0, ifindex), frame)
    }

    /// As [`meet`](Self::meet), of a packet that came into the node by the first device, 0 if by none.
    #[track_caller]
    pub(crate) fn meet_from(&mut self, program: &str, devices: (u32, u32), frame: &[u8]) -> Verdict {
        let ifindex = devices.1;
        let before = self.counted();
        let observed = self.rig.meet_from(program, devices, frame);
        let fate = self.world.meet_from(program, devices, frame);
        self.world.trail.clear();
        let agreed = agreement::fate(&self.world, program, ifindex, &observed, &fate)
            .and_then(|()| agreement::memory(&self.rig, &self.world, self.since));
        agreed.unwrap_or_else(|what| panic!("{what}, for\n{}", hex(frame)));
        let result = self.result(&observed, &before);
        self.reported = observed.verdicts;
        self.told = observed.told.iter().map(|record| Event::decode(record).expect("whole")).collect();
        result
    }

    /// Drops by reason, direction and place in the source.
    fn counted(&self) -> BTreeMap<MetricsKey, u64> {
        self.rig.node.drops().into_iter().map(|(key, value)| (key, value.count)).collect()
    }

    fn result(&self, observed: &Observed, before: &BTreeMap<MetricsKey, u64>) -> Verdict {
        let after = self.counted();
        let counted = after.iter().find(|(key, count)| before.get(key) != Some(count));
        let counted = counted.map(|(key, _)| (key.reason, key.dir));
        match (observed.verdict, counted, observed.drops.as_slice()) {
            (PASS | REDIRECT, None, []) => Passed,
            (REDIRECT, Some((196, 2)), [drop]) if drop.subtype == 196 => Expired,
            (SHOT, Some((reason, direction)), [drop]) => {
                let line = source_line(drop.file, drop.line);
                assert_eq!(drop.subtype, reason, "counter and event of {line}");
                Dropped(reason, if direction == 2 { Egress } else { Ingress })
            }
            _ => panic!("a verdict, a counter and events that do not go together: {observed:?} {counted:?}"),
        }
    }

    /// The entry of a connection between two ports, and whether the first of the two is its smaller side.
    pub(crate) fn entry(&self, one: (Who, u16), other: (Who, u16), protocol: u8) -> Option<(CtEntry, Side)> {
        let (one, other) = ((self.address(one.0), one.1), (self.address(other.0), other.1));
        let (lo, hi, side) = if one <= other { (one, other, Side::Lo) } else { (other, one, Side::Hi) };
        let key = Key { lo, hi, protocol, asker: None };
        self.rig.connection(&agreement::key_to(&key)).map(|entry| (entry, side))
    }

    /// What policies let pass, by direction (egress, ingress), and what they would not have but for audit mode.
    pub(crate) fn let_pass(&self) -> [[u64; 2]; 2] {
        let counts = VerdictCounts::open_pinned(self.rig.node.maps()).and_then(|counts| counts.counts());
        let of = |direction, audited| {
            let mut counts = counts.iter().flatten();
            let count = counts.find(|count| count.direction == direction && count.audited == audited);
            count.expect("of every kind").connections
        };
        [PolicyDirection::Egress, PolicyDirection::Ingress].map(|direction| [of(direction, false), of(direction, true)])
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.rig.connection_keys().len()
    }

    /// Lets all claims on all connections end.
    pub(crate) fn let_all_die(&mut self) {
        self.let_claims_end_at(self.since - 1000, super::model::Expiry::Over);
    }

    /// Lets all claims on all connections end in so many seconds.
    pub(crate) fn let_claims_end_in(&mut self, seconds: u16) {
        self.let_claims_end_at(self.rig.ticks() + u64::from(seconds) * 250, super::model::Expiry::In(seconds));
    }

    fn let_claims_end_at(&mut self, expires: u64, expiry: super::model::Expiry) {
        for key in self.rig.connection_keys() {
            let mut entry = self.rig.connection(&key).expect("nobody removes it");
            entry.dir.iter_mut().for_each(|dir| dir.expires = expires);
            self.rig.put_connection(&entry);
        }
        for connection in self.world.connections.values_mut() {
            connection.halves.iter_mut().for_each(|half| half.expiry = expiry);
        }
    }

    /// Seconds until a direction's claim ends.
    pub(crate) fn seconds_left(&self, expires: u64) -> u64 {
        (expires.saturating_sub(self.rig.ticks()) as f64 / 250.0).round() as u64
    }
}

/// A policy that lets everything in and out.
pub(crate) fn everything() -> [Entry; 2] {
    [allow(Ingress, ANYBODY, None, 0), allow(Egress, ANYBODY, None, 0)]
}

/// A policy that lets everything out, and in what these lines say.
pub(crate) fn lets_in(entries: &[Entry]) -> Vec<Entry> {
    [&[allow(Egress, ANYBODY, None, 0)], entries].concat()
}

/// A policy that lets everything in, and out what these lines say.
pub(crate) fn lets_out(entries: &[Entry]) -> Vec<Entry> {
    [&[allow(Ingress, ANYBODY, None, 0)], entries].concat()
}
