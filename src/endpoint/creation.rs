//! Creating an endpoint: a stack of steps, each of which can be taken back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::manager::EndpointManager;
use super::record::{EndpointRecord, admission};
use super::spec::{AddressRequest, DeviceRef, EndpointSpec};
use super::state::EndpointState;
use super::table::Entry;
use super::timings::{Stage, Timings};
use super::veth::{PodNetwork, Settling, Veth, VethSpec};
use super::{ownership, scrub, wiring};
use crate::ipam::{ExpirationId, Families, Family, Lifetime};
use crate::netlink::Link;
use crate::netns::NetNs;
use crate::undo::Undo;
use crate::{EndpointId, Error, Result, SecurityId};

/// How long addresses outlive a creation that dies: afterwards nobody has claimed them.
const CLAIM_WITHIN: Duration = Duration::from_secs(600);

/// How long the kernel may take to notice that both ends of a pair are up.
const CARRIER_WITHIN: Duration = Duration::from_secs(5);

/// The addresses of an endpoint under creation, and what claims each once the endpoint stands.
#[derive(Default)]
struct Addresses {
    ipv4: Option<std::net::Ipv4Addr>,
    ipv6: Option<std::net::Ipv6Addr>,
    claims: Vec<(IpAddr, ExpirationId)>,
    /// To whom those are allocated that the caller brought.
    owner: Option<String>,
}

/// The device of an endpoint under creation.
struct Taken {
    device: DeviceRef,
    /// Whether it is one that existed and podwire made, by its plugin.
    ours: bool,
    /// The pair that was made just now, if it was.
    made: Option<(Veth, Settling)>,
}

impl Addresses {
    fn all(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }
}

/// Creates an endpoint; whatever fails, everything done before is taken back.
pub(super) fn create(manager: &EndpointManager, spec: &EndpointSpec) -> Result<Arc<Entry>> {
    spec.validate()?;
    let mut timings = Timings::default();
    let mut undo = Undo::new();

    let attachment = spec.container_id.clone().map(|container| (container, spec.interface.clone()));
    let id = manager.table.lock().reserve(attachment)?;
    undo.push(move || manager.table.lock().unreserve(id));

    let addresses = timings.time(Stage::Addresses, || take_addresses(manager, spec, &mut undo))?;
    timings.time(Stage::Addresses, || scrub::before_use(manager, addresses.all()))?;
    // Before anybody can reach it: its own policy, and those of others that speak of its identity.
    let identity = timings.time(Stage::Policy, || {
        let labels = spec.labels.clone();
        manager.wiring.enforcement.admit(admission(id, labels, &spec.named_ports))
    })?;
    undo.attempt("take its policy out of force", move || manager.wiring.enforcement.dismiss(id));
    let Taken { device, ours, made } =
        timings.time(Stage::Device, || take_device(manager, id, spec, &addresses, &mut undo))?;

    // From here on the endpoint is on disk: a crash leaves something that a restart finishes, not something it overlooks.
    let record = record(id, identity, spec, &device, &addresses);
    timings.time(Stage::Persist, || manager.store.save(&record))?;
    undo.attempt("remove its file", move || manager.store.remove(id));

    let entry = manager.enter(record.clone(), EndpointState::WaitingForIdentity);
    let _work = entry.work.lock();
    undo.push(move || manager.table.lock().remove(id));
    entry.advance(EndpointState::Regenerating, true, "creation")?;

    let wired = record.clone();
    let row = wired.ifindex;
    undo.attempt("remove its row", move || manager.wiring.rows.delete(row));
    undo.attempt("detach its programs", {
        let wired = wired.clone();
        move || manager.wiring.attacher.detach_all(wiring::device(&wired))
    });
    undo.attempt("remove its addresses from cilium_lxc", move || {
        let unmapped = manager.wiring.unmap(&wired).map(drop);
        scrub::freed(manager, wired.addresses());
        unmapped
    });
    if ours {
        timings.time(Stage::Attach, || manager.wiring.attacher.own_clsact(wiring::device(&record)))?;
    }
    manager.wire(&record, &mut timings)?;
    if let Some((veth, settling)) = made {
        timings.time(Stage::Device, || bring_up(manager, &veth, &settling))?;
    }
    timings.time(Stage::Persist, || manager.wiring.ipam.claim_all(&addresses.claims))?;
    entry.advance(EndpointState::Ready, true, "created")?;
    entry.set_timings(timings);
    undo.keep();
    drop(_work);
    Ok(entry)
}

