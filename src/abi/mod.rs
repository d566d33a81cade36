//! Structs shared with the eBPF programs, byte for byte.
//!
//! Each is declared once in `bpf/abi.h`; [`shared_struct!`] mirrors it here and asserts, when the crate is compiled, that
//! its size and every field's offset equal those in the BTF that clang wrote. Addresses and fields named `_be` are in
//! network byte order, everything else in host order. Padding is explicit, so that every value has no uninitialised byte.

mod endpoint;
mod events;
mod metrics;
mod podwire;
mod shared;

pub use endpoint::{EndpointInfo, EndpointKey};
pub use events::{DropNotify, PolicyVerdictNotify, TraceNotify};
pub use metrics::{MetricsKey, MetricsValue};
pub use podwire::{
    ENDPOINT_PROBES, ENDPOINT_ROW_IPV4, ENDPOINT_ROW_IPV6, EndpointRow, EventBudget, ForwardPoint, Runtime,
};
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
    clippy::undocumented_unsafe_blocks
)]
mod oracle {
    include!(concat!(env!("OUT_DIR"), "/abi_oracle.rs"));
}
