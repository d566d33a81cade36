//! Addresses of devices.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Ifa, IfaF, RtAddrFamily, RtScope, Rtm};
use neli::rtnl::{Ifaddrmsg, IfaddrmsgBuilder};

use super::request::Request;
use super::route::Scope;
use super::socket::Socket;
use super::wire::{self, Attributes, Frame};
use crate::{IfIndex, Result};

/// Flags of linux/if_addr.h, those that do not fit into the header's byte included.
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

/// An address to be added to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddressSpec {
    /// The device.
    pub device: IfIndex,
    /// The address with the length of its network's prefix.
    pub address: IpNetwork,
    /// How far the address means something.
    pub scope: Scope,
    /// Use an IPv6 address at once, without asking whether somebody else has it. Without effect for IPv4.
    pub no_dad: bool,
    /// Make no route to the address's network.
    pub no_prefix_route: bool,
    /// Change the address's settings where the device has it already, rather than fail.
    pub replace: bool,
}

impl AddressSpec {
    /// A global address of a device, usable at once.
    pub const fn new(device: IfIndex, address: IpNetwork) -> Self {
        Self { device, address, scope: Scope::Universe, no_dad: true, no_prefix_route: false, replace: false }
    }

    /// With another scope.
    pub const fn scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// Whether an IPv6 address waits until it is known that nobody else has it (about two seconds).
    pub const fn detect_duplicates(self, detect: bool) -> Self {
        Self { no_dad: !detect, ..self }
    }

    /// Without the route to its network.
    pub const fn no_prefix_route(self) -> Self {
        Self { no_prefix_route: true, ..self }
    }

    /// Changing what is there already rather than failing.
    pub const fn replace(self) -> Self {
        Self { replace: true, ..self }
    }
}

/// An address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Address {
    /// The device.
    pub device: IfIndex,
    /// The address with the length of its network's prefix.
    pub address: IpNetwork,
    /// How far the address means something.
    pub scope: Scope,
    /// Whether it can't be used yet: nobody knows whether somebody else has it.
    pub is_tentative: bool,
    /// Whether somebody else has it.
    pub is_duplicate: bool,
    /// `IFA_F_…` flags of linux/if_addr.h, all of them.
    pub flags: u32,
}

impl Socket {
    /// Adds an address.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) when the device has it, unless `spec.replace`.
    pub fn address_add(&self, spec: &AddressSpec) -> Result<()> {
        self.execute(&Request::address_add(spec)?)
    }

    /// Removes an address; the prefix length must be the one it was added with.
    ///
    /// # Errors
    ///
    /// `EADDRNOTAVAIL` when the device does not have it.
    pub fn address_delete(&self, device: IfIndex, address: IpNetwork) -> Result<()> {
        self.execute(&Request::address_delete(device, address)?)
    }

    /// The addresses of a device, or of all; both families.
    pub fn addresses(&self, device: Option<IfIndex>) -> Result<Vec<Address>> {
        let body = body(RtAddrFamily::Unspecified, 0, RtScope::Universe, device, Attributes::new())?;
        let object = device.map_or_else(|| "all devices".to_owned(), |device| format!("device {device}"));
        let request = Request::new("list addresses of", object, Rtm::Getaddr, NlmF::DUMP, &body)?;
        let mut addresses = self.dump(&request, parse)?;
        // kernels before 5.0 send those of all devices
        addresses.retain(|address| device.is_none_or(|device| device == address.device));
        Ok(addresses)
    }
}

impl Request {
    /// The request of [`Socket::address_add`].
    pub fn address_add(spec: &AddressSpec) -> Result<Self> {
        let flags = NlmF::CREATE | if spec.replace { NlmF::REPLACE } else { NlmF::EXCL };
        let mut attributes = local(spec.address.ip())?;
        let no_dad = if spec.no_dad && spec.address.is_ipv6() { IFA_F_NODAD } else { 0 };
        let no_route = if spec.no_prefix_route { IFA_F_NOPREFIXROUTE } else { 0 };
        attributes.put(Ifa::Flags, no_dad | no_route)?;
        let family = wire::family(spec.address.ip());
        let body = body(family, spec.address.prefix(), spec.scope.into(), Some(spec.device), attributes)?;
        Self::new("add address", object(spec.device, spec.address), Rtm::Newaddr, flags, &body)
    }

    /// The request of [`Socket::address_delete`].
    pub fn address_delete(device: IfIndex, address: IpNetwork) -> Result<Self> {
        let attributes = local(address.ip())?;
        let family = wire::family(address.ip());
        let body = body(family, address.prefix(), RtScope::Universe, Some(device), attributes)?;
        Self::new("delete address", object(device, address), Rtm::Deladdr, NlmF::empty(), &body)
    }
}

fn object(device: IfIndex, address: IpNetwork) -> String {
    format!("{address} of device {device}")
}

fn local(address: IpAddr) -> Result<Attributes<Ifa>> {
    let mut attributes = Attributes::new();
    attributes.put_ip(Ifa::Local, address)?;
    attributes.put_ip(Ifa::Address, address)?;
    Ok(attributes)
}

fn body(
    family: RtAddrFamily,
    prefix: u8,
    scope: RtScope,
    device: Option<IfIndex>,
    attributes: Attributes<Ifa>,
) -> Result<Ifaddrmsg> {
    IfaddrmsgBuilder::default()
        .ifa_family(family)
        .ifa_prefixlen(prefix)
        .ifa_flags(IfaF::empty())
        .ifa_scope(scope)
        .ifa_index(device.map_or(0, IfIndex::get))
        .rtattrs(attributes.finish())
        .build()
        .map_err(wire::encode_error)
}

/// Parses an address that is there, has come or gone; `None` for messages of other kinds and families.
pub(super) fn parse(frame: &Frame<'_>) -> Result<Option<Address>> {
    if !frame.is(Rtm::Newaddr) && !frame.is(Rtm::Deladdr) {
        return Ok(None);
    }
    let message: Ifaddrmsg = frame.parse()?;
    let Some(mut address) = wire::unspecified(*message.ifa_family()) else { return Ok(None) };
    let device = IfIndex::new(*message.ifa_index()).ok_or_else(|| wire::decode_error("an address of device 0"))?;
    let header: u8 = (*message.ifa_flags()).into();
    let mut flags = u32::from(header);
    let mut local = None;
    for (kind, payload) in wire::kinds(message.rtattrs()) {
        match Ifa::from(kind) {
            Ifa::Address => address = wire::ip(payload)?,
            // the other end has IFA_ADDRESS on a point-to-point device
            Ifa::Local => local = Some(wire::ip(payload)?),
            Ifa::Flags => flags = wire::number(payload)?,
            _ => (),
        }
    }
    let address = IpNetwork::new(local.unwrap_or(address), *message.ifa_prefixlen()).map_err(wire::decode_error)?;
    Ok(Some(Address {
        device,
        address,
        scope: (*message.ifa_scope()).into(),
        is_tentative: flags & IFA_F_TENTATIVE != 0,
        is_duplicate: flags & IFA_F_DADFAILED != 0,
        flags,
    }))
}
