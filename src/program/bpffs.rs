//! The file system that holds pins.

use std::fs;
use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{Error, Result};

/// `BPF_FS_MAGIC` of include/uapi/linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// What [`ensure_mounted`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// The directory was on a bpffs already.
    Before,
    /// It is now.
    Now,
}

/// Makes sure that a directory is on a bpffs: creates it where that is missing, and mounts a bpffs on it where it is an
/// empty directory of another file system.
///
/// # Errors
///
/// [`Error::Foreign`] when the directory has content of another file system, which a mount would hide;
/// [`Error::PermissionDenied`] without CAP_SYS_ADMIN, with the command for somebody who has it.
pub fn ensure_mounted(path: &Path) -> Result<Mounted> {
    let failed = |op| move |error: io::Error| Error::system(op, path.display().to_string(), error);
    let created = !path.exists();
    fs::create_dir_all(path).map_err(failed("create directory"))?;
    let result = mount_unless_bpffs(path);
    if result.is_err() && created {
        fs::remove_dir(path).map_err(failed("remove directory"))?;
    }
    result
}

fn mount_unless_bpffs(path: &Path) -> Result<Mounted> {
    let failed = |op| move |error: io::Error| Error::system(op, path.display().to_string(), error);
    let kind = file_system(path).map_err(failed("inspect file system of"))?;
    if kind == BPF_FS_MAGIC {
        return Ok(Mounted::Before);
    }
    if fs::read_dir(path).map_err(failed("read directory"))?.next().is_some() {
        return Err(Error::Foreign {
            object: path.display().to_string(),
            owner: format!("a file system of type {kind:#x} with content, not a bpffs"),
            remedy: "choose another bpf root, or mount a bpffs on an empty directory".into(),
        });
    }
    match mount("bpf", path, "bpf", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None) {
        Ok(()) => Ok(Mounted::Now),
        Err(rustix::io::Errno::PERM) => Err(Error::PermissionDenied {
            op: "mount bpffs on",
            object: path.display().to_string(),
            remedy: format!("run as root: mount -t bpf bpf {}", path.display()).into(),
        }),
        Err(error) => Err(Error::system("mount bpffs on", path.display().to_string(), error)),
    }
}

/// Files that the kernel itself puts into every bpffs.
const KERNELS_OWN: [&str; 2] = ["maps.debug", "progs.debug"];

/// Takes a bpffs off the directory on which it is mounted, unless there are pins in it. Tells whether it did.
pub fn unmount_if_empty(path: &Path) -> Result<bool> {
    let failed = |op| move |error: io::Error| Error::system(op, path.display().to_string(), error);
    if !path.exists() || !is_bpffs(path)? {
        return Ok(false);
    }
    for entry in fs::read_dir(path).map_err(failed("read directory"))? {
        let name = entry.map_err(failed("read directory"))?.file_name();
        if !KERNELS_OWN.iter().any(|own| name == *own) {
            return Ok(false);
        }
    }
    unmount(path, UnmountFlags::empty()).map_err(|error| failed("unmount")(error.into()))?;
    Ok(true)
}

/// Whether a path lies on a bpffs.
pub fn is_bpffs(path: &Path) -> Result<bool> {
    file_system(path)
        .map(|kind| kind == BPF_FS_MAGIC)
        .map_err(|error| Error::system("inspect file system of", path.display().to_string(), error))
}

/// Refuses a path that would not be on a bpffs, before anything is created there.
pub(super) fn require(path: &Path, op: &'static str) -> Result<()> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path);
    if is_bpffs(existing)? {
        return Ok(());
    }
    let state = format!("not on a bpffs (mount -t bpf bpf {})", existing.display());
    Err(Error::WrongState { object: path.display().to_string(), state, op })
}

#[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)] // its type differs between architectures
fn file_system(path: &Path) -> io::Result<u64> {
    Ok(rustix::fs::statfs(path)?.f_type as u64)
}
