//! The programs by which user space changes the table. Only programs take a bucket's lock: a process may be killed at any
//! moment, a program runs to its end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use bytemuck::Zeroable;

use crate::abi::{CT_REMOVE_KEYS, CtCollect, CtEntry, CtInsert, CtKey, CtRemove};
use crate::program::{self, Program, ProgramSet};
use crate::tables::CtMap;
use crate::{Error, Result};

/// Removes what has ended, entry by entry; also tells the time.
pub(crate) const COLLECT: &str = "podwire_ct_collect";
/// Removes entries by their keys.
const REMOVE: &str = "podwire_ct_remove";
/// Writes an entry.
const INSERT: &str = "podwire_ct_insert";

/// How often a bucket is tried whose lock somebody holds. A program waits a while itself each time.
const ATTEMPTS: u32 = 50;

/// The programs of one generation.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) collect: Program,
    remove: Program,
    insert: Program,
}

impl Programs {
    pub(super) fn of(set: &ProgramSet) -> Result<Self> {
        Self::by_name(|name| set.program(name).cloned())
    }

    /// Those pinned in the generation below a folder that works on the map with this id.
    pub(super) fn open_pinned(programs: &Path, map: u32) -> Result<Self> {
        let (generation, _) = generation(programs, |program| program.uses_map(map))?;
        Self::by_name(|name| Program::open_pinned(&generation.join(name)))
    }

    fn by_name(program: impl Fn(&str) -> Result<Program>) -> Result<Self> {
        Ok(Self { collect: program(COLLECT)?, remove: program(REMOVE)?, insert: program(INSERT)? })
    }

    /// Has so many entries from the `first` one on looked through, and removed what has ended, or everything.
    pub(super) fn collect(&self, first: u32, count: u32, everything: bool) -> Result<CtCollect> {
        let mut work = CtCollect { first, count, everything: everything.into(), ..CtCollect::zeroed() };
        program::call(&self.collect, &mut work)?;
        Ok(work)
    }

    /// Writes an entry, over the one that has its key.
    pub(super) fn insert(&self, entry: &CtEntry) -> Result<()> {
        let mut work = CtInsert { entry: *entry, ..CtInsert::zeroed() };
        for _ in 0..ATTEMPTS {
            program::call(&self.insert, &mut work)?;
            match work.error {
                0 => return Ok(()),
                error if error == -libc::EBUSY => thread::yield_now(),
                error => return Err(failed("insert connection into", io::Error::from_raw_os_error(-error))),
            }
        }
        Err(busy("insert connection into"))
    }

    /// Removes the entries of these keys, whatever their state, and returns how many there were.
    pub(super) fn remove(&self, connections: &CtMap, keys: &[CtKey]) -> Result<usize> {
        keys.chunks(CT_REMOVE_KEYS).map(|keys| self.remove_few(connections, keys)).sum()
    }

    fn remove_few(&self, connections: &CtMap, keys: &[CtKey]) -> Result<usize> {
        let mut pending = keys.to_vec();
        let mut removed = 0;
        for _ in 0..ATTEMPTS {
            let mut work = CtRemove { count: pending.len() as u32, ..CtRemove::zeroed() };
            work.keys[..pending.len()].copy_from_slice(&pending);
            program::call(&self.remove, &mut work)?;
            removed += work.removed as usize;
            if work.removed == work.count {
                return Ok(removed);
            }
            // The others were gone, or in a bucket that somebody wrote to.
            let mut left = Vec::new();
            for key in pending {
                if connections.entry(&key)?.is_some() {
                    left.push(key);
                }
            }
            if left.is_empty() {
                return Ok(removed);
            }
            pending = left;
            thread::yield_now();
        }
        Err(busy("remove connections from"))
    }

    /// Removes every entry and returns how many there were.
    pub(super) fn remove_all(&self, entries: u32, at_once: u32) -> Result<usize> {
        let mut removed = 0;
        for (first, count) in ranges(entries, at_once) {
            let mut attempts = 0;
            loop {
                let work = self.collect(first, count, true)?;
                removed += work.removed as usize;
                attempts += 1;
                match work.busy {
                    0 => break,
                    _ if attempts == ATTEMPTS => return Err(busy("remove connections from")),
                    _ => thread::yield_now(),
                }
            }
        }
        Ok(removed)
    }
}

/// The entries of a table in ranges of at most so many: the first one and the count of each.
pub(super) fn ranges(entries: u32, at_once: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..entries).step_by(at_once.max(1) as usize).map(move |first| (first, at_once.min(entries - first)))
}

fn busy(op: &'static str) -> Error {
    failed(op, io::Error::from_raw_os_error(libc::EBUSY))
}

fn failed(op: &'static str, error: io::Error) -> Error {
    Error::system(op, CtMap::spec().name().to_owned(), error)
}

/// The folder of the generation below `programs` whose `podwire_ct_collect` fits, with that program.
pub(super) fn generation(programs: &Path, fits: impl Fn(&Program) -> Result<bool>) -> Result<(PathBuf, Program)> {
    let failed = |error: io::Error| Error::system("read directory", programs.display().to_string(), error);
    let entries = match fs::read_dir(programs) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        entries => entries.into_iter().flatten(),
    };
    for generation in entries {
        let folder = generation.map_err(failed)?.path();
        let pin = folder.join(COLLECT);
        if pin.exists() {
            let program = Program::open_pinned(&pin)?;
            if fits(&program)? {
                return Ok((folder, program));
            }
        }
    }
    Err(Error::not_found("program", format!("{COLLECT} below {}", programs.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_entry_once() {
        for (entries, at_once, expected) in [
            (10, 4, vec![(0, 4), (4, 4), (8, 2)]),
            (8, 4, vec![(0, 4), (4, 4)]),
            (3, u32::MAX, vec![(0, 3)]),
            (0, 4, vec![]),
        ] {
            assert_eq!(ranges(entries, at_once).collect::<Vec<_>>(), expected, "{entries} by {at_once}");
        }
    }
}
