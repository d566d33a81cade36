//! Map operations as ratios of one run, a line a figure: `bench: NAME VALUE LIMIT ok|over`. Run as root:
//! `cargo bench --bench map_ratios [-- --quick]`.
//!
//! The contenders take turns in many short rounds, so that whatever else the machine does hits all of them, and their
//! medians of thread CPU time are compared.
#![allow(missing_docs, unsafe_code)]

mod map_contenders;

use std::hint::black_box;
use std::os::fd::AsFd;

use map_contenders::{BATCH, Contenders, ENTRIES, Value, raw};
use podwire::maps::Batch;

/// Lookups in a round.
const LOOKUPS: usize = 1000;

type Contender<'a> = Box<dyn FnMut(usize) + 'a>;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let all = Contenders::new();
    let rounds = if quick { 600 } else { 2000 };
    let [raw, podwire, aya] = medians(rounds, lookups(&all));
    at_most("map-lookup-vs-raw", podwire / raw, 1.05);
    at_most("map-lookup-vs-aya", podwire / aya, 1.00);
    let rounds = if quick { 21 } else { 101 };
    let [raw, podwire, iterate] = medians(rounds, whole_maps(&all));
    at_most("map-batch-vs-raw", podwire / raw, 1.10);
    let speed_up = iterate / podwire;
    println!("bench: map-batch-vs-iterate {speed_up:.2} 4.00 {}", if speed_up >= 4.0 { "ok" } else { "over" });
}

/// Raw, podwire, aya: each looks the same keys up.
fn lookups(all: &Contenders) -> [Contender<'_>; 3] {
    let keys = |round: usize| {
        let start = round * LOOKUPS % ENTRIES as usize;
        &all.keys[start..start + LOOKUPS]
    };
    let mut value = Value::default();
    let raw = move |round| {
        for key in keys(round) {
            assert!(raw::lookup(all.raw.as_fd(), key, &mut value));
            black_box(&value);
        }
    };
    let podwire = move |round| {
        for key in keys(round) {
            black_box(all.podwire.lookup(key).expect("readable").expect("is there"));
        }
    };
    let aya = move |round| {
        for key in keys(round) {
            black_box(all.aya.get(key, 0).expect("readable"));
        }
    };
    [Box::new(raw), Box::new(podwire), Box::new(aya)]
}

/// Raw batches, podwire's batches, and the raw walk from key to key.
fn whole_maps(all: &Contenders) -> [Contender<'_>; 3] {
    let mut buffers = raw::Buffers::new(BATCH);
    let mut batch = Batch::new(BATCH).expect("not 0");
    let raw = move |_| {
        let mut sum = 0;
        let count = raw::batches(all.raw.as_fd(), &mut buffers, |_, value| sum += value[0]);
        assert_eq!((count, black_box(sum) > 0), (ENTRIES as usize, true));
    };
    let podwire = move |_| {
        let mut sum = 0;
        let count = all.podwire.lookup_batch(&mut batch, |_, value| sum += value[0]).expect("readable");
        assert_eq!((count, black_box(sum) > 0), (ENTRIES as usize, true));
    };
    let iterate = move |_| {
        let mut sum = 0;
        let count = raw::iterate(all.raw.as_fd(), |_, value| sum += value[0]);
        assert_eq!((count, black_box(sum) > 0), (ENTRIES as usize, true));
    };
    [Box::new(raw), Box::new(podwire), Box::new(iterate)]
}

/// The median time of each contender; who begins changes with every round.
fn medians<const N: usize>(rounds: usize, mut contenders: [Contender<'_>; N]) -> [f64; N] {
    let mut times = [const { Vec::new() }; N];
    // Two rounds to warm up.
    for round in 0..rounds + 2 {
        for turn in 0..N {
            let who = (round + turn) % N;
            let start = thread_time();
            contenders[who](round);
            let time = thread_time() - start;
            if round >= 2 {
                times[who].push(time);
            }
        }
    }
    times.map(|mut times| {
        times.sort_unstable_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

/// CPU time of this thread in seconds.
fn thread_time() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Judges what it prints: two decimals.
fn at_most(name: &str, value: f64, limit: f64) {
    let value = (value * 100.0).round() / 100.0;
    println!("bench: {name} {value:.2} {limit:.2} {}", if value <= limit { "ok" } else { "over" });
}
