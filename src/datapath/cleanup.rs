//! Removing a datapath: everything that it made, nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use super::node::Paths;
use super::open::MOUNTED;
use super::{Datapath, host, sysctls};
use crate::endpoint::{is_ours, recorded_devices};
use crate::netlink::Socket;
use crate::program::{AttachMode, Attacher, Device, bpffs};
use crate::state::{Lock, load_document};
use crate::{Error, ErrorKind, IfIndex, Result};

/// What a clean-up removed or put back, in words, in the order in which it was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanedUp {
    /// One line for each thing.
    pub done: Vec<String>,
}

impl Datapath {
    /// Removes what a datapath made in the calling thread's network namespace, in its root of pins and its state directory,
    /// and puts sysctls back. Works without an agent; what is gone already is fine, so that it can be repeated.
    ///
    /// # Errors
    ///
    /// `Busy` while a process has the datapath open.
    pub fn cleanup(bpf_root: &Path, state_dir: &Path) -> Result<CleanedUp> {
        let paths = Paths::new(bpf_root, state_dir);
        let mut report = CleanedUp::default();
        let locks = lock(&paths)?;
        let socket = Socket::open()?;
        remove_endpoints(&socket, &paths, &mut report)?;
        detach_native(&socket, &paths, &mut report)?;
        if host::delete_pair(&socket, &paths.state_dir)? {
            report.done.push(format!("deleted {} and {}", host::HOST, host::NET));
        }
        let restored = sysctls::restore(&paths.state_dir)?;
        report.done.extend(restored.into_iter().map(|setting| format!("restored sysctl {setting}")));
        remove_pins(&paths, &mut report)?;
        // What is locked can be neither unmounted nor removed.
        drop(locks);
        if let Some(mounted) = load_document::<PathBuf>(&paths.state(MOUNTED), 1)?
            && bpffs::unmount_if_empty(&mounted)?
        {
            report.done.push(format!("unmounted the bpffs on {}", mounted.display()));
        }
        if paths.remove_state()? {
            report.done.push(format!("removed the state in {}", paths.state_dir.display()));
        }
        Ok(report)
    }

    /// What [`cleanup`](Self::cleanup) would remove, in words, without removing anything.
    pub fn cleanup_preview(bpf_root: &Path, state_dir: &Path) -> Result<Vec<String>> {
        let paths = Paths::new(bpf_root, state_dir);
        let socket = Socket::open()?;
        let mut plan = Vec::new();
        let pods = endpoint_devices(&socket, &paths)?;
        for (index, name) in &pods {
            plan.push(format!("device {name} (index {index}) and its endpoint"));
        }
        let attacher = Attacher::new(&paths.bpf_root, AttachMode::Auto)?;
        let others = native_devices(&attacher)?.into_iter().filter(|name| !pods.iter().any(|(_, pod)| pod == name));
        plan.extend(others.map(|name| format!("programs of device {name}")));
        if host::find_own(&socket, &paths.state_dir)?.is_some() {
            plan.push(format!("devices {} and {}", host::HOST, host::NET));
        }
        plan.extend(sysctls::changed(&paths.state_dir)?);
        plan.extend(pins(&paths).into_iter().map(|pin| format!("pin {}", pin.display())));
        if state_dir.exists() {
            plan.push(format!("the state in {}", paths.state_dir.display()));
        }
        Ok(plan)
    }
}

/// Keeps everybody else away from what there is.
fn lock(paths: &Paths) -> Result<Vec<Lock>> {
    let mut locks = Vec::new();
    if paths.state_dir.exists() {
        locks.push(Lock::acquire(paths.state("lock"))?);
    }
    if paths.bpf_root.exists() {
        locks.push(Lock::acquire_directory(&paths.bpf_root)?);
    }
    Ok(locks)
}

/// The devices that podwire made for endpoints; those of others are only left by its programs.
fn endpoint_devices(socket: &Socket, paths: &Paths) -> Result<Vec<(IfIndex, String)>> {
    let mut devices = Vec::new();
    for (index, name) in recorded_devices(&paths.state_dir)? {
        match socket.link_by_index(index) {
            Ok(link) if link.name == name && is_ours(&link) => devices.push((index, name)),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(devices)
}

fn remove_endpoints(socket: &Socket, paths: &Paths, report: &mut CleanedUp) -> Result<()> {
    for (index, name) in endpoint_devices(socket, paths)? {
        match socket.link_delete(index) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => report.done.push(format!("deleted {name}")),
        }
    }
    Ok(())
}

/// The devices with programs of ours that are not ours, also those of former configurations.
fn native_devices(attacher: &Attacher) -> Result<Vec<String>> {
    let mut names = attacher.known_devices()?;
    names.retain(|name| name != host::HOST && name != host::NET);
    Ok(names)
}

/// Takes our programs off the devices that are not ours.
fn detach_native(socket: &Socket, paths: &Paths, report: &mut CleanedUp) -> Result<()> {
    let attacher = Attacher::new(&paths.bpf_root, AttachMode::Auto)?;
    for name in native_devices(&attacher)? {
        let detached =
            socket.link_by_name(&name).and_then(|link| attacher.detach_all(Device { name: &name, index: link.index }));
        match detached {
            Ok(()) => report.done.push(format!("detached from {name}")),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The pins of a datapath: its own folder, and the maps beside it if that folder says that they are its own.
fn pins(paths: &Paths) -> Vec<PathBuf> {
    if !paths.own().exists() {
        return Vec::new();
    }
    let mut pins = vec![paths.own()];
    pins.extend(paths.map_pins());
    pins
}

fn remove_pins(paths: &Paths, report: &mut CleanedUp) -> Result<()> {
    let mut pins = pins(paths);
    // The folder that says whose the others are goes last.
    pins.reverse();
    for pin in pins {
        let removed = if pin.is_dir() { fs::remove_dir_all(&pin) } else { fs::remove_file(&pin) };
        removed.map_err(|error| Error::system("remove", pin.display().to_string(), error))?;
        report.done.push(format!("removed {}", pin.display()));
    }
    for folder in [paths.maps(), paths.bpf_root.join("tc")] {
        // Somebody else's pins may be in it.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}
