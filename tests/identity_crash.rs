//! What is left of the identities when a process is killed, or the disk is full, in the middle of its work.
//!
//! The work is done by this same test program, started again with one of the `child_*` tests and a directory in its environment.

#[path = "common/crash.rs"]
mod crash;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crash::{Child, kill_after, say, with_little_room};
use podwire::identity::{IdentityAllocator, IdentityConfig, LocalIdentities, World};
use podwire::{ErrorKind, Labels, SecurityId};

/// What nobody uses may go at once.
fn open(dir: &Path) -> LocalIdentities {
    let config = IdentityConfig::new(World::BothFamilies).release_delay(Duration::ZERO);
    LocalIdentities::open(dir, config).expect("opens after every crash")
}

fn labels(owner: &str) -> Labels {
    Labels::parse([format!("k8s:owner={owner}")]).expect("a label")
}

/// Does nothing unless started by a test below: takes up what is there, acquires more and gives up every third, until it is killed.
#[test]
fn child_acquires_until_killed() {
    let Some(Child { dir, run }) = Child::of_environment() else { return };
    let identities = open(&dir);
    for known in identities.list() {
        assert_eq!(identities.acquire(known.labels()).expect("known"), known);
    }
    thread::scope(|scope| {
        for worker in 0..4 {
            let (identities, run) = (&identities, &run);
            scope.spawn(move || {
                for number in 0.. {
                    // two workers ask for the same at times
                    let owner = format!("{run}.{}.{number}", worker % 3);
                    say(&format!("asks {owner}"));
                    let identity = identities.acquire(&labels(&owner)).expect("free");
                    say(&format!("has {owner} {}", identity.id()));
                    if number % 3 == 0 && worker % 3 != 0 {
                        say(&format!("leaves {owner}"));
                        identities.release(identity.id()).expect("held");
                        identities.expire().expect("writable");
                        say(&format!("left {owner}"));
                    }
                }
            });
        }
    });
}

/// What the children said, over all runs.
#[derive(Default)]
struct Told {
    asked: BTreeSet<String>,
    has: BTreeMap<String, SecurityId>,
    leaving: BTreeSet<String>,
    left: BTreeSet<String>,
}

impl Told {
    fn hear(&mut self, said: &str) {
        let words: Vec<_> = said.split(' ').collect();
        match words[..] {
            ["asks", owner] => drop(self.asked.insert(owner.to_owned())),
            ["has", owner, id] => {
                let id = id.parse().expect("a number");
                let before = self.has.insert(owner.to_owned(), id);
                assert!(before.is_none_or(|before| before == id), "{owner} has {before:?} and {id}");
            }
            ["leaves", owner] => drop(self.leaving.insert(owner.to_owned())),
            ["left", owner] => drop(self.left.insert(owner.to_owned())),
            _ => panic!("not understood: {said}"),
        }
    }
}

#[test]
fn a_killed_process_changes_no_number() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut told = Told::default();
    for run in 0..12 {
        // at another point of its work in every run
        let lines = 40 + 397 * run;
        kill_after(lines, "child_acquires_until_killed", dir.path(), run, |said| told.hear(said));

        let identities = open(dir.path());
        for (owner, id) in told.has.iter().filter(|(owner, _)| !told.leaving.contains(*owner)) {
            let found = identities.find(&labels(owner)).map(|identity| identity.id());
            assert_eq!(found, Some(*id), "run {run}: {owner} has another number");
        }
        for identity in identities.list().iter().filter(|identity| !identity.id().is_reserved()) {
            let owner = identity.labels().value("k8s", "owner").expect("all have one");
            assert!(told.asked.contains(owner), "run {run}: nobody asked for {identity}");
            assert!(!told.left.contains(owner), "run {run}: {identity} was removed");
        }
    }
    assert!(
        told.has.len() > 1000 && told.left.len() > 100,
        "{} and {}: not much of a test",
        told.has.len(),
        told.left.len()
    );
}

/// Does nothing unless started by the test below, under a limit on the size of files: four threads acquire until that is reached.
#[test]
fn child_acquires_until_the_disk_is_full() {
    let Some(Child { dir, .. }) = Child::of_environment() else { return };
    let identities = open(&dir);
    thread::scope(|scope| {
        for worker in 0..4 {
            let identities = &identities;
            scope.spawn(move || {
                let until_full = (0..).find_map(|number| {
                    let owner = format!("{worker}.{number}");
                    let identity = identities.acquire(&labels(&owner));
                    identity.map(|identity| say(&format!("has {owner} {}", identity.id()))).err()
                });
                let error = until_full.expect("the limit is reached");
                assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
                assert_eq!(error.errno(), Some(libc::EFBIG), "{error}");
                assert!(error.to_string().contains("identities.journal"), "{error}");
            });
        }
    });
    // those that failed never were, and neither is what is tried now
    let (before, version) = (identities.list(), identities.version());
    identities.acquire(&labels(&"x".repeat(200))).expect_err("still no room for a record of this length");
    assert_eq!((identities.list(), identities.version()), (before, version));
    say(&format!("ends {}", identities.list().len()));
}

/// A write that stops in the middle for lack of room (here a limit on the size of files) fails with a typed error; what was there stays.
#[test]
fn a_full_disk_fails_the_call_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let said = with_little_room("child_acquires_until_the_disk_is_full", dir.path());

    let identities = open(dir.path());
    let has: BTreeSet<_> = said.iter().filter_map(|said| said.strip_prefix("has ").map(str::to_owned)).collect();
    let listed = identities.list();
    let found = listed.iter().filter(|identity| !identity.id().is_reserved());
    let found: BTreeSet<_> = found
        .map(|identity| format!("{} {}", identity.labels().value("k8s", "owner").expect("all have one"), identity.id()))
        .collect();
    assert_eq!(found, has);
    assert!(has.len() > 100 && said.contains(&format!("ends {}", listed.len())), "{said:?}");
}
