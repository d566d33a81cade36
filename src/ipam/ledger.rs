//! Both pools and who owns what: pure logic, without a lock, a clock or a disk.
//!
//! A change is planned first, which checks everything and alters nothing, and gives a [`Record`]. Applying a record can't fail. What is read
//! from disk is applied by the same code, after a check of its own.

mod replay;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::IpamConfig;
use super::expiration::{Expiration, ExpirationId, Lifetime, check_period};
use super::family::{Families, Family};
use super::owner::{ROUTER, check_owner};
use super::pool::Pool;
use super::record::{Period, Record};
use super::types::{Allocation, Lease, Stray, Usage};
use crate::{Error, Result};

#[derive(Debug)]
pub(super) struct Ledger {
    ipv4: Option<Pool>,
    ipv6: Option<Pool>,
    entries: BTreeMap<IpAddr, Entry>,
    owners: HashMap<Arc<str>, BTreeSet<IpAddr>>,
    /// The unclaimed ones, the earliest deadline first.
    deadlines: BTreeSet<(Instant, IpAddr)>,
}

#[derive(Debug)]
struct Entry {
    owner: Arc<str>,
    unclaimed: Option<(Period, Instant)>,
    stray: bool,
}

impl Ledger {
    pub(super) fn new(config: &IpamConfig) -> Result<Self> {
        config.check()?;
        let pool = |family| config.network(family).map(|network| Pool::new(network, config)).transpose();
        Ok(Self {
            ipv4: pool(Family::Ipv4)?,
            ipv6: pool(Family::Ipv6)?,
            entries: BTreeMap::new(),
            owners: HashMap::new(),
            deadlines: BTreeSet::new(),
        })
    }

    /// The next address of each of the families, for an owner with a good name.
    pub(super) fn plan_next(
        &self,
        owner: &str,
        families: Families,
        period: Option<Period>,
        now: Instant,
    ) -> Result<Record> {
        let ips = self.pools(families)?.into_iter().map(|pool| pool.next(now)).collect::<Result<_>>()?;
        Ok(Record::Allocate { ips, owner: owner.to_owned(), unless_claimed: period })
    }

    /// Fails unless `count` calls of [`plan_next`](Self::plan_next) would succeed, one after the other.
    pub(super) fn check_room(&self, families: Families, count: usize, now: Instant) -> Result<()> {
        match self.pools(families)?.into_iter().find(|pool| pool.available(now) < count as u128) {
            Some(pool) => Err(pool.exhausted()),
            None => Ok(()),
        }
    }

    pub(super) fn plan_given(&self, ips: &[IpAddr], owner: &str, period: Option<Period>) -> Result<Record> {
        for (at, &address) in ips.iter().enumerate() {
            self.check_free(address)?;
            if ips[..at].contains(&address) {
                return Err(Error::AddressInUse { address, owner: owner.to_owned() });
            }
        }
        Ok(Record::Allocate { ips: ips.to_owned(), owner: owner.to_owned(), unless_claimed: period })
    }

    pub(super) fn plan_claim(&self, claims: &[(IpAddr, ExpirationId)]) -> Result<Record> {
        for &(address, id) in claims {
            let Some((period, _)) = self.entry(address)?.unclaimed else {
                return Err(Error::WrongState {
                    object: format!("address {address}"),
                    state: "allocated for good".to_owned(),
                    op: "claim it",
                });
            };
            if period.id != id {
                let reason = format!("is not the one with which {address} was allocated");
                return Err(Error::invalid("expiration id", id.to_string(), reason));
            }
        }
        Ok(Record::Claim { ips: claims.iter().map(|(address, _)| *address).collect() })
    }

    pub(super) fn plan_release(&self, ips: &[IpAddr]) -> Result<Record> {
        for &address in ips {
            if &*self.entry(address)?.owner == ROUTER {
                return Err(Error::WrongState {
                    object: format!("address {address}"),
                    state: "the router's own".to_owned(),
                    op: "release it",
                });
            }
        }
        let mut ips = ips.to_owned();
        let mut seen = BTreeSet::new();
        ips.retain(|address| seen.insert(*address));
        Ok(Record::Release { ips })
    }

