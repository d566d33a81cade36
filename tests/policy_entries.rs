//! What becomes of particular rules: entries, order of rules, defaults, limits, reports. Rootless.

use std::collections::BTreeMap;

use podwire::identity::{Identity, World, cidr_labels, labels_of_reserved};
use podwire::policy::{
    CompiledPolicy, EnforcementMode, Entity, FlatRule, L4Match, L4Ports, NamedPorts, Peer, Peers, Policy,
    PolicyOptions, Repository, RuleNumber, RulesInForce, Selector, Subject, WorldIdentities,
};
use podwire::tables::{PolicyAction, PolicyDirection, PolicyVerdict, Protocol};
use podwire::{EndpointId, ErrorKind, Labels, Result, SecurityId};

use PolicyDirection::{Egress, Ingress};

const WEB: u32 = 256;
const CLIENTS: [u32; 2] = [300, 301];

fn identity(id: u32, labels: &[&str]) -> Identity {
    Identity::new(SecurityId::new(id), Labels::parse(labels).expect("labels"))
}

fn selector(label: &str) -> Selector {
    Selector::new().label(label).expect("a label")
}

fn labelled(label: &str) -> Peers {
    Peers::Some(vec![Peer::Labels(selector(label))])
}

fn cidr(net: &str, except: &[&str]) -> Peers {
    let parse = |net: &str| net.parse().expect("a prefix");
    Peers::Some(vec![Peer::Cidr { net: parse(net), except: except.iter().map(|net| parse(net)).collect() }])
}

/// The web endpoint's rule of a number: whose traffic, and which.
fn rule(number: u32, direction: PolicyDirection, deny: bool, peers: Peers, l4: &[(Protocol, L4Ports)]) -> FlatRule {
    FlatRule {
        subject: selector("k8s:app=web"),
        direction,
        peers,
        l4: l4.iter().map(|(protocol, ports)| L4Match { protocol: *protocol, ports: ports.clone() }).collect(),
        deny,
        default_deny: true,
        rule: RuleNumber::new(number),
    }
}

fn allow(number: u32, direction: PolicyDirection, peers: Peers, l4: &[(Protocol, L4Ports)]) -> FlatRule {
    rule(number, direction, false, peers, l4)
}

fn deny(number: u32, direction: PolicyDirection, peers: Peers, l4: &[(Protocol, L4Ports)]) -> FlatRule {
    rule(number, direction, true, peers, l4)
}

fn tcp(port: u16) -> (Protocol, L4Ports) {
    (Protocol::TCP, L4Ports::single(port))
}

/// A node with the web endpoint, two clients, the reserved identities and three prefixes.
fn node(rules: &[FlatRule]) -> RulesInForce {
    let mut node = RulesInForce::new(WorldIdentities::of_node(true, true));
    let reserved = (1..=10).map(SecurityId::new);
    let _ = node.add_identities(reserved.map(|id| Identity::new(id, labels_of_reserved(id).expect("reserved"))));
    let _ = node.add_identities([
        identity(WEB, &["k8s:app=web"]),
        identity(CLIENTS[0], &["k8s:app=client"]),
        identity(CLIENTS[1], &["k8s:app=client", "k8s:tier=t1"]),
    ]);
    let prefixes = ["203.0.113.0/24", "192.0.2.0/24", "192.0.2.128/25"].map(|net| net.parse().expect("a prefix"));
    let identities = (1 << 24..).zip(prefixes);
    let identities = identities
        .map(|(id, net)| Identity::new(SecurityId::new(id), cidr_labels(net, World::BothFamilies).expect("labels")));
    let _ = node.add_identities(identities);
    node.insert(rules);
    node
}

fn subject() -> Subject {
    let named_ports = NamedPorts::new().with("http", Protocol::TCP, 8080).with("HTTP", Protocol::TCP, 8081);
    Subject { endpoint: EndpointId::new(1135).expect("not 0"), identity: SecurityId::new(WEB), named_ports }
}

/// Without the host's exception, which has a test of its own.
fn options() -> PolicyOptions {
    PolicyOptions { allow_localhost: false, ..PolicyOptions::default() }
}

fn compile(rules: &[FlatRule], options: &PolicyOptions) -> Result<CompiledPolicy> {
    node(rules).compile(subject(), options)
}

