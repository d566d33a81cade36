//! The facade: a node's datapath, opened or taken over.

mod attach;
mod builder;
mod cleanup;
mod config;
mod follow;
mod forwarding;
mod host;
mod inspect;
mod maintenance;
mod namespace;
mod node;
mod open;
mod policy;
mod repair;
mod routes;
mod served;
pub mod simulator;
mod status;
mod sysctls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use log::warn;
use parking_lot::{Mutex, RwLock};

pub use builder::DatapathBuilder;
pub use cleanup::CleanedUp;
pub use config::{Devices, NodeConfig};
pub use inspect::{MapOverview, MapRow};
pub use node::{LOOPBACK_IPV4, Node, NodeDevice};
pub use simulator::Simulator;
pub use status::{Health, Status};

use follow::Followed;
#[cfg(feature = "cni")]
pub(crate) use served::{QUEUE, QUEUE_LOCK, QUEUED};

use crate::conntrack::{Collected, Conntrack};
use crate::endpoint::EndpointManager;
use crate::enforcement::Enforcement;
use crate::events::EventReader;
use crate::ipam::Ipam;
use crate::program::{Attacher, ProgramSet};
use crate::state::Lock;
use crate::tables::{ForwardsMap, LxcEntry, MetricsMap, VerdictCounts};
use crate::{EndpointId, Result};

/// A node's datapath: its devices, maps and programs, its addresses and its endpoints.
///
/// Opening it creates what is missing and takes over what is there. Dropping it changes nothing in the kernel: packets flow
/// on, and the next one to open it finds everything as it was. One process at a time has it open.
///
/// It belongs to the network namespace of the thread that opened it, and its methods are to be called by threads of that
/// namespace.
pub struct Datapath {
    paths: node::Paths,
    /// As of the last look at the kernel.
    node: RwLock<Arc<Node>>,
    followed: Mutex<Followed>,
    ipam: Arc<Ipam>,
    endpoints: EndpointManager,
    enforcement: Arc<Enforcement>,
    programs: ProgramSet,
    attacher: Attacher,
    metrics: MetricsMap,
    forwards: ForwardsMap,
    verdicts: VerdictCounts,
    conntrack: Arc<Conntrack>,
    /// Whether the caller has said that everything which should exist does.
    synced: AtomicBool,
    /// Held while a simulator is loaded: one at a time uses its folder.
    simulators: Mutex<()>,
    is_new: bool,
    _locks: [Lock; 2],
}

/// What [`Datapath::mark_synced`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Endpoints whose devices were gone.
    pub endpoints: Vec<EndpointId>,
    /// Entries of `cilium_lxc` that nobody asked for.
    pub addresses: usize,
    /// Rows of `podwire_endpoints` without an endpoint.
    pub rows: usize,
    /// Policies of endpoints that do not exist, by the endpoints' ids.
    pub policies: Vec<EndpointId>,
    /// Generations of programs that nothing uses any more.
    pub generations: Vec<String>,
}

impl Datapath {
    /// Begins with the default folders: see [`DatapathBuilder`].
    pub fn builder() -> DatapathBuilder {
        DatapathBuilder::default()
    }

    /// The node as it turned out, with its devices and addresses as of the last [`follow_node`](Self::follow_node).
    pub fn node(&self) -> Arc<Node> {
        self.node.read().clone()
    }

    /// The pods' addresses.
    pub fn ipam(&self) -> &Ipam {
        &self.ipam
    }

    /// The endpoints.
    pub fn endpoints(&self) -> &EndpointManager {
        &self.endpoints
    }

    /// Counters of dropped packets by reason and direction, and of forwarded ones as of the last
    /// [`maintain`](Self::maintain).
    pub fn metrics(&self) -> &MetricsMap {
        &self.metrics
    }

    /// Counters of forwarded packets by the way they went, up to date.
    pub fn forwards(&self) -> &ForwardsMap {
        &self.forwards
    }

    /// Connections that policies let pass.
    pub fn verdicts(&self) -> &VerdictCounts {
        &self.verdicts
    }

    /// The connections: to list, to flush, to set how often those that have ended are collected.
    pub fn conntrack(&self) -> &Conntrack {
        &self.conntrack
    }

    /// Whether nothing was there when it was opened, neither on disk nor in the kernel: who fails before it is of use to
    /// anybody may drop it and [clean up](Self::cleanup), and nothing is there again.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether the programs were found pinned rather than loaded.
    pub fn adopted(&self) -> bool {
        self.programs.adopted()
    }

    /// The events of the programs. There should be one reader at a time.
    pub fn events(&self) -> Result<EventReader> {
        EventReader::open_pinned(self.paths.maps())
    }

    /// Says that every endpoint which should exist has been created or restored: only now leftovers may go. What an
    /// endpoint has whose file can't be read is none; [`status`](Self::status) names the file.
    pub fn mark_synced(&self) -> Result<Leftovers> {
        self.synced.store(true, Ordering::Relaxed);
        let endpoints = self.endpoints.collect()?;
        let rows = self.endpoints.remove_stray_rows()?;
        let reach = self.endpoints.reach();
        reach.mark_complete();
        let drift = reach.resync()?;
        self.enforcement.advance()?;
        self.endpoints.release_orphans()?;
        let mut leftovers = Leftovers { endpoints, addresses: drift.foreign, rows, ..Leftovers::default() };
        if !self.endpoints.unreadable().is_empty() {
            warn!(
                "policies and programs that nobody asked for stay: they may be those of endpoints whose files can't be read"
            );
            return Ok(leftovers);
        }
        leftovers.policies = self.enforcement.remove_strays()?;
        leftovers.generations = self.programs.generation().remove_others(&self.paths.programs())?;
        Ok(leftovers)
    }

    /// Removes connections that have ended, if it is time for that: to be called every few seconds like
    /// [`maintain`](Self::maintain), but apart, because with some 100,000 connections it takes a while. `stop` is asked now and then
    /// whether to leave it at that.
    pub fn collect_connections(&self, stop: impl Fn() -> bool) -> Result<Option<Collected>> {
        self.conntrack.collect_if_due(Instant::now(), stop)
    }

    /// What an address stands for on this node.
    pub fn address(&self, address: std::net::IpAddr) -> Result<Option<LxcEntry>> {
        self.endpoints.reach().lookup(address)
    }
}