fn record(
    id: EndpointId,
    identity: SecurityId,
    spec: &EndpointSpec,
    device: &DeviceRef,
    addresses: &Addresses,
) -> EndpointRecord {
    EndpointRecord {
        id,
        name: spec.name.clone(),
        labels: spec.labels.clone(),
        container_id: spec.container_id.clone(),
        pod_uid: spec.pod_uid.clone(),
        interface: spec.interface.clone(),
        netns: spec.netns.clone(),
        ifindex: device.ifindex,
        device: device.name.clone(),
        node_mac: device.node_mac,
        mac: device.mac,
        ipv4: addresses.ipv4,
        ipv6: addresses.ipv6,
        address_owner: addresses.owner.clone().filter(|owner| *owner != spec.name),
        created: SystemTime::now(),
        identity,
        named_ports: spec.named_ports.clone(),
        audit: false,
    }
}

/// Allocates what the caller did not, and looks after what it did.
fn take_addresses<'a>(manager: &'a EndpointManager, spec: &EndpointSpec, undo: &mut Undo<'a>) -> Result<Addresses> {
    let ipam = &manager.wiring.ipam;
    let mut addresses = Addresses::default();
    let wanted = families(spec, manager);
    if let Some(families) = wanted {
        let allocation = ipam.allocate_next(&spec.name, families, Lifetime::UnlessClaimed(CLAIM_WITHIN))?;
        let taken: Vec<IpAddr> = allocation.addresses().collect();
        undo.attempt("release its addresses", {
            let taken = taken.clone();
            move || ipam.release_all(&taken)
        });
        (addresses.ipv4, addresses.ipv6) = (allocation.ipv4, allocation.ipv6);
        addresses.claims = taken
            .into_iter()
            .zip(std::iter::repeat(allocation.expiration))
            .filter_map(|(a, e)| Some((a, e?.id)))
            .collect();
    }
    if let AddressRequest::Allocated(address, uuid) = &spec.ipv4 {
        given(manager, (*address).into(), uuid.as_deref(), &mut addresses)?;
        addresses.ipv4 = Some(*address);
    }
    if let AddressRequest::Allocated(address, uuid) = &spec.ipv6 {
        given(manager, (*address).into(), uuid.as_deref(), &mut addresses)?;
        addresses.ipv6 = Some(*address);
    }
    if addresses.ipv4.is_none() && addresses.ipv6.is_none() {
        return Err(Error::invalid("addressing", &*spec.name, "an endpoint needs an address of a family the node has"));
    }
    Ok(addresses)
}

/// The families of which the next free address is wanted and the node has any.
fn families(spec: &EndpointSpec, manager: &EndpointManager) -> Option<Families> {
    let ipv4 = spec.ipv4 == AddressRequest::Next && manager.wiring.ipam.usage(Family::Ipv4).is_some();
    let ipv6 = spec.ipv6 == AddressRequest::Next && manager.wiring.ipam.usage(Family::Ipv6).is_some();
    match (ipv4, ipv6) {
        (true, true) => Some(Families::All),
        (true, false) => Some(Families::Ipv4),
        (false, true) => Some(Families::Ipv6),
        (false, false) => None,
    }
}

/// An address that the caller says it has: it must be allocated, to no endpoint, and its expiration is to be ended.
fn given(manager: &EndpointManager, address: IpAddr, uuid: Option<&str>, addresses: &mut Addresses) -> Result<()> {
    let lease = manager
        .wiring
        .ipam
        .lease(address)
        .ok_or_else(|| Error::not_found("allocation of address", address.to_string()))?;
    if let Some(other) = manager.table.lock().by_address(address) {
        return Err(Error::AddressInUse { address, owner: format!("endpoint {other}") });
    }
    addresses.owner = Some(lease.owner.to_string());
    let claim = match uuid {
        Some(uuid) => Some(uuid.parse()?),
        None => lease.expiration.map(|expiration| expiration.id),
    };
    addresses.claims.extend(claim.map(|id| (address, id)));
    Ok(())
}

