//! Selectors: which label sets a rule speaks of, as Kubernetes' label selectors do, with Cilium's label sources.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::identity::{RESERVED, reserved_by_name};
use crate::{Error, Label, Labels, Result};

/// The source of labels whose meaning is fixed.
const RESERVED_SOURCE: &str = "reserved";
/// The source of labels that identities have as long as some rule names their prefix.
const CIDR_SOURCE: &str = "cidr";
/// The source that stands for every source.
const ANY_SOURCE: &str = "any";

/// The most requirements one selector may have, and the most values of one requirement.
pub(super) const REQUIREMENTS_MAX: usize = 128;

/// A label's key in a selector, with the source that the label must have, or any.
///
/// Written as `source:key`; `any:key` and plain `key` take a label of any source but `cidr`. The source ends at the first colon.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SelectorKey {
    source: Option<String>,
    key: String,
}

impl SelectorKey {
    /// The key of labels from this source; `None` and `any` mean every source. Checked like those of [`Label::new`].
    pub fn new(source: Option<&str>, key: &str) -> Result<Self> {
        let source = source.filter(|source| *source != ANY_SOURCE);
        Label::new(source.unwrap_or(ANY_SOURCE), key, "")?;
        if source == Some(RESERVED_SOURCE) && key == "all" {
            let reason = "use an empty selector, or the entity all";
            return Err(Error::invalid("selector key", "reserved:all", reason));
        }
        if source == Some(CIDR_SOURCE) {
            let reason =
                "which prefixes have this label depends on other rules; select addresses with fromCIDR or toCIDR";
            return Err(Error::invalid("selector key", format!("{CIDR_SOURCE}:{key}"), reason));
        }
        if source == Some(RESERVED_SOURCE) && reserved_by_name(key).is_none() {
            let names: Vec<_> = RESERVED.iter().map(|(_, name)| *name).collect();
            let reason = format!("no reserved label, and so nobody's: those are {}", names.join(", "));
            return Err(Error::invalid("selector key", format!("{RESERVED_SOURCE}:{key}"), reason));
        }
        Ok(Self { source: source.map(str::to_owned), key: key.to_owned() })
    }

    /// The source that a label must have; `None` for any.
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// The key that a label must have.
    pub fn key(&self) -> &str {
        &self.key
    }

    fn is_of_source(&self, source: &str) -> bool {
        match &self.source {
            Some(wanted) => wanted == source,
            None => source != CIDR_SOURCE,
        }
    }

    /// The values that these labels have under the key: several where labels of several sources share it.
    fn values<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = &'a str> {
        labels.iter().filter(|label| label.key() == self.key && self.is_of_source(label.source())).map(Label::value)
    }
}

impl fmt::Display for SelectorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source.as_deref().unwrap_or(ANY_SOURCE), self.key)
    }
}

impl FromStr for SelectorKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some((source, key)) => Self::new(Some(source), key),
            None => Self::new(None, text),
        }
    }
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    /// A label with the key has one of the values.
    In,
    /// No label with the key has one of the values; without such a label it holds.
    NotIn,
    /// There is a label with the key.
    Exists,
    /// There is none.
    DoesNotExist,
}

impl Operator {
    /// Every operator.
    pub const ALL: [Self; 4] = [Self::In, Self::NotIn, Self::Exists, Self::DoesNotExist];

    /// The name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::In => "In",
            Self::NotIn => "NotIn",
            Self::Exists => "Exists",
            Self::DoesNotExist => "DoesNotExist",
        }
    }

    /// Whether a requirement with it has values: then it needs at least one, otherwise it must have none.
    pub const fn takes_values(self) -> bool {
        matches!(self, Self::In | Self::NotIn)
    }
}

/// One condition on a label set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirement {
    key: SelectorKey,
    operator: Operator,
    values: BTreeSet<String>,
}

impl Requirement {
    /// A requirement. Fails where the operator needs values and there is none, where it takes none and there is one, and for
    /// values that no label can have.
    pub fn new<S: Into<String>>(
        key: SelectorKey,
        operator: Operator,
        values: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        let values: BTreeSet<String> = values.into_iter().map(Into::into).collect();
        let field = "selector values";
        let reason = match (operator.takes_values(), values.len()) {
            (true, 0) => Some("needs at least one value".to_owned()),
            (false, 1..) => Some("takes no values".to_owned()),
            (_, count) if count > REQUIREMENTS_MAX => Some(format!("takes at most {REQUIREMENTS_MAX} values")),
            _ => None,
        };
        if let Some(reason) = reason {
            return Err(Error::invalid(field, key.to_string(), format!("{} {reason}", operator.name())));
        }
        for value in &values {
            Label::new(ANY_SOURCE, &key.key, value)?;
        }
        Ok(Self { key, operator, values })
    }

