//! `/v1/config`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use podwire::api::{DaemonConfiguration, DaemonConfigurationSpec, DaemonConfigurationStatus};

use podwire::policy::EnforcementMode;

use super::Node;
use super::reply::{Refusal, Reply, Sent, blocking};
use crate::agent::Agent;

pub(super) async fn get(State(agent): Node) -> Reply<Json<DaemonConfiguration>> {
    blocking(move || {
        let spec = spec(&agent);
        let status = DaemonConfigurationStatus {
            daemon_configuration_map: agent.settings.as_map(&agent.datapath.node()),
            node_monitor: Some(agent.monitor.status()),
            realized: Some(spec.clone()),
            ..DaemonConfigurationStatus::from(&*agent.datapath)
        };
        Ok(Json(DaemonConfiguration { spec, status }))
    })
    .await
}

pub(super) async fn patch(State(agent): Node, Sent(wanted): Sent<DaemonConfigurationSpec>) -> Reply<()> {
    blocking(move || {
        let mode = wanted.policy_enforcement.map(|mode| mode.parse::<EnforcementMode>()).transpose()?;
        let options = agent.options.change(&wanted.options, &agent);
        options.map_err(|error| Refusal::from(error).with_status(400))?;
        match mode.filter(|mode| *mode != agent.datapath.policy().mode()) {
            Some(mode) => {
                agent.datapath.policy().set_mode(mode)?;
                log::info!("policy is enforced {mode} now");
                Ok(())
            }
            None => Ok(()),
        }
    })
    .await
}

fn spec(agent: &Arc<Agent>) -> DaemonConfigurationSpec {
    DaemonConfigurationSpec {
        options: agent.options.all(),
        policy_enforcement: Some(agent.datapath.policy().mode().to_string()),
    }
}
