//! The policies in force as a document: with the numbers of their rules, which map entries and connections name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Repository;
use crate::Result;
use crate::policy::RuleNumber;
use crate::policy::document::{read_stored, stored};

/// A [`Repository`] in a form that can be written and read. Its content is [`Repository::snapshot`]'s alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RepositorySnapshot {
    revision: u64,
    last_number: u32,
    policies: BTreeMap<String, Vec<StoredRule>>,
}

/// A rule with the numbers of what it was lowered to.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredRule {
    rule: serde_json::Value,
    numbers: Vec<RuleNumber>,
}

impl Repository {
    /// Everything there is to it.
    pub fn snapshot(&self) -> RepositorySnapshot {
        let policies = self.policies.iter().map(|(name, rules)| {
            let stored = rules.iter().map(|lowered| StoredRule {
                rule: stored(&lowered.rule),
                numbers: lowered.flat.iter().map(|flat| flat.rule).collect(),
            });
            (name.clone(), stored.collect())
        });
        RepositorySnapshot { revision: self.revision, last_number: self.last, policies: policies.collect() }
    }

    /// What [`snapshot`](Self::snapshot) was taken of: the same rules with the same numbers, the same revision.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a rule that is none.
    pub fn restore(snapshot: RepositorySnapshot) -> Result<Self> {
        let RepositorySnapshot { revision, last_number, policies } = snapshot;
        let mut repository = Self { revision, last: last_number, ..Self::default() };
        for (name, stored) in policies {
            let mut rules = Vec::with_capacity(stored.len());
            for (index, StoredRule { rule, numbers }) in stored.into_iter().enumerate() {
                let rule = read_stored(&rule)?;
                rules.push(repository.lower(&name, index, rule, numbers.into_iter()));
            }
            repository.policies.insert(name, rules);
        }
        Ok(repository)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    const TEXT: &str = r#"[
        {"endpointSelector": {"matchLabels": {"app": "web"}},
         "labels": [{"source": "k8s", "key": "name", "value": "a"}], "description": "first",
         "ingress": [{"fromEntities": ["host"]}, {"fromCIDR": ["192.0.2.0/24"]}], "ingressDeny": [{"fromEntities": ["world"]}]},
        {"endpointSelector": {}, "egress": [{}]}
    ]"#;

    fn policy(name: &str) -> Policy {
        Policy { name: name.to_owned(), ..Policy::from_json(TEXT).expect("rules").remove(0) }
    }

    #[test]
    fn numbers_sources_and_revision_come_back() {
        let mut repository = Repository::new();
        for name in ["a", "b", "c"] {
            repository.replace(policy(name)).expect("good");
        }
        assert!(repository.remove("a").is_some());
        repository.replace(Policy { rules: policy("b").rules[1..].to_vec(), ..policy("b") }).expect("good");

        let text = serde_json::to_string(&repository.snapshot()).expect("text");
        let read = Repository::restore(serde_json::from_str(&text).expect("a snapshot")).expect("the same");
        assert_eq!(read.revision(), repository.revision());
        let flat = |repository: &Repository| repository.flat().cloned().collect::<Vec<_>>();
        assert_eq!(flat(&read), flat(&repository));
        for rule in repository.flat() {
            assert_eq!(read.source(rule.rule), repository.source(rule.rule));
        }
        assert_eq!(serde_json::to_string(&read.snapshot()).expect("text"), text);

        let (mut read, mut before) = (read, repository);
        read.replace(policy("d")).expect("good");
        before.replace(policy("d")).expect("good");
        assert_eq!(flat(&read), flat(&before), "new rules get the numbers they would have got");
    }

    fn restored(repository: &Repository) -> Repository {
        let text = serde_json::to_string(&repository.snapshot()).expect("text");
        Repository::restore(serde_json::from_str(&text).expect("a snapshot")).expect("the same")
    }

    /// What comes back is named as before, and a policy imported again is no change.
    fn check_restart(policy: &Policy, is_kept: bool) {
        let mut before = Repository::new();
        before.replace(policy.clone()).expect("good");
        let mut after = restored(&before);
        let names = |repository: &Repository| {
            let names = repository.sources().map(|(number, source)| (number, source.to_string()));
            names.collect::<BTreeMap<_, _>>()
        };
        assert_eq!(names(&after), names(&before), "{policy:?}");
        let changes = after.replace(policy.clone()).expect("good");
        assert_eq!(changes.added.is_empty() && changes.removed.is_empty(), is_kept, "{policy:?}: {changes:?}");
    }

