//! Structs shared with the eBPF programs, byte for byte.
//!
//! Each is declared once in `bpf/abi.h`; `shared_struct!` mirrors it here and asserts, when the crate is compiled, that
//! its size and every field's offset equal those in the BTF that clang wrote. Addresses and fields named `_be` are in
//! network byte order, everything else in host order. Padding is explicit, so that every value has no uninitialised byte.

mod conntrack;
mod endpoint;
mod events;
mod ipcache;
mod lb;
mod metrics;
mod node;
mod podwire;
mod policy;
mod shared;

pub use conntrack::{
    CT_REMOVE_KEYS, CT_WAYS, CtBucket, CtCollect, CtDir, CtEntry, CtInsert, CtKey, CtPool, CtRemove, FragPorts,
    Ipv4FragId, Ipv6FragId,
};
pub use endpoint::{EndpointInfo, EndpointKey};
pub use events::{DropNotify, PolicyVerdictNotify, TraceNotify};
pub use ipcache::{IpCacheKey, RemoteEndpointInfo};
pub use lb::{
    Lb4AffinityKey, Lb4Backend, Lb4Key, Lb4ReverseNat, Lb4Service, Lb4SrcRangeKey, Lb6AffinityKey, Lb6Backend, Lb6Key,
    Lb6ReverseNat, Lb6Service, Lb6SrcRangeKey, LbAffinityMatch, LbAffinityVal,
};
pub use metrics::{MetricsKey, MetricsValue};
pub use node::{NodeKey, NodeValue};
pub use podwire::{
    ENDPOINT_PROBES, ENDPOINT_ROW_IPV4, ENDPOINT_ROW_IPV6, EndpointRow, EventBudget, ForwardPoint, PartyRow, Runtime,
    VerdictRow,
};
pub use policy::{PolicyEntry, PolicyKey, PolicyOutline, PolicyStatsKey, PolicyStatsValue};
pub use shared::{Field, Shared};

/// The types libbpf-cargo generated from the compiled BTF: the oracle for the assertions, used for nothing else.
#[allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    unsafe_code,
    unused_imports,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    clippy::all,
    clippy::unwrap_used,
    clippy::undocumented_unsafe_blocks
)]
mod oracle {
    include!(concat!(env!("OUT_DIR"), "/abi_oracle.rs"));
}
