//! `/v1/identity`.

use axum::Json;
use axum::extract::State;
use podwire::api::{Identity, IdentityEndpoints};

use super::Node;
use super::reply::{Named, Refusal, Reply};

pub(super) async fn list(State(agent): Node) -> Json<Vec<Identity>> {
    Json(Identity::all(&agent.datapath))
}

pub(super) async fn endpoints(State(agent): Node) -> Json<Vec<IdentityEndpoints>> {
    Json(IdentityEndpoints::all(&agent.datapath))
}

pub(super) async fn get(State(agent): Node, Named(text): Named) -> Reply<Json<Identity>> {
    let number: u32 = text.parse().map_err(|_| Refusal::plain(400, format!("identity {text:?} is no number")))?;
    let found = Identity::all(&agent.datapath).into_iter().find(|identity| identity.id.get() == number);
    found.map(Json).ok_or_else(Refusal::not_found)
}
