//! How endpoints are reached: `cilium_lxc`, with its desired content.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;

use crate::abi::{EndpointInfo, EndpointKey};
use crate::maps::{CachedEntry, CachedMap, Drift, HashMap, OperationCounts};
use crate::tables::{LxcEndpoint, LxcEntry, LxcMap, host_info};
use crate::{EndpointId, Result};

/// `cilium_lxc` twice over one pin: as the table that writes both families of an endpoint or neither, and as the cache that
/// knows what should be in it, finds what others changed and repairs it.
pub(crate) struct Reach {
    lxc: LxcMap,
    cache: CachedMap<HashMap<EndpointKey, EndpointInfo>>,
}

/// What became of the host's addresses.
#[derive(Debug, Default)]
pub(crate) struct HostRows {
    /// Whether any entry is another than before.
    pub(crate) changed: bool,
    /// Those that endpoints have, which keep them.
    pub(crate) held: Vec<IpAddr>,
}

impl Reach {
    /// Opens the pin in a folder.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        // The operator may have chosen another size.
        let spec = LxcMap::spec().any_max_entries();
        let map = HashMap::open_pinned(folder.join(spec.name()), &spec)?;
        let reach = Self { lxc: LxcMap::open_pinned(folder)?, cache: CachedMap::new(map) };
        for (address, entry) in reach.lxc.entries()? {
            if entry == LxcEntry::Host {
                // A predecessor's, which are the host's to take back: those of an earlier range, for instance.
                reach.cache.upsert(&EndpointKey::of(address), &host_info())?;
            }
        }
        Ok(reach)
    }

    /// Makes an endpoint reachable by all of its addresses or by none, even where the cache believes that it is.
    pub(super) fn write_endpoint(
        &self,
        addresses: (Option<std::net::Ipv4Addr>, Option<std::net::Ipv6Addr>),
        endpoint: &LxcEndpoint,
    ) -> Result<()> {
        let (ipv4, ipv6) = addresses;
        self.lxc.write_endpoint(ipv4, ipv6, endpoint)?;
        let value = EndpointInfo::from(*endpoint);
        for address in ipv4.map(IpAddr::V4).into_iter().chain(ipv6.map(IpAddr::V6)) {
            self.cache.upsert(&EndpointKey::of(address), &value)?;
        }
        Ok(())
    }

    /// Removes those of the addresses that stand for the endpoint; returns how many did.
    pub(super) fn delete_endpoint(
        &self,
        addresses: (Option<std::net::Ipv4Addr>, Option<std::net::Ipv6Addr>),
        id: EndpointId,
    ) -> Result<usize> {
        let (ipv4, ipv6) = addresses;
        let removed = self.lxc.delete_endpoint(ipv4, ipv6, id)?;
        for address in ipv4.map(IpAddr::V4).into_iter().chain(ipv6.map(IpAddr::V6)) {
            let key = EndpointKey::of(address);
            if self.cache.desired(&key).is_some_and(|value| value.lxc_id == id.get()) {
                self.cache.remove(&key)?;
            }
        }
        Ok(removed)
    }

    /// Makes these the host's own addresses, and no others.
    pub(crate) fn set_host(&self, addresses: &[IpAddr]) -> Result<HostRows> {
        let mut rows = HostRows::default();
        let wanted: HashSet<EndpointKey> = addresses.iter().copied().map(EndpointKey::of).collect();
        for row in self.cache.dump() {
            if is_host(row.value) && !wanted.contains(&row.key) {
                rows.changed |= self.cache.remove(&row.key)?;
            }
        }
        for address in addresses.iter().copied() {
            let key = EndpointKey::of(address);
            match self.cache.desired(&key) {
                Some(value) if is_host(value) => {}
                None if self.lxc.write_host(address)? => {
                    self.cache.upsert(&key, &host_info())?;
                    rows.changed = true;
                }
                _ => rows.held.push(address),
            }
        }
        Ok(rows)
    }

    /// Takes over an endpoint's entry as it was found.
    pub(super) fn adopt(&self, address: IpAddr, endpoint: LxcEndpoint) -> Result<()> {
        self.cache.upsert(&EndpointKey::of(address), &EndpointInfo::from(endpoint)).map(drop)
    }

    /// What every address stands for in the map.
    pub(super) fn entries(&self) -> Result<Vec<(IpAddr, LxcEntry)>> {
        self.lxc.entries()
    }

    /// What an address stands for in the map.
    pub(crate) fn lookup(&self, address: IpAddr) -> Result<Option<LxcEntry>> {
        self.lxc.lookup(address)
    }

    /// Compares desired and real content and repairs the differences; what nobody desires goes once the content was
    /// [declared complete](Self::mark_complete).
    pub(crate) fn resync(&self) -> Result<Drift> {
        self.cache.resync()
    }

    /// Declares the desired content complete.
    pub(crate) fn mark_complete(&self) {
        self.cache.mark_complete();
    }

    /// Compares desired and real content, and only notes the differences as the entries' states.
    pub(crate) fn find_drift(&self) -> Result<Drift> {
        self.cache.find_drift()
    }

    /// The desired content with the state of each entry.
    pub(crate) fn dump(&self) -> Vec<CachedEntry<EndpointKey, EndpointInfo>> {
        self.cache.dump()
    }

    /// How full the map is, from 0 to 1.
    pub(crate) fn pressure(&self) -> f64 {
        self.cache.pressure()
    }

    /// Operations on the map so far.
    pub(crate) fn operations(&self) -> OperationCounts {
        self.cache.operations()
    }
}

fn is_host(value: EndpointInfo) -> bool {
    LxcEntry::from(value) == LxcEntry::Host
}
