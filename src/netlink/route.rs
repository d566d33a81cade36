//! Routes.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use neli::consts::nl::NlmF;
use neli::consts::rtnl::{RtAddrFamily, RtScope, RtTable, Rta, Rtm, RtmF, Rtn, Rtprot};
use neli::rtnl::{Rtmsg, RtmsgBuilder};

use super::link::{signed, unsigned};
use super::request::Request;
use super::socket::Socket;
use super::wire::{self, Attributes, Frame};
use crate::{Error, IfIndex, Result};

/// The gateway is on the link even where no route says so (`RTNH_F_ONLINK`).
const RTNH_F_ONLINK: u32 = 0x4;

/// The metric that holds the longest packet (`RTAX_MTU`).
const RTAX_MTU: u16 = 2;

/// The table that is searched by default (`RT_TABLE_MAIN`).
pub(super) const TABLE_MAIN: u32 = 254;

/// How far away the destination of a route, or the use of an address, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Anywhere.
    Universe,
    /// Within the site (IPv6).
    Site,
    /// On the device's own network.
    Link,
    /// On this machine.
    Host,
    /// Nowhere.
    Nowhere,
    /// A number between those.
    Other(u8),
}

impl From<Scope> for RtScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Universe => Self::Universe,
            Scope::Site => Self::Site,
            Scope::Link => Self::Link,
            Scope::Host => Self::Host,
            Scope::Nowhere => Self::Nowhere,
            Scope::Other(number) => Self::from(number),
        }
    }
}

impl From<RtScope> for Scope {
    fn from(scope: RtScope) -> Self {
        match scope {
            RtScope::Universe => Self::Universe,
            RtScope::Site => Self::Site,
            RtScope::Link => Self::Link,
            RtScope::Host => Self::Host,
            RtScope::Nowhere => Self::Nowhere,
            RtScope::UnrecognizedConst(number) => Self::Other(number),
        }
    }
}

/// What happens to packets that a route matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RouteKind {
    /// They are sent on.
    Unicast,
    /// They are for this machine.
    Local,
    /// They are dropped in silence.
    Blackhole,
    /// They are dropped, and the sender is told that the destination is unreachable.
    Unreachable,
    /// They are dropped, and the sender is told that this is forbidden.
    Prohibit,
    /// The search goes on in the next table.
    Throw,
    /// Another kind, by its number in linux/rtnetlink.h.
    Other(u8),
}

impl From<RouteKind> for Rtn {
    fn from(kind: RouteKind) -> Self {
        match kind {
            RouteKind::Unicast => Self::Unicast,
            RouteKind::Local => Self::Local,
            RouteKind::Blackhole => Self::Blackhole,
            RouteKind::Unreachable => Self::Unreachable,
            RouteKind::Prohibit => Self::Prohibit,
            RouteKind::Throw => Self::Throw,
            RouteKind::Other(number) => Self::from(number),
        }
    }
}

impl From<Rtn> for RouteKind {
    fn from(kind: Rtn) -> Self {
        match kind {
            Rtn::Unicast => Self::Unicast,
            Rtn::Local => Self::Local,
            Rtn::Blackhole => Self::Blackhole,
            Rtn::Unreachable => Self::Unreachable,
            Rtn::Prohibit => Self::Prohibit,
            Rtn::Throw => Self::Throw,
            other => Self::Other(other.into()),
        }
    }
}

/// A route, to be added or as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteSpec {
    /// The destinations; prefix length 0 makes a default route.
    pub destination: IpNetwork,
    /// What happens to packets.
    pub kind: RouteKind,
    /// The next hop; none when the destinations are on the device's own network.
    pub gateway: Option<IpAddr>,
    /// The device; may be left out where the gateway tells it, and for kinds that drop.
    pub device: Option<IfIndex>,
    /// How far the destinations are; follows from the kind and the gateway unless given. The kernel ignores it for IPv6.
    pub scope: Option<Scope>,
    /// The address from which this machine sends by this route.
    pub source: Option<IpAddr>,
    /// Longest packet in bytes.
    pub mtu: Option<u32>,
    /// Of several routes to the same destinations the one with the lowest number wins.
    pub priority: Option<u32>,
    /// Take the gateway to be on the device's own network without looking for a route to it.
    pub onlink: bool,
    /// The table; the main table is 254.
    pub table: u32,
    /// Who made the route: a number of linux/rtnetlink.h (2 the kernel, 4 an administrator).
    pub protocol: u8,
}

/// A route as the kernel has it.
pub type Route = RouteSpec;

