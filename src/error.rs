//! The crate's one error type.

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Shorthand for a result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller branches on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The thing named does not exist (any more).
    NotFound,
    /// The thing named exists already.
    AlreadyExists,
    /// A value given by the caller is malformed or out of range.
    InvalidInput,
    /// A pool, a map or a table has no room left.
    Exhausted,
    /// A pinned map or a file has another layout than expected.
    LayoutMismatch,
    /// The object belongs to somebody else and is left alone.
    Foreign,
    /// The kernel lacks a feature.
    Unsupported,
    /// The process lacks a privilege.
    PermissionDenied,
    /// A file's content can't be understood.
    Corrupt,
    /// Another process or operation holds the object.
    Busy,
    /// The object is not in a state in which this can be done.
    WrongState,
    /// The kernel refused a program.
    Verifier,
    /// No agent serves the socket.
    AgentUnavailable,
    /// Anything else the system reported; see [`Error::errno`].
    System,
}

/// What went wrong: the operation, its object, the cause and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{op} {}: {source}", shortened(.object))]
    System {
        /// What was attempted, as a verb ("open", "update map").
        op: &'static str,
        /// What it was attempted on.
        object: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel answered a netlink request with an error.
    #[error("{op} {}: {}{}", shortened(.object), io::Error::from_raw_os_error(*.errno), with_text(.text))]
    Netlink {
        /// What was attempted.
        op: &'static str,
        /// What it was attempted on.
        object: String,
        /// The positive errno.
        errno: i32,
        /// The kernel's own text (extended acknowledgement), empty when it gave none.
        text: String,
    },
    /// A batch operation stopped before its end.
    #[error("{op} {object}: stopped after {done} of {total} entries: {source}")]
    PartialBatch {
        /// What was attempted.
        op: &'static str,
        /// The map.
        object: String,
        /// How many entries were processed.
        done: usize,
        /// How many were asked for.
        total: usize,
        /// Why it stopped.
        #[source]
        source: io::Error,
    },
    /// The thing named does not exist.
    #[error("{what} {} not found", shortened(.name))]
    NotFound {
        /// The kind of thing ("endpoint", "device").
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The thing named exists already.
    #[error("{what} {} already exists{}", shortened(.name), with_detail(.detail))]
    AlreadyExists {
        /// The kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
        /// Who holds it, or empty.
        detail: String,
    },
    /// A value given by the caller is not acceptable.
    #[error("{field}: {:?}: {reason}", shortened(.value))]
    InvalidInput {
        /// Which input.
        field: Cow<'static, str>,
        /// The offending value.
        value: String,
        /// What is wrong with it and what is allowed.
        reason: Cow<'static, str>,
    },
    /// A document says what it can't; nothing of it was applied.
    #[error("{document} refused, nothing of it was applied:{}", one_a_line(.problems))]
    InvalidDocument {
        /// What kind of document.
        document: &'static str,
        /// Everything that is wrong with it, in the order of the document.
        problems: Vec<DocumentProblem>,
    },
    /// Every address of a pool is taken.
    #[error(
        "address pool {pool} is exhausted: {allocated} allocated, {excluded} excluded; release addresses or enlarge the range"
    )]
    PoolExhausted {
        /// The pool's prefix.
        pool: String,
        /// Addresses in use.
        allocated: u128,
        /// Addresses never handed out.
        excluded: u128,
    },
    /// The address is in use.
    #[error("address {address} is already allocated to {owner}")]
    AddressInUse {
        /// The address.
        address: IpAddr,
        /// Its owner.
        owner: String,
    },
    /// The address lies in no pool, or is excluded from it.
    #[error("address {address} is not available from {pool}: {reason}")]
    AddressOutOfPool {
        /// The address.
        address: IpAddr,
        /// The pool's prefix.
        pool: String,
        /// Why.
        reason: Cow<'static, str>,
    },
    /// A map or table has no room for another entry.
    #[error("{object} is full ({limit} entries): {remedy}")]
    Full {
        /// The map or table.
        object: String,
        /// Its size.
        limit: usize,
        /// What the caller can do.
        remedy: Cow<'static, str>,
    },
    /// An endpoint's policy needs more map entries than it may have. Nothing of it is in force.
    #[error(
        "policy of endpoint {endpoint} needs {count} entries, {limit} are allowed: {}; \
         select fewer or broader peers and ports, or raise the limit (the agent's --bpf-policy-map-max)",
        joined(.contributors)
    )]
    PolicyTooLarge {
        /// The endpoint's id.
        endpoint: u16,
        /// The entries needed.
        count: usize,
        /// The most it may have.
        limit: usize,
        /// The rules that make the most entries.
        contributors: Vec<PolicyShare>,
    },
    /// A pinned map differs from what this build expects.
    #[error("{object} has another layout than expected:\n  {}", .differences.join("\n  "))]
    LayoutMismatch {
        /// The pin.
        object: String,
        /// Every difference, one a line, as "what: expected X, found Y".
        differences: Vec<String>,
    },
    /// The object belongs to somebody else.
    #[error("{} belongs to {owner} and is left alone: {remedy}", shortened(.object))]
    Foreign {
        /// What was about to be replaced or removed.
        object: String,
        /// Who seems to own it.
        owner: String,
        /// What the operator can do.
        remedy: Cow<'static, str>,
    },
    /// The kernel lacks a feature.
    #[error("{feature} is not supported by this kernel: {remedy}")]
    Unsupported {
        /// The feature.
        feature: &'static str,
        /// What to do instead.
        remedy: Cow<'static, str>,
    },
    /// A privilege is missing.
    #[error("{op} {}: permission denied: {remedy}", shortened(.object))]
    PermissionDenied {
        /// What was attempted.
        op: &'static str,
        /// What it was attempted on.
        object: String,
        /// Which privilege is needed.
        remedy: Cow<'static, str>,
    },
    /// A file's content is damaged or of an unknown version.
    #[error("{}: {reason}", of_path(.path))]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process or operation holds the object.
    #[error("{} is in use{}", shortened(.object), with_detail(.detail))]
    Busy {
        /// The object.
        object: String,
        /// By whom, or empty.
        detail: String,
    },
    /// The object's state forbids the operation.
    #[error("{object} is {state}: cannot {op}")]
    WrongState {
        /// The object.
        object: String,
        /// Its state.
        state: String,
        /// What was attempted.
        op: &'static str,
    },
    /// The kernel's verifier, or libbpf, refused a program.
    #[error("load {program}: {source}\n{log}")]
    Verifier {
        /// The object or program.
        program: String,
        /// The errno it came with.
        #[source]
        source: io::Error,
        /// The last lines of the log.
        log: String,
    },
    /// Nobody serves the agent's socket.
    #[error("agent at {}: {source}: is it running, and is this its socket?", of_path(.socket))]
    AgentUnavailable {
        /// The socket.
        socket: PathBuf,
        /// Why it can't be reached.
        #[source]
        source: io::Error,
    },
    /// The agent refused a request.
    #[error("{method} {}: {message} (status {status})", shortened(.path))]
    Api {
        /// The request's method.
        method: String,
        /// The request's path.
        path: String,
        /// The HTTP status.
        status: u16,
        /// The agent's reason.
        message: String,
    },
}

