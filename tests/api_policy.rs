//! Policies from a document to packets: by the agent's API and the command line, on a node of their own.
#![cfg(feature = "programs")]

mod common {
    #![allow(dead_code, reason = "every test program uses a part of what they share")]
    pub mod agent;
    pub mod bpf;
    pub mod example;
    pub mod netns;
    pub mod node;
}

use std::fs;
use std::io::ErrorKind::{TimedOut, WouldBlock};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Output;
use std::thread;
use std::time::Duration;

use common::agent::{Node, addresses, id, until};
use common::netns::TestNetns;
use podwire::api::{Client, Endpoint, EndpointPolicy, EndpointPolicyEnabled, MonitorFilter, MonitorType};
use podwire::tables::{PolicyMap, PolicyMaps};
use podwire::{Error, ErrorKind};
use rustix::process::Signal;
use serde_json::Value;

const PORT: u16 = 8080;

/// Lets `client` reach `web` at a port, and nobody else.
const WEB: &str = r"
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts: [{ports: [{port: '8080', protocol: UDP}]}]
  - fromCIDR: [203.0.113.0/24]
";

const POD: &str = "k8s:io.kubernetes.pod.namespace=default";
const OF_WEB: &str = "k8s:io.cilium.k8s.policy.name=web";

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A node with a server and two clients, of which the policy lets one in.
struct World {
    // Ends before the node is cleaned up.
    _agent: common::agent::Agent,
    node: Node,
    pods: [TestNetns; 3],
    web: Endpoint,
    client: Endpoint,
}

impl World {
    fn new() -> Self {
        let node = Node::new();
        let agent = node.start();
        let pods: [TestNetns; 3] = std::array::from_fn(|_| TestNetns::with_loopback());
        let web = node.create(&pods[0], "web", &["k8s:app=web", POD]);
        let client = node.create(&pods[1], "client", &["k8s:app=client", POD]);
        node.create(&pods[2], "other", &["k8s:app=other", POD]);
        Self { _agent: agent, node, pods, web, client }
    }

    fn import(&self, document: &str) -> Output {
        self.import_with(document, &[])
    }

    fn import_with(&self, document: &str, flags: &[&str]) -> Output {
        let file = self.node.folder.path().join("policy.yaml");
        fs::write(&file, document).expect("written");
        self.node.podwire(&[&["policy", "import", &file.display().to_string()], flags].concat())
    }

    /// Whether the server hears what a pod says to its port.
    fn hears(&self, pod: usize, port: u16) -> bool {
        let target = SocketAddr::new(IpAddr::V4(addresses(&self.web).ipv4.expect("an address")), port);
        // A process that another test starts at this moment may still have a copy of the last socket.
        let server = until("the port is free", || self.pods[0].run(|| UdpSocket::bind(target)).ok());
        server.set_read_timeout(Some(Duration::from_millis(500))).expect("not zero");
        self.pods[pod].run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
            socket.send_to(b"hello", target).expect("it leaves the pod's stack");
        });
        match server.recv(&mut [0; 16]) {
            Ok(_) => true,
            Err(error) if matches!(error.kind(), TimedOut | WouldBlock) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn policy_of(&self, endpoint: &Endpoint) -> EndpointPolicy {
        let shown = self.node.client().endpoint(&id(endpoint).into()).expect("it is there");
        shown.status.and_then(|status| status.policy?.realized).expect("a policy is in force")
    }
}

