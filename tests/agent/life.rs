//! An agent starts, ends and is started again.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use podwire::ErrorKind;
use podwire::api::{Client, MonitorFilter, StatusState};
use podwire::cni::{Attachment, DeletionQueue};
use rustix::process::Signal;

use super::common::agent::{Node, addresses, id, until};
use super::common::node::{Echo, exchange_udp};
use super::pods;

#[test]
fn a_restart_keeps_endpoints_and_connections() {
    let node = Node::new();
    let agent = node.start();
    let [one, two] = pods();
    let (web, db) = (node.create(&one, "web", &["k8s:app=web"]), node.create(&two, "db", &[]));
    let mut echo = Echo::connect(&one, &two, addresses(&db).ipv4.expect("an address").into());
    echo.exchange(4096);
    agent.kill();
    echo.exchange(4096);
    // The socket of the agent that was killed is still there, and nobody serves it.
    let agent = node.start();
    echo.exchange(4096);
    let after = node.client().endpoint(&id(&web).into()).expect("the endpoint is back");
    assert_eq!(addresses(&after), addresses(&web));
    let status = after.status.expect("a status");
    assert_eq!(
        status.labels.expect("labels").security_relevant,
        ["k8s:app=web", "k8s:io.kubernetes.pod.namespace=default"]
    );
    assert!(agent.terminate().success());
    assert!(!node.socket().exists(), "an agent that ends takes its socket along");
    exchange_udp(&one, &two, addresses(&db).ipv6.expect("an address").into());
}

