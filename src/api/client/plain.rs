//! HTTP/1.1 on one connection, for a process that asks a question or two and ends.
//!
//! A process that lives on is better served by ureq's pool. In one that does not, its code and its buffers are read and
//! cleared for the first time at every request: a fifth of a millisecond, which here is the time of a whole exchange. And the caller can
//! do something of its own while the agent works, without a second thread.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::LONGEST_ANSWER;
use super::transport::{ConnectFailed, UnixConnector, is_cut_off, is_idle};

/// The longest head of an answer, in bytes.
const LONGEST_HEAD: usize = 64 << 10;
/// How much is read at once, in bytes.
const PIECE: usize = 4 << 10;

/// A request.
pub(super) struct Question<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: Option<&'a [u8]>,
}

/// Why there is no answer.
pub(super) enum Failure {
    Connect(ConnectFailed),
    Broken(io::Error),
}

/// One connection, made when it is needed and kept as long as the agent keeps it.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) connector: UnixConnector,
    /// For a request and its answer together.
    pub(super) timeout: Option<Duration>,
    pub(super) kept: Mutex<Option<UnixStream>>,
}

impl Plain {
    /// Sends a request, does something else `meanwhile`, and reads the answer: status and body.
    pub(super) fn exchange(
        &self,
        question: &Question<'_>,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<(u16, Vec<u8>), Failure> {
        let mut kept = self.kept.lock();
        let stream = match kept.take().filter(is_idle) {
            Some(stream) => stream,
            None => self.connector.connect_patiently().map_err(|error| Failure::Connect(ConnectFailed(error)))?,
        };
        let mut answer = Answer { stream: &stream, bytes: Vec::new(), at: 0, timeout: self.timeout };
        let exchanged = match question.send(&stream, self.timeout) {
            Ok(()) => {
                meanwhile();
                answer.read()
            }
            Err(cause) if is_cut_off(&cause) => answer.read().map_err(|_| cause),
            Err(cause) => Err(cause),
        };
        let (status, body, lasts) = exchanged.map_err(Failure::Broken)?;
        *kept = lasts.then_some(stream);
        Ok((status, body))
    }
}

impl Question<'_> {
    /// All in one piece, so that the agent wakes up once.
    fn send(&self, mut stream: &UnixStream, timeout: Option<Duration>) -> io::Result<()> {
        let mut bytes = format!("{} {} HTTP/1.1\r\nhost: localhost\r\n", self.method, self.path).into_bytes();
        for (name, value) in self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if let Some(body) = self.body {
            bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(self.body.unwrap_or_default());
        stream.set_write_timeout(timeout)?;
        stream.write_all(&bytes).map_err(timed_out)
    }
}

/// What has come of an answer, and how far it is understood.
struct Answer<'a> {
    stream: &'a UnixStream,
    bytes: Vec<u8>,
    at: usize,
    timeout: Option<Duration>,
}

/// How long a body is.
enum Length {
    Bytes(usize),
    Chunked,
    /// Until the connection ends.
    ToTheEnd,
}

impl Answer<'_> {
    /// Status, body, and whether the connection lasts.
    fn read(&mut self) -> io::Result<(u16, Vec<u8>, bool)> {
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let (status, length, lasts) = self.head(deadline)?;
            let body = match length {
                // a word that it goes on, before the answer itself
                _ if status / 100 == 1 => continue,
                _ if matches!(status, 204 | 304) => Vec::new(),
                Length::Bytes(length) => self.take(length, deadline)?,
                Length::Chunked => self.chunks(deadline)?,
                Length::ToTheEnd => return Ok((status, self.rest(deadline)?, false)),
            };
            return Ok((status, body, lasts));
        }
    }

    fn head(&mut self, deadline: Option<Instant>) -> io::Result<(u16, Length, bool)> {
        let line = self.line(deadline)?;
        let mut words = line.split(' ');
        let version = words.next().filter(|version| version.starts_with("HTTP/1."));
        let status = words.next().filter(|status| status.len() == 3).and_then(|status| status.parse().ok());
        let (Some(version), Some(status)) = (version, status) else {
            return Err(nonsense(format!("{line:?} is no status of HTTP/1")));
        };
        let (mut length, mut lasts) = (Length::ToTheEnd, version == "HTTP/1.1");
        loop {
            let line = self.line(deadline)?;
            let Some((name, value)) = line.split_once(':') else {
                return if line.is_empty() {
                    Ok((status, length, lasts))
                } else {
                    Err(nonsense(format!("header {line:?}")))
                };
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
                length = Length::Chunked;
            } else if name.eq_ignore_ascii_case("content-length") && !matches!(length, Length::Chunked) {
                length = Length::Bytes(value.parse().map_err(|_| nonsense(format!("content-length {value:?}")))?);
            } else if name.eq_ignore_ascii_case("connection") {
                lasts &= !value.eq_ignore_ascii_case("close");
            }
        }
    }

    fn chunks(&mut self, deadline: Option<Instant>) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line(deadline)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16).map_err(|_| nonsense(format!("chunk of {line:?} bytes")))?;
            if size == 0 {
                // trailers, then an empty line
                while !self.line(deadline)?.is_empty() {}
                return Ok(body);
            }
            body.append(&mut self.take(size, deadline)?);
            check_length(body.len())?;
            if !self.line(deadline)?.is_empty() {
                return Err(nonsense("a chunk is longer than it says".to_owned()));
            }
        }
    }

    /// A line without its end.
    fn line(&mut self, deadline: Option<Instant>) -> io::Result<String> {
        loop {
            let ahead = self.bytes.get(self.at..).unwrap_or_default();
            if let Some(end) = ahead.iter().position(|byte| *byte == b'\n') {
                let line = ahead.get(..end).unwrap_or_default();
                let text = String::from_utf8_lossy(line).trim_end_matches('\r').to_owned();
                self.at += end + 1;
                return Ok(text);
            }
            if ahead.len() > LONGEST_HEAD {
                return Err(nonsense(format!("a line of more than {LONGEST_HEAD} bytes")));
            }
            if self.fill(deadline)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn take(&mut self, length: usize, deadline: Option<Instant>) -> io::Result<Vec<u8>> {
        check_length(length)?;
        while self.bytes.len() - self.at < length {
            if self.fill(deadline)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let taken = self.bytes.get(self.at..self.at + length).unwrap_or_default().to_vec();
        self.at += length;
        Ok(taken)
    }

    fn rest(&mut self, deadline: Option<Instant>) -> io::Result<Vec<u8>> {
        while self.fill(deadline)? > 0 {
            check_length(self.bytes.len() - self.at)?;
        }
        Ok(self.bytes.split_off(self.at))
    }

    /// Waits for more; zero when the agent has closed the connection.
    fn fill(&mut self, deadline: Option<Instant>) -> io::Result<usize> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(timed_out(io::ErrorKind::TimedOut.into()));
        }
        self.stream.set_read_timeout(left)?;
        let (before, mut stream) = (self.bytes.len(), self.stream);
        self.bytes.resize(before + PIECE, 0);
        let read = loop {
            match stream.read(self.bytes.get_mut(before..).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.map_err(timed_out),
            }
        };
        self.bytes.truncate(before + read.as_ref().copied().unwrap_or_default());
        read
    }
}

fn check_length(length: usize) -> io::Result<()> {
    if length as u64 > LONGEST_ANSWER {
        return Err(nonsense(format!("an answer of more than {LONGEST_ANSWER} bytes")));
    }
    Ok(())
}

fn nonsense(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the agent's answer makes no sense: {what}"))
}

fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, "the agent did not answer in time")
        }
        _ => error,
    }
}
