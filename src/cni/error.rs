//! Errors as a container runtime gets them: a number of the specification, a message and details, as JSON.

use std::fmt;
use std::io;

use serde_json::json;

use super::version::CniVersion;
use crate::ErrorKind;

/// The error numbers of the specification (below 100) and those of this plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// 1: the version of the configuration is not supported, or does not know the command.
    IncompatibleVersion,
    /// 2: a field of the configuration is not supported; the message has its key and value.
    UnsupportedField,
    /// 3: the container does not exist; the runtime need not clean up.
    UnknownContainer,
    /// 4: environment variables are missing or invalid; the message names them.
    InvalidEnvironment,
    /// 5: reading the configuration or writing the result failed.
    Io,
    /// 6: the configuration is not valid JSON.
    Decoding,
    /// 7: the configuration is valid JSON, but not a valid configuration.
    InvalidConfig,
    /// 11: a transient condition, the agent does not answer for instance; the runtime may try again.
    TryAgainLater,
    /// 50: (STATUS) ADD can't be served.
    NotAvailable,
    /// 51: (STATUS) ADD can't be served, and existing containers may have limited connectivity.
    LimitedConnectivity,
    /// 100: (CHECK) the agent has no such endpoint, or could not say how it is.
    EndpointUnknown,
    /// 101: (CHECK) the agent's endpoint is not healthy.
    EndpointUnhealthy,
    /// 102: (CHECK) what is in the namespace differs from the result of ADD.
    Mismatch,
    /// 103: the attachment (container id and interface) or its interface exists already.
    AlreadyAttached,
    /// 104: no address is left.
    AddressesExhausted,
    /// 105: (GC) some of what is no longer valid could not be freed.
    GarbageRemains,
    /// 106: a route that the interface needs is another interface's.
    RouteTaken,
    /// 999: anything else.
    Internal,
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::UnknownContainer => 3,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decoding => 6,
            Self::InvalidConfig => 7,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
            Self::LimitedConnectivity => 51,
            Self::EndpointUnknown => 100,
            Self::EndpointUnhealthy => 101,
            Self::Mismatch => 102,
            Self::AlreadyAttached => 103,
            Self::AddressesExhausted => 104,
            Self::GarbageRemains => 105,
            Self::RouteTaken => 106,
            Self::Internal => 999,
        }
    }
}

/// A command's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniError {
    code: ErrorCode,
    msg: String,
    details: String,
}

impl CniError {
    /// An error with a short message.
    pub fn new(code: ErrorCode, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// The same with a longer explanation.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The number on the wire.
    pub fn code(&self) -> u32 {
        self.code.number()
    }

    /// Which failure it is.
    pub fn kind(&self) -> ErrorCode {
        self.code
    }

    /// The short message.
    pub fn msg(&self) -> &str {
        &self.msg
    }

    /// The longer explanation; may be empty.
    pub fn details(&self) -> &str {
        &self.details
    }

    /// The error as the specification wants it on standard output.
    pub fn to_json(&self, version: CniVersion) -> serde_json::Value {
        let mut object = json!({ "cniVersion": version.as_str(), "code": self.code(), "msg": self.msg });
        if !self.details.is_empty() {
            object["details"] = self.details.clone().into();
        }
        object
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.msg, self.code())?;
        if self.details.is_empty() { Ok(()) } else { write!(f, ": {}", self.details) }
    }
}

impl std::error::Error for CniError {}

/// Failures of the kernel, of the agent and of the library, outside the cases in which a verb knows better.
impl From<crate::Error> for CniError {
    fn from(error: crate::Error) -> Self {
        let code = match error.kind() {
            _ if lost_the_agent(&error) => ErrorCode::TryAgainLater,
            ErrorKind::AlreadyExists => ErrorCode::AlreadyAttached,
            ErrorKind::Exhausted | ErrorKind::Busy | ErrorKind::AgentUnavailable => ErrorCode::TryAgainLater,
            _ => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

/// Whether an agent took a request and died with it, or hangs.
fn lost_the_agent(error: &crate::Error) -> bool {
    let hangs = matches!(error, crate::Error::System { source, .. } if source.kind() == io::ErrorKind::TimedOut);
    hangs || ended_with_the_request(error)
}

/// Whether an agent took a request and ended before it answered. What was asked for may have been done.
pub(super) fn ended_with_the_request(error: &crate::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    let crate::Error::System { source, .. } = error else { return false };
    matches!(source.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_fields_of_the_specification() {
        let error = CniError::new(ErrorCode::InvalidConfig, "mtu: 12: too small");
        assert_eq!(
            error.to_json(CniVersion::V1_0_0).to_string(),
            r#"{"cniVersion":"1.0.0","code":7,"msg":"mtu: 12: too small"}"#
        );
        let error = error.with_details("at least 68");
        assert_eq!(error.to_json(CniVersion::V0_4_0)["details"], "at least 68");
    }

    #[test]
    fn what_may_pass_by_itself_is_to_be_tried_again() {
        let full = crate::Error::system("create", "veth", std::io::Error::from_raw_os_error(libc::ENOMEM));
        assert_eq!(CniError::from(full).code(), 11);
    }
}
