//! Policy in force: the maps that judge packets, and everything that has to change with them.
//!
//! [`PolicyWriter`] swaps the policies of endpoints whole. [`Enforcement`] is the engine above it: it holds the rules, follows the
//! identities and the endpoints, and knows in which order policies, identities and addresses change so that no packet
//! meets a wrong verdict.

mod cidrs;
mod endpoints;
mod engine;
mod patch;
mod pins;
mod policies;
mod rows;
mod spares;
mod state;
mod store;
mod swap;
mod timings;
mod trial;
mod unnamed;
mod upkeep;
mod view;
mod writer;

pub use endpoints::{Admission, Relabelled};
pub use engine::{Enforcement, EnforcementConfig};
pub use rows::PolicyRows;
pub use swap::{Swap, Swapped};
pub use timings::{Span, SwapTimings};
pub use trial::Trial;
pub use unnamed::UnnamedPort;
pub use upkeep::PolicyRowState;
pub use view::{RealizedPolicy, SelectorInUse};
pub use writer::PolicyWriter;
