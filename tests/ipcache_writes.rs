//! What the ipcache's owner writes, how often and in which order, recorded by a store that needs no kernel.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use ipnetwork::IpNetwork;
use podwire::abi::{IpCacheKey, RemoteEndpointInfo};
use podwire::identity::World;
use podwire::ipcache::{Change, IpCacheManager, Source};
use podwire::maps::{CachedMap, Store};
use podwire::tables::IpCacheEntry;
use podwire::{Error, Result, SecurityId};

const MANY: u32 = 100_000;
/// More than this many entries a call, where there are so many.
const BATCH: u32 = 1000;

#[derive(Default)]
struct Recorded {
    content: HashMap<IpNetwork, IpCacheEntry>,
    calls: u32,
    log: Vec<(IpNetwork, Option<u32>)>,
    /// Writing this fails.
    broken: Option<IpNetwork>,
}

/// A map that outlives its owners.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Recorded>>);

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().expect("no panic while locked")
    }

    fn open(&self) -> IpCacheManager<Self> {
        IpCacheManager::over(CachedMap::new(self.clone()), World::BothFamilies).expect("readable")
    }

    /// Calls and entries written since the last time.
    fn written(&self) -> (u32, Vec<(IpNetwork, Option<u32>)>) {
        let mut recorded = self.lock();
        (std::mem::take(&mut recorded.calls), std::mem::take(&mut recorded.log))
    }
}

impl Recorded {
    fn put(&mut self, key: &IpCacheKey, value: &RemoteEndpointInfo) -> Result<()> {
        let prefix = key.prefix().expect("only prefixes are written");
        if self.broken == Some(prefix) {
            return Err(Error::system("insert into", "recorder", io::Error::from_raw_os_error(5)));
        }
        self.content.insert(prefix, (*value).into());
        self.log.push((prefix, Some(value.sec_identity)));
        Ok(())
    }

    fn remove(&mut self, key: &IpCacheKey) -> bool {
        let prefix = key.prefix().expect("only prefixes are removed");
        self.log.push((prefix, None));
        self.content.remove(&prefix).is_some()
    }
}

impl Store for Recorder {
    type Key = IpCacheKey;
    type Value = RemoteEndpointInfo;

    fn label(&self) -> &str {
        "recorder"
    }

    fn capacity(&self) -> usize {
        512_000
    }

    fn put(&self, key: &IpCacheKey, value: &RemoteEndpointInfo) -> Result<()> {
        let mut recorded = self.lock();
        recorded.calls += 1;
        recorded.put(key, value)
    }

    fn remove(&self, key: &IpCacheKey) -> Result<bool> {
        let mut recorded = self.lock();
        recorded.calls += 1;
        Ok(recorded.remove(key))
    }

    fn put_batch(&self, keys: &[IpCacheKey], values: &[RemoteEndpointInfo]) -> Result<(), usize> {
        let mut recorded = self.lock();
        recorded.calls += 1;
        keys.iter()
            .zip(values)
            .enumerate()
            .try_for_each(|(done, (key, value))| recorded.put(key, value).map_err(|_| done))
    }

    fn remove_batch(&self, keys: &[IpCacheKey]) -> Result<usize> {
        let mut recorded = self.lock();
        recorded.calls += 1;
        Ok(keys.iter().filter(|key| recorded.remove(key)).count())
    }

    fn for_each(&self, visit: &mut dyn FnMut(&IpCacheKey, &RemoteEndpointInfo)) -> Result<()> {
        let recorded = self.lock();
        recorded.content.iter().for_each(|(prefix, entry)| visit(&IpCacheKey::of(*prefix), &(*entry).into()));
        Ok(())
    }
}

fn net(text: &str) -> IpNetwork {
    text.parse().expect("a prefix")
}

fn direct(identity: u32) -> IpCacheEntry {
    IpCacheEntry::direct(SecurityId::new(identity))
}

/// The nth of many prefixes, half of them of each family.
fn nth(n: u32) -> IpNetwork {
    let address: IpAddr = match n % 2 {
        0 => (0x0a00_0000 + n).to_be_bytes().into(),
        _ => ((0xfd00_u128 << 112) + u128::from(n)).to_be_bytes().into(),
    };
    address.into()
}

fn many(identity: impl Fn(u32) -> u32) -> Vec<(IpNetwork, IpCacheEntry)> {
    (0..MANY).map(|n| (nth(n), direct(identity(n)))).collect()
}

#[test]
fn many_prefixes_take_few_calls_and_only_differences_are_written() {
    let map = Recorder::default();
    let manager = map.open();
    map.written();
    assert_eq!(manager.replace(Source::Node, &many(|_| 300)).expect("good").changed, MANY as usize);
    let (calls, log) = map.written();
    assert_eq!(log.len(), MANY as usize);
    assert!(calls <= MANY / BATCH, "{calls} calls");

    assert!(!manager.replace(Source::Node, &many(|_| 300)).expect("good").changed());
    assert_eq!(map.written(), (0, Vec::new()), "wrote what was there");

    // ten of another identity, three gone
    let mut entries = many(|n| if n % 10_000 == 1 { 301 } else { 300 });
    entries.retain(|(prefix, _)| ![nth(5), nth(50_000), nth(99_999)].contains(prefix));
    assert_eq!(manager.replace(Source::Node, &entries).expect("good").changed, 13);
    let (calls, log) = map.written();
    assert_eq!((calls, log.len()), (2, 13));

    let withdrawn: Vec<_> = (0..MANY).map(|n| Change::Withdraw(nth(n))).collect();
    assert_eq!(manager.apply(Source::Node, &withdrawn).expect("good").changed, MANY as usize - 3);
    let (calls, _) = map.written();
    assert!(calls <= MANY / BATCH, "{calls} calls");
    assert_eq!((manager.len(), map.lock().content.len()), (2, 2));
}

