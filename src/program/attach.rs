//! Attaching programs to devices.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::attached::{self, Attached};
use super::tcx_link::{self, TcxLink};
use super::{Direction, Program, clsact};
use crate::netlink::Socket;
use crate::{Error, IfIndex, Result};

/// How programs get onto a device's hooks. Both ways behave the same to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AttachMode {
    /// The way that costs a pod the least, which is clsact: creating a tcx link waits for an RCU grace period, 16 ms on
    /// an idle machine (HZ=250), closing one 8 ms; a filter takes well under one.
    #[default]
    Auto,
    /// Links on the device's tcx hooks, pinned on the bpffs. Linux 6.6.
    Tcx,
    /// Direct-action filters of the device's clsact discipline.
    Clsact,
}

impl AttachMode {
    /// The mode that is used: never `Auto`.
    pub const fn resolved(self) -> Self {
        match self {
            Self::Auto | Self::Clsact => Self::Clsact,
            Self::Tcx => Self::Tcx,
        }
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

impl FromStr for AttachMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Auto, Self::Tcx, Self::Clsact]
            .into_iter()
            .find(|mode| mode.to_string() == text)
            .ok_or_else(|| Error::invalid("attach mode", text, "must be auto, tcx or clsact"))
    }
}

/// A device in the namespace of the [`Attacher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device<'a> {
    /// Its name; part of the names of filters and of the paths of pins.
    pub name: &'a str,
    /// Its index.
    pub index: IfIndex,
}

/// Puts programs on devices of one network namespace, and knows which of those that are there are its own.
///
/// Its own are the filters named `cilium-<device>` of priority 1 and handle 1, and the tcx links pinned as `<bpf
/// root>/podwire/devices/<device>/links/<program>` (a dot in a device's name is written `%2e` there). Everything else
/// on a device is left alone.
#[derive(Clone, Debug)]
pub struct Attacher(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    socket: Arc<Socket>,
    devices: PathBuf,
    mode: AttachMode,
}

impl Attacher {
    /// For the devices of the calling thread's network namespace. Tcx links are made in the namespace of the thread
    /// that calls [`Attacher::attach`], which must be the same.
    pub fn new(bpf_root: &Path, mode: AttachMode) -> Result<Self> {
        let devices = bpf_root.join("podwire/devices");
        Ok(Self(Arc::new(Shared { socket: Arc::new(Socket::open()?), devices, mode: mode.resolved() })))
    }

    /// The same in another mode.
    pub fn in_mode(&self, mode: AttachMode) -> Self {
        let (socket, devices) = (self.0.socket.clone(), self.0.devices.clone());
        Self(Arc::new(Shared { socket, devices, mode: mode.resolved() }))
    }

    /// The mode in use, resolved.
    pub fn mode(&self) -> AttachMode {
        self.0.mode
    }

    /// Attaches one program; see [`Attacher::attach_all`].
    pub fn attach(&self, device: Device<'_>, direction: Direction, program: &Program) -> Result<Attachment> {
        let attached = self.attach_all(device, &[(direction, program)])?.pop();
        attached.ok_or_else(|| Error::not_found("attachment", program.name()))
    }

    /// Attaches programs to a device, each to another hook of it; with clsact in one request.
    ///
    /// A program of ours that is there already is replaced in place, without a packet passing between: in the same
    /// link, in the same filter. What is left of the other mode, or of a program of another name, is detached once the
    /// new one is attached.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] when somebody else's filter has our priority and handle, or somebody's ingress discipline the
    /// place of clsact; [`Error::Unsupported`] for tcx on a kernel without it; `NotFound` when the device is gone.
    /// Nothing that was not there stays.
    pub fn attach_all(&self, device: Device<'_>, programs: &[(Direction, &Program)]) -> Result<Vec<Attachment>> {
        match self.0.mode {
            AttachMode::Tcx => programs.iter().map(|(at, program)| self.attach_tcx(device, *at, program)).collect(),
            AttachMode::Auto | AttachMode::Clsact => self.attach_clsact(device, programs),
        }
    }

