//! The requests, one method each.

use std::net::IpAddr;
use std::time::Duration;

use ureq::http::Method;

use super::{Client, JSON, MonitorStream, encode_body};
use crate::Result;
use crate::api::{
    BpfMap, BpfMapList, ClusterNodes, DaemonConfiguration, DaemonConfigurationSpec, DebugInfo, Endpoint,
    EndpointBatchDeleteRequest, EndpointChangeRequest, EndpointConfigurationSpec, EndpointConfigurationStatus,
    EndpointHealth, EndpointKey, EndpointState, EndpointStatusChange, IpListEntry, IpamResponse, LabelConfiguration,
    LabelConfigurationSpec, Metric, MonitorFilter, Port, StatusResponse,
};
use crate::ipam::Family;

/// What to allocate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpamRequest {
    /// Whom the addresses are for: `namespace/pod`.
    pub owner: String,
    /// Only this family; both when `None`.
    pub family: Option<Family>,
    /// The pool; the default one when `None`.
    pub pool: Option<String>,
    /// Whether the allocation ends by itself unless an endpoint claims it.
    pub expiring: bool,
    /// Whether the answer is to say what to make devices by. Agents that do not know the question leave it out.
    pub device_settings: bool,
}

impl Client {
    /// The configuration.
    pub fn config(&self) -> Result<DaemonConfiguration> {
        self.fetch(Method::GET, "/v1/config")
    }

    /// Changes what of the configuration can be changed at run time.
    pub fn change_config(&self, spec: &DaemonConfigurationSpec) -> Result<()> {
        self.send_json(Method::PATCH, "/v1/config", spec).map(drop)
    }

    /// Allocates the next free address of one or both families.
    pub fn allocate(&self, request: &IpamRequest) -> Result<IpamResponse> {
        self.allocate_while(request, || ())
    }

    /// The same, doing something else while a [plain](super::ClientBuilder::plain) client waits; with others it is done before.
    pub fn allocate_while(&self, request: &IpamRequest, mut meanwhile: impl FnMut()) -> Result<IpamResponse> {
        let mut query = Query::default();
        query.add("owner", &request.owner);
        if let Some(family) = request.family {
            let family = match family {
                Family::Ipv4 => "ipv4",
                Family::Ipv6 => "ipv6",
            };
            query.add("family", family);
        }
        if let Some(pool) = &request.pool {
            query.add("pool", pool);
        }
        let path = query.after("/v1/ipam");
        let wishes = [("expiration", request.expiring), ("device-settings", request.device_settings)];
        let headers: Vec<_> = wishes.iter().filter(|(_, wished)| *wished).map(|(name, _)| (*name, "true")).collect();
        let answer = self.send_while(Method::POST, &path, &headers, Some(&[]), &mut meanwhile)?;
        self.read(&Method::POST, &path, answer)
    }

    /// Allocates this address.
    pub fn allocate_address(&self, address: IpAddr, owner: &str, pool: Option<&str>) -> Result<()> {
        let mut query = Query::default();
        query.add("owner", owner);
        if let Some(pool) = pool {
            query.add("pool", pool);
        }
        let path = query.after(&format!("/v1/ipam/{address}"));
        self.send(Method::POST, &path, &[], Some(&[])).map(drop)
    }

    /// Releases this address.
    pub fn release_address(&self, address: IpAddr, pool: Option<&str>) -> Result<()> {
        let mut query = Query::default();
        if let Some(pool) = pool {
            query.add("pool", pool);
        }
        self.send(Method::DELETE, &query.after(&format!("/v1/ipam/{address}")), &[], None).map(drop)
    }

    /// All endpoints that have these labels.
    pub fn endpoints(&self, labels: &[String]) -> Result<Vec<Endpoint>> {
        if labels.is_empty() {
            return self.fetch(Method::GET, "/v1/endpoint");
        }
        self.submit(Method::GET, "/v1/endpoint", &labels)
    }

    /// One endpoint.
    pub fn endpoint(&self, key: &EndpointKey) -> Result<Endpoint> {
        self.fetch(Method::GET, &endpoint_path(key, ""))
    }

    /// Creates an endpoint; returns when it is in service if the request says to wait.
    pub fn create_endpoint(&self, request: &EndpointChangeRequest) -> Result<Endpoint> {
        self.submit(Method::PUT, &endpoint_path(&EndpointKey::New, ""), request)
    }

    /// The same, without asking how the endpoint looks, and doing something else while a [plain](super::ClientBuilder::plain)
    /// client waits; with others it is done before.
    pub fn add_endpoint(&self, request: &EndpointChangeRequest, mut meanwhile: impl FnMut()) -> Result<()> {
        let path = endpoint_path(&EndpointKey::New, "");
        let body = encode_body(&path, request)?;
        let headers = [JSON, ("prefer", "return=minimal")];
        self.send_while(Method::PUT, &path, &headers, Some(&body), &mut meanwhile).map(drop)
    }

    /// Changes an endpoint.
    pub fn change_endpoint(&self, key: &EndpointKey, request: &EndpointChangeRequest) -> Result<()> {
        self.send_json(Method::PATCH, &endpoint_path(key, ""), request).map(drop)
    }

    /// Writes everything that belongs to an endpoint anew; returns when that is done.
    pub fn regenerate_endpoint(&self, key: &EndpointKey) -> Result<()> {
        let state = Some(EndpointState::WaitingToRegenerate);
        self.change_endpoint(key, &EndpointChangeRequest { state, sync_build_endpoint: true, ..Default::default() })
    }

