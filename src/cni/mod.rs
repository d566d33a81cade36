//! The CNI specification's types and verbs, for plugins and for agents.
//!
//! Versions 0.3.1, 0.4.0, 1.0.0 and 1.1.0 of <https://www.cni.dev/docs/spec/> are spoken. A plugin is one call of
//! [`main`], which serves the process's environment and standard input with the agent on the configured socket; [`serve`]
//! is the same with any environment, input and [`Agent`]. An agent works off what met nobody with [`DeletionQueue`].
//!
//! A configuration, `/etc/cni/net.d/10-podwire.conflist`; [`NetConf`] tells every key, and what holds without it:
//!
//! ```json
//! {
//!   "cniVersion": "1.0.0",
//!   "name": "pods",
//!   "plugins": [
//!     { "type": "podwire-cni", "log-file": "/var/log/podwire-cni.log" },
//!     { "type": "portmap", "capabilities": { "portMappings": true } }
//!   ]
//! }
//! ```
//!
//! | error code | meaning |
//! |---|---|
//! | 1 | unsupported cniVersion, or one that has no such command |
//! | 3 | the container's network namespace is gone |
//! | 4 | an environment variable is missing or invalid |
//! | 5, 6, 7 | the configuration can't be read, is not JSON, is not valid |
//! | 11 | no agent answers, or it is busy: try again |
//! | 50 | (STATUS) ADD can't be served |
//! | 100, 101, 102 | (CHECK) the agent does not know the endpoint; it is not healthy; devices, addresses or routes differ |
//! | 103 | ADD of what is attached already |
//! | 104 | no address is left |
//! | 105 | (GC) something could not be freed |
//! | 106 | (ADD) a route that the interface needs is another interface's |
//! | 999 | anything else |

mod add;
mod agent;
mod attachment;
mod check;
mod conf;
mod del;
mod device;
mod env;
mod error;
mod gc;
mod http;
mod logging;
mod netns;
mod plugin;
mod queue;
mod result;
mod runtime;
mod status;
mod version;

pub use agent::{Agent, AllocatedAddress, Allocation, AttachedEndpoint, EndpointHealth, NewEndpoint, NodeSettings};
pub use attachment::{Attachment, ContainerId, IfName};
pub use conf::NetConf;
pub use env::{CniArgs, Command, Environment};
pub use error::{CniError, ErrorCode};
pub use http::HttpAgent;
pub use plugin::{About, Failure, Outcome, main, serve};
pub use queue::{DeletionQueue, QueueLock};
pub use result::{CniResult, Interface, IpConfig, Route, RouteMetrics};
pub use runtime::{PortMapping, RuntimeConfig};
pub use version::CniVersion;
