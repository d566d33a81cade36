//! The policies in force, and the numbers of their rules.

mod snapshot;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

pub use snapshot::RepositorySnapshot;

use super::document::{read_stored, stored};
use super::{FlatRule, Policy, Rule, RuleNumber, SectionKind};
use crate::{Error, Labels, Result};

/// Where a rule number comes from. Printed as the path of the section, `default/web[0].ingress[1]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSource {
    /// The policy's name.
    pub policy: String,
    /// The rule's place in the policy, from 0.
    pub rule: usize,
    /// The list in which the section stands.
    pub kind: SectionKind,
    /// The section's place in that list, from 0; `None` for the denial by default of a rule without sections.
    pub section: Option<usize>,
    /// The rule's labels.
    pub labels: Labels,
    /// The rule's description.
    pub description: String,
}

impl fmt::Display for RuleSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}].{}", self.policy, self.rule, self.kind.name())?;
        self.section.map_or(Ok(()), |section| write!(f, "[{section}]"))
    }
}

/// What a change of policies means for the compiler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleChanges {
    /// Rules that were not there before.
    pub added: Vec<FlatRule>,
    /// The numbers of those that are gone.
    pub removed: Vec<RuleNumber>,
}

/// A rule, lowered.
#[derive(Clone, Debug)]
struct Lowered {
    rule: Rule,
    flat: Vec<FlatRule>,
}

/// Policies by name, and a number for every section of their rules.
///
/// A number stays what it is as long as its rule stays in a policy of the same name, whatever else comes and goes there, so that
/// a changed policy doesn't change what others have compiled into map entries. Numbers are not used again.
///
/// ```
/// use podwire::policy::{Policy, Repository};
///
/// let mut repository = Repository::new();
/// for policy in Policy::from_json(r#"{"endpointSelector": {}, "ingress": [{"fromEntities": ["host"]}]}"#)? {
///     repository.replace(policy)?;
/// }
/// let flat: Vec<_> = repository.flat().collect();
/// let source = repository.source(flat[0].rule).expect("a rule in force");
/// assert_eq!(source.to_string(), "[0].ingress[0]");
/// # Ok::<(), podwire::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Repository {
    policies: BTreeMap<String, Vec<Lowered>>,
    sources: HashMap<RuleNumber, RuleSource>,
    last: u32,
    revision: u64,
}

impl Default for Repository {
    fn default() -> Self {
        Self { policies: BTreeMap::new(), sources: HashMap::new(), last: 0, revision: 1 }
    }
}

impl Repository {
    /// No policies, revision 1.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a policy in the place of the one with its name, or beside the others. Fails, and changes nothing, if
    /// [`Policy::check`] does, or for a rule that could not be read again from where it is kept.
    pub fn replace(&mut self, policy: Policy) -> Result<RuleChanges> {
        policy.check()?;
        self.check_stored(&policy)?;
        Ok(self.put(policy))
    }

    /// Reads back what would be stored of new rules: one that can't be read would keep the next start from everything.
    fn check_stored(&self, policy: &Policy) -> Result<()> {
        let known: HashSet<&Rule> = self.rules(&policy.name).collect();
        for (index, rule) in policy.rules.iter().enumerate().filter(|(_, rule)| !known.contains(rule)) {
            read_stored(&stored(rule)).map_err(|error| {
                let reason = format!("could not be read again after a restart: {error}");
                Error::invalid(format!("{}[{index}]", policy.name), rule.subject.to_string(), reason)
            })?;
        }
        Ok(())
    }

    /// The same for a policy that was checked.
    fn put(&mut self, policy: Policy) -> RuleChanges {
        let Policy { name, rules } = policy;
        let mut changes = RuleChanges::default();
        // rules that were there keep their numbers; of equal rules each is taken once
        let mut old: HashMap<Rule, Vec<Vec<FlatRule>>> = HashMap::new();
        for lowered in self.policies.remove(&name).unwrap_or_default() {
            old.entry(lowered.rule).or_default().push(lowered.flat);
        }
        let mut stored = Vec::with_capacity(rules.len());
        for (index, rule) in rules.into_iter().enumerate() {
            let kept = old.get_mut(&rule).and_then(Vec::pop);
            let new = kept.is_none();
            let numbers = kept.into_iter().flatten().map(|flat| flat.rule);
            let lowered = self.lower(&name, index, rule, numbers);
            if new {
                changes.added.extend(lowered.flat.iter().cloned());
            }
            stored.push(lowered);
        }
        changes.removed = old.values().flatten().flatten().map(|flat| flat.rule).collect();
        self.forget(&mut changes);
        self.policies.insert(name, stored);
        changes
    }