/// The device that exists, looked up; or a new one, with the pod's side of it configured and the host's down.
fn take_device<'a>(
    manager: &'a EndpointManager,
    id: EndpointId,
    spec: &EndpointSpec,
    addresses: &Addresses,
    undo: &mut Undo<'a>,
) -> Result<Taken> {
    match (&spec.device, &spec.netns) {
        (Some(device), _) => {
            let ours = ownership::is_ours(&existing(manager, device)?);
            Ok(Taken { device: device.clone(), ours, made: None })
        }
        (None, Some(path)) => {
            let netns = NetNs::open(path)?;
            let (veth, settling) = make_pair(manager, id, spec, &netns, addresses, undo)?;
            let name = veth.host_ifname.clone();
            let device = DeviceRef { ifindex: veth.host_ifindex, name, node_mac: veth.host_mac, mac: veth.pod_mac };
            Ok(Taken { device, ours: false, made: Some((veth, settling)) })
        }
        (None, None) => {
            Err(Error::invalid("endpoint", &*spec.name, "needs a network namespace or a device that exists"))
        }
    }
}

/// A device that can be an endpoint's: the host side of a veth pair that serves nothing else.
fn existing(manager: &EndpointManager, device: &DeviceRef) -> Result<Link> {
    let link = manager.wiring.socket.link_by_index(device.ifindex)?;
    let refused = |reason: String| Err(Error::invalid("interface-name", &*device.name, reason));
    if link.name != device.name {
        return refused(format!("device {} is named {}", device.ifindex, link.name));
    }
    if link.kind.as_deref() != Some("veth") {
        return refused("is not a veth device".to_owned());
    }
    if manager.node_devices.lock().contains(&device.ifindex) {
        return refused("is a device of the node".to_owned());
    }
    match manager.table.lock().by_device(device.ifindex) {
        Some(other) => Err(Error::AlreadyExists {
            what: "endpoint of device",
            name: device.name.clone(),
            detail: format!("it is endpoint {other}"),
        }),
        None => Ok(link),
    }
}

fn make_pair<'a>(
    manager: &'a EndpointManager,
    id: EndpointId,
    spec: &EndpointSpec,
    netns: &NetNs,
    addresses: &Addresses,
    undo: &mut Undo<'a>,
) -> Result<(Veth, Settling)> {
    let wiring = &manager.wiring;
    let (name, alias) = (device_name()?, ownership::alias(id));
    let veth_spec = VethSpec::new(&name, &spec.interface, netns)?.mtu(wiring.mtu).alias(&alias).down();
    let veth = Veth::create(&wiring.socket, &veth_spec)?;
    let index = veth.host_ifindex;
    undo.attempt("delete its device", move || manager.reaper.delete(index));
    let mut network = PodNetwork::new(&veth).route_mtu(wiring.route_mtu);
    network.ipv4 = addresses.ipv4.zip(wiring.gateway_ipv4);
    network.ipv6 = addresses.ipv6.zip(wiring.gateway_ipv6);
    let settling = network.configure(netns)?;
    Ok((veth, settling))
}

/// Lets packets through a new pair: only when the programs are attached, so that none passes unchecked.
fn bring_up(manager: &EndpointManager, veth: &Veth, settling: &Settling) -> Result<()> {
    let socket = &manager.wiring.socket;
    veth.bring_up(socket)?;
    veth.wait_until_running(socket, CARRIER_WITHIN)?;
    settling.wait()
}

/// `lxc` and twelve random hexadecimal digits.
fn device_name() -> Result<String> {
    let random = ExpirationId::random()?.to_string();
    Ok(format!("lxc{}", random.chars().filter(char::is_ascii_hexdigit).take(12).collect::<String>()))
}
