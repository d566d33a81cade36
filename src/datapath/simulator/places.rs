//! Where a packet starts: its addresses, the program that it meets first, and the device.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Simulator;
use super::packet::{Content, Entry, Fields, Packet, Place};
use crate::endpoint::{EndpointRecord, EndpointRef};
use crate::tables::LxcEntry;
use crate::{EndpointId, Error, IfIndex, MacAddr, Result};

pub(super) const FROM_CONTAINER: &str = "cil_from_container";
pub(super) const TO_CONTAINER: &str = "cil_to_container";
pub(super) const FROM_NETDEV: &str = "cil_from_netdev";
pub(super) const FROM_HOST: &str = "cil_from_host";

/// Addresses for documentation (RFC 5737, RFC 3849): nobody has them.
const SOMEBODY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

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
    pub(super) fn start(&self, packet: &Packet) -> Result<Start> {
        match &packet.0 {
            Content::Fields(fields) => self.start_of_fields(fields),
            Content::Bytes(entry, frame) => {
                let (program, device) = match entry {
                    Entry::FromEndpoint(endpoint) => (FROM_CONTAINER, self.endpoint(endpoint)?.ifindex),
                    Entry::ToEndpoint(endpoint) => (TO_CONTAINER, self.endpoint(endpoint)?.ifindex),
                    Entry::FromNetwork => {
                        let first = self.datapath.node.devices.first();
                        let device = first.ok_or_else(|| Error::not_found("native device", "any"))?;
                        (FROM_NETDEV, device.ifindex)
                    }
                };
                Ok(Start { program, device, frame: frame.clone() })
            }
        }
    }

    fn start_of_fields(&self, fields: &Fields) -> Result<Start> {
        let (from, to) = (self.end(&fields.from)?, self.end(&fields.to)?);
        let (source, destination) = common_family(&from.addresses, &to.addresses, fields.ipv6).ok_or_else(|| {
            let ends = format!("{} to {}", fields.from, fields.to);
            Error::invalid("packet", ends, "have no addresses of one family")
        })?;
        let node = &self.datapath.node;
        let (program, device, macs) = match (from.owner, to.owner, node.devices.first()) {
            (Owner::Endpoint(sender), ..) => (FROM_CONTAINER, sender.ifindex, (sender.mac, sender.node_mac)),
            (Owner::Outside, _, Some(native)) => (FROM_NETDEV, native.ifindex, (NEIGHBOUR, native.mac)),
            // By another device the stack takes it, and routes it to the endpoint.
            (_, Owner::Endpoint(receiver), _) => (TO_CONTAINER, receiver.ifindex, (receiver.node_mac, receiver.mac)),
            _ => (FROM_HOST, node.host.ifindex, (node.host.mac, node.net.mac)),
        };
        Ok(Start { program, device, frame: fields.frame(macs, source, destination)? })
    }

    fn end(&self, place: &Place) -> Result<End> {
        Ok(match place {
            Place::Endpoint(endpoint) => {
                let record = self.endpoint(endpoint)?;
                End { addresses: record.addresses().collect(), owner: Owner::Endpoint(Box::new(record)) }
            }
            Place::Host => End { addresses: self.datapath.node.addresses().collect(), owner: Owner::Host },
            Place::World => End { addresses: SOMEBODY.to_vec(), owner: Owner::Outside },
            Place::Address(address) => End { addresses: vec![*address], owner: self.owner(*address)? },
        })
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

fn common_family(from: &[IpAddr], to: &[IpAddr], prefer_ipv6: bool) -> Option<(IpAddr, IpAddr)> {
    let of = |addresses: &[IpAddr], ipv6| addresses.iter().copied().find(|address| address.is_ipv6() == ipv6);
    [prefer_ipv6, !prefer_ipv6].into_iter().find_map(|ipv6| Some((of(from, ipv6)?, of(to, ipv6)?)))
}
