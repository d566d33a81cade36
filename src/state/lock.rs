//! One holder at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::{FlockOperation, flock};

use super::{FILE_MODE, system};
use crate::{Error, Result};

/// An exclusive lock on a directory or whatever else a file can stand for, held until it is dropped or the process dies.
///
/// The file holds the holder's process id and start time (in clock ticks since boot, as in `/proc/PID/stat`) for people and for the error
/// that others get; what excludes them is `flock(2)`. It is never deleted: that would let two processes lock two files of the same name.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock at `path`, creating the file where it is missing. While somebody else holds it, in this process or another, this fails at
    /// once with [`Error::Busy`], which names the holder.
    pub fn acquire(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(|error| system("open lock", &path, error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Error::Busy { object: path.display().to_string(), detail: holder(&mut file) });
            }
            Err(error) => return Err(system("lock", &path, error.into())),
        }
        sign(&mut file).map_err(|error| system("write lock", &path, error))?;
        Ok(Self { file, path })
    }

    /// The same for a directory that exists, in which nothing can be written: a bpffs. Nobody can read there who holds it.
    pub fn acquire_directory(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let file = File::open(&path).map_err(|error| system("open directory", &path, error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { file, path }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(Error::Busy { object: path.display().to_string(), detail: "held by another process".to_owned() })
            }
            Err(error) => Err(system("lock", &path, error.into())),
        }
    }

    /// The lock's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // only for those who read the file; closing it is what unlocks
        let _ = self.file.set_len(0);
    }
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(format!("{} {}\n", process::id(), start_time(process::id())?).as_bytes())
}

/// When the process began, in clock ticks since boot: together with its id this names it for good. See proc(5), field 22 of `stat`.
fn start_time(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // the second field is a name in parentheses that may itself hold spaces and parentheses
    let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest);
    after_name
        .and_then(|rest| rest.split(' ').nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has another form")))
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let signature = file.read_to_string(&mut text).ok().and_then(|_| {
        let (pid, started) = text.trim_end().split_once(' ')?;
        Some((pid.parse::<u32>().ok()?, started.parse::<u64>().ok()?))
    });
    match signature {
        Some((pid, started)) if start_time(pid).is_ok_and(|now| now == started) => {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("held by process {pid} {}", name.trim_end()).trim_end().to_owned()
        }
        // the holder has not signed yet, or lives in another pid namespace
        Some((pid, _)) => format!("held by process {pid} of another pid namespace, or one that it started"),
        None => "held by another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_second_holder_is_refused_and_told_who_the_first_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lock");
        let lock = Lock::acquire(&path).expect("free");
        let error = Lock::acquire(&path).expect_err("held");
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains(&format!("process {}", process::id())), "{error}");
        drop(lock);
        assert_eq!(fs::read(&path).expect("readable"), b"");
        Lock::acquire(&path).expect("free again");
    }

    #[test]
    fn a_stale_signature_does_not_hold() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lock");
        fs::write(&path, "1 1\n").expect("written");
        let lock = Lock::acquire(&path).expect("nobody holds it");
        let signature = fs::read_to_string(lock.path()).expect("readable");
        assert!(signature.starts_with(&format!("{} ", process::id())), "{signature}");
    }
}
