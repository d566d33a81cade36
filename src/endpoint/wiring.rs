//! What an endpoint is in the kernel: a row, two attachments, an entry per address.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::reach::Reach;
use super::record::EndpointRecord;
use crate::abi::{ENDPOINT_ROW_IPV4, ENDPOINT_ROW_IPV6, EndpointRow};
use crate::enforcement::{PolicyRows, PolicyWriter};
use crate::ipam::Ipam;
use crate::netlink::Socket;
use crate::program::{Attacher, Device, Direction, Program};
use crate::tables::{
    EndpointFlags, EndpointRows, LxcEndpoint, PolicyAction, PolicyDirection, PolicyL4, PolicyMatch, PolicyVerdict,
};
use crate::{Result, SecurityId};

/// What endpoints are wired to: the node's addresses, maps, programs and devices.
pub(crate) struct Wiring {
    pub(crate) ipam: Arc<Ipam>,
    pub(crate) reach: Reach,
    pub(crate) rows: EndpointRows,
    pub(crate) policies: PolicyWriter,
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
        // In force from here on. That the slot's last policy, if it had one, is used no more, is not waited for.
        drop(self.policies.begin([(record.id, allow_all())])?);
        self.reach.write_endpoint((record.ipv4, record.ipv6), &lxc_endpoint(record))?;
        self.policies.switches().advance()?;
        Ok(())
    }

    /// Takes the policy away: nothing passes any more.
    pub(super) fn delete_policy(&self, record: &EndpointRecord) -> Result<()> {
        drop(self.policies.remove([record.id])?);
        Ok(())
    }
}

/// A policy that lets everything in and out.
fn allow_all() -> PolicyRows {
    PolicyRows::new([PolicyDirection::Ingress, PolicyDirection::Egress].map(|direction| {
        let matched = PolicyMatch { direction, identity: SecurityId::UNKNOWN, l4: PolicyL4::Any };
        (matched, PolicyVerdict::new(PolicyAction::Allow, 0))
    }))
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

/// An endpoint's entry in `cilium_lxc`.
pub(super) fn lxc_endpoint(record: &EndpointRecord) -> LxcEndpoint {
    LxcEndpoint {
        id: record.id,
        ifindex: record.ifindex,
        mac: record.mac,
        node_mac: record.node_mac,
        identity: record.identity(),
        flags: EndpointFlags::default(),
        parent_ifindex: None,
    }
}
