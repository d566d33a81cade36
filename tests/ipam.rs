//! Address management as its users meet it: owners, expiry, restarts, changed configurations, crashes. No privileges needed.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use podwire::ipam::{ExpirationId, Families, Family, Ipam, IpamConfig, Lease, Lifetime, ManualClock, ROUTER, Restored};
use podwire::{Error, ErrorKind};

const PERMANENT: Lifetime = Lifetime::Permanent;

fn network(text: &str) -> IpNetwork {
    text.parse().expect("a network")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn both() -> IpamConfig {
    IpamConfig::new().range(network("10.0.1.0/24")).range(network("fd00::/64"))
}

fn open(dir: &Path, config: IpamConfig) -> (Ipam, Restored) {
    Ipam::open(dir, config).expect("opens")
}

fn owners(ipam: &Ipam) -> Vec<(String, String)> {
    ipam.leases().iter().map(|lease| (lease.address.to_string(), lease.owner.to_string())).collect()
}

fn addresses(leases: &[Lease]) -> Vec<String> {
    leases.iter().map(|lease| lease.address.to_string()).collect()
}

#[test]
fn a_pod_gets_both_families_after_the_router() {
    let ipam = Ipam::new(both()).expect("a manager");
    assert_eq!(ipam.router().ipv4.map(IpAddr::V4), Some(ip("10.0.1.1")));
    assert_eq!(ipam.router().ipv6.map(IpAddr::V6), Some(ip("fd00::1")));
    let web = ipam.allocate_next("default/web", Families::All, PERMANENT).expect("free");
    assert_eq!(web.addresses().collect::<Vec<_>>(), [ip("10.0.1.2"), ip("fd00::2")]);
    assert_eq!(web.expiration, None);
    let four = ipam.allocate_next("default/four", Families::Ipv4, PERMANENT).expect("free");
    assert_eq!((four.ipv4.map(IpAddr::V4), four.ipv6), (Some(ip("10.0.1.3")), None));
    assert_eq!(
        ipam.status(),
        "IPv4: 3/254 allocated from 10.0.1.0/24, IPv6: 2/18446744073709551615 allocated from fd00::/64"
    );
    assert_eq!(ipam.addresses_of("default/web"), [ip("10.0.1.2"), ip("fd00::2")]);
    assert_eq!(ipam.lease(ip("fd00::2")).expect("allocated").owner.as_ref(), "default/web");
    assert_eq!(ipam.lease(ip("fd00::3")), None);
}

#[test]
fn both_families_or_neither() {
    let config = IpamConfig::new().range(network("10.0.1.0/24")).range(network("fd00::/126")).without_router();
    let ipam = Ipam::new(config).expect("a manager");
    for _ in 0..3 {
        ipam.allocate_next("pod", Families::All, PERMANENT).expect("free");
    }
    let error = ipam.allocate_next("pod", Families::All, PERMANENT).expect_err("IPv6 is used up");
    assert!(
        matches!(&error, Error::PoolExhausted { pool, allocated: 3, excluded: 1 } if pool == "fd00::/126"),
        "{error}"
    );
    assert_eq!(ipam.usage(Family::Ipv4).expect("a pool").allocated, 3);
    let error = ipam.allocate_many(&["a", "b"], Families::All, PERMANENT).expect_err("IPv6 is used up");
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert_eq!(ipam.usage(Family::Ipv4).expect("a pool").allocated, 3);
    let error = ipam.allocate_all(&[ip("10.0.1.9"), ip("fd00::1")], "pod", PERMANENT).expect_err("in use");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(ipam.lease(ip("10.0.1.9")), None);
}

#[test]
fn the_ways_to_fail_are_distinct() {
    let ipam = Ipam::new(IpamConfig::from(network("10.0.1.0/29")).exclude(ip("10.0.1.6"))).expect("a manager");
    ipam.allocate(ip("10.0.1.3"), "first", PERMANENT).expect("free");
    for owner in ["first", "second"] {
        let error = ipam.allocate(ip("10.0.1.3"), owner, PERMANENT).expect_err("in use");
        assert!(matches!(&error, Error::AddressInUse { owner, .. } if owner == "first"), "{error}");
    }
    for (address, why) in [
        ("10.0.1.0", "reserved"),
        ("10.0.1.7", "reserved"),
        ("10.0.1.8", "outside"),
        ("10.0.1.6", "excluded"),
        ("fd00::1", "no IPv6 range"),
    ] {
        let error = ipam.allocate(ip(address), "pod", PERMANENT).expect_err(address);
        assert!(matches!(&error, Error::AddressOutOfPool { reason, .. } if reason.contains(why)), "{error}");
    }
    let error = ipam.allocate_next("pod", Families::Ipv6, PERMANENT).expect_err("no range");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    for owner in ["", "a\nb", ROUTER] {
        let error = ipam.allocate_next(owner, Families::All, PERMANENT).expect_err("no name");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    for addresses in [&[][..], &[ip("10.0.1.4"), ip("10.0.1.5")], &[ip("10.0.1.4"), ip("fd00::1"), ip("fd00::2")]] {
        let error = ipam.allocate_all(addresses, "pod", PERMANENT).expect_err("not one of each");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(ipam.release(ip("10.0.1.4")).expect_err("free").kind(), ErrorKind::NotFound);
    assert_eq!(ipam.release_owner("nobody").expect_err("unknown").kind(), ErrorKind::NotFound);
    assert_eq!(ipam.release(ip("10.0.1.1")).expect_err("the router's").kind(), ErrorKind::WrongState);
    assert_eq!(ipam.release_owner(ROUTER).expect_err("the router's").kind(), ErrorKind::WrongState);
    let error = ipam.release_all(&[ip("10.0.1.3"), ip("10.0.1.4")]).expect_err("one is free");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(ipam.lease(ip("10.0.1.3")).is_some(), "all or nothing");
}

#[test]
fn bad_configurations_are_refused_and_leave_no_trace() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    for config in [
        IpamConfig::new(),
        network("10.0.1.5/24").into(),
        network("127.0.0.0/8").into(),
        both().exclude(network("10.0.1.5/24")),
        both().reuse_delay(Duration::MAX),
        both().without_router().router_address(ip("10.0.1.1")),
        IpamConfig::from(network("10.0.1.0/24")).router_address(ip("fd00::1")),
    ] {
        let error = Ipam::open(&state, config.clone()).expect_err("a bad configuration");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{config:?}: {error}");
    }
    assert!(!state.exists());
}

#[test]
fn the_router_keeps_its_address() {
    let dir = tempfile::tempdir().expect("a directory");
    let router = |ipam: &Ipam| ipam.router().ipv4.expect("a router").to_string();
    let (ipam, _) = open(dir.path(), both());
    ipam.allocate(ip("10.0.1.9"), "pod", PERMANENT).expect("free");
    assert_eq!(router(&ipam), "10.0.1.1");
    drop(ipam);
    // a configured address moves it, and it stays there when the configuration says nothing any more
    let (ipam, _) = open(dir.path(), both().router_address(ip("10.0.1.254")));
    assert_eq!(router(&ipam), "10.0.1.254");
    assert_eq!(ipam.lease(ip("10.0.1.1")), None);
    drop(ipam);
    let (ipam, _) = open(dir.path(), both());
    assert_eq!(router(&ipam), "10.0.1.254");
    drop(ipam);
    let error = Ipam::open(dir.path(), both().router_address(ip("10.0.1.9"))).expect_err("a pod has it");
    assert!(matches!(&error, Error::AddressInUse { owner, .. } if owner == "pod"), "{error}");
    let (ipam, _) = open(dir.path(), both().without_router());
    assert_eq!(owners(&ipam), [("10.0.1.9".to_owned(), "pod".to_owned())]);
}

#[test]
fn what_nobody_claims_expires() {
    let clock = Arc::new(ManualClock::new());
    let ipam = Ipam::with_clock(both(), clock.clone()).expect("a manager");
    let minute = Lifetime::UnlessClaimed(Duration::from_secs(60));
    let claimed = ipam.allocate_next("claimed", Families::All, minute).expect("free");
    let forgotten = ipam.allocate_next("forgotten", Families::All, minute).expect("free");
    let id = claimed.expiration.expect("an id").id;
    assert_eq!(ipam.next_deadline(), claimed.expiration.map(|expiration| expiration.deadline));

    let [v4, v6] = [ip("10.0.1.2"), ip("fd00::2")];
    let other = forgotten.expiration.expect("an id").id;
    assert_eq!(ipam.claim(v4, other).expect_err("another's id").kind(), ErrorKind::InvalidInput);
    assert_eq!(ipam.claim(ip("10.0.1.77"), id).expect_err("free").kind(), ErrorKind::NotFound);
    assert_eq!(ipam.claim(ip("10.0.1.1"), id).expect_err("the router's").kind(), ErrorKind::WrongState);
    // both or none: the second id is wrong
    assert!(ipam.claim_all(&[(v4, id), (v6, other)]).is_err());
    assert!(ipam.lease(v4).expect("allocated").expiration.is_some());
    ipam.claim_all(&[(v4, id), (v6, id)]).expect("claimed");
    assert_eq!(ipam.claim(v4, id).expect_err("claimed before").kind(), ErrorKind::WrongState);

    clock.advance(Duration::from_millis(59_999));
    assert_eq!(ipam.expire().expect("no failure"), []);
    clock.advance(Duration::from_millis(1));
    assert_eq!(addresses(&ipam.expire().expect("no failure")), ["10.0.1.3", "fd00::3"]);
    assert_eq!(ipam.claim(ip("10.0.1.3"), other).expect_err("too late").kind(), ErrorKind::NotFound);
    assert_eq!(ipam.next_deadline(), None);
    assert_eq!(ipam.usage(Family::Ipv4).expect("a pool").allocated, 2);
    for period in [Duration::ZERO, Duration::MAX] {
        let error = ipam.allocate_next("pod", Families::All, Lifetime::UnlessClaimed(period)).expect_err("no period");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

/// An address released before it was claimed is not released again when its time comes.
#[test]
fn a_release_stops_the_timer() {
    let clock = Arc::new(ManualClock::new());
    let ipam = Ipam::with_clock(both(), clock.clone()).expect("a manager");
    let minute = Lifetime::UnlessClaimed(Duration::from_secs(60));
    ipam.allocate(ip("10.0.1.9"), "first", minute).expect("free");
    ipam.release(ip("10.0.1.9")).expect("allocated");
    ipam.allocate(ip("10.0.1.9"), "second", PERMANENT).expect("free");
    clock.advance(Duration::from_secs(3600));
    assert_eq!(ipam.expire().expect("no failure"), []);
    assert_eq!(ipam.lease(ip("10.0.1.9")).expect("allocated").owner.as_ref(), "second");
}

#[test]
fn unclaimed_allocations_get_a_fresh_period_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(ManualClock::new());
    let reopen = || Ipam::open_with_clock(dir.path(), both(), clock.clone()).expect("opens");
    let minute = Lifetime::UnlessClaimed(Duration::from_secs(60));
    let (ipam, _) = reopen();
    let pod = ipam.allocate_next("pod", Families::Ipv4, minute).expect("free");
    clock.advance(Duration::from_secs(59));
    drop(ipam);
    let (ipam, restored) = reopen();
    assert_eq!((restored.allocations, restored.unclaimed), (3, 1));
    clock.advance(Duration::from_secs(59));
    assert_eq!(ipam.expire().expect("no failure"), []);
    // and the id from before the restart is still good
    ipam.claim(ip("10.0.1.2"), pod.expiration.expect("an id").id).expect("claimed");
    drop(ipam);
    let (ipam, restored) = reopen();
    assert_eq!(restored.unclaimed, 0);
    clock.advance(Duration::from_secs(61));
    assert_eq!(ipam.expire().expect("no failure"), []);
}

#[test]
fn the_order_of_reuse_survives_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = || IpamConfig::from(network("10.0.1.0/29")).without_router();
    let (ipam, _) = open(dir.path(), config());
    ipam.allocate_many(&["a", "b", "c", "d", "e"], Families::All, PERMANENT).expect("free");
    for number in [4, 2, 3] {
        ipam.release(ip(&format!("10.0.1.{number}"))).expect("allocated");
    }
    drop(ipam);
    let (ipam, _) = open(dir.path(), config());
    let next: Vec<_> = ipam
        .allocate_many(&["f", "g", "h", "i"], Families::All, PERMANENT)
        .expect("free")
        .iter()
        .flat_map(|allocation| allocation.addresses())
        .map(|address| address.to_string())
        .collect();
    assert_eq!(next, ["10.0.1.6", "10.0.1.4", "10.0.1.2", "10.0.1.3"]);
}

#[test]
fn a_changed_range_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ipam, restored) = open(dir.path(), both());
    assert_eq!(restored, Restored::default());
    for address in ["10.0.1.10", "10.0.1.127", "10.0.1.200", "fd00::99"] {
        ipam.allocate(ip(address), address, PERMANENT).expect("free");
    }
    drop(ipam);

    let smaller = || IpamConfig::from(network("10.0.1.0/25")).exclude(ip("10.0.1.10"));
    let (ipam, restored) = open(dir.path(), smaller());
    assert_eq!(restored.allocations, 6);
    assert_eq!(restored.other_ranges, Some((Some(network("10.0.1.0/24")), Some(network("fd00::/64")))));
    let reasons: Vec<_> =
        restored.strays.iter().map(|stray| (stray.address.to_string(), stray.reason.as_ref())).collect();
    assert_eq!(reasons[0], ("10.0.1.10".to_owned(), "it is excluded by the configuration"));
    assert!(reasons[1].0 == "10.0.1.127" && reasons[1].1.contains("reserved"), "{reasons:?}");
    assert_eq!(reasons[2], ("10.0.1.200".to_owned(), "it lies outside the range"));
    assert_eq!(reasons[3], ("fd00::1".to_owned(), "no IPv6 range is configured"));
    assert_eq!(reasons[4].0, "fd00::99");
    assert_eq!(ipam.usage(Family::Ipv4).expect("a pool").allocated, 1, "the router");
    assert!(ipam.lease(ip("10.0.1.200")).expect("kept").stray);
    // one of them goes; the others stay known
    assert_eq!(ipam.release_owner("10.0.1.200").expect("kept").len(), 1);
    drop(ipam);

    let (ipam, restored) = open(dir.path(), both());
    assert_eq!(restored.strays, []);
    assert_eq!(restored.other_ranges, Some((Some(network("10.0.1.0/25")), None)));
    assert_eq!(ipam.lease(ip("10.0.1.200")), None);
    let error = ipam.allocate(ip("10.0.1.127"), "pod", PERMANENT).expect_err("still its owner's");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(ipam.router().ipv6.map(IpAddr::V6), Some(ip("fd00::1")));
    drop(ipam);
    assert_eq!(open(dir.path(), both()).1.other_ranges, None);
}

