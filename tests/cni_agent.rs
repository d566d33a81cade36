//! The plugin and the agent together, as a runtime meets them. Needs root.
mod common {
    #![allow(dead_code, unreachable_pub, reason = "every test program uses a part of what they share")]
    pub mod agent;
    pub mod bpf;
    pub mod example;
    pub mod netns;
}

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use common::agent::{Node, until};
use common::bpf::tcx_or_skip;
use common::example;
use common::netns::TestNetns;
use podwire::Datapath;
use podwire::cni::{Attachment, DeletionQueue};
use podwire::netlink::Direction;
use serde_json::{Value, json};

static PLUGIN: LazyLock<PathBuf> = LazyLock::new(|| example::example("podwire-cni"));
const PATIENCE: Duration = Duration::from_secs(10);

fn conf(node: &Node) -> Value {
    json!({ "cniVersion": "1.1.0", "name": "pods", "type": "podwire-cni", "socket": node.socket(), "agent-timeout": 30 })
}

/// Starts the plugin on the node; its configuration is written, its result is not read yet.
fn start(node: &Node, command: &str, container: &str, netns: &Path, conf: &Value) -> Child {
    let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={container}");
    start_with_args(node, command, container, netns, &args, conf)
}

fn start_with_args(node: &Node, command: &str, container: &str, netns: &Path, args: &str, conf: &Value) -> Child {
    let variables = [("CNI_COMMAND", command), ("CNI_CONTAINERID", container), ("CNI_IFNAME", "eth0")];
    let mut child = node.netns.run(|| {
        let mut plugin = Command::new(&*PLUGIN);
        plugin.env_clear().envs(variables).env("CNI_NETNS", netns).env("CNI_ARGS", args);
        plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the plugin starts")
    });
    child.stdin.take().expect("piped").write_all(conf.to_string().as_bytes()).expect("written");
    child
}

fn call(node: &Node, command: &str, container: &str, netns: &Path, conf: &Value) -> Output {
    start(node, command, container, netns, conf).wait_with_output().expect("the plugin ends")
}

fn result(output: &Output) -> Value {
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout).expect("JSON") }
}

fn add(node: &Node, container: &str, pod: &TestNetns) -> Value {
    result(&call(node, "ADD", container, pod.path(), &conf(node)))
}

fn del(node: &Node, container: &str, netns: &Path) {
    assert_eq!(result(&call(node, "DEL", container, netns, &conf(node))), Value::Null);
}

fn error_code(output: &Output) -> u64 {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    error["code"].as_u64().expect("a number")
}

fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().expect("addresses");
    ips.iter()
        .map(|ip| ip["address"].as_str().and_then(|text| text.split_once('/')).expect("a prefix").0)
        .map(|ip| ip.parse().expect("an address"))
        .collect()
}

/// One datagram there, one back; neither is repeated.
fn exchange(from: &TestNetns, to: &TestNetns, target: IpAddr) {
    let server = to.run(|| UdpSocket::bind(SocketAddr::new(target, 0))).expect("a server");
    let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0_u8; 16].into() };
    let client = from.run(|| UdpSocket::bind(SocketAddr::new(any, 0))).expect("a client");
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    }
    client.send_to(b"ping", server.local_addr().expect("bound")).expect("sent");
    let mut buffer = [0; 8];
    let (_, peer) = server.recv_from(&mut buffer).unwrap_or_else(|error| panic!("to {target}: {error}"));
    server.send_to(b"pong", peer).expect("sent");
    client.recv_from(&mut buffer).unwrap_or_else(|error| panic!("back from {target}: {error}"));
}

/// The devices of pods on the node.
fn devices(node: &Node) -> BTreeSet<String> {
    let links = node.netns.socket().links().expect("devices");
    links.into_iter().map(|link| link.name).filter(|name| name.starts_with("lxc")).collect()
}

fn wait_until_clean(node: &Node) {
    assert_eq!(node.client().endpoints(&[]).expect("the list").len(), 0);
    // the agent does not wait for the kernel to end devices
    until("the devices go", || devices(node).is_empty().then_some(()));
}

