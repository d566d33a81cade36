//! The node's own devices: the pair `cilium_host`/`cilium_net` with the gateway's address, and the native devices.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnetwork::IpNetwork;

use super::config::{Devices, NodeConfig};
use super::node::{Node, NodeDevice};
use crate::ipam::RouterAddresses;
use crate::netlink::{Address, AddressSpec, DeviceSpec, Link, LinkChange, Socket, VethSpec};
use crate::{Error, ErrorKind, IfIndex, MacAddr, Result};

pub(super) const HOST: &str = "cilium_host";
pub(super) const NET: &str = "cilium_net";
/// The alternative names that mark the pair as ours, whoever looks and whatever became of the state directory.
const HOST_MARK: &str = "podwire_host";
const NET_MARK: &str = "podwire_net";
/// The main routing table.
pub(super) const TABLE_MAIN: u32 = 254;
const MTU_DEFAULT: u32 = 1500;

/// Makes the pair, or takes over the one that a predecessor made. Its alias is the state directory that belongs to it.
///
/// # Errors
///
/// `Foreign` where another program made a device of that name, or a datapath whose state is elsewhere.
pub(super) fn ensure_pair(socket: &Socket, state: &Path, mtu: u32) -> Result<(IfIndex, IfIndex)> {
    let (host, net) = match (find(socket, HOST)?, find(socket, NET)?) {
        (Some(host), Some(net)) => {
            let pair = [own_with(host, state)?, own(net, NET_MARK)?];
            keep_macs(socket, &pair)?;
            (pair[0].index, pair[1].index)
        }
        (None, None) => create_pair(socket)?,
        // A veth device can't lose its other end: one of them is something else, or in another namespace.
        (Some(other), None) | (None, Some(other)) => return Err(foreign(&other)),
    };
    for device in [host, net] {
        let change = LinkChange { up: Some(true), arp: Some(false), mtu: Some(mtu), ..LinkChange::default() };
        socket.link_set(device, &change)?;
    }
    socket.link_set(host, &LinkChange { alias: Some(&alias(state)), ..LinkChange::default() })?;
    Ok((host, net))
}

/// Makes the addresses that devices have their own, where the kernel chose them (an earlier build let it): systemd-udevd changes those,
/// while the programs send to the one that they know.
fn keep_macs(socket: &Socket, devices: &[Link]) -> Result<()> {
    devices
        .iter()
        .try_for_each(|device| socket.link_set(device.index, &LinkChange { mac: device.mac, ..LinkChange::default() }))
}

/// The alias of `cilium_host`: names whose it is, for people and for a second datapath in the same namespace.
fn alias(state: &Path) -> String {
    format!("podwire:{}", state.display())
}

/// Ours, and not of a datapath with another state directory.
fn own_with(link: Link, state: &Path) -> Result<Link> {
    let link = own(link, HOST_MARK)?;
    match link.alias.as_deref().and_then(|alias| alias.strip_prefix("podwire:")) {
        Some(other) if Path::new(other) != state => Err(Error::Foreign {
            object: format!("device {}", link.name),
            owner: format!("the datapath with its state in {other}"),
            remedy: "use that state directory, clean it up, or run in another network namespace".into(),
        }),
        _ => Ok(link),
    }
}

fn create_pair(socket: &Socket) -> Result<(IfIndex, IfIndex)> {
    let spec = VethSpec {
        device: DeviceSpec { name: HOST, mac: Some(MacAddr::random()?), ..DeviceSpec::default() },
        peer: DeviceSpec { name: NET, mac: Some(MacAddr::random()?), ..DeviceSpec::default() },
        ..VethSpec::default()
    };
    let pair = socket.link_create_veth(&spec)?;
    let marked = socket
        .link_add_alt_name(pair.index, HOST_MARK)
        .and_then(|()| socket.link_add_alt_name(socket.link_by_name(NET)?.index, NET_MARK))
        .and_then(|()| socket.link_by_name(NET));
    match marked {
        Ok(net) => Ok((pair.index, net.index)),
        Err(error) => {
            socket.link_delete(pair.index)?;
            Err(error)
        }
    }
}

fn own(link: Link, mark: &str) -> Result<Link> {
    if link.alt_names.iter().any(|name| name == mark) { Ok(link) } else { Err(foreign(&link)) }
}

fn foreign(link: &Link) -> Error {
    Error::Foreign {
        object: format!("device {}", link.name),
        owner: "another program".to_owned(),
        remedy: "stop that program and delete the device, or run in another network namespace".into(),
    }
}