    /// Makes these all the names that an endpoint has for its ports; in force when it returns.
    pub fn name_endpoint_ports(&self, key: &EndpointKey, ports: Vec<Port>) -> Result<()> {
        let (state, named_ports) = (Some(EndpointState::WaitingToRegenerate), Some(ports));
        let request = EndpointChangeRequest { state, named_ports, sync_build_endpoint: true, ..Default::default() };
        self.change_endpoint(key, &request)
    }

    /// Removes an endpoint.
    pub fn delete_endpoint(&self, key: &EndpointKey) -> Result<()> {
        self.send(Method::DELETE, &endpoint_path(key, ""), &[], None).map(drop)
    }

    /// Removes all endpoints of a container.
    pub fn delete_endpoints_of(&self, container_id: &str) -> Result<()> {
        let request = EndpointBatchDeleteRequest { container_id: Some(container_id.to_owned()) };
        self.send_json(Method::DELETE, "/v1/endpoint", &request).map(drop)
    }

    /// How well an endpoint does.
    pub fn endpoint_health(&self, key: &EndpointKey) -> Result<EndpointHealth> {
        self.fetch(Method::GET, &endpoint_path(key, "/healthz"))
    }

    /// What happened to an endpoint, newest first.
    pub fn endpoint_log(&self, key: &EndpointKey) -> Result<Vec<EndpointStatusChange>> {
        self.fetch(Method::GET, &endpoint_path(key, "/log"))
    }

    /// An endpoint's labels.
    pub fn endpoint_labels(&self, key: &EndpointKey) -> Result<LabelConfiguration> {
        self.fetch(Method::GET, &endpoint_path(key, "/labels"))
    }

    /// Sets the labels that a user gives to an endpoint.
    pub fn change_endpoint_labels(&self, key: &EndpointKey, spec: &LabelConfigurationSpec) -> Result<()> {
        self.send_json(Method::PATCH, &endpoint_path(key, "/labels"), spec).map(drop)
    }

    /// What can be changed of an endpoint at run time.
    pub fn endpoint_config(&self, key: &EndpointKey) -> Result<EndpointConfigurationStatus> {
        self.fetch(Method::GET, &endpoint_path(key, "/config"))
    }

    /// Changes what can be changed of an endpoint at run time.
    pub fn change_endpoint_config(&self, key: &EndpointKey, spec: &EndpointConfigurationSpec) -> Result<()> {
        self.send_json(Method::PATCH, &endpoint_path(key, "/config"), spec).map(drop)
    }

    /// The node's status; only the agent as a whole when `brief`.
    pub fn status(&self, brief: bool) -> Result<StatusResponse> {
        let headers = [("brief", if brief { "true" } else { "false" })];
        let answer = self.send(Method::GET, "/v1/healthz", &headers, None)?;
        self.read(&Method::GET, "/v1/healthz", answer)
    }

    /// Addresses and prefixes and whose they are; only those within `cidr` where it is given.
    pub fn addresses(&self, cidr: Option<&str>) -> Result<Vec<IpListEntry>> {
        let mut query = Query::default();
        if let Some(cidr) = cidr {
            query.add("cidr", cidr);
        }
        self.fetch(Method::GET, &query.after("/v1/ip"))
    }

    /// All maps.
    pub fn maps(&self) -> Result<BpfMapList> {
        self.fetch(Method::GET, "/v1/map")
    }

    /// One map.
    pub fn map(&self, name: &str) -> Result<BpfMap> {
        self.fetch(Method::GET, &format!("/v1/map/{}", encode(name)))
    }

    /// All metrics.
    pub fn metrics(&self) -> Result<Vec<Metric>> {
        self.fetch(Method::GET, "/v1/metrics")
    }

    /// Everything at once.
    pub fn debug_info(&self) -> Result<DebugInfo> {
        self.fetch(Method::GET, "/v1/debuginfo")
    }

    /// The nodes of the cluster.
    pub fn nodes(&self) -> Result<ClusterNodes> {
        self.fetch(Method::GET, "/v1/cluster/nodes")
    }

    /// Events from now on. Use a client without a request timeout: the stream lasts until the agent or the caller
    /// ends it.
    pub fn monitor(&self, filter: &MonitorFilter) -> Result<MonitorStream> {
        let mut query = Query::default();
        for (name, value) in filter.query() {
            query.add(name, &value);
        }
        let answer = self.stream(Method::GET, &query.after("/v1/monitor"))?;
        Ok(MonitorStream::new(answer, self.socket.clone()))
    }

    /// Whether an agent answers at this socket within `timeout`.
    pub fn is_served(socket: &std::path::Path, timeout: Duration) -> bool {
        let client = Self::builder(socket).connect_timeout(timeout).request_timeout(Some(timeout)).build();
        !matches!(client.status(true), Err(crate::Error::AgentUnavailable { .. }))
    }
}

fn endpoint_path(key: &EndpointKey, rest: &str) -> String {
    format!("/v1/endpoint/{}{rest}", encode(&key.to_string()))
}

/// Percent-encodes a part of a path or query (RFC 3986, section 2): everything but letters, digits and `-._~:`.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The part of a path after the question mark.
#[derive(Default)]
struct Query(String);

impl Query {
    fn add(&mut self, name: &str, value: &str) {
        let mark = if self.0.is_empty() { '?' } else { '&' };
        self.0.push_str(&format!("{mark}{name}={}", encode(value)));
    }

    fn after(self, path: &str) -> String {
        format!("{path}{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded() {
        let key = EndpointKey::PodName("default/web a".to_owned());
        assert_eq!(endpoint_path(&key, "/healthz"), "/v1/endpoint/pod-name:default%2Fweb%20a/healthz");
        let mut query = Query::default();
        query.add("owner", "ns/päd");
        query.add("family", "ipv4");
        assert_eq!(query.after("/v1/ipam"), "/v1/ipam?owner=ns%2Fp%C3%A4d&family=ipv4");
    }
}
