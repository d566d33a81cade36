//! The agent's HTTP API: the models of its JSON, and a synchronous client for its Unix socket.
//!
//! Paths, field names and error bodies are those of version 1 of Cilium's agent API (`api/v1/openapi.yaml` of its
//! 1.19), so that its clients can talk to an agent that serves these models, and this client to its agent.
//!
//! ```no_run
//! use podwire::api::Client;
//!
//! let client = Client::new("/var/run/podwire/podwire.sock");
//! for endpoint in client.endpoints(&[])? {
//!     println!("{:?}", endpoint.id);
//! }
//! # Ok::<(), podwire::Error>(())
//! ```

mod address;
mod client;
mod config;
mod endpoint;
mod key;
mod monitor;
mod nodes;
mod policy;
mod problem;
mod status;
mod tables;
mod text;
mod time;
mod trace;
mod view;

pub use address::{AddressPair, IpamAddressResponse, IpamResponse, NodeAddressing, NodeAddressingElement};
pub use client::{Client, ClientBuilder, IpamRequest, MonitorStream};
pub use config::{DaemonConfiguration, DaemonConfigurationSpec, DaemonConfigurationStatus, DeviceSettings, Options};
pub use endpoint::{
    Endpoint, EndpointBatchDeleteRequest, EndpointChangeRequest, EndpointConfigurationSpec,
    EndpointConfigurationStatus, EndpointDatapathConfiguration, EndpointHealth, EndpointHealthStatus,
    EndpointIdentifiers, EndpointNetworking, EndpointPolicy, EndpointPolicyEnabled, EndpointPolicyStatus,
    EndpointState, EndpointStatus, EndpointStatusChange, L4Policy, LabelConfiguration, LabelConfigurationSpec,
    LabelConfigurationStatus, PolicyRule, Port,
};
pub use key::EndpointKey;
pub use monitor::{MonitorFilter, MonitorType};
pub use nodes::{ClusterNodes, NodeElement};
pub use policy::{NumberedRule, Policy, PolicyLabel, SelectorIdentityMapping};
pub use problem::Problem;
pub use status::{
    BpfMapProperties, BpfMapStatus, ClockSource, ClusterStatus, CniChaining, ControllerConfiguration, ControllerRuns,
    ControllerStatus, Identity, IdentityEndpoints, IdentityRange, IpamStatus, MonitorStatus, Routing, Status,
    StatusResponse, StatusState,
};
pub use tables::{BpfMap, BpfMapEntry, BpfMapList, DebugInfo, IpListEntry, IpListEntryMetadata, MapAction, Metric};
pub use time::{NEVER, timestamp, timestamp_millis};
pub use trace::{
    PolicyTrace, PolicyTraceRequest, TraceChange, TraceConnection, TraceDevice, TraceDrop, TracePolicy, TraceSide,
};

/// Where an agent serves its API unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/podwire/podwire.sock";
