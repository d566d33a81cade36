//! `cilium_policystats`: how often each policy entry decided.

use super::entry::PolicyMatch;
use crate::abi::{PolicyKey, PolicyStatsKey, PolicyStatsValue};
use crate::maps::{LruPerCpuHashMap, MapSpec, PerCpuBatch, PerCpuValues};
use crate::tables::table::{NO_COMMON_LRU, one_map_table};
use crate::{EndpointId, Result};

/// Rows read at a time.
const BATCH: usize = 256;

/// How often an entry decided, summed over the CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyCount {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// `cilium_policystats`: counters of all endpoints' policy entries. The ones used least recently go when it is full.
#[derive(Debug)]
pub struct PolicyStats {
    map: LruPerCpuHashMap<PolicyStatsKey, PolicyStatsValue>,
}

impl PolicyStats {
    one_map_table!(
        LruPerCpuHashMap<PolicyStatsKey, PolicyStatsValue>,
        MapSpec::lru_per_cpu_hash::<PolicyStatsKey, PolicyStatsValue>("cilium_policystats", 65_536)
            .flags(NO_COMMON_LRU)
            .layouts::<PolicyStatsKey, PolicyStatsValue>()
    );

    /// How often an endpoint's entry decided; `None` where it never did, or too long ago.
    pub fn count(&self, endpoint: EndpointId, entry: &PolicyMatch) -> Result<Option<PolicyCount>> {
        let mut values = PerCpuValues::new()?;
        let found = self.map.lookup(&key(endpoint, entry), &mut values)?;
        Ok(found.then(|| sum(values.iter())))
    }

    /// The counters of an endpoint's entries, in the order of what they match.
    pub fn counts(&self, endpoint: EndpointId) -> Result<Vec<(PolicyMatch, PolicyCount)>> {
        let mut counts = Vec::new();
        self.map.lookup_batch(&mut PerCpuBatch::new(BATCH)?, |key, values| {
            if key.endpoint_id == endpoint.get()
                && let Some(entry) = matched(key)
            {
                counts.push((entry, sum(values.iter())));
            }
        })?;
        counts.sort_unstable_by_key(|(entry, _)| *entry);
        Ok(counts)
    }

    /// Forgets what an endpoint's entries decided and returns how many there were.
    pub fn forget(&self, endpoint: EndpointId) -> Result<usize> {
        let mut keys = Vec::new();
        self.map.lookup_batch(&mut PerCpuBatch::new(BATCH)?, |key, _| {
            if key.endpoint_id == endpoint.get() {
                keys.push(*key);
            }
        })?;
        self.map.delete_batch(&keys)
    }
}

fn key(endpoint: EndpointId, entry: &PolicyMatch) -> PolicyStatsKey {
    let key = PolicyKey::of(entry);
    PolicyStatsKey {
        endpoint_id: endpoint.get(),
        pad1: 0,
        prefix_len: entry.l4.bits(),
        sec_label: key.sec_label,
        egress: key.egress,
        protocol: key.protocol,
        dport_be: key.dport_be,
    }
}

fn matched(key: &PolicyStatsKey) -> Option<PolicyMatch> {
    let policy_key = PolicyKey {
        prefixlen: PolicyKey::STATIC_BITS + u32::from(key.prefix_len),
        sec_label: key.sec_label,
        egress: key.egress,
        protocol: key.protocol,
        dport_be: key.dport_be,
    };
    policy_key.matched()
}

fn sum(values: impl Iterator<Item = PolicyStatsValue>) -> PolicyCount {
    values.fold(PolicyCount::default(), |total, value| PolicyCount {
        packets: total.packets.wrapping_add(value.packets),
        bytes: total.bytes.wrapping_add(value.bytes),
    })
}
