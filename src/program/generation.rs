//! What identifies a set of loaded programs: their code, their constants and their maps.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use crate::{Error, Result};

/// The name of a set of loaded programs, and of the directory with their pins: equal for equal objects, constants and
/// maps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Generation(String);

impl Generation {
    /// The name of the directory.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Removes the pins of every other generation below `programs`, and what an interrupted load left there; returns
    /// their names. Programs that are still attached go on running.
    pub fn remove_others(&self, programs: &Path) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        for name in directories(programs)? {
            if name != self.0 {
                remove_tree(&programs.join(&name))?;
                removed.push(name);
            }
        }
        Ok(removed)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// FNV-1a (64 bits) over everything that makes a loaded set what it is; each part is preceded by its kind and length.
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    pub(super) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn object(&mut self, name: &str, elf: &[u8]) {
        self.part(b'o', name.as_bytes());
        self.part(b'e', elf);
    }

    pub(super) fn constant(&mut self, name: &str, value: &[u8]) {
        self.part(b'c', name.as_bytes());
        self.part(b'v', value);
    }

    pub(super) fn map(&mut self, name: &str, id: u32) {
        self.part(b'm', name.as_bytes());
        self.part(b'i', &id.to_le_bytes());
    }

    pub(super) fn finish(self) -> Generation {
        Generation(format!("{:016x}", self.0))
    }

    fn part(&mut self, kind: u8, bytes: &[u8]) {
        self.write(&[kind]);
        self.write(&(bytes.len() as u64).to_le_bytes());
        self.write(bytes);
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// Removes a directory of pins with everything in it; one that does not exist is fine.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::system("remove pins", path.display().to_string(), error))
        }
        _ => Ok(()),
    }
}

fn directories(path: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::system("read directory", path.display().to_string(), error);
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts() {
        let name = |make: &dyn Fn(&mut Fingerprint)| {
            let mut fingerprint = Fingerprint::new();
            make(&mut fingerprint);
            fingerprint.finish()
        };
        let reference = name(&|f| {
            f.object("lxc", b"elf");
            f.constant("cfg_a", b"1");
            f.map("m", 7);
        });
        let others = [
            name(&|f| {
                f.object("lxc", b"elg");
                f.constant("cfg_a", b"1");
                f.map("m", 7);
            }),
            name(&|f| {
                f.object("lxc", b"elf");
                f.constant("cfg_a", b"2");
                f.map("m", 7);
            }),
            name(&|f| {
                f.object("lxc", b"elf");
                f.constant("cfg_a", b"1");
                f.map("m", 8);
            }),
            name(&|f| {
                f.object("lxce", b"lf");
                f.constant("cfg_a", b"1");
                f.map("m", 7);
            }),
        ];
        for other in &others {
            assert_ne!(*other, reference);
        }
    }
}
