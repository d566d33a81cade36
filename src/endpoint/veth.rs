//! The plumbing of an endpoint: a veth pair between the host and a namespace, and what the namespace needs to use it.
//!
//! ```no_run
//! use podwire::endpoint::veth::{PodNetwork, Veth, VethSpec};
//! use podwire::netlink::Socket;
//! use podwire::netns::NetNs;
//!
//! let netns = NetNs::open("/run/netns/web")?;
//! let veth = Veth::create(&Socket::open()?, &VethSpec::new("lxc0123456789ab", "eth0", &netns)?.mtu(1500))?;
//! let network = PodNetwork::new(&veth)
//!     .ipv4("10.0.0.77".parse().expect("an address"), "10.0.0.1".parse().expect("an address"))
//!     .route_mtu(1450);
//! // When the host's side is up as well: what comes before it is done would be lost.
//! network.configure(&netns)?.wait()?;
//! # Ok::<(), podwire::Error>(())
//! ```
//!
//! Each pair costs one request on the host and one system call inside the namespace; nothing in it waits for RCU.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::time::Duration;

use ipnetwork::IpNetwork;

pub use super::settling::Settling;
use super::settling::wait_until_running;
use crate::netlink::{self, AddressSpec, DeviceSpec, LinkChange, NeighbourSpec, Request, RouteSpec, Scope, Socket};
use crate::netns::NetNs;
use crate::{Error, ErrorKind, IfIndex, MacAddr, Result};

/// The index that the loopback device has in every namespace (`LOOPBACK_IFINDEX` of linux/netdevice.h).
const LOOPBACK: u32 = 1;

/// Largest aggregated packets, in bytes; zero leaves the kernel's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffloadLimits {
    /// What receive offload may build (kernel 5.19).
    pub gro: u32,
    /// What segmentation offload may build.
    pub gso: u32,
    /// The same for IPv4 (kernel 6.3).
    pub gro_ipv4: u32,
    /// The same for IPv4 (kernel 6.3).
    pub gso_ipv4: u32,
}

/// Longest packets of a pair's devices, where they differ from what it was created with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceLimits {
    /// Longest packet in bytes; left as it is unless given.
    pub mtu: Option<u32>,
    /// Aggregation limits.
    pub offload: OffloadLimits,
}

impl DeviceLimits {
    /// Brings a device up under these limits.
    fn up(&self) -> LinkChange<'static> {
        let limit = |bytes: u32| (bytes != 0).then_some(bytes);
        LinkChange {
            up: Some(true),
            mtu: self.mtu,
            gso_max_size: limit(self.offload.gso),
            gro_max_size: limit(self.offload.gro),
            gso_ipv4_max_size: limit(self.offload.gso_ipv4),
            gro_ipv4_max_size: limit(self.offload.gro_ipv4),
            ..LinkChange::default()
        }
    }
}

/// A veth pair to be created.
#[derive(Clone, Debug)]
pub struct VethSpec<'a> {
    /// The host side's name.
    pub host_ifname: &'a str,
    /// The name inside the namespace.
    pub pod_ifname: &'a str,
    /// The namespace.
    pub netns: &'a NetNs,
    /// The host side's address, which is the gateway's as the namespace sees it.
    pub host_mac: MacAddr,
    /// The address inside the namespace.
    pub pod_mac: MacAddr,
    /// Longest packet in bytes, on both sides; the kernel's default (1500) unless given.
    pub mtu: Option<u32>,
    /// Aggregation limits, on both sides.
    pub offload: OffloadLimits,
    /// A note on the host side (`alias` in `ip link`), 255 bytes at most.
    pub alias: Option<&'a str>,
    /// Whether the host side comes up at once; otherwise with [`Veth::bring_up`].
    pub up: bool,
}

impl<'a> VethSpec<'a> {
    /// A pair with random addresses.
    pub fn new(host_ifname: &'a str, pod_ifname: &'a str, netns: &'a NetNs) -> Result<Self> {
        Ok(Self {
            host_ifname,
            pod_ifname,
            netns,
            host_mac: MacAddr::random()?,
            pod_mac: MacAddr::random()?,
            mtu: None,
            offload: OffloadLimits::default(),
            alias: None,
            up: true,
        })
    }

