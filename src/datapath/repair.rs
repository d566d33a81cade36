//! What pods need of the host beside programs and maps, and what other programs take away while the node runs: `cilium_host` and
//! `cilium_net` up, the MAC address of `cilium_host`, to which the programs send, the gateway's addresses, the routes to the pods, forwarding. A network manager that restarts
//! removes routes it did not make; `sysctl --system` writes what the distribution thinks of forwarding.

use std::fmt;

use ipnetwork::IpNetwork;
use log::warn;

use super::node::{Node, NodeDevice, Paths};
use super::{Datapath, host, namespace, routes, sysctls};
use crate::netlink::{LinkChange, RouteSpec, Socket};
use crate::sysctl::Key;
use crate::{ErrorKind, MacAddr, Result};

/// What is not there as it was left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lacking {
    down: Vec<NodeDevice>,
    /// The one that `cilium_host` has in place of its own.
    mac: Option<MacAddr>,
    addresses: Vec<IpNetwork>,
    routes: Vec<IpNetwork>,
    sysctls: Vec<Key>,
}

impl Lacking {
    /// Looks at the kernel. Without its devices, a node lacks them, and nothing else can be said. The settings are the calling
    /// thread's namespace's, and looked at only where that is the node's.
    pub(super) fn of(socket: &Socket, paths: &Paths, node: &Node, wanted: &[RouteSpec]) -> Result<Self> {
        let sysctls = if namespace::check(paths).is_ok() { sysctls::unmet(node)? } else { Vec::new() };
        let mut lacking = Self { sysctls, ..Self::default() };
        for device in [&node.host, &node.net] {
            match socket.link_by_index(device.ifindex) {
                Ok(link) => {
                    if !link.is_up {
                        lacking.down.push(device.clone());
                    }
                    // Nobody sends to that of `cilium_net`.
                    if device == &node.host && link.mac != Some(device.mac) {
                        lacking.mac = link.mac;
                    }
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(lacking),
                Err(error) => return Err(error),
            }
        }
        lacking.addresses = host::missing_addresses(socket, node)?;
        lacking.routes = routes::missing(socket, node.host.ifindex, wanted)?;
        Ok(lacking)
    }

    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let down = self.down.iter().map(|device| format!("{} is down", device.name));
        let mac = self.mac.iter().map(|mac| format!("{} has the MAC address {mac}, not its own", host::HOST));
        let addresses = self.addresses.iter().map(|address| format!("{} has not {}", host::HOST, address.ip()));
        let routes = self.routes.iter().map(|range| format!("no route to {range} by {}", host::HOST));
        let sysctls = self.sysctls.iter().map(|key| format!("sysctl {key} was changed"));
        let all: Vec<_> = down.chain(mac).chain(addresses).chain(routes).chain(sysctls).collect();
        f.write_str(&all.join("; "))
    }
}

impl Datapath {
    /// Puts back what others took away. The devices come first, since their addresses go when they go down, and routes with them.
    pub(super) fn repair(&self, node: &Node, wanted: &[RouteSpec]) -> Result<()> {
        let socket = self.endpoints.socket();
        let lacking = Lacking::of(socket, &self.paths, node, wanted)?;
        if lacking.is_nothing() {
            return Ok(());
        }
        warn!("{lacking}: somebody else's doing; put right");
        for device in &lacking.down {
            socket.link_set_up(device.ifindex)?;
        }
        if lacking.mac.is_some() {
            let mac = Some(node.host.mac);
            socket.link_set(node.host.ifindex, &LinkChange { mac, ..LinkChange::default() })?;
        }
        if !lacking.sysctls.is_empty() {
            sysctls::apply(&self.paths.state_dir, socket, node)?;
        }
        host::configure_host(socket, node.host.ifindex, &self.ipam.router())?;
        routes::set(socket, node.host.ifindex, wanted)
    }
}
