//! The node's own addresses and native devices: how they are found, and kept up to date while the datapath is open.

use std::net::IpAddr;
use std::sync::Arc;

use log::{info, warn};

use super::config::Devices;
use super::node::{self, Node, NodeDevice};
use super::{Datapath, host, namespace, open, routes, sysctls};
use crate::ipam::{Ipam, Lifetime};
use crate::netlink::{Address, Link, RouteSpec, Socket};
use crate::program::Device;
use crate::{Error, Result};

/// Whose the node's addresses are where they lie in the range of the pods.
const OWNER: &str = "the node itself";

/// What is remembered from one look at the node to the next.
pub(super) struct Followed {
    /// Which native devices are wanted.
    devices: Devices,
    /// The node's addresses that endpoints have: told once.
    held: Vec<IpAddr>,
    /// The routes to the pods, once they were looked at.
    routes: Vec<RouteSpec>,
}

impl Followed {
    pub(super) fn new(devices: Devices) -> Self {
        Self { devices, held: Vec::new(), routes: Vec::new() }
    }
}

/// Notes the native devices, and every address of the namespace: all of them are the host's.
pub(super) fn describe(socket: &Socket, native: &[Link], node: &mut Node) -> Result<()> {
    let addresses = socket.addresses(None)?;
    node.devices = native.iter().map(|link| host::device(link, &addresses)).collect();
    node.other_addresses.clear();
    let known: Vec<IpAddr> = node.addresses().collect();
    node.other_addresses = addresses.iter().filter(|address| is_reachable(address)).map(|a| a.address.ip()).collect();
    node.other_addresses.retain(|address| !known.contains(address));
    node.other_addresses.sort_unstable();
    node.other_addresses.dedup();
    Ok(())
}

/// Whether packets from elsewhere can be for this address: not if it holds on one link only, within the host, or is somebody
/// else's.
fn is_reachable(address: &Address) -> bool {
    let of_link = matches!(address.address.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
    !of_link && !address.address.ip().is_loopback() && !address.is_duplicate
}

/// Keeps the pool from handing out addresses of the node, and frees those that are the node's no more.
pub(super) fn withhold(ipam: &Ipam, node: &Node) -> Result<()> {
    let own: Vec<IpAddr> = node.addresses().collect();
    for address in ipam.addresses_of(OWNER).into_iter().filter(|address| !own.contains(address)) {
        ipam.release(address)?;
    }
    for address in own.into_iter().filter(|address| node.ranges().any(|range| range.contains(*address))) {
        match ipam.allocate(address, OWNER, Lifetime::Permanent) {
            // A pod's, the router's, or ours already; or never handed out in the first place.
            Err(Error::AddressInUse { .. } | Error::AddressOutOfPool { .. }) => {}
            allocated => {
                allocated?;
            }
        }
    }
    Ok(())
}

impl Datapath {
    /// Compares the node's own addresses and native devices with the kernel's: an address that has come is the host's from
    /// now on, for `cilium_lxc` and for policies, and no pod is given it; one that has gone is so no more. Where the native devices
    /// are those of the default routes, the programs follow these. Puts back routes to the pods, `cilium_host`'s addresses
    /// and forwarding where others took them away. [`maintain`](Self::maintain) does it, too.
    ///
    /// An address that an endpoint has stays the endpoint's.
    ///
    /// # Errors
    ///
    /// When the kernel can't be asked, or a device refuses the programs; then it is tried again next time.
    pub fn follow_node(&self) -> Result<()> {
        let mut followed = self.followed.lock();
        let before = self.node();
        let mut now = Node::clone(&before);
        let socket = self.endpoints.socket();
        let mut native = host::present_devices(socket, &followed.devices)?;
        let attached = self.attach_new(&before, &mut native);
        describe(socket, &native, &mut now)?;
        if let Devices::Named(names) = &followed.devices {
            // Those that are missing stay known, so that the status says so.
            let missing = |name: &&String| now.devices.iter().all(|device| device.name != **name);
            let missing: Vec<_> = names.iter().filter(missing).collect();
            let gone = before.devices.iter().filter(|device| missing.contains(&&device.name)).cloned();
            now.devices.extend(gone.map(|device| NodeDevice { addresses: Vec::new(), ..device }));
        }
        withhold(&self.ipam, &now)?;
        let routes = routes::to_pods(&now, &self.ipam);
        let repaired = self.repair(&now, &routes);
        if repaired.is_ok() && routes != followed.routes {
            routes::set(socket, now.host.ifindex, &routes)?;
            followed.routes = routes;
        }
        self.own_addresses(&before, &now, &mut followed.held)?;
        if now != *before {
            open::detach_retired(&self.attacher, &before, &now)?;
            // Settings are the calling thread's namespace's.
            if namespace::check(&self.paths).is_ok() {
                sysctls::follow(&self.paths.state_dir, socket, &now)?;
            }
            node::save(&now, &self.paths.state(node::FILE))?;
            self.endpoints.set_node_devices(now.all_devices().map(|device| device.ifindex).collect());
            *self.node.write() = Arc::new(now);
        }
        attached.and(repaired)
    }

    /// Makes the node's addresses the host's, and no others.
    fn own_addresses(&self, before: &Node, now: &Node, held_before: &mut Vec<IpAddr>) -> Result<()> {
        let (old, new): (Vec<_>, Vec<_>) = (before.addresses().collect(), now.addresses().collect());
        for address in new.iter().filter(|address| !old.contains(address)) {
            info!("{address} is an address of the node from now on");
        }
        for address in old.iter().filter(|address| !new.contains(address)) {
            info!("{address} is no address of the node any more");
        }
        let rows = self.endpoints.reach().set_host(&new)?;
        for address in rows.held.iter().filter(|address| !held_before.contains(address)) {
            warn!("{address} is an address of the node and of an endpoint, which keeps it");
        }
        *held_before = rows.held;
        let mut changed = rows.changed;
        if old != new {
            let applied = self.ipcache().set_host_addresses(&new)?;
            changed |= applied.changed();
            if let Some(error) = applied.first_error {
                warn!("the node's addresses are not all known to policies yet: {error}");
            }
        }
        if changed {
            // What the programs remember was judged without it.
            self.enforcement.advance()?;
        }
        Ok(())
    }

    /// Puts programs on native devices that were none before. One that refuses them is left out, and so tried again.
    fn attach_new(&self, before: &Node, native: &mut Vec<Link>) -> Result<()> {
        let mut outcome = Ok(());
        native.retain(|link| {
            if before.devices.iter().any(|known| known.ifindex == link.index) {
                return true;
            }
            let device = Device { name: &link.name, index: link.index };
            match open::attach_native(&self.attacher, &self.programs, device) {
                Ok(()) => {
                    info!("{} is a native device from now on", link.name);
                    warn_of_mtu(link, before.mtu);
                    true
                }
                Err(error) => {
                    outcome = Err(error);
                    false
                }
            }
        });
        outcome
    }
}

/// The pods' MTU is that of the native devices at the start.
fn warn_of_mtu(link: &Link, pods: u32) {
    if link.mtu < pods {
        warn!(
            "{} has an MTU of {}, pods' devices have {pods}: start the agent anew before the next pod",
            link.name, link.mtu
        );
    }
}
