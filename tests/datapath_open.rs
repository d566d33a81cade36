//! Opening a node: what it refuses, what it writes down, what a clean-up leaves. Needs root.
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::netns::TestNetns;
use common::node::TestNode;
use podwire::endpoint::EndpointState;
use podwire::maps::{HashMap, MapSpec};
use podwire::netlink::{DeviceSpec, VethSpec};
use podwire::program::{Attacher, Constants, Device, Direction, Program};
use podwire::state::Lock;
use podwire::{AttachMode, CleanedUp, Datapath, Devices, ErrorKind, IfIndex, NodeConfig};

#[test]
fn a_second_one_on_the_same_state_is_refused() {
    let node = TestNode::new();
    let first = node.open();
    let error = node.try_open(TestNode::config()).err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    drop(first);
    node.open();
}

#[test]
fn two_nodes_on_one_machine() {
    let (one, two) = (TestNode::new(), TestNode::new());
    let (first, second) = (one.open(), two.open());
    let (a, b) = (TestNetns::new(), TestNetns::new());
    let here = one.create(&first, "default/a", &a);
    let there = two.create(&second, "default/b", &b);
    assert_eq!(here.ipv4(), there.ipv4(), "each has the range to itself");
    assert_eq!(second.endpoints().len(), 1);
}

#[test]
fn a_pin_of_another_layout_is_reported_and_kept() {
    let node = TestNode::new();
    drop(node.open());
    let pin = node.bpf.maps().join("cilium_lxc");
    fs::remove_file(&pin).expect("removed");
    let other = MapSpec::hash::<u32, u64>("cilium_lxc", 10);
    HashMap::<u32, u64>::create(&other).expect("created").pin(&pin).expect("pinned");
    let error = node.try_open(TestNode::config()).err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::LayoutMismatch, "{error}");
    for difference in ["key size", "value size", "max_entries"] {
        assert!(error.to_string().contains(difference), "{difference} is not in: {error}");
    }
    assert!(HashMap::<u32, u64>::open_pinned(&pin, &other).is_ok(), "the pin was touched");
}

#[test]
fn somebody_elses_pins_and_devices_are_refused() {
    let node = TestNode::new();
    fs::create_dir_all(node.bpf.maps()).expect("created");
    let pin = node.bpf.maps().join("cilium_lxc");
    HashMap::<u32, u64>::create(&MapSpec::hash::<u32, u64>("cilium_lxc", 10))
        .expect("created")
        .pin(&pin)
        .expect("pinned");
    let error = node.try_open(TestNode::config()).err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
    assert!(!node.state_dir().exists() && pin.exists(), "as if it had never been tried");

    let node = TestNode::new();
    let spec = VethSpec {
        device: DeviceSpec { name: "cilium_host", ..DeviceSpec::default() },
        peer: DeviceSpec { name: "cilium_net", ..DeviceSpec::default() },
        ..VethSpec::default()
    };
    node.netns.socket().link_create_veth(&spec).expect("somebody's");
    let error = node.try_open(TestNode::config()).err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
    assert!(node.devices().contains(&"cilium_host".to_owned()));
}

#[test]
fn the_configuration_on_disk_is_the_one_in_the_programs() {
    let node = TestNode::new();
    let datapath = node.open();
    let text = fs::read_to_string(node.state_dir().join("node_config.json")).expect("written");
    let saved: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let generation = datapath.node().generation.clone();
    let program =
        Program::open_pinned(&node.bpf.programs().join(&generation).join("cil_from_container")).expect("pinned");
    let constants = Constants::of(&program).expect("its .rodata");
    let router = datapath.node().router_ipv4.expect("IPv4");
    assert_eq!(constants.bytes("cfg_router_ipv4"), Some(&router.octets()[..]));
    assert_eq!(constants.bytes("cfg_host_ifindex"), Some(&datapath.node().host.ifindex.get().to_ne_bytes()[..]));
    assert!(text.contains(&router.to_string()) && text.contains(&generation), "{saved}");
}

