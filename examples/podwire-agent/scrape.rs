//! Metrics over TCP, for Prometheus.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use podwire::{Error, Result};
use tokio::net::TcpListener;

use crate::agent::Agent;

/// What Prometheus expects of the text format that the encoder writes.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Takes the address; who connects waits until it is served.
pub(crate) fn listen(address: SocketAddr) -> Result<std::net::TcpListener> {
    std::net::TcpListener::bind(address)
        .map_err(|cause| Error::invalid("metrics-addr", address.to_string(), format!("can't listen there: {cause}")))
}

/// The same for the runtime.
pub(crate) fn served(listener: std::net::TcpListener) -> Result<TcpListener> {
    let failed = |cause| Error::system("listen for", "metrics", cause);
    listener.set_nonblocking(true).map_err(failed)?;
    TcpListener::from_std(listener).map_err(failed)
}

pub(crate) async fn serve(agent: Arc<Agent>, listener: TcpListener) {
    let router = Router::new().route("/metrics", get(metrics)).with_state(agent);
    if let Err(cause) = axum::serve(listener, router).await {
        log::error!("metrics are not served any more: {cause}");
    }
}

async fn metrics(State(agent): State<Arc<Agent>>) -> Response {
    match tokio::task::spawn_blocking(move || agent.metrics.text()).await {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(cause) => {
            log::error!("metrics can't be collected: {cause}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