/// The pair's device `cilium_host`, if there is one that belongs to this state directory.
pub(super) fn find_own(socket: &Socket, state: &Path) -> Result<Option<IfIndex>> {
    Ok(find(socket, HOST)?.and_then(|host| own_with(host, state).ok()).map(|host| host.index))
}

/// Deletes the pair if it is ours; tells whether there was one.
pub(super) fn delete_pair(socket: &Socket, state: &Path) -> Result<bool> {
    match find_own(socket, state)? {
        Some(host) => socket.link_delete(host).map(|()| true),
        None => Ok(false),
    }
}

pub(super) fn find(socket: &Socket, name: &str) -> Result<Option<Link>> {
    match socket.link_by_name(name) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The gateway's addresses that `cilium_host` should have and has not.
pub(super) fn missing_addresses(socket: &Socket, node: &Node) -> Result<Vec<IpNetwork>> {
    let there = socket.addresses(Some(node.host.ifindex))?;
    let mut wanted = gateways(node.router_ipv4, node.router_ipv6);
    wanted.retain(|wanted| there.iter().all(|address| address.address != *wanted));
    Ok(wanted)
}

fn gateways(ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> Vec<IpNetwork> {
    [ipv4.map(IpAddr::V4), ipv6.map(IpAddr::V6)].into_iter().flatten().map(IpNetwork::from).collect()
}

/// Gives `cilium_host` the gateway's addresses, and no other.
pub(super) fn configure_host(socket: &Socket, host: IfIndex, router: &RouterAddresses) -> Result<()> {
    let wanted = gateways(router.ipv4, router.ipv6);
    for address in socket.addresses(Some(host))? {
        let link_local = matches!(address.address.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
        if !link_local && !wanted.contains(&address.address) {
            socket.address_delete(host, address.address)?;
        }
    }
    for address in &wanted {
        socket.address_add(&AddressSpec::new(host, *address).replace())?;
    }
    Ok(())
}

/// The native devices that the configuration names, all of which must exist, or those of the default routes.
pub(super) fn native_devices(socket: &Socket, devices: &Devices) -> Result<Vec<Link>> {
    if let Devices::Named(names) = devices {
        for name in names {
            let refused = |reason| Error::invalid("device", name.as_str(), reason);
            let link = find(socket, name)?.ok_or_else(|| refused("no device has this name"))?;
            if link.is_loopback {
                return Err(refused("is the loopback device: nothing comes to the node by it"));
            }
            if [HOST, NET].contains(&name.as_str()) {
                return Err(refused("is podwire's own"));
            }
        }
    }
    present_devices(socket, devices)
}

/// The same, as far as they exist.
pub(super) fn present_devices(socket: &Socket, devices: &Devices) -> Result<Vec<Link>> {
    match devices {
        Devices::Named(names) => names.iter().filter_map(|name| find(socket, name).transpose()).collect(),
        Devices::Detect => {
            let mut indices: Vec<IfIndex> = socket
                .routes()?
                .into_iter()
                .filter(|route| route.destination.prefix() == 0 && route.table == TABLE_MAIN)
                .filter_map(|route| route.device)
                .collect();
            indices.sort_unstable();
            indices.dedup();
            let links = indices.into_iter().filter_map(|index| socket.link_if_any(index).transpose());
            let links = links.collect::<Result<Vec<_>>>()?;
            Ok(links.into_iter().filter(|link| !link.is_loopback && link.name != HOST).collect())
        }
    }
}

/// The MTU of the pods' devices: that of the narrowest native device, or of Ethernet where there is none.
pub(super) fn mtu(config: &NodeConfig, devices: &[Link]) -> u32 {
    config.mtu.or_else(|| devices.iter().map(|link| link.mtu).min()).unwrap_or(MTU_DEFAULT)
}

/// A device with its addresses.
pub(super) fn describe(socket: &Socket, index: IfIndex) -> Result<NodeDevice> {
    Ok(device(&socket.link_by_index(index)?, &socket.addresses(Some(index))?))
}

/// A device with those of the addresses that it has.
pub(super) fn device(link: &Link, addresses: &[Address]) -> NodeDevice {
    let own = addresses.iter().filter(|address| address.device == link.index);
    NodeDevice {
        name: link.name.clone(),
        ifindex: link.index,
        mac: link.mac.unwrap_or_default(),
        addresses: own.map(|address| address.address.ip()).collect(),
    }
}
