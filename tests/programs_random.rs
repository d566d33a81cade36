//! Bytes at random, and valid packets damaged at random, through all six programs.
//!
//! `PODWIRE_RANDOM_CASES` sets how many (10,000 unless set), `PODWIRE_RANDOM_SEED` repeats a run; a failure prints its seed.

#[path = "common/bpf.rs"]
mod bpf;
#[path = "common/datapath.rs"]
mod datapath;
#[path = "common/packets.rs"]
mod packets;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{SystemTime, UNIX_EPOCH};

use datapath::*;
use packets::*;
use podwire::abi::ForwardPoint;
use podwire::program::SkBuff;

/// What a test run takes whatever the frame's type says.
const TAKEN: usize = ETH + IPV6;

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

#[test]
fn damaged_and_random_packets_have_a_verdict_and_nothing_else_happens() {
    let seed = number("PODWIRE_RANDOM_SEED")
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos() as u64);
    let cases = number("PODWIRE_RANDOM_CASES").unwrap_or(10_000);
    println!("PODWIRE_RANDOM_SEED={seed} PODWIRE_RANDOM_CASES={cases}");

    let mut kernel_log = KernelLog::open();
    let node = Datapath::load();
    node.switch(0, 0);
    let valid = valid();
    let mut random = Random(seed);
    let mut verdicts = BTreeMap::<(&str, i32), u64>::new();
    for case in 0..cases {
        let frame = random_frame(&mut random, &valid);
        for program in PROGRAMS {
            let (verdict, packet) = run(&node, program, &frame);
            let judged = std::panic::catch_unwind(|| judge(program, &frame, verdict, &packet));
            assert!(judged.is_ok(), "case {case} of seed {seed}: {program} gave {verdict} for\n{}", hex(&frame));
            *verdicts.entry((program, verdict)).or_default() += 1;
        }
    }
    println!("{verdicts:?}");
    check_totals(&node, &verdicts, cases);
    kernel_log.assert_quiet();
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn run(node: &Datapath, program: &str, frame: &[u8]) -> (i32, Vec<u8>) {
    if frame.len() >= TAKEN {
        return node.run_quick(program, frame, &SkBuff::default());
    }
    let mut long_enough = frame.to_vec();
    long_enough.resize(TAKEN, 0);
    node.run_cut(program, &long_enough, frame.len())
}

/// Valid packets of every kind and direction.
fn valid() -> Vec<Vec<u8>> {
    let received = (NEIGHBOUR_MAC, DEVICE_MAC);
    let mut frames = vec![
        Arp { operation: 1, sender: (A.mac, A.v4()), target: ([0; 6], GATEWAY4) }.frame(A.mac, [0xff; 6]),
        icmpv6(A.to_gateway(), (A.v6(), GATEWAY6), 255, &ndp(135, 0, GATEWAY6, &link_layer_option(1, A.mac))),
        ipv6_raw(
            A.to_gateway(),
            (A.v6(), B.v6()),
            64,
            0,
            &[60, 0, 1, 4, 0, 0, 0, 0, 44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 0],
        ),
        ipv6_raw(
            A.to_gateway(),
            (A.v6(), B.v6()),
            64,
            43,
            &[51, 0, 2, 0, 0, 0, 0, 0, 58, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 128, 0],
        ),
    ];
    for upper in UPPERS {
        frames.extend([A.sends4(B.v4(), upper), A.sends4(OUTSIDE4, upper), A.sends4(GATEWAY4, upper)]);
        frames.extend([A.sends6(B.v6(), upper), A.sends6(OUTSIDE6, upper), A.sends6(GATEWAY6, upper)]);
        frames.push(ipv4(received, (OUTSIDE4, B.v4()), 64, upper));
        frames.push(ipv6(received, (OUTSIDE6, B.v6()), 64, upper));
        frames.push(ipv4((A.node_mac, A.mac), (B.v4(), A.v4()), 64, upper));
        frames.push(ipv6((A.node_mac, A.mac), (B.v6(), A.v6()), 64, upper));
    }
    frames
}

