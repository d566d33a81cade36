//! Messages of one call: to a file, or to standard error; never to standard output, which is the result's.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;

use crate::api::timestamp_millis;
use crate::{Error, Result};

/// Writes a line per message: time, level, what the call is about, the message.
struct Logger {
    level: LevelFilter,
    about: String,
    sink: Sink,
}

enum Sink {
    File(Mutex<File>),
    Stderr,
}

/// Sends messages of this crate to a file (created with mode 0600), or to standard error. Without effect when the process
/// has a logger already.
pub(super) fn start(file: Option<&Path>, level: LevelFilter, about: String) -> Result<()> {
    let sink = match file {
        None => Sink::Stderr,
        Some(path) => {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(path)
                .map_err(|error| Error::system("open log-file", path.display().to_string(), error))?;
            Sink::File(Mutex::new(file))
        }
    };
    if log::set_boxed_logger(Box::new(Logger { level, about, sink })).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || !record.target().starts_with("podwire") {
            return;
        }
        let time = timestamp_millis(Some(SystemTime::now()));
        // one write a line, so that lines of parallel calls do not mix
        let line = format!("{time} {:5} [{} {}] {}\n", record.level(), std::process::id(), self.about, record.args());
        // a message that can't be written must not fail the call
        let _ = match &self.sink {
            Sink::File(file) => file.lock().write_all(line.as_bytes()),
            Sink::Stderr => io::stderr().write_all(line.as_bytes()),
        };
    }

    fn flush(&self) {}
}
