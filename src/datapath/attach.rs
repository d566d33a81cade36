//! Which of the datapath's programs belong on a device's hooks, and putting them there.

use log::warn;

use super::Datapath;
use super::node::NodeDevice;
use crate::program::{AttachMode, Attachment, Device, Direction};
use crate::{Error, IfIndex, Result};

/// The program of each hook.
type Hooks = &'static [(Direction, &'static str)];

const POD: Hooks = &[(Direction::Ingress, "cil_from_container"), (Direction::Egress, "cil_to_container")];
const HOST: Hooks = &[(Direction::Ingress, "cil_to_host"), (Direction::Egress, "cil_from_host")];
const NET: Hooks = &[(Direction::Ingress, "cil_to_host")];
const NATIVE: Hooks = &[(Direction::Ingress, "cil_from_netdev"), (Direction::Egress, "cil_to_netdev")];

impl Datapath {
    /// Attaches the datapath's own program for a hook of a device, in place of one of ours that is there: a pod's on an endpoint's
    /// device, the host's on `cilium_host` and `cilium_net`, the network's on any other. Opening and creating endpoints do so for their devices;
    /// this is for devices beside them, or another mode.
    ///
    /// ```no_run
    /// use podwire::netlink::Socket;
    /// use podwire::program::{Device, Direction};
    /// use podwire::{AttachMode, Datapath};
    ///
    /// # fn second_uplink(datapath: &Datapath) -> podwire::Result<()> {
    /// let index = Socket::open()?.link_by_name("eth1")?.index;
    /// let device = Device { name: "eth1", index };
    /// for direction in [Direction::Ingress, Direction::Egress] {
    ///     datapath.attach(device, direction, AttachMode::Tcx)?.pin()?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `NotFound` for the egress hook of `cilium_net`, which has no program, and otherwise those of
    /// [`Attacher::attach_all`](crate::program::Attacher::attach_all).
    pub fn attach(&self, device: Device<'_>, direction: Direction, mode: AttachMode) -> Result<Attachment> {
        let hook = self.hooks(device.index).iter().find(|(at, _)| *at == direction);
        let (_, program) =
            hook.ok_or_else(|| Error::not_found("program", format!("the {direction:?} hook of {}", device.name)))?;
        self.attacher.in_mode(mode).attach(device, direction, self.programs.program(program)?)
    }

    /// The hooks of a device that have a program of the datapath's.
    pub(super) fn hooks(&self, index: IfIndex) -> Hooks {
        let node = self.node();
        if self.endpoints.has_device(index) {
            POD
        } else if index == node.host.ifindex {
            HOST
        } else if index == node.net.ifindex {
            NET
        } else {
            NATIVE
        }
    }

    /// The first hook of a device that lacks its program.
    pub(super) fn bare_hook(&self, device: &NodeDevice) -> Result<Option<Direction>> {
        for (direction, _) in self.hooks(device.ifindex) {
            if self.attacher.find(device.device(), *direction)?.is_none() {
                return Ok(Some(*direction));
            }
        }
        Ok(None)
    }

    /// Attaches programs again that somebody took off the node's devices: to all that take them, and the error is that of the first
    /// that does not.
    pub(super) fn reattach(&self) -> Result<()> {
        // Meanwhile no device ceases to be the node's.
        let _followed = self.followed.lock();
        let links = self.endpoints.socket().links()?;
        // One that is gone, or has another name, is the status's to tell.
        let is_there =
            |device: &&NodeDevice| links.iter().any(|link| link.index == device.ifindex && link.name == device.name);
        let node = self.node();
        // All of them before the first error ends it.
        let outcomes: Vec<_> = node.all_devices().filter(is_there).map(|device| self.reattach_to(device)).collect();
        outcomes.into_iter().collect()
    }

    fn reattach_to(&self, device: &NodeDevice) -> Result<()> {
        if self.bare_hook(device)?.is_none() {
            return Ok(());
        }
        for (direction, _) in self.hooks(device.ifindex) {
            self.attach(device.device(), *direction, self.attacher.mode())?.pin()?;
        }
        warn!("programs were taken off {}; they are attached again", device.name);
        Ok(())
    }
}
