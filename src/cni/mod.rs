//! The CNI specification's types and verbs, for plugins and for agents.
//!
//! Versions 0.3.1, 0.4.0, 1.0.0 and 1.1.0 of <https://www.cni.dev/docs/spec/> are spoken.

mod attachment;
mod conf;
mod env;
mod error;
mod queue;
mod result;
mod runtime;
mod version;
pub use attachment::{Attachment, ContainerId, IfName};
pub use conf::NetConf;
pub use env::{CniArgs, Command, Environment};
pub use error::{CniError, ErrorCode};
pub use queue::{DeletionQueue, QueueLock};
pub use result::{CniResult, Interface, IpConfig, Route, RouteMetrics};
pub use runtime::{PortMapping, RuntimeConfig};
pub use version::CniVersion;
