//! What every kind of map shares: its descriptor, its name, creation, opening, pins and the wording of errors.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::btf;
use super::check;
use super::kind::MapType;
use super::spec::MapSpec;
use crate::sys::bpf::{self, CreateArgs, MapFd};
use crate::{Error, Result};

/// `f_type` of a bpffs (`BPF_FS_MAGIC` in `include/uapi/linux/magic.h`).
const BPF_FS_MAGIC: rustix::fs::FsWord = 0xcafe_4a11;

/// What the kernel reports of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapInfo {
    /// The kernel's id of the map, unique while it lives.
    pub id: u32,
    /// Its type.
    pub map_type: MapType,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Size of a key in bytes.
    pub key_size: u32,
    /// Size of a value (one CPU's) in bytes.
    pub value_size: u32,
    /// Largest number of entries; for a ring buffer its size in bytes.
    pub max_entries: u32,
    /// `BPF_F_*` flags.
    pub flags: u32,
}

impl MapInfo {
    /// What is pinned at `path`, whatever its layout.
    ///
    /// # Errors
    ///
    /// `NotFound` where there is no pin, `InvalidInput` where it is no map.
    pub fn of_pin(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let fd = open_pin(path, "open")?;
        Ok(Self::of(&map_fd(fd, &path.display().to_string())?))
    }

    fn of(fd: &MapFd) -> Self {
        let info = fd.info();
        Self {
            id: info.id,
            map_type: MapType::from_raw(info.kind),
            name: info.name.clone(),
            key_size: info.key_size,
            value_size: info.value_size,
            max_entries: info.max_entries,
            flags: info.flags,
        }
    }
}

/// Marks types that a map takes and gives, but does not hold.
pub(super) type Handles<T> = PhantomData<fn() -> T>;

/// A map of known layout.
#[derive(Debug)]
pub(crate) struct Handle {
    fd: MapFd,
    /// For messages: `map NAME`, with the pin if it was opened from one.
    label: Box<str>,
    map_type: MapType,
}

impl Handle {
    /// Creates the map, with type information where the specification has layouts.
    pub(crate) fn create(spec: &MapSpec, inner: Option<BorrowedFd<'_>>) -> Result<Self> {
        let label = label(spec.name(), None);
        let btf = btf::load(spec);
        let args = CreateArgs {
            kind: spec.map_type().as_raw(),
            name: spec.name(),
            key_size: spec.key_size(),
            value_size: spec.value_size(),
            max_entries: spec.max_entries(),
            flags: spec.map_flags(),
            inner,
            btf: btf.as_ref().map(|btf| (btf.fd.as_fd(), btf.key, btf.value)),
        };
        let fd = MapFd::create(&args).map_err(|error| system("create", &label, error))?;
        Ok(Self { fd, label, map_type: spec.map_type() })
    }

    /// Opens a pin and checks that it is the map expected.
    pub(crate) fn open_pinned(path: &Path, spec: &MapSpec) -> Result<Self> {
        let object = label(spec.name(), Some(path));
        let fd = open_pin(path, "open")?;
        Self::checked(fd, spec, object)
    }

    /// Takes over a descriptor and checks that it is the map expected.
    pub(crate) fn from_fd(fd: OwnedFd, spec: &MapSpec) -> Result<Self> {
        Self::checked(fd, spec, label(spec.name(), None))
    }

    fn checked(fd: OwnedFd, spec: &MapSpec, label: Box<str>) -> Result<Self> {
        let fd = map_fd(fd, &label)?;
        check::layout(&fd, spec, &label)?;
        Ok(Self { fd, label, map_type: spec.map_type() })
    }

    /// The map with a kernel id, checked.
    pub(crate) fn from_id(id: u32, spec: &MapSpec) -> Result<Self> {
        let label = label(spec.name(), None);
        let fd = MapFd::from_id(id).map_err(|error| system("open", &label, error))?;
        check::layout(&fd, spec, &label)?;
        Ok(Self { fd, label, map_type: spec.map_type() })
    }