#[test]
fn pods_talk_from_their_first_packet_on() {
    let node = Node::new();
    let _agent = node.start();
    let pods = [TestNetns::new(), TestNetns::new()];
    let results = [add(&node, "first", &pods[0]), add(&node, "second", &pods[1])];
    for target in addresses(&results[1]) {
        exchange(&pods[0], &pods[1], target);
    }
    for target in addresses(&results[0]) {
        exchange(&node.netns, &pods[0], target);
    }
    for gateway in results[0]["ips"].as_array().expect("addresses") {
        exchange(&pods[0], &node.netns, gateway["gateway"].as_str().expect("text").parse().expect("an address"));
    }
    let mut check = conf(&node);
    check["prevResult"] = results[0].clone();
    result(&call(&node, "CHECK", "first", pods[0].path(), &check));
    check["prevResult"] = results[1].clone();
    without_programs(&node, &results[1], || {
        let output = call(&node, "CHECK", "second", pods[1].path(), &check);
        (!output.status.success()).then(|| assert_eq!(error_code(&output), 101))
    });
    until("the agent puts them back", || {
        let output = call(&node, "CHECK", "second", pods[1].path(), &check);
        output.status.success().then_some(())
    });
    check["prevResult"] = results[0].clone();
    assert_eq!(error_code(&call(&node, "ADD", "first", pods[0].path(), &conf(&node))), 103);

    for netns in [pods[0].path(), pods[0].path(), Path::new("")] {
        del(&node, "first", netns);
    }
    assert_eq!(error_code(&call(&node, "CHECK", "first", pods[0].path(), &check)), 102);
    let mut gc = conf(&node);
    gc["cni.dev/valid-attachments"] = json!([]);
    result(&call(&node, "GC", "", Path::new(""), &gc));
    wait_until_clean(&node);
}

/// Takes the programs off an attachment's device, and again should the agent put them back before `look` has seen it. With clsact,
/// what `auto` means, they go with the discipline.
fn without_programs(node: &Node, result: &Value, look: impl Fn() -> Option<()>) {
    let socket = node.netns.socket();
    let device = socket.link_by_name(result["interfaces"][0]["name"].as_str().expect("text")).expect("the device");
    until("it is missed", || {
        socket.clsact_delete(device.index).expect("attached by clsact");
        look()
    });
}

#[test]
fn a_sick_endpoint_keeps_nobody_from_being_attached() {
    let node = Node::new();
    let _agent = node.start();
    let pods = [TestNetns::new(), TestNetns::new()];
    let sick = add(&node, "sick", &pods[0]);
    let device = sick["interfaces"][0]["name"].as_str().expect("text");
    // What is in the way of the programs is somebody else's, and stays.
    without_programs(&node, &sick, || {
        let tc = |args: &[&str]| node.netns.run(|| Command::new("tc").args(args).output().expect("tc runs").status);
        tc(&["qdisc", "add", "dev", device, "ingress"]).success().then_some(())
    });
    let endpoint = || node.client().endpoints(&[]).expect("the list").remove(0);
    until("the agent can't put them back", || {
        (endpoint().status?.state? == podwire::api::EndpointState::NotReady).then_some(())
    });
    let mut check = conf(&node);
    check["prevResult"] = sick.clone();
    assert_eq!(error_code(&call(&node, "CHECK", "sick", pods[0].path(), &check)), 101);
    let health = node.podwire(&["endpoint", "health", &endpoint().id.expect("a number").to_string()]);
    assert_eq!(health.status.code(), Some(1), "{health:?}");

    let status = node.podwire(&["status"]);
    assert_eq!(status.status.code(), Some(1), "an operator is told: {status:?}");
    let shown = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(shown.contains("Warning") && shown.contains("endpoints: not ready"), "{shown}");
    result(&call(&node, "STATUS", "", Path::new(""), &conf(&node)));
    let well = add(&node, "well", &pods[1]);
    exchange(&node.netns, &pods[1], addresses(&well)[0]);

    let host = node.netns.socket().link_by_name("cilium_host").expect("the node's").index;
    until("what concerns every pod is refused", || {
        // The agent takes it up again.
        node.netns.socket().link_set_down(host).expect("down");
        let output = call(&node, "STATUS", "", Path::new(""), &conf(&node));
        (!output.status.success()).then(|| assert_eq!(error_code(&output), 50))
    });
}

/// The agent's filters on both hooks of an attachment's device, and whether there is clsact.
fn hooks(node: &Node, result: &Value) -> ([usize; 2], bool) {
    let socket = node.netns.socket();
    let device = socket.link_by_name(result["interfaces"][0]["name"].as_str().expect("text")).expect("the device");
    let filters = |direction| socket.filters(device.index, direction).expect("listed").len();
    ([Direction::Ingress, Direction::Egress].map(filters), socket.clsact_exists(device.index).expect("asked"))
}

