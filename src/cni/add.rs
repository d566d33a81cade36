//! ADD: addresses from the agent, a veth pair, the namespace's configuration, an endpoint in the agent.

use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::agent::{Agent, Allocation, NewEndpoint, NodeSettings};
use super::attachment::Attachment;
use super::conf::{NetConf, invalid};
use super::device::{self, Mark};
use super::env::CniArgs;
use super::error::{CniError, ErrorCode, ended_with_the_request};
use super::result::{CniResult, Interface, IpConfig, Route, RouteMetrics};
use super::runtime::RuntimeConfig;
use super::{del, netns};
use crate::endpoint::veth::{DeviceLimits, PodNetwork, Settling, Veth, VethSpec, everything, host_network};
use crate::netlink::Socket;
use crate::netns::NetNs;
use crate::undo::Undo;
use crate::{ErrorKind, Result};

/// The shortest MTU that IPv6 works with, in bytes (RFC 8200, section 5).
const IPV6_MTU_MIN: u32 = 1280;
/// How long the kernel may take to notice that both ends of a pair are up.
const CARRIER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between attempts to reach the agent: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Whose the calling thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Of a process that ends with this call: it can stay in the container's namespace, and needs no other to go there.
    Own,
    /// Somebody else's, who will go on where it is.
    Shared,
}

/// Attaches a container. Whatever fails, everything done before is undone.
pub(super) fn add(
    place: Place,
    agent: &impl Agent,
    conf: &NetConf,
    attachment: &Attachment,
    path: &Path,
    args: &CniArgs,
) -> Result<CniResult, CniError> {
    if let Some(previous) = &conf.prev_result {
        return Err(invalid(
            "prevResult",
            previous,
            "this plugin makes the interface: it must be the first of its list",
        ));
    }
    warn_of_unmet_wishes(&conf.runtime, args);
    let netns = netns::open_for(path)?;
    let host = &Socket::open()?;
    let mut undo = Undo::new();
    patiently(conf.agent_timeout, || del::carry_out_queued(agent, conf, attachment))?;

    let (host_ifname, alias) =
        (attachment.host_ifname(), Mark { network: conf.name.clone(), attachment: attachment.clone() }.alias());
    let mut spec = VethSpec::new(&host_ifname, attachment.ifname.as_str(), &netns)?.alias(&alias).down();
    spec.mtu = conf.mtu;
    let (allocation, made) = allocate(agent, conf.agent_timeout, &owner(attachment, args), host, &spec)?;
    for address in allocation.addresses.clone() {
        undo.push(move || taken_back(&format!("allocation of {address}"), agent.release(&address)));
    }
    let veth = made.or_else(|error| replace_leftover(agent, host, attachment, &spec, error))?;
    let created = veth.clone();
    undo.push(move || taken_back(&created.host_ifname, created.delete(host)));

    let settings = match &allocation.settings {
        Some(settings) => settings.clone(),
        None => patiently(conf.agent_timeout, || agent.settings())?,
    };
    let mtu = mtu(conf, &settings, &allocation)?;
    let limits = DeviceLimits { mtu: Some(mtu.device), offload: settings.offload };

    // the agent works on the host's side while the other is configured
    let endpoint = new_endpoint(attachment, path, &veth, &allocation, args);
    let network = pod_network(&veth, &allocation).route_mtu(mtu.route).limits(limits);
    let mut configured = None;
    let mut meanwhile = || {
        if settings.clsact {
            add_clsact(host, &veth);
        }
        configured = Some(configure(place, &netns, &network));
    };
    let (created, may_exist) = create(agent, conf.agent_timeout, &endpoint, &mut meanwhile);
    if may_exist {
        undo.push(|| taken_back(&format!("endpoint of {attachment}"), agent.delete_endpoint(attachment)));
    }
    let settling = configured.transpose()?;
    created?;
    veth.bring_up_within(host, &limits)?;
    veth.wait_until_running(host, CARRIER_TIMEOUT)?;
    settling.map_or(Ok(()), |settling| settling.wait()).map_err(|error| vanished(&netns, error))?;
    netns::still_there(&netns)?;
    undo.keep();
    log::info!("{attachment} attached by {}", veth.host_ifname);
    Ok(result(conf, path, &veth, &allocation, mtu))
}

/// Says what the container will not get. That is no reason to leave it without a network; podman repeats the addresses it
/// had as wishes when it reloads a network.
fn warn_of_unmet_wishes(runtime: &RuntimeConfig, args: &CniArgs) {
    for mapping in &runtime.port_mappings {
        log::warn!(
            "port {} of the host is not led to port {} of the container: chain the portmap plugin for that",
            mapping.host_port,
            mapping.container_port
        );
    }
    let wishes = ["IP", "MAC"].into_iter().filter_map(|key| args.value(key));
    for wish in wishes.chain(runtime.addresses.iter().map(String::as_str)) {
        log::warn!("address {wish} is not given: the container gets the next free ones");
    }
}