/// One thing wrong with a document. Printed as `path: value: reason`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentProblem {
    /// Where it stands, as `spec.ingress[0].toPorts[1].ports[0].port`.
    pub path: String,
    /// What stands there, as JSON and cut off when it is long; empty where there is nothing to show.
    pub value: String,
    /// What is wrong with it and what is allowed.
    pub reason: String,
}

impl std::fmt::Display for DocumentProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in [&self.path, &self.value].into_iter().filter(|part| !part.is_empty()) {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.reason)
    }
}

/// What one rule makes of a policy that is too large. Printed as `default/web[0].ingress[1] makes 16007 (entity:world: 16009 identities)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyShare {
    /// The rule's number, which a policy that is refused gives to none.
    pub rule: u32,
    /// Where it stands, where that is known.
    pub name: Option<String>,
    /// How many entries it makes.
    pub entries: usize,
    /// Those of its selectors that select the most, each with how many identities.
    pub selectors: Vec<String>,
}

impl std::fmt::Display for PolicyShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} makes {}", self.entries)?,
            None => write!(f, "rule {} makes {}", self.rule, self.entries)?,
        }
        if self.selectors.is_empty() { Ok(()) } else { write!(f, " ({})", self.selectors.join(", ")) }
    }
}

/// Characters of a value that are shown: an error is one line.
const LONGEST_SHOWN: usize = 256;