#[test]
fn clsact_of_the_plugin_is_the_agents_to_remove() {
    let node = Node::new();
    let pods = [TestNetns::new(), TestNetns::new()];
    let agent = node.start();
    let first = add(&node, "first", &pods[0]);
    assert_eq!(hooks(&node, &first), ([1, 1], true));
    agent.terminate();
    if tcx_or_skip() {
        let agent = node.start_with(&["--attach-mode", "tcx"]);
        assert_eq!(hooks(&node, &first), ([0, 0], false), "nobody uses it any more");
        let second = add(&node, "second", &pods[1]);
        assert_eq!(hooks(&node, &second), ([0, 0], false), "nobody needs it");
        exchange(&pods[0], &pods[1], addresses(&second)[0]);
        del(&node, "second", pods[1].path());
        agent.terminate();
    }
    let agent = node.start();
    assert_eq!(hooks(&node, &first), ([1, 1], true));
    let notes = node.root.path().join("podwire/devices");
    let noted = || std::fs::read_dir(&notes).expect("a folder").flatten().any(|entry| is_pods(&entry.file_name()));
    assert!(noted());
    del(&node, "first", pods[0].path());
    wait_until_clean(&node);
    assert!(!noted(), "DEL leaves a note of a device that is gone");
    add(&node, "third", &pods[0]);
    agent.terminate();
    node.netns.run(|| Datapath::cleanup(node.root.path(), &node.state_dir())).expect("cleaned up");
    assert!(devices(&node).is_empty() && !notes.exists());
}

fn is_pods(device: &OsStr) -> bool {
    device.to_string_lossy().starts_with("lxc")
}

/// podman's `run --ip --mac-address` and, with more than one address, its `network reload`.
#[test]
fn addresses_a_runtime_wishes_for_are_said_not_to_be_given() {
    let node = Node::new();
    let _agent = node.start();
    let pod = TestNetns::new();
    let args = "IgnoreUnknown=1;K8S_POD_NAME=web;MAC=02:00:00:00:00:05;IP=10.200.0.77";
    let mut conf = conf(&node);
    conf["runtimeConfig"] = json!({ "ips": ["10.200.0.78", "fd00:200::78"] });
    let child = start_with_args(&node, "ADD", "web", pod.path(), args, &conf);
    let output = child.wait_with_output().expect("the plugin ends");
    let given = addresses(&result(&output));
    assert_eq!(given.len(), 2, "both families");
    let messages = String::from_utf8_lossy(&output.stderr);
    for wish in ["02:00:00:00:00:05", "10.200.0.77", "10.200.0.78", "fd00:200::78"] {
        assert!(messages.contains(&format!("address {wish} is not given")), "{wish}: {messages}");
        assert!(given.iter().all(|address| address.to_string() != wish), "{wish} was given after all");
    }
    del(&node, "web", pod.path());
    wait_until_clean(&node);
}

#[test]
fn fifty_at_once() {
    let node = Node::new();
    let _agent = node.start();
    let pods: Vec<TestNetns> = (0..50).map(|_| TestNetns::new()).collect();
    let names: Vec<String> = (0..50).map(|n| format!("pod-{n}")).collect();
    let config = conf(&node);
    let at_once = |command: &str| -> Vec<Value> {
        let called: Vec<Child> =
            std::iter::zip(&names, &pods).map(|(name, pod)| start(&node, command, name, pod.path(), &config)).collect();
        called.into_iter().map(|child| result(&child.wait_with_output().expect("the plugin ends"))).collect()
    };
    let results = at_once("ADD");
    let distinct: BTreeSet<IpAddr> = results.iter().flat_map(addresses).collect();
    assert_eq!(distinct.len(), 100, "two addresses each");
    assert_eq!(devices(&node).len(), 50);
    exchange(&pods[0], &pods[49], addresses(&results[49])[0]);
    exchange(&pods[49], &pods[0], addresses(&results[0])[1]);
    at_once("DEL");
    wait_until_clean(&node);
}

