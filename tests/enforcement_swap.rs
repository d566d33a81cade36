//! Policies of endpoints swapped whole, on real kernel maps: what changes, what does not, and what a crash leaves. Needs root.
//!
//! The work that is killed is done by this same test program, started again with `child_swaps_until_killed` and a folder in its
//! environment.

mod common;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use common::bpf::{BpfRoot, kernel_at_least};
use podwire::enforcement::{PolicyRows, PolicyWriter};
use podwire::maps::MapInfo;
use podwire::maps::SyncState::{Delete, Insert, Sync};
use podwire::tables::{
    PolicyAction, PolicyDirection, PolicyL4, PolicyMap, PolicyMaps, PolicyMatch, PolicyVerdict, Protocol, Switches,
};
use podwire::{EndpointId, ErrorKind, SecurityId};

const FOLDER: &str = "PODWIRE_TEST_POLICY_FOLDER";
/// Endpoints in tests with many.
const MANY: u16 = 64;

fn id(number: u16) -> EndpointId {
    EndpointId::new(number).expect("not 0")
}

/// A policy of `size` entries, all of rule `cookie`.
fn rows(size: u16, cookie: u32) -> PolicyRows {
    let entries = (0..size).map(|port| {
        let matched = PolicyMatch {
            direction: PolicyDirection::Ingress,
            identity: SecurityId::new(300),
            l4: PolicyL4::port(Protocol::TCP, port),
        };
        (matched, PolicyVerdict { cookie, ..PolicyVerdict::new(PolicyAction::Allow, u32::MAX - 254) })
    });
    entries.collect()
}

/// A folder of pins with the outer map in it.
struct Node {
    root: BpfRoot,
    switches: Arc<Switches>,
}

impl Node {
    fn new() -> Self {
        let root = BpfRoot::new();
        fs::create_dir_all(root.maps()).expect("a folder on a bpffs");
        let policies = PolicyMaps::create().expect("maps");
        policies.map().pin(root.maps().join("podwire_policy")).expect("pinned");
        policies.outlines().map().pin(root.maps().join("podwire_policy_outlines")).expect("pinned");
        Self { root, switches: Arc::new(Switches::create().expect("a map")) }
    }

    fn outer(&self) -> PolicyMaps {
        PolicyMaps::open_pinned(self.root.maps()).expect("pinned")
    }

    fn writer(&self) -> PolicyWriter {
        PolicyWriter::open(self.outer(), self.switches.clone(), &self.root.maps()).expect("opens")
    }

    /// The kernel's ids of the map in force and of the one pinned.
    fn ids(&self, endpoint: EndpointId) -> (Option<u32>, Option<u32>) {
        ids(&self.root.maps(), endpoint)
    }

    /// The endpoints whose slots are filled; where looking into all of them takes long, into the first ones.
    fn filled(&self) -> Vec<EndpointId> {
        let outer = self.outer();
        if !PolicyMaps::lookups_wait() {
            return outer.endpoints().expect("readable");
        }
        (1..=MANY).map(id).filter(|endpoint| outer.policy_id(*endpoint).expect("readable").is_some()).collect()
    }

    /// What is pinned, but for the outer map.
    fn pins(&self) -> Vec<String> {
        let files = fs::read_dir(self.root.maps()).expect("a folder");
        let names = files.map(|file| file.expect("readable").file_name().into_string().expect("text"));
        let mut names: Vec<_> = names.filter(|name| !name.starts_with("podwire_")).collect();
        names.sort();
        names
    }
}

fn ids(folder: &Path, endpoint: EndpointId) -> (Option<u32>, Option<u32>) {
    let outer = PolicyMaps::open_pinned(folder).expect("pinned");
    let pinned = MapInfo::of_pin(folder.join(PolicyMap::name(endpoint))).ok().map(|info| info.id);
    (outer.policy_id(endpoint).expect("readable"), pinned)
}

