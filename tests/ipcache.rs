//! The ipcache's sources on real kernel maps, against a model too plain to be wrong. Needs root.

mod common;
#[path = "common/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;

use common::bpf::BpfRoot;
use ipnetwork::IpNetwork;
use podwire::identity::World;
use podwire::ipcache::{Applied, Change, IpCacheManager, Source};
use podwire::tables::{IpCache, IpCacheEntry};
use podwire::{ErrorKind, SecurityId};
use proptest::prelude::*;

fn net(text: &str) -> IpNetwork {
    text.parse().expect("a prefix")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn direct(identity: u32) -> IpCacheEntry {
    IpCacheEntry::direct(SecurityId::new(identity))
}

fn tunnelled(identity: u32) -> IpCacheEntry {
    IpCacheEntry::tunnelled(SecurityId::new(identity), ip("192.168.0.2"))
}

/// A pinned map of this size.
fn pinned(root: &BpfRoot, entries: u32) -> PathBuf {
    let pin = root.path().join("cilium_ipcache_v2");
    IpCache::create(entries).expect("a map").map().pin(&pin).expect("pinned");
    pin
}

fn open(pin: &Path) -> IpCacheManager {
    IpCacheManager::open(IpCache::open_pinned(pin).expect("the pin"), World::BothFamilies).expect("opens")
}

fn kernel(pin: &Path) -> BTreeMap<IpNetwork, IpCacheEntry> {
    IpCache::open_pinned(pin).expect("the pin").entries().expect("readable").into_iter().collect()
}

fn changed(applied: podwire::Result<Applied>) -> bool {
    let applied = applied.expect("good prefixes");
    assert_eq!(applied.failed, 0, "{applied:?}");
    applied.changed()
}

#[test]
fn the_world_is_there_from_the_beginning() {
    let root = BpfRoot::new();
    let pin = pinned(&root, 16);
    let manager = open(&pin);
    assert_eq!(kernel(&pin), BTreeMap::from([(net("0.0.0.0/0"), direct(9)), (net("::/0"), direct(10))]));
    assert!(changed(manager.set_host_addresses(&[ip("192.168.0.1"), ip("fd00::1")])));
    assert!(!changed(manager.set_host_addresses(&[ip("fd00::1"), ip("192.168.0.1")])));
    assert!(changed(manager.set_host_addresses(&[ip("fd00::1")])));
    assert_eq!(kernel(&pin).get(&net("fd00::1/128")), Some(&direct(1)));
    assert_eq!(kernel(&pin).get(&net("192.168.0.1/32")), None);
    assert_eq!(manager.len(), 3);

    let single = IpCacheManager::open(IpCache::create(4).expect("a map"), World::OneFamily).expect("opens");
    let identities = ["10.0.0.1", "fd00::1"].map(|address| single.longest_match(ip(address)).expect("the world"));
    assert_eq!(identities.map(|peer| peer.entry), [direct(2), direct(2)]);
}

#[test]
fn the_highest_source_wins_and_the_next_follows() {
    let root = BpfRoot::new();
    let pin = pinned(&root, 16);
    let manager = open(&pin);
    let prefix = net("10.0.0.7/32");
    for (at, source) in Source::ALL.into_iter().enumerate() {
        assert!(changed(manager.upsert(source, prefix, direct(300 + at as u32))), "{source}");
        assert_eq!(kernel(&pin)[&prefix], direct(300 + at as u32));
    }
    assert!(!changed(manager.upsert(Source::Node, prefix, tunnelled(400))), "a lower source changed something");
    let said: Vec<_> = manager.sources(prefix).iter().map(|(source, _)| source.as_str()).collect();
    assert_eq!(said, ["endpoint", "host", "node", "policy", "world"]);
    assert!(changed(manager.withdraw(Source::Endpoint, prefix)));
    assert_eq!(kernel(&pin)[&prefix], direct(303));
    assert!(changed(manager.withdraw(Source::Host, prefix)));
    assert_eq!(kernel(&pin)[&prefix], tunnelled(400), "what was said while another won is forgotten");
    assert!(!changed(manager.withdraw(Source::Host, prefix)), "withdrew twice");
    let peer = manager.exact(prefix).expect("there");
    assert_eq!((peer.source, peer.entry, peer.found), (Source::Node, tunnelled(400), false));
}

#[test]
fn malformed_prefixes_change_nothing() {
    let root = BpfRoot::new();
    let pin = pinned(&root, 16);
    let manager = open(&pin);
    let changes = [Change::Upsert(net("10.0.0.0/24"), direct(300)), Change::Upsert(net("10.0.1.7/24"), direct(301))];
    let error = manager.apply(Source::Policy, &changes).expect_err("host bits");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("10.0.1.0/24"), "{error}");
    assert_eq!((manager.len(), kernel(&pin).len()), (2, 2));
}

