//! Labels of endpoints: `source:key=value`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The longest key: a prefix of 253 bytes, a slash, a name of 63, as Kubernetes allows.
const KEY_MAX: usize = 317;
/// The longest value; CIDR and other derived labels need more than the 63 bytes of Kubernetes.
const VALUE_MAX: usize = 255;
/// The longest source.
const SOURCE_MAX: usize = 63;
/// The most labels one endpoint may have.
const LABELS_MAX: usize = 128;
/// The source of a label that names none.
const SOURCE_UNSPECIFIED: &str = "unspec";

/// One label. Printed and parsed as `source:key=value`; an empty value leaves out the `=`, and a label without a source
/// gets the source `unspec`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label {
    source: String,
    key: String,
    value: String,
}

impl Label {
    /// A label of its three parts, each checked for length and characters.
    pub fn new(source: &str, key: &str, value: &str) -> Result<Self> {
        let of_source = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        part("label source", source, SOURCE_MAX, "letters, digits, '-', '_' and '.'", of_source)?;
        let of_key = |c: char| c.is_ascii_graphic() && !matches!(c, '=' | ',');
        part("label key", key, KEY_MAX, "printable ASCII without spaces, '=' and ','", of_key)?;
        if !value.is_empty() {
            let of_value = |c: char| c.is_ascii_graphic() && c != ',';
            part("label value", value, VALUE_MAX, "printable ASCII without spaces and ','", of_value)?;
        }
        Ok(Self { source: source.to_owned(), key: key.to_owned(), value: value.to_owned() })
    }

    /// Who gave the label: `k8s`, `reserved`, `cidr`, ….
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value; may be empty.
    pub fn value(&self) -> &str {
        &self.value
    }
}

fn part(what: &'static str, text: &str, longest: usize, expected: &str, allowed: impl Fn(char) -> bool) -> Result<()> {
    if text.is_empty() || text.len() > longest {
        let shown: String = text.chars().take(64).collect();
        return Err(Error::invalid(what, shown, format!("must have 1 to {longest} characters, has {}", text.len())));
    }
    match text.chars().find(|&c| !allowed(c)) {
        Some(c) => Err(Error::invalid(what, text, format!("{c:?} is not allowed here, only {expected}"))),
        None => Ok(()),
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.key)?;
        if self.value.is_empty() { Ok(()) } else { write!(f, "={}", self.value) }
    }
}

impl FromStr for Label {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let (source, key) = name.split_once(':').unwrap_or((SOURCE_UNSPECIFIED, name));
        Self::new(source, key, value)
    }
}

impl TryFrom<String> for Label {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.to_string()
    }
}

/// A set of labels, sorted, at most one per source and key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Vec<Label>")]
pub struct Labels(BTreeSet<Label>);

impl Labels {
    /// No labels.
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses each text as a label. A later label replaces an earlier one of the same source and key.
    pub fn parse<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Result<Self> {
        Self::collect(texts.into_iter().map(|text| text.as_ref().parse()).collect::<Result<Vec<_>>>()?)
    }

    /// Collects labels. A later one replaces an earlier one of the same source and key. Fails when there are more than 128.
    pub fn collect(labels: impl IntoIterator<Item = Label>) -> Result<Self> {
        let mut collected = Self::new();
        for label in labels {
            collected.insert(label)?;
        }
        Ok(collected)
    }

    /// Adds a label in place of one with the same source and key. Fails when there are 128 already.
    pub fn insert(&mut self, label: Label) -> Result<()> {
        self.0.retain(|old| (&old.source, &old.key) != (&label.source, &label.key));
        if self.0.len() >= LABELS_MAX {
            return Err(Error::invalid("labels", label.to_string(), format!("an endpoint has at most {LABELS_MAX}")));
        }
        self.0.insert(label);
        Ok(())
    }

