//! What an error looks like on the wire.

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind};

/// An error as its HTTP status and body carry it.
///
/// The router and the validation of requests send `{"code": …, "message": …}`; handlers send a bare JSON string.
/// Both are understood, and so is a body that is neither.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The validation's own number, where it has one that is not the status (602: required, 606: not one of).
    pub code: Option<u16>,
    /// What went wrong.
    pub message: String,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Body {
    Text(String),
    Coded { code: u16, message: String },
}

/// The longest piece of a body that is neither JSON form which is taken into a message.
const LONGEST_FOREIGN_BODY: usize = 200;

impl Problem {
    /// The problem that an answer with this status and body tells of.
    pub fn parse(status: u16, body: &[u8]) -> Self {
        match serde_json::from_slice(body) {
            Ok(Body::Text(message)) => Self { status, code: None, message },
            Ok(Body::Coded { code, message }) => Self { status, code: Some(code), message },
            Err(_) => {
                let text = String::from_utf8_lossy(body);
                Self { status, code: None, message: text.trim().chars().take(LONGEST_FOREIGN_BODY).collect() }
            }
        }
    }

    /// The body: a bare string, or code and message where there is a code. Empty without a message.
    pub fn body(&self) -> Vec<u8> {
        if self.message.is_empty() {
            return Vec::new();
        }
        let body = match self.code {
            Some(code) => Body::Coded { code, message: self.message.clone() },
            None => Body::Text(self.message.clone()),
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// The status that tells a client of this error.
    pub fn status_of(error: &Error) -> u16 {
        match error {
            Error::Api { status, .. } => *status,
            // What the system lacks or refuses in the middle of the work is not what the client asked for.
            Error::System { .. } | Error::Netlink { .. } | Error::PartialBatch { .. }
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput | ErrorKind::AlreadyExists) =>
            {
                500
            }
            // It is what is asked for that does not fit, not the agent that fails.
            Error::PolicyTooLarge { .. } => 400,
            _ => match error.kind() {
                ErrorKind::NotFound => 404,
                ErrorKind::InvalidInput | ErrorKind::AlreadyExists => 400,
                ErrorKind::WrongState => 409,
                ErrorKind::Busy | ErrorKind::AgentUnavailable => 503,
                ErrorKind::Unsupported => 501,
                _ => 500,
            },
        }
    }

    pub(super) fn into_error(self, method: &str, path: &str) -> Error {
        let message = if self.message.is_empty() { reason(self.status).to_owned() } else { self.message };
        Error::Api { method: method.to_owned(), path: path.to_owned(), status: self.status, message }
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        Self { status: Self::status_of(error), code: None, message: error.to_string() }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "the request was not acceptable",
        404 => "not found",
        405 => "the method is not allowed",
        409 => "it is not in a state for this",
        500 => "the agent failed",
        501 => "not implemented",
        502 => "nothing could be allocated",
        503 => "the agent is busy",
        _ => "no reason was given",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_and_others_are_understood() {
        let cases: [(&[u8], Option<u16>, &str); 5] = [
            (br#""IP ipv4:10.0.2.207 is already in use""#, None, "IP ipv4:10.0.2.207 is already in use"),
            (br#"{"code":602,"message":"state in body is required"}"#, Some(602), "state in body is required"),
            (b"", None, ""),
            (b"<html>no</html>\n", None, "<html>no</html>"),
            (br#"{"error":1}"#, None, r#"{"error":1}"#),
        ];
        for (body, code, message) in cases {
            assert_eq!(Problem::parse(422, body), Problem { status: 422, code, message: message.to_owned() });
        }
    }

    #[test]
    fn bodies_read_back() {
        for code in [None, Some(606)] {
            let problem = Problem { status: 400, code, message: "no \"such\" thing".to_owned() };
            assert_eq!(Problem::parse(400, &problem.body()), problem);
        }
        assert!(Problem { status: 404, code: None, message: String::new() }.body().is_empty());
    }

    #[test]
    fn an_answer_without_a_body_still_says_something() {
        let error = Problem::parse(404, b"").into_error("GET", "/v1/endpoint/9");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.to_string(), "GET /v1/endpoint/9: not found (status 404)");
    }
}
