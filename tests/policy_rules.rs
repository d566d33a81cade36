//! Typed rules: what is refused, what they become for the compiler, what their JSON means, and the numbers they have in force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;
use podwire::Labels;
use podwire::policy::{
    Entity, FlatRule, L4Match, L4Ports, Peer, Peers, Policy, Repository, Rule, RuleChanges, RuleNumber, Section,
    SectionKind, Selector,
};
use podwire::tables::{PolicyDirection, Protocol};
use proptest::prelude::*;

fn select(label: &str) -> Selector {
    Selector::new().label(label).expect("a valid label")
}

fn net(text: &str) -> IpNetwork {
    text.parse().expect("a prefix")
}

fn web() -> Rule {
    Rule::new(select("k8s:app=web"))
}

#[test]
fn impossible_rules_are_refused_with_the_path() {
    let any = || Section::any();
    let unchecked = Section::peers([Peer::Cidr { net: net("10.0.0.0/8"), except: vec![net("192.0.2.0/24")] }]);
    let named = |name: &str| Section::any().l4(L4Match { protocol: Protocol::TCP, ports: L4Ports::Named(name.into()) });
    let mapped = Section::peers([Peer::cidr(net("192.0.2.0/24")), Peer::cidr(net("::ffff:192.0.2.1/120"))]);
    let range = "neither all (0-65535) nor a range that ascends within 1-65535, or for ICMP within 0-255";
    let name = "a name has 1 to 15 letters, digits and single dashes inside, with a letter among them";
    let egress = "named ports are known of the endpoint that a rule selects, so for ingress only";
    const NO_ENDPOINT: &str = "no endpoint has this label, so that the rule would have no effect; podwire enforces policy at \
        endpoints, not at the host";
    #[rustfmt::skip]
    let cases = [
        (web(), "rule", "k8s:app=web", "has no section and denies nothing by default, so it would have no effect"),
        (web().default_deny(PolicyDirection::Egress, false), "rule", "k8s:app=web",
            "has no section and denies nothing by default, so it would have no effect"),
        (Rule::new(select("reserved:host")).ingress(any()), "endpointSelector", "reserved:host=", NO_ENDPOINT),
        (Rule::new(Selector::new().exists("reserved:world-ipv4").expect("valid")).ingress(any()), "endpointSelector",
            "reserved:world-ipv4", NO_ENDPOINT),
        (web().ingress(any()).ingress(unchecked), "ingress[1].peers[0].except", "192.0.2.0/24",
            "an exception has to lie within 10.0.0.0/8"),
        (web().ingress(mapped), "ingress[0].peers[1].net", "::ffff:192.0.2.0/120",
            "addresses in ::ffff:0:0/96 stand for IPv4's, and packets of IPv4 come as IPv4: write the prefix as one of IPv4"),
        (web().egress(any().port(Protocol::TCP, 0)), "egress[0].l4[0].ports", "0-0", range),
        (web().egress_deny(any().ports(Protocol::UDP, 0..=9)), "egressDeny[0].l4[0].ports", "0-9", range),
        (web().ingress_deny(any().icmp(8).ports(Protocol::UDP, RangeInclusive::new(9, 8))), "ingressDeny[0].l4[1].ports", "9-8", range),
        (web().ingress(any().port(Protocol::ICMP, 256)), "ingress[0].l4[0].ports", "256-256", range),
        (web().ingress(any().port(Protocol::new(47), 1)), "ingress[0].l4[0].ports", "47",
            "not one of ANY, TCP, UDP, SCTP, ICMP, ICMPv6"),
        (web().ingress(named("80")), "ingress[0].l4[0].ports", "80", name),
        (web().ingress(named("")), "ingress[0].l4[0].ports", "", name),
        (web().ingress(named("-http")), "ingress[0].l4[0].ports", "-http", name),
        (web().ingress(named("a-very-long-name")), "ingress[0].l4[0].ports", "a-very-long-name", name),
        (web().egress(named("http")), "egress[0].l4[0].ports", "http", egress),
        (web().ingress(any().named_port(Protocol::ICMP, "Echo")), "ingress[0].l4[0].ports", "echo",
            "ICMP has types, and their names stand in icmps"),
    ];
    for (rule, path, value, reason) in cases {
        let error = rule.check().expect_err(path).to_string();
        assert_eq!(error, format!("{path}: {value:?}: {reason}"));
        let policy = Policy::new("default/web").rule(web().ingress(any())).rule(rule.clone());
        assert!(policy.check().expect_err(path).to_string().starts_with(&format!("default/web[1].{path}: ")));
        let mut repository = Repository::new();
        assert!(repository.replace(policy).is_err());
        assert_eq!((repository.revision(), repository.flat().count()), (1, 0), "nothing changed");
    }
    let fine = [
        web().default_deny(PolicyDirection::Egress, true),
        web().ingress(Section::peers([])),
        Rule::new(select("reserved:init")).ingress(any()),
        web().ingress(
            named("http").icmp(0).icmpv6(255).ports(Protocol::TCP, 0..=65535).ports(Protocol::ICMP, 0..=65535),
        ),
        web().egress(Section::peers([Peer::cidr_except(net("10.1.2.3/8"), [net("10.0.0.0/8"), net("10.9.9.9/16")])])),
    ];
    for rule in fine {
        rule.check().unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The flat rules, one a line: direction, action, whether enforcing, number, peers and ports as Debug has them.
fn lines(rule: &Rule) -> Vec<String> {
    let mut last = 0;
    let mut places = Vec::new();
    let flat = rule.lower(|kind, section| {
        last += 1;
        places.push((kind, section));
        RuleNumber::new(last)
    });
    let line = |(flat, (kind, section)): (FlatRule, (SectionKind, Option<usize>))| {
        assert_eq!((flat.direction, flat.deny, &flat.subject), (kind.direction(), kind.denies(), &rule.subject));
        let enforcing = if flat.default_deny { "enforcing" } else { "-" };
        format!("{} {}{section:?} {enforcing} {:?} {}", flat.rule, kind.name(), flat.peers, flat.l4.len())
    };
    flat.into_iter().zip(places).map(line).collect()
}

#[test]
fn sections_become_flat_rules() {
    let host = || Section::peers([Entity::Host.into()]);
    let rule =
        web().ingress(host()).ingress(Section::any().icmp(8)).egress_deny(host()).ingress_deny(Section::peers([]));
    let expected = [
        "1 ingressSome(0) enforcing Some([Entity(Host)]) 0",
        "2 ingressSome(1) enforcing Any 1",
        "3 ingressDenySome(0) enforcing Some([]) 0",
        "4 egressDenySome(0) enforcing Some([Entity(Host)]) 0",
    ];
    assert_eq!(lines(&rule), expected);

    // said otherwise: nothing is enforced by it, or a direction without sections is
    let rule =
        web().ingress(host()).default_deny(PolicyDirection::Ingress, false).default_deny(PolicyDirection::Egress, true);
    assert_eq!(lines(&rule), ["1 ingressSome(0) - Some([Entity(Host)]) 0", "2 egressNone enforcing Some([]) 0"]);
    assert_eq!(lines(&web().default_deny(PolicyDirection::Egress, true)), ["1 egressNone enforcing Some([]) 0"]);

    let rule = web().egress_deny(host()).default_deny(PolicyDirection::Ingress, true);
    let expected = ["1 egressDenySome(0) enforcing Some([Entity(Host)]) 0", "2 ingressNone enforcing Some([]) 0"];
    assert_eq!(lines(&rule), expected);

    // host bits never reach the compiler
    let cidr = Peer::Cidr { net: net("10.1.2.3/8"), except: vec![net("10.9.9.9/16")] };
    let flat = web().egress(Section::peers([cidr])).lower(|_, _| RuleNumber::NONE);
    assert_eq!(
        flat[0].peers,
        Peers::Some(vec![Peer::Cidr { net: net("10.0.0.0/8"), except: vec![net("10.9.0.0/16")] }])
    );
}

/// Documents have at most 40 ports, or ICMP types, in one list.
#[test]
fn long_lists_are_written_in_pieces() {
    let ports = (1..=100).fold(Section::any(), |section, port| section.port(Protocol::TCP, port));
    let rule = web().ingress(ports).ingress((0..=99).fold(Section::any(), Section::icmp));
    let json = rule.to_json();
    let sizes = |list: &str, inner: &str, section: usize| -> Vec<usize> {
        let list = json["ingress"][section][list].as_array().expect("a list");
        list.iter().map(|item| item[inner].as_array().expect("a list").len()).collect()
    };
    assert_eq!((sizes("toPorts", "ports", 0), sizes("icmps", "fields", 1)), (vec![40, 40, 20], vec![40, 40, 20]));
    let again = Policy::from_json(&json.to_string()).expect("valid");
    assert_eq!(again[0].rules[0], rule);
}

fn numbers(repository: &Repository) -> BTreeMap<u32, String> {
    let flat: Vec<u32> = repository.flat().map(|flat| flat.rule.get()).collect();
    let unique: BTreeSet<_> = flat.iter().copied().collect();
    assert_eq!(unique.len(), flat.len(), "a number is there twice: {flat:?}");
    let source = |number| repository.source(RuleNumber::new(number)).expect("known").to_string();
    unique.into_iter().map(|number| (number, source(number))).collect()
}

#[test]
fn numbers_stay_while_rules_stay() {
    let [a, b, c] = ["a", "b", "c"]
        .map(|app| Rule::new(select(app)).ingress(Section::any()).egress(Section::any()).description(app));
    let mut repository = Repository::new();
    let policy = |rules: &[&Rule]| Policy { name: "shop/p".into(), rules: rules.iter().copied().cloned().collect() };
    repository.replace(policy(&[&a, &b])).expect("valid");
    repository.replace(Policy::new("everybody").rule(c.clone())).expect("valid");
    let before = numbers(&repository);
    let of = |numbers: &[(u32, &str)]| -> BTreeMap<u32, String> {
        numbers.iter().map(|(number, source)| (*number, (*source).to_owned())).collect()
    };
    let everybody = [(5, "everybody[0].ingress[0]"), (6, "everybody[0].egress[0]")];
    let first = [
        (1, "shop/p[0].ingress[0]"),
        (2, "shop/p[0].egress[0]"),
        (3, "shop/p[1].ingress[0]"),
        (4, "shop/p[1].egress[0]"),
    ];
    assert_eq!(before, of(&[&first[..], &everybody].concat()));

    // b moves to the front, c is new there, a goes
    repository.replace(policy(&[&b, &c])).expect("valid");
    let second = [
        (3, "shop/p[0].ingress[0]"),
        (4, "shop/p[0].egress[0]"),
        (7, "shop/p[1].ingress[0]"),
        (8, "shop/p[1].egress[0]"),
    ];
    assert_eq!(numbers(&repository), of(&[&second[..], &everybody].concat()));
    assert_eq!(repository.source(RuleNumber::new(1)), None);
    assert_eq!(repository.source(RuleNumber::new(7)).expect("known").description, "c");

    // a comes back: its numbers do not
    repository.replace(policy(&[&a])).expect("valid");
    let third = [(9, "shop/p[0].ingress[0]"), (10, "shop/p[0].egress[0]")];
    assert_eq!(numbers(&repository), of(&[&third[..], &everybody].concat()));
    assert_eq!(repository.revision(), 5);
    let removed = repository.remove("shop/p").expect("there");
    assert_eq!((removed.added.len(), removed.removed), (0, vec![RuleNumber::new(9), RuleNumber::new(10)]));
    assert_eq!(repository.remove("shop/p"), None);
    assert_eq!((numbers(&repository), repository.revision()), (of(&everybody), 6));
}

#[test]
fn rules_are_removed_by_their_labels() {
    let labelled = |app: &str, labels: &[&str]| {
        let rule = Rule::new(select(app)).ingress(Section::any());
        labels.iter().fold(rule, |rule, label| rule.label(label.parse().expect("a label")).expect("few"))
    };
    let mut repository = Repository::new();
    let one = Policy::new("one").rule(labelled("a", &["k8s:x=1", "k8s:y=1"])).rule(labelled("b", &["k8s:x=1"]));
    let two = Policy::new("two").rule(labelled("c", &["k8s:x=1", "k8s:y=1"]));
    repository.replace(one).and_then(|_| repository.replace(two)).expect("valid");
    let labels = |texts: &[&str]| Labels::parse(texts).expect("valid");
    assert_eq!(repository.remove_labelled(&labels(&["k8s:x=2"])), (0, RuleChanges::default()));
    assert_eq!(repository.revision(), 3);
    assert_eq!(repository.remove_labelled(&labels(&["k8s:y=1", "k8s:x=1"])).0, 2);
    assert_eq!(repository.names().collect::<Vec<_>>(), ["one"]);
    assert_eq!(numbers(&repository), BTreeMap::from([(2, "one[0].ingress[0]".to_owned())]));
    assert_eq!(repository.remove_labelled(&Labels::new()).1.removed, [RuleNumber::new(2)]);
    assert_eq!(repository.all_rules().count(), 0);
}

/// Peers and traffic small enough for rules to meet.
fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        prop::sample::select(&["k8s:app=a", "app=b", "reserved:host"][..])
            .prop_map(|label| Peer::Labels(select(label))),
        Just(Peer::Labels(Selector::new())),
        prop::sample::select(&Entity::EVERY[..]).prop_map(Peer::Entity),
        (prop::sample::select(&["10.0.0.0/8", "10.1.2.3/16", "::/0", "2001:db8::1/32"][..]))
            .prop_map(|text| Peer::cidr(net(text))),
        Just(Peer::cidr_except(net("10.0.0.0/8"), [net("10.1.0.0/16")])),
    ]
}

