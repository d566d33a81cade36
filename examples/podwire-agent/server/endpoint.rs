//! `/v1/endpoint`.

use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use podwire::api::{
    Endpoint, EndpointBatchDeleteRequest, EndpointChangeRequest, EndpointConfigurationSpec,
    EndpointConfigurationStatus, EndpointHealth, EndpointKey, EndpointState, EndpointStatusChange, LabelConfiguration,
};
use podwire::endpoint::{self, EndpointRef, NamedPort};
use podwire::{EndpointId, Error, ErrorKind, Label, Labels};
use serde::Deserialize;

use super::Node;
use super::reply::{Brevity, MaybeSent, NOT_ONE_OF, Named, REQUIRED, Refusal, Reply, Sent, blocking, created};
use crate::agent::Agent;
use crate::options::{AUDIT, parse_option, text_of};

/// The body may hold labels, all of which the endpoints must have.
pub(super) async fn list(State(agent): Node, wanted: MaybeSent<Vec<String>>) -> Reply<Json<Vec<Endpoint>>> {
    blocking(move || {
        let mut endpoints = agent.datapath.endpoints().list();
        if let Some(wanted) = wanted.0.filter(|wanted| !wanted.is_empty()) {
            let wanted = Labels::parse(&wanted)?;
            endpoints.retain(|endpoint| wanted.iter().all(|label| endpoint.record.labels.contains(label)));
            if endpoints.is_empty() {
                return Err(Refusal::not_found());
            }
        }
        Ok(Json(endpoints.iter().map(|endpoint| Endpoint::of(&agent.datapath, endpoint)).collect()))
    })
    .await
}

pub(super) async fn get(State(agent): Node, name: Named) -> Reply<Json<Endpoint>> {
    blocking(move || Ok(Json(Endpoint::of(&agent.datapath, &one(&agent, &name)?)))).await
}

/// Creates an endpoint, which is in service when this answers.
pub(super) async fn put(
    State(agent): Node,
    name: Named,
    brevity: Brevity,
    Sent(wanted): Sent<EndpointChangeRequest>,
) -> Reply<Response> {
    check_state(&wanted)?;
    if key(&name)? != EndpointKey::New {
        let message = format!("endpoint {:?}: the agent chooses the number: ask for cilium-local:0", name.0);
        return Err(Refusal::plain(400, message));
    }
    blocking(move || {
        let (netns, device) = (wanted.container_netns_path.clone(), wanted.interface_index);
        let spec = wanted.into_spec()?;
        let created_endpoint = agent.datapath.endpoints().create(spec);
        agent.metrics.regenerated(created_endpoint.as_ref().ok().map(|endpoint| &endpoint.timings));
        let endpoint = created_endpoint.map_err(|error| {
            let no_netns = netns.is_some_and(|path| !Path::new(&path).exists());
            let no_device = device > 0 && matches!(error, Error::Netlink { .. }) && error.kind() == ErrorKind::NotFound;
            // What the client has named is not there; anything else that is missing is none of its business.
            if no_netns || no_device { Refusal::from(error).with_status(400) } else { error.into() }
        })?;
        agent.monitor.endpoint("Endpoint created", &endpoint.record);
        Ok(match brevity {
            Brevity::Minimal => StatusCode::CREATED.into_response(),
            Brevity::Whole => created(&Endpoint::of(&agent.datapath, &endpoint)),
        })
    })
    .await
}

