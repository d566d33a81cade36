//! What the plugin needs from a node agent. [`HttpAgent`](super::HttpAgent) asks one over its socket; another controller
//! can implement the trait over whatever it has, and tests do so in memory.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::attachment::Attachment;
use crate::endpoint::veth::OffloadLimits;
use crate::{MacAddr, Result};

/// The agent, as the six verbs see it. A call that returns `Ok` has taken effect.
///
/// What the verbs tell apart is the error's kind: [`AgentUnavailable`](crate::ErrorKind::AgentUnavailable) when nobody
/// answers, [`Busy`](crate::ErrorKind::Busy) when the same call may succeed later,
/// [`NotFound`](crate::ErrorKind::NotFound), [`Exhausted`](crate::ErrorKind::Exhausted) when no address is left.
pub trait Agent {
    /// The node's settings.
    fn settings(&self) -> Result<NodeSettings>;

    /// Allocates an address of each enabled family. Unless an endpoint with them is created, they expire by themselves.
    fn allocate(&self, owner: &str) -> Result<Allocation>;

    /// The same, doing something else while the agent works, where that can be done without a thread; it is done afterwards
    /// otherwise. It is done at most once, and not at all where the agent can't be reached.
    fn allocate_while(&self, owner: &str, meanwhile: &mut dyn FnMut()) -> Result<Allocation> {
        let allocation = self.allocate(owner)?;
        meanwhile();
        Ok(allocation)
    }

    /// Releases an address that no endpoint claimed.
    fn release(&self, address: &AllocatedAddress) -> Result<()>;

    /// Creates an endpoint; when it returns, its datapath is live.
    fn create_endpoint(&self, endpoint: &NewEndpoint) -> Result<()>;

    /// The same, doing something else while the agent works, where that can be done without a thread; it is done before
    /// otherwise. It is done at most once, and not at all where the agent can't be reached.
    fn create_endpoint_while(&self, endpoint: &NewEndpoint, meanwhile: &mut dyn FnMut()) -> Result<()> {
        meanwhile();
        self.create_endpoint(endpoint)
    }

    /// Deletes an attachment's endpoint, its host-side device and its addresses.
    fn delete_endpoint(&self, attachment: &Attachment) -> Result<()>;

    /// How an attachment's endpoint is.
    fn endpoint_health(&self, attachment: &Attachment) -> Result<EndpointHealth>;

    /// Every endpoint that was created for an attachment.
    fn attachments(&self) -> Result<Vec<AttachedEndpoint>>;

    /// Fails unless the agent can create endpoints.
    fn health(&self) -> Result<()>;
}

impl<A: Agent + ?Sized> Agent for &A {
    fn settings(&self) -> Result<NodeSettings> {
        (**self).settings()
    }

    fn allocate(&self, owner: &str) -> Result<Allocation> {
        (**self).allocate(owner)
    }

    fn allocate_while(&self, owner: &str, meanwhile: &mut dyn FnMut()) -> Result<Allocation> {
        (**self).allocate_while(owner, meanwhile)
    }

    fn release(&self, address: &AllocatedAddress) -> Result<()> {
        (**self).release(address)
    }

    fn create_endpoint(&self, endpoint: &NewEndpoint) -> Result<()> {
        (**self).create_endpoint(endpoint)
    }

    fn create_endpoint_while(&self, endpoint: &NewEndpoint, meanwhile: &mut dyn FnMut()) -> Result<()> {
        (**self).create_endpoint_while(endpoint, meanwhile)
    }

    fn delete_endpoint(&self, attachment: &Attachment) -> Result<()> {
        (**self).delete_endpoint(attachment)
    }

    fn endpoint_health(&self, attachment: &Attachment) -> Result<EndpointHealth> {
        (**self).endpoint_health(attachment)
    }

    fn attachments(&self) -> Result<Vec<AttachedEndpoint>> {
        (**self).attachments()
    }

    fn health(&self) -> Result<()> {
        (**self).health()
    }
}

/// Settings of the node that concern a pod's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// MTU of the pods' devices, in bytes.
    pub device_mtu: u32,
    /// MTU of the pods' default routes, in bytes.
    pub route_mtu: u32,
    /// Aggregation limits of the pods' devices.
    pub offload: OffloadLimits,
    /// Whether the agent attaches its programs by clsact: the plugin then adds it to the host's side, while the agent is at
    /// something else. An agent that finds none makes it itself.
    pub clsact: bool,
}

/// One address handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocatedAddress {
    /// The address.
    pub address: IpAddr,
    /// The pool it is from; may be empty.
    pub pool: String,
    /// Names the claim on an allocation that would expire; empty when it does not.
    pub expiration: String,
}

impl fmt::Display for AllocatedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Addresses handed out to one owner, and the gateways to reach everything else by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// The addresses, at most one of each family.
    pub addresses: Vec<AllocatedAddress>,
    /// The gateway of IPv4.
    pub gateway_v4: Option<Ipv4Addr>,
    /// The gateway of IPv6.
    pub gateway_v6: Option<Ipv6Addr>,
    /// The node's settings, where the agent tells them along with the addresses; otherwise they are asked for.
    pub settings: Option<NodeSettings>,
}

impl Allocation {
    /// The IPv4 address.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|allocated| match allocated.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    }

    /// The IPv6 address.
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        self.addresses.iter().find_map(|allocated| match allocated.address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        })
    }
}

/// An endpoint to be created around a device that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEndpoint {
    /// What it is for.
    pub attachment: Attachment,
    /// The namespace it is in.
    pub netns: PathBuf,
    /// The host side's name.
    pub host_ifname: String,
    /// The host side's index.
    pub host_ifindex: u32,
    /// The host side's MAC address.
    pub host_mac: MacAddr,
    /// The container side's MAC address.
    pub pod_mac: MacAddr,
    /// Its addresses.
    pub addresses: Vec<AllocatedAddress>,
    /// Namespace and name of the pod, if Kubernetes gave them.
    pub pod: Option<(String, String)>,
    /// UID of the pod, if Kubernetes gave it.
    pub pod_uid: Option<String>,
}

/// The health of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointHealth {
    /// Whether traffic flows as it should.
    pub healthy: bool,
    /// The agent's words for it.
    pub summary: String,
}

/// An endpoint that was created for an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedEndpoint {
    /// The attachment.
    pub attachment: Attachment,
    /// The host side's device name; may be empty.
    pub host_ifname: String,
}
