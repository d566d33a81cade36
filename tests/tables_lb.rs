//! Services, backends and what goes with them, on real kernel maps. Needs root.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use podwire::ErrorKind;
use podwire::tables::{
    Algorithm, Backend, BackendId, BackendState, Frontend, LbMap, MaglevTables, Protocol, RevNatId, Scope, Service,
    ServiceFlags, SourceRange, StoredService,
};

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("valid socket address")
}

fn rev_nat(id: u16) -> RevNatId {
    RevNatId::new(id).expect("not 0")
}

fn backend_id(id: u32) -> BackendId {
    BackendId::new(id).expect("not 0")
}

/// Backends of these numbers at 10.0.1.<number>:8080.
fn backends(numbers: &[u8]) -> Vec<Backend> {
    let backend = |number: &u8| {
        let address = SocketAddr::new([10, 0, 1, *number].into(), 8080);
        Backend::new(backend_id(u32::from(*number)), address, Protocol::TCP)
    };
    numbers.iter().map(backend).collect()
}

fn web(numbers: &[u8]) -> Service {
    Service::new(Frontend::new(socket("172.16.0.10:80"), Protocol::TCP), rev_nat(26), backends(numbers))
}

fn slots(numbers: &[u32]) -> Vec<Option<BackendId>> {
    numbers.iter().map(|number| BackendId::new(*number)).collect()
}

fn stored(lb: &LbMap) -> StoredService {
    lb.service(&web(&[]).frontend).expect("readable").expect("is there")
}

#[test]
fn a_service_is_written_and_read_back() {
    let lb = LbMap::create(64).expect("maps");
    let mut service = web(&[1, 2]);
    service.flags = ServiceFlags::LOAD_BALANCER | ServiceFlags::AFFINITY | ServiceFlags::DSR;
    service.algorithm = Algorithm::Maglev;
    service.affinity_timeout = 10_800;
    service.quarantined = backends(&[3]);
    service.quarantined[0].state = BackendState::Quarantined;
    assert_eq!(lb.upsert_service(&service).expect("room"), []);

    let expected = StoredService {
        frontend: service.frontend,
        rev_nat: Some(rev_nat(26)),
        flags: service.flags,
        algorithm: Algorithm::Maglev,
        affinity_timeout: 10_800,
        backends: slots(&[1, 2]),
        quarantined: slots(&[3]),
    };
    assert_eq!(stored(&lb), expected);
    assert_eq!(lb.services().expect("readable"), [expected]);
    let all: Vec<_> = service.backends.iter().chain(&service.quarantined).copied().collect();
    assert_eq!(lb.backends().expect("readable"), all);
    assert_eq!(lb.reverse_nat().expect("readable"), [(rev_nat(26), socket("172.16.0.10:80"))]);
    for number in 1..=3 {
        assert!(lb.is_affinity_match(backend_id(number), rev_nat(26)).expect("readable"), "{number}");
    }
}

#[test]
fn both_families_live_side_by_side() {
    let lb = LbMap::create(64).expect("maps");
    lb.upsert_service(&web(&[1])).expect("room");
    let v6_backend = Backend::new(backend_id(9), socket("[fd00::9]:8080"), Protocol::UDP);
    let frontend = Frontend::new(socket("[fd00:172::a]:80"), Protocol::UDP);
    // The same number in the other family is another service.
    lb.upsert_service(&Service::new(frontend, rev_nat(26), vec![v6_backend])).expect("room");
    let frontends: Vec<_> =
        lb.services().expect("readable").iter().map(|service| service.frontend.to_string()).collect();
    assert_eq!(frontends, ["172.16.0.10:80/TCP", "[fd00:172::a]:80/UDP"]);
    assert_eq!(lb.delete_service(&frontend).expect("deletable"), Some(vec![backend_id(9)]));
    assert!(lb.delete_backend(backend_id(9)).expect("deletable"));
    assert_eq!(stored(&lb).backends, slots(&[1]));
    assert_eq!(lb.backends().expect("readable"), backends(&[1]));
    assert_eq!(lb.reverse_nat().expect("readable").len(), 1);
}

