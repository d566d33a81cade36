//! Changes that need no swap: those about identities that no address is mapped to.
//!
//! A program asks a policy for the identity of a packet's peer and for any peer. While no address is mapped to an identity, no
//! program asks for it, and entries about it can come and go one by one: whatever packets there are see the same policy
//! before, meanwhile and after. So an identity that comes, or one that has expired, costs each policy a few entries instead of a new map.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::rows::PolicyRows;
use crate::tables::{PolicyMap, PolicyMatch, PolicyVerdict};
use crate::{Result, SecurityId};

/// The entries by which two policies differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Patch {
    written: Vec<(PolicyMatch, PolicyVerdict)>,
    removed: Vec<PolicyMatch>,
}

impl Patch {
    /// What leads from one policy to another; `None` where they differ in entries about other identities than these.
    pub(super) fn between(before: &PolicyRows, after: &PolicyRows, unmapped: &BTreeSet<SecurityId>) -> Option<Self> {
        if unmapped.is_empty() {
            return None;
        }
        let mut patch = Self::default();
        let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Some(patch),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((gone, _)), Some((come, _))) => gone.cmp(come),
            };
            let gone = if order.is_le() { old.next() } else { None };
            let come = if order.is_ge() { new.next() } else { None };
            if gone == come {
                continue;
            }
            let matched = come.or(gone).map(|(matched, _)| *matched)?;
            if !unmapped.contains(&matched.identity) {
                return None;
            }
            match come {
                Some(entry) => patch.written.push(*entry),
                None => patch.removed.push(matched),
            }
        }
    }

    /// The entries it writes.
    pub(super) fn written(&self) -> &[(PolicyMatch, PolicyVerdict)] {
        &self.written
    }

    /// Changes a policy in force.
    ///
    /// # Errors
    ///
    /// `Exhausted` where there is no room. The policy has a part of the entries then, which no packet asks for.
    pub(super) fn apply(&self, policy: &PolicyMap) -> Result<()> {
        self.removed.iter().try_for_each(|matched| policy.delete(matched).map(drop))?;
        policy.fill(&self.written)
    }

    /// How many entries it writes or removes.
    pub(super) fn len(&self) -> usize {
        self.written.len() + self.removed.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tables::{PolicyAction, PolicyDirection, PolicyL4, Protocol};

    fn rows(entries: &[(u32, u16, u32)]) -> PolicyRows {
        let entry = |&(identity, port, cookie): &(u32, u16, u32)| {
            let l4 = PolicyL4::port(Protocol::TCP, port);
            let matched = PolicyMatch { direction: PolicyDirection::Ingress, identity: SecurityId::new(identity), l4 };
            (matched, PolicyVerdict { cookie, ..PolicyVerdict::new(PolicyAction::Allow, 1) })
        };
        entries.iter().map(entry).collect()
    }

    fn patched(before: &PolicyRows, patch: &Patch) -> PolicyRows {
        let kept = before.iter().filter(|(matched, _)| !patch.removed.contains(matched));
        kept.chain(&patch.written).copied().collect()
    }

    proptest! {
        #[test]
        fn a_patch_leads_from_one_to_the_other_and_touches_no_other_identity(
            before in proptest::collection::vec((0_u32..6, 1_u16..4, 0_u32..2), 0..20),
            after in proptest::collection::vec((0_u32..6, 1_u16..4, 0_u32..2), 0..20),
            unmapped in proptest::collection::btree_set(0_u32..6, 0..6),
        ) {
            let (before, after) = (rows(&before), rows(&after));
            let unmapped: BTreeSet<_> = unmapped.into_iter().map(SecurityId::new).collect();
            let others = |rows: &PolicyRows| -> PolicyRows {
                rows.iter().filter(|(matched, _)| !unmapped.contains(&matched.identity)).copied().collect()
            };
            match Patch::between(&before, &after, &unmapped) {
                Some(patch) => {
                    prop_assert_eq!(patched(&before, &patch), after.clone());
                    prop_assert_eq!(others(&before), others(&after));
                    let entries = |rows: &PolicyRows| rows.iter().copied().collect::<std::collections::HashSet<_>>();
                    let differing = entries(&before).symmetric_difference(&entries(&after)).count();
                    prop_assert!(patch.len() <= differing, "it writes what was there");
                }
                None => prop_assert!(unmapped.is_empty() || others(&before) != others(&after)),
            }
        }
    }
}
