//! What a node is to be.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

use crate::conntrack::CtLifetimes;
use crate::ipam::IpamConfig;
use crate::policy::PolicyOptions;
use crate::program::AttachMode;
use crate::tables::CtMap;
use crate::{Error, Result};

/// Drop events that a CPU may emit in a window of 256 ticks, unless configured otherwise.
const DROP_EVENTS: u32 = 1000;
/// The least MTU that both families allow (RFC 8200, section 5).
const MTU_MIN: u32 = 1280;
/// The greatest MTU of a veth device.
const MTU_MAX: u32 = 65_535;

/// A node's configuration. Ranges are those from which its pods get their addresses; at least one family has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    pub(super) name: String,
    pub(super) cluster_name: String,
    pub(super) ipv4_range: Option<Ipv4Network>,
    pub(super) ipv6_range: Option<Ipv6Network>,
    pub(super) excluded: Vec<IpNetwork>,
    pub(super) devices: Devices,
    pub(super) attach_mode: AttachMode,
    pub(super) mtu: Option<u32>,
    pub(super) map_sizes: BTreeMap<String, u32>,
    pub(super) drop_events: u32,
    pub(super) policy: PolicyOptions,
    pub(super) policy_audit: bool,
    pub(super) identity_release_delay: Option<Duration>,
    pub(super) connections: CtLifetimes,
}

/// The native devices, through which the node reaches others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Devices {
    /// Those of the default routes.
    #[default]
    Detect,
    /// These, which must exist; none at all for a node that only joins its own pods.
    Named(Vec<String>),
}

impl NodeConfig {
    /// A node of this name, so far without addresses for its pods.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            cluster_name: "default".to_owned(),
            ipv4_range: None,
            ipv6_range: None,
            excluded: Vec::new(),
            devices: Devices::Detect,
            attach_mode: AttachMode::Auto,
            mtu: None,
            map_sizes: BTreeMap::new(),
            drop_events: DROP_EVENTS,
            policy: PolicyOptions::default(),
            policy_audit: false,
            identity_release_delay: None,
            connections: CtLifetimes::default(),
        }
    }

    /// The cluster's name; `default` unless told.
    pub fn cluster_name(mut self, name: impl Into<String>) -> Self {
        self.cluster_name = name.into();
        self
    }

    /// The range of the pods' IPv4 addresses.
    pub fn ipv4(mut self, range: Ipv4Network) -> Self {
        self.ipv4_range = Some(range);
        self
    }

    /// The range of the pods' IPv6 addresses.
    pub fn ipv6(mut self, range: Ipv6Network) -> Self {
        self.ipv6_range = Some(range);
        self
    }

    /// Addresses or prefixes of the ranges that pods never get.
    pub fn exclude(mut self, network: IpNetwork) -> Self {
        self.excluded.push(network);
        self
    }

    /// The native devices.
    pub fn devices(mut self, devices: Devices) -> Self {
        self.devices = devices;
        self
    }

    /// How programs are attached.
    pub fn attach_mode(mut self, mode: AttachMode) -> Self {
        self.attach_mode = mode;
        self
    }

    /// The MTU of the pods' devices in bytes; that of the native devices unless told.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// The size of a map, by its name: in entries, but for `podwire_events` in bytes. That of `podwire_ct` sizes its index as
    /// well. Takes effect when the map is created.
    pub fn map_size(mut self, map: impl Into<String>, size: u32) -> Self {
        let map = map.into();
        if map == CtMap::spec().name() {
            self.map_sizes.extend(CtMap::sizes(size).map(|(map, size)| (map.to_owned(), size)));
        }
        self.map_sizes.insert(map, size);
        self
    }

    /// How many drop events a CPU may emit in a window of 256 ticks (about a second); 0 for none.
    pub fn drop_events(mut self, count: u32) -> Self {
        self.drop_events = count;
        self
    }

    /// How long connections are kept without packets. Those that are open keep the time they have until they are judged anew.
    pub fn connection_lifetimes(mut self, lifetimes: CtLifetimes) -> Self {
        self.connections = lifetimes;
        self
    }

    /// Checks what can be checked before anything is done.
    pub(super) fn validate(&self) -> Result<()> {
        dns_name("node-name", &self.name)?;
        dns_name("cluster-name", &self.cluster_name)?;
        if self.ipv4_range.is_none() && self.ipv6_range.is_none() {
            return Err(Error::invalid("ipv4-range", "", "give an ipv4-range, an ipv6-range or both"));
        }
        self.ranges().try_for_each(|(key, range)| pods_range(key, range))?;
        if let Some(mtu) = self.mtu.filter(|mtu| !(MTU_MIN..=MTU_MAX).contains(mtu)) {
            return Err(Error::invalid("mtu", mtu.to_string(), format!("must be from {MTU_MIN} to {MTU_MAX}")));
        }
        self.connections.validate()?;
        if let Some((map, _)) = self.map_sizes.iter().find(|(_, entries)| **entries == 0) {
            return Err(Error::invalid(format!("size of map {map}"), "0", "must be at least 1"));
        }
        Ok(())
    }

    /// The ranges of the pods' addresses, each with its key.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (&'static str, IpNetwork)> {
        let ipv4 = self.ipv4_range.map(|range| ("ipv4-range", IpNetwork::V4(range)));
        let ipv6 = self.ipv6_range.map(|range| ("ipv6-range", IpNetwork::V6(range)));
        ipv4.into_iter().chain(ipv6)
    }

    pub(super) fn ipam(&self) -> IpamConfig {
        let config = self.ranges().fold(IpamConfig::new(), |config, (_, range)| config.range(range));
        self.excluded.iter().fold(config, |config, network| config.exclude(*network))
    }
}

