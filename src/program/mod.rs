//! Programs: embedded objects with node constants, loaded once and pinned, attached by tcx links or clsact filters.
//!
//! ```text
//! ObjectImage ─┐
//! Constants ───┼─> Loader ─ load_or_adopt ─> ProgramSet ─> Program ─┬─> test_run
//! map pins ────┘             (a pinned                              └─> Attacher ─> Attachment ─ pin ─> PinnedAttachment
//!                            generation)                                            (off on drop)      (stays)
//! ```
//!
//! A set of programs is loaded once per node; what starts later with the same objects, constants and maps adopts it by its
//! pins. Attaching the same hook again replaces the program in place. Nothing here knows what a program does.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use podwire::IfIndex;
//! use podwire::program::{AttachMode, Attacher, Constants, Device, Direction, Loader, bpffs, embedded};
//!
//! let root = Path::new("/sys/fs/bpf");
//! bpffs::ensure_mounted(root)?;
//! let mut constants = Constants::new();
//! constants.set("cfg_router_ipv4", [10, 0, 0, 1]);
//! let programs = Loader::new(root.join("tc/globals"))
//!     .object(embedded::LXC)
//!     .constants(constants)
//!     .max_entries("cilium_lxc", 16_384)
//!     .load_or_adopt(&root.join("podwire/programs"))?;
//!
//! let attacher = Attacher::new(root, AttachMode::Auto)?;
//! let device = Device { name: "lxc0123456789ab", index: IfIndex::new(7).expect("not 0") };
//! let wanted = [
//!     (Direction::Ingress, programs.program("cil_from_container")?),
//!     (Direction::Egress, programs.program("cil_to_container")?),
//! ];
//! for attachment in attacher.attach_all(device, &wanted)? {
//!     attachment.pin()?;
//! }
//! programs.generation().remove_others(&root.join("podwire/programs"))?;
//! # Ok::<(), podwire::Error>(())
//! ```

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
pub use test_run::{SkBuff, TestRun, call, test_run};

pub use crate::netlink::Direction;
