//! The policies last accepted, on disk.

use std::path::{Path, PathBuf};

use crate::policy::{Repository, RepositorySnapshot};
use crate::state::{load_document, save_document};
use crate::{Error, Result};

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
    ///
    /// # Errors
    ///
    /// `Corrupt`, with the remedy: nobody is let in by chance, because the policies can't be read.
    pub(super) fn load(&self) -> Result<Option<Repository>> {
        let Some(path) = &self.0 else { return Ok(None) };
        let snapshot = load_document::<RepositorySnapshot>(path, VERSION);
        let repository = snapshot.and_then(|snapshot| snapshot.map(Repository::restore).transpose());
        repository.map_err(|error| match error {
            Error::Corrupt { reason, .. } => damaged(path, &reason),
            Error::InvalidDocument { .. } | Error::InvalidInput { .. } => damaged(path, &error.to_string()),
            other => other,
        })
    }
}

fn damaged(path: &Path, reason: &str) -> Error {
    let remedy = "it has the policies last accepted, and what they deny stays denied until they are replaced; \
                  put a copy back, or move it away, after which everything is allowed, and import the policies anew";
    Error::Corrupt { path: path.to_owned(), reason: format!("{reason}: {remedy}") }
}
