//! The node's status and its maps as the API shows them.

use crate::api::{
    BpfMap, BpfMapEntry, BpfMapList, BpfMapProperties, BpfMapStatus, ClockSource, ClusterStatus, CniChaining,
    IdentityRange, IpamStatus, MapAction, Routing, Status, StatusResponse, StatusState,
};
use crate::tables::PolicyMap;
use crate::{Datapath, ErrorKind, Health, MapRow, Result, SecurityId};

impl StatusResponse {
    /// Looks at the kernel and says how the node does. `version` is what the agent calls itself. What only the agent
    /// knows (recurring work, the monitor) is its own to add.
    pub fn new(datapath: &Datapath, version: &str) -> Self {
        let node = datapath.node();
        let agent = agent(&datapath.status(), format!("{version} ({} endpoints)", datapath.endpoints().len()));
        let cluster = ClusterStatus { self_: Some(node.name.clone()), ..ClusterStatus::default() };
        Self {
            attach_mode: Some(if node.attach_mode == "tcx" { "tcx" } else { "tc" }.to_owned()),
            bpf_maps: Some(map_sizes(datapath)),
            cilium: Some(agent),
            clock_source: Some(ClockSource { hertz: 0, mode: Some("jiffies".to_owned()) }),
            cluster: Some(cluster),
            cni_chaining: Some(CniChaining { mode: Some("none".to_owned()) }),
            datapath_mode: Some("veth".to_owned()),
            identity_range: Some(IdentityRange {
                max_identity: SecurityId::LAST_OF_LABELS.get(),
                min_identity: SecurityId::FIRST_OF_LABELS.get(),
            }),
            ipam: Some(IpamStatus::from(datapath.ipam())),
            policy: Some(policy(datapath)),
            routing: Some(Routing {
                inter_host_routing_mode: Some("Native".to_owned()),
                intra_host_routing_mode: Some("BPF".to_owned()),
                tunnel_protocol: None,
            }),
            ..Self::default()
        }
    }

    /// Only whether the agent as a whole is well.
    pub fn brief(datapath: &Datapath, version: &str) -> Self {
        let agent = agent(&datapath.status(), version.to_owned());
        Self { cilium: Some(agent), cluster: Some(ClusterStatus::default()), ..Self::default() }
    }
}

/// Rules, mode, and at how many endpoints they are enforced. Why they are not at single endpoints is among the agent's faults.
fn policy(datapath: &Datapath) -> Status {
    let policy = datapath.policy();
    let realized = policy.realized_all();
    let enforced = realized.iter().filter(|policy| policy.ingress || policy.egress).count();
    let audit = if datapath.policy_audit() { ", audited only" } else { "" };
    let (rules, revision, mode) = (policy.rules(), policy.revision(), policy.mode());
    let endpoints = realized.len();
    let text = format!(
        "revision {revision}, rules: {rules}, mode: {mode}{audit}; enforced at {enforced} of {endpoints} endpoints"
    );
    match realized.iter().filter(|policy| policy.error.is_some()).count() {
        0 => Status::new(StatusState::Ok, text),
        failing => Status::new(StatusState::Warning, format!("{text}, failing at {failing}")),
    }
}

/// Broken, which says that nobody should be sent here, only for what concerns every endpoint.
fn agent(status: &crate::Status, well: String) -> Status {
    let (mut state, mut ill) = (StatusState::Ok, Vec::new());
    for (name, health) in &status.parts {
        let (found, reason) = match health {
            Health::Ok => continue,
            Health::Impaired(reason) => (StatusState::Warning, reason),
            Health::Degraded(reason) => (StatusState::Failure, reason),
        };
        state = state.max(found);
        ill.push(format!("{name}: {reason}"));
    }
    Status::new(state, if ill.is_empty() { well } else { ill.join("; ") })
}

fn map_sizes(datapath: &Datapath) -> BpfMapStatus {
    let mut maps = datapath.maps().unwrap_or_default();
    // Policies of endpoints are as large as their content.
    maps.retain(|map| !map.name.starts_with(PolicyMap::NAME_PREFIX));
    let maps = maps.into_iter().map(|map| BpfMapProperties { name: map.name, size: map.max_entries });
    BpfMapStatus { dynamic_size_ratio: 0.0, maps: maps.collect() }
}

impl From<MapRow> for BpfMapEntry {
    fn from(row: MapRow) -> Self {
        let action = match row.state {
            "insert" => MapAction::Insert,
            "delete" => MapAction::Delete,
            _ => MapAction::Sync,
        };
        let last_error = (!row.error.is_empty()).then_some(row.error);
        Self { desired_action: Some(action), key: row.key, last_error, value: row.value }
    }
}

impl BpfMap {
    /// One map of a node.
    ///
    /// # Errors
    ///
    /// `NotFound` for a map that the node does not have.
    pub fn of(datapath: &Datapath, name: &str) -> Result<Self> {
        let cache = match datapath.map_content(name) {
            Ok(rows) => Some(rows.into_iter().map(BpfMapEntry::from).collect()),
            Err(error) if error.kind() == ErrorKind::Unsupported => None,
            Err(error) => return Err(error),
        };
        Ok(Self { cache, path: datapath.map_pin(name).display().to_string() })
    }
}

impl BpfMapList {
    /// All maps of a node.
    pub fn all(datapath: &Datapath) -> Result<Self> {
        let maps = datapath.maps()?;
        let maps = maps.iter().map(|map| BpfMap::of(datapath, &map.name)).collect::<Result<_>>()?;
        Ok(Self { maps })
    }
}
