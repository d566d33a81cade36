//! Removing a datapath: everything that it made, nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use super::node::{Content, LOCK, MARKS, Node, Paths};
use super::open::MOUNTED;
use super::{Datapath, host, namespace, node, served, sysctls};
use crate::endpoint::{is_ours, recorded_devices};
use crate::netlink::Socket;
use crate::program::{AttachMode, Attacher, Device, Direction, bpffs};
use crate::state::{Lock, load_document};
use crate::{Error, ErrorKind, IfIndex, Result};

/// What a clean-up did, in words, one line for each thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanedUp {
    /// What it removed or put back, in the order in which it was done.
    pub done: Vec<String>,
    /// What it was told to remove and did not: a state directory that is somebody else's.
    pub kept: Vec<String>,
}

impl Datapath {
    /// Removes what a datapath made in the calling thread's network namespace, in its root of pins and its state directory,
    /// the socket that nobody serves any more with the deletions queued beside it, and puts sysctls back. Works without an agent; what is gone already is fine, so that it can be repeated.
    /// A state directory in which nothing says that it is podwire's is left alone.
    ///
    /// # Errors
    ///
    /// `Busy` while a process has the datapath open, `Foreign` where the state is another network namespace's.
    pub fn cleanup(bpf_root: &Path, state_dir: &Path) -> Result<CleanedUp> {
        let paths = Paths::new(bpf_root, state_dir);
        let mut report = CleanedUp::default();
        let content = paths.content();
        namespace::check(&paths)?;
        let locks = lock(&paths, content)?;
        let socket = Socket::open()?;
        remove_endpoints(&socket, &paths, content, &mut report)?;
        detach_others(&socket, &paths, &mut report)?;
        if host::delete_pair(&socket, &paths.state_dir)? {
            report.done.push(format!("deleted {} and {}", host::HOST, host::NET));
        }
        let restored = sysctls::restore(&paths.state_dir)?;
        report.done.extend(restored.into_iter().map(|setting| format!("restored sysctl {setting}")));
        remove_pins(&paths, &mut report)?;
        // What is locked can be neither unmounted nor removed.
        drop(locks);
        match content {
            // Whoever began to use it meanwhile keeps it.
            Content::Nothing => drop(fs::remove_dir(&paths.state_dir)),
            Content::Ours => remove_state(&paths, &mut report)?,
            Content::Foreign => report.kept.push(left_alone(&paths)),
        }
        Ok(report)
    }

    /// What [`cleanup`](Self::cleanup) would remove, in words, without removing anything.
    pub fn cleanup_preview(bpf_root: &Path, state_dir: &Path) -> Result<Vec<String>> {
        let paths = Paths::new(bpf_root, state_dir);
        namespace::check(&paths)?;
        let socket = Socket::open()?;
        let mut plan = Vec::new();
        let content = paths.content();
        let pods = endpoint_devices(&socket, &paths, content)?;
        for (index, name) in &pods {
            plan.push(format!("device {name} (index {index}) and its endpoint"));
        }
        let attacher = Attacher::new(&paths.bpf_root, AttachMode::Auto)?;
        let others = other_devices(&socket, &paths, &attacher)?.into_iter().filter(|device| !pods.contains(device));
        plan.extend(others.map(|(_, name)| format!("programs of device {name}")));
        if host::find_own(&socket, &paths.state_dir)?.is_some() {
            plan.push(format!("devices {} and {}", host::HOST, host::NET));
        }
        plan.extend(sysctls::changed(&paths.state_dir)?);
        plan.extend(pins(&paths).into_iter().map(|pin| format!("pin {}", pin.display())));
        match content {
            Content::Nothing => {}
            Content::Ours => {
                plan.extend(served::left(&paths)?.iter().map(|path| format!("{}", path.display())));
                plan.push(format!("the state in {}", paths.state_dir.display()));
            }
            Content::Foreign => plan.push(left_alone(&paths)),
        }
        Ok(plan)
    }
}

fn left_alone(paths: &Paths) -> String {
    let marks = MARKS.join(", ");
    format!("{} is not podwire's state (it has none of {marks}): left alone", paths.state_dir.display())
}