/// A step back, whose failure can only be noted: there is an error on its way already.
fn taken_back(what: &str, result: Result<()>) {
    match result {
        Ok(()) => log::info!("taken back: {what}"),
        Err(error) if error.kind() == ErrorKind::NotFound => log::info!("gone already: {what}"),
        Err(error) => log::error!("{what} remains: {error}"),
    }
}

/// Repeats what failed because no agent answered, or one ended before it did, until it succeeds or time is up.
fn patiently<T>(patience: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T, CniError> {
    let deadline = Instant::now() + patience;
    let (mut pause, longest) = PAUSE;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error)
                if !matches!(error.kind(), ErrorKind::AgentUnavailable | ErrorKind::Busy)
                    && !ended_with_the_request(&error) =>
            {
                return Err(refused(error));
            }
            Err(error) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    let waited = format!("no agent answered within {} s", patience.as_secs());
                    return Err(CniError::new(ErrorCode::TryAgainLater, waited).with_details(error.to_string()));
                }
                log::debug!("waiting for the agent: {error}");
                thread::sleep(pause.min(left));
                pause = longest.min(pause * 2);
            }
        }
    }
}

/// In whose name addresses are allocated.
fn owner(attachment: &Attachment, args: &CniArgs) -> String {
    match args.pod() {
        Some((namespace, name)) => format!("{namespace}/{name}"),
        None => attachment.container_id.as_str().to_owned(),
    }
}

fn refused(error: crate::Error) -> CniError {
    match error.kind() {
        ErrorKind::Exhausted => CniError::new(ErrorCode::AddressesExhausted, error.to_string()),
        _ => error.into(),
    }
}

/// Longest packets in bytes: of the devices, and of the default routes.
#[derive(Clone, Copy)]
struct Mtu {
    device: u32,
    route: u32,
}

fn mtu(conf: &NetConf, settings: &NodeSettings, allocation: &Allocation) -> Result<Mtu, CniError> {
    let device = conf.mtu.unwrap_or(settings.device_mtu);
    if device < IPV6_MTU_MIN && allocation.ipv6().is_some() {
        return Err(invalid("mtu", &device.into(), "IPv6 needs at least 1280 bytes"));
    }
    Ok(Mtu { device, route: settings.route_mtu.min(device) })
}

/// Allocates addresses, and makes the pair while the agent does: nothing of it depends on the answer but limits that
/// can be set later. Made once however often the agent has to be asked, and not before there is one; without addresses it is
/// deleted.
fn allocate(
    agent: &impl Agent,
    patience: Duration,
    owner: &str,
    host: &Socket,
    spec: &VethSpec<'_>,
) -> Result<(Allocation, Result<Veth>), CniError> {
    let make = || Veth::create(host, spec);
    let mut made = None;
    let allocated = patiently(patience, || agent.allocate_while(owner, &mut || _ = made.get_or_insert_with(make)));
    if let (Err(_), Some(Ok(veth))) = (&allocated, &made) {
        taken_back(&veth.host_ifname, veth.delete(host));
    }
    Ok((allocated?, made.unwrap_or_else(make)))
}

/// Creates the endpoint, and tells whether it may exist now. Where an agent ended with the request, it may have been created:
/// the next agent knows.
fn create(
    agent: &impl Agent,
    patience: Duration,
    endpoint: &NewEndpoint,
    meanwhile: &mut dyn FnMut(),
) -> (Result<(), CniError>, bool) {
    let (mut ended, mut may_exist, mut is_done) = (false, false, false);
    let mut once = || {
        if !std::mem::replace(&mut is_done, true) {
            meanwhile();
        }
    };
    let created = patiently(patience, || {
        if ended && agent.endpoint_health(&endpoint.attachment).is_ok() {
            return Ok(());
        }
        let created = agent.create_endpoint_while(endpoint, &mut once);
        ended |= created.as_ref().err().is_some_and(ended_with_the_request);
        may_exist |= created.as_ref().err().is_none_or(may_exist_nevertheless);
        created
    });
    (created, may_exist)
}

/// Makes the pair where making it failed because an ADD that died half-way left one.
fn replace_leftover(
    agent: &impl Agent,
    host: &Socket,
    attachment: &Attachment,
    spec: &VethSpec<'_>,
    error: crate::Error,
) -> Result<Veth, CniError> {
    let netns = spec.netns;
    if error.kind() != ErrorKind::AlreadyExists {
        return Err(vanished(netns, error));
    }
    let Some(found) = device::find(host, attachment)? else {
        let message = format!("interface {} exists already in {}", attachment.ifname.as_str(), netns.path().display());
        return Err(CniError::new(ErrorCode::AlreadyAttached, message).with_details(error.to_string()));
    };
    // such a device has no endpoint
    match agent.endpoint_health(attachment) {
        Err(unknown) if unknown.kind() == ErrorKind::NotFound => {}
        _ => return Err(CniError::new(ErrorCode::AlreadyAttached, format!("{attachment} is attached already"))),
    }
    log::warn!("{} is left from an ADD that did not end: deleted", spec.host_ifname);
    for done in [host.link_delete(found), agent.delete_endpoint(attachment)] {
        match done {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Veth::create(host, spec).map_err(|error| vanished(netns, error))
}

fn pod_network<'a>(veth: &'a Veth, allocation: &Allocation) -> PodNetwork<'a> {
    let mut network = PodNetwork::new(veth);
    network.ipv4 = allocation.ipv4().zip(allocation.gateway_v4);
    network.ipv6 = allocation.ipv6().zip(allocation.gateway_v6);
    network
}