/// What Linux never routes as a host's address beyond its link, and so can't be a pod's: RFC 1122, section 3.2.1.3, RFC 3927, RFC 4291.
const NOT_FOR_PODS: [(&str, &str); 7] = [
    ("0.0.0.0/8", "this network"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast"),
    ("::/127", "unspecified and loopback"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
];

fn pods_range(key: &'static str, range: IpNetwork) -> Result<()> {
    let refused = |reason: String| Err(Error::invalid(key, range.to_string(), reason));
    if range.ip() != range.network() {
        return refused(format!("has bits set beyond its prefix: write {}/{}", range.network(), range.prefix()));
    }
    for (network, what) in NOT_FOR_PODS {
        let special: IpNetwork = network.parse().map_err(|_| Error::invalid(key, network, "not a prefix"))?;
        if special.contains(range.network()) || range.contains(special.network()) {
            return refused(format!("overlaps {network} ({what}), of which no address can be a pod's"));
        }
    }
    Ok(())
}

/// Letters, digits, dashes and dots, as in a host's name (RFC 1123).
fn dns_name(field: &'static str, name: &str) -> Result<()> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    Err(Error::invalid(field, shown, "must be labels of letters, digits and dashes, 1 to 63 each, joined by dots"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_name_their_key() {
        let good = NodeConfig::new("node-1.example").ipv4("10.0.0.0/24".parse().expect("a range"));
        assert!(good.validate().is_ok());
        for (config, key) in [
            (NodeConfig { name: String::new(), ..good.clone() }, "node-name"),
            (NodeConfig { name: "a..b".into(), ..good.clone() }, "node-name"),
            (good.clone().cluster_name("a/b"), "cluster-name"),
            (good.clone().mtu(100), "mtu"),
            (good.clone().map_size("cilium_lxc", 0), "size of map cilium_lxc"),
            (
                good.clone().connection_lifetimes(CtLifetimes { closing: 0, ..Default::default() }),
                "lifetime of closed TCP connections",
            ),
            (NodeConfig::new("n"), "ipv4-range"),
            (good.clone().ipv4("10.0.0.5/24".parse().expect("a range")), "ipv4-range"),
            (good.clone().ipv4("0.0.0.0/0".parse().expect("a range")), "ipv4-range"),
            (good.clone().ipv4("127.1.0.0/16".parse().expect("a range")), "ipv4-range"),
            (good.clone().ipv6("fe80::/64".parse().expect("a range")), "ipv6-range"),
            (good.clone().ipv6("::/0".parse().expect("a range")), "ipv6-range"),
        ] {
            let error = config.validate().expect_err(key).to_string();
            assert!(error.starts_with(key), "{error}");
        }
    }
}
