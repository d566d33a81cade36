//! Removing a datapath: everything that it made, nothing else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::node::{Node, Paths};
use super::open::MOUNTED;
use super::{Datapath, host, sysctls};
use crate::endpoint::recorded_devices;
use crate::netlink::Socket;
use crate::program::{AttachMode, Attacher, Device, bpffs};
use crate::state::{Lock, load_document};
use crate::{Error, ErrorKind, IfIndex, Result};

/// The maps that programs of this crate pin.
const MAP_PREFIXES: [&str; 2] = ["cilium_", "podwire_"];

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
        let paths = Paths { bpf_root: bpf_root.to_owned(), state_dir: state_dir.to_owned() };
        let mut report = CleanedUp::default();
        let lock = match state_dir.exists() {
            true => Some(Lock::acquire(paths.state("lock"))?),
            false => None,
        };
        let socket = Socket::open()?;
        remove_endpoints(&socket, &paths, &mut report)?;
        detach_native(&paths, &mut report)?;
        if host::delete_pair(&socket)? {
            report.done.push(format!("deleted {} and {}", host::HOST, host::NET));
        }
        let restored = sysctls::restore(state_dir)?;
        report.done.extend(restored.into_iter().map(|setting| format!("restored sysctl {setting}")));
        remove_pins(&paths, &mut report)?;
        if let Some(mounted) = load_document::<PathBuf>(&paths.state(MOUNTED), 1)?
            && bpffs::unmount_if_empty(&mounted)?
        {
            report.done.push(format!("unmounted the bpffs on {}", mounted.display()));
        }
        drop(lock);
        if remove_all(state_dir)? {
            report.done.push(format!("removed {}", state_dir.display()));
        }
        Ok(report)
    }

    /// What [`cleanup`](Self::cleanup) would remove, in words, without removing anything.
    pub fn cleanup_preview(bpf_root: &Path, state_dir: &Path) -> Result<Vec<String>> {
        let paths = Paths { bpf_root: bpf_root.to_owned(), state_dir: state_dir.to_owned() };
        let socket = Socket::open()?;
        let mut plan = Vec::new();
        for (index, name) in endpoint_devices(&socket, &paths)? {
            plan.push(format!("device {name} (index {index}) and its endpoint"));
        }
        if socket.link_by_name(host::HOST).is_ok() {
            plan.push(format!("devices {} and {}", host::HOST, host::NET));
        }
        plan.extend(pins(&paths)?.into_iter().map(|pin| format!("pin {}", pin.display())));
        if state_dir.exists() {
            plan.push(format!("folder {}", state_dir.display()));
        }
        Ok(plan)
    }
}

fn endpoint_devices(socket: &Socket, paths: &Paths) -> Result<Vec<(IfIndex, String)>> {
    let mut devices = Vec::new();
    for (index, name) in recorded_devices(&paths.state_dir)? {
        match socket.link_by_index(index) {
            Ok(link) if link.name == name => devices.push((index, name)),
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

/// Takes our programs off the devices that are not ours.
fn detach_native(paths: &Paths, report: &mut CleanedUp) -> Result<()> {
    let Some(node) = load_document::<Node>(&paths.state("node_config.json"), 1)? else { return Ok(()) };
    let attacher = Attacher::new(&paths.bpf_root, AttachMode::Auto)?;
    for device in &node.devices {
        match attacher.detach_all(Device { name: &device.name, index: device.ifindex }) {
            Ok(()) => report.done.push(format!("detached from {}", device.name)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The pins of a datapath: its own folder, and the maps beside it if that folder says that they are its own.
fn pins(paths: &Paths) -> Result<Vec<PathBuf>> {
    if !paths.own().exists() {
        return Ok(Vec::new());
    }
    let mut pins = vec![paths.own()];
    let maps = paths.maps();
    match fs::read_dir(&maps) {
        Ok(entries) => {
            for entry in entries {
                let path =
                    entry.map_err(|error| Error::system("read folder", maps.display().to_string(), error))?.path();
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                if MAP_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
                    pins.push(path);
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::system("read folder", maps.display().to_string(), error)),
    }
    Ok(pins)
}

fn remove_pins(paths: &Paths, report: &mut CleanedUp) -> Result<()> {
    let mut pins = pins(paths)?;
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

fn remove_all(folder: &Path) -> Result<bool> {
    match fs::remove_dir_all(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::system("remove", folder.display().to_string(), error)),
    }
}
