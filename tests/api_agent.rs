//! The agent as a process, on a node of its own: what it serves, survives and leaves behind.
#![cfg(feature = "programs")]

mod common {
    #![allow(dead_code, reason = "every test program uses a part of what they share")]
    pub mod agent;
    pub mod bpf;
    pub mod example;
    pub mod netns;
    pub mod node;
}
#[path = "agent/life.rs"]
mod life;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use common::agent::{Node, addresses, id, until};
use common::netns::TestNetns;
use common::node::exchange_udp;
use podwire::api::{
    Client, EndpointChangeRequest, EndpointHealthStatus, EndpointKey, EndpointState, IpamRequest,
    LabelConfigurationSpec, MapAction, MonitorFilter, MonitorType, Options,
};
use podwire::cni::{Attachment, DeletionQueue};
use podwire::ipam::Family;
use podwire::netlink::AddressSpec;
use podwire::tables::LxcMap;
use podwire::{Error, ErrorKind, SecurityId};
use serde_json::Value;

fn pods<const N: usize>() -> [TestNetns; N] {
    std::array::from_fn(|_| TestNetns::with_loopback())
}

fn text(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_endpoint_whose_pod_is_down_is_not_connected() {
    let node = Node::new();
    let agent = node.start();
    let [pod] = pods();
    let web = EndpointKey::Id(id(&node.create(&pod, "web", &[])));
    let health = node.client().endpoint_health(&web).expect("its health");
    assert!(health.connected && health.overall_health == Some(EndpointHealthStatus::Ok), "{health:?}");
    let listed = |node: &Node| text(&node.podwire(&["endpoint", "list"]));
    assert!(!listed(&node).contains("not connected"));
    let socket = pod.socket();
    // As a plugin leaves it that dies before it has configured the pod's side.
    socket.link_set_down(socket.link_by_name("eth0").expect("its device").index).expect("down");
    let unconnected = |node: &Node| {
        let health = node.client().endpoint_health(&web).expect("its health");
        (!health.connected).then_some(health)
    };
    // Linux 6.1 notices a little later.
    until("the carrier is lost", || unconnected(&node));
    assert!(agent.terminate().success());
    let _agent = node.start();
    let health = unconnected(&node).expect("a restart changes nothing of it");
    assert_eq!(health.overall_health, Some(EndpointHealthStatus::Failure));
    assert!(health.reasons[0].contains("no carrier: eth0 inside of the container is down"), "{health:?}");
    let listed = listed(&node);
    assert!(listed.contains("ready") && listed.contains("not connected"), "{listed}");
    let shown = node.podwire(&["endpoint", "health", &web.to_string()]);
    assert_eq!(shown.status.code(), Some(1), "{shown:?}");
}

#[test]
fn endpoints_from_creation_to_removal() {
    let node = Node::new();
    let agent = node.start();
    let client = node.client();
    let [one, two] = pods();
    let web = node.create(&one, "web", &["k8s:app=web"]);
    let db = node.create(&two, "db", &[]);
    let (web_key, web_addresses) = (EndpointKey::Id(id(&web)), addresses(&web));

    let status = web.status.expect("a created endpoint has a status");
    assert_eq!(status.state, Some(EndpointState::Ready));
    let external = status.external_identifiers.expect("it has names");
    assert_eq!(external.cni_attachment_id.as_deref(), Some("container-of-web:eth0"));
    assert_eq!(external.pod_name.as_deref(), Some("default/web"));
    for address in addresses(&db).addresses() {
        exchange_udp(&one, &two, address);
    }

    let keys = [
        format!("ipv4:{}", web_addresses.ipv4.expect("both families")),
        format!("ipv6:{}", web_addresses.ipv6.expect("both families")),
        "container-id:container-of-web".to_owned(),
        "cni-attachment-id:container-of-web:eth0".to_owned(),
        "cni-attachment-id:container-of-web".to_owned(),
        "pod-name:default/web".to_owned(),
        format!("cilium-local:{}", id(&db)),
    ];
    for key in &keys {
        let expected = if key.starts_with("cilium-local") { db.id } else { web.id };
        assert_eq!(client.endpoint(&key.parse().expect(key)).expect(key).id, expected, "{key}");
    }
    assert_eq!(client.endpoints(&[]).expect("a list").len(), 2);
    assert_eq!(client.endpoints(&["k8s:app=web".to_owned()]).expect("one")[0].id, web.id);
    let none = client.endpoints(&["k8s:app=other".to_owned()]).expect_err("none has it");
    assert_eq!(none.kind(), ErrorKind::NotFound);

    let health = client.endpoint_health(&web_key).expect("its health");
    assert_eq!((health.overall_health, health.connected), (Some(EndpointHealthStatus::Ok), true));
    client.regenerate_endpoint(&web_key).expect("a regeneration");
    let log = client.endpoint_log(&web_key).expect("its log");
    assert!(log.len() >= 2 && log[0].timestamp >= log[log.len() - 1].timestamp, "newest first: {log:?}");

    client.delete_endpoint(&web_key).expect("a removal");
    assert_eq!(client.delete_endpoint(&web_key).expect_err("it is gone").kind(), ErrorKind::NotFound);
    client.delete_endpoints_of("container-of-db").expect("a removal by container");
    assert_eq!(client.delete_endpoints_of("container-of-db").expect_err("gone").kind(), ErrorKind::NotFound);
    assert!(client.endpoints(&[]).expect("a list").is_empty());
    let left = client.status(false).expect("a status").ipam.expect("addresses").allocations;
    assert!(left.values().all(|owner| owner == "router"), "{left:?}");
    assert!(agent.terminate().success());
}

#[test]
fn a_creation_is_described_unless_the_client_prefers_not() {
    let node = Node::new();
    let _agent = node.start();
    let pods: [TestNetns; 3] = pods();
    let wishes = ["", "Prefer: return=representation\r\n", "Prefer: respond-async, return=minimal\r\n"];
    for (number, (wish, pod)) in wishes.into_iter().zip(&pods).enumerate() {
        let body = serde_json::json!({
            "container-id": format!("c{number}"),
            "container-interface-name": "eth0",
            "container-netns-path": pod.path(),
            "state": "waiting-for-identity",
        });
        let (body, path) = (body.to_string(), "/v1/endpoint/cilium-local:0");
        let mut stream = UnixStream::connect(node.socket()).expect("it listens");
        let kind = format!("Content-Type: application/json\r\nContent-Length: {}", body.len());
        let request = format!("PUT {path} HTTP/1.1\r\nHost: l\r\nConnection: close\r\n{wish}{kind}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 201 "), "{answer}");
        assert_eq!(body.is_empty(), wish.contains("minimal"), "{wish:?}: {answer}");
    }
    assert_eq!(node.client().endpoints(&[]).expect("a list").len(), 3);
}

