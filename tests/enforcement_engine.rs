//! The engine on real kernel maps: what is in force when its methods return, what a refusal leaves, what a restart finds.
//!
//! Verdicts are read from the maps in the way in which the programs do: the peer's address to its identity, then the policy, for
//! that identity and for any. Needs root.

mod common;
#[path = "enforcement_engine/node.rs"]
mod node;

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use node::{Engine, Node, address, admission, from_app, id, ip, judge, labels, policy};
use podwire::enforcement::{Admission, Enforcement, EnforcementConfig, PolicyWriter};
use podwire::identity::{IdentityConfig, LocalIdentities, World};
use podwire::ipcache::{IpCacheManager, Source};
use podwire::policy::{EnforcementMode, NamedPorts, Policy, PolicyOptions, RuleNumber, WorldIdentities};
use podwire::tables::{IpCache, PolicyAction, PolicyDirection, PolicyL4, PolicyMap, PolicyMaps, PolicyMatch, Protocol};
use podwire::{ErrorKind, Labels, SecurityId};

const INGRESS: PolicyDirection = PolicyDirection::Ingress;
const EGRESS: PolicyDirection = PolicyDirection::Egress;

#[test]
fn rules_are_in_force_when_the_call_returns() {
    let node = Node::new();
    let engine = node.start();
    let (web, client, other) =
        (engine.add(1, "k8s:app=web"), engine.add(2, "k8s:app=client"), engine.add(3, "k8s:app=x"));
    assert!(web != client && client != other);
    assert!(engine.allows(1, INGRESS, address(3), 80), "without rules all is allowed");

    let revision = engine.upsert([policy("p", &from_app("client"))]).expect("fits");
    assert_eq!((revision, engine.revision(), engine.wait(revision, Duration::ZERO).expect("in force")), (2, 2, 2));
    assert!(engine.allows(1, INGRESS, address(2), 80) && !engine.allows(1, INGRESS, address(3), 80));
    assert!(!engine.allows(1, INGRESS, ip("192.0.2.1"), 80) && engine.allows(1, EGRESS, address(3), 80));
    assert!(engine.allows(2, INGRESS, address(3), 80), "not selected");
    let realized = engine.realized(id(1)).expect("admitted");
    assert_eq!((realized.ingress, realized.egress, realized.identity), (true, false, web));

    let cookie = engine.judge(1, INGRESS, address(2), 80).expect("allowed").cookie;
    let source = engine.source(RuleNumber::new(cookie)).expect("the rule that decided");
    assert_eq!(source.to_string(), "p[0].ingress[0]");

    // Replaced by another of its name, and beside it a third.
    engine.upsert([policy("p", &from_app("x")), policy("q", &from_app("client"))]).expect("fits");
    assert!(engine.allows(1, INGRESS, address(2), 80) && engine.allows(1, INGRESS, address(3), 80));
    engine.remove("q").expect("is there");
    assert!(!engine.allows(1, INGRESS, address(2), 80) && engine.allows(1, INGRESS, address(3), 80));
    assert_eq!(engine.remove("q").expect_err("is gone").kind(), ErrorKind::NotFound);
    engine.replace([policy("r", &from_app("nobody"))]).expect("fits");
    assert_eq!(engine.policies().iter().map(|policy| policy.name.as_str()).collect::<Vec<_>>(), ["r"]);
    assert!(!engine.allows(1, INGRESS, address(3), 80));
    assert_eq!(engine.delete(&Labels::new()).expect("deleted").0, 1);
    assert!(engine.allows(1, INGRESS, address(3), 80));
    let error = engine.wait(1000, Duration::from_millis(1)).expect_err("far away");
    assert_eq!(error.kind(), ErrorKind::Busy);
}

