//! podwire: the container datapath of a node, as a library.
#![deny(unsafe_code, missing_docs)]

pub mod abi;
#[cfg(feature = "api")]
pub mod api;
#[cfg(feature = "cni")]
pub mod cni;
mod datapath;
pub mod endpoint;
mod error;
pub mod events;
mod ids;
pub mod ipam;
mod labels;
mod mac;
pub mod maps;
pub mod netlink;
pub mod netns;
pub mod program;
pub mod state;
mod sys;
pub mod sysctl;
pub mod tables;

pub use datapath::{
    CleanedUp, Datapath, DatapathBuilder, Devices, Health, LOOPBACK_IPV4, Leftovers, MapOverview, MapRow, Node,
    NodeConfig, NodeDevice, Status,
};
pub use error::{Error, ErrorKind, Result};
pub use ids::{EndpointId, IfIndex, SecurityId};
pub use labels::{Label, Labels};
pub use mac::MacAddr;
pub use program::AttachMode;
