//! A synchronous client for the agent's socket.

mod calls;
mod identity;
mod plain;
mod policy;
mod transport;

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use calls::IpamRequest;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Method, Request, Response};
use ureq::{Agent, Body};

use self::plain::{Failure, Plain, Question};
use self::transport::{ConnectFailed, NoResolver, UnixConnector, is_absent};
use super::problem::Problem;
use crate::{Error, Result};

/// An answer longer than this is not read: no agent sends one.
const LONGEST_ANSWER: u64 = 256 << 20;

/// What a body is.
const JSON: (&str, &str) = ("content-type", "application/json");

/// How a client connects and how long it waits.
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    socket: PathBuf,
    connect_timeout: Duration,
    wait_for_agent: Duration,
    request_timeout: Option<Duration>,
    plain: bool,
}

impl ClientBuilder {
    /// For a process that asks a question or two and ends: one connection, by which one request after the other is sent,
    /// and no monitor.
    pub fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    /// How long an agent that listens may take to accept the connection; one second unless set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long to go on trying while the socket is missing or refuses; not at all unless set.
    pub fn wait_for_agent(mut self, limit: Duration) -> Self {
        self.wait_for_agent = limit;
        self
    }

    /// How long a request and its answer may take together, waiting for the agent not counted; 90 seconds unless set.
    /// `None` sets no limit.
    pub fn request_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// The client. Nothing is connected before the first request.
    pub fn build(self) -> Client {
        let connector = UnixConnector {
            socket: self.socket.clone(),
            connect_timeout: self.connect_timeout,
            wait_for_agent: self.wait_for_agent,
        };
        if self.plain {
            let plain = Plain { connector, timeout: self.request_timeout, kept: Mutex::default() };
            return Client { by: By::Plain(Arc::new(plain)), socket: self.socket };
        }
        let total = self.request_timeout.map(|timeout| timeout + self.wait_for_agent);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("podwire/", env!("CARGO_PKG_VERSION")))
            .timeout_global(total)
            .build();
        Client { by: By::Pool(Agent::with_parts(config, connector, NoResolver)), socket: self.socket }
    }
}

/// A client of one agent. Cheap to clone; connections are kept and shared.
///
/// # Errors
///
/// Every call fails with [`Error::AgentUnavailable`] while nobody serves the socket, with [`Error::Api`] when the
/// agent refuses, with [`Error::System`] when the connection breaks or takes too long, and with [`Error::Corrupt`]
/// when the answer can't be understood.
#[derive(Clone, Debug)]
pub struct Client {
    by: By,
    socket: PathBuf,
}

/// What requests are sent by.
#[derive(Clone, Debug)]
enum By {
    Pool(Agent),
    Plain(Arc<Plain>),
}

/// An answer that is a success.
enum Answer {
    Open(Response<Body>),
    Read(Vec<u8>),
}

