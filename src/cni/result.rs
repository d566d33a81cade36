//! The result of ADD, in each version's form.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use super::error::{CniError, ErrorCode};
use super::version::CniVersion;

/// What ADD made. Versions differ in how it is written, not in what it says: [`CniResult::to_json`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CniResult {
    /// Devices on both sides.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<IpConfig>,
    /// Routes inside the namespace.
    pub routes: Vec<Route>,
    /// Name servers, as the configuration gave them.
    pub dns: Option<Value>,
}

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC address; may be empty.
    pub mac: String,
    /// Its MTU in bytes; 1.1.0 on.
    pub mtu: Option<u32>,
    /// The namespace it is in, empty for the host's.
    pub sandbox: String,
    /// A socket a virtual machine can use it by; 1.1.0 on.
    pub socket_path: Option<String>,
    /// A PCI device; 1.1.0 on.
    pub pci_id: Option<String>,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpConfig {
    /// The address with its prefix length.
    pub address: IpNetwork,
    /// The gateway.
    pub gateway: Option<IpAddr>,
    /// Its device's place in the list of interfaces.
    pub interface: Option<usize>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub dst: IpNetwork,
    /// The next hop; none on the link itself.
    pub gw: Option<IpAddr>,
    /// Fields of 1.1.0.
    pub metrics: RouteMetrics,
}

/// What 1.1.0 knows of a route besides; left out of older results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteMetrics {
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Advertised maximum segment size in bytes.
    pub advmss: Option<u32>,
    /// Metric.
    pub priority: Option<u32>,
    /// Routing table.
    pub table: Option<u32>,
    /// Scope, as in rtnetlink(7).
    pub scope: Option<u32>,
}

impl CniResult {
    /// The result in the form of a version.
    pub fn to_json(&self, version: CniVersion) -> Value {
        let full = version >= CniVersion::V1_1_0;
        let interfaces: Vec<_> = self.interfaces.iter().map(|interface| interface.to_json(full)).collect();
        let ips: Vec<_> = self.ips.iter().map(|ip| ip.to_json(version < CniVersion::V1_0_0)).collect();
        let routes: Vec<_> = self.routes.iter().map(|route| route.to_json(full)).collect();
        let mut object = json!({ "cniVersion": version.as_str(), "interfaces": interfaces, "ips": ips });
        if !routes.is_empty() {
            object["routes"] = routes.into();
        }
        // before 1.0 the key was always there
        match &self.dns {
            Some(dns) => object["dns"] = dns.clone(),
            None if version < CniVersion::V1_0_0 => object["dns"] = json!({}),
            None => {}
        }
        object
    }

    /// Reads a result (`prevResult`) in the form of any supported version. One without `cniVersion` is taken to have the
    /// configuration's. Errors are of code 7 and name the key.
    pub fn from_json(value: &Value, default: CniVersion) -> Result<(CniVersion, Self), CniError> {
        let version = match value.get("cniVersion") {
            None | Some(Value::Null) => default,
            Some(version) => CniVersion::parse(version.as_str().unwrap_or_default())?,
        };
        let interfaces = list(value, "interfaces")?.iter().map(Interface::from_json).collect::<Result<Vec<_>, _>>()?;
        let ips = list(value, "ips")?.iter().map(IpConfig::from_json).collect::<Result<Vec<_>, _>>()?;
        if let Some(bad) = ips.iter().filter_map(|ip| ip.interface).find(|index| *index >= interfaces.len()) {
            return Err(bad_result("ips[].interface", format!("{bad} is beyond the list of interfaces")));
        }
        let routes = list(value, "routes")?.iter().map(Route::from_json).collect::<Result<Vec<_>, _>>()?;
        let dns = value.get("dns").filter(|dns| dns.as_object().is_some_and(|dns| !dns.is_empty())).cloned();
        Ok((version, Self { interfaces, ips, routes, dns }))
    }
}

impl Interface {
    fn to_json(&self, full: bool) -> Value {
        let mut object = Map::new();
        put(&mut object, "name", Some(self.name.as_str()));
        put(&mut object, "mac", Some(self.mac.as_str()).filter(|mac| !mac.is_empty()));
        if full {
            put(&mut object, "mtu", self.mtu);
        }
        put(&mut object, "sandbox", Some(self.sandbox.as_str()).filter(|path| !path.is_empty()));
        if full {
            put(&mut object, "socketPath", self.socket_path.as_deref());
            put(&mut object, "pciID", self.pci_id.as_deref());
        }
        object.into()
    }

