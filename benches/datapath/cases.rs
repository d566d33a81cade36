//! What is measured: nodes in a certain state, and packets that meet it.

use std::net::{IpAddr, Ipv4Addr};

use crate::datapath::*;
use crate::packets::*;
use podwire::SecurityId;
use podwire::program::ObjectImage;
use podwire::tables::{PolicyAction, PolicyDirection, PolicyL4, PolicyMatch, PolicyVerdict, PortPrefix, Protocol};

const BENCH: ObjectImage<'static> = ObjectImage::new("bench", include_bytes!(concat!(env!("OUT_DIR"), "/bench.bpf.o")));

/// Repetitions in one run: fewer than a packet has to live.
pub(crate) const REPEAT: u32 = 200;
/// Other pods and connections in the tables, so that they are not empty.
const OTHERS: u32 = 1000;
/// Rules of an ordinary policy.
const RULES: u32 = 200;
const MANY_RULES: u32 = 10_000;
const FLOWS: u32 = 16_384;

/// How repetitions differ: see `bench_vary`.
#[derive(Clone, Copy)]
pub(crate) enum Vary {
    /// So many flows to one port in turn.
    Flows(u32),
    /// New flows for ever: every source port, to one port after the other out of eight.
    New,
    /// A new flow each time, all to one port that is closed.
    Sources,
    /// Another destination port each time, which no verdict is remembered of.
    Ports,
}

impl Vary {
    pub(crate) const fn context(self) -> [u32; 4] {
        match self {
            Self::Flows(count) => [count - 1, 0, 0, 80],
            Self::New => [0x7fff, 7, 0, 80],
            Self::Sources => [0x7fff, 0, 0, 443],
            Self::Ports => [0, 0, 1, 0],
        }
    }
}

/// One line of the table: a program on a packet.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) program: &'static str,
    pub(crate) packet: Vec<u8>,
    pub(crate) verdict: i32,
    pub(crate) vary: Option<Vary>,
}

/// A node and what is measured on it.
pub(crate) struct World {
    pub(crate) node: Datapath,
    pub(crate) cases: Vec<Case>,
}

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;

pub(crate) fn worlds() -> Vec<World> {
    let free = node();
    open(&free, v4, v4_back);
    open(&free, v6, v6_back);
    let judged = node();
    enforce(&judged, RULES);
    guard(&judged);
    open(&judged, v4, v4_back);
    open(&judged, v6, v6_back);
    let (answered, one, many) = (node(), node(), node());
    enforce(&answered, RULES);
    answer(&answered, &replies(v4), &replies(v4_back_of));
    answer(&answered, &replies(v6), &replies(v6_back_of));
    enforce(&one, 0);
    open(&one, v4, v4_back);
    enforce(&many, MANY_RULES);
    open(&many, v4, v4_back);
    let flows = node();
    enforce(&flows, RULES);
    open_flows(&flows);
    vec![
        World { node: free, cases: unpoliced() },
        World { node: judged, cases: policed() },
        World {
            node: answered,
            cases: vec![case("reply v4", replies(v4)(ACK, 255)), case("reply v6", replies(v6)(ACK, 255))],
        },
        World { node: one, cases: vec![case("established, 1 rule", v4(ACK, 255))] },
        World { node: many, cases: vec![case("established, 10k rules", v4(ACK, 255))] },
        World {
            node: flows,
            cases: vec![
                vary(case("established, 16k flows", v4(ACK, 64)), Vary::Flows(FLOWS)),
                vary(on("floor, 16k flows", "bench_floor", v4(ACK, 64), REDIRECT), Vary::Flows(FLOWS)),
            ],
        },
    ]
}

/// A pod behind a policy of its own.
const C: Pod =
    Pod { ifindex: 4012, id: 1012, identity: 40_012, ipv4: Some(Ipv4Addr::new(10, 0, 0, 12)), ipv6: None, ..B };

