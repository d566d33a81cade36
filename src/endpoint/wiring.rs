//! What an endpoint is in the kernel: a row, two attachments, an entry per address.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::reach::Reach;
use super::record::EndpointRecord;
use crate::Result;
use crate::abi::{ENDPOINT_ROW_IPV4, ENDPOINT_ROW_IPV6, EndpointRow};
use crate::conntrack::Conntrack;
use crate::enforcement::Enforcement;
use crate::ipam::Ipam;
use crate::netlink::Socket;
use crate::program::{Attacher, Device, Direction, Program};
use crate::tables::{EndpointFlags, EndpointRows, LxcEndpoint};

/// What endpoints are wired to: the node's addresses, maps, programs and devices.
pub(crate) struct Wiring {
    pub(crate) ipam: Arc<Ipam>,
    pub(crate) reach: Reach,
    pub(crate) rows: EndpointRows,
    pub(crate) conntrack: Arc<Conntrack>,
    pub(crate) enforcement: Arc<Enforcement>,
    /// What policy denies any endpoint is let through, and reported.
    pub(crate) audit: AtomicBool,
    pub(crate) attacher: Attacher,
    pub(crate) from_container: Program,
    pub(crate) to_container: Program,
    /// A socket in the node's namespace.
    pub(crate) socket: Socket,
    pub(crate) gateway_ipv4: Option<Ipv4Addr>,
    pub(crate) gateway_ipv6: Option<Ipv6Addr>,
    /// Of pods' devices, in bytes.
    pub(crate) mtu: u32,
    /// Of pods' default routes, in bytes.
    pub(crate) route_mtu: u32,
}

impl Wiring {
    /// Writes the row against which the programs check what the pod sends.
    pub(super) fn write_row(&self, record: &EndpointRecord) -> Result<()> {
        self.rows.write(&row(record))
    }

    /// Attaches the programs to the host side of the pair, in place of older ones of ours.
    pub(super) fn attach(&self, record: &EndpointRecord) -> Result<()> {
        let programs = [(Direction::Ingress, &self.from_container), (Direction::Egress, &self.to_container)];
        for attachment in self.attacher.attach_all(device(record), &programs)? {
            attachment.pin()?;
        }
        Ok(())
    }

    /// Whether the programs of this generation are attached.
    pub(super) fn is_attached(&self, record: &EndpointRecord) -> Result<bool> {
        for (direction, program) in
            [(Direction::Ingress, &self.from_container), (Direction::Egress, &self.to_container)]
        {
            let found = self.attacher.find(device(record), direction)?;
            if found.is_none_or(|found| found.program_id() != program.id() || found.mode() != self.attacher.mode()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the pod reachable by its addresses: by all of them or none. Its policy comes first: without one nothing passes.
    pub(super) fn write_addresses(&self, record: &EndpointRecord) -> Result<()> {
        self.reach.write_endpoint((record.ipv4, record.ipv6), &self.lxc_endpoint(record))?;
        self.enforcement.map_endpoint(record.addresses(), record.identity())
    }

    /// Makes the pod unreachable; returns how many of its addresses were entries of `cilium_lxc`.
    pub(super) fn unmap(&self, record: &EndpointRecord) -> Result<usize> {
        let removed = self.reach.delete_endpoint((record.ipv4, record.ipv6), record.id)?;
        self.enforcement.unmap_endpoint(record.addresses())?;
        Ok(removed)
    }

    /// An endpoint's entry in `cilium_lxc`.
    pub(super) fn lxc_endpoint(&self, record: &EndpointRecord) -> LxcEndpoint {
        let mut flags = EndpointFlags::default();
        flags.set(EndpointFlags::AUDIT, record.audit || self.audit.load(Ordering::Relaxed));
        LxcEndpoint {
            id: record.id,
            ifindex: record.ifindex,
            mac: record.mac,
            node_mac: record.node_mac,
            identity: record.identity(),
            flags,
            parent_ifindex: None,
        }
    }
}

/// The host side of an endpoint's pair.
pub(super) fn device(record: &EndpointRecord) -> Device<'_> {
    Device { name: &record.device, index: record.ifindex }
}

/// An endpoint's row.
pub(super) fn row(record: &EndpointRecord) -> EndpointRow {
    let flag = |there: bool, flag: u16| if there { flag } else { 0 };
    EndpointRow {
        ifindex: record.ifindex.get(),
        lxc_id: record.id.get(),
        flags: flag(record.ipv4.is_some(), ENDPOINT_ROW_IPV4) | flag(record.ipv6.is_some(), ENDPOINT_ROW_IPV6),
        ipv4: record.ipv4.map_or(0, |address| u32::from_ne_bytes(address.octets())),
        sec_id: record.identity().get(),
        ipv6: record.ipv6.map_or([0; 16], |address| address.octets()),
        mac: record.mac.padded(),
        node_mac: record.node_mac.padded(),
        ..EndpointRow::default()
    }
}