/// Makes the place of the agent's filters before the agent comes to them, since the more pods there are, the longer the kernel takes
/// for it. Whoever is second finds it there; what else is in its way is the agent's to report.
fn add_clsact(host: &Socket, veth: &Veth) {
    if let Err(error) = host.clsact_add(veth.host_ifindex) {
        log::debug!("clsact of {} is left to the agent: {error}", veth.host_ifname);
    }
}

fn configure(place: Place, netns: &NetNs, network: &PodNetwork<'_>) -> Result<Settling, CniError> {
    // where Cilium's tools look for it
    let alt_name = format!("cilium_cni:{}", network.ifname);
    let network = network.clone().alt_name(&alt_name);
    let configured = match place {
        Place::Shared => network.configure(netns),
        Place::Own => netns.enter().and_then(|()| network.configure_here()),
    };
    configured.map_err(|error| match error {
        crate::Error::AlreadyExists { .. } => route_taken(network.ifname, &error),
        _ => vanished(netns, error),
    })
}

fn route_taken(ifname: &str, error: &crate::Error) -> CniError {
    let details = format!(
        "a container has one interface of this plugin: make {ifname} with a plugin that sets no default routes, or DEL \
         the other one first"
    );
    CniError::new(ErrorCode::RouteTaken, error.to_string()).with_details(details)
}

/// A step that failed inside a namespace: was the container removed meanwhile?
fn vanished(netns: &NetNs, error: crate::Error) -> CniError {
    match netns::still_there(netns) {
        Ok(()) => error.into(),
        Err(gone) => gone.with_details(error.to_string()),
    }
}

/// Whether a creation that failed may have taken effect all the same: the answer was lost, or the agent gave up half-way.
/// A refusal (400 to 499) did not, and there may be an older endpoint of the same name.
fn may_exist_nevertheless(error: &crate::Error) -> bool {
    match error {
        crate::Error::Api { status, .. } => *status >= 500,
        crate::Error::AgentUnavailable { .. } => false,
        _ => true,
    }
}

fn new_endpoint(
    attachment: &Attachment,
    netns: &Path,
    veth: &Veth,
    allocation: &Allocation,
    args: &CniArgs,
) -> NewEndpoint {
    NewEndpoint {
        attachment: attachment.clone(),
        netns: netns.to_owned(),
        host_ifname: veth.host_ifname.clone(),
        host_ifindex: veth.host_ifindex.get(),
        host_mac: veth.host_mac,
        pod_mac: veth.pod_mac,
        addresses: allocation.addresses.clone(),
        pod: args.pod().map(|(namespace, name)| (namespace.to_owned(), name.to_owned())),
        pod_uid: args.value("K8S_POD_UID").map(str::to_owned),
    }
}

fn result(conf: &NetConf, netns: &Path, veth: &Veth, allocation: &Allocation, mtu: Mtu) -> CniResult {
    let interfaces = vec![
        Interface {
            name: veth.host_ifname.clone(),
            mac: veth.host_mac.to_string(),
            mtu: Some(mtu.device),
            ..Interface::default()
        },
        Interface {
            name: veth.pod_ifname.clone(),
            mac: veth.pod_mac.to_string(),
            mtu: Some(mtu.device),
            sandbox: netns.to_string_lossy().into_owned(),
            ..Interface::default()
        },
    ];
    let mut result = CniResult { interfaces, dns: conf.dns.clone(), ..CniResult::default() };
    let ipv4 = allocation.ipv4().zip(allocation.gateway_v4).map(|(ip, gw)| (IpAddr::V4(ip), IpAddr::V4(gw)));
    let ipv6 = allocation.ipv6().zip(allocation.gateway_v6).map(|(ip, gw)| (IpAddr::V6(ip), IpAddr::V6(gw)));
    for (address, gateway) in ipv4.into_iter().chain(ipv6) {
        result.ips.push(IpConfig { address: host_network(address), gateway: Some(gateway), interface: Some(1) });
        result.routes.push(Route { dst: host_network(gateway), gw: None, metrics: RouteMetrics::default() });
        let metrics = RouteMetrics { mtu: Some(mtu.route), ..RouteMetrics::default() };
        if let Ok(dst) = everything(gateway) {
            result.routes.push(Route { dst, gw: Some(gateway), metrics });
        }
    }
    result
}
