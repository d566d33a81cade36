//! Addresses for endpoints: who has which, and which comes next.
//!
//! An [`Ipam`] manages one range of each family. It is sparse: a pool costs memory for what was handed out, not for what it could hold, and an
//! IPv6 pool of 2^64 addresses or more is nothing special.
//!
//! # What is handed out
//!
//! Never: outside the range; what the configuration excludes; an IPv4 prefix's network and broadcast address (RFC 1122, section 3.2.1.3), except
//! in a /31 (RFC 3021) and a /32; an IPv6 prefix's first address, which is the subnet-router anycast address (RFC 4291, section 2.6.1), except in
//! a /127 (RFC 6164) and a /128; and what can't be a host's address at all: `0.0.0.0/8`, `127.0.0.0/8`, `224.0.0.0/4`, `255.255.255.255`, `::`, `::1`
//! and `ff00::/8`.
//!
//! The next free address is the lowest one that was never used, so that numbers are readable and an address is long forgotten before it is
//! used again. When every address was used, the one released first comes first, an address just released last. The configured reuse delay
//! counts from the release: while it lasts, an address is handed out only if nothing else is left, or not at all where
//! [`strict_reuse_delay`](IpamConfig::strict_reuse_delay) is set. Asking for an address by its number is not subject to the delay. So that
//! churn in a huge pool costs no memory without end, the order of at most the 16,384 latest releases is remembered; older ones whose delay is over
//! count as never used, and follow after the others that were not.
//! All of this takes O(log n) time in the number of allocations.
//!
//! The router's own address (the gateway of every endpoint, owner [`ROUTER`]) is allocated before any other.
//!
//! # Unclaimed allocations
//!
//! Whoever asks for an address may die before it is used. An allocation with [`Lifetime::UnlessClaimed`] lasts only for its period, unless it is
//! claimed with the id that came with it; [`Ipam::expire`] releases what is due. Deadlines are monotonic times, which mean nothing after a
//! restart: an allocation unclaimed by then gets its full period anew, since it is better to keep an address too long than to take it away from a
//! creation under way.
//!
//! # On disk
//!
//! [`Ipam::open`] keeps a journal. A change is durable before the call that made it returns; calls made at the same time share one `fsync`.
//! A crash therefore loses nothing that was handed out, and leaves nothing allocated that nobody asked for.

mod config;
mod expiration;
mod family;
mod ledger;
mod manager;
mod owner;
mod pool;
mod ranges;
mod record;
mod store;
mod types;

pub use crate::clock::{Clock, ManualClock, MonotonicClock};
pub use config::{DEFAULT_CLAIM_PERIOD, DEFAULT_REUSE_DELAY, IpamConfig};
pub use expiration::{Expiration, ExpirationId, Lifetime};
pub use family::{Families, Family};
pub use manager::Ipam;
pub use owner::{MAX_OWNER_LEN, ROUTER};
pub use types::{Allocation, Lease, Restored, RouterAddresses, Stray, Usage};
