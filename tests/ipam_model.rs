//! Random histories, with restarts from disk among them, must go exactly as in a model that is too plain to be wrong.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use podwire::Error;
use podwire::ipam::{Clock, ExpirationId, Families, Family, Ipam, IpamConfig, Lifetime, ManualClock};
use proptest::prelude::*;

const DELAY: Duration = Duration::from_secs(20);
const OWNERS: [&str; 4] = ["a/0", "a/1", "b/0", "b/1"];

#[derive(Clone, Debug)]
enum Step {
    Next {
        owner: usize,
        families: Families,
        period: Option<u64>,
    },
    Many {
        owners: Vec<usize>,
        families: Families,
    },
    Given {
        owner: usize,
        ipv4: Option<u8>,
        ipv6: Option<u8>,
        period: Option<u64>,
    },
    /// Claims the nth lease, with its id or another's.
    Claim {
        nth: usize,
        right: bool,
    },
    Release {
        ipv4: Option<u8>,
        ipv6: Option<u8>,
    },
    ReleaseNth(usize),
    ReleaseOwner(usize),
    Advance(u64),
    Expire,
    Restart,
}

/// How a call ended, as far as the model can tell.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Addresses(Vec<IpAddr>),
    Done,
    Exhausted,
    InUse(String),
    OutOfPool,
    NotFound,
    WrongState,
    Invalid,
}

struct Model {
    pools: Vec<ModelPool>,
    leases: BTreeMap<IpAddr, ModelLease>,
    strict: bool,
}

/// Addresses in their natural order; those that were never used; those that rest, in the order of their release.
struct ModelPool {
    family: Family,
    all: Vec<IpAddr>,
    fresh: Vec<IpAddr>,
    resting: Vec<(IpAddr, Instant)>,
}

#[derive(Clone, Debug, PartialEq)]
struct ModelLease {
    owner: &'static str,
    unclaimed: Option<(Duration, Instant, ExpirationId)>,
}

impl Model {
    fn new(config: &Config) -> Self {
        let excluded = excluded();
        let pools = config.networks().into_iter().map(|network| {
            let family = if network.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
            let mut all: Vec<_> = network.iter().collect();
            all.remove(0);
            if family == Family::Ipv4 {
                all.pop();
            }
            all.retain(|address| !excluded.iter().any(|network| network.contains(*address)));
            ModelPool { family, fresh: all.clone(), all, resting: Vec::new() }
        });
        Self { pools: pools.collect(), leases: BTreeMap::new(), strict: config.strict }
    }

    fn next(&self, families: Families, now: Instant) -> Result<Vec<IpAddr>, Outcome> {
        let wanted = |pool: &&ModelPool| match families {
            Families::All => true,
            Families::Ipv4 => pool.family == Family::Ipv4,
            Families::Ipv6 => pool.family == Family::Ipv6,
        };
        let pools: Vec<_> = self.pools.iter().filter(wanted).collect();
        if pools.is_empty() {
            return Err(Outcome::Invalid);
        }
        let next = pools.into_iter().map(|pool| {
            let rested = pool.resting.first().filter(|(_, ready)| !self.strict || *ready <= now);
            pool.fresh.first().copied().or(rested.map(|(address, _)| *address)).ok_or(Outcome::Exhausted)
        });
        next.collect()
    }

    fn given(&self, addresses: &[IpAddr]) -> Result<(), Outcome> {
        if addresses.is_empty() {
            return Err(Outcome::Invalid);
        }
        for address in addresses {
            if !self.pools.iter().any(|pool| pool.all.contains(address)) {
                return Err(Outcome::OutOfPool);
            }
            if let Some(lease) = self.leases.get(address) {
                return Err(Outcome::InUse(lease.owner.to_owned()));
            }
        }
        Ok(())
    }

    fn add(&mut self, addresses: &[IpAddr], owner: &'static str, unclaimed: Option<(Duration, Instant, ExpirationId)>) {
        for address in addresses {
            for pool in &mut self.pools {
                pool.fresh.retain(|other| other != address);
                pool.resting.retain(|(other, _)| other != address);
            }
            self.leases.insert(*address, ModelLease { owner, unclaimed });
        }
    }

    fn remove(&mut self, addresses: &[IpAddr], now: Instant) {
        for address in addresses {
            self.leases.remove(address);
            for pool in self.pools.iter_mut().filter(|pool| pool.family == Family::of(*address)) {
                pool.resting.push((*address, now + DELAY));
            }
        }
    }

