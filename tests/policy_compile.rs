//! Compiled policies against rules judged one by one, and compilation step by step against compilation at once. Rootless, but
//! for the last test, which asks the kernel's own trie.

#[path = "policy_compile/lookup.rs"]
mod lookup;
#[path = "policy_compile/model.rs"]
mod model;
#[path = "common/random.rs"]
mod random;
#[path = "policy_compile/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};

use model::{Rule, Someone, Traffic, Verdict};
use podwire::identity::Changes;
use podwire::policy::{CompiledPolicy, PolicyOptions, RuleNumber, RulesInForce};
use podwire::tables::{PolicyAction, PolicyMap, PolicyMatch, PolicyVerdict};
use podwire::{ErrorKind, SecurityId};
use proptest::prelude::*;
use proptest::sample::Index;

fn compile(rules: &RulesInForce, options: &PolicyOptions) -> CompiledPolicy {
    rules.compile(world::subject(&world::endpoint()), options).expect("within the limit")
}

fn entries(policy: &CompiledPolicy) -> BTreeMap<PolicyMatch, PolicyVerdict> {
    let entries: BTreeMap<_, _> = policy.entries().collect();
    assert_eq!(policy.entries().count(), entries.len(), "two entries for one key");
    assert_eq!(policy.len(), entries.len());
    assert!(policy.entries().map(|(matched, _)| matched).is_sorted());
    entries
}

/// What the entries make of traffic must be what the rules say, for one of the reasons they have.
fn agree(
    traffic: &Traffic,
    expected: &Verdict,
    lookup: impl FnMut(&PolicyMatch) -> Option<PolicyVerdict>,
) -> Result<(), TestCaseError> {
    let found = lookup::decide(lookup, traffic);
    let right = match (expected, found) {
        (Verdict::NothingMatches, None) => true,
        (Verdict::Allowed(rules), Some(found)) => found.action == PolicyAction::Allow && rules.contains(&found.cookie),
        (Verdict::DeniedByRule(rules), Some(found)) => {
            found.action == PolicyAction::Deny && rules.contains(&found.cookie)
        }
        _ => false,
    };
    prop_assert!(right, "{traffic:?}: expected {expected:?}, the entries say {found:?}");
    Ok(())
}

/// No entry is left that another one makes superfluous.
fn nothing_is_redundant(entries: &[(PolicyMatch, PolicyVerdict)]) -> Result<(), TestCaseError> {
    for (narrow, verdict) in entries {
        for (broad, by) in entries.iter().filter(|(broad, _)| broad != narrow) {
            let contains = broad.direction == narrow.direction
                && (broad.identity == narrow.identity || broad.identity == SecurityId::UNKNOWN)
                && broad.l4.contains(narrow.l4);
            let decides = by.action == PolicyAction::Deny || verdict.action == PolicyAction::Allow;
            prop_assert!(!(contains && decides), "{narrow} {verdict:?} is of no use beside {broad} {by:?}");
        }
    }
    Ok(())
}

/// Who exists: a random part of everyone, the subject always.
fn present() -> impl Strategy<Value = Vec<Someone>> {
    let everyone = world::everyone();
    proptest::collection::vec(prop::bool::weighted(0.6), everyone.len()).prop_map(move |chosen| {
        let chosen = everyone.iter().zip(chosen).filter(|(someone, chosen)| *chosen || someone.id == world::ME);
        chosen.map(|(someone, _)| someone.clone()).collect()
    })
}

proptest! {
    #![proptest_config(random::config(300))]

    #[test]
    fn entries_mean_what_the_rules_say(rules in world::rules(8), present in present(), options in world::options()) {
        let endpoint = world::endpoint();
        let policy = compile(&world::in_force(&rules, &present), &options);
        let list: Vec<_> = policy.entries().collect();
        entries(&policy);
        for traffic in world::traffic(&rules, &endpoint, &present) {
            let expected = model::judge(&rules, &endpoint, &options, &traffic);
            agree(&traffic, &expected, |key| lookup::longest(&list, key))?;
        }
        nothing_is_redundant(&list)?;
    }

    #[test]
    fn the_order_of_rules_does_not_matter(
        rules in world::rules(8), present in present(), options in world::options(), keys: [u64; 8],
    ) {
        let mut shuffled: Vec<_> = rules.iter().cloned().zip(keys).collect();
        shuffled.sort_by_key(|(_, key)| *key);
        let shuffled: Vec<Rule> = shuffled.into_iter().map(|(rule, _)| rule).collect();
        let (one, other) = (world::in_force(&rules, &present), world::in_force(&shuffled, &present));
        prop_assert_eq!(entries(&compile(&one, &options)), entries(&compile(&other, &options)));
    }
}

