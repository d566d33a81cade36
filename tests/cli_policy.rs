//! Identities and policies on the command line, against a server that answers with what an agent of version 1.19 sent.
#![cfg(feature = "programs")]

#[path = "common/example.rs"]
mod example;
#[path = "common/fake_agent.rs"]
mod fake_agent;

use fake_agent::{FakeAgent, stderr};
use serde_json::Value;

fn fails(agent: &FakeAgent, args: &[&str], code: i32, reason: &str) {
    let output = agent.run(args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    assert!(text.contains(reason) && text.trim_end().lines().count() == 1, "{args:?}: {text}");
}

#[test]
fn identities_are_listed_found_and_counted() {
    let agent = FakeAgent::new(&[
        ("/v1/identity", "identity-list.all"),
        ("/v1/identity/endpoints", "identity-endpoints.all"),
        ("/v1/identity/16403", r#"json:{"id":16403,"labels":["reserved:init","k8s:app=web"]}"#),
    ]);
    let one = "\
ID      LABELS
16403   k8s:app=web
        k8s:io.cilium.k8s.policy.cluster=default
        k8s:io.kubernetes.pod.namespace=default
";
    assert_eq!(agent.prints(&["identity", "list"]), one);
    assert_eq!(
        agent.prints(&["identity", "get", "16403"]),
        "ID      LABELS\n16403   k8s:app=web\n        reserved:init\n"
    );
    let json: Value = serde_json::from_str(&agent.prints(&["identity", "get", "16403", "-o", "json"])).expect("JSON");
    assert_eq!(json, serde_json::json!([{"id": 16403, "labels": ["reserved:init", "k8s:app=web"]}]));
    let counted = "\
ID      LABELS                                     REFCOUNT
1       reserved:host                              1
16403   k8s:app=web                                1
        k8s:io.cilium.k8s.policy.cluster=default
        k8s:io.kubernetes.pod.namespace=default
42491   k8s:app=client                             1
        k8s:io.cilium.k8s.policy.cluster=default
        k8s:io.kubernetes.pod.namespace=default
";
    assert_eq!(agent.prints(&["identity", "list", "--endpoints"]), counted);
    for args in [&["identity", "get", "--label", "k8s:app=web"][..], &["identity", "list", "k8s:app=web"]] {
        assert_eq!(agent.prints(args), one, "{args:?}");
        assert_eq!(agent.seen().last().expect("a request"), r#"GET /v1/identity ["k8s:app=web"]"#);
    }
    fails(&agent, &["identity", "get", "60000"], 1, "cannot get identity 60000: GET /v1/identity/60000: not found");
    fails(&agent, &["identity", "get", "web"], 2, "not a number");
    fails(&agent, &["identity", "get"], 2, "required");
}