    fn restart(&mut self, now: Instant) {
        for (period, deadline, _) in self.leases.values_mut().filter_map(|lease| lease.unclaimed.as_mut()) {
            *deadline = now + *period;
        }
        for (_, ready) in self.pools.iter_mut().flat_map(|pool| &mut pool.resting) {
            *ready = now + DELAY;
        }
    }
}

#[derive(Clone, Debug)]
struct Config {
    ipv4: bool,
    ipv6_prefix: Option<u8>,
    strict: bool,
}

impl Config {
    fn networks(&self) -> Vec<IpNetwork> {
        let ipv4 = self.ipv4.then(|| "10.0.1.16/28".to_owned());
        let ipv6 = self.ipv6_prefix.map(|prefix| format!("fd00::/{prefix}"));
        ipv4.into_iter().chain(ipv6).map(|text| text.parse().expect("a network")).collect()
    }

    fn ipam(&self) -> IpamConfig {
        let config = IpamConfig::new().without_router().reuse_delay(DELAY).strict_reuse_delay(self.strict);
        let config = self.networks().into_iter().fold(config, IpamConfig::range);
        excluded().into_iter().fold(config, IpamConfig::exclude)
    }
}

fn excluded() -> [IpNetwork; 3] {
    ["10.0.1.18/32", "10.0.1.24/30", "fd00::2/127"].map(|text| text.parse().expect("a network"))
}

struct World<'a> {
    ipam: Option<Ipam>,
    model: Model,
    clock: Arc<ManualClock>,
    config: &'a Config,
    dir: &'a Path,
}