/// The entries in force, read back.
fn in_force(folder: &Path, endpoint: EndpointId) -> PolicyRows {
    let outer = PolicyMaps::open_pinned(folder).expect("pinned");
    loop {
        let map = outer.policy_id(endpoint).expect("readable").expect("in force");
        // Replaced between the two calls, it is gone.
        if let Ok(policy) = PolicyMap::from_id(map, endpoint) {
            return policy.entries().expect("readable").into_iter().collect();
        }
    }
}

#[test]
fn a_policy_comes_into_force_whole() {
    let node = Node::new();
    let writer = node.writer();
    let generation = node.switches.generation().expect("readable");
    let swapped = writer.replace([(id(7), rows(3, 1)), (id(8), rows(0, 0))]).expect("fits");
    assert_eq!((swapped.endpoints, swapped.entries), (vec![id(7), id(8)], 3));
    assert_eq!(node.switches.generation().expect("readable"), generation + 1, "for both together");

    for (endpoint, expected) in [(id(7), rows(3, 1)), (id(8), rows(0, 0))] {
        assert_eq!(in_force(&node.root.maps(), endpoint), expected);
        assert_eq!(writer.rows(endpoint), Some(expected.clone()));
        let (slot, pin) = node.ids(endpoint);
        assert!(slot.is_some() && slot == pin, "{slot:?} in force, {pin:?} pinned");
        let info = MapInfo::of_pin(node.root.maps().join(PolicyMap::name(endpoint))).expect("pinned");
        assert_eq!(info.max_entries as usize, 2 * expected.len() + 256, "sized to its content");
    }
    assert_eq!(node.pins(), ["cilium_policy_v2_00007", "cilium_policy_v2_00008"]);
    assert_eq!(node.ids(id(9)), (None, None));
}

#[test]
fn what_is_in_force_is_not_written_again() {
    let node = Node::new();
    let writer = node.writer();
    writer.replace([(id(7), rows(3, 1)), (id(8), rows(3, 1))]).expect("fits");
    let (before, generation) = ((node.ids(id(7)), node.ids(id(8))), node.switches.generation().expect("readable"));
    let swapped = writer.replace([(id(7), rows(3, 1))]).expect("nothing to do");
    assert_eq!(swapped.endpoints, []);
    assert_eq!(node.switches.generation().expect("readable"), generation, "cached verdicts stay");

    let swapped = writer.replace([(id(7), rows(3, 1)), (id(8), rows(3, 2))]).expect("fits");
    assert_eq!(swapped.endpoints, [id(8)]);
    assert_eq!(node.ids(id(7)), before.0);
    assert_ne!(node.ids(id(8)), before.1);
    assert_eq!(writer.timings().unchanged, 2);
    assert_eq!((writer.timings().policies, writer.timings().entries), (3, 9));
    assert_eq!((writer.timings().fill.count, writer.timings().swap.count), (2, 2));
}

