//! An agent in memory, and calls of the plugin in a namespace that stands for the host's.
#![allow(dead_code, unreachable_pub, reason = "every test program compiles all of this and uses some")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

use podwire::cni::{
    Agent, AllocatedAddress, Allocation, AttachedEndpoint, Attachment, EndpointHealth, Failure, NewEndpoint,
    NodeSettings, Outcome,
};
use podwire::endpoint::veth::OffloadLimits;
use podwire::{Error, Result};
use serde_json::{Value, json};

use super::netns::TestNetns;

/// What the fake agent remembers, and how it is to fail.
#[derive(Default)]
pub struct State {
    pub next: u8,
    pub allocated: Vec<IpAddr>,
    pub endpoints: BTreeMap<Attachment, NewEndpoint>,
    /// The answer to a call of this name, once for each.
    pub failures: Vec<(&'static str, Error)>,
    pub unhealthy: bool,
    /// Whether the settings come along with the addresses.
    pub tells_settings: bool,
    /// MTU of the pods' devices, and their aggregation limits.
    pub limits: Option<(u32, OffloadLimits)>,
    /// Whether it attaches by clsact.
    pub clsact: bool,
    /// Whether somebody adds the older ingress discipline to each device before the plugin adds clsact.
    pub ingress_first: bool,
    pub calls: Vec<&'static str>,
    /// A namespace to be removed when this call comes.
    pub remove_at: Option<(&'static str, PathBuf)>,
}

impl State {
    /// The settings of the node.
    fn settings(&self) -> NodeSettings {
        let (device_mtu, offload) = self.limits.unwrap_or((1500, OffloadLimits::default()));
        NodeSettings { device_mtu, route_mtu: 1450, offload, clsact: self.clsact }
    }
}

#[derive(Default)]
pub struct FakeAgent(Mutex<State>);

impl FakeAgent {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while it was held")
    }

    pub fn fail(&self, call: &'static str, error: Error) {
        self.state().failures.push((call, error));
    }

    fn called(&self, call: &'static str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.calls.push(call);
        if let Some((_, path)) = state.remove_at.take_if(|(at, _)| *at == call) {
            podwire::netns::NetNs::remove(path)?;
        }
        match state.failures.iter().position(|(at, _)| *at == call) {
            Some(at) => Err(state.failures.remove(at).1),
            None => Ok(state),
        }
    }
}

pub fn unreachable() -> Error {
    Error::AgentUnavailable { socket: "/nowhere".into(), source: io::ErrorKind::ConnectionRefused.into() }
}

/// A failure at this place loses the answer to a creation that has taken effect.
pub const AFTER_CREATION: &str = "create_endpoint, after it";

/// What a call fails with when the agent ends before it answers.
pub fn ended() -> Error {
    Error::system("request", "PUT /v1/endpoint", io::Error::from(io::ErrorKind::ConnectionReset))
}

pub fn answered(status: u16) -> Error {
    Error::Api { method: "PUT".into(), path: "/v1/endpoint".into(), status, message: "as the test wants".into() }
}

impl Agent for FakeAgent {
    fn settings(&self) -> Result<NodeSettings> {
        Ok(self.called("settings")?.settings())
    }

    fn allocate(&self, _: &str) -> Result<Allocation> {
        let mut state = self.called("allocate")?;
        state.next += 1;
        let addresses = [
            IpAddr::from(Ipv4Addr::new(10, 8, 0, state.next)),
            Ipv6Addr::new(0xfd00, 8, 0, 0, 0, 0, 0, state.next.into()).into(),
        ];
        state.allocated.extend(addresses);
        let allocated =
            |address| AllocatedAddress { address, pool: "default".into(), expiration: format!("claim-{address}") };
        Ok(Allocation {
            addresses: addresses.map(allocated).into(),
            gateway_v4: Some(Ipv4Addr::new(10, 8, 0, 254)),
            gateway_v6: Some(Ipv6Addr::new(0xfd00, 8, 0, 0, 0, 0, 0, 0xfe)),
            settings: state.tells_settings.then(|| state.settings()),
        })
    }

    /// As the real agent's client: the caller does its part once the request is on its way, whatever the answer will be.
    fn allocate_while(&self, owner: &str, meanwhile: &mut dyn FnMut()) -> Result<Allocation> {
        let answer = self.allocate(owner);
        if !matches!(answer, Err(Error::AgentUnavailable { .. })) {
            meanwhile();
        }
        answer
    }

    fn release(&self, address: &AllocatedAddress) -> Result<()> {
        let mut state = self.called("release")?;
        let at = state.allocated.iter().position(|allocated| *allocated == address.address);
        let at = at.ok_or_else(|| Error::not_found("address", address.to_string()))?;
        state.allocated.remove(at);
        Ok(())
    }

    fn create_endpoint(&self, endpoint: &NewEndpoint) -> Result<()> {
        let mut state = self.called("create_endpoint")?;
        state.endpoints.insert(endpoint.attachment.clone(), endpoint.clone());
        match state.failures.iter().position(|(at, _)| *at == AFTER_CREATION) {
            Some(at) => Err(state.failures.remove(at).1),
            None => Ok(()),
        }
    }

