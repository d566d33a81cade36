//! Attaching by clsact filters, which outlive every process without being pinned.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::attach::{Device, device_gone};
use super::{Direction, Program};
use crate::netlink::{Filter, FilterSpec, Request, Socket};
use crate::{Error, ErrorKind, Result};

/// The place of our filters on each hook.
pub(super) const PRIORITY: u16 = 1;
/// Their number among the filters of that priority.
pub(super) const HANDLE: u32 = 1;

const BPF: &str = "bpf";
/// What the names of [`marker`]s begin with.
const MARKER: &str = "clsact_";
const ETH_P_ALL: u16 = libc::ETH_P_ALL as u16;

/// Makes each program the filter of its hook: all in one request where nothing is there yet, otherwise by replacing our
/// own filter in place. Undone as a whole when one of them fails.
pub(super) fn attach(
    socket: &Socket,
    state: &Path,
    device: Device<'_>,
    wanted: &[(Direction, &Program)],
) -> Result<Vec<bool>> {
    let name = filter_name(device);
    let mut requests = vec![Request::clsact_add(device.index)?];
    for (direction, program) in wanted {
        requests.push(Request::filter_create(&spec(device, *direction, program, &name))?);
    }
    let mut outcomes = socket.outcomes(&requests)?.into_iter();
    let qdisc = outcomes.next().unwrap_or(Ok(()));
    let mut undo = Undo { socket, state, device, filters: Vec::new(), qdisc: qdisc.is_ok() };
    undo.filters
        .extend(wanted.iter().zip(outcomes.as_slice()).filter(|(_, made)| made.is_ok()).map(|((at, _), _)| *at));
    match qdisc {
        Ok(()) => remember_clsact(state, device)?,
        // Either it was there, or the older ingress discipline is in its place. On that both hooks are one, so that a filter on
        // each has told already; otherwise this does.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if ![Direction::Ingress, Direction::Egress].iter().all(|at| undo.filters.contains(at)) {
                socket.clsact_add(device.index)?;
            }
        }
        Err(error) if error.errno() == Some(libc::ENODEV) => return Err(device_gone(device)),
        Err(error) => return Err(error),
    }
    let mut created = Vec::with_capacity(wanted.len());
    for ((direction, program), outcome) in wanted.iter().zip(outcomes) {
        created.push(outcome.is_ok());
        if let Err(error) = outcome {
            replace(socket, device, *direction, program, error)?;
        }
    }
    undo.defuse();
    Ok(created)
}

/// Our filter on a hook.
pub(super) fn own_filter(socket: &Socket, device: Device<'_>, direction: Direction) -> Result<Option<Filter>> {
    Ok(socket.filters(device.index, direction)?.into_iter().find(|filter| is_ours(filter, device)))
}

/// Removes our filter from a hook, and clsact if we made it and nobody uses it. What is gone already is fine.
pub(super) fn detach(socket: &Socket, state: &Path, device: Device<'_>, direction: Direction) -> Result<()> {
    if own_filter(socket, device, direction)?.is_some() {
        gone_is_fine(socket.filter_delete(device.index, direction, PRIORITY, HANDLE))?;
    }
    remove_unused(socket, state, device)
}

/// Whether a filter is the one that [`attach`] makes; its name decides, not its program, which may be of an older
/// generation.
pub(super) fn is_ours(filter: &Filter, device: Device<'_>) -> bool {
    (filter.priority, filter.handle) == (PRIORITY, HANDLE)
        && filter.kind == BPF
        && filter.name.as_deref() == Some(filter_name(device).as_str())
}

/// What is made by an attempt that is not complete yet.
struct Undo<'a> {
    socket: &'a Socket,
    state: &'a Path,
    device: Device<'a>,
    filters: Vec<Direction>,
    qdisc: bool,
}

impl Undo<'_> {
    fn defuse(mut self) {
        self.filters.clear();
        self.qdisc = false;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let index = self.device.index;
        let result = if self.qdisc {
            self.socket.clsact_delete(index).and_then(|()| forget_clsact(self.state, self.device))
        } else {
            self.filters.iter().try_for_each(|at| self.socket.filter_delete(index, *at, PRIORITY, HANDLE))
        };
        if let Err(error) = gone_is_fine(result) {
            log::warn!("undo attaching to {}: {error}", self.device.name);
        }
    }
}

