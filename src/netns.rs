//! A handle on a network namespace.
//!
//! A [`NetNs`] keeps its namespace alive while it exists. [`NetNs::run`] executes a closure on a thread that enters the
//! namespace and ends with the closure, so that no early return and no panic can leave a thread in the wrong place. Only
//! [`NetNs::enter`] moves the caller's own thread into another namespace, and never back.
//!
//! ```no_run
//! use podwire::netlink::Socket;
//! use podwire::netns::NetNs;
//!
//! let pod = NetNs::open("/run/netns/web")?;
//! let names: Vec<String> = pod.run(|| Socket::open()?.links())??.into_iter().map(|link| link.name).collect();
//! # Ok::<(), podwire::Error>(())
//! ```

use std::any::Any;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use rustix::thread::LinkNameSpaceType;

use crate::{Error, Result, sys};

/// The `f_type` of the file system that namespaces live in (`NSFS_MAGIC` of linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The calling thread's namespace. `/proc/self` would name that of the process's first thread instead.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// An open network namespace.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
    path: PathBuf,
    id: NetNsId,
}

/// What tells one live namespace from another: the device and inode numbers of its file.
///
/// The kernel gives an inode number again once its namespace is gone; compare only while a [`NetNs`] is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetNsId {
    device: u64,
    inode: u64,
}

impl NetNsId {
    /// The number that `readlink /proc/PID/ns/net` and `lsns` show.
    pub const fn inode(self) -> u64 {
        self.inode
    }
}

impl NetNs {
    /// Opens the namespace behind a path such as `/run/netns/web` or `/proc/42/ns/net`.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) when nothing is there (any more), and
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when it is something else than a network namespace, such as the
    /// empty file that stays behind when a named namespace was unmounted.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        // O_NONBLOCK: a path may name a FIFO, and opening one must not wait for its other end.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| open_error(path, error))?;
        Self::from_fd(fd, path)
    }

    /// The calling thread's namespace.
    pub fn current() -> Result<Self> {
        Self::open(CURRENT)
    }

    /// The namespace of a process.
    pub fn from_pid(pid: u32) -> Result<Self> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// A fresh namespace without a name, which lasts as long as handles, processes or devices refer to it.
    ///
    /// # Errors
    ///
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) without `CAP_SYS_ADMIN`.
    pub fn create() -> Result<Self> {
        on_a_thread("network namespace", || {
            sys::net::unshare_net().map_err(|error| Error::system("create", "network namespace", error))?;
            Ok(Self::current()?.without_path())
        })?
    }

    /// Makes a fresh namespace and mounts it on `path`, as `ip netns add` does below `/run/netns`; missing directories
    /// are made. It stays until [`NetNs::remove`].
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) when the path exists. Whatever fails, nothing stays behind.
    pub fn create_named(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)
                .map_err(|error| Error::system("create directory", directory.display().to_string(), error))?;
        }
        let fresh = Self::create()?;
        let mut target = MountPoint::create(path)?;
        rustix::mount::mount_bind(format!("/proc/self/fd/{}", fresh.fd.as_raw_fd()), path)
            .map_err(|error| Error::system("mount network namespace on", path.display().to_string(), error))?;
        target.mounted = true;
        let named = Self::open(path)?;
        target.keep = true;
        Ok(named)
    }

    /// Unmounts and removes a path made by [`NetNs::create_named`]. The namespace itself ends with its last user.
    ///
    /// # Errors
    ///
    /// As for [`NetNs::open`]: what is not a network namespace is left alone.
    pub fn remove(path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let object = || path.display().to_string();
        drop(Self::open(path)?);
        rustix::mount::unmount(path, UnmountFlags::DETACH)
            .map_err(|error| Error::system("unmount network namespace", object(), error))?;
        std::fs::remove_file(path).map_err(|error| Error::system("remove", object(), error))
    }

    /// Executes `work` inside the namespace, on a thread of its own that ends with it, and returns its result.
    ///
    /// What `work` opens there (a socket, a file below `/proc/sys/net`) stays tied to the namespace and may be returned.
    /// A process started by `work` runs in the namespace.
    ///
    /// # Errors
    ///
    /// When the thread can't be started, the namespace can't be entered
    /// ([`PermissionDenied`](crate::ErrorKind::PermissionDenied) without `CAP_SYS_ADMIN`), or `work` panics.
    pub fn run<T, F>(&self, work: F) -> Result<T>
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        on_a_thread(&self.path.display().to_string(), || {
            self.enter()?;
            Ok(work())
        })?
    }

    /// Moves the calling thread into the namespace for the rest of its life: for a process, or a thread, that has nothing more to do
    /// where it was. What it has opened there stays tied to the old one.
    ///
    /// # Errors
    ///
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) without `CAP_SYS_ADMIN`.
    pub fn enter(&self) -> Result<()> {
        rustix::thread::move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| Error::system("enter network namespace", self.path.display().to_string(), error))
    }

    /// The path by which it was opened, for messages; `net:[INODE]` for one that has none.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its identity among the namespaces that exist now.
    pub fn id(&self) -> NetNsId {
        self.id
    }

    /// Whether both are handles on one namespace.
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// A number that no other namespace gets until the machine restarts, unlike [`NetNs::id`] (kernel 5.14).
    pub fn cookie(&self) -> Result<u64> {
        use rustix::net::{AddressFamily, SocketType, socket};
        let object = || self.path.display().to_string();
        let query = || {
            let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)
                .map_err(|error| Error::system("open a socket in", object(), error))?;
            sys::net::namespace_cookie(socket.as_fd())
                .map_err(|error| Error::system("query cookie of", object(), error))
        };
        // Whoever is there already needs no privilege to enter.
        if self.is_same(&Self::current()?) { query() } else { self.run(query)? }
    }

    /// Another handle on the same namespace.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self
            .fd
            .try_clone()
            .map_err(|error| Error::system("duplicate the handle of", self.path.display().to_string(), error))?;
        Ok(Self { fd, path: self.path.clone(), id: self.id })
    }

    /// Named as `readlink /proc/PID/ns/net` shows it, where no path leads to it for long.
    fn without_path(self) -> Self {
        Self { path: format!("net:[{}]", self.id.inode).into(), ..self }
    }

    fn from_fd(fd: OwnedFd, path: &Path) -> Result<Self> {
        let object = || path.display().to_string();
        let system = |error: rustix::io::Errno| Error::system("inspect", object(), error);
        let kind = rustix::fs::fstatfs(&fd).map_err(system)?.f_type as u64;
        let stat = rustix::fs::fstat(&fd).map_err(system)?;
        if kind != NSFS_MAGIC {
            let found = rustix::fs::FileType::from_raw_mode(stat.st_mode);
            let reason = format!(
                "not a network namespace but a {}; expected a path such as /run/netns/NAME or /proc/PID/ns/net",
                describe(found)
            );
            return Err(Error::invalid("network namespace", object(), reason));
        }
        if !sys::net::is_net_namespace(fd.as_fd()).map_err(|error| Error::system("inspect", object(), error))? {
            return Err(Error::invalid("network namespace", object(), "a namespace of another kind than network"));
        }
        Ok(Self { fd, path: path.to_owned(), id: NetNsId { device: stat.st_dev, inode: stat.st_ino } })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl TryFrom<OwnedFd> for NetNs {
    type Error = Error;

    /// Takes over an open descriptor.
    fn try_from(fd: OwnedFd) -> Result<Self> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        Ok(Self::from_fd(fd, &path)?.without_path())
    }
}