fn word(verdict: &PolicyVerdict) -> &'static str {
    if verdict.action == PolicyAction::Deny { "Deny" } else { "Allow" }
}

/// Each entry in words, with the number of its rule: `Allow Ingress: 300 8080/TCP #1`.
fn entries(policy: &CompiledPolicy) -> Vec<String> {
    let entries = policy.entries();
    entries.map(|(matched, verdict)| format!("{} {matched} #{}", word(&verdict), verdict.cookie)).collect()
}

#[test]
fn entries_are_those_cilium_writes() {
    // the policies and entries of a recorded node, of which rules are numbered here and the identities are ours
    let ping = [(Protocol::ICMP, L4Ports::single(8)), (Protocol::ICMPV6, L4Ports::single(128))];
    let rules = [
        allow(1, Ingress, labelled("k8s:app=client"), &[tcp(8080), (Protocol::UDP, L4Ports::single(5353))]),
        allow(1, Ingress, Peers::Any, &ping),
        deny(1, Ingress, cidr("203.0.113.0/24", &[]), &[]),
    ];
    let policy = compile(&rules, &options()).expect("few");
    let expected = [
        "Allow Ingress: 0 8/ICMP #1",
        "Allow Ingress: 0 128/ICMPv6 #1",
        "Allow Ingress: 300 8080/TCP #1",
        "Allow Ingress: 300 5353/UDP #1",
        "Allow Ingress: 301 8080/TCP #1",
        "Allow Ingress: 301 5353/UDP #1",
        "Deny Ingress: 16777216 ANY #1",
        "Allow Egress: 0 ANY #0",
    ];
    assert_eq!(entries(&policy), expected);
    for (_, verdict) in policy.entries() {
        let expected = if verdict.action == PolicyAction::Deny { u32::MAX } else { 4_294_967_041 };
        assert_eq!(verdict, PolicyVerdict { cookie: verdict.cookie, ..PolicyVerdict::new(verdict.action, expected) });
    }

    let rules = [
        allow(2, Egress, labelled("k8s:app=client"), &[(Protocol::TCP, L4Ports::Range(8080..=8090))]),
        allow(2, Egress, cidr("192.0.2.0/24", &["192.0.2.128/25"]), &[]),
        allow(2, Egress, Peers::Some(vec![Peer::Entity(Entity::Host)]), &[]),
    ];
    let expected = [
        "Allow Ingress: 0 ANY #0",
        "Allow Egress: 1 ANY #2",
        "Allow Egress: 300 8080-8087/TCP #2",
        "Allow Egress: 300 8088-8089/TCP #2",
        "Allow Egress: 300 8090/TCP #2",
        "Allow Egress: 301 8080-8087/TCP #2",
        "Allow Egress: 301 8088-8089/TCP #2",
        "Allow Egress: 301 8090/TCP #2",
        "Allow Egress: 16777217 ANY #2",
    ];
    assert_eq!(entries(&compile(&rules, &options()).expect("few")), expected);
}