impl World<'_> {
    fn open(&mut self) {
        self.ipam = None;
        let opened = Ipam::open_with_clock(self.dir, self.config.ipam(), self.clock.clone()).expect("opens");
        assert_eq!(opened.1.strays, []);
        self.ipam = Some(opened.0);
    }

    fn ipam(&self) -> &Ipam {
        self.ipam.as_ref().expect("open")
    }

    /// Carries a step out in both worlds; gives what came of it in the real one and in the model.
    fn step(&mut self, step: &Step) -> (Outcome, Outcome) {
        let now = self.clock.now();
        match step {
            Step::Next { owner, families, period } => {
                let owner = OWNERS[*owner];
                let (lifetime, expected) = (lifetime(*period), self.model.next(*families, now));
                let real = self.ipam().allocate_next(owner, *families, lifetime);
                self.allocated(owner, *period, real, expected)
            }
            Step::Many { owners, families } => self.many(owners, *families, now),
            Step::Given { owner, ipv4, ipv6, period } => {
                let (owner, addresses) = (OWNERS[*owner], given(*ipv4, *ipv6));
                let expected = self.model.given(&addresses).map(|()| addresses.clone());
                let real = self.ipam().allocate_all(&addresses, owner, lifetime(*period));
                self.allocated(owner, *period, real, expected)
            }
            Step::Claim { nth, right } => self.claim(*nth, *right),
            Step::Release { ipv4, ipv6 } => self.release(given(*ipv4, *ipv6), now),
            Step::ReleaseNth(nth) => {
                self.release(self.model.leases.keys().nth(*nth).copied().into_iter().collect(), now)
            }
            Step::ReleaseOwner(owner) => {
                let owner = OWNERS[*owner];
                let held = self.model.leases.iter().filter(|(_, lease)| lease.owner == owner);
                let held: Vec<_> = held.map(|(address, _)| *address).collect();
                let expected = if held.is_empty() { Outcome::NotFound } else { Outcome::Addresses(held.clone()) };
                let real = released(self.ipam().release_owner(owner));
                self.model.remove(&held, now);
                (real, expected)
            }
            Step::Advance(seconds) => {
                self.clock.advance(Duration::from_secs(*seconds));
                (Outcome::Done, Outcome::Done)
            }
            Step::Expire => {
                let unclaimed = |(address, lease): (&IpAddr, &ModelLease)| Some((lease.unclaimed?.1, *address));
                let mut due: Vec<_> = self.model.leases.iter().filter_map(unclaimed).collect();
                due.retain(|(deadline, _)| *deadline <= now);
                due.sort();
                let due: Vec<_> = due.into_iter().map(|(_, address)| address).collect();
                let real = released(self.ipam().expire());
                self.model.remove(&due, now);
                (real, Outcome::Addresses(due))
            }
            Step::Restart => {
                self.open();
                self.model.restart(now);
                (Outcome::Done, Outcome::Done)
            }
        }
    }

    fn allocated(
        &mut self,
        owner: &'static str,
        period: Option<u64>,
        real: podwire::Result<podwire::ipam::Allocation>,
        expected: Result<Vec<IpAddr>, Outcome>,
    ) -> (Outcome, Outcome) {
        let id = real.as_ref().ok().and_then(|allocation| allocation.expiration).map(|expiration| expiration.id);
        let real = match real {
            Ok(allocation) => Outcome::Addresses(allocation.addresses().collect()),
            Err(error) => outcome(&error),
        };
        match expected {
            Err(expected) => (real, expected),
            Ok(addresses) => {
                let period = period.map(Duration::from_secs);
                let unclaimed = period.zip(id).map(|(period, id)| (period, self.clock.now() + period, id));
                self.model.add(&addresses, owner, unclaimed);
                (real, Outcome::Addresses(addresses))
            }
        }
    }

    fn many(&mut self, owners: &[usize], families: Families, now: Instant) -> (Outcome, Outcome) {
        let owners: Vec<_> = owners.iter().map(|owner| OWNERS[*owner]).collect();
        let real = match self.ipam().allocate_many(&owners, families, Lifetime::Permanent) {
            Ok(given) => Outcome::Addresses(given.iter().flat_map(|allocation| allocation.addresses()).collect()),
            Err(error) => outcome(&error),
        };
        let before: Vec<_> = self.model.pools.iter().map(|pool| (pool.fresh.clone(), pool.resting.clone())).collect();
        let mut given: Vec<IpAddr> = Vec::new();
        for owner in owners {
            match self.model.next(families, now) {
                Ok(addresses) => {
                    self.model.add(&addresses, owner, None);
                    given.extend(addresses);
                }
                Err(expected) => {
                    // none of them, then
                    self.model.leases.retain(|address, _| !given.contains(address));
                    for (pool, (fresh, resting)) in self.model.pools.iter_mut().zip(before) {
                        (pool.fresh, pool.resting) = (fresh, resting);
                    }
                    return (real, expected);
                }
            }
        }
        (real, Outcome::Addresses(given))
    }

    fn claim(&mut self, nth: usize, right: bool) -> (Outcome, Outcome) {
        let other: ExpirationId = "123e4567-e89b-42d3-a456-426614174000".parse().expect("an id");
        let Some((address, lease)) = self.model.leases.iter_mut().nth(nth) else {
            let real = self.ipam().claim("10.0.1.17".parse().expect("an address"), other);
            let free = !self.model.leases.contains_key(&"10.0.1.17".parse::<IpAddr>().expect("an address"));
            let expected = if free { Outcome::NotFound } else { settled(&real) };
            return (settled(&real), expected);
        };
        let address = *address;
        let (id, expected) = match lease.unclaimed {
            Some((_, _, id)) if right => (id, Outcome::Done),
            Some(_) => (other, Outcome::Invalid),
            None => (other, Outcome::WrongState),
        };
        if expected == Outcome::Done {
            lease.unclaimed = None;
        }
        (settled(&self.ipam().claim(address, id)), expected)
    }

    fn release(&mut self, addresses: Vec<IpAddr>, now: Instant) -> (Outcome, Outcome) {
        let real = released(self.ipam().release_all(&addresses));
        if addresses.iter().any(|address| !self.model.leases.contains_key(address)) {
            return (real, Outcome::NotFound);
        }
        self.model.remove(&addresses, now);
        (real, Outcome::Addresses(addresses))
    }

    /// Everything that can be seen must agree.
    fn compare(&self) {
        let real = self.ipam().leases().into_iter().map(|lease| {
            assert!(!lease.stray);
            (
                lease.address,
                lease.owner.to_string(),
                lease.expiration.map(|expiration| (expiration.deadline, expiration.id)),
            )
        });
        let model = self.model.leases.iter().map(|(address, lease)| {
            let unclaimed = lease.unclaimed.map(|(_, deadline, id)| (deadline, id));
            (*address, lease.owner.to_owned(), unclaimed)
        });
        assert_eq!(real.collect::<Vec<_>>(), model.collect::<Vec<_>>());
        for pool in &self.model.pools {
            let usage = self.ipam().usage(pool.family).expect("a pool");
            let used = self.model.leases.keys().filter(|address| Family::of(**address) == pool.family).count();
            assert_eq!((usage.allocated, usage.capacity), (used as u128, pool.all.len() as u128));
        }
        let deadlines = self.model.leases.values().filter_map(|lease| lease.unclaimed).map(|(_, deadline, _)| deadline);
        assert_eq!(self.ipam().next_deadline(), deadlines.min());
    }
}