/// Puts the program into our filter, after creating one was refused.
fn replace(socket: &Socket, device: Device<'_>, direction: Direction, program: &Program, refused: Error) -> Result<()> {
    let filters = socket.filters(device.index, direction)?;
    if let Some(own) = filters.iter().find(|filter| is_ours(filter, device)) {
        if own.program_id == Some(program.id()) {
            return Ok(());
        }
        return socket.filter_replace(&spec(device, direction, program, &filter_name(device)));
    }
    match filters.iter().find(|filter| is_in_the_way(filter)) {
        Some(filter) => Err(foreign(device, direction, filter)),
        None => Err(refused),
    }
}

/// All filters of a priority are of one kind and protocol, and each has a handle of its own.
fn is_in_the_way(filter: &Filter) -> bool {
    filter.priority == PRIORITY && (filter.handle == HANDLE || filter.kind != BPF || filter.protocol != ETH_P_ALL)
}

fn foreign(device: Device<'_>, direction: Direction, filter: &Filter) -> Error {
    let program = filter.program_id.map_or_else(String::new, |id| format!(" (program {id})"));
    let (side, name) = (word(direction), filter.name.as_deref().unwrap_or("without a name"));
    Error::Foreign {
        object: format!("{side} filter {PRIORITY}:{} of {}", filter.handle, device.name),
        owner: format!("the owner of {} filter {name}{program}", filter.kind),
        remedy: format!("move it to another priority, or: tc filter del dev {} {side} pref {PRIORITY}", device.name)
            .into(),
    }
}

fn spec<'a>(device: Device<'_>, direction: Direction, program: &'a Program, name: &'a str) -> FilterSpec<'a> {
    FilterSpec {
        device: device.index,
        direction,
        priority: PRIORITY,
        handle: HANDLE,
        program: program.fd(),
        name,
        direct_action: true,
    }
}

fn filter_name(device: Device<'_>) -> String {
    format!("cilium-{}", device.name)
}

pub(super) fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

/// A directory that says that clsact of this very device is ours; a bpffs holds no files. Should the process die before
/// it is made, clsact is taken for somebody else's and stays.
fn marker(state: &Path, device: Device<'_>) -> PathBuf {
    state.join(format!("{MARKER}{}", device.index))
}

/// Notes that clsact of a device is ours, whoever makes it.
pub(super) fn remember_clsact(state: &Path, device: Device<'_>) -> Result<()> {
    let marker = marker(state, device);
    fs::create_dir_all(&marker).map_err(|error| Error::system("create directory", marker.display().to_string(), error))
}

/// Forgets the disciplines of devices that had this one's name before.
pub(super) fn forget_others(state: &Path, device: Device<'_>) -> Result<()> {
    let own = marker(state, device);
    let failed = |error| Error::system("read directory", state.display().to_string(), error);
    let entries = match fs::read_dir(state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let is_marker = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(MARKER));
        if is_marker && path != own {
            remove_marker(&path)?;
        }
    }
    Ok(())
}

fn remove_unused(socket: &Socket, state: &Path, device: Device<'_>) -> Result<()> {
    let marker = marker(state, device);
    if !marker.exists() {
        return Ok(());
    }
    for direction in [Direction::Ingress, Direction::Egress] {
        if !socket.filters(device.index, direction)?.is_empty() {
            return Ok(());
        }
    }
    gone_is_fine(socket.clsact_delete(device.index))?;
    forget_clsact(state, device)
}

fn forget_clsact(state: &Path, device: Device<'_>) -> Result<()> {
    remove_marker(&marker(state, device))
}

fn remove_marker(marker: &Path) -> Result<()> {
    match fs::remove_dir(marker) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::system("remove directory", marker.display().to_string(), error))
        }
        _ => Ok(()),
    }
}

/// The kernel answers EINVAL where the parent is missing.
fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV | libc::EINVAL)) => Ok(()),
        result => result,
    }
}
