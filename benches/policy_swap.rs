//! How long policy takes to come into force, with real maps and programs.
//!
//! `cargo bench --bench policy_swap [-- --quick]`, as root. Endpoints here are ones that policy knows; they have no devices, which plays no
//! part in it. What takes longer than the kernel's wait for programs under way is what counts: that wait belongs to the
//! kernel (6 to 18 ms), and no packet waits for it.

mod support;

use std::time::Instant;

use podwire::enforcement::{Admission, Enforcement};
use podwire::policy::{NamedPorts, Policy};
use podwire::{EndpointId, Labels};
use support::Effort;
use support::figures::{at_most, milliseconds, print_head, print_row, quantile};
use support::world::{self, World};

/// Peers of the policy of 1,000 entries; each has ten ports.
const PEERS: u16 = 100;
/// Endpoints that a new identity touches.
const TOUCHED: u16 = 500;
/// Peers that each of them has already.
const KNOWN: u16 = 20;

fn main() {
    world::enter();
    let effort = Effort::asked();
    let swap = swaps(effort.choose(2, 30, 200));
    let identity = newcomers(effort.choose(2, 10, 50));
    print_head("policy, ms");
    print_row("1,000 entries, in force beyond the wait", &swap.beyond);
    print_row("  until the call returns", &swap.total);
    print_row("a new identity, in force on 500 endpoints", &identity);
    println!();
    at_most("policy-swap-1000-ms", quantile(&swap.beyond, 0.99), 10.0);
    at_most("identity-500-ms", quantile(&identity, 0.99), 100.0);
}

struct Swaps {
    beyond: Vec<f64>,
    total: Vec<f64>,
}

/// One endpoint's policy of 1,000 entries, exchanged for another of them.
fn swaps(count: usize) -> Swaps {
    let node = World::new("swap");
    let datapath = node.open();
    let policy = datapath.policy();
    admit(policy, 1, "k8s:app=web");
    for peer in 0..PEERS {
        admit(policy, 2 + peer, &format!("k8s:peer={peer}"));
    }
    let [one, other] = [8000, 9000].map(|first| {
        let ports: Vec<_> =
            (0..10).map(|port| format!(r#"{{"port": "{}", "protocol": "TCP"}}"#, first + port)).collect();
        read(&format!(
            r#"{{"endpointSelector": {{"matchLabels": {{"app": "web"}}}},
                "ingress": [{{"fromEndpoints": [{{"matchExpressions": [{{"key": "peer", "operator": "Exists"}}]}}],
                    "toPorts": [{{"ports": [{}]}}]}}]}}"#,
            ports.join(",")
        ))
    });
    let (mut beyond, mut total) = (Vec::new(), Vec::new());
    for round in 0..count {
        let next = if round % 2 == 0 { &one } else { &other };
        let waited = policy.timings().1.wait.total;
        let start = Instant::now();
        policy.replace(next.clone()).expect("fits");
        let took = start.elapsed();
        let waited = policy.timings().1.wait.total - waited;
        let entries = policy.realized(id(1)).expect("admitted").entries;
        assert!(entries >= 1000, "only {entries} entries");
        beyond.push(milliseconds(took - waited));
        total.push(milliseconds(took));
    }
    Swaps { beyond, total }
}

/// An endpoint of labels that nobody had, whom the policies of 500 others name.
fn newcomers(count: usize) -> Vec<f64> {
    let node = World::new("identity");
    let datapath = node.open();
    let policy = datapath.policy();
    for number in 0..TOUCHED {
        admit(policy, 1 + number, &format!("k8s:web={number}"));
    }
    for peer in 0..KNOWN {
        admit(policy, 10_000 + peer, &format!("k8s:client=known-{peer}"));
    }
    let rule = r#"{"endpointSelector": {"matchExpressions": [{"key": "web", "operator": "Exists"}]},
        "ingress": [{"fromEndpoints": [{"matchExpressions": [{"key": "client", "operator": "Exists"}]}],
            "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]}]}"#;
    policy.replace(read(rule)).expect("fits");
    let newcomer = |number: usize| {
        let start = Instant::now();
        admit(policy, 20_000 + number as u16, &format!("k8s:client={number}"));
        milliseconds(start.elapsed())
    };
    let times = (0..count).map(newcomer).collect();
    let entries = policy.realized(id(TOUCHED)).expect("admitted").entries;
    assert!(entries >= usize::from(KNOWN) + count, "only {entries} entries");
    times
}

fn id(number: u16) -> EndpointId {
    EndpointId::new(number).expect("not 0")
}

fn admit(policy: &Enforcement, number: u16, label: &str) {
    let labels = Labels::parse([label]).expect("a label");
    let admission = Admission { endpoint: id(number), labels, named_ports: NamedPorts::new() };
    policy.admit(admission).expect("admitted");
}

fn read(text: &str) -> Vec<Policy> {
    Policy::from_json(text).expect("a policy")
}
