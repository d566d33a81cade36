//! The agent behind a Unix socket.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::agent::{Agent, AllocatedAddress, Allocation, AttachedEndpoint, EndpointHealth, NewEndpoint, NodeSettings};
use super::attachment::Attachment;
use crate::api::{
    AddressPair, Client, DeviceSettings, EndpointChangeRequest, EndpointDatapathConfiguration, EndpointHealthStatus,
    EndpointKey, EndpointState, IpamRequest, IpamResponse, StatusState,
};
use crate::endpoint::veth::OffloadLimits;
use crate::{Error, Result};

/// How long an answer is waited for at least. Creating an endpoint waits for it to be live.
const PATIENCE_MIN: Duration = Duration::from_secs(5);

/// An [`Agent`] reached over its socket; one connection serves all requests.
#[derive(Clone, Debug)]
pub struct HttpAgent {
    client: Client,
}

impl HttpAgent {
    /// The agent that listens on a socket. Each answer is waited for as long as `patience`, five seconds at least: an agent
    /// that hangs is to cost no more. No connection is made yet.
    pub fn new(socket: &Path, patience: Duration) -> Self {
        let patience = patience.max(PATIENCE_MIN);
        Self { client: Client::builder(socket).request_timeout(Some(patience)).plain().build() }
    }

    fn lacking(&self, what: &str) -> Error {
        Error::Corrupt { path: self.client.socket().to_owned(), reason: format!("the agent's answer lacks {what}") }
    }

    fn node_settings(&self, settings: DeviceSettings) -> Result<NodeSettings> {
        if let Some(mode) = settings.datapath_mode.as_deref().filter(|mode| *mode != "veth") {
            return Err(Error::Unsupported {
                feature: "the agent's datapath mode",
                remedy: format!("it is {mode:?}, this plugin makes veth pairs").into(),
            });
        }
        let needed = |mtu: u32, name| if mtu == 0 { Err(self.lacking(name)) } else { Ok(mtu) };
        Ok(NodeSettings {
            device_mtu: needed(settings.device_mtu, "deviceMTU")?,
            route_mtu: needed(settings.route_mtu, "routeMTU")?,
            offload: OffloadLimits {
                gro: settings.gro_max_size,
                gso: settings.gso_max_size,
                gro_ipv4: settings.gro_ipv4_max_size,
                gso_ipv4: settings.gso_ipv4_max_size,
            },
            clsact: settings.attach_mode.as_deref() == Some("clsact"),
        })
    }
}

impl Agent for HttpAgent {
    fn settings(&self) -> Result<NodeSettings> {
        self.node_settings(self.client.config()?.status.into())
    }

    fn allocate(&self, owner: &str) -> Result<Allocation> {
        self.allocate_while(owner, &mut || ())
    }

    fn allocate_while(&self, owner: &str, meanwhile: &mut dyn FnMut()) -> Result<Allocation> {
        let request =
            IpamRequest { owner: owner.to_owned(), expiring: true, device_settings: true, ..IpamRequest::default() };
        let mut answer = self.client.allocate_while(&request, meanwhile)?;
        // what is of no use is asked for once more, and refused when there is something to undo with
        let settings = answer.device_settings.take().and_then(|settings| self.node_settings(settings).ok());
        let allocation = allocation(answer);
        if allocation.addresses.is_empty() {
            return Err(self.lacking("an address"));
        }
        for allocated in &allocation.addresses {
            let has_gateway = match allocated.address {
                IpAddr::V4(_) => allocation.gateway_v4.is_some(),
                IpAddr::V6(_) => allocation.gateway_v6.is_some(),
            };
            if !has_gateway {
                return Err(self.lacking("a gateway (host-addressing)"));
            }
        }
        Ok(Allocation { settings, ..allocation })
    }

    fn release(&self, address: &AllocatedAddress) -> Result<()> {
        self.client.release_address(address.address, Some(address.pool.as_str()).filter(|pool| !pool.is_empty()))
    }

    fn create_endpoint(&self, endpoint: &NewEndpoint) -> Result<()> {
        self.create_endpoint_while(endpoint, &mut || ())
    }

    fn create_endpoint_while(&self, endpoint: &NewEndpoint, meanwhile: &mut dyn FnMut()) -> Result<()> {
        self.client.add_endpoint(&change_request(endpoint), meanwhile)
    }

    fn delete_endpoint(&self, attachment: &Attachment) -> Result<()> {
        self.client.delete_endpoint(&key(attachment))
    }