#[test]
fn what_finds_no_room_is_reported_and_makes_no_other_fail() {
    let root = BpfRoot::new();
    let pin = pinned(&root, 4);
    let manager = open(&pin);
    let upserts = |last: u32| (1..=last).map(|n| Change::Upsert(net(&format!("10.0.0.{n}/32")), direct(300 + n)));
    let applied = manager.apply(Source::Node, &upserts(3).collect::<Vec<_>>()).expect("good prefixes");
    assert_eq!((applied.changed, applied.failed), (2, 1));
    let error = applied.into_result().expect_err("no room for one");
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert_eq!((kernel(&pin).len(), manager.cache().pending()), (4, 1));

    // a removal in the same call makes the room
    let swap = [Change::Upsert(net("10.0.9.0/24"), direct(999)), Change::Withdraw(net("10.0.0.1/32"))];
    assert!(changed(manager.apply(Source::Node, &swap)));
    assert_eq!(kernel(&pin).get(&net("10.0.9.0/24")), Some(&direct(999)));
    assert_eq!(manager.cache().pending(), 1);
}

#[test]
fn strange_entries_stay_until_the_content_is_complete() {
    let root = BpfRoot::new();
    let pin = pinned(&root, 16);
    let table = IpCache::open_pinned(&pin).expect("the pin");
    let strange = podwire::abi::IpCacheKey { cluster_id: 7, ..podwire::abi::IpCacheKey::of(net("10.0.0.0/24")) };
    table.map().insert(&strange, &direct(5).into(), Default::default()).expect("room");
    let manager = open(&pin);
    assert_eq!(manager.exact(net("10.0.0.0/24")), None, "an entry of another cluster is taken for one of this");
    assert_eq!(table.map().len().expect("readable"), 3);
    assert!(changed(manager.mark_complete()));
    assert_eq!(table.map().len().expect("readable"), 2);
    assert!(!changed(manager.mark_complete()));
}

#[test]
fn what_others_change_is_repaired() {
    let root = BpfRoot::new();
    let pin = pinned(&root, 16);
    let manager = open(&pin);
    assert!(changed(manager.upsert(Source::Endpoint, net("10.0.0.7/32"), direct(300))));
    let table = IpCache::open_pinned(&pin).expect("the pin");
    table.upsert(net("10.0.0.7/32"), &direct(1)).expect("room");
    assert!(changed(manager.resync()));
    assert_eq!(kernel(&pin)[&net("10.0.0.7/32")], direct(300));
    assert!(!changed(manager.resync()));
}

