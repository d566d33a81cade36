//! `/v1/metrics`, and how long each request takes.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use podwire::api::Metric;

use super::Node;
use super::reply::{Reply, blocking};
use crate::agent::Agent;

pub(super) async fn list(State(agent): Node) -> Reply<Json<Vec<Metric>>> {
    blocking(move || Ok(Json(agent.metrics.values()))).await
}

/// Notes the request's duration under the path's pattern.
pub(super) async fn observe(State(agent): State<Arc<Agent>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    let answer = next.run(request).await;
    agent.metrics.answered(method.as_str(), &path, answer.status().as_u16(), began.elapsed());
    answer
}
