//! The maps of one family, and the way from domain types to their keys and values and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnetwork::IpNetwork;

use super::types::{
    Affinity, AffinityClient, Algorithm, Backend, BackendId, BackendState, Frontend, RevNatId, Scope, Service,
    ServiceFlags, SourceRange,
};
use crate::Result;
use crate::abi::{
    Lb4AffinityKey, Lb4Backend, Lb4Key, Lb4ReverseNat, Lb4Service, Lb4SrcRangeKey, Lb6AffinityKey, Lb6Backend, Lb6Key,
    Lb6ReverseNat, Lb6Service, Lb6SrcRangeKey, LbAffinityVal, Shared,
};
use crate::maps::{HashMap, LpmTrie, LruHashMap, MapSpec};
use crate::tables::protocol::Protocol;
use crate::tables::table::pin_path;

/// Default size of every load-balancing map.
pub(super) const MAX_ENTRIES: u32 = 65_536;
const ALGORITHM_SHIFT: u32 = 24;
const AFFINITY_TIMEOUT_MASK: u32 = (1 << ALGORITHM_SHIFT) - 1;
/// `lb4_affinity_key.flags`: the client is a namespace's cookie.
const NETNS_COOKIE: u8 = 1;

/// The structs and names of one family.
pub(super) trait Family: Sized {
    type Address: Copy + Into<IpAddr>;
    type Key: Shared;
    type Service: Shared;
    type Backend: Shared;
    type ReverseNat: Shared;
    type AffinityKey: Shared;
    type SourceRange: Shared;

    const SERVICES: &'static str;
    const BACKENDS: &'static str;
    const REVERSE_NAT: &'static str;
    const AFFINITY: &'static str;
    const SOURCE_RANGES: &'static str;
    const MAGLEV: &'static str;

    fn key(address: Self::Address, frontend: &Frontend, slot: u16) -> Self::Key;
    fn frontend(key: &Self::Key) -> (Frontend, u16);
    fn encode_service(row: ServiceRow) -> Self::Service;
    fn decode_service(service: &Self::Service) -> ServiceRow;
    fn encode_backend(address: Self::Address, backend: &Backend) -> Self::Backend;
    fn decode_backend(id: BackendId, backend: &Self::Backend) -> Backend;
    fn encode_reverse_nat(address: Self::Address, port: u16) -> Self::ReverseNat;
    fn decode_reverse_nat(reverse: &Self::ReverseNat) -> (IpAddr, u16);
    fn encode_source_range(rev_nat: RevNatId, address: Self::Address, prefix: u8) -> Self::SourceRange;
    fn decode_source_range(key: &Self::SourceRange) -> Option<SourceRange>;
    fn decode_affinity(key: &Self::AffinityKey, value: &LbAffinityVal) -> Affinity;
}

/// A row of a services map: a master (slot 0) or a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceRow {
    pub(super) word: u32,
    pub(super) count: u16,
    pub(super) rev_nat: Option<RevNatId>,
    pub(super) flags: ServiceFlags,
    pub(super) quarantined: u16,
}

impl ServiceRow {
    /// The master of a service. The numbers of slots fit: the caller has checked them.
    pub(super) fn master(service: &Service) -> Self {
        Self {
            word: service.algorithm.number() << ALGORITHM_SHIFT | service.affinity_timeout,
            count: service.backends.len() as u16,
            rev_nat: Some(service.rev_nat),
            flags: service.flags,
            quarantined: service.quarantined.len() as u16,
        }
    }

    /// A slot.
    pub(super) fn slot(backend: BackendId, rev_nat: RevNatId, quarantined: bool) -> Self {
        let flags = if quarantined { ServiceFlags::SOURCE_RANGE_DENY } else { ServiceFlags::default() };
        Self { word: backend.get(), count: 0, rev_nat: Some(rev_nat), flags, quarantined: 0 }
    }

    /// Of a slot.
    pub(super) fn backend(&self) -> Option<BackendId> {
        BackendId::new(self.word)
    }

    /// Of a master.
    pub(super) fn algorithm(&self) -> Algorithm {
        Algorithm::from_number(self.word >> ALGORITHM_SHIFT)
    }

    /// Of a master, in seconds.
    pub(super) fn affinity_timeout(&self) -> u32 {
        self.word & AFFINITY_TIMEOUT_MASK
    }
}

/// The largest affinity timeout in seconds.
pub(super) const MAX_AFFINITY_TIMEOUT: u32 = AFFINITY_TIMEOUT_MASK;