    /// With this longest packet, in bytes.
    #[must_use]
    pub fn mtu(self, mtu: u32) -> Self {
        Self { mtu: Some(mtu), ..self }
    }

    /// With these aggregation limits.
    #[must_use]
    pub fn offload(self, offload: OffloadLimits) -> Self {
        Self { offload, ..self }
    }

    /// With a note on the host side.
    #[must_use]
    pub fn alias(self, alias: &'a str) -> Self {
        Self { alias: Some(alias), ..self }
    }

    /// With the host side down until [`Veth::bring_up`]: nothing passes before programs are attached, and attaching them is
    /// quick. The first qdisc of a device that is up costs an RCU wait under the lock of the whole network configuration
    /// (`dev_deactivate` in net/sched/sch_generic.c): 0.1 ms on an idle machine, 10 to 30 ms on a busy one.
    #[must_use]
    pub fn down(self) -> Self {
        Self { up: false, ..self }
    }

    fn side(&self, name: &'a str, mac: MacAddr) -> DeviceSpec<'a> {
        let limit = |bytes: u32| (bytes != 0).then_some(bytes);
        DeviceSpec {
            name,
            mac: Some(mac),
            mtu: self.mtu,
            gso_max_size: limit(self.offload.gso),
            gro_max_size: limit(self.offload.gro),
            gso_ipv4_max_size: limit(self.offload.gso_ipv4),
            gro_ipv4_max_size: limit(self.offload.gro_ipv4),
            // One of each is all that is used in either case. Unless asked for one, the kernel makes one for each CPU and takes
            // the others out of use again, which costs an RCU wait on each side (`veth_init_queues` in drivers/net/veth.c).
            tx_queues: Some(1),
            rx_queues: Some(1),
            ..DeviceSpec::default()
        }
    }
}

/// A veth pair that exists. Dropping it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// The host side's name.
    pub host_ifname: String,
    /// The host side's index.
    pub host_ifindex: IfIndex,
    /// The host side's address.
    pub host_mac: MacAddr,
    /// The name inside the namespace.
    pub pod_ifname: String,
    /// The index inside the namespace.
    pub pod_ifindex: IfIndex,
    /// The address inside the namespace.
    pub pod_mac: MacAddr,
}

impl Veth {
    /// Creates a pair, the host side up unless [asked otherwise](VethSpec::down), the other end directly in its namespace under its final name and down: see
    /// [`PodNetwork::configure`]. The host side gets no reverse path filter, as the routes to its addresses need not lead there. `host` must be a socket of the calling
    /// thread's namespace.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) when one of the names is taken. Nothing stays behind.
    pub fn create(host: &Socket, spec: &VethSpec<'_>) -> Result<Self> {
        let pod = DeviceSpec { netns: Some(spec.netns.as_fd()), ..spec.side(spec.pod_ifname, spec.pod_mac) };
        let request = netlink::VethSpec { device: spec.side(spec.host_ifname, spec.host_mac), peer: pod, up: spec.up };
        let created = host.link_create_veth(&request)?;
        let veth = Self {
            host_ifname: spec.host_ifname.to_owned(),
            host_ifindex: created.index,
            host_mac: spec.host_mac,
            pod_ifname: spec.pod_ifname.to_owned(),
            pod_ifindex: created.peer_index,
            pod_mac: spec.pod_mac,
        };
        match veth.prepare_host_side(host, spec.alias) {
            Ok(()) => Ok(veth),
            Err(error) => {
                if let Err(second) = veth.delete(host) {
                    log::error!("delete {} after a failure: {second}", veth.host_ifname);
                }
                Err(error)
            }
        }
    }

    /// Brings the host side up.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) when the pair is gone.
    pub fn bring_up(&self, host: &Socket) -> Result<()> {
        self.bring_up_within(host, &DeviceLimits::default())
    }

