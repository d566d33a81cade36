//! Policies as documents: YAML and JSON in the shape that users of Cilium write.
//!
//! A text is read whole or refused whole, with everything that is wrong with it: what is unknown, and what Cilium would
//! enforce and podwire does not, is refused by name rather than ignored.

mod node;
mod object;
mod peers;
mod ports;
mod reader;
mod rule;
mod write;

use std::collections::HashSet;

use serde::Deserialize;

use super::{Policy, Rule};
use crate::{DocumentProblem, Error, Result, shortened, shortened_words};
use node::Node;
use object::Scope;
use reader::Reader;

/// The longest text.
const TEXT_MAX: usize = 16 << 20;
/// The most rules of one text.
const RULES_MAX: usize = 65_536;
/// The deepest nesting of YAML; JSON may be nested as deep as serde_json allows (127). A policy needs 12.
#[cfg(feature = "yaml")]
const DEPTH_MAX: usize = 64;

impl Policy {
    /// Reads policies from JSON: a rule, a CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy, a Kubernetes list of those, or an
    /// array of any of them. Bare rules make one policy without a name, the last in the answer.
    ///
    /// Fails with [`Error::InvalidDocument`], which has every problem with the path of its field, and then returns nothing
    /// of the text. Texts above 16 MiB and above 65,536 rules are refused.
    pub fn from_json(text: &str) -> Result<Vec<Self>> {
        within_size(text)?;
        let node: Node = serde_json::from_str(text).map_err(|error| malformed(&error))?;
        policies(std::slice::from_ref(&node))
    }

    /// Reads policies from YAML: one or several documents, each what [`Policy::from_json`] takes. Fails like that.
    ///
    /// Anchors, aliases and merge keys are resolved, within bounds. Text that YAML takes for a number or for true or false
    /// has to be quoted, except for ports.
    #[cfg(feature = "yaml")]
    pub fn from_yaml(text: &str) -> Result<Vec<Self>> {
        within_size(text)?;
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_depth: DEPTH_MAX,
                flow_nesting_limit: DEPTH_MAX,
                max_events: 8_000_000,
                max_nodes: 4_000_000,
                max_documents: RULES_MAX,
            },
            // found and named where JSON's are
            duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
            // as YAML 1.2 and Kubernetes' own reader of JSON have it: `on` and `yes` are text
            strict_booleans: true,
            leading_zero_numbers_as_strings: true,
            underscored_numbers_as_strings: true,
            reject_unsupported_tags: true,
            with_snippet: false,
        };
        let nodes: Vec<Node> =
            serde_saphyr::from_multiple_with_options(text, options).map_err(|error| malformed(&error))?;
        policies(&nodes)
    }
}

impl Rule {
    /// The rule as JSON, in the shape that [`Policy::from_json`] reads. Reading it gives a rule of the same meaning, and of
    /// the same JSON.
    pub fn to_json(&self) -> serde_json::Value {
        write::rule(self)
    }
}

/// The rule as JSON for the state directory, section by section: so that [`read_stored`] gives back as many, which have
/// numbers.
pub(super) fn stored(rule: &Rule) -> serde_json::Value {
    write::stored(rule)
}

/// What [`stored`] made JSON of. It may be longer than a text: that of a whole document is bounded.
pub(super) fn read_stored(value: &serde_json::Value) -> Result<Rule> {
    let node = Node::deserialize(value).map_err(|error| malformed(&error))?;
    let mut reader = Reader::default();
    match rule::read(&mut reader, &node, &Scope::Stored) {
        Some(rule) if reader.is_clean() => Ok(rule),
        _ => Err(refused(reader.into_problems())),
    }
}

impl serde::Serialize for Rule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

/// The error for these problems.
fn refused(problems: Vec<DocumentProblem>) -> Error {
    Error::InvalidDocument { document: "policy", problems }
}

fn malformed(error: &dyn std::error::Error) -> Error {
    let reason = shortened_words(&error.to_string());
    refused(vec![DocumentProblem { path: String::new(), value: String::new(), reason }])
}

fn within_size(text: &str) -> Result<()> {
    if text.len() <= TEXT_MAX {
        return Ok(());
    }
    let reason = format!("has {} bytes, at most {TEXT_MAX} are allowed", text.len());
    Err(refused(vec![DocumentProblem { path: String::new(), value: String::new(), reason }]))
}

/// The policies of these documents.
fn policies(documents: &[Node]) -> Result<Vec<Policy>> {
    let mut found = Found::default();
    let mut reader = Reader::default();
    for (index, document) in documents.iter().enumerate() {
        if documents.len() == 1 {
            found.read(&mut reader, document);
        } else {
            reader.document(index + 1, |reader| found.read(reader, document));
        }
    }
    if reader.is_clean() && found.named.is_empty() && found.bare.rules.is_empty() {
        reader.problem(String::new(), "has no policy and no rule");
    }
    if !reader.is_clean() {
        return Err(refused(reader.into_problems()));
    }
    let bare = Some(found.bare).filter(|policy| !policy.rules.is_empty());
    Ok(found.named.into_iter().chain(bare).collect())
}

/// What was read so far.
struct Found {
    named: Vec<Policy>,
    names: HashSet<String>,
    /// Rules of no policy.
    bare: Policy,
    rules: usize,
}

impl Default for Found {
    fn default() -> Self {
        Self { named: Vec::new(), names: HashSet::new(), bare: Policy::new(""), rules: 0 }
    }
}

impl Found {
    /// Reads a document: a list of rules and objects, or one.
    fn read(&mut self, reader: &mut Reader, document: &Node) {
        match document {
            Node::List(_) => {
                reader.list(document, |reader, item| {
                    self.read_one(reader, item);
                    Some(())
                });
            }
            other => self.read_one(reader, other),
        }
    }

    fn read_one(&mut self, reader: &mut Reader, node: &Node) {
        match node {
            Node::Map(fields) if fields.iter().any(|(name, _)| object::is_list_field(name)) => {
                if let Some(items) = object::items(reader, node) {
                    reader.items(items, |reader, item| {
                        self.read_object(reader, item);
                        Some(())
                    });
                }
            }
            Node::Map(fields) if fields.iter().any(|(name, _)| object::is_object_field(name)) => {
                self.read_object(reader, node);
            }
            _ => {
                if let Some(rule) = rule::read(reader, node, &Scope::Bare) {
                    self.count(reader, 1);
                    self.bare.rules.push(rule);
                }
            }
        }
    }

    fn read_object(&mut self, reader: &mut Reader, node: &Node) {
        let Some(policy) = object::read(reader, node) else { return };
        self.count(reader, policy.rules.len());
        if !self.names.insert(policy.name.clone()) {
            reader.problem(format!("{:?}", shortened(&policy.name)), "a policy of this name was there already");
        }
        self.named.push(policy);
    }

    fn count(&mut self, reader: &mut Reader, rules: usize) {
        let before = self.rules;
        self.rules += rules;
        if before <= RULES_MAX && self.rules > RULES_MAX {
            reader.problem(String::new(), format!("more than {RULES_MAX} rules"));
        }
    }
}
