//! Stories: a node as it is, then packets and changes one after the other. Random ones, and how they are told, played and cut
//! down to what matters.
#![allow(dead_code)]

mod noise;
mod packets;
mod random;
mod shrink;
mod worlds;

use std::collections::BTreeMap;
use std::fmt;

use ipnetwork::IpNetwork;

pub(crate) use random::Random;
pub(crate) use shrink::shrink;
pub(crate) use worlds::random_story;

use super::datapath::{hex, source_line};
use super::model::{Entry, Expiry, Fate, Key, World};
use super::packets::Mac;
use super::rig::{Rig, agreement};

/// A node's state, and what happens then.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    pub(crate) world: World,
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Packet(Packet),
    /// Something that verdicts rest on changes.
    Change(Change),
    /// The claims of these directions on a connection, counted through those there are, have ended.
    Age {
        connection: usize,
        lo: bool,
        hi: bool,
    },
    /// The table was full, and this connection had to go.
    Evict {
        connection: usize,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) program: &'static str,
    pub(crate) ifindex: u32,
    /// The device by which it came into the node, 0 if by none.
    pub(crate) came_in_by: u32,
    pub(crate) frame: Vec<u8>,
    /// For who reads the story.
    pub(crate) what: String,
}

#[derive(Clone, Debug)]
pub(crate) enum Change {
    Policy {
        id: u16,
        entries: Vec<Entry>,
    },
    Identity {
        endpoint: usize,
        identity: u32,
    },
    Audit {
        endpoint: usize,
        audit: bool,
    },
    /// The pod's device is another one now: its addresses are new.
    Macs {
        endpoint: usize,
        mac: Mac,
        node_mac: Mac,
    },
    /// Two pods change places: each has the other's device.
    Swap {
        one: usize,
        other: usize,
    },
    Prefix {
        prefix: IpNetwork,
        identity: Option<u32>,
    },
    Nothing,
}

impl Change {
    fn apply(&self, world: &mut World) {
        match self {
            Self::Policy { id, entries } => {
                if let Some(policy) = world.policies.get_mut(id) {
                    policy.clone_from(entries);
                }
            }
            Self::Identity { endpoint, identity } => {
                world.endpoints.get_mut(*endpoint).into_iter().for_each(|it| it.identity = *identity);
            }
            Self::Audit { endpoint, audit } => {
                world.endpoints.get_mut(*endpoint).into_iter().for_each(|it| it.audit = *audit);
            }
            Self::Macs { endpoint, mac, node_mac } => {
                let moved = world.endpoints.get_mut(*endpoint);
                moved.into_iter().for_each(|it| (it.mac, it.node_mac) = (*mac, *node_mac));
            }
            Self::Swap { one, other } => {
                if let Ok([one, other]) = world.endpoints.get_disjoint_mut([*one, *other]) {
                    std::mem::swap(&mut one.ifindex, &mut other.ifindex);
                    std::mem::swap(&mut one.mac, &mut other.mac);
                    std::mem::swap(&mut one.node_mac, &mut other.node_mac);
                }
            }
            Self::Prefix { prefix, identity: Some(identity) } => {
                world.ipcache.insert(*prefix, *identity);
            }
            Self::Prefix { prefix, identity: None } => {
                world.ipcache.remove(prefix);
            }
            Self::Nothing => {}
        }
        world.next_generation();
    }
}

/// Packets and bytes by what was counted.
type Counts<K> = BTreeMap<K, (u64, u64)>;

/// What a story led to, by the model.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) packets: u64,
    /// Program, verdict, drop reason: how often.
    pub(crate) fates: BTreeMap<(&'static str, i32, Option<u8>), u64>,
    /// Ways through the model: how often.
    pub(crate) ways: BTreeMap<&'static str, u64>,
    drops: Counts<(u8, u8)>,
    forwards: Counts<u32>,
}

impl Told {
    pub(crate) fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        other.fates.iter().for_each(|(fate, count)| *self.fates.entry(*fate).or_default() += count);
        other.ways.iter().for_each(|(way, count)| *self.ways.entry(*way).or_default() += count);
    }

    fn count(&mut self, packet: &Packet, fate: &Fate) {
        self.packets += 1;
        let bytes = packet.frame.len() as u64;
        let add = |count: &mut (u64, u64)| *count = (count.0 + 1, count.1 + bytes);
        *self.fates.entry((packet.program, fate.verdict, fate.drop.map(|drop| drop.reason))).or_default() += 1;
        if let Some(drop) = fate.drop {
            add(self.drops.entry((drop.reason, drop.direction)).or_default());
        }
        if let Some(point) = fate.point {
            add(self.forwards.entry(point as u32).or_default());
        }
    }
}

/// Where kernel and model part.
#[derive(Debug)]
pub(crate) struct Disagreement {
    /// The step after which they did; that of the story's end for counters.
    pub(crate) step: usize,
    pub(crate) what: String,
}

