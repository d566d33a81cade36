//! What is left of the allocations when a process is killed, or the disk is full, in the middle of its work.
//!
//! The work is done by this same test program, started again with one of the `child_*` tests and a directory in its environment.

#[path = "common/crash.rs"]
mod crash;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread;

use crash::{Child, kill_after, say, with_little_room};
use ipnetwork::IpNetwork;
use podwire::ErrorKind;
use podwire::ipam::{Families, Ipam, IpamConfig, Lifetime, ROUTER};

fn config() -> IpamConfig {
    let ranges = ["10.64.0.0/12", "fd00::/64"].map(|text| text.parse::<IpNetwork>().expect("a network"));
    ranges.into_iter().fold(IpamConfig::new(), IpamConfig::range)
}

/// Does nothing unless started by a test below: allocates, and releases every third, until it is killed.
#[test]
fn child_allocates_until_killed() {
    let Some(Child { dir, run }) = Child::of_environment() else { return };
    let (ipam, _) = Ipam::open(dir, config()).expect("opens after every kill");
    thread::scope(|scope| {
        for worker in 0..4 {
            let (ipam, run) = (&ipam, &run);
            scope.spawn(move || {
                for number in 0.. {
                    let owner = format!("{run}/{worker}/{number}");
                    say(&format!("asks {owner}"));
                    let pod = ipam.allocate_next(&owner, Families::All, Lifetime::Permanent).expect("free");
                    for address in pod.addresses() {
                        say(&format!("has {owner} {address}"));
                    }
                    if number % 3 == 0 {
                        say(&format!("leaves {owner}"));
                        ipam.release_owner(&owner).expect("allocated");
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
    has: BTreeMap<IpAddr, String>,
    leaving: BTreeSet<String>,
    left: BTreeSet<String>,
}

impl Told {
    fn hear(&mut self, said: &str) {
        let words: Vec<_> = said.split(' ').collect();
        match words[..] {
            ["asks", owner] => drop(self.asked.insert(owner.to_owned())),
            ["has", owner, address] => {
                let address = address.parse().expect("an address");
                if let Some(other) = self.has.insert(address, owner.to_owned()) {
                    assert!(self.leaving.contains(&other), "{address} was given to {owner} while {other} has it");
                }
            }
            ["leaves", owner] => drop(self.leaving.insert(owner.to_owned())),
            ["left", owner] => drop(self.left.insert(owner.to_owned())),
            _ => panic!("not understood: {said}"),
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_and_leaks_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut told = Told::default();
    for run in 0..12 {
        // at another point of its work in every run
        let lines = 40 + 397 * run;
        kill_after(lines, "child_allocates_until_killed", dir.path(), run, |said| told.hear(said));

        let (ipam, _) = Ipam::open(dir.path(), config()).expect("opens");
        let leases: BTreeMap<_, _> =
            ipam.leases().iter().map(|lease| (lease.address, lease.owner.to_string())).collect();
        for (address, owner) in told.has.iter().filter(|(_, owner)| !told.leaving.contains(*owner)) {
            assert_eq!(leases.get(address), Some(owner), "run {run}: {address} is lost");
        }
        for (address, owner) in leases.iter().filter(|(_, owner)| *owner != ROUTER) {
            assert!(told.asked.contains(owner), "run {run}: {address} is allocated to {owner}, who never asked");
            assert!(!told.left.contains(owner), "run {run}: {address} is allocated to {owner}, who has left");
            assert_eq!(ipam.addresses_of(owner).len(), 2, "run {run}: {owner} has half of what it asked for");
        }
    }
    assert!(told.has.len() > 1000, "only {} allocations: not much of a test", told.has.len());
}

/// Does nothing unless started by the test below, under a limit on the size of files: four threads allocate until that is reached.
#[test]
fn child_allocates_until_the_disk_is_full() {
    let Some(Child { dir, .. }) = Child::of_environment() else { return };
    let (ipam, _) = Ipam::open(dir, config()).expect("opens");
    let allocate = |owner: &str| ipam.allocate_next(owner, Families::All, Lifetime::Permanent);
    thread::scope(|scope| {
        for worker in 0..4 {
            let allocate = &allocate;
            scope.spawn(move || {
                let until_full = (0..).find_map(|number| {
                    let owner = format!("pod-{worker}-{number}");
                    let pod = allocate(&owner);
                    pod.map(|pod| pod.addresses().for_each(|address| say(&format!("has {owner} {address}")))).err()
                });
                let error = until_full.expect("the limit is reached");
                assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
                assert_eq!(error.errno(), Some(libc::EFBIG), "{error}");
                assert!(error.to_string().contains("ipam.journal"), "{error}");
            });
        }
    });
    // those that failed are undone, and so is what is tried now
    let before = ipam.leases();
    allocate(&"x".repeat(500)).expect_err("still no room for a record of this length");
    assert_eq!(ipam.leases(), before);
    say(&format!("ends {}", before.len()));
}

/// A write that stops in the middle for lack of room (here a limit on the size of files) fails with a typed error; what was there stays.
#[test]
fn a_full_disk_fails_the_call_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let said = with_little_room("child_allocates_until_the_disk_is_full", dir.path());

    let (ipam, restored) = Ipam::open(dir.path(), config()).expect("opens");
    assert!(!restored.torn, "the failed write was taken back at once");
    let has: BTreeSet<_> = said.iter().filter_map(|said| said.strip_prefix("has ").map(str::to_owned)).collect();
    let leases = ipam.leases();
    let found = leases.iter().filter(|lease| &*lease.owner != ROUTER);
    let found: BTreeSet<_> = found.map(|lease| format!("{} {}", lease.owner, lease.address)).collect();
    assert_eq!(found, has);
    assert!(has.len() > 100 && said.contains(&format!("ends {}", leases.len())), "{said:?}");
}
