//! The address manager itself.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use super::config::IpamConfig;
use super::expiration::{ExpirationId, Lifetime};
use super::family::{Families, Family};
use super::ledger::{self, Ledger};
use super::record::Record;
use super::store::{SharedGroup, Store, Writer};
use super::types::{Allocation, Lease, Restored, RouterAddresses, Stray, Usage};
use crate::{Clock, Error, MonotonicClock, Result};

/// Hands out the addresses of a node. See the [module's documentation](super) for the rules.
///
/// All methods can be called from several threads. Those that change something are done and, with a store, durable when they return; those
/// that hand out or take back several addresses do all of it or nothing. Those that only look may see a change that is being written to disk and,
/// should that fail, is undone.
///
/// ```
/// use podwire::ipam::{Families, Ipam, Lifetime};
///
/// let range: ipnetwork::IpNetwork = "10.0.1.0/24".parse()?;
/// let ipam = Ipam::new(range)?;
/// let web = ipam.allocate_next("default/web", Families::All, Lifetime::Permanent)?;
/// assert_eq!(web.ipv4, Some("10.0.1.2".parse()?)); // 10.0.1.1 is the router's
/// assert_eq!(ipam.status(), "IPv4: 2/254 allocated from 10.0.1.0/24");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Ipam {
    config: IpamConfig,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    store: Option<Store>,
}

/// Whoever needs the store's writer too locks it first.
#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    /// Applied to the ledger and not yet written.
    pending: Vec<Record>,
    /// Those who wait for the pending ones.
    group: SharedGroup,
    /// Set while the ledger may hold what is not durable.
    broken: bool,
}

impl Ipam {
    /// A manager that keeps nothing on disk, for whoever keeps its own records.
    pub fn new(config: impl Into<IpamConfig>) -> Result<Self> {
        Self::with_clock(config, Arc::new(MonotonicClock))
    }

    /// Like [`new`](Self::new), with a clock of the caller's.
    pub fn with_clock(config: impl Into<IpamConfig>, clock: Arc<dyn Clock>) -> Result<Self> {
        let ipam = Self::assemble(config.into(), clock, None)?;
        ipam.settle_router()?;
        Ok(ipam)
    }

    /// A manager that keeps its records in `dir` (`ipam.journal`, and `ipam.lock` against a second process), with what they hold restored.
    ///
    /// Fails with [`Error::Busy`] while somebody else has it open, and with [`Error::Corrupt`] if the journal is damaged otherwise than a crash can.
    pub fn open(dir: impl AsRef<Path>, config: impl Into<IpamConfig>) -> Result<(Self, Restored)> {
        Self::open_with_clock(dir, config, Arc::new(MonotonicClock))
    }

    /// Like [`open`](Self::open), with a clock of the caller's.
    pub fn open_with_clock(
        dir: impl AsRef<Path>,
        config: impl Into<IpamConfig>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Restored)> {
        let config = config.into();
        // a bad configuration is to leave no trace on disk
        Ledger::new(&config)?;
        let (store, replay) = Store::open(dir.as_ref())?;
        let ipam = Self::assemble(config, clock, Some(store))?;
        let mut restored = ipam.restore(&replay.records)?;
        restored.torn = replay.torn.is_some();
        ipam.settle_router()?;
        Ok((ipam, restored))
    }

    /// Allocates the next free address of each of `families` to `owner`. Fails with [`Error::PoolExhausted`] if one of them has none, and then
    /// allocates neither.
    pub fn allocate_next(&self, owner: &str, families: Families, lifetime: Lifetime) -> Result<Allocation> {
        let period = ledger::check_request(owner, lifetime)?;
        self.change(|ledger, now| {
            let record = ledger.plan_next(owner, families, period, now)?;
            ledger.apply(&record, now);
            Ok((ledger::allocation(&record, now), vec![record]))
        })
    }

