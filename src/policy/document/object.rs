//! CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy: a name, a namespace, and rules within its scope.

use super::super::selector::REQUIREMENTS_MAX;
use super::super::{Operator, Policy, Requirement, Selector, SelectorKey};
use super::node::Node;
use super::reader::{Fields, Object, Reader};
use super::rule;
use crate::{Label, Labels};

/// What Kubernetes calls the resources.
const NAMESPACED: &str = "CiliumNetworkPolicy";
const CLUSTERWIDE: &str = "CiliumClusterwideNetworkPolicy";
/// Their lists, as a client gets them.
const LISTS: [&str; 3] = ["List", "CiliumNetworkPolicyList", "CiliumClusterwideNetworkPolicyList"];
/// Their group and version.
const API_VERSION: &str = "cilium.io/v2";

/// The label with a pod's namespace.
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Labels of a pod's namespace begin with this.
const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";
/// Where a rule comes from: labels that a rule gets from its object.
const DERIVED_FROM: &str = "io.cilium.k8s.policy.derived-from";
const POLICY_NAME: &str = "io.cilium.k8s.policy.name";
const POLICY_NAMESPACE: &str = "io.cilium.k8s.policy.namespace";
const POLICY_UID: &str = "io.cilium.k8s.policy.uid";

/// `status` is the cluster's answer, not part of the policy.
const OBJECT: Fields =
    Fields { known: &["apiVersion", "kind", "metadata", "spec", "specs", "status"], unsupported: &[] };
const LIST: Fields = Fields { known: &["apiVersion", "kind", "metadata", "items"], unsupported: &[] };
/// Kubernetes' ObjectMeta; only name, namespace and uid mean something here.
const METADATA: Fields = Fields {
    known: &[
        "name",
        "namespace",
        "uid",
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
    ],
    unsupported: &[],
};

/// Where a rule's selectors look.
pub(super) enum Scope {
    /// Everywhere, as written.
    Bare,
    /// The same, for rules that were read or made before and written by [`stored`](super::write::stored): their sections
    /// have together what documents keep apart.
    Stored,
    /// In one namespace, unless a selector of peers names another.
    Namespace(String),
    /// In every namespace: peers are pods, unless a selector says otherwise.
    Cluster,
}

impl Scope {
    /// How many requirements a selector may have as it is written: an object's scope adds one.
    pub(super) fn requirements_max(&self) -> usize {
        match self {
            Self::Bare | Self::Stored => REQUIREMENTS_MAX,
            Self::Namespace(_) | Self::Cluster => REQUIREMENTS_MAX - 1,
        }
    }

    /// The selector of a rule's subject. A rule of a namespace never reaches beyond it.
    pub(super) fn subject(&self, reader: &mut Reader, node: &Node, selector: Selector) -> Option<Selector> {
        let Self::Namespace(namespace) = self else { return Some(selector) };
        let other = selector.requirements().iter().find(|requirement| {
            requirement.key().source() == Some("k8s")
                && requirement.key().key() == POD_NAMESPACE
                && requirement.equals() != Some(namespace)
        });
        if other.is_some() {
            let reason = format!("a policy of the namespace {namespace} selects endpoints of that namespace only");
            return reader.refuse(node, reason);
        }
        Some(with(selector, Operator::In, Some(namespace)))
    }

    /// The selector of a rule's peers, where `init` says that the rule is about endpoints without labels (which have no
    /// namespace either).
    pub(super) fn peers(&self, selector: Selector, init: bool) -> Selector {
        let has = |matches: &dyn Fn(&SelectorKey) -> bool| selector.requirements().iter().any(|r| matches(r.key()));
        let k8s_or_any = |key: &SelectorKey| matches!(key.source(), None | Some("k8s"));
        if has(&|key| key.source() == Some("reserved")) || has(&|key| k8s_or_any(key) && key.key() == POD_NAMESPACE) {
            return selector;
        }
        match self {
            Self::Bare | Self::Stored => selector,
            Self::Cluster if init => selector,
            Self::Cluster => with(selector, Operator::Exists, None),
            Self::Namespace(_) if has(&|key| k8s_or_any(key) && key.key().starts_with(NAMESPACE_LABELS)) => selector,
            Self::Namespace(namespace) => with(selector, Operator::In, Some(namespace)),
        }
    }
}

/// The selector with one more requirement on the pod's namespace.
fn with(selector: Selector, operator: Operator, namespace: Option<&str>) -> Selector {
    let wanted = SelectorKey::new(Some("k8s"), POD_NAMESPACE)
        .and_then(|key| Requirement::new(key, operator, namespace))
        .and_then(|requirement| selector.clone().and(requirement));
    // the key is valid, the namespace was checked, and `requirements_max` leaves room for it
    wanted.unwrap_or(selector)
}

/// Whether this field says that an object of Kubernetes stands here, rather than a rule.
pub(super) fn is_object_field(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata" | "spec" | "specs")
}

/// Whether this field says that a list of objects stands here.
pub(super) fn is_list_field(name: &str) -> bool {
    name == "items"
}

