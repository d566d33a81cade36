//! `/v1/identity`.

use axum::Json;
use axum::extract::State;
use podwire::SecurityId;
use podwire::api::{Identity, IdentityEndpoints};

use super::Node;
use super::reply::{MaybeSent, Named, Refusal, Reply};

/// The label of the number that stands for what is not known. Clients ask for it: in policies it stands for any peer.
const UNKNOWN: &str = "reserved:unknown";

/// The body may hold labels, all of which the identities must have.
pub(super) async fn list(State(agent): Node, wanted: MaybeSent<Vec<String>>) -> Reply<Json<Vec<Identity>>> {
    let mut identities = Identity::all(&agent.datapath);
    if let Some(wanted) = wanted.0.filter(|wanted| !wanted.is_empty()) {
        identities.retain(|identity| wanted.iter().all(|label| identity.labels.contains(label)));
        if identities.is_empty() {
            return Err(Refusal::not_found());
        }
    }
    Ok(Json(identities))
}

pub(super) async fn endpoints(State(agent): Node) -> Json<Vec<IdentityEndpoints>> {
    Json(IdentityEndpoints::all(&agent.datapath))
}

pub(super) async fn get(State(agent): Node, Named(text): Named) -> Reply<Json<Identity>> {
    let id: SecurityId = text.parse().map_err(|error| Refusal::from(error).with_status(400))?;
    if id == SecurityId::UNKNOWN {
        return Ok(Json(Identity { id, labels: vec![UNKNOWN.to_owned()], labels_sha256: None }));
    }
    Identity::get(&agent.datapath, id).map(Json).ok_or_else(Refusal::not_found)
}
