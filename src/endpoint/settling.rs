//! What the kernel still does by itself when a veth pair has been configured, and waiting for it.

use std::net::Ipv6Addr;
use std::thread;
use std::time::{Duration, Instant};

use crate::netlink::{RouteKind, Socket};
use crate::{Error, IfIndex, Result};

/// Pauses between looks at what the kernel does by itself, a moment after it was asked: the first, and the longest. They
/// grow, since where many wait at the same time their looking would keep the kernel from it.
const SETTLE_POLL: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(5));
/// How long that may take: it needs a lock that many others may want.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the kernel does by itself after a device was configured, and after its other end came up.
#[derive(Debug)]
#[must_use = "packets that come before it is done are lost"]
pub struct Settling {
    /// Of the pod's namespace.
    socket: Socket,
    device: IfIndex,
    address: Option<Ipv6Addr>,
}

impl Settling {
    pub(super) fn new(socket: Socket, device: IfIndex, address: Option<Ipv6Addr>) -> Self {
        Self { socket, device, address }
    }

    /// Waits until the pod can send, and be reached by all its addresses. To be called when both ends are up.
    ///
    /// # Errors
    ///
    /// [`Busy`](crate::ErrorKind::Busy) after ten seconds, and [`NotFound`](crate::ErrorKind::NotFound) when the device is gone.
    pub fn wait(&self) -> Result<()> {
        self.address.map_or(Ok(()), |address| wait_until_local(&self.socket, address))?;
        wait_until_running(&self.socket, self.device, SETTLE_TIMEOUT)
    }
}

/// Whether a device is up is known at once; that its other end is, the kernel notes on a work queue, for each end by itself. Until
/// then it throws away what the device is to send.
pub(super) fn wait_until_running(socket: &Socket, device: IfIndex, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    let mut pause = Pause::default();
    loop {
        let link = socket.link_by_index(device)?;
        if link.is_running {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let detail = format!("no carrier within {} ms: is the other end up?", patience.as_millis());
            return Err(Error::Busy { object: link.name, detail });
        }
        pause.sleep();
    }
}

/// The kernel makes an IPv6 address's local route on a work queue, after the address was acknowledged. A packet that comes
/// earlier is dropped.
fn wait_until_local(socket: &Socket, address: Ipv6Addr) -> Result<()> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    let mut pause = Pause::default();
    loop {
        match socket.route_to(address.into()) {
            Ok(route) if route.kind == RouteKind::Local => return Ok(()),
            Err(error) if error.errno() != Some(libc::ENETUNREACH) => return Err(error),
            _ if Instant::now() < deadline => pause.sleep(),
            _ => {
                let detail = format!("has no local route after {} ms", SETTLE_TIMEOUT.as_millis());
                return Err(Error::Busy { object: address.to_string(), detail });
            }
        }
    }
}

/// Pauses of growing length.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(SETTLE_POLL.0)
    }
}

impl Pause {
    fn sleep(&mut self) {
        thread::sleep(self.0);
        self.0 = (self.0 * 2).min(SETTLE_POLL.1);
    }
}
