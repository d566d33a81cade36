//! Policy on a node: identities, the ipcache and the engine, opened in the order in which they need each other.

use std::sync::Arc;

use super::Datapath;
use super::config::NodeConfig;
use super::node::{Node, Paths};
use crate::Result;
use crate::enforcement::{Enforcement, EnforcementConfig, PolicyWriter};
use crate::identity::{IdentityAllocator, IdentityConfig, LocalIdentities, World};
use crate::ipcache::IpCacheManager;
use crate::policy::{PolicyOptions, WorldIdentities};
use crate::tables::{IpCache, LxcEntry, LxcMap, PolicyMaps, Switches};

/// The file of the state directory with the policies last accepted.
pub(super) const POLICIES: &str = "policy.json";
/// The folder of the state directory with the identities.
pub(super) const IDENTITIES: &str = "identities";

impl NodeConfig {
    /// The world of a node with these ranges.
    pub(super) fn world(&self) -> World {
        World::new(self.ipv4_range.is_some(), self.ipv6_range.is_some())
    }
}

/// Opens the engine over the maps that are pinned. Policies on disk come into force with the endpoints.
pub(super) fn open(paths: &Paths, config: &NodeConfig, node: &Node) -> Result<Arc<Enforcement>> {
    let world = config.world();
    let identity_config = match config.identity_release_delay {
        Some(delay) => IdentityConfig::new(world).release_delay(delay),
        None => IdentityConfig::new(world),
    };
    let identities = LocalIdentities::open(paths.state(IDENTITIES), identity_config)?;
    let ipcache = Arc::new(IpCacheManager::open(IpCache::open_pinned(paths.maps())?, world)?);
    // Where the state directory was lost and the maps were not, addresses still have numbers of an earlier life.
    let left = LxcMap::open_pinned(paths.maps())?.entries()?.into_iter().filter_map(|(_, entry)| match entry {
        LxcEntry::Endpoint(endpoint) => Some(endpoint.identity),
        _ => None,
    });
    identities.avoid(left.chain(ipcache.peers().into_iter().map(|peer| peer.entry.identity)));
    let identities: Arc<dyn IdentityAllocator> = Arc::new(identities);
    let addresses: Vec<_> = node.addresses().collect();
    ipcache.set_host_addresses(&addresses)?.into_result()?;

    let switches = Arc::new(Switches::open_pinned(paths.maps())?);
    let writer = PolicyWriter::open(PolicyMaps::open_pinned(paths.maps())?, switches, &paths.maps())?;
    let world = WorldIdentities::of_node(config.ipv4_range.is_some(), config.ipv6_range.is_some());
    let enforcement = EnforcementConfig::new(world).file(paths.state(POLICIES)).options(config.policy.clone());
    Ok(Arc::new(Enforcement::open(enforcement, identities, ipcache, writer)?))
}

impl Datapath {
    /// Policy: the rules in force, and what follows from them.
    pub fn policy(&self) -> &Enforcement {
        &self.enforcement
    }

    /// The identities of labels and prefixes.
    pub fn identities(&self) -> &dyn IdentityAllocator {
        &**self.enforcement.identities()
    }

    /// Identities by address.
    pub fn ipcache(&self) -> &IpCacheManager {
        self.enforcement.ipcache()
    }

    /// Whether what policy denies is only reported, of every endpoint. Single ones: see
    /// [`set_audit`](crate::endpoint::EndpointManager::set_audit).
    pub fn policy_audit(&self) -> bool {
        self.endpoints.audits_all()
    }

    /// Sets whether what policy denies is only reported, of every endpoint; in force when it returns. Until the next start.
    pub fn set_policy_audit(&self, on: bool) -> Result<()> {
        self.endpoints.set_audit_all(on)
    }
}

impl NodeConfig {
    /// How policies are compiled: when traffic needs a rule, whether the host is let in, how large a policy may grow.
    pub fn policy(mut self, options: PolicyOptions) -> Self {
        self.policy = options;
        self
    }

    /// Lets through, and reports, what policy denies.
    pub fn policy_audit(mut self, on: bool) -> Self {
        self.policy_audit = on;
        self
    }

    /// How long identities are kept that nobody uses; 10 minutes unless told.
    pub fn identity_release_delay(mut self, delay: std::time::Duration) -> Self {
        self.identity_release_delay = Some(delay);
        self
    }
}