    /// Like [`allocate_next`](Self::allocate_next) for many owners at once, with a single write to disk: for all or for none of them.
    pub fn allocate_many(&self, owners: &[&str], families: Families, lifetime: Lifetime) -> Result<Vec<Allocation>> {
        let periods = owners.iter().map(|owner| ledger::check_request(owner, lifetime)).collect::<Result<Vec<_>>>()?;
        self.change(|ledger, now| {
            ledger.check_room(families, owners.len(), now)?;
            let mut records = Vec::with_capacity(owners.len());
            for (owner, period) in owners.iter().zip(periods) {
                let record = ledger.plan_next(owner, families, period, now)?;
                ledger.apply(&record, now);
                records.push(record);
            }
            Ok((records.iter().map(|record| ledger::allocation(record, now)).collect(), records))
        })
    }

    /// Allocates this address to `owner`. Fails with [`Error::AddressInUse`] if anybody has it, `owner` included, and with
    /// [`Error::AddressOutOfPool`] if it is never handed out.
    pub fn allocate(&self, address: IpAddr, owner: &str, lifetime: Lifetime) -> Result<Allocation> {
        self.allocate_all(&[address], owner, lifetime)
    }

    /// Allocates these addresses, one or one of each family, to `owner`; see [`allocate`](Self::allocate).
    pub fn allocate_all(&self, addresses: &[IpAddr], owner: &str, lifetime: Lifetime) -> Result<Allocation> {
        let good = match addresses {
            [_] => true,
            // the same one twice gets the error of its own below
            [first, second] => first == second || Family::of(*first) != Family::of(*second),
            _ => false,
        };
        if !good {
            return Err(Error::invalid(
                "addresses",
                format!("{addresses:?}"),
                "expected one address, or one of each family",
            ));
        }
        let period = ledger::check_request(owner, lifetime)?;
        self.change(|ledger, now| {
            let record = ledger.plan_given(addresses, owner, period)?;
            ledger.apply(&record, now);
            Ok((ledger::allocation(&record, now), vec![record]))
        })
    }

    /// Makes an unclaimed allocation permanent. Fails with [`Error::NotFound`] if the address is not allocated (its time may have run out), with
    /// [`Error::InvalidInput`] if `id` is another's, and with [`Error::WrongState`] if the allocation needs no claim.
    pub fn claim(&self, address: IpAddr, id: ExpirationId) -> Result<()> {
        self.claim_all(&[(address, id)])
    }

    /// [`claim`](Self::claim) for several addresses, with a single write to disk.
    pub fn claim_all(&self, claims: &[(IpAddr, ExpirationId)]) -> Result<()> {
        if claims.is_empty() {
            return Ok(());
        }
        self.change(|ledger, now| {
            let record = ledger.plan_claim(claims)?;
            ledger.apply(&record, now);
            Ok(((), vec![record]))
        })
    }

    /// Releases every unclaimed allocation whose deadline has come, and says which. Whoever runs an `Ipam` calls this from time to time;
    /// [`next_deadline`](Self::next_deadline) tells when it is worth it.
    pub fn expire(&self) -> Result<Vec<Lease>> {
        self.change(|ledger, now| {
            Ok(ledger.plan_expiry(now).map_or_else(Default::default, |record| release(ledger, record, now)))
        })
    }

