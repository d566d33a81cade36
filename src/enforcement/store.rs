//! The policies last accepted, on disk.

use std::path::PathBuf;

use crate::Result;
use crate::policy::{Repository, RepositorySnapshot};
use crate::state::{load_document, save_document};

/// The version of the file.
const VERSION: u32 = 1;

/// The file, or none.
#[derive(Debug)]
pub(super) struct Store(Option<PathBuf>);

impl Store {
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        Self(file)
    }

    /// Writes the policies; on return they survive a crash.
    pub(super) fn save(&self, repository: &Repository) -> Result<()> {
        match &self.0 {
            Some(path) => save_document(path, VERSION, &repository.snapshot()),
            None => Ok(()),
        }
    }

    /// The policies on disk; none where none were ever accepted.
    pub(super) fn load(&self) -> Result<Option<Repository>> {
        let Some(path) = &self.0 else { return Ok(None) };
        let snapshot = load_document::<RepositorySnapshot>(path, VERSION)?;
        snapshot.map(Repository::restore).transpose()
    }
}