fn random_frame(random: &mut Random, valid: &[Vec<u8>]) -> Vec<u8> {
    match random.below(4) {
        // Nothing but noise.
        0 => {
            let length = ETH + random.below(200);
            random.bytes(length)
        }
        // Noise that begins like something of A's.
        1 => {
            let length = random.below(120);
            let mut body = random.bytes(length);
            let types = [(TYPE_IPV4, 0x45), (TYPE_IPV4, 0x4f), (TYPE_IPV6, 0x60), (TYPE_ARP, 0), (0x8100, 0)];
            let &(ethertype, first) = random.pick(&types);
            if let Some(byte) = body.first_mut() {
                *byte = first;
            }
            frame(A.mac, A.node_mac, ethertype, &body)
        }
        // A valid packet with some bits turned over, most of them in the headers.
        2 => {
            let mut frame = random.pick(valid).clone();
            for _ in 0..=random.below(4) {
                let end = if random.below(4) == 0 { frame.len() } else { frame.len().min(80) };
                let at = random.below(end);
                frame[at] ^= 1 << random.below(8);
            }
            frame
        }
        // A valid packet cut, lengthened or with a byte replaced by a telling one.
        _ => {
            let mut frame = random.pick(valid).clone();
            if random.below(2) == 0 {
                frame.truncate(ETH + random.below(frame.len() - ETH));
            } else {
                let more = random.below(100);
                frame.extend(random.bytes(more));
            }
            let at = random.below(frame.len());
            frame[at] = *random
                .pick(&[0, 1, 4, 5, 6, 0x0f, 0x40, 0x45, 0x4f, 0x60, 0x7f, 0x80, 0xfe, 0xff, 43, 44, 51, 58, 60, 135]);
            frame
        }
    }
}

/// What each program may do at all, and what it may do to a packet.
fn judge(program: &str, frame: &[u8], verdict: i32, packet: &[u8]) {
    let allowed: &[i32] = match program {
        FROM_CONTAINER => &[REDIRECT, SHOT],
        TO_CONTAINER => &[PASS, SHOT],
        FROM_HOST | FROM_NETDEV => &[PASS, REDIRECT, SHOT],
        _ => &[PASS],
    };
    assert!(allowed.contains(&verdict), "verdict {verdict}");
    if verdict != REDIRECT {
        assert_eq!(hex(packet), hex(frame), "only what is redirected is rewritten");
        return;
    }
    if program == FROM_CONTAINER {
        assert_eq!(frame[6..12], A.mac, "a forged MAC address was forwarded");
        if is_answer(frame, packet) {
            return;
        }
        assert!(source_is_own(frame), "a forged address was forwarded");
        if hex(packet) == hex(&with(frame, 0, &HOST_MAC)) {
            return;
        }
    }
    let pod = [A, B].into_iter().find(|pod| packet[..6] == pod.mac).expect("written for a pod or the host");
    assert_eq!(packet[6..12], pod.node_mac);
    let decrement = u8::from(program != FROM_HOST);
    match u16::from_be_bytes([frame[12], frame[13]]) {
        TYPE_IPV4 => {
            assert_eq!(packet[ETH + 16..ETH + 20], pod.v4().octets());
            assert_eq!(packet[ETH + 8], frame[ETH + 8] - decrement);
            assert_eq!(hex(&blank(packet, &[8, 10, 11])), hex(&blank(frame, &[8, 10, 11])));
            assert_eq!(checksum_balance(packet), checksum_balance(frame), "right stays right, wrong stays wrong");
        }
        TYPE_IPV6 => {
            assert_eq!(packet[ETH + 24..ETH + 40], pod.v6().octets());
            assert_eq!(packet[ETH + 7], frame[ETH + 7] - decrement);
            assert_eq!(hex(&blank(packet, &[7])), hex(&blank(frame, &[7])));
        }
        other => panic!("a frame of type {other:#06x} was delivered"),
    }
}

/// The packet without its MAC addresses and without these bytes of its IP header.
fn blank(packet: &[u8], offsets: &[usize]) -> Vec<u8> {
    let mut packet = packet[12..].to_vec();
    for offset in offsets {
        packet[ETH - 12 + offset] = 0;
    }
    packet
}