#[test]
fn deletions_queued_without_an_agent_are_done_first() {
    let node = Node::new();
    let agent = node.start();
    let [pod] = pods();
    let endpoint = node.create(&pod, "web", &[]);
    assert!(agent.terminate().success());
    let queue = DeletionQueue::beside(&node.socket());
    let attachment = Attachment::new("container-of-web", "eth0").expect("valid names");
    queue.lock(std::time::Duration::from_secs(5)).expect("nobody holds it").push(&attachment).expect("there is room");
    let _agent = node.start();
    let error = node.client().endpoint(&id(&endpoint).into()).expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_second_agent_is_refused() {
    let node = Node::new();
    let _agent = node.start();
    let second = node.spawn(&["--ipv4-range", "10.66.0.0/24"]);
    assert_eq!(second.wait().code(), Some(1));
    assert!(
        node.log().lines().any(|line| line.starts_with("podwire-agent: ") && line.contains("in use")),
        "{}",
        node.log()
    );
    assert_eq!(
        node.client().status(true).expect("the first serves on").cilium.and_then(|agent| agent.state),
        Some(StatusState::Ok)
    );
}

#[test]
fn the_socket_is_for_owner_and_group_and_nothing_else_is_replaced() {
    let node = Node::new();
    let agent = node.start();
    let mode = fs::metadata(node.socket()).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    agent.signal(Signal::INT);
    assert!(agent.wait().success(), "SIGINT ends it too");

    fs::write(node.socket(), "precious").expect("a file");
    assert_eq!(node.spawn(&["--ipv4-range", "10.66.0.0/24"]).wait().code(), Some(1));
    assert_eq!(fs::read_to_string(node.socket()).expect("the file"), "precious");
    fs::remove_file(node.socket()).expect("our own file");

    let somebody = UnixListener::bind(node.socket()).expect("a socket");
    assert_eq!(node.spawn(&["--ipv4-range", "10.66.0.0/24"]).wait().code(), Some(1));
    assert!(node.log().contains("another agent serves it"), "{}", node.log());
    drop(somebody);
}

#[test]
fn a_start_refused_for_what_others_serve_has_changed_nothing() {
    let node = Node::new();
    let taken = node.netns.run(|| TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let refused = node.spawn(&["--ipv4-range", "10.66.0.0/24", "--metrics-addr", &address]);
    assert_eq!(refused.wait().code(), Some(1));
    assert!(node.log().contains("metrics-addr"), "{}", node.log());
    assert!(!node.socket().exists(), "the socket goes again");

    let _somebody = UnixListener::bind(node.socket()).expect("a socket");
    assert_eq!(node.spawn(&["--ipv4-range", "10.66.0.0/24"]).wait().code(), Some(1));
    assert!(node.log().contains("another agent serves it"), "{}", node.log());
    let devices: Vec<_> = node.netns.socket().links().expect("devices").into_iter().map(|link| link.name).collect();
    assert_eq!(devices, ["lo"]);
    assert!(!node.state_dir().exists() && !node.root.maps().exists());
}

#[test]
fn a_start_that_fails_late_leaves_what_it_found() {
    let node = Node::new();
    let start = || node.spawn(&["--ipv4-range", "10.66.0.0/24"]);
    let devices =
        || -> Vec<_> { node.netns.socket().links().expect("devices").into_iter().map(|link| link.name).collect() };
    let queue = DeletionQueue::beside(&node.socket());
    fs::write(queue.dir(), "in the way").expect("a file");
    assert_eq!(start().wait().code(), Some(1));
    assert!(node.log().contains("deleteQueue"), "{}", node.log());
    assert_eq!(devices(), ["lo"], "nothing was there");
    assert!(!node.socket().exists() && !node.state_dir().exists() && !node.root.maps().exists());

    fs::remove_file(queue.dir()).expect("our own file");
    let agent = node.start();
    let [pod] = pods();
    let endpoint = node.create(&pod, "web", &[]);
    assert!(agent.terminate().success());
    let before = devices();
    fs::remove_dir_all(queue.dir()).expect("the queue");
    fs::write(queue.dir(), "in the way").expect("a file");
    assert_eq!(start().wait().code(), Some(1));
    assert_eq!(devices(), before, "what was there serves on");
    fs::remove_file(queue.dir()).expect("our own file");
    let _agent = node.start();
    node.client().endpoint(&id(&endpoint).into()).expect("it is still there");
}

#[test]
fn the_gateway_of_an_earlier_range_is_no_damage() {
    let node = Node::new();
    assert!(node.start().terminate().success());
    let _agent = node.spawn(&["--ipv4-range", "10.67.0.0/24", "--ipv6-range", "fd67::/112"]);
    let client = node.client();
    until("the datapath was maintained", || {
        let controllers = client.status(false).expect("a status").controllers;
        let maintained = |controller: &podwire::api::ControllerStatus| {
            controller.name == "datapath-maintenance" && controller.status.success_count > 0
        };
        controllers.iter().any(maintained).then_some(())
    });
    assert!(!node.log().contains("not what they should be"), "{}", node.log());
    let map = client.map("cilium_lxc").expect("its content");
    let keys: Vec<_> = map.cache.iter().flatten().map(|entry| entry.key.as_str()).collect();
    let is_new = |key: &&str| key.starts_with("10.67.") || key.starts_with("fd67:");
    assert!(keys.len() == 2 && keys.iter().all(is_new), "the old gateways' are gone: {keys:?}");
}

#[test]
fn the_start_is_told_in_full() {
    let node = Node::new();
    let _agent = node.start();
    let log = node.log();
    for line in [
        "Cluster-Name: default",
        "Local node-name: node1",
        "Internal-Node IPv4: 10.66.0.1",
        "IPv4 allocation prefix: 10.66.0.0/24",
        "IPv6 allocation prefix: fd66::/112",
        "Loopback IPv4: 169.254.42.1",
    ] {
        assert!(log.contains(line), "no {line:?} in\n{log}");
    }
    let node_config = fs::read_to_string(node.state_dir().join("node_config.json")).expect("the node's configuration");
    assert!(node_config.contains("10.66.0.0/24"), "{node_config}");
}

#[test]
fn an_agent_that_ends_lets_its_listeners_go() {
    let node = Node::new();
    let agent = node.start();
    let client = Client::builder(node.socket()).request_timeout(None).build();
    let mut events = client.monitor(&MonitorFilter::default()).expect("a stream");
    assert!(agent.terminate().success());
    assert!(!node.log().contains("cut off"), "{}", node.log());
    assert!(events.all(|event| event.is_ok()), "the stream ends as it should");
}