    /// As the real agent's client: the caller does its part before there is an answer.
    fn create_endpoint_while(&self, endpoint: &NewEndpoint, meanwhile: &mut dyn FnMut()) -> Result<()> {
        if self.state().ingress_first {
            let mut tc = Command::new("tc");
            let added = tc.args(["qdisc", "add", "dev", &endpoint.host_ifname, "ingress"]).status();
            assert!(added.expect("tc runs").success());
        }
        meanwhile();
        self.create_endpoint(endpoint)
    }

    /// As the real agent: the device and the addresses go too.
    fn delete_endpoint(&self, attachment: &Attachment) -> Result<()> {
        let mut state = self.called("delete_endpoint")?;
        let endpoint = state.endpoints.remove(attachment);
        let endpoint = endpoint.ok_or_else(|| Error::not_found("endpoint", attachment.to_string()))?;
        state.allocated.retain(|address| endpoint.addresses.iter().all(|gone| gone.address != *address));
        let socket = podwire::netlink::Socket::open()?;
        match socket.link_by_name(&endpoint.host_ifname) {
            Ok(link) => socket.link_delete(link.index),
            Err(_) => Ok(()),
        }
    }

    fn endpoint_health(&self, attachment: &Attachment) -> Result<EndpointHealth> {
        let state = self.called("endpoint_health")?;
        if !state.endpoints.contains_key(attachment) {
            return Err(Error::not_found("endpoint", attachment.to_string()));
        }
        Ok(EndpointHealth { healthy: !state.unhealthy, summary: "as the test wants".into() })
    }

    fn attachments(&self) -> Result<Vec<AttachedEndpoint>> {
        let state = self.called("attachments")?;
        let attached = |endpoint: &NewEndpoint| AttachedEndpoint {
            attachment: endpoint.attachment.clone(),
            host_ifname: endpoint.host_ifname.clone(),
        };
        Ok(state.endpoints.values().map(attached).collect())
    }

    fn health(&self) -> Result<()> {
        self.called("health").map(drop)
    }
}

/// A host in a namespace, its agent, and a directory for what the plugin writes.
pub struct Host {
    pub netns: TestNetns,
    pub agent: FakeAgent,
    pub dir: tempfile::TempDir,
}

/// One call's variables.
#[derive(Clone)]
pub struct Call<'a> {
    pub command: &'a str,
    pub container: &'a str,
    pub ifname: &'a str,
    pub netns: &'a Path,
}

impl Host {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { netns: TestNetns::with_loopback(), agent: FakeAgent::default(), dir }
    }

    pub fn socket_path(&self) -> PathBuf {
        self.dir.path().join("podwire.sock")
    }

    /// A configuration with this host's socket.
    pub fn conf(&self, version: &str) -> Value {
        json!({ "cniVersion": version, "name": "pods", "type": "podwire-cni", "socket": self.socket_path(), "agent-timeout": 0 })
    }

    pub fn call(&self, call: &Call<'_>, conf: &Value) -> std::result::Result<Outcome, Failure> {
        let variable = |name: &str| -> Option<OsString> {
            match name {
                "CNI_COMMAND" => Some(call.command.into()),
                "CNI_CONTAINERID" => Some(call.container.into()),
                "CNI_IFNAME" => Some(call.ifname.into()),
                "CNI_NETNS" => Some(call.netns.into()),
                "CNI_ARGS" => Some("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=u-1".into()),
                _ => None,
            }
        };
        let input = conf.to_string();
        self.netns.run(|| podwire::cni::serve(variable, input.as_bytes(), |_| &self.agent))
    }

    /// ADD, whose result is returned.
    pub fn add(&self, container: &str, pod: &TestNetns, conf: &Value) -> Value {
        let call = Call { command: "ADD", container, ifname: "eth0", netns: pod.path() };
        match self.call(&call, conf) {
            Ok(Outcome::Result(result)) => result,
            other => panic!("ADD: {other:?}"),
        }
    }

    /// A call that must fail, with this code; the error as JSON.
    pub fn refused(&self, call: &Call<'_>, conf: &Value, code: u32) -> Value {
        let failure = self.call(call, conf).expect_err("it must fail");
        let json = failure.error.to_json(failure.version);
        assert_eq!(failure.error.code(), code, "{json}");
        json
    }

    /// Names of the veth devices on the host.
    pub fn devices(&self) -> Vec<String> {
        let links = self.netns.socket().links().expect("devices");
        links.into_iter().filter(|link| link.kind.as_deref() == Some("veth")).map(|link| link.name).collect()
    }

    /// Nothing of any attachment is left.
    pub fn assert_clean(&self, pods: &[&TestNetns]) {
        assert_eq!(self.devices(), [""; 0]);
        for pod in pods {
            assert!(pod.socket().link_by_name("eth0").is_err(), "eth0 is left in {}", pod.name());
        }
        let state = self.agent.state();
        assert!(state.allocated.is_empty(), "{:?}", state.allocated);
        assert!(state.endpoints.is_empty());
    }
}
