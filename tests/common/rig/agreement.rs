//! Whether the kernel did and remembers what the model says.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podwire::abi::{CtDir, CtEntry, CtKey, FragPorts, Ipv4FragId, Ipv6FragId};

use super::super::datapath::{FROM_CONTAINER, HOST_DEVICE, HOST_MAC, hex};
use super::super::model::{Connection, Expiry, Fate, FragmentId, Key, Recorded, Side, State, VerdictEvent, World};
use super::{NETDEV, Observed, Rig, TICKS};

/// How far the clock of the programs may be from the test's: a virtual machine that gets no CPU for a while counts its ticks late.
const SLACK: u64 = 250;

type Agreement = Result<(), String>;

fn same<T: PartialEq + Debug>(what: &str, kernel: T, model: T) -> Agreement {
    if kernel == model { Ok(()) } else { Err(format!("{what}: the kernel has {kernel:?}, the model {model:?}")) }
}

/// The verdict, the bytes and the events of a packet. `world` is what the packet left behind.
pub(crate) fn fate(world: &World, program: &str, ifindex: u32, observed: &Observed, fate: &Fate) -> Agreement {
    let reasons: Vec<u8> = observed.drops.iter().map(|drop| drop.subtype).collect();
    same("drop reasons", reasons, fate.drop.iter().map(|drop| drop.reason).collect())?;
    same("the verdict", observed.verdict, fate.verdict)?;
    same("the packet", hex(&observed.packet), hex(&fate.packet))?;
    if let (Some(notify), Some(drop)) = (observed.drops.first(), &fate.drop) {
        let source = world.endpoints.iter().find(|endpoint| endpoint.ifindex == ifindex);
        if program == FROM_CONTAINER {
            same("the drop's source", notify.source, source.map_or(0, |endpoint| endpoint.id))?;
        }
        if let Some(ends) = drop.judged {
            same("the drop's source identity", notify.src_label, ends.source_identity)?;
            same("the drop's destination identity", notify.dst_label, ends.destination_identity)?;
            same("the drop's destination", notify.dst_id, ends.destination_id.into())?;
        }
    }
    let verdicts: Vec<VerdictEvent> = observed
        .verdicts
        .iter()
        .map(|notify| VerdictEvent {
            source: notify.source,
            remote_identity: notify.remote_label,
            verdict: notify.verdict,
            direction: if notify.flags & 3 == 2 {
                super::super::model::Direction::Egress
            } else {
                super::super::model::Direction::Ingress
            },
            protocol: notify.proto,
            port: notify.dst_port,
            ipv6: notify.flags & 4 != 0,
            kind: notify.flags >> 3 & 7,
            audited: notify.flags & 0x40 != 0,
            cookie: notify.cookie,
            raised_by: notify.raised_by,
        })
        .collect();
    same("verdict events", verdicts, fate.verdicts.clone())
}

/// All that is remembered: connections and fragments. `since`: the ticks when the first of them was made.
pub(crate) fn memory(rig: &Rig, world: &World, since: u64) -> Agreement {
    let mut keys: Vec<Key> = rig.connection_keys().iter().map(key_of).collect();
    keys.sort();
    same("connections", keys, world.connections.keys().copied().collect())?;
    for (key, connection) in &world.connections {
        let entry = rig.connection(&key_to(key)).ok_or(format!("{key:?} is gone"))?;
        entry_agrees(rig, world, key, connection, &entry, since).map_err(|what| format!("{key:?}: {what}"))?;
    }
    fragments(rig, world)
}

/// What the index says that a connection is worth is what its entry says.
pub(crate) fn ranks(rig: &Rig) -> Agreement {
    for bucket in 0..rig.table.buckets() {
        let bucket = rig.table.index().read(bucket).expect("in the table");
        for (rank, slot) in bucket.rank.into_iter().zip(bucket.slot).filter(|(rank, _)| *rank != 0) {
            let entry = rig.table.map().read(slot).expect("an entry");
            let worth = match entry.state {
                0 => 2,
                3 => 1,
                _ => 3,
            };
            same("the rank", rank, worth).map_err(|what| format!("{:?}: {what}", key_of(&entry.key)))?;
        }
    }
    Ok(())
}

fn entry_agrees(
    rig: &Rig,
    world: &World,
    key: &Key,
    connection: &Connection,
    entry: &CtEntry,
    since: u64,
) -> Agreement {
    same("state", entry.state, connection.state as u8)?;
    same("opener", entry.opener, connection.opener as u8)?;
    let flags = u16::from(connection.seen_non_syn) * CtEntry::SEEN_NON_SYN + u16::from(connection.reset) * CtEntry::RST;
    same("flags", entry.flags, flags)?;
    let labels = (connection.source_identity, connection.destination_identity);
    same("identities", (entry.src_label, entry.dst_label), labels)?;
    let rules = (connection.egress_rule, connection.ingress_rule);
    same("rules", (entry.egress_rule, entry.ingress_rule), rules)?;
    same("whose it is", entry.key, key_to(key))?;
    let now = rig.ticks() + SLACK;
    let since = since - SLACK;
    for side in [Side::Lo, Side::Hi] {
        let (dir, half) = (&entry.dir[side as usize], &connection.halves[side as usize]);
        same("packets", dir.packets(), half.packets).map_err(|what| format!("{side:?}: {what}"))?;
        same("bytes", dir.bytes(), half.bytes).map_err(|what| format!("{side:?}: {what}"))?;
        same("TCP flags", dir.tcp_flags, half.tcp_flags).map_err(|what| format!("{side:?}: {what}"))?;
        let expires = match half.expiry {
            Expiry::Over => 0..=now,
            Expiry::In(seconds) => since + u64::from(seconds) * TICKS..=now + u64::from(seconds) * TICKS,
        };
        if !expires.contains(&dir.expires) {
            let left = (dir.expires as f64 - rig.ticks() as f64) / TICKS as f64;
            return Err(format!("{side:?}: kept for {left:.1} s, not {:?}", half.expiry));
        }
        path_agrees(world, key, connection, side, dir).map_err(|what| format!("path of {side:?}: {what}"))?;
    }
    Ok(())
}

