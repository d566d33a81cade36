//! Every model reads what an agent of version 1.19 sends, loses none of it, and writes it back the same.
#![cfg(feature = "api")]

use std::fs;
use std::path::Path;

use podwire::api::{
    BpfMap, BpfMapList, ClusterNodes, DaemonConfiguration, DaemonConfigurationSpec, DebugInfo, Endpoint,
    EndpointBatchDeleteRequest, EndpointChangeRequest, EndpointConfigurationStatus, EndpointHealth,
    EndpointStatusChange, Identity, IdentityEndpoints, IpListEntry, IpamResponse, LabelConfiguration, Metric, Policy,
    SelectorIdentityMapping, StatusResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What the model makes of the text, as JSON again.
fn through<T: Serialize + DeserializeOwned>(text: &str) -> Result<Value, serde_json::Error> {
    let model: T = serde_json::from_str(text)?;
    serde_json::to_value(model)
}

/// A fixture's name up to the first dot says which model it belongs to.
fn through_named(model: &str, text: &str) -> Result<Value, serde_json::Error> {
    match model {
        "config" => through::<DaemonConfiguration>(text),
        "config-spec" => through::<DaemonConfigurationSpec>(text),
        "ipam" => through::<IpamResponse>(text),
        "endpoint" => through::<Endpoint>(text),
        "endpoint-list" => through::<Vec<Endpoint>>(text),
        "endpoint-change" => through::<EndpointChangeRequest>(text),
        "endpoint-delete" => through::<EndpointBatchDeleteRequest>(text),
        "endpoint-health" => through::<EndpointHealth>(text),
        "endpoint-log" => through::<Vec<EndpointStatusChange>>(text),
        "endpoint-labels" => through::<LabelConfiguration>(text),
        "endpoint-config" => through::<EndpointConfigurationStatus>(text),
        "status" => through::<StatusResponse>(text),
        "identity-list" => through::<Vec<Identity>>(text),
        "identity-endpoints" => through::<Vec<IdentityEndpoints>>(text),
        "ip-list" => through::<Vec<IpListEntry>>(text),
        "map" => through::<BpfMap>(text),
        "map-list" => through::<BpfMapList>(text),
        "policy" => through::<Policy>(text),
        "selectors" => through::<Vec<SelectorIdentityMapping>>(text),
        "metrics" => through::<Vec<Metric>>(text),
        "nodes" => through::<ClusterNodes>(text),
        "debuginfo" => through::<DebugInfo>(text),
        other => panic!("no model for fixtures named {other}"),
    }
}

/// JSON does not tell 4 from 4.0.
fn with_plain_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().map_or(Value::Number(number), Value::from),
        Value::Array(items) => items.into_iter().map(with_plain_numbers).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, with_plain_numbers(value))).collect(),
        other => other,
    }
}

#[test]
fn models_lose_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/api");
    let mut seen = 0;
    for entry in fs::read_dir(&folder).expect("the fixtures are part of the crate") {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("a readable fixture");
        let expected = serde_json::from_str(&text).unwrap_or_else(|cause| panic!("{name}: {cause}"));
        let model = name.split('.').next().expect("split yields at least one");
        let got = through_named(model, &text).unwrap_or_else(|cause| panic!("{name}: {cause}"));
        assert_eq!(with_plain_numbers(got), with_plain_numbers(expected), "{name}");
        seen += 1;
    }
    assert!(seen >= 25, "only {seen} fixtures");
}

#[test]
fn sparse_answers_are_read() {
    for (model, text) in [
        ("config", "{}"),
        ("config", r#"{"status":{"addressing":{"ipv4":{},"ipv6":{}},"datapathMode":"veth","deviceMTU":1500}}"#),
        ("status", "{}"),
        ("endpoint", "{}"),
        ("endpoint-list", r#"[{"id":7}]"#),
        ("endpoint-health", r#"{"overallHealth":"OK"}"#),
        ("ipam", r#"{"address":{"ipv4":"10.0.1.132"},"host-addressing":{"ipv4":{"ip":"10.0.1.215"}},"ipv4":{}}"#),
        ("map", r#"{"path":"/sys/fs/bpf/tc/globals/cilium_metrics"}"#),
        ("map-list", r#"{"maps":null}"#),
    ] {
        through_named(model, text).unwrap_or_else(|cause| panic!("{model} {text}: {cause}"));
    }
}

#[test]
fn empty_texts_count_as_absent() {
    let request = r#"{"addressing":{"ipv4":"","ipv6":"fd00::7"},"mac":"","container-id":"","state":"ready"}"#;
    let got = through::<EndpointChangeRequest>(request).expect("empty texts are accepted");
    assert_eq!(got, serde_json::json!({"addressing": {"ipv6": "fd00::7"}, "state": "ready"}));
}

#[test]
fn nonsense_is_refused_by_field() {
    for (text, reason) in [
        (r#"{"mac":"8a:65"}"#, "8a:65"),
        (r#"{"addressing":{"ipv4":"fd00::1"}}"#, "fd00::1"),
        (r#"{"addressing":{"ipv6":"300.1.1.1"}}"#, "300.1.1.1"),
        (r#"{"labels":"k8s:a=b"}"#, "invalid type: string"),
        (r#"{"interface-index":"seven"}"#, "invalid type: string"),
        (r#"{"id":1"#, "EOF"),
    ] {
        let error = match through::<EndpointChangeRequest>(text) {
            Err(error) => error.to_string(),
            Ok(value) => panic!("{text} became {value}"),
        };
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn what_a_newer_agent_adds_is_kept() {
    let text = r#"{"status":{"deviceMTU":1500,"novelty":{"a":[1,2]}}}"#;
    let got = through::<DaemonConfiguration>(text).expect("unknown fields are accepted");
    assert_eq!(got["status"]["novelty"], serde_json::json!({"a": [1, 2]}));
    let text = r#"[{"id":7,"status":{"state":"meditating"}}]"#;
    let got = through::<Vec<Endpoint>>(text).expect("unknown states are accepted");
    assert_eq!(got[0]["status"]["state"], "meditating");
}

#[test]
fn a_warning_hides_nothing_that_is_worse() {
    use podwire::api::{Status, StatusState};
    for (before, after, text) in [
        (StatusState::Ok, StatusState::Warning, "conntrack: fails"),
        (StatusState::Warning, StatusState::Warning, "before; conntrack: fails"),
        (StatusState::Failure, StatusState::Failure, "before; conntrack: fails"),
    ] {
        let mut status = StatusResponse { cilium: Some(Status::new(before, "before")), ..StatusResponse::default() };
        status.warn("conntrack: fails");
        assert_eq!(status.cilium, Some(Status::new(after, text)));
    }
}
