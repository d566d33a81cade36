//! Policies in force as the API shows them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::api::{
    Endpoint, EndpointHealth, EndpointPolicy, EndpointPolicyEnabled, EndpointPolicyStatus, L4Policy, NumberedRule,
    Policy, PolicyLabel, PolicyRule, SelectorIdentityMapping,
};
use crate::endpoint;
use crate::enforcement::{Enforcement, PolicyRows, RealizedPolicy, SelectorInUse};
use crate::policy::{RuleNumber, RuleSource};
use crate::tables::{PolicyAction, PolicyDirection, PolicyL4, PolicyMatch, PolicyVerdict};
use crate::{Datapath, EndpointId, Label, Labels, Result, SecurityId};

impl Policy {
    /// The rules in force that have these labels, with the revision; `None` if none of them has, and labels were given. Each
    /// rule has the shape in which documents are read.
    pub fn of(enforcement: &Enforcement, labels: &Labels) -> Result<Option<Self>> {
        let policies = enforcement.policies();
        let rules = policies.iter().flat_map(|policy| &policy.rules);
        let wanted = rules.filter(|rule| labels.iter().all(|label| rule.labels.contains(label)));
        let rules: Vec<Value> = wanted.map(crate::policy::Rule::to_json).collect();
        if rules.is_empty() && !labels.is_empty() {
            return Ok(None);
        }
        let policy = Some(format!("{:#}", Value::from(rules)));
        let unnamed = enforcement.unnamed_ports().into_iter().map(|port| port.to_string());
        let warnings = policies.iter().flat_map(crate::policy::Policy::warnings).chain(unnamed).collect();
        Ok(Some(Self { policy, revision: enforcement.revision(), warnings }))
    }
}

impl NumberedRule {
    /// The rules in force, by number.
    pub fn all(enforcement: &Enforcement) -> Vec<Self> {
        let numbered = |(number, source): (RuleNumber, RuleSource)| Self {
            number: number.get(),
            name: source.to_string(),
            labels: source.labels.iter().map(ToString::to_string).collect(),
            description: Some(source.description).filter(|text| !text.is_empty()),
        };
        enforcement.sources().into_iter().map(numbered).collect()
    }
}

impl SelectorIdentityMapping {
    /// The selectors of peers in use.
    pub fn peers(enforcement: &Enforcement) -> Vec<Self> {
        enforcement.selectors().into_iter().map(Self::from).collect()
    }

    /// The selectors of the endpoints that rules are about.
    pub fn subjects(enforcement: &Enforcement) -> Vec<Self> {
        enforcement.subject_selectors().into_iter().map(Self::from).collect()
    }
}

impl From<SelectorInUse> for SelectorIdentityMapping {
    fn from(selector: SelectorInUse) -> Self {
        Self {
            identities: selector.identities.iter().map(|identity| identity.get()).collect(),
            labels: Vec::new(),
            selector: Some(selector.peer.to_string()),
            users: selector.users as u64,
        }
    }
}

impl From<&Label> for PolicyLabel {
    fn from(label: &Label) -> Self {
        Self { key: label.key().to_owned(), source: label.source().to_owned(), value: label.value().to_owned() }
    }
}

impl Endpoint {
    /// An endpoint with the policy that is in force for it, and whether its device carries packets.
    pub fn of(datapath: &Datapath, endpoint: &endpoint::Endpoint) -> Self {
        let mut shown = Self::from(endpoint);
        let audited = endpoint.record.audit || datapath.policy_audit();
        if let Some(status) = &mut shown.status {
            let realized = datapath.policy().realized(endpoint.id());
            let fault = realized.and_then(|realized| realized.error);
            let warnings = warnings(datapath, endpoint.id());
            let health = EndpointHealth::new(endpoint.state, &[], fault.as_deref(), &warnings);
            let unconnected = datapath.endpoints().unconnected(endpoint.id());
            status.health = Some(health.unconnected(unconnected.ok().flatten()));
            status.policy = policy(datapath.policy(), endpoint, audited);
        }
        shown
    }
}

/// What is not as rules want it at an endpoint, in words.
fn warnings(datapath: &Datapath, endpoint: EndpointId) -> Vec<String> {
    datapath.policy().unnamed_ports_of(endpoint).iter().map(ToString::to_string).collect()
}