/// A value, or its beginning and an ellipsis where it is too long to be shown.
pub fn shortened(value: &str) -> Cow<'_, str> {
    match value.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}…", value.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(value),
    }
}

/// The same for each word of a message, whose values are not known one by one.
pub fn shortened_words(message: &str) -> String {
    message.split(' ').map(shortened).collect::<Vec<_>>().join(" ")
}

fn of_path(path: &Path) -> String {
    shortened(&path.display().to_string()).into_owned()
}

impl Error {
    /// A system call's failure with its operation and object.
    pub fn system(op: &'static str, object: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { op, object: object.into(), source: source.into() }
    }

    /// A malformed or impossible input.
    pub fn invalid(
        field: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::InvalidInput { field: field.into(), value: value.into(), reason: reason.into() }
    }

    /// Something that does not exist.
    pub fn not_found(what: &'static str, name: impl Into<String>) -> Self {
        Self::NotFound { what, name: name.into() }
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::System { .. } | Self::Netlink { .. } | Self::PartialBatch { .. } => {
                self.errno().map_or(ErrorKind::System, errno_kind)
            }
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::AlreadyExists { .. } | Self::AddressInUse { .. } => ErrorKind::AlreadyExists,
            Self::InvalidInput { .. } | Self::InvalidDocument { .. } | Self::AddressOutOfPool { .. } => {
                ErrorKind::InvalidInput
            }
            Self::PoolExhausted { .. } | Self::Full { .. } | Self::PolicyTooLarge { .. } => ErrorKind::Exhausted,
            Self::LayoutMismatch { .. } => ErrorKind::LayoutMismatch,
            Self::Foreign { .. } => ErrorKind::Foreign,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::PermissionDenied { .. } => ErrorKind::PermissionDenied,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::WrongState { .. } => ErrorKind::WrongState,
            Self::Verifier { .. } => ErrorKind::Verifier,
            Self::AgentUnavailable { .. } => ErrorKind::AgentUnavailable,
            Self::Api { status, .. } => status_kind(*status),
        }
    }

    /// The system's error number, where the failure came from the system.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::System { source, .. }
            | Self::PartialBatch { source, .. }
            | Self::Verifier { source, .. }
            | Self::AgentUnavailable { source, .. } => source.raw_os_error(),
            Self::Netlink { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

fn errno_kind(errno: i32) -> ErrorKind {
    match errno {
        libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ESRCH => ErrorKind::NotFound,
        libc::EEXIST => ErrorKind::AlreadyExists,
        libc::EINVAL | libc::ERANGE | libc::ENAMETOOLONG => ErrorKind::InvalidInput,
        libc::E2BIG | libc::ENOSPC | libc::ENOMEM | libc::EDQUOT | libc::EFBIG => ErrorKind::Exhausted,
        libc::EPERM | libc::EACCES | libc::EROFS => ErrorKind::PermissionDenied,
        libc::EOPNOTSUPP | libc::ENOSYS | libc::EPROTONOSUPPORT => ErrorKind::Unsupported,
        libc::EBUSY | libc::EAGAIN => ErrorKind::Busy,
        _ => ErrorKind::System,
    }
}

fn status_kind(status: u16) -> ErrorKind {
    match status {
        404 => ErrorKind::NotFound,
        409 => ErrorKind::WrongState,
        429 | 503 => ErrorKind::Busy,
        501 => ErrorKind::Unsupported,
        502 => ErrorKind::Exhausted,
        400..=499 => ErrorKind::InvalidInput,
        _ => ErrorKind::System,
    }
}

fn joined(shares: &[PolicyShare]) -> String {
    shares.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn with_text(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

fn with_detail(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}

fn one_a_line(problems: &[DocumentProblem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}