/// Something happens to who exists.
#[derive(Clone, Debug)]
enum Step {
    /// The nth of everyone comes, or goes where it is there.
    Toggle(Vec<Index>),
    /// The nth gets the labels of the mth.
    Relabel(Index, Index),
    /// It is said anew who exists, without the nth.
    Everything(Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec(any::<Index>(), 1..4).prop_map(Step::Toggle),
        2 => any::<(Index, Index)>().prop_map(|(whom, like)| Step::Relabel(whom, like)),
        1 => any::<Index>().prop_map(Step::Everything),
    ]
}

/// Takes a step in the model and says what changes. The subject stays as it is.
fn take(step: &Step, present: &mut BTreeMap<u32, Someone>) -> Changes {
    let everyone = world::everyone();
    let others = || everyone.iter().filter(|someone| someone.id != world::ME).cloned().collect::<Vec<_>>();
    let mut changes = Changes::default();
    match step {
        Step::Toggle(whom) => {
            let whom: BTreeSet<_> = whom.iter().map(|index| index.index(others().len())).collect();
            for someone in whom.into_iter().map(|index| others()[index].clone()) {
                match present.remove(&someone.id) {
                    Some(gone) => changes.removed.push(world::identity(&gone)),
                    None => {
                        changes.added.push(world::identity(&someone));
                        present.insert(someone.id, someone);
                    }
                }
            }
        }
        Step::Relabel(whom, like) => {
            let pods: Vec<_> = others().into_iter().filter(|someone| (256..1 << 24).contains(&someone.id)).collect();
            let (whom, like) = (whom.get(&pods), like.get(&pods));
            let new = Someone { id: whom.id, ..like.clone() };
            changes.removed.extend(present.get(&whom.id).map(world::identity));
            changes.added.push(world::identity(&new));
            present.insert(whom.id, new);
        }
        Step::Everything(without) => {
            present.remove(&without.get(&others()).id);
            changes.everything = true;
            changes.added.extend(present.values().map(world::identity));
        }
    }
    changes
}

fn start(present: Vec<Someone>) -> BTreeMap<u32, Someone> {
    present.into_iter().map(|someone| (someone.id, someone)).collect()
}