    fn from_json(value: &Value) -> Result<Self, CniError> {
        Ok(Self {
            name: text(value, "interfaces[]", "name")?.unwrap_or_default(),
            mac: text(value, "interfaces[]", "mac")?.unwrap_or_default(),
            mtu: number(value, "interfaces[]", "mtu")?,
            sandbox: text(value, "interfaces[]", "sandbox")?.unwrap_or_default(),
            socket_path: text(value, "interfaces[]", "socketPath")?,
            pci_id: text(value, "interfaces[]", "pciID")?,
        })
    }
}

impl IpConfig {
    fn to_json(&self, with_version: bool) -> Value {
        let mut object = Map::new();
        if with_version {
            put(&mut object, "version", Some(if self.address.is_ipv4() { "4" } else { "6" }));
        }
        put(&mut object, "interface", self.interface);
        put(&mut object, "address", Some(self.address.to_string()));
        put(&mut object, "gateway", self.gateway.map(|gateway| gateway.to_string()));
        object.into()
    }

    fn from_json(value: &Value) -> Result<Self, CniError> {
        let address = text(value, "ips[]", "address")?.ok_or_else(|| bad_result("ips[].address", "is missing"))?;
        Ok(Self {
            address: network("ips[].address", &address)?,
            gateway: text(value, "ips[]", "gateway")?.map(|gateway| ip("ips[].gateway", &gateway)).transpose()?,
            interface: number(value, "ips[]", "interface")?.map(|index| index as usize),
        })
    }
}

impl Route {
    fn to_json(&self, full: bool) -> Value {
        let mut object = Map::new();
        put(&mut object, "dst", Some(self.dst.to_string()));
        put(&mut object, "gw", self.gw.map(|gw| gw.to_string()));
        if full {
            let RouteMetrics { mtu, advmss, priority, table, scope } = self.metrics;
            for (key, value) in
                [("mtu", mtu), ("advmss", advmss), ("priority", priority), ("table", table), ("scope", scope)]
            {
                put(&mut object, key, value);
            }
        }
        object.into()
    }

    fn from_json(value: &Value) -> Result<Self, CniError> {
        let dst = text(value, "routes[]", "dst")?.ok_or_else(|| bad_result("routes[].dst", "is missing"))?;
        let metric = |key| number(value, "routes[]", key);
        Ok(Self {
            dst: network("routes[].dst", &dst)?,
            gw: text(value, "routes[]", "gw")?.map(|gw| ip("routes[].gw", &gw)).transpose()?,
            metrics: RouteMetrics {
                mtu: metric("mtu")?,
                advmss: metric("advmss")?,
                priority: metric("priority")?,
                table: metric("table")?,
                scope: metric("scope")?,
            },
        })
    }
}

fn put(object: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(key.to_owned(), value.into());
    }
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a [Value], CniError> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(bad_result(key, "must be a list")),
    }
}

fn text(value: &Value, parent: &str, key: &str) -> Result<Option<String>, CniError> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(bad_result(&format!("{parent}.{key}"), "must be a string")),
    }
}

fn number(value: &Value, parent: &str, key: &str) -> Result<Option<u32>, CniError> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(number) => number
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .map(Some)
            .ok_or_else(|| bad_result(&format!("{parent}.{key}"), "must be a whole number")),
    }
}

fn network(key: &str, text: &str) -> Result<IpNetwork, CniError> {
    text.parse().map_err(|_| bad_result(key, format!("{text:?} is not an address with a prefix length")))
}

fn ip(key: &str, text: &str) -> Result<IpAddr, CniError> {
    text.parse().map_err(|_| bad_result(key, format!("{text:?} is not an address")))
}