/// Adds labels, names ports where it is said how, and writes everything of the endpoint anew.
pub(super) async fn patch(State(agent): Node, name: Named, Sent(wanted): Sent<EndpointChangeRequest>) -> Reply<()> {
    check_state(&wanted)?;
    blocking(move || {
        let endpoint = one(&agent, &name)?;
        let labels = Labels::parse(&wanted.labels)?;
        let endpoints = agent.datapath.endpoints();
        let ports =
            wanted.named_ports.map(|ports| ports.iter().map(NamedPort::try_from).collect::<podwire::Result<_>>());
        let named = ports.transpose()?.map(|ports| endpoints.name_ports(endpoint.id(), ports));
        let result = match (labels.is_empty(), named) {
            (_, Some(Err(error))) => Err(error),
            (true, Some(named)) => named,
            (true, None) => return regenerate(&agent, endpoint.id()),
            (false, _) => endpoints.change_labels(endpoint.id(), &labels.iter().cloned().collect::<Vec<_>>(), &[]),
        };
        regenerated(&agent, result)
    })
    .await
}

pub(super) async fn delete(State(agent): Node, name: Named) -> Reply<()> {
    blocking(move || remove(&agent, &one(&agent, &name)?)).await
}

/// Removes all endpoints of a container.
pub(super) async fn delete_many(State(agent): Node, wanted: MaybeSent<EndpointBatchDeleteRequest>) -> Reply<()> {
    let Some(container) = wanted.0.unwrap_or_default().container_id else {
        return Err(Refusal::plain(400, "invalid container id"));
    };
    blocking(move || {
        let endpoints = agent.datapath.endpoints().find(&EndpointRef::ContainerId(container));
        if endpoints.is_empty() {
            return Err(Refusal::plain(404, "endpoints not found"));
        }
        endpoints.iter().try_for_each(|endpoint| remove(&agent, endpoint))
    })
    .await
}

/// Looks at the kernel.
pub(super) async fn healthz(State(agent): Node, name: Named) -> Reply<Json<EndpointHealth>> {
    blocking(move || {
        let endpoint = one(&agent, &name)?;
        let endpoints = agent.datapath.endpoints();
        let (unconnected, faults) = (endpoints.unconnected(endpoint.id())?, endpoints.check_wiring(endpoint.id())?);
        let policy_fault = agent.datapath.policy().problem(endpoint.id())?;
        for fault in faults.iter().chain(&policy_fault) {
            log::warn!("endpoint {} ({}): {fault}", endpoint.id(), endpoint.record.name);
        }
        let warnings = agent.datapath.policy().unnamed_ports_of(endpoint.id());
        let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        let health = EndpointHealth::new(endpoint.state, &faults, policy_fault.as_deref(), &warnings);
        Ok(Json(health.unconnected(unconnected)))
    })
    .await
}

/// Newest first.
pub(super) async fn log(State(agent): Node, name: Named) -> Reply<Json<Vec<EndpointStatusChange>>> {
    blocking(move || Ok(Json(one(&agent, &name)?.log.iter().rev().map(EndpointStatusChange::from).collect()))).await
}

pub(super) async fn labels(State(agent): Node, name: Named) -> Reply<Json<LabelConfiguration>> {
    blocking(move || Ok(Json(LabelConfiguration::from(&one(&agent, &name)?.record)))).await
}

/// A [`LabelConfigurationSpec`](podwire::api::LabelConfigurationSpec) without what is none: somebody who names the field wrong
/// would take all labels away. Cilium's clients leave it out, or send `null`, where that is what they want.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelsWanted {
    #[serde(default)]
    user: Option<Vec<String>>,
}

/// The labels sent are those that the endpoint has afterwards.
pub(super) async fn change_labels(State(agent): Node, name: Named, Sent(wanted): Sent<LabelsWanted>) -> Reply<()> {
    blocking(move || {
        let wanted = Labels::parse(wanted.user.unwrap_or_default())?;
        let endpoint = one(&agent, &name)?;
        let had = &endpoint.record.labels;
        let added: Vec<Label> = wanted.iter().filter(|label| !had.contains(label)).cloned().collect();
        let kept =
            |label: &Label| wanted.iter().any(|kept| (kept.source(), kept.key()) == (label.source(), label.key()));
        let removed: Vec<Label> = had.iter().filter(|label| !kept(label)).cloned().collect();
        regenerated(&agent, agent.datapath.endpoints().change_labels(endpoint.id(), &added, &removed))
    })
    .await
}