#[test]
fn another_configuration_is_loaded_anew_and_the_old_generation_goes() {
    let (node, pod) = (TestNode::new(), TestNetns::new());
    let datapath = node.open();
    let endpoint = node.create(&datapath, "default/a", &pod);
    let before = datapath.node().generation.clone();
    drop(datapath);
    let wider =
        NodeConfig::new("test-node").ipv4("10.50.0.0/16".parse().expect("a range")).devices(Devices::Named(vec![]));
    let datapath = node.try_open(wider).expect("opens");
    assert!(!datapath.adopted());
    assert_ne!(datapath.node().generation, before);
    common::node::exchange_udp(&node.netns, &pod, endpoint.ipv4().expect("IPv4").into());
    assert_eq!(datapath.mark_synced().expect("synced").generations, [before]);
    let routes = node.netns.socket().routes().expect("routes");
    let through_host: Vec<String> = routes
        .iter()
        .filter(|route| route.device == Some(datapath.node().host.ifindex) && route.table == 254 && route.protocol != 2)
        .map(|route| route.destination.to_string())
        .collect();
    let held = format!("{}/128", endpoint.ipv6().expect("IPv6"));
    assert_eq!(through_host, ["10.50.0.0/16", &held], "of the old ranges only what a pod has is routed");
}

#[test]
fn a_device_that_can_be_no_native_one_is_named() {
    let node = TestNode::new();
    for (name, reason) in
        [("nosuch0", "no device has this name"), ("lo", "is the loopback device: nothing comes to the node by it")]
    {
        let config = TestNode::config().devices(Devices::Named(vec![name.to_owned()]));
        let error = node.try_open(config).err().expect("refused");
        assert_eq!(error.to_string(), format!("device: \"{name}\": {reason}"));
        assert_eq!(node.netns.socket().links().expect("devices").len(), 1, "nothing was made");
    }
}

#[test]
fn a_second_one_with_other_state_is_refused() {
    let node = TestNode::new();
    let first = node.open();
    let other = tempfile::tempdir().expect("a folder");
    let open = |bpf: &std::path::Path| {
        let builder = Datapath::builder().bpf_root(bpf).state_dir(other.path());
        node.netns.run(|| builder.open(TestNode::config())).err().expect("refused")
    };
    let error = open(node.bpf.path());
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(!other.path().join("namespace.json").exists(), "what it noted of itself goes again");
    let root = common::bpf::BpfRoot::new();
    let error = open(root.path());
    assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
    assert!(error.to_string().contains(&node.state_dir().display().to_string()), "{error}");
    let left = node.netns.run(|| Datapath::cleanup(root.path(), other.path())).expect("cleaned up");
    assert!(!left.done.iter().any(|line| line.contains("cilium_host")), "{left:?}");
    assert!(node.devices().contains(&"cilium_host".to_owned()));
    drop(first);
    node.open();
}

#[test]
fn a_first_start_that_fails_leaves_nothing() {
    let node = TestNode::new();
    let before = picture(&node);
    let config = TestNode::config().map_size("cilium_lxc", u32::MAX);
    let error = node.try_open(config).err().expect("no kernel has room for such a map");
    assert!(error.to_string().contains("cilium_lxc"), "{error}");
    assert_eq!(picture(&node), before);
    assert!(!node.state_dir().exists());
    assert_eq!(fs::read_dir(node.bpf.path()).expect("the root stays").count(), 0);
}

#[test]
fn programs_leave_a_device_that_is_no_native_one_any_more() {
    let node = TestNode::new();
    let spec = VethSpec {
        device: DeviceSpec { name: "wire0", ..DeviceSpec::default() },
        peer: DeviceSpec { name: "wire1", ..DeviceSpec::default() },
        ..VethSpec::default()
    };
    node.netns.socket().link_create_veth(&spec).expect("created");
    let with = |names: &[&str]| {
        let devices = Devices::Named(names.iter().map(ToString::to_string).collect());
        drop(node.try_open(TestNode::config().devices(devices)).expect("opens"));
    };
    let marker = |device: &str| node.bpf.path().join("podwire/devices").join(device).exists();
    with(&["wire0", "wire1"]);
    assert!(marker("wire0") && marker("wire1"));
    with(&["wire0"]);
    assert!(marker("wire0") && !marker("wire1"));
    // A file lost, as by a crash: the clean-up goes by what is pinned.
    fs::remove_file(node.state_dir().join("node_config.json")).expect("there");
    let report = node.netns.run(|| Datapath::cleanup(node.bpf.path(), &node.state_dir())).expect("cleaned up");
    assert!(report.done.contains(&"detached from wire0".to_owned()), "{report:?}");
}

