//! The engine: what has to change when rules, identities or endpoints do, and in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use log::{info, warn};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::cidrs;
use super::state::{Local, State, rows};
use super::store::Store;
use super::swap::Swap;
use super::timings::{Span, SwapTimings};
use super::writer::PolicyWriter;
use crate::identity::{IdentityAllocator, Version};
use crate::ipcache::{Change, IpCacheManager, Source};
use crate::policy::{EnforcementMode, PolicyOptions, RulesInForce, WorldIdentities};
use crate::tables::IpCacheEntry;
use crate::{EndpointId, Error, Result, SecurityId};

/// How a node enforces policy.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EnforcementConfig {
    /// Where the policies last accepted are kept; in memory alone without.
    pub file: Option<PathBuf>,
    /// Which identities the world has here.
    pub world: WorldIdentities,
    /// How policies are compiled.
    pub options: PolicyOptions,
}

impl EnforcementConfig {
    /// The default options, in memory, on a node whose world has these identities.
    pub fn new(world: WorldIdentities) -> Self {
        Self { file: None, world, options: PolicyOptions::default() }
    }

    /// Keeps the policies last accepted in this file.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Compiles policies like this.
    pub fn options(mut self, options: PolicyOptions) -> Self {
        self.options = options;
        self
    }
}

/// Holds the rules in force, and brings into force what follows from them, from the identities and from the endpoints.
///
/// Threads may call it side by side. Each method returns when what it asks for is in force, and what is refused has changed
/// nothing that a packet could notice.
///
/// # Order
///
/// An identity is known to every policy in force before an address is mapped to it, and no address is mapped to it any more
/// before policies forget it. The generation of what programs remember moves after every such step.
pub struct Enforcement {
    pub(super) identities: Arc<dyn IdentityAllocator>,
    pub(super) ipcache: Arc<IpCacheManager>,
    pub(super) writer: PolicyWriter,
    pub(super) store: Store,
    pub(super) state: Mutex<State>,
    /// The settled revision has moved.
    pub(super) moved: Condvar,
    /// When the ipcache is to be looked through again.
    pub(super) survey: Mutex<Instant>,
    compile: Mutex<Span>,
}

impl Enforcement {
    /// Takes up the policies last accepted. Nothing is in force by them before endpoints are
    /// [restored](Self::restore) or admitted.
    ///
    /// # Errors
    ///
    /// `Corrupt` for a file that can't be understood.
    pub fn open(
        config: EnforcementConfig,
        identities: Arc<dyn IdentityAllocator>,
        ipcache: Arc<IpCacheManager>,
        writer: PolicyWriter,
    ) -> Result<Self> {
        let store = Store::new(config.file);
        let repository = store.load()?.unwrap_or_default();
        let flat: Vec<_> = repository.flat().cloned().collect();
        let mut rules = RulesInForce::new(config.world);
        rules.insert(&flat);
        let prefixes: Vec<IpNetwork> = cidrs::named_by(flat.iter()).into_iter().collect();
        let held = identities.acquire_cidrs(&prefixes)?;
        let leftovers = hold_mapped(&*identities, &ipcache)?;
        if !flat.is_empty() {
            info!("policy: {} rules of revision {}", flat.len(), repository.revision());
        }
        let mut state = State {
            settled: repository.revision(),
            repository,
            rules,
            seen: Version::NONE,
            options: config.options,
            endpoints: Default::default(),
            cidrs: prefixes.into_iter().zip(held.iter().map(|identity| identity.id())).collect(),
            leftovers,
            pending: Default::default(),
            unmapped: Default::default(),
        };
        state.follow(&identities.changes_since(Version::NONE));
        // Of those that an earlier process left nobody knows.
        state.unmapped.clear();
        let (moved, survey, compile) = (Condvar::new(), Mutex::new(Instant::now()), Mutex::default());
        Ok(Self { identities, ipcache, writer, store, state: Mutex::new(state), moved, survey, compile })
    }

    /// Lets the policies in force follow identities that somebody else acquired or that have expired. An address may be mapped to a
    /// new identity when this has returned.
    ///
    /// # Errors
    ///
    /// `Exhausted` where an endpoint's policy would grow too large. It stays what it was, without the new identities; the others follow.
    pub fn follow_identities(&self) -> Result<()> {
        let mut state = self.lock();
        let failed = self.learn(&mut state);
        let swap = self.flush(&mut state);
        drop(state);
        swap?.wait()?;
        failed
    }

    /// Takes out of force what belongs to no endpoint, once every endpoint that should exist was admitted; returns whose it was.
    /// Addresses that nobody mapped go, too.
    pub fn remove_strays(&self) -> Result<Vec<EndpointId>> {
        let state = self.lock();
        let strays = self.writer.retain(|endpoint| state.endpoints.contains_key(&endpoint))?;
        drop(state);
        let applied = self.ipcache.mark_complete()?;
        if applied.changed() {
            self.advance()?;
        }
        applied.into_result()?;
        let leftovers = std::mem::take(&mut self.lock().leftovers);
        if !leftovers.is_empty() {
            // Programs under way may have found addresses with them.
            self.writer.wait_for_programs()?;
            self.release(&leftovers);
        }
        Ok(strays)
    }

