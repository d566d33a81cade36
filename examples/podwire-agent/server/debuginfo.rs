//! `/v1/debuginfo`.

use std::collections::BTreeMap;
use std::fs;

use axum::Json;
use axum::extract::State;
use podwire::Labels;
use podwire::api::{DebugInfo, Endpoint, Policy};
use serde_json::Value;

use super::Node;
use super::reply::{Reply, blocking};

pub(super) async fn get(State(agent): Node) -> Reply<Json<DebugInfo>> {
    blocking(move || {
        let node = agent.datapath.node();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let settings = agent.settings.as_map(&node);
        let trimmed = |path| fs::read_to_string(path).ok().map(|text: String| text.trim_end().to_owned());
        let endpoints = agent.datapath.endpoints().list();
        let subsystem = BTreeMap::from([
            ("node".to_owned(), serde_json::to_string_pretty(&*node).unwrap_or_default()),
            ("metrics".to_owned(), agent.metrics.text()),
        ]);
        Ok(Json(DebugInfo {
            cilium_memory_map: trimmed("/proc/self/maps"),
            cilium_status: Some(agent.status(false)),
            cilium_version: Some(crate::agent::version()),
            endpoint_list: endpoints.iter().map(|endpoint| Endpoint::of(&agent.datapath, endpoint)).collect(),
            policy: Policy::of(agent.datapath.policy(), &Labels::new())?,
            environment_variables: settings.iter().map(|(name, value)| format!("{name}:{}", text(value))).collect(),
            kernel_version: trimmed("/proc/sys/kernel/osrelease"),
            subsystem,
            ..DebugInfo::default()
        }))
    })
    .await
}
