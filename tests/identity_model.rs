//! Random histories of identities, with restarts from disk among them, must go exactly as in a model that is too plain to be wrong.

#[path = "common/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use podwire::identity::{IdentityAllocator, IdentityConfig, LocalIdentities, RESERVED, Version, World};
use podwire::{Clock, ErrorKind, Labels, ManualClock, SecurityId};
use proptest::prelude::*;

const DELAY: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
enum Step {
    Acquire(Vec<usize>),
    AcquireCidrs(Vec<usize>),
    /// Some of the identities there are, counted from the first, a reserved one in front.
    Release(Vec<usize>),
    Advance(u64),
    Expire,
    Restart,
    Look,
}

/// Label sets, with the identity of those that are reserved; `None` for those that can have none.
fn sets() -> Vec<(&'static [&'static str], Option<u32>)> {
    vec![
        (&["k8s:app=a"], Some(0)),
        (&["k8s:app=b"], Some(0)),
        (&["k8s:tier=x", "k8s:app=a"], Some(0)),
        (&["k8s:app=a", "reserved:init"], Some(0)),
        (&[], Some(5)),
        (&["reserved:init"], Some(5)),
        (&["reserved:host"], Some(1)),
        (&["reserved:remote-node", "reserved:kube-apiserver"], Some(7)),
        (&["k8s:app=a", "reserved:world"], None),
        (&["cidr:192.0.2.0/24"], None),
    ]
}

fn prefixes() -> Vec<(&'static str, &'static str)> {
    vec![
        ("192.0.2.0/24", "cidr:192.0.2.0/24,reserved:world-ipv4"),
        ("192.0.2.0/25", "cidr:192.0.2.0/25,reserved:world-ipv4"),
        ("2001:db8::/32", "cidr:2001-db8--0/32,reserved:world-ipv6"),
        ("0.0.0.0/0", "9"),
        ("::/0", "10"),
        ("192.0.2.1/24", ""),
    ]
}

/// Labels in order, as text.
fn text(labels: &[&str]) -> String {
    let mut labels = labels.to_vec();
    labels.sort_unstable();
    labels.join(",")
}

struct Model {
    entries: BTreeMap<u32, Entry>,
    next: BTreeMap<bool, u32>,
    seen: BTreeMap<u32, String>,
}

#[derive(Debug)]
struct Entry {
    labels: String,
    references: usize,
    deadline: Option<Instant>,
    /// Whether those who follow the changes have it.
    present: bool,
}

impl Model {
    fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            next: BTreeMap::from([(false, 256), (true, (1 << 24) + 1)]),
            seen: BTreeMap::new(),
        }
    }

    /// One reference more to what has these labels.
    fn acquire(&mut self, labels: &str) -> u32 {
        let known = self.entries.iter().find(|(_, entry)| entry.labels == labels).map(|(id, _)| *id);
        let id = known.unwrap_or_else(|| {
            let next = self.next.get_mut(&labels.starts_with("cidr:")).expect("both");
            *next += 1;
            *next - 1
        });
        let entry = self.entries.entry(id).or_insert(Entry {
            labels: labels.to_owned(),
            references: 0,
            deadline: None,
            present: true,
        });
        (entry.references, entry.deadline, entry.present) = (entry.references + 1, None, true);
        id
    }

    fn release(&mut self, ids: &[u32], now: Instant) -> bool {
        let count = |id: &u32| ids.iter().filter(|other| *other == id).count();
        let held = |id: &u32| self.entries.get(id).map_or(0, |entry| entry.references);
        let ordinary = |id: &&u32| **id > 255;
        if ids.iter().filter(ordinary).any(|id| held(id) < count(id)) {
            return false;
        }
        for id in ids.iter().filter(ordinary) {
            let entry = self.entries.get_mut(id).expect("held");
            entry.references -= 1;
            entry.deadline = (entry.references == 0).then_some(now + DELAY);
            entry.present = entry.references > 0 || !entry.labels.starts_with("cidr:");
        }
        true
    }

    fn expire(&mut self, now: Instant) -> Vec<u32> {
        let due = |entry: &Entry| entry.deadline.is_some_and(|deadline| deadline <= now);
        let gone: Vec<_> = self.entries.iter().filter(|(_, entry)| due(entry)).map(|(id, _)| *id).collect();
        gone.iter().for_each(|id| drop(self.entries.remove(id)));
        gone
    }

    fn restart(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            let present = !entry.labels.starts_with("cidr:");
            (entry.references, entry.deadline, entry.present) = (0, Some(now + DELAY), present);
        }
    }
}

struct Run<'a> {
    identities: Option<LocalIdentities>,
    model: Model,
    clock: Arc<ManualClock>,
    dir: &'a Path,
    seen: Version,
}

