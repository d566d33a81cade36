//! Where a datapath keeps its pins and its state.

use std::path::PathBuf;

use super::node::Paths;
use super::{Datapath, NodeConfig, open};
use crate::Result;

/// The folders of a datapath. Two datapaths with different folders can run in two network namespaces of one machine.
#[derive(Clone, Debug)]
pub struct DatapathBuilder {
    bpf_root: PathBuf,
    state_dir: PathBuf,
    socket: Option<PathBuf>,
}

impl Default for DatapathBuilder {
    fn default() -> Self {
        Self {
            bpf_root: PathBuf::from("/sys/fs/bpf"),
            state_dir: PathBuf::from("/var/run/podwire/state"),
            socket: None,
        }
    }
}

impl DatapathBuilder {
    /// The root of the pins, on a bpffs; `/sys/fs/bpf` unless told. A bpffs is mounted on it where none is.
    pub fn bpf_root(mut self, path: impl Into<PathBuf>) -> Self {
        self.bpf_root = path.into();
        self
    }

    /// The state directory, made where it is missing; `/var/run/podwire/state` unless told.
    pub fn state_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.state_dir = path.into();
        self
    }

    /// The socket that CNI plugins find the caller by. It is noted, so that a clean-up finds what is left of it when nobody serves it
    /// any more, and the deletions that plugins queued beside it.
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// Opens the datapath of the calling thread's network namespace: takes over what is there, creates what is missing.
    /// Endpoints found on disk are in force when this returns. Nothing that is there already is removed; where nothing was
    /// there and this fails, nothing is there again.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a malformed configuration, `Busy` when another process has the state directory or the root of the pins open, `PermissionDenied` without
    /// CAP_BPF and CAP_NET_ADMIN, `Foreign` for devices, filters or pins of somebody else, `LayoutMismatch` for pinned maps of
    /// another layout.
    pub fn open(self, config: NodeConfig) -> Result<Datapath> {
        open::open(Paths::new(&self.bpf_root, &self.state_dir), self.socket.as_deref(), &config)
    }
}
