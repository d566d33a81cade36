//! What whoever has a datapath open serves beside it: a socket, and deletions that are queued beside that. They lie outside of the state
//! directory, which notes where, so that a clean-up leaves neither.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::node::Paths;
use crate::state::{load_document, remove_leftovers, save_document};
use crate::{Error, Result};

/// The file of the state directory that says where the socket is.
pub(super) const FILE: &str = "socket.json";
const VERSION: u32 = 1;

/// The folder of queued deletions, beside the socket.
pub(crate) const QUEUE: &str = "deleteQueue";
/// Locked by whoever changes the queue.
pub(crate) const QUEUE_LOCK: &str = "lockfile";
/// How the names of queued deletions end.
pub(crate) const QUEUED: &str = ".delete";

/// Notes where the socket is.
pub(super) fn note(paths: &Paths, socket: &Path) -> Result<()> {
    save_document(&paths.state(FILE), VERSION, &socket)
}

/// The socket that nobody serves any more, and the queue: as far as they exist.
pub(super) fn left(paths: &Paths) -> Result<Vec<PathBuf>> {
    let Some(socket) = load_document::<PathBuf>(&paths.state(FILE), VERSION)? else { return Ok(Vec::new()) };
    if UnixStream::connect(&socket).is_ok() {
        // By now both are somebody else's, whose state is elsewhere.
        return Ok(Vec::new());
    }
    let is_socket = fs::symlink_metadata(&socket).is_ok_and(|found| found.file_type().is_socket());
    let queue = Some(socket.with_file_name(QUEUE)).filter(|queue| queue.is_dir());
    Ok(Some(socket).filter(|_| is_socket).into_iter().chain(queue).collect())
}

/// Removes them; returns what there was.
pub(super) fn remove(paths: &Paths) -> Result<Vec<PathBuf>> {
    let left = left(paths)?;
    for path in &left {
        if path.is_dir() { remove_queue(path) } else { gone(path, fs::remove_file(path)) }?;
    }
    Ok(left)
}

/// Removes the queue with what is in it; the folder stays where something else is in it.
fn remove_queue(queue: &Path) -> Result<()> {
    let path = queue.join(QUEUE_LOCK);
    let lock = match File::open(&path) {
        Ok(lock) => Some(lock),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::system("open", path.display().to_string(), error)),
    };
    if let Some(lock) = &lock {
        flock(lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            rustix::io::Errno::WOULDBLOCK => {
                Error::Busy { object: path.display().to_string(), detail: "a plugin queues a deletion".to_owned() }
            }
            errno => Error::system("lock", path.display().to_string(), errno),
        })?;
    }
    remove_leftovers(queue)?;
    let failed = |error| Error::system("read directory", queue.display().to_string(), error);
    for entry in fs::read_dir(queue).map_err(failed)? {
        let entry = entry.map_err(failed)?.path();
        if entry.to_string_lossy().ends_with(QUEUED) {
            gone(&entry, fs::remove_file(&entry))?;
        }
    }
    // Who waits for it sees that it has gone, and makes another.
    gone(&path, fs::remove_file(&path))?;
    let _ = fs::remove_dir(queue);
    Ok(())
}

fn gone(path: &Path, removed: io::Result<()>) -> Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::system("remove", path.display().to_string(), error))
        }
        _ => Ok(()),
    }
}