#[test]
fn a_policy_is_in_force_when_its_import_ends() {
    let world = World::new();
    assert!(world.hears(1, PORT) && world.hears(2, PORT) && world.hears(1, 9));
    assert_eq!(world.policy_of(&world.web).policy_enabled, Some(EndpointPolicyEnabled::None));

    let imported = text(&world.import(WEB));
    let revision: u64 = imported.trim().strip_prefix("Revision: ").expect(&imported).parse().expect("a number");
    assert!(world.hears(1, PORT), "the client is let in");
    assert!(!world.hears(2, PORT), "others are not");
    assert!(!world.hears(1, 9), "nor is the client at another port");
    text(&world.node.podwire(&["policy", "wait", &revision.to_string()]));

    let policy = world.policy_of(&world.web);
    assert_eq!(policy.policy_enabled, Some(EndpointPolicyEnabled::Ingress));
    assert_eq!(policy.policy_revision, revision);
    let rules = policy.l4.expect("rules with ports").ingress;
    assert_eq!(rules.len(), 1, "{rules:?}");
    assert_eq!(rules[0].rule.as_deref(), Some(r#"{"port":8080,"protocol":"UDP"}"#));
    assert!(rules[0].derived_from_rules[0].iter().any(|label| label == OF_WEB), "{rules:?}");
    assert_eq!(world.policy_of(&world.client).policy_enabled, Some(EndpointPolicyEnabled::None));
    let listed = text(&world.node.podwire(&["endpoint", "list"]));
    let line = listed.lines().find(|line| line.contains("app=web")).expect(&listed);
    assert!(line.split_whitespace().skip(1).take(2).eq(["Enabled", "Disabled"]), "{listed}");

    assert_eq!(text(&world.node.podwire(&["policy", "delete", OF_WEB])), format!("Revision: {}\n", revision + 1));
    assert!(world.hears(2, PORT), "nothing is enforced any more");
    let again = world.node.client().delete_policy(&[OF_WEB.to_owned()]).expect_err("it is gone");
    assert_eq!(again.kind(), ErrorKind::NotFound);
}

#[test]
fn what_was_imported_is_shown_and_can_be_imported_again() {
    let world = World::new();
    text(&world.import(WEB));
    let shown = text(&world.node.podwire(&["policy", "get", OF_WEB]));
    let (rules, _) = shown.split_once("\nRevision: ").expect("rules and a revision");
    let parsed: Value = serde_json::from_str(rules).expect("JSON");
    assert_eq!(parsed.as_array().map(Vec::len), Some(1), "{shown}");
    let none = world.node.podwire(&["policy", "get", "k8s:io.cilium.k8s.policy.name=other"]);
    assert!(String::from_utf8_lossy(&none.stderr).contains("no rule has these labels"), "{none:?}");

    let selectors = text(&world.node.podwire(&["policy", "selectors"]));
    assert!(selectors.contains("cidr:203.0.113.0/24") && selectors.contains("app=client"), "{selectors}");
    let subjects = world.node.client().policy_subject_selectors().expect("a list");
    let identity = world.web.status.as_ref().and_then(|status| status.identity.as_ref()).expect("an identity").id;
    assert_eq!(subjects.iter().map(|subject| subject.identities.clone()).collect::<Vec<_>>(), [[identity.get()]]);
    let addresses = text(&world.node.podwire(&["ip", "list"]));
    assert!(addresses.contains("cidr:203.0.113.0/24") && addresses.contains("policy"), "{addresses}");
    let map = world.node.client().map("cilium_ipcache_v2").expect("its content");
    assert!(map.cache.iter().flatten().any(|entry| entry.key == "203.0.113.0/24"), "{map:?}");
    let map = world.node.client().map(&format!("cilium_policy_v2_{:05}", id(&world.web).get())).expect("its content");
    assert!(map.cache.iter().flatten().any(|entry| entry.key.ends_with(" 8080/UDP")), "{map:?}");

    text(&world.node.podwire(&["policy", "delete", "--all"]));
    assert!(world.hears(2, PORT));
    text(&world.import(rules));
    assert!(world.hears(1, PORT) && !world.hears(2, PORT));
    let root = world.node.root.path().display().to_string();
    let counted = text(&world.node.podwire(&["bpf", "metrics", "list", "--bpf-root", &root]));
    let denied = counted.lines().find(|line| line.starts_with("Policy denied")).expect(&counted);
    assert!(denied.contains("way 9"), "which is no line: {counted}");
}

#[test]
fn rules_of_no_policy_take_each_other_s_place_only_when_told() {
    let world = World::new();
    const ISOLATED: &str = "{endpointSelector: {matchLabels: {app: web}}, ingress: [{}]}";
    const OPEN: &str = "{endpointSelector: {matchLabels: {app: other}}, egress: [{toEntities: [all]}]}";
    assert_eq!(text(&world.import(ISOLATED)), "Revision: 2\n");
    let refused = world.import(OPEN);
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        reason.contains("1 rule that is part of no policy would be replaced") && reason.contains("--replace"),
        "{reason}"
    );
    assert!(!world.hears(1, PORT), "it is in force still");
    text(&world.import(ISOLATED));
    text(&world.import(&format!("[{ISOLATED}, {OPEN}]")));
    assert!(!world.hears(1, PORT));
    text(&world.import(WEB));
    text(&world.import_with(OPEN, &["--replace"]));
    assert!(world.hears(1, PORT), "the policy with a name stays, the rule without is gone");
}

#[test]
fn of_rules_of_no_policy_that_come_at_once_none_is_lost_silently() {
    let world = World::new();
    for _ in 0..5 {
        let outcomes: Vec<_> = thread::scope(|scope| {
            let import = |number: usize| {
                let client = world.node.client();
                let rule = format!("{{endpointSelector: {{matchLabels: {{app: a{number}}}}}, ingress: [{{}}]}}");
                scope.spawn(move || client.import_policy(&rule))
            };
            let imports: Vec<_> = (0..8).map(import).collect();
            imports.into_iter().map(|import| import.join().expect("no panic")).collect()
        });
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert!(matches!(refused, Error::Api { status: 409, .. }), "{refused}");
        }
        world.node.client().delete_policy(&[]).expect("deleted");
    }
}

