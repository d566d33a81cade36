//! Endpoints on disk: a file each, `<state>/endpoints/<id>.json`, which becomes `<id>.removing` when its removal begins.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::record::EndpointRecord;
use crate::state::{create_dir, load_document, remove_leftovers, save_document};
use crate::{EndpointId, Error, IfIndex, Result};

const VERSION: u32 = 1;

/// A file that can't be read.
#[derive(Clone, Debug)]
pub(crate) struct Unreadable {
    /// The endpoint that its name names.
    pub(crate) id: EndpointId,
    /// The file, and why not.
    pub(crate) reason: String,
}

/// What the folder holds.
#[derive(Default)]
pub(super) struct Loaded {
    /// Endpoints in the order of their ids, and whether their removal has begun.
    pub(super) records: Vec<(EndpointRecord, bool)>,
    pub(super) unreadable: Vec<Unreadable>,
}

/// The folder of endpoint files.
pub(super) struct Store {
    folder: PathBuf,
}

impl Store {
    /// Opens the folder, which is made where it is missing; what a crash left half-written in it is removed.
    pub(super) fn open(state_dir: &Path) -> Result<Self> {
        let folder = state_dir.join("endpoints");
        create_dir(&folder)?;
        remove_leftovers(&folder)?;
        Ok(Self { folder })
    }

    /// Writes an endpoint; on return it survives a crash.
    pub(super) fn save(&self, record: &EndpointRecord) -> Result<()> {
        save_document(&self.path(record.id), VERSION, record)
    }

    /// Notes that an endpoint is being removed, so that a crash does not bring it back.
    pub(super) fn begin_removal(&self, id: EndpointId) -> Result<()> {
        let path = self.path(id);
        match fs::rename(&path, self.removing(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::system("rename", path.display().to_string(), error))
            }
            _ => Ok(()),
        }
    }

    /// Removes an endpoint's file, whatever its name; it may be gone already.
    pub(super) fn remove(&self, id: EndpointId) -> Result<()> {
        for path in [self.path(id), self.removing(id)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::system("remove", path.display().to_string(), error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Every endpoint on disk. A file that can't be read is left where it is: see [`unreadable`](super::unreadable).
    pub(super) fn load(&self) -> Result<Loaded> {
        let files = fs::read_dir(&self.folder)
            .map_err(|error| Error::system("read folder", self.folder.display().to_string(), error))?;
        let mut loaded = Loaded::default();
        for file in files {
            let path =
                file.map_err(|error| Error::system("read folder", self.folder.display().to_string(), error))?.path();
            let Some((id, removing)) = id_of(&path) else { continue };
            match load_document::<EndpointRecord>(&path, VERSION) {
                Ok(Some(record)) if record.id == id => loaded.records.push((record, removing)),
                Ok(Some(record)) => {
                    let reason = format!("{}: holds endpoint {}", path.display(), record.id);
                    loaded.unreadable.push(Unreadable { id, reason });
                }
                Ok(None) => {}
                Err(error) => loaded.unreadable.push(Unreadable { id, reason: error.to_string() }),
            }
        }
        // Should there be both files, its removal has begun.
        loaded.records.sort_by_key(|(record, removing)| (record.id, !removing));
        loaded.records.dedup_by_key(|(record, _)| record.id);
        loaded.unreadable.sort_by_key(|unreadable| unreadable.id);
        Ok(loaded)
    }

    fn path(&self, id: EndpointId) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    fn removing(&self, id: EndpointId) -> PathBuf {
        self.folder.join(format!("{id}.removing"))
    }
}

/// The host-side devices of the endpoints that a state directory records, whether or not they exist.
pub(crate) fn recorded_devices(state_dir: &Path) -> Result<Vec<(IfIndex, String)>> {
    if !state_dir.join("endpoints").exists() {
        return Ok(Vec::new());
    }
    let records = Store::open(state_dir)?.load()?.records;
    Ok(records.into_iter().map(|(record, _)| (record.ifindex, record.device)).collect())
}

/// The id in a file's name, and whether it says that the endpoint is being removed.
fn id_of(path: &Path) -> Option<(EndpointId, bool)> {
    let (id, extension) = path.file_name()?.to_str()?.split_once('.')?;
    let removing = match extension {
        "json" => false,
        "removing" => true,
        _ => return None,
    };
    Some((id.parse().ok()?, removing))
}
