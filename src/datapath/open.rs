//! Opening a datapath, step by step.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use log::{info, warn};
use parking_lot::{Mutex, RwLock};

use super::config::NodeConfig;
use super::follow::{self, Followed};
use super::node::{self, Content, Node, NodeDevice, Paths};
use super::{CleanedUp, Datapath, cleanup, host, namespace, policy, routes, served, sysctls};
use crate::conntrack::{Conntrack, ticks_per_second};
use crate::endpoint::{EndpointManager, Reach, Wiring};
use crate::events::EventReader;
use crate::ipam::{Ipam, RouterAddresses};
use crate::netlink::Socket;
use crate::program::bpffs::{self, Mounted};
use crate::program::{self, Attacher, Constants, Device, Direction, Loader, ProgramSet};
use crate::state::{Lock, load_document, save_document};
use crate::tables::{EndpointRows, ForwardsMap, MetricsMap, VerdictCounts};
use crate::{Error, ErrorKind, Result};

/// The file of the state directory that says which bpffs we mounted.
pub(super) const MOUNTED: &str = "bpffs.json";

pub(super) fn open(paths: Paths, socket: Option<&Path>, config: &NodeConfig) -> Result<Datapath> {
    config.validate()?;
    program::features::check_privileges()?;
    routes::check_ranges(&Socket::open()?, config)?;
    paths.refuse_foreign_state()?;
    paths.create_state_dir()?;
    let state = Lock::acquire(paths.state(node::LOCK))?;
    let before = paths.content();
    namespace::check(&paths)?;
    let is_new = is_new(&paths)?;
    // Where nothing was there, whatever is there now was made by this attempt.
    let pins = match claim(&paths, socket) {
        Ok(pins) => pins,
        Err(error) => {
            if before != Content::Ours {
                undone(cleanup::remove_state(&paths, &mut CleanedUp::default()));
            }
            return Err(error);
        }
    };
    let opened = bring_up(paths.clone(), config, [state, pins], is_new);
    if opened.is_err() && is_new {
        undone(Datapath::cleanup(&paths.bpf_root, &paths.state_dir).map(drop));
    }
    opened
}

fn undone(outcome: Result<()>) {
    if let Err(error) = outcome {
        warn!("undoing failed: {error}");
    }
}

/// Takes the root of the pins, and notes whose the state is.
fn claim(paths: &Paths, socket: Option<&Path>) -> Result<Lock> {
    namespace::claim(paths)?;
    socket.map_or(Ok(()), |socket| served::note(paths, socket))?;
    if bpffs::ensure_mounted(&paths.bpf_root)? == Mounted::Now {
        info!("mounted a bpffs on {}", paths.bpf_root.display());
        save_document(&paths.state(MOUNTED), 1, &paths.bpf_root)
            .inspect_err(|_| undone(bpffs::unmount_if_empty(&paths.bpf_root).map(drop)))?;
    }
    let pins = Lock::acquire_directory(&paths.bpf_root)?;
    refuse_foreign_pins(paths)?;
    Ok(pins)
}

/// Whether there is nothing yet, neither on disk nor in the kernel, that a datapath takes over.
fn is_new(paths: &Paths) -> Result<bool> {
    let known = paths.state(node::FILE).exists() || paths.own().exists();
    Ok(!known && host::find_own(&Socket::open()?, &paths.state_dir)?.is_none())
}

