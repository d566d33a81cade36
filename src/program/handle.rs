//! A loaded program.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use crate::sys::{bpf, prog};
use crate::{Error, Result};

/// A program in the kernel; cheap to clone. It stays loaded while a handle, a pin or an attachment refers to it.
#[derive(Clone)]
pub struct Program(Arc<Loaded>);

struct Loaded {
    fd: OwnedFd,
    name: String,
    id: u32,
    tag: [u8; 8],
}

impl Program {
    /// Takes over a descriptor of a loaded program. `name` may be longer than the 15 bytes that the kernel keeps.
    pub fn from_fd(fd: OwnedFd, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let info = prog::info(fd.as_fd()).map_err(|error| Error::system("inspect program", name.as_str(), error))?;
        Ok(Self(Arc::new(Loaded { fd, name, id: info.id, tag: info.tag })))
    }

    /// Opens a pinned program; its name is that of the pin.
    pub fn open_pinned(path: &Path) -> Result<Self> {
        let fd = bpf::open_pin(path).map_err(|error| Error::system("open pin", path.display().to_string(), error))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self::from_fd(fd, name)
    }

    /// Its name in C, not cut.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The kernel's number for it, never used twice while the machine runs (until the counter wraps).
    pub fn id(&self) -> u32 {
        self.0.id
    }

    /// A hash of its instructions: equal programs have equal tags, whatever maps they refer to.
    pub fn tag(&self) -> [u8; 8] {
        self.0.tag
    }

    /// Its descriptor, close-on-exec.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }

    /// Whether it refers to the map with this id ([`MapInfo::id`](crate::maps::MapInfo::id)).
    pub fn uses_map(&self, id: u32) -> Result<bool> {
        let info = prog::info(self.fd()).map_err(|error| Error::system("inspect program", self.name(), error))?;
        Ok(info.map_ids.contains(&id))
    }

    pub(super) fn pin(&self, path: &Path) -> Result<()> {
        prog::pin(self.fd(), path).map_err(|error| Error::system("pin program at", path.display().to_string(), error))
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({} id {} tag {})", self.name(), self.id(), hex(self.tag()))
    }
}

/// A tag as tc and bpftool print it.
pub(super) fn hex(tag: [u8; 8]) -> String {
    tag.iter().map(|byte| format!("{byte:02x}")).collect()
}
