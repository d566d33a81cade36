//! One family's range: which addresses can be handed out, and in which order. Owners are the ledger's business.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use super::config::IpamConfig;
use super::family::{Family, number};
use super::ranges::Ranges;
use super::types::Usage;
use crate::{Error, Result};

/// How many releases are remembered in order, once their delay is over.
const REMEMBERED: usize = 16_384;

/// What is no host's address, whatever the range says.
const NOBODYS: [&str; 7] =
    ["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "::/128", "::1/128", "ff00::/8"];

/// An address is in exactly one of five states: reserved, excluded, in use, resting (released before), fresh (all others).
#[derive(Debug)]
pub(super) struct Pool {
    network: IpNetwork,
    family: Family,
    first: u128,
    last: u128,
    reserved: Ranges,
    /// The reserved and the excluded ones.
    unusable: Ranges,
    /// All but the fresh ones.
    taken: Ranges,
    resting: Resting,
    in_use: u128,
    /// Fresh addresses are looked for from here on, and then from the beginning.
    cursor: u128,
    delay: Duration,
    strict: bool,
    remembered: usize,
}

impl Pool {
    pub(super) fn new(network: IpNetwork, config: &IpamConfig) -> Result<Self> {
        let (first, last) = bounds(network);
        let clip = |other: &IpNetwork| {
            let (begin, end) = bounds(*other);
            let same_family = other.is_ipv4() == network.is_ipv4();
            (same_family && begin <= last && end >= first).then(|| (begin.max(first), end.min(last)))
        };
        let mut reserved = Ranges::default();
        if network.is_ipv4() && network.prefix() < 31 {
            reserved.insert(first, first);
            reserved.insert(last, last);
        }
        if network.is_ipv6() && network.prefix() < 127 {
            reserved.insert(first, first);
        }
        for nobodys in NOBODYS.iter().filter_map(|text| text.parse().ok()).filter_map(|other| clip(&other)) {
            reserved.insert(nobodys.0, nobodys.1);
        }
        if reserved.first_gap(first, last).is_none() {
            return Err(Error::invalid("address range", network.to_string(), "none of its addresses can be a host's"));
        }
        let mut unusable = reserved.clone();
        for (begin, end) in config.excluded.iter().filter_map(clip) {
            unusable.insert(begin, end);
        }
        Ok(Self {
            network,
            family: if network.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 },
            first,
            last,
            reserved,
            taken: unusable.clone(),
            unusable,
            resting: Resting::default(),
            in_use: 0,
            cursor: first,
            delay: config.reuse_delay,
            strict: config.strict_reuse_delay,
            remembered: REMEMBERED,
        })
    }

    /// Why this address is never handed out; `None` if it can be.
    pub(super) fn refuses(&self, address: IpAddr) -> Option<&'static str> {
        let number = number(address);
        if Family::of(address) != self.family || number < self.first || number > self.last {
            Some("it lies outside the range")
        } else if self.reserved.contains(number) {
            Some("it is reserved: a network's, a broadcast or an anycast address, or no host's address at all")
        } else if self.unusable.contains(number) {
            Some("it is excluded by the configuration")
        } else {
            None
        }
    }

    /// The address that is next.
    pub(super) fn next(&self, now: Instant) -> Result<IpAddr> {
        let next = self.next_fresh().or_else(|| {
            let (number, ready) = self.resting.oldest()?;
            (!self.strict || ready <= now).then_some(number)
        });
        next.map(|number| self.family.address(number)).ok_or_else(|| self.exhausted())
    }

    /// How many addresses [`next`](Self::next) would give now, one after the other.
    pub(super) fn available(&self, now: Instant) -> u128 {
        let delayed = if self.strict { self.resting.not_ready(now) } else { 0 };
        self.capacity() - self.in_use - delayed as u128
    }

    pub(super) fn exhausted(&self) -> Error {
        Error::PoolExhausted { pool: self.network.to_string(), allocated: self.in_use, excluded: self.unusable.count() }
    }

    /// Puts a fresh or resting address to use.
    pub(super) fn take(&mut self, address: IpAddr) {
        let number = number(address);
        if !self.resting.remove(number) {
            if self.next_fresh() == Some(number) {
                self.cursor = number.saturating_add(1);
            }
            self.taken.insert(number, number);
        }
        self.in_use += 1;
    }

    /// Lets an address in use rest.
    pub(super) fn put_back(&mut self, address: IpAddr, now: Instant) {
        self.in_use -= 1;
        self.resting.push(number(address), now + self.delay);
        while let Some((oldest, ready)) = self.resting.oldest() {
            if self.resting.len() <= self.remembered || ready > now {
                break;
            }
            self.resting.remove(oldest);
            self.taken.remove(oldest);
        }
    }

    /// Lets a fresh address rest, as one of an earlier run's.
    pub(super) fn rest(&mut self, address: IpAddr, now: Instant) {
        let number = number(address);
        self.taken.insert(number, number);
        self.resting.push(number, now + self.delay);
    }

    pub(super) fn is_fresh(&self, address: IpAddr) -> bool {
        !self.taken.contains(number(address))
    }

    /// The resting addresses, the one released first in front.
    pub(super) fn resting(&self) -> impl Iterator<Item = IpAddr> {
        self.resting.order.values().map(|(number, _)| self.family.address(*number))
    }

    pub(super) fn resting_count(&self) -> usize {
        self.resting.len()
    }

    pub(super) fn network(&self) -> IpNetwork {
        self.network
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            network: self.network,
            allocated: self.in_use,
            capacity: self.capacity(),
            excluded: self.unusable.count(),
        }
    }

    fn next_fresh(&self) -> Option<u128> {
        self.taken.first_gap(self.cursor, self.last).or_else(|| self.taken.first_gap(self.first, self.last))
    }

    /// A range of 2^128 has more addresses than a u128 can count, but never without unusable ones.
    fn capacity(&self) -> u128 {
        let all_but_one = self.last - self.first;
        match self.unusable.count() {
            0 => all_but_one + 1,
            unusable => all_but_one - (unusable - 1),
        }
    }
}

/// Released addresses in the order of their release.
#[derive(Debug, Default)]
struct Resting {
    order: BTreeMap<u64, (u128, Instant)>,
    places: HashMap<u128, u64>,
    next: u64,
}

impl Resting {
    fn push(&mut self, number: u128, ready: Instant) {
        self.order.insert(self.next, (number, ready));
        self.places.insert(number, self.next);
        self.next += 1;
    }

    fn remove(&mut self, number: u128) -> bool {
        match self.places.remove(&number) {
            Some(place) => self.order.remove(&place).is_some(),
            None => false,
        }
    }

    fn oldest(&self) -> Option<(u128, Instant)> {
        self.order.values().next().copied()
    }

    fn not_ready(&self, now: Instant) -> usize {
        // in the order of release, and with one delay for all, the unready are at the end
        self.order.values().rev().take_while(|(_, ready)| *ready > now).count()
    }

    fn len(&self) -> usize {
        self.order.len()
    }
}

/// The first and the last address.
fn bounds(network: IpNetwork) -> (u128, u128) {
    let bits: u32 = if network.is_ipv4() { 32 } else { 128 };
    let host_bits = bits - u32::from(network.prefix());
    let mask = if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 };
    let first = number(network.ip()) & !mask;
    (first, first | mask)
}

#[cfg(test)]
mod tests;
