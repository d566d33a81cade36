//! The container datapath of a node, as a library: addresses, endpoints, typed eBPF maps and programs.
//!
//! A network controller opens a [`Datapath`], asks it for endpoints, and pods talk: to each other, to the host, and through
//! the host to the network, by IPv4 and IPv6. Programs are loaded once per node and stay in the kernel; whatever becomes of
//! the process, packets flow on, and the next process takes over what it finds.
//!
//! ```text
//!  NodeConfig ──> Datapath::builder().open(config)
//!                     │   creates what is missing, takes over what is there:
//!                     │   devices, sysctls, programs, maps, addresses, endpoints
//!                     v
//!                 Datapath ── endpoints().create(spec) ──> Endpoint   live when it returns
//!                     │             .regenerate(id)                   written anew
//!                     │             .delete(id) ───────> Removal      says what was gone already
//!                     ├── mark_synced() ──> Leftovers    once every endpoint that should exist does
//!                     ├── maintain()                     every few seconds: expiry, repair, counters
//!                     ├── events() ───────> EventReader  drops, and traces on demand
//!                     ├── status() ───────> Status       what is not as it should be
//!                     │
//!                     ├── drop: nothing changes in the kernel; open again takes over
//!                     └── Datapath::cleanup(…): everything that podwire made goes, what it changed is put back
//! ```
//!
//! # Example
//!
//! ```no_run
//! use podwire::endpoint::EndpointSpec;
//! use podwire::{Datapath, Labels, NodeConfig};
//!
//! let node = NodeConfig::new("node-1")
//!     .ipv4("10.0.0.0/24".parse().expect("a prefix"))
//!     .ipv6("fd00::/120".parse().expect("a prefix"));
//! let datapath = Datapath::builder().open(node)?;
//!
//! let spec = EndpointSpec::new("default/web").netns("/run/netns/web").labels(Labels::parse(["k8s:app=web"])?);
//! let web = datapath.endpoints().create(spec)?; // live from here on
//! println!("{} has {:?} and {:?}", web.record.name, web.ipv4(), web.ipv6());
//!
//! datapath.mark_synced()?; // every endpoint that should exist does: leftovers of others may go
//! assert!(datapath.status().is_ok(), "{:?}", datapath.status().parts);
//! # Ok::<(), podwire::Error>(())
//! ```
//!
//! `examples/embed.rs` is a whole controller of one page that can be run.
//!
//! # Modules
//!
//! Each can be used without those below it in this table; a module uses only modules above its own.
//!
//! | module | what it is for |
//! |---|---|
//! | [`Error`], [`ErrorKind`] | the one error type: operation, object, cause, remedy, errno |
//! | [`state`] | files that survive a crash: documents, a journal, a lock |
//! | [`identity`] | labels and prefixes to numeric identities, with a crash-safe store |
//! | [`ipam`] | addresses: pools of both families, owners, expiry, a crash-safe store |
//! | [`netlink`], [`netns`], [`sysctl`] | links, addresses, routes, neighbours, filters; namespaces; settings with their old values |
//! | [`abi`] | structs shared with the programs, asserted equal to the compiled BTF |
//! | [`maps`] | typed eBPF maps of every kind, batches, pins, a cache of desired content |
//! | [`program`] | loading once, constants, adoption, attaching by tcx or clsact |
//! | [`tables`] | the node's maps with addresses and domain types in and out |
//! | [`ipcache`] | which identity a prefix has: several sources, one map |
//! | [`policy`] | rules, whom they select, and their compilation |
//! | [`enforcement`] | policy in force: the engine that follows rules, identities and endpoints, and swaps policies whole |
//! | [`conntrack`] | connections: listing, flushing, collecting those that have ended |
//! | [`events`] | what the programs report, decoded, as text and as JSON |
//! | [`endpoint`] | endpoints: states, creation with undo, restoration, removal |
//! | [`Datapath`] | the facade over all of it |
//! | [`simulator`] | what would become of a packet: the node's own programs asked, on copies of what they judge by |
//! | `api` | the models of the agent's HTTP API and a client (feature `api`) |
//! | `cni` | the CNI specification's types and verbs (feature `cni`) |
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | adds |
//! |---|---|
//! | `api` | module `api`; dependencies ureq and humantime |
//! | `cni` | module `cni`, and `api` |
//! | `yaml` | `policy::Policy::from_yaml`; dependency serde-saphyr (JSON needs no feature) |
//! | `programs` | all of them, which is what the three example programs need |
//!
//! # What it needs
//!
//! CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (or root); CAP_SYS_ADMIN to mount a bpffs, to enter namespaces and to look up
//! programs by id. Linux 6.1 for everything with clsact, 6.6 for [`AttachMode::Tcx`]. [`ipam`] and [`state`] need no privilege
//! at all.
//!
//! Methods of a [`Datapath`] are called on threads of the network namespace in which it was opened. The crate is synchronous
//! and has no global state; its types are `Send + Sync` where that makes sense, and what can be waited for has a file descriptor.
#![deny(unsafe_code, missing_docs)]

pub mod abi;
#[cfg(feature = "api")]
pub mod api;
mod clock;
#[cfg(feature = "cni")]
pub mod cni;
pub mod conntrack;
mod datapath;
pub mod endpoint;
pub mod enforcement;
mod error;
pub mod events;
pub mod identity;
mod ids;
pub mod ipam;
pub mod ipcache;
mod labels;
mod mac;
pub mod maps;
pub mod netlink;
pub mod netns;
pub mod policy;
pub mod program;
pub mod state;
mod sys;
pub mod sysctl;
pub mod tables;
mod undo;

pub use clock::{Clock, ManualClock, MonotonicClock};
pub use datapath::{
    CleanedUp, Datapath, DatapathBuilder, Devices, Health, LOOPBACK_IPV4, Leftovers, MapOverview, MapRow, Node,
    NodeConfig, NodeDevice, Simulator, Status, simulator,
};
pub use error::{DocumentProblem, Error, ErrorKind, PolicyShare, Result, shortened, shortened_words};
pub use ids::{EndpointId, IfIndex, SecurityId};
pub use labels::{Label, Labels};
pub use mac::MacAddr;
pub use program::AttachMode;

/// The README's example compiles, and that of the page on policy.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/policy.md")]
struct Readme;
