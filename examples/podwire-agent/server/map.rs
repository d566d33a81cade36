//! `/v1/map`.

use axum::Json;
use axum::extract::State;
use podwire::ErrorKind;
use podwire::api::{BpfMap, BpfMapList};

use super::Node;
use super::reply::{Named, Refusal, Reply, blocking};

pub(super) async fn list(State(agent): Node) -> Reply<Json<BpfMapList>> {
    blocking(move || Ok(Json(BpfMapList::all(&agent.datapath)?))).await
}

pub(super) async fn get(State(agent): Node, Named(name): Named) -> Reply<Json<BpfMap>> {
    blocking(move || match BpfMap::of(&agent.datapath, &name) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Refusal::not_found()),
        result => Ok(Json(result?)),
    })
    .await
}
