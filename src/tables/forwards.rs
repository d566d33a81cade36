//! `podwire_forwards`: packets and bytes by the way they went, or by the policy that let them go none.

use crate::Result;
use crate::abi::{ForwardPoint, MetricsValue};
use crate::maps::{MapSpec, PerCpuArray, PerCpuValues};
use crate::tables::metrics::{Counted, Counter, MetricsDirection, MetricsMap};
use crate::tables::table::one_map_table;
use crate::tables::{Reason, SourceFile};

/// The counters of forwarded packets, and of those that policies denied. The programs count them in an array, which costs nothing, rather than in the hash
/// `cilium_metrics`, where a lookup per packet would cost as much as finding its destination; user space
/// [copies](Self::copy_to) them there for everybody who reads that map.
#[derive(Debug)]
pub struct ForwardsMap {
    map: PerCpuArray<MetricsValue>,
}

impl ForwardsMap {
    one_map_table!(
        PerCpuArray<MetricsValue>,
        MapSpec::per_cpu_array::<MetricsValue>("podwire_forwards", ForwardPoint::ALL.len() as u32)
            .value_layout::<MetricsValue>()
    );

    /// Packets and bytes that went one way, summed over the CPUs.
    pub fn count(&self, point: ForwardPoint) -> Result<(u64, u64)> {
        let mut values = PerCpuValues::<MetricsValue>::new()?;
        self.map.lookup(&(point as u32), &mut values)?;
        Ok(values.iter().fold((0, 0), |(packets, bytes): (u64, u64), value| {
            (packets.wrapping_add(value.count), bytes.wrapping_add(value.bytes))
        }))
    }

    /// Every way that a packet went, as `cilium_metrics` has it: reason 0 unless a policy denied it, and as line the number of the
    /// way plus one.
    pub fn counters(&self) -> Result<Vec<Counter>> {
        let mut counters = Vec::new();
        for point in ForwardPoint::ALL {
            let (packets, bytes) = self.count(point)?;
            if packets > 0 {
                counters.push(Counter { counted: counted(point), packets, bytes });
            }
        }
        Ok(counters)
    }

    /// Copies the counters into `cilium_metrics`, over those copied before.
    pub fn copy_to(&self, metrics: &MetricsMap) -> Result<()> {
        self.counters()?.iter().try_for_each(|counter| metrics.set(counter))
    }
}

/// The key of a way in `cilium_metrics`.
fn counted(point: ForwardPoint) -> Counted {
    use MetricsDirection::{Egress, Ingress};
    let (direction, file) = match point {
        ForwardPoint::PodToPod | ForwardPoint::PodToStack => (Egress, SourceFile::LXC),
        ForwardPoint::StackToPod => (Ingress, SourceFile::LXC),
        ForwardPoint::HostToPod | ForwardPoint::ToHost => (Ingress, SourceFile::HOST),
        ForwardPoint::NetworkToPod | ForwardPoint::FromNetwork => (Ingress, SourceFile::NETDEV),
        ForwardPoint::ToNetwork => (Egress, SourceFile::NETDEV),
        ForwardPoint::DeniedEgress | ForwardPoint::DenyRuleEgress => (Egress, SourceFile::ADMIT),
        ForwardPoint::DeniedIngress | ForwardPoint::DenyRuleIngress => (Ingress, SourceFile::ADMIT),
    };
    let reason = Reason::from_number(point.drop_reason().unwrap_or(0));
    Counted { reason, direction, file, line: point as u16 + 1 }
}
