//! HTTP over a Unix socket, for ureq.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use ureq::Timeout;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

/// How long to wait before a socket that nobody listens on is tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long to wait while the agent's queue of connections is full.
const BACKLOG_PAUSE: Duration = Duration::from_millis(2);

/// Opens connections to one socket, whatever the URI says.
#[derive(Debug)]
pub(super) struct UnixConnector {
    pub(super) socket: PathBuf,
    /// How long one attempt may take.
    pub(super) connect_timeout: Duration,
    /// How long to go on while the socket is missing or refuses.
    pub(super) wait_for_agent: Duration,
}

/// Nobody serves the socket; travels through ureq as its `Other`.
#[derive(Debug)]
pub(super) struct ConnectFailed(pub(super) io::Error);

impl fmt::Display for ConnectFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ConnectFailed {}

impl Connector for UnixConnector {
    type Out = UnixTransport;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<UnixTransport>, ureq::Error> {
        let stream = self.connect_patiently().map_err(|cause| ureq::Error::Other(Box::new(ConnectFailed(cause))))?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(UnixTransport { stream, buffers, cut_off: None }))
    }
}

impl UnixConnector {
    pub(super) fn connect_patiently(&self) -> io::Result<UnixStream> {
        let deadline = Instant::now() + self.wait_for_agent;
        loop {
            match connect(&self.socket, self.connect_timeout) {
                Err(error) if is_absent(&error) && Instant::now() + PAUSE <= deadline => thread::sleep(PAUSE),
                result => return result,
            }
        }
    }
}

/// Whether the error means that no agent serves the socket, now.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Connects without ever hanging on a listener that does not accept: the kernel would block there without a limit.
fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let deadline = Instant::now() + timeout;
    loop {
        match net::connect(&socket, &address) {
            Ok(()) => break,
            Err(Errno::AGAIN) if Instant::now() < deadline => thread::sleep(BACKLOG_PAUSE),
            Err(Errno::AGAIN) => return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not accept connections")),
            Err(errno) => return Err(errno.into()),
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// A connection.
pub(super) struct UnixTransport {
    stream: UnixStream,
    buffers: LazyBuffers,
    /// Why nothing more can be sent, until it is known whether the agent has answered before it stopped listening.
    cut_off: Option<io::Error>,
}

impl fmt::Debug for UnixTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixTransport").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Transport for UnixTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if self.cut_off.is_some() {
            return Ok(());
        }
        let timeout = timeout.for_write();
        self.stream.set_write_timeout(limit(timeout)?)?;
        let output = &self.buffers.output()[..amount];
        match (&self.stream).write_all(output) {
            Err(error) if is_cut_off(&error) => {
                self.cut_off = Some(error);
                Ok(())
            }
            sent => sent.map_err(|error| timed_out_or(error, timeout.reason)),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let timeout = timeout.for_read();
        self.stream.set_read_timeout(limit(timeout)?)?;
        let input = self.buffers.input_append_buf();
        let amount = loop {
            match (&self.stream).read(input) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(|error| timed_out_or(error, timeout.reason))?,
            }
        };
        self.buffers.input_appended(amount);
        match self.cut_off.take() {
            Some(error) if amount == 0 => Err(error.into()),
            _ => Ok(amount > 0),
        }
    }

    fn is_open(&mut self) -> bool {
        is_idle(&self.stream)
    }
}

/// Whether the agent has closed the connection while it was sent something. It may have answered before: a request that is too
/// long is refused like that.
pub(super) fn is_cut_off(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Whether a connection can be used again. One that can has nothing to read; anything else means that the agent closed it
/// or sent rubbish.
pub(super) fn is_idle(stream: &UnixStream) -> bool {
    let mut byte = [0];
    let flags = net::RecvFlags::PEEK | net::RecvFlags::DONTWAIT;
    matches!(net::recv(stream, &mut byte, flags), Err(Errno::AGAIN))
}

/// The limit for one read or write; `None` for no limit.
fn limit(timeout: NextTimeout) -> Result<Option<Duration>, ureq::Error> {
    if timeout.after.is_zero() {
        return Err(ureq::Error::Timeout(timeout.reason));
    }
    Ok(timeout.not_zero().map(|limit| *limit))
}

fn timed_out_or(error: io::Error, reason: Timeout) -> ureq::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ureq::Error::Timeout(reason),
        _ => error.into(),
    }
}

/// Names are not looked up: there is only the socket.
#[derive(Debug)]
pub(super) struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
        Ok(addresses)
    }
}
