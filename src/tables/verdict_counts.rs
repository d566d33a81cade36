//! `podwire_verdict_counts`: connections that policies let pass.

use crate::Result;
use crate::maps::{MapSpec, PerCpuArray, PerCpuValues};
use crate::tables::PolicyDirection;
use crate::tables::table::one_map_table;

/// Rows of the map (`VERDICT_COUNTS` in `bpf/abi.h`).
const ROWS: u32 = 4;

/// How many connections the policies of one direction let pass, since the map was made. One that is judged again, because
/// something changed, counts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictCount {
    /// Whose policies: those of senders, or of receivers.
    pub direction: PolicyDirection,
    /// Whether they would have denied them, but for audit mode.
    pub audited: bool,
    /// How many.
    pub connections: u64,
}

/// `podwire_verdict_counts`. What policies deny is counted packet by packet in [`ForwardsMap`](crate::tables::ForwardsMap).
#[derive(Debug)]
pub struct VerdictCounts {
    map: PerCpuArray<u64>,
}

impl VerdictCounts {
    one_map_table!(PerCpuArray<u64>, MapSpec::per_cpu_array::<u64>("podwire_verdict_counts", ROWS));

    /// The counts of both directions, those that are zero as well, summed over the CPUs.
    pub fn counts(&self) -> Result<[VerdictCount; ROWS as usize]> {
        let mut counts = ROWS_IN_ORDER;
        let mut values = PerCpuValues::<u64>::new()?;
        for (row, count) in (0..).zip(&mut counts) {
            self.map.lookup(&row, &mut values)?;
            count.connections = values.iter().fold(0, u64::wrapping_add);
        }
        Ok(counts)
    }
}

/// By `enum podwire_verdict_count`.
const ROWS_IN_ORDER: [VerdictCount; ROWS as usize] = {
    use PolicyDirection::{Egress, Ingress};
    const fn row(direction: PolicyDirection, audited: bool) -> VerdictCount {
        VerdictCount { direction, audited, connections: 0 }
    }
    [row(Egress, false), row(Ingress, false), row(Egress, true), row(Ingress, true)]
};
