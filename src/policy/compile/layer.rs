//! What holds for one peer: a set of prefixes of protocol and port, each allowed or denied, with nothing in it that can't decide.
//!
//! Prefixes of protocol and port either contain each other or have nothing in common, and sorting puts each one directly
//! before all it contains. So one pass over the sorted statements, with the last denial and the last permission at hand,
//! sees for each whether it is contained in one of them.

use std::cmp::Ordering;

use super::super::flat::RuleNumber;
use crate::tables::{PolicyAction, PolicyL4, PolicyVerdict};

/// Precedence of entries that deny: above every other.
pub const DENY_PRECEDENCE: u32 = u32::MAX;
/// Precedence of entries that allow.
pub const ALLOW_PRECEDENCE: u32 = u32::MAX - 254;

/// One rule's word on some traffic of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Statement {
    pub l4: PolicyL4,
    pub deny: bool,
    pub rule: RuleNumber,
}

impl Statement {
    /// Broad before narrow; at the same breadth denials first, then the rules by number and what has no rule last.
    fn order(&self, other: &Self) -> Ordering {
        let rank = |statement: &Self| (!statement.deny, statement.rule.get().wrapping_sub(1));
        self.l4.cmp(&other.l4).then_with(|| rank(self).cmp(&rank(other)))
    }

    /// The entry's value in the map.
    pub fn verdict(&self) -> PolicyVerdict {
        let (action, precedence) = match self.deny {
            true => (PolicyAction::Deny, DENY_PRECEDENCE),
            false => (PolicyAction::Allow, ALLOW_PRECEDENCE),
        };
        PolicyVerdict { cookie: self.rule.get(), ..PolicyVerdict::new(action, precedence) }
    }
}

/// Why a statement became no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cover {
    /// The statement that decides instead.
    pub by: Statement,
    /// Whether that one is about any peer.
    pub any_peer: bool,
}

/// The statements about one peer that can decide, sorted. In it a permission contains denials at most, a denial nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layer(Vec<Kept>);

/// A statement with the place of the one that contains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    statement: Statement,
    parent: Option<u32>,
}

impl Layer {
    /// Keeps of `statements` what can decide where `any` holds for every peer. `any` itself is made with an empty one.
    pub fn of(statements: Vec<Statement>, any: &Self) -> Self {
        Self::build(statements, any, |_, _| {})
    }

    /// The same; `covered` learns of each statement left out and what decides instead.
    pub fn build(mut statements: Vec<Statement>, any: &Self, mut covered: impl FnMut(Statement, Cover)) -> Self {
        statements.sort_unstable_by(Statement::order);
        let mut kept = Vec::with_capacity(statements.len());
        let (mut allow, mut deny): (Option<(u32, Statement)>, Option<Statement>) = (None, None);
        for statement in statements {
            allow = allow.filter(|(_, allow)| allow.l4.contains(statement.l4));
            deny = deny.filter(|deny| deny.l4.contains(statement.l4));
            let in_any = any.containing(statement.l4);
            let own = |by| Cover { by, any_peer: false };
            let others = |by| Cover { by, any_peer: true };
            let by_denial = in_any.deny.map(others).or(deny.map(own));
            let by_permission = in_any.allow.map(others).or(allow.map(|(_, allow)| own(allow)));
            if let Some(cover) = by_denial.or(by_permission.filter(|_| !statement.deny)) {
                covered(statement, cover);
                continue;
            }
            // as many statements as fit into memory have numbers
            let index = u32::try_from(kept.len()).unwrap_or(u32::MAX);
            kept.push(Kept { statement, parent: allow.map(|(index, _)| index) });
            match statement.deny {
                true => deny = Some(statement),
                false => allow = Some((index, statement)),
            }
        }
        Self(kept)
    }

    /// The statements in order.
    pub fn statements(&self) -> impl Iterator<Item = &Statement> {
        self.0.iter().map(|kept| &kept.statement)
    }

    /// The statement about just this.
    pub fn get(&self, l4: PolicyL4) -> Option<&Statement> {
        let found = self.0.binary_search_by(|kept| kept.statement.l4.cmp(&l4)).ok()?;
        self.0.get(found).map(|kept| &kept.statement)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The permission and the denial that contain this prefix.
    fn containing(&self, l4: PolicyL4) -> Containing {
        let mut containing = Containing::default();
        // What contains it stands before it, and so does the last one before it: within each of those that contain both.
        let before = self.0.partition_point(|kept| kept.statement.l4 <= l4);
        let Some(last) = before.checked_sub(1).and_then(|last| self.0.get(last)) else { return containing };
        let parent = last.parent.and_then(|parent| self.0.get(usize::try_from(parent).ok()?));
        for Kept { statement, .. } in [Some(last), parent].into_iter().flatten() {
            if statement.l4.contains(l4) {
                let place = if statement.deny { &mut containing.deny } else { &mut containing.allow };
                *place = Some(*statement);
            }
        }
        containing
    }
}

#[derive(Default)]
struct Containing {
    allow: Option<Statement>,
    deny: Option<Statement>,
}
