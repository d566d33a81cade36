//! Files that survive a crash.
//!
//! A process can die, and a machine lose its power, between any two instructions. What this module writes is then either the old content or
//! the new one, never a mixture:
//!
//! - [`write_atomic`] replaces a whole file; [`save_document`] does so with a versioned JSON document;
//! - [`Journal`] appends records to a file and finds the end of what was written whole when it is opened again;
//! - [`Lock`] keeps a second process away from the same directory.
//!
//! The order of system calls is the usual one: write to a file aside, `fsync` it, `rename` it over the old one, `fsync` the directory.
//! Directories are made with mode 0700 and files with mode 0600 unless the caller says otherwise. Failures are [`Error::System`] with the
//! errno: a full disk is [`ErrorKind::Exhausted`](crate::ErrorKind::Exhausted), a read-only one
//! [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied), and the old content stands in both cases.

mod aside;
mod document;
mod frame;
mod journal;
mod lock;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

pub use aside::{remove_leftovers, write_atomic};
pub use document::{load_document, save_document};
pub use journal::{Journal, Replay, Torn};
pub use lock::Lock;

use crate::{Error, Result};

/// The mode of files that hold state: only their owner reads them.
pub const FILE_MODE: u32 = 0o600;
/// The mode of directories that hold state.
pub const DIR_MODE: u32 = 0o700;

/// Makes `dir` with mode 0700, and its missing parents; an existing directory that others can read or write is closed to them.
pub fn create_dir(dir: &Path) -> Result<()> {
    let failed = |error| system("create directory", dir, error);
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).map_err(failed)?;
    let mode = fs::metadata(dir).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(DIR_MODE)).map_err(failed)?;
    }
    Ok(())
}

/// Makes the names in `dir` durable: a file created, renamed or removed there stays so after a power cut.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| system("sync directory", dir, error))
}

fn system(op: &'static str, path: &Path, source: io::Error) -> Error {
    Error::system(op, path.display().to_string(), source)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
