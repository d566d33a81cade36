//! The agent's socket.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use podwire::api::Client;
use podwire::{Error, Result};
use tokio::net::UnixListener;

/// Owner and group may talk to the agent.
const MODE: u32 = 0o660;
/// How long another agent may take to show that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

/// Listens at `path`. A socket that nobody serves any more is replaced; one that is served, and anything that is no
/// socket, is left alone.
pub(crate) fn listen(path: &Path) -> Result<UnixListener> {
    let object = || path.display().to_string();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|cause| Error::system("create", folder.display().to_string(), cause))?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let remedy = "choose another path with --socket, or remove it".into();
            return Err(Error::Foreign { object: object(), owner: "something that is no socket".to_owned(), remedy });
        }
        Ok(_) if Client::is_served(path, PATIENCE) => {
            return Err(Error::Busy { object: object(), detail: "another agent serves it".to_owned() });
        }
        Ok(_) => fs::remove_file(path).map_err(|cause| Error::system("remove", object(), cause))?,
        Err(_) => {}
    }
    // Created without access for others, so that there is no moment in which they could connect.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o117));
    let listener = UnixListener::bind(path).map_err(|cause| Error::system("listen at", object(), cause));
    rustix::process::umask(before);
    fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(|cause| Error::system("chmod", object(), cause))?;
    listener
}