#[test]
fn a_plugin_killed_at_any_moment_leaves_nothing_that_del_does_not_remove() {
    let node = Node::new();
    let _agent = node.start();
    let pod = TestNetns::new();
    let config = conf(&node);
    add(&node, "warm-up", &pod);
    del(&node, "warm-up", pod.path());
    for step in 0..24 {
        let mut child = start(&node, "ADD", "victim", pod.path(), &config);
        // spread over the time that an ADD takes, a moment more in each round
        thread::sleep(Duration::from_micros(750 * step));
        child.kill().expect("our own child");
        child.wait().expect("it ends");
        if step % 2 == 0 {
            del(&node, "victim", pod.path());
        } else {
            // the agent may still be at work for a caller that is gone: what matters is where it ends
            until("ADD or DEL converges", || {
                let again = call(&node, "ADD", "victim", pod.path(), &config);
                let done = again.status.success();
                del(&node, "victim", pod.path());
                done.then_some(())
            });
        }
        // the agent may still be about to notice that the device of its caller is gone
        until("no endpoint is left", || node.client().endpoints(&[]).expect("the list").is_empty().then_some(()));
        until("eth0 goes", || pod.socket().link_by_name("eth0").is_err().then_some(()));
    }
    until("no endpoint is left", || node.client().endpoints(&[]).expect("the list").is_empty().then_some(()));
    wait_until_clean(&node);
}

#[test]
fn deletions_wait_for_the_next_agent() {
    let node = Node::new();
    let agent = node.start();
    let pods = [TestNetns::new(), TestNetns::new()];
    add(&node, "goes", &pods[0]);
    let stays = add(&node, "stays", &pods[1]);
    agent.kill();
    assert_eq!(error_code(&call(&node, "STATUS", "", Path::new(""), &conf(&node))), 50);
    del(&node, "goes", pods[0].path());
    assert_eq!(devices(&node).len(), 1, "its traffic ends with DEL");

    let _agent = node.start();
    let endpoints = node.client().endpoints(&[]).expect("the list");
    assert_eq!(endpoints.len(), 1, "the queued deletion was worked off before the agent served");
    exchange(&node.netns, &pods[1], addresses(&stays)[0]);
    del(&node, "goes", pods[0].path());
    del(&node, "stays", pods[1].path());
    wait_until_clean(&node);
}

/// An agent that answered too late carried out the first DEL; the runtime attached the container again.
#[test]
fn a_queued_deletion_spares_the_endpoint_that_came_after_it() {
    let node = Node::new();
    let agent = node.start();
    let pod = TestNetns::new();
    add(&node, "again", &pod);
    del(&node, "again", pod.path());
    let attachment = Attachment::new("again", "eth0").expect("valid");
    let queue = DeletionQueue::beside(&node.socket());
    queue.lock(PATIENCE).expect("free").push(&attachment).expect("room");
    assert!(queue.holds(&attachment));
    let added = add(&node, "again", &pod);
    assert!(!queue.holds(&attachment));
    agent.kill();
    let _agent = node.start();
    exchange(&node.netns, &pod, addresses(&added)[0]);
    del(&node, "again", pod.path());
    wait_until_clean(&node);
}

#[test]
fn an_agent_that_is_started_anew_costs_no_attachment() {
    let node = Node::new();
    let agent = node.start();
    let pods: Vec<TestNetns> = (0..12).map(|_| TestNetns::new()).collect();
    let names: Vec<String> = (0..pods.len()).map(|number| format!("pod-{number}")).collect();
    let all = || names.iter().zip(&pods);
    let mut adds: Vec<_> = all().map(|(name, pod)| start(&node, "ADD", name, pod.path(), &conf(&node))).collect();
    // The others are in the middle of something.
    let first = adds.remove(0).wait_with_output().expect("the plugin ends");
    assert!(agent.terminate().success());
    let _agent = node.start();
    let outputs = adds.into_iter().map(|add| add.wait_with_output().expect("the plugin ends"));
    let results: Vec<Value> = std::iter::once(first).chain(outputs).map(|output| result(&output)).collect();
    let distinct: BTreeSet<IpAddr> = results.iter().flat_map(addresses).collect();
    assert_eq!(distinct.len(), 2 * pods.len());
    let others = results.iter().zip(&pods).skip(1);
    others.for_each(|(result, pod)| exchange(&pods[0], pod, addresses(result)[0]));
    all().for_each(|(name, pod)| del(&node, name, pod.path()));
    wait_until_clean(&node);
}

#[test]
fn add_waits_for_an_agent_that_is_starting() {
    let node = Node::new();
    let pod = TestNetns::new();
    let child = start(&node, "ADD", "early", pod.path(), &conf(&node));
    let _agent = node.start();
    let result = result(&child.wait_with_output().expect("the plugin ends"));
    exchange(&node.netns, &pod, addresses(&result)[0]);
    del(&node, "early", pod.path());
    wait_until_clean(&node);
}
