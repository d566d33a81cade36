//! `podwire_ct_errors`: connections that could not be noted, by the kernel's reason.

use std::fmt;

use crate::Result;
use crate::maps::{MapSpec, PerCpuArray, PerCpuValues};
use crate::tables::table::one_map_table;

/// Rows of the map: one for each errno (`CT_ERRORS` in `bpf/lib/conntrack.h`).
const ROWS: u32 = 128;

/// Why the kernel did not take an entry: an errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CtErrno(u8);

impl CtErrno {
    /// The positive errno; 0 stands for one that the map has no row for.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Its name in C, for those that an update of a hash map can end with (`kernel/bpf/hashtab.c`).
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 as i32 {
            libc::EPERM => "EPERM",
            libc::ENOENT => "ENOENT",
            libc::E2BIG => "E2BIG",
            libc::EAGAIN => "EAGAIN",
            libc::ENOMEM => "ENOMEM",
            libc::EBUSY => "EBUSY",
            libc::EEXIST => "EEXIST",
            libc::EINVAL => "EINVAL",
            libc::EDEADLK => "EDEADLK",
            libc::EOPNOTSUPP => "EOPNOTSUPP",
            libc::ETIMEDOUT => "ETIMEDOUT",
            _ => return None,
        })
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

/// `podwire_ct_errors`: how many connections could not be noted. Their packets went on nonetheless.
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
