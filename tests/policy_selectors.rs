//! Selectors against a plain model of what Kubernetes documents, and entities against a table.

use std::collections::HashSet;

use podwire::identity::{Identity, IdentityAllocator, IdentityConfig, LocalIdentities, World};
use podwire::policy::{Entity, Operator, Peer, Requirement, Selector, WorldIdentities};
use podwire::{Labels, SecurityId};
use proptest::prelude::*;

fn labels(texts: &[&str]) -> Labels {
    Labels::parse(texts).expect("valid labels")
}

#[test]
fn keys_and_sources() {
    let web = labels(&["k8s:app=web", "container:app=db", "reserved:host", "k8s:a.b/c-d_e=x:y"]);
    let cases = [
        ("app=web", true),
        ("any:app=db", true),
        ("k8s:app=web", true),
        ("k8s:app=db", false),
        ("container:app=db", true),
        ("unspec:app=web", false),
        ("app", false), // an equality with the empty value
        ("reserved:host", true),
        ("host", true),
        ("k8s:host", false),
        ("a.b/c-d_e=x:y", true),
        ("k8s:a.b/c-d_e=x", false),
        ("App=web", false),
    ];
    for (label, expected) in cases {
        let selector = Selector::new().label(label).expect("valid");
        assert_eq!(selector.matches(&web), expected, "{label}");
    }
    assert!(Selector::new().exists("app").expect("valid").matches(&web));
    assert!(!Selector::new().exists("reserved:ingress").expect("valid").matches(&web));
}

/// Several sources may share a key: any of the values may be meant, and NotIn is the opposite of In.
#[test]
fn a_key_of_several_sources() {
    let both = labels(&["k8s:app=web", "container:app=db"]);
    let require = |operator, values: &[&str]| {
        Requirement::new("app".parse().expect("a key"), operator, values.iter().copied()).expect("valid")
    };
    assert!(require(Operator::In, &["web"]).matches(&both) && require(Operator::In, &["db"]).matches(&both));
    assert!(!require(Operator::NotIn, &["web"]).matches(&both) && !require(Operator::NotIn, &["db"]).matches(&both));
    assert!(
        require(Operator::NotIn, &["other"]).matches(&both) && !require(Operator::DoesNotExist, &[]).matches(&both)
    );
}

#[test]
fn an_empty_selector_selects_everything() {
    for texts in [&[][..], &["reserved:world"], &["cidr:10.0.0.0/8", "reserved:world-ipv4"], &["k8s:app=web"]] {
        assert!(Selector::new().matches(&labels(texts)), "{texts:?}");
    }
    assert!(Selector::new().is_empty() && Selector::new().to_string() == "*");
}

#[test]
fn selectors_that_say_the_same_are_equal_and_printed_alike() {
    let (app, tier) = ("k8s:app=web", "tier=1");
    let one = Selector::new().label(app).and_then(|selector| selector.label(tier)).expect("valid");
    let other = Selector::new().label("any:tier=1").and_then(|selector| selector.label(app)).expect("valid");
    let again = other.clone().label(app).expect("valid");
    assert_eq!(one, other);
    assert_eq!(one, again);
    assert_eq!(HashSet::from([one.clone(), other, again]).len(), 1);
    assert_eq!(one.to_string(), "any:tier=1,k8s:app=web");

    let of = |operator, values: &[&str]| {
        let key = "k8s:app".parse().expect("a key");
        Selector::all_of([Requirement::new(key, operator, values.iter().copied()).expect("valid")]).expect("valid")
    };
    assert_eq!(of(Operator::In, &["web", "web"]), Selector::new().label(app).expect("valid"));
    assert_eq!(of(Operator::In, &["b", "a"]).to_string(), "k8s:app in (a,b)");
    assert_eq!(of(Operator::NotIn, &["a"]).to_string(), "k8s:app notin (a)");
    assert_eq!(of(Operator::Exists, &[]).to_string(), "k8s:app");
    assert_eq!(of(Operator::DoesNotExist, &[]).to_string(), "!k8s:app");
}

#[test]
fn impossible_selectors_are_refused() {
    for label in [
        "",
        "=x",
        ":app=x",
        "k8s:=x",
        "k8s:a b=x",
        "k8s:app=a,b",
        "k8s:ü=x",
        "k8s:a\u{0}=x",
        "k8s:app=ü",
        "reserved:all",
        "cidr:203.0.113.0/24",
        "reserved:foo",
        "reserved:Host",
    ] {
        assert!(Selector::new().label(label).is_err(), "{label:?}");
    }
    let new = |operator, count: usize| {
        let values = (0..count).map(|value| value.to_string());
        Requirement::new("app".parse().expect("a key"), operator, values).map(|_| ())
    };
    for operator in [Operator::In, Operator::NotIn] {
        assert!(new(operator, 0).is_err() && new(operator, 128).is_ok() && new(operator, 129).is_err());
    }
    for operator in [Operator::Exists, Operator::DoesNotExist] {
        assert!(new(operator, 0).is_ok() && new(operator, 1).is_err());
    }
    let many = |count: usize| {
        Selector::all_of((0..count).map(|n| {
            Requirement::new::<String>(format!("k{n}").parse().expect("a key"), Operator::Exists, []).expect("valid")
        }))
    };
    assert!(many(128).is_ok() && many(129).is_err());
}

