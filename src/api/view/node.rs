//! The node, its addresses and its identities as the API shows them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::api::{
    ClusterNodes, DaemonConfigurationStatus, DeviceSettings, Identity, IdentityEndpoints, IpListEntry,
    IpListEntryMetadata, NodeAddressing, NodeAddressingElement, NodeElement,
};
use crate::endpoint::EndpointRecord;
use crate::ipcache::{Peer, Source};
use crate::{Datapath, Node, SecurityId, identity};

/// How packets of pods' devices may be aggregated, in bytes: the limit that every kernel has for both families.
const AGGREGATION_LIMIT: u32 = 65_536;
/// Where knowledge about addresses comes from: this node.
const SOURCE: &str = "local";

impl From<&Datapath> for DeviceSettings {
    fn from(datapath: &Datapath) -> Self {
        Self {
            gro_ipv4_max_size: AGGREGATION_LIMIT,
            gro_max_size: AGGREGATION_LIMIT,
            gso_ipv4_max_size: AGGREGATION_LIMIT,
            gso_max_size: AGGREGATION_LIMIT,
            attach_mode: Some(datapath.node().attach_mode.clone()),
            datapath_mode: Some("veth".to_owned()),
            device_mtu: datapath.node().mtu,
            route_mtu: datapath.node().mtu,
        }
    }
}

impl From<&Datapath> for DaemonConfigurationStatus {
    /// What a CNI plugin needs to know; options are the caller's to add.
    fn from(datapath: &Datapath) -> Self {
        let devices = DeviceSettings::from(datapath);
        Self {
            gro_ipv4_max_size: devices.gro_ipv4_max_size,
            gro_max_size: devices.gro_max_size,
            gso_ipv4_max_size: devices.gso_ipv4_max_size,
            gso_max_size: devices.gso_max_size,
            addressing: Some(NodeAddressing::from(datapath.ipam())),
            attach_mode: devices.attach_mode,
            datapath_mode: devices.datapath_mode,
            device_mtu: devices.device_mtu,
            ipam_mode: Some("kubernetes".to_owned()),
            route_mtu: devices.route_mtu,
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
    /// Every prefix whose identity the node knows.
    pub fn all(datapath: &Datapath) -> Vec<Self> {
        let node = datapath.node();
        let host_ip = node.external_ipv4().map(IpAddr::V4).or(node.external_ipv6().map(IpAddr::V6));
        let endpoints = datapath.endpoints().list();
        let records = endpoints.iter().map(|endpoint| &endpoint.record);
        let by_address: HashMap<IpAddr, &EndpointRecord> =
            records.flat_map(|record| record.addresses().map(move |address| (address, record))).collect();
        let entry = |peer: Peer| {
            let address = peer.prefix.ip();
            let record = by_address.get(&address).filter(|_| peer.prefix == IpNetwork::from(address));
            Self {
                cidr: peer.prefix,
                encrypt_key: peer.entry.encrypt_key.into(),
                host_ip: peer.entry.tunnel_endpoint.or(host_ip.filter(|_| peer.source == Source::Endpoint)),
                identity: peer.entry.identity,
                metadata: Some(metadata(peer.source, record.copied())),
            }
        };
        datapath.ipcache().peers().into_iter().map(entry).collect()
    }
}

fn metadata(source: Source, record: Option<&EndpointRecord>) -> IpListEntryMetadata {
    let (namespace, name) = record.and_then(EndpointRecord::pod).unzip();
    IpListEntryMetadata {
        name: name.map(str::to_owned),
        namespace: namespace.map(str::to_owned),
        source: Some(source.to_string()),
    }
}

impl From<&identity::Identity> for Identity {
    fn from(identity: &identity::Identity) -> Self {
        let labels = identity.labels().iter().map(ToString::to_string).collect();
        Self { id: identity.id(), labels, labels_sha256: None }
    }
}

impl Identity {
    /// The identity of an endpoint.
    pub fn of(record: &EndpointRecord) -> Self {
        Self { id: record.identity(), labels: super::endpoint::identity_labels(record), labels_sha256: None }
    }

    /// Every identity, by number.
    pub fn all(datapath: &Datapath) -> Vec<Self> {
        datapath.identities().list().iter().map(Self::from).collect()
    }

    /// The identity with this number.
    pub fn get(datapath: &Datapath, id: SecurityId) -> Option<Self> {
        datapath.identities().get(id).as_ref().map(Self::from)
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