#[test]
fn a_second_manager_of_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let (first, _) = open(dir.path(), both());
    let error = Ipam::open(dir.path(), both()).expect_err("open already");
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    drop(first);
    open(dir.path(), both());
}

#[test]
fn a_contradictory_journal_is_corrupt() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut journal, _) =
        podwire::state::Journal::<serde_json::Value>::open(dir.path().join("ipam.journal")).expect("created");
    journal.append(&[serde_json::json!({"release": {"ips": ["10.0.1.1"]}})]).expect("appended");
    drop(journal);
    let error = Ipam::open(dir.path(), both()).expect_err("never allocated");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("ipam.journal") && error.to_string().contains("10.0.1.1"), "{error}");
}

/// Threads that allocate and release at the same time: no address is given twice, and all is on disk.
#[test]
fn concurrent_callers_share_writes_and_never_an_address() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ipam, _) = open(dir.path(), both());
    let held: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|worker| {
                let ipam = &ipam;
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for round in 0..60 {
                        let owner = format!("pod-{worker}-{round}");
                        let allocation = ipam.allocate_next(&owner, Families::All, PERMANENT).expect("free");
                        if round % 3 == 0 {
                            held.extend(allocation.addresses().map(|address| (address.to_string(), owner.clone())));
                        } else {
                            assert_eq!(ipam.release_owner(&owner).expect("allocated").len(), 2);
                        }
                    }
                    held
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    });
    let mut expected = held;
    expected.extend([("10.0.1.1".to_owned(), ROUTER.to_owned()), ("fd00::1".to_owned(), ROUTER.to_owned())]);
    expected.sort();
    let sorted = |ipam: &Ipam| {
        let mut owners = owners(ipam);
        owners.sort();
        owners
    };
    assert_eq!(sorted(&ipam), expected);
    drop(ipam);
    assert_eq!(sorted(&open(dir.path(), both()).0), expected);
}

