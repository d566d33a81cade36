//! Versioned JSON documents.

use std::fs;
use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{FILE_MODE, system, write_atomic};
use crate::{Error, Result};

/// Writes `content` as JSON, together with the version of its form, in the manner of [`write_atomic`] and with mode 0600.
pub fn save_document<T: Serialize>(path: &Path, version: u32, content: &T) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(&Envelope { version, content })
        .map_err(|error| system("encode", path, error.into()))?;
    bytes.push(b'\n');
    write_atomic(path, FILE_MODE, &bytes)
}

/// Reads what [`save_document`] wrote; `None` when there is no such file. A document of another version than `version`, or one that can't be
/// understood, is [`Error::Corrupt`] and stays as it is.
pub fn load_document<T: DeserializeOwned>(path: &Path, version: u32) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(system("read", path, error)),
    };
    let corrupt = |reason: String| Error::Corrupt { path: path.to_owned(), reason };
    // the version first: what another version means by its content is unknown
    let found: Version = serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
    if found.version != version {
        return Err(corrupt(format!("written in version {}, while this build reads version {version}", found.version)));
    }
    let envelope: Envelope<T> = serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
    Ok(Some(envelope.content))
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    content: T,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn round_trip_missing_and_other_versions() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("node.json");
        assert_eq!(load_document::<Vec<u8>>(&path, 1).expect("no error"), None);
        save_document(&path, 1, &vec![1_u8, 2]).expect("saved");
        assert_eq!(load_document::<Vec<u8>>(&path, 1).expect("loaded"), Some(vec![1, 2]));

        let error = load_document::<Vec<u8>>(&path, 2).expect_err("another version");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("version 1"), "{error}");
        let error = load_document::<String>(&path, 1).expect_err("another form");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn half_a_document_is_corrupt() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("node.json");
        save_document(&path, 1, &"content").expect("saved");
        let whole = fs::read(&path).expect("readable");
        // without the newline the document is still whole
        for length in 0..whole.len() - 1 {
            fs::write(&path, &whole[..length]).expect("cut");
            let error = load_document::<String>(&path, 1).expect_err("cut");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "at {length}");
        }
    }
}