#[test]
fn labels_change_while_the_endpoint_runs() {
    let node = Node::new();
    let _agent = node.start();
    let [pod] = pods();
    let endpoint = node.create(&pod, "web", &["k8s:app=web", "k8s:tier=front"]);
    let number = id(&endpoint).to_string();
    text(&node.podwire(&[
        "endpoint",
        "labels",
        &number,
        "--add",
        "k8s:app=api,k8s:new=yes",
        "--delete",
        "k8s:tier=front",
    ]));
    let labels = node.client().endpoint_labels(&id(&endpoint).into()).expect("labels");
    assert_eq!(
        labels.status.security_relevant,
        ["k8s:app=api", "k8s:io.kubernetes.pod.namespace=default", "k8s:new=yes"]
    );
    node.client()
        .change_endpoint_labels(&id(&endpoint).into(), &LabelConfigurationSpec::default())
        .expect("all labels taken away");
    let shown = text(&node.podwire(&["endpoint", "list"]));
    assert!(shown.contains("reserved:init"), "{shown}");
    let bad = LabelConfigurationSpec { user: vec!["k8s:=x".to_owned()] };
    let error = node.client().change_endpoint_labels(&id(&endpoint).into(), &bad).expect_err("no key");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[test]
fn addresses_are_allocated_claimed_and_released() {
    let node = Node::new();
    let _agent = node.start();
    let client = node.client();
    let both = IpamRequest { owner: "a/b".to_owned(), expiring: true, device_settings: true, ..IpamRequest::default() };
    let both = client.allocate(&both).expect("an allocation");
    let settings = both.device_settings.expect("asked for");
    assert_eq!(settings, client.config().expect("the configuration").status.into());
    assert_eq!((settings.device_mtu, settings.datapath_mode.as_deref()), (1500, Some("veth")));
    assert!(both.address.ipv4.is_some() && both.address.ipv6.is_some());
    assert!(both.ipv4.and_then(|details| details.expiration_uuid).is_some_and(|uuid| uuid.len() == 36));
    let gateway = both.host_addressing.ipv4.and_then(|own| own.ip).expect("the node has an address");
    let one = IpamRequest { owner: "a/c".to_owned(), family: Some(Family::Ipv6), ..IpamRequest::default() };
    let one = client.allocate(&one).expect("an allocation");
    assert!(one.address.ipv4.is_none() && one.ipv4.is_none() && one.ipv6.is_some());
    assert_eq!(one.device_settings, None, "clients of Cilium's do not ask");

    let free: IpAddr = "10.66.0.99".parse().expect("an address");
    client.allocate_address(free, "a/d", None).expect("it is free");
    let taken = client.allocate_address(free, "a/e", None).expect_err("it is taken");
    assert_eq!(taken.kind(), ErrorKind::WrongState, "{taken}");
    let outside = client.allocate_address("192.0.2.1".parse().expect("an address"), "a/e", None).expect_err("no pool");
    assert_eq!(outside.kind(), ErrorKind::InvalidInput, "{outside}");
    client.release_address(free, Some("default")).expect("it was allocated");
    client.release_address(free, None).expect("released twice is released");
    assert!(client.release_address(gateway, None).is_err(), "the router keeps its address");

    let [pod] = pods();
    let used = addresses(&node.create(&pod, "web", &[])).ipv4.expect("an address");
    let refused = client.release_address(used.into(), None).expect_err("an endpoint has it");
    assert!(refused.to_string().contains("in use by endpoint"), "{refused}");

    // 254 addresses, less the router's, the pod's and that of a/b.
    for _ in 0..251 {
        client
            .allocate(&IpamRequest { owner: "many".to_owned(), family: Some(Family::Ipv4), ..Default::default() })
            .expect("room");
    }
    let full = IpamRequest { owner: "last".to_owned(), family: Some(Family::Ipv4), ..Default::default() };
    let full = client.allocate(&full).expect_err("no room");
    assert_eq!(full.kind(), ErrorKind::Exhausted, "{full}");
}

#[test]
fn events_reach_those_who_ask_for_them() {
    let node = Node::new();
    let _agent = node.start();
    let [one, two] = pods();
    let (web, db) = (node.create(&one, "web", &[]), node.create(&two, "db", &[]));
    let listen = |filter: MonitorFilter| {
        Client::builder(node.socket()).request_timeout(None).build().monitor(&filter).expect("a stream")
    };
    let traces = MonitorFilter { types: vec![MonitorType::Trace], to: vec![id(&db)], ..Default::default() };
    let mut traces = listen(traces);
    let mut agent_events = listen(MonitorFilter { types: vec![MonitorType::Agent], ..Default::default() });
    exchange_udp(&one, &two, addresses(&db).ipv4.expect("an address").into());
    let trace = traces.next().expect("a trace").expect("JSON");
    assert_eq!((&trace["type"], &trace["dstID"]), (&Value::from("trace"), &Value::from(id(&db).get())));
    assert!(trace["text"].as_str().is_some_and(|text| text.contains("10.66.0.")), "{trace}");

    node.client().delete_endpoint(&id(&web).into()).expect("a removal");
    let gone = agent_events.next().expect("an event").expect("JSON");
    assert_eq!(
        (&gone["subtype"], &gone["message"]["id"]),
        (&Value::from("Endpoint deleted"), &Value::from(id(&web).get()))
    );

    // A packet with a source that is not the pod's.
    let mut drops = listen(MonitorFilter { types: vec![MonitorType::Drop], from: vec![id(&db)], ..Default::default() });
    two.run(|| {
        let socket = two.socket();
        let device = socket.link_by_name("eth0").expect("the pod's device");
        let address = AddressSpec::new(device.index, "10.66.0.200/32".parse().expect("an address"));
        socket.address_add(&address).expect("root in the pod may");
        let spoofer = std::net::UdpSocket::bind("10.66.0.200:0").expect("its own address");
        spoofer.send_to(b"spoof", "10.66.0.1:9").expect("the pod may try");
    });
    // The pod's stack has its own things to say, such as router solicitations, which are dropped too.
    let spoofed = |drop: &Value| drop["type"] == "drop" && drop["reason"] == "Invalid source ip";
    let drop = drops.by_ref().take(50).map(|drop| drop.expect("JSON")).find(spoofed).expect("the drop is reported");
    assert_eq!(drop["source"], Value::from(id(&db).get()), "{drop}");
    let counted =
        text(&node.podwire(&["bpf", "metrics", "list", "--bpf-root", &node.root.path().display().to_string()]));
    assert!(counted.contains("Invalid source ip") && counted.contains("Success"), "{counted}");
}

#[test]
fn a_map_that_others_change_is_told_and_repaired() {
    let node = Node::new();
    let _agent = node.start();
    let [pod] = pods();
    let address = addresses(&node.create(&pod, "web", &[])).ipv4.expect("an address");
    let root = node.root.path().display().to_string();
    let listed = text(&node.podwire(&["bpf", "endpoint", "list", "--bpf-root", &root]));
    assert!(listed.contains(&format!("{address}:0")), "{listed}");
    text(&node.podwire(&["bpf", "endpoint", "delete", &address.to_string(), "--bpf-root", &root]));
    until("the entry is back", || {
        let map = LxcMap::open_pinned(node.root.maps()).expect("it is pinned");
        map.lookup(address.into()).expect("it can be read")
    });
    let map = node.client().map("cilium_lxc").expect("the map");
    let rows = map.cache.expect("its content is known");
    let row = rows.iter().find(|row| row.key == format!("{address}:0")).expect("the pod's row");
    assert_eq!((&row.desired_action, &row.last_error), (&Some(MapAction::Sync), &None));
    assert!(row.value.contains("nodemac="), "{}", row.value);
    let maps = node.client().maps().expect("all maps").maps;
    assert!(maps.iter().any(|map| map.name() == "cilium_metrics" && map.cache.is_none()), "{maps:?}");
    assert_eq!(node.client().map("cilium_nosuch").expect_err("none").kind(), ErrorKind::NotFound);
}

#[test]
fn connections_that_ended_are_collected_while_the_agent_runs() {
    let node = Node::new();
    let short = ["--bpf-ct-timeout-regular-any", "5s", "--conntrack-gc-interval", "1s"];
    let _agent = node.spawn(&[&["--ipv4-range", "10.66.0.0/24"], &short[..]].concat());
    node.client().status(true).expect("it serves");
    let [client, server] = pods();
    node.create(&client, "client", &[]);
    let created = node.create(&server, "server", &[]);
    let address = IpAddr::from(addresses(&created).ipv4.expect("an address"));
    let root = node.root.path().display().to_string();
    let udp = || -> Vec<Value> {
        let listed = text(&node.podwire(&["bpf", "ct", "list", "--bpf-root", &root, "-o", "json"]));
        let mut listed: Vec<Value> = serde_json::from_str(&listed).expect("JSON");
        listed.retain(|connection| connection["protocol"] == "UDP");
        listed
    };
    // Once before, so that the program is built.
    udp();
    exchange_udp(&client, &server, address);
    let listed = udp();
    let to = listed.first().and_then(|connection| connection["destination"].as_str()).expect("a connection");
    assert!(to.starts_with(&format!("{address}:")), "{listed:?}");
    assert_eq!((&listed[0]["forward"]["packets"], &listed[0]["reply"]["packets"]), (&1.into(), &1.into()));
    until("the connection is collected", || udp().is_empty().then_some(()));
    let metrics = node.client().metrics().expect("metrics");
    let value = |name: &str, status: &str| {
        let labelled = metrics.iter().filter(|metric| metric.labels.get("status").is_some_and(|label| label == status));
        labelled.filter(|metric| metric.name == name).map(|metric| metric.value).sum::<f64>()
    };
    assert!(value("cilium_datapath_conntrack_gc_runs_total", "completed") >= 1.0, "{metrics:?}");
    assert!(value("cilium_datapath_conntrack_gc_duration_seconds_count", "completed") >= 1.0, "{metrics:?}");
    let controllers = node.client().status(false).expect("the status").controllers;
    assert!(controllers.iter().any(|controller| controller.name == "conntrack"), "{controllers:?}");
}

#[test]
fn metrics_are_served_to_both() {
    let node = Node::new();
    let agent = node.spawn(&["--ipv4-range", "10.66.0.0/24", "--metrics-addr", "127.0.0.1:9962"]);
    node.client().status(true).expect("it serves");
    let [pod] = pods();
    node.create(&pod, "web", &[]);
    let answer = node.netns.run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9962").expect("metrics are served");
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    });
    for line in [
        "cilium_endpoint_state{endpoint_state=\"ready\"} 1",
        "cilium_bpf_map_ops_total{map_name=\"cilium_lxc\",operation=\"update\",outcome=\"fail\"} 0",
        "cilium_endpoint_regenerations_total{outcome=\"success\"} 1",
        "cilium_ip_addresses{family=\"ipv4\"} 2",
        "cilium_ipam_capacity{family=\"ipv4\"} 254",
        "cilium_datapath_conntrack_gc_runs_total{status=\"completed\"} 0",
        "cilium_datapath_conntrack_gc_interval_seconds{} 60.0",
        "# EOF",
    ] {
        assert!(answer.contains(line), "no {line:?} in\n{answer}");
    }
    let listed = node.client().metrics().expect("the same over the API");
    let ready = listed.iter().find(|metric| metric.labels.get("endpoint_state").is_some_and(|state| state == "ready"));
    assert_eq!(ready.map(|metric| metric.value), Some(1.0));
    let rival = Node::new();
    let taken = rival.spawn(&["--ipv4-range", "10.66.0.0/24", "--metrics-addr", "192.0.2.1:1"]);
    assert_eq!(taken.wait().code(), Some(1));
    assert!(rival.log().contains("metrics-addr: \"192.0.2.1:1\": can't listen there"), "{}", rival.log());
    assert!(agent.terminate().success());
}

