//! Addresses and their allocation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::config::DeviceSettings;
use super::text::{is_false, optional};

/// The addresses of one endpoint, and from which allocation they come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct AddressPair {
    /// The IPv4 address.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// What the allocation of the IPv4 address was marked with when it was made to expire.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub ipv4_expiration_uuid: Option<String>,
    /// The pool of the IPv4 address.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub ipv4_pool_name: Option<String>,
    /// The IPv6 address.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// What the allocation of the IPv6 address was marked with when it was made to expire.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub ipv6_expiration_uuid: Option<String>,
    /// The pool of the IPv6 address.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub ipv6_pool_name: Option<String>,
}

impl AddressPair {
    /// Both addresses, IPv4 first, without those that are absent.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }
}

/// A node's address and range of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct NodeAddressingElement {
    /// What kind of address it is, where the agent says so.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub address_type: Option<String>,
    /// The prefix from which endpoints get their addresses.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub alloc_range: Option<IpNetwork>,
    /// Whether the family is in use.
    #[serde(skip_serializing_if = "is_false")]
    pub enabled: bool,
    /// The node's own address; the gateway of its endpoints.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
}

/// A node's addresses of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct NodeAddressing {
    /// IPv4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<NodeAddressingElement>,
    /// IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<NodeAddressingElement>,
}

/// One allocated address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct IpamAddressResponse {
    /// Prefixes that are routed besides the default; `null` where there are none.
    pub cidrs: Option<Vec<IpNetwork>>,
    /// Present where the allocation ends by itself unless an endpoint claims it with this mark.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub expiration_uuid: Option<String>,
    /// The gateway, where it is not the node's own address.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The address.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
}

/// Answer to `POST /v1/ipam`: the addresses allocated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct IpamResponse {
    /// The addresses.
    pub address: AddressPair,
    /// What to make devices by, where the request asked for it. A field of our own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_settings: Option<DeviceSettings>,
    /// The node's own addresses.
    pub host_addressing: NodeAddressing,
    /// More about the IPv4 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<IpamAddressResponse>,
    /// More about the IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<IpamAddressResponse>,
}