#[test]
fn what_somebody_else_did_to_a_policy_is_found_and_undone() {
    let node = Node::new();
    let writer = node.writer();
    let policies = [(id(7), rows(3, 1)), (id(8), rows(5, 2)), (id(9), rows(0, 0))];
    writer.replace(policies.clone()).expect("fits");
    let faults = || policies.each_ref().map(|(endpoint, _)| writer.fault(*endpoint).expect("readable"));
    assert_eq!((faults(), writer.repair_missing().expect("nothing to do")), (Default::default(), vec![]));
    assert!(!writer.repair(id(7)).expect("nothing to do") && !writer.repair(id(10)).expect("it has none"));

    let before = policies.each_ref().map(|(endpoint, _)| node.ids(*endpoint));
    assert!(node.outer().remove(id(7)).expect("it was there") && node.outer().remove(id(9)).expect("it was there"));
    let edited = PolicyMap::from_id(before[1].0.expect("in force"), id(8)).expect("a policy");
    let (matched, _) = rows(1, 2).as_slice()[0];
    assert!(edited.delete(&matched).expect("it was there"));
    let [seven, eight, nine] = faults().map(|fault| fault.unwrap_or_default());
    assert_eq!((seven.as_str(), &seven), ("its policy is not in force", &nine));
    assert!(eight.contains("was changed"), "{eight}");

    // entry by entry: one changed, one gone, one of somebody else's
    let foreign = PolicyMatch { identity: SecurityId::new(77), ..matched };
    let changed = rows(5, 2).as_slice()[2].0;
    edited.upsert(&foreign, &rows(1, 9).as_slice()[0].1).expect("room");
    edited.upsert(&changed, &rows(1, 9).as_slice()[0].1).expect("room");
    let entries = |endpoint| writer.entries(endpoint).expect("readable").expect("it has a policy");
    let mut expected: Vec<_> = rows(5, 2).iter().map(|(matched, verdict)| (*matched, *verdict, Sync)).collect();
    (expected[0].2, expected[2].2) = (Insert, Insert);
    expected.push((foreign, rows(1, 9).as_slice()[0].1, Delete));
    expected.sort_unstable_by_key(|(matched, ..)| *matched);
    assert_eq!(entries(id(8)), expected);
    assert!(entries(id(7)).len() == 3 && entries(id(7)).iter().all(|(_, _, state)| *state == Insert));
    assert_eq!((entries(id(9)), writer.entries(id(10)).expect("readable")), (vec![], None));

    let generation = node.switches.generation().expect("readable");
    assert_eq!(writer.repair_missing().expect("written again"), [id(7), id(9)]);
    assert!(node.switches.generation().expect("readable") > generation);
    assert_eq!(writer.fault(id(8)).expect("readable"), Some(eight), "what is in a map is looked at on demand");
    assert!(writer.repair(id(8)).expect("written again"));
    assert_eq!(faults(), <[Option<String>; 3]>::default());
    assert!(entries(id(7)).iter().chain(&entries(id(8))).all(|(_, _, state)| *state == Sync));
    for ((endpoint, expected), before) in policies.iter().zip(before) {
        let (slot, pin) = node.ids(*endpoint);
        assert!(slot == pin && slot != before.0, "{slot:?} in force, {pin:?} pinned, {before:?} before");
        assert_eq!(in_force(&node.root.maps(), *endpoint), *expected);
    }
}

#[test]
fn what_can_t_be_had_changes_nothing() {
    let node = Node::new();
    let writer = node.writer().with_limit(10);
    writer.replace([(id(1), rows(1, 1)), (id(2), rows(2, 2))]).expect("fits");
    let state = || (node.ids(id(1)), node.ids(id(2)), node.ids(id(3)), node.switches.generation().ok(), node.pins());
    let before = state();

    let error = writer.replace([(id(1), rows(5, 9)), (id(2), rows(11, 9)), (id(3), rows(1, 9))]).expect_err("too much");
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(error.to_string().contains("endpoint 2 (it would have 11 entries) is full (10 entries)"), "{error}");
    assert_eq!(state(), before);

    // Found only when the second map is being filled.
    let bad =
        rows(2, 9).iter().map(|(matched, verdict)| (*matched, PolicyVerdict { auth_type: 128, ..*verdict })).collect();
    let error = writer.replace([(id(1), rows(5, 9)), (id(2), bad), (id(3), rows(1, 9))]).expect_err("malformed");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(state(), before);

    assert_eq!(writer.timings().failed, 2);
    assert_eq!(writer.rows(id(1)), Some(rows(1, 1)));
    writer.replace([(id(1), rows(5, 9))]).expect("goes on");
    assert_eq!(in_force(&node.root.maps(), id(1)), rows(5, 9));
}

