//! Deleting devices without waiting for the kernel to finish.
//!
//! Deleting a veth pair takes 20 ms, nearly all of it spent waiting for RCU long after the pair has left its namespaces.
//! Nobody needs that wait: the reaper's threads ask for the deletion, and the caller goes on as soon as the kernel says that
//! the device is gone. Deletions that pile up are done together: one group, one wait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, warn};
use parking_lot::{Condvar, Mutex};

use crate::netlink::{LinkChange, LinkEvents, Request, Socket};
use crate::netns::NetNs;
use crate::{Error, ErrorKind, IfIndex, Result};

/// Threads that delete. A deletion occupies one for its whole wait.
const THREADS: usize = 4;
/// The most deletions done in one request.
const TOGETHER: usize = 128;
/// How long a caller waits for a device to go.
const PATIENCE: Duration = Duration::from_secs(10);
/// The groups (as of `ip link set group`) in which devices are collected to be deleted together, one per thread from here on.
const FIRST_GROUP: u32 = 0x706f_6400;

/// Threads that delete devices of one namespace.
pub(super) struct Reaper {
    shared: Arc<Shared>,
    namespace: NetNs,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<IfIndex>,
    idle: usize,
    closed: bool,
}

impl Reaper {
    /// For the devices of the calling thread's namespace.
    pub(super) fn new() -> Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new() });
        Ok(Self { shared, namespace: NetNs::current()?, threads: Mutex::default() })
    }

    /// Deletes a device; returns once it is out of the namespace. False when it was not there.
    ///
    /// # Errors
    ///
    /// `Busy` when the device is still there after ten seconds; the deletion stays requested.
    pub(super) fn delete(&self, ifindex: IfIndex) -> Result<bool> {
        // Listening starts before the deletion is asked for, so that its event can't be missed.
        let mut events = LinkEvents::open_in(&self.namespace)?;
        let socket = Socket::open_in(&self.namespace)?;
        match socket.link_by_index(ifindex) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            found => found?,
        };
        self.request(ifindex)?;
        if events.wait_deleted(ifindex, Instant::now() + PATIENCE)? {
            return Ok(true);
        }
        Err(Error::Busy {
            object: format!("device {ifindex}"),
            detail: format!("not deleted after {} s", PATIENCE.as_secs()),
        })
    }

    fn request(&self, ifindex: IfIndex) -> Result<()> {
        let mut queue = self.shared.queue.lock();
        queue.waiting.push_back(ifindex);
        let mut threads = self.threads.lock();
        if queue.idle < queue.waiting.len() && threads.len() < THREADS {
            let group = FIRST_GROUP + u32::try_from(threads.len()).unwrap_or_default();
            threads.push(self.start(group)?);
        }
        self.shared.changed.notify_one();
        Ok(())
    }

    fn start(&self, group: u32) -> Result<thread::JoinHandle<()>> {
        let socket = Socket::open_in(&self.namespace)?;
        let shared = self.shared.clone();
        thread::Builder::new()
            .name("podwire-reaper".to_owned())
            .spawn(move || {
                while let Some(devices) = shared.take() {
                    delete_together(&socket, &devices, group);
                }
            })
            .map_err(|error| Error::system("start", "the thread that deletes devices", error))
    }
}

impl Drop for Reaper {
    /// Finishes what was asked for.
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                warn!("a thread that deletes devices panicked");
            }
        }
    }
}

impl Shared {
    /// The devices to delete next; nothing when the reaper is closed and everything is done.
    fn take(&self) -> Option<Vec<IfIndex>> {
        let mut queue = self.queue.lock();
        loop {
            if !queue.waiting.is_empty() {
                let count = queue.waiting.len().min(TOGETHER);
                return Some(queue.waiting.drain(..count).collect());
            }
            if queue.closed {
                return None;
            }
            queue.idle += 1;
            self.changed.wait(&mut queue);
            queue.idle -= 1;
        }
    }
}

fn delete_together(socket: &Socket, devices: &[IfIndex], group: u32) {
    if let [device] = devices {
        return report(*device, socket.link_delete(*device));
    }
    let change = LinkChange { group: Some(group), ..LinkChange::default() };
    let mut grouped = 0;
    for device in devices {
        match Request::link_set(*device, &change).and_then(|request| socket.execute(&request)) {
            Ok(()) => grouped += 1,
            Err(error) => report(*device, Err(error)),
        }
    }
    if grouped > 0
        && let Err(error) = socket.links_delete_group(group)
    {
        debug!("deleting {grouped} devices together: {error}; one by one");
        for device in devices {
            report(*device, socket.link_delete(*device));
        }
    }
}

fn report(device: IfIndex, outcome: Result<()>) {
    match outcome {
        Err(error) if error.kind() != ErrorKind::NotFound => warn!("device {device}: {error}"),
        _ => {}
    }
}