#[test]
fn a_hundred_thousand_on_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = || IpamConfig::from(network("fd00::/64")).without_router().reuse_delay(Duration::ZERO);
    let started = Instant::now();
    let (ipam, _) = open(dir.path(), config());
    let names: Vec<_> = (0..100_000).map(|number| format!("default/pod-{number}")).collect();
    for chunk in names.chunks(1000) {
        let chunk: Vec<_> = chunk.iter().map(String::as_str).collect();
        ipam.allocate_many(&chunk, Families::All, PERMANENT).expect("free");
    }
    let leases = ipam.leases();
    assert_eq!(leases.len(), 100_000);
    println!("100,000 allocations, 1,000 a write: {:?}", started.elapsed());
    drop(ipam);
    let started = Instant::now();
    let (ipam, _) = open(dir.path(), config());
    println!("read again: {:?}", started.elapsed());
    assert_eq!(ipam.leases(), leases);
    // the journal does not grow with the changes, only with what is allocated
    let started = Instant::now();
    let journal = || std::fs::metadata(dir.path().join("ipam.journal")).expect("there").len();
    let full = journal();
    let all: Vec<_> = leases.iter().map(|lease| lease.address).collect();
    for chunk in all.chunks(1000) {
        ipam.release_all(chunk).expect("allocated");
    }
    for _ in 0..4 {
        for chunk in names[..20_000].chunks(1000) {
            let chunk: Vec<_> = chunk.iter().map(String::as_str).collect();
            let given = ipam.allocate_many(&chunk, Families::All, PERMANENT).expect("free");
            let given: Vec<_> = given.iter().flat_map(|allocation| allocation.addresses()).collect();
            ipam.release_all(&given).expect("allocated");
        }
    }
    println!("260,000 changes: {:?}", started.elapsed());
    assert!(journal() < full, "{} bytes for nothing, {full} for 100,000", journal());
    drop(ipam);
    assert_eq!(open(dir.path(), config()).0.leases(), []);
}

#[test]
fn an_unknown_id_is_well_formed_but_wrong() {
    let ipam = Ipam::new(both()).expect("a manager");
    let lifetime = Lifetime::UnlessClaimed(Duration::from_secs(1));
    let pod = ipam.allocate_next("pod", Families::Ipv4, lifetime).expect("free");
    let given: ExpirationId = pod.expiration.expect("an id").id.to_string().parse().expect("printed and parsed");
    let wrong: ExpirationId = "123e4567-e89b-42d3-a456-426614174000".parse().expect("an id");
    let error = ipam.claim(ip("10.0.1.2"), wrong).expect_err("another id");
    assert!(error.to_string().contains("123e4567"), "{error}");
    ipam.claim(ip("10.0.1.2"), given).expect("claimed");
}
