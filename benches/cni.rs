//! The CNI plugin against Debian's `ptp` with `host-local`: what a runtime waits for when a pod comes and goes.
//!
//! `cargo bench --bench cni --features programs [-- --quick]`, as root, with Debian's containernetworking-plugins. Both plugins
//! are real programs started by the same code in the same run, turn by turn, each in a host namespace of its own; the time is
//! that from the start of the process to its end with its answer read. Ours asks a real agent, gives the pod both families
//! and returns when the datapath is live; `ptp` gives IPv4 alone (with IPv6 it waits a second or two for the detection of duplicates). Both
//! keep their state on a tmpfs.

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use podwire::netns::NetNs;
use serde_json::{Value, json};
use support::Effort;
use support::agent::Agent;
use support::figures::{at_most, median, milliseconds, print_head, print_row};
use support::programs;
use support::world::{self, Pod, World, loopback_up};

/// Where Debian has the plugins.
const DEBIAN: &str = "/usr/lib/cni";
/// ADDs at the same time.
const PARALLEL: usize = 50;

/// A plugin, the host it works for, and how long its calls took.
struct Contender<'a> {
    name: &'static str,
    program: PathBuf,
    host: &'a NetNs,
    conf: Value,
    adds: Vec<f64>,
    dels: Vec<f64>,
}

fn main() {
    world::enter();
    let effort = Effort::asked();
    let (agent, plugin) = (programs::agent(), programs::plugin());
    assert!(Path::new(DEBIAN).join("ptp").exists(), "no {DEBIAN}/ptp: install containernetworking-plugins");
    let (node, other) = (World::new("node"), NetNs::create().expect("the benches run as root"));
    loopback_up(&other);
    let agent = Agent::start(&agent, &node);
    let ours = json!({ "cniVersion": "1.0.0", "name": "pods", "type": "podwire-cni", "socket": node.socket() });
    let range = json!([[{ "subnet": "10.65.0.0/16" }]]);
    let ipam =
        json!({ "type": "host-local", "ranges": range, "routes": [{ "dst": "0.0.0.0/0" }], "dataDir": "/run/cni" });
    let theirs = json!({ "cniVersion": "1.0.0", "name": "ptp", "type": "ptp", "ipMasq": false, "ipam": ipam });
    let mut contenders = [
        Contender::new("ptp + host-local", Path::new(DEBIAN).join("ptp"), &other, theirs),
        Contender::new("podwire-cni", plugin, &node.netns, ours),
    ];

    let pods = effort.choose(3, 100, 100);
    for _ in 0..effort.choose(1, 1, 3) {
        one_after_the_other(&mut contenders, pods);
    }
    let [theirs, ours] = &contenders;
    let parallel = in_parallel(ours);

    print_head("CNI, ms");
    for contender in &contenders {
        print_row(&format!("ADD {}", contender.name), &contender.adds);
        print_row(&format!("DEL {}", contender.name), &contender.dels);
    }
    print_row(&format!("ADD {}, {PARALLEL} at once", ours.name), &parallel);
    println!();
    at_most("cni-add-vs-ptp", median(&ours.adds) / median(&theirs.adds), 0.30);
    at_most("cni-del-vs-ptp", median(&ours.dels) / median(&theirs.dels), 0.50);
    agent.stop();
}

/// ADD for every pod, then DEL for every pod; who begins changes from pod to pod.
fn one_after_the_other(contenders: &mut [Contender<'_>; 2], count: usize) {
    let pods: Vec<[Pod; 2]> =
        (0..count).map(|number| [0, 1].map(|side| Pod::new(&format!("pod-{number}-{side}")))).collect();
    for command in ["ADD", "DEL"] {
        for (number, pods) in pods.iter().enumerate() {
            for turn in 0..2 {
                let who = (number + turn) % 2;
                let contender = &mut contenders[who];
                let (time, _) = contender.call(command, &format!("pod-{number}"), &pods[who].path);
                if command == "ADD" { contender.adds.push(time) } else { contender.dels.push(time) }
            }
        }
    }
    for pod in pods.iter().flatten() {
        NetNs::remove(&pod.path).expect("unmount the pod's namespace");
    }
}

/// Many ADDs at once: all succeed, and no address is given twice. Returns how long each took.
fn in_parallel(contender: &Contender<'_>) -> Vec<f64> {
    let pods: Vec<Pod> = (0..PARALLEL).map(|number| Pod::new(&format!("parallel-{number}"))).collect();
    let barrier = Barrier::new(PARALLEL);
    let call = |number: usize| {
        barrier.wait();
        contender.call("ADD", &format!("parallel-{number}"), &pods[number].path)
    };
    let answers: Vec<(f64, Value)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..PARALLEL).map(|number| scope.spawn(move || call(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("the ADD succeeds")).collect()
    });
    let addresses: BTreeSet<&str> = answers
        .iter()
        .flat_map(|(_, result)| result["ips"].as_array().expect("addresses"))
        .map(|ip| ip["address"].as_str().expect("an address"))
        .collect();
    assert_eq!(addresses.len(), 2 * PARALLEL, "an IPv4 and an IPv6 address for each: {addresses:?}");
    for (number, pod) in pods.iter().enumerate() {
        contender.call("DEL", &format!("parallel-{number}"), &pod.path);
    }
    answers.into_iter().map(|(time, _)| time).collect()
}

impl<'a> Contender<'a> {
    fn new(name: &'static str, program: PathBuf, host: &'a NetNs, conf: Value) -> Self {
        Self { name, program, host, conf, adds: Vec::new(), dels: Vec::new() }
    }

    /// Calls the plugin as a runtime does; milliseconds and the answer.
    fn call(&self, command: &str, container: &str, netns: &Path) -> (f64, Value) {
        let mut program = Command::new(&self.program);
        program
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", DEBIAN)
            .env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={container}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let input = self.conf.to_string();
        let (time, output) = self
            .host
            .run(|| {
                let start = Instant::now();
                let mut child = program.spawn().expect("the plugin starts");
                child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("the plugin reads");
                let output = child.wait_with_output().expect("the plugin ends");
                (milliseconds(start.elapsed()), output)
            })
            .expect("run in the host's namespace");
        assert!(output.status.success(), "{} {command}: {output:?}", self.name);
        let answer = if output.stdout.is_empty() { Value::Null } else { parse(&output.stdout) };
        (time, answer)
    }
}

fn parse(text: &[u8]) -> Value {
    serde_json::from_slice(text).expect("a plugin answers in JSON")
}
