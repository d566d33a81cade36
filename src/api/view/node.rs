//! The node, its addresses and its identities as the API shows them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::api::{
    ClusterNodes, DaemonConfigurationStatus, Identity, IdentityEndpoints, IpListEntry, IpListEntryMetadata,
    NodeAddressing, NodeAddressingElement, NodeElement,
};
use crate::endpoint::EndpointRecord;
use crate::identity::{RESERVED, labels_of_reserved};
use crate::{Datapath, Labels, Node, SecurityId};

/// How packets of pods' devices may be aggregated, in bytes: the limit that every kernel has for both families.
const AGGREGATION_LIMIT: u32 = 65_536;
/// Where knowledge about addresses comes from: this node.
const SOURCE: &str = "local";

impl From<&Datapath> for DaemonConfigurationStatus {
    /// What a CNI plugin needs to know; options are the caller's to add.
    fn from(datapath: &Datapath) -> Self {
        Self {
            gro_ipv4_max_size: AGGREGATION_LIMIT,
            gro_max_size: AGGREGATION_LIMIT,
            gso_ipv4_max_size: AGGREGATION_LIMIT,
            gso_max_size: AGGREGATION_LIMIT,
            addressing: Some(NodeAddressing::from(datapath.ipam())),
            datapath_mode: Some("veth".to_owned()),
            device_mtu: datapath.node().mtu,
            ipam_mode: Some("kubernetes".to_owned()),
            route_mtu: datapath.node().mtu,
            ..Self::default()
        }
    }
}

impl From<&Node> for ClusterNodes {
    fn from(node: &Node) -> Self {
        let element = |ip: Option<IpAddr>, range: Option<IpNetwork>| {
            range.is_some().then_some(NodeAddressingElement {
                address_type: None,
                alloc_range: range,
                enabled: true,
                ip,
            })
        };
        let external_ipv4 = node.external_ipv4().or(node.router_ipv4).map(IpAddr::V4);
        let external_ipv6 = node.external_ipv6().or(node.router_ipv6).map(IpAddr::V6);
        let primary = NodeAddressing {
            ipv4: element(external_ipv4, node.ipv4_range.map(IpNetwork::V4)),
            ipv6: element(external_ipv6, node.ipv6_range.map(IpNetwork::V6)),
        };
        let routers = [node.router_ipv4.map(IpAddr::V4), node.router_ipv6.map(IpAddr::V6)];
        let others =
            routers.into_iter().flatten().map(|ip| NodeAddressingElement { ip: Some(ip), ..Default::default() });
        let this = NodeElement {
            name: node.name.clone(),
            primary_address: Some(primary),
            secondary_addresses: others.collect(),
            source: Some(SOURCE.to_owned()),
        };
        Self { client_id: 0, nodes_added: Some(vec![this]), nodes_removed: None, self_: Some(node.name.clone()) }
    }
}

impl IpListEntry {
    /// The node's own addresses and those of its endpoints.
    pub fn all(datapath: &Datapath) -> Vec<Self> {
        let node = datapath.node();
        let host_ip = node.external_ipv4().map(IpAddr::V4).or(node.external_ipv6().map(IpAddr::V6));
        let own = node.addresses().map(|address| Self {
            cidr: address.into(),
            encrypt_key: 0,
            host_ip: None,
            identity: SecurityId::HOST,
            metadata: None,
        });
        let endpoints = datapath.endpoints().list();
        let pods = endpoints.iter().flat_map(|endpoint| {
            let record = &endpoint.record;
            record.addresses().map(move |address| Self {
                cidr: address.into(),
                encrypt_key: 0,
                host_ip,
                identity: record.identity(),
                metadata: Some(metadata(record)),
            })
        });
        own.chain(pods).collect()
    }
}

fn metadata(record: &EndpointRecord) -> IpListEntryMetadata {
    let (namespace, name) = record.pod().unzip();
    IpListEntryMetadata {
        name: name.map(str::to_owned),
        namespace: namespace.map(str::to_owned),
        source: Some(SOURCE.to_owned()),
    }
}

impl Identity {
    /// The identity of an endpoint.
    pub fn of(record: &EndpointRecord) -> Self {
        Self { id: record.identity(), labels: super::endpoint::identity_labels(record), labels_sha256: None }
    }

    /// The identities that exist without any endpoint, and those of the node's endpoints, in the order of their numbers.
    pub fn all(datapath: &Datapath) -> Vec<Self> {
        let labels = |id| labels_of_reserved(id).iter().flat_map(Labels::iter).map(ToString::to_string).collect();
        let mut identities: BTreeMap<_, Vec<_>> = RESERVED.iter().map(|(id, _)| (*id, labels(*id))).collect();
        for endpoint in datapath.endpoints().list() {
            let identity = Self::of(&endpoint.record);
            identities.entry(identity.id).or_insert(identity.labels);
        }
        identities.into_iter().map(|(id, labels)| Self { id, labels, labels_sha256: None }).collect()
    }
}

impl IdentityEndpoints {
    /// The identities of the node's endpoints, and how many have them.
    pub fn all(datapath: &Datapath) -> Vec<Self> {
        let mut counted: BTreeMap<SecurityId, Self> = BTreeMap::new();
        for endpoint in datapath.endpoints().list() {
            let identity = Identity::of(&endpoint.record);
            let counted = counted.entry(identity.id).or_insert(Self { identity, ref_count: 0 });
            counted.ref_count += 1;
        }
        counted.into_values().collect()
    }
}
