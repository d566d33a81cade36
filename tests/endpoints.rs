//! The life of endpoints: creation and its undoing, restarts, removal. Needs root.
mod common;

use std::net::IpAddr;

use common::bpf::tcx_or_skip;
use common::netns::TestNetns;
use common::node::{Echo, TestNode, arrives, exchange_udp};
use podwire::endpoint::{DeviceRef, EndpointRef, EndpointSpec, EndpointState};
use podwire::netlink::{DeviceSpec, VethSpec};
use podwire::netns::NetNs;
use podwire::program::Direction;
use podwire::{AttachMode, EndpointId, ErrorKind, IfIndex, MacAddr};

#[test]
fn a_restart_adopts_everything_and_cuts_nothing() {
    for (before, after) in [
        (AttachMode::Clsact, AttachMode::Clsact),
        (AttachMode::Tcx, AttachMode::Tcx),
        (AttachMode::Clsact, AttachMode::Tcx),
    ] {
        if after == AttachMode::Tcx && !tcx_or_skip() {
            continue;
        }
        let (node, a, b) = (TestNode::new(), TestNetns::new(), TestNetns::new());
        let datapath = node.open_with(before);
        let first = node.create(&datapath, "default/a", &a);
        let second = node.create(&datapath, "default/b", &b);
        let address: IpAddr = second.ipv4().expect("IPv4").into();
        let mut connection = Echo::connect(&a, &b, address);
        connection.exchange(10_000);
        drop(datapath);
        connection.exchange(10_000);

        let datapath = node.open_with(after);
        assert!(datapath.adopted(), "the programs were loaded again");
        connection.exchange(10_000);
        let restored = datapath.endpoints().list();
        assert_eq!(
            restored.iter().map(|endpoint| (&endpoint.record, endpoint.state)).collect::<Vec<_>>(),
            [(&first.record, EndpointState::Ready), (&second.record, EndpointState::Ready)]
        );
        for endpoint in &restored {
            let wrong = node.netns.run(|| datapath.endpoints().check(endpoint.id())).expect("checked");
            assert_eq!(wrong, Vec::<String>::new());
        }
        let leftovers = datapath.mark_synced().expect("synced");
        assert_eq!((leftovers.addresses, leftovers.rows, leftovers.endpoints.len()), (0, 0, 0));
        connection.exchange(10_000);
        let status = node.netns.run(|| datapath.status());
        assert!(status.is_ok(), "{status:?}");
    }
}

#[test]
fn ids_and_addresses_stay_and_are_not_given_out_twice() {
    let (node, a, b) = (TestNode::new(), TestNetns::new(), TestNetns::new());
    let datapath = node.open();
    let first = node.create(&datapath, "default/a", &a);
    drop(datapath);
    let datapath = node.open();
    let second = node.create(&datapath, "default/b", &b);
    assert_ne!(first.id(), second.id());
    assert_ne!(first.ipv4(), second.ipv4());
    assert_ne!(first.ipv6(), second.ipv6());
}

#[test]
fn a_failed_creation_leaves_nothing() {
    let node = TestNode::new();
    let datapath = node.open();
    let devices = node.devices();
    let leases = datapath.ipam().leases();
    // There is no such namespace.
    let gone = std::path::Path::new("/run/netns/podwire-test-no-such");
    let error = node.try_create(&datapath, "default/a", gone).expect_err("no namespace");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("podwire-test-no-such"), "{error}");
    // The name inside the namespace is taken.
    let pod = TestNetns::new();
    node.create(&datapath, "default/b", &pod);
    let (devices_with_one, leases_with_one) = (node.devices(), datapath.ipam().leases());
    let error = node.try_create(&datapath, "default/c", pod.path()).expect_err("eth0 is taken");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!((node.devices(), datapath.ipam().leases()), (devices_with_one.clone(), leases_with_one.clone()));
    // So is the way out of it.
    let second = EndpointSpec::new("default/d").netns(pod.path()).interface("net1");
    let error = node.netns.run(|| datapath.endpoints().create(second)).expect_err("eth0 has the default routes");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    for named in ["0.0.0.0/0", "::/0", "of eth0", "net1"] {
        assert!(error.to_string().contains(named), "{named}: {error}");
    }
    assert_eq!((node.devices(), datapath.ipam().leases()), (devices_with_one, leases_with_one));
    assert_eq!(datapath.endpoints().len(), 1);
    drop(pod);
    wait_for("the device goes with its namespace", || node.devices() == devices);
    datapath.mark_synced().expect("synced");
    assert_eq!(
        (node.devices(), datapath.ipam().leases()),
        (devices, leases),
        "the pod without a namespace was collected"
    );
}