/// Which entities stand for identities with these labels; `all` always does, `none` never.
#[test]
fn entities_and_the_labels_of_their_identities() {
    let cases: [(&[&str], &[Entity]); 13] = [
        (&["reserved:host"], &[Entity::Cluster, Entity::Host]),
        (&["reserved:host", "reserved:kube-apiserver"], &[Entity::Cluster, Entity::Host, Entity::KubeApiServer]),
        (&["reserved:world"], &[Entity::World]),
        (&["reserved:world-ipv4"], &[Entity::World, Entity::WorldIpv4]),
        (&["reserved:world-ipv6"], &[Entity::World, Entity::WorldIpv6]),
        (&["cidr:10.0.0.0/8", "reserved:world-ipv4"], &[Entity::World, Entity::WorldIpv4]),
        (
            &["cidr:192.0.2.1/32", "reserved:kube-apiserver", "reserved:world-ipv4"],
            &[Entity::World, Entity::WorldIpv4, Entity::Cluster, Entity::KubeApiServer],
        ),
        (&["reserved:remote-node"], &[Entity::Cluster, Entity::RemoteNode]),
        (&["reserved:health"], &[Entity::Cluster, Entity::Health]),
        (&["reserved:init"], &[Entity::Cluster, Entity::Init]),
        (&["reserved:ingress"], &[Entity::Cluster, Entity::Ingress]),
        (&["reserved:unmanaged"], &[Entity::Cluster, Entity::Unmanaged]),
        (&["k8s:app=web", "k8s:host"], &[Entity::Cluster]),
    ];
    for (texts, expected) in cases {
        for entity in Entity::EVERY {
            let expected = entity == Entity::All || expected.contains(&entity);
            assert_eq!(entity.matches(&labels(texts)), expected, "{entity} {texts:?}");
        }
    }
    for entity in Entity::EVERY {
        assert_eq!(entity.name().parse::<Entity>().expect("its own name"), entity);
        // an identity that nobody knows is nobody's but everybody's
        assert_eq!(entity.matches(&Labels::new()), entity == Entity::All, "{entity}");
    }
    for bad in ["", "Host", "hosts", "World"] {
        assert!(bad.parse::<Entity>().is_err(), "{bad:?}");
    }
}

/// What no prefix names is of the family that the node has, though the label of identity 2 doesn't say which.
#[test]
fn the_world_of_a_node_with_one_family() {
    let identity = |id, text: &str| Identity::new(SecurityId::new(id), labels(&[text]));
    let (world, ipv4, ipv6) =
        (identity(2, "reserved:world"), identity(9, "reserved:world-ipv4"), identity(10, "reserved:world-ipv6"));
    let nodes = [
        (WorldIdentities::of_node(true, false), [true, true, false], [false, false, true]),
        (WorldIdentities::of_node(false, true), [false, true, false], [true, false, true]),
        (WorldIdentities::of_node(true, true), [false, true, false], [false, false, true]),
    ];
    for (node, of_ipv4, of_ipv6) in nodes {
        let selected = |peer: Peer| [&world, &ipv4, &ipv6].map(|identity| peer.selects(identity, &node));
        assert_eq!(selected(Entity::WorldIpv4.into()), of_ipv4, "{node:?}");
        assert_eq!(selected(Entity::WorldIpv6.into()), of_ipv6, "{node:?}");
        assert_eq!(selected(Entity::World.into()), [true; 3], "{node:?}");
        assert_eq!(selected(Entity::Cluster.into()), [false; 3], "{node:?}");
    }
}