/// The one's complement sum of the first 20 bytes of the IPv4 header: 0xffff, 0 and equal values are what they were.
fn checksum_balance(packet: &[u8]) -> u16 {
    internet_checksum(&packet[ETH..ETH + IPV4]) % 0xffff
}

fn source_is_own(frame: &[u8]) -> bool {
    match u16::from_be_bytes([frame[12], frame[13]]) {
        TYPE_IPV4 => frame[ETH + 12..ETH + 16] == A.v4().octets(),
        TYPE_IPV6 => frame[ETH + 8..ETH + 24] == A.v6().octets(),
        _ => false,
    }
}

/// Whether this is the gateway's ARP reply or neighbour advertisement to A, byte for byte.
fn is_answer(frame: &[u8], packet: &[u8]) -> bool {
    if frame[12..14] == TYPE_ARP.to_be_bytes() {
        let mut reply =
            Arp { operation: 2, sender: (A.node_mac, GATEWAY4), target: (A.mac, A.v4()) }.frame(A.node_mac, A.mac);
        reply.extend_from_slice(&frame[reply.len()..]);
        return hex(packet) == hex(&reply);
    }
    if frame[12..14] != TYPE_IPV6.to_be_bytes() || frame.len() < ETH + IPV6 + 24 || frame[ETH + IPV6] != 135 {
        return false;
    }
    let source: [u8; 16] = frame[ETH + 8..ETH + 24].try_into().expect("sixteen bytes");
    let link_local = source[0] == 0xfe && source[1] & 0xc0 == 0x80;
    let answer = ndp(136, 0xe0, GATEWAY6, &link_layer_option(2, A.node_mac));
    let expected = icmpv6((A.node_mac, A.mac), (GATEWAY6, source.into()), 255, &answer);
    (link_local || source == A.v6().octets()) && hex(packet) == hex(&expected)
}

/// Each packet was counted where it should be, and only there.
fn check_totals(node: &Datapath, verdicts: &BTreeMap<(&str, i32), u64>, cases: u64) {
    let of = |program: &'static str, verdict: i32| verdicts.get(&(program, verdict)).copied().unwrap_or_default();
    let forwards = node.forwards();
    let counted = |point: ForwardPoint| forwards.get(&(point as u32)).map_or(0, |value| value.count);
    let drops = node.drops();
    let dropped: u64 = drops.values().map(|value| value.count).sum();
    let expired: u64 = drops.iter().filter(|(key, _)| key.reason == 196).map(|(_, value)| value.count).sum();
    let shot: u64 = verdicts.iter().filter(|((_, verdict), _)| *verdict == SHOT).map(|(_, count)| count).sum();
    assert_eq!(dropped, shot + expired, "each drop is counted once");
    assert_eq!(counted(ForwardPoint::ToHost), cases);
    assert_eq!(counted(ForwardPoint::ToNetwork), cases);
    assert_eq!(counted(ForwardPoint::StackToPod), of(TO_CONTAINER, PASS));
    assert_eq!(counted(ForwardPoint::HostToPod), of(FROM_HOST, REDIRECT));
    assert_eq!(counted(ForwardPoint::NetworkToPod), of(FROM_NETDEV, REDIRECT));
    assert_eq!(counted(ForwardPoint::FromNetwork), of(FROM_NETDEV, PASS));
    // What is left are answers to ARP and neighbour solicitations.
    let forwarded = counted(ForwardPoint::PodToPod) + counted(ForwardPoint::PodToStack) + expired;
    let redirected = of(FROM_CONTAINER, REDIRECT);
    assert!(forwarded <= redirected, "{forwarded} of {redirected}");
    if cases >= 1000 {
        assert!(forwarded > 0 && redirected > forwarded, "the damage left some packets whole: {verdicts:?}");
        assert!(of(FROM_NETDEV, REDIRECT) > 0 && of(FROM_HOST, REDIRECT) > 0 && of(TO_CONTAINER, PASS) > 0);
    }
    assert!(node.budgets().iter().all(|budget| budget.lost == 0 && budget.emitted == 0));
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
