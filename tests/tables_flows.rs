//! Counters and policies on real kernel maps. Needs root.

use std::num::NonZeroU16;

use podwire::abi::{MetricsKey, MetricsValue, PolicyStatsKey, PolicyStatsValue};
use podwire::maps::{PerCpuValues, Update};
use podwire::tables::{
    Counted, Counter, DropReason, MetricsDirection, MetricsMap, PolicyAction, PolicyCount, PolicyDirection, PolicyL4,
    PolicyMap, PolicyMatch, PolicyStats, PolicyVerdict, PortPrefix, Protocol, Reason, SourceFile,
};
use podwire::{EndpointId, ErrorKind, SecurityId};

fn counted(reason: Reason, line: u16) -> Counted {
    Counted { reason, direction: MetricsDirection::Egress, file: SourceFile::new(2), line }
}

#[test]
fn counters_are_summed_over_the_cpus() {
    let metrics = MetricsMap::create(64).expect("a map");
    let denied = counted(Reason::Drop(DropReason::PolicyDenied), 1063);
    let mut values = PerCpuValues::new().expect("the number of CPUs");
    values.fill(|cpu| MetricsValue { count: cpu as u64 + 1, bytes: 100 * (cpu as u64 + 1) });
    metrics.map().insert(&MetricsKey::from(denied), &values, Update::Any).expect("room");
    let packets = (1..=values.cpus() as u64).sum::<u64>();
    let expected = Counter { counted: denied, packets, bytes: 100 * packets };
    assert_eq!(metrics.counter(denied).expect("readable"), expected);

    let forwarded = Counter { counted: counted(Reason::Forwarded, 0), packets: 9, bytes: 900 };
    metrics.set(&Counter { packets: 1, ..forwarded }).expect("room");
    metrics.set(&forwarded).expect("room");
    assert_eq!(metrics.counters().expect("readable"), [forwarded, expected]);

    let never = counted(Reason::Drop(DropReason::TtlExceeded), 1);
    assert_eq!(metrics.counter(never).expect("readable"), Counter { counted: never, packets: 0, bytes: 0 });
    assert_eq!(metrics.clear().expect("deletable"), 2);
    assert_eq!(metrics.counters().expect("readable"), []);
}

fn endpoint() -> EndpointId {
    EndpointId::new(463).expect("not 0")
}

fn ingress(identity: u32, l4: PolicyL4) -> PolicyMatch {
    PolicyMatch { direction: PolicyDirection::Ingress, identity: SecurityId::new(identity), l4 }
}

fn allow(precedence: u32) -> PolicyVerdict {
    PolicyVerdict::new(PolicyAction::Allow, precedence)
}

#[test]
fn the_longest_policy_entry_is_found() {
    let policy = PolicyMap::create(endpoint(), 64).expect("a map");
    let proxy = PolicyAction::Redirect(NonZeroU16::new(10_080).expect("not 0"));
    let range = PolicyL4::Ports(Protocol::TCP, PortPrefix::new(8064, 11).expect("aligned"));
    let entries = [
        (ingress(300, PolicyL4::Any), allow(1)),
        (ingress(300, PolicyL4::protocol(Protocol::TCP)), allow(2)),
        (ingress(300, range), PolicyVerdict::new(PolicyAction::Deny, 3)),
        (
            ingress(300, PolicyL4::port(Protocol::TCP, 8080)),
            PolicyVerdict { cookie: 7, ..PolicyVerdict::new(proxy, 4) },
        ),
    ];
    for (entry, verdict) in &entries {
        policy.upsert(entry, verdict).expect("room");
    }
    let found = |identity, l4| policy.lookup(&ingress(identity, l4)).expect("readable");
    assert_eq!(found(300, PolicyL4::port(Protocol::UDP, 8080)), Some(entries[0].1));
    assert_eq!(found(300, PolicyL4::port(Protocol::TCP, 80)), Some(entries[1].1));
    assert_eq!(found(300, PolicyL4::port(Protocol::TCP, 8095)), Some(entries[2].1));
    assert_eq!(found(300, PolicyL4::port(Protocol::TCP, 8096)), Some(entries[1].1));
    assert_eq!(found(300, PolicyL4::port(Protocol::TCP, 8080)), Some(entries[3].1));
    assert_eq!(found(301, PolicyL4::port(Protocol::TCP, 8080)), None);
    let egress = PolicyMatch { direction: PolicyDirection::Egress, ..entries[0].0 };
    assert_eq!(policy.lookup(&egress).expect("readable"), None);
    assert_eq!(policy.entries().expect("readable").len(), 4);
    assert!(policy.delete(&entries[3].0).expect("deletable"));
    assert_eq!(found(300, PolicyL4::port(Protocol::TCP, 8080)), Some(entries[2].1));
}

#[test]
fn a_port_range_allows_exactly_its_ports() {
    let policy = PolicyMap::create(endpoint(), 64).expect("a map");
    for ports in PortPrefix::cover(8000..=8100) {
        policy.upsert(&ingress(0, PolicyL4::Ports(Protocol::TCP, ports)), &allow(1)).expect("room");
    }
    for port in 7990..8110 {
        let found = policy.lookup(&ingress(0, PolicyL4::port(Protocol::TCP, port))).expect("readable");
        assert_eq!(found.is_some(), (8000..=8100).contains(&port), "port {port}");
    }
}

#[test]
fn a_full_policy_map_says_so() {
    let policy = PolicyMap::create(endpoint(), 1).expect("a map");
    policy.upsert(&ingress(1, PolicyL4::Any), &allow(1)).expect("room for one");
    let error = policy.upsert(&ingress(2, PolicyL4::Any), &allow(1)).expect_err("full");
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(error.to_string().contains("cilium_policy_v2_00463"), "{error}");
    let strange = PolicyVerdict { auth_type: 128, ..allow(1) };
    assert_eq!(
        policy.upsert(&ingress(1, PolicyL4::Any), &strange).expect_err("7 bits").kind(),
        ErrorKind::InvalidInput
    );
}

#[test]
fn policy_counters_belong_to_an_endpoint() {
    let stats = PolicyStats::create(64).expect("a map");
    let entry = ingress(300, PolicyL4::port(Protocol::TCP, 8080));
    let mut values = PerCpuValues::new().expect("the number of CPUs");
    values.fill(|_| PolicyStatsValue { packets: 2, bytes: 120 });
    for endpoint_id in [463, 464] {
        let key = PolicyStatsKey {
            endpoint_id,
            prefix_len: 24,
            sec_label: 300,
            protocol: 6,
            dport_be: 8080_u16.to_be(),
            ..PolicyStatsKey::default()
        };
        stats.map().insert(&key, &values, Update::Any).expect("room");
    }
    let cpus = values.cpus() as u64;
    let expected = PolicyCount { packets: 2 * cpus, bytes: 120 * cpus };
    assert_eq!(stats.count(endpoint(), &entry).expect("readable"), Some(expected));
    assert_eq!(stats.count(endpoint(), &ingress(300, PolicyL4::Any)).expect("readable"), None);
    assert_eq!(stats.counts(endpoint()).expect("readable"), [(entry, expected)]);
    assert_eq!(stats.forget(endpoint()).expect("deletable"), 1);
    assert_eq!(stats.count(endpoint(), &entry).expect("readable"), None);
    assert_eq!(stats.counts(EndpointId::new(464).expect("not 0")).expect("readable").len(), 1);
}