#[test]
fn documents_become_entries() {
    let web = r#"
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts: [{ports: [{port: "8080", protocol: TCP}]}]
  - icmps: [{fields: [{family: IPv4, type: 8}]}]
  ingressDeny:
  - fromCIDR: [203.0.113.0/24]
"#;
    let in_default = |id: u32, app: &str| {
        let labels = [format!("k8s:app={app}"), "k8s:io.kubernetes.pod.namespace=default".to_owned()];
        Identity::new(SecurityId::new(id), Labels::parse(labels).expect("labels"))
    };
    let prefix = "203.0.113.0/24".parse().expect("a prefix");
    let mut rules = RulesInForce::new(WorldIdentities::of_node(true, false));
    let _ =
        rules.add_identities([in_default(WEB, "web"), in_default(400, "client"), identity(401, &["k8s:app=client"])]);
    let _ = rules.add_identities([Identity::new(
        SecurityId::new(1 << 24),
        cidr_labels(prefix, World::OneFamily).expect("labels"),
    )]);

    let mut repository = Repository::new();
    let policy = Policy::from_yaml(web).expect("a policy").remove(0);
    let changes = repository.replace(policy).expect("a good one");
    assert_eq!(changes.added.iter().flat_map(FlatRule::prefixes).collect::<Vec<_>>(), [prefix]);
    let concerned: Vec<_> = rules.change(&changes).into_iter().map(SecurityId::get).collect();
    assert_eq!(concerned, [WEB]);
    let policy = rules.compile(subject(), &options()).expect("few");
    let sources: Vec<_> = policy
        .entries()
        .map(|(matched, verdict)| {
            let source = repository.source(RuleNumber::new(verdict.cookie)).map(ToString::to_string);
            format!("{} {matched} {}", word(&verdict), source.unwrap_or_default())
        })
        .collect();
    let expected = [
        "Allow Ingress: 0 8/ICMP default/web[0].ingress[1]",
        "Allow Ingress: 400 8080/TCP default/web[0].ingress[0]",
        "Deny Ingress: 16777216 ANY default/web[0].ingressDeny[0]",
        "Allow Egress: 0 ANY ",
    ];
    assert_eq!(sources, expected);

    let changes = repository.remove("default/web").expect("was there");
    assert_eq!(rules.change(&changes).into_iter().map(SecurityId::get).collect::<Vec<_>>(), [WEB]);
    let policy = rules.compile(subject(), &options()).expect("few");
    assert_eq!(entries(&policy), ["Allow Ingress: 0 ANY #0", "Allow Egress: 0 ANY #0"]);
}

#[test]
fn a_denial_is_never_hidden() {
    let client = || labelled("k8s:tier=t1");
    let table: [(&str, Vec<FlatRule>, &[&str]); 9] = [
        (
            "a broader denial of the same peer",
            vec![allow(1, Ingress, client(), &[tcp(80)]), deny(2, Ingress, client(), &[])],
            &["Deny Ingress: 301 ANY #2"],
        ),
        (
            "a denial of the same breadth",
            vec![allow(1, Ingress, client(), &[tcp(80)]), deny(2, Ingress, client(), &[tcp(80)])],
            &["Deny Ingress: 301 80/TCP #2"],
        ),
        (
            "a narrower denial leaves the rest",
            vec![allow(1, Ingress, client(), &[]), deny(2, Ingress, client(), &[tcp(80)])],
            &["Allow Ingress: 301 ANY #1", "Deny Ingress: 301 80/TCP #2"],
        ),
        (
            "a broader denial of everyone",
            vec![allow(1, Ingress, client(), &[tcp(80)]), deny(2, Ingress, Peers::Any, &[])],
            &["Deny Ingress: 0 ANY #2"],
        ),
        (
            "a narrower denial of everyone is found by the second lookup",
            vec![allow(1, Ingress, client(), &[]), deny(2, Ingress, Peers::Any, &[tcp(80)])],
            &["Deny Ingress: 0 80/TCP #2", "Allow Ingress: 301 ANY #1"],
        ),
        (
            "what everyone may is denied to one, and has to stay for the others",
            vec![allow(1, Ingress, Peers::Any, &[tcp(80)]), deny(2, Ingress, client(), &[])],
            &["Allow Ingress: 0 80/TCP #1", "Deny Ingress: 301 ANY #2"],
        ),
        (
            "a permission within a denial within a permission",
            vec![
                allow(1, Ingress, client(), &[]),
                deny(2, Ingress, client(), &[(Protocol::TCP, L4Ports::Range(80..=83))]),
                allow(3, Ingress, client(), &[tcp(81)]),
            ],
            &["Allow Ingress: 301 ANY #1", "Deny Ingress: 301 80-83/TCP #2"],
        ),
        (
            "a denial within one of everyone's is not needed",
            vec![
                deny(1, Ingress, Peers::Any, &[(Protocol::TCP, L4Ports::ALL)]),
                deny(2, Ingress, client(), &[tcp(80)]),
                allow(3, Ingress, client(), &[tcp(80), (Protocol::UDP, L4Ports::ALL)]),
            ],
            &["Deny Ingress: 0 TCP #1", "Allow Ingress: 301 UDP #3"],
        ),
        (
            "of equals the lowest number is named",
            vec![
                deny(9, Ingress, client(), &[]),
                deny(4, Ingress, client(), &[]),
                allow(1, Ingress, client(), &[]),
                allow(8, Ingress, Peers::Any, &[tcp(1)]),
                allow(7, Ingress, Peers::Any, &[tcp(1)]),
            ],
            &["Allow Ingress: 0 1/TCP #7", "Deny Ingress: 301 ANY #4"],
        ),
    ];
    for (what, rules, expected) in table {
        let found = entries(&compile(&rules, &options()).expect("few"));
        assert_eq!(found[..found.len() - 1], *expected, "{what}");
        assert_eq!(found.last().map(String::as_str), Some("Allow Egress: 0 ANY #0"), "{what}");
    }
}

