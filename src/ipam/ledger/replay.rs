//! From and to disk.

use std::net::IpAddr;
use std::time::Instant;

use ipnetwork::IpNetwork;

use super::Ledger;
use crate::ipam::family::Family;
use crate::ipam::record::Record;

/// The ranges that the last records were written under: IPv4, IPv6.
pub(in crate::ipam) type RecordedRanges = (Option<IpNetwork>, Option<IpNetwork>);

impl Ledger {
    /// Applies an earlier run's records; on contradiction says which.
    pub(in crate::ipam) fn replay(
        &mut self,
        records: &[Record],
        now: Instant,
    ) -> Result<Option<RecordedRanges>, String> {
        let mut ranges = None;
        for record in records {
            match record {
                Record::Ranges { ipv4, ipv6 } => ranges = Some((*ipv4, *ipv6)),
                Record::Allocate { ips, owner, .. } => {
                    if let Some(address) = ips.iter().find(|address| self.entries.contains_key(address)) {
                        return Err(format!("{address} is allocated to {owner} while it is in use"));
                    }
                }
                Record::Claim { ips } | Record::Release { ips } => {
                    if let Some(address) = ips.iter().find(|address| !self.entries.contains_key(address)) {
                        return Err(format!("{address} is claimed or released without having been allocated"));
                    }
                }
                Record::Rest { .. } => {}
            }
            self.apply(record, now);
        }
        Ok(ranges)
    }

    /// Records that lead to this state.
    pub(in crate::ipam) fn snapshot(&self) -> Vec<Record> {
        let network = |family| self.pool(family).map(|pool| pool.network());
        let mut records = vec![Record::Ranges { ipv4: network(Family::Ipv4), ipv6: network(Family::Ipv6) }];
        records.extend(self.entries.iter().map(|(address, entry)| Record::Allocate {
            ips: vec![*address],
            owner: entry.owner.to_string(),
            unless_claimed: entry.unclaimed.map(|(period, _)| period),
        }));
        for pool in self.ipv4.iter().chain(&self.ipv6) {
            let resting: Vec<IpAddr> = pool.resting().collect();
            records.extend(resting.chunks(64).map(|chunk| Record::Rest { ips: chunk.to_vec() }));
        }
        records
    }

    /// About how many records a snapshot has.
    pub(in crate::ipam) fn live_records(&self) -> usize {
        let resting: usize = self.ipv4.iter().chain(&self.ipv6).map(|pool| pool.resting_count()).sum();
        1 + self.entries.len() + resting.div_ceil(64)
    }
}