#[test]
fn ports_are_named_and_names_that_are_missing_are_told() {
    let world = World::new();
    let denied = WEB.replace("'8080'", "metrics");
    let imported = world.import(&denied);
    assert!(imported.status.success(), "{imported:?}");
    let warning = format!("no port is named \"metrics\" at endpoint {}", id(&world.web).get());
    assert!(String::from_utf8_lossy(&imported.stderr).contains(&warning), "{imported:?}");
    let web = id(&world.web).to_string();
    let health = text(&world.node.podwire(&["endpoint", "health", &web]));
    assert!(health.contains("Warning") && health.contains(&warning), "{health}");
    assert!(!world.hears(1, PORT));

    text(&world.node.podwire(&["endpoint", "ports", &web, "--add", &format!("metrics:{PORT}/udp,http:80")]));
    assert!(world.hears(1, PORT) && !world.hears(1, 9));
    let shown = text(&world.node.podwire(&["endpoint", "ports", &web]));
    assert!(shown.contains("8080/UDP") && shown.contains("80/TCP"), "{shown}");
    assert!(!text(&world.node.podwire(&["endpoint", "health", &web])).contains("Warning"));
    assert!(world.node.client().policy(&[]).expect("the rules").warnings.is_empty());
    text(&world.node.podwire(&["endpoint", "ports", &web, "--delete", "METRICS"]));
    assert!(!world.hears(1, PORT));
    let bad = world.node.podwire(&["endpoint", "ports", &web, "--add", "metrics:8080/icmp"]);
    assert!(!bad.status.success() && String::from_utf8_lossy(&bad.stderr).contains("TCP, UDP or SCTP"), "{bad:?}");
}

#[test]
fn a_document_that_is_refused_changes_nothing() {
    let world = World::new();
    text(&world.import(WEB));
    let before = world.node.client().policy(&[]).expect("the rules");
    let bad = WEB.replace("'8080'", "'65536'").replace("203.0.113.0/24", "203.0.113.0/33");
    let refused = world.import(&bad);
    let reasons = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{reasons}");
    for field in ["spec.ingress[0].toPorts[0].ports[0].port", "spec.ingress[1].fromCIDR[0]"] {
        assert!(reasons.contains(field), "no {field} in {reasons}");
    }
    let error = world.node.client().import_policy(&bad).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(world.node.client().policy(&[]).expect("the rules"), before);
    assert!(world.hears(1, PORT) && !world.hears(2, PORT));
}