#[test]
fn a_service_shrinks_without_leftovers() {
    let lb = LbMap::create(64).expect("maps");
    let mut service = web(&[1, 2, 3, 4]);
    service.flags = ServiceFlags::AFFINITY;
    lb.upsert_service(&service).expect("room");
    service.backends = backends(&[4, 5]);
    assert_eq!(lb.upsert_service(&service).expect("room"), [backend_id(1), backend_id(2), backend_id(3)]);
    assert_eq!(stored(&lb).backends, slots(&[4, 5]));
    assert!(!lb.is_affinity_match(backend_id(1), rev_nat(26)).expect("readable"));
    assert!(lb.is_affinity_match(backend_id(5), rev_nat(26)).expect("readable"));
    // The backends themselves stay: other services may have them.
    assert_eq!(lb.backends().expect("readable").len(), 5);

    // A service that grows again finds no slot of the old times.
    service.backends = backends(&[5]);
    lb.upsert_service(&service).expect("room");
    assert_eq!(lb.delete_service(&service.frontend).expect("deletable"), Some(vec![backend_id(5)]));
    assert_eq!(lb.services().expect("readable"), []);
    assert_eq!(lb.reverse_nat().expect("readable"), []);
    assert!(!lb.is_affinity_match(backend_id(5), rev_nat(26)).expect("readable"));
    assert_eq!(lb.delete_service(&service.frontend).expect("gone already"), None);
}

#[test]
fn a_frontend_that_changes_its_number_leaves_nothing_under_the_old_one() {
    let lb = LbMap::create(64).expect("maps");
    let mut service = web(&[1]);
    service.flags = ServiceFlags::AFFINITY;
    lb.upsert_service(&service).expect("room");
    service.rev_nat = rev_nat(27);
    lb.upsert_service(&service).expect("room");
    assert_eq!(lb.reverse_nat().expect("readable"), [(rev_nat(27), socket("172.16.0.10:80"))]);
    assert!(!lb.is_affinity_match(backend_id(1), rev_nat(26)).expect("readable"));
    assert!(lb.is_affinity_match(backend_id(1), rev_nat(27)).expect("readable"));
    service.flags = ServiceFlags::default();
    lb.upsert_service(&service).expect("room");
    assert!(!lb.is_affinity_match(backend_id(1), rev_nat(27)).expect("readable"));
}

#[test]
fn a_service_that_does_not_fit_changes_nothing() {
    // Room for a master and three slots.
    let lb = LbMap::create(4).expect("maps");
    lb.upsert_service(&web(&[1, 2])).expect("room");
    let error = lb.upsert_service(&web(&[3, 4, 1, 2])).expect_err("five rows");
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert_eq!(stored(&lb).backends, slots(&[1, 2]));
    assert_eq!(lb.backends().expect("readable"), backends(&[1, 2]));

    // One that is new leaves nothing behind.
    let other = Service::new(Frontend::new(socket("172.16.0.11:80"), Protocol::TCP), rev_nat(5), backends(&[7, 8]));
    assert_eq!(lb.upsert_service(&other).expect_err("seven rows").kind(), ErrorKind::Exhausted);
    assert_eq!(lb.service(&other.frontend).expect("readable"), None);
    assert_eq!(lb.backends().expect("readable"), backends(&[1, 2]));
    assert_eq!(lb.reverse_nat().expect("readable").len(), 1);
}

#[test]
fn impossible_services_are_refused() {
    let lb = LbMap::create(4).expect("maps");
    let mut mixed = web(&[1]);
    mixed.backends.push(Backend::new(backend_id(2), socket("[fd00::2]:80"), Protocol::TCP));
    let error = lb.upsert_service(&mixed).expect_err("two families");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("[fd00::2]:80/TCP"), "{error}");
    let mut patient = web(&[1]);
    patient.affinity_timeout = 1 << 24;
    assert_eq!(lb.upsert_service(&patient).expect_err("25 bits").kind(), ErrorKind::InvalidInput);
    assert_eq!(lb.backends().expect("readable"), []);
}

#[test]
fn scopes_are_services_of_their_own() {
    let lb = LbMap::create(64).expect("maps");
    lb.upsert_service(&web(&[1])).expect("room");
    let mut internal = web(&[2]);
    internal.frontend.scope = Scope::Internal;
    internal.rev_nat = rev_nat(27);
    lb.upsert_service(&internal).expect("room");
    assert_eq!(stored(&lb).backends, slots(&[1]));
    let found = lb.service(&internal.frontend).expect("readable").expect("is there");
    assert_eq!((found.backends, found.frontend.to_string()), (slots(&[2]), "172.16.0.10:80/TCP/i".to_owned()));
}

#[test]
fn backends_change_their_state_alone() {
    let lb = LbMap::create(64).expect("maps");
    lb.upsert_service(&web(&[1])).expect("room");
    let mut backend = backends(&[1])[0];
    (backend.state, backend.zone, backend.cluster_id) = (BackendState::Terminating, 3, 2);
    lb.upsert_backend(&backend).expect("room");
    assert_eq!(lb.backends().expect("readable"), [backend]);
}

