//! An append-only file of records.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::aside::Aside;
use super::{FILE_MODE, frame, system};
use crate::{Error, Result};

/// How many records a frame holds when the whole journal is rewritten.
const RECORDS_PER_FRAME: usize = 4096;

/// A file of checksummed records to which a crash at any instruction does no harm.
///
/// [`append`](Self::append) writes its records as one unit with one `fdatasync`: after a crash either all of them are there or none. Opening
/// the journal gives every record that an append returned for, in order; the unfinished last unit of a crash is cut off. Damage before the
/// last unit is not the work of a crash and is reported as [`Error::Corrupt`] with the file and the offset, and nothing is changed.
///
/// The journal does not know which of its records still matter. Its owner calls [`rewrite`](Self::rewrite) with those when
/// [`is_mostly_garbage`](Self::is_mostly_garbage) says so.
///
/// One process at a time may have a journal open; hold a [`Lock`](super::Lock).
#[derive(Debug)]
pub struct Journal<R> {
    path: PathBuf,
    file: File,
    /// Bytes that are whole and durable.
    len: u64,
    /// Records in them.
    records: usize,
    /// Set when the end of the file is in doubt.
    broken: bool,
    record: PhantomData<fn(R) -> R>,
}

/// What a journal held when it was opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct Replay<R> {
    /// The records, oldest first.
    pub records: Vec<R>,
    /// The unfinished end that was cut off, if there was one.
    pub torn: Option<Torn>,
}

/// An unfinished write that was found at the end of a journal and cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Torn {
    /// Where it began, in bytes from the beginning of the file.
    pub offset: u64,
    /// How many bytes there were.
    pub bytes: u64,
}

