//! The programs against the floor of design: what any container datapath has to do at the least (`benches/bpf/bench.bpf.c`).
//!
//! `cargo bench --bench datapath [-- --quick]`, as root. Everything is measured by the kernel's own clock in one process:
//! `BPF_PROG_TEST_RUN` with `repeat`, rounds in which all programs take turns, the empty program's time taken off each. A ratio is
//! the median of the rounds' ratios: what slows the machine for a while slows both sides of it.
//!
//! A repetition gets the packet as the one before left it. So the packet starts with 255 to live and no run repeats more than
//! 200 times; and the receiving pod's host-side MAC address, which the program writes as the source, is set to the sending
//! pod's own, so that the next repetition passes the check of the source again.

#[path = "../tests/common/bpf.rs"]
mod bpf;
#[path = "../tests/common/datapath.rs"]
mod datapath;
#[path = "../tests/common/packets.rs"]
mod packets;

use std::collections::BTreeMap;

use datapath::*;
use packets::*;
use podwire::program::{ObjectImage, SkBuff, test_run};

const BENCH: ObjectImage<'static> = ObjectImage::new("bench", include_bytes!(concat!(env!("OUT_DIR"), "/bench.bpf.o")));

/// Repetitions in one run: fewer than a packet has to live.
const REPEAT: u32 = 200;
/// Other pods and connections in the tables, so that they are not empty.
const OTHERS: u32 = 1000;
const FLOORS: [&str; 2] = ["pod-to-pod-v4-vs-floor", "pod-to-pod-v6-vs-floor"];
const LIMIT: f64 = 1.0;

/// One line of the table: a program on a packet.
struct Case {
    name: &'static str,
    program: &'static str,
    packet: Vec<u8>,
    verdict: i32,
}

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
    let node = prepare();
    let cases = cases();
    for case in &cases {
        check(&node, case);
    }
    let nanoseconds = measure(&node, &cases, rounds, runs);
    print_table(&cases, &nanoseconds);
    report(&nanoseconds);
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

fn prepare() -> Datapath {
    let mut setup = Setup::new();
    setup.beside = Some(BENCH);
    let node = setup.load();
    node.add(&receiver());
    for number in 0..OTHERS {
        let pod = Pod {
            ifindex: 5000 + number,
            ipv4: Some((0x0a01_0000 + number).into()),
            ipv6: Some((0xfd01_u128 << 112 | u128::from(number)).into()),
            ..B
        };
        node.add(&pod);
        add_floor(&node, &pod);
    }
    add_floor(&node, &receiver());
    node
}

/// B, with its host side's address such that repetitions pass the check of their source.
fn receiver() -> Pod {
    Pod { node_mac: A.mac, ..B }
}

/// The floor's own entries: the pod as destination, and its connection from A.
fn add_floor(node: &Datapath, pod: &Pod) {
    let mut value = pod.ifindex.to_ne_bytes().to_vec();
    value.extend_from_slice(&[0; 4]);
    value.extend_from_slice(&padded(pod.mac));
    value.extend_from_slice(&padded(pod.node_mac));
    let key = |ip: [u8; 16], family: u32| [&ip[..], &family.to_ne_bytes()].concat();
    let mut ipv4 = [0; 16];
    ipv4[..4].copy_from_slice(&pod.v4().octets());
    node.write("bench_destination", &key(ipv4, 1), &value);
    node.write("bench_destination", &key(pod.v6().octets(), 2), &value);
    let ports_and_protocol = [&40000u16.to_be_bytes()[..], &80u16.to_be_bytes(), &6u32.to_ne_bytes()].concat();
    let tuple4 = [&A.v4().octets()[..], &pod.v4().octets(), &ports_and_protocol].concat();
    let tuple6 = [&A.v6().octets()[..], &pod.v6().octets(), &ports_and_protocol].concat();
    node.write("bench_tuple4", &tuple4, &[0; 24]);
    node.write("bench_tuple6", &tuple6, &[0; 24]);
}

