//! `cilium_policy_v2_<id>`: the policy in force for each endpoint, where operators find it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::maps::MapInfo;
use crate::tables::PolicyMap;
use crate::{EndpointId, Error, ErrorKind, Result};

/// What a name ends with until the map is in force. A bpffs takes no dots.
const ASIDE: &str = "_new";

/// The pins of policies in a folder.
#[derive(Debug)]
pub(super) struct Pins {
    folder: PathBuf,
}

impl Pins {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Pins a map beside the one in force; what an earlier process left there goes.
    pub(super) fn put_aside(&self, endpoint: EndpointId, policy: &PolicyMap) -> Result<()> {
        let path = self.aside(endpoint);
        match policy.map().pin(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                remove(&path)?;
                policy.map().pin(&path)
            }
            pinned => pinned,
        }
    }

    /// Gives the pin aside its name, in place of what has it.
    pub(super) fn take_over(&self, endpoint: EndpointId) -> Result<()> {
        let (from, to) = (self.aside(endpoint), self.path(endpoint));
        fs::rename(&from, &to).map_err(|error| Error::system("rename pin", from.display().to_string(), error))
    }

    /// Removes a pin aside.
    pub(super) fn discard(&self, endpoint: EndpointId) -> Result<()> {
        remove(&self.aside(endpoint)).map(drop)
    }

    /// Removes an endpoint's pins; tells whether it had one in force.
    pub(super) fn remove(&self, endpoint: EndpointId) -> Result<bool> {
        self.discard(endpoint)?;
        remove(&self.path(endpoint))
    }

    /// Whether a map is pinned aside.
    pub(super) fn has_aside(&self, endpoint: EndpointId) -> bool {
        self.aside(endpoint).exists()
    }

    /// The kernel's id of the map pinned for an endpoint; none where there is no pin or something else.
    pub(super) fn map_id(&self, endpoint: EndpointId) -> Option<u32> {
        MapInfo::of_pin(self.path(endpoint)).ok().map(|info| info.id)
    }

    /// Every endpoint that has a pin of either kind.
    pub(super) fn endpoints(&self) -> Result<BTreeSet<EndpointId>> {
        let failed = |error| Error::system("read directory", self.folder.display().to_string(), error);
        let mut found = BTreeSet::new();
        for file in fs::read_dir(&self.folder).map_err(failed)? {
            let name = file.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else { continue };
            found.extend(PolicyMap::endpoint_of(name.strip_suffix(ASIDE).unwrap_or(name)));
        }
        Ok(found)
    }

    fn path(&self, endpoint: EndpointId) -> PathBuf {
        self.folder.join(PolicyMap::name(endpoint))
    }

    fn aside(&self, endpoint: EndpointId) -> PathBuf {
        self.folder.join(PolicyMap::name(endpoint) + ASIDE)
    }
}

fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::system("remove pin", path.display().to_string(), error)),
    }
}
