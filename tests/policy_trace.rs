//! `podwire policy trace` on a node of its own: what it prints and how it ends. Needs root.
#![cfg(feature = "programs")]

mod common {
    #![allow(dead_code, reason = "every test program uses a part of what they share")]
    pub mod agent;
    pub mod bpf;
    pub mod example;
    pub mod netns;
}

use std::fs;
use std::process::Output;

use common::agent::{Node, addresses, id};
use common::netns::TestNetns;
use podwire::ErrorKind;
use podwire::api::{Endpoint, PolicyTrace, PolicyTraceRequest};
use serde_json::Value;

const WEB: &str = r"
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: default}
spec:
  description: who may use the web
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts: [{ports: [{port: '80', protocol: TCP}]}]
";
const POD: &str = "k8s:io.kubernetes.pod.namespace=default";

struct World {
    node: Node,
    web: Endpoint,
    _pods: [TestNetns; 2],
    _agent: common::agent::Agent,
}

impl World {
    fn new() -> Self {
        let node = Node::new();
        let agent = node.start();
        let pods: [TestNetns; 2] = std::array::from_fn(|_| TestNetns::with_loopback());
        let web = node.create(&pods[0], "web", &["k8s:app=web", POD]);
        node.create(&pods[1], "client", &["k8s:app=client", POD]);
        Self { node, web, _pods: pods, _agent: agent }
    }

    fn trace(&self, args: &[&str]) -> Output {
        self.node.podwire(&[&["policy", "trace"], args].concat())
    }
}

fn ends(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_is_printed_and_how_it_ends() {
    let world = World::new();
    world.node.client().import_policy(WEB).expect("in force");
    let to_web = ["--from", "default/client", "--to", "default/web", "--dport"];
    let (web, address) = (id(&world.web), addresses(&world.web).ipv4.expect("an address"));

    let allowed = ends(&world.trace(&[&to_web[..], &["80"]].concat()), 0);
    for part in [
        "Verdict:    allowed\n".to_owned(),
        format!("To:         {address}, endpoint {web} (default/web), identity "),
        "k8s:app=client".to_owned(),
        format!("Ingress:    allow by endpoint {web}, enforced; rule default/web[0].ingress[0] (#"),
        "match L3-L4: who may use the web\n".to_owned(),
        "Connection: new: none -> new (1 packets, 0 back); TCP ".to_owned(),
        "Way:        to the endpoint through lxc".to_owned(),
        "Changed:    hop limit 64 -> 63\n".to_owned(),
    ] {
        assert!(allowed.contains(&part), "{part:?} is not in\n{allowed}");
    }
    assert!(allowed.lines().count() < 24, "one screen\n{allowed}");

    let denied = ends(&world.trace(&[&to_web[..], &["80/UDP"]].concat()), 1);
    assert!(denied.starts_with("Verdict:    denied: Policy denied (133), "), "{denied}");
    assert!(denied.contains("; no rule matches, match none\n") && denied.contains("Way:        dropped\n"), "{denied}");

    let json = ends(&world.trace(&[&to_web[..], &["80", "-o", "json", "-6"]].concat()), 0);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&json["allowed"], &json["policies"][1]["ruleName"]),
        (&true.into(), &"default/web[0].ingress[0]".into())
    );
    let ipv6 = addresses(&world.web).ipv6.expect("an address").to_string();
    assert_eq!(json["destination"]["address"], Value::from(ipv6));

    ends(&world.trace(&["--from", "host", "--to", &web.to_string(), "--protocol", "icmp"]), 0);
    ends(&world.trace(&["--from", "world", "--to", &address.to_string(), "--dport", "80", "--flags", "syn,fin"]), 1);
}

#[test]
fn a_frame_is_traced_by_its_bytes() {
    let world = World::new();
    world.node.client().import_policy(WEB).expect("in force");
    let json = |args: &[&str], code| {
        let output = world.trace(&[args, &["-o", "json"]].concat());
        serde_json::from_str::<PolicyTrace>(&ends(&output, code)).expect("JSON")
    };
    let described = json(&["--from", "default/client", "--to", "default/web", "--dport", "80"], 0);
    let digits = json(&["--from", "default/client", "--raw", &described.before], 0);
    assert_eq!((&digits.before, &digits.after), (&described.before, &described.after));
    assert_eq!(digits.policies, described.policies);

    let bytes = described
        .before
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("digits"));
    let file = world.node.folder.path().join("frame");
    fs::write(&file, bytes.collect::<Vec<_>>()).expect("written");
    let file = format!("@{}", file.display());
    assert_eq!(json(&["--from", "default/client", "--raw", &file], 0).before, described.before);
    // Whoever else sends it is a liar.
    assert_eq!(json(&["--from", "default/web", "--raw", &file], 1).drop.map(|drop| drop.code), Some(130));
    ends(&world.trace(&["--from", "host", "--to", "default/web", "--raw", &file]), 0);
}

#[test]
fn policies_are_tried_out_and_faults_are_neither_allowed_nor_denied() {
    let world = World::new();
    let file = world.node.folder.path().join("policy.yaml");
    let file = file.display().to_string();
    fs::write(&file, WEB).expect("written");
    let trace = ["--from", "default/client", "--to", "default/web", "--dport", "81"];
    ends(&world.trace(&trace), 0);
    ends(&world.trace(&[&trace[..], &["--policy", &file]].concat()), 1);
    ends(&world.trace(&trace), 0);
    assert_eq!(world.node.client().policy(&[]).expect("the rules").policy.as_deref(), Some("[]"));

    fs::write(&file, "spec: {}").expect("written");
    for (args, word) in [
        (&["--from", "default/nobody", "--to", "host", "--dport", "1"][..], "default/nobody"),
        (&["--from", "default/client", "--to", "host"], "needs one"),
        (&["--from", "default/client", "--to", "host", "--dport", "1/UDP", "--protocol", "tcp"], "--protocol tcp"),
        (&["--from", "default/client", "--to", "host", "--dport", "1", "--policy", &file], "kind: missing"),
        (&["--from", "default/client", "--to", "host", "--dport", "1", "--policy", "/nowhere"], "/nowhere"),
        (&["--from", "default/client"], "--to"),
        (&["--from", "default/client", "--raw", "@/nowhere"], "/nowhere"),
        (&["--from", "default/client", "--raw", "00", "--dport", "1"], "nothing else"),
        (&["--from", "default/client", "--to", "host", "-6", "--protocol", "icmp"], "IPv6 has ICMPv6"),
        (&["--from", "default/client", "--to", "host", "--dport", "x"], "x is no port"),
    ] {
        let output = world.trace(args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && text.contains(word), "{args:?}: {output:?}");
    }
}

#[test]
fn a_client_asks_for_the_same() {
    let world = World::new();
    let request = |from: &str| PolicyTraceRequest {
        from: from.to_owned(),
        to: format!("{}", id(&world.web)),
        destination_port: Some(53),
        protocol: Some("udp".to_owned()),
        source_port: Some(7),
        hop_limit: Some(1),
        ..PolicyTraceRequest::default()
    };
    let client = world.node.client();
    let trace: PolicyTrace = client.trace_policy(&request("default/client")).expect("an answer");
    assert_eq!((trace.allowed, trace.drop.map(|drop| drop.code)), (false, Some(196)));
    let error = client.trace_policy(&request("65000")).expect_err("nobody");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = client.trace_policy(&request("")).expect_err("nowhere");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