/// Who is denied the world stays denied it when another rule names a part of it, and with that gives it an identity of its own.
#[test]
fn a_prefix_is_of_the_world_by_its_label_as_the_rest_is() {
    let nodes = [
        ((true, false), ["reserved:world", "reserved:world"]),
        ((false, true), ["reserved:world", "reserved:world"]),
        ((true, true), ["reserved:world-ipv4", "reserved:world-ipv6"]),
    ];
    for ((ipv4, ipv6), by_family) in nodes {
        let node = WorldIdentities::of_node(ipv4, ipv6);
        let identities = LocalIdentities::new(IdentityConfig::new(World::new(ipv4, ipv6))).expect("good");
        let prefixes =
            ["0.0.0.0/0", "::/0", "203.0.113.0/24", "2001:db8::/32"].map(|net| net.parse().expect("a prefix"));
        let [rest4, rest6, net4, net6] = &identities.acquire_cidrs(&prefixes).expect("room")[..] else { panic!() };
        for label in ["reserved:world", "reserved:world-ipv4", "reserved:world-ipv6", "world", "world-ipv4"] {
            let peer = Peer::Labels(Selector::new().exists(label).expect("valid"));
            let selected = [rest4, net4, rest6, net6].map(|identity| peer.selects(identity, &node));
            assert_eq!((selected[0], selected[2]), (selected[1], selected[3]), "{label} on {node:?}");
            let is_label = |of: &str| of.ends_with(&format!(":{label}")) || of == label;
            assert_eq!([selected[0], selected[2]], by_family.map(is_label), "{label} on {node:?}");
        }
        for (entity, expected) in [(Entity::WorldIpv4, [true, false]), (Entity::WorldIpv6, [false, true])] {
            let peer = Peer::Entity(entity);
            assert_eq!([net4, net6].map(|identity| peer.selects(identity, &node)), expected, "{entity} on {node:?}");
        }
        // by its own label it is not selected at all
        let of_any_source = Peer::Labels(Selector::new().exists("203.0.113.0/24").expect("valid"));
        assert!(!of_any_source.selects(net4, &node));
        assert!(of_any_source.selects(&Identity::new(SecurityId::new(300), labels(&["k8s:203.0.113.0/24"])), &node));
    }
}

const SOURCES: [&str; 3] = ["k8s", "container", "any"];
const KEYS: [&str; 3] = ["app", "tier", "a/b"];
const VALUES: [&str; 4] = ["", "1", "2", "3"];

/// A requirement as plain as it can be.
#[derive(Clone, Debug)]
struct Plain {
    /// `None`: written without a source.
    source: Option<&'static str>,
    key: &'static str,
    operator: Operator,
    values: Vec<&'static str>,
}

impl Plain {
    fn strategy() -> impl Strategy<Value = Self> {
        let values = prop::collection::vec(prop::sample::select(&VALUES[..]), 1..4);
        let source = prop::option::of(prop::sample::select(&SOURCES[..]));
        (source, prop::sample::select(&KEYS[..]), prop::sample::select(&Operator::ALL[..]), values).prop_map(
            |(source, key, operator, values)| {
                let values = if operator.takes_values() { values } else { Vec::new() };
                Self { source, key, operator, values }
            },
        )
    }

    fn requirement(&self) -> Requirement {
        let key = self.source.map_or(self.key.to_owned(), |source| format!("{source}:{}", self.key));
        Requirement::new(key.parse().expect("a key"), self.operator, self.values.iter().copied()).expect("valid")
    }

    fn holds(&self, labels: &[(&str, &str, &str)]) -> bool {
        let mut candidates = Vec::new();
        for (source, key, value) in labels {
            let any = self.source.is_none() || self.source == Some("any");
            if *key == self.key && (any || Some(*source) == self.source) {
                candidates.push(*value);
            }
        }
        let one_listed = candidates.iter().any(|value| self.values.contains(value));
        match self.operator {
            Operator::In => one_listed,
            Operator::NotIn => !one_listed,
            Operator::Exists => !candidates.is_empty(),
            Operator::DoesNotExist => candidates.is_empty(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn selectors_agree_with_the_model(
        plain in prop::collection::vec(Plain::strategy(), 0..4),
        sets in prop::collection::vec(
            prop::collection::btree_map(
                (prop::sample::select(&["k8s", "container"][..]), prop::sample::select(&KEYS[..])),
                prop::sample::select(&VALUES[..]), 0..5),
            1..8),
    ) {
        let selector = Selector::all_of(plain.iter().map(Plain::requirement)).expect("few");
        let reversed = Selector::all_of(plain.iter().rev().map(Plain::requirement)).expect("few");
        prop_assert_eq!(&selector, &reversed);
        prop_assert_eq!(selector.to_string(), reversed.to_string());
        for set in sets {
            let tuples: Vec<_> = set.iter().map(|((source, key), value)| (*source, *key, *value)).collect();
            let labels = Labels::parse(tuples.iter().map(|(source, key, value)| format!("{source}:{key}={value}")));
            let expected = plain.iter().all(|plain| plain.holds(&tuples));
            prop_assert_eq!(selector.matches(&labels.expect("valid")), expected, "{} {:?}", selector, tuples);
        }
    }
}
