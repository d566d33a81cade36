//! Requests to the kernel's routing sockets (rtnetlink), and their events.
//!
//! A [`Socket`] speaks for the network namespace in which it was opened, and may be shared between threads. Each kind of
//! object has its methods on it; the same requests can be built as [`Request`]s and sent together, so that what a pod
//! needs (addresses, routes, neighbours) costs one system call:
//!
//! ```no_run
//! use podwire::netlink::{AddressSpec, LinkChange, Request, RouteSpec, Socket};
//! use podwire::netns::NetNs;
//!
//! let pod = Socket::open_in(&NetNs::open("/run/netns/web")?)?;
//! let device = pod.link_by_name("eth0")?.index;
//! let gateway = "10.0.0.1".parse().expect("an address");
//! pod.execute_all(&[
//!     Request::link_set(device, &LinkChange { up: Some(true), ..LinkChange::default() })?,
//!     Request::address_add(&AddressSpec::new(device, "10.0.0.77/32".parse().expect("a prefix")))?,
//!     Request::route_add(&RouteSpec::new("10.0.0.1/32".parse().expect("a prefix")).device(device))?,
//!     Request::route_add(&RouteSpec::new("0.0.0.0/0".parse().expect("a prefix")).device(device).gateway(gateway))?,
//! ])?;
//! # Ok::<(), podwire::Error>(())
//! ```
//!
//! Every error of the kernel comes back as [`Error::Netlink`](crate::Error::Netlink) with its errno and the kernel's own
//! text. Numbers are in host byte order, sizes in bytes. Least kernel: 5.5 (alternative names); single attributes that
//! need a newer one say so.

mod address;
mod address_events;
mod events;
mod exchange;
mod filter;
mod link;
mod link_change;
#[cfg(test)]
mod malformed;
mod names;
mod neighbour;
mod qdisc;
mod request;
mod route;
mod socket;
mod wire;

pub use address::{Address, AddressSpec};
pub use address_events::AddressEvents;
pub use events::{LinkEvent, LinkEvents};
pub use filter::{Direction, Filter, FilterSpec};
pub use link::Link;
pub use link_change::{DeviceSpec, LinkChange, VethPair, VethSpec};
pub use neighbour::{Neighbour, NeighbourSpec};
pub use request::Request;
pub use route::{Route, RouteKind, RouteSpec, Scope};
pub use socket::Socket;
