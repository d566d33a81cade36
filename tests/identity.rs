//! Identities: how long they last, what is on disk, many threads, numbers used up.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use podwire::identity::{IdentityAllocator, IdentityConfig, LocalIdentities, Version, World};
use podwire::{ErrorKind, Labels, ManualClock, SecurityId};

const DELAY: Duration = Duration::from_secs(600);

fn labels(name: impl std::fmt::Display) -> Labels {
    Labels::parse([format!("k8s:app={name}")]).expect("a label")
}

fn in_memory() -> (LocalIdentities, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new());
    (LocalIdentities::with_clock(config(), clock.clone()).expect("good"), clock)
}

fn config() -> IdentityConfig {
    IdentityConfig::new(World::BothFamilies)
}

#[test]
fn an_identity_outlasts_its_last_user_by_the_delay() {
    let (identities, clock) = in_memory();
    let web = identities.acquire(&labels("web")).expect("free");
    assert_eq!(identities.acquire(&labels("web")).expect("known"), web);
    identities.release(web.id()).expect("held twice");
    assert_eq!(identities.next_deadline(), None, "somebody uses it");
    identities.release(web.id()).expect("held once");
    assert_eq!(identities.release(web.id()).expect_err("held no more").kind(), ErrorKind::NotFound);

    clock.advance(DELAY - Duration::from_millis(1));
    assert_eq!(identities.expire().expect("in memory"), []);
    assert_eq!(identities.acquire(&labels("web")).expect("there"), web, "made anew within the delay");
    clock.advance(2 * DELAY);
    assert_eq!(identities.expire().expect("in memory"), [], "somebody uses it");
    identities.release(web.id()).expect("held once");
    clock.advance(DELAY);
    assert_eq!(identities.expire().expect("in memory"), std::slice::from_ref(&web));
    assert_eq!((identities.get(web.id()), identities.find(&labels("web"))), (None, None));
    assert_ne!(identities.acquire(&labels("web")).expect("free").id(), web.id(), "numbers are used again last");
}

#[test]
fn reserved_identities_need_no_account() {
    let (identities, clock) = in_memory();
    let init = identities.acquire(&Labels::new()).expect("reserved");
    assert_eq!(init.to_string(), "5 (reserved:init)");
    identities.release(init.id()).and_then(|()| identities.release(init.id())).expect("nobody counts");
    clock.advance(2 * DELAY);
    assert_eq!(identities.expire().expect("in memory"), []);
    assert_eq!(identities.list().len(), 10);
    assert_eq!(identities.references(init.id()), None);
    let single = LocalIdentities::new(IdentityConfig::new(World::OneFamily)).expect("good");
    let everything = single.acquire_cidr("::/0".parse().expect("a prefix")).expect("the world");
    assert_eq!(everything.id(), SecurityId::WORLD);
}

#[test]
fn a_delay_without_end_is_refused_and_leaves_no_trace() {
    let dir = tempfile::tempdir().expect("a directory");
    let endless = config().release_delay(Duration::MAX);
    let error =
        LocalIdentities::open(dir.path().join("identities"), endless).expect_err("no deadline can be that late");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(!dir.path().join("identities").exists());
}

#[test]
fn a_second_process_is_kept_away() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = LocalIdentities::open(dir.path(), config()).expect("opens");
    assert_eq!(LocalIdentities::open(dir.path(), config()).expect_err("held").kind(), ErrorKind::Busy);
    drop(first);
    LocalIdentities::open(dir.path(), config()).expect("free again");
}

