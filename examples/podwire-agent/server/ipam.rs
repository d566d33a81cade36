//! `/v1/ipam`.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use podwire::ErrorKind;
use podwire::api::{DeviceSettings, IpamResponse};
use podwire::endpoint::EndpointRef;
use podwire::ipam::{Families, Lifetime};

use super::Node;
use super::reply::{Asked, NOT_ONE_OF, Named, Refusal, Reply, blocking, created, header_flag};

/// How long an allocation that expires waits for its endpoint.
const CLAIM_PERIOD: Duration = Duration::from_secs(600);
/// Whose an address is when nobody says it.
const NOBODY: &str = "unknown";

pub(super) async fn allocate(State(agent): Node, asked: Asked, headers: HeaderMap) -> Reply<Response> {
    let families = match asked.one("family") {
        None => Families::All,
        Some("ipv4") => Families::Ipv4,
        Some("ipv6") => Families::Ipv6,
        Some(_) => {
            return Err(Refusal::coded(422, NOT_ONE_OF, "family in query should be one of [ipv4 ipv6]"));
        }
    };
    let (expires, devices) = (header_flag(&headers, "expiration")?, header_flag(&headers, "device-settings")?);
    let lifetime = if expires { Lifetime::UnlessClaimed(CLAIM_PERIOD) } else { Lifetime::Permanent };
    let owner = asked.one("owner").unwrap_or(NOBODY).to_owned();
    blocking(move || {
        let ipam = agent.datapath.ipam();
        let allocation = ipam.allocate_next(&owner, families, lifetime).map_err(|error| match error.kind() {
            ErrorKind::Exhausted => Refusal::from(error).with_status(502),
            _ => error.into(),
        })?;
        let device_settings = devices.then(|| DeviceSettings::from(&*agent.datapath));
        Ok(created(&IpamResponse { device_settings, ..IpamResponse::new(&allocation, ipam) }))
    })
    .await
}

pub(super) async fn allocate_address(State(agent): Node, name: Named, asked: Asked) -> Reply<()> {
    let address = parse(&name)?;
    let owner = asked.one("owner").unwrap_or(NOBODY).to_owned();
    blocking(move || match agent.datapath.ipam().allocate(address, &owner, Lifetime::Permanent) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Refusal::from(error).with_status(409)),
        result => Ok(result.map(drop)?),
    })
    .await
}

/// An address that is not allocated counts as released: whoever asks twice gets what it wants.
pub(super) async fn release(State(agent): Node, name: Named) -> Reply<()> {
    let address = parse(&name)?;
    blocking(move || {
        let reference = match address {
            IpAddr::V4(address) => EndpointRef::Ipv4(address),
            IpAddr::V6(address) => EndpointRef::Ipv6(address),
        };
        if let Some(endpoint) = agent.datapath.endpoints().find(&reference).first() {
            return Err(Refusal::plain(500, format!("address {address} is in use by endpoint {}", endpoint.id())));
        }
        match agent.datapath.ipam().release(address) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => Ok(result.map(drop)?),
        }
    })
    .await
}

fn parse(Named(text): &Named) -> Reply<IpAddr> {
    text.parse().map_err(|_| Refusal::plain(400, format!("Invalid IP address: {text}")))
}
