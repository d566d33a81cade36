//! Network namespaces: what rustix does not wrap safely.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `ioctl(NS_GET_NSTYPE)`: the `CLONE_NEW…` flag of the namespace behind a file of nsfs (kernel 4.11).
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// `getsockopt(SO_NETNS_COOKIE)`, which libc has no name for on every target.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Gives the calling thread a network namespace of its own, with nothing but a loopback device that is down.
pub(crate) fn unshare_net() -> io::Result<()> {
    // SAFETY: CLONE_NEWNET alone is asked for, so that the file descriptor table stays shared with the other threads.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET)? };
    Ok(())
}

/// Whether a file of nsfs stands for a network namespace.
pub(crate) fn is_net_namespace(namespace: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the descriptor is open for the length of the call, and this ioctl takes no argument.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind == libc::CLONE_NEWNET) }
}

/// The cookie of the namespace in which a socket was opened: unique until the machine restarts (kernel 5.14).
pub(crate) fn namespace_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: both pointers lead to live, writable variables of the sizes that the option and the call expect.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}
