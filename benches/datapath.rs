//! The programs against the floor of design: what any container datapath has to do at the least (`benches/bpf/bench.bpf.c`).
//!
//! `cargo bench --bench datapath [-- --quick]`, as root. Everything is measured by the kernel's own clock in one process:
//! `BPF_PROG_TEST_RUN` with `repeat`, rounds in which all programs take turns, the empty program's time taken off each. A ratio is
//! the median of the rounds' ratios: what slows the machine for a while slows both sides of it.
//!
//! A repetition gets the packet as the one before left it. So the packet starts with 255 to live and no run repeats more than
//! 200 times; and the receiving pod's host-side MAC address, which the program writes as the source, is set to the sending
//! pod's own, so that the next repetition passes the check of the source again. Cases whose repetitions are to be different packets
//! go through `bench_vary`, and have the empty program taken off that is reached in the same way.

#[path = "../tests/common/bpf.rs"]
mod bpf;
#[path = "datapath/cases.rs"]
mod cases;
#[path = "../tests/common/datapath.rs"]
mod datapath;
#[path = "../tests/common/packets.rs"]
mod packets;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};

use cases::{Case, REPEAT, World, worlds};
use podwire::program::{SkBuff, test_run};

/// A figure: what is divided by what, and the most that it may be.
struct Figure {
    name: &'static str,
    case: &'static str,
    by: &'static str,
    limit: f64,
}

const fn figure(name: &'static str, case: &'static str, by: &'static str, limit: f64) -> Figure {
    Figure { name, case, by, limit }
}

const FIGURES: [Figure; 13] = [
    figure("pod-to-pod-v4-vs-floor", "pod to pod v4", "floor v4", 1.0),
    figure("pod-to-pod-v6-vs-floor", "pod to pod v6", "floor v6", 1.0),
    figure("established-v4-vs-floor", "established v4", "floor v4", 1.0),
    figure("established-v6-vs-floor", "established v6", "floor v6", 1.0),
    figure("reply-v4-vs-floor", "reply v4", "floor v4", 1.0),
    figure("reply-v6-vs-floor", "reply v6", "floor v6", 1.0),
    figure("new-flow-vs-floor-new", "new flow v4", "floor-new v4", 1.4),
    figure("new-flow-v6-vs-floor-new", "new flow v6", "floor-new v6", 1.4),
    figure("policy-drop-vs-floor", "policy drop v4", "floor v4", 1.5),
    figure("policy-drop-first-vs-floor", "first policy drop v4", "floor v4", 3.0),
    figure("policy-drop-scan-vs-floor", "policy drop, port scan", "floor v4", 3.0),
    figure("established-16k-flows-vs-floor", "established, 16k flows", "floor, 16k flows", 1.3),
    figure("established-10k-rules-vs-1", "established, 10k rules", "established, 1 rule", 1.1),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Without --bench it is `cargo test` that runs this: whether it works, not how fast.
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let (rounds, runs) = match arguments.iter().any(|argument| argument == "--bench") {
        true if quick => (60, 20),
        true => (300, 40),
        false => (3, 2),
    };
    stay_on_one_cpu();
    let worlds = worlds();
    for world in &worlds {
        world.cases.iter().for_each(|case| check(world, case));
    }
    let nanoseconds = measure(&worlds, rounds, runs);
    print_table(&worlds, &nanoseconds);
    FIGURES.iter().for_each(|figure| report(figure, &worlds, &nanoseconds));
}

/// Test runs count their time on the CPU they run on; a move in between would be measured too.
fn stay_on_one_cpu() {
    let cpu = rustix::thread::sched_getcpu();
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        eprintln!("not bound to CPU {cpu}: {error}");
    }
}

/// One run of a case: the program's last verdict and its mean time.
fn run(world: &World, case: &Case, repeat: u32) -> (i32, f64) {
    let program = |name| world.node.set().program(name).expect("the program is loaded");
    let mut context = SkBuff::default();
    let entry = match case.vary {
        None => program(case.program),
        Some(vary) => {
            let next = program(case.program).as_fd().as_raw_fd();
            world.node.write("bench_next", &0u32.to_ne_bytes(), &next.to_ne_bytes());
            context.cb[..4].copy_from_slice(&vary.context());
            program("bench_vary")
        }
    };
    let run = test_run(entry, &case.packet, &context, repeat).expect("the test run is accepted");
    // The kernel cuts the mean to whole nanoseconds.
    (run.retval as i32, run.duration.as_nanos() as f64 + 0.5)
}

/// The case does what its name says from the first repetition to the last; otherwise its time means nothing.
fn check(world: &World, case: &Case) {
    for repeat in [1, REPEAT] {
        assert_eq!(run(world, case, repeat).0, case.verdict, "{} after {repeat} repetitions", case.name);
    }
}

/// The mean duration of a repetition by name and round.
fn measure(worlds: &[World], rounds: usize, runs: u32) -> BTreeMap<&'static str, Vec<f64>> {
    let mut nanoseconds = BTreeMap::<_, Vec<f64>>::new();
    for round in 0..=rounds {
        for (world, case) in worlds.iter().flat_map(|world| world.cases.iter().map(move |case| (world, case))) {
            let total: f64 = (0..runs).map(|_| run(world, case, REPEAT).1).sum();
            // The first round warms the caches.
            if round > 0 {
                nanoseconds.entry(case.name).or_default().push(total / f64::from(runs));
            }
        }
    }
    nanoseconds
}

/// The empty program that is reached in the same way as a case.
fn empty_of(case: &str, worlds: &[World]) -> &'static str {
    let varies = worlds.iter().flat_map(|world| &world.cases).any(|other| other.name == case && other.vary.is_some());
    if varies { "empty, varied" } else { "empty" }
}

fn print_table(worlds: &[World], nanoseconds: &BTreeMap<&'static str, Vec<f64>>) {
    println!("{:<24} {:>8} {:>12}", "ns a packet", "median", "less empty");
    for case in worlds.iter().flat_map(|world| &world.cases) {
        let time = median(nanoseconds[case.name].clone());
        let empty = median(nanoseconds[empty_of(case.name, worlds)].clone());
        println!("{:<24} {time:>8.1} {:>12.1}", case.name, time - empty);
    }
    println!();
}

/// The line of a figure.
fn report(figure: &Figure, worlds: &[World], nanoseconds: &BTreeMap<&'static str, Vec<f64>>) {
    let net = |case: &'static str, round: usize| nanoseconds[case][round] - nanoseconds[empty_of(case, worlds)][round];
    let rounds = nanoseconds[figure.case].len();
    let value = median((0..rounds).map(|round| net(figure.case, round) / net(figure.by, round)).collect());
    let verdict = if value <= figure.limit { "ok" } else { "over" };
    println!("bench: {} {value:.2} {:.2} {verdict}", figure.name, figure.limit);
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
