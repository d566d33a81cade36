//! The sources' word and the kernel's map, kept together.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use parking_lot::{Mutex, RwLock};

use super::directory::{Change, Difference, Directory, Peer};
use super::source::Source;
use crate::abi::{IpCacheKey, RemoteEndpointInfo};
use crate::identity::World;
use crate::maps::{CachedMap, LpmTrie, Store, Written};
use crate::tables::{IpCache, IpCacheEntry};
use crate::{Error, Result, SecurityId};

/// What became of some changes.
#[derive(Debug, Default)]
#[must_use = "the datapath's generation moves on when something has changed"]
pub struct Applied {
    /// Entries that were written or removed.
    pub changed: usize,
    /// Entries that could not be; [`IpCacheManager::reconcile`] tries them again.
    pub failed: usize,
    /// Why the first of these could not.
    pub first_error: Option<Error>,
}

impl Applied {
    /// Whether the map is another than before: the datapath's generation has to move on.
    pub fn changed(&self) -> bool {
        self.changed > 0
    }

    /// The failure, for a caller for whom a part is not enough. What has changed has changed all the same.
    pub fn into_result(self) -> Result<()> {
        self.first_error.map_or(Ok(()), Err)
    }
}

impl From<Written> for Applied {
    fn from(written: Written) -> Self {
        Self { changed: written.upserted + written.removed, failed: written.failed, first_error: written.first_error }
    }
}

/// Owner of `cilium_ipcache_v2`. See the [module's documentation](super) for the rules.
///
/// All methods can be called from several threads; changes take their turn, and looking never waits for the kernel. `M` is
/// what the entries are written to; tests bring their own.
pub struct IpCacheManager<
    M: Store<Key = IpCacheKey, Value = RemoteEndpointInfo> = LpmTrie<IpCacheKey, RemoteEndpointInfo>,
> {
    /// Held from the first change to the directory until the map has it; before the directory.
    turn: Mutex<()>,
    directory: RwLock<Directory>,
    cache: CachedMap<M>,
}

impl IpCacheManager {
    /// Takes over the map with its content, and adds the world: `0.0.0.0/0` and `::/0`.
    ///
    /// # Errors
    ///
    /// When the map can't be read, or the world can't be written.
    pub fn open(table: IpCache, world: World) -> Result<Self> {
        Self::over(CachedMap::new(table.into_map()), world)
    }
}

impl<M: Store<Key = IpCacheKey, Value = RemoteEndpointInfo>> IpCacheManager<M> {
    /// The same over a map with a cache of its own.
    ///
    /// # Errors
    ///
    /// As for [`open`](IpCacheManager::open).
    pub fn over(cache: CachedMap<M>, world: World) -> Result<Self> {
        let mut directory = Directory::new();
        cache.adopt(|key, value| match key.prefix() {
            // keys that nothing here would have written are not ours to keep
            Some(prefix) if IpCacheKey::of(prefix) == *key => {
                directory.note_found(prefix, IpCacheEntry::from(*value).normalised());
                true
            }
            _ => false,
        })?;
        let manager = Self { turn: Mutex::new(()), directory: RwLock::new(directory), cache };
        manager.apply(Source::World, &worlds(world))?.into_result()?;
        Ok(manager)
    }

    /// Carries out what a source says anew, in its order.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a prefix with bits set behind its length; nothing has changed then. What the kernel refuses is no
    /// error here but counted in the result, and tried again later.
    pub fn apply(&self, source: Source, changes: &[Change]) -> Result<Applied> {
        let _turn = self.turn.lock();
        let difference = self.directory.write().apply(source, changes)?;
        Ok(self.write(&difference))
    }

    /// Makes these entries all that a source says: what it said before of other prefixes is withdrawn.
    ///
    /// # Errors
    ///
    /// As for [`apply`](Self::apply).
    pub fn replace(&self, source: Source, entries: &[(IpNetwork, IpCacheEntry)]) -> Result<Applied> {
        let _turn = self.turn.lock();
        let difference = self.directory.write().replace(source, entries)?;
        Ok(self.write(&difference))
    }