macro_rules! family {
    (
        $(#[$meta:meta])* $name:ident, $address:ty, $digit:literal, $key:ident, $service:ident, $backend:ident,
        $reverse:ident, $affinity:ident, $range:ident, $client:expr
    ) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub(super) enum $name {}

        impl Family for $name {
            type Address = $address;
            type Key = $key;
            type Service = $service;
            type Backend = $backend;
            type ReverseNat = $reverse;
            type AffinityKey = $affinity;
            type SourceRange = $range;

            const SERVICES: &'static str = concat!("cilium_lb", $digit, "_services_v2");
            const BACKENDS: &'static str = concat!("cilium_lb", $digit, "_backends_v3");
            const REVERSE_NAT: &'static str = concat!("cilium_lb", $digit, "_reverse_nat");
            const AFFINITY: &'static str = concat!("cilium_lb", $digit, "_affinity");
            const SOURCE_RANGES: &'static str = concat!("cilium_lb", $digit, "_source_range");
            const MAGLEV: &'static str = concat!("cilium_lb", $digit, "_maglev");

            fn key(address: $address, frontend: &Frontend, slot: u16) -> $key {
                $key {
                    address: address.octets(),
                    dport_be: frontend.port.to_be(),
                    backend_slot: slot,
                    proto: frontend.protocol.number(),
                    scope: frontend.scope as u8,
                    pad: [0; 2],
                }
            }

            fn frontend(key: &$key) -> (Frontend, u16) {
                let frontend = Frontend {
                    address: <$address>::from_octets(key.address).into(),
                    port: u16::from_be(key.dport_be),
                    protocol: Protocol::new(key.proto),
                    scope: if key.scope == 0 { Scope::External } else { Scope::Internal },
                };
                (frontend, key.backend_slot)
            }

            fn encode_service(row: ServiceRow) -> $service {
                let [flags, flags2] = row.flags.to_bytes();
                $service {
                    word: row.word,
                    count: row.count,
                    rev_nat_index_be: row.rev_nat.map_or(0, RevNatId::to_be),
                    flags,
                    flags2,
                    qcount: row.quarantined,
                }
            }

            fn decode_service(service: &$service) -> ServiceRow {
                ServiceRow {
                    word: service.word,
                    count: service.count,
                    rev_nat: RevNatId::from_be(service.rev_nat_index_be),
                    flags: ServiceFlags::from_bytes(service.flags, service.flags2),
                    quarantined: service.qcount,
                }
            }

            fn encode_backend(address: $address, backend: &Backend) -> $backend {
                $backend {
                    address: address.octets(),
                    port_be: backend.port.to_be(),
                    proto: backend.protocol.number(),
                    flags: backend.state as u8,
                    cluster_id: backend.cluster_id,
                    zone: backend.zone,
                    pad: 0,
                }
            }

            fn decode_backend(id: BackendId, backend: &$backend) -> Backend {
                Backend {
                    id,
                    address: <$address>::from_octets(backend.address).into(),
                    port: u16::from_be(backend.port_be),
                    protocol: Protocol::new(backend.proto),
                    state: BackendState::from_number(backend.flags),
                    zone: backend.zone,
                    cluster_id: backend.cluster_id,
                }
            }

            fn encode_reverse_nat(address: $address, port: u16) -> $reverse {
                $reverse { address: address.octets(), port_be: port.to_be() }
            }

            fn decode_reverse_nat(reverse: &$reverse) -> (IpAddr, u16) {
                (<$address>::from_octets(reverse.address).into(), u16::from_be(reverse.port_be))
            }

            fn encode_source_range(rev_nat: RevNatId, address: $address, prefix: u8) -> $range {
                $range {
                    prefixlen: $range::STATIC_BITS + u32::from(prefix),
                    rev_nat_id_be: rev_nat.to_be(),
                    pad: 0,
                    addr: address.octets(),
                }
            }

            fn decode_source_range(key: &$range) -> Option<SourceRange> {
                let prefix = u8::try_from(key.prefixlen.checked_sub($range::STATIC_BITS)?).ok()?;
                let range = IpNetwork::new(<$address>::from_octets(key.addr).into(), prefix).ok()?;
                Some(SourceRange { rev_nat: RevNatId::from_be(key.rev_nat_id_be)?, range })
            }

            fn decode_affinity(key: &$affinity, value: &LbAffinityVal) -> Affinity {
                let id: fn(&$affinity) -> (IpAddr, u64) = $client;
                let (address, cookie) = id(key);
                let by_cookie = key.flags & NETNS_COOKIE != 0;
                Affinity {
                    client: if by_cookie {
                        AffinityClient::NetnsCookie(cookie)
                    } else {
                        AffinityClient::Address(address)
                    },
                    rev_nat: RevNatId::from_be(key.rev_nat_id_be),
                    backend: BackendId::new(value.backend_id),
                    last_used: value.last_used,
                }
            }
        }
    };
}

