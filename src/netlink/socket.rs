//! The socket: sends requests, collects their answers.

use std::io;
use std::time::Duration;

use neli::consts::nl::NlmF;
use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_ROUTE;
use parking_lot::Mutex;
use rustix::net::sockopt::{self, Timeout};

use super::exchange::{Dump, Pending};
use super::request::Request;
use super::wire::Frame;
use crate::netns::NetNs;
use crate::{Error, Result};

/// Requests sent in one datagram: should all of them fail, their errors fit into the socket's receive buffer.
const BATCH: usize = 64;

/// Bytes offered for a reply at first. The kernel makes the datagrams of a dump as large as it has seen offered, up to
/// 32 KiB; longer ones make the buffer grow.
const BUFFER: usize = 32 * 1024;

/// The kernel answers while the request is being sent; waiting longer than this means that an answer got lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How often a dump is begun anew because its objects changed meanwhile.
const DUMP_ATTEMPTS: u32 = 32;

/// A connection to the kernel's routing subsystem in one network namespace. May be shared between threads: requests
/// take turns, and so does the kernel.
#[derive(Debug)]
pub struct Socket {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: netlink_sys::Socket,
    seq: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        let inner = open_route_socket()
            .and_then(|socket| {
                sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WITHIN))?;
                // so that headers of dump requests select what they name
                socket.set_netlink_get_strict_chk(true)?;
                Ok(Inner { socket, seq: 0, buffer: vec![0; BUFFER] })
            })
            .map_err(|error| Error::system("open", "routing socket", error))?;
        Ok(Self { inner: Mutex::new(inner) })
    }

    /// Opens a socket in another network namespace; it stays tied to it wherever it is used.
    pub fn open_in(namespace: &NetNs) -> Result<Self> {
        namespace.run(Self::open)?
    }

    /// Sends a request and waits for the kernel's answer.
    pub fn execute(&self, request: &Request) -> Result<()> {
        self.execute_all(std::slice::from_ref(request))
    }

    /// Sends independent requests together, in their order, and waits for all answers. The kernel goes on after one that
    /// fails: all are tried, and the error is that of the first that failed, which it names.
    pub fn execute_all(&self, requests: &[Request]) -> Result<()> {
        self.outcomes(requests)?.into_iter().collect()
    }

    /// As [`Socket::execute_all`], with the outcome of each request.
    pub fn outcomes(&self, requests: &[Request]) -> Result<Vec<Result<()>>> {
        let mut outcomes = Vec::with_capacity(requests.len());
        let mut inner = self.inner.lock();
        for batch in requests.chunks(BATCH) {
            outcomes.append(&mut inner.exchange(batch, |_| ())?);
        }
        Ok(outcomes)
    }

    /// Sends a request that is answered with objects before it is acknowledged.
    pub(super) fn query<T>(
        &self,
        request: &Request,
        parse: impl Fn(&Frame<'_>) -> Result<Option<T>>,
    ) -> Result<Vec<T>> {
        let mut objects = Vec::new();
        let outcomes =
            self.inner.lock().exchange(std::slice::from_ref(request), |frame| objects.push(parse(&frame)))?;
        outcomes.into_iter().collect::<Result<()>>()?;
        objects
            .into_iter()
            .filter_map(Result::transpose)
            .collect::<Result<_>>()
            .map_err(|cause| request.malformed(cause))
    }

    /// As [`Socket::query`], for a request that has exactly one answer.
    pub(super) fn query_one<T>(&self, request: &Request, parse: impl Fn(&Frame<'_>) -> Result<Option<T>>) -> Result<T> {
        let missing = || request.system(io::Error::new(io::ErrorKind::InvalidData, "the kernel sent no object"));
        self.query(request, parse)?.into_iter().next().ok_or_else(missing)
    }

    /// Sends a request for all objects of a kind; begins anew when they change meanwhile.
    pub(super) fn dump<T>(&self, request: &Request, parse: impl Fn(&Frame<'_>) -> Result<Option<T>>) -> Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            let (objects, consistent) = self.dump_once(request, &parse)?;
            if consistent {
                return Ok(objects);
            }
        }
        let detail = format!("changed during each of {DUMP_ATTEMPTS} attempts to read it");
        Err(Error::Busy { object: request.describe(), detail })
    }

    /// One attempt at [`Socket::dump`]; also tells whether the objects stayed the same meanwhile. If not, some may be
    /// missing or there twice.
    pub(super) fn dump_once<T>(
        &self,
        request: &Request,
        parse: impl Fn(&Frame<'_>) -> Result<Option<T>>,
    ) -> Result<(Vec<T>, bool)> {
        // parsing waits until all is read, so that there is less time for changes
        let mut stored = Stored::default();
        let consistent = self.inner.lock().dump(request, |frame| stored.push(frame))?;
        let objects = stored.frames().filter_map(|frame| parse(&frame).transpose()).collect::<Result<_>>();
        Ok((objects.map_err(|cause| request.malformed(cause))?, consistent))
    }
}

/// Messages put aside.
#[derive(Default)]
struct Stored {
    bytes: Vec<u8>,
    /// Type, flags, sequence number and the end of the body; it begins where the one before ends.
    headers: Vec<(u16, u16, u32, usize)>,
}

impl Stored {
    fn push(&mut self, frame: Frame<'_>) {
        self.bytes.extend_from_slice(frame.body);
        self.headers.push((frame.kind, frame.flags, frame.seq, self.bytes.len()));
    }

    fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        let mut start = 0;
        self.headers.iter().map(move |&(kind, flags, seq, end)| {
            let body = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            Frame { kind, flags, seq, body }
        })
    }
}

impl Inner {
    fn exchange(&mut self, requests: &[Request], mut reply: impl FnMut(Frame<'_>)) -> Result<Vec<Result<()>>> {
        let Some(named) = requests.first() else { return Ok(Vec::new()) };
        let first = self.seq.wrapping_add(1);
        let mut datagram = Vec::new();
        for (number, request) in requests.iter().enumerate() {
            self.seq = self.seq.wrapping_add(1);
            let ack = if number + 1 == requests.len() { NlmF::ACK } else { NlmF::empty() };
            datagram.append(&mut request.encode(request.flags() | ack, self.seq)?);
        }
        self.send(&datagram).map_err(|error| named.system(error))?;
        let mut pending = Pending::new(first, requests.len());
        while !pending.is_done() {
            let length = self.receive().map_err(|error| named.system(error))?;
            let datagram = self.buffer.get(..length).unwrap_or_default();
            pending.feed(datagram, |_, frame| reply(frame)).map_err(|cause| named.malformed(cause))?;
        }
        let verdicts = requests.iter().zip(pending.into_verdicts());
        Ok(verdicts.map(|(request, verdict)| request.outcome(verdict)).collect())
    }

    /// Returns whether the objects are consistent.
    fn dump(&mut self, request: &Request, mut object: impl FnMut(Frame<'_>)) -> Result<bool> {
        self.seq = self.seq.wrapping_add(1);
        let datagram = request.encode(request.flags() | NlmF::DUMP, self.seq)?;
        self.send(&datagram).map_err(|error| request.system(error))?;
        let mut dump = Dump::new(self.seq);
        loop {
            let length = self.receive().map_err(|error| request.system(error))?;
            let datagram = self.buffer.get(..length).unwrap_or_default();
            dump.feed(datagram, &mut object).map_err(|cause| request.malformed(cause))?;
            if let Some(verdict) = dump.end() {
                request.outcome(verdict)?;
                return Ok(!dump.is_interrupted());
            }
        }
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let kernel = SocketAddr::new(0, 0);
        let sent = retry(|| self.socket.send_to(datagram, &kernel, 0))?;
        if sent == datagram.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn receive(&mut self) -> io::Result<usize> {
        receive(&self.socket, &mut self.buffer, 0)
    }
}

/// A socket whose errors carry the kernel's text and leave out the request.
pub(super) fn open_route_socket() -> io::Result<netlink_sys::Socket> {
    let mut socket = netlink_sys::Socket::new(NETLINK_ROUTE)?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    socket.bind_auto()?;
    Ok(socket)
}

/// Receives one whole datagram from the kernel, whatever its length, and returns that.
pub(super) fn receive(socket: &netlink_sys::Socket, buffer: &mut Vec<u8>, flags: i32) -> io::Result<usize> {
    loop {
        let peek = flags | libc::MSG_PEEK | libc::MSG_TRUNC;
        let (length, _) = retry(|| socket.recv_from(&mut &mut buffer[..0], peek))?;
        if length > buffer.len() {
            buffer.resize(length.next_power_of_two(), 0);
        }
        let (length, sender) = retry(|| socket.recv_from(&mut &mut buffer[..], flags))?;
        // other processes may send to a socket, too
        if sender.port_number() == 0 {
            return Ok(length);
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            result => return result,
        }
    }
}