impl Run<'_> {
    fn real(&self) -> &LocalIdentities {
        self.identities.as_ref().expect("open")
    }

    fn open(&mut self) {
        self.identities = None; // the lock goes first
        let config = IdentityConfig::new(World::BothFamilies).release_delay(DELAY);
        let opened = LocalIdentities::open_with_clock(self.dir, config, self.clock.clone()).expect("opens");
        self.identities = Some(opened);
        self.seen = Version::NONE;
        self.model.restart(self.clock.now());
    }

    fn step(&mut self, step: &Step) {
        let now = self.clock.now();
        match step {
            Step::Acquire(wanted) => self.acquire(wanted),
            Step::AcquireCidrs(wanted) => self.acquire_cidrs(wanted),
            Step::Release(nth) => {
                let ids: Vec<_> = [5].into_iter().chain(self.model.entries.keys().copied()).collect();
                let ids: Vec<_> = nth.iter().map(|nth| ids[nth % ids.len()]).collect();
                let real = self.real().release_all(&ids.iter().copied().map(SecurityId::new).collect::<Vec<_>>());
                match self.model.release(&ids, now) {
                    true => real.expect("held"),
                    false => assert_eq!(real.expect_err("not held so often").kind(), ErrorKind::NotFound),
                }
            }
            Step::Advance(seconds) => self.clock.advance(Duration::from_secs(*seconds)),
            Step::Expire => {
                let mut gone: Vec<_> =
                    self.real().expire().expect("writable").iter().map(|gone| gone.id().get()).collect();
                gone.sort_unstable();
                assert_eq!(gone, self.model.expire(now));
            }
            Step::Restart => self.open(),
            Step::Look => self.look(),
        }
    }

    fn acquire(&mut self, wanted: &[usize]) {
        let wanted: Vec<_> = wanted.iter().map(|at| sets()[*at]).collect();
        let labels: Vec<_> = wanted.iter().map(|(labels, _)| Labels::parse(*labels).expect("labels")).collect();
        let real = self.real().acquire_all(&labels);
        if wanted.iter().any(|(_, id)| id.is_none()) {
            assert_eq!(real.expect_err("no such identity").kind(), ErrorKind::InvalidInput);
            return;
        }
        let ids = wanted.iter().map(|(labels, id)| match id {
            Some(0) | None => self.model.acquire(&text(labels)),
            Some(reserved) => *reserved,
        });
        let ids: Vec<_> = ids.collect();
        assert_eq!(real.expect("good sets").iter().map(|identity| identity.id().get()).collect::<Vec<_>>(), ids);
    }

    fn acquire_cidrs(&mut self, wanted: &[usize]) {
        let wanted: Vec<_> = wanted.iter().map(|at| prefixes()[*at]).collect();
        let parsed: Vec<IpNetwork> = wanted.iter().map(|(prefix, _)| prefix.parse().expect("a prefix")).collect();
        let real = self.real().acquire_cidrs(&parsed);
        if wanted.iter().any(|(_, labels)| labels.is_empty()) {
            assert_eq!(real.expect_err("host bits").kind(), ErrorKind::InvalidInput);
            return;
        }
        let ids: Vec<_> =
            wanted.iter().map(|(_, labels)| labels.parse().unwrap_or_else(|_| self.model.acquire(labels))).collect();
        let real = real.expect("good prefixes");
        assert_eq!(real.iter().map(|identity| identity.id().get()).collect::<Vec<_>>(), ids);
        for (identity, prefix) in real.iter().zip(parsed) {
            assert_eq!(identity.cidr(), identity.id().is_cidr().then_some(prefix));
        }
    }

    /// Follows the changes, and must see by them what there is.
    fn look(&mut self) {
        let changes = self.real().changes_since(self.seen);
        if changes.everything {
            self.model.seen.clear();
        }
        for gone in &changes.removed {
            assert_eq!(self.model.seen.remove(&gone.id().get()), Some(gone.labels().to_string()));
        }
        for come in &changes.added {
            assert_eq!(self.model.seen.insert(come.id().get(), come.labels().to_string()), None, "{come} came twice");
        }
        self.seen = changes.version;
        assert!(self.real().changes_since(self.seen).is_empty());
        let known: Vec<_> = self.model.seen.keys().copied().filter(|id| *id > 255).collect();
        let present = self.model.entries.iter().filter(|(_, entry)| entry.present);
        assert_eq!(known, present.map(|(id, _)| *id).collect::<Vec<_>>());
        assert_eq!(self.model.seen.len(), known.len() + RESERVED.len());
    }

    /// Everything that can be seen must agree.
    fn compare(&self) {
        let listed = self.real().list();
        let listed = listed.iter().filter(|identity| !identity.id().is_reserved());
        let real: Vec<_> = listed.map(|identity| (identity.id().get(), identity.labels().to_string())).collect();
        let model = self.model.entries.iter().map(|(id, entry)| (*id, entry.labels.clone()));
        assert_eq!(real, model.collect::<Vec<_>>());
        for (id, entry) in &self.model.entries {
            let id = SecurityId::new(*id);
            assert_eq!(self.real().references(id), Some(entry.references as u64), "{id}");
            let identity = self.real().get(id).expect("there");
            assert_eq!(self.real().find(identity.labels()), Some(identity));
        }
        assert_eq!(self.real().next_deadline(), self.model.entries.values().filter_map(|entry| entry.deadline).min());
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // mostly good ones: the bad are the last
    let several = |all: usize, good: usize| {
        prop_oneof![
            9 => prop::collection::vec(0..good, 0..5),
            1 => prop::collection::vec(0..all, 1..4),
        ]
    };
    let step = prop_oneof![
        6 => several(sets().len(), sets().len() - 2).prop_map(Step::Acquire),
        4 => several(prefixes().len(), prefixes().len() - 1).prop_map(Step::AcquireCidrs),
        8 => prop::collection::vec(0_usize..9, 1..4).prop_map(Step::Release),
        3 => (1_u64..900).prop_map(Step::Advance),
        2 => Just(Step::Expire),
        1 => Just(Step::Restart),
        3 => Just(Step::Look),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(random::config(128))]

    #[test]
    fn every_history_goes_as_in_the_model(steps in steps()) {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::new());
        let mut run = Run { identities: None, model: Model::new(), clock, dir: dir.path(), seen: Version::NONE };
        run.open();
        for step in &steps {
            run.step(step);
            run.compare();
        }
        run.look();
    }
}
