//! Policy in force: the maps that judge packets, and everything that has to change with them.
//!
//! [`PolicyWriter`] swaps the policies of endpoints whole.

mod pins;
mod rows;
mod swap;
mod timings;
mod writer;

pub use rows::PolicyRows;
pub use swap::{Swap, Swapped};
pub use timings::{Span, SwapTimings};
pub use writer::PolicyWriter;