#[test]
fn a_state_directory_that_holds_other_things_keeps_them() {
    let node = TestNode::new();
    let shared = node.state.path().join("state");
    fs::create_dir(&shared).expect("created");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).expect("opened to all");
    fs::write(shared.join("notes"), "somebody's").expect("written");
    drop(node.open());
    assert_eq!(fs::metadata(&shared).expect("there").permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::metadata(shared.join("endpoints")).expect("there").permissions().mode() & 0o777, 0o700);
    node.netns.run(|| Datapath::cleanup(node.bpf.path(), &shared)).expect("cleaned up");
    let left: Vec<_> = fs::read_dir(&shared).expect("stays").map(|entry| entry.expect("read").file_name()).collect();
    assert_eq!(left, ["notes"]);
}

/// Every file of a folder with what is in it.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("listed") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).expect("readable"));
        }
    }
    found
}

#[test]
fn a_directory_that_is_not_podwires_is_left_alone() {
    let node = TestNode::new();
    drop(node.open());
    let (folder, empty) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let theirs = folder.path();
    for name in ["lock", "endpoints/7.json", "ipam/ipam.journal", "policy.json", "socket.json", "forwarding.json"] {
        fs::create_dir_all(theirs.join(name).parent().expect("has one")).expect("created");
        fs::write(theirs.join(name), "somebody's").expect("written");
    }
    let before = files(theirs);
    let kept = format!(
        "{} is not podwire's state (it has none of sysctls.json, node_config.json, namespace.json): left alone",
        theirs.canonicalize().expect("there").display()
    );
    let preview = node.netns.run(|| Datapath::cleanup_preview(node.bpf.path(), theirs)).expect("previewed");
    assert!(preview.contains(&kept), "{preview:?}");
    let builder = Datapath::builder().bpf_root(node.bpf.path()).state_dir(theirs);
    let error = node.netns.run(|| builder.open(TestNode::config())).err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
    let root = common::bpf::BpfRoot::new();
    for _ in 0..2 {
        let report = node.netns.run(|| Datapath::cleanup(root.path(), theirs)).expect("cleaned up");
        assert_eq!((report.done, report.kept), (Vec::new(), vec![kept.clone()]));
    }
    assert_eq!(files(theirs), before);
    assert!(node.devices().contains(&"cilium_host".to_owned()));
    for nothing in [empty.path(), &empty.path().join("missing")] {
        let report = node.netns.run(|| Datapath::cleanup(root.path(), nothing)).expect("cleaned up");
        assert_eq!(report, CleanedUp::default());
    }
    assert!(!empty.path().exists());
}

#[test]
fn a_start_that_is_refused_takes_no_state_with_it() {
    let node = TestNode::new();
    drop(node.open());
    // As the refusal of another namespace's state tells one to do.
    fs::remove_file(node.state_dir().join("namespace.json")).expect("there");
    let before = files(&node.state_dir());
    let held = Lock::acquire_directory(node.bpf.path()).expect("somebody has it");
    let error = node.try_open(TestNode::config()).err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    let mut after = files(&node.state_dir());
    after.retain(|path, _| !path.ends_with("namespace.json"));
    assert_eq!(after, before);
    drop(held);
    node.open();
}