fn bad_result(key: &str, reason: impl std::fmt::Display) -> CniError {
    CniError::new(ErrorCode::InvalidConfig, format!("invalid network configuration: prevResult.{key}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> CniResult {
        let net = |text: &str| text.parse().expect("a network");
        let ip = |text: &str| Some(text.parse().expect("an address"));
        let metrics = RouteMetrics { mtu: Some(1450), scope: Some(0), ..RouteMetrics::default() };
        CniResult {
            interfaces: vec![
                Interface {
                    name: "lxc1".into(),
                    mac: "02:00:00:00:00:01".into(),
                    mtu: Some(1500),
                    ..Interface::default()
                },
                Interface {
                    name: "eth0".into(),
                    mac: "02:00:00:00:00:02".into(),
                    mtu: Some(1500),
                    sandbox: "/n".into(),
                    ..Interface::default()
                },
            ],
            ips: vec![
                IpConfig { address: net("10.0.1.2/32"), gateway: ip("10.0.1.1"), interface: Some(1) },
                IpConfig { address: net("fd00::2/128"), gateway: ip("fd00::1"), interface: Some(1) },
            ],
            routes: vec![
                Route { dst: net("10.0.1.1/32"), gw: None, metrics: RouteMetrics::default() },
                Route { dst: net("0.0.0.0/0"), gw: ip("10.0.1.1"), metrics },
            ],
            dns: None,
        }
    }

    /// Goldens written from the specification's texts of each version.
    #[test]
    fn each_version_has_its_form() {
        let old = |version: &str| {
            json!({
                "cniVersion": version,
                "interfaces": [
                    { "name": "lxc1", "mac": "02:00:00:00:00:01" },
                    { "name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/n" }
                ],
                "ips": [
                    { "version": "4", "interface": 1, "address": "10.0.1.2/32", "gateway": "10.0.1.1" },
                    { "version": "6", "interface": 1, "address": "fd00::2/128", "gateway": "fd00::1" }
                ],
                "routes": [{ "dst": "10.0.1.1/32" }, { "dst": "0.0.0.0/0", "gw": "10.0.1.1" }],
                "dns": {}
            })
        };
        assert_eq!(sample().to_json(CniVersion::V0_3_1), old("0.3.1"));
        assert_eq!(sample().to_json(CniVersion::V0_4_0), old("0.4.0"));
        let mut v1_0 = old("1.0.0");
        for ip in v1_0["ips"].as_array_mut().expect("a list") {
            ip.as_object_mut().expect("an object").remove("version");
        }
        v1_0.as_object_mut().expect("an object").remove("dns");
        assert_eq!(sample().to_json(CniVersion::V1_0_0), v1_0);
        let mut v1_1 = v1_0;
        v1_1["cniVersion"] = json!("1.1.0");
        v1_1["interfaces"][0]["mtu"] = json!(1500);
        v1_1["interfaces"][1]["mtu"] = json!(1500);
        v1_1["routes"][1]["mtu"] = json!(1450);
        v1_1["routes"][1]["scope"] = json!(0);
        assert_eq!(sample().to_json(CniVersion::V1_1_0), v1_1);
    }

    #[test]
    fn the_newest_form_loses_nothing() {
        let mut full = sample();
        full.dns = Some(json!({ "nameservers": ["10.0.0.10"] }));
        full.interfaces[0].socket_path = Some("/run/vhost.sock".into());
        full.interfaces[0].pci_id = Some("0000:00:1f.6".into());
        full.routes[1].metrics =
            RouteMetrics { mtu: Some(1), advmss: Some(2), priority: Some(3), table: Some(4), scope: Some(5) };
        let json = full.to_json(CniVersion::V1_1_0);
        assert_eq!(CniResult::from_json(&json, CniVersion::V0_4_0).expect("valid"), (CniVersion::V1_1_0, full.clone()));
        let old = CniResult::from_json(&full.to_json(CniVersion::V0_4_0), CniVersion::V0_4_0).expect("valid").1;
        assert_eq!(old.ips, full.ips);
        assert_eq!(old.dns, full.dns);
    }

    #[test]
    fn malformed_results_name_the_key() {
        let cases = [
            (json!({ "interfaces": {} }), "interfaces"),
            (json!({ "interfaces": [{ "name": 7 }] }), "interfaces[].name"),
            (json!({ "ips": [{}] }), "ips[].address"),
            (json!({ "ips": [{ "address": "10.0.0.1/33" }] }), "ips[].address"),
            (json!({ "ips": [{ "address": "10.0.0.1/32", "gateway": "x" }] }), "ips[].gateway"),
            (json!({ "ips": [{ "address": "10.0.0.1/32", "interface": 1 }] }), "ips[].interface"),
            (json!({ "ips": [{ "address": "10.0.0.1/32", "interface": -1 }] }), "ips[].interface"),
            (json!({ "routes": [{ "gw": "10.0.0.1" }] }), "routes[].dst"),
            (json!({ "routes": [{ "dst": "0.0.0.0/0", "mtu": "x" }] }), "routes[].mtu"),
        ];
        for (value, key) in cases {
            let error = CniResult::from_json(&value, CniVersion::V1_1_0).expect_err(key);
            assert_eq!(error.code(), 7);
            assert!(error.msg().contains(key), "{error}");
        }
        let other = json!({ "cniVersion": "0.2.0" });
        assert_eq!(CniResult::from_json(&other, CniVersion::V1_1_0).expect_err("old").code(), 1);
    }
}