fn bring_up(paths: Paths, config: &NodeConfig, locks: [Lock; 2], is_new: bool) -> Result<Datapath> {
    let ipam = Arc::new(open_ipam(&paths, config)?);
    let socket = Socket::open()?;
    let (mut node, router) = prepare_devices(&socket, &paths, config, &ipam)?;
    sysctls::apply(&paths.state_dir, &socket, &node)?;

    // Before the first map is pinned: a crash in between must not leave pins that look like somebody else's.
    let own = paths.own();
    fs::create_dir_all(&own).map_err(|error| Error::system("create directory", own.display().to_string(), error))?;
    let programs = load(&paths, config, &node)?;
    node.generation = programs.generation().as_str().to_owned();
    let attacher = Attacher::new(&paths.bpf_root, config.attach_mode)?;
    node.attach_mode = attacher.mode().to_string();
    let file = paths.state(node::FILE);
    if let Some(before) = load_document::<Node>(&file, node::VERSION)? {
        detach_retired(&attacher, &before, &node)?;
    }
    node::save(&node, &file)?;

    EventReader::open_pinned(paths.maps())?.set_drop_limit(config.drop_events)?;
    let enforcement = policy::open(&paths, config, &node)?;
    let conntrack = Arc::new(Conntrack::open(&paths.maps(), &programs)?);
    let wiring = Wiring {
        ipam: ipam.clone(),
        reach: Reach::open(&paths.maps())?,
        rows: EndpointRows::open_pinned(paths.maps())?,
        conntrack: conntrack.clone(),
        enforcement: enforcement.clone(),
        audit: AtomicBool::new(config.policy_audit),
        attacher: attacher.clone(),
        from_container: programs.program("cil_from_container")?.clone(),
        to_container: programs.program("cil_to_container")?.clone(),
        socket,
        gateway_ipv4: router.ipv4,
        gateway_ipv6: router.ipv6,
        mtu: node.mtu,
        route_mtu: node.mtu,
    };
    wiring.reach.set_host(&node.addresses().collect::<Vec<_>>())?;
    let endpoints = EndpointManager::open(&paths.state_dir, wiring)?;
    endpoints.set_node_devices(node.all_devices().map(|device| device.ifindex).collect());
    attach_node(&attacher, &programs, &node)?;
    let metrics = MetricsMap::open_pinned(paths.maps())?;
    let forwards = ForwardsMap::open_pinned(paths.maps())?;
    let verdicts = VerdictCounts::open_pinned(paths.maps())?;
    Ok(Datapath {
        paths,
        node: RwLock::new(Arc::new(node)),
        followed: Mutex::new(Followed::new(config.devices.clone())),
        ipam,
        endpoints,
        enforcement,
        programs,
        attacher,
        metrics,
        forwards,
        verdicts,
        conntrack,
        synced: AtomicBool::new(false),
        simulators: Default::default(),
        is_new,
        _locks: locks,
    })
}

/// Refuses to take over maps that another agent pinned: what is ours says so by the folder `podwire` beside them.
fn refuse_foreign_pins(paths: &Paths) -> Result<()> {
    match paths.map_pins().first() {
        Some(pin) if !paths.own().exists() => Err(Error::Foreign {
            object: format!("pin {}", pin.display()),
            owner: "another agent, probably Cilium".to_owned(),
            remedy: "stop that agent and remove its pins, or choose another root for the pins".into(),
        }),
        _ => Ok(()),
    }
}

fn open_ipam(paths: &Paths, config: &NodeConfig) -> Result<Ipam> {
    let (ipam, restored) = Ipam::open(paths.state("ipam"), config.ipam())?;
    if restored.torn {
        warn!("the last write of the address journal was cut short by a crash; nothing that was promised is lost");
    }
    for stray in ipam.strays() {
        warn!("address {} of {} is not in the configured ranges: {}", stray.address, stray.owner, stray.reason);
    }
    Ok(ipam)
}

fn prepare_devices(
    socket: &Socket,
    paths: &Paths,
    config: &NodeConfig,
    ipam: &Ipam,
) -> Result<(Node, RouterAddresses)> {
    let native = host::native_devices(socket, &config.devices)?;
    let mtu = host::mtu(config, &native);
    let (host_index, net_index) = host::ensure_pair(socket, &paths.state_dir, mtu)?;
    let router = ipam.router();
    host::configure_host(socket, host_index, &router)?;
    let mut node = Node {
        name: config.name.clone(),
        cluster_name: config.cluster_name.clone(),
        ipv4_range: config.ipv4_range,
        ipv6_range: config.ipv6_range,
        router_ipv4: router.ipv4,
        router_ipv6: router.ipv6,
        devices: Vec::new(),
        host: host::describe(socket, host_index)?,
        net: host::describe(socket, net_index)?,
        other_addresses: Vec::new(),
        attach_mode: String::new(),
        mtu,
        generation: String::new(),
    };
    routes::set(socket, host_index, &routes::to_pods(&node, ipam))?;
    follow::describe(socket, &native, &mut node)?;
    follow::withhold(ipam, &node)?;
    Ok((node, router))
}