impl RouteSpec {
    /// A unicast route in the main table.
    pub fn new(destination: IpNetwork) -> Self {
        Self {
            destination,
            kind: RouteKind::Unicast,
            gateway: None,
            device: None,
            scope: None,
            source: None,
            mtu: None,
            priority: None,
            onlink: false,
            table: TABLE_MAIN,
            protocol: Rtprot::Static.into(),
        }
    }

    /// By this gateway.
    pub fn gateway(self, gateway: IpAddr) -> Self {
        Self { gateway: Some(gateway), ..self }
    }

    /// By this device.
    pub fn device(self, device: IfIndex) -> Self {
        Self { device: Some(device), ..self }
    }

    /// Of this kind.
    pub fn kind(self, kind: RouteKind) -> Self {
        Self { kind, ..self }
    }

    /// With this scope.
    pub fn scope(self, scope: Scope) -> Self {
        Self { scope: Some(scope), ..self }
    }

    /// With this source address for what this machine sends.
    pub fn source(self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// With this longest packet, in bytes.
    pub fn mtu(self, mtu: u32) -> Self {
        Self { mtu: Some(mtu), ..self }
    }

    /// With this priority; lower wins.
    pub fn priority(self, priority: u32) -> Self {
        Self { priority: Some(priority), ..self }
    }

    /// With a gateway that need not be covered by another route.
    pub fn onlink(self) -> Self {
        Self { onlink: true, ..self }
    }

    /// In this table.
    pub fn table(self, table: u32) -> Self {
        Self { table, ..self }
    }

    /// Made by this protocol.
    pub fn protocol(self, protocol: u8) -> Self {
        Self { protocol, ..self }
    }
}

impl Socket {
    /// Adds a route.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) when one to the same destinations with the same priority exists.
    pub fn route_add(&self, route: &RouteSpec) -> Result<()> {
        self.execute(&Request::route_add(route)?)
    }

    /// Adds a route, or replaces the one to the same destinations with the same priority.
    pub fn route_replace(&self, route: &RouteSpec) -> Result<()> {
        self.execute(&Request::route_replace(route)?)
    }

    /// Deletes the first route that has everything that `route` names.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) (`ESRCH`) when there is none.
    pub fn route_delete(&self, route: &RouteSpec) -> Result<()> {
        self.execute(&Request::route_delete(route)?)
    }

    /// All routes of both families, in all tables. A route with several next hops shows neither gateway nor device.
    pub fn routes(&self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [RtAddrFamily::Inet, RtAddrFamily::Inet6] {
            let body = header(family).rtattrs(Attributes::new().finish()).build().map_err(wire::encode_error)?;
            routes.append(&mut self.dump(&Request::new("list", "routes", Rtm::Getroute, NlmF::DUMP, &body)?, parse)?);
        }
        Ok(routes)
    }

    /// The route that a packet from this machine to `address` would take.
    ///
    /// # Errors
    ///
    /// `ENETUNREACH` when there is none.
    pub fn route_to(&self, address: IpAddr) -> Result<Route> {
        let mut attributes = Attributes::new();
        attributes.put_ip(Rta::Dst, address)?;
        let host = IpNetwork::from(address);
        let body = header(wire::family(address)).rtm_dst_len(host.prefix()).rtattrs(attributes.finish());
        let body = body.build().map_err(wire::encode_error)?;
        self.query_one(&Request::new("find route to", address.to_string(), Rtm::Getroute, NlmF::empty(), &body)?, parse)
    }
}

impl Request {
    /// The request of [`Socket::route_add`].
    pub fn route_add(route: &RouteSpec) -> Result<Self> {
        let scope = route.scope.unwrap_or_else(|| implied_scope(route));
        Self::new("add route", object(route), Rtm::Newroute, NlmF::CREATE | NlmF::EXCL, &body(route, scope)?)
    }

    /// The request of [`Socket::route_replace`].
    pub fn route_replace(route: &RouteSpec) -> Result<Self> {
        let scope = route.scope.unwrap_or_else(|| implied_scope(route));
        Self::new("replace route", object(route), Rtm::Newroute, NlmF::CREATE | NlmF::REPLACE, &body(route, scope)?)
    }