    /// Removes the label with this source and key, whatever its value; tells whether there was one.
    pub fn remove(&mut self, source: &str, key: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|old| old.source != source || old.key != key);
        self.0.len() != before
    }

    /// The value of the label with this source and key; empty where the label has none.
    pub fn value(&self, source: &str, key: &str) -> Option<&str> {
        self.iter().find(|label| label.source == source && label.key == key).map(Label::value)
    }

    /// The labels in order.
    pub fn iter(&self) -> impl Iterator<Item = &Label> {
        self.0.iter()
    }

    /// Whether this very label is among them.
    pub fn contains(&self, label: &Label) -> bool {
        self.0.contains(label)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl TryFrom<Vec<Label>> for Labels {
    type Error = Error;

    fn try_from(labels: Vec<Label>) -> Result<Self> {
        Self::collect(labels)
    }
}

/// The labels in order, separated by commas, which none of them contains.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, label) in self.iter().enumerate() {
            write!(f, "{}{label}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_printing() {
        let label: Label = "k8s:app.kubernetes.io/name=web:8080=x".parse().expect("valid");
        assert_eq!((label.source(), label.key(), label.value()), ("k8s", "app.kubernetes.io/name", "web:8080=x"));
        assert_eq!(label.to_string(), "k8s:app.kubernetes.io/name=web:8080=x");
        assert_eq!("app".parse::<Label>().expect("valid").to_string(), "unspec:app");
    }

    #[test]
    fn malformed_labels_are_refused() {
        for bad in ["", ":", "k8s:", ":app", "k8s:a b=c", "k8s:app=a,b", "k8s:app=\n", "k!s:app"] {
            assert!(bad.parse::<Label>().is_err(), "{bad:?} was accepted");
        }
        assert!(format!("k8s:{}", "a".repeat(KEY_MAX + 1)).parse::<Label>().is_err());
        assert!(format!("k8s:a={}", "v".repeat(VALUE_MAX + 1)).parse::<Label>().is_err());
    }

    proptest::proptest! {
        /// Whatever the text, it is refused or comes back as it is printed.
        #[test]
        fn any_text_is_a_label_or_refused(text in proptest::prop_oneof![".*", "[a-z:=,/ -]{0,12}", "k8s:\\PC{0,20}"]) {
            match text.parse::<Label>() {
                Ok(label) => {
                    let printed = label.to_string();
                    proptest::prop_assert!(printed.chars().all(|c| c.is_ascii_graphic() && c != ','), "{}", printed);
                    proptest::prop_assert_eq!(printed.parse::<Label>().expect("printed by itself"), label);
                }
                Err(error) => proptest::prop_assert_eq!(error.kind(), crate::ErrorKind::InvalidInput),
            }
        }
    }

    #[test]
    fn sets_are_bounded_wherever_they_come_from() {
        let read = |texts: &[String]| serde_json::from_value::<Labels>(serde_json::json!(texts));
        let texts: Vec<_> = (0..=LABELS_MAX).map(|n| format!("k8s:key{n}")).collect();
        assert_eq!(read(&texts[1..]).expect("as many as allowed").len(), LABELS_MAX);
        read(&texts).expect_err("one more than allowed");
        let twice = ["k8s:b=1", "k8s:a", "k8s:b=2"].map(str::to_owned);
        let labels = read(&twice).expect("two of one key");
        assert_eq!((labels.to_string().as_str(), labels.value("k8s", "b")), ("k8s:a,k8s:b=2", Some("2")));
        assert_eq!((labels.value("k8s", "a"), labels.value("any", "a")), (Some(""), None));
        assert_eq!(serde_json::to_value(&labels).expect("text"), serde_json::json!(["k8s:a", "k8s:b=2"]));
    }

    #[test]
    fn one_label_per_key_and_a_bound() {
        let mut labels = Labels::parse(["k8s:app=a", "k8s:app=b"]).expect("valid");
        assert_eq!(labels.iter().map(Label::to_string).collect::<Vec<_>>(), ["k8s:app=b"]);
        assert!(labels.remove("k8s", "app") && !labels.remove("k8s", "app"));
        let many = (0..LABELS_MAX).map(|n| format!("k8s:key{n}"));
        let mut labels = Labels::parse(many).expect("as many as allowed");
        assert!(labels.insert("k8s:more".parse().expect("valid")).is_err());
        assert!(labels.insert("k8s:key0=new".parse().expect("valid")).is_ok());
    }
}
