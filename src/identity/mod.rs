//! Identities: what policy sees of a peer.
//!
//! Two endpoints with the same labels have the same identity, whatever their addresses; the datapath carries and compares its
//! number. An [`IdentityAllocator`] gives out the numbers, and [`LocalIdentities`] is the one for a single node, which
//! remembers them on disk. [`SecurityId`](crate::SecurityId) says which numbers are for what.
//!
//! # Labels and numbers
//!
//! - No labels: [`SecurityId::INIT`](crate::SecurityId::INIT). The labels of a reserved identity (`reserved:host`): that one.
//! - Other label sets: a number from 256 to 65535. Labels of the source `reserved` stand alone, except `reserved:init`, and
//!   those of the source `cidr` come from prefixes only: nobody becomes the host or the world by a label.
//! - A prefix: a number from 2^24 on, with the labels `cidr:203.0.113.0/24` and `reserved:world-ipv4`, or of IPv6
//!   `cidr:2001-db8--0/32` and `reserved:world-ipv6`; with `reserved:world` in their place on a node with one family. The prefix
//!   of length 0 is the world itself.
//!
//! # Lifetime
//!
//! Whoever uses an identity acquires it and releases it once; in between its number and its labels stay. Without a user it is
//! kept for the release delay (10 minutes unless configured otherwise), so that a pod that is made anew finds its number, and
//! policies that know it, still in place. Then it is removed, and its number is the last to be used again. Of a prefix's only the number is kept:
//! who follows the changes loses it with its last user.
//!
//! References are not on disk, the numbers are. After a restart every identity is there, without a user, those of prefixes too, since
//! addresses may still be mapped to them; those that nobody acquires again within the delay go.

mod allocator;
mod book;
mod changes;
mod cidr;
mod config;
mod local;
mod numbers;
mod record;
mod reserved;
mod store;
mod types;
mod world;

pub use allocator::IdentityAllocator;
pub use changes::{Changes, Version};
pub use cidr::{cidr_label, cidr_labels, prefix_of_label};
pub use config::{DEFAULT_RELEASE_DELAY, IdentityConfig};
pub use local::LocalIdentities;
pub use reserved::{RESERVED, labels_of_reserved, name_of_reserved, reserved_by_name};
pub use types::Identity;
pub use world::World;
