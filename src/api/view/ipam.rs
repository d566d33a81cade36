//! Addresses as the API shows them.

use std::net::IpAddr;

use super::endpoint::POOL;
use crate::api::{AddressPair, IpamAddressResponse, IpamResponse, IpamStatus, NodeAddressing, NodeAddressingElement};
use crate::ipam::{Allocation, Family, Ipam};

impl From<&Ipam> for NodeAddressing {
    fn from(ipam: &Ipam) -> Self {
        let router = ipam.router();
        let element = |family, ip: Option<IpAddr>| {
            ipam.usage(family).map(|usage| NodeAddressingElement {
                address_type: None,
                alloc_range: Some(usage.network),
                enabled: true,
                ip,
            })
        };
        Self {
            ipv4: element(Family::Ipv4, router.ipv4.map(IpAddr::V4)),
            ipv6: element(Family::Ipv6, router.ipv6.map(IpAddr::V6)),
        }
    }
}

impl IpamResponse {
    /// What an allocation from this pool gave.
    pub fn new(allocation: &Allocation, ipam: &Ipam) -> Self {
        let uuid = allocation.expiration.map(|expiration| expiration.id.to_string());
        let details = |ip: Option<IpAddr>| {
            ip.map(|ip| IpamAddressResponse { cidrs: None, expiration_uuid: uuid.clone(), gateway: None, ip: Some(ip) })
        };
        let address = AddressPair {
            ipv4: allocation.ipv4,
            ipv4_pool_name: allocation.ipv4.map(|_| POOL.to_owned()),
            ipv6: allocation.ipv6,
            ipv6_pool_name: allocation.ipv6.map(|_| POOL.to_owned()),
            ..AddressPair::default()
        };
        Self {
            address,
            device_settings: None,
            host_addressing: NodeAddressing::from(ipam),
            ipv4: details(allocation.ipv4.map(IpAddr::V4)),
            ipv6: details(allocation.ipv6.map(IpAddr::V6)),
        }
    }
}

impl From<&Ipam> for IpamStatus {
    fn from(ipam: &Ipam) -> Self {
        let leases = ipam.leases();
        let (ipv4, ipv6) = leases.iter().map(|lease| lease.address).partition(IpAddr::is_ipv4);
        let families = [Family::Ipv4, Family::Ipv6];
        let summary: Vec<_> =
            families.iter().filter_map(|family| Some(format!("{family}: {}", ipam.usage(*family)?))).collect();
        Self {
            allocations: leases.iter().map(|lease| (lease.address, lease.owner.to_string())).collect(),
            ipv4,
            ipv6,
            status: Some(summary.join(", ")),
        }
    }
}