impl<R: Serialize + DeserializeOwned> Journal<R> {
    /// Opens the journal at `path`, or creates an empty one with mode 0600, and gives the records in it.
    pub fn open(path: impl Into<PathBuf>) -> Result<(Self, Replay<R>)> {
        let path = path.into();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut aside = Aside::create(&path, FILE_MODE)?;
                aside.write(&frame::HEADER)?;
                let journal = Self::with_file(path, aside.commit()?, frame::HEADER.len() as u64, 0);
                return Ok((journal, Replay { records: Vec::new(), torn: None }));
            }
            Err(error) => return Err(system("read", &path, error)),
        };
        let (records, len) = parse(&path, &bytes)?;
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|error| system("open", &path, error))?;
        let mut journal = Self::with_file(path, file, len, records.len());
        let torn = journal.cut_off(bytes.len() as u64)?;
        Ok((journal, Replay { records, torn }))
    }

    /// Adds these records, all or none, and returns when they are durable. On failure the file is put back to what it was; should even that
    /// fail, every later append fails too until [`rewrite`](Self::rewrite) succeeds or the journal is opened again.
    pub fn append(&mut self, records: &[R]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        if self.broken {
            return Err(Error::WrongState {
                object: format!("journal {}", self.path.display()),
                state: "in doubt after a failed write".to_owned(),
                op: "append to it before it has been opened again",
            });
        }
        let bytes = self.encode(records)?;
        let written = self.file.write_all_at(&bytes, self.len).map_err(|error| ("append to", error));
        let synced = written.and_then(|()| self.file.sync_data().map_err(|error| ("sync", error)));
        if let Err((op, error)) = synced {
            self.broken = self.file.set_len(self.len).and_then(|()| self.file.sync_data()).is_err();
            return Err(system(op, &self.path, error));
        }
        self.len += bytes.len() as u64;
        self.records += records.len();
        Ok(())
    }

    /// Replaces everything in the journal by these records, durably: a crash leaves either the old journal or the new one. On failure the old
    /// one stands and stays in use.
    pub fn rewrite(&mut self, records: &[R]) -> Result<()> {
        let mut aside = Aside::create(&self.path, FILE_MODE)?;
        aside.write(&frame::HEADER)?;
        let mut len = frame::HEADER.len() as u64;
        for chunk in records.chunks(RECORDS_PER_FRAME) {
            let bytes = self.encode(chunk)?;
            aside.write(&bytes)?;
            len += bytes.len() as u64;
        }
        // from here on until the new file is in hand it is not certain which of the two the name stands for
        let intact = !self.broken;
        self.broken = true;
        match aside.commit() {
            Ok(file) => *self = Self::with_file(std::mem::take(&mut self.path), file, len, records.len()),
            Err(error) => {
                self.broken = !(intact && self.is_named());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Reads the file again, after throwing away whatever a failed append has left at its end: gives the records that are durable, and takes
    /// more from then on.
    pub fn reopen(&mut self) -> Result<Replay<R>> {
        if self.broken && self.is_named() {
            let cut = self.file.set_len(self.len).and_then(|()| self.file.sync_data());
            cut.map_err(|error| system("cut off the doubtful end of", &self.path, error))?;
        }
        let (journal, replay) = Self::open(&self.path)?;
        *self = journal;
        Ok(replay)
    }

    /// Whether so few of the records are live that a [`rewrite`](Self::rewrite) pays: it is due when the journal has grown to twice what is
    /// live, and some more so that small ones are left alone.
    pub fn is_mostly_garbage(&self, live: usize) -> bool {
        self.records > live.saturating_mul(2).saturating_add(RECORDS_PER_FRAME)
    }

    /// The records in the file, live or not.
    pub fn records(&self) -> usize {
        self.records
    }

    /// The file's size in bytes.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn with_file(path: PathBuf, file: File, len: u64, records: usize) -> Self {
        Self { path, file, len, records, broken: false, record: PhantomData }
    }

    fn encode(&self, records: &[R]) -> Result<Vec<u8>> {
        frame::encode(records).map_err(|error| system("encode for", &self.path, error.into()))
    }

    fn cut_off(&mut self, found: u64) -> Result<Option<Torn>> {
        let failed = |path: &Path, error| system("cut off the unfinished end of", path, error);
        let torn = Torn { offset: self.len, bytes: found - self.len.min(found) };
        if self.len < frame::HEADER.len() as u64 {
            // not even the header was whole
            self.file.write_all_at(&frame::HEADER, 0).map_err(|error| failed(&self.path, error))?;
            self.len = frame::HEADER.len() as u64;
        } else if torn.bytes == 0 {
            return Ok(None);
        }
        self.file.set_len(self.len).and_then(|()| self.file.sync_data()).map_err(|error| failed(&self.path, error))?;
        log::warn!(
            "{}: cut off an unfinished write of {} bytes at offset {}",
            self.path.display(),
            torn.bytes,
            torn.offset
        );
        Ok(Some(torn))
    }

    /// Whether the open file is the one that the path names.
    fn is_named(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let named = fs::metadata(&self.path).map(identity);
        let opened = self.file.metadata().map(identity);
        matches!((named, opened), (Ok(named), Ok(opened)) if named == opened)
    }
}

/// The records, and the length of what is whole.
fn parse<R: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<(Vec<R>, u64)> {
    let corrupt = |reason: String| Error::Corrupt { path: path.to_owned(), reason };
    let Some(header) = bytes.get(..frame::HEADER.len()) else {
        return match frame::HEADER.starts_with(bytes) {
            true => Ok((Vec::new(), 0)),
            false => Err(corrupt("not a journal".to_owned())),
        };
    };
    if header != frame::HEADER {
        return Err(corrupt("not a journal, or one of a version that this build does not read".to_owned()));
    }
    let mut records = Vec::new();
    let mut at = header.len();
    while at < bytes.len() {
        let Some(payload) = frame::payload(&bytes[at..]) else {
            if frame::contains_frame(&bytes[at + 1..]) {
                return Err(corrupt(format!(
                    "damaged at offset {at}: the record there does not match its checksum, but whole records follow"
                )));
            }
            break;
        };
        let decoded = frame::decode(payload).map_err(|error| corrupt(format!("the record at offset {at}: {error}")))?;
        records.extend(decoded);
        at += frame::frame_len(payload);
    }
    Ok((records, at as u64))
}

#[cfg(test)]
mod tests;
