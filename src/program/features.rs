//! What the kernel and the process are able to do.

use rustix::thread::{CapabilitySet, capabilities};

use crate::sys::tcx;
use crate::{Error, Result};

/// The loopback device has this index in every namespace.
const LOOPBACK: u32 = 1;

/// Whether the kernel has tcx hooks (Linux 6.6). Needs CAP_NET_ADMIN.
pub fn has_tcx() -> Result<bool> {
    match tcx::query(LOOPBACK, tcx::INGRESS) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(Error::system("query tcx hook of", "the loopback device", error)),
    }
}

/// Checks that the calling thread may load and attach programs.
///
/// # Errors
///
/// [`Error::PermissionDenied`] that names the capabilities that are missing.
pub fn check_privileges() -> Result<()> {
    let held =
        capabilities(None).map_err(|error| Error::system("read", "capabilities of the thread", error))?.effective;
    let missing = missing_capabilities(held);
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::PermissionDenied {
        op: "load and attach",
        object: "programs".to_owned(),
        remedy: format!("run as root or with {}", missing.join(" and ")).into(),
    })
}

fn missing_capabilities(held: CapabilitySet) -> Vec<&'static str> {
    let has_bpf = held.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN);
    let has_perfmon = held.intersects(CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN);
    let needed = [
        (has_bpf, "CAP_BPF"),
        (has_perfmon, "CAP_PERFMON"),
        (held.contains(CapabilitySet::NET_ADMIN), "CAP_NET_ADMIN"),
    ];
    needed.into_iter().filter(|(held, _)| !held).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing_capabilities(CapabilitySet::empty()), ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]);
        assert_eq!(missing_capabilities(CapabilitySet::SYS_ADMIN), ["CAP_NET_ADMIN"]);
        let all = CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::NET_ADMIN;
        assert!(missing_capabilities(all).is_empty());
    }
}
