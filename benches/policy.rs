//! What it costs to compile an endpoint's policy, and to let 500 endpoints follow an identity that comes and goes. No kernel.
//!
//! `cargo bench --bench policy`

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use podwire::identity::{Changes, Identity, World, cidr_labels};
use podwire::policy::{
    CompiledPolicy, FlatRule, L4Match, L4Ports, Peer, Peers, PolicyOptions, RuleNumber, RulesInForce, Selector,
    Subject, WorldIdentities,
};
use podwire::tables::{PolicyDirection, Protocol};
use podwire::{EndpointId, Labels, SecurityId};

const SUBJECT: SecurityId = SecurityId::new(256);
const FIRST_PEER: u32 = 1_000;
const ENDPOINTS: u16 = 500;

fn identity(id: u32, labels: &[String]) -> Identity {
    Identity::new(SecurityId::new(id), Labels::parse(labels).expect("labels"))
}

fn rule(number: u32, peers: Vec<Peer>, ports: impl IntoIterator<Item = u16>) -> FlatRule {
    let l4 = |port| L4Match { protocol: Protocol::TCP, ports: L4Ports::single(port) };
    FlatRule {
        subject: Selector::new().label("k8s:app=web").expect("a label"),
        direction: PolicyDirection::Ingress,
        peers: Peers::Some(peers),
        l4: ports.into_iter().map(l4).collect(),
        deny: false,
        default_deny: true,
        rule: RuleNumber::new(number),
    }
}

fn group(name: u32) -> Peer {
    Peer::Labels(Selector::new().label(&format!("k8s:group=g{name}")).expect("a label"))
}

fn member(id: u32, of: u32) -> Identity {
    identity(id, &[format!("k8s:group=g{of}"), format!("k8s:pod=p{id}")])
}

fn node(rules: &[FlatRule], identities: impl IntoIterator<Item = Identity>) -> RulesInForce {
    let mut node = RulesInForce::new(WorldIdentities::of_node(true, true));
    let _ = node.add_identities([identity(SUBJECT.get(), &["k8s:app=web".to_owned()])]);
    let _ = node.add_identities(identities);
    node.insert(rules);
    node
}

/// Rules, each with a group of peers of its own, that make `rules * peers * ports` entries.
fn groups(rules: u32, peers: u32, ports: u16) -> RulesInForce {
    let all: Vec<_> = (0..rules).map(|number| rule(number + 1, vec![group(number)], 1..=ports)).collect();
    let peer = move |of| (0..peers).map(move |nth| member(FIRST_PEER + of * peers + nth, of));
    node(&all, (0..rules).flat_map(peer))
}

/// Rules about a prefix each.
fn prefixes(rules: u32) -> RulesInForce {
    let net = |number: u32| format!("10.{}.{}.0/24", number >> 8, number & 255).parse().expect("a prefix");
    let peer = |number| vec![Peer::Cidr { net: net(number), except: Vec::new() }];
    let all: Vec<_> = (0..rules).map(|number| rule(number + 1, peer(number), [443])).collect();
    let prefix = |number| {
        Identity::new(
            SecurityId::new((1 << 24) + number),
            cidr_labels(net(number), World::BothFamilies).expect("labels"),
        )
    };
    node(&all, (0..rules).map(prefix))
}

fn compile(node: &RulesInForce, endpoint: u16) -> CompiledPolicy {
    let endpoint = EndpointId::new(endpoint).expect("not 0");
    let subject = Subject { endpoint, identity: SUBJECT, named_ports: Default::default() };
    node.compile(subject, &PolicyOptions::default()).expect("within the limit")
}

/// From rules in force to the list of entries.
fn compile_1000_entries(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("compile 1,000 entries");
    let nodes = [
        ("1 rule, 10 peers, 100 ports", groups(1, 10, 100)),
        ("100 rules, 10 peers, 1 port", groups(100, 10, 1)),
        ("1,000 rules, 1 peer, 1 port", groups(1_000, 1, 1)),
        ("1,000 prefixes, 1 port", prefixes(1_000)),
    ];
    for (name, node) in nodes {
        // the host's entry and that of what leaves come on top
        assert_eq!(compile(&node, 1).len(), 1_002, "{name}");
        benches.bench_function(name, |bencher| {
            bencher.iter(|| compile(&node, 1).entries().map(black_box).count());
        });
    }
    benches.finish();
}

/// One identity comes to a selector that 500 endpoints with 1,000 entries each use.
fn identity_of_500_endpoints(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("an identity that 500 endpoints let in");
    benches.sample_size(20);
    for others in [0, 10_000] {
        let mut node = groups(100, 10, 1);
        let elsewhere = |number: u32| FlatRule {
            subject: Selector::new().label("k8s:app=other").expect("a label"),
            ..rule(number + 101, vec![group(number + 101)], [80])
        };
        node.insert(&(0..others).map(elsewhere).collect::<Vec<_>>());
        let mut policies: Vec<_> = (1..=ENDPOINTS).map(|endpoint| compile(&node, endpoint)).collect();
        let newcomer = vec![member(60_000, 7)];
        let come = Changes { added: newcomer.clone(), ..Changes::default() };
        let go = Changes { removed: newcomer, ..Changes::default() };
        let mut follow = |changes: &Changes| {
            let started = Instant::now();
            let changed = node.apply(changes);
            let update = |policy: &mut CompiledPolicy| policy.update(node.selectors(), &changed).expect("room");
            let written: usize = policies.iter_mut().map(|policy| update(policy).written.len()).sum();
            (started.elapsed(), written)
        };
        assert_eq!((follow(&come).1, follow(&go).1), (usize::from(ENDPOINTS), 0));
        benches.bench_function(BenchmarkId::new("comes, beside selectors", others), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    total += follow(&come).0;
                    follow(&go);
                }
                total
            });
        });
    }
    benches.finish();
}

criterion_group!(benches, compile_1000_entries, identity_of_500_endpoints);
criterion_main!(benches);