#[test]
fn a_full_map_undoes_the_creation_and_names_the_map() {
    let (node, a, b) = (TestNode::new(), TestNetns::new(), TestNetns::new());
    // Two rows are the router's, two the first pod's, one is left: enough for one family only.
    let datapath = node.try_open(TestNode::config().map_size("cilium_lxc", 5)).expect("opens");
    let first = node.create(&datapath, "default/a", &a);
    let (devices, leases) = (node.devices(), datapath.ipam().leases());
    let error = node.try_create(&datapath, "default/b", b.path()).expect_err("the map is full");
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert!(error.to_string().contains("cilium_lxc"), "{error}");
    assert_eq!((node.devices(), datapath.ipam().leases()), (devices, leases));
    exchange_udp(&node.netns, &a, first.ipv4().expect("IPv4").into());
}

#[test]
fn the_pool_runs_dry_and_recovers() {
    let node = TestNode::new();
    let config = podwire::NodeConfig::new("small")
        .ipv4("10.50.0.0/29".parse().expect("a range"))
        .devices(podwire::Devices::Named(Vec::new()));
    let datapath = node.try_open(config).expect("opens");
    // Eight addresses less network, broadcast and router.
    let pods: Vec<TestNetns> = (0..6).map(|_| TestNetns::new()).collect();
    let endpoints: Vec<_> = pods[..5].iter().map(|pod| node.create(&datapath, "default/p", pod)).collect();
    let error = node.try_create(&datapath, "default/p", pods[5].path()).expect_err("dry");
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(error.to_string().contains("10.50.0.0/29"), "{error}");
    datapath.endpoints().delete(endpoints[2].id()).expect("deleted");
    let again = node.create(&datapath, "default/p", &pods[5]);
    assert_eq!(again.ipv4(), endpoints[2].ipv4(), "the only free address");
}

#[test]
fn removal_succeeds_whatever_is_gone_already() {
    let (node, a, b) = (TestNode::new(), TestNetns::new(), TestNetns::new());
    let datapath = node.open();
    let whole = node.create(&datapath, "default/a", &a);
    let removal = datapath.endpoints().delete(whole.id()).expect("removed");
    assert_eq!(removal.missing, Vec::<String>::new());
    assert!(!node.devices().contains(&whole.record.device), "the device is out of the namespace on return");
    assert_eq!(datapath.endpoints().delete(whole.id()).expect_err("gone").kind(), ErrorKind::NotFound);
    assert_eq!(datapath.ipam().leases().len(), 2, "only the router's addresses are left");

    let broken = node.create(&datapath, "default/b", &b);
    node.netns.socket().link_delete(broken.record.ifindex).expect("somebody else deletes it");
    for address in broken.record.addresses() {
        datapath.ipam().release(address).expect("somebody else releases it");
    }
    let removal = datapath.endpoints().delete(broken.id()).expect("removed all the same");
    assert_eq!(removal.missing.len(), 3, "{:?}", removal.missing);
    assert!(datapath.endpoints().is_empty());
}

#[test]
fn endpoints_whose_namespace_ended_are_collected_only_when_told() {
    let (node, a, b) = (TestNode::new(), TestNetns::new(), TestNetns::new());
    let datapath = node.open();
    let kept = node.create(&datapath, "default/a", &a);
    let lost = node.create(&datapath, "default/b", &b);
    drop(datapath);
    drop(b);
    wait_for("the device goes with its namespace", || !node.devices().contains(&lost.record.device));
    let datapath = node.open();
    let states: Vec<_> = datapath.endpoints().list().iter().map(|endpoint| endpoint.state).collect();
    assert_eq!(states, [EndpointState::Ready, EndpointState::NotReady]);
    assert!(!node.netns.run(|| datapath.status()).is_ok());
    let leftovers = datapath.mark_synced().expect("synced");
    assert_eq!(leftovers.endpoints, [lost.id()]);
    assert_eq!(datapath.endpoints().list().len(), 1);
    assert!(datapath.ipam().lease(lost.ipv4().expect("IPv4").into()).is_none(), "its address leaked");
    // The same while it runs.
    let c = TestNetns::new();
    let third = node.create(&datapath, "default/c", &c);
    drop(c);
    wait_for("the device goes with its namespace", || !node.devices().contains(&third.record.device));
    node.netns.run(|| datapath.maintain()).expect("maintained");
    assert!(datapath.endpoints().get(third.id()).is_err());
    assert!(arrives(&node.netns, &a, kept.ipv4().expect("IPv4").into()));
    assert!(node.netns.run(|| datapath.status()).is_ok());
}

