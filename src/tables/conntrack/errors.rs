//! `podwire_ct_errors`: packets that could not be noted, by the reason.

use std::fmt;

use crate::Result;
use crate::maps::{MapSpec, PerCpuArray, PerCpuValues};
use crate::tables::table::one_map_table;

/// Rows of the map: one for each errno (`CT_ERRORS` in `bpf/lib/conntrack_maps.h`).
const ROWS: u32 = 128;

/// Why a packet was not noted in an entry: an errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CtErrno(u8);

impl CtErrno {
    /// The positive errno; 0 stands for one that the map has no row for.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Its name in C, for those that the programs count: `EBUSY`, because other CPUs held a bucket's lock all the time, and
    /// `ENOSPC`, because no entry was to be had.
    pub const fn name(self) -> Option<&'static str> {
        match self.0 as i32 {
            libc::EBUSY => Some("EBUSY"),
            libc::ENOSPC => Some("ENOSPC"),
            _ => None,
        }
    }
}

/// `EBUSY`, or `errno 99`.
impl fmt::Display for CtErrno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

/// `podwire_ct_errors`: how many packets could not be noted in their connections' entries. They went on nonetheless.
#[derive(Debug)]
pub struct CtErrors {
    map: PerCpuArray<u64>,
}

impl CtErrors {
    one_map_table!(PerCpuArray<u64>, MapSpec::per_cpu_array::<u64>("podwire_ct_errors", ROWS));

    /// The reasons that came up, with how often, summed over the CPUs.
    pub fn counts(&self) -> Result<Vec<(CtErrno, u64)>> {
        let mut values = PerCpuValues::<u64>::new()?;
        let mut counts = Vec::new();
        for errno in 0..self.map.max_entries().min(ROWS as usize) as u8 {
            self.map.lookup(&u32::from(errno), &mut values)?;
            let count = values.iter().fold(0, u64::wrapping_add);
            if count > 0 {
                counts.push((CtErrno(errno), count));
            }
        }
        Ok(counts)
    }
}