#[test]
fn what_no_packet_asks_for_changes_in_place() {
    let node = Node::new();
    let writer = node.writer();
    writer.replace([(id(1), rows(2, 1))]).expect("fits");
    let before = node.ids(id(1));
    let of = |identity: u32, count: u16| {
        let entry = |&(matched, verdict): &_| (PolicyMatch { identity: SecurityId::new(identity), ..matched }, verdict);
        rows(count, 7).iter().map(entry).collect::<Vec<(PolicyMatch, PolicyVerdict)>>()
    };
    let with = |identity, count| rows(2, 1).iter().copied().chain(of(identity, count)).collect::<PolicyRows>();
    let unmapped = [SecurityId::new(301)].into();
    let begin = |rows: &PolicyRows| writer.begin_around([(id(1), rows.clone())], &unmapped).expect("fits");

    // It comes, changes and goes; as the map is the same one, nobody waits.
    for count in [3, 100, 1, 0] {
        let wanted = with(301, count);
        let swapped = begin(&wanted).wait().expect("in force");
        assert_eq!((swapped.endpoints, swapped.patched), (vec![id(1)], 1));
        assert_eq!((node.ids(id(1)), in_force(&node.root.maps(), id(1))), (before, wanted.clone()));
        assert_eq!(writer.rows(id(1)), Some(wanted));
    }
    // Entries about another identity, or too many for the map, need another map.
    assert_eq!(begin(&with(302, 1)).wait().expect("in force").patched, 0);
    let second = node.ids(id(1));
    assert_ne!(second, before);
    begin(&rows(2, 1)).wait().expect("in force");
    let third = node.ids(id(1));
    assert_eq!(begin(&with(301, 300)).wait().expect("in force").patched, 0, "it is full");
    assert_ne!(node.ids(id(1)), third);
    assert_eq!(in_force(&node.root.maps(), id(1)), with(301, 300));
    assert_eq!(writer.timings().patched, 4);
}

#[test]
fn removal_clears_slot_and_pin() {
    let node = Node::new();
    let writer = node.writer();
    writer.replace([(id(1), rows(1, 1)), (id(2), rows(2, 2))]).expect("fits");
    let generation = node.switches.generation().expect("readable");
    let gone = writer.remove([id(1), id(3)]).expect("removed").wait().expect("removed");
    assert_eq!(gone.endpoints, [id(1)]);
    assert_eq!((node.ids(id(1)), writer.rows(id(1))), ((None, None), None));
    assert_eq!(node.switches.generation().expect("readable"), generation + 1);
    assert_eq!(writer.endpoints(), [id(2)]);
    assert_eq!(writer.remove([id(1)]).expect("gone").wait().expect("gone").endpoints, []);
    assert_eq!(node.switches.generation().expect("readable"), generation + 1, "nothing changed");
    writer.replace([(id(1), rows(1, 1))]).expect("fits again");
    assert_eq!(in_force(&node.root.maps(), id(1)), rows(1, 1));
}

#[test]
fn a_restart_adopts_without_a_gap() {
    let node = Node::new();
    node.writer().replace((1..=3).map(|number| (id(number), rows(number, 1)))).expect("fits");
    let before: Vec<_> = (1..=3).map(|number| node.ids(id(number))).collect();

    // As a crash leaves it between the swap and the pin that follows it.
    let swapped = PolicyMap::create(id(2), 1).expect("a map");
    swapped.fill(rows(1, 5).as_slice()).expect("fits");
    node.outer().replace(&[(id(2), &swapped)]).expect("in force");
    swapped.map().pin(node.root.maps().join("cilium_policy_v2_00002_new")).expect("pinned");
    // And before it: pinned aside, not in force.
    swapped.map().pin(node.root.maps().join("cilium_policy_v2_00003_new")).expect("pinned");

    let generation = node.switches.generation().expect("readable");
    let writer = node.writer();
    assert_eq!(writer.endpoints(), [id(1), id(2), id(3)]);
    assert_eq!(node.ids(id(1)), before[0], "not written");
    assert_eq!(node.ids(id(2)), (Some(swapped.map().info().id), Some(swapped.map().info().id)), "the pin followed");
    assert_eq!(node.ids(id(3)), before[2]);
    assert_eq!(writer.rows(id(2)), Some(rows(1, 5)));
    assert_eq!(node.switches.generation().expect("readable"), generation);

    let desired = [(id(1), rows(1, 1)), (id(2), rows(2, 1)), (id(3), rows(3, 1))];
    assert_eq!(writer.replace(desired).expect("fits").endpoints, [id(2)], "only what is not as desired");
    let gone = writer.retain(|endpoint| endpoint != id(3)).expect("removable");
    assert_eq!(gone, [id(3)]);
    assert_eq!(node.pins(), ["cilium_policy_v2_00001", "cilium_policy_v2_00002"]);
    assert_eq!(node.ids(id(3)), (None, None));
}

