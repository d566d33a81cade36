//! CHECK: is what ADD made still there, as the kernel sees it?

use std::path::Path;

use super::agent::Agent;
use super::attachment::Attachment;
use super::conf::NetConf;
use super::error::{CniError, ErrorCode};
use super::netns;
use super::result::{CniResult, Interface, Route};
use crate::ErrorKind;
use crate::netlink::{self, Address, Link, Socket};

/// Compares devices, addresses and routes with the result of ADD, and asks the agent for the endpoint's health.
/// Everything that differs is named in one error.
pub(super) fn check(agent: &impl Agent, conf: &NetConf, attachment: &Attachment, path: &Path) -> Result<(), CniError> {
    let Some(previous) = &conf.prev_result else {
        let message = "invalid network configuration: prevResult is missing: CHECK compares with the result of ADD";
        return Err(CniError::new(ErrorCode::InvalidConfig, message));
    };
    let (_, expected) = CniResult::from_json(previous, conf.version)?;
    let Some((place, inside)) = interface_inside(&expected, attachment) else {
        let message = format!(
            "invalid network configuration: prevResult.interfaces has no {} with a sandbox",
            attachment.ifname.as_str()
        );
        return Err(CniError::new(ErrorCode::InvalidConfig, message));
    };
    let namespace = netns::open_for(path)?;
    let mut differences = Vec::new();

    let pod = Socket::open_in(&namespace)?;
    match existing(pod.link_by_name(&inside.name))? {
        None => differences.push(format!("{} does not exist in {}", inside.name, path.display())),
        Some(link) => {
            compare_device(inside, &link, &mut differences);
            compare_addresses(&expected, place, &pod.addresses(Some(link.index))?, &mut differences);
            compare_routes(&expected, &link, &pod.routes()?, &mut differences);
        }
    }
    let host = Socket::open()?;
    let host_ifname = attachment.host_ifname();
    match existing(host.link_by_name(&host_ifname))? {
        None => differences.push(format!("{host_ifname} does not exist on the host")),
        Some(link) => match expected.interfaces.iter().find(|interface| interface.name == host_ifname) {
            Some(outside) => compare_device(outside, &link, &mut differences),
            None => compare_device(&Interface { name: host_ifname, ..Interface::default() }, &link, &mut differences),
        },
    }
    if !differences.is_empty() {
        let message = format!("{attachment} is not as ADD left it");
        return Err(CniError::new(ErrorCode::Mismatch, message).with_details(differences.join("; ")));
    }
    check_endpoint(agent, attachment)
}

fn check_endpoint(agent: &impl Agent, attachment: &Attachment) -> Result<(), CniError> {
    let health = agent.endpoint_health(attachment).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            CniError::new(ErrorCode::EndpointUnknown, format!("the agent does not know {attachment}"))
                .with_details(error.to_string())
        }
        ErrorKind::AgentUnavailable | ErrorKind::Busy => error.into(),
        _ => CniError::new(ErrorCode::EndpointUnknown, format!("the agent can't say how {attachment} is"))
            .with_details(error.to_string()),
    })?;
    if health.healthy {
        return Ok(());
    }
    let message = format!("the endpoint of {attachment} is not healthy");
    Err(CniError::new(ErrorCode::EndpointUnhealthy, message).with_details(health.summary))
}

/// The interface inside the namespace, and its place in the list.
fn interface_inside<'a>(expected: &'a CniResult, attachment: &Attachment) -> Option<(usize, &'a Interface)> {
    let is_ours = |interface: &Interface| !interface.sandbox.is_empty() && interface.name == attachment.ifname.as_str();
    expected.interfaces.iter().enumerate().find(|(_, interface)| is_ours(interface))
}

fn existing(link: crate::Result<Link>) -> crate::Result<Option<Link>> {
    match link {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn compare_device(expected: &Interface, found: &Link, differences: &mut Vec<String>) {
    let name = &expected.name;
    if !found.is_up {
        differences.push(format!("{name} is down"));
    } else if !found.is_running {
        differences.push(format!("{name} has no carrier: its other end is down"));
    }
    let mac = found.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if !expected.mac.is_empty() && !expected.mac.eq_ignore_ascii_case(&mac) {
        differences.push(format!("{name} has the MAC address {mac}, not {}", expected.mac));
    }
    if let Some(mtu) = expected.mtu.filter(|mtu| *mtu != found.mtu) {
        differences.push(format!("{name} has the MTU {}, not {mtu}", found.mtu));
    }
}

fn compare_addresses(expected: &CniResult, place: usize, found: &[Address], differences: &mut Vec<String>) {
    for ip in expected.ips.iter().filter(|ip| ip.interface == Some(place)) {
        match found.iter().find(|address| address.address == ip.address) {
            None => differences.push(format!("address {} is missing", ip.address)),
            Some(address) if address.is_duplicate => differences.push(format!("address {} is taken", ip.address)),
            Some(_) => {}
        }
    }
}

/// Routes to the same destination by the same gateway, through any device: plugins later in the list may have added some
/// of their own. An MTU is compared where the result has one.
fn compare_routes(expected: &CniResult, device: &Link, found: &[netlink::Route], differences: &mut Vec<String>) {
    let own: Vec<_> = expected.ips.iter().filter_map(|ip| ip.gateway).collect();
    for route in &expected.routes {
        let matches = |candidate: &&netlink::Route| {
            candidate.destination == route.dst && (route.gw.is_none() || candidate.gateway == route.gw)
        };
        let described = describe(route);
        let Some(candidate) = found.iter().find(matches) else {
            differences.push(format!("route {described} is missing"));
            continue;
        };
        if route.gw.is_some_and(|gw| own.contains(&gw)) && candidate.device != Some(device.index) {
            differences.push(format!("route {described} does not lead to {}", device.name));
        }
        if let Some(mtu) = route.metrics.mtu.filter(|mtu| candidate.mtu != Some(*mtu)) {
            let now = candidate.mtu.map_or_else(|| "none".to_owned(), |mtu| mtu.to_string());
            differences.push(format!("route {described} has the MTU {now}, not {mtu}"));
        }
    }
}

fn describe(route: &Route) -> String {
    match route.gw {
        Some(gw) => format!("to {} via {gw}", route.dst),
        None => format!("to {}", route.dst),
    }
}
