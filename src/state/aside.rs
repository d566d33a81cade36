//! Replacing a file as a whole.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{FILE_MODE, parent, sync_dir, system};
use crate::{Error, Result};

const SUFFIX: &str = ".podwire-tmp";

/// Replaces the content of `path`, or creates it, with the given mode. When this returns the new content is durable; when it fails, or the
/// machine stops at any point, the file holds its old content whole.
///
/// The new content is written to a hidden file beside the target, which a crash can leave behind: the next write to the same path reuses it
/// and [`remove_leftovers`] deletes it.
pub fn write_atomic(path: &Path, mode: u32, content: &[u8]) -> Result<()> {
    let mut aside = Aside::create(path, mode)?;
    aside.write(content)?;
    aside.commit().map(drop)
}

/// Deletes what interrupted writes left in `dir`, and says how many files that were. Files that somebody is still writing are left alone.
pub fn remove_leftovers(dir: &Path) -> Result<usize> {
    let failed = |error| system("clean up", dir, error);
    let mut removed = 0;
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let ours = name.as_encoded_bytes().starts_with(b".") && name.as_encoded_bytes().ends_with(SUFFIX.as_bytes());
        if ours && remove_if_abandoned(&entry.path()).map_err(failed)? {
            removed += 1;
        }
    }
    Ok(removed)
}

/// A file being written beside its target. The lock on it tells a live writer from a leftover, and lets two writers of one target take turns.
pub(super) struct Aside {
    file: File,
    target: PathBuf,
    temporary: PathBuf,
    renamed: bool,
}

impl Aside {
    pub(super) fn create(target: &Path, mode: u32) -> Result<Self> {
        let name = target.file_name().ok_or_else(|| {
            Error::invalid("path", target.display().to_string(), "names no file: expected a directory and a file name")
        })?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(SUFFIX);
        let temporary = parent(target).join(hidden);
        let file = open_locked(&temporary).map_err(|error| system("create", &temporary, error))?;
        let aside = Self { file, target: target.to_owned(), temporary, renamed: false };
        let prepared =
            aside.file.set_len(0).and_then(|()| aside.file.set_permissions(fs::Permissions::from_mode(mode)));
        prepared.map_err(|error| system("create", &aside.temporary, error))?;
        Ok(aside)
    }

    pub(super) fn write(&mut self, content: &[u8]) -> Result<()> {
        self.file.write_all(content).map_err(|error| system("write", &self.target, error))
    }

    /// Makes the content durable under the target's name. Should only the last step fail, the syncing of the directory, then the name may
    /// still stand for the old content after a power cut.
    pub(super) fn commit(mut self) -> Result<File> {
        self.file.sync_all().map_err(|error| system("sync", &self.target, error))?;
        fs::rename(&self.temporary, &self.target).map_err(|error| system("replace", &self.target, error))?;
        self.renamed = true;
        sync_dir(parent(&self.target))?;
        // a clone of the descriptor, for `self` has a destructor; the lock goes, as the file is no longer aside
        let file = self.file.try_clone().map_err(|error| system("keep open", &self.target, error))?;
        flock(&file, FlockOperation::Unlock).map_err(|error| system("unlock", &self.target, error.into()))?;
        Ok(file)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.renamed {
            // nothing more can be done about a failure here: the next write or clean-up meets the file again
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Opens and locks the file of this name, whoever may rename or delete it in between.
fn open_locked(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        if is_still_named(&file, path)? {
            return Ok(file);
        }
    }
}

fn remove_if_abandoned(path: &Path) -> io::Result<bool> {
    let file = match OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    if !is_still_named(&file, path)? {
        return Ok(false);
    }
    fs::remove_file(path)?;
    Ok(true)
}

fn is_still_named(file: &File, path: &Path) -> io::Result<bool> {
    let opened = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .expect("the directory is there")
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_the_content_and_sets_the_mode() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        for (mode, content) in [(0o600, "first, and longer"), (0o640, "second")] {
            write_atomic(&path, mode, content.as_bytes()).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("readable"), content);
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, mode);
        }
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn an_abandoned_write_leaves_the_old_content_and_is_cleaned_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        write_atomic(&path, 0o600, b"old").expect("written");
        // what a process leaves that died between its first write and the rename
        fs::write(dir.path().join(".file.podwire-tmp"), b"half of what was to be").expect("left behind");
        let mut live = Aside::create(&dir.path().join("other"), 0o600).expect("a live writer");
        live.write(b"not done yet").expect("written");

        assert_eq!(fs::read(&path).expect("readable"), b"old");
        assert_eq!(remove_leftovers(dir.path()).expect("cleaned"), 1);
        assert_eq!(names(dir.path()), [".other.podwire-tmp", "file"]);
        live.commit().expect("the live writer is not disturbed");
        assert_eq!(names(dir.path()), ["file", "other"]);
    }

    #[test]
    fn a_leftover_does_not_disturb_the_next_write() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join(".file.podwire-tmp"), vec![b'x'; 9000]).expect("left behind");
        write_atomic(&dir.path().join("file"), 0o600, b"new").expect("written");
        assert_eq!(fs::read(dir.path().join("file")).expect("readable"), b"new");
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn writers_of_one_file_take_turns() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        thread::scope(|scope| {
            for writer in 0..4_u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..25 {
                        write_atomic(path, 0o600, &vec![b'a' + writer; 5000]).expect("written");
                    }
                });
            }
            for _ in 0..100 {
                if let Ok(content) = fs::read(&path) {
                    assert_eq!(content.len(), 5000);
                    assert!(content.iter().all(|&byte| byte == content[0]), "two writers' content is mixed");
                }
            }
        });
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = write_atomic(&dir.path().join("missing/file"), 0o600, b"x").expect_err("no such directory");
        assert_eq!(error.kind(), crate::ErrorKind::NotFound);
        assert!(error.to_string().contains("missing/"), "{error}");
        let error = write_atomic(Path::new("/"), 0o600, b"x").expect_err("not a file");
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
    }
}