    /// A source says that a prefix has this entry; see [`apply`](Self::apply).
    pub fn upsert(&self, source: Source, prefix: IpNetwork, entry: IpCacheEntry) -> Result<Applied> {
        self.apply(source, &[Change::Upsert(prefix, entry)])
    }

    /// A source says nothing of a prefix any more; see [`apply`](Self::apply).
    pub fn withdraw(&self, source: Source, prefix: IpNetwork) -> Result<Applied> {
        self.apply(source, &[Change::Withdraw(prefix)])
    }

    /// Makes these the addresses of this node, with [`SecurityId::HOST`].
    pub fn set_host_addresses(&self, addresses: &[IpAddr]) -> Result<Applied> {
        let host = IpCacheEntry::direct(SecurityId::HOST);
        let entries: Vec<_> = addresses.iter().map(|address| (IpNetwork::from(*address), host)).collect();
        self.replace(Source::Host, &entries)
    }

    /// Every source has spoken: what was found in the map and nobody confirmed goes, and so does what has come there otherwise.
    ///
    /// # Errors
    ///
    /// When the map can't be read. The content that was taken over is cleared by then.
    pub fn mark_complete(&self) -> Result<Applied> {
        let _turn = self.turn.lock();
        let difference = self.directory.write().forget_found();
        let mut applied = self.write(&difference);
        self.cache.mark_complete();
        let reconciled = self.cache.resync()?.reconciled;
        applied.changed += reconciled.repaired;
        applied.failed += reconciled.failed;
        Ok(applied)
    }

    /// Tries again what failed and is due.
    pub fn reconcile(&self) -> Applied {
        let _turn = self.turn.lock();
        let done = self.cache.reconcile();
        Applied { changed: done.repaired, failed: done.failed, first_error: None }
    }

    /// Compares the map with what it should be, which reads all of it, and repairs what somebody else has changed.
    ///
    /// # Errors
    ///
    /// When the map can't be read; nothing has changed then.
    pub fn resync(&self) -> Result<Applied> {
        let _turn = self.turn.lock();
        let done = self.cache.resync()?.reconciled;
        Ok(Applied { changed: done.repaired, failed: done.failed, first_error: None })
    }

    /// What is in force for exactly this prefix.
    pub fn exact(&self, prefix: IpNetwork) -> Option<Peer> {
        self.directory.read().exact(prefix)
    }

    /// What is in force for an address: that of the longest prefix around it.
    pub fn longest_match(&self, address: IpAddr) -> Option<Peer> {
        self.directory.read().longest_match(address)
    }

    /// What each source says of exactly this prefix, the one that wins in front.
    pub fn sources(&self, prefix: IpNetwork) -> Vec<(Source, IpCacheEntry)> {
        self.directory.read().claims(prefix)
    }

    /// Everything in force, IPv4 first, a prefix before those inside it.
    pub fn peers(&self) -> Vec<Peer> {
        self.directory.read().peers()
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.directory.read().len()
    }

    /// Whether there are none, which the world prevents.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The map's cache, for those who show it: states, failures, pressure, counts of operations.
    pub fn cache(&self) -> &CachedMap<M> {
        &self.cache
    }

    fn write(&self, difference: &Difference) -> Applied {
        let upserts = difference.upserts.iter().map(|(prefix, entry)| (IpCacheKey::of(*prefix), (*entry).into()));
        let removals = difference.removals.iter().map(|prefix| IpCacheKey::of(*prefix));
        self.cache.apply(&upserts.collect::<Vec<_>>(), &removals.collect::<Vec<_>>()).into()
    }
}

impl<M: Store<Key = IpCacheKey, Value = RemoteEndpointInfo>> fmt::Debug for IpCacheManager<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IpCacheManager").field("prefixes", &self.len()).field("cache", &self.cache).finish()
    }
}

/// The world as it stands in the map: all of each family.
fn worlds(world: World) -> Vec<Change> {
    let everything = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let prefixes = everything.into_iter().filter_map(|address| IpNetwork::new(address, 0).ok());
    prefixes.map(|prefix| Change::Upsert(prefix, IpCacheEntry::direct(world.of(prefix)))).collect()
}