#[test]
fn what_others_change_is_repaired() {
    let (node, a, b) = (TestNode::new(), TestNetns::new(), TestNetns::new());
    let datapath = node.open();
    node.create(&datapath, "default/a", &a);
    let server = node.create(&datapath, "default/b", &b);
    let address: IpAddr = server.ipv4().expect("IPv4").into();
    let lxc = podwire::tables::LxcMap::open_pinned(node.bpf.maps()).expect("the pin");
    assert!(lxc.delete(address).expect("deleted"));
    assert!(!arrives(&a, &b, address));
    datapath.maintain().expect("repaired");
    assert!(arrives(&a, &b, address));
    // An entry that nobody asked for stays until the desired state is known.
    let stranger: IpAddr = "10.50.0.99".parse().expect("an address");
    lxc.write_host(stranger).expect("written");
    datapath.maintain().expect("maintained");
    assert!(lxc.lookup(stranger).expect("looked up").is_some());
    assert_eq!(datapath.mark_synced().expect("synced").addresses, 1);
    assert!(lxc.lookup(stranger).expect("looked up").is_none());
    // So is what holds an endpoint's row and programs.
    let rows = podwire::tables::EndpointRows::open_pinned(node.bpf.maps()).expect("the pin");
    assert!(rows.delete(server.record.ifindex).expect("deleted"));
    assert_eq!(node.netns.run(|| datapath.endpoints().check(server.id())).expect("checked").len(), 1);
    let again = node.netns.run(|| datapath.endpoints().regenerate(server.id())).expect("regenerated");
    assert_eq!(again.state, EndpointState::Ready);
    assert!(rows.delete(server.record.ifindex).expect("deleted"));
    node.netns.run(|| datapath.maintain()).expect("repaired");
    assert_eq!(node.netns.run(|| datapath.endpoints().check(server.id())).expect("checked"), Vec::<String>::new());
    assert!(arrives(&b, &a, datapath.endpoints().list()[0].ipv4().expect("IPv4").into()));
}

#[test]
fn endpoints_are_found_by_every_name() {
    let (node, pod) = (TestNode::new(), TestNetns::new());
    let datapath = node.open();
    let spec = EndpointSpec::new("default/a").netns(pod.path()).container_id("c0ffee");
    let created = node.netns.run(|| datapath.endpoints().create(spec.clone())).expect("created");
    let (ipv4, ipv6) = (created.ipv4().expect("IPv4"), created.ipv6().expect("IPv6"));
    for name in [
        created.id().to_string(),
        "container-id:c0ffee".to_owned(),
        "cni-attachment-id:c0ffee:eth0".to_owned(),
        "cni-attachment-id:c0ffee".to_owned(),
        format!("ipv4:{ipv4}"),
        format!("ipv6:{ipv6}"),
        "pod-name:default/a".to_owned(),
    ] {
        let found = datapath.endpoints().find(&name.parse::<EndpointRef>().expect("well formed"));
        assert_eq!(found.iter().map(|endpoint| endpoint.id()).collect::<Vec<_>>(), [created.id()], "{name}");
    }
    assert!(datapath.endpoints().find(&"container-id:other".parse().expect("well formed")).is_empty());
    let error = node.netns.run(|| datapath.endpoints().create(spec)).expect_err("the container has one");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert!(datapath.endpoints().get(EndpointId::new(999).expect("not zero")).is_err());
}

#[test]
fn fifty_at_once_get_fifty_addresses() {
    let node = TestNode::new();
    let datapath = node.open();
    let pods: Vec<TestNetns> = (0..50).map(|_| TestNetns::new()).collect();
    let created: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = pods.iter().map(|pod| scope.spawn(|| node.create(&datapath, "default/p", pod))).collect();
        threads.into_iter().map(|thread| thread.join().expect("created")).collect()
    });
    let mut addresses: Vec<_> = created.iter().flat_map(|endpoint| endpoint.record.addresses()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 100);
    let last: IpAddr = created[49].ipv6().expect("IPv6").into();
    exchange_udp(&pods[0], &pods[49], last);
    std::thread::scope(|scope| {
        for endpoint in &created {
            scope.spawn(|| datapath.endpoints().delete(endpoint.id()).expect("deleted"));
        }
    });
    assert_eq!(node.devices().len(), 3, "{:?}", node.devices());
    let _ = NetNs::current().expect("still here");
}