/// All numbers for label sets given out: the next is refused, and those released come again in the order of their release, also
/// after restarts.
#[test]
fn numbers_run_out_and_come_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(ManualClock::new());
    let open = || LocalIdentities::open_with_clock(dir.path(), config(), clock.clone()).expect("opens");
    let all: Vec<_> = (256..=65_535).map(labels).collect();
    let acquire_all = |identities: &LocalIdentities| {
        let ids = identities.acquire_all(&all).expect("room for all").into_iter().map(|identity| identity.id().get());
        assert!(ids.eq(256..=65_535));
    };
    let identities = open();
    acquire_all(&identities);
    let version = identities.version();
    let error = identities.acquire_all(&[labels(300), labels("more")]).expect_err("no number is left");
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(error.to_string().contains("65280"), "{error}");
    assert_eq!((identities.version(), identities.references(SecurityId::new(300))), (version, Some(1)));
    identities.acquire_cidr("192.0.2.0/24".parse().expect("a prefix")).expect("those of prefixes are others");

    drop(identities);
    let identities = open();
    acquire_all(&identities);
    for id in [40_000, 300, 20_000] {
        identities.release(SecurityId::new(id)).expect("held");
        clock.advance(DELAY);
        assert!(identities.expire().expect("writable").iter().any(|gone| gone.id().get() == id));
    }
    assert_eq!(identities.acquire(&labels("new")).expect("free").id().get(), 40_000);
    drop(identities);
    let identities = open();
    let next = identities.acquire_all(&[labels("newer"), labels("newest")]).expect("two are free");
    assert_eq!(next.iter().map(|identity| identity.id().get()).collect::<Vec<_>>(), [300, 20_000]);
}

#[test]
fn numbers_left_in_the_kernel_are_given_out_last() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || LocalIdentities::open(dir.path(), config()).expect("opens");
    let identities = open();
    let known = identities.acquire(&labels("known")).expect("free");
    identities.avoid([0, 5, 256, 270, 16_777_220, u32::MAX].map(SecurityId::new));
    assert_eq!(identities.acquire(&labels("known")).expect("there"), known);
    assert_eq!(identities.acquire(&labels("new")).expect("free").id().get(), 271);
    let prefix = identities.acquire_cidr("192.0.2.0/24".parse().expect("a prefix")).expect("free");
    assert_eq!(prefix.id().get(), 16_777_221);
    drop(identities);

    // none is lost by that
    let identities = open();
    let all = identities.acquire_all(&(2..65_280).map(labels).collect::<Vec<_>>()).expect("room for all but two");
    assert_eq!(all.last().expect("many").id().get(), 270);
    assert_eq!(identities.acquire(&labels("more")).expect_err("all are taken").kind(), ErrorKind::Exhausted);
}

#[test]
fn the_journal_does_not_grow_without_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(ManualClock::new());
    let open = || LocalIdentities::open_with_clock(dir.path(), config(), clock.clone()).expect("opens");
    let identities = open();
    let kept = identities.acquire(&labels("kept")).expect("free");
    let mut sizes = Vec::new();
    for round in 0..12 {
        let sets: Vec<_> = (0..1000).map(|n| labels(format!("{round}-{n}"))).collect();
        let acquired = identities.acquire_all(&sets).expect("free");
        assert_eq!(acquired[0].id().get(), 257 + 1000 * round);
        identities.release_all(&acquired.iter().map(|identity| identity.id()).collect::<Vec<_>>()).expect("held");
        clock.advance(DELAY);
        assert_eq!(identities.expire().expect("writable").len(), 1000);
        sizes.push(fs::metadata(dir.path().join("identities.journal")).expect("there").len());
    }
    assert!(sizes.windows(2).any(|pair| pair[1] < pair[0]), "never rewritten: {sizes:?}");
    drop(identities);
    let identities = open();
    assert_eq!(identities.find(&labels("kept")), Some(kept));
    assert_eq!(identities.list().len(), 11);
    assert_eq!(identities.acquire(&labels("new")).expect("free").id().get(), 12_257, "a number that rests was taken");
}