#[test]
fn sources_on_several_threads_end_where_the_last_word_is() {
    let root = BpfRoot::new();
    let pin = pinned(&root, 1024);
    let manager = open(&pin);
    let prefixes: Vec<_> = (0..32).map(|n| net(&format!("10.0.0.{n}/32"))).collect();
    let barrier = Barrier::new(Source::ALL.len() + 1);
    thread::scope(|scope| {
        for source in Source::ALL {
            let (manager, prefixes, barrier) = (&manager, &prefixes, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..60 {
                    let changes = prefixes.iter().enumerate().map(|(at, prefix)| match (at + round) % 3 {
                        0 => Change::Withdraw(*prefix),
                        _ => Change::Upsert(*prefix, direct(1000 * (source as u32 + 1) + round as u32)),
                    });
                    changed(manager.apply(source, &changes.collect::<Vec<_>>()));
                }
            });
        }
        let (manager, barrier) = (&manager, &barrier);
        scope.spawn(move || {
            barrier.wait();
            for _ in 0..300 {
                let peer = manager.longest_match(ip("10.0.0.9")).expect("at least the world");
                assert!(peer.entry.identity.get() >= 1000 || peer.prefix == net("0.0.0.0/0"), "{peer:?}");
            }
        });
    });
    let expected: BTreeMap<_, _> = manager.peers().into_iter().map(|peer| (peer.prefix, peer.entry)).collect();
    assert_eq!(kernel(&pin), expected);
    // the last round was 59: of every prefix with (at + 59) % 3 == 0 nobody says anything
    let said = prefixes.iter().enumerate().filter(|(at, _)| (at + 59) % 3 != 0);
    for (_, prefix) in said.clone() {
        assert_eq!(expected[prefix], direct(5059), "{prefix}");
    }
    assert_eq!(expected.len(), 2 + said.count());
}

// ---- random histories

/// What the sources said and what was found, in lists.
#[derive(Default)]
struct Model {
    said: Vec<(IpNetwork, Source, IpCacheEntry)>,
    found: Vec<(IpNetwork, IpCacheEntry)>,
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Source, Vec<(IpNetwork, Option<IpCacheEntry>)>),
    Replace(Source, Vec<(IpNetwork, IpCacheEntry)>),
    Restart,
    Complete,
}

impl Model {
    fn say(&mut self, source: Source, prefix: IpNetwork, entry: Option<IpCacheEntry>) {
        self.said.retain(|(other, by, _)| (*other, *by) != (prefix, source));
        self.said.extend(entry.map(|entry| (prefix, source, entry)));
        self.found.retain(|(other, entry)| *other != prefix || source < guess(entry));
    }

    fn replace(&mut self, source: Source, entries: &[(IpNetwork, IpCacheEntry)]) {
        let gone: Vec<_> = self.said.iter().filter(|(_, by, _)| *by == source).map(|(prefix, ..)| *prefix).collect();
        for prefix in gone.into_iter().filter(|prefix| !entries.iter().any(|(other, _)| other == prefix)) {
            self.say(source, prefix, None);
        }
        entries.iter().for_each(|(prefix, entry)| self.say(source, *prefix, Some(*entry)));
    }

    fn restart(&mut self) {
        self.found = self.in_force().into_iter().collect();
        self.said.clear();
        self.say(Source::World, net("0.0.0.0/0"), Some(direct(9)));
        self.say(Source::World, net("::/0"), Some(direct(10)));
    }

    fn in_force(&self) -> BTreeMap<IpNetwork, IpCacheEntry> {
        // the weakest first, so that the strongest is what stays; at equal strength what was said beats what was found
        let mut claims: Vec<_> =
            self.found.iter().map(|(prefix, entry)| (guess(entry), false, *prefix, *entry)).collect();
        claims.extend(self.said.iter().map(|(prefix, source, entry)| (*source, true, *prefix, *entry)));
        claims.sort_by_key(|(source, said, ..)| (*source, *said));
        claims.into_iter().map(|(_, _, prefix, entry)| (prefix, entry)).collect()
    }
}

fn guess(found: &IpCacheEntry) -> Source {
    match found.identity.get() {
        1 if found.tunnel_endpoint.is_none() => Source::Host,
        2 | 9 | 10 if found.tunnel_endpoint.is_none() => Source::World,
        id if id >= 1 << 24 && found.tunnel_endpoint.is_none() => Source::Policy,
        _ => Source::Node,
    }
}

