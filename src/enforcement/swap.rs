//! The update of the outer map: in force at once, complete after an RCU wait.
//!
//! The kernel stores the pointer to the new inner map and then, before the system call returns, waits until every program
//! that may still hold the old pointer has ended (`map_update_elem` in kernel/bpf/syscall.c: `bpf_map_update_value`, then
//! `maybe_wait_bpf_programs`). Only the store matters to the packets that come; the wait takes 6 to 18 ms. So a thread makes
//! the call, the store is seen by reading the slot, and who need not know that the last program has left goes on.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use log::debug;
use parking_lot::Mutex;

use super::timings::SwapTimings;
use crate::tables::{PolicyMap, PolicyMaps};
use crate::{EndpointId, Error, Result};

/// In which intervals the slot is read where the thread takes long to start.
const POLL: Duration = Duration::from_micros(20);

/// How often the slot is read before that.
const YIELDS: usize = 100;

/// How many removals wait at the same time.
const REMOVERS: usize = 32;

/// What a swap did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swapped {
    /// The endpoints whose policies changed, in the order of their ids. Those whose policies were in force already are not among them.
    pub endpoints: Vec<EndpointId>,
    /// How many of them were changed in place: by entries that no packet asks for.
    pub patched: usize,
    /// Entries written or removed.
    pub entries: usize,
    /// Creating, filling and pinning the maps.
    pub fill: Duration,
    /// From there until the new policies judged.
    pub swap: Duration,
}

/// A swap that is in force: the next packet is judged by the new policies. Dropping it leaves it in force.
#[must_use = "packets on their way through a program when the policy changed may still be judged by the old one: wait"]
pub struct Swap {
    pub(super) swapped: Swapped,
    pub(super) completion: Option<Completion>,
    pub(super) timings: Arc<Mutex<SwapTimings>>,
}

impl Swap {
    /// What it did.
    pub fn swapped(&self) -> &Swapped {
        &self.swapped
    }

    /// Waits until no program uses what was replaced: from then on no packet, not even one that was under way, is judged by it.
    ///
    /// # Errors
    ///
    /// The update's. Its slots were seen to have the new policies by then, so that this does not come true.
    pub fn wait(self) -> Result<Swapped> {
        let start = Instant::now();
        if let Some(completion) = self.completion {
            completion.wait()?;
            self.timings.lock().wait.note(start.elapsed());
        }
        Ok(self.swapped)
    }
}

impl fmt::Debug for Swap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Swap").field(&self.swapped).finish()
    }
}

/// What the outer map is to be told.
pub(super) enum Change {
    /// Put these policies in place.
    Replace(Vec<(EndpointId, PolicyMap)>),
    /// Leave these endpoints without a policy.
    Remove(Vec<EndpointId>),
}

impl Change {
    fn apply(&self, outer: &PolicyMaps) -> Result<()> {
        match self {
            Self::Replace(policies) => {
                let policies: Vec<_> = policies.iter().map(|(endpoint, policy)| (*endpoint, policy)).collect();
                outer.replace(&policies)
            }
            Self::Remove(endpoints) => remove(outer, endpoints),
        }
    }

    /// Whether the last of it, and so all of it, is in place.
    fn is_visible(&self, outer: &PolicyMaps) -> Result<bool> {
        match self {
            Self::Replace(policies) => policies
                .last()
                .map_or(Ok(true), |(endpoint, policy)| Ok(outer.policy_id(*endpoint)? == Some(policy.map().info().id))),
            Self::Remove(endpoints) => {
                for endpoint in endpoints {
                    if outer.policy_id(*endpoint)?.is_some() {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }
}

/// The kernel has no batch for removals from an array of maps: each waits, but they wait side by side.
fn remove(outer: &PolicyMaps, endpoints: &[EndpointId]) -> Result<()> {
    let share = endpoints.len().div_ceil(REMOVERS).max(1);
    thread::scope(|scope| {
        let removers: Vec<_> = endpoints
            .chunks(share)
            .map(|chunk| scope.spawn(move || chunk.iter().try_for_each(|endpoint| outer.remove(*endpoint).map(drop))))
            .collect();
        removers.into_iter().try_for_each(|remover| remover.join().unwrap_or_else(|_| Err(lost())))
    })
}

/// The end of a system call that another thread makes.
pub(super) struct Completion(Receiver<Result<()>>);

impl Completion {
    fn wait(self) -> Result<()> {
        self.0.recv().unwrap_or_else(|_| Err(lost()))
    }
}

/// Makes a change, returns when it is in place, and hands out the rest of the wait.
///
/// # Errors
///
/// `Partial` says how many of the policies are in place.
pub(super) fn begin(outer: &Arc<PolicyMaps>, change: Change) -> Result<Option<Completion>> {
    let change = Arc::new(change);
    let (sender, receiver) = channel();
    let (map, work) = (outer.clone(), change.clone());
    let spawned = thread::Builder::new().name("policy-swap".to_owned()).spawn(move || {
        // Nobody listens where nobody waits.
        let _ = sender.send(work.apply(&map));
    });
    if let Err(error) = spawned {
        debug!("no thread for a policy swap, so that its caller waits: {error}");
        return change.apply(outer).map(|()| None);
    }
    // The thread is about to run: who yields to it goes on sooner than who sleeps.
    for _ in 0..YIELDS {
        if change.is_visible(outer)? {
            return Ok(Some(Completion(receiver)));
        }
        thread::yield_now();
    }
    loop {
        match receiver.recv_timeout(POLL) {
            Ok(result) => return result.map(|()| None),
            Err(RecvTimeoutError::Disconnected) => return Err(lost()),
            Err(RecvTimeoutError::Timeout) if change.is_visible(outer)? => return Ok(Some(Completion(receiver))),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn lost() -> Error {
    Error::system("update", "map podwire_policy", std::io::Error::other("the thread that made the call died"))
}