impl Client {
    /// A client of the agent at this socket that does not wait for it.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self::builder(socket).build()
    }

    /// Sets how the client connects.
    pub fn builder(socket: impl Into<PathBuf>) -> ClientBuilder {
        ClientBuilder {
            socket: socket.into(),
            connect_timeout: Duration::from_secs(1),
            wait_for_agent: Duration::ZERO,
            request_timeout: Some(Duration::from_secs(90)),
            plain: false,
        }
    }

    /// The agent's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn fetch<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T> {
        let answer = self.send(method.clone(), path, &[], None)?;
        self.read(&method, path, answer)
    }

    fn submit<T: DeserializeOwned>(&self, method: Method, path: &str, body: &impl Serialize) -> Result<T> {
        let answer = self.send_json(method.clone(), path, body)?;
        self.read(&method, path, answer)
    }

    fn send_json(&self, method: Method, path: &str, body: &impl Serialize) -> Result<Answer> {
        self.send(method, path, &[JSON], Some(&encode_body(path, body)?))
    }

    /// Sends a request and turns every answer that is not a success into an error.
    fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Result<Answer> {
        self.send_while(method, path, headers, body, &mut || ())
    }

    /// The same; the caller does something else while the agent works. It is done before where the answer is not waited for here.
    fn send_while(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Answer> {
        let plain = match &self.by {
            By::Plain(plain) => plain,
            By::Pool(agent) => {
                meanwhile();
                return self.send_by(agent, method, path, headers, body).map(Answer::Open);
            }
        };
        let question = Question { method: method.as_str(), path, headers, body };
        let (status, body) = plain.exchange(&question, meanwhile).map_err(|failure| match failure {
            Failure::Connect(failed) => self.not_connected(&method, path, failed),
            Failure::Broken(cause) => self.system(&method, path, cause),
        })?;
        match status {
            200..300 => Ok(Answer::Read(body)),
            _ => Err(Problem::parse(status, &body).into_error(method.as_str(), path)),
        }
    }

    /// Sends a request whose answer has no end.
    fn stream(&self, method: Method, path: &str) -> Result<Response<Body>> {
        match &self.by {
            By::Pool(agent) => self.send_by(agent, method, path, &[], None),
            By::Plain(_) => {
                let remedy = "build the client without plain()".into();
                Err(Error::Unsupported { feature: "a stream over a plain connection", remedy })
            }
        }
    }

    fn send_by(
        &self,
        agent: &Agent,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Response<Body>> {
        let mut request = Request::builder().method(method.clone()).uri(format!("http://localhost{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let malformed = |cause: ureq::http::Error| Error::invalid("request path", path, cause.to_string());
        let answer = match body {
            Some(body) => agent.run(request.body(body).map_err(malformed)?),
            None => agent.run(request.body(()).map_err(malformed)?),
        };
        let mut answer = answer.map_err(|cause| self.broken(&method, path, cause))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        let body = answer.body_mut().read_to_vec().map_err(|cause| self.broken(&method, path, cause))?;
        Err(Problem::parse(status, &body).into_error(method.as_str(), path))
    }

    fn read<T: DeserializeOwned>(&self, method: &Method, path: &str, answer: Answer) -> Result<T> {
        let body = match answer {
            Answer::Read(body) => body,
            Answer::Open(mut answer) => {
                let body = answer.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
                body.map_err(|cause| self.broken(method, path, cause))?
            }
        };
        serde_json::from_slice(&body)
            .map_err(|cause| Error::Corrupt { path: self.socket.clone(), reason: format!("{method} {path}: {cause}") })
    }

    /// The error for a request that got no answer.
    fn broken(&self, method: &Method, path: &str, cause: ureq::Error) -> Error {
        let source = match cause {
            ureq::Error::Other(cause) => match cause.downcast::<ConnectFailed>() {
                Ok(failed) => return self.not_connected(method, path, *failed),
                Err(cause) => io::Error::other(cause),
            },
            ureq::Error::Timeout(_) => io::Error::new(io::ErrorKind::TimedOut, "the agent did not answer in time"),
            cause => cause.into_io(),
        };
        self.system(method, path, source)
    }

    fn not_connected(&self, method: &Method, path: &str, ConnectFailed(source): ConnectFailed) -> Error {
        match is_absent(&source) {
            true => Error::AgentUnavailable { socket: self.socket.clone(), source },
            false => self.system(method, path, source),
        }
    }

    fn system(&self, method: &Method, path: &str, source: io::Error) -> Error {
        Error::system("request", format!("{method} {path} at {}", self.socket.display()), source)
    }
}

fn encode_body(path: &str, body: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(body).map_err(|cause| Error::invalid("request body", path, cause.to_string()))
}

/// Events of the agent, one JSON object each, as they happen; ends when the agent ends the stream.
///
/// An object has a `type`. That of type `lost` has a `count`: how many events were lost since the last one, because
/// the reader was too slow.
pub struct MonitorStream {
    lines: io::Lines<BufReader<ureq::BodyReader<'static>>>,
    socket: PathBuf,
}

impl MonitorStream {
    fn new(answer: Response<Body>, socket: PathBuf) -> Self {
        let reader = answer.into_body().into_with_config().limit(u64::MAX).reader();
        Self { lines: BufReader::new(reader).lines(), socket }
    }
}

impl std::fmt::Debug for MonitorStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MonitorStream").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Iterator for MonitorStream {
    type Item = Result<serde_json::Value>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.lines.next()?;
        let socket = &self.socket;
        Some(line.map_err(|cause| Error::system("read events from", socket.display().to_string(), cause)).and_then(
            |line| {
                serde_json::from_str(&line).map_err(|cause| Error::Corrupt {
                    path: socket.clone(),
                    reason: format!("event {line:?}: {cause}"),
                })
            },
        ))
    }
}