/// What can be seen of a namespace: devices with their addresses, routes, settings.
fn picture(node: &TestNode) -> BTreeSet<String> {
    let socket = node.netns.socket();
    let mut seen = BTreeSet::new();
    for link in socket.links().expect("devices") {
        seen.insert(format!("device {} {:?} {}", link.name, link.mac, link.mtu));
    }
    for address in socket.addresses(None).expect("addresses") {
        seen.insert(format!("address {} on {}", address.address, address.device));
    }
    for route in socket.routes().expect("routes") {
        seen.insert(format!("route {route:?}"));
    }
    node.netns.run(|| {
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/fib_multipath_use_neigh"] {
            let value = fs::read_to_string(format!("/proc/sys/net/{key}")).expect("readable");
            seen.insert(format!("{key} = {}", value.trim()));
        }
    });
    seen
}

#[test]
fn a_clean_up_leaves_the_namespace_as_it_was() {
    let (node, pod) = (TestNode::new(), TestNetns::new());
    let before = picture(&node);
    let datapath = node.open();
    node.create(&datapath, "default/a", &pod);
    assert_ne!(picture(&node), before);
    let (bpf, state) = (node.bpf.path(), node.state_dir());
    let busy = node.netns.run(|| Datapath::cleanup(bpf, &state)).expect_err("in use");
    assert_eq!(busy.kind(), ErrorKind::Busy);
    drop(datapath);
    let preview = node.netns.run(|| Datapath::cleanup_preview(bpf, &state)).expect("previewed");
    assert!(preview.iter().any(|line| line.contains("lxc")), "{preview:?}");
    let report = node.netns.run(|| Datapath::cleanup(bpf, &state)).expect("cleaned up");
    assert!(report.done.len() > 5, "{report:?}");
    assert_eq!(picture(&node), before);
    assert!(!state.exists());
    assert_eq!(fs::read_dir(bpf).expect("the root stays").count(), 0);
    assert_eq!(node.netns.run(|| Datapath::cleanup(bpf, &state)).expect("again").done, Vec::<String>::new());
}

const HOOKS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

/// A wire whose end `wire0` is a native device of the node to come; both ends' indices.
fn with_wire(node: &TestNode) -> (NodeConfig, [IfIndex; 2]) {
    let [device, peer] = ["wire0", "wire1"].map(|name| DeviceSpec { name, ..DeviceSpec::default() });
    let made = node.netns.socket().link_create_veth(&VethSpec { device, peer, up: true }).expect("created");
    let config = TestNode::config().devices(Devices::Named(vec!["wire0".to_owned()]));
    (config, [made.index, made.peer_index])
}

fn filters(node: &TestNode, index: IfIndex) -> [usize; 2] {
    HOOKS.map(|direction| node.netns.socket().filters(index, direction).expect("listed").len())
}

#[test]
fn a_clean_up_finds_programs_by_what_is_on_devices() {
    let (node, pod) = (TestNode::new(), TestNetns::new());
    let (config, [wire, _]) = with_wire(&node);
    // Nothing is noted where clsact was there before.
    node.netns.socket().clsact_add(wire).expect("added");
    let datapath = node.try_open(config).expect("opens");
    let endpoint = node.create(&datapath, "default/a", &pod);
    drop(datapath);
    assert_eq!(filters(&node, wire), [1, 1]);
    fs::write(node.state_dir().join(format!("endpoints/{}.json", endpoint.id())), "{").expect("damaged");
    let clean_up = || node.netns.run(|| Datapath::cleanup(node.bpf.path(), &node.state_dir())).expect("cleaned up");
    let report = clean_up();
    assert!(report.done.contains(&"detached from wire0".to_owned()), "{report:?}");
    assert_eq!(filters(&node, wire), [0, 0]);
    assert!(!node.netns.socket().clsact_add(wire).expect("asked"), "clsact of others was removed");
    assert!(!node.devices().contains(&endpoint.record.device), "a device of ours whose endpoint can't be read");
    assert_eq!(clean_up().done, Vec::<String>::new());
}