fn cases() -> Vec<Case> {
    let v4 = |to| ipv4(A.to_gateway(), (A.v4(), to), 255, Upper::Tcp);
    let v6 = |to| ipv6(A.to_gateway(), (A.v6(), to), 255, Upper::Tcp);
    let from_host4 = ipv4((HOST_MAC, HOST_MAC), (GATEWAY4, B.v4()), 255, Upper::Tcp);
    let from_host6 = ipv6((HOST_MAC, HOST_MAC), (GATEWAY6, B.v6()), 255, Upper::Tcp);
    let case = |name, program, packet, verdict| Case { name, program, packet, verdict };
    vec![
        case("empty", "bench_empty", v4(B.v4()), 0),
        case("floor v4", "bench_floor", v4(B.v4()), REDIRECT),
        case("pod to pod v4", FROM_CONTAINER, v4(B.v4()), REDIRECT),
        case("floor v6", "bench_floor", v6(B.v6()), REDIRECT),
        case("pod to pod v6", FROM_CONTAINER, v6(B.v6()), REDIRECT),
        case("pod to outside v4", FROM_CONTAINER, v4(OUTSIDE4), REDIRECT),
        case("pod to outside v6", FROM_CONTAINER, v6(OUTSIDE6), REDIRECT),
        case("host to pod v4", FROM_HOST, from_host4, REDIRECT),
        case("host to pod v6", FROM_HOST, from_host6, REDIRECT),
        case("drop v4", FROM_CONTAINER, v4(NOBODY4), SHOT),
        case("floor-new v4", "bench_floor_new", v4(B.v4()), REDIRECT),
        case("floor-new v6", "bench_floor_new", v6(B.v6()), REDIRECT),
    ]
}

/// The case does what its name says from the first repetition to the last; otherwise its time means nothing.
fn check(node: &Datapath, case: &Case) {
    let program = node.set().program(case.program).expect("the program is loaded");
    for repeat in [1, REPEAT] {
        let run = test_run(program, &case.packet, &SkBuff::default(), repeat).expect("the test run is accepted");
        assert_eq!(run.retval as i32, case.verdict, "{} after {repeat} repetitions", case.name);
    }
    let drops: u64 = node.drops().values().map(|value| value.count).sum();
    let expected = if case.verdict == SHOT { u64::from(REPEAT) + 1 } else { 0 };
    assert!(drops == expected || case.name.starts_with("floor-new"), "{}: {drops} drops", case.name);
    node.switch(0, 0);
}

/// The mean duration of a repetition by name and round.
fn measure(node: &Datapath, cases: &[Case], rounds: usize, runs: u32) -> BTreeMap<&'static str, Vec<f64>> {
    let mut nanoseconds = BTreeMap::<_, Vec<f64>>::new();
    let programs: Vec<_> =
        cases.iter().map(|case| node.set().program(case.program).expect("the program is loaded")).collect();
    for round in 0..=rounds {
        for (case, program) in cases.iter().zip(&programs) {
            let mut total = 0.0;
            for _ in 0..runs {
                let run = test_run(program, &case.packet, &SkBuff::default(), REPEAT).expect("accepted before");
                // The kernel cuts the mean to whole nanoseconds.
                total += run.duration.as_nanos() as f64 + 0.5;
            }
            // The first round warms the caches.
            if round > 0 {
                nanoseconds.entry(case.name).or_default().push(total / f64::from(runs));
            }
        }
    }
    nanoseconds
}

fn print_table(cases: &[Case], nanoseconds: &BTreeMap<&'static str, Vec<f64>>) {
    println!("{:<20} {:>8} {:>12}", "ns a packet", "median", "less empty");
    let empty = median(nanoseconds["empty"].clone());
    for case in cases {
        let time = median(nanoseconds[case.name].clone());
        println!("{:<20} {time:>8.1} {:>12.1}", case.name, time - empty);
    }
    println!();
}

/// One line for each figure that has a limit.
fn report(nanoseconds: &BTreeMap<&'static str, Vec<f64>>) {
    for (name, family) in FLOORS.into_iter().zip(["v4", "v6"]) {
        let of = |name: String| &nanoseconds[name.as_str()];
        let (empty, floor, ours) =
            (of("empty".into()), of(format!("floor {family}")), of(format!("pod to pod {family}")));
        let ratios = (0..empty.len()).map(|round| (ours[round] - empty[round]) / (floor[round] - empty[round]));
        let value = median(ratios.collect());
        let verdict = if value <= LIMIT { "ok" } else { "over" };
        println!("bench: {name} {value:.2} {LIMIT:.2} {verdict}");
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
