//! Services and backends in domain types.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};

use bitflags::bitflags;
use ipnetwork::IpNetwork;

use crate::tables::protocol::Protocol;

/// A backend's number, unique on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(NonZeroU32);

impl BackendId {
    /// The backend with a number; `None` for 0.
    pub const fn new(id: u32) -> Option<Self> {
        match NonZeroU32::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A frontend's number, by which replies find it; unique in its family on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RevNatId(NonZeroU16);

impl RevNatId {
    /// The frontend with a number; `None` for 0.
    pub const fn new(id: u16) -> Option<Self> {
        match NonZeroU16::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The number, host order.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// The number as the maps hold it, in network order.
    pub(super) const fn to_be(self) -> u16 {
        self.0.get().to_be()
    }

    pub(super) const fn from_be(id: u16) -> Option<Self> {
        Self::new(u16::from_be(id))
    }
}

impl fmt::Display for RevNatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whose traffic a frontend takes, where the two differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Everybody's, or that from outside where an internal entry stands beside this one.
    #[default]
    External,
    /// That from within the cluster.
    Internal,
}

/// What clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    /// The address.
    pub address: IpAddr,
    /// The port; 0 in an entry that catches every port without a service.
    pub port: u16,
    /// The protocol; [`Protocol::ANY`] in such an entry.
    pub protocol: Protocol,
    /// Whose traffic.
    pub scope: Scope,
}

impl Frontend {
    /// A frontend for everybody.
    pub fn new(address: SocketAddr, protocol: Protocol) -> Self {
        Self { address: address.ip(), port: address.port(), protocol, scope: Scope::External }
    }
}

/// `10.0.0.1:80/TCP`, with `/i` behind it for an internal scope.
impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = if self.scope == Scope::Internal { "/i" } else { "" };
        f.pad(&format!("{}/{}{scope}", SocketAddr::new(self.address, self.port), self.protocol))
    }
}

/// Whether a backend takes connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendState {
    /// It does.
    #[default]
    Active,
    /// Only those it has.
    Terminating,
    /// Not while it is unhealthy.
    Quarantined,
    /// Not until an operator says so.
    Maintenance,
}

impl BackendState {
    /// The state behind a number; unknown ones count as maintenance, which gets no traffic.
    pub(super) const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Active,
            1 => Self::Terminating,
            2 => Self::Quarantined,
            _ => Self::Maintenance,
        }
    }
}

/// Where connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// Its number.
    pub id: BackendId,
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// Whether it takes connections.
    pub state: BackendState,
    /// Its zone; 0 for none.
    pub zone: u8,
    /// Its cluster; 0 for this one.
    pub cluster_id: u16,
}

impl Backend {
    /// An active backend in this cluster.
    pub fn new(id: BackendId, address: SocketAddr, protocol: Protocol) -> Self {
        Self {
            id,
            address: address.ip(),
            port: address.port(),
            protocol,
            state: BackendState::Active,
            zone: 0,
            cluster_id: 0,
        }
    }
}

/// `10.0.1.4:8080/TCP`.
impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", SocketAddr::new(self.address, self.port), self.protocol))
    }
}

bitflags! {
    /// What kind of service it is and how it is to be treated; the second byte of the maps stands in the high bits.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ServiceFlags: u16 {
        /// Reached by an external address.
        const EXTERNAL_IP = 0x0001;
        /// Reached by a port of every node.
        const NODE_PORT = 0x0002;
        /// External traffic goes to backends of this node only.
        const EXTERNAL_LOCAL = 0x0004;
        /// Reached by a port of the node of its only backend.
        const HOST_PORT = 0x0008;
        /// A client keeps its backend.
        const AFFINITY = 0x0010;
        /// Reached by an address of a load balancer.
        const LOAD_BALANCER = 0x0020;
        /// Its address may be reached from outside.
        const ROUTABLE = 0x0040;
        /// Only clients in its source ranges are served.
        const SOURCE_RANGE = 0x0080;
        /// Traffic is redirected to a local pod.
        const LOCAL_REDIRECT = 0x0100;
        /// Frontend and backends are of different families.
        const NAT_46X64 = 0x0200;
        /// A proxy for layer 7 takes the connections.
        const L7 = 0x0400;
        /// The frontend's address is a loopback one.
        const LOOPBACK = 0x0800;
        /// Traffic from within goes to backends of this node only.
        const INTERNAL_LOCAL = 0x1000;
        /// There are an external and an internal entry.
        const TWO_SCOPES = 0x2000;
        /// Clients in the source ranges are the ones not served; in a slot: its backend is quarantined.
        const SOURCE_RANGE_DENY = 0x4000;
        /// Backends answer clients directly.
        const DSR = 0x8000;
    }
}