/// The file on which a namespace is mounted; undone on drop unless it is kept.
struct MountPoint<'a> {
    path: &'a Path,
    mounted: bool,
    keep: bool,
}

impl<'a> MountPoint<'a> {
    fn create(path: &'a Path) -> Result<Self> {
        let created: io::Result<File> = OpenOptions::new().write(true).create_new(true).open(path);
        match created {
            Ok(_) => Ok(Self { path, mounted: false, keep: false }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::AlreadyExists {
                what: "network namespace",
                name: path.display().to_string(),
                detail: String::new(),
            }),
            Err(error) => Err(Error::system("create", path.display().to_string(), error)),
        }
    }
}

impl Drop for MountPoint<'_> {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if self.mounted
            && let Err(error) = rustix::mount::unmount(self.path, UnmountFlags::DETACH)
        {
            log::warn!("unmount network namespace {}: {error}", self.path.display());
        }
        if let Err(error) = std::fs::remove_file(self.path) {
            log::warn!("remove {}: {error}", self.path.display());
        }
    }
}

/// Executes `work` on a scoped thread; its panic becomes an error.
fn on_a_thread<T: Send>(object: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("podwire-netns".into())
            .spawn_scoped(scope, work)
            .map_err(|error| Error::system("start a thread for", object, error))?;
        worker.join().map_err(|panic| {
            let message = panic_message(panic);
            Error::system("run in", object, io::Error::other(format!("the work panicked: {message}")))
        })
    })
}

fn panic_message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<&'static str>() {
        Ok(text) => (*text).to_owned(),
        Err(panic) => panic.downcast::<String>().map_or_else(|_| "without a message".to_owned(), |text| *text),
    }
}

fn open_error(path: &Path, error: rustix::io::Errno) -> Error {
    use rustix::io::Errno;
    let name = path.display().to_string();
    match error {
        // ESRCH: /proc/PID/ns of a process that is just ending
        Errno::NOENT | Errno::NOTDIR | Errno::SRCH => Error::not_found("network namespace", name),
        error => Error::system("open network namespace", name, error),
    }
}

fn describe(kind: rustix::fs::FileType) -> &'static str {
    use rustix::fs::FileType;
    match kind {
        FileType::RegularFile => "regular file (a named namespace that was unmounted leaves one)",
        FileType::Directory => "directory",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        _ => "special file",
    }
}
