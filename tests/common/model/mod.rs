//! A model of the datapath in plain Rust, written from its rules and not from its code: what has to become of a packet, and
//! what the node has to remember of it.
//!
//! Nothing here is fast, cached or shared: a world is a few lists, a verdict is looked up anew for each packet. What the
//! programs do to be quick (verdict rows, sealed paths, generations) must never show, so it does not occur here, but
//! for one thing: a verdict is reported once for each generation.
//!
//! - [`World`] is a node's state, [`World::meet`] hands it a packet.
//! - `packet` reads headers, `policy` judges, `conntrack` follows connections, `routes` knows what each hook does.
#![allow(dead_code)]

mod conntrack;
mod packet;
mod policy;
mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use podwire::abi::ForwardPoint;

pub(crate) use conntrack::{Connection, Expiry, Key, Side, State};
pub(crate) use packet::{FragmentId, Recorded};
pub(crate) use policy::{Direction, Entry, PortPrefix, VerdictEvent};

use super::datapath::{PASS, REDIRECT, SHOT};
use super::packets::Mac;

pub(crate) const INVALID_SMAC: u8 = 130;
pub(crate) const INVALID_SIP: u8 = 132;
pub(crate) const POLICY_DENIED: u8 = 133;
pub(crate) const INVALID_PACKET: u8 = 134;
pub(crate) const UNSUPPORTED_L3: u8 = 139;
pub(crate) const UNKNOWN_TARGET: u8 = 150;
pub(crate) const UNROUTABLE: u8 = 151;
pub(crate) const INVALID_EXTHDR: u8 = 156;
pub(crate) const UNKNOWN_SENDER: u8 = 172;
pub(crate) const NO_FIRST_FRAGMENT: u8 = 175;
pub(crate) const FORBIDDEN_ICMP6: u8 = 176;
pub(crate) const POLICY_DENY_RULE: u8 = 181;
pub(crate) const VLAN_FILTERED: u8 = 182;
pub(crate) const TTL_EXCEEDED: u8 = 196;
pub(crate) const ENDPOINT_NOT_READY: u8 = 203;

/// The identity of the node itself.
pub(crate) const HOST: u32 = 1;

/// A local endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) id: u16,
    pub(crate) ifindex: u32,
    pub(crate) identity: u32,
    pub(crate) audit: bool,
    pub(crate) mac: Mac,
    pub(crate) node_mac: Mac,
    pub(crate) ipv4: Option<std::net::Ipv4Addr>,
    pub(crate) ipv6: Option<std::net::Ipv6Addr>,
}

impl Endpoint {
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4 == Some(address),
            IpAddr::V6(address) => self.ipv6 == Some(address),
        }
    }
}

/// A node's state.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) has_ipv4: bool,
    pub(crate) has_ipv6: bool,
    /// Identities of addresses that nothing else is known of.
    pub(crate) world_ipv4: u32,
    pub(crate) world_ipv6: u32,
    pub(crate) lifetimes: Lifetimes,

    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) host_addresses: BTreeSet<IpAddr>,
    pub(crate) ipcache: BTreeMap<IpNetwork, u32>,
    /// By endpoint id. An endpoint that is not here has no policy yet, which is not the same as an empty one.
    pub(crate) policies: BTreeMap<u16, Vec<Entry>>,
    pub(crate) generation: u32,

    pub(crate) connections: BTreeMap<Key, Connection>,
    pub(crate) fragments: BTreeMap<FragmentId, Recorded>,

    /// The ways that packets took through here, for those who want to know that all were taken: see [`WAYS`].
    pub(crate) trail: Vec<&'static str>,
}

/// Every way through connection tracking and policy.
pub(crate) const WAYS: [&str; 27] = [
    "opened",
    "opened in place of a dead one",
    "opened in place of a closed one",
    "opened in place of a closing one",
    "opened from the other side in place of a closed one",
    "opened from the other side in place of a denied one",
    "opened from both sides",
    "opened without a SYN",
    "goes on",
    "answered",
    "judged anew",
    "denied anew",
    "reply to what is denied",
    "echo reply to what is denied",
    "passes for itself",
    "denied",
    "audited",
    "to itself",
    "reset",
    "closed",
    "message judged alone",
    "echo reply judged alone",
    "related",
    "related, denied",
    "about nothing known",
    "fragment by its first",
    "fragment without ports",
];

/// Seconds for which a packet keeps its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetimes {
    pub(crate) tcp: u16,
    pub(crate) tcp_syn: u16,
    pub(crate) closing: u16,
    pub(crate) any: u16,
}