fn unpoliced() -> Vec<Case> {
    let syn4 = |to| ipv4(A.to_gateway(), (A.v4(), to), 255, Upper::Udp);
    let syn6 = |to| ipv6(A.to_gateway(), (A.v6(), to), 255, Upper::Udp);
    let from_host4 = ipv4((HOST_MAC, HOST_MAC), (GATEWAY4, B.v4()), 255, Upper::Tcp);
    let from_host6 = ipv6((HOST_MAC, HOST_MAC), (GATEWAY6, B.v6()), 255, Upper::Tcp);
    vec![
        on("empty", "bench_empty", v4(ACK, 255), 0),
        vary(on("empty, varied", "bench_empty", v4(ACK, 255), 0), Vary::Flows(FLOWS)),
        on("floor v4", "bench_floor", v4(ACK, 255), REDIRECT),
        on("floor v6", "bench_floor", v6(ACK, 255), REDIRECT),
        on("floor-new v4", "bench_floor_new", v4(SYN, 255), REDIRECT),
        on("floor-new v6", "bench_floor_new", v6(SYN, 255), REDIRECT),
        case("pod to pod v4", v4(ACK, 255)),
        case("pod to pod v6", v6(ACK, 255)),
        case("pod to outside v4", syn4(OUTSIDE4)),
        case("pod to outside v6", syn6(OUTSIDE6)),
        on("host to pod v4", FROM_HOST, from_host4, REDIRECT),
        on("host to pod v6", FROM_HOST, from_host6, REDIRECT),
    ]
}

fn policed() -> Vec<Case> {
    let denied = with(&v4(SYN, 255), ETH + IPV4 + 2, &443u16.to_be_bytes());
    let guarded = with(&ipv4(A.to_gateway(), (A.v4(), C.v4()), 255, Upper::Tcp), ETH + IPV4 + 13, &[SYN]);
    vec![
        case("established v4", v4(ACK, 255)),
        case("established v6", v6(ACK, 255)),
        vary(case("new flow v4", v4(SYN, 64)), Vary::New),
        vary(case("new flow v6", v6(SYN, 64)), Vary::New),
        on("policy drop v4", FROM_CONTAINER, denied.clone(), SHOT),
        vary(on("first policy drop v4", FROM_CONTAINER, denied.clone(), SHOT), Vary::Sources),
        vary(on("policy drop, port scan", FROM_CONTAINER, denied, SHOT), Vary::Ports),
        vary(on("the same, denied there", FROM_CONTAINER, guarded, SHOT), Vary::Ports),
    ]
}

fn case(name: &'static str, packet: Vec<u8>) -> Case {
    on(name, FROM_CONTAINER, packet, REDIRECT)
}

fn on(name: &'static str, program: &'static str, packet: Vec<u8>, verdict: i32) -> Case {
    Case { name, program, packet, verdict, vary: None }
}

fn vary(case: Case, how: Vary) -> Case {
    Case { vary: Some(how), ..case }
}

/// A's packets to B, and B's answers as they leave the device of A.
fn v4(flags: u8, hops: u8) -> Vec<u8> {
    with(&ipv4(A.to_gateway(), (A.v4(), B.v4()), hops, Upper::Tcp), ETH + IPV4 + 13, &[flags])
}

fn v6(flags: u8, hops: u8) -> Vec<u8> {
    with(&ipv6(A.to_gateway(), (A.v6(), B.v6()), hops, Upper::Tcp), ETH + IPV6 + 13, &[flags])
}

fn v4_back(flags: u8) -> Vec<u8> {
    swap_ports(&ipv4((A.node_mac, A.mac), (B.v4(), A.v4()), 64, Upper::Tcp), ETH + IPV4, flags)
}

fn v6_back(flags: u8) -> Vec<u8> {
    swap_ports(&ipv6((A.node_mac, A.mac), (B.v6(), A.v6()), 64, Upper::Tcp), ETH + IPV6, flags)
}

fn swap_ports(frame: &[u8], at: usize, flags: u8) -> Vec<u8> {
    let ports = [&frame[at + 2..at + 4], &frame[at..at + 2]].concat();
    with(&with(frame, at, &ports), at + 13, &[flags])
}

/// A opens a connection to B.
fn open(node: &Datapath, out: fn(u8, u8) -> Vec<u8>, back: fn(u8) -> Vec<u8>) {
    expect(node, FROM_CONTAINER, &out(SYN, 64), REDIRECT);
    expect(node, TO_CONTAINER, &back(SYN_ACK), PASS);
    expect(node, FROM_CONTAINER, &out(ACK, 64), REDIRECT);
}

/// B opens one to A.
fn answer(node: &Datapath, out: &impl Fn(u8, u8) -> Vec<u8>, back: &impl Fn(u8, u8) -> Vec<u8>) {
    expect(node, TO_CONTAINER, &back(SYN, 64), PASS);
    expect(node, FROM_CONTAINER, &out(SYN_ACK, 64), REDIRECT);
    expect(node, TO_CONTAINER, &back(ACK, 64), PASS);
    expect(node, FROM_CONTAINER, &out(ACK, 64), REDIRECT);
}