#[test]
fn what_nobody_sees_is_not_written() {
    let map = Recorder::default();
    let manager = map.open();
    let prefix = net("10.0.0.7/32");
    let _ = manager.upsert(Source::Endpoint, prefix, direct(300)).expect("good");
    map.written();
    // a lower source, the same again from another, and back and forth within one call
    assert!(!manager.upsert(Source::Policy, prefix, direct(400)).expect("good").changed());
    assert!(!manager.upsert(Source::Host, prefix, direct(300)).expect("good").changed());
    assert!(!manager.withdraw(Source::Endpoint, prefix).expect("good").changed());
    let back = [Change::Upsert(prefix, direct(7)), Change::Withdraw(prefix), Change::Withdraw(net("10.1.0.0/16"))];
    assert!(!manager.apply(Source::Endpoint, &back).expect("good").changed());
    assert_eq!(map.written(), (0, Vec::new()));
}

#[test]
fn what_takes_another_s_place_is_written_first() {
    let map = Recorder::default();
    let manager = map.open();
    let _ = manager.upsert(Source::Node, net("10.0.2.0/24"), direct(300)).expect("good");
    map.written();
    let halves = [(net("10.0.2.0/25"), direct(300)), (net("10.0.2.128/25"), direct(300))];
    assert!(manager.replace(Source::Node, &halves).expect("good").changed());
    let removal = (net("10.0.2.0/24"), None);
    let log = map.written().1;
    assert_eq!((log.len(), log.last()), (3, Some(&removal)), "{log:?}");
}

#[test]
fn a_restart_leaves_no_gap() {
    let map = Recorder::default();
    let earlier = map.open();
    let _ = earlier.replace(Source::Node, &many(|_| 300)).expect("good");
    let _ = earlier.set_host_addresses(&["192.168.0.1".parse().expect("an address")]).expect("good");
    let _ = earlier.upsert(Source::Policy, net("203.0.113.0/24"), direct((1 << 24) + 1)).expect("good");
    let _ = earlier.upsert(Source::Endpoint, net("10.255.0.9/32"), direct(302)).expect("good");
    drop(earlier);
    map.written();

    let manager = map.open();
    assert_eq!(map.written(), (0, Vec::new()), "the world was there");
    assert_eq!(manager.len(), MANY as usize + 5);
    let found = manager.longest_match("10.0.0.2".parse().expect("an address")).expect("found in the map");
    assert_eq!((found.entry, found.source, found.found), (direct(300), Source::Node, true));

    // a lower source speaks first: what was found goes on until those who may have said it do
    let _ = manager.upsert(Source::World, nth(2), direct(9)).expect("good");
    let _ = manager.replace(Source::Node, &many(|n| if n == 7 { 301 } else { 300 })[..50_000]).expect("good");
    assert_eq!(map.written(), (1, vec![(nth(7), Some(301))]));
    // an endpoint comes and goes in the place of one of the earlier run
    assert!(!manager.upsert(Source::Endpoint, net("10.255.0.9/32"), direct(302)).expect("good").changed());
    assert!(manager.withdraw(Source::Endpoint, net("10.255.0.9/32")).expect("good").changed());
    assert_eq!(map.written().1, [(net("10.255.0.9/32"), None)]);

    let removed = manager.mark_complete().expect("readable").changed;
    let (calls, log) = map.written();
    assert_eq!((removed, log.len()), (50_002, 50_002), "half of the nodes, the host and the policy had not spoken");
    assert!(log.iter().all(|(_, value)| value.is_none()) && calls <= MANY / BATCH, "{calls} calls");
    assert_eq!(manager.len(), 50_002);
}

#[test]
fn one_failure_stops_no_other() {
    let map = Recorder::default();
    let manager = map.open();
    map.lock().broken = Some(nth(777));
    let applied = manager.replace(Source::Node, &many(|_| 300)).expect("good");
    assert_eq!((applied.changed, applied.failed), (MANY as usize - 1, 1));
    assert!(applied.into_result().expect_err("one failed").to_string().contains("recorder"));
    assert_eq!(map.lock().content.len(), MANY as usize + 1);
    // known to the sources, and repaired by the next comparison
    assert_eq!(manager.exact(nth(777)).expect("said").entry, direct(300));
    map.lock().broken = None;
    assert_eq!(manager.cache().pending(), 1);
    assert!(!manager.replace(Source::Node, &many(|_| 300)).expect("good").changed(), "nothing new was said");
    assert_eq!(manager.cache().pending(), 1);
}
