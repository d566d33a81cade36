//! What a policy map holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::tables::{PolicyMatch, PolicyVerdict};

/// The entries of one endpoint's policy: sorted, each match once. Cloning it is cheap, and endpoints may share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRows(Arc<[(PolicyMatch, PolicyVerdict)]>);

impl PolicyRows {
    /// These entries; of several with the same match the last one.
    pub fn new(entries: impl IntoIterator<Item = (PolicyMatch, PolicyVerdict)>) -> Self {
        let entries: Vec<_> = entries.into_iter().collect();
        // As a rule they come from a compiler, sorted.
        if entries.is_sorted_by(|(before, _), (after, _)| before < after) {
            return Self(entries.into());
        }
        Self(entries.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect())
    }

    /// The entries in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &(PolicyMatch, PolicyVerdict)> {
        self.0.iter()
    }

    /// The entries as a slice.
    pub fn as_slice(&self) -> &[(PolicyMatch, PolicyVerdict)] {
        &self.0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none: such a policy denies everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for PolicyRows {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl FromIterator<(PolicyMatch, PolicyVerdict)> for PolicyRows {
    fn from_iter<T: IntoIterator<Item = (PolicyMatch, PolicyVerdict)>>(entries: T) -> Self {
        Self::new(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecurityId;
    use crate::tables::{PolicyAction, PolicyDirection, PolicyL4};

    #[test]
    fn sorted_and_each_match_once() {
        let entry = |identity, cookie| {
            let matched = PolicyMatch {
                direction: PolicyDirection::Ingress,
                identity: SecurityId::new(identity),
                l4: PolicyL4::Any,
            };
            (matched, PolicyVerdict { cookie, ..PolicyVerdict::new(PolicyAction::Allow, 0) })
        };
        let rows = PolicyRows::new([entry(3, 1), entry(1, 2), entry(3, 3)]);
        assert_eq!(rows.as_slice(), [entry(1, 2), entry(3, 3)]);
        assert_eq!(rows, PolicyRows::new([entry(1, 2), entry(3, 3)]));
        assert!(PolicyRows::default().is_empty());
    }
}