#[test]
fn what_nobody_pinned_is_found_and_removed() {
    if !kernel_at_least(6, 8) {
        writeln!(stderr().lock(), "skipped: what_nobody_pinned_is_found_and_removed: needs Linux 6.8").expect("write");
        return;
    }
    let node = Node::new();
    let stray = PolicyMap::create(id(9), 1).expect("a map");
    node.outer().replace(&[(id(65_535), &stray)]).expect("in force");
    let writer = node.writer();
    assert_eq!(writer.endpoints(), [], "not known");
    assert_eq!(writer.retain(|_| false).expect("removable"), [id(65_535)]);
    assert_eq!(node.ids(id(65_535)), (None, None));
}

#[test]
fn threads_swap_side_by_side() {
    let node = Node::new();
    let writer = node.writer();
    thread::scope(|scope| {
        for worker in 1..=8 {
            let writer = &writer;
            scope.spawn(move || {
                for round in 1..=20 {
                    // Each its own endpoint, and all of them endpoint 100.
                    let policies = [(id(worker), rows(worker, round)), (id(100), rows(worker, round))];
                    writer.replace(policies).expect("fits");
                }
            });
        }
    });
    for worker in 1..=8 {
        assert_eq!(in_force(&node.root.maps(), id(worker)), rows(worker, 20));
    }
    for endpoint in (1..=8).chain([100]).map(id) {
        let (slot, pin) = node.ids(endpoint);
        assert_eq!(slot, pin);
        assert_eq!(Some(in_force(&node.root.maps(), endpoint)), writer.rows(endpoint));
    }
}

#[test]
fn many_are_removed_together() {
    let node = Node::new();
    let writer = node.writer();
    writer.replace((1..=MANY).map(|number| (id(number), rows(1, 1)))).expect("fits");
    let gone = writer.remove((1..=MANY).map(id)).expect("removed").wait().expect("removed");
    assert_eq!(gone.endpoints.len(), usize::from(MANY));
    assert_eq!(node.filled(), []);
    assert_eq!(node.pins(), [""; 0]);
}

/// Does nothing unless started by the test below: swaps the policies of many endpoints until it is killed.
#[test]
fn child_swaps_until_killed() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else { return };
    let outer = PolicyMaps::open_pinned(&folder).expect("pinned");
    let switches = Arc::new(Switches::create().expect("a map"));
    let writer = PolicyWriter::open(outer, switches, &folder).expect("opens after every kill");
    println!("@ready");
    for round in 1.. {
        let policies = (1..=MANY).map(|number| (id(number), rows(number, round)));
        writer.begin(policies).expect("fits").wait().expect("waited");
    }
}