/// Unmounts the bpffs that was mounted, and removes what is on disk.
pub(super) fn remove_state(paths: &Paths, report: &mut CleanedUp) -> Result<()> {
    if let Some(mounted) = load_document::<PathBuf>(&paths.state(MOUNTED), 1)?
        && bpffs::unmount_if_empty(&mounted)?
    {
        report.done.push(format!("unmounted the bpffs on {}", mounted.display()));
    }
    report.done.extend(served::remove(paths)?.iter().map(|path| format!("removed {}", path.display())));
    if paths.remove_state()? {
        report.done.push(format!("removed the state in {}", paths.state_dir.display()));
    }
    Ok(())
}

/// Keeps everybody else away from what there is.
fn lock(paths: &Paths, content: Content) -> Result<Vec<Lock>> {
    let mut locks = Vec::new();
    if content == Content::Ours {
        locks.push(Lock::acquire(paths.state(LOCK))?);
    }
    if paths.bpf_root.exists() {
        locks.push(Lock::acquire_directory(&paths.bpf_root)?);
    }
    Ok(locks)
}

/// The devices that podwire made for pods: those of its endpoints; and where `cilium_host` says that nobody else's can be there, all
/// of them, also of endpoints that were never noted or whose file can't be read.
fn endpoint_devices(socket: &Socket, paths: &Paths, content: Content) -> Result<Vec<(IfIndex, String)>> {
    let recorded = if content == Content::Ours { recorded_devices(&paths.state_dir)? } else { Vec::new() };
    let is_home = host::find_own(socket, &paths.state_dir)?.is_some();
    let ours = socket.links()?.into_iter().filter(is_ours).map(|link| (link.index, link.name));
    Ok(ours.filter(|device| is_home || recorded.contains(device)).collect())
}

fn remove_endpoints(socket: &Socket, paths: &Paths, content: Content, report: &mut CleanedUp) -> Result<()> {
    for (index, name) in endpoint_devices(socket, paths, content)? {
        match socket.link_delete(index) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => report.done.push(format!("deleted {name}")),
        }
    }
    Ok(())
}

/// The devices that are not ours and have programs of ours, also those of former configurations, or of which something is kept on the
/// bpffs. What is on a device tells, not what was noted of it: notes may be lost, and nobody notes a clsact that was there before.
fn other_devices(socket: &Socket, paths: &Paths, attacher: &Attacher) -> Result<Vec<(IfIndex, String)>> {
    let node = load_document::<Node>(&paths.state(node::FILE), node::VERSION).ok().flatten();
    if node.is_none() && !paths.own().exists() {
        // Another agent's programs may have the same names.
        return Ok(Vec::new());
    }
    let links = socket.links()?;
    let mut devices: Vec<_> = links.iter().map(|link| (link.index, link.name.clone())).collect();
    // A filter has the name that its device had.
    let noted = node.map(|node| node.devices).unwrap_or_default().into_iter();
    let renamed =
        noted.filter(|device| links.iter().any(|link| link.index == device.ifindex && link.name != device.name));
    devices.extend(renamed.map(|device| (device.ifindex, device.name)));
    devices.retain(|(_, name)| name != host::HOST && name != host::NET);
    let known = attacher.known_devices()?;
    let mut ours = Vec::new();
    for (index, name) in devices {
        if known.contains(&name) || has_programs(attacher, Device { name: &name, index })? {
            ours.push((index, name));
        }
    }
    Ok(ours)
}

fn has_programs(attacher: &Attacher, device: Device<'_>) -> Result<bool> {
    Ok(attacher.find(device, Direction::Ingress)?.is_some() || attacher.find(device, Direction::Egress)?.is_some())
}

/// Takes our programs off the devices that are not ours.
fn detach_others(socket: &Socket, paths: &Paths, report: &mut CleanedUp) -> Result<()> {
    let attacher = Attacher::new(&paths.bpf_root, AttachMode::Auto)?;
    for (index, name) in other_devices(socket, paths, &attacher)? {
        match attacher.detach_all(Device { name: &name, index }) {
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