    #[test]
    fn sections_are_the_same_after_a_restart() {
        let ports = |ports: &str| format!(r#"{{"toPorts": [{{"ports": [{ports}]}}]}}"#);
        let echo = r#"{"port": "8", "protocol": "ICMP"}"#;
        let sections = [
            ports(&format!(r#"{{"port": "80", "protocol": "TCP"}}, {echo}"#)),
            ports(&format!(r#"{echo}, {{"port": "web", "protocol": "TCP"}}"#)),
            ports(&format!(r#"{echo}, {{"port": "0", "protocol": "ICMPV6"}}"#)),
            ports(r#"{"port": "8", "endPort": 9, "protocol": "ICMP"}"#),
            ports(echo),
            r#"{"icmps": [{"fields": [{"type": 0}, {"type": 8}]}]}"#.to_owned(),
            r#"{"fromCIDRSet": [{"cidr": "192.0.2.0/24", "except": ["192.0.2.1/32"]}, {"cidr": "10.0.0.0/8"}]}"#
                .to_owned(),
        ];
        for section in sections {
            let text = format!(r#"{{"endpointSelector": {{}}, "ingress": [{section}, {{"fromEntities": ["host"]}}]}}"#);
            let policy = Policy::from_json(&text).expect(&text).remove(0);
            check_restart(&policy, true);
            let written = serde_json::to_string(&policy.rules).expect("text");
            assert_eq!(Policy::from_json(&written).expect(&written)[0], policy, "documents have it as one section too");
        }
    }

    #[test]
    fn sections_that_no_document_has_are_the_same_too() {
        use crate::policy::{Entity, Peer, Rule, Section, Selector};
        use crate::tables::{PolicyDirection, Protocol};
        let cidr = Peer::cidr("192.0.2.0/24".parse().expect("a prefix"));
        let web = Peer::Labels(Selector::new().label("k8s:app=web").expect("good"));
        let mixed = Section::peers([web, Entity::Host.into(), cidr]).port(Protocol::TCP, 80).icmp(0);
        let last = Section::peers([Entity::World.into()]);
        let rule = Rule::new(Selector::new());
        check_restart(&Policy::new("a").rule(rule.clone().ingress(mixed).ingress(last.clone())), true);
        let types = Section::any().ports(Protocol::ICMP, 0..=3).port(Protocol::UDP, 53);
        check_restart(&Policy::new("a").rule(rule.clone().egress(types).egress(last.clone())), false);
        check_restart(&Policy::new("a").rule(rule.clone().egress(Section::any()).egress(last)), false);
        check_restart(&Policy::new("a").rule(rule.default_deny(PolicyDirection::Ingress, true)), true);
    }

    #[test]
    fn what_is_accepted_is_read_again() {
        let labels = (0..126).map(|number| format!(r#""k{number}": """#)).collect::<Vec<_>>().join(",");
        let selector = format!(r#"{{"matchLabels": {{{labels}}}}}"#);
        let spec = format!(r#"{{"endpointSelector": {selector}, "ingress": [{{"fromEndpoints": [{selector}]}}]}}"#);
        for kind in ["CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"] {
            let text = format!(r#"{{"kind": "{kind}", "metadata": {{"name": "a"}}, "spec": {spec}}}"#);
            check_restart(&Policy::from_json(&text).expect(kind)[0], true);
        }
        // a rule that is longer, as it is written out, than a text may be
        let (namespace, peers) = ("n".repeat(253), vec!["{}"; 60_000].join(","));
        let text = format!(
            r#"{{"kind": "CiliumNetworkPolicy", "metadata": {{"name": "a", "namespace": "{namespace}"}},
                 "spec": {{"endpointSelector": {{}}, "ingress": [{{"fromEndpoints": [{peers}]}}]}}}}"#
        );
        let policy = Policy::from_json(&text).expect("short enough").remove(0);
        assert!(serde_json::to_string(&policy.rules[0]).expect("text").len() > 16 << 20);
        check_restart(&policy, true);
    }

    #[test]
    fn what_could_not_be_read_again_is_refused() {
        use crate::policy::{Peer, Rule, Section, Selector};
        let many = (0..65_537u32).map(|number| Peer::cidr(std::net::IpAddr::from(number.to_be_bytes()).into()));
        let rule = Rule::new(Selector::new()).ingress(Section::peers(many));
        let mut repository = Repository::new();
        let error = repository.replace(Policy::new("a").rule(rule)).expect_err("too many").to_string();
        assert!(error.contains("a[0]") && error.contains("ingress[0].fromCIDR: "), "{error}");
        assert_eq!((repository.revision(), repository.names().count()), (1, 0));
    }

    #[test]
    fn a_rule_that_is_none_is_refused() {
        let document =
            r#"{"revision": 2, "last_number": 1, "policies": {"a": [{"rule": {"ingress": []}, "numbers": [1]}]}}"#;
        let error = Repository::restore(serde_json::from_str(document).expect("a snapshot")).expect_err("no rule");
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
    }
}
