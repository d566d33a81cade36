//! Endpoints as the API shows them.

use crate::api::{
    AddressPair, Endpoint, EndpointConfigurationSpec, EndpointHealth, EndpointHealthStatus, EndpointIdentifiers,
    EndpointNetworking, EndpointState, EndpointStatus, EndpointStatusChange, Identity, LabelConfiguration,
    LabelConfigurationSpec, LabelConfigurationStatus, Port, timestamp,
};
use crate::endpoint::{self, EndpointRecord, LogEntry, NamedPort};
use crate::tables::Protocol;

/// The pool that all addresses are from.
pub(super) const POOL: &str = "default";
/// The identity's label of an endpoint without labels.
const INIT_LABEL: &str = "reserved:init";

impl From<endpoint::EndpointState> for EndpointState {
    fn from(state: endpoint::EndpointState) -> Self {
        Self::from(state.name().to_owned())
    }
}

impl From<&LogEntry> for EndpointStatusChange {
    fn from(entry: &LogEntry) -> Self {
        Self {
            code: Some(if entry.ok { "OK" } else { "Failure" }.to_owned()),
            message: Some(entry.message.clone()),
            state: Some(entry.state.into()),
            timestamp: Some(timestamp(entry.time)),
        }
    }
}

impl From<&endpoint::Endpoint> for Endpoint {
    /// All but its policy.
    fn from(endpoint: &endpoint::Endpoint) -> Self {
        let spec = EndpointConfigurationSpec {
            label_configuration: Some(user_labels(&endpoint.record)),
            options: Default::default(),
        };
        Self { id: Some(endpoint.id()), spec: Some(spec.clone()), status: Some(status(endpoint, spec)) }
    }
}

fn status(endpoint: &endpoint::Endpoint, realized: EndpointConfigurationSpec) -> EndpointStatus {
    let record = &endpoint.record;
    EndpointStatus {
        controllers: Vec::new(),
        external_identifiers: Some(identifiers(record)),
        health: Some(EndpointHealth::new(endpoint.state, &[], None, &[])),
        identity: Some(Identity::of(record)),
        labels: Some(LabelConfiguration::from(record).status),
        log: endpoint.log.last().map(EndpointStatusChange::from).into_iter().collect(),
        named_ports: record.named_ports.iter().map(Port::from).collect(),
        networking: Some(networking(record)),
        policy: None,
        realized: Some(realized),
        state: Some(endpoint.state.into()),
    }
}

fn identifiers(record: &EndpointRecord) -> EndpointIdentifiers {
    let attachment = record.container_id.as_ref().map(|container| format!("{container}:{}", record.interface));
    let (namespace, pod) = record.pod().unzip();
    EndpointIdentifiers {
        cni_attachment_id: attachment,
        container_id: record.container_id.clone(),
        container_name: None,
        k8s_namespace: namespace.map(str::to_owned),
        k8s_pod_name: pod.map(str::to_owned),
        pod_name: Some(record.name.clone()),
    }
}

fn networking(record: &EndpointRecord) -> EndpointNetworking {
    let addressing = AddressPair {
        ipv4: record.ipv4,
        ipv4_pool_name: record.ipv4.map(|_| POOL.to_owned()),
        ipv6: record.ipv6,
        ipv6_pool_name: record.ipv6.map(|_| POOL.to_owned()),
        ..AddressPair::default()
    };
    EndpointNetworking {
        addressing: vec![addressing],
        container_interface_name: Some(record.interface.clone()),
        host_addressing: None,
        host_mac: Some(record.node_mac),
        interface_index: record.ifindex.get(),
        interface_name: Some(record.device.clone()),
        mac: Some(record.mac),
    }
}

impl From<&NamedPort> for Port {
    fn from(named: &NamedPort) -> Self {
        let protocol = Some(Protocol::new(named.protocol).to_string());
        Self { name: named.name.clone(), port: named.port, protocol }
    }
}

fn user_labels(record: &EndpointRecord) -> LabelConfigurationSpec {
    LabelConfigurationSpec { user: record.labels.iter().map(ToString::to_string).collect() }
}

pub(super) fn identity_labels(record: &EndpointRecord) -> Vec<String> {
    match user_labels(record).user {
        labels if labels.is_empty() => vec![INIT_LABEL.to_owned()],
        labels => labels,
    }
}

impl From<&EndpointRecord> for LabelConfiguration {
    fn from(record: &EndpointRecord) -> Self {
        let status = LabelConfigurationStatus {
            realized: user_labels(record),
            security_relevant: identity_labels(record),
            ..LabelConfigurationStatus::default()
        };
        Self { spec: user_labels(record), status }
    }
}

impl EndpointHealth {
    /// The health of an endpoint in this state of which a check found these faults, whose policy in force is for this reason not
    /// what it should be, and does not all that its rules say.
    pub fn new(
        state: endpoint::EndpointState,
        faults: &[String],
        policy_fault: Option<&str>,
        warnings: &[String],
    ) -> Self {
        use EndpointHealthStatus::{Bootstrap, Disabled, Failure, Ok, Pending, Warning};
        use endpoint::EndpointState as State;
        let bpf = match state {
            State::Ready | State::NotReady if !faults.is_empty() => Failure,
            State::Ready => Ok,
            State::NotReady => Warning,
            State::WaitingForIdentity => Bootstrap,
            State::Restoring | State::Regenerating => Pending,
            State::Disconnecting | State::Disconnected => Disabled,
        };
        let policy = match bpf {
            Ok | Failure | Warning if policy_fault.is_some() => Failure,
            Ok | Failure if !warnings.is_empty() => Warning,
            Failure => Ok,
            ref bpf => bpf.clone(),
        };
        let worst = if bpf == Ok || policy == Failure { &policy } else { &bpf };
        let connected = !matches!(state, State::Disconnecting | State::Disconnected);
        let overall_health = Some(worst.clone());
        let policy_fault = policy_fault.map(str::to_owned);
        let reasons = faults.iter().cloned().chain(policy_fault).chain(warnings.iter().cloned()).collect();
        Self { overall_health, bpf: Some(bpf), connected, policy: Some(policy), reasons }
    }

    /// The same where no packet passes its device, for this reason. Of an endpoint that is on its way out, that is no news.
    pub fn unconnected(mut self, reason: Option<String>) -> Self {
        let Some(reason) = reason.filter(|_| self.connected) else { return self };
        self.connected = false;
        if matches!(self.bpf, Some(EndpointHealthStatus::Ok | EndpointHealthStatus::Warning)) {
            self.bpf = Some(EndpointHealthStatus::Failure);
            self.overall_health = Some(EndpointHealthStatus::Failure);
        }
        if !self.reasons.contains(&reason) {
            self.reasons.insert(0, reason);
        }
        self
    }
}