    /// The same with limits that were not known when the pair was created. The pod's side has [its own](PodNetwork::limits).
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) when the pair is gone.
    pub fn bring_up_within(&self, host: &Socket, limits: &DeviceLimits) -> Result<()> {
        host.link_set(self.host_ifindex, &limits.up())
    }

    /// Deletes the pair. The kernel waits for running packet handlers: about 20 ms.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) when it is gone already.
    pub fn delete(&self, host: &Socket) -> Result<()> {
        host.link_delete(self.host_ifindex)
    }

    /// Waits until the kernel passes packets out of the host's side: it notices a while after the second side is up, by itself. For
    /// the other side there is [`Settling::wait`].
    ///
    /// # Errors
    ///
    /// [`Busy`](crate::ErrorKind::Busy) when it takes longer than `patience`;
    /// [`NotFound`](crate::ErrorKind::NotFound) when the pair is gone.
    pub fn wait_until_running(&self, host: &Socket, patience: Duration) -> Result<()> {
        wait_until_running(host, self.host_ifindex, patience)
    }

    fn prepare_host_side(&self, host: &Socket, alias: Option<&str>) -> Result<()> {
        host.link_set(self.host_ifindex, &LinkChange { alias, rp_filter: Some(0), ..LinkChange::default() })
    }
}

/// What a namespace needs to use its end of a veth pair: addresses, routes through a gateway, and the gateway's own
/// Ethernet address, so that not even the first packet waits for an answer to ARP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNetwork<'a> {
    /// The device's name inside the namespace.
    pub ifname: &'a str,
    /// Its index there.
    pub ifindex: IfIndex,
    /// Another name for it, up to 127 bytes.
    pub alt_name: Option<&'a str>,
    /// Its IPv4 address and gateway.
    pub ipv4: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Its IPv6 address and gateway.
    pub ipv6: Option<(Ipv6Addr, Ipv6Addr)>,
    /// The Ethernet address of the gateways.
    pub gateway_mac: MacAddr,
    /// Longest packet in bytes by the default routes; the device's unless given.
    pub route_mtu: Option<u32>,
    /// Limits of the device, where they were not known when it was created.
    pub limits: DeviceLimits,
}

impl<'a> PodNetwork<'a> {
    /// For the end of a pair inside its namespace.
    pub fn new(veth: &'a Veth) -> Self {
        Self {
            ifname: &veth.pod_ifname,
            ifindex: veth.pod_ifindex,
            alt_name: None,
            ipv4: None,
            ipv6: None,
            gateway_mac: veth.host_mac,
            route_mtu: None,
            limits: DeviceLimits::default(),
        }
    }

    /// With this IPv4 address and gateway.
    #[must_use]
    pub fn ipv4(self, address: Ipv4Addr, gateway: Ipv4Addr) -> Self {
        Self { ipv4: Some((address, gateway)), ..self }
    }

    /// With this IPv6 address and gateway.
    #[must_use]
    pub fn ipv6(self, address: Ipv6Addr, gateway: Ipv6Addr) -> Self {
        Self { ipv6: Some((address, gateway)), ..self }
    }

    /// With this longest packet by the default routes, in bytes.
    #[must_use]
    pub fn route_mtu(self, mtu: u32) -> Self {
        Self { route_mtu: Some(mtu), ..self }
    }

    /// With these limits of the device; the host's side has [its own](Veth::bring_up_within).
    #[must_use]
    pub fn limits(self, limits: DeviceLimits) -> Self {
        Self { limits, ..self }
    }

    /// With another name for the device.
    #[must_use]
    pub fn alt_name(self, name: &'a str) -> Self {
        Self { alt_name: Some(name), ..self }
    }

    /// Configures the device and brings it up, and the namespace's loopback device too.
    ///
    /// # Errors
    ///
    /// The kernel's, of the first step that failed; `AlreadyExists` names the device that has the routes which this one
    /// needs. What was configured stays until the device is deleted.
    pub fn configure(&self, netns: &NetNs) -> Result<Settling> {
        netns.run(|| self.configure_here())?
    }

