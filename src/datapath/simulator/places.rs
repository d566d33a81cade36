//! Where a packet starts: its addresses, the program that it meets first, and the device.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Simulator;
use super::packet::{Content, Entry, Fields, Packet, Place};
use crate::endpoint::{EndpointRecord, EndpointRef};
use crate::enforcement::Trial;
use crate::tables::LxcEntry;
use crate::{EndpointId, Error, IfIndex, MacAddr, Result};

pub(super) const FROM_CONTAINER: &str = "cil_from_container";
pub(super) const TO_CONTAINER: &str = "cil_to_container";
pub(super) const FROM_NETDEV: &str = "cil_from_netdev";
pub(super) const FROM_HOST: &str = "cil_from_host";

/// Of a router out there.
const NEIGHBOUR: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);

/// A frame before the first program.
pub(super) struct Start {
    pub(super) program: &'static str,
    pub(super) device: IfIndex,
    pub(super) frame: Vec<u8>,
}

/// One end of a packet, found.
struct End {
    /// The addresses that it may have.
    addresses: Vec<IpAddr>,
    owner: Owner,
}

enum Owner {
    Endpoint(Box<EndpointRecord>),
    Host,
    Outside,
}

impl Simulator<'_> {
    pub(super) fn start(&self, packet: &Packet, trial: Option<&Trial>) -> Result<Start> {
        match &packet.0 {
            Content::Fields(fields) => self.start_of_fields(fields, trial),
            Content::Bytes(entry, frame) => {
                let (program, device) = match entry {
                    Entry::FromEndpoint(endpoint) => (FROM_CONTAINER, self.endpoint(endpoint)?.ifindex),
                    Entry::ToEndpoint(endpoint) => (TO_CONTAINER, self.endpoint(endpoint)?.ifindex),
                    Entry::FromNetwork => {
                        let node = self.datapath.node();
                        let device = node.devices.first().ok_or_else(|| Error::not_found("native device", "any"))?;
                        (FROM_NETDEV, device.ifindex)
                    }
                };
                Ok(Start { program, device, frame: frame.clone() })
            }
        }
    }

    fn start_of_fields(&self, fields: &Fields, trial: Option<&Trial>) -> Result<Start> {
        let (from, to) = (self.end(&fields.from, trial)?, self.end(&fields.to, trial)?);
        let families = fields.families();
        let (source, destination) = common_family(&from.addresses, &to.addresses, families).ok_or_else(|| {
            let ends = format!("{} to {}", fields.from, fields.to);
            Error::invalid(
                "packet",
                ends,
                match families {
                    [false] => "have no IPv4 addresses, both of them, between which ICMP goes",
                    [true] => "have no IPv6 addresses, both of them, between which ICMPv6 goes",
                    _ => "have no addresses of one family",
                },
            )
        })?;
        let node = self.datapath.node();
        let (program, device, macs) = match (from.owner, to.owner, node.devices.first()) {
            (Owner::Endpoint(sender), ..) => (FROM_CONTAINER, sender.ifindex, (sender.mac, sender.node_mac)),
            (Owner::Outside, _, Some(native)) => (FROM_NETDEV, native.ifindex, (NEIGHBOUR, native.mac)),
            // By another device the stack takes it, and routes it to the endpoint.
            (_, Owner::Endpoint(receiver), _) => (TO_CONTAINER, receiver.ifindex, (receiver.node_mac, receiver.mac)),
            _ => (FROM_HOST, node.host.ifindex, (node.host.mac, node.net.mac)),
        };
        Ok(Start { program, device, frame: fields.frame(macs, source, destination)? })
    }

    fn end(&self, place: &Place, trial: Option<&Trial>) -> Result<End> {
        Ok(match place {
            Place::Endpoint(endpoint) => {
                let record = self.endpoint(endpoint)?;
                End { addresses: record.addresses().collect(), owner: Owner::Endpoint(Box::new(record)) }
            }
            Place::Host => End { addresses: self.datapath.node().addresses().collect(), owner: Owner::Host },
            Place::World => End { addresses: self.strangers(trial)?, owner: Owner::Outside },
            Place::Address(address) => End { addresses: vec![*address], owner: self.owner(*address)? },
        })
    }

    /// Addresses of which nothing is known, one of each family: neither this node nor an endpoint has them, and no policy names them.
    fn strangers(&self, trial: Option<&Trial>) -> Result<Vec<IpAddr>> {
        let (ipv4, ipv6) = (self.stranger(outside_ipv4(), trial)?, self.stranger(outside_ipv6(), trial)?);
        let found: Vec<_> = ipv4.into_iter().chain(ipv6).collect();
        match found.is_empty() {
            true => {
                Err(Error::invalid("place", "world", "every address that was tried is known by a prefix; name one"))
            }
            false => Ok(found),
        }
    }

    fn stranger(&self, candidates: impl Iterator<Item = IpAddr>, trial: Option<&Trial>) -> Result<Option<IpAddr>> {
        for address in candidates {
            let is_named = trial.is_some_and(|trial| trial.prefix_of(address).is_some());
            let world = if address.is_ipv4() { self.world.0 } else { self.world.1 };
            if !is_named && self.live.lxc.lookup(address)?.is_none() && self.identity_elsewhere(address)? == world {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    fn owner(&self, address: IpAddr) -> Result<Owner> {
        Ok(match self.live.lxc.lookup(address)? {
            Some(LxcEntry::Host) => Owner::Host,
            Some(LxcEntry::Endpoint(endpoint)) => Owner::Endpoint(Box::new(self.record(endpoint.id)?)),
            _ => Owner::Outside,
        })
    }

    fn endpoint(&self, reference: &EndpointRef) -> Result<EndpointRecord> {
        let mut found = self.datapath.endpoints.find(reference).into_iter().map(|endpoint| endpoint.record);
        match (found.next(), found.next()) {
            (Some(record), None) => Ok(record),
            (None, _) => Err(Error::not_found("endpoint", reference.to_string())),
            _ => Err(Error::invalid("endpoint", reference.to_string(), "are several; name one by its id")),
        }
    }

    pub(super) fn record(&self, id: EndpointId) -> Result<EndpointRecord> {
        Ok(self.datapath.endpoints.get(id)?.record)
    }
}

/// Addresses for documentation (RFC 5737) and for tests of devices (RFC 2544), then one of each block of 2^24.
fn outside_ipv4() -> impl Iterator<Item = IpAddr> {
    let nobody_s = [[192, 0, 2, 1], [198, 51, 100, 1], [203, 0, 113, 1], [198, 18, 0, 1]];
    let private = |first: &u8| [10, 127].contains(first);
    let blocks = (1..=223).filter(move |first| !private(first)).map(|first| [first, 0, 2, 1]);
    nobody_s.into_iter().chain(blocks).map(|octets| Ipv4Addr::from(octets).into())
}

/// Addresses for documentation (RFC 3849, RFC 9637), then one of each block of 2^116 of those that are routed.
fn outside_ipv6() -> impl Iterator<Item = IpAddr> {
    let nobody_s = [(0x2001, 0xdb8), (0x3fff, 0)];
    let blocks = (0x200..=0x3ff).map(|block| (block << 4, 1));
    let addresses = nobody_s.into_iter().chain(blocks);
    addresses.map(|(first, second)| Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 1).into())
}

fn common_family(from: &[IpAddr], to: &[IpAddr], families: &[bool]) -> Option<(IpAddr, IpAddr)> {
    let of = |addresses: &[IpAddr], ipv6| addresses.iter().copied().find(|address| address.is_ipv6() == ipv6);
    families.iter().find_map(|ipv6| Some((of(from, *ipv6)?, of(to, *ipv6)?)))
}