    fn endpoint_health(&self, attachment: &Attachment) -> Result<EndpointHealth> {
        let health = self.client.endpoint_health(&key(attachment))?;
        let parts = [("overall", &health.overall_health), ("bpf", &health.bpf), ("policy", &health.policy)];
        let mut words: Vec<String> =
            parts.iter().filter_map(|(name, status)| Some(format!("{name} {}", status.as_ref()?))).collect();
        words.push(if health.connected { "connected" } else { "not connected" }.to_owned());
        words.extend(health.reasons);
        let failed = |status: &Option<EndpointHealthStatus>| *status == Some(EndpointHealthStatus::Failure);
        let healthy = !failed(&health.overall_health) && !failed(&health.bpf) && health.connected;
        Ok(EndpointHealth { healthy, summary: words.join(", ") })
    }

    fn attachments(&self) -> Result<Vec<AttachedEndpoint>> {
        let attached = |endpoint: crate::api::Endpoint| {
            let status = endpoint.status?;
            let attachment = status.external_identifiers?.cni_attachment_id?.parse().ok()?;
            let host_ifname = status.networking.and_then(|networking| networking.interface_name).unwrap_or_default();
            Some(AttachedEndpoint { attachment, host_ifname })
        };
        match self.client.endpoints(&[]) {
            Ok(endpoints) => Ok(endpoints.into_iter().filter_map(attached).collect()),
            // an agent without a single endpoint may say so by 404
            Err(error) if error.kind() == crate::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn health(&self) -> Result<()> {
        let status = self.client.status(true)?;
        match status.cilium {
            Some(part) if part.state == Some(StatusState::Failure) => Err(Error::WrongState {
                object: "the agent".to_owned(),
                state: part.msg.unwrap_or_else(|| "failing".to_owned()),
                op: "serve ADD",
            }),
            _ => Ok(()),
        }
    }
}

fn key(attachment: &Attachment) -> EndpointKey {
    let ifname = attachment.ifname.as_str().to_owned();
    EndpointKey::CniAttachmentId(attachment.container_id.as_str().to_owned(), Some(ifname))
}

fn allocation(answer: IpamResponse) -> Allocation {
    let IpamResponse { address, host_addressing, ipv4, ipv6, .. } = answer;
    let mut addresses = Vec::with_capacity(2);
    if let Some(ip) = address.ipv4 {
        let expiration = ipv4.as_ref().and_then(|ipv4| ipv4.expiration_uuid.clone()).unwrap_or_default();
        addresses.push(AllocatedAddress {
            address: ip.into(),
            pool: address.ipv4_pool_name.unwrap_or_default(),
            expiration,
        });
    }
    if let Some(ip) = address.ipv6 {
        let expiration = ipv6.as_ref().and_then(|ipv6| ipv6.expiration_uuid.clone()).unwrap_or_default();
        addresses.push(AllocatedAddress {
            address: ip.into(),
            pool: address.ipv6_pool_name.unwrap_or_default(),
            expiration,
        });
    }
    let gateway_v4 = host_addressing.ipv4.and_then(|element| element.ip).and_then(|ip| match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    });
    let gateway_v6 = host_addressing.ipv6.and_then(|element| element.ip).and_then(|ip| match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some(ip),
    });
    Allocation { addresses, gateway_v4, gateway_v6, settings: None }
}

fn change_request(endpoint: &NewEndpoint) -> EndpointChangeRequest {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let mut addressing = AddressPair::default();
    for allocated in &endpoint.addresses {
        match allocated.address {
            IpAddr::V4(address) => {
                addressing.ipv4 = Some(address);
                addressing.ipv4_pool_name = some(&allocated.pool);
                addressing.ipv4_expiration_uuid = some(&allocated.expiration);
            }
            IpAddr::V6(address) => {
                addressing.ipv6 = Some(address);
                addressing.ipv6_pool_name = some(&allocated.pool);
                addressing.ipv6_expiration_uuid = some(&allocated.expiration);
            }
        }
    }
    let (k8s_namespace, k8s_pod_name) = endpoint.pod.clone().unzip();
    EndpointChangeRequest {
        addressing: Some(addressing),
        container_id: some(endpoint.attachment.container_id.as_str()),
        container_interface_name: some(endpoint.attachment.ifname.as_str()),
        container_netns_path: some(&endpoint.netns.to_string_lossy()),
        datapath_configuration: Some(EndpointDatapathConfiguration::default()),
        host_mac: Some(endpoint.host_mac),
        interface_index: endpoint.host_ifindex.into(),
        interface_name: some(&endpoint.host_ifname),
        k8s_namespace,
        k8s_pod_name,
        k8s_uid: endpoint.pod_uid.clone(),
        mac: Some(endpoint.pod_mac),
        state: Some(EndpointState::WaitingForIdentity),
        sync_build_endpoint: true,
        ..EndpointChangeRequest::default()
    }
}