    /// The request of [`Socket::route_delete`].
    pub fn route_delete(route: &RouteSpec) -> Result<Self> {
        // with this scope the kernel compares no scopes
        let scope = route.scope.unwrap_or(Scope::Nowhere);
        Self::new("delete route", object(route), Rtm::Delroute, NlmF::empty(), &body(route, scope)?)
    }
}

fn object(route: &RouteSpec) -> String {
    let mut text = route.destination.to_string();
    if let Some(gateway) = route.gateway {
        text += &format!(" via {gateway}");
    }
    if let Some(device) = route.device {
        text += &format!(" by device {device}");
    }
    text
}

/// What `ip route add` assumes, too.
fn implied_scope(route: &RouteSpec) -> Scope {
    match route.kind {
        RouteKind::Local => Scope::Host,
        RouteKind::Unicast if route.destination.is_ipv4() && route.gateway.is_none() => Scope::Link,
        _ => Scope::Universe,
    }
}

fn body(route: &RouteSpec, scope: Scope) -> Result<Rtmsg> {
    for (field, address) in [("gateway", route.gateway), ("source address", route.source)] {
        if let Some(address) = address
            && address.is_ipv4() != route.destination.is_ipv4()
        {
            let reason = format!("is not of the family of the destination {}", route.destination);
            return Err(Error::invalid(field, address.to_string(), reason));
        }
    }
    let mut attributes = Attributes::new();
    if route.destination.prefix() > 0 {
        attributes.put_ip(Rta::Dst, route.destination.network())?;
    }
    if let Some(gateway) = route.gateway {
        attributes.put_ip(Rta::Gateway, gateway)?;
    }
    attributes.put_some(Rta::Oif, route.device.map(|device| signed(Some(device))))?;
    if let Some(source) = route.source {
        attributes.put_ip(Rta::Prefsrc, source)?;
    }
    attributes.put_some(Rta::Priority, route.priority)?;
    if let Some(mtu) = route.mtu {
        let mut metrics = Attributes::<u16>::new();
        metrics.put(RTAX_MTU, mtu)?;
        attributes.put(Rta::Metrics, metrics.finish())?;
    }
    // the header has only a byte for it
    let table = u8::try_from(route.table).map_or(RtTable::Compat, RtTable::from);
    attributes.put(Rta::Table, route.table)?;
    header(wire::family(route.destination.ip()))
        .rtm_dst_len(route.destination.prefix())
        .rtm_table(table)
        .rtm_protocol(Rtprot::from(route.protocol))
        .rtm_scope(scope.into())
        .rtm_type(route.kind.into())
        .rtm_flags(RtmF::from_bits_retain(if route.onlink { RTNH_F_ONLINK } else { 0 }))
        .rtattrs(attributes.finish())
        .build()
        .map_err(wire::encode_error)
}

fn header(family: RtAddrFamily) -> RtmsgBuilder {
    RtmsgBuilder::default()
        .rtm_family(family)
        .rtm_dst_len(0)
        .rtm_src_len(0)
        .rtm_tos(0)
        .rtm_table(RtTable::Unspec)
        .rtm_protocol(Rtprot::Unspec)
        .rtm_scope(RtScope::Universe)
        .rtm_type(Rtn::Unspec)
}

/// Parses a route that is there, has come or gone; `None` for messages of other kinds and families.
pub(super) fn parse(frame: &Frame<'_>) -> Result<Option<Route>> {
    if !frame.is(Rtm::Newroute) && !frame.is(Rtm::Delroute) {
        return Ok(None);
    }
    let message: Rtmsg = frame.parse()?;
    let Some(mut destination) = wire::unspecified(*message.rtm_family()) else { return Ok(None) };
    let table: u8 = (*message.rtm_table()).into();
    let flags: u32 = (*message.rtm_flags()).into();
    let mut route = RouteSpec::new(IpNetwork::from(destination))
        .kind((*message.rtm_type()).into())
        .scope((*message.rtm_scope()).into())
        .table(u32::from(table))
        .protocol((*message.rtm_protocol()).into());
    route.onlink = flags & RTNH_F_ONLINK != 0;
    for (kind, payload) in wire::kinds(message.rtattrs()) {
        match Rta::from(kind) {
            Rta::Dst => destination = wire::ip(payload)?,
            Rta::Gateway => route.gateway = Some(wire::ip(payload)?),
            Rta::Oif => route.device = unsigned(wire::number(payload)?),
            Rta::Prefsrc => route.source = Some(wire::ip(payload)?),
            Rta::Priority => route.priority = Some(wire::number(payload)?),
            Rta::Table => route.table = wire::number(payload)?,
            Rta::Metrics => route.mtu = mtu(payload)?,
            _ => (),
        }
    }
    route.destination = IpNetwork::new(destination, *message.rtm_dst_len()).map_err(wire::decode_error)?;
    Ok(Some(route))
}

fn mtu(payload: &[u8]) -> Result<Option<u32>> {
    let metrics = wire::nested(payload)?;
    wire::kinds(&metrics).find(|(kind, _)| *kind == RTAX_MTU).map(|(_, payload)| wire::number(payload)).transpose()
}
