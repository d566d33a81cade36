//! What others change is put back, and what can't be put back keeps nothing else from it. Needs root.
mod common;

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use common::netns::TestNetns;
use common::node::{TestNode, arrives};
use podwire::endpoint::{Endpoint, EndpointState};
use podwire::tables::{IpCache, LxcEntry, LxcMap, PolicyMaps};
use podwire::{Datapath, ErrorKind, IfIndex, Label};

/// A node with two pods.
struct World {
    node: TestNode,
    pods: [TestNetns; 2],
    endpoints: [Endpoint; 2],
    datapath: Datapath,
}

impl World {
    fn new() -> Self {
        let (node, pods) = (TestNode::new(), [TestNetns::new(), TestNetns::new()]);
        let datapath = node.open();
        let endpoints =
            [0, 1].map(|number: usize| node.create(&datapath, &format!("default/pod{number}"), &pods[number]));
        Self { node, pods, endpoints, datapath }
    }

    fn address(&self, number: usize) -> IpAddr {
        self.endpoints[number].ipv4().expect("IPv4").into()
    }

    /// Takes our programs off a device and puts a filter of somebody else's in their place.
    fn occupy(&self, device: IfIndex, name: &str) {
        let socket = self.node.netns.socket();
        socket.clsact_delete(device).expect("deleted");
        socket.clsact_add(device).expect("added");
        let filter = ["filter", "add", "dev", name, "ingress", "pref", "1", "protocol", "all", "handle", "1", "bpf"];
        let program = ["bytecode", "1,6 0 0 4294967295,"];
        let added = self.node.netns.run(|| Command::new("tc").args(filter).args(program).status().expect("tc runs"));
        assert!(added.success());
    }

    fn maintain(&self) -> podwire::Result<()> {
        self.node.netns.run(|| self.datapath.maintain())
    }

    fn is_audited(&self, number: usize) -> bool {
        let lxc = LxcMap::open_pinned(self.node.bpf.maps()).expect("the pin");
        match lxc.lookup(self.address(number)).expect("readable") {
            Some(LxcEntry::Endpoint(endpoint)) => endpoint.flags.contains(podwire::tables::EndpointFlags::AUDIT),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_device_that_refuses_the_programs_keeps_nothing_else_from_being_put_back() {
    let world = World::new();
    let host = world.datapath.node().host.clone();
    world.occupy(host.ifindex, &host.name);
    let maps = world.node.bpf.maps();
    let lxc = LxcMap::open_pinned(&maps).expect("the pin");
    let ipcache = IpCache::open_pinned(&maps).expect("the pin");
    let policies = PolicyMaps::open_pinned(&maps).expect("the pin");
    let (address, id) = (world.address(1), world.endpoints[1].id());
    assert!(lxc.delete(address).expect("deleted") && ipcache.delete(address.into()).expect("deleted"));
    assert!(policies.remove(id).expect("removed"));
    assert!(!arrives(&world.pods[0], &world.pods[1], address));

    assert_eq!(world.maintain().expect_err("its place is taken").kind(), ErrorKind::Foreign);
    assert!(lxc.lookup(address).expect("readable").is_some() && ipcache.lookup(address).expect("readable").is_some());
    assert!(policies.policy_id(id).expect("readable").is_some());
    assert!(arrives(&world.pods[0], &world.pods[1], address));

    world.node.netns.socket().clsact_delete(host.ifindex).expect("deleted");
    world.maintain().expect("all is put back");
    assert!(world.node.netns.run(|| world.datapath.status()).is_ok());
}

#[test]
fn what_the_ipcache_lost_is_found() {
    let world = World::new();
    let ipcache = IpCache::open_pinned(world.node.bpf.maps()).expect("the pin");
    let before = ipcache.lookup(world.address(0)).expect("readable").expect("mapped");
    world.maintain().expect("the first look");
    let generation = |world: &World| world.datapath.policy().writer().switches().generation().expect("readable");
    let mut other = before;
    other.identity = podwire::SecurityId::new(2);
    ipcache.upsert(world.address(0).into(), &other).expect("written");
    let changed = generation(&world);
    // It is looked through the sooner again the less there is in it.
    let deadline = Instant::now() + Duration::from_secs(30);
    while ipcache.lookup(world.address(0)).expect("readable") != Some(before) {
        assert!(Instant::now() < deadline, "nobody looks");
        world.maintain().expect("maintained");
    }
    assert!(generation(&world) > changed, "what programs remember of it is void");
}

#[test]
fn audit_comes_into_force_where_it_can_and_elsewhere_with_the_rest() {
    let world = World::new();
    let sick = &world.endpoints[0];
    world.occupy(sick.record.ifindex, &sick.record.device);
    let error = world.node.netns.run(|| world.datapath.set_policy_audit(true)).expect_err("its place is taken");
    assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
    assert!(world.datapath.policy_audit() && world.is_audited(1) && !world.is_audited(0));
    // So do labels, and the identity before is held until then.
    let before = sick.record.identity();
    let label: Label = "k8s:app=web".parse().expect("a label");
    let changed = world.node.netns.run(|| world.datapath.endpoints().change_labels(sick.id(), &[label], &[]));
    assert_eq!(changed.expect_err("its place is taken").kind(), ErrorKind::Foreign);
    assert!(world.datapath.identities().get(before).is_some());

    world.node.netns.socket().clsact_delete(sick.record.ifindex).expect("deleted");
    world.maintain().expect("all is put back");
    let healed = world.datapath.endpoints().get(sick.id()).expect("known");
    assert_eq!(healed.state, EndpointState::Ready);
    assert!(world.is_audited(0) && healed.record.identity() != before);
    assert!(arrives(&world.pods[1], &world.pods[0], world.address(0)));
}