#[test]
fn state_of_another_namespace_is_refused() {
    let (node, pod, elsewhere) = (TestNode::new(), TestNetns::new(), TestNetns::new());
    let datapath = node.open();
    let endpoint = node.create(&datapath, "default/a", &pod);
    drop(datapath);
    let open = |netns: &TestNetns| {
        let builder = Datapath::builder().bpf_root(node.bpf.path()).state_dir(node.state_dir());
        netns.run(|| builder.open(TestNode::config()))
    };
    let inode = node.netns.netns().id().inode().to_string();
    let error = open(&elsewhere).err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
    assert!(error.to_string().contains(&inode), "{error}");
    let forwarding = || elsewhere.run(|| fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("readable"));
    elsewhere.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("writable"));
    for refused in [
        elsewhere.run(|| Datapath::cleanup(node.bpf.path(), &node.state_dir()).map(drop)),
        elsewhere.run(|| Datapath::cleanup_preview(node.bpf.path(), &node.state_dir()).map(drop)),
    ] {
        assert_eq!(refused.expect_err("refused").kind(), ErrorKind::Foreign);
    }
    assert_eq!(forwarding(), "1\n");
    let datapath = open(&node.netns).expect("at home");
    assert_eq!(datapath.endpoints().get(endpoint.id()).expect("restored").state, EndpointState::Ready);
    drop(datapath);
    // When the machine has been restarted, no namespace is the one that it was.
    let file = node.state_dir().join("namespace.json");
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("readable");
    let noted = fs::read_to_string(&file).expect("there");
    assert!(noted.contains(boot_id.trim()));
    fs::write(&file, noted.replace(boot_id.trim(), "another start")).expect("written");
    let datapath = open(&elsewhere).expect("taken over");
    assert_eq!(datapath.endpoints().get(endpoint.id()).expect("known").state, EndpointState::NotReady);
}

#[test]
fn programs_that_were_taken_off_are_missed_and_come_back() {
    let (node, pod) = (TestNode::new(), TestNetns::new());
    let (config, [wire, other]) = with_wire(&node);
    let datapath = node.try_open(config).expect("opens");
    let endpoint = node.create(&datapath, "default/a", &pod);
    let host = datapath.node().host.ifindex;
    for device in [wire, host, endpoint.record.ifindex] {
        let status = || node.netns.run(|| datapath.status());
        assert!(status().is_ok(), "{:?}", status());
        node.netns.socket().clsact_delete(device).expect("somebody deletes it");
        assert!(!status().is_ok(), "device {device} has no programs");
        node.netns.run(|| datapath.maintain()).expect("maintained");
        assert_eq!(filters(&node, device), [1, 1]);
        assert!(status().is_ok(), "{:?}", status());
    }
    // An embedder's device has no programs until they are asked for.
    let device = Device { name: "wire1", index: other };
    for direction in HOOKS {
        let attach = || datapath.attach(device, direction, AttachMode::Clsact);
        node.netns.run(attach).expect("attached").pin().expect("stays");
    }
    let attacher = node.netns.run(|| Attacher::new(node.bpf.path(), AttachMode::Auto)).expect("opens");
    for (direction, name) in HOOKS.into_iter().zip(["cil_from_netdev", "cil_to_netdev"]) {
        let found = attacher.query(device, direction).expect("listed");
        let names: Vec<_> = found.iter().filter_map(|on| on.program.as_ref()).map(|it| it.name.as_str()).collect();
        assert_eq!(names, [name]);
    }
}

#[test]
fn what_was_noted_of_a_device_that_is_gone_is_forgotten() {
    let node = TestNode::new();
    let markers = || {
        let folder = fs::read_dir(node.bpf.path().join("podwire/devices/cilium_host")).expect("listed");
        folder.map(|entry| entry.expect("listed").file_name().into_string().expect("text")).collect::<Vec<_>>()
    };
    let mut indices = Vec::new();
    for _ in 0..2 {
        let host = node.open().node().host.ifindex;
        assert_eq!(markers(), [format!("clsact_{host}")]);
        node.netns.socket().link_delete(host).expect("somebody deletes it");
        indices.push(host);
    }
    assert_ne!(indices[0], indices[1]);
}