    /// What we have on a hook, whatever process attached it and in whichever mode.
    pub fn find(&self, device: Device<'_>, direction: Direction) -> Result<Option<PinnedAttachment>> {
        for link in tcx_link::pinned(&self.0.links_of(device))? {
            if link.direction() == Some(direction) && link.is_on(device)? {
                let program_id = link.prog_id();
                return Ok(Some(PinnedAttachment(self.handle(device, direction, program_id, Some(link)))));
            }
        }
        let filter = clsact::own_filter(&self.0.socket, device, direction)?;
        let program_id = filter.and_then(|filter| filter.program_id);
        Ok(program_id.map(|program_id| PinnedAttachment(self.handle(device, direction, program_id, None))))
    }

    /// Everything on a hook in the order in which packets meet it, ours and others'.
    pub fn query(&self, device: Device<'_>, direction: Direction) -> Result<Vec<Attached>> {
        attached::query(&self.0.socket, &self.0.links_of(device), device, direction)
    }

    /// Notes that clsact of a device is ours when the plugin made it, or is about to.
    pub(crate) fn own_clsact(&self, device: Device<'_>) -> Result<()> {
        match self.0.mode {
            AttachMode::Tcx => Ok(()),
            AttachMode::Auto | AttachMode::Clsact => clsact::remember_clsact(&self.0.state_of(device), device),
        }
    }

    /// Detaches everything of ours from a device, and forgets it.
    pub fn detach_all(&self, device: Device<'_>) -> Result<()> {
        for direction in [Direction::Ingress, Direction::Egress] {
            if let Some(attachment) = self.find(device, direction)? {
                attachment.detach()?;
            }
            clsact::detach(&self.0.socket, &self.0.state_of(device), device, direction)?;
        }
        self.forget(device.name)
    }

    /// The names of the devices about which something is kept on the bpffs, whether they still exist or not.
    pub fn known_devices(&self) -> Result<Vec<String>> {
        let failed = |error| Error::system("read directory", self.0.devices.display().to_string(), error);
        let entries = match fs::read_dir(&self.0.devices) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let names = entries.map(|entry| Ok(unescape(&entry.map_err(failed)?.file_name().to_string_lossy())));
        names.collect()
    }

    /// Removes the pins of a device that is gone; links and filters went with it.
    pub fn forget(&self, device: &str) -> Result<()> {
        let state = self.0.devices.join(escape(device));
        match fs::remove_dir_all(&state) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::system("remove pins", state.display().to_string(), error))
            }
            _ => Ok(()),
        }
    }

    /// Forgets what is kept of devices that are gone and had this one's name.
    pub fn forget_namesakes(&self, device: Device<'_>) -> Result<()> {
        clsact::forget_others(&self.0.state_of(device), device)
    }

    fn attach_tcx(&self, device: Device<'_>, direction: Direction, program: &Program) -> Result<Attachment> {
        let links = self.0.links_of(device);
        let link = TcxLink::attach(&links, device, direction, program)?;
        let created = !link.is_pinned();
        let attachment = Attachment::new(self.handle(device, direction, program.id(), Some(link)), created);
        self.detach_links(device, direction, Some(&links.join(program.name())))?;
        clsact::detach(&self.0.socket, &self.0.state_of(device), device, direction)?;
        Ok(attachment)
    }

    fn attach_clsact(&self, device: Device<'_>, programs: &[(Direction, &Program)]) -> Result<Vec<Attachment>> {
        let created = clsact::attach(&self.0.socket, &self.0.state_of(device), device, programs)?;
        let attached = programs
            .iter()
            .zip(created)
            .map(|((at, program), created)| Attachment::new(self.handle(device, *at, program.id(), None), created))
            .collect();
        for (direction, _) in programs {
            self.detach_links(device, *direction, None)?;
        }
        Ok(attached)
    }

    /// Detaches our links on a hook, but for one, and clears away those whose device is gone.
    fn detach_links(&self, device: Device<'_>, direction: Direction, keep: Option<&Path>) -> Result<()> {
        for link in tcx_link::pinned(&self.0.links_of(device))? {
            let here = link.direction() == Some(direction) && link.is_on(device)?;
            if (here || link.is_defunct()) && keep != Some(link.path()) {
                link.detach()?;
            }
        }
        Ok(())
    }

    fn handle(&self, device: Device<'_>, direction: Direction, program_id: u32, link: Option<TcxLink>) -> Handle {
        let (shared, device_name, index) = (self.0.clone(), device.name.to_owned(), device.index);
        Handle { shared, device_name, index, direction, program_id, link }
    }
}

