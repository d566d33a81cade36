//! The policies in force as a document: with the numbers of their rules, which map entries and connections name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Repository;
use crate::policy::{Policy, Rule, RuleNumber};
use crate::{Error, Result};

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
                rule: lowered.rule.to_json(),
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
                let rule = only_rule(&rule)?;
                rules.push(repository.lower(&name, index, rule, numbers.into_iter()));
            }
            repository.policies.insert(name, rules);
        }
        Ok(repository)
    }
}

fn only_rule(document: &serde_json::Value) -> Result<Rule> {
    let text = document.to_string();
    let mut rules = Policy::from_json(&text)?.into_iter().flat_map(|policy| policy.rules);
    match (rules.next(), rules.next()) {
        (Some(rule), None) => Ok(rule),
        _ => Err(Error::invalid("stored rule", text, "is not one rule")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_rule_that_is_none_is_refused() {
        let document =
            r#"{"revision": 2, "last_number": 1, "policies": {"a": [{"rule": {"ingress": []}, "numbers": [1]}]}}"#;
        let error = Repository::restore(serde_json::from_str(document).expect("a snapshot")).expect_err("no rule");
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
    }
}