impl ServiceFlags {
    pub(super) const fn to_bytes(self) -> [u8; 2] {
        self.bits().to_le_bytes()
    }

    pub(super) const fn from_bytes(flags: u8, flags2: u8) -> Self {
        Self::from_bits_retain(u16::from_le_bytes([flags, flags2]))
    }
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// As the node is configured (0).
    #[default]
    Default,
    /// By chance (1).
    Random,
    /// By the service's Maglev table (2).
    Maglev,
}

impl Algorithm {
    /// The number in a master entry.
    pub(super) const fn number(self) -> u32 {
        self as u32
    }

    pub(super) const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Random,
            2 => Self::Maglev,
            _ => Self::Default,
        }
    }
}

/// A service as it is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What clients connect to.
    pub frontend: Frontend,
    /// The frontend's number.
    pub rev_nat: RevNatId,
    /// What kind of service it is.
    pub flags: ServiceFlags,
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// How long a client keeps its backend, in seconds, at most 2^24 - 1.
    pub affinity_timeout: u32,
    /// Backends that get new connections.
    pub backends: Vec<Backend>,
    /// Backends that would get them were they healthy.
    pub quarantined: Vec<Backend>,
}

impl Service {
    /// A service without flags.
    pub fn new(frontend: Frontend, rev_nat: RevNatId, backends: Vec<Backend>) -> Self {
        Self {
            frontend,
            rev_nat,
            flags: ServiceFlags::default(),
            algorithm: Algorithm::Default,
            affinity_timeout: 0,
            backends,
            quarantined: Vec::new(),
        }
    }

    /// Every backend in the order of the slots.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().chain(&self.quarantined)
    }
}

/// A service as it stands in the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredService {
    /// What clients connect to.
    pub frontend: Frontend,
    /// The frontend's number; `None` in an entry that only catches ports without a service.
    pub rev_nat: Option<RevNatId>,
    /// What kind of service it is.
    pub flags: ServiceFlags,
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// How long a client keeps its backend, in seconds.
    pub affinity_timeout: u32,
    /// The slots that get new connections, from slot 1 on; `None` where a slot is missing.
    pub backends: Vec<Option<BackendId>>,
    /// The slots behind them, of quarantined backends.
    pub quarantined: Vec<Option<BackendId>>,
}

/// Clients in `range` are served (or not, see [`ServiceFlags::SOURCE_RANGE_DENY`]) by a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceRange {
    /// The frontend's number.
    pub rev_nat: RevNatId,
    /// The clients; of the frontend's family.
    pub range: IpNetwork,
}

/// `10.0.0.0/8 (18)`.
impl fmt::Display for SourceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} ({})", self.range, self.rev_nat))
    }
}

/// A client that keeps its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// Who.
    pub client: AffinityClient,
    /// The frontend's number.
    pub rev_nat: Option<RevNatId>,
    /// The backend.
    pub backend: Option<BackendId>,
    /// When it was last seen, in seconds since boot.
    pub last_used: u64,
}

/// How a client is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AffinityClient {
    /// From outside a socket: by its address.
    Address(IpAddr),
    /// At a socket: by its network namespace's cookie.
    NetnsCookie(u64),
}