impl Shared {
    fn state_of(&self, device: Device<'_>) -> PathBuf {
        self.devices.join(escape(device.name))
    }

    fn links_of(&self, device: Device<'_>) -> PathBuf {
        self.state_of(device).join("links")
    }
}

/// A program on a hook, taken off it when this is dropped. Made permanent by [`Attachment::pin`].
///
/// What was permanent remains so: where attaching replaced a program of ours in place, dropping leaves the new one there, so
/// that a failure half-way opens no hole. Nor does dropping touch a program that replaced this one meanwhile. With tcx a
/// new link also ends with the process until it is pinned; a filter stays.
#[derive(Debug)]
#[must_use = "dropping an attachment detaches it"]
pub struct Attachment {
    handle: Option<Handle>,
    created: bool,
}

/// A program on a hook that stays there whatever becomes of this handle and of the process.
#[derive(Debug)]
pub struct PinnedAttachment(Handle);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    device_name: String,
    index: IfIndex,
    direction: Direction,
    program_id: u32,
    /// Nothing: a filter.
    link: Option<TcxLink>,
}

impl Attachment {
    fn new(handle: Handle, created: bool) -> Self {
        Self { handle: Some(handle), created }
    }

    /// Makes it permanent: pins the link; a filter is left where it is.
    ///
    /// # Errors
    ///
    /// Where the pin can't be made the program is detached.
    pub fn pin(mut self) -> Result<PinnedAttachment> {
        if let Some(link) = self.handle.as_mut().and_then(|handle| handle.link.as_mut()) {
            link.pin()?;
        }
        let handle = self.handle.take().ok_or_else(|| Error::not_found("attachment", ""))?;
        Ok(PinnedAttachment(handle))
    }

    /// Takes the program off its hook, unless another one of ours replaced it meanwhile.
    pub fn detach(mut self) -> Result<()> {
        self.handle.take().map_or(Ok(()), |handle| handle.detach_unless_replaced())
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take()
            && self.created
            && let Err(error) = handle.detach_unless_replaced()
        {
            log::warn!("{error}");
        }
    }
}

impl PinnedAttachment {
    /// Takes the program off its hook. What is gone already is fine.
    pub fn detach(self) -> Result<()> {
        self.0.detach()
    }

    /// The id of the program.
    pub fn program_id(&self) -> u32 {
        self.0.program_id
    }

    /// The id of the tcx link; nothing for a filter.
    pub fn link_id(&self) -> Option<u32> {
        self.0.link.as_ref().map(TcxLink::id)
    }

    /// How it is attached: [`AttachMode::Tcx`] or [`AttachMode::Clsact`].
    pub fn mode(&self) -> AttachMode {
        if self.0.link.is_some() { AttachMode::Tcx } else { AttachMode::Clsact }
    }
}

impl Handle {
    fn detach(&self) -> Result<()> {
        let device = self.device();
        match &self.link {
            Some(link) => link.detach(),
            None => clsact::detach(&self.shared.socket, &self.shared.state_of(device), device, self.direction),
        }
    }

    fn detach_unless_replaced(&self) -> Result<()> {
        let current = match &self.link {
            Some(link) => Some(link.current_program()?),
            None => clsact::own_filter(&self.shared.socket, self.device(), self.direction)?
                .and_then(|filter| filter.program_id),
        };
        if current.is_some_and(|id| id != self.program_id) { Ok(()) } else { self.detach() }
    }

    fn device(&self) -> Device<'_> {
        Device { name: &self.device_name, index: self.index }
    }
}

/// A bpffs takes no dots in names, which devices may have (`eth0.100`).
fn escape(device: &str) -> String {
    device.replace('%', "%25").replace('.', "%2e")
}

fn unescape(directory: &str) -> String {
    directory.replace("%2e", ".").replace("%25", "%")
}

/// The device vanished before or while something was attached to it.
pub(super) fn device_gone(device: Device<'_>) -> Error {
    Error::not_found("device", format!("{} (index {})", device.name, device.index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_survive_the_bpffs() {
        for name in ["eth0", "eth0.100", "a%b", "%2e", "%25.", "..x"] {
            assert!(!escape(name).contains('.'));
            assert_eq!(unescape(&escape(name)), name);
        }
    }
}