#[test]
fn verdicts_reach_a_monitor_with_the_rule_that_decided() {
    let world = World::new();
    text(&world.import(WEB));
    let listen =
        |filter| Client::builder(world.node.socket()).request_timeout(None).build().monitor(&filter).expect("a stream");
    let mut agent_events = listen(MonitorFilter { types: vec![MonitorType::Agent], ..MonitorFilter::default() });
    let types = vec![MonitorType::PolicyVerdict];
    let mut verdicts = listen(MonitorFilter { types, to: vec![id(&world.web)], ..MonitorFilter::default() });
    assert!(world.hears(1, PORT));
    let allowed = verdicts.next().expect("a verdict").expect("JSON");
    assert_eq!((&allowed["action"], &allowed["direction"]), (&"allow".into(), &"ingress".into()), "{allowed}");
    let name = allowed["ruleName"].as_str().expect("the rule has a name");
    assert_eq!(name, "default/web[0].ingress[0]");
    let rules = world.node.client().policy_rules().expect("a list");
    let rule = rules.iter().find(|rule| rule.name == name).expect("the rule is in force");
    assert_eq!(allowed["rule"], Value::from(rule.number));
    let root = world.node.root.path().display().to_string();
    let map = text(&world.node.podwire(&["bpf", "policy", "get", &id(&world.web).to_string(), "--bpf-root", &root]));
    let entry = map.lines().find(|line| line.contains("8080/UDP")).expect(&map);
    assert!(entry.ends_with(&format!("{}        {name}", rule.number)), "{map}");
    let line = allowed["text"].as_str().expect("a line");
    assert!(line.contains(&format!("rule {name} (#{})", allowed["rule"])), "{line}");
    assert!(!world.hears(2, PORT));
    let denied = verdicts.next().expect("a verdict").expect("JSON");
    assert_eq!((&denied["action"], &denied["rule"]), (&"deny".into(), &0.into()), "{denied}");
    assert_eq!(denied["reason"], "Policy denied");
    text(&world.node.podwire(&["policy", "delete", OF_WEB]));
    let deleted = agent_events.next().expect("an event").expect("JSON");
    assert_eq!(
        (&deleted["subtype"], &deleted["message"]["revision"]),
        (&"Policy deleted".into(), &3.into()),
        "{deleted}"
    );
}

#[test]
fn audit_and_modes_change_at_run_time() {
    let world = World::new();
    text(&world.import(WEB));
    let number = id(&world.web).to_string();
    text(&world.node.podwire(&["endpoint", "config", &number, "PolicyAuditMode=enable"]));
    assert!(world.hears(2, PORT), "what is denied is only reported");
    assert_eq!(world.policy_of(&world.web).policy_enabled, Some(EndpointPolicyEnabled::AuditIngress));
    let listed = text(&world.node.podwire(&["endpoint", "list"]));
    assert!(listed.contains("Disabled (Audit)"), "{listed}");
    text(&world.node.podwire(&["endpoint", "config", &number, "PolicyAuditMode=disable"]));
    assert!(!world.hears(2, PORT));
    text(&world.node.podwire(&["config", "PolicyAuditMode=true"]));
    assert!(world.hears(2, PORT));
    let own = world.node.podwire(&["endpoint", "config", &number, "PolicyAuditMode=disable"]);
    assert!(String::from_utf8_lossy(&own.stderr).contains("for the whole node"), "{own:?}");
    text(&world.node.podwire(&["config", "PolicyAuditMode=false"]));
    assert!(!world.hears(2, PORT));

    text(&world.node.podwire(&["config", "PolicyEnforcement=never"]));
    assert!(world.hears(2, PORT));
    text(&world.node.podwire(&["config", "PolicyEnforcement=always"]));
    assert!(!world.hears(1, PORT), "its own egress needs a rule now");
    assert_eq!(text(&world.node.podwire(&["config", "get", "PolicyEnforcement"])), "always\n");
    let bad = world.node.podwire(&["config", "PolicyEnforcement=sometimes"]);
    assert!(String::from_utf8_lossy(&bad.stderr).contains("default, always or never"), "{bad:?}");
}

#[test]
fn a_policy_that_does_not_fit_after_a_restart_is_told_wherever_one_looks() {
    let world = World::new();
    let many: Vec<_> = (0..300).map(|n| format!("10.{}.{}.0/24", n / 200, n % 200)).collect();
    text(&world.import(&WEB.replace("203.0.113.0/24", &many.join(", "))));
    let World { _agent: agent, node, web, .. } = &world;
    let web = id(web).to_string();
    text(&node.podwire(&["endpoint", "regenerate", &web]));
    agent.signal(Signal::TERM);
    until("the agent has ended", || node.podwire(&["status", "--brief"]).status.code().filter(|code| *code != 0));

    let _smaller = node.start_with(&["--bpf-policy-map-max", "256"]);
    assert!(world.hears(1, PORT) && !world.hears(2, PORT), "what was in force stays");
    let refused = |args: &[&str]| {
        let output = node.podwire(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told).into_owned();
        assert!(told.contains("256 are allowed"), "{args:?}: {told}");
        told
    };
    assert!(refused(&["status"]).contains("failing at 1"));
    assert!(refused(&["endpoint", "health", &web]).contains("stays in force"));
    assert!(refused(&["endpoint", "regenerate", &web]).contains("all but its policy"));
    let metrics = text(&node.podwire(&["metrics", "list"]));
    let failing = metrics.lines().find(|line| line.starts_with("podwire_policy_endpoints_failing "));
    assert!(failing.is_some_and(|line| line.trim_end().ends_with(" 1") || line.contains("1.0")), "{metrics}");

    text(&world.import(WEB));
    assert!(world.hears(1, PORT) && !world.hears(2, PORT));
    text(&node.podwire(&["endpoint", "regenerate", &web]));
    text(&node.podwire(&["status"]));
}

