//! Whether a node is well.

use std::collections::BTreeMap;

use super::node::{LOCK, Node, NodeDevice};
use super::repair::Lacking;
use super::{Datapath, routes};
use crate::endpoint::{EndpointState, Unreadable};
use crate::ipam::{Family, Usage};
use crate::{ErrorKind, Result};

/// The state of one part of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// As it should be.
    Ok,
    /// Single endpoints or a native device are not as they should be, and why. The node serves, and takes new endpoints.
    Impaired(String),
    /// Not as it should be, and why.
    Degraded(String),
}

impl Health {
    /// Whether the part is well.
    pub fn is_ok(&self) -> bool {
        *self == Self::Ok
    }
}

/// A node at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Each part by name, with its state.
    pub parts: Vec<(String, Health)>,
    /// The IPv4 pool.
    pub ipv4: Option<Usage>,
    /// The IPv6 pool.
    pub ipv6: Option<Usage>,
    /// Endpoints by state.
    pub endpoints: BTreeMap<&'static str, usize>,
}

impl Status {
    /// Whether every part is well.
    pub fn is_ok(&self) -> bool {
        self.parts.iter().all(|(_, health)| health.is_ok())
    }
}

impl Datapath {
    /// Looks at the kernel and says what is not as it should be.
    pub fn status(&self) -> Status {
        let mut parts = Vec::new();
        let node = self.node();
        let own = [&node.host, &node.net].map(|device| (device, Health::Degraded as fn(String) -> Health));
        let native = node.devices.iter().map(|device| (device, Health::Impaired as fn(String) -> Health));
        for (device, ill) in own.into_iter().chain(native) {
            parts.push((format!("device {}", device.name), health(self.check_device(device), ill)));
        }
        parts.push(("routing".to_owned(), health(self.check_routing(&node), Health::Degraded)));
        parts.push(("maps".to_owned(), health(self.check_pins(), Health::Degraded)));
        parts.push(("state".to_owned(), self.check_state()));
        parts.push(("endpoints".to_owned(), self.check_endpoints()));
        parts.push(("policy".to_owned(), self.check_policy()));
        let mut endpoints: BTreeMap<&'static str, usize> = BTreeMap::new();
        for endpoint in self.endpoints.list() {
            *endpoints.entry(endpoint.state.name()).or_default() += 1;
        }
        Status { parts, ipv4: self.ipam.usage(Family::Ipv4), ipv6: self.ipam.usage(Family::Ipv6), endpoints }
    }

    fn check_device(&self, device: &NodeDevice) -> Result<Option<String>> {
        let link = match self.endpoints.socket().link_by_index(device.ifindex) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some("the device is gone".to_owned())),
            link => link?,
        };
        if link.name != device.name {
            return Ok(Some(format!("device {} is named {} by now", device.ifindex, link.name)));
        }
        if !link.is_up {
            return Ok(Some("the device is down".to_owned()));
        }
        let bare = self.bare_hook(device)?;
        Ok(bare.map(|direction| format!("no program is attached to its {direction:?} hook").to_lowercase()))
    }

    /// Whether the host has the gateway's addresses, routes to the pods, and forwards.
    fn check_routing(&self, node: &Node) -> Result<Option<String>> {
        let wanted = routes::to_pods(node, &self.ipam);
        let lacking = Lacking::of(self.endpoints.socket(), &self.paths, node, &wanted)?;
        Ok((!lacking.is_nothing()).then(|| lacking.to_string()))
    }

    fn check_pins(&self) -> Result<Option<String>> {
        let folder = self.paths.maps();
        let missing: Vec<&str> = self.shared_maps().into_iter().filter(|name| !folder.join(name).exists()).collect();
        Ok((!missing.is_empty()).then(|| format!("not pinned in {}: {}", folder.display(), missing.join(", "))))
    }

    /// Whether what has to outlast this process can be written.
    fn check_state(&self) -> Health {
        // The lock is there as long as the directory is the one that was opened.
        if self.paths.state(LOCK).exists() {
            return Health::Ok;
        }
        let folder = self.paths.state_dir.display();
        Health::Degraded(format!("the state directory {folder} was removed: endpoints and addresses can't change"))
    }

    fn check_endpoints(&self) -> Health {
        let ill: Vec<String> = self
            .endpoints
            .list()
            .iter()
            .filter(|endpoint| endpoint.state == EndpointState::NotReady)
            .map(|endpoint| endpoint.id().to_string())
            .collect();
        let bare: Vec<String> = self.endpoints.detached().iter().map(ToString::to_string).collect();
        let problems = [("not ready", ill), ("without programs", bare)].into_iter().filter(|(_, ids)| !ids.is_empty());
        let unreadable = self.endpoints.unreadable().into_iter().map(|Unreadable { id, reason }| {
            format!(
                "endpoint {id} stays as it was, without policies of today: {reason} (let the build that wrote it run again; or move \
                 the file away, restart the agent and DEL the pod)"
            )
        });
        let problems = problems.map(|(what, ids)| format!("{what}: {}", ids.join(", ")));
        let problems: Vec<String> = problems.chain(unreadable).collect();
        if problems.is_empty() { Health::Ok } else { Health::Impaired(problems.join("; ")) }
    }

    /// Whether every endpoint has the policy that it should have.
    fn check_policy(&self) -> Health {
        let policies = self.policy().realized_all();
        let ill = policies.iter().filter_map(|policy| Some((policy.endpoint, policy.error.as_ref()?)));
        let ill: Vec<String> = ill.map(|(endpoint, error)| format!("endpoint {endpoint}: {error}")).collect();
        if ill.is_empty() { Health::Ok } else { Health::Impaired(ill.join("; ")) }
    }
}

fn health(problem: Result<Option<String>>, ill: fn(String) -> Health) -> Health {
    match problem {
        Ok(None) => Health::Ok,
        Ok(Some(problem)) => ill(problem),
        Err(error) => ill(error.to_string()),
    }
}
