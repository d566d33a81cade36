//! The objects that are built into the crate.

use super::ObjectImage;

macro_rules! embedded {
    ($name:literal) => {
        ObjectImage::new($name, include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bpf.o")))
    };
}

/// Every map with a public layout, and no program.
pub const MAPS: ObjectImage<'static> = embedded!("maps");
/// `cil_from_container` and `cil_to_container`, for the host side of pods' devices.
pub const LXC: ObjectImage<'static> = embedded!("lxc");
/// `cil_from_host` and `cil_to_host`, for cilium_host and cilium_net.
pub const HOST: ObjectImage<'static> = embedded!("host");
/// `cil_from_netdev` and `cil_to_netdev`, for native devices.
pub const NETDEV: ObjectImage<'static> = embedded!("netdev");
/// `podwire_ct_collect`, `podwire_ct_remove` and `podwire_ct_insert`, by which user space changes the table of connections.
pub const CONNTRACK: ObjectImage<'static> = embedded!("conntrack");
