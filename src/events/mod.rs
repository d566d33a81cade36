//! Events of the programs: what they dropped and, when it is switched on, what they forwarded and what policies said.
//!
//! The programs write records into the ring buffer `podwire_events`; [`EventReader`] takes them out, [`Event::decode`] makes
//! sense of one. An event prints as one line and serialises to JSON, both as users of Cilium's monitor know them.

mod decode;
mod json;
mod packet;
mod point;
mod reader;
mod text;
mod verdict;

pub use decode::{DropEvent, Event, TraceEvent};
pub(crate) use packet::is_later_ipv6;
pub use packet::{Layer4, PacketSummary};
pub use point::TracePoint;
pub use reader::{EventReader, Losses};
pub use verdict::{PolicyVerdictEvent, RaisedBy, VerdictAction, VerdictMatch};