    /// The map with a kernel id that is known to be as `spec` says, such as one out of a map of maps.
    pub(crate) fn from_known_id(id: u32, spec: &MapSpec) -> Result<Self> {
        let label = label(spec.name(), None);
        let fd = MapFd::from_id(id).map_err(|error| system("open", &label, error))?;
        Ok(Self { fd, label, map_type: spec.map_type() })
    }

    pub(crate) fn pin(&self, path: &Path) -> Result<()> {
        self.fd.pin(path).map_err(|error| pin_error("pin", &self.label, path, error))
    }

    /// Removes the pin if it is this map's; false when there is none.
    pub(crate) fn unpin(&self, path: &Path) -> Result<bool> {
        let pinned = match bpf::open_pin(path) {
            Ok(fd) => map_fd(fd, &path.display().to_string())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(pin_error("unpin", &self.label, path, error)),
        };
        let info = pinned.info();
        if info.id != self.fd.info().id {
            return Err(Error::Foreign {
                object: path.display().to_string(),
                owner: format!("map {} (id {})", info.name, info.id),
                remedy: Cow::Borrowed("remove the pin by hand if nothing uses that map"),
            });
        }
        match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(pin_error("unpin", &self.label, path, error)),
        }
    }

    pub(crate) fn info(&self) -> MapInfo {
        MapInfo::of(&self.fd)
    }

    #[inline]
    pub(crate) fn raw(&self) -> &MapFd {
        &self.fd
    }

    pub(crate) fn map_type(&self) -> MapType {
        self.map_type
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    pub(crate) fn max_entries(&self) -> usize {
        self.fd.info().max_entries as usize
    }

    /// A failed call on this map.
    #[cold]
    pub(crate) fn fail(&self, op: &'static str, error: io::Error) -> Error {
        system(op, &self.label, error)
    }

    /// A failed insertion.
    #[cold]
    pub(crate) fn insert_failed(&self, key: &[u8], error: io::Error) -> Error {
        match error.raw_os_error() {
            Some(libc::E2BIG) if self.map_type.is_array() => Error::invalid(
                "index",
                key.first_chunk().map_or_else(|| hex(key), |bytes| u32::from_ne_bytes(*bytes).to_string()),
                format!("{} has {} rows", self.label, self.max_entries()),
            ),
            Some(libc::E2BIG | libc::ENOSPC) => Error::Full {
                object: self.label.to_string(),
                limit: self.max_entries(),
                remedy: Cow::Borrowed("remove entries, or create the map with a larger size"),
            },
            Some(libc::EEXIST) => {
                Error::AlreadyExists { what: "key", name: hex(key), detail: format!("in {}", self.label) }
            }
            Some(libc::ENOENT) => Error::not_found("key", format!("{} in {}", hex(key), self.label)),
            _ => self.fail("insert into", error),
        }
    }

    /// A batch that stopped.
    #[cold]
    pub(crate) fn partial(&self, op: &'static str, done: usize, total: usize, source: io::Error) -> Error {
        if done == 0 && is_denied(&source) {
            return self.fail(op, source);
        }
        Error::PartialBatch { op, object: self.label.to_string(), done, total, source }
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether the kernel, or this kind of map, has no such batch command.
///
/// 524 is the kernel's internal `ENOTSUPP`, which bpf(2) lets through; kernels that do not know a command at all answer `EINVAL`.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    const ENOTSUPP: i32 = 524;
    matches!(error.raw_os_error(), Some(ENOTSUPP | libc::EOPNOTSUPP | libc::EINVAL))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn label(name: &str, pin: Option<&Path>) -> Box<str> {
    match pin {
        Some(path) => format!("map {name} ({})", path.display()).into(),
        None => format!("map {name}").into(),
    }
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}

fn system(op: &'static str, object: &str, error: io::Error) -> Error {
    if is_denied(&error) {
        return Error::PermissionDenied {
            op,
            object: object.to_owned(),
            remedy: Cow::Borrowed("needs root or CAP_BPF, and a map that is neither frozen nor read-only"),
        };
    }
    Error::system(op, object, error)
}

fn open_pin(path: &Path, op: &'static str) -> Result<OwnedFd> {
    bpf::open_pin(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::not_found("pin", path.display().to_string()),
        _ => pin_error(op, &path.display().to_string(), path, error),
    })
}

/// A pin that could not be made, opened or removed. What is not on a bpffs is refused with the errno of a missing privilege.
fn pin_error(op: &'static str, object: &str, path: &Path, error: io::Error) -> Error {
    let folder = path.parent().unwrap_or(path);
    match error.raw_os_error() {
        Some(libc::EEXIST) => {
            Error::AlreadyExists { what: "pin", name: path.display().to_string(), detail: String::new() }
        }
        Some(libc::EPERM | libc::EACCES | libc::EINVAL) if !on_bpffs(folder) => Error::invalid(
            "pin",
            path.display().to_string(),
            "is not on a bpf file system; mount one with: mount -t bpf bpf /sys/fs/bpf",
        ),
        Some(libc::ENOENT) => Error::not_found("directory", folder.display().to_string()),
        _ => system(op, object, error),
    }
}

fn on_bpffs(folder: &Path) -> bool {
    rustix::fs::statfs(folder).is_ok_and(|statfs| statfs.f_type == BPF_FS_MAGIC)
}

/// Takes over a descriptor that must be a map's.
fn map_fd(fd: OwnedFd, object: &str) -> Result<MapFd> {
    // Other BPF objects answer the same information request with another struct, so ask what it is first.
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    if let Ok(link) = link
        && link != Path::new("anon_inode:bpf-map")
    {
        return Err(Error::invalid("map", object, format!("is no map but {}", link.display())));
    }
    MapFd::from_owned(fd).map_err(|error| system("inspect", object, error))
}

/// Defines creation, opening and pins on a type with a field `handle` and `Self::from_handle(handle, &spec)`.
macro_rules! map_methods {
    () => {
        /// Opens the map pinned at `path` after comparing it with `spec`.
        ///
        /// # Errors
        ///
        /// `NotFound` where there is no pin; `LayoutMismatch` naming every difference in type, sizes, flags and, where the
        /// kernel has type information of the map and `spec` has layouts, in the fields of key and value.
        pub fn open_pinned(path: impl AsRef<std::path::Path>, spec: &$crate::maps::MapSpec) -> $crate::Result<Self> {
            Self::from_handle($crate::maps::handle::Handle::open_pinned(path.as_ref(), spec)?, spec)
        }

        /// Takes over a map's descriptor after comparing the map with `spec`.
        ///
        /// # Errors
        ///
        /// As for [`open_pinned`](Self::open_pinned).
        pub fn from_fd(fd: std::os::fd::OwnedFd, spec: &$crate::maps::MapSpec) -> $crate::Result<Self> {
            Self::from_handle($crate::maps::handle::Handle::from_fd(fd, spec)?, spec)
        }

        /// Opens the map with a kernel id after comparing it with `spec`.
        ///
        /// # Errors
        ///
        /// As for [`open_pinned`](Self::open_pinned); needs `CAP_SYS_ADMIN`.
        pub fn from_id(id: u32, spec: &$crate::maps::MapSpec) -> $crate::Result<Self> {
            Self::from_handle($crate::maps::handle::Handle::from_id(id, spec)?, spec)
        }

        /// Pins the map at `path`, in an existing directory on a bpffs. The pin outlives the handle.
        ///
        /// # Errors
        ///
        /// `AlreadyExists` where something is there; `InvalidInput` where `path` is not on a bpffs.
        pub fn pin(&self, path: impl AsRef<std::path::Path>) -> $crate::Result<()> {
            self.handle.pin(path.as_ref())
        }

        /// Removes the pin at `path`; false when there is none.
        ///
        /// # Errors
        ///
        /// `Foreign` where `path` is another map's.
        pub fn unpin(&self, path: impl AsRef<std::path::Path>) -> $crate::Result<bool> {
            self.handle.unpin(path.as_ref())
        }

        /// What the kernel reports of the map.
        pub fn info(&self) -> $crate::maps::MapInfo {
            self.handle.info()
        }

        /// The map's name in messages.
        pub fn label(&self) -> &str {
            self.handle.label()
        }
    };
}
pub(crate) use map_methods;
