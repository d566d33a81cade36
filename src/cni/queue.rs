//! Deletions that met no agent, kept on disk until one starts.
//!
//! The directory lies beside the agent's socket, and is made by whoever comes first. A lock file decides the race between a plugin that
//! finds no agent and an agent that starts at this moment: the plugin asks the agent once more while it holds the lock before it writes;
//! the agent holds the lock from before it reads the directory until its socket listens. A clean-up removes both, so that a lock counts
//! only while its file is the one in the directory.
//!
//! A deletion names an attachment, not an endpoint: an ADD of the same attachment has it carried out first, since it would meet the new
//! endpoint otherwise. No clock is asked which of them is the older.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::attachment::{Attachment, fnv1a};
use crate::datapath::{QUEUE, QUEUE_LOCK, QUEUED};
use crate::{Error, Result, state};

/// How many deletions are kept. Beyond, DEL fails, so that the runtime itself remembers and repeats it.
const QUEUE_MAX: usize = 256;
const LOCK_POLL: Duration = Duration::from_millis(5);

/// Deletions kept for an agent.
#[derive(Clone, Debug)]
pub struct DeletionQueue {
    dir: PathBuf,
}

/// One deletion, as it is on disk; the body of the agent's request with the interface added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    #[serde(rename = "container-id")]
    container_id: String,
    #[serde(rename = "container-interface-name")]
    ifname: String,
}

impl DeletionQueue {
    /// The queue of the agent that listens on a socket: `deleteQueue` in the socket's directory.
    pub fn beside(socket: &Path) -> Self {
        Self { dir: socket.with_file_name(QUEUE) }
    }

    /// Where the deletions are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether a deletion of an attachment is kept. Costs one system call.
    pub fn holds(&self, attachment: &Attachment) -> bool {
        self.dir.join(file_name(attachment)).exists()
    }

    /// Takes the queue's lock, waiting for another holder; fails with [`ErrorKind::Busy`](crate::ErrorKind::Busy) when
    /// that takes longer than `patience`.
    pub fn lock(&self, patience: Duration) -> Result<QueueLock> {
        let path = self.dir.join(QUEUE_LOCK);
        let deadline = Instant::now() + patience;
        loop {
            let file = self.open_lock(&path)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&file, &path) => return Ok(QueueLock { dir: self.dir.clone(), _file: file }),
                // A clean-up took the queue away, which is made anew.
                Ok(()) if Instant::now() < deadline => {}
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => std::thread::sleep(LOCK_POLL),
                Ok(()) | Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    let detail = format!("not released within {} ms", patience.as_millis());
                    return Err(Error::Busy { object: path.display().to_string(), detail });
                }
                Err(error) => return Err(Error::system("lock", path.display().to_string(), error)),
            }
        }
    }

    /// The lock's file, in a directory that only root may look into; others may pass on the way to it, where the socket is.
    fn open_lock(&self, path: &Path) -> Result<File> {
        let above = self.dir.parent().map_or(Ok(()), fs::create_dir_all);
        let made = above.and_then(|()| fs::DirBuilder::new().mode(state::DIR_MODE).create(&self.dir));
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::system("create directory", self.dir.display().to_string(), error));
            }
            _ => {}
        }
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(state::FILE_MODE)
            .open(path)
            .map_err(|error| Error::system("open", path.display().to_string(), error))
    }

    /// Hands every queued deletion to `delete` and removes those it reports done; one whose endpoint does not exist is
    /// done too. What fails, or can't be removed, stays for the next time. The agent calls this before it listens on its socket, and keeps the
    /// lock it gets until it does.
    pub fn drain(&self, mut delete: impl FnMut(&Attachment) -> Result<()>) -> Result<QueueLock> {
        let lock = self.lock(Duration::from_secs(30))?;
        state::remove_leftovers(&self.dir)?;
        for path in lock.entries()? {
            let attachment = match read(&path) {
                Ok(attachment) => attachment,
                Err(error) => {
                    log::warn!("queued deletion is dropped: {error}");
                    remove_or_warn(&path);
                    continue;
                }
            };
            match delete(&attachment) {
                Err(error) if error.kind() != crate::ErrorKind::NotFound => {
                    log::warn!("queued deletion of {attachment} stays queued: {error}");
                }
                _ => remove_or_warn(&path),
            }
        }
        Ok(lock)
    }
}

/// The right to change the queue; given up when dropped.
#[derive(Debug)]
pub struct QueueLock {
    dir: PathBuf,
    _file: File,
}

impl QueueLock {
    /// Keeps a deletion. Fails with [`ErrorKind::Exhausted`](crate::ErrorKind::Exhausted) when 256 are kept already.
    /// The same deletion twice is one.
    pub fn push(&self, attachment: &Attachment) -> Result<()> {
        let path = self.dir.join(file_name(attachment));
        if path.exists() {
            return Ok(());
        }
        if self.entries()?.len() >= QUEUE_MAX {
            return Err(Error::Full {
                object: self.dir.display().to_string(),
                limit: QUEUE_MAX,
                remedy: "start the agent, which works off the queue".into(),
            });
        }
        let entry = Entry {
            container_id: attachment.container_id.as_str().to_owned(),
            ifname: attachment.ifname.as_str().to_owned(),
        };
        let content = serde_json::to_vec(&entry)
            .map_err(|error| Error::system("encode", attachment.to_string(), io::Error::from(error)))?;
        state::write_atomic(&path, state::FILE_MODE, &content)
    }