fn l4() -> impl Strategy<Value = L4Match> {
    let protocols = [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ANY, Protocol::ICMP, Protocol::ICMPV6];
    let ports = prop_oneof![
        Just(L4Ports::ALL),
        (1u16..12).prop_map(L4Ports::single),
        (1u16..6, 6u16..12).prop_map(|(first, last)| L4Ports::Range(first..=last)),
    ];
    (prop::sample::select(protocols.to_vec()), ports).prop_map(|(protocol, ports)| L4Match { protocol, ports })
}

fn section() -> impl Strategy<Value = Section> {
    let peers = prop_oneof![
        1 => Just(Peers::Any),
        4 => prop::collection::vec(peer(), 0..5).prop_map(Peers::Some),
    ];
    (peers, prop::collection::vec(l4(), 0..5)).prop_map(|(peers, l4)| Section { peers, l4 })
}

fn rule() -> impl Strategy<Value = Rule> {
    let sections = || prop::collection::vec(section(), 0..3);
    let said = || prop::option::of(any::<bool>());
    let labels = prop::sample::subsequence(vec!["k8s:name=x", "user:note"], 0..=2);
    (prop::array::uniform4(sections()), said(), said(), labels, "[a-z ]{0,6}").prop_filter_map(
        "a rule without effect",
        |(sections, ingress, egress, labels, description)| {
            let mut rule = web().description(description);
            [rule.ingress, rule.ingress_deny, rule.egress, rule.egress_deny] = sections;
            (rule.ingress_default_deny, rule.egress_default_deny) = (ingress, egress);
            rule.labels = Labels::parse(labels).expect("valid");
            rule.check().is_ok().then_some(rule)
        },
    )
}

