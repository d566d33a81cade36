//! A story that shows a disagreement, cut down to what it takes.

use super::super::rig::Rig;
use super::{Change, Disagreement, Step, Story};

/// Leaves out whatever can be left out while kernel and model still disagree: steps, lines of policies, prefixes, endpoints.
pub(crate) fn shrink(rig: &Rig, story: Story, disagreement: Disagreement) -> (Story, Disagreement) {
    let mut best = (story, disagreement);
    best.0.steps.truncate(best.1.step + 1);
    loop {
        let before = size(&best.0);
        best = without_steps(rig, best);
        best = without_lines(rig, best);
        if size(&best.0) == before {
            return best;
        }
    }
}

fn size(story: &Story) -> usize {
    let lines: usize = story.world.policies.values().map(Vec::len).sum();
    let changed: usize = story.steps.iter().map(lines_of).sum();
    story.steps.len() + lines + changed + story.world.ipcache.len() + story.world.endpoints.len()
}

fn lines_of(step: &Step) -> usize {
    match step {
        Step::Change(Change::Policy { entries, .. }) => entries.len(),
        _ => 0,
    }
}

fn keep_if_still(rig: &Rig, best: (Story, Disagreement), smaller: Story) -> (Story, Disagreement, bool) {
    match smaller.play(rig) {
        Err(disagreement) => {
            let mut smaller = smaller;
            smaller.steps.truncate(disagreement.step + 1);
            (smaller, disagreement, true)
        }
        Ok(_) => (best.0, best.1, false),
    }
}

fn without_steps(rig: &Rig, mut best: (Story, Disagreement)) -> (Story, Disagreement) {
    let mut chunk = best.0.steps.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < best.0.steps.len() {
            let mut smaller = best.0.clone();
            let end = (at + chunk).min(smaller.steps.len());
            smaller.steps.drain(at..end);
            let (story, disagreement, shrunk) = keep_if_still(rig, best, smaller);
            best = (story, disagreement);
            if !shrunk {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    best
}

fn without_lines(rig: &Rig, mut best: (Story, Disagreement)) -> (Story, Disagreement) {
    let mut attempt = 0;
    loop {
        let mut smaller = best.0.clone();
        if !leave_out(&mut smaller, attempt) {
            return best;
        }
        let (story, disagreement, shrunk) = keep_if_still(rig, best, smaller);
        best = (story, disagreement);
        if !shrunk {
            attempt += 1;
        }
    }
}

/// Leaves the `number`th thing of a world out; false where there are not so many.
fn leave_out(story: &mut Story, mut number: usize) -> bool {
    for policy in story.world.policies.values_mut() {
        if number < policy.len() {
            policy.remove(number);
            return true;
        }
        number -= policy.len();
    }
    for step in &mut story.steps {
        if let Step::Change(Change::Policy { entries, .. }) = step {
            if number < entries.len() {
                entries.remove(number);
                return true;
            }
            number -= entries.len();
        }
    }
    if let Some(prefix) = story.world.ipcache.keys().nth(number).copied() {
        story.world.ipcache.remove(&prefix);
        return true;
    }
    number -= story.world.ipcache.len();
    if number < story.world.endpoints.len() && story.world.endpoints.len() > 1 {
        story.world.endpoints.remove(number);
        return true;
    }
    false
}
