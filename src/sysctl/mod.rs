//! Kernel settings, with their old values.
//!
//! [`Sysctls`] reads and writes the settings below `/proc/sys`. A [`Recorder`] changes them and remembers what was there
//! before, so that a clean-up puts back what is still as it was left:
//!
//! ```no_run
//! use podwire::sysctl::{Key, Recorder, Setting, Sysctls};
//!
//! let system = Sysctls::system();
//! let mut recorder = Recorder::default();
//! let forwarding = Setting::new("net.ipv4.ip_forward".parse()?, "1");
//! // A device's name may contain dots: give it as a component.
//! let filter = Setting::new(Key::new(["net", "ipv4", "conf", "eth0.100", "rp_filter"])?, "0").optional();
//! recorder.set_all(&system, &[forwarding, filter], |recorder| {
//!     // Save it before anything is written, so that the old values survive a crash.
//!     println!("{}", serde_json::to_string(recorder).expect("plain data"));
//!     Ok(())
//! })?;
//! recorder.restore(&system);
//! # Ok::<(), podwire::Error>(())
//! ```
//!
//! Settings below `net` are those of the calling thread's network namespace; use
//! [`NetNs::run`](crate::netns::NetNs::run) for another's.

mod key;
mod recorder;

use std::io;
use std::path::{Path, PathBuf};

pub use key::Key;
pub use recorder::{Applied, Change, Recorder, Restored, Setting};

use crate::{Error, Result};

/// The tree of settings.
#[derive(Clone, Debug)]
pub struct Sysctls {
    root: PathBuf,
}

impl Sysctls {
    /// Those of this machine, below `/proc/sys`.
    pub fn system() -> Self {
        Self::at("/proc/sys")
    }

    /// Those below another directory: another mount of proc, or a copy.
    pub fn at(root: impl AsRef<Path>) -> Self {
        Self { root: root.as_ref().to_owned() }
    }

    /// The value, without the white space at its end.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) when the kernel has no such setting (any more): no IPv6, no such device.
    pub fn read(&self, key: &Key) -> Result<String> {
        let value = std::fs::read_to_string(self.path(key)).map_err(|error| failed("read sysctl", key, None, error))?;
        Ok(value.trim_end().to_owned())
    }

    /// The names of what is directly below a place of the tree, in order: the devices below `net.ipv4.conf`, for one.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) when the kernel has no such place.
    pub fn names(&self, place: &Key) -> Result<Vec<String>> {
        let failed = |error| failed("list sysctls of", place, None, error);
        let entries = std::fs::read_dir(self.path(place)).map_err(failed)?;
        let name =
            |entry: io::Result<std::fs::DirEntry>| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into());
        let mut names: Vec<String> = entries.map(name).collect::<Result<_>>()?;
        names.sort_unstable();
        Ok(names)
    }

    /// Changes the value, without a record.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) as for [`Sysctls::read`];
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the kernel does not take the value;
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) without root or where `/proc/sys` is read-only.
    pub fn write(&self, key: &Key, value: &str) -> Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let open = options.write(true).open(self.path(key));
        open.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
            .map_err(|error| failed("write sysctl", key, Some(value), error))
    }

    fn path(&self, key: &Key) -> PathBuf {
        let mut path = self.root.clone();
        path.extend(key.components());
        path
    }
}

fn failed(op: &'static str, key: &Key, value: Option<&str>, error: io::Error) -> Error {
    use rustix::io::Errno;
    match (Errno::from_io_error(&error), value) {
        (Some(Errno::NOENT | Errno::NOTDIR), _) => Error::not_found("sysctl", key.to_string()),
        (Some(Errno::INVAL | Errno::RANGE), Some(value)) => {
            Error::invalid(format!("sysctl {key}"), value, "the kernel does not take this value")
        }
        (Some(Errno::ACCESS | Errno::PERM | Errno::ROFS), _) => Error::PermissionDenied {
            op,
            object: key.to_string(),
            remedy: "run as root, with /proc/sys mounted read-write".into(),
        },
        _ => Error::system(op, key.to_string(), error),
    }
}
