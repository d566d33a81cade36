//! The routes of the host to its pods, all of them by `cilium_host`, and what stands in their way.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::config::NodeConfig;
use super::host::{self, HOST, TABLE_MAIN};
use super::node::Node;
use crate::ipam::{Ipam, ROUTER};
use crate::netlink::{Route, RouteSpec, Scope, Socket};
use crate::{Error, ErrorKind, IfIndex, Result};

/// Routes that the kernel makes by itself (`RTPROT_KERNEL` of linux/rtnetlink.h).
const PROTOCOL_KERNEL: u8 = 2;

/// Those that it takes from router advertisements (`RTPROT_RA`).
const PROTOCOL_RA: u8 = 9;

/// Refuses ranges that hold an address which the node has on another device than `cilium_host`, unless it is excluded, and
/// those to which there is a route already.
pub(super) fn check_ranges(socket: &Socket, config: &NodeConfig) -> Result<()> {
    let host = host::find(socket, HOST)?.map(|link| link.index);
    let refused = |key, range: IpNetwork, reason| Err(Error::invalid(key, range.to_string(), reason));
    let (addresses, routes) = (socket.addresses(None)?, socket.routes()?);
    for (key, range) in config.ranges() {
        let hit = |ip: IpAddr| range.contains(ip) && !config.excluded.iter().any(|excluded| excluded.contains(ip));
        let own = |device| Some(device) == host;
        if let Some(found) = addresses.iter().find(|found| hit(found.address.ip()) && !own(found.device)) {
            return refused(key, range, format!("overlaps {} of {}", found.address, name(socket, found.device)));
        }
        if let Some(route) = to(&routes, range).find(|route| route.device.is_none() || route.device != host) {
            let reason = format!("has a route already{}: delete it, or choose another range", way(socket, route));
            return refused(key, range, reason);
        }
    }
    Ok(())
}

/// The routes that are to be: to each range, and to each address outside of the ranges that a pod still has.
pub(super) fn to_pods(node: &Node, ipam: &Ipam) -> Vec<RouteSpec> {
    let ranges: Vec<_> = node.ranges().collect();
    let strays = ipam.strays().into_iter().filter(|stray| *stray.owner != *ROUTER).map(|stray| stray.address);
    let strays = strays.filter(|address| ranges.iter().all(|range| !range.contains(*address)));
    let destinations = ranges.iter().copied().chain(strays.map(IpNetwork::from));
    destinations.map(|destination| to_pod(node, destination)).collect()
}

fn to_pod(node: &Node, destination: IpNetwork) -> RouteSpec {
    let route = RouteSpec::new(destination).device(node.host.ifindex);
    if destination.is_ipv4() {
        RouteSpec { source: node.router_ipv4.map(IpAddr::V4), ..route.scope(Scope::Link) }
    } else {
        RouteSpec { source: node.router_ipv6.map(IpAddr::V6), ..route }
    }
}

/// Those of the routes that are not there.
pub(super) fn missing(socket: &Socket, host: IfIndex, wanted: &[RouteSpec]) -> Result<Vec<IpNetwork>> {
    let routes = socket.routes()?;
    let is_there = |wanted: IpNetwork| to(&routes, wanted).any(|route| route.device == Some(host));
    Ok(wanted.iter().map(|route| route.destination).filter(|destination| !is_there(*destination)).collect())
}

/// Makes these the only routes by `cilium_host`, but for the kernel's own, which go with the addresses.
///
/// # Errors
///
/// `Foreign` where somebody else has a route to the same destinations.
pub(super) fn set(socket: &Socket, host: IfIndex, wanted: &[RouteSpec]) -> Result<()> {
    let mut ours = socket.routes()?;
    ours.retain(|route| route.device == Some(host) && route.table == TABLE_MAIN && route.protocol != PROTOCOL_KERNEL);
    for route in ours.iter().filter(|route| wanted.iter().all(|wanted| wanted.destination != route.destination)) {
        socket.route_delete(route)?;
    }
    for route in wanted {
        match ours.iter().find(|there| there.destination == route.destination) {
            Some(there) if there.source == route.source => {}
            Some(_) => socket.route_replace(route)?,
            None => add(socket, route)?,
        }
    }
    Ok(())
}

/// Adds a route, never in the place of another.
fn add(socket: &Socket, route: &RouteSpec) -> Result<()> {
    match socket.route_add(route) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let way = to(&socket.routes()?, route.destination).next().map(|other| way(socket, other));
            Err(Error::Foreign {
                object: format!("route to {}{}", route.destination, way.unwrap_or_default()),
                owner: "another program".to_owned(),
                remedy: "delete it, or choose another range for the pods".into(),
            })
        }
        added => added,
    }
}

/// The devices by which routers told of routes, default ones among them.
pub(super) fn learnt_by(socket: &Socket) -> Result<Vec<IfIndex>> {
    let routes = socket.routes()?.into_iter().filter(|route| route.protocol == PROTOCOL_RA);
    Ok(routes.filter_map(|route| route.device).collect())
}

/// The routes to exactly these destinations.
fn to(routes: &[Route], destination: IpNetwork) -> impl Iterator<Item = &Route> {
    routes.iter().filter(move |route| route.table == TABLE_MAIN && route.destination == destination)
}

/// Where a route leads, in words.
fn way(socket: &Socket, route: &Route) -> String {
    let gateway = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    let device = route.device.map(|device| format!(" by {}", name(socket, device))).unwrap_or_default();
    gateway + &device
}

fn name(socket: &Socket, device: IfIndex) -> String {
    socket.link_by_index(device).map_or_else(|_| format!("device {device}"), |link| link.name)
}
