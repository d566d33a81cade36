//! `/v1/cluster/nodes`.

use axum::Json;
use axum::extract::State;
use podwire::api::ClusterNodes;

use super::Node;

pub(super) async fn get(State(agent): Node) -> Json<ClusterNodes> {
    Json(ClusterNodes::from(&*agent.datapath.node()))
}