    /// When the next unclaimed allocation is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.inner.lock().ledger.next_deadline()
    }

    /// Releases an address and says whose it was. Fails with [`Error::NotFound`] if it is not allocated, and with [`Error::WrongState`] if it is
    /// the router's.
    pub fn release(&self, address: IpAddr) -> Result<Lease> {
        let mut released = self.release_all(&[address])?;
        released.pop().ok_or_else(|| Error::not_found("allocation of address", address.to_string()))
    }

    /// [`release`](Self::release) for several addresses, with a single write to disk.
    pub fn release_all(&self, addresses: &[IpAddr]) -> Result<Vec<Lease>> {
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        self.change(|ledger, now| {
            let record = ledger.plan_release(addresses)?;
            Ok(release(ledger, record, now))
        })
    }

    /// Releases everything that `owner` has, and says what that was. Fails with [`Error::NotFound`] if it has nothing.
    ///
    /// A pod that is made anew under an old name shares its owner with the one that is going: there, release by address.
    pub fn release_owner(&self, owner: &str) -> Result<Vec<Lease>> {
        self.change(|ledger, now| {
            let addresses = ledger.addresses_of(owner);
            if addresses.is_empty() {
                return Err(Error::not_found("allocation of owner", owner));
            }
            let record = ledger.plan_release(&addresses)?;
            Ok(release(ledger, record, now))
        })
    }

    /// Who has this address.
    pub fn lease(&self, address: IpAddr) -> Option<Lease> {
        self.inner.lock().ledger.lease(address)
    }

    /// The addresses that `owner` has, in order.
    pub fn addresses_of(&self, owner: &str) -> Vec<IpAddr> {
        self.inner.lock().ledger.addresses_of(owner)
    }

    /// Everything that is allocated, IPv4 first, in the order of the addresses.
    pub fn leases(&self) -> Vec<Lease> {
        self.inner.lock().ledger.leases()
    }

    /// Allocations whose address the configuration does not offer.
    pub fn strays(&self) -> Vec<Stray> {
        self.inner.lock().ledger.strays()
    }

    /// The router's own addresses.
    pub fn router(&self) -> RouterAddresses {
        let ledger = &self.inner.lock().ledger;
        let mut router = RouterAddresses::default();
        for family in [Family::Ipv4, Family::Ipv6] {
            match ledger.router(family) {
                Some(IpAddr::V4(address)) => router.ipv4 = Some(address),
                Some(IpAddr::V6(address)) => router.ipv6 = Some(address),
                None => {}
            }
        }
        router
    }

    /// How full this family's pool is; `None` if it has no range.
    pub fn usage(&self, family: Family) -> Option<Usage> {
        self.inner.lock().ledger.usage(family)
    }

    /// How full the pools are, in one line: `IPv4: 4/254 allocated from 10.0.1.0/24, IPv6: 4/255 allocated from fd00::/120`.
    pub fn status(&self) -> String {
        let ledger = &self.inner.lock().ledger;
        let families = [Family::Ipv4, Family::Ipv6].into_iter();
        let parts = families.filter_map(|family| ledger.usage(family).map(|usage| format!("{family}: {usage}")));
        parts.collect::<Vec<_>>().join(", ")
    }

    /// What this was made with.
    pub fn config(&self) -> &IpamConfig {
        &self.config
    }

    fn assemble(config: IpamConfig, clock: Arc<dyn Clock>, store: Option<Store>) -> Result<Self> {
        let ledger = Ledger::new(&config)?;
        let inner = Inner { ledger, pending: Vec::new(), group: SharedGroup::default(), broken: false };
        Ok(Self { config, clock, inner: Mutex::new(inner), store })
    }

    fn restore(&self, records: &[Record]) -> Result<Restored> {
        let configured = (self.config.ipv4, self.config.ipv6);
        self.change(|ledger, now| {
            let recorded = ledger.replay(records, now).map_err(|reason| self.contradiction(reason))?;
            let restored = Restored {
                allocations: ledger.len(),
                unclaimed: ledger.unclaimed(),
                strays: ledger.strays(),
                other_ranges: recorded.filter(|recorded| *recorded != configured),
                torn: false,
            };
            let news =
                (recorded != Some(configured)).then_some(Record::Ranges { ipv4: configured.0, ipv6: configured.1 });
            Ok((restored, news.into_iter().collect()))
        })
    }

    fn settle_router(&self) -> Result<()> {
        self.change(|ledger, now| {
            let mut plans = Vec::new();
            for family in [Family::Ipv4, Family::Ipv6] {
                plans.extend(ledger.plan_router(&self.config, family, now)?);
            }
            for record in &plans {
                ledger.apply(record, now);
            }
            Ok(((), plans))
        })
    }

    /// Makes a change to the ledger and waits until it is durable. A `change` that fails must not have altered anything.
    fn change<T>(&self, change: impl FnOnce(&mut Ledger, Instant) -> Result<(T, Vec<Record>)>) -> Result<T> {
        let (value, group) = {
            let mut inner = self.sound()?;
            let (value, records) = change(&mut inner.ledger, self.clock.now())?;
            if self.store.is_none() || records.is_empty() {
                return Ok(value);
            }
            inner.pending.extend(records);
            (value, inner.group.clone())
        };
        match &self.store {
            Some(store) => self.commit(store, &group).map(|()| value),
            None => Ok(value),
        }
    }

    /// The ledger, after another attempt to repair it where an earlier one failed.
    fn sound(&self) -> Result<MutexGuard<'_, Inner>> {
        let inner = self.inner.lock();
        match &self.store {
            Some(store) if inner.broken => {
                // in the order of the locks: the writer first
                drop(inner);
                let mut writer = store.writer.lock();
                let inner = self.inner.lock();
                if inner.broken { self.recover(&mut writer, inner, None) } else { Ok(inner) }
            }
            _ => Ok(inner),
        }
    }

    /// Waits for the writer. Whoever gets hold of it first writes for all who wait; the others then find their outcome.
    fn commit(&self, store: &Store, group: &SharedGroup) -> Result<()> {
        let mut writer = store.writer.lock();
        if let Some(outcome) = group.outcome() {
            return outcome;
        }
        let (changes, group, snapshot) = {
            let mut inner = self.inner.lock();
            let compact = writer.wants_compaction(inner.ledger.live_records());
            let snapshot = compact.then(|| inner.ledger.snapshot());
            (std::mem::take(&mut inner.pending), std::mem::take(&mut inner.group), snapshot)
        };
        let written = match snapshot {
            Some(snapshot) => writer.compact(&snapshot, &changes),
            None => writer.append(&changes),
        };
        match written {
            Ok(()) => group.succeed(),
            Err(error) => {
                group.fail(writer.path(), &error);
                if let Err(still) = self.recover(&mut writer, self.inner.lock(), Some(&error)) {
                    log::error!("address allocation is out of order: {still}");
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Brings the ledger back to what is durable. All changes that are not fail, also those that were made since: they may build on others.
    fn recover<'a>(
        &self,
        writer: &mut Writer,
        mut inner: MutexGuard<'a, Inner>,
        cause: Option<&Error>,
    ) -> Result<MutexGuard<'a, Inner>> {
        inner.broken = true;
        inner.pending.clear();
        if let Some(cause) = cause {
            std::mem::take(&mut inner.group).fail(writer.path(), cause);
        }
        let records = writer.reopen()?;
        let mut ledger = Ledger::new(&self.config)?;
        ledger.replay(&records, self.clock.now()).map_err(|reason| self.contradiction(reason))?;
        inner.ledger = ledger;
        inner.broken = false;
        Ok(inner)
    }

    fn contradiction(&self, reason: String) -> Error {
        let path = self.store.as_ref().map(|store| store.path.clone()).unwrap_or_default();
        Error::Corrupt { path, reason: format!("the records contradict each other: {reason}") }
    }
}

impl fmt::Debug for Ipam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = self.store.as_ref().map(|store| &store.path);
        f.debug_struct("Ipam").field("store", &store).field("status", &self.status()).finish_non_exhaustive()
    }
}

fn release(ledger: &mut Ledger, record: Record, now: Instant) -> (Vec<Lease>, Vec<Record>) {
    let Record::Release { ips } = &record else { return Default::default() };
    let released = ips.iter().filter_map(|address| ledger.lease(*address)).collect();
    ledger.apply(&record, now);
    (released, vec![record])
}
