//! The network namespace that a state directory belongs to.
//!
//! Devices, addresses and most sysctls are a namespace's. In another one, nothing of what the state tells is there: opening it there
//! would take every endpoint for gone, and a clean-up would put back settings of somebody else.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::node::Paths;
use crate::netns::NetNs;
use crate::state::{load_document, save_document};
use crate::{Error, Result};

/// The file of the state directory that says which namespace it is.
pub(super) const FILE: &str = "namespace.json";
const VERSION: u32 = 1;
/// Names the start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[derive(Debug, Serialize, Deserialize)]
struct Namespace {
    /// The start of the machine in which the cookie means something.
    boot_id: String,
    /// Not given to another namespace until the machine restarts.
    cookie: u64,
    /// The number that `lsns` shows, for people.
    inode: u64,
}

impl Namespace {
    fn current() -> Result<Self> {
        let boot_id = fs::read_to_string(BOOT_ID).map_err(|error| Error::system("read", BOOT_ID, error))?;
        let here = NetNs::current()?;
        Ok(Self { boot_id: boot_id.trim().to_owned(), cookie: here.cookie()?, inode: here.id().inode() })
    }

    /// A path that leads to it: under a name, or of a process.
    fn path(&self) -> Option<PathBuf> {
        let named = fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.path());
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path().join("ns/net"));
        let is_it = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|file| file.ino() == self.inode)
                && NetNs::open(path).and_then(|namespace| namespace.cookie()).is_ok_and(|cookie| cookie == self.cookie)
        };
        named.chain(processes).find(is_it)
    }

    fn refusal(&self, paths: &Paths) -> Error {
        let path = self.path();
        let there = path.as_ref().map_or_else(String::new, |path| format!(", {}", path.display()));
        let how = path.map_or_else(String::new, |path| format!(" (nsenter --net={})", path.display()));
        Error::Foreign {
            object: format!("the state in {}", paths.state_dir.display()),
            owner: format!("the network namespace net:[{}]{there}", self.inode),
            remedy: format!(
                "run it there{how}, or use another state directory; if that namespace is gone for good, remove {}",
                paths.state(FILE).display()
            )
            .into(),
        }
    }
}

/// Refuses state of another namespace. After a restart of the machine none of them is left, and the state is for whoever takes it.
pub(super) fn check(paths: &Paths) -> Result<()> {
    compare(paths, &Namespace::current()?)
}

/// The same, and notes that the state is the calling thread's namespace's.
pub(super) fn claim(paths: &Paths) -> Result<()> {
    let current = Namespace::current()?;
    compare(paths, &current)?;
    save_document(&paths.state(FILE), VERSION, &current)
}

fn compare(paths: &Paths, current: &Namespace) -> Result<()> {
    match load_document::<Namespace>(&paths.state(FILE), VERSION)? {
        Some(known) if known.boot_id == current.boot_id && known.cookie != current.cookie => Err(known.refusal(paths)),
        _ => Ok(()),
    }
}
