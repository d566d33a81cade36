//! Identities and policies on the command line, against a server that answers with what an agent of version 1.19 sent.
#![cfg(feature = "programs")]

#[path = "common/example.rs"]
mod example;
#[path = "common/fake_agent.rs"]
mod fake_agent;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Output, Stdio};
use std::thread;

use fake_agent::{FakeAgent, podwire, stderr};
use serde_json::{Value, json};

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
    assert_eq!(json, json!([{"id": 16403, "labels": ["reserved:init", "k8s:app=web"]}]));
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
    fails(&agent, &["identity", "get", "60000"], 1, "cannot get identity 60000: not found");
    fails(&agent, &["identity", "get", "web"], 2, "not a number");
    fails(&agent, &["identity", "get"], 2, "required");
}

const RULES: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n";

fn imports_from_input(agent: &FakeAgent, text: &str) -> Output {
    let mut command = podwire();
    command.arg("--socket").arg(&agent.socket).args(["policy", "import", "-"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads all");
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_policy_is_imported_from_a_file_and_from_input() {
    let agent = FakeAgent::new(&[("PUT /v1/policy", r#"json:{"policy":"[]","revision":7}"#)]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("web.yaml");
    fs::write(&file, RULES).expect("written");
    assert_eq!(agent.prints(&["policy", "import", &file.display().to_string()]), "Revision: 7\n");
    let output = imports_from_input(&agent, RULES);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Revision: 7\n", "{}", stderr(&output));
    assert_eq!(
        agent.seen(),
        [format!("PUT /v1/policy {}", RULES.trim_end()), format!("PUT /v1/policy {}", RULES.trim_end())]
    );
    fails(&agent, &["policy", "import", "/nonexistent/web.yaml"], 1, "cannot read /nonexistent/web.yaml: No such file");
    fails(&agent, &["policy", "import"], 2, "required");
}

#[test]
fn an_agent_that_goes_amid_a_request_is_a_failure() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (socket, file) = (folder.path().join("agent.sock"), folder.path().join("long.yaml"));
    fs::write(&file, "#".repeat(4 << 20)).expect("written");
    let listener = UnixListener::bind(&socket).expect("a socket in an empty folder");
    thread::spawn(move || {
        for stream in listener.incoming() {
            stream.expect("a client").read_exact(&mut [0; 64]).expect("a request line");
        }
    });
    let file = file.display().to_string();
    let trace = ["policy", "trace", "--from", "1", "--to", "2", "--dport", "80", "--policy", &file];
    for (args, code) in [(&["policy", "import", &file][..], 1), (&trace, 2)] {
        let output = podwire().arg("--socket").arg(&socket).args(args).output().expect("the program starts");
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert!(stderr(&output).contains("/v1/policy"), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn what_is_wrong_with_a_policy_is_told_by_field() {
    let reason = "policy refused, nothing of it was applied:\n  spec.ingress[0].toPorts[0].ports[0].port: \"0\": not from 1 to 65535\n  spec.egress: 7: not a list";
    let answer = format!("400:{}", Value::from(reason));
    let agent = FakeAgent::new(&[("PUT /v1/policy", &answer)]);
    let output = imports_from_input(&agent, RULES);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), format!("Error: -: {reason}\n"));
}

#[test]
fn rules_are_shown_and_removed() {
    let agent = FakeAgent::new(&[
        ("GET /v1/policy", "policy.get"),
        ("DELETE /v1/policy", r#"json:{"policy":"[]","revision":6}"#),
    ]);
    let shown = agent.prints(&["policy", "get"]);
    assert!(shown.starts_with("[\n  {\n    \"Tier\": 0,"), "{shown}");
    assert!(shown.ends_with("\n  }\n]\nRevision: 5\n"), "{shown}");
    let json: Value = serde_json::from_str(&agent.prints(&["policy", "get", "-o", "json"])).expect("JSON");
    assert_eq!(json["revision"], 5);
    agent.prints(&["policy", "get", "k8s:io.cilium.k8s.policy.name=web"]);
    assert_eq!(agent.prints(&["policy", "delete", "k8s:app=a", "k8s:app=b"]), "Revision: 6\n");
    assert_eq!(agent.prints(&["policy", "delete", "--all"]), "Revision: 6\n");
    let expected = [
        "GET /v1/policy",
        "GET /v1/policy",
        r#"GET /v1/policy ["k8s:io.cilium.k8s.policy.name=web"]"#,
        r#"DELETE /v1/policy ["k8s:app=a","k8s:app=b"]"#,
        "DELETE /v1/policy []",
    ];
    assert_eq!(agent.seen(), expected);
    fails(&agent, &["policy", "delete"], 2, "required");
    fails(&agent, &["policy", "delete", "k8s:app=a", "--all"], 2, "cannot be used with");
    let nothing = FakeAgent::new(&[]);
    fails(&nothing, &["policy", "delete", "k8s:app=a"], 1, "cannot delete rules: not found");
}

#[test]
fn rules_are_shown_by_number() {
    let rules = r#"json:[{"number":7,"name":"default/web[0].ingress[1]","labels":["k8s:a=b","k8s:c"],"description":"why"},
        {"number":12,"name":"[0].egress[0]"}]"#;
    let agent = FakeAgent::new(&[("/v1/policy/rules", rules)]);
    let expected = "\
NUMBER   RULE                        LABELS (source:key[=value])   DESCRIPTION
7        default/web[0].ingress[1]   k8s:a=b                       why
                                     k8s:c
12       [0].egress[0]
";
    assert_eq!(agent.prints(&["policy", "rules"]), expected);
}

#[test]
fn a_description_is_not_shown_beyond_measure() {
    let rule = json!([{"number": 1, "name": "web[0].ingress[0]", "description": "ä".repeat(1 << 20)}]);
    let agent = FakeAgent::new(&[("/v1/policy/rules", &format!("json:{rule}"))]);
    let shown = agent.prints(&["policy", "rules"]);
    assert!(shown.contains(&format!("   {}…\n", "ä".repeat(256))) && shown.chars().count() < 1000, "{shown}");
    assert!(agent.prints(&["policy", "rules", "-o", "json"]).len() > 1 << 20);
}

#[test]
fn selectors_are_shown_with_whom_they_select() {
    let peers = r#"json:[{"selector":"cidr:203.0.113.0/24","users":1,"identities":[16777217],"labels":[
        {"source":"k8s","key":"io.cilium.k8s.policy.name","value":"web"},
        {"source":"k8s","key":"io.cilium.k8s.policy.namespace","value":"default"}]},
        {"selector":"any:app=client","users":2,"identities":[8474,42491]},{"selector":"k8s:no=such","users":1}]"#;
    let agent =
        FakeAgent::new(&[("/v1/policy/selectors", peers), ("/v1/policy/subject-selectors", "selectors.subjects")]);
    let expected = "\
SELECTOR              LABELS        USERS   IDENTITIES
any:app=client                      2       8474
                                            42491
cidr:203.0.113.0/24   default/web   1       16777217
k8s:no=such                         1
";
    assert_eq!(agent.prints(&["policy", "selectors"]), expected);
    let unlabelled =
        FakeAgent::new(&[("/v1/policy/selectors", r#"json:[{"selector":"*","users":2,"identities":[1]}]"#)]);
    assert_eq!(unlabelled.prints(&["policy", "selectors"]), "SELECTOR   USERS   IDENTITIES\n*          2       1\n");
    let verbose = agent.prints(&["policy", "selectors", "--verbose"]);
    assert!(verbose.contains("cidr:203.0.113.0/24   k8s:io.cilium.k8s.policy.name=web"), "{verbose}");
    let subjects = agent.prints(&["policy", "subject-selectors"]);
    let other = "&LabelSelector{MatchLabels:map[string]string{any.app: other,k8s.io.kubernetes.pod.namespace: default,},MatchExpressions:[]LabelSelectorRequirement{},}            3       35233";
    assert!(subjects.lines().any(|line| line == other), "{subjects}");
}

fn endpoint(id: u16, state: &str, revision: u64) -> Value {
    json!({"id": id, "status": {"state": state, "policy": {"realized": {"policy-revision": revision}}}})
}

#[test]
fn waiting_for_a_revision_ends_when_all_have_it_or_in_time() {
    let waits = |endpoints: Value, args: &[&str]| {
        let agent = FakeAgent::new(&[("/v1/endpoint", &format!("json:{endpoints}"))]);
        agent.run(&[&["policy", "wait", "5"], args].concat())
    };
    let now = &["--max-wait-time", "0"][..];
    for there in [
        json!([]),
        json!([endpoint(7, "ready", 5), endpoint(8, "ready", 6)]),
        json!([endpoint(7, "ready", 5), endpoint(8, "disconnecting", 1)]),
    ] {
        let output = waits(there.clone(), now);
        assert!(output.status.success() && output.stdout.is_empty(), "{there}: {}", stderr(&output));
    }
    let mut failing = endpoint(8, "ready", 0);
    failing["status"]["health"] = json!({"policy": "Failure"});
    for (behind, args, reason) in [
        (
            json!([failing]),
            &["--fail-wait-time", "0"][..],
            "endpoint 8 has a policy that can't come into force after 0 s: see `podwire endpoint health 8`",
        ),
        (json!([endpoint(7, "ready", 4)]), now, "endpoint 7 is not at revision 5 after 0 s\n"),
        (json!([{"id": 9}, {"id": 8}]), now, "endpoint 9 is not at revision 5 after 0 s, nor are 1 others"),
        (json!([endpoint(8, "not-ready", 4)]), &["--fail-wait-time", "0"], "endpoint 8 is not ready after 0 s: see"),
    ] {
        let output = waits(behind.clone(), args);
        assert_eq!(output.status.code(), Some(1), "{behind}");
        assert!(stderr(&output).contains(reason), "{behind}: {}", stderr(&output));
    }
}

#[test]
fn an_endpoint_s_options_are_shown_and_changed() {
    let agent = FakeAgent::new(&[
        ("GET /v1/endpoint/1135/config", "endpoint-config.options"),
        ("PATCH /v1/endpoint/1135/config", "json:"),
    ]);
    let shown = agent.prints(&["endpoint", "config", "1135"]);
    assert!(shown.contains("PolicyAuditMode                   : Disabled\n"), "{shown}");
    let changed = agent.prints(&["endpoint", "config", "1135", "PolicyAuditMode=enable"]);
    assert_eq!(changed, "Endpoint 1135 configuration updated successfully\n");
    let last = agent.seen().pop().expect("a request");
    assert_eq!(last, r#"PATCH /v1/endpoint/1135/config {"options":{"PolicyAuditMode":"enable"}}"#);
    fails(&agent, &["endpoint", "config", "1135", "Nosuch=1"], 1, "unknown option \"Nosuch\"");
    fails(&agent, &["endpoint", "config", "1135", "PolicyAuditMode"], 2, "expected a name");
}
