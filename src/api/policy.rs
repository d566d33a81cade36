//! Policies and their selectors.

use serde::{Deserialize, Serialize};

use super::text::{is_zero, null_as_default, optional};

/// The rules in force; answer to `GET`, `PUT` and `DELETE /v1/policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// A list of rules, as JSON in a text.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// How often the rules changed, plus 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub revision: u64,
    /// What rules in force say in vain, in words: names of ports that an endpoint does not have. Podwire's own.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub warnings: Vec<String>,
}

/// A selector of rules in force, and whom it selects; `GET /v1/policy/selectors` and `/v1/policy/subject-selectors` have lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelectorIdentityMapping {
    /// The identities selected.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub identities: Vec<u32>,
    /// Labels of the rules that use it, where the agent tells them.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub labels: Vec<PolicyLabel>,
    /// The selector as text.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// How often rules use it.
    #[serde(skip_serializing_if = "is_zero")]
    pub users: u64,
}

/// A rule's label in its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyLabel {
    /// Its key.
    pub key: String,
    /// Who gave it.
    pub source: String,
    /// Its value.
    pub value: String,
}

/// A rule in force with the number by which map entries, connections and verdicts name it; `GET /v1/policy/rules`, a path of our
/// own, has a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NumberedRule {
    /// The number.
    pub number: u32,
    /// Where it stands: `default/web[0].ingress[1]` is the second `ingress` item of the first rule of the policy `default/web`.
    pub name: String,
    /// The rule's labels, as `source:key=value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub labels: Vec<String>,
    /// The rule's description.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}