/// What flat rules say of a packet: whether any enforces the direction, whether any allows it, whether any denies it.
fn verdict(
    rules: &[FlatRule],
    direction: PolicyDirection,
    peer: &(Labels, Option<IpAddr>),
    l4: (Protocol, u16),
) -> [bool; 3] {
    let selects = |one: &Peer| match one {
        Peer::Labels(selector) => selector.matches(&peer.0),
        Peer::Entity(entity) => entity.matches(&peer.0),
        Peer::Cidr { net, except } => {
            peer.1.is_some_and(|address| net.contains(address) && !except.iter().any(|except| except.contains(address)))
        }
    };
    let ported = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
    let covers = |one: &L4Match| match &one.ports {
        L4Ports::Range(range) if *range == (0..=65535) => one.protocol == Protocol::ANY || one.protocol == l4.0,
        L4Ports::Range(range) if one.protocol == Protocol::ANY => ported.contains(&l4.0) && range.contains(&l4.1),
        L4Ports::Range(range) => one.protocol == l4.0 && range.contains(&l4.1),
        L4Ports::Named(_) => false,
    };
    let mut found = [false; 3];
    for rule in rules.iter().filter(|rule| rule.direction == direction) {
        found[0] |= rule.default_deny;
        let peers = match &rule.peers {
            Peers::Any => true,
            Peers::Some(peers) => peers.iter().any(selects),
        };
        if peers && (rule.l4.is_empty() || rule.l4.iter().any(covers)) {
            found[if rule.deny { 2 } else { 1 }] = true;
        }
    }
    found
}

