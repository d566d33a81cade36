//! `cilium_metrics`: packets and bytes by reason and direction.

use std::fmt;

use super::drop_reason::Reason;
use super::source_file::SourceFile;
use crate::Result;
use crate::abi::{MetricsKey, MetricsValue};
use crate::maps::{MapSpec, PerCpuBatch, PerCpuHashMap, PerCpuValues, Update};
use crate::tables::table::one_map_table;

/// Counters read at a time.
const BATCH: usize = 256;

/// The way of a counted packet, seen from the endpoint or device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MetricsDirection {
    /// Into it (1).
    Ingress,
    /// Out of it (2).
    Egress,
    /// Through a service (3).
    Service,
    /// Not known (0).
    Unknown,
}

impl MetricsDirection {
    /// The direction in the low two bits of a key's byte.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            1 => Self::Ingress,
            2 => Self::Egress,
            3 => Self::Service,
            _ => Self::Unknown,
        }
    }

    /// The key's byte.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Ingress => 1,
            Self::Egress => 2,
            Self::Service => 3,
        }
    }

    /// The name in lower case, as JSON has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Service => "service",
            Self::Unknown => "unknown",
        }
    }
}

/// The name in capitals, as tables have it.
impl fmt::Display for MetricsDirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ingress => "INGRESS",
            Self::Egress => "EGRESS",
            Self::Service => "SERVICE",
            Self::Unknown => "UNKNOWN",
        })
    }
}

/// What a counter counts. Ordered by reason, then direction, file and line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Counted {
    /// Why packets were counted.
    pub reason: Reason,
    /// Which way they went.
    pub direction: MetricsDirection,
    /// The source file that counted.
    pub file: SourceFile,
    /// The line in it.
    pub line: u16,
}

/// A counter summed over the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// What is counted.
    pub counted: Counted,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl From<Counted> for MetricsKey {
    fn from(counted: Counted) -> Self {
        Self {
            reason: counted.reason.number(),
            dir: counted.direction.bits(),
            line: counted.line,
            file: counted.file.number(),
            reserved: [0; 3],
        }
    }
}

impl From<MetricsKey> for Counted {
    fn from(key: MetricsKey) -> Self {
        Self {
            reason: Reason::from_number(key.reason),
            direction: MetricsDirection::from_bits(key.dir),
            file: SourceFile::new(key.file),
            line: key.line,
        }
    }
}

/// `cilium_metrics`: a counter for each reason, direction and place in the source, on each CPU.
#[derive(Debug)]
pub struct MetricsMap {
    map: PerCpuHashMap<MetricsKey, MetricsValue>,
}

impl MetricsMap {
    one_map_table!(
        PerCpuHashMap<MetricsKey, MetricsValue>,
        MapSpec::per_cpu_hash::<MetricsKey, MetricsValue>("cilium_metrics", 1024).layouts::<MetricsKey, MetricsValue>()
    );

    /// Every counter, summed over the CPUs, in the order of what they count.
    pub fn counters(&self) -> Result<Vec<Counter>> {
        let mut counters = Vec::new();
        self.map.lookup_batch(&mut PerCpuBatch::new(BATCH)?, |key, values| counters.push(sum(key, values.iter())))?;
        counters.sort_unstable_by_key(|counter| counter.counted);
        Ok(counters)
    }

    /// One counter, summed over the CPUs; 0 where nothing was counted yet.
    pub fn counter(&self, counted: Counted) -> Result<Counter> {
        let key = MetricsKey::from(counted);
        let mut values = PerCpuValues::new()?;
        self.map.lookup(&key, &mut values)?;
        Ok(sum(&key, values.iter()))
    }

    /// Sets a counter as a whole: for what programs count elsewhere and user space makes visible here. What programs add
    /// meanwhile is lost, so it is only for counters that they leave alone.
    ///
    /// # Errors
    ///
    /// `Exhausted` when the map is full.
    pub fn set(&self, counter: &Counter) -> Result<()> {
        let mut values = PerCpuValues::new()?;
        let total = MetricsValue { count: counter.packets, bytes: counter.bytes };
        values.fill(|cpu| if cpu == 0 { total } else { MetricsValue::default() });
        self.map.insert(&counter.counted.into(), &values, Update::Any)
    }

    /// Removes every counter and returns how many there were.
    pub fn clear(&self) -> Result<usize> {
        self.map.drain(&mut PerCpuBatch::new(BATCH)?, |_, _| ())
    }
}

fn sum(key: &MetricsKey, values: impl Iterator<Item = MetricsValue>) -> Counter {
    let (packets, bytes) = values.fold((0u64, 0u64), |(packets, bytes), value| {
        (packets.wrapping_add(value.count), bytes.wrapping_add(value.bytes))
    });
    Counter { counted: (*key).into(), packets, bytes }
}