    /// The label's key.
    pub fn key(&self) -> &SelectorKey {
        &self.key
    }

    /// How it compares.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values compared with, in order; none for [`Operator::Exists`] and [`Operator::DoesNotExist`].
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(String::as_str)
    }

    /// Whether these labels meet it.
    pub fn matches(&self, labels: &Labels) -> bool {
        let mut found = self.key.values(labels);
        match self.operator {
            Operator::In => found.any(|value| self.values.contains(value)),
            Operator::NotIn => !found.any(|value| self.values.contains(value)),
            Operator::Exists => found.next().is_some(),
            Operator::DoesNotExist => found.next().is_none(),
        }
    }

    /// Whether it asks for a reserved label that no endpoint may have: all but that of endpoints without labels.
    pub(super) fn asks_for_no_endpoint(&self) -> bool {
        let is_asked = matches!(self.operator, Operator::In | Operator::Exists);
        is_asked && self.key.source() == Some(RESERVED_SOURCE) && self.key.key() != "init"
    }

    /// The one value of an equality.
    pub(super) fn equals(&self) -> Option<&str> {
        match self.operator {
            Operator::In if self.values.len() == 1 => self.values.first().map(String::as_str),
            _ => None,
        }
    }
}

/// As Kubernetes prints it: `k8s:app=web`, `any:tier in (a,b)`, `any:tier notin (c)`, `k8s:app`, `!k8s:app`.
impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(value) = self.equals() {
            return write!(f, "{}={value}", self.key);
        }
        let (before, after) = match self.operator {
            Operator::In => ("", " in "),
            Operator::NotIn => ("", " notin "),
            Operator::Exists => ("", ""),
            Operator::DoesNotExist => ("!", ""),
        };
        write!(f, "{before}{}{after}", self.key)?;
        if self.operator.takes_values() {
            let values: Vec<_> = self.values().collect();
            write!(f, "({})", values.join(","))?;
        }
        Ok(())
    }
}

/// Selects label sets: those that meet all of its requirements. Without requirements it selects every one.
///
/// Requirements are kept sorted and without repetition, and an equality is an `In` of one value, so that selectors which say
/// the same in another order are equal. Cloning shares the content.
///
/// ```
/// use podwire::policy::Selector;
/// use podwire::Labels;
///
/// let web = Selector::new().label("k8s:app=web")?;
/// assert!(web.matches(&Labels::parse(["k8s:app=web", "k8s:tier=1"])?));
/// assert!(!web.matches(&Labels::parse(["container:app=web"])?));
/// assert!(Selector::new().label("app=web")?.matches(&Labels::parse(["container:app=web"])?));
/// # Ok::<(), podwire::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector(Arc<[Requirement]>);

impl Selector {
    /// Selects everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Selects what meets all of these. Fails above 128.
    pub fn all_of(requirements: impl IntoIterator<Item = Requirement>) -> Result<Self> {
        let requirements: BTreeSet<_> = requirements.into_iter().collect();
        if requirements.len() > REQUIREMENTS_MAX {
            let reason = format!("takes at most {REQUIREMENTS_MAX} requirements");
            return Err(Error::invalid("selector", requirements.len().to_string(), reason));
        }
        Ok(Self(requirements.into_iter().collect()))
    }

    /// Also requires this label, written `source:key=value`; `any:` or no source for any source.
    pub fn label(self, label: &str) -> Result<Self> {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        self.and(Requirement::new(key.parse()?, Operator::In, [value])?)
    }

    /// Also requires a label with this key, whatever its value.
    pub fn exists(self, key: &str) -> Result<Self> {
        self.and(Requirement::new::<String>(key.parse()?, Operator::Exists, [])?)
    }

    /// Also requires this.
    pub fn and(self, requirement: Requirement) -> Result<Self> {
        Self::all_of(self.0.iter().cloned().chain([requirement]))
    }

    /// Whether it selects these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether it has no requirements and so selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its requirements, in order.
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }
}

/// The requirements with commas between them; `*` for a selector without any.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("*");
        }
        for (index, requirement) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}
