//! Attaching by tcx links, which are pinned below the device's directory.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::attach::{Device, device_gone};
use super::features::has_tcx;
use super::{Direction, Program};
use crate::sys::{bpf, prog, tcx};
use crate::{Error, Result};

/// A program on a tcx hook, and where its link is or will be pinned.
#[derive(Debug)]
pub(super) struct TcxLink {
    fd: OwnedFd,
    pin: PathBuf,
    info: tcx::LinkInfo,
    pinned: bool,
}

impl TcxLink {
    /// Puts a program on a hook: into the link that is pinned as the program's name in `links`, or by a new one when
    /// there is none or its device is gone.
    pub(super) fn attach(links: &Path, device: Device<'_>, direction: Direction, program: &Program) -> Result<Self> {
        let pin = links.join(program.name());
        if let Some(link) = Self::open(&pin)?
            && link.is_on(device)?
        {
            if link.direction() != Some(direction) {
                let detail = format!("the same program on the other hook of {}", device.name);
                return Err(Error::AlreadyExists { what: "link pin", name: pin.display().to_string(), detail });
            }
            return link.replace(program);
        }
        let fd = tcx::create(program.fd(), device.index.get(), attach_type(direction))
            .map_err(|error| create_error(error, device, program))?;
        let info = link_info(&fd, &pin)?;
        Ok(Self { fd, pin, info, pinned: false })
    }

    /// The pinned link, or nothing when there is no pin, or one of something else.
    pub(super) fn open(pin: &Path) -> Result<Option<Self>> {
        let fd = match bpf::open_pin(pin) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::system("open pin", pin.display().to_string(), error)),
        };
        let info = link_info(&fd, pin)?;
        Ok(Some(Self { fd, pin: pin.to_owned(), info, pinned: true }))
    }

    /// Whether it is on this very device: one of the same index in another namespace does not count.
    pub(super) fn is_on(&self, device: Device<'_>) -> Result<bool> {
        if self.info.ifindex != device.index.get() {
            return Ok(false);
        }
        match tcx::query(self.info.ifindex, self.info.attach_type) {
            Ok(entries) => Ok(entries.iter().any(|entry| entry.link_id == self.info.id)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(Error::system("query tcx hook of", device.name, error)),
        }
    }

    /// Whether its device is gone.
    pub(super) fn is_defunct(&self) -> bool {
        self.info.ifindex == 0
    }

    pub(super) fn direction(&self) -> Option<Direction> {
        direction(self.info.attach_type)
    }

    /// Whether it outlives the process.
    pub(super) fn is_pinned(&self) -> bool {
        self.pinned
    }

    pub(super) fn id(&self) -> u32 {
        self.info.id
    }

    pub(super) fn prog_id(&self) -> u32 {
        self.info.prog_id
    }

    /// The program that is in the link now, whoever put it there.
    pub(super) fn current_program(&self) -> Result<u32> {
        Ok(link_info(&self.fd, &self.pin)?.prog_id)
    }

    pub(super) fn path(&self) -> &Path {
        &self.pin
    }

    /// Pins the link. A pin of a defunct link makes way only now that this one is attached.
    pub(super) fn pin(&mut self) -> Result<()> {
        if self.pinned {
            return Ok(());
        }
        let failed = |error| Error::system("pin link at", self.pin.display().to_string(), error);
        if let Some(links) = self.pin.parent() {
            fs::create_dir_all(links).map_err(failed)?;
        }
        match prog::pin(self.fd.as_fd(), &self.pin) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let aside = self.pin.with_file_name(format!("{}_{}", file_name(&self.pin), self.info.id));
                prog::pin(self.fd.as_fd(), &aside).map_err(failed)?;
                fs::rename(&aside, &self.pin).map_err(failed)?;
            }
            result => result.map_err(failed)?,
        }
        self.pinned = true;
        Ok(())
    }

    /// Takes the program off the hook, then removes the pin.
    pub(super) fn detach(&self) -> Result<()> {
        let failed = |error| Error::system("detach link", self.pin.display().to_string(), error);
        match tcx::detach(self.fd.as_fd()) {
            // The device is gone, and the attachment with it.
            Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => return Err(failed(error)),
            _ => {}
        }
        if self.pinned {
            remove_file(&self.pin).map_err(failed)?;
        }
        Ok(())
    }

    fn replace(mut self, program: &Program) -> Result<Self> {
        tcx::update(self.fd.as_fd(), program.fd())
            .map_err(|error| Error::system("replace program of link", self.pin.display().to_string(), error))?;
        self.info.prog_id = program.id();
        Ok(self)
    }
}

/// Every link that is pinned in a directory; none when there is no directory.
pub(super) fn pinned(links: &Path) -> Result<Vec<TcxLink>> {
    let failed = |error| Error::system("read directory", links.display().to_string(), error);
    let entries = match fs::read_dir(links) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        found.extend(TcxLink::open(&entry.map_err(failed)?.path())?);
    }
    Ok(found)
}

pub(super) fn attach_type(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => tcx::INGRESS,
        Direction::Egress => tcx::EGRESS,
    }
}

fn direction(attach_type: u32) -> Option<Direction> {
    [Direction::Ingress, Direction::Egress].into_iter().find(|&direction| self::attach_type(direction) == attach_type)
}

fn link_info(fd: &OwnedFd, pin: &Path) -> Result<tcx::LinkInfo> {
    let info =
        tcx::info(fd.as_fd()).map_err(|error| Error::system("inspect link", pin.display().to_string(), error))?;
    info.ok_or_else(|| Error::Foreign {
        object: format!("pin {}", pin.display()),
        owner: "somebody who pinned another kind of link".to_owned(),
        remedy: "remove it, or choose another bpf root".into(),
    })
}

fn create_error(error: io::Error, device: Device<'_>, program: &Program) -> Error {
    match error.raw_os_error() {
        Some(libc::EINVAL) if has_tcx().is_ok_and(|has_tcx| !has_tcx) => Error::Unsupported {
            feature: "attaching by tcx links",
            remedy: "use the attach mode clsact, or Linux 6.6 or newer".into(),
        },
        Some(libc::ENODEV) => device_gone(device),
        _ => Error::system("attach", format!("{} to {}", program.name(), device.name), error),
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
