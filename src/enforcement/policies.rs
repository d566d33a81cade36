//! Policies that come, change and go.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use log::{info, warn};

use super::cidrs;
use super::engine::{Enforcement, mapped};
use super::rows::PolicyRows;
use super::state::{Candidate, State};
use super::swap::Swap;
use crate::ipcache::Change;
use crate::policy::{FlatRule, Policy, Repository, RuleNumber};
use crate::undo::Undo;
use crate::{EndpointId, Error, Labels, Result, SecurityId};

impl Enforcement {
    /// Makes these the only policies. All of them are in force when it returns, or none is and nothing has changed.
    /// Returns the revision.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a rule that is none; `Exhausted` for an endpoint's policy that would be too large, or where memory or
    /// identities are used up; `System` where the state directory can't be written.
    pub fn replace(&self, policies: impl IntoIterator<Item = Policy>) -> Result<u64> {
        let policies: Vec<Policy> = policies.into_iter().collect();
        self.change(|repository| {
            let kept: BTreeSet<&str> = policies.iter().map(|policy| policy.name.as_str()).collect();
            let gone: Vec<String> = repository.names().filter(|name| !kept.contains(name)).map(str::to_owned).collect();
            for name in gone {
                repository.remove(&name);
            }
            policies.into_iter().try_for_each(|policy| repository.replace(policy).map(drop))
        })
    }

    /// Puts policies in the place of those with their names, or beside them; otherwise as [`replace`](Self::replace).
    pub fn upsert(&self, policies: impl IntoIterator<Item = Policy>) -> Result<u64> {
        let policies: Vec<Policy> = policies.into_iter().collect();
        self.change(|repository| policies.into_iter().try_for_each(|policy| repository.replace(policy).map(drop)))
    }

    /// Removes the policy of a name. Returns the revision.
    ///
    /// # Errors
    ///
    /// `NotFound` where there is none; otherwise as for [`replace`](Self::replace).
    pub fn remove(&self, name: &str) -> Result<u64> {
        self.change(|repository| match repository.remove(name) {
            Some(_) => Ok(()),
            None => Err(Error::not_found("policy", name)),
        })
    }

    /// Removes every rule that has all of these labels: every rule, given none. Returns how many, and the revision.
    pub fn delete(&self, labels: &Labels) -> Result<(usize, u64)> {
        let mut count = 0;
        let revision = self.change(|repository| {
            count = repository.remove_labelled(labels).0;
            Ok(())
        })?;
        Ok((count, revision))
    }

    /// Changes the policies in force, and waits until no packet is judged by the old ones.
    fn change(&self, edit: impl FnOnce(&mut Repository) -> Result<()>) -> Result<u64> {
        let (revision, swaps) = self.bring_into_force(&mut self.lock(), edit)?;
        for swap in swaps {
            swap.wait()?;
        }
        let mut state = self.lock();
        state.settled = state.settled.max(revision);
        drop(state);
        self.moved.notify_all();
        Ok(revision)
    }

    /// The steps are in an order in which no packet meets a wrong verdict. An address that a new prefix covers is judged by an
    /// identity of its own from the third step on: so the policies in force know it before, with what they say of the
    /// wider prefix, and the new policies come when each address has the narrowest identity that they speak of. What only the
    /// old ones spoke of goes last.
    fn bring_into_force(
        &self,
        state: &mut State,
        edit: impl FnOnce(&mut Repository) -> Result<()>,
    ) -> Result<(u64, Vec<Swap>)> {
        let mut repository = state.repository.clone();
        edit(&mut repository)?;
        let revision = repository.revision();
        if revision == state.repository.revision() {
            return Ok((revision, Vec::new()));
        }
        let (removed, added) = difference(&state.repository, &repository);
        let wanted = cidrs::named_by(repository.flat());
        let mut undo = Undo::new();

        let new = self.hold(&wanted, state)?;
        let held = new.clone();
        undo.attempt("give up its prefixes", move || self.give_up(&held));
        let changes = self.identities.changes_since(state.seen);
        let candidate = self.compiling(|| Candidate::compile(state, &changes, &repository, (&removed, &added)))?;
        // Whatever is wrong with the policies is known by now; nothing has been written.

        if !changes.is_empty() {
            let failed = self.compiling(|| state.follow(&changes));
            // Those that are about to be replaced anyway may be the cure.
            let stuck = failed.into_iter().find(|(endpoint, _)| !candidate.policies.contains_key(endpoint));
            stuck.map_or(Ok(()), |(_, error)| Err(error))?;
        }
        let known = self.flush(state)?;

        let maps: Vec<_> = new.iter().map(|(prefix, identity)| mapped(*prefix, *identity)).collect();
        self.map_prefixes(&maps)?;
        if !maps.is_empty() {
            // A program under way may have found an address's identity before that, and will ask a policy for it.
            self.writer.wait_for_programs()?;
        }

        let before = &state.repository;
        self.store.save(&repository)?;
        let saved = before.clone();
        undo.attempt("save the policies in force", move || self.store.save(&saved));
        let kept = self.kept_among(state, &candidate);
        let swap = match self.writer.begin(candidate.rows()) {
            Err(error) => {
                self.take_back(state, &candidate, kept);
                return Err(error);
            }
            Ok(swap) => swap,
        };
        undo.keep();

        let changed: Vec<_> = candidate.policies.keys().copied().collect();
        candidate.settle(state);
        state.repository = repository;
        state.warn_of_unnamed(changed);
        state.cidrs.extend(new);
        self.let_go(&wanted, state);
        info!(
            "policy revision {revision}: {} rules gone, {} new, {} endpoints changed",
            removed.len(),
            added.len(),
            swap.swapped().endpoints.len()
        );
        Ok((revision, vec![known, swap]))
    }