#[test]
fn defaults_follow_mode_and_rules() {
    use EnforcementMode::{Always, Default, Never};
    let client = || labelled("k8s:tier=t1");
    let permissive = |rule: FlatRule| FlatRule { default_deny: false, ..rule };
    let none = || vec![];
    let nobody = || vec![allow(1, Ingress, Peers::Some(vec![]), &[])];
    let other = || vec![FlatRule { subject: selector("k8s:app=client"), ..allow(1, Ingress, Peers::Any, &[]) }];
    /// Mode, whether the host is let in, rules; enforced at ingress and egress, entries.
    type Case<'a> = (EnforcementMode, bool, Vec<FlatRule>, (bool, bool), &'a [&'a str]);
    let table: [Case<'_>; 12] = [
        (Default, true, none(), (false, false), &["Allow Ingress: 0 ANY #0", "Allow Egress: 0 ANY #0"]),
        (Default, true, other(), (false, false), &["Allow Ingress: 0 ANY #0", "Allow Egress: 0 ANY #0"]),
        (Default, false, nobody(), (true, false), &["Allow Egress: 0 ANY #0"]),
        (Default, true, nobody(), (true, false), &["Allow Ingress: 1 ANY #0", "Allow Egress: 0 ANY #0"]),
        (Always, true, none(), (true, true), &["Allow Ingress: 1 ANY #0"]),
        (Always, false, none(), (true, true), &[]),
        (
            Never,
            true,
            vec![deny(1, Ingress, client(), &[]), deny(1, Egress, Peers::Any, &[])],
            (false, false),
            &["Allow Ingress: 0 ANY #0", "Allow Egress: 0 ANY #0"],
        ),
        (
            Default,
            true,
            vec![permissive(deny(1, Ingress, client(), &[])), permissive(allow(2, Egress, client(), &[]))],
            (false, false),
            &["Allow Ingress: 0 ANY #0", "Deny Ingress: 301 ANY #1", "Allow Egress: 0 ANY #0"],
        ),
        (
            Default,
            true,
            vec![permissive(deny(1, Ingress, client(), &[])), nobody().remove(0)],
            (true, false),
            &["Allow Ingress: 1 ANY #0", "Deny Ingress: 301 ANY #1", "Allow Egress: 0 ANY #0"],
        ),
        (
            Always,
            true,
            vec![deny(1, Ingress, Peers::Some(vec![Peer::Entity(Entity::Host)]), &[tcp(22)])],
            (true, true),
            &["Allow Ingress: 1 ANY #0", "Deny Ingress: 1 22/TCP #1"],
        ),
        (Always, true, vec![deny(1, Ingress, Peers::Any, &[])], (true, true), &["Deny Ingress: 0 ANY #1"]),
        // a rule that says what holds anyway is named
        (
            Default,
            true,
            vec![
                allow(1, Ingress, Peers::Some(vec![Peer::Entity(Entity::Host)]), &[]),
                permissive(allow(2, Egress, Peers::Any, &[])),
            ],
            (true, false),
            &["Allow Ingress: 1 ANY #1", "Allow Egress: 0 ANY #2"],
        ),
    ];
    for (mode, allow_localhost, rules, enforced, expected) in table {
        let policy = compile(&rules, &PolicyOptions { mode, allow_localhost, ..options() }).expect("few");
        assert_eq!(entries(&policy), expected, "{mode} {rules:?}");
        assert_eq!((policy.is_enforced(Ingress), policy.is_enforced(Egress)), enforced, "{mode} {rules:?}");
        assert_eq!(policy.is_empty(), expected.is_empty());
    }
}

#[test]
fn everyone_needs_no_identities() {
    let everyone = [
        Peers::Any,
        Peers::Some(vec![Peer::Labels(Selector::new())]),
        Peers::Some(vec![Peer::Entity(Entity::Host), Peer::Entity(Entity::All)]),
    ];
    for peers in everyone {
        let policy = compile(&[allow(3, Ingress, peers.clone(), &[tcp(80)])], &options()).expect("few");
        assert_eq!(entries(&policy), ["Allow Ingress: 0 80/TCP #3", "Allow Egress: 0 ANY #0"], "{peers:?}");
    }
}

#[test]
fn the_world_is_what_its_family_says() {
    let ids = |ipv4, ipv6, net: &str, except: &[&str]| -> Vec<u32> {
        let mut rules = RulesInForce::new(WorldIdentities::of_node(ipv4, ipv6));
        let worlds = [2, 9, 10].map(SecurityId::new);
        let _ = rules.add_identities(worlds.map(|id| Identity::new(id, labels_of_reserved(id).expect("reserved"))));
        let _ = rules.add_identities([identity(WEB, &["k8s:app=web"])]);
        rules.insert(&[allow(1, Egress, cidr(net, except), &[])]);
        let policy = rules.compile(subject(), &options()).expect("few");
        let egress = policy.entries().filter(|(matched, _)| matched.direction == Egress);
        egress.map(|(matched, _)| matched.identity.get()).collect()
    };
    assert_eq!(ids(true, true, "0.0.0.0/0", &[]), [9]);
    assert_eq!(ids(true, true, "::/0", &[]), [10]);
    assert_eq!(ids(true, true, "0.0.0.0/0", &["10.0.0.0/8"]), [9]);
    assert_eq!(ids(true, true, "0.0.0.0/1", &[]), [0; 0]);
    assert_eq!(ids(true, false, "0.0.0.0/0", &[]), [2]);
    assert_eq!(ids(true, false, "::/0", &[]), [0; 0], "a node without IPv6 lets no IPv4 out by a rule about IPv6");
    assert_eq!(ids(false, true, "0.0.0.0/0", &[]), [0; 0]);
    assert_eq!(ids(false, true, "::/0", &[]), [2]);
}

#[test]
fn ports_by_name() {
    let named = |name: &str| (Protocol::TCP, L4Ports::Named(name.to_owned()));
    let rules = [
        allow(1, Ingress, Peers::Any, &[named("http")]),
        allow(2, Ingress, Peers::Any, &[named("metrics"), (Protocol::UDP, L4Ports::Named("http".to_owned()))]),
        allow(3, Egress, Peers::Any, &[named("http")]),
    ];
    let policy = compile(&rules, &options()).expect("few");
    assert_eq!(entries(&policy), ["Allow Ingress: 0 8080/TCP #1", "Allow Ingress: 0 8081/TCP #1"]);
    let unresolved: Vec<_> = policy.unresolved_ports().into_iter().map(|(rule, name)| (rule.get(), name)).collect();
    assert_eq!(unresolved, [(2, "http".to_owned()), (2, "metrics".to_owned()), (3, "http".to_owned())]);

    // Of whichever protocol: one that has the name is enough.
    let any = [allow(4, Ingress, Peers::Any, &[(Protocol::ANY, L4Ports::Named("http".to_owned()))])];
    let policy = compile(&any, &options()).expect("few");
    assert_eq!(entries(&policy).iter().filter(|entry| entry.ends_with("#4")).count(), 2);
    assert!(policy.unresolved_ports().is_empty(), "{:?}", policy.unresolved_ports());
}

#[test]
fn protocols() {
    let table: [((Protocol, L4Ports), &[&str]); 5] = [
        ((Protocol::ANY, L4Ports::ALL), &["0 ANY"]),
        ((Protocol::ANY, L4Ports::single(53)), &["0 53/TCP", "0 53/UDP", "0 53/SCTP"]),
        ((Protocol::new(47), L4Ports::ALL), &["0 47"]),
        ((Protocol::ICMP, L4Ports::ALL), &["0 ICMP"]),
        ((Protocol::UDP, L4Ports::Range(65534..=65535)), &["0 65534-65535/UDP"]),
    ];
    for (l4, expected) in table {
        let policy = compile(&[allow(1, Ingress, Peers::Any, &[l4])], &options()).expect("few");
        let ingress = policy.entries().filter(|(matched, _)| matched.direction == Ingress);
        let found: Vec<_> = ingress.map(|(matched, _)| format!("{} {}", matched.identity, matched.l4)).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn too_large_a_policy_is_refused_with_its_causes() {
    let rules = [
        allow(1, Ingress, labelled("k8s:app=client"), &[(Protocol::TCP, L4Ports::Range(1..=65534))]),
        allow(2, Ingress, Peers::Any, &[(Protocol::UDP, L4Ports::single(53))]),
    ];
    // 2 clients by 30 prefixes, one for everyone, one for what leaves
    let exact = PolicyOptions { max_entries: 62, ..options() };
    assert_eq!(compile(&rules, &exact).expect("as many as allowed").len(), 62);
    let error = compile(&rules, &PolicyOptions { max_entries: 61, ..options() }).expect_err("one too many");
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    let text = error.to_string();
    let begins =
        "policy of endpoint 1135 needs 62 entries, 61 are allowed: rule 1 makes 60 (k8s:app=client: 2 identities), ";
    assert!(text.starts_with(begins), "{text}");

    // an update is refused as a whole, and made up for when there is room again
    let mut node = node(&rules);
    let mut policy = node.compile(subject(), &exact).expect("as many as allowed");
    let before = entries(&policy);
    let more = node.add_identities([identity(302, &["k8s:app=client", "k8s:tier=t2"])]);
    let refused = policy.update(node.selectors(), &more).expect_err("30 too many").to_string();
    assert!(refused.contains("needs 92 entries, 62 are allowed: rule 1 makes 90 ("), "{refused}");
    assert_eq!(entries(&policy), before);
    let gone = node.apply(&podwire::identity::Changes {
        removed: vec![identity(CLIENTS[0], &["k8s:app=client"])],
        ..Default::default()
    });
    let delta = policy.update(node.selectors(), &gone).expect("62 again");
    assert_eq!((delta.written.len(), delta.removed.len()), (30, 30));
    assert_eq!(entries(&policy), entries(&node.compile(subject(), &exact).expect("62")));
}

#[test]
fn origins_tell_why_an_entry_is_missing() {
    let rules = [
        allow(1, Ingress, labelled("k8s:tier=t1"), &[tcp(80), tcp(443)]),
        deny(2, Ingress, labelled("k8s:app=client"), &[(Protocol::TCP, L4Ports::Range(80..=83))]),
        allow(3, Ingress, Peers::Any, &[tcp(443)]),
    ];
    let node = node(&rules);
    let policy = node.compile(subject(), &options()).expect("few");
    let origins = |peer| -> BTreeMap<String, Option<String>> {
        let origins = policy.origins(Ingress, SecurityId::new(peer), node.selectors());
        let text = |deny: bool, matched, rule| format!("{} {matched} #{rule}", if deny { "Deny" } else { "Allow" });
        let shadow = |shadow: podwire::policy::Shadow| text(shadow.deny, shadow.matched, shadow.rule);
        origins
            .into_iter()
            .map(|origin| (text(origin.deny, origin.matched, origin.rule), origin.shadowed_by.map(shadow)))
            .collect()
    };
    let expected = [
        ("Allow Ingress: 301 443/TCP #1", Some("Allow Ingress: 0 443/TCP #3")),
        ("Allow Ingress: 301 80/TCP #1", Some("Deny Ingress: 301 80-83/TCP #2")),
        ("Deny Ingress: 301 80-83/TCP #2", None),
    ];
    let expected = expected.map(|(origin, shadow)| (origin.to_owned(), shadow.map(str::to_owned)));
    assert_eq!(origins(301), BTreeMap::from(expected));
    assert_eq!(origins(0), BTreeMap::from([("Allow Ingress: 0 443/TCP #3".to_owned(), None)]));
    assert_eq!(origins(5), BTreeMap::new());
}

#[test]
fn a_subject_without_identity_has_no_policy() {
    let unknown = Subject { identity: SecurityId::new(9999), ..subject() };
    let error = node(&[]).compile(unknown, &options()).expect_err("nobody knows it");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