#[test]
fn a_policy_that_somebody_else_takes_out_of_force_comes_back() {
    let world = World::new();
    text(&world.import(WEB));
    let (endpoint, web) = (id(&world.web), id(&world.web).to_string());
    let policies = PolicyMaps::open_pinned(world.node.root.maps()).expect("pinned");
    let policy = || policies.policy_id(endpoint).expect("readable");
    assert!(policies.remove(endpoint).expect("it was in force"));
    until("maintenance puts it back", policy);
    assert!(world.hears(1, PORT) && !world.hears(2, PORT));

    let map = PolicyMap::from_id(policy().expect("in force"), endpoint).expect("a policy");
    for (matched, _) in map.entries().expect("readable") {
        map.delete(&matched).expect("it was there");
    }
    let health = world.node.podwire(&["endpoint", "health", &web]);
    assert_eq!(health.status.code(), Some(1), "{health:?}");
    assert!(String::from_utf8_lossy(&health.stdout).contains("was changed"), "{health:?}");
    text(&world.node.podwire(&["endpoint", "regenerate", &web]));
    assert!(world.hears(1, PORT) && !world.hears(2, PORT));
    text(&world.node.podwire(&["endpoint", "health", &web]));
}

#[test]
fn metrics_and_debugging_information_tell_of_policy() {
    let world = World::new();
    assert_eq!(world.import("spec: {}").status.code(), Some(1));
    text(&world.import(WEB));
    assert!(world.hears(1, PORT) && !world.hears(2, PORT));
    text(&world.node.podwire(&["endpoint", "config", &id(&world.web).to_string(), "PolicyAuditMode=enable"]));
    assert!(world.hears(2, PORT));
    let shown = until("the drop is counted", || {
        let shown = text(&world.node.podwire(&["metrics", "list"]));
        shown.contains("Policy denied").then_some(shown)
    });
    let value = |name: &str, labels: &str| {
        let line = shown.lines().find(|line| line.starts_with(&format!("{name} ")) && line.contains(labels));
        let value = line.and_then(|line| line.split_whitespace().last()?.parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("no {name} {labels} in\n{shown}"))
    };
    assert_eq!(value("cilium_policy", ""), 1.0);
    assert_eq!(value("cilium_policy_endpoint_enforcement_status", "enforcement=ingress"), 1.0);
    assert_eq!(value("cilium_policy_endpoint_enforcement_status", "enforcement=none"), 2.0);
    assert_eq!(value("cilium_policy_change_total", "outcome=success"), 1.0);
    assert_eq!(value("cilium_policy_change_total", "outcome=fail"), 1.0, "a document that is none");
    assert_eq!(value("cilium_policy_implementation_delay_count", ""), 1.0);
    assert!(value("podwire_policy_regeneration_seconds_count", "scope=swap") >= 1.0);
    // What the policy of the server let in, what it denied, and what it would have but for audit mode; each came out of a client.
    let verdicts = |labels| value("podwire_policy_verdicts_total", labels);
    assert_eq!(verdicts("action=allow direction=ingress"), 1.0, "{shown}");
    assert_eq!(verdicts("action=deny direction=ingress"), 1.0, "{shown}");
    assert_eq!(verdicts("action=audit direction=ingress"), 1.0, "{shown}");
    assert!(verdicts("action=allow direction=egress") >= 2.0, "{shown}");
    assert_eq!(verdicts("action=audit direction=egress") + verdicts("action=deny direction=egress"), 0.0, "{shown}");
    assert!(value("cilium_identity", "type=cluster_local") >= 3.0);
    assert!(value("cilium_identity", "type=node_local") >= 1.0);
    assert!(value("cilium_bpf_map_pressure", "map_name=cilium_ipcache_v2") > 0.0);
    assert!(value("cilium_bpf_map_pressure", "map_name=cilium_policy_v2") > 0.0);
    let info = world.node.client().debug_info().expect("everything");
    assert_eq!(info.policy.expect("the rules").revision, world.node.client().policy(&[]).expect("the rules").revision);
}