fn load(paths: &Paths, config: &NodeConfig, node: &Node) -> Result<ProgramSet> {
    let loader = Loader::new(paths.maps())
        .object(program::embedded::LXC)
        .object(program::embedded::HOST)
        .object(program::embedded::NETDEV)
        .object(program::embedded::CONNTRACK)
        .constants(constants(config, node));
    let loader =
        config.map_sizes.iter().fold(loader, |loader, (map, entries)| loader.max_entries(map.as_str(), *entries));
    let programs = loader.load_or_adopt(&paths.programs())?;
    let how = if programs.adopted() { "adopted" } else { "loaded" };
    info!("programs {how}, generation {}", programs.generation().as_str());
    Ok(programs)
}

/// What the programs know of the node; see `bpf/lib/config.h`. Addresses lie in memory as they are sent.
fn constants(config: &NodeConfig, node: &Node) -> Constants {
    let (ipv4_base, ipv4_mask) =
        node.ipv4_range.map_or(([0; 4], [0; 4]), |range| (range.network().octets(), range.mask().octets()));
    let (ipv6_base, ipv6_mask) =
        node.ipv6_range.map_or(([0; 16], [0; 16]), |range| (range.network().octets(), range.mask().octets()));
    let mut constants = Constants::new();
    constants
        .set("cfg_host_ifindex", node.host.ifindex.get())
        .set("cfg_host_mac", node.host.mac.padded())
        .set("cfg_router_ipv4", node.router_ipv4.map_or([0; 4], |address| address.octets()))
        .set("cfg_router_ipv6", node.router_ipv6.map_or([0; 16], |address| address.octets()))
        .set("cfg_pods_ipv4", ipv4_base)
        .set("cfg_pods_ipv4_mask", ipv4_mask)
        .set("cfg_pods_ipv6", ipv6_base)
        .set("cfg_pods_ipv6_mask", ipv6_mask);
    let (world, lifetimes) = (config.world(), config.connections);
    constants
        .set("cfg_world_ipv4", world.ipv4().get())
        .set("cfg_world_ipv6", world.ipv6().get())
        .set("cfg_ticks_per_second", ticks_per_second())
        .set("cfg_ct_lifetime_tcp", u32::from(lifetimes.tcp))
        .set("cfg_ct_lifetime_tcp_syn", u32::from(lifetimes.tcp_syn))
        .set("cfg_ct_lifetime_closing", u32::from(lifetimes.closing))
        .set("cfg_ct_lifetime_any", u32::from(lifetimes.any));
    constants
}

/// Puts the node's own programs on its devices, in place of those of a predecessor.
fn attach_node(attacher: &Attacher, programs: &ProgramSet, node: &Node) -> Result<()> {
    let (ingress, egress) = (Direction::Ingress, Direction::Egress);
    let to_host = programs.program("cil_to_host")?;
    attach(attacher, node.net.device(), &[(ingress, to_host)])?;
    attach(attacher, node.host.device(), &[(ingress, to_host), (egress, programs.program("cil_from_host")?)])?;
    for device in &node.devices {
        attach_native(attacher, programs, device.device())?;
        let addresses: Vec<String> = device.addresses.iter().map(IpAddr::to_string).collect();
        info!("native device {} ({})", device.name, addresses.join(", "));
    }
    Ok(())
}

/// Puts the node's own programs on a native device.
pub(super) fn attach_native(attacher: &Attacher, programs: &ProgramSet, device: Device<'_>) -> Result<()> {
    let (from, to) = (programs.program("cil_from_netdev")?, programs.program("cil_to_netdev")?);
    attach(attacher, device, &[(Direction::Ingress, from), (Direction::Egress, to)])
}

/// Takes the programs off devices that are no native ones any more.
pub(super) fn detach_retired(attacher: &Attacher, before: &Node, node: &Node) -> Result<()> {
    let retired = |device: &&NodeDevice| node.devices.iter().all(|kept| kept.ifindex != device.ifindex);
    for device in before.devices.iter().filter(retired) {
        match attacher.detach_all(device.device()) {
            Ok(()) => info!("{} is no native device any more", device.name),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn attach(attacher: &Attacher, device: Device<'_>, programs: &[(Direction, &program::Program)]) -> Result<()> {
    attacher.forget_namesakes(device)?;
    for attachment in attacher.attach_all(device, programs)? {
        attachment.pin()?;
    }
    Ok(())
}
