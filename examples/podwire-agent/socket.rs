//! The agent's socket.

use std::fs::{self, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podwire::api::Client;
use podwire::{Error, Result};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;

/// Owner and group may talk to the agent.
const MODE: u32 = 0o660;
/// How long another agent may take to show that it is there.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A socket's path, taken before anything else is made: whoever connects is refused, as if there were no agent, until it
/// [listens](Self::listen). Gone when dropped, with the folders that were made for it.
pub(crate) struct Claim {
    socket: Option<OwnedFd>,
    path: PathBuf,
    /// Which file it is.
    inode: u64,
    /// The folders that were not there before, innermost first.
    folders: Vec<PathBuf>,
}

impl Claim {
    /// Takes the path. A socket that nobody serves any more is replaced; one that is served, and anything that is no socket, is
    /// left alone.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let folders = make_folders(path)?;
        let bound = make_room(path)
            .and_then(|()| bind(path).map_err(|cause| Error::system("listen at", path.display().to_string(), cause)));
        let (socket, inode) = bound.inspect_err(|_| remove_folders(&folders))?;
        Ok(Self { socket: Some(socket), path: path.to_owned(), inode, folders })
    }

    /// Listens from now on. An agent that was started meanwhile, and refused for another reason, may have taken the path away.
    pub(crate) fn listen(&mut self) -> Result<UnixListener> {
        if inode(&self.path) != Some(self.inode) {
            *self = Self::new(&self.path)?;
        }
        let failed = |cause| Error::system("listen at", self.path.display().to_string(), cause);
        let Some(socket) = self.socket.take() else { return Err(failed(rustix::io::Errno::BADF.into())) };
        rustix::net::listen(&socket, BACKLOG).map_err(|errno| failed(errno.into()))?;
        UnixListener::from_std(StdListener::from(socket)).map_err(failed)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if inode(&self.path) == Some(self.inode) {
            // What remains is a socket that nobody serves, which the next agent replaces.
            let _ = fs::remove_file(&self.path);
        }
        remove_folders(&self.folders);
    }
}

/// Makes the folders that lead to the path; returns those that were missing.
fn make_folders(path: &Path) -> Result<Vec<PathBuf>> {
    let Some(folder) = path.parent() else { return Ok(Vec::new()) };
    let missing = folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    let missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
    let made = fs::create_dir_all(folder).map_err(|cause| Error::system("create", folder.display().to_string(), cause));
    made.inspect_err(|_| remove_folders(&missing))?;
    Ok(missing)
}

/// Those in which there is something else stay.
fn remove_folders(folders: &[PathBuf]) {
    for folder in folders {
        let _ = fs::remove_dir(folder);
    }
}

fn make_room(path: &Path) -> Result<()> {
    let object = || path.display().to_string();
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let remedy = "choose another path with --socket, or remove it".into();
            Err(Error::Foreign { object: object(), owner: "something that is no socket".to_owned(), remedy })
        }
        Ok(_) if Client::is_served(path, PATIENCE) => {
            Err(Error::Busy { object: object(), detail: "another agent serves it".to_owned() })
        }
        Ok(_) => fs::remove_file(path).map_err(|cause| Error::system("remove", object(), cause)),
        Err(_) => Ok(()),
    }
}

/// A socket at the path that nobody can connect to yet, and its inode.
fn bind(path: &Path) -> std::io::Result<(OwnedFd, u64)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Created without access for others, so that there is no moment in which they could connect.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o117));
    let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(path)?);
    rustix::process::umask(before);
    bound?;
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    Ok((socket, fs::symlink_metadata(path)?.ino()))
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|found| found.ino())
}
