//! Answers, refusals, and the reading of requests, all in the API's own form.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use podwire::Error;
use podwire::api::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value is not of the type that it should have.
const WRONG_TYPE: u16 = 601;
/// A required field is missing.
pub(super) const REQUIRED: u16 = 602;
/// A value is not one of those allowed.
pub(super) const NOT_ONE_OF: u16 = 606;

/// A request's body may be this long, in bytes.
pub(super) const LONGEST_BODY: usize = 1 << 20;
/// A request that holds a document of policies may be this long, in bytes.
pub(super) const LONGEST_DOCUMENT: usize = 16 << 20;

/// A refusal.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) Problem);

pub(super) type Reply<T> = Result<T, Refusal>;

impl Refusal {
    /// Of the router or the validation: code and message.
    pub(super) fn coded(status: u16, code: u16, message: impl Into<String>) -> Self {
        Self(Problem { status, code: Some(code), message: message.into() })
    }

    /// Of a handler: a message, or an empty body without one.
    pub(super) fn plain(status: u16, message: impl Into<String>) -> Self {
        Self(Problem { status, code: None, message: message.into() })
    }

    /// Nothing has this name.
    pub(super) fn not_found() -> Self {
        Self::plain(404, "")
    }

    /// The same with another status.
    pub(super) fn with_status(mut self, status: u16) -> Self {
        self.0.status = status;
        self
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(Problem::from(&error))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = self.0.body();
        if body.is_empty() {
            return status.into_response();
        }
        let json = HeaderValue::from_static("application/json");
        (status, [(header::CONTENT_TYPE, json)], body).into_response()
    }
}

/// 201 with a body.
pub(super) fn created(body: &impl Serialize) -> Response {
    (StatusCode::CREATED, Json(body)).into_response()
}

/// Does blocking work. It stays on its thread, and another one takes over what else that thread was to serve: a request is
/// answered sooner than by handing the work back and forth.
pub(super) async fn blocking<T>(work: impl FnOnce() -> Reply<T>) -> Reply<T> {
    tokio::task::block_in_place(|| catch_unwind(AssertUnwindSafe(work))).unwrap_or_else(|_| {
        log::error!("a request could not be handled: its handler panicked");
        Err(Refusal::plain(500, "internal error: see the agent's log"))
    })
}

/// A JSON body. An empty one is refused.
pub(super) struct Sent<T>(pub(super) T);

/// A JSON body that may be left out.
pub(super) struct MaybeSent<T>(pub(super) Option<T>);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Reply<Self> {
        match MaybeSent::from_request(request, state).await?.0 {
            Some(body) => Ok(Self(body)),
            None => Err(Refusal::coded(422, REQUIRED, "a body is required")),
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for MaybeSent<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Reply<Self> {
        let kind = request.headers().get(header::CONTENT_TYPE).cloned();
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| refused_body(rejection.status(), rejection.body_text()))?;
        if body.is_empty() {
            return Ok(Self(None));
        }
        check_kind(kind.as_ref())?;
        match serde_json::from_slice(&body) {
            Ok(body) => Ok(Self(Some(body))),
            Err(cause) => Err(Refusal::coded(400, 400, format!("parsing the body failed, because {cause}"))),
        }
    }
}

fn check_kind(kind: Option<&HeaderValue>) -> Reply<()> {
    let kind = kind.map_or("application/octet-stream", |kind| kind.to_str().unwrap_or("(not text)"));
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = format!("unsupported media type {kind:?}, only [application/json] are allowed");
    Err(Refusal::coded(415, 415, message))
}

/// A body of text in UTF-8, of whatever kind.
pub(super) struct Text(pub(super) String);

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Reply<Self> {
        let text = String::from_request(request, state)
            .await
            .map_err(|rejection| refused_body(rejection.status(), rejection.body_text()))?;
        Ok(Self(text))
    }
}

/// A body that could not be read to its end.
fn refused_body(status: StatusCode, reason: String) -> Refusal {
    let message = match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            format!(
                "the body is too long: {LONGEST_BODY} bytes are allowed, {LONGEST_DOCUMENT} where policies are sent"
            )
        }
        _ => reason,
    };
    Refusal::coded(status.as_u16(), status.as_u16(), message)
}

/// The variable part of a path.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Reply<Self> {
        let refuse = |rejection: PathRejection| Refusal::coded(400, 400, rejection.body_text());
        Path::<String>::from_request_parts(parts, state).await.map(|Path(name)| Self(name)).map_err(refuse)
    }
}

/// How much of what it made a client wants to hear of (`Prefer: return=minimal`, RFC 7240).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brevity {
    Whole,
    Minimal,
}

impl<S: Send + Sync> FromRequestParts<S> for Brevity {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let preferences = parts.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let minimal = preferences
            .flat_map(|value| value.split(','))
            .any(|wish| wish.trim().eq_ignore_ascii_case("return=minimal"));
        Ok(if minimal { Self::Minimal } else { Self::Whole })
    }
}

/// Names and values of the query, in order.
pub(super) struct Asked(Vec<(String, String)>);

impl Asked {
    /// The first value with this name that is not empty.
    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.all(name).find(|value| !value.is_empty())
    }

    /// Whether this is asked for; not without a value.
    pub(super) fn flag(&self, name: &str) -> Reply<bool> {
        flag(name, "query", self.one(name).unwrap_or_default())
    }

    /// All values with this name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Reply<Self> {
        let refuse = |rejection: QueryRejection| Refusal::coded(400, 400, rejection.body_text());
        Query::from_request_parts(parts, state).await.map(|Query(asked)| Self(asked)).map_err(refuse)
    }
}

/// Whether a header asks for something; not without a value.
pub(super) fn header_flag(headers: &HeaderMap, name: &str) -> Reply<bool> {
    let value = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    flag(name, "header", &value.unwrap_or_default())
}

fn flag(name: &str, place: &str, value: &str) -> Reply<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" | "" => Ok(false),
        _ => Err(Refusal::coded(422, WRONG_TYPE, format!("{name} in {place} must be of type boolean: {value:?}"))),
    }
}

/// For paths that do not exist.
pub(super) async fn no_such_path(request: Request) -> Refusal {
    Refusal::coded(404, 404, format!("path {} was not found", request.uri().path()))
}

/// Gives refused methods their body: the router only sets the header that lists those allowed.
pub(super) async fn explain_methods(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let answer = next.run(request).await;
    if answer.status() != StatusCode::METHOD_NOT_ALLOWED || method == Method::HEAD {
        return answer;
    }
    let allowed = answer.headers().get(header::ALLOW).and_then(|allow| allow.to_str().ok()).unwrap_or_default();
    let allowed: Vec<_> = allowed.split(',').map(str::trim).filter(|method| *method != "HEAD").collect();
    let allowed = allowed.join(",");
    let refusal = Refusal::coded(405, 405, format!("method {method} is not allowed, but [{allowed}] are"));
    let mut answer: Response<Body> = refusal.into_response();
    if let Ok(allowed) = HeaderValue::from_str(&allowed) {
        answer.headers_mut().insert(header::ALLOW, allowed);
    }
    answer
}