#[test]
fn endpoints_to_come_find_their_slots_filled() {
    let node = TestNode::new();
    let datapath = node.open();
    let writer = datapath.policy().writer();
    let stocked = |ids: std::ops::Range<u16>| {
        let ids: Vec<_> = ids.filter_map(EndpointId::new).collect();
        writer.stocked(&ids) == ids.len()
    };
    wait_for("the node did not fill slots when it was opened", || stocked(1..33));
    let pods: Vec<TestNetns> = (0..17).map(|_| TestNetns::new()).collect();
    for pod in &pods {
        node.create(&datapath, "default/p", pod);
    }
    assert_eq!(writer.timings().policies, 17);
    wait_for("they were not filled when half of them were used", || stocked(18..49));
    assert_eq!(writer.endpoints().len(), 17, "what is in stock is no policy");
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + common::node::PATIENCE;
    while !done() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_removal_cut_short_is_finished_not_forgotten() {
    let (node, a) = (TestNode::new(), TestNetns::new());
    let datapath = node.open();
    let endpoint = node.create(&datapath, "default/a", &a);
    drop(datapath);
    // What a crash right after the removal's first step leaves.
    let folder = node.state_dir().join("endpoints");
    let file = |extension: &str| folder.join(format!("{}.{extension}", endpoint.id()));
    std::fs::rename(file("json"), file("removing")).expect("renamed");
    let datapath = node.open();
    assert_eq!(datapath.endpoints().get(endpoint.id()).expect("still known").state, EndpointState::Disconnecting);
    assert!(node.devices().contains(&endpoint.record.device), "nothing goes before the caller says so");
    // Nothing that is changed brings it back.
    let endpoints = datapath.endpoints();
    let label = "k8s:app=web".parse().expect("a label");
    for changed in [
        endpoints.set_audit(endpoint.id(), true),
        endpoints.name_ports(endpoint.id(), Vec::new()),
        endpoints.change_labels(endpoint.id(), &[label], &[]),
    ] {
        assert_eq!(changed.expect_err("it is going").kind(), ErrorKind::WrongState);
    }
    assert!(!file("json").exists());
    drop(datapath);
    std::fs::copy(file("removing"), file("json")).expect("copied");
    let datapath = node.open();
    assert_eq!(datapath.endpoints().get(endpoint.id()).expect("still known").state, EndpointState::Disconnecting);
    let leftovers = node.netns.run(|| datapath.mark_synced()).expect("synced");
    assert_eq!(leftovers.endpoints, [endpoint.id()]);
    assert!(!node.devices().contains(&endpoint.record.device));
    assert!(!file("removing").exists() && datapath.endpoints().is_empty());
    assert_eq!(datapath.ipam().leases().len(), 2, "only the router's addresses are left");
}

/// A veth pair in the node's namespace, as a caller makes it; its ends' names.
fn pair(node: &TestNode, names: [&str; 2]) -> DeviceRef {
    let [device, peer] = names.map(|name| DeviceSpec { name, ..DeviceSpec::default() });
    let spec = VethSpec { device, peer, up: true };
    let made = node.netns.socket().link_create_veth(&spec).expect("made");
    let mac = MacAddr::new([2, 0, 0, 0, 0, 9]);
    DeviceRef { ifindex: made.index, name: names[0].to_owned(), node_mac: made.mac, mac }
}

#[test]
fn a_device_of_the_node_is_no_endpoints() {
    let node = TestNode::new();
    let native = pair(&node, ["eth0", "wire"]);
    let config = TestNode::config().devices(podwire::Devices::Named(vec!["eth0".to_owned()]));
    let datapath = node.try_open(config).expect("opens");
    let host = datapath.node().host.clone();
    let host = DeviceRef { ifindex: host.ifindex, name: host.name, node_mac: host.mac, ..native.clone() };
    let lo = DeviceRef { ifindex: IfIndex::new(1).expect("not zero"), name: "lo".to_owned(), ..native.clone() };
    for (device, reason) in [(&native, "device of the node"), (&host, "device of the node"), (&lo, "not a veth")] {
        let spec = EndpointSpec::new("default/a").device(device.clone());
        let error = node.netns.run(|| datapath.endpoints().create(spec)).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    assert!(node.netns.run(|| datapath.status()).is_ok(), "the node's programs are where they were");
}

#[test]
fn a_device_that_the_caller_made_stays_the_callers() {
    let node = TestNode::new();
    let devices = [pair(&node, ["caller0", "inside0"]), pair(&node, ["caller1", "inside1"])];
    let datapath = node.open();
    let ids = devices.clone().map(|device| {
        let spec = EndpointSpec::new("default/a").device(device);
        node.netns.run(|| datapath.endpoints().create(spec)).expect("created").id()
    });
    let filters = |device: &DeviceRef| {
        let socket = node.netns.socket();
        [Direction::Ingress, Direction::Egress].map(|at| socket.filters(device.ifindex, at).expect("listed").len())
    };
    assert_eq!(filters(&devices[0]), [1, 1]);
    let removal = datapath.endpoints().delete(ids[0]).expect("removed");
    assert_eq!(removal.missing, Vec::<String>::new());
    assert!(node.devices().contains(&"caller0".to_owned()));
    assert_eq!(filters(&devices[0]), [0, 0]);
    // So does a clean-up.
    drop(datapath);
    let report = node.netns.run(|| podwire::Datapath::cleanup(node.bpf.path(), &node.state_dir())).expect("cleaned up");
    assert!(report.done.contains(&"detached from caller1".to_owned()), "{report:?}");
    assert!(node.devices().contains(&"caller1".to_owned()));
    assert_eq!(filters(&devices[1]), [0, 0]);
}

/// What a downgrade finds, for instance: the pod lives on, and nothing of it is taken for a leftover.
#[test]
fn an_endpoint_whose_file_cannot_be_read_lives_on_and_is_named() {
    let (node, [a, b, c]) = (TestNode::new(), [(); 3].map(|()| TestNetns::new()));
    let datapath = node.open();
    let first = node.create(&datapath, "default/a", &a);
    let second = node.create(&datapath, "default/b", &b);
    let addresses: Vec<IpAddr> = first.record.addresses().collect();
    node.netns.run(|| datapath.mark_synced()).expect("synced");
    let mut connection = Echo::connect(&b, &a, addresses[0]);
    connection.exchange(1_000);
    drop(datapath);
    let file = node.state_dir().join(format!("endpoints/{}.json", first.id()));
    let text = std::fs::read_to_string(&file).expect("readable");
    std::fs::write(&file, text.replace("\"version\": 1", "\"version\": 2")).expect("written");

    let datapath = node.open();
    let leftovers = node.netns.run(|| datapath.mark_synced()).expect("synced");
    assert_eq!((leftovers.addresses, leftovers.rows, leftovers.policies), (0, 0, vec![]));
    node.netns.run(|| datapath.maintain()).expect("maintained");
    connection.exchange(1_000);
    for address in &addresses {
        assert!(arrives(&b, &a, *address) && arrives(&node.netns, &a, *address), "{address} was cut off");
        assert_eq!(&*datapath.ipam().lease(*address).expect("still allocated").owner, "default/a");
    }
    let status = format!("{:?}", node.netns.run(|| datapath.status()).parts);
    for part in [&file.display().to_string(), "written in version 2", "move the file away"] {
        assert!(status.contains(part), "{part} is missing: {status}");
    }
    let third = node.create(&datapath, "default/c", &c);
    assert!(![first.id(), second.id()].contains(&third.id()));
    assert!(arrives(&a, &c, third.ipv4().expect("IPv4").into()));
    datapath.identities().release(first.record.identity()).expect("its identity is held");
    drop(datapath);

    // Once it was moved away, nothing is kept of it.
    std::fs::remove_file(&file).expect("moved away");
    let datapath = node.open();
    let leftovers = node.netns.run(|| datapath.mark_synced()).expect("synced");
    assert_eq!((leftovers.addresses, leftovers.rows, leftovers.policies), (2, 1, vec![first.id()]));
    assert_eq!(addresses.iter().filter(|address| datapath.ipam().lease(**address).is_some()).count(), 0);
    assert!(node.netns.run(|| datapath.status()).is_ok());
    assert!(!arrives(&b, &a, addresses[0]) && arrives(&b, &c, third.ipv4().expect("IPv4").into()));
}

/// Ids go round: one whose file can't be read must not come to be somebody else's, whatever the file's name was.
#[test]
fn an_id_whose_file_cannot_be_read_is_not_given_out() {
    let (node, a) = (TestNode::new(), TestNetns::new());
    drop(node.open());
    let file = node.state_dir().join("endpoints/1.json");
    std::fs::write(&file, "{").expect("written");
    let datapath = node.open();
    assert_eq!(node.create(&datapath, "default/a", &a).id().get(), 2);
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "{");
}
