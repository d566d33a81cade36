//! The commands that read pins, on maps with the content of a recorded node.
#![cfg(feature = "programs")]

#[path = "common/bpf.rs"]
mod bpf;
#[path = "common/bpf_command.rs"]
mod bpf_command;
#[path = "common/example.rs"]
mod example;
#[path = "common/fake_agent.rs"]
mod fake_agent;

use std::fs;

use bpf::BpfRoot;
use bpf_command::{fails, prints, prints_json};
use fake_agent::FakeAgent;
use podwire::tables::{
    IpCache, IpCacheEntry, PolicyAction, PolicyDirection, PolicyL4, PolicyMap, PolicyMatch, PolicyStats, PolicyVerdict,
    PortPrefix, Protocol,
};
use podwire::{EndpointId, SecurityId};
use serde_json::json;

const ALLOW: u32 = 4_294_967_041;

fn root() -> BpfRoot {
    let root = BpfRoot::new();
    fs::create_dir_all(root.maps()).expect("a folder for pins");
    root
}

fn ip_cache(root: &BpfRoot) {
    let cache = IpCache::create(16).expect("a map");
    cache.map().pin(root.maps().join("cilium_ipcache_v2")).expect("pinned");
    let direct = |id| IpCacheEntry::direct(SecurityId::new(id));
    let behind = |id| IpCacheEntry::tunnelled(SecurityId::new(id), "192.168.0.2".parse().expect("an address"));
    let entries = [
        ("::/0", direct(10)),
        ("203.0.113.0/24", direct(16_777_217)),
        ("10.0.2.0/24", behind(9)),
        ("10.0.1.4/32", direct(16_403)),
        ("0.0.0.0/0", direct(9)),
    ];
    for (prefix, entry) in entries {
        cache.upsert(prefix.parse().expect("a prefix"), &entry).expect("written");
    }
}

/// The lines are recorded ones of `cilium-dbg bpf ipcache`.
#[test]
fn ipcache_lists_finds_and_matches() {
    let root = root();
    ip_cache(&root);
    let listed = prints(&root, &["ipcache", "list"]);
    let expected = "\
IP PREFIX/ADDRESS   IDENTITY
0.0.0.0/0           identity=9 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>
10.0.1.4/32         identity=16403 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>
10.0.2.0/24         identity=9 encryptkey=0 tunnelendpoint=192.168.0.2 flags=hastunnel
203.0.113.0/24      identity=16777217 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>
::/0                identity=10 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>
";
    assert_eq!(listed, expected);
    assert_eq!(
        prints_json(&root, &["ipcache", "list"])["10.0.1.4/32"],
        json!(["identity=16403 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>"])
    );
    let cidr = "identity=16777217 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>";
    assert_eq!(prints(&root, &["ipcache", "get", "203.0.113.77"]), format!("203.0.113.77 maps to identity {cidr}\n"));
    assert_eq!(prints_json(&root, &["ipcache", "get", "203.0.113.77"]), json!({"203.0.113.77": [cidr]}));
    assert_eq!(
        prints(&root, &["ipcache", "match", "203.0.113.0/24"]),
        format!("key 203.0.113.0/24 has value \"{cidr}\"\n")
    );
    fails(
        &root,
        &["ipcache", "match", "203.0.113.0/25"],
        1,
        "no entry for exactly 203.0.113.0/25: `podwire bpf ipcache get` finds the prefix around an address",
    );
    fails(&root, &["ipcache", "get", "10.0.1"], 2, "invalid value '10.0.1'");
    IpCache::open_pinned(root.maps()).expect("it is pinned").delete("::/0".parse().expect("a prefix")).expect("gone");
    fails(&root, &["ipcache", "get", "2001:db8::1"], 1, "2001:db8::1 does not map to any identity");
}

fn endpoint(id: u16) -> EndpointId {
    EndpointId::new(id).expect("not 0")
}

fn entry(identity: u32, egress: bool, l4: PolicyL4) -> PolicyMatch {
    let direction = if egress { PolicyDirection::Egress } else { PolicyDirection::Ingress };
    PolicyMatch { direction, identity: SecurityId::new(identity), l4 }
}

/// Policy maps of two endpoints, and counters of one entry.
fn policies(root: &BpfRoot) {
    let allow = PolicyVerdict::new(PolicyAction::Allow, ALLOW);
    let web = PolicyMap::create(endpoint(1135), 16).expect("a map");
    let entries = [
        (entry(0, true, PolicyL4::Any), allow),
        (entry(42_491, false, PolicyL4::port(Protocol::TCP, 8080)), PolicyVerdict { cookie: 7, ..allow }),
        (entry(0, false, PolicyL4::port(Protocol::ICMPV6, 128)), allow),
        (entry(16_777_217, false, PolicyL4::Any), PolicyVerdict::new(PolicyAction::Deny, u32::MAX)),
    ];
    for (matched, verdict) in entries {
        web.upsert(&matched, &verdict).expect("written");
    }
    web.map().pin(root.maps().join(PolicyMap::name(endpoint(1135)))).expect("pinned");
    let other = PolicyMap::create(endpoint(463), 16).expect("a map");
    let range = PolicyL4::Ports(Protocol::TCP, PortPrefix::new(8080, 13).expect("a range"));
    other.upsert(&entry(16_403, true, range), &allow).expect("written");
    other.map().pin(root.maps().join(PolicyMap::name(endpoint(463)))).expect("pinned");
}

