//! Endpoints: a pod's place on the node, from its creation to its removal.
//!
//! An endpoint is one row in `podwire_endpoints` (what its pod may send as), an entry per address in `cilium_lxc` (how
//! others reach it) and two attachments of programs that every endpoint shares. Creating one compiles and loads nothing.
//!
//! [`EndpointManager`] keeps them: typed [states](EndpointState), creation that takes back what it did when a step fails,
//! restoration after a restart, deletion that always succeeds in the end.

mod creation;
mod manager;
mod ownership;
mod reach;
mod reaper;
mod record;
mod reference;
mod regeneration;
mod removal;
mod restoration;
mod scrub;
mod settling;
mod spec;
mod state;
mod stock;
mod store;
mod table;
mod timings;
mod unreadable;
pub mod veth;
mod wiring;

pub use manager::EndpointManager;
#[cfg(feature = "cni")]
pub(crate) use ownership::PLUGIN_MARK;
pub(crate) use ownership::is_ours;
pub(crate) use reach::Reach;
pub use record::{Endpoint, EndpointRecord, LogEntry, NamedPort};
pub use reference::EndpointRef;
pub use removal::Removal;
pub use spec::{DeviceRef, EndpointSpec};
pub use state::EndpointState;
pub(crate) use store::{Unreadable, recorded_devices};
pub use timings::{Stage, Timings};
pub(crate) use wiring::Wiring;