#[test]
fn who_comes_is_known_to_policies_before_its_address() {
    let node = Node::new();
    let engine = node.start();
    engine.add(1, "k8s:app=web");
    engine.upsert([policy("p", &from_app("client"))]).expect("fits");
    let generation = node.switches.generation().expect("readable");
    let client = engine.admit(admission(2, "k8s:app=client")).expect("admitted");
    let matched = PolicyMatch { direction: INGRESS, identity: client, l4: PolicyL4::Any };
    let policy = PolicyMap::from_id(node.map_id(1).expect("in force"), id(1)).expect("opens");
    assert!(policy.lookup(&matched).expect("readable").is_some(), "written before the address is mapped");
    assert!(node.switches.generation().expect("readable") > generation);
    assert!(!engine.allows(1, INGRESS, address(2), 80));
    engine.map_endpoint([address(2)].into_iter(), client).expect("mapped");
    assert!(engine.allows(1, INGRESS, address(2), 80));

    // Another endpoint of the same labels changes nothing.
    let before = engine.timings().1;
    assert_eq!(engine.add(4, "k8s:app=client"), client);
    assert_eq!((engine.timings().1.policies, engine.timings().1.patched), (before.policies + 1, before.patched));

    // The labels change, and so do identity and verdicts, in both roles.
    let relabelled = engine.relabel(id(2), &labels("k8s:app=web")).expect("relabelled");
    assert_eq!(relabelled.before, client);
    engine.map_endpoint([address(2)].into_iter(), relabelled.identity).expect("mapped");
    engine.release_identity(relabelled.before);
    assert!(!engine.allows(1, INGRESS, address(2), 80), "is no client any more");
    assert!(engine.allows(2, INGRESS, address(4), 80) && !engine.allows(2, INGRESS, address(1), 80), "is web now");
    assert_eq!(engine.relabel(id(9), &labels("k8s:app=x")).expect_err("unknown").kind(), ErrorKind::NotFound);

    // Who goes leaves neither policy nor identity.
    engine.unmap_endpoint([address(4)].into_iter()).expect("unmapped");
    engine.dismiss(id(4)).expect("gone");
    assert_eq!(node.map_id(4), None);
    assert!(engine.identities().get(client).is_some(), "kept for a while");
    engine.maintain().expect("nothing fails");
    assert!(engine.identities().get(client).is_none());
    let rows = engine.writer().rows(id(1)).expect("a policy");
    assert!(rows.iter().all(|(matched, _)| matched.identity != client), "policies forgot it");
}

#[test]
fn endpoints_without_labels_and_with_impossible_ones() {
    let node = Node::new();
    let engine = node.start();
    assert_eq!(engine.add(1, ""), SecurityId::INIT);
    for bad in
        [&["reserved:host"][..], &["reserved:host", "k8s:app=web"], &["cidr:192.0.2.0/24", "reserved:world-ipv4"]]
    {
        let labels = Labels::parse(bad).expect("labels");
        let refused = engine.admit(Admission { labels: labels.clone(), ..admission(3, "") }).expect_err("nobody's");
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        assert_eq!((node.map_id(3), engine.realized(id(3))), (None, None));
        assert_eq!(engine.relabel(id(1), &labels).expect_err("nobody's").kind(), ErrorKind::InvalidInput);
        assert_eq!(engine.realized(id(1)).expect("admitted").identity, SecurityId::INIT);
        let restored = engine.restore(vec![Admission { labels, ..admission(4, "") }]).expect("never fails for labels");
        assert_eq!(restored, [SecurityId::INIT]);
    }
}

#[test]
fn prefixes_have_identities_while_rules_name_them() {
    let node = Node::new();
    let engine = node.start();
    engine.add(1, "k8s:app=web");
    let rest = r#""ingress": [{"fromCIDRSet": [{"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}]}],
        "egress": [{"toCIDR": ["2001:db8::/32"]}, {"toEntities": ["world"], "toPorts": [{"ports": [{"port": "53", "protocol": "TCP"}]}]}]"#;
    engine.upsert([policy("p", rest)]).expect("fits");
    assert!(engine.allows(1, INGRESS, ip("192.0.2.5"), 80) && !engine.allows(1, INGRESS, ip("192.0.2.200"), 80));
    assert!(!engine.allows(1, INGRESS, ip("198.51.100.1"), 80));
    assert!(engine.allows(1, EGRESS, ip("2001:db8::1"), 80) && !engine.allows(1, EGRESS, ip("2001:db9::1"), 80));
    assert!(engine.allows(1, EGRESS, ip("192.0.2.5"), 53) && engine.allows(1, EGRESS, ip("203.0.113.1"), 53));
    let of = |prefix: &str| engine.ipcache().exact(prefix.parse().expect("a prefix"));
    let net = of("192.0.2.0/24").expect("mapped");
    assert_eq!((net.source, net.entry.identity.is_cidr()), (Source::Policy, true));
    assert!(of("192.0.2.128/25").is_some() && of("2001:db8::/32").is_some());

    engine.remove("p").expect("is there");
    assert_eq!((of("192.0.2.0/24"), of("192.0.2.128/25"), of("2001:db8::/32")), (None, None, None));
    engine.maintain().expect("nothing fails");
    assert!(engine.identities().get(net.entry.identity).is_none());
    assert_eq!(node.ipcache().exact("192.0.2.0/24".parse().expect("a prefix")).expect("readable"), None);
}

