//! TCP request and response between two pods, against a bare veth pair between two namespaces.
//!
//! `cargo bench --bench tcp_rr [-- --quick]`, as root. One byte there and one byte back over a connection that stands. Both paths
//! take turns in many short rounds of one run, and the ratio is the median of the rounds' ratios: what slows the machine for a
//! while slows both. Client and server are bound to a CPU each. The pair's own ends are the namespaces' only devices, and nothing
//! is attached to them; a pod's packets pass the node's programs and two pairs. A round counts by the median of its requests, which
//! leaves out those during which somebody else had the CPU.

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use podwire::MacAddr;
use podwire::endpoint::EndpointSpec;
use podwire::netlink::{AddressSpec, DeviceSpec, Socket, VethSpec};
use podwire::netns::NetNs;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::os::fd::AsFd;
use support::Effort;
use support::figures::{at_most, median, print_head, print_row};
use support::world::{self, Pod, World, loopback_up};

/// Requests in a round.
const REQUESTS: usize = 100;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    world::enter();
    let rounds = Effort::asked().choose(3, 300, 1500);
    let cpus = Cpus::allowed();
    let node = World::new("node");
    let datapath = node.open();
    let pods = ["client", "server"].map(|name| Pod::new(&format!("pod-{name}")));
    let endpoints = [0, 1].map(|number| {
        let spec = EndpointSpec::new(format!("bench/{number}")).netns(&pods[number].path);
        node.run(|| datapath.endpoints().create(spec)).expect("the endpoint is created")
    });
    let bare = bare_pair();

    cpus.bind(0);
    let (mut rows, mut ratios) = (Vec::new(), Vec::new());
    let paths = |v6: bool| {
        let server = &endpoints[1].record;
        let (pod, other): (IpAddr, IpAddr) = match v6 {
            false => (server.ipv4.expect("both families").into(), [10, 99, 0, 2].into()),
            true => (server.ipv6.expect("both families").into(), "fd00:99::2".parse().expect("an address")),
        };
        let pods = Path::open(&pods[0].netns, &pods[1].netns, pod, &cpus);
        let bare = Path::open(&bare[0], &bare[1], other, &cpus);
        [bare, pods]
    };
    for (v6, family) in [(false, "v4"), (true, "v6")] {
        let mut paths = paths(v6);
        let [bare, pods] = measure(&mut paths, rounds);
        ratios.push(bare.iter().zip(&pods).map(|(bare, pods)| pods / bare).collect::<Vec<_>>());
        rows.push((format!("bare veth pair {family}"), bare));
        rows.push((format!("pod to pod {family}"), pods));
    }
    print_head("request and response, µs, rounds' medians");
    for (name, times) in &rows {
        print_row(name, times);
    }
    println!("ratio of medians: v4 {:.3}, v6 {:.3}\n", median(&ratios[0]), median(&ratios[1]));
    let forwards: u64 = datapath.forwards().counters().expect("counters").iter().map(|counter| counter.packets).sum();
    assert!(forwards >= (4 * rounds * REQUESTS) as u64, "the pods' packets passed the programs");
    at_most("tcp-rr-vs-veth", median(&ratios[0]).max(median(&ratios[1])), 1.1);
}

/// The median of each round in microseconds, by path; who begins changes with every round.
fn measure(paths: &mut [Path; 2], rounds: usize) -> [Vec<f64>; 2] {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds + 2 {
        for turn in 0..2 {
            let who = (round + turn) % 2;
            let requests: Vec<f64> = (0..REQUESTS).map(|_| paths[who].request()).collect();
            // The first rounds warm the caches.
            if round >= 2 {
                times[who].push(median(&requests));
            }
        }
    }
    times
}

/// A connection whose other end sends every byte back.
struct Path {
    stream: Option<TcpStream>,
    server: Option<JoinHandle<()>>,
}

impl Path {
    fn open(from: &NetNs, to: &NetNs, address: IpAddr, cpus: &Cpus) -> Self {
        let bind = || TcpListener::bind(SocketAddr::new(address, 0)).expect("the address is there");
        let listener = to.run(bind).expect("run in the namespace");
        let target = listener.local_addr().expect("bound");
        let cpus = cpus.clone();
        let server = thread::spawn(move || {
            cpus.bind(1);
            let (mut stream, _) = listener.accept().expect("the client comes");
            stream.set_nodelay(true).expect("an option");
            let mut byte = [0];
            while let Ok(1) = stream.read(&mut byte) {
                stream.write_all(&byte).expect("the client is there");
            }
        });
        let connect = || TcpStream::connect_timeout(&target, PATIENCE).expect("the server listens");
        let stream = from.run(connect).expect("run in the namespace");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        Self { stream: Some(stream), server: Some(server) }
    }

    /// Asks once; microseconds until the answer is there.
    fn request(&mut self) -> f64 {
        let stream = self.stream.as_mut().expect("open until dropped");
        let mut byte = [7];
        let start = Instant::now();
        stream.write_all(&byte).expect("the server is there");
        stream.read_exact(&mut byte).expect("the server answers");
        start.elapsed().as_secs_f64() * 1e6
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        drop(self.stream.take());
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

/// Two namespaces, a veth pair between them, an address of each family on both ends.
fn bare_pair() -> [NetNs; 2] {
    let namespaces = [0, 1].map(|_| NetNs::create().expect("the benches run as root"));
    let device =
        |last: u8| DeviceSpec { name: "eth0", mac: Some(MacAddr::new([2, 0, 0, 0, 0, last])), ..DeviceSpec::default() };
    let socket = Socket::open_in(&namespaces[0]).expect("a routing socket");
    let peer = DeviceSpec { netns: Some(namespaces[1].as_fd()), ..device(2) };
    socket.link_create_veth(&VethSpec { device: device(1), up: true, peer }).expect("a veth pair");
    for (netns, last) in namespaces.iter().zip(1..) {
        loopback_up(netns);
        let socket = Socket::open_in(netns).expect("a routing socket");
        let link = socket.link_by_name("eth0").expect("just made").index;
        socket.link_set_up(link).expect("bring it up");
        for address in [format!("10.99.0.{last}/24"), format!("fd00:99::{last}/64")] {
            let address = address.parse().expect("an address");
            socket.address_add(&AddressSpec::new(link, address)).expect("add an address");
        }
    }
    namespaces
}

/// The CPUs that this process may use.
#[derive(Clone)]
struct Cpus(Vec<usize>);

impl Cpus {
    fn allowed() -> Self {
        let set = sched_getaffinity(None).expect("readable");
        Self((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
    }

    /// Binds the calling thread to one of them.
    fn bind(&self, number: usize) {
        let mut set = CpuSet::new();
        set.set(self.0[number % self.0.len()]);
        sched_setaffinity(None, &set).expect("one of those allowed");
    }
}