/// Prefixes inside each other, of both families.
fn prefixes() -> Vec<IpNetwork> {
    let texts = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/24",
        "10.0.0.0/25",
        "10.0.0.128/25",
        "10.0.0.1/32",
        "10.0.0.129/32",
        "11.0.0.0/9",
        "::/0",
        "fd00::/16",
        "fd00::/64",
        "fd00::/127",
        "fd00::/128",
        "fd00::1/128",
        "fd00:1::/33",
        "2001:db8::/32",
    ];
    texts.iter().map(|text| net(text)).collect()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let prefix = || prop::sample::select(prefixes());
    let identities = vec![1, 2, 6, 9, 10, 300, 301, (1 << 24) + 1, (1 << 24) + 2];
    let entry = move || {
        (prop::sample::select(identities.clone()), prop::bool::weighted(0.2))
            .prop_map(|(identity, tunnel)| if tunnel { tunnelled(identity) } else { direct(identity) })
    };
    let source = || prop::sample::select(Source::ALL.to_vec());
    let changes = prop::collection::vec((prefix(), prop::option::weighted(0.6, entry())), 1..8);
    let entries = prop::collection::vec((prefix(), entry()), 0..6);
    let step = prop_oneof![
        12 => (source(), changes).prop_map(|(source, changes)| Step::Apply(source, changes)),
        4 => (source(), entries).prop_map(|(source, entries)| Step::Replace(source, entries)),
        2 => Just(Step::Restart),
        1 => Just(Step::Complete),
    ];
    prop::collection::vec(step, 1..40)
}

fn take(step: &Step, manager: &mut IpCacheManager, model: &mut Model, pin: &Path) -> bool {
    match step {
        Step::Apply(source, changes) => {
            changes.iter().for_each(|(prefix, entry)| model.say(*source, *prefix, *entry));
            let changes: Vec<_> = changes
                .iter()
                .map(|(prefix, entry)| entry.map_or(Change::Withdraw(*prefix), |entry| Change::Upsert(*prefix, entry)))
                .collect();
            changed(manager.apply(*source, &changes))
        }
        Step::Replace(source, entries) => {
            model.replace(*source, entries);
            changed(manager.replace(*source, entries))
        }
        Step::Restart => {
            let before = kernel(pin);
            *manager = open(pin);
            model.restart();
            before != kernel(pin)
        }
        Step::Complete => {
            model.found.clear();
            changed(manager.mark_complete())
        }
    }
}

fn addresses() -> Vec<IpAddr> {
    prefixes()
        .iter()
        .map(|prefix| prefix.ip())
        .chain(
            ["10.0.0.200", "10.9.9.9", "11.0.0.1", "11.200.0.1", "192.0.2.1", "fd00::7", "fd00:1:8000::", "2001:db9::"]
                .map(ip),
        )
        .collect()
}

proptest! {
    #![proptest_config(random::config(48))]

    #[test]
    fn every_history_ends_as_in_the_model(steps in steps()) {
        let root = BpfRoot::new();
        let pin = pinned(&root, 64);
        let (mut manager, mut model) = (open(&pin), Model::default());
        model.restart();
        for (at, step) in steps.iter().enumerate() {
            let before = kernel(&pin);
            let said_changed = take(step, &mut manager, &mut model, &pin);
            let (after, expected) = (kernel(&pin), model.in_force());
            prop_assert_eq!(&after, &expected, "step {}: {:?}", at, step);
            prop_assert_eq!(said_changed, before != after, "step {}: {:?}", at, step);

            let table = IpCache::open_pinned(&pin).expect("the pin");
            for address in addresses() {
                let around = expected.iter().filter(|(prefix, _)| prefix.contains(address));
                let longest = around.max_by_key(|(prefix, _)| prefix.prefix()).map(|(prefix, entry)| (*prefix, *entry));
                prop_assert_eq!(table.lookup(address).expect("readable"), longest.map(|(_, entry)| entry), "{}", address);
                let known = manager.longest_match(address).map(|peer| (peer.prefix, peer.entry));
                prop_assert_eq!(known, longest, "{}", address);
            }
            for prefix in prefixes() {
                prop_assert_eq!(manager.exact(prefix).map(|peer| peer.entry), expected.get(&prefix).copied(), "{}", prefix);
            }
        }
    }
}