    /// When traffic needs a rule that allows it.
    pub fn mode(&self) -> EnforcementMode {
        self.lock().options.mode
    }

    /// Changes the mode of every endpoint; in force on all of them when it returns.
    ///
    /// # Errors
    ///
    /// As for policies that don't fit; then the mode is the old one.
    pub fn set_mode(&self, mode: EnforcementMode) -> Result<()> {
        let mut state = self.lock();
        let before = state.options.clone();
        state.options.mode = mode;
        let swap = self.recompile(&mut state).inspect_err(|_| state.options = before)?;
        drop(state);
        swap.wait().map(drop)
    }

    /// Moves the generation: what programs remember of earlier packets is void. To be called after whatever they judge by has
    /// been written.
    pub fn advance(&self) -> Result<()> {
        self.writer.switches().advance().map(drop)
    }

    /// The identities.
    pub fn identities(&self) -> &Arc<dyn IdentityAllocator> {
        &self.identities
    }

    /// Identities by address.
    pub fn ipcache(&self) -> &Arc<IpCacheManager> {
        &self.ipcache
    }

    /// What writes policies.
    pub fn writer(&self) -> &PolicyWriter {
        &self.writer
    }

    /// How long policies took to compile, and to come into force.
    pub fn timings(&self) -> (Span, SwapTimings) {
        (*self.compile.lock(), self.writer.timings())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Compiles, and notes how long it took.
    pub(super) fn compiling<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.compile.lock().note(start.elapsed());
        result
    }

    /// Takes over what identities have come and gone; policies that change are pending.
    pub(super) fn learn(&self, state: &mut State) -> Result<()> {
        self.learn_besides(state, None)
    }

    /// The same where the policy of one endpoint is about to be replaced: whether that one can follow does not matter.
    pub(super) fn learn_besides(&self, state: &mut State, replaced: Option<EndpointId>) -> Result<()> {
        let changes = self.identities.changes_since(state.seen);
        if changes.is_empty() {
            return Ok(());
        }
        let failed = self.compiling(|| state.follow(&changes));
        let stuck = failed.into_iter().find(|(endpoint, _)| Some(*endpoint) != replaced);
        stuck.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Writes what is pending. It stays pending where that fails.
    pub(super) fn flush(&self, state: &mut State) -> Result<Swap> {
        let swap = self.writer.begin_around(state.pending(), &state.unmapped)?;
        state.pending.clear();
        state.unmapped.clear();
        Ok(swap)
    }

    /// Compiles every policy anew and writes those that differ: all or none.
    fn recompile(&self, state: &mut State) -> Result<Swap> {
        let compiled = self.compiling(|| {
            let inputs = state.inputs();
            let again = |(endpoint, local): (&EndpointId, &Local)| Ok((*endpoint, local.recompiled(&inputs, false)?));
            state.endpoints.iter().map(again).collect::<Result<BTreeMap<_, _>>>()
        })?;
        let swap = self.writer.begin(rows(&compiled))?;
        state.settle(compiled);
        Ok(swap)
    }

    /// Maps prefixes of policies to their identities, or no more. Says whether that changed anything.
    pub(super) fn map_prefixes(&self, changes: &[Change]) -> Result<bool> {
        if changes.is_empty() {
            return Ok(false);
        }
        let applied = self.ipcache.apply(Source::Policy, changes)?;
        let changed = applied.changed();
        if changed {
            self.advance()?;
        }
        applied.into_result().map(|()| changed)
    }

    /// Gives identities back. That they can't be is no reason to fail: they are kept, which harms nobody.
    pub(super) fn release(&self, ids: &[SecurityId]) {
        if let Err(error) = self.identities.release_all(ids) {
            warn!("identities are kept: {error}");
        }
    }

    /// Waits until the policies of at least this revision judge every packet.
    ///
    /// # Errors
    ///
    /// `Busy` when that is not so after `timeout`.
    pub fn wait(&self, revision: u64, timeout: Duration) -> Result<u64> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while state.settled < revision {
            if self.moved.wait_until(&mut state, deadline).timed_out() {
                let detail = format!("revision {} is in force after {timeout:?}", state.settled);
                return Err(Error::Busy { object: format!("policy revision {revision}"), detail });
            }
        }
        Ok(state.settled)
    }
}

/// Acquires the identities of prefixes to which addresses are mapped since an earlier process: policies have to know them.
fn hold_mapped(identities: &dyn IdentityAllocator, ipcache: &IpCacheManager) -> Result<Vec<SecurityId>> {
    let mapped: BTreeSet<_> = ipcache.peers().iter().map(|peer| peer.entry.identity).collect();
    let known = mapped.into_iter().filter(|id| id.is_cidr()).filter_map(|id| identities.get(id));
    let labels: Vec<_> = known.map(|identity| identity.labels().clone()).collect();
    Ok(identities.acquire_all(&labels)?.iter().map(|identity| identity.id()).collect())
}

/// The change that maps a prefix to an identity.
pub(super) fn mapped(prefix: IpNetwork, identity: SecurityId) -> Change {
    Change::Upsert(prefix, IpCacheEntry::direct(identity))
}

impl fmt::Debug for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enforcement").field("writer", &self.writer).finish_non_exhaustive()
    }
}
