//! `podwire_endpoints`: what the programs check senders against, a row per endpoint.

use std::path::Path;

use bytemuck::Zeroable;
use parking_lot::Mutex;

use crate::abi::{ENDPOINT_PROBES, EndpointRow};
use crate::maps::{Array, MapSpec, Update};
use crate::{Error, IfIndex, Result};

/// Number of rows; a power of two, because the programs reduce an ifindex by masking. As in `bpf/lib/lxc.h`.
const ROWS: u32 = 65_536;

/// The endpoint rows.
///
/// A row stands at its device's index modulo 65,536 or in one of the three rows after it, and is in force from the moment
/// at which its `ifindex` is written. Writers in this process exclude each other; two processes must not write.
pub struct EndpointRows {
    map: Array<EndpointRow>,
    writing: Mutex<()>,
}

impl EndpointRows {
    /// The map as the programs declare it.
    pub const fn spec() -> MapSpec {
        MapSpec::mmap_array::<EndpointRow>("podwire_endpoints", ROWS).value_layout::<EndpointRow>()
    }

    /// A map of one's own, unpinned.
    pub fn create() -> Result<Self> {
        Ok(Self { map: Array::create(&Self::spec())?, writing: Mutex::new(()) })
    }

    /// The map pinned in a folder under its name.
    pub fn open_pinned(folder: impl AsRef<Path>) -> Result<Self> {
        let spec = Self::spec();
        let map = Array::open_pinned(folder.as_ref().join(spec.name()), &spec)?;
        Ok(Self { map, writing: Mutex::new(()) })
    }

    /// Brings a row into force, in place of the device's row where it has one.
    ///
    /// # Errors
    ///
    /// `Exhausted` when the four rows in which the device's may stand belong to others.
    pub fn write(&self, row: &EndpointRow) -> Result<()> {
        let ifindex = device(row.ifindex)?;
        let _writing = self.writing.lock();
        let (index, _) = self
            .find(ifindex, row.ifindex)?
            .map_or_else(|| self.find(ifindex, 0), |found| Ok(Some(found)))?
            .ok_or_else(|| Error::Full {
                object: format!("podwire_endpoints (rows for device {ifindex})"),
                limit: ENDPOINT_PROBES,
                remedy: "create the device again, so that it gets another index".into(),
            })?;
        self.map.insert(&index, row, Update::Any)
    }

    /// Ends the row of a device; tells whether it had one.
    pub fn delete(&self, ifindex: IfIndex) -> Result<bool> {
        let _writing = self.writing.lock();
        let Some((index, mut row)) = self.find(ifindex, ifindex.get())? else { return Ok(false) };
        // The ifindex goes first, so that no program sees a row that is half gone.
        row.ifindex = 0;
        self.map.insert(&index, &row, Update::Any)?;
        self.map.insert(&index, &EndpointRow::zeroed(), Update::Any)?;
        Ok(true)
    }

    /// The row of a device.
    pub fn lookup(&self, ifindex: IfIndex) -> Result<Option<EndpointRow>> {
        Ok(self.find(ifindex, ifindex.get())?.map(|(_, row)| row))
    }

    /// Every row in force.
    pub fn dump(&self) -> Result<Vec<EndpointRow>> {
        let mut rows = Vec::new();
        let mut batch = crate::maps::Batch::new(4096)?;
        self.map.lookup_batch(&mut batch, |_, row| {
            if row.ifindex != 0 {
                rows.push(*row);
            }
        })?;
        Ok(rows)
    }

    /// Among the rows in which a device's may stand, the first whose ifindex is `wanted`.
    fn find(&self, ifindex: IfIndex, wanted: u32) -> Result<Option<(u32, EndpointRow)>> {
        for probe in 0..ENDPOINT_PROBES as u32 {
            let index = ifindex.get().wrapping_add(probe) & (ROWS - 1);
            if let Some(row) = self.map.lookup(&index)?.filter(|row| row.ifindex == wanted) {
                return Ok(Some((index, row)));
            }
        }
        Ok(None)
    }
}

fn device(ifindex: u32) -> Result<IfIndex> {
    IfIndex::new(ifindex).ok_or_else(|| Error::invalid("ifindex", "0", "no device has this index"))
}