impl Story {
    /// Plays it to both.
    pub(crate) fn play(&self, rig: &Rig) -> Result<Told, Disagreement> {
        let mut world = self.world.clone();
        world.generation = rig.fresh_generation();
        rig.forget();
        rig.install(&world);
        let (drops, forwards) = (counted_drops(rig), rig_forwards(rig));
        let since = rig.ticks();
        let mut told = Told::default();
        for (step, happening) in self.steps.iter().enumerate() {
            happening
                .happen(rig, &mut world, &mut told)
                .and_then(|()| agreement::memory(rig, &world, since))
                .map_err(|what| Disagreement { step, what })?;
        }
        let last = |what| Disagreement { step: self.steps.len().saturating_sub(1), what };
        let end = |what: &str, kernel: String, model: String| {
            last(format!("{what}: the kernel has {kernel}, the model {model}"))
        };
        agreement::ranks(rig).map_err(last)?;
        let drops = less(counted_drops(rig), &drops);
        if drops != told.drops {
            return Err(end("drops by (reason, direction)", format!("{drops:?}"), format!("{:?}", told.drops)));
        }
        let forwards = less(rig_forwards(rig), &forwards);
        if forwards != told.forwards {
            return Err(end("forwards", format!("{forwards:?}"), format!("{:?}", told.forwards)));
        }
        Ok(told)
    }

    /// The story in words, up to where kernel and model part.
    pub(crate) fn tell(&self, disagreement: &Disagreement) -> String {
        let steps = self.steps.iter().take(disagreement.step + 1).enumerate();
        let steps: Vec<String> = steps.map(|(number, step)| format!("{number}. {step}")).collect();
        format!("{}\n{}\nthen {}", Scene(&self.world), steps.join("\n"), disagreement.what)
    }
}

impl Step {
    fn happen(&self, rig: &Rig, world: &mut World, told: &mut Told) -> Result<(), String> {
        match self {
            Self::Packet(packet) => {
                let devices = (packet.came_in_by, packet.ifindex);
                let fate = world.meet_from(packet.program, devices, &packet.frame);
                for way in world.trail.drain(..) {
                    *told.ways.entry(way).or_default() += 1;
                }
                told.count(packet, &fate);
                let observed = rig.meet_from(packet.program, devices, &packet.frame);
                agreement::fate(world, packet.program, packet.ifindex, &observed, &fate).map_err(|what| {
                    let lines = observed.drops.iter().map(|drop| source_line(drop.file, drop.line));
                    format!("{what} {:?}", lines.collect::<Vec<_>>())
                })
            }
            Self::Change(change) => {
                change.apply(world);
                rig.install(world);
                Ok(())
            }
            Self::Age { connection, lo, hi } => {
                let Some(key) = nth(world, *connection) else { return Ok(()) };
                let Some(mut entry) = rig.connection(&agreement::key_to(&key)) else {
                    return Err(format!("{key:?} is gone"));
                };
                let halves = &mut world.connections.get_mut(&key).expect("just found").halves;
                for (at, ended) in [*lo, *hi].into_iter().enumerate() {
                    if ended {
                        entry.dir[at].expires = rig.ticks() - 10_000;
                        halves[at].expiry = Expiry::Over;
                    }
                }
                rig.put_connection(&entry);
                Ok(())
            }
            Self::Evict { connection } => {
                let Some(key) = nth(world, *connection) else { return Ok(()) };
                world.connections.remove(&key);
                rig.evict(&agreement::key_to(&key));
                Ok(())
            }
        }
    }
}

fn nth(world: &World, number: usize) -> Option<Key> {
    let count = world.connections.len().max(1);
    world.connections.keys().nth(number % count).copied()
}

fn counted_drops(rig: &Rig) -> Counts<(u8, u8)> {
    let mut counts = Counts::new();
    for (key, value) in rig.node.drops() {
        let count: &mut (u64, u64) = counts.entry((key.reason, key.dir)).or_default();
        *count = (count.0 + value.count, count.1 + value.bytes);
    }
    counts
}

fn rig_forwards(rig: &Rig) -> Counts<u32> {
    let points = rig.node.forwards().into_iter();
    points.map(|(point, value)| (point, (value.count, value.bytes))).collect()
}

fn less<K: Ord>(mut counts: Counts<K>, before: &Counts<K>) -> Counts<K> {
    for (key, count) in &mut counts {
        let before = before.get(key).copied().unwrap_or_default();
        *count = (count.0 - before.0, count.1 - before.1);
    }
    counts.retain(|_, count| *count != (0, 0));
    counts
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet(packet) => {
                let Packet { program, ifindex, came_in_by, what, frame } = packet;
                write!(f, "{program} on {ifindex}, in by {came_in_by}: {what}\n{}", hex(frame))
            }
            Self::Change(Change::Policy { id, entries }) => write!(f, "policy {id} becomes {}", Lines(entries)),
            Self::Change(change) => write!(f, "{change:?}"),
            other => write!(f, "{other:?}"),
        }
    }
}

struct Lines<'a>(&'a [Entry]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|entry| {
            let protocol = entry.protocol.map_or("any".to_owned(), |protocol| protocol.to_string());
            let action = if entry.deny { "deny" } else { "allow" };
            let Entry { identity, direction, ports, precedence, cookie, .. } = entry;
            write!(f, "\n    {action} {direction:?} {identity} {protocol}:{}/{}", ports.port, ports.bits)?;
            write!(f, " precedence {precedence} rule {cookie}")
        })
    }
}

/// A world as it is before anything happens.
struct Scene<'a>(&'a World);

impl fmt::Display for Scene<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = self.0;
        writeln!(f, "families {} {}", world.has_ipv4, world.has_ipv6)?;
        for endpoint in &world.endpoints {
            writeln!(f, "  {endpoint:x?}")?;
        }
        writeln!(f, "  host {:?}", world.host_addresses)?;
        writeln!(f, "  ipcache {:?}", world.ipcache)?;
        for (id, entries) in &world.policies {
            writeln!(f, "  policy {id}:{}", Lines(entries))?;
        }
        Ok(())
    }
}
