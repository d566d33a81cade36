//! `cilium_node_map_v2`: ids of the cluster's nodes by address.

use std::net::IpAddr;

use crate::Result;
use crate::abi::{NodeKey, NodeValue};
use crate::maps::{HashMap, MapSpec, Update};
use crate::tables::address;
use crate::tables::table::one_map_table;

/// A node as the programs know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// Its id, by which encryption and the overlay name it.
    pub id: u16,
    /// Its encryption key; 0 for none.
    pub spi: u8,
}

/// `cilium_node_map_v2`.
#[derive(Debug)]
pub struct NodeMap {
    map: HashMap<NodeKey, NodeValue>,
}

impl NodeMap {
    one_map_table!(
        HashMap<NodeKey, NodeValue>,
        MapSpec::hash::<NodeKey, NodeValue>("cilium_node_map_v2", 16_384).no_prealloc().layouts::<NodeKey, NodeValue>()
    );

    /// Writes what an address of a node stands for.
    ///
    /// # Errors
    ///
    /// `Exhausted` when the map is full.
    pub fn upsert(&self, address: IpAddr, node: NodeEntry) -> Result<()> {
        self.map.insert(&key(address), &NodeValue { id: node.id, spi: node.spi, pad: 0 }, Update::Any)
    }

    /// The node that has an address.
    pub fn lookup(&self, address: IpAddr) -> Result<Option<NodeEntry>> {
        Ok(self.map.lookup(&key(address))?.map(entry))
    }

    /// Removes an address; false when it was not there.
    pub fn delete(&self, address: IpAddr) -> Result<bool> {
        self.map.delete(&key(address))
    }

    /// Every address and its node, in the order of the addresses. Keys of an unknown family are left out.
    pub fn entries(&self) -> Result<Vec<(IpAddr, NodeEntry)>> {
        let mut entries = Vec::new();
        for row in &self.map {
            let (key, value) = row?;
            match address::decode(key.ip, key.family) {
                Some(address) => entries.push((address, entry(value))),
                None => log::warn!("{}: key {key:?} has an unknown family", self.map.label()),
            }
        }
        entries.sort_unstable_by_key(|(address, _)| *address);
        Ok(entries)
    }
}

fn key(address: IpAddr) -> NodeKey {
    let (ip, family) = address::encode(address);
    NodeKey { family, ip, ..NodeKey::default() }
}

const fn entry(value: NodeValue) -> NodeEntry {
    NodeEntry { id: value.id, spi: value.spi }
}