    /// Ends a change: what was removed has no source any more.
    fn forget(&mut self, changes: &mut RuleChanges) {
        changes.removed.sort_unstable();
        for number in &changes.removed {
            self.sources.remove(number);
        }
        self.revision += 1;
    }

    fn lower(&mut self, policy: &str, index: usize, rule: Rule, old: impl Iterator<Item = RuleNumber>) -> Lowered {
        let mut old = old.fuse();
        let flat = rule.lower(|kind, section| {
            let number = old.next().unwrap_or_else(|| self.unused());
            let source = RuleSource {
                policy: policy.to_owned(),
                rule: index,
                kind,
                section,
                labels: rule.labels.clone(),
                description: rule.description.clone(),
            };
            self.sources.insert(number, source);
            number
        });
        Lowered { rule, flat }
    }

    /// The next number. After 2³² of them it begins anew, and passes over those that are in use.
    fn unused(&mut self) -> RuleNumber {
        loop {
            self.last = self.last.wrapping_add(1).max(1);
            let number = RuleNumber::new(self.last);
            if !self.sources.contains_key(&number) {
                return number;
            }
        }
    }

    /// Removes the policy of this name; `None` if there is none.
    pub fn remove(&mut self, name: &str) -> Option<RuleChanges> {
        let stored = self.policies.remove(name)?;
        let removed = stored.iter().flat_map(|lowered| &lowered.flat).map(|flat| flat.rule).collect();
        let mut changes = RuleChanges { added: Vec::new(), removed };
        self.forget(&mut changes);
        Some(changes)
    }

    /// Removes every rule that has all of these labels (so every rule, given none), and policies of which nothing is left.
    /// Also tells how many rules those were; if none, nothing changed.
    pub fn remove_labelled(&mut self, labels: &Labels) -> (usize, RuleChanges) {
        let has = |rule: &Rule| labels.iter().all(|label| rule.labels.contains(label));
        let (mut removed, mut changes) = (0, RuleChanges::default());
        for rules in self.policies.values_mut() {
            rules.retain(|lowered| {
                let goes = has(&lowered.rule);
                if goes {
                    removed += 1;
                    changes.removed.extend(lowered.flat.iter().map(|flat| flat.rule));
                }
                !goes
            });
        }
        if removed > 0 {
            self.policies.retain(|_, rules| !rules.is_empty());
            self.forget(&mut changes);
            self.renumber_places();
        }
        (removed, changes)
    }

    /// Says anew where rules stand, after others before them went.
    fn renumber_places(&mut self) {
        for rules in self.policies.values() {
            for (place, flat) in
                rules.iter().enumerate().flat_map(|(place, rule)| rule.flat.iter().map(move |flat| (place, flat)))
            {
                if let Some(source) = self.sources.get_mut(&flat.rule) {
                    source.rule = place;
                }
            }
        }
    }

    /// The policies' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.policies.keys().map(String::as_str)
    }

    /// The rules of a policy; none if there is no such policy.
    pub fn rules(&self, name: &str) -> impl Iterator<Item = &Rule> {
        self.policies.get(name).into_iter().flatten().map(|lowered| &lowered.rule)
    }

    /// Every rule with its policy's name, in the order of names.
    pub fn all_rules(&self) -> impl Iterator<Item = (&str, &Rule)> {
        self.policies.iter().flat_map(|(name, rules)| rules.iter().map(|lowered| (name.as_str(), &lowered.rule)))
    }

    /// Every rule in the compiler's form.
    pub fn flat(&self) -> impl Iterator<Item = &FlatRule> {
        self.policies.values().flatten().flat_map(|lowered| &lowered.flat)
    }

    /// Where this number comes from; `None` if its rule is not in force (any more).
    pub fn source(&self, number: RuleNumber) -> Option<&RuleSource> {
        self.sources.get(&number)
    }

    /// An error with the rules that it names by numbers named by their places, as far as they are here.
    pub(crate) fn name_rules(&self, mut error: Error) -> Error {
        if let Error::PolicyTooLarge { contributors, .. } = &mut error {
            for share in contributors {
                share.name = self.source(RuleNumber::new(share.rule)).map(ToString::to_string);
            }
        }
        error
    }

    /// Where every number in force comes from, in no order.
    pub fn sources(&self) -> impl Iterator<Item = (RuleNumber, &RuleSource)> {
        self.sources.iter().map(|(number, source)| (*number, source))
    }

    /// How often it changed, plus 1.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}
