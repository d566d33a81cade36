//! The node's maps, with addresses and domain types in and out.
//!
//! Each table is a thin layer over one or a few maps of [`crate::maps`]: it knows their names, layouts and default sizes, turns
//! domain types into keys and values, and keeps the order in which several writes have to happen. The layouts are those of
//! Cilium 1.19, except for the tables named `podwire_*`.
//!
//! Every table can be created unpinned, opened from its pin (or the directory of the pins), or laid over a map that is open
//! already. Ports are in host order here, whatever the maps hold.

mod address;
mod catalog;
mod conntrack;
mod drop_reason;
mod endpoint_rows;
mod forwards;
mod fragments;
mod ipcache;
mod lb;
mod lxc;
mod metrics;
mod node;
mod policy;
mod ports;
mod protocol;
mod source_file;
mod switches;
mod table;
mod verdict_counts;

pub use catalog::{CatalogEntry, catalog};
pub use conntrack::{
    Connection, CtDirection, CtErrno, CtErrors, CtFlags, CtMap, CtPath, CtPathFlags, CtState, Echo, FlowTuple,
};
pub use drop_reason::{DropReason, Reason};
pub use endpoint_rows::EndpointRows;
pub use forwards::ForwardsMap;
pub use fragments::fragment_specs;
pub use ipcache::{IpCache, IpCacheEntry, IpCacheFlags};
pub use lb::{
    Affinity, AffinityClient, Algorithm, Backend, BackendId, BackendState, Frontend, LbMap, MAGLEV_SLOTS, MaglevTables,
    RevNatId, Scope, Service, ServiceFlags, SourceRange, StoredService,
};
pub(crate) use lxc::host_info;
pub use lxc::{EndpointFlags, LxcEndpoint, LxcEntry, LxcMap};
pub use metrics::{Counted, Counter, MetricsDirection, MetricsMap};
pub use node::{NodeEntry, NodeMap};
pub use policy::{
    PolicyAction, PolicyCount, PolicyDirection, PolicyL4, PolicyMap, PolicyMaps, PolicyMatch, PolicyOutlines,
    PolicyStats, PolicyVerdict,
};
pub use ports::PortPrefix;
pub use protocol::Protocol;
pub use source_file::SourceFile;
pub use switches::{HashKeys, Switches};
pub use verdict_counts::{VerdictCount, VerdictCounts};