/// The same packets the other way round: the side that had been asked asks.
fn replies(packet: fn(u8, u8) -> Vec<u8>) -> impl Fn(u8, u8) -> Vec<u8> {
    move |flags, hops| {
        let frame = packet(flags, hops);
        let at = if frame[12..14] == [0x86, 0xdd] { ETH + IPV6 } else { ETH + IPV4 };
        swap_ports(&frame, at, flags)
    }
}

fn v4_back_of(flags: u8, _hops: u8) -> Vec<u8> {
    v4_back(flags)
}

fn v6_back_of(flags: u8, _hops: u8) -> Vec<u8> {
    v6_back(flags)
}

fn open_flows(node: &Datapath) {
    for number in 0..FLOWS {
        let port = (20_000 + number as u16).to_be_bytes();
        for flags in [SYN, ACK] {
            expect(node, FROM_CONTAINER, &with(&v4(flags, 64), ETH + IPV4, &port), REDIRECT);
        }
        add_floor_tuple4(node, &B, port);
    }
}

fn expect(node: &Datapath, program: &str, frame: &[u8], verdict: i32) {
    let run = node.run_quick(program, frame, &Default::default());
    assert_eq!(run.0, verdict, "{program}: {}", hex(frame));
}

/// Pods, of which A and B are two, with nothing forbidden; drops emit no events.
fn node() -> Datapath {
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
        node.add_addresses(&pod);
        add_floor(&node, &pod);
    }
    add_floor(&node, &receiver());
    node.advance();
    node.switch(0, 0);
    node
}

/// B, with its host side's address such that repetitions pass the check of their source.
fn receiver() -> Pod {
    Pod { node_mac: A.mac, ..B }
}

/// Both pods' policies let them talk by TCP on ports 80 to 87, either opening; beside that, `others` rules for other peers each, and as
/// many prefixes.
fn enforce(node: &Datapath, others: u32) {
    for (own, peer) in [(A, B), (B, A)] {
        node.set_policy(own.id, &lines(&peer, others));
    }
    for number in 0..others {
        let address = Ipv4Addr::from(0xc633_0000 + number);
        node.set_identity(IpAddr::V4(address), 32, 50_000 + number);
    }
    node.advance();
}

/// Adds C, to whom A may send what it likes, and who would take some of it from B.
fn guard(node: &Datapath) {
    node.add(&C);
    node.set_policy(C.id, &lines(&B, RULES));
    let matched =
        PolicyMatch { direction: PolicyDirection::Egress, identity: SecurityId::new(C.identity), l4: PolicyL4::Any };
    let mut own = lines(&B, RULES);
    own.push((matched, PolicyVerdict::new(PolicyAction::Allow, 1)));
    node.set_policy(A.id, &own);
}

fn lines(peer: &Pod, others: u32) -> Vec<(PolicyMatch, PolicyVerdict)> {
    let mut lines = Vec::new();
    for direction in [PolicyDirection::Ingress, PolicyDirection::Egress] {
        lines.push(allow(direction, peer.identity));
        lines.extend((0..others).map(|number| allow(direction, 50_000 + number)));
    }
    lines
}

fn allow(direction: PolicyDirection, peer: u32) -> (PolicyMatch, PolicyVerdict) {
    let ports = PortPrefix::new(80, 13).expect("eight ports");
    let l4 = PolicyL4::Ports(Protocol::TCP, ports);
    let matched = PolicyMatch { direction, identity: SecurityId::new(peer), l4 };
    (matched, PolicyVerdict::new(PolicyAction::Allow, 1))
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
    add_floor_tuple4(node, pod, 40000u16.to_be_bytes());
    let tuple6 = [&A.v6().octets()[..], &pod.v6().octets(), &ports_and_protocol(40000u16.to_be_bytes())].concat();
    node.write("bench_tuple6", &tuple6, &[0; 24]);
}

fn add_floor_tuple4(node: &Datapath, pod: &Pod, source_port: [u8; 2]) {
    let tuple = [&A.v4().octets()[..], &pod.v4().octets(), &ports_and_protocol(source_port)].concat();
    node.write("bench_tuple4", &tuple, &[0; 24]);
}

fn ports_and_protocol(source_port: [u8; 2]) -> Vec<u8> {
    [&source_port[..], &80u16.to_be_bytes(), &6u32.to_ne_bytes()].concat()
}
