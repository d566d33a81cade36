//! The allocator of a single node.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ipnetwork::IpNetwork;
use parking_lot::{Mutex, RwLock};

use super::allocator::IdentityAllocator;
use super::book::{Book, Wanted};
use super::changes::{Changes, Version};
use super::cidr;
use super::config::IdentityConfig;
use super::record::Record;
use super::store::Store;
use super::types::Identity;
use super::world::World;
use crate::{Clock, Error, Labels, MonotonicClock, Result, SecurityId};

/// Identities of one node, given out in this process. See the [module's documentation](super) for the rules.
///
/// All methods can be called from several threads. With a store, a new number is durable before it is given out: after a
/// crash at any instruction the same labels have the same number. Acquiring what is in use already, releasing and looking
/// touch no disk and don't wait for one.
///
/// ```
/// use podwire::Labels;
/// use podwire::identity::{IdentityAllocator, IdentityConfig, LocalIdentities, World};
///
/// let identities = LocalIdentities::new(IdentityConfig::new(World::BothFamilies))?;
/// let web = identities.acquire(&Labels::parse(["k8s:app=web"])?)?;
/// assert_eq!(web.to_string(), "256 (k8s:app=web)");
/// let net = identities.acquire_cidr("203.0.113.0/24".parse().expect("a prefix"))?;
/// assert_eq!(net.to_string(), "16777217 (cidr:203.0.113.0/24,reserved:world-ipv4)");
/// # Ok::<(), podwire::Error>(())
/// ```
pub struct LocalIdentities {
    config: IdentityConfig,
    clock: Arc<dyn Clock>,
    /// Held by whoever adds or removes identities, or takes up one that nobody uses; before the book.
    writer: Mutex<Option<Store>>,
    book: RwLock<Book>,
}

impl LocalIdentities {
    /// Identities that are kept in memory alone.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a configuration that can't be.
    pub fn new(config: IdentityConfig) -> Result<Self> {
        Self::with_clock(config, Arc::new(MonotonicClock))
    }

    /// Like [`new`](Self::new), with a clock of the caller's.
    pub fn with_clock(config: IdentityConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        config.check()?;
        let book = RwLock::new(Book::new(config.release_delay));
        Ok(Self { config, clock, writer: Mutex::new(None), book })
    }

    /// Identities kept in `dir` (`identities.journal`, and `identities.lock` against a second process), with those found there. Nobody uses
    /// these yet: what is not acquired within the release delay goes.
    ///
    /// # Errors
    ///
    /// `Busy` while somebody else has it open; `Corrupt` if the journal is damaged otherwise than a crash can; the system's.
    pub fn open(dir: impl AsRef<Path>, config: IdentityConfig) -> Result<Self> {
        Self::open_with_clock(dir, config, Arc::new(MonotonicClock))
    }

    /// Like [`open`](Self::open), with a clock of the caller's.
    pub fn open_with_clock(dir: impl AsRef<Path>, config: IdentityConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        // a bad configuration is to leave no trace on disk
        let mut identities = Self::with_clock(config, clock)?;
        let (store, records) = Store::open(dir.as_ref())?;
        let now = identities.clock.now();
        identities.book.get_mut().replay(&records, now).map_err(|reason| Error::Corrupt {
            path: store.path().to_owned(),
            reason: format!("the records contradict each other: {reason}"),
        })?;
        *identities.writer.get_mut() = Some(store);
        Ok(identities)
    }

    /// The node's world.
    pub fn world(&self) -> World {
        self.config.world
    }

    /// How many references to an identity are held; `None` for one that is reserved or not there.
    pub fn references(&self, id: SecurityId) -> Option<u64> {
        self.book.read().references(id)
    }

    /// Makes these the last numbers to be given out, as far as they stand for nothing.
    ///
    /// To be called with what an earlier process left in the kernel, before the first acquisition: where the files in the state
    /// directory are lost and the maps are not, an address must not have, by a number of old, the identity of somebody new.
    pub fn avoid(&self, ids: impl IntoIterator<Item = SecurityId>) {
        // in its turn: whoever adds one has chosen its number before it is in the book
        let _turn = self.writer.lock();
        self.book.write().avoid(ids);
    }

    fn acquire_wanted(&self, wanted: &[Wanted]) -> Result<Vec<Identity>> {
        if let Some(identities) = self.book.write().acquire_used(wanted) {
            return Ok(identities);
        }
        let mut store = self.writer.lock();
        let missing = self.book.read().plan_missing(wanted)?;
        self.commit(&mut store, &missing)?;
        let identities = {
            let (mut book, now) = (self.book.write(), self.clock.now());
            for record in &missing {
                book.apply(record, now);
            }
            book.acquire_known(wanted)
        };
        self.compact(&mut store);
        identities
    }

    fn commit(&self, store: &mut Option<Store>, records: &[Record]) -> Result<()> {
        store.as_mut().map_or(Ok(()), |store| store.append(records))
    }

    fn compact(&self, store: &mut Option<Store>) {
        let Some(store) = store else { return };
        if store.wants_compaction(self.book.read().live_records()) {
            // nothing comes or goes meanwhile, so that those who use what is there need not wait for the disk
            let snapshot = self.book.read().snapshot();
            store.compact(&snapshot);
        }
    }
}

impl IdentityAllocator for LocalIdentities {
    fn acquire_all(&self, sets: &[Labels]) -> Result<Vec<Identity>> {
        let wanted: Vec<_> = sets.iter().map(Wanted::of).collect::<Result<_>>()?;
        self.acquire_wanted(&wanted)
    }

    fn acquire_cidrs(&self, prefixes: &[IpNetwork]) -> Result<Vec<Identity>> {
        let sets: Vec<_> =
            prefixes.iter().map(|prefix| cidr::cidr_labels(*prefix, self.config.world)).collect::<Result<_>>()?;
        let wanted = prefixes.iter().zip(&sets).map(|(prefix, labels)| match prefix.prefix() {
            0 => Wanted::Reserved(self.config.world.of(*prefix)),
            _ => Wanted::Set { labels, cidr: true },
        });
        self.acquire_wanted(&wanted.collect::<Vec<_>>())
    }

    fn release_all(&self, ids: &[SecurityId]) -> Result<()> {
        self.book.write().release(ids, self.clock.now())
    }

    fn get(&self, id: SecurityId) -> Option<Identity> {
        self.book.read().get(id)
    }

    fn find(&self, labels: &Labels) -> Option<Identity> {
        self.book.read().find(&Wanted::of(labels).ok()?)
    }

    fn list(&self) -> Vec<Identity> {
        self.book.read().list()
    }

    fn version(&self) -> Version {
        self.book.read().version()
    }

    fn changes_since(&self, seen: Version) -> Changes {
        self.book.read().changes_since(seen)
    }

    fn expire(&self) -> Result<Vec<Identity>> {
        let mut store = self.writer.lock();
        let now = self.clock.now();
        let Some(record) = self.book.read().plan_expiry(now) else { return Ok(Vec::new()) };
        self.commit(&mut store, std::slice::from_ref(&record))?;
        let removed = self.book.write().apply(&record, now);
        self.compact(&mut store);
        Ok(removed)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.book.read().next_deadline()
    }
}

impl fmt::Debug for LocalIdentities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalIdentities").field("config", &self.config).finish_non_exhaustive()
    }
}
