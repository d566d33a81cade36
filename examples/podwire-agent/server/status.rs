//! `/v1/healthz`.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use podwire::api::StatusResponse;

use super::Node;
use super::reply::{Reply, blocking};

/// The header `brief` asks for the agent as a whole only.
pub(super) async fn healthz(State(agent): Node, headers: HeaderMap) -> Reply<Json<StatusResponse>> {
    let brief = headers.get("brief").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    blocking(move || Ok(Json(agent.status(brief)))).await
}