/// The items of a list of objects.
pub(super) fn items<'n>(reader: &mut Reader, node: &'n Node) -> Option<Object<'n>> {
    let list = reader.object(node, &LIST)?;
    kind(reader, list, &LISTS)?;
    Some(list)
}

/// A policy object.
pub(super) fn read(reader: &mut Reader, node: &Node) -> Option<Policy> {
    let object = reader.object(node, &OBJECT)?;
    let kind = kind(reader, object, &[NAMESPACED, CLUSTERWIDE]);
    reader.field(object, "apiVersion", |reader, node| match reader.text(node)? {
        API_VERSION => Some(()),
        _ => reader.refuse(node, format!("not {API_VERSION}")),
    });
    let origin = metadata(reader, object, kind?);
    // the rules are read whatever became of the metadata, so that one sees all that is wrong with them
    let scope = match origin.as_ref().map(|origin| &origin.namespace) {
        Some(Some(namespace)) => Scope::Namespace(namespace.clone()),
        Some(None) => Scope::Cluster,
        None => Scope::Bare,
    };
    let spec = reader.field(object, "spec", |reader, node| rule::read(reader, node, &scope));
    let specs = reader
        .field(object, "specs", |reader, node| reader.list(node, |reader, node| rule::read(reader, node, &scope)));
    if object.get("spec").is_none()
        && object.get("specs").is_none_or(|specs| matches!(specs, Node::List(list) if list.is_empty()))
    {
        reader.required(object, "spec");
    }
    let origin = origin?;
    let mut policy = Policy::new(origin.full_name());
    policy.rules = spec.into_iter().chain(specs.into_iter().flatten()).collect();
    for rule in &mut policy.rules {
        for label in origin.labels.iter() {
            if let Err(error) = rule.labels.insert(label.clone()) {
                reader.problem(String::new(), error.to_string());
                return None;
            }
        }
    }
    Some(policy)
}

fn kind<'n>(reader: &mut Reader, object: Object<'n>, allowed: &[&str]) -> Option<&'n str> {
    reader.required(object, "kind")?;
    reader.field(object, "kind", |reader, node| {
        let kind = reader.text(node)?;
        if allowed.contains(&kind) {
            Some(kind)
        } else {
            reader.refuse(node, format!("not one of {}", allowed.join(", ")))
        }
    })
}

/// What an object's rules have from it.
struct Origin {
    name: String,
    /// None for a clusterwide policy.
    namespace: Option<String>,
    labels: Labels,
}

impl Origin {
    fn full_name(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

fn metadata(reader: &mut Reader, object: Object<'_>, kind: &str) -> Option<Origin> {
    reader.required(object, "metadata")?;
    reader.field(object, "metadata", |reader, node| {
        let metadata = reader.object(node, &METADATA)?;
        reader.required(metadata, "name");
        let name = reader.field(metadata, "name", valid_name);
        let namespace = reader.field(metadata, "namespace", name_or_clusterwide(kind));
        let uid = reader.field(metadata, "uid", valid_name);
        if !reader.is_clean() {
            return None;
        }
        let name = name?.to_owned();
        // Kubernetes puts what names no namespace into this one
        let namespace = (kind == NAMESPACED).then(|| namespace.unwrap_or("default").to_owned());
        let labels = labels(kind, &name, namespace.as_deref(), uid);
        match labels {
            Ok(labels) => Some(Origin { name, namespace, labels }),
            Err(error) => {
                reader.problem(String::new(), error.to_string());
                None
            }
        }
    })
}

/// The labels that tell a rule's object.
fn labels(kind: &str, name: &str, namespace: Option<&str>, uid: Option<&str>) -> crate::Result<Labels> {
    let given =
        [(DERIVED_FROM, Some(kind)), (POLICY_NAME, Some(name)), (POLICY_NAMESPACE, namespace), (POLICY_UID, uid)];
    let mut labels = Labels::new();
    for (key, value) in given.into_iter().filter_map(|(key, value)| Some((key, value?))) {
        labels.insert(Label::new("k8s", key, value)?)?;
    }
    Ok(labels)
}

/// A name as Kubernetes allows it (a DNS subdomain, RFC 1123).
fn valid_name<'n>(reader: &mut Reader, node: &'n Node) -> Option<&'n str> {
    let name = reader.text(node)?;
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    if bytes.len() <= 253 && bytes.iter().all(|byte| legal(*byte)) && ends(bytes.first()) && ends(bytes.last()) {
        return Some(name);
    }
    reader.refuse(
        node,
        "a name has 1 to 253 lower-case letters, digits, dashes and dots, and begins and ends with one of the former",
    )
}

fn name_or_clusterwide<'n>(kind: &str) -> impl FnOnce(&mut Reader, &'n Node) -> Option<&'n str> {
    let clusterwide = kind == CLUSTERWIDE;
    move |reader, node| {
        if clusterwide {
            reader.refuse(node, format!("a {CLUSTERWIDE} is in no namespace"))
        } else {
            valid_name(reader, node)
        }
    }
}