#[test]
fn a_kill_leaves_each_policy_whole() {
    let node = Node::new();
    node.writer().replace((1..=MANY).map(|number| (id(number), rows(number, 1)))).expect("fits");
    for run in 0..20 {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args(["child_swaps_until_killed", "--exact", "--nocapture"])
            .env(FOLDER, node.root.maps())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        lines
            .find(|line| line.as_ref().is_ok_and(|line| line.contains("@ready")))
            .expect("it got ready")
            .expect("text");
        // Somewhere in its second or third round.
        let start = in_force(&node.root.maps(), id(1));
        while in_force(&node.root.maps(), id(1)) == start {}
        for _ in 0..run * 50 {
            node.outer().policy_id(id(1)).expect("readable");
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        for number in 1..=MANY {
            let found = in_force(&node.root.maps(), id(number));
            let cookie = found.as_slice()[0].1.cookie;
            assert_eq!(found, rows(number, cookie), "endpoint {number} has half a policy");
        }
        let writer = node.writer();
        for number in 1..=MANY {
            let (slot, pin) = node.ids(id(number));
            assert_eq!(slot, pin, "endpoint {number}: the pin is another map than the one in force");
            assert_eq!(writer.rows(id(number)), Some(in_force(&node.root.maps(), id(number))));
        }
    }
}

#[test]
fn endpoints_to_come_have_slots_already() {
    let node = Node::new();
    let writer = node.writer();
    let upcoming: Vec<_> = (1..=5).map(id).collect();
    writer.replace([(id(1), rows(3, 1))]).expect("room");
    writer.stock(&upcoming).expect("room");
    assert_eq!((writer.stocked(&upcoming), writer.endpoints()), (4, vec![id(1)]), "one has a policy");
    let spare = node.outer().policy_id(id(2)).expect("readable").expect("its slot is filled");
    assert_eq!(node.pins(), ["cilium_policy_v2_00001"], "what is no policy yet is not shown");
    assert!(writer.retain(|endpoint| endpoint == id(1)).expect("nothing fails").is_empty(), "they are no strays");

    // into the spare slot: the same map, filled, pinned, and the generation has moved
    let generation = node.switches.generation().expect("readable");
    let swap = writer.begin([(id(2), rows(100, 2)), (id(1), rows(4, 1))]).expect("room");
    assert_eq!((swap.swapped().endpoints.as_slice(), swap.swapped().entries), (&[id(1), id(2)][..], 104));
    swap.wait().expect("in force");
    assert_eq!(node.ids(id(2)), (Some(spare), Some(spare)));
    assert_eq!(writer.rows(id(2)), Some(rows(100, 2)));
    assert_ne!(node.switches.generation().expect("readable"), generation);
    let policy = PolicyMap::from_id(spare, id(2)).expect("a policy");
    assert_eq!(policy.entries().expect("readable").into_iter().collect::<PolicyRows>(), rows(100, 2));

    // too large for one: a map of its own
    let spare = node.outer().policy_id(id(3)).expect("readable");
    writer.replace([(id(3), rows(2_000, 3))]).expect("room");
    let (in_force, pinned) = node.ids(id(3));
    assert!(in_force == pinned && in_force != spare, "{in_force:?}");

    // numbers that come no more are given back
    writer.stock(&[id(5), id(6)]).expect("room");
    assert_eq!((writer.stocked(&upcoming), writer.stocked(&[id(6)])), (1, 1));
    assert!(!writer.is_in_force(id(4)).expect("readable"), "emptied");
    writer.remove([id(5)]).expect("nothing fails").wait().expect("gone");
    assert_eq!(writer.stocked(&[id(5)]), 0);

    // what a process that ended had in stock goes without a word
    drop(writer);
    let writer = node.writer();
    assert_eq!(writer.endpoints(), [id(1), id(2), id(3)]);
    assert_eq!(writer.retain(|endpoint| endpoint.get() < 3).expect("nothing fails"), [id(3)]);
    let left: &[_] = if PolicyMaps::lookups_wait() { &[id(1), id(2), id(6)] } else { &[id(1), id(2)] };
    assert_eq!(
        node.filled(),
        left,
        "where looking into all slots takes long, one in stock stays until its number is used"
    );
}
