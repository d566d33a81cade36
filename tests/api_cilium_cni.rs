//! The requests that `cilium-cni` 1.19 makes, in its order and with its headers and fields, and the answers it needs.
#![cfg(feature = "programs")]

mod common {
    #![allow(dead_code, reason = "every test program uses a part of what they share")]
    pub mod agent;
    pub mod bpf;
    pub mod example;
    pub mod netns;
    pub mod node;
}

use common::agent::{Node, raw};
use common::netns::TestNetns;
use common::node::exchange_udp;
use podwire::endpoint::veth::{PodNetwork, Veth, VethSpec};
use serde_json::{Value, json};

const CONTAINER: &str = "30e8198302aba5ab7475a6c9cb3c59a337eaa8de7811a9bf15d2f2075d43fd73";

/// Sends a request as Go's client does and returns the status and the body.
fn ask(node: &Node, method: &str, path: &str, headers: &str, body: Option<&Value>) -> (u16, String) {
    let body = body.map(Value::to_string).unwrap_or_default();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {}\r\n\
         Accept: application/json\r\nConnection: close\r\n{kind}{headers}\r\n{body}",
        body.len()
    );
    let answer = String::from_utf8(raw(&node.socket(), request.as_bytes())).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

fn json_of((status, body): (u16, String), expected: u16) -> Value {
    assert_eq!(status, expected, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// What the plugin does with the pod between its requests.
fn plug(node: &Node, pod: &TestNetns, ipam: &Value, config: &Value) -> Veth {
    let address = |path: &str| ipam.pointer(path).and_then(Value::as_str).expect(path).to_owned();
    let (ipv4, ipv6) = (address("/address/ipv4"), address("/address/ipv6"));
    let gateways = (address("/host-addressing/ipv4/ip"), address("/host-addressing/ipv6/ip"));
    let mtu = |name: &str| config["status"][name].as_u64().and_then(|mtu| u32::try_from(mtu).ok()).expect(name);
    let spec = VethSpec::new("lxcac66e635887d", "eth0", pod.netns()).expect("random bytes").mtu(mtu("deviceMTU"));
    let veth = Veth::create(&node.netns.socket(), &spec).expect("a pair");
    let settling = PodNetwork::new(&veth)
        .ipv4(ipv4.parse().expect("IPv4"), gateways.0.parse().expect("IPv4"))
        .ipv6(ipv6.parse().expect("IPv6"), gateways.1.parse().expect("IPv6"))
        .alt_name("cilium_cni:eth0")
        .route_mtu(mtu("routeMTU"))
        .configure(pod.netns())
        .expect("configured");
    settling.wait().expect("both ends are up");
    veth
}

fn put_body(ipam: &Value, veth: &Veth, pod: &TestNetns) -> Value {
    json!({
        "addressing": {
            "ipv4": ipam["address"]["ipv4"],
            "ipv4-expiration-uuid": ipam["ipv4"]["expiration-uuid"],
            "ipv4-pool-name": "default",
            "ipv6": ipam["address"]["ipv6"],
            "ipv6-expiration-uuid": ipam["ipv6"]["expiration-uuid"],
            "ipv6-pool-name": "default",
        },
        "container-id": CONTAINER,
        "container-interface-name": "eth0",
        "container-netns-path": pod.path(),
        "datapath-configuration": {},
        "host-mac": veth.host_mac,
        "interface-index": veth.host_ifindex,
        "interface-name": veth.host_ifname,
        "k8s-namespace": "default",
        "k8s-pod-name": "pod-01",
        "k8s-uid": "0f0e0d0c-0000-4000-8000-000000000001",
        "mac": veth.pod_mac,
        "netns-cookie": "1778",
        "state": "waiting-for-identity",
        "sync-build-endpoint": true,
    })
}

#[test]
fn add_check_status_and_del() {
    let node = Node::new();
    let _agent = node.start();
    let pod = TestNetns::with_loopback();

    let config = json_of(ask(&node, "GET", "/v1/config", "", None), 200);
    assert_eq!(config["status"]["datapathMode"], "veth");
    assert_eq!(config["status"]["addressing"]["ipv4"]["enabled"], true);
    let path = "/v1/ipam?owner=default%2Fpod-01";
    let ipam = json_of(ask(&node, "POST", path, "Expiration: true\r\n", None), 201);
    assert_eq!(ipam["ipv4"]["cidrs"], Value::Null);
    let veth = node.netns.run(|| plug(&node, &pod, &ipam, &config));
    let body = put_body(&ipam, &veth, &pod);
    let endpoint = json_of(ask(&node, "PUT", "/v1/endpoint/cilium-local:0", "", Some(&body)), 201);
    assert_eq!(endpoint["status"]["networking"]["mac"], json!(veth.pod_mac));
    assert_eq!(endpoint["status"]["state"], "ready");
    let other = TestNetns::with_loopback();
    let peer = node.create(&other, "peer", &[]);
    for address in common::agent::addresses(&peer).addresses() {
        exchange_udp(&pod, &other, address);
    }

    let (status, again) = ask(&node, "PUT", "/v1/endpoint/cilium-local:0", "", Some(&body));
    assert_eq!(status, 400, "{again}");
    assert!(again.contains("already exists"), "{again}");

    let health = format!("/v1/endpoint/cni-attachment-id:{CONTAINER}:eth0/healthz");
    assert_eq!(json_of(ask(&node, "GET", &health, "", None), 200)["overallHealth"], "OK");
    let status = json_of(ask(&node, "GET", "/v1/healthz", "", None), 200);
    assert_eq!(status["cilium"]["state"], "Ok");

    let del = json!({"container-id": CONTAINER});
    assert_eq!(ask(&node, "DELETE", "/v1/endpoint", "", Some(&del)), (200, String::new()));
    let gone = ask(&node, "DELETE", "/v1/endpoint", "", Some(&del));
    assert_eq!(gone, (404, "\"endpoints not found\"".to_owned()));
    assert_eq!(ask(&node, "GET", &health, "", None), (404, String::new()));
    let left = json_of(ask(&node, "GET", "/v1/healthz", "", None), 200);
    assert!(!left["ipam"]["allocations"].to_string().contains("pod-01"), "{left}");
}

#[test]
fn what_is_allocated_for_a_failed_add_is_released() {
    let node = Node::new();
    let _agent = node.start();
    let path = "/v1/ipam?owner=default%2Fpod-02";
    let ipam = json_of(ask(&node, "POST", path, "Expiration: true\r\n", None), 201);
    let missing = json!({
        "addressing": {"ipv4": ipam["address"]["ipv4"], "ipv4-expiration-uuid": ipam["ipv4"]["expiration-uuid"]},
        "container-id": CONTAINER,
        "container-interface-name": "eth0",
        "host-mac": "1e:3b:65:c5:f4:ac",
        "interface-index": 4711,
        "interface-name": "lxcac66e635887d",
        "mac": "66:19:21:6a:dc:b1",
        "state": "waiting-for-identity",
    });
    let (status, body) = ask(&node, "PUT", "/v1/endpoint/cilium-local:0", "", Some(&missing));
    assert!((400..500).contains(&status) && body.contains("4711"), "{status} {body}");
    for family in ["ipv4", "ipv6"] {
        let address = ipam["address"][family].as_str().expect("both families");
        assert_eq!(ask(&node, "DELETE", &format!("/v1/ipam/{address}?pool=default"), "", None).0, 200);
    }
    let left = json_of(ask(&node, "GET", "/v1/healthz", "", None), 200);
    assert!(!left["ipam"]["allocations"].to_string().contains("pod-02"), "{left}");
}