#[test]
fn a_journal_that_contradicts_itself_is_refused() {
    use podwire::state::Journal;
    let add = |id: u32, labels: &str| serde_json::json!({ "add": { "id": id, "labels": labels.split(',').collect::<Vec<_>>() } });
    let table = [
        (vec![add(256, "k8s:app=a"), add(256, "k8s:app=b")], "while it is in use"),
        (vec![add(256, "k8s:app=a"), add(257, "k8s:app=a")], "gets 257 too"),
        (vec![add(5, "k8s:app=a")], "can't stand for"),
        (vec![add(256, "cidr:192.0.2.0/24,reserved:world-ipv4")], "can't stand for"),
        (vec![add(256, "reserved:host")], "is 1, never 256"),
        (vec![add(256, "k8s:app=a,reserved:world")], "can't be mixed"),
        (vec![serde_json::json!({ "remove": { "ids": [256] } })], "without having been there"),
        (vec![add(256, "k8s:app=a"), serde_json::json!({ "rest": { "ids": [256] } })], "while it is in use"),
    ];
    for (records, reason) in table {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut journal, _) = Journal::open(dir.path().join("identities.journal")).expect("new");
        journal.append(&records).expect("written");
        drop(journal);
        let error = LocalIdentities::open(dir.path(), config()).expect_err(reason);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(reason) && error.to_string().contains("identities.journal"), "{error}");
    }
}

#[test]
fn who_is_far_behind_is_told_everything() {
    let (identities, clock) = in_memory();
    let start = identities.version();
    assert!(identities.changes_since(Version::NONE).everything);
    for _ in 0..33 {
        let sets: Vec<_> = (0..1000).map(|n| labels(format!("x{n}"))).collect();
        let acquired = identities.acquire_all(&sets).expect("free");
        identities.release_all(&acquired.iter().map(|identity| identity.id()).collect::<Vec<_>>()).expect("held");
        clock.advance(DELAY);
        identities.expire().expect("in memory");
    }
    let latest = identities.version();
    assert!(identities.changes_since(latest).is_empty());
    let behind = identities.changes_since(start);
    assert!(behind.everything && behind.removed.is_empty());
    assert_eq!((behind.version, behind.added.len()), (latest, 10));
}

/// While somebody holds an identity, it stands for the same labels and nobody else has its number, whatever expires meanwhile.
#[test]
fn threads_that_come_and_go() {
    let dir = tempfile::tempdir().expect("a directory");
    // what is released may go at once
    let open = || LocalIdentities::open(dir.path(), config().release_delay(Duration::ZERO)).expect("opens");
    let identities = open();
    let busy = AtomicBool::new(true);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let identities = &identities;
                scope.spawn(move || {
                    for round in 0..60 {
                        // one that somebody may just have given up, and that may be going
                        for _ in 0..20 {
                            let shared = identities.acquire(&labels("shared")).expect("free");
                            assert_eq!(identities.find(shared.labels()).as_ref(), Some(&shared));
                            identities.release(shared.id()).expect("held");
                        }
                        let sets = [labels(format!("shared-{}", round % 3)), labels(format!("own-{worker}-{round}"))];
                        let held = identities.acquire_all(&sets).expect("free");
                        for (identity, labels) in held.iter().zip(&sets) {
                            assert_eq!(identity.labels(), labels);
                            assert_eq!(identities.get(identity.id()).as_ref(), Some(identity));
                            assert_eq!(identities.find(labels).as_ref(), Some(identity));
                        }
                        identities.release_all(&[held[0].id(), held[1].id()]).expect("held");
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut seen = Version::NONE;
            let mut known = std::collections::BTreeMap::new();
            while busy.load(Ordering::Relaxed) {
                identities.expire().expect("writable");
                let changes = identities.changes_since(seen);
                seen = changes.version;
                for gone in changes.removed {
                    assert!(known.remove(&gone.id()).is_some(), "{gone} went without having come");
                }
                for come in changes.added {
                    assert!(known.insert(come.id(), come.clone()).is_none(), "{come} came twice");
                }
            }
        });
        let ends: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        busy.store(false, Ordering::Relaxed);
        ends.into_iter().for_each(|end| end.expect("no worker failed"));
    });
    identities.expire().expect("writable");
    assert_eq!(identities.list().len(), 10);
    drop(identities);
    assert_eq!(open().list().len(), 10);
}