fn lifetime(period: Option<u64>) -> Lifetime {
    period.map_or(Lifetime::Permanent, |seconds| Lifetime::UnlessClaimed(Duration::from_secs(seconds)))
}

fn given(ipv4: Option<u8>, ipv6: Option<u8>) -> Vec<IpAddr> {
    let ipv4 = ipv4.map(|last| IpAddr::from([10, 0, 1, last]));
    let ipv6 = ipv6.map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)]));
    ipv4.into_iter().chain(ipv6).collect()
}

fn released(result: podwire::Result<Vec<podwire::ipam::Lease>>) -> Outcome {
    match result {
        Ok(leases) => Outcome::Addresses(leases.iter().map(|lease| lease.address).collect()),
        Err(error) => outcome(&error),
    }
}

fn settled(result: &podwire::Result<()>) -> Outcome {
    result.as_ref().map_or_else(outcome, |()| Outcome::Done)
}

fn outcome(error: &Error) -> Outcome {
    match error {
        Error::PoolExhausted { .. } => Outcome::Exhausted,
        Error::AddressInUse { owner, .. } => Outcome::InUse(owner.clone()),
        Error::AddressOutOfPool { .. } => Outcome::OutOfPool,
        Error::NotFound { .. } => Outcome::NotFound,
        Error::WrongState { .. } => Outcome::WrongState,
        Error::InvalidInput { .. } => Outcome::Invalid,
        other => panic!("nothing in the model fails like this: {other}"),
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let owner = || 0..OWNERS.len();
    let families = || prop_oneof![3 => Just(Families::All), 1 => Just(Families::Ipv4), 1 => Just(Families::Ipv6)];
    let period = || prop::option::weighted(0.4, 1_u64..60);
    // one more than the ranges at both ends
    let (ipv4, ipv6) = (|| prop::option::of(15_u8..=32), || prop::option::of(0_u8..=16));
    let step = prop_oneof![
        8 => (owner(), families(), period()).prop_map(|(owner, families, period)| Step::Next { owner, families, period }),
        1 => (prop::collection::vec(owner(), 1..6), families()).prop_map(|(owners, families)| Step::Many { owners, families }),
        4 => (owner(), ipv4(), ipv6(), period())
            .prop_map(|(owner, ipv4, ipv6, period)| Step::Given { owner, ipv4, ipv6, period }),
        3 => (0_usize..20, any::<bool>()).prop_map(|(nth, right)| Step::Claim { nth, right }),
        1 => (ipv4(), ipv6()).prop_map(|(ipv4, ipv6)| Step::Release { ipv4, ipv6 }),
        5 => (0_usize..20).prop_map(Step::ReleaseNth),
        1 => owner().prop_map(Step::ReleaseOwner),
        3 => (1_u64..40).prop_map(Step::Advance),
        2 => Just(Step::Expire),
        2 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..80)
}

fn configs() -> impl Strategy<Value = Config> {
    let families = prop_oneof![
        Just((true, None)),
        (124_u8..=126).prop_map(|prefix| (false, Some(prefix))),
        (124_u8..=126).prop_map(|prefix| (true, Some(prefix))),
    ];
    (families, any::<bool>()).prop_map(|((ipv4, ipv6_prefix), strict)| Config { ipv4, ipv6_prefix, strict })
}

/// PROPTEST_CASES asks for a longer run.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").map_or(128, |cases| cases.parse().expect("a number of cases"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_goes_as_in_the_model(config in configs(), steps in steps()) {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::new());
        let mut world = World { ipam: None, model: Model::new(&config), clock, config: &config, dir: dir.path() };
        world.open();
        for (at, step) in steps.iter().enumerate() {
            let (real, expected) = world.step(step);
            prop_assert_eq!(real, expected, "step {}: {:?}", at, step);
            world.compare();
        }
    }
}
