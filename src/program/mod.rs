//! Programs: embedded objects with node constants, loaded once and pinned, attached by tcx links or clsact filters.
//!
//! ```text
//! ObjectImage ──┐
//! Constants ────┼─ Loader::load_or_adopt ──> ProgramSet ──> Program ──> Attacher::attach ──> Attachment ─ pin ─> PinnedAttachment
//! map pins ─────┘   (pinned generation)                       │                          (detaches on drop)       (stays)
//!                                                             └─> test_run
//! ```
//!
//! Nothing here knows what a program does. Which objects a node needs, and what their constants mean, is said where the
//! datapath is put together.

mod attach;
mod attached;
pub mod bpffs;
mod clsact;
mod constants;
pub mod embedded;
pub mod features;
mod generation;
mod handle;
mod libbpf_log;
mod loader;
mod map_layout;
mod set;
mod tcx_link;
mod test_run;

pub use attach::{AttachMode, Attacher, Attachment, Device, PinnedAttachment};
pub use attached::{Attached, ProgramInfo, Via};
pub use constants::Constants;
pub use generation::Generation;
pub use handle::Program;
pub use loader::{Loader, ObjectImage};
pub use set::ProgramSet;
pub use test_run::{SkBuff, TestRun, test_run};

pub use crate::netlink::Direction;