    /// Forgets the deletion of an attachment, which was carried out.
    pub fn remove(&self, attachment: &Attachment) -> Result<()> {
        let path = self.dir.join(file_name(attachment));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::system("remove", path.display().to_string(), error))
            }
            _ => Ok(()),
        }
    }

    /// How many deletions are kept.
    pub fn len(&self) -> Result<usize> {
        Ok(self.entries()?.len())
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    fn entries(&self) -> Result<Vec<PathBuf>> {
        let failed = |error| Error::system("read directory", self.dir.display().to_string(), error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.to_str().is_some_and(|path| path.ends_with(QUEUED)) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }
}

fn file_name(attachment: &Attachment) -> String {
    format!("{:016x}{QUEUED}", fnv1a(attachment.to_string().as_bytes()))
}

fn read(path: &Path) -> Result<Attachment> {
    let bytes = fs::read(path).map_err(|error| Error::system("read", path.display().to_string(), error))?;
    let corrupt = |reason: String| Error::Corrupt { path: path.to_owned(), reason };
    let entry: Entry = serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
    Attachment::new(&entry.container_id, &entry.ifname).map_err(|error| corrupt(error.to_string()))
}

/// Whether a file that is open is the one of this name.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: io::Result<fs::Metadata>| found.map(|found| (found.dev(), found.ino())).ok();
    let open = identity(file.metadata());
    open.is_some() && open == identity(fs::metadata(path))
}

/// Removes an entry. One that stays costs its place and is met again: no reason for an agent not to serve its node.
fn remove_or_warn(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        log::warn!("remove {}: {error}; remove it by hand", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const PATIENCE: Duration = Duration::from_millis(20);

    fn attachment(n: usize) -> Attachment {
        Attachment::new(&format!("container-{n}"), "eth0").expect("valid")
    }

    fn queue() -> (tempfile::TempDir, DeletionQueue) {
        let dir = tempfile::tempdir().expect("a directory");
        let queue = DeletionQueue::beside(&dir.path().join("run/podwire.sock"));
        (dir, queue)
    }

    #[test]
    fn what_is_pushed_is_drained_once() {
        let (_dir, queue) = queue();
        {
            let lock = queue.lock(PATIENCE).expect("free");
            for n in [0, 1, 2, 1] {
                lock.push(&attachment(n)).expect("room");
            }
            assert_eq!(lock.len().expect("readable"), 3);
        }
        let mut seen = Vec::new();
        let first = queue.drain(|attachment| {
            seen.push(attachment.clone());
            match seen.len() {
                1 => Ok(()),
                2 => Err(Error::not_found("endpoint", attachment.to_string())),
                _ => Err(Error::invalid("endpoint", attachment.to_string(), "fails")),
            }
        });
        assert_eq!(first.expect("drained").len().expect("readable"), 1, "only the failed one stays");
        seen.sort();
        assert_eq!(seen, [attachment(0), attachment(1), attachment(2)]);
        assert!(queue.drain(|_| Ok(())).expect("drained").is_empty().expect("readable"));
    }

    #[test]
    fn it_is_bounded() {
        let (_dir, queue) = queue();
        let lock = queue.lock(PATIENCE).expect("free");
        for n in 0..QUEUE_MAX {
            lock.push(&attachment(n)).expect("room");
        }
        assert_eq!(lock.push(&attachment(QUEUE_MAX)).expect_err("full").kind(), ErrorKind::Exhausted);
        lock.push(&attachment(7)).expect("is there already");
    }

    #[test]
    fn one_holder_at_a_time() {
        let (_dir, queue) = queue();
        let held = queue.drain(|_| Ok(())).expect("drained");
        assert_eq!(queue.lock(PATIENCE).expect_err("held").kind(), ErrorKind::Busy);
        drop(held);
        queue.lock(PATIENCE).expect("free again");
    }

    #[test]
    fn a_queue_that_is_taken_away_meanwhile_is_made_anew() {
        let (_dir, queue) = queue();
        let held = queue.lock(PATIENCE).expect("free");
        let old = File::open(queue.dir().join(QUEUE_LOCK)).expect("there");
        fs::remove_dir_all(queue.dir()).expect("removed");
        assert!(held.push(&attachment(1)).is_err(), "it would be lost");
        assert!(!is_at(&old, &queue.dir().join(QUEUE_LOCK)));
        let lock = queue.lock(PATIENCE).expect("another file, which nobody holds");
        assert!(!is_at(&old, &queue.dir().join(QUEUE_LOCK)));
        lock.push(&attachment(1)).expect("room");
        let mode = fs::metadata(queue.dir()).expect("made").mode();
        assert_eq!(mode & 0o777, 0o700, "only root looks into it");
    }

    #[test]
    fn damaged_entries_do_not_stop_the_agent() {
        let (_dir, queue) = queue();
        let lock = queue.lock(PATIENCE).expect("free");
        lock.push(&attachment(1)).expect("room");
        fs::write(queue.dir().join("0000.delete"), "{").expect("written");
        fs::create_dir(queue.dir().join("0002.delete")).expect("made, as nobody can remove it like a file");
        fs::write(queue.dir().join("0001.delete"), r#"{"container-id":"../x","container-interface-name":"eth0"}"#)
            .expect("written");
        drop(lock);
        let mut seen = 0;
        let lock = queue.drain(|_| {
            seen += 1;
            Ok(())
        });
        assert_eq!(lock.expect("drained").len().expect("readable"), 1, "the folder is left");
        assert_eq!(seen, 1);
    }
}