/// Options are those of the node, but for the audit of its policy.
pub(super) async fn config(State(agent): Node, name: Named) -> Reply<Json<EndpointConfigurationStatus>> {
    blocking(move || {
        let endpoint = one(&agent, &name)?;
        let mut options = agent.options.all();
        options.insert(AUDIT.to_owned(), text_of(endpoint.record.audit || agent.datapath.policy_audit()));
        let realized = EndpointConfigurationSpec { label_configuration: None, options };
        Ok(Json(EndpointConfigurationStatus { realized: Some(realized) }))
    })
    .await
}

pub(super) async fn change_config(
    State(agent): Node,
    name: Named,
    Sent(mut wanted): Sent<EndpointConfigurationSpec>,
) -> Reply<()> {
    blocking(move || {
        let endpoint = one(&agent, &name)?;
        let audit = wanted.options.remove(AUDIT).map(|value| parse_option(AUDIT, &value)).transpose()?;
        if let Some(option) = agent.options.difference(&wanted.options)?.first() {
            let message = format!("option {option:?} is the node's: change it by /v1/config");
            return Err(Refusal::plain(400, message));
        }
        let audited = endpoint.record.audit || agent.datapath.policy_audit();
        match audit.filter(|audit| *audit != audited) {
            None => Ok(()),
            Some(false) if agent.datapath.policy_audit() => {
                let message = format!("option {AUDIT:?} is on for the whole node: change it by /v1/config");
                Err(Refusal::plain(400, message))
            }
            Some(audit) => regenerated(&agent, agent.datapath.endpoints().set_audit(endpoint.id(), audit)),
        }
    })
    .await
}

fn key(Named(text): &Named) -> Reply<EndpointKey> {
    Ok(text.parse()?)
}

/// The endpoint that a path names.
fn one(agent: &Agent, name: &Named) -> Reply<endpoint::Endpoint> {
    let reference = EndpointRef::try_from(key(name)?)?;
    agent.datapath.endpoints().find(&reference).into_iter().next().ok_or_else(Refusal::not_found)
}

fn check_state(wanted: &EndpointChangeRequest) -> Reply<()> {
    match &wanted.state {
        None => Err(Refusal::coded(422, REQUIRED, "state in body is required")),
        Some(state) if state.is_known() => Ok(()),
        Some(_) => {
            let message = format!("state in body should be one of [{}]", EndpointState::TEXTS.join(" "));
            Err(Refusal::coded(422, NOT_ONE_OF, message))
        }
    }
}

/// Refused where the endpoint's policy is not in force, which writing everything else anew does not mend.
fn regenerate(agent: &Arc<Agent>, id: EndpointId) -> Reply<()> {
    regenerated(agent, agent.datapath.endpoints().regenerate(id))?;
    match agent.datapath.policy().problem(id)? {
        None => Ok(()),
        Some(problem) => Err(Refusal::plain(500, format!("all but its policy is written anew: {problem}"))),
    }
}

fn regenerated(agent: &Arc<Agent>, result: podwire::Result<endpoint::Endpoint>) -> Reply<()> {
    agent.metrics.regenerated(result.as_ref().ok().map(|endpoint| &endpoint.timings));
    agent.monitor.endpoint("Endpoint regenerated", &result?.record);
    Ok(())
}

fn remove(agent: &Agent, endpoint: &endpoint::Endpoint) -> Reply<()> {
    match agent.datapath.endpoints().delete(endpoint.id()) {
        Ok(removal) => {
            for missing in &removal.missing {
                log::info!("endpoint {} was incomplete: {missing}", endpoint.id());
            }
            agent.monitor.endpoint("Endpoint deleted", &removal.record);
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Refusal::not_found()),
        Err(error) => Err(error.into()),
    }
}