/// A path that packets would follow without a look at any map leads where the maps say, and only for what may pass.
fn path_agrees(world: &World, key: &Key, connection: &Connection, side: Side, dir: &CtDir) -> Agreement {
    let holds = CtDir::JUDGED | CtDir::ALLOWED;
    if dir.generation() != world.generation || dir.flags() & holds != holds {
        return Ok(());
    }
    same("may pass", world.may_pass(key, connection), true)?;
    same("open", connection.state < State::Closing, true)?;
    let (from, to) = match side {
        Side::Lo => (key.lo.0, key.hi.0),
        Side::Hi => (key.hi.0, key.lo.0),
    };
    let at = |address: IpAddr| world.endpoints.iter().find(|endpoint| endpoint.has(address));
    let (sender, receiver) = (at(from), at(to));
    if dir.flags() & (CtDir::REDIRECT_PEER | CtDir::TO_STACK) == 0 {
        return same("device of the receiver", Some(dir.in_ifindex), receiver.map(|endpoint| endpoint.ifindex));
    }
    if dir.flags() & CtDir::REDIRECT_PEER != 0 {
        let receiver = receiver.ok_or("leads to a pod")?;
        let there = (receiver.ifindex, receiver.mac, receiver.node_mac, receiver.id);
        same("receiver", (dir.out_ifindex, dir.dst_mac, dir.src_mac, dir.dst_id), there)?;
    } else {
        same("to the stack", receiver.is_none(), true)?;
        same("stack", (dir.out_ifindex, dir.dst_mac), (HOST_DEVICE, HOST_MAC))?;
    }
    if dir.in_ifindex == NETDEV {
        return same("from a pod", sender.is_none(), true);
    }
    let sender = sender.ok_or("comes from a pod")?;
    same("sender", (dir.in_ifindex, dir.in_mac), (sender.ifindex, sender.mac))
}

fn fragments(rig: &Rig, world: &World) -> Agreement {
    let mut noted = Vec::new();
    for (key, value) in rig.content("cilium_ipv4_frag_datagrams") {
        let key: Ipv4FragId = bytemuck::pod_read_unaligned(&key);
        let id = FragmentId {
            source: Ipv4Addr::from(key.saddr.to_ne_bytes()).into(),
            destination: Ipv4Addr::from(key.daddr.to_ne_bytes()).into(),
            protocol: key.proto,
            number: u16::from_be(key.id_be).into(),
        };
        noted.push((id, recorded(&value)));
    }
    for (key, value) in rig.content("cilium_ipv6_frag_datagrams") {
        let key: Ipv6FragId = bytemuck::pod_read_unaligned(&key);
        let id = FragmentId {
            source: Ipv6Addr::from(key.saddr).into(),
            destination: Ipv6Addr::from(key.daddr).into(),
            protocol: key.proto,
            number: u32::from_be(key.id_be),
        };
        noted.push((id, recorded(&value)));
    }
    noted.sort_by_key(|(id, _)| *id);
    same("fragments", noted, world.fragments.iter().map(|(id, recorded)| (*id, *recorded)).collect())
}

fn recorded(value: &[u8]) -> Recorded {
    let ports: FragPorts = bytemuck::pod_read_unaligned(value);
    Recorded(u16::from_be(ports.sport_be), u16::from_be(ports.dport_be))
}

pub(crate) fn key_of(key: &CtKey) -> Key {
    let address = |bytes: [u8; 16]| -> IpAddr {
        if key.family == 1 {
            Ipv4Addr::from(*bytes.first_chunk::<4>().expect("sixteen bytes")).into()
        } else {
            Ipv6Addr::from(bytes).into()
        }
    };
    Key {
        lo: (address(key.lo_addr), u16::from_be(key.lo_port_be)),
        hi: (address(key.hi_addr), u16::from_be(key.hi_port_be)),
        protocol: key.proto,
        asker: match key.asker {
            0 => None,
            1 => Some(Side::Lo),
            _ => Some(Side::Hi),
        },
    }
}

pub(crate) fn key_to(key: &Key) -> CtKey {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    };
    CtKey {
        lo_addr: bytes(key.lo.0),
        hi_addr: bytes(key.hi.0),
        lo_port_be: key.lo.1.to_be(),
        hi_port_be: key.hi.1.to_be(),
        proto: key.protocol,
        family: if key.lo.0.is_ipv4() { 1 } else { 2 },
        asker: key.asker.map_or(0, |side| side as u8 + 1),
        pad: 0,
    }
}