#[test]
fn options_change_at_run_time() {
    let node = Node::new();
    let _agent = node.start();
    text(&node.podwire(&["config", "TraceNotification=disable"]));
    let options: Options = node.client().config().expect("the configuration").spec.options;
    assert_eq!(options["TraceNotification"], "Disabled");
    assert_eq!(text(&node.podwire(&["config", "get", "TraceNotification"])), "Disabled\n");
    assert_eq!(text(&node.podwire(&["config", "get", "IPv4Range"])), "10.66.0.0/24\n");
    let bad = node.podwire(&["config", "NoSuchOption=true"]);
    assert_eq!(bad.status.code(), Some(1));
    let bad = node.podwire(&["config", "TraceNotification=perhaps"]);
    assert!(String::from_utf8_lossy(&bad.stderr).contains("expected Enabled or Disabled"), "{bad:?}");
}

#[test]
fn a_node_that_is_not_well_says_so() {
    let node = Node::new();
    let [pod] = pods();
    let _agent = node.start();
    let socket = node.netns.socket();
    let host = socket.link_by_name("cilium_host").expect("the agent made it");
    socket.link_set_down(host.index).expect("root may");
    until("the agent puts it right", || socket.link_by_index(host.index).expect("it is there").is_up.then_some(()));
    until("the node is well", || node.podwire(&["status"]).status.success().then_some(()));

    let (state, aside) = (node.state_dir(), node.folder.path().join("aside"));
    fs::rename(&state, &aside).expect("our own folder");
    let output = node.podwire(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("state: the state directory") && shown.contains("was removed"), "{shown}");
    let request = EndpointChangeRequest {
        container_id: Some("late".to_owned()),
        container_netns_path: Some(pod.path().display().to_string()),
        state: Some(EndpointState::WaitingForIdentity),
        ..EndpointChangeRequest::default()
    };
    match node.client().create_endpoint(&request) {
        Err(Error::Api { status: 500, message, .. }) => assert!(message.contains("No such file"), "{message}"),
        other => panic!("{other:?}"),
    }
    fs::rename(aside, state).expect("our own folder");

    socket.link_delete(host.index).expect("root may");
    let output = node.podwire(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("Failure") && shown.contains("cilium_host: the device is gone"), "{shown}");
    let output = node.podwire(&["status", "--brief"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn every_command_works_against_the_agent() {
    let node = Node::new();
    let agent = node.start();
    let [pod] = pods();
    let endpoint = node.create(&pod, "web", &["k8s:app=web"]);
    let number = id(&endpoint).to_string();
    let address = addresses(&endpoint).ipv4.expect("an address").to_string();
    let root = node.root.path().display().to_string();
    let commands: &[(&[&str], &str)] = &[
        (&["status"], "Podwire:                 Ok"),
        (&["status"], "Policy:                  Ok   revision 1, rules: 0, mode: default"),
        (&["status", "--verbose"], &address),
        (&["endpoint", "list"], "k8s:app=web"),
        (&["endpoint", "get", &number], "container-of-web"),
        (&["endpoint", "regenerate", &number], "regenerated"),
        (&["endpoint", "health", &number], "Overall Health:   OK"),
        (&["endpoint", "log", &number], "ready"),
        (&["ip", "list"], &address),
        (&["ip", "get", "10.66.0.0/24"], &address),
        (&["ip", "get", &address], &address),
        (&["ip", "get", "-l", "k8s:app=web"], &address),
        (&["identity", "list", "--endpoints"], "k8s:app=web"),
        (&["identity", "get", "--label", "k8s:app=web"], "256"),
        (&["bpf", "policy", "list", "--bpf-root", &root], "COOKIE"),
        (&["bpf", "ipcache", "get", &address, "--bpf-root", &root], "identity=256"),
        (&["policy", "get"], "Revision: 1"),
        (&["policy", "selectors"], "SELECTOR"),
        (&["policy", "wait", "1"], ""),
        (&["endpoint", "config", &number], "PolicyAuditMode                   : Disabled"),
        (&["ipam", "list"], "default/web"),
        (&["map", "list"], "cilium_lxc"),
        (&["map", "get", "cilium_lxc"], "sync"),
        (&["metrics", "list", "-p", "cilium_endpoint_state"], "endpoint_state=ready"),
        (&["node", "list"], "node1"),
        (&["config", "--all"], "10.66.0.0/24"),
        (&["debuginfo"], "10.66.0.0/24"),
        (&["version"], "Daemon: podwire"),
        (&["endpoint", "delete", &number], "deleted"),
    ];
    for (args, expected) in commands {
        let shown = text(&node.podwire(args));
        assert!(shown.contains(expected), "{args:?}: {shown}");
    }
    assert_eq!(node.client().identities().expect("identities")[0].id, SecurityId::HOST);

    let state = node.state_dir().display().to_string();
    let cleanup = ["cleanup", "--bpf-root", &root, "--state-dir", &state];
    let forced = [&cleanup[..], &["--force"]].concat();
    let busy = node.podwire(&forced);
    assert!(!busy.status.success() && String::from_utf8_lossy(&busy.stderr).contains("in use"), "{busy:?}");
    assert!(agent.terminate().success());
    // Killed agents leave their sockets, plugins that meet no agent what they want deleted.
    drop(UnixListener::bind(node.socket()).expect("a socket"));
    let queue = DeletionQueue::beside(&node.socket());
    let attachment = Attachment::new("somebody", "eth0").expect("valid names");
    queue.lock(Duration::from_secs(5)).expect("nobody holds it").push(&attachment).expect("there is room");
    let plan = node.podwire(&cleanup);
    assert_eq!(plan.status.code(), Some(1), "refused without --force");
    assert!(String::from_utf8_lossy(&plan.stdout).contains("cilium_host"), "{plan:?}");
    text(&node.podwire(&forced));
    let devices: Vec<_> = node.netns.socket().links().expect("devices").into_iter().map(|link| link.name).collect();
    assert_eq!(devices, ["lo"]);
    let left: Vec<_> =
        fs::read_dir(node.folder.path()).expect("its folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["log"], "nothing of ours but what the test wrote");
    assert_eq!(text(&node.podwire(&forced)), "Nothing to remove\n");
}
