//! Which identity an address has: what several sources know of prefixes, and what of it is in force.
//!
//! An [`IpCacheManager`] owns `cilium_ipcache_v2`. Each [`Source`] says at most one thing of a prefix; of those that say
//! something of the very same prefix the highest wins and stands in the map, and when it withdraws, the next one does. Between prefixes
//! precedence has no say: the kernel takes the longest that covers an address.
//!
//! Only differences are written, in batches, and what takes another's place is written before that is removed.
//!
//! # After a restart
//!
//! Opening takes the map's content over as it is. Each entry found stays until its source, or a higher one, says something
//! of its prefix, or until [`IpCacheManager::mark_complete`] says that all sources have spoken; so no address changes its identity
//! because sources come back one after the other. A found entry's source is guessed from its content: with a tunnel or
//! the identity of a label set [`Source::Node`], of a prefix [`Source::Policy`], of the host or the world theirs.
//!
//! # Generation
//!
//! What programs remember of an address is void only when the datapath's generation moves. Whoever calls a method that returns
//! [`Applied`] moves it on if [`Applied::changed`] says so.

mod directory;
mod manager;
mod source;

pub use directory::{Change, Peer};
pub use manager::{Applied, IpCacheManager};
pub use source::Source;
