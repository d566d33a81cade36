//! The short way of established connections while everything changes: packets of both directions on several CPUs, against a writer
//! that moves a pod between two devices and turns a policy over, against new connections that push old ones out of the table, and
//! against somebody who deletes them. No packet may go by what was never true, or is true no more. Needs root.

#[path = "common/programs.rs"]
mod programs;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use podwire::program::{ProgramSet, SkBuff, test_run};
use programs::datapath::{FROM_CONTAINER, PASS, REDIRECT, SHOT, TO_CONTAINER, hex};
use programs::model::{Direction, Endpoint, Entry, PortPrefix, World};
use programs::packets::*;
use programs::rig::{Devices, Rig, SLOTS};

/// How often the world changes.
const PHASES: u64 = 200;
/// How many packets each sender gets through before it changes again.
const PACKETS_A_PHASE: u64 = 25;

const WEB: [u8; 4] = [10, 0, 0, 10];
const DB: [u8; 4] = [10, 0, 0, 11];
const HOST: [u8; 4] = [10, 0, 0, 1];

/// Where a pod is: its device, its address and its device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    ifindex: u32,
    mac: Mac,
    node_mac: Mac,
}

/// What is in force in a phase.
#[derive(Clone, Copy, Debug)]
struct Phase {
    db: Place,
    allowed: bool,
}

fn phase(number: u64, devices: &[u32; 4]) -> Phase {
    let at = (number % 2) as u8;
    let db = Place {
        ifindex: devices[1 + usize::from(at)],
        mac: [0x8a, 0x11 * (at + 1), 0x11 * (at + 1), 0, 0x11 * (at + 1), 0x11 * (at + 1)],
        node_mac: [0x66, 0x11 * (at + 1), 0x11 * (at + 1), 0, 0x11 * (at + 1), 0x11 * (at + 1)],
    };
    Phase { db, allowed: number % 5 < 3 }
}

fn web(devices: &[u32; 4]) -> Place {
    Place { ifindex: devices[0], mac: [0x8a, 0, 0, 0, 0, 10], node_mac: [0x66, 0, 0, 0, 0, 10] }
}

/// The world of a phase: Web may talk to Db, and Db to nobody; the host may talk to Db.
fn world(number: u64, devices: &[u32; 4]) -> World {
    let mut world = World::bare(true, true);
    let phase = phase(number, devices);
    let pods = [(WEB, web(devices), 40_000), (DB, phase.db, 40_001)];
    for ((address, place, identity), id) in pods.into_iter().zip(SLOTS) {
        world.endpoints.push(Endpoint {
            id,
            ifindex: place.ifindex,
            identity,
            audit: false,
            mac: place.mac,
            node_mac: place.node_mac,
            ipv4: Some(address.into()),
            ipv6: None,
        });
    }
    world.host_addresses.insert(IpAddr::from(HOST));
    let line = |direction, identity, deny| Entry {
        identity,
        direction,
        protocol: None,
        ports: PortPrefix::ALL,
        deny,
        precedence: 1,
        cookie: 1,
        proxy_port: 0,
    };
    world.policies.insert(SLOTS[0], vec![line(Direction::Egress, 0, false)]);
    // One line changes, so that the change is one.
    world.policies.insert(SLOTS[1], vec![line(Direction::Ingress, 0, !phase.allowed)]);
    world
}

/// What changes are begun and what are done: a packet has to go by one that was in force at some time while it was under way.
#[derive(Default)]
struct Progress {
    begun: AtomicU64,
    done: AtomicU64,
    over: AtomicBool,
}

/// Packets that one sender sent.
#[derive(Default)]
struct Sent {
    packets: AtomicU64,
    /// Of them, those that passed.
    passed: AtomicU64,
    /// Of them, those in whose time nothing changed, so that there was one right answer.
    certain: AtomicU64,
}

struct Sender<'a> {
    set: &'a ProgramSet,
    devices: [u32; 4],
    progress: &'a Progress,
    sent: &'a Sent,
}

impl Sender<'_> {
    fn run(&self, program: &str, ifindex: u32, frame: &[u8]) -> (i32, Vec<u8>) {
        let program = self.set.program(program).expect("the program is loaded");
        let run = test_run(program, frame, &SkBuff { ifindex, ..SkBuff::default() }, 1).expect("the run is accepted");
        (run.retval as i32, run.data)
    }

    /// Sends until the end; `send` gets the phase that is in force and says what came out, `check` has to accept that for one
    /// of the phases that were in force meanwhile.
    fn until_the_end(
        &self,
        send: impl Fn(Phase, u64) -> (i32, Vec<u8>),
        check: impl Fn(&[Phase], &(i32, Vec<u8>)) -> bool,
    ) {
        let mut number = 0;
        while !self.progress.over.load(Ordering::SeqCst) {
            let first = self.progress.done.load(Ordering::SeqCst);
            let result = send(phase(first, &self.devices), number);
            let last = self.progress.begun.load(Ordering::SeqCst);
            let phases: Vec<Phase> = (first..=last).map(|number| phase(number, &self.devices)).collect();
            assert!(check(&phases, &result), "verdict {} with {phases:x?}, and\n{}", result.0, hex(&result.1));
            number += 1;
            self.sent.packets.fetch_add(1, Ordering::SeqCst);
            self.sent.passed.fetch_add(u64::from(result.0 != SHOT), Ordering::SeqCst);
            self.sent.certain.fetch_add(u64::from(first == last), Ordering::SeqCst);
        }
    }
}