family!(
    /// IPv4.
    V4, Ipv4Addr, "4", Lb4Key, Lb4Service, Lb4Backend, Lb4ReverseNat, Lb4AffinityKey, Lb4SrcRangeKey,
    |key| {
        let [a, b, c, d, ..] = key.client_id.to_ne_bytes();
        (Ipv4Addr::new(a, b, c, d).into(), key.client_id)
    }
);

family!(
    /// IPv6.
    V6, Ipv6Addr, "6", Lb6Key, Lb6Service, Lb6Backend, Lb6ReverseNat, Lb6AffinityKey, Lb6SrcRangeKey,
    |key| {
        let [a, b, c, d, e, f, g, h, ..] = key.client_id;
        (Ipv6Addr::from_octets(key.client_id).into(), u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
    }
);

/// The maps of one family.
#[derive(Debug)]
pub(super) struct FamilyMaps<F: Family> {
    pub(super) services: HashMap<F::Key, F::Service>,
    pub(super) backends: HashMap<u32, F::Backend>,
    pub(super) reverse_nat: HashMap<u16, F::ReverseNat>,
    pub(super) affinity: LruHashMap<F::AffinityKey, LbAffinityVal>,
    pub(super) source_ranges: LpmTrie<F::SourceRange, u8>,
}

impl<F: Family> FamilyMaps<F> {
    pub(super) const SERVICES: MapSpec =
        MapSpec::hash::<F::Key, F::Service>(F::SERVICES, MAX_ENTRIES).layouts::<F::Key, F::Service>();
    pub(super) const BACKENDS: MapSpec =
        MapSpec::hash::<u32, F::Backend>(F::BACKENDS, MAX_ENTRIES).value_layout::<F::Backend>();
    pub(super) const REVERSE_NAT: MapSpec =
        MapSpec::hash::<u16, F::ReverseNat>(F::REVERSE_NAT, MAX_ENTRIES).value_layout::<F::ReverseNat>();
    pub(super) const AFFINITY: MapSpec = MapSpec::lru_hash::<F::AffinityKey, LbAffinityVal>(F::AFFINITY, MAX_ENTRIES)
        .layouts::<F::AffinityKey, LbAffinityVal>();
    pub(super) const SOURCE_RANGES: MapSpec =
        MapSpec::lpm::<F::SourceRange, u8>(F::SOURCE_RANGES, MAX_ENTRIES).key_layout::<F::SourceRange>();

    pub(super) fn create(max_entries: u32) -> Result<Self> {
        Ok(Self {
            services: HashMap::create(&Self::SERVICES.with_max_entries(max_entries))?,
            backends: HashMap::create(&Self::BACKENDS.with_max_entries(max_entries))?,
            reverse_nat: HashMap::create(&Self::REVERSE_NAT.with_max_entries(max_entries))?,
            affinity: LruHashMap::create(&Self::AFFINITY.with_max_entries(max_entries))?,
            source_ranges: LpmTrie::create(&Self::SOURCE_RANGES.with_max_entries(max_entries))?,
        })
    }

    pub(super) fn open_pinned(directory: &Path) -> Result<Self> {
        let pin = |spec: &MapSpec| pin_path(directory, spec.name());
        let [services, backends, reverse_nat, affinity, source_ranges] =
            [Self::SERVICES, Self::BACKENDS, Self::REVERSE_NAT, Self::AFFINITY, Self::SOURCE_RANGES]
                .map(MapSpec::any_max_entries);
        Ok(Self {
            services: HashMap::open_pinned(pin(&services), &services)?,
            backends: HashMap::open_pinned(pin(&backends), &backends)?,
            reverse_nat: HashMap::open_pinned(pin(&reverse_nat), &reverse_nat)?,
            affinity: LruHashMap::open_pinned(pin(&affinity), &affinity)?,
            source_ranges: LpmTrie::open_pinned(pin(&source_ranges), &source_ranges)?,
        })
    }
}
