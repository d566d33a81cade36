//! A node as it turned out.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

use super::policy::{IDENTITIES, POLICIES};
use super::{forwarding, namespace, open, served, sysctls};
use crate::program::Device;
use crate::state::{create_dir, remove_leftovers};
use crate::tables::{PolicyMap, catalog};
use crate::{Error, IfIndex, MacAddr, Result};

/// The address under which a pod reaches itself through a service.
pub const LOOPBACK_IPV4: Ipv4Addr = Ipv4Addr::new(169, 254, 42, 1);

/// The version of `node_config.json`.
pub(super) const VERSION: u32 = 1;

/// The node's configuration as it is in force, in the state directory.
pub(super) const FILE: &str = "node_config.json";

/// The folders of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Paths {
    pub(super) bpf_root: PathBuf,
    pub(super) state_dir: PathBuf,
}

/// The files and folders that a datapath makes in its state directory, in the order in which they are removed: [`MARKS`] last.
const STATE: [&str; 12] = [
    "endpoints",
    "ipam",
    IDENTITIES,
    POLICIES,
    forwarding::FORWARDERS,
    forwarding::REDIRECTS,
    open::MOUNTED,
    served::FILE,
    LOCK,
    sysctls::FILE,
    FILE,
    namespace::FILE,
];

/// The file by which a state directory is locked.
pub(super) const LOCK: &str = "lock";

/// Any of these says that a state directory is podwire's; other programs, too, have an `ipam` and a `lock`. The first file of all is one
/// of them, but for the lock.
pub(super) const MARKS: [&str; 3] = [sysctls::FILE, FILE, namespace::FILE];

/// What a state directory is to whoever removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// It does not exist, or is empty.
    Nothing,
    /// It has a mark.
    Ours,
    /// It has things, and no mark.
    Foreign,
}

impl Paths {
    /// With the state directory's one true name, by which two datapaths are told apart; also where it does not exist.
    pub(super) fn new(bpf_root: &Path, state_dir: &Path) -> Self {
        Self { bpf_root: bpf_root.to_owned(), state_dir: canonical(state_dir) }
    }

    /// Whose the state directory is.
    pub(super) fn content(&self) -> Content {
        match fs::read_dir(&self.state_dir).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Content::Nothing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Content::Nothing,
            _ if MARKS.iter().any(|mark| self.state(mark).is_file()) => Content::Ours,
            _ => Content::Foreign,
        }
    }

    /// Refuses a directory in which things of others have names that ours would have. A lock alone is of a start that died.
    pub(super) fn refuse_foreign_state(&self) -> Result<()> {
        if self.content() != Content::Foreign {
            return Ok(());
        }
        let failed = |error| Error::system("read directory", self.state_dir.display().to_string(), error);
        let others = fs::read_dir(&self.state_dir).map_err(failed)?.flatten().any(|entry| entry.file_name() != *LOCK);
        match STATE.iter().find(|name| self.state(name).exists()) {
            Some(taken) if others => Err(Error::Foreign {
                object: self.state(taken).display().to_string(),
                owner: format!("another program, as none of {} is beside it", MARKS.join(", ")),
                remedy: "choose another state directory".into(),
            }),
            _ => Ok(()),
        }
    }

    /// Makes the state directory, for nobody else to look into. One that holds other things keeps its mode.
    pub(super) fn create_state_dir(&self) -> Result<()> {
        let shared = match fs::read_dir(&self.state_dir) {
            Ok(mut entries) => {
                entries.any(|entry| entry.is_ok_and(|entry| !STATE.iter().any(|own| entry.file_name() == *own)))
            }
            Err(_) => false,
        };
        if shared { Ok(()) } else { create_dir(&self.state_dir) }
    }

    /// Removes what [`STATE`] names, and the state directory if nothing else is in it. Tells whether there was anything.
    pub(super) fn remove_state(&self) -> Result<bool> {
        if !self.state_dir.exists() {
            return Ok(false);
        }
        remove_leftovers(&self.state_dir)?;
        let mut found = false;
        for name in STATE {
            let path = self.state(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Ok(()) => found = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::system("remove", path.display().to_string(), error)),
            }
        }
        // Somebody else's files may be in it.
        Ok(fs::remove_dir(&self.state_dir).is_ok() || found)
    }

    /// Where maps are pinned.
    pub(super) fn maps(&self) -> PathBuf {
        self.bpf_root.join("tc/globals")
    }

    /// The maps that are pinned there under names that a datapath uses.
    pub(super) fn map_pins(&self) -> Vec<PathBuf> {
        let pins = catalog().into_iter().map(|entry| self.maps().join(entry.spec.name()));
        pins.filter(|pin| pin.exists()).chain(self.policy_pins()).collect()
    }

    /// The pins of endpoints' policies.
    fn policy_pins(&self) -> Vec<PathBuf> {
        let pins = fs::read_dir(self.maps()).into_iter().flatten().flatten().map(|pin| pin.path());
        let mut pins: Vec<_> = pins.filter(|pin| is_policy(pin)).collect();
        pins.sort();
        pins
    }

    /// What only podwire pins. That it exists says that the maps are podwire's, too.
    pub(super) fn own(&self) -> PathBuf {
        self.bpf_root.join("podwire")
    }

    /// Where programs are pinned.
    pub(super) fn programs(&self) -> PathBuf {
        self.own().join("programs")
    }

    /// A file of the state directory.
    pub(super) fn state(&self, name: &str) -> PathBuf {
        self.state_dir.join(name)
    }
}