#[test]
fn source_ranges_belong_to_a_frontend() {
    let lb = LbMap::create(64).expect("maps");
    let range = |number, text: &str| SourceRange { rev_nat: rev_nat(number), range: text.parse().expect("valid") };
    for range in [range(18, "10.0.0.0/8"), range(19, "10.1.0.0/16"), range(18, "fd00::/16")] {
        lb.add_source_range(&range).expect("room");
    }
    let within = |number, client: &str| {
        let client: IpAddr = client.parse().expect("valid");
        lb.in_source_ranges(rev_nat(number), client).expect("readable")
    };
    assert!(within(18, "10.1.2.3") && within(19, "10.1.2.3") && within(18, "fd00::1"));
    assert!(!within(19, "10.2.0.1") && !within(18, "11.0.0.1") && !within(20, "10.1.2.3") && !within(19, "fd00::1"));
    let listed: Vec<_> = lb.source_ranges().expect("readable").iter().map(ToString::to_string).collect();
    assert_eq!(listed, ["10.0.0.0/8 (18)", "10.1.0.0/16 (19)", "fd00::/16 (18)"]);
    assert!(lb.delete_source_range(&range(18, "10.0.0.0/8")).expect("deletable"));
    assert!(!within(18, "10.1.2.3"));
    let error = lb.add_source_range(&range(18, "10.0.0.1/8")).expect_err("host bits");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn maglev_tables_are_replaced_whole() {
    let tables = MaglevTables::<251>::create(16).expect("maps");
    let (v4, v6): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [0xfd00_u16, 0, 0, 0, 0, 0, 0, 1].into());
    let table = |first, second| -> Vec<_> {
        (0..251).map(|slot| backend_id(if slot % 3 == 0 { first } else { second })).collect()
    };
    tables.write(v4, rev_nat(20), &table(12, 13)).expect("room");
    tables.write(v6, rev_nat(20), &table(14, 15)).expect("room");
    tables.write(v4, rev_nat(20), &table(16, 17)).expect("room");
    let read = |family| {
        let table = tables.read(family, rev_nat(20)).expect("readable").expect("is there");
        table.into_iter().map(|id| id.map_or(0, BackendId::get)).take(3).collect::<Vec<_>>()
    };
    assert_eq!((read(v4), read(v6)), (vec![16, 17, 17], vec![14, 15, 15]));
    assert_eq!(tables.services(v4).expect("readable"), [rev_nat(20)]);
    assert!(tables.delete(v4, rev_nat(20)).expect("deletable"));
    assert_eq!(tables.read(v4, rev_nat(20)).expect("readable"), None);
    assert_eq!(tables.services(v6).expect("readable"), [rev_nat(20)]);

    let error = tables.write(v4, rev_nat(20), &table(1, 2)[..250]).expect_err("a slot is missing");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// Tells a reader to stop, also when the writer panics.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_reader_never_finds_a_slot_without_its_backend() {
    let lb = LbMap::create(64).expect("maps");
    let frontend = web(&[]).frontend;
    let written = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut slots_seen = 0_u64;
            while !written.load(Ordering::Relaxed) {
                let slots = |lb: &LbMap| lb.service(&frontend).expect("readable").map(|service| service.backends);
                for (slot, id) in slots(&lb).unwrap_or_default().into_iter().enumerate() {
                    let Some(id) = id else { continue };
                    slots_seen += 1;
                    if lb.backend(id).expect("readable").is_none() {
                        // Numbers are never used twice, so a slot that still has this one has had it all the time.
                        let again = slots(&lb).unwrap_or_default().get(slot).copied().flatten();
                        assert_ne!(again, Some(id), "slot {} names backend {id}, which is missing", slot + 1);
                    }
                }
            }
            slots_seen
        });
        let done = Done(&written);
        let mut next = 1_u32;
        for round in 0..2_000_u32 {
            let new: Vec<_> = (0..=round % 4)
                .map(|_| {
                    next += 1;
                    Backend::new(backend_id(next), socket("10.0.1.4:8080"), Protocol::TCP)
                })
                .collect();
            for gone in lb.upsert_service(&Service::new(frontend, rev_nat(1), new)).expect("room") {
                assert!(lb.delete_backend(gone).expect("deletable"));
            }
        }
        drop(done);
        assert!(reader.join().expect("the reader found every backend") > 0, "the reader never ran");
    });
}
