//! That the host passes packets on, and what the kernel does beside when that is switched: it gives the node's value to every device,
//! forgets routers that announce themselves and hears them no more, and decides anew whether redirects are believed.

use std::path::Path;

use log::warn;

use super::host::{HOST, NET};
use super::node::Node;
use super::routes;
use super::sysctls::{VERSION, setting};
use crate::netlink::Socket;
use crate::state::{load_document, save_document};
use crate::sysctl::{Key, Recorder, Setting, Sysctls};
use crate::{ErrorKind, IfIndex, Result};

/// The file of the devices that forwarded by themselves, in the state directory.
pub(super) const FORWARDERS: &str = "forwarding.json";

/// The file of what refused redirects by itself, in the state directory.
pub(super) const REDIRECTS: &str = "redirects.json";

/// The settings that have to be written, in this order: the node's sets that of every device. Only for the families that pods have.
pub(super) fn settings(node: &Node) -> Result<Vec<Setting>> {
    let families =
        [("ipv4", node.ipv4_range.is_some(), node_ipv4()?), ("ipv6", node.ipv6_range.is_some(), node_ipv6()?)];
    let mut settings = Vec::new();
    for (family, _, key) in families.into_iter().filter(|(_, is_wanted, _)| *is_wanted) {
        // A kernel may have no IPv6.
        let optional = |setting: Setting| if family == "ipv6" { setting.optional() } else { setting };
        settings.push(optional(Setting::new(key, "1")));
        for device in [HOST, NET] {
            settings.push(optional(setting(["net", family, "conf", device, "forwarding"], "1")?));
        }
    }
    Ok(settings)
}

/// Lets devices hear routers also while the node forwards (`accept_ra` = 2): the native ones, and those that have routes from routers.
/// Only where the device did so by itself, neither refusing (0) nor forwarding. To be written before the node forwards: the
/// kernel forgets the routers then. It looks at the device's setting alone; what new devices get (`default`) stays, as pods' are among them.
pub(super) fn advertisements(
    sysctls: &Sysctls,
    recorder: &Recorder,
    state: &Path,
    socket: &Socket,
    node: &Node,
) -> Result<Vec<Setting>> {
    let switch = node_ipv6()?;
    let is_ours = !is_on(sysctls, &switch) || recorder.changes().iter().any(|change| *change.key() == switch);
    if node.ipv6_range.is_none() || !is_ours {
        return Ok(Vec::new());
    }
    let mut devices: Vec<IfIndex> = node.devices.iter().map(|device| device.ifindex).collect();
    devices.extend(routes::learnt_by(socket)?);
    devices.sort_unstable();
    devices.dedup();
    let forwarders = load(state, FORWARDERS)?;
    let mut settings = Vec::new();
    for index in devices {
        // It may have gone meanwhile.
        let Some(device) = socket.link_if_any(index)? else { continue };
        let accept = Key::new(["net", "ipv6", "conf", device.name.as_str(), "accept_ra"])?;
        let hears = sysctls.read(&accept).is_ok_and(|value| value == "1");
        if hears && !forwarders.contains(&Key::new(["net", "ipv6", "conf", device.name.as_str(), "forwarding"])?) {
            settings.push(Setting::new(accept, "2").optional());
        }
    }
    Ok(settings)
}

/// Keeps what switching forwarding will change beside, and what no record of settings that were written shows.
pub(super) fn note(sysctls: &Sysctls, state: &Path) -> Result<()> {
    let before = load(state, FORWARDERS)?;
    let forwarders = forwarders(sysctls, &before)?;
    if forwarders != before {
        save_document(&state.join(FORWARDERS), VERSION, &forwarders)?;
    }
    // The kernel believes redirects again when the node ceases to forward: that they are believed says nothing of who wanted it.
    let redirects = redirects()?;
    if !is_on(sysctls, &node_ipv4()?) && sysctls.read(&redirects).is_ok_and(|value| value == "0") {
        save_document(&state.join(REDIRECTS), VERSION, &[redirects])?;
    }
    Ok(())
}

/// What was noted, as far as it is still so: to be put back once forwarding has its old value again.
pub(super) struct Noted {
    forwarders: Vec<Key>,
    refusals: Vec<Key>,
}

impl Noted {
    /// To be asked before anything is put back.
    pub(super) fn of(sysctls: &Sysctls, recorder: &Recorder, state: &Path) -> Result<Self> {
        let switch = node_ipv4()?;
        let is_ours = recorder.changes().iter().any(|change| *change.key() == switch);
        let mut forwarders = load(state, FORWARDERS)?;
        // What somebody turned off since stays off.
        forwarders.retain(|key| is_on(sysctls, key));
        let mut refusals = if is_ours { load(state, REDIRECTS)? } else { Vec::new() };
        // So does what somebody turned on: while the node forwards, the kernel does not.
        refusals.retain(|key| !(is_on(sysctls, &switch) && is_on(sysctls, key)));
        Ok(Self { forwarders, refusals })
    }

    /// Puts it back; tells what was.
    pub(super) fn put_back(self, sysctls: &Sysctls) -> Vec<String> {
        let forwarders = self.forwarders.into_iter().filter(|key| !is_on(sysctls, key)).map(|key| (key, "1"));
        let refusals = self.refusals.into_iter().filter(|key| is_on(sysctls, key)).map(|key| (key, "0"));
        let mut restored = Vec::new();
        for (key, value) in forwarders.chain(refusals) {
            match sysctls.write(&key, value) {
                Ok(()) => restored.push(format!("{key} = {value}")),
                Err(error) => warn!("sysctl {key}: {error}"),
            }
        }
        restored
    }
}

/// The devices that forward by themselves; known only as long as the node does not, since once it does, all of them do.
fn forwarders(sysctls: &Sysctls, before: &[Key]) -> Result<Vec<Key>> {
    let mut forwarders = Vec::new();
    for (family, node) in [("ipv4", node_ipv4()?), ("ipv6", node_ipv6()?)] {
        let devices = match sysctls.names(&Key::new(["net", family, "conf"])?) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            devices => devices?,
        };
        let key = |device: &String| Key::new(["net", family, "conf", device.as_str(), "forwarding"]);
        let keys = devices.iter().filter(|device| *device != "all").map(key).collect::<Result<Vec<_>>>()?;
        let own = |key: &Key| if is_on(sysctls, &node) { before.contains(key) } else { is_on(sysctls, key) };
        forwarders.extend(keys.into_iter().filter(own));
    }
    Ok(forwarders)
}

fn load(state: &Path, file: &str) -> Result<Vec<Key>> {
    Ok(load_document(&state.join(file), VERSION)?.unwrap_or_default())
}

/// Whether a setting that is on or off is on.
fn is_on(sysctls: &Sysctls, key: &Key) -> bool {
    sysctls.read(key).is_ok_and(|value| value != "0")
}

fn node_ipv4() -> Result<Key> {
    Key::new(["net", "ipv4", "ip_forward"])
}

fn node_ipv6() -> Result<Key> {
    Key::new(["net", "ipv6", "conf", "all", "forwarding"])
}

/// Whether any device believes redirects (`inet_forward_change` in net/ipv4/devinet.c): the only other setting that the kernel changes.
fn redirects() -> Result<Key> {
    Key::new(["net", "ipv4", "conf", "all", "accept_redirects"])
}
