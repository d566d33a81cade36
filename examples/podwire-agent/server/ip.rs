//! `/v1/ip`.

use axum::Json;
use axum::extract::State;
use ipnetwork::IpNetwork;
use podwire::api::IpListEntry;

use super::Node;
use super::reply::{Asked, Refusal, Reply};

/// `cidr` narrows the list to what lies within a prefix.
pub(super) async fn list(State(agent): Node, asked: Asked) -> Reply<Json<Vec<IpListEntry>>> {
    let mut entries = IpListEntry::all(&agent.datapath);
    if let Some(text) = asked.one("cidr") {
        let within: IpNetwork = match text.parse() {
            Ok(cidr) if text.contains('/') => cidr,
            _ => return Err(Refusal::plain(400, format!("invalid CIDR address: {text}"))),
        };
        entries.retain(|entry| entry.cidr.prefix() >= within.prefix() && within.contains(entry.cidr.ip()));
        if entries.is_empty() {
            return Err(Refusal::not_found());
        }
    }
    Ok(Json(entries))
}
