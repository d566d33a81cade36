//! The API: which path leads where.

mod config;
mod debuginfo;
mod endpoint;
mod identity;
mod ip;
mod ipam;
mod map;
mod metrics;
mod monitor;
mod nodes;
mod policy;
mod reply;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

use crate::agent::Agent;

/// The agent, as handlers get it.
type Node = State<Arc<Agent>>;

/// Version 1 of the API.
pub(crate) fn router(agent: Arc<Agent>) -> Router {
    let endpoint = get(endpoint::get).put(endpoint::put).patch(endpoint::patch).delete(endpoint::delete);
    let policy = get(policy::get).put(policy::put).delete(policy::delete);
    let v1 = Router::new()
        .route("/healthz", get(status::healthz))
        .route("/config", get(config::get).patch(config::patch))
        .route("/ipam", post(ipam::allocate))
        .route("/ipam/{address}", post(ipam::allocate_address).delete(ipam::release))
        .route("/endpoint", get(endpoint::list).delete(endpoint::delete_many))
        .route("/endpoint/{id}", endpoint)
        .route("/endpoint/{id}/healthz", get(endpoint::healthz))
        .route("/endpoint/{id}/log", get(endpoint::log))
        .route("/endpoint/{id}/labels", get(endpoint::labels).patch(endpoint::change_labels))
        .route("/endpoint/{id}/config", get(endpoint::config).patch(endpoint::change_config))
        .route("/identity", get(identity::list))
        .route("/identity/endpoints", get(identity::endpoints))
        .route("/identity/{id}", get(identity::get))
        .route("/policy", policy.layer(DefaultBodyLimit::max(reply::LONGEST_DOCUMENT)))
        .route("/policy/rules", get(policy::rules))
        .route("/policy/trace", post(policy::trace).layer(DefaultBodyLimit::max(reply::LONGEST_DOCUMENT)))
        .route("/policy/selectors", get(policy::selectors))
        .route("/policy/subject-selectors", get(policy::subject_selectors))
        .route("/ip", get(ip::list))
        .route("/map", get(map::list))
        .route("/map/{name}", get(map::get))
        .route("/metrics", get(metrics::list))
        .route("/debuginfo", get(debuginfo::get))
        .route("/cluster/nodes", get(nodes::get))
        .route("/monitor", get(monitor::stream));
    let routes = Router::new()
        .nest("/v1", v1)
        .fallback(reply::no_such_path)
        .layer(from_fn_with_state(Arc::clone(&agent), metrics::observe))
        .layer(DefaultBodyLimit::max(reply::LONGEST_BODY))
        .with_state(agent);
    // Around the router as a whole, since only that adds the header that lists the methods allowed.
    Router::new().fallback_service(routes).layer(from_fn(reply::explain_methods))
}
