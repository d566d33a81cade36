//! The container's namespace, as CNI_NETNS names it.

use std::path::Path;

use super::error::{CniError, ErrorCode};
use crate::ErrorKind;
use crate::netns::NetNs;

/// Opens the namespace of a container; that of the caller itself is refused.
pub(super) fn open_for(path: &Path) -> Result<NetNs, CniError> {
    let netns = NetNs::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => CniError::new(ErrorCode::UnknownContainer, format!("invalid CNI_NETNS: {error}")),
        ErrorKind::InvalidInput => CniError::new(ErrorCode::InvalidEnvironment, format!("invalid CNI_NETNS: {error}")),
        _ => error.into(),
    })?;
    if netns.is_same(&NetNs::current()?) {
        let message = format!("invalid CNI_NETNS {:?}: it is the host's own network namespace", path.display());
        return Err(CniError::new(ErrorCode::InvalidEnvironment, message));
    }
    Ok(netns)
}

/// Fails when the path no longer leads to the namespace: the container was removed meanwhile.
pub(super) fn still_there(netns: &NetNs) -> Result<(), CniError> {
    match NetNs::open(netns.path()) {
        Ok(now) if now.is_same(netns) => Ok(()),
        _ => {
            let message = format!("network namespace {} vanished meanwhile", netns.path().display());
            Err(CniError::new(ErrorCode::UnknownContainer, message))
        }
    }
}
