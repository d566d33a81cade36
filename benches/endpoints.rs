//! Endpoints: how long an agent takes to create, regenerate and adopt them, up to a thousand on a node.
//!
//! `cargo bench --bench endpoints --features programs [-- --quick]`, as root. A creation here is the work of an agent for a CNI
//! plugin, from the request for addresses until the endpoint is live: IPAM, the endpoint on disk, its row, its programs, its
//! addresses. Making the veth pair, adding clsact to the host's side and configuring the pod's, which in between is the plugin's
//! work, is shown apart: nearly all of it is the kernel's own time. Of these clsact alone takes the longer the more pods there are.
//! State lies on a tmpfs, as it does on a node, where /run is one.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use podwire::endpoint::veth::{PodNetwork, Settling, Veth, VethSpec};
use podwire::endpoint::{DeviceRef, Endpoint, EndpointSpec, Stage};
use podwire::ipam::{Allocation, Families, Lifetime};
use podwire::netlink::Socket;
use podwire::{Datapath, EndpointId};
use support::Effort;
use support::agent::Agent;
use support::figures::{at_most, median, milliseconds, print_head, print_row, quantile};
use support::programs;
use support::world::{self, Pod, World};

/// How many creations at either end of the thousand are compared.
const ENDS: usize = 50;
/// How long a plugin may take before the addresses it got are free again.
const CLAIM_WITHIN: Duration = Duration::from_secs(600);
/// How long the kernel may take to see that both ends of a pair are up.
const CARRIER_WITHIN: Duration = Duration::from_secs(5);

/// The times of one creation.
struct Creation {
    id: EndpointId,
    /// Allocating addresses.
    addresses: Duration,
    /// The veth pair: not the agent's work.
    pair: Duration,
    /// The place of the programs on it: the plugin's work too, as the agent attaches by clsact.
    clsact: Duration,
    /// From the request to create the endpoint until it is live.
    create: Duration,
    endpoint: Endpoint,
}

impl Creation {
    fn agent(&self) -> Duration {
        self.addresses + self.create
    }
}

fn main() {
    world::enter();
    let effort = Effort::asked();
    let program = programs::agent();
    let empty = starts(&program, effort);

    let node = World::new("thousand");
    let datapath = node.open();
    let creations = create_all(&node, &datapath, effort.choose(2 * ENDS, 1000, 1000));
    let regenerations = regenerate_all(&node, &datapath, &creations, effort.choose(1, 3, 10));
    drop(datapath);
    let adopting = adoptions(&program, &node, creations.len(), effort.choose(1, 3, 7));

    print_creations(&creations);
    print_head("regeneration, ms");
    print_row("regeneration", &regenerations);
    print_head("start of the agent until it serves, ms");
    print_row("nothing there", &empty);
    print_row(&format!("{} endpoints to adopt", creations.len()), &adopting);
    println!();

    let agent: Vec<f64> = creations.iter().map(|creation| milliseconds(creation.agent())).collect();
    at_most("endpoint-create-p99-ms", quantile(&agent, 0.99), 5.0);
    at_most("endpoint-1000th-vs-1st", median(&agent[agent.len() - ENDS..]) / median(&agent[..ENDS]), 1.5);
    at_most("endpoint-regenerate-p99-ms", quantile(&regenerations, 0.99), 1.0);
    at_most("agent-start-s", median(&empty) / 1e3, 0.5);
    at_most("agent-adopt-1000-s", median(&adopting) / 1e3, 2.0);
}

/// Starts of agents on machines that have never seen one: programs are loaded, maps made.
fn starts(program: &Path, effort: Effort) -> Vec<f64> {
    let start = |number| milliseconds(Agent::start(program, &World::new(&format!("empty-{number}"))).started);
    (0..effort.choose(1, 5, 15)).map(start).collect()
}

/// Starts of agents on a node with endpoints, each of which takes them all up.
fn adoptions(program: &Path, node: &World, endpoints: usize, count: usize) -> Vec<f64> {
    let start = |_| {
        let agent = Agent::start(program, node);
        let log = agent.log();
        assert!(log.contains(&format!("restored {endpoints} of {endpoints} endpoints")), "not adopted:\n{log}");
        milliseconds(agent.started)
    };
    (0..count).map(start).collect()
}

fn create_all(node: &World, datapath: &Datapath, count: usize) -> Vec<Creation> {
    node.run(|| {
        let socket = Socket::open().expect("a routing socket");
        (0..count).map(|number| create(datapath, &socket, number)).collect()
    })
}

