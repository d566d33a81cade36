//! Random nodes and random stories on them, damaged packets and plain noise among them, through all six programs and from all
//! pods: what the kernel's programs do, count, report and remember is what the model in plain Rust says, packet by packet.
//!
//! `PODWIRE_RANDOM_CASES` sets how many packets (30,000 unless set), `PODWIRE_RANDOM_SEED` repeats a run; a failure prints its
//! seed, and the shortest story found that shows it.

#[path = "common/programs.rs"]
mod programs;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{SystemTime, UNIX_EPOCH};

use programs::datapath::*;
use programs::model;
use programs::model::World;
use programs::rig::{Devices, Rig};
use programs::story::{Random, Told, random_story, shrink};

/// How many steps a story has.
const STEPS: usize = 40;

#[test]
fn the_programs_do_what_the_model_says() {
    let seed = number("PODWIRE_RANDOM_SEED")
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos() as u64);
    let cases = number("PODWIRE_RANDOM_CASES").unwrap_or(30_000);
    println!("PODWIRE_RANDOM_SEED={seed} PODWIRE_RANDOM_CASES={cases}");

    let mut kernel_log = KernelLog::open();
    let devices = Devices::new();
    let told = devices.run(|| stories(&devices, &mut Random(seed), cases));
    println!("{} packets\n{:#?}\n{:#?}", told.packets, told.fates, told.ways);
    if cases >= 30_000 {
        check_coverage(&told);
    }
    kernel_log.assert_quiet();
}

/// Tells stories until so many packets were met.
fn stories(devices: &Devices, random: &mut Random, cases: u64) -> Told {
    let rigs = [(true, true), (true, false), (false, true)].map(|(ipv4, ipv6)| {
        let world = World::bare(ipv4, ipv6);
        (Rig::load(&world), world)
    });
    let mut told = Told::default();
    let mut number = 0;
    while told.packets < cases {
        // Half of the worlds have both families.
        let (rig, world) = &rigs[[0, 0, 1, 2][random.below(4)]];
        let before = random.clone();
        let story = random_story(random, world.clone(), &devices.indices, STEPS);
        match story.play(rig) {
            Ok(one) => told.add(&one),
            Err(disagreement) => {
                let first = disagreement.what.clone();
                let (story, disagreement) = shrink(rig, story, disagreement);
                panic!(
                    "story {number}, which PODWIRE_RANDOM_SEED={} tells first: {first}\n\nThe shortest that was found:\n{}",
                    before.0,
                    story.tell(&disagreement)
                );
            }
        }
        number += 1;
    }
    for (rig, _) in &rigs {
        assert_eq!(rig.connection_errors(), [], "every connection found room");
        assert!(rig.node.budgets().iter().all(|budget| budget.lost == 0), "no event was lost");
    }
    told
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// The packets were varied enough to meet every way that a program and the model have.
fn check_coverage(told: &Told) {
    let of_pods = [130, 132, 133, 134, 139, 150, 151, 156, 172, 175, 176, 181, 182, 203];
    let of_pods = of_pods.map(|reason| (FROM_CONTAINER, SHOT, Some(reason)));
    let of_network = [132, 133, 134, 156, 175, 181, 203].map(|reason| (FROM_NETDEV, SHOT, Some(reason)));
    let to_pods = [133, 134, 151, 175, 181, 203].map(|reason| (TO_CONTAINER, SHOT, Some(reason)));
    let others = [
        (FROM_CONTAINER, REDIRECT, None),
        (FROM_CONTAINER, REDIRECT, Some(196)),
        (TO_CONTAINER, PASS, None),
        (FROM_HOST, PASS, None),
        (FROM_HOST, REDIRECT, None),
        (FROM_HOST, SHOT, Some(151)),
        (FROM_HOST, SHOT, Some(134)),
        (FROM_NETDEV, PASS, None),
        (FROM_NETDEV, REDIRECT, None),
    ];
    let all: BTreeMap<_, _> = told.fates.iter().collect();
    for fate in of_pods.into_iter().chain(of_network).chain(to_pods).chain(others) {
        assert!(all.contains_key(&fate), "no packet was so lucky as to meet {fate:?}: {all:?}");
    }
    for way in model::WAYS {
        assert!(told.ways.contains_key(way), "no packet took the way {way:?}: {:?}", told.ways);
    }
}

/// The kernel's log from now on.
struct KernelLog(File);

impl KernelLog {
    fn open() -> Self {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(nonblocking)
            .open("/dev/kmsg")
            .expect("root may read the kernel's log");
        file.seek(SeekFrom::End(0)).expect("the log has an end");
        Self(file)
    }

    fn assert_quiet(&mut self) {
        let mut record = [0; 8192];
        // One record a read; EAGAIN ends them.
        while let Ok(length) = self.0.read(&mut record) {
            let text = String::from_utf8_lossy(&record[..length]).into_owned();
            let alarms = ["WARNING:", "BUG:", "Oops", "general protection", "KASAN", "UBSAN", "Call Trace"];
            assert!(!alarms.iter().any(|alarm| text.contains(alarm)), "the kernel says: {text}");
        }
    }
}