/// Whether a pin is an endpoint's policy, in force or about to be.
fn is_policy(pin: &Path) -> bool {
    pin.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PolicyMap::NAME_PREFIX))
}

/// A path without symbolic links and dots, as far as it exists.
fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !parent.as_os_str().is_empty() => canonical(parent).join(name),
        _ => path.to_owned(),
    })
}

/// A device of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeDevice {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: IfIndex,
    /// Its MAC address; zero for a device that has none.
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl NodeDevice {
    /// As programs are attached to it.
    pub(super) fn device(&self) -> Device<'_> {
        Device { name: &self.name, index: self.ifindex }
    }
}

/// A node's configuration as it is in force. It stands in the state directory as `node_config.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its cluster's name.
    pub cluster_name: String,
    /// The range of the pods' IPv4 addresses.
    pub ipv4_range: Option<Ipv4Network>,
    /// The range of the pods' IPv6 addresses.
    pub ipv6_range: Option<Ipv6Network>,
    /// The gateway that pods see; an address of `cilium_host`.
    pub router_ipv4: Option<Ipv4Addr>,
    /// The gateway that pods see; an address of `cilium_host`.
    pub router_ipv6: Option<Ipv6Addr>,
    /// The native devices.
    pub devices: Vec<NodeDevice>,
    /// `cilium_host`.
    pub host: NodeDevice,
    /// `cilium_net`.
    pub net: NodeDevice,
    /// The addresses of all other devices, and those of `cilium_host` that are not the router's; none of the link.
    #[serde(default)]
    pub other_addresses: Vec<IpAddr>,
    /// `tcx` or `clsact`.
    pub attach_mode: String,
    /// Of the pods' devices, in bytes.
    pub mtu: u32,
    /// What identifies the programs that are loaded.
    pub generation: String,
}

impl Node {
    /// The native devices' first IPv4 address.
    pub fn external_ipv4(&self) -> Option<Ipv4Addr> {
        self.external().find_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    }

    /// The native devices' first IPv6 address that is not of the link.
    pub fn external_ipv6(&self) -> Option<Ipv6Addr> {
        self.external().find_map(|address| match address {
            IpAddr::V6(address) if !address.is_unicast_link_local() => Some(address),
            _ => None,
        })
    }

    /// Every address of the node itself but the loopback ones: the router's, those of the native devices, then the others.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let router = self.router_ipv4.map(IpAddr::V4).into_iter().chain(self.router_ipv6.map(IpAddr::V6));
        router.chain(self.external()).chain(self.other_addresses.iter().copied())
    }

    /// `cilium_host`, `cilium_net` and the native devices.
    pub(super) fn all_devices(&self) -> impl Iterator<Item = &NodeDevice> {
        [&self.host, &self.net].into_iter().chain(&self.devices)
    }

    /// The ranges of the pods' addresses.
    pub(super) fn ranges(&self) -> impl Iterator<Item = IpNetwork> {
        self.ipv4_range.map(IpNetwork::V4).into_iter().chain(self.ipv6_range.map(IpNetwork::V6))
    }

    fn external(&self) -> impl Iterator<Item = IpAddr> {
        self.devices.iter().flat_map(|device| device.addresses.iter().copied())
    }
}

/// Writes the node where an operator finds it.
pub(super) fn save(node: &Node, path: &Path) -> crate::Result<()> {
    crate::state::save_document(path, VERSION, node)
}