fn peers() -> Vec<(Labels, Option<IpAddr>)> {
    let outside = |address: &str| {
        let family = if address.contains(':') { "reserved:world-ipv6" } else { "reserved:world-ipv4" };
        (Labels::parse([family]).expect("valid"), Some(address.parse().expect("an address")))
    };
    let inside = |texts: &[&str]| (Labels::parse(texts).expect("valid"), None);
    vec![
        outside("10.0.0.1"),
        outside("10.1.0.1"),
        outside("192.0.2.1"),
        outside("2001:db8::1"),
        outside("2001:db9::1"),
        inside(&["k8s:app=a"]),
        inside(&["container:app=b"]),
        inside(&["reserved:host"]),
        inside(&["reserved:health"]),
    ]
}

proptest! {
    /// A rule's JSON may be cut into other sections, but it allows, denies and enforces the same.
    #[test]
    fn json_means_what_the_rule_means(rule in rule()) {
        let text = rule.to_json().to_string();
        let again = Policy::from_json(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let again = &again[0].rules[0];
        prop_assert_eq!(&again.to_json(), &rule.to_json());
        prop_assert_eq!((&again.labels, &again.description), (&rule.labels, &rule.description));
        let [before, after] = [&rule, again].map(|rule| rule.lower(|_, _| RuleNumber::NONE));
        for peer in peers() {
            for protocol in [1, 6, 17, 47, 58, 132].map(Protocol::new) {
                for port in 0..13 {
                    for direction in [PolicyDirection::Ingress, PolicyDirection::Egress] {
                        let [before, after] = [&before, &after].map(|rules| verdict(rules, direction, &peer, (protocol, port)));
                        prop_assert_eq!(before, after, "{:?} {:?} {} {}: {}", direction, peer, protocol, port, text);
                    }
                }
            }
        }
    }

    /// Whatever comes and goes: numbers are unique and known, and as many rules as can keep those they have.
    #[test]
    fn numbers_are_stable_and_unique(
        history in prop::collection::vec((0usize..2, prop::collection::vec(0usize..4, 0..5)), 1..20),
        rules in prop::collection::vec(rule(), 4),
    ) {
        let (mut repository, mut in_force) = (Repository::new(), Vec::new());
        for (policy, chosen) in history {
            let name = format!("policy{policy}");
            let others = |repository: &Repository| -> Vec<_> {
                numbers(repository).into_iter().filter(|(_, source)| !source.starts_with(&name)).collect()
            };
            let (before, unconcerned) = (numbers_of_rules(&repository, &name), others(&repository));
            let policy = chosen.iter().fold(Policy::new(&name), |policy, index| policy.rule(rules[*index].clone()));
            let changes = repository.replace(policy).expect("valid");
            in_force.retain(|flat: &FlatRule| !changes.removed.contains(&flat.rule));
            in_force.extend(changes.added);
            in_force.sort_by_key(|flat| flat.rule);
            let mut flat: Vec<_> = repository.flat().cloned().collect();
            flat.sort_by_key(|flat| flat.rule);
            prop_assert_eq!(&flat, &in_force, "the changes do not add up");
            prop_assert_eq!(others(&repository), unconcerned);
            for (rule, after) in numbers_of_rules(&repository, &name) {
                let before = before.iter().find(|(old, _)| *old == rule).map_or(&[][..], |(_, numbers)| numbers);
                let kept = after.iter().filter(|numbers| before.contains(numbers)).count();
                prop_assert_eq!(kept, before.len().min(after.len()), "had {:?}, has {:?}: {:?}", before, after, rule);
            }
        }
    }
}

/// Each different rule of a policy, with the numbers it has at every place where it stands.
fn numbers_of_rules(repository: &Repository, name: &str) -> Vec<(Rule, Vec<BTreeSet<u32>>)> {
    let mut found: Vec<(Rule, Vec<BTreeSet<u32>>)> = Vec::new();
    for (place, rule) in repository.rules(name).enumerate() {
        let source = |flat: &&FlatRule| repository.source(flat.rule).expect("in force");
        let here = repository.flat().filter(|flat| source(flat).policy == name && source(flat).rule == place);
        let numbers = here.map(|flat| flat.rule.get()).collect();
        match found.iter_mut().find(|(known, _)| known == rule) {
            Some((_, places)) => places.push(numbers),
            None => found.push((rule.clone(), vec![numbers])),
        }
    }
    found
}

#[test]
fn who_asks_for_the_label_of_a_cluster_is_warned() {
    let asking = Peer::Labels(select("io.cilium.k8s.policy.cluster=other"));
    let by_subject = Selector::new().exists("k8s:io.cilium.k8s.policy.cluster").expect("valid");
    let policy = Policy::new("web")
        .rule(web().ingress(Section::any()))
        .rule(web().egress_deny(Section::peers([Peer::Entity(Entity::World), asking])))
        .rule(Rule::new(by_subject).ingress(Section::any()));
    let warnings = policy.warnings();
    let text = "pods don't get the label io.cilium.k8s.policy.cluster: a selector that asks for it may find nobody";
    assert_eq!(warnings, [format!("web[1]: {text}"), format!("web[2]: {text}")]);
}
