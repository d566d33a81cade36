//! `/v1/healthz`.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use podwire::api::StatusResponse;

use super::Node;
use super::reply::{Reply, blocking, header_flag};

/// The header `brief` asks for the agent as a whole only.
pub(super) async fn healthz(State(agent): Node, headers: HeaderMap) -> Reply<Json<StatusResponse>> {
    let brief = header_flag(&headers, "brief")?;
    blocking(move || Ok(Json(agent.status(brief)))).await
}
