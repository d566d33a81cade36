//! Neighbours: which Ethernet address an address on the device's network has.

use std::net::IpAddr;

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Nda, Nud, RtAddrFamily, Rtm, Rtn};
use neli::rtnl::{Ndmsg, NdmsgBuilder};

use super::link::{signed, unsigned};
use super::request::Request;
use super::socket::Socket;
use super::wire::{self, Attributes, Frame};
use crate::{IfIndex, MacAddr, Result};

/// A permanent neighbour: it needs no ARP or neighbour solicitation and does not expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourSpec {
    /// The device on whose network it is.
    pub device: IfIndex,
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: MacAddr,
}

/// A neighbour as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Neighbour {
    /// The device on whose network it is.
    pub device: IfIndex,
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address, once known.
    pub mac: Option<MacAddr>,
    /// Whether it was set by an administrator and stays.
    pub is_permanent: bool,
    /// `NUD_…` state of linux/neighbour.h.
    pub state: u16,
}

impl Socket {
    /// Sets a permanent neighbour, whatever was known about its address before.
    pub fn neighbour_set(&self, spec: &NeighbourSpec) -> Result<()> {
        self.execute(&Request::neighbour_set(spec)?)
    }

    /// Forgets a neighbour.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) when it is not known.
    pub fn neighbour_delete(&self, device: IfIndex, address: IpAddr) -> Result<()> {
        self.execute(&Request::neighbour_delete(device, address)?)
    }

    /// The neighbours on a device, or on all; both families.
    pub fn neighbours(&self, device: Option<IfIndex>) -> Result<Vec<Neighbour>> {
        let mut attributes = Attributes::new();
        attributes.put_some(Nda::Ifindex, device.map(IfIndex::get))?;
        let body = body(RtAddrFamily::Unspecified, None, Nud::empty(), attributes)?;
        let object = device.map_or_else(|| "all devices".to_owned(), |device| format!("device {device}"));
        let request = Request::new("list neighbours on", object, Rtm::Getneigh, NlmF::DUMP, &body)?;
        self.dump(&request, parse)
    }
}

impl Request {
    /// The request of [`Socket::neighbour_set`].
    pub fn neighbour_set(spec: &NeighbourSpec) -> Result<Self> {
        let mut attributes = Attributes::new();
        attributes.put_ip(Nda::Dst, spec.address)?;
        attributes.put(Nda::Lladdr, spec.mac.octets())?;
        let body = body(wire::family(spec.address), Some(spec.device), Nud::PERMANENT, attributes)?;
        let object = format!("{} at {} on device {}", spec.address, spec.mac, spec.device);
        Self::new("set neighbour", object, Rtm::Newneigh, NlmF::CREATE | NlmF::REPLACE, &body)
    }

    /// The request of [`Socket::neighbour_delete`].
    pub fn neighbour_delete(device: IfIndex, address: IpAddr) -> Result<Self> {
        let mut attributes = Attributes::new();
        attributes.put_ip(Nda::Dst, address)?;
        let body = body(wire::family(address), Some(device), Nud::empty(), attributes)?;
        let object = format!("{address} on device {device}");
        Self::new("delete neighbour", object, Rtm::Delneigh, NlmF::empty(), &body)
    }
}

fn body(family: RtAddrFamily, device: Option<IfIndex>, state: Nud, attributes: Attributes<Nda>) -> Result<Ndmsg> {
    NdmsgBuilder::default()
        .ndm_family(family)
        .ndm_index(signed(device))
        .ndm_state(state)
        .ndm_type(Rtn::Unspec)
        .rtattrs(attributes.finish())
        .build()
        .map_err(wire::encode_error)
}

/// Parses a neighbour; `None` for messages of other kinds and families (a bridge's forwarding table).
pub(super) fn parse(frame: &Frame<'_>) -> Result<Option<Neighbour>> {
    if !frame.is(Rtm::Newneigh) {
        return Ok(None);
    }
    let message: Ndmsg = frame.parse()?;
    let (Some(mut address), Some(device)) = (wire::unspecified(*message.ndm_family()), unsigned(*message.ndm_index()))
    else {
        return Ok(None);
    };
    let mut mac = None;
    for (kind, payload) in wire::kinds(message.rtattrs()) {
        match Nda::from(kind) {
            Nda::Dst => address = wire::ip(payload)?,
            Nda::Lladdr => mac = wire::mac(payload),
            _ => (),
        }
    }
    let state: u16 = (*message.ndm_state()).into();
    let is_permanent = state & u16::from(Nud::PERMANENT) != 0;
    Ok(Some(Neighbour { device, address, mac, is_permanent, state }))
}
