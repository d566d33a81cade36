//! Who is on a hook.

use std::io;
use std::path::{Path, PathBuf};

use super::attach::Device;
use super::{Direction, clsact, tcx_link};
use crate::netlink::Socket;
use crate::sys::{prog, tcx};
use crate::{Error, Result};

/// Something that sees the packets of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its program; nothing for a filter that is none.
    pub program: Option<ProgramInfo>,
    /// Whether this crate attached it, by its name or its pin.
    pub ours: bool,
    /// How it is attached.
    pub via: Via,
}

/// What the kernel says about a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramInfo {
    /// The kernel's number for it.
    pub id: u32,
    /// The first 15 bytes of its name; empty when it went away while it was looked at.
    pub name: String,
    /// A hash of its instructions.
    pub tag: [u8; 8],
}

/// How something is attached to a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// On the tcx hook.
    Tcx {
        /// The link; nothing for a program that was attached without one.
        link_id: Option<u32>,
        /// Where we pinned the link.
        pin: Option<PathBuf>,
    },
    /// As a filter of clsact, or of the ingress discipline.
    Filter {
        /// Its place among the filters.
        priority: u16,
        /// Its number among those of that priority.
        handle: u32,
        /// "bpf", "flower", ….
        kind: String,
        /// What `tc filter show` prints as the name.
        name: Option<String>,
    },
}

pub(super) fn query(socket: &Socket, links: &Path, device: Device<'_>, direction: Direction) -> Result<Vec<Attached>> {
    let mut found = on_tcx(links, device, direction)?;
    for filter in socket.filters(device.index, direction)? {
        let ours = clsact::is_ours(&filter, device);
        let program = filter.program_id.map(program_info).transpose()?;
        let (priority, handle, kind, name) = (filter.priority, filter.handle, filter.kind, filter.name);
        found.push(Attached { program, ours, via: Via::Filter { priority, handle, kind, name } });
    }
    Ok(found)
}

fn on_tcx(links: &Path, device: Device<'_>, direction: Direction) -> Result<Vec<Attached>> {
    let entries = match tcx::query(device.index.get(), tcx_link::attach_type(direction)) {
        Ok(entries) => entries,
        // No tcx in this kernel, or no such device: filters alone can tell.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENODEV)) => return Ok(Vec::new()),
        Err(error) => return Err(Error::system("query tcx hook of", device.name, error)),
    };
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let own = tcx_link::pinned(links)?;
    let describe = |entry: tcx::Entry| {
        let pin = own.iter().find(|link| link.id() == entry.link_id).map(|link| link.path().to_owned());
        let link_id = (entry.link_id != 0).then_some(entry.link_id);
        let program = Some(program_info(entry.prog_id)?);
        Ok(Attached { program, ours: pin.is_some(), via: Via::Tcx { link_id, pin } })
    };
    entries.into_iter().map(describe).collect()
}

fn program_info(id: u32) -> Result<ProgramInfo> {
    use std::os::fd::AsFd;
    match prog::by_id(id).and_then(|fd| prog::info(fd.as_fd())) {
        Ok(info) => Ok(ProgramInfo { id, name: info.name, tag: info.tag }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(ProgramInfo { id, name: String::new(), tag: [0; 8] })
        }
        Err(error) => Err(Error::system("inspect program", id.to_string(), error)),
    }
}