fn udp(macs: (Mac, Mac), addresses: ([u8; 4], [u8; 4]), ports: (u16, u16)) -> Vec<u8> {
    let upper = [ports.0.to_be_bytes(), ports.1.to_be_bytes(), [0, 8], [0, 0]].concat();
    let addresses = (IpAddr::from(addresses.0), IpAddr::from(addresses.1));
    frame(macs.0, macs.1, TYPE_IPV4, &ipv4_datagram(addresses, 64, UDP, (1, 0), &[], &upper))
}

/// Dropped where a phase denies; sent on to where Db is in a phase, with both addresses of that phase.
fn to_db(phases: &[Phase], (verdict, packet): &(i32, Vec<u8>)) -> bool {
    match *verdict {
        SHOT => phases.iter().any(|phase| !phase.allowed),
        REDIRECT => {
            let there = |phase: &Phase| packet[..6] == phase.db.mac && packet[6..12] == phase.db.node_mac;
            phases.iter().any(|phase| phase.allowed) && phases.iter().any(there)
        }
        _ => false,
    }
}

#[test]
fn no_packet_goes_by_what_was_never_true_or_is_no_more() {
    let devices = Devices::new();
    let progress = Progress::default();
    let sent: [Sent; 5] = Default::default();
    devices.run(|| {
        let rig = Rig::load(&World::bare(true, true));
        rig.install(&under(&rig, world(0, &devices.indices)));
        let set = rig.node.set();
        let work: [fn(&Sender<'_>); 5] = [
            |sender| ask(sender, 5000),
            |sender| ask(sender, 5001),
            |sender| answer(sender, 5000),
            from_the_host,
            crowd,
        ];
        thread::scope(|scope| {
            let stop = StopAtEnd(&progress);
            for (work, sent) in work.into_iter().zip(&sent) {
                let sender = Sender { set, devices: devices.indices, progress: &progress, sent };
                let devices = &devices;
                scope.spawn(move || devices.run(|| work(&sender)));
            }
            for number in 1..=PHASES {
                wait_for_all(&sent);
                if number % 7 == 0 {
                    // As if the table had been too small.
                    rig.evict_some(64);
                }
                progress.begun.store(number, Ordering::SeqCst);
                rig.install(&under(&rig, world(number, &devices.indices)));
                progress.done.store(number, Ordering::SeqCst);
            }
            drop(stop);
        });
    });
    for (number, sent) in sent.iter().enumerate() {
        let [packets, passed, certain] =
            [&sent.packets, &sent.passed, &sent.certain].map(|count| count.load(Ordering::SeqCst));
        println!("sender {number}: {packets} packets, {passed} passed, {certain} while nothing changed");
        assert!(packets >= PHASES * PACKETS_A_PHASE && certain > packets / 10, "sender {number}");
        assert!(passed > packets / 20 && passed < packets * 19 / 20, "sender {number}");
    }
}

/// Ends the senders, also where the writer panics.
struct StopAtEnd<'a>(&'a Progress);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

fn under(rig: &Rig, mut world: World) -> World {
    world.generation = rig.fresh_generation();
    world
}

/// Until each sender has sent some more; one that has panicked never will, and its panic is reported at the end.
fn wait_for_all(sent: &[Sent; 5]) {
    let before: Vec<u64> = sent.iter().map(|sent| sent.packets.load(Ordering::SeqCst)).collect();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while sent.iter().zip(&before).any(|(sent, before)| sent.packets.load(Ordering::SeqCst) < before + PACKETS_A_PHASE)
    {
        assert!(std::time::Instant::now() < deadline, "a sender has stopped");
        thread::yield_now();
    }
}

/// Web asks Db, again and again on one connection.
fn ask(sender: &Sender<'_>, port: u16) {
    let from = web(&sender.devices);
    let packet = udp((from.mac, from.node_mac), (WEB, DB), (port, 53));
    sender.until_the_end(|_, _| sender.run(FROM_CONTAINER, from.ifindex, &packet), to_db);
}

/// Db answers, from where it is. Nobody but Web may be sent to, and nothing but answers.
fn answer(sender: &Sender<'_>, port: u16) {
    let to = web(&sender.devices);
    sender.until_the_end(
        |phase, _| {
            let packet = udp((phase.db.mac, phase.db.node_mac), (DB, WEB), (53, port));
            sender.run(FROM_CONTAINER, phase.db.ifindex, &packet)
        },
        |phases, (verdict, packet)| match *verdict {
            // Db has moved away, or may not be talked to, or the connection is not known (any more) and Db may open none.
            SHOT => true,
            REDIRECT => {
                packet[..6] == to.mac && packet[6..12] == to.node_mac && phases.iter().any(|phase| phase.allowed)
            }
            _ => false,
        },
    );
}

/// The host sends to Db through its device; the frame is the stack's and stays as it is.
fn from_the_host(sender: &Sender<'_>) {
    sender.until_the_end(
        |phase, _| {
            let packet = udp((phase.db.node_mac, phase.db.mac), (HOST, DB), (4000, 53));
            sender.run(TO_CONTAINER, phase.db.ifindex, &packet)
        },
        |phases, (verdict, _)| match *verdict {
            SHOT => phases.iter().any(|phase| !phase.allowed) || phases.len() > 1,
            PASS => phases.iter().any(|phase| phase.allowed),
            _ => false,
        },
    );
}

/// Ever new connections: the table is full of them, and its places go from one connection to the next.
fn crowd(sender: &Sender<'_>) {
    let from = web(&sender.devices);
    sender.until_the_end(
        |_, number| {
            let ports = ((number % 30_000) as u16 + 10_000, (number / 30_000) as u16 + 1);
            sender.run(FROM_CONTAINER, from.ifindex, &udp((from.mac, from.node_mac), (WEB, DB), ports))
        },
        to_db,
    );
}