    /// The same for the namespace that the calling thread is in.
    pub fn configure_here(&self) -> Result<Settling> {
        let socket = Socket::open()?;
        let mut requests = self.device_requests()?;
        if let Some((address, gateway)) = self.ipv4 {
            requests.append(&mut self.family_requests(address.into(), gateway.into())?);
        }
        let before_ipv6 = requests.len();
        if let Some((address, gateway)) = self.ipv6 {
            requests.append(&mut self.family_requests(address.into(), gateway.into())?);
        }
        let mut outcomes = socket.outcomes(&requests)?;
        let of_ipv6: Result<()> = outcomes.drain(before_ipv6..).collect();
        let configured = outcomes.into_iter().collect::<Result<()>>().and_then(|()| match of_ipv6 {
            Err(error) if error.errno() == Some(libc::EACCES) => {
                enable_ipv6(self.ifname)?;
                socket.execute_all(requests.get(before_ipv6..).unwrap_or_default())
            }
            outcome => outcome,
        });
        configured.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => self.taken_routes(&socket).unwrap_or(error),
            _ => error,
        })?;
        Ok(Settling::new(socket, self.ifindex, self.ipv6.map(|(address, _)| address)))
    }

    /// Says whose the routes are that the device needs: a namespace has one way out. `None` where they are nobody's.
    fn taken_routes(&self, socket: &Socket) -> Option<Error> {
        let gateways = [self.ipv4.map(|(_, gateway)| gateway.into()), self.ipv6.map(|(_, gateway)| gateway.into())];
        let wanted =
            gateways.into_iter().flatten().flat_map(|gateway| [everything(gateway).ok(), Some(host_network(gateway))]);
        let wanted: Vec<IpNetwork> = wanted.flatten().collect();
        let mut taken = socket.routes().ok()?;
        taken.retain(|route| wanted.contains(&route.destination) && route.device != Some(self.ifindex));
        let holder = taken.iter().find_map(|route| route.device)?;
        let names: Vec<_> = taken.iter().map(|route| route.destination.to_string()).collect();
        let (own, other) = (self.ifname, socket.link_by_index(holder).ok()?.name);
        let detail =
            format!("of {other}, beside which {own} can't be: one device of a namespace has the default routes");
        Some(Error::AlreadyExists { what: "route to", name: names.join(", "), detail })
    }

    fn device_requests(&self) -> Result<Vec<Request>> {
        let mut requests = Vec::with_capacity(11);
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        if let Some(loopback) = IfIndex::new(LOOPBACK) {
            requests.push(Request::link_set(loopback, &up)?);
        }
        requests.push(Request::link_set(self.ifindex, &self.limits.up())?);
        if let Some(name) = self.alt_name {
            requests.push(Request::link_add_alt_name(self.ifindex, name)?);
        }
        Ok(requests)
    }

    fn family_requests(&self, address: IpAddr, gateway: IpAddr) -> Result<Vec<Request>> {
        let device = self.ifindex;
        let to_gateway = RouteSpec::new(host_network(gateway)).device(device).scope(Scope::Link);
        let mut by_gateway = RouteSpec::new(everything(gateway)?).device(device).gateway(gateway);
        if let Some(mtu) = self.route_mtu {
            by_gateway = by_gateway.mtu(mtu);
        }
        Ok(vec![
            Request::address_add(&AddressSpec::new(device, host_network(address)))?,
            Request::neighbour_set(&NeighbourSpec { device, address: gateway, mac: self.gateway_mac })?,
            Request::route_add(&to_gateway)?,
            Request::route_add(&by_gateway)?,
        ])
    }
}

/// The prefix that holds one address.
pub(crate) fn host_network(address: IpAddr) -> IpNetwork {
    address.into()
}

/// The prefix that holds every address of a family.
pub(crate) fn everything(family: IpAddr) -> Result<IpNetwork> {
    let unspecified = match family {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    IpNetwork::new(unspecified, 0).map_err(|error| Error::invalid("prefix", "0", error.to_string()))
}

/// Runtimes switch IPv6 off in namespaces they make; a device then takes no address (`EACCES`).
fn enable_ipv6(ifname: &str) -> Result<()> {
    write_setting("ipv6/conf/all/disable_ipv6", "0")?;
    write_setting(&format!("ipv6/conf/{ifname}/disable_ipv6"), "0")
}

/// Writes a setting of the calling thread's network namespace.
fn write_setting(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).map_err(|error| Error::system("write", &path, error))
}