    /// What is due by now.
    pub(super) fn plan_expiry(&self, now: Instant) -> Option<Record> {
        let due = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now);
        let ips: Vec<_> = due.map(|(_, address)| *address).collect();
        (!ips.is_empty()).then_some(Record::Release { ips })
    }

    /// Gives the router what the configuration promises it: one record after the other, to be applied in turn.
    pub(super) fn plan_router(&self, config: &IpamConfig, family: Family, now: Instant) -> Result<Vec<Record>> {
        let (Some(pool), held) = (self.pool(family), self.router(family)) else { return Ok(Vec::new()) };
        let wanted = config.router_address_of(family);
        let keeps =
            held.filter(|address| pool.refuses(*address).is_none() && wanted.is_none_or(|wanted| wanted == *address));
        if config.router && keeps.is_some() {
            return Ok(Vec::new());
        }
        let mut records: Vec<_> = held.map(|address| Record::Release { ips: vec![address] }).into_iter().collect();
        if config.router {
            let address = match wanted {
                Some(wanted) => self.check_free(wanted).map(|()| wanted)?,
                None => pool.next(now)?,
            };
            records.push(Record::Allocate { ips: vec![address], owner: ROUTER.to_owned(), unless_claimed: None });
        }
        Ok(records)
    }

    /// Carries out what was planned.
    pub(super) fn apply(&mut self, record: &Record, now: Instant) {
        match record {
            Record::Ranges { .. } => {}
            Record::Allocate { ips, owner, unless_claimed } => {
                let owner = self
                    .owners
                    .get_key_value(owner.as_str())
                    .map_or_else(|| owner.as_str().into(), |(owner, _)| owner.clone());
                for address in ips {
                    self.add(*address, &owner, *unless_claimed, now);
                }
            }
            Record::Claim { ips } => {
                for address in ips {
                    let unclaimed = self.entries.get_mut(address).and_then(|entry| entry.unclaimed.take());
                    if let Some((_, deadline)) = unclaimed {
                        self.deadlines.remove(&(deadline, *address));
                    }
                }
            }
            Record::Release { ips } => {
                for address in ips {
                    self.remove(*address, now);
                }
            }
            Record::Rest { ips } => {
                for address in ips {
                    if let Some(pool) = self.pool_mut(Family::of(*address))
                        && pool.refuses(*address).is_none()
                        && pool.is_fresh(*address)
                    {
                        pool.rest(*address, now);
                    }
                }
            }
        }
    }

    fn add(&mut self, address: IpAddr, owner: &Arc<str>, period: Option<Period>, now: Instant) {
        let pool = self.pool_mut(Family::of(address)).filter(|pool| pool.refuses(address).is_none());
        let stray = pool.is_none();
        if let Some(pool) = pool {
            pool.take(address);
        }
        let unclaimed = period.map(|period| (period, now + Duration::from_millis(period.millis)));
        if let Some((_, deadline)) = unclaimed {
            self.deadlines.insert((deadline, address));
        }
        self.entries.insert(address, Entry { owner: owner.clone(), unclaimed, stray });
        self.owners.entry(owner.clone()).or_default().insert(address);
    }

    fn remove(&mut self, address: IpAddr, now: Instant) {
        let Some(entry) = self.entries.remove(&address) else { return };
        if let Some((_, deadline)) = entry.unclaimed {
            self.deadlines.remove(&(deadline, address));
        }
        if let Some(addresses) = self.owners.get_mut(&entry.owner) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.owners.remove(&entry.owner);
            }
        }
        if !entry.stray
            && let Some(pool) = self.pool_mut(Family::of(address))
        {
            pool.put_back(address, now);
        }
    }

    pub(super) fn lease(&self, address: IpAddr) -> Option<Lease> {
        self.entries.get(&address).map(|entry| entry.lease(address))
    }

    pub(super) fn leases(&self) -> Vec<Lease> {
        self.entries.iter().map(|(address, entry)| entry.lease(*address)).collect()
    }

    pub(super) fn addresses_of(&self, owner: &str) -> Vec<IpAddr> {
        self.owners.get(owner).into_iter().flatten().copied().collect()
    }

    pub(super) fn router(&self, family: Family) -> Option<IpAddr> {
        self.owners.get(ROUTER)?.iter().copied().find(|address| Family::of(*address) == family)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(super) fn usage(&self, family: Family) -> Option<Usage> {
        self.pool(family).map(Pool::usage)
    }

    pub(super) fn strays(&self) -> Vec<Stray> {
        let strays = self.entries.iter().filter(|(_, entry)| entry.stray);
        strays
            .map(|(address, entry)| {
                let reason = match self.pool(Family::of(*address)) {
                    Some(pool) => pool.refuses(*address).unwrap_or_default().into(),
                    None => Cow::from(format!("no {} range is configured", Family::of(*address))),
                };
                Stray { address: *address, owner: entry.owner.clone(), reason }
            })
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn unclaimed(&self) -> usize {
        self.deadlines.len()
    }

    fn entry(&self, address: IpAddr) -> Result<&Entry> {
        self.entries.get(&address).ok_or_else(|| Error::not_found("allocation of address", address.to_string()))
    }

    fn check_free(&self, address: IpAddr) -> Result<()> {
        let family = Family::of(address);
        let unavailable = match self.pool(family) {
            Some(pool) => pool.refuses(address).map(|reason| (pool.network().to_string(), Cow::from(reason))),
            None => Some((family.to_string(), format!("no {family} range is configured").into())),
        };
        if let Some((pool, reason)) = unavailable {
            return Err(Error::AddressOutOfPool { address, pool, reason });
        }
        match self.entries.get(&address) {
            Some(entry) => Err(Error::AddressInUse { address, owner: entry.owner.to_string() }),
            None => Ok(()),
        }
    }

    fn pools(&self, families: Families) -> Result<Vec<&Pool>> {
        let wanted = [Family::Ipv4, Family::Ipv6].into_iter().filter(|family| families.include(*family));
        let pools: Vec<_> = wanted.filter_map(|family| self.pool(family)).collect();
        if pools.is_empty() {
            return Err(Error::invalid("family", format!("{families:?}"), "no range of this family is configured"));
        }
        Ok(pools)
    }

    fn pool(&self, family: Family) -> Option<&Pool> {
        match family {
            Family::Ipv4 => self.ipv4.as_ref(),
            Family::Ipv6 => self.ipv6.as_ref(),
        }
    }

    fn pool_mut(&mut self, family: Family) -> Option<&mut Pool> {
        match family {
            Family::Ipv4 => self.ipv4.as_mut(),
            Family::Ipv6 => self.ipv6.as_mut(),
        }
    }
}

impl Entry {
    fn lease(&self, address: IpAddr) -> Lease {
        let expiration = self.unclaimed.map(|(period, deadline)| Expiration { id: period.id, deadline });
        Lease { address, owner: self.owner.clone(), expiration, stray: self.stray }
    }
}

/// Checks what the caller gave, and draws the id that claims the allocation.
pub(super) fn check_request(owner: &str, lifetime: Lifetime) -> Result<Option<Period>> {
    check_owner(owner)?;
    match lifetime {
        Lifetime::Permanent => Ok(None),
        Lifetime::UnlessClaimed(period) => {
            check_period("claim period", period, Duration::from_millis(1))?;
            let millis = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
            Ok(Some(Period { id: ExpirationId::random()?, millis }))
        }
    }
}

/// An allocation's record as its caller sees it.
pub(super) fn allocation(record: &Record, now: Instant) -> Allocation {
    let mut allocation = Allocation::default();
    let Record::Allocate { ips, unless_claimed, .. } = record else { return allocation };
    for address in ips {
        match address {
            IpAddr::V4(address) => allocation.ipv4 = Some(*address),
            IpAddr::V6(address) => allocation.ipv6 = Some(*address),
        }
    }
    allocation.expiration =
        unless_claimed.map(|period| Expiration { id: period.id, deadline: now + Duration::from_millis(period.millis) });
    allocation
}