fn create(datapath: &Datapath, socket: &Socket, number: usize) -> Creation {
    let name = format!("bench/pod-{number}");
    let pod = Pod::new(&format!("pod-{number}"));

    let start = Instant::now();
    let lifetime = Lifetime::UnlessClaimed(CLAIM_WITHIN);
    let allocation = datapath.ipam().allocate_next(&name, Families::All, lifetime).expect("a free address");
    let addresses = start.elapsed();

    let start = Instant::now();
    let veth = make_pair(socket, &pod, number);
    let mut pair = start.elapsed();

    let start = Instant::now();
    socket.clsact_add(veth.host_ifindex).expect("clsact on the host's side");
    let clsact = start.elapsed();

    let start = Instant::now();
    let settling = configure(datapath, &pod, &veth, &allocation);
    pair += start.elapsed();

    let start = Instant::now();
    let uuid = allocation.expiration.map(|expiration| expiration.id.to_string());
    let spec = EndpointSpec::new(name)
        .netns(&pod.path)
        .container_id(format!("container-{number}"))
        .device(DeviceRef {
            ifindex: veth.host_ifindex,
            name: veth.host_ifname.clone(),
            node_mac: veth.host_mac,
            mac: veth.pod_mac,
        })
        .ipv4(allocation.ipv4.map(|address| (address, uuid.clone())))
        .ipv6(allocation.ipv6.map(|address| (address, uuid)));
    let endpoint = datapath.endpoints().create(spec).expect("the endpoint is created");
    let create = start.elapsed();

    let start = Instant::now();
    veth.bring_up(socket).expect("the host's side comes up");
    veth.wait_until_running(socket, CARRIER_WITHIN).expect("both sides are up");
    settling.wait().expect("both sides are up");
    pair += start.elapsed();
    Creation { id: endpoint.id(), addresses, pair, clsact, create, endpoint }
}

/// What the plugin does while the agent allocates addresses.
fn make_pair(socket: &Socket, pod: &Pod, number: usize) -> Veth {
    let name = format!("lxc{number:012x}");
    let spec = VethSpec::new(&name, "eth0", &pod.netns)
        .expect("random addresses")
        .mtu(1500)
        .alias("podwire_cni:bench:pod:eth0")
        .down();
    Veth::create(socket, &spec).expect("a veth pair")
}

/// What it does, after clsact, while the agent creates the endpoint.
fn configure(datapath: &Datapath, pod: &Pod, veth: &Veth, allocation: &Allocation) -> Settling {
    let router = datapath.node();
    let mut network = PodNetwork::new(veth);
    network.ipv4 = allocation.ipv4.zip(router.router_ipv4);
    network.ipv6 = allocation.ipv6.zip(router.router_ipv6);
    network.configure(&pod.netns).expect("the pod's side")
}

/// Every endpoint in turn, several times over.
fn regenerate_all(node: &World, datapath: &Datapath, creations: &[Creation], times: usize) -> Vec<f64> {
    node.run(|| {
        let mut durations = Vec::new();
        for creation in std::iter::repeat_n(creations, times).flatten() {
            let start = Instant::now();
            datapath.endpoints().regenerate(creation.id).expect("regenerated");
            durations.push(milliseconds(start.elapsed()));
        }
        durations
    })
}

fn print_creations(creations: &[Creation]) {
    let row = |name: &str, of: &[Creation], time: &dyn Fn(&Creation) -> Duration| {
        print_row(name, &of.iter().map(|creation| milliseconds(time(creation))).collect::<Vec<_>>());
    };
    print_head("creation of an endpoint, ms");
    row("in the agent, IPAM to live", creations, &Creation::agent);
    row("  allocate addresses", creations, &|creation| creation.addresses);
    for stage in Stage::ALL {
        row(&format!("  stage {}", stage.name()), creations, &|creation| creation.endpoint.timings.of(stage));
    }
    row("not in it: the veth pair and the pod's side", creations, &|creation| creation.pair);
    row("not in it: clsact, by the plugin", creations, &|creation| creation.clsact);
    let (first, last) = (&creations[..ENDS], &creations[creations.len() - ENDS..]);
    for (name, part) in [("first", first), ("last", last)] {
        row(&format!("in the agent, the {name} {ENDS}"), part, &Creation::agent);
        row("  stage attach", part, &|creation| creation.endpoint.timings.of(Stage::Attach));
        row("  not in it: clsact, by the plugin", part, &|creation| creation.clsact);
    }
}