proptest! {
    #![proptest_config(random::config(200))]

    #[test]
    fn step_by_step_is_like_at_once(
        rules in world::rules(8), present in present(), options in world::options(),
        steps in proptest::collection::vec(step(), 1..12), max_entries in prop_oneof![Just(16_384_usize), 1..60_usize],
    ) {
        let options = PolicyOptions { max_entries, ..options };
        let subject = || world::subject(&world::endpoint());
        let mut in_force = world::in_force(&rules, &present);
        let mut present = start(present);
        let Ok(mut policy) = in_force.compile(subject(), &options) else { return Ok(()) };
        for step in steps {
            let before = entries(&policy);
            let changes = in_force.apply(&take(&step, &mut present));
            let everyone: Vec<_> = present.values().cloned().collect();
            let at_once = world::in_force(&rules, &everyone).compile(subject(), &options);
            match (policy.update(in_force.selectors(), &changes), at_once) {
                (Ok(delta), Ok(at_once)) => {
                    let at_once = entries(&at_once);
                    prop_assert_eq!(&entries(&policy), &at_once);
                    let mut followed = before;
                    for (matched, verdict) in delta.written {
                        prop_assert_ne!(followed.insert(matched, verdict), Some(verdict), "{} was written twice", matched);
                    }
                    for matched in delta.removed {
                        prop_assert!(followed.remove(&matched).is_some(), "{} wasn't there", matched);
                    }
                    prop_assert_eq!(followed, at_once);
                }
                (Err(one), Err(other)) => {
                    prop_assert_eq!(one.kind(), ErrorKind::Exhausted);
                    prop_assert_eq!(one.to_string(), other.to_string());
                    prop_assert_eq!(entries(&policy), before, "a refused update changed something");
                }
                (one, other) => prop_assert!(false, "step by step {one:?}, at once {other:?}"),
            }
        }
    }

    #[test]
    fn selectors_select_whom_they_should(
        rules in world::rules(8), present in present(), steps in proptest::collection::vec(step(), 1..12),
        removed in proptest::collection::vec(any::<Index>(), 0..4),
    ) {
        let mut in_force = world::in_force(&rules, &present);
        let mut present = start(present);
        for step in steps {
            let selected = |in_force: &RulesInForce| -> BTreeMap<_, BTreeSet<_>> {
                in_force.selectors().iter().map(|selector| (selector.id, selector.identities.clone())).collect()
            };
            let mut followed = selected(&in_force);
            let (apart, apart_before) = (in_force.clone(), present.clone());
            for (id, change) in in_force.apply(&take(&step, &mut present)).iter() {
                let set = followed.get_mut(&id).expect("a selector");
                prop_assert!(!change.added.is_empty() || !change.removed.is_empty());
                prop_assert!(change.removed.iter().all(|gone| set.remove(gone)), "{:?}", change);
                prop_assert!(change.added.iter().all(|come| set.insert(*come)), "{:?}", change);
            }
            prop_assert_eq!(selected(&in_force), followed);
            check_selectors(&in_force, &rules, &present)?;
            // a clone stays as it was
            check_selectors(&apart, &rules, &apart_before)?;
        }
        let gone: BTreeSet<u32> = removed.iter().filter(|_| !rules.is_empty()).map(|which| which.get(&rules).number).collect();
        let apart = in_force.clone();
        for number in &gone {
            let there = rules.iter().filter(|rule| rule.number == *number).count();
            prop_assert_eq!(in_force.remove(RuleNumber::new(*number)), there);
        }
        check_selectors(&apart, &rules, &present)?;
        let left: Vec<_> = rules.into_iter().filter(|rule| !gone.contains(&rule.number)).collect();
        check_selectors(&in_force, &left, &present)?;
        let everyone: Vec<_> = present.values().cloned().collect();
        let fresh = world::in_force(&left, &everyone);
        prop_assert_eq!(
            entries(&compile(&in_force, &PolicyOptions::default())),
            entries(&compile(&fresh, &PolicyOptions::default()))
        );
        for number in in_force.numbers().collect::<Vec<_>>() {
            prop_assert_eq!(in_force.subjects_of(number), fresh.subjects_of(number));
            in_force.remove(number);
        }
        prop_assert!(in_force.selectors().is_empty() && in_force.subject_selectors().is_empty());
    }
}

/// Every peer of the rules has a selector with the right users and identities, and there is no other.
fn check_selectors(
    in_force: &RulesInForce,
    rules: &[Rule],
    present: &BTreeMap<u32, Someone>,
) -> Result<(), TestCaseError> {
    let mut expected: BTreeMap<String, (usize, BTreeSet<SecurityId>)> = BTreeMap::new();
    for whom in rules.iter().flat_map(|rule| rule.peers.iter().flatten()) {
        let whose = present.values().filter(|someone| model::selects(whom, someone));
        let entry = expected.entry(format!("{:?}", world::peer(whom))).or_default();
        entry.0 += 1;
        entry.1 = whose.map(|someone| SecurityId::new(someone.id)).collect();
    }
    let found: BTreeMap<_, _> = in_force
        .selectors()
        .iter()
        .map(|selector| (format!("{:?}", selector.peer), (selector.users, selector.identities.clone())))
        .collect();
    prop_assert_eq!(found, expected);
    for someone in present.values().map(|someone| SecurityId::new(someone.id)) {
        let selecting: Vec<_> = in_force
            .selectors()
            .iter()
            .filter(|selector| selector.identities.contains(&someone))
            .map(|selector| selector.id)
            .collect();
        prop_assert_eq!(in_force.selectors().selectors_of(someone), selecting);
    }
    Ok(())
}

proptest! {
    #![proptest_config(random::config(30))]

    /// Needs root.
    #[test]
    fn the_kernel_s_trie_says_the_same(rules in world::rules(8), present in present(), options in world::options()) {
        let endpoint = world::endpoint();
        let policy = compile(&world::in_force(&rules, &present), &options);
        let size = u32::try_from(policy.len().max(1)).expect("few");
        let map = PolicyMap::create(policy.subject().endpoint, size).expect("a map; is this root?");
        for (matched, verdict) in policy.entries() {
            map.upsert(&matched, &verdict).expect("room");
        }
        for traffic in world::traffic(&rules, &endpoint, &present) {
            let expected = model::judge(&rules, &endpoint, &options, &traffic);
            agree(&traffic, &expected, |key| map.lookup(key).expect("readable"))?;
        }
    }
}