/// The tables are those of `cilium-dbg bpf policy get`.
#[test]
fn policy_maps_are_shown_in_numbers_without_an_agent() {
    let root = root();
    policies(&root);
    let web = "\
POLICY   DIRECTION   IDENTITY   PORT/PROTO   PROXY PORT   AUTH TYPE   BYTES   PACKETS   PREFIX   COOKIE
Deny     Ingress     16777217   ANY          NONE         disabled    -       -         0        0
Allow    Ingress     0          128/ICMPv6   NONE         disabled    -       -         24       0
Allow    Ingress     42491      8080/TCP     NONE         disabled    -       -         24       7
Allow    Egress      0          ANY          NONE         disabled    -       -         0        0
";
    assert_eq!(prints(&root, &["policy", "get", "1135"]), web);
    assert_eq!(prints(&root, &["policy", "get", "1135", "-n"]), web);
    let pins = root.maps();
    let all = format!(
        "\
Endpoint ID: 463
Path: {}/cilium_policy_v2_00463

POLICY   DIRECTION   IDENTITY   PORT/PROTO      PROXY PORT   AUTH TYPE   BYTES   PACKETS   PREFIX   COOKIE
Allow    Egress      16403      8080-8087/TCP   NONE         disabled    -       -         21       0

Endpoint ID: 1135
Path: {}/cilium_policy_v2_01135

{web}",
        pins.display(),
        pins.display()
    );
    assert_eq!(prints(&root, &["policy", "list"]), all);
    assert_eq!(prints(&root, &["policy", "get", "--all"]), all);
    fails(&root, &["policy", "get", "9"], 1, "there is no endpoint 9: see `podwire bpf policy list`");
    fails(&root, &["policy", "get"], 2, "required");
    fails(&root, &["policy", "get", "9", "--all"], 2, "cannot be used with");
    fails(&root, &["policy", "get", "0"], 2, "not a number from 1 to 65535");
}

#[test]
fn policy_maps_as_json_have_the_numbers_of_the_map() {
    let root = root();
    policies(&root);
    let expected = json!({
        "ProxyPortNetwork": 0, "Flags": 192, "AuthRequirement": 0, "Precedence": ALLOW, "Cookie": 7,
        "Packets": u64::MAX, "Bytes": u64::MAX,
        "Key": {"Prefixlen": 64, "Identity": 42491, "TrafficDirection": 0, "Nexthdr": 6, "DestPortNetwork": 36895},
    });
    assert_eq!(prints_json(&root, &["policy", "get", "1135"])[2], expected);
    let all = prints_json(&root, &["policy", "list"]);
    assert_eq!(all[1]["EndpointID"], "1135");
    assert_eq!(all[1]["Path"], root.maps().join("cilium_policy_v2_01135").display().to_string());
    assert_eq!(all[1]["Content"][2], expected);
}

#[test]
fn policy_maps_are_shown_with_counters_where_they_are_kept() {
    let root = root();
    policies(&root);
    let stats = PolicyStats::create(16).expect("a map");
    stats.map().pin(root.maps().join("cilium_policystats")).expect("pinned");
    // Nothing is counted yet.
    assert!(
        prints(&root, &["policy", "get", "463"]).contains("8080-8087/TCP   NONE         disabled    -       -    ")
    );
}

#[test]
fn policy_maps_are_shown_with_labels_where_an_agent_tells_them() {
    let root = root();
    policies(&root);
    let identities = r#"json:[{"id":42491,"labels":["k8s:app=client","k8s:io.kubernetes.pod.namespace=default"]}]"#;
    let agent = FakeAgent::new(&[("/v1/identity", identities)]);
    let bpf_root = root.path().display().to_string();
    let shown = agent.prints(&["bpf", "--bpf-root", &bpf_root, "policy", "get", "1135"]);
    let expected = "\
POLICY   DIRECTION   LABELS (source:key[=value])               PORT/PROTO   PROXY PORT   AUTH TYPE   BYTES   PACKETS   PREFIX   COOKIE
Deny     Ingress     16777217                                  ANY          NONE         disabled    -       -         0        0
Allow    Ingress     ANY                                       128/ICMPv6   NONE         disabled    -       -         24       0
Allow    Ingress     k8s:app=client                            8080/TCP     NONE         disabled    -       -         24       7
                     k8s:io.kubernetes.pod.namespace=default
Allow    Egress      ANY                                       ANY          NONE         disabled    -       -         0        0
";
    assert_eq!(shown, expected);
    let rules = r#"json:[{"number":7,"name":"default/web[0].ingress[1]"},{"number":8,"name":"other[0].egress[0]"}]"#;
    let agent = FakeAgent::new(&[("/v1/identity", identities), ("/v1/policy/rules", rules)]);
    let shown = agent.prints(&["bpf", "--bpf-root", &bpf_root, "policy", "get", "1135"]);
    assert!(shown.lines().next().is_some_and(|headers| headers.ends_with("PREFIX   COOKIE   RULE")), "{shown}");
    let cookies: Vec<_> =
        shown.lines().filter_map(|line| line.get(line.find("  24  ")? + 6..)).map(str::trim).collect();
    assert_eq!(cookies, ["0", "7        default/web[0].ingress[1]"], "{shown}");
    let seen = agent.seen().len();
    agent.prints(&["bpf", "--bpf-root", &bpf_root, "policy", "get", "1135", "-n"]);
    assert_eq!(agent.seen().len(), seen, "numbers need no agent");
}

#[test]
fn without_pins_it_says_where_to_look() {
    let root = BpfRoot::new();
    for args in [&["ipcache", "list"][..], &["policy", "get", "7"]] {
        fails(&root, args, 1, "choose another with --bpf-root");
    }
    fails(&root, &["policy", "list"], 1, "cannot list the pins in");
}