fn policy(enforcement: &Enforcement, endpoint: &endpoint::Endpoint, audited: bool) -> Option<EndpointPolicyStatus> {
    let realized = enforcement.realized(endpoint.id())?;
    let rows = enforcement.writer().rows(endpoint.id()).unwrap_or_default();
    let peers = |direction, action| identities(&rows, direction, action);
    let policy = EndpointPolicy {
        allowed_egress_identities: peers(PolicyDirection::Egress, PolicyAction::Allow),
        allowed_ingress_identities: peers(PolicyDirection::Ingress, PolicyAction::Allow),
        denied_egress_identities: peers(PolicyDirection::Egress, PolicyAction::Deny),
        denied_ingress_identities: peers(PolicyDirection::Ingress, PolicyAction::Deny),
        build: 0,
        id: realized.identity.get(),
        l4: Some(L4Policy {
            egress: with_ports(enforcement, &rows, PolicyDirection::Egress),
            ingress: with_ports(enforcement, &rows, PolicyDirection::Ingress),
        }),
        policy_enabled: Some(enabled(&realized, audited)),
        policy_revision: realized.revision,
    };
    Some(EndpointPolicyStatus { realized: Some(policy.clone()), spec: Some(policy), ..EndpointPolicyStatus::default() })
}

fn enabled(realized: &RealizedPolicy, audited: bool) -> EndpointPolicyEnabled {
    use EndpointPolicyEnabled::{AuditBoth, AuditEgress, AuditIngress, Both, Egress, Ingress, None};
    match (realized.ingress, realized.egress, audited) {
        (false, false, _) => None,
        (true, false, false) => Ingress,
        (false, true, false) => Egress,
        (true, true, false) => Both,
        (true, false, true) => AuditIngress,
        (false, true, true) => AuditEgress,
        (true, true, true) => AuditBoth,
    }
}

/// The identities with which all traffic is allowed, or denied: `[0]` for everybody, nothing for nobody.
fn identities(rows: &PolicyRows, direction: PolicyDirection, action: PolicyAction) -> Option<Vec<u32>> {
    let of_all_traffic = |(matched, verdict): &&(PolicyMatch, PolicyVerdict)| {
        matched.direction == direction && matched.l4 == PolicyL4::Any && verdict.action == action
    };
    let identities: Vec<_> = rows.iter().filter(of_all_traffic).map(|(matched, _)| matched.identity.get()).collect();
    match identities.contains(&SecurityId::UNKNOWN.get()) {
        true => Some(vec![SecurityId::UNKNOWN.get()]),
        false => (!identities.is_empty()).then_some(identities),
    }
}

/// The protocols and ports that a direction's entries allow, each with the labels of the rules that do.
fn with_ports(enforcement: &Enforcement, rows: &PolicyRows, direction: PolicyDirection) -> Vec<PolicyRule> {
    let mut rules: BTreeMap<PolicyL4, BTreeSet<u32>> = BTreeMap::new();
    for (matched, verdict) in rows.iter() {
        let allows = verdict.action != PolicyAction::Deny;
        if matched.direction == direction && matched.l4 != PolicyL4::Any && allows {
            rules.entry(matched.l4).or_default().insert(verdict.cookie);
        }
    }
    rules.into_iter().map(|(l4, numbers)| port_rule(enforcement, l4, &numbers)).collect()
}

fn port_rule(enforcement: &Enforcement, l4: PolicyL4, numbers: &BTreeSet<u32>) -> PolicyRule {
    let sources = numbers.iter().filter_map(|number| enforcement.source(RuleNumber::new(*number)));
    let labels: BTreeSet<Vec<String>> =
        sources.map(|source| source.labels.iter().map(ToString::to_string).collect()).collect();
    PolicyRule {
        derived_from_rules: labels.into_iter().collect(),
        rule: Some(port_text(l4)),
        rules_by_selector: BTreeMap::new(),
    }
}

fn port_text(l4: PolicyL4) -> String {
    match l4 {
        PolicyL4::Any => json!({"protocol": "ANY"}),
        PolicyL4::Ports(protocol, ports) if ports.bits() == 0 => json!({"protocol": protocol.to_string()}),
        PolicyL4::Ports(protocol, ports) if ports.port() == ports.last() => {
            json!({"port": ports.port(), "protocol": protocol.to_string()})
        }
        PolicyL4::Ports(protocol, ports) => {
            json!({"port": ports.port(), "end-port": ports.last(), "protocol": protocol.to_string()})
        }
    }
    .to_string()
}