impl Lifetimes {
    pub(crate) const USUAL: Self = Self { tcp: 21_600, tcp_syn: 60, closing: 10, any: 60 };
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) verdict: i32,
    pub(crate) packet: Vec<u8>,
    /// What is counted and reported as a drop.
    pub(crate) drop: Option<Dropped>,
    /// Where it is counted as forwarded.
    pub(crate) point: Option<ForwardPoint>,
    /// Verdicts reported, in order.
    pub(crate) verdicts: Vec<VerdictEvent>,
}

/// A drop as counters and events show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) reason: u8,
    /// 1 ingress, 2 egress.
    pub(crate) direction: u8,
    /// Identity and endpoint ids that the event has to name, where the packet got as far as to be judged.
    pub(crate) judged: Option<Ends>,
}

/// Who sends and who receives a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) source_identity: u32,
    pub(crate) destination_identity: u32,
    pub(crate) destination_id: u16,
}

/// Why a packet goes no further. Without a direction it is the program's own.
struct Drop {
    reason: u8,
    direction: Option<Direction>,
    judged: Option<Ends>,
}

impl Drop {
    const fn new(reason: u8) -> Self {
        Self { reason, direction: None, judged: None }
    }
}

/// Where a packet that may go on goes.
enum Way {
    Pass(Option<ForwardPoint>),
    Redirect(Vec<u8>, Option<ForwardPoint>),
    /// Dropped for its time to live, yet shown to the stack.
    Expire(Vec<u8>),
}

fn ensure(holds: bool, reason: u8) -> Result<(), Drop> {
    if holds { Ok(()) } else { Err(Drop::new(reason)) }
}

impl World {
    /// A node with these families, on which nobody is and nothing has happened.
    pub(crate) fn bare(has_ipv4: bool, has_ipv6: bool) -> Self {
        let both = has_ipv4 && has_ipv6;
        Self {
            has_ipv4,
            has_ipv6,
            world_ipv4: if both { 9 } else { 2 },
            world_ipv6: if both { 10 } else { 2 },
            // All different, so that none passes for another.
            lifetimes: Lifetimes { any: 45, ..Lifetimes::USUAL },
            endpoints: Vec::new(),
            host_addresses: BTreeSet::new(),
            ipcache: BTreeMap::new(),
            policies: BTreeMap::new(),
            generation: 1,
            connections: BTreeMap::new(),
            fragments: BTreeMap::new(),
            trail: Vec::new(),
        }
    }

    /// Hands a packet that came in or goes out by a device to the program there.
    pub(crate) fn meet(&mut self, program: &str, ifindex: u32, frame: &[u8]) -> Fate {
        self.meet_from(program, (0, ifindex), frame)
    }

    /// As [`meet`](Self::meet), of a packet that came into the node by the first device, 0 if by none.
    pub(crate) fn meet_from(&mut self, program: &str, devices: (u32, u32), frame: &[u8]) -> Fate {
        let mut verdicts = Vec::new();
        let way = self.route(program, devices, frame, &mut verdicts);
        let usual = Direction::of_program(program);
        let dropped = |drop: Drop| Dropped {
            reason: drop.reason,
            direction: drop.direction.unwrap_or(usual) as u8,
            judged: drop.judged,
        };
        let (verdict, packet, drop, point) = match way {
            Ok(Way::Pass(point)) => (PASS, frame.to_vec(), None, point),
            Ok(Way::Redirect(packet, point)) => (REDIRECT, packet, None, point),
            Ok(Way::Expire(packet)) => (REDIRECT, packet, Some(dropped(Drop::new(TTL_EXCEEDED))), None),
            Err(drop) => (SHOT, frame.to_vec(), Some(dropped(drop)), None),
        };
        Fate { verdict, packet, drop, point, verdicts }
    }

    /// Something that verdicts rest on has changed.
    pub(crate) fn next_generation(&mut self) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
    }

    fn endpoint_of(&self, address: IpAddr) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.has(address))
    }

    fn endpoint_behind(&self, ifindex: u32) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.ifindex == ifindex)
    }

    /// Whether an address lies in the range that the node gives its pods.
    fn in_range(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.has_ipv4 && address.octets()[..3] == [10, 0, 0],
            IpAddr::V6(address) => self.has_ipv6 && address.octets()[..15] == super::datapath::GATEWAY6.octets()[..15],
        }
    }
}