#[test]
fn a_policy_that_does_not_fit_changes_nothing() {
    let node = Node::new();
    let options = PolicyOptions { max_entries: 40, ..PolicyOptions::default() };
    let engine = node.start_with(options.clone());
    engine.add(1, "k8s:app=web");
    engine.add(2, "k8s:app=client");
    engine.upsert([policy("p", &from_app("client"))]).expect("fits");
    let state = || {
        let disk = fs::read(node.state.path().join("policy.json")).expect("saved");
        let ipcache = node.ipcache().entries().expect("readable");
        let maps = (node.map_id(1), node.map_id(2), node.switches.generation().expect("readable"));
        (disk, ipcache, maps, engine.revision(), engine.policies(), engine.realized_all())
    };
    let before = state();
    let many: Vec<_> = (0..50).map(|net| format!(r#""10.{net}.0.0/16""#)).collect();
    let large = policy("large", &format!(r#""ingress": [{{"fromCIDR": [{}]}}]"#, many.join(",")));
    for attempt in [engine.upsert([large.clone()]), engine.replace([large.clone()])] {
        let error = attempt.expect_err("too large");
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        let text = error.to_string();
        assert!(
            text.contains("endpoint 1") && text.contains("large[0].ingress[0] makes 50 (cidr:10.0.0.0/16: 1"),
            "{text}"
        );
        assert_eq!(podwire::api::Problem::status_of(&error), 400);
        assert_eq!(state(), before);
    }
    assert!(engine.allows(1, INGRESS, address(2), 80) && !engine.allows(1, INGRESS, ip("10.3.0.1"), 80));

    // Where the state can't be written, nothing comes into force either: a folder stands in the way.
    let file = node.state.path().join("policy.json");
    let kept = fs::read(&file).expect("saved");
    fs::remove_file(&file).expect("removed");
    fs::create_dir_all(file.join("in the way")).expect("a folder");
    engine.upsert([policy("q", r#""ingress": [{"fromCIDR": ["192.0.2.0/24"]}]"#)]).expect_err("not writable");
    fs::remove_dir_all(&file).expect("removed");
    fs::write(&file, kept).expect("put back");
    let (disk, ipcache, (web, client, _), revision, policies, realized) = state();
    assert_eq!((disk, ipcache, web, client), (before.0, before.1, before.2.0, before.2.1));
    assert_eq!((revision, policies, realized), (before.3, before.4, before.5));
    engine.upsert([policy("q", r#""ingress": [{"fromCIDR": ["192.0.2.0/24"]}]"#)]).expect("goes on");
    assert!(engine.allows(1, INGRESS, ip("192.0.2.1"), 80));

    // An identity for which there is no room is not given out.
    drop(engine);
    let engine = node.start_with(PolicyOptions { max_entries: 7, ..options });
    engine.restore(vec![admission(1, "k8s:app=web"), admission(2, "k8s:app=client")]).expect("as before");
    let rest = r#""ingress": [{"fromEndpoints": [{"matchExpressions": [{"key": "x", "operator": "Exists"}]}]}]"#;
    engine.replace([policy("x", rest)]).expect("fits");
    let admit = |number| engine.admit(admission(number, &format!("k8s:x={number}")));
    let (first, error) = (10..20).find_map(|number| Some((number, admit(number).err()?))).expect("no room");
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert_eq!(admit(first).expect_err("it exists by now, but is not known").kind(), ErrorKind::Exhausted);
    engine.add(40, "k8s:app=client");
    assert!(engine.realized(id(1)).expect("admitted").error.is_some());
    // A policy that needs less is the cure.
    engine.replace([policy("x", &from_app("client"))]).expect("fits");
    assert_eq!(engine.realized(id(1)).expect("admitted").error, None);
    engine.add(first, &format!("k8s:x={first}"));
}

/// Prefixes that no rule names any more take no room in policies about the world, though their numbers are kept for them.
#[test]
fn prefixes_that_are_gone_take_no_room() {
    let node = Node::new();
    let options = PolicyOptions { max_entries: 40, ..PolicyOptions::default() };
    let engine = node.start_keeping(Duration::from_secs(600), options);
    engine.add(1, "k8s:app=web");
    let many: Vec<_> = (0..30).map(|net| format!(r#""10.{net}.0.0/16""#)).collect();
    let many = policy("many", &format!(r#""ingress": [{{"fromCIDR": [{}]}}]"#, many.join(",")));
    let few = policy("few", r#""ingress": [{"fromCIDR": ["10.3.0.0/16"]}]"#);
    let ports = |port| {
        format!(r#"{{"fromEntities": ["world"], "toPorts": [{{"ports": [{{"port": "{port}", "protocol": "TCP"}}]}}]}}"#)
    };
    let world = policy("world", &format!(r#""ingress": [{}], "ingressDeny": [{}]"#, ports(80), ports(81)));
    engine.upsert([many.clone()]).expect("fits");
    let of = |address: &str| engine.ipcache().longest_match(ip(address)).expect("mapped").entry.identity;
    let before = of("10.3.0.1");
    let error = engine.upsert([world.clone()]).expect_err("with the prefixes that are in use it does not fit");
    assert!(error.to_string().contains("world[0].ingressDeny[0] makes 33 (entity:world: 33 identities)"), "{error}");

    engine.remove("many").expect("is there");
    engine.upsert([world]).expect("fits now");
    assert_eq!(
        (of("10.3.0.1"), engine.realized(id(1)).map(|policy| policy.entries)),
        (SecurityId::WORLD_IPV4, Some(8))
    );
    let trial = engine.try_out([many]).expect("a policy");
    assert_eq!(trial.prefix_of(ip("10.3.0.1")).map(|(_, identity)| identity.id()), Some(before));
    assert_eq!(trial.compile(id(1)).expect_err("as an import would be").kind(), ErrorKind::Exhausted);

    engine.upsert([few]).expect("fits");
    assert_eq!(of("10.3.0.1"), before, "the number was kept");
    for (port, allowed) in [(80, true), (81, false), (82, true)] {
        assert_eq!(engine.allows(1, INGRESS, ip("10.3.0.1"), port), allowed, "{port}");
    }
    assert!(!engine.allows(1, INGRESS, ip("10.4.0.1"), 82));
    engine.remove("few").expect("is there");
    engine.maintain().expect("nothing fails");
    assert_eq!(engine.realized(id(1)).map(|policy| policy.entries), Some(8), "it is forgotten at once");
}

/// A rule about a port by name says nothing where no port has the name, which is told; and does once one has.
#[test]
fn a_name_that_no_port_has_is_told() {
    let node = Node::new();
    let engine = node.start();
    engine.add(1, "k8s:app=web");
    engine.add(2, "k8s:app=client");
    let rest = r#""ingress": [{}, {"fromEndpoints": [{"matchLabels": {"app": "client"}}]}],
        "ingressDeny": [{"toPorts": [{"ports": [{"port": "Admin", "protocol": "TCP"}]}]}]"#;
    engine.upsert([policy("p", rest)]).expect("fits");
    let [unnamed] = &engine.unnamed_ports()[..] else { panic!("{:?}", engine.unnamed_ports()) };
    let text = "p[0].ingressDeny[0]: no port is named \"admin\" at endpoint 1: nothing is denied there by it";
    assert_eq!(unnamed.to_string(), text);
    assert!(engine.unnamed_ports_of(id(2)).is_empty() && engine.allows(1, INGRESS, address(2), 81));

    engine.name_ports(id(1), NamedPorts::new().with("admin", Protocol::TCP, 81)).expect("in force");
    assert!(engine.unnamed_ports().is_empty());
    assert!(!engine.allows(1, INGRESS, address(2), 81) && engine.allows(1, INGRESS, address(2), 80));
    engine.name_ports(id(1), NamedPorts::new().with("admin", Protocol::UDP, 81)).expect("in force");
    assert_eq!(engine.unnamed_ports().len(), 1, "of another protocol");
    assert_eq!(engine.name_ports(id(9), NamedPorts::new()).expect_err("nobody").kind(), ErrorKind::NotFound);
}

#[test]
fn policies_on_disk_that_cannot_be_read_come_with_a_remedy() {
    let node = Node::new();
    drop(node.start());
    for text in [
        "{",
        r#"{"version": 1, "content": {"revision": 2, "last_number": 1, "policies": {"a": [{"rule": {}, "numbers": []}]}}}"#,
    ] {
        let file = node.state.path().join("policy.json");
        fs::write(&file, text).expect("written");
        let maps = node.root.maps();
        let config = IdentityConfig::new(World::BothFamilies);
        let identities = Arc::new(LocalIdentities::new(config).expect("a good configuration"));
        let ipcache = IpCacheManager::open(IpCache::open_pinned(&maps).expect("pinned"), World::BothFamilies);
        let outer = PolicyMaps::open_pinned(&maps).expect("pinned");
        let writer = PolicyWriter::open(outer, node.switches.clone(), &maps).expect("opens");
        let config = EnforcementConfig::new(WorldIdentities::of_node(true, true)).file(&file);
        let opened = Enforcement::open(config, identities, Arc::new(ipcache.expect("opens")), writer);
        let error = opened.expect_err("no policies");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let text = error.to_string();
        assert!(text.starts_with(&file.display().to_string()) && text.contains("move it away"), "{text}");
    }
}

#[test]
fn a_restart_finds_everything_in_force() {
    let node = Node::new();
    let first = node.start();
    let web = first.add(1, "k8s:app=web");
    let client = first.add(2, "k8s:app=client");
    first.upsert([policy("a", &from_app("client"))]).expect("fits");
    first.upsert([policy("b", r#""ingress": [{"fromCIDR": ["192.0.2.0/24"]}]"#)]).expect("fits");
    first
        .upsert([policy("a", &from_app("client").replace("client", "none")), policy("c", &from_app("client"))])
        .expect("fits");
    let revision = first.revision();
    let rows = first.writer().rows(id(1));
    let maps = (node.map_id(1), node.map_id(2));
    drop(first);

    let second = node.start();
    assert_eq!(second.revision(), revision);
    assert_eq!((node.map_id(1), node.map_id(2)), maps, "in force all the while");
    let ipcache = node.ipcache().entries().expect("readable");
    let restored = second.restore(vec![admission(1, "k8s:app=web"), admission(2, "k8s:app=client")]).expect("restored");
    assert_eq!(restored, [web, client]);
    assert_eq!((node.map_id(1), node.map_id(2)), maps, "what is as it should be is not written");
    assert_eq!(second.writer().rows(id(1)), rows, "rules kept their numbers");
    second.map_endpoint([address(1)].into_iter(), web).expect("mapped");
    second.map_endpoint([address(2)].into_iter(), client).expect("mapped");
    assert_eq!(second.remove_strays().expect("nothing stray"), []);
    assert_eq!(node.ipcache().entries().expect("readable"), ipcache);
    assert!(second.allows(1, INGRESS, address(2), 80) && second.allows(1, INGRESS, ip("192.0.2.1"), 80));

    // One endpoint has gone with its pod meanwhile.
    drop(second);
    let third = node.start();
    third.restore(vec![admission(1, "k8s:app=web")]).expect("restored");
    third.map_endpoint([address(1)].into_iter(), web).expect("mapped");
    assert_eq!(node.map_id(2), maps.1, "nothing goes before everybody has spoken");
    assert_eq!(third.remove_strays().expect("one stray"), [id(2)]);
    assert_eq!((node.map_id(1), node.map_id(2)), (maps.0, None));
    assert_eq!(
        node.ipcache().lookup(address(2)).expect("readable").map(|entry| entry.identity),
        Some(SecurityId::WORLD_IPV4)
    );
}

/// A policy of many prefixes, and one about the world that has an entry for each of them.
fn many_and_world() -> [Policy; 2] {
    let many: Vec<_> = (0..30).map(|net| format!(r#""10.{net}.0.0/16""#)).collect();
    let many = format!(r#""ingress": [{{"fromCIDR": [{}]}}]"#, many.join(","));
    [
        policy("many", &many),
        policy("world", r#""ingress": [{"fromEntities": ["world"]}, {"fromEntities": ["cluster"]}]"#),
    ]
}

#[test]
fn a_policy_too_large_after_a_restart_leaves_in_force_what_is() {
    let node = Node::new();
    let options = |max_entries| PolicyOptions { max_entries, ..PolicyOptions::default() };
    let first = node.start_with(options(60));
    let (web, client) = (first.add(1, "k8s:app=web"), first.add(2, "k8s:app=client"));
    let [many, world] = many_and_world();
    first.upsert([many, world.clone(), policy("p", &from_app("client"))]).expect("fits");
    let kept = (node.map_id(1), first.writer().rows(id(1)));
    drop(first);

    let restart = || {
        let engine = node.start_with(options(30));
        let restored = engine.restore(vec![admission(1, "k8s:app=web"), admission(2, "k8s:app=client")]);
        assert_eq!(restored.expect("restored"), [web, client]);
        engine.map_endpoint([address(1)].into_iter(), web).expect("mapped");
        engine.map_endpoint([address(2)].into_iter(), client).expect("mapped");
        assert_eq!(engine.remove_strays().expect("nothing is stray"), []);
        engine
    };
    let is_kept = |engine: &Engine| {
        engine.maintain().expect("nothing new");
        assert_eq!((node.map_id(1), engine.writer().rows(id(1))), kept);
        assert!(engine.allows(1, INGRESS, address(2), 80) && engine.allows(1, INGRESS, ip("10.3.0.1"), 80));
        let realized = engine.realized(id(1)).expect("known");
        assert_eq!(
            (realized.identity, realized.revision, realized.entries),
            (web, 0, kept.1.as_ref().expect("rows").len())
        );
        assert_eq!((realized.ingress, realized.egress), (true, false), "as in force");
        let error = realized.error.expect("failing");
        assert!(
            error.contains("30 are allowed") && error.ends_with("; the policy of before the restart stays in force")
        );
        assert_eq!(engine.problem(id(1)).expect("readable"), Some(error));
        assert_eq!(engine.realized(id(2)).expect("admitted").error, None);
    };
    let is_healed = |engine: &Engine| {
        let realized = engine.realized(id(1)).expect("known");
        assert_eq!((realized.error, realized.revision), (None, engine.revision()));
        assert_eq!(engine.problem(id(1)).expect("readable"), None);
        assert_eq!(engine.writer().rows(id(1)).expect("in force").len(), realized.entries);
        assert_ne!(node.map_id(1), kept.0);
    };

    let second = restart();
    is_kept(&second);
    // What leaves it too large is refused where it adds to it, and not where it takes away.
    let more = policy("more", &from_app("x"));
    assert_eq!(second.upsert([more]).expect_err("too large").kind(), ErrorKind::Exhausted);
    second.remove("p").expect("less, though not little enough");
    is_kept(&second);
    second.set_mode(EnforcementMode::Always).expect("in force where it can be");
    assert!(!second.allows(2, EGRESS, address(1), 80));
    second.set_mode(EnforcementMode::Default).expect("in force where it can be");
    is_kept(&second);
    // A change that can't be written leaves it, too, though it would fit then.
    let obstacle = node.root.maps().join(PolicyMap::name(id(2)) + "_new");
    fs::create_dir(&obstacle).expect("a folder where the other policy's map is to be pinned");
    let of_client = r#"{"endpointSelector": {"matchLabels": {"app": "client"}}, "ingress": [{}]}"#;
    let of_client = Policy::from_json(of_client).expect("a policy").remove(0);
    let both = [policy("p", &from_app("client")), of_client];
    second.replace(both).expect_err("it can't be pinned");
    fs::remove_dir(&obstacle).expect("removed");
    is_kept(&second);
    // Its ports and its labels are its own to change.
    let named = NamedPorts::new().with("http", Protocol::TCP, 80);
    assert_eq!(second.name_ports(id(1), named).expect_err("too large").kind(), ErrorKind::Exhausted);
    let relabelled = second.relabel(id(1), &labels("k8s:app=other")).expect("which no rule selects");
    assert_eq!(relabelled.before, web);
    is_healed(&second);
    assert!(second.allows(1, INGRESS, ip("192.0.2.1"), 80));
    drop(second);

    // A policy that fits in place of the one that does not.
    let third = node.start_with(options(60));
    third.restore(vec![admission(1, "k8s:app=web"), admission(2, "k8s:app=client")]).expect("restored");
    let before = node.map_id(1);
    drop(third);
    let fourth = restart();
    assert_eq!(node.map_id(1), before);
    assert!(fourth.realized(id(1)).expect("known").error.is_some());
    fourth.replace([policy("p", &from_app("client"))]).expect("fits");
    is_healed(&fourth);
    assert!(fourth.allows(1, INGRESS, address(2), 80) && !fourth.allows(1, INGRESS, ip("10.3.0.1"), 80));
    assert_eq!((node.map_id(1) == before, fourth.remove_strays().expect("nothing is stray")), (false, vec![]));
}

/// Prefixes whose numbers are kept take no room after a restart either, but for those that addresses are still mapped to.
#[test]
fn prefixes_without_a_user_take_no_room_after_a_restart() {
    let node = Node::new();
    let start =
        || node.start_keeping(Duration::from_secs(600), PolicyOptions { max_entries: 40, ..Default::default() });
    let [many, _] = many_and_world();
    let port = r#""toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]"#;
    let world = policy("world", &format!(r#""ingress": [{{"fromEntities": ["world"], {port}}}]"#));
    let first = start();
    first.add(1, "k8s:app=web");
    first.upsert([many]).expect("fits");
    let id_of = |engine: &Engine| engine.ipcache().longest_match(ip("10.3.0.1")).expect("mapped").entry.identity;
    let number = id_of(&first);
    first.remove("many").expect("is there");
    first.upsert([world]).expect("fits");
    let maps = (node.map_id(1), first.writer().rows(id(1)));
    // As if the process died when it had mapped the prefix of a policy that it had not saved yet.
    let prefix = "10.3.0.0/16".parse().expect("a prefix");
    let identity = first.identities().acquire_cidr(prefix).expect("known");
    assert_eq!(identity.id(), number);
    first.follow_identities().expect("fits");
    let entry = podwire::tables::IpCacheEntry::direct(number);
    first.ipcache().upsert(Source::Policy, prefix, entry).expect("mapped").into_result().expect("written");
    let with_prefix = first.writer().rows(id(1));
    drop(first);

    let second = start();
    second.restore(vec![admission(1, "k8s:app=web")]).expect("restored");
    assert_eq!(second.realized(id(1)).expect("known").error, None);
    assert_eq!((second.writer().rows(id(1)), id_of(&second)), (with_prefix, number));
    assert!(second.allows(1, INGRESS, ip("10.3.0.1"), 80) && !second.allows(1, INGRESS, ip("10.3.0.1"), 81));
    assert_eq!(second.remove_strays().expect("nothing is stray"), []);
    assert_eq!(id_of(&second), SecurityId::WORLD_IPV4);
    second.maintain().expect("nothing fails");
    assert_eq!((node.map_id(1), second.writer().rows(id(1))), maps, "forgotten");
    assert!(second.allows(1, INGRESS, ip("10.3.0.1"), 80) && !second.allows(1, INGRESS, ip("10.3.0.1"), 81));
}

/// One that has nothing in force either is cut off, which is told, until its policy fits: here because identities go.
#[test]
fn a_policy_that_never_fitted_comes_into_force_when_it_does() {
    let node = Node::new();
    let rest = r#""ingress": [{"fromEndpoints": [{"matchExpressions": [{"key": "x", "operator": "Exists"}]}]}]"#;
    let first = node.start();
    first.upsert([policy("p", rest)]).expect("fits");
    for number in 10..20 {
        first.add(number, &format!("k8s:x={number}"));
    }
    drop(first);

    let second = node.start_with(PolicyOptions { max_entries: 7, ..PolicyOptions::default() });
    let others = (10..20).map(|number| admission(number, &format!("k8s:x={number}")));
    second.restore([admission(1, "k8s:app=web")].into_iter().chain(others).collect()).expect("restored");
    let realized = second.realized(id(1)).expect("known");
    assert_eq!((realized.ingress, realized.egress, realized.entries), (true, true, 0), "all is dropped");
    let error = realized.error.expect("failing");
    assert!(error.ends_with("; it has none of before the restart, so that all its traffic is dropped"), "{error}");
    // Who comes is not heard of by it, which matters where its rules speak of it.
    assert_eq!(second.admit(admission(30, "k8s:x=30")).expect_err("no room").kind(), ErrorKind::Exhausted);
    second.add(31, "k8s:app=other");
    for number in 10..20 {
        assert_eq!(node.map_id(1), None);
        second.dismiss(id(number)).expect("gone");
        let _ = second.maintain();
        if second.realized(id(1)).expect("known").error.is_none() {
            break;
        }
    }
    assert_eq!((second.problem(id(1)).expect("readable"), node.map_id(1).is_some()), (None, true));
    assert!(!second.allows(1, INGRESS, address(31), 80) && second.allows(1, EGRESS, address(31), 80));
}

#[test]
fn modes() {
    let node = Node::new();
    let engine = node.start();
    engine.add(1, "k8s:app=web");
    engine.add(2, "k8s:app=client");
    let outcome =
        |endpoint| (engine.allows(endpoint, INGRESS, address(2), 80), engine.allows(endpoint, EGRESS, address(2), 80));
    engine.upsert([policy("p", &from_app("x"))]).expect("fits");
    for (mode, web, client) in [
        (EnforcementMode::Always, (false, false), (false, false)),
        (EnforcementMode::Never, (true, true), (true, true)),
        (EnforcementMode::Default, (false, true), (true, true)),
    ] {
        engine.set_mode(mode).expect("fits");
        assert_eq!((engine.mode(), outcome(1), outcome(2)), (mode, web, client));
    }
}

/// Policies that differ in how finely they see addresses, swapped while a thread judges: what both allow is allowed all the
/// while, and what both deny is denied.
#[test]
fn no_verdict_is_wrong_while_prefixes_change() {
    let node = Node::new();
    let engine = node.start();
    engine.add(1, "k8s:app=web");
    let cidr = |cidr: &str| format!(r#"{{"fromCIDR": ["{cidr}"]}}"#);
    let everyone = r#""ingress": [{"fromEntities": ["all"]}]"#;
    let pairs = [
        (format!(r#""ingress": [{}]"#, cidr("172.16.0.0/12")), format!(r#""ingress": [{}]"#, cidr("172.16.1.0/24"))),
        (
            format!(r#"{everyone}, "ingressDeny": [{}]"#, cidr("172.17.0.0/16")),
            format!(r#"{everyone}, "ingressDeny": [{}]"#, cidr("172.17.1.0/24")),
        ),
        (
            r#""ingress": [{"fromCIDRSet": [{"cidr": "172.16.0.0/12", "except": ["172.16.2.0/24"]}]}]"#.to_owned(),
            format!(r#""ingress": [{}, {}]"#, cidr("172.16.1.0/25"), cidr("172.18.0.0/16")),
        ),
    ];
    let probes: Vec<IpAddr> =
        ["172.16.1.5", "172.16.1.200", "172.16.2.5", "172.17.1.5", "172.17.2.5", "172.18.0.1", "192.0.2.1"]
            .map(ip)
            .into();
    for (one, other) in pairs {
        let policies = [policy("p", &one), policy("p", &other)];
        let verdicts = policies.each_ref().map(|policy| {
            engine.replace([policy.clone()]).expect("fits");
            probes.iter().map(|probe| engine.allows(1, INGRESS, *probe, 80)).collect::<Vec<_>>()
        });
        let done = AtomicBool::new(false);
        let judged = thread::scope(|scope| {
            let judge = scope.spawn(|| {
                let (outer, ipcache, mut judged) = (node.outer(), node.ipcache(), 0);
                while !done.load(Ordering::Relaxed) {
                    for (probe, (first, second)) in probes.iter().zip(verdicts[0].iter().zip(&verdicts[1])) {
                        // A program is not interrupted for long, and changes wait for it; this thread may be.
                        let generation = node.switches.generation().expect("readable");
                        let verdict = judge(&outer, &ipcache, 1, INGRESS, *probe, 80);
                        if node.switches.generation().expect("readable") != generation {
                            continue;
                        }
                        let allowed = verdict.is_some_and(|verdict| verdict.action != PolicyAction::Deny);
                        if first == second {
                            assert_eq!(
                                allowed, *first,
                                "{probe} while\n{one}\nand\n{other}\nchange places: {verdict:?}"
                            );
                        }
                        judged += 1;
                    }
                }
                judged
            });
            for round in 0..60 {
                engine.replace([policies[round % 2].clone()]).expect("fits");
                if judge.is_finished() {
                    break;
                }
            }
            done.store(true, Ordering::Relaxed);
            judge.join().expect("no wrong verdict")
        });
        assert!(judged > 1000, "judged only {judged} packets");
    }
}
