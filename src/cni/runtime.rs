//! `runtimeConfig`: what a runtime fills in for the capabilities a configuration declares.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use super::conf::invalid;
use super::error::CniError;

/// The capabilities that are understood; others are tolerated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuntimeConfig {
    /// `portMappings`.
    pub port_mappings: Vec<PortMapping>,
    /// `ips` and `mac`: addresses the container should have, as they came. They are not honoured.
    pub addresses: Vec<String>,
}

/// A port of the host that should lead to one of the container. podman writes the keys in lower case, containerd 1.6
/// capitalised.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PortMapping {
    /// Port on the host.
    #[serde(rename = "hostPort", alias = "HostPort", default)]
    pub host_port: u16,
    /// Port in the container.
    #[serde(rename = "containerPort", alias = "ContainerPort", default)]
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`, in either case; empty means `tcp`.
    #[serde(alias = "Protocol", default)]
    pub protocol: String,
    /// Address on the host; empty means any.
    #[serde(rename = "hostIP", alias = "HostIP", default)]
    pub host_ip: String,
}

impl RuntimeConfig {
    pub(super) fn parse(value: Option<&Value>) -> Result<Self, CniError> {
        let Some(value) = value else { return Ok(Self::default()) };
        let ips = value.get("ips").and_then(Value::as_array).into_iter().flatten();
        let addresses = ips.chain(value.get("mac")).filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Self { port_mappings: Self::port_mappings(value)?, addresses })
    }

    fn port_mappings(value: &Value) -> Result<Vec<PortMapping>, CniError> {
        let Some(list) = value.get("portMappings").filter(|list| !list.is_null()) else { return Ok(Vec::new()) };
        let key = "runtimeConfig.portMappings";
        let port_mappings: Vec<PortMapping> = Deserialize::deserialize(list)
            .map_err(|error: serde_json::Error| invalid(key, list, &error.to_string()))?;
        for mapping in &port_mappings {
            if !mapping.host_ip.is_empty() && mapping.host_ip.parse::<IpAddr>().is_err() {
                return Err(invalid(key, list, "hostIP is not an address"));
            }
        }
        Ok(port_mappings)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_spellings_mean_the_same() {
        let podman =
            json!({ "portMappings": [{ "hostPort": 80, "containerPort": 8080, "protocol": "tcp", "hostIP": "" }] });
        let containerd =
            json!({ "portMappings": [{ "HostPort": 80, "ContainerPort": 8080, "Protocol": "tcp", "HostIP": "" }] });
        let parsed = RuntimeConfig::parse(Some(&podman)).expect("valid");
        assert_eq!(parsed, RuntimeConfig::parse(Some(&containerd)).expect("valid"));
        assert_eq!((parsed.port_mappings[0].host_port, parsed.port_mappings[0].container_port), (80, 8080));
    }

    #[test]
    fn malformed_mappings_are_refused() {
        for bad in [json!(7), json!([{ "hostPort": 70_000 }]), json!([{ "hostPort": 1, "hostIP": "x" }])] {
            let error = RuntimeConfig::parse(Some(&json!({ "portMappings": bad }))).expect_err("malformed");
            assert_eq!(error.code(), 7);
        }
        assert_eq!(RuntimeConfig::parse(Some(&json!({ "aliases": {} }))).expect("tolerated"), RuntimeConfig::default());
    }

    #[test]
    fn addresses_are_taken_as_they_come() {
        let asked = json!({ "ips": ["10.0.0.5", 7, "fd00::5/64"], "mac": "02:00:00:00:00:05" });
        let parsed = RuntimeConfig::parse(Some(&asked)).expect("valid");
        assert_eq!(parsed.addresses, ["10.0.0.5", "fd00::5/64", "02:00:00:00:00:05"]);
    }
}