    /// What an earlier process left in force for endpoints of which a candidate has policies.
    fn kept_among(&self, state: &State, candidate: &Candidate) -> Vec<(EndpointId, PolicyRows)> {
        let is_kept = |id: &&EndpointId| state.endpoints.get(id).is_some_and(|local| local.is_kept);
        candidate.policies.keys().filter(is_kept).filter_map(|id| Some((*id, self.writer.rows(*id)?))).collect()
    }

    /// Puts the policies of before back in the place of those of a candidate that came into force in part.
    fn take_back(&self, state: &mut State, candidate: &Candidate, kept: Vec<(EndpointId, PolicyRows)>) {
        state.pending.extend(candidate.policies.keys().copied());
        let begun = [self.flush(state), self.writer.begin(kept)];
        if let Err(error) = begun.into_iter().try_for_each(|swap| swap?.wait().map(drop)) {
            warn!("not all policies of before are back, others come with the next maintenance: {error}");
        }
    }

    /// Acquires the identities of prefixes that no rule named before.
    fn hold(&self, wanted: &BTreeSet<IpNetwork>, state: &State) -> Result<BTreeMap<IpNetwork, SecurityId>> {
        let new = wanted.iter().filter(|prefix| !state.cidrs.contains_key(prefix));
        let prefixes: Vec<IpNetwork> = new.copied().collect();
        let identities = self.identities.acquire_cidrs(&prefixes)?;
        Ok(prefixes.into_iter().zip(identities.iter().map(|identity| identity.id())).collect())
    }

    /// Gives up the prefixes that no rule names any more.
    fn let_go(&self, wanted: &BTreeSet<IpNetwork>, state: &mut State) {
        let mut gone = std::mem::take(&mut state.cidrs);
        state.cidrs = gone.extract_if(.., |prefix, _| wanted.contains(prefix)).collect();
        if let Err(error) = self.give_up(&gone) {
            // The ipcache tries again. Addresses may be mapped to the identities until then, so that these are kept for good.
            warn!("prefixes that no policy names any more: {error}");
        }
    }

    /// Maps prefixes no more, and releases their identities, with which policies forget them: so not before every program has ended
    /// that may have found an address with one.
    fn give_up(&self, prefixes: &BTreeMap<IpNetwork, SecurityId>) -> Result<()> {
        let unmaps: Vec<_> = prefixes.keys().map(|prefix| Change::Withdraw(*prefix)).collect();
        if self.map_prefixes(&unmaps)? {
            self.writer.wait_for_programs()?;
        }
        self.identities.release_all(&prefixes.values().copied().collect::<Vec<_>>())
    }
}

/// The numbers of rules that are gone, and the rules that are new.
pub(super) fn difference(before: &Repository, after: &Repository) -> (BTreeSet<RuleNumber>, Vec<FlatRule>) {
    let numbers = |repository: &Repository| repository.flat().map(|rule| rule.rule).collect::<BTreeSet<_>>();
    let (old, new) = (numbers(before), numbers(after));
    let added = after.flat().filter(|rule| !old.contains(&rule.rule)).cloned().collect();
    (old.difference(&new).copied().collect(), added)
}
