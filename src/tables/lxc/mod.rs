//! `cilium_lxc`: local endpoints by address.

mod entry;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) use entry::host_info;
pub use entry::{EndpointFlags, LxcEndpoint, LxcEntry};

use crate::abi::{EndpointInfo, EndpointKey};
use crate::maps::{HashMap, MapSpec, Update};
use crate::tables::table::one_map_table;
use crate::undo::Undo;
use crate::{Error, ErrorKind, Result};

/// `cilium_lxc`: what the programs look up by a packet's destination.
#[derive(Debug)]
pub struct LxcMap {
    map: HashMap<EndpointKey, EndpointInfo>,
}

impl LxcMap {
    one_map_table!(
        HashMap<EndpointKey, EndpointInfo>,
        MapSpec::hash::<EndpointKey, EndpointInfo>("cilium_lxc", 65_535)
            .no_prealloc()
            .layouts::<EndpointKey, EndpointInfo>()
    );

    /// Makes an endpoint reachable by its addresses: by all that are given or, on failure, by none that it was not reachable by
    /// before. What an address stood for is overwritten.
    ///
    /// # Errors
    ///
    /// `InvalidInput` without an address; `Exhausted` when the map is full.
    pub fn write_endpoint(&self, ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>, endpoint: &LxcEndpoint) -> Result<()> {
        let addresses = [ipv4.map(IpAddr::from), ipv6.map(IpAddr::from)];
        if addresses.iter().all(Option::is_none) {
            return Err(Error::invalid("endpoint", endpoint.id.to_string(), "has no address"));
        }
        let value = EndpointInfo::from(*endpoint);
        let mut undo = Undo::new();
        for address in addresses.into_iter().flatten() {
            self.write(address, &value, &mut undo)?;
        }
        undo.keep();
        Ok(())
    }

    /// Marks an address as the host's own, unless an endpoint has it: then it stays the endpoint's, and this is false.
    ///
    /// # Errors
    ///
    /// `Exhausted` when the map is full.
    pub fn write_host(&self, address: IpAddr) -> Result<bool> {
        match self.map.insert(&EndpointKey::of(address), &entry::host_info(), Update::NoExist) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(self.lookup(address)? == Some(LxcEntry::Host)),
            written => written.map(|()| true),
        }
    }

    /// What an address stands for.
    pub fn lookup(&self, address: IpAddr) -> Result<Option<LxcEntry>> {
        Ok(self.map.lookup(&EndpointKey::of(address))?.map(LxcEntry::from))
    }

    /// Removes an address; false when it was not there.
    pub fn delete(&self, address: IpAddr) -> Result<bool> {
        self.map.delete(&EndpointKey::of(address))
    }

    /// Removes the addresses of an endpoint and returns how many were there.
    ///
    /// An address that stands for another endpoint by now is left alone. On failure nothing is undone: what is removed stays
    /// removed, and calling it again removes the rest.
    pub fn delete_endpoint(
        &self,
        ipv4: Option<Ipv4Addr>,
        ipv6: Option<Ipv6Addr>,
        id: crate::EndpointId,
    ) -> Result<usize> {
        let addresses = [ipv4.map(IpAddr::from), ipv6.map(IpAddr::from)];
        let mut removed = 0;
        for address in addresses.into_iter().flatten() {
            let ours = matches!(self.lookup(address)?, Some(LxcEntry::Endpoint(endpoint)) if endpoint.id == id);
            removed += usize::from(ours && self.delete(address)?);
        }
        Ok(removed)
    }

    /// Every address and what it stands for, in the order of the addresses. Keys of an unknown family are left out.
    pub fn entries(&self) -> Result<Vec<(IpAddr, LxcEntry)>> {
        let mut entries = Vec::new();
        for row in &self.map {
            let (key, value) = row?;
            match key.address() {
                Some(address) => entries.push((address, LxcEntry::from(value))),
                None => log::warn!("{}: key {key:?} has an unknown family", self.map.label()),
            }
        }
        entries.sort_unstable_by_key(|(address, _)| *address);
        Ok(entries)
    }

    fn write<'a>(&'a self, address: IpAddr, value: &EndpointInfo, undo: &mut Undo<'a>) -> Result<()> {
        let key = EndpointKey::of(address);
        let before = self.map.lookup(&key)?;
        self.map.insert(&key, value, Update::Any)?;
        undo.attempt("table write", move || match before {
            Some(before) => self.map.insert(&key, &before, Update::Any),
            None => self.map.delete(&key).map(drop),
        });
        Ok(())
    }
}
