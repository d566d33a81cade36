//! What the agent answers to requests that no good client sends.
#![cfg(feature = "programs")]

mod common {
    #![allow(dead_code, reason = "every test program uses a part of what they share")]
    pub mod agent;
    pub mod bpf;
    pub mod example;
    pub mod netns;
}

use common::agent::{Node, raw};

/// Status line and body of an answer.
fn parts(answer: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.lines().next().and_then(|line| line.split(' ').nth(1)).unwrap_or("none");
    (status.to_owned(), body.to_owned())
}

fn request(method: &str, path: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    format!("{method} {path} HTTP/1.1\r\nHost: l\r\nConnection: close\r\n{kind}Content-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[test]
fn every_refusal_has_its_status_and_body() {
    let node = Node::new();
    let _agent = node.start();
    const JSON: &str = "application/json";
    const NEW: &str = "/v1/endpoint/cilium-local:0";
    let ready = |fields: &str| format!(r#"{{"state":"ready"{fields}}}"#);
    let state = "state in body should be one of [waiting-for-identity not-ready waiting-to-regenerate regenerating \
                 restoring ready disconnecting disconnected invalid]";
    let cases: Vec<(&str, &str, &str, String, &str, &str)> = vec![
        ("GET", "/v1/nosuch", "", "".into(), "404", r#"{"code":404,"message":"path /v1/nosuch was not found"}"#),
        ("GET", "/", "", "".into(), "404", r#"{"code":404,"message":"path / was not found"}"#),
        (
            "GET",
            "/v1/endpoint/4/nosuch",
            "",
            "".into(),
            "404",
            r#"{"code":404,"message":"path /v1/endpoint/4/nosuch was not found"}"#,
        ),
        (
            "POST",
            "/v1/healthz",
            "",
            "".into(),
            "405",
            r#"{"code":405,"message":"method POST is not allowed, but [GET] are"}"#,
        ),
        ("PUT", NEW, JSON, "{bad".into(), "400", r#"{"code":400,"message":"parsing the body failed, because "#),
        ("PUT", NEW, JSON, "\u{0}\u{1}".into(), "400", r#"{"code":400,"#),
        ("PUT", NEW, JSON, "[".repeat(100_000), "400", r#"{"code":400,"#),
        ("PUT", NEW, JSON, "".into(), "422", r#"{"code":602,"message":"a body is required"}"#),
        ("PUT", NEW, JSON, "{}".into(), "422", r#"{"code":602,"message":"state in body is required"}"#),
        (
            "PUT",
            NEW,
            "text/plain",
            "{}".into(),
            "415",
            r#"{"code":415,"message":"unsupported media type \"text/plain\", only [application/json] are allowed"}"#,
        ),
        ("PUT", NEW, "", "{}".into(), "415", r#"{"code":415,"#),
        ("PUT", NEW, JSON, r#"{"state":"bogus"}"#.into(), "422", state),
        ("PUT", NEW, JSON, ready(""), "400", "container-id"),
        ("PUT", NEW, JSON, ready(r#","container-id":"abc""#), "400", "needs a network namespace or a device"),
        ("PUT", NEW, JSON, ready(r#","container-id":"abc","interface-name":"lxc0""#), "400", "interface-index"),
        (
            "PUT",
            NEW,
            JSON,
            ready(r#","container-id":"abc","interface-name":"lxc0","interface-index":-1"#),
            "400",
            "interface-index",
        ),
        (
            "PUT",
            NEW,
            JSON,
            ready(r#","container-id":"abc","interface-name":"lxc0","interface-index":9"#),
            "400",
            "host-mac",
        ),
        ("PUT", NEW, JSON, ready(r#","container-id":"abc","mac":"zz""#), "400", "zz"),
        ("PUT", NEW, JSON, ready(r#","container-id":"abc","addressing":{"ipv4":"1.2.3"}"#), "400", "1.2.3"),
        ("PUT", NEW, JSON, ready(r#","container-id":"abc","labels":["k8s:=x"]"#), "400", "label key"),
        ("PUT", NEW, JSON, ready(r#","container-id":"a b","container-netns-path":"/x""#), "400", "a b"),
        ("PUT", NEW, JSON, ready(r#","container-id":"abc","container-netns-path":"/nosuch""#), "400", "/nosuch"),
        ("PUT", "/v1/endpoint/cilium-local:7", JSON, ready(""), "400", "the agent chooses the number"),
        ("GET", "/v1/endpoint/bogus:1", "", "".into(), "400", r#"unknown endpoint ID prefix \"bogus\""#),
        ("GET", "/v1/endpoint/99999", "", "".into(), "400", "endpoint id too large"),
        ("GET", "/v1/endpoint/notanumber", "", "".into(), "400", "invalid numeric endpoint id"),
        ("GET", "/v1/endpoint/12", "", "".into(), "404", ""),
        ("GET", "/v1/endpoint/12/healthz", "", "".into(), "404", ""),
        ("GET", "/v1/endpoint/12/log", "", "".into(), "404", ""),
        ("GET", "/v1/endpoint/%ff%fe", "", "".into(), "400", r#"{"code":400,"#),
        ("DELETE", "/v1/endpoint/12", "", "".into(), "404", ""),
        ("DELETE", "/v1/endpoint", JSON, "{}".into(), "400", r#""invalid container id""#),
        ("DELETE", "/v1/endpoint", JSON, r#"{"container-id":"nosuch"}"#.into(), "404", r#""endpoints not found""#),
        ("PATCH", "/v1/endpoint/12/labels", JSON, r#"{"user":["k8s:x=y"]}"#.into(), "404", ""),
        ("PATCH", "/v1/endpoint/12/labels", JSON, r#"{"user":null}"#.into(), "404", ""),
        ("PATCH", "/v1/endpoint/12/labels", JSON, r#"{"labels":["k8s:x=y"]}"#.into(), "400", "unknown field `labels`"),
        ("PATCH", "/v1/config", JSON, r#"{"options":{"Bogus":"true"}}"#.into(), "400", "unknown option"),
        ("GET", "/v1/identity/abc", "", "".into(), "400", "abc"),
        ("GET", "/v1/identity/65000", "", "".into(), "404", ""),
        ("GET", "/v1/identity", JSON, r#"["k8s:no=such"]"#.into(), "404", ""),
        (
            "GET",
            "/v1/identity",
            JSON,
            r#"["reserved:remote-node"]"#.into(),
            "200",
            r#"[{"id":6,"labels":["reserved:remote-node"]},{"id":7,"#,
        ),
        ("GET", "/v1/identity/0", "", "".into(), "200", r#"{"id":0,"labels":["reserved:unknown"]}"#),
        ("GET", "/v1/policy", JSON, r#"["k8s:no=such"]"#.into(), "404", r#""no rule has these labels""#),
        ("GET", "/v1/policy", "", "".into(), "200", r#"{"policy":"[]","revision":1}"#),
        ("DELETE", "/v1/policy", "", "".into(), "422", "a body is required"),
        ("DELETE", "/v1/policy", JSON, r#"["k8s:no=such"]"#.into(), "404", r#""no rule has these labels""#),
        ("DELETE", "/v1/policy", JSON, r#"["k8s:=x"]"#.into(), "400", "label key"),
        ("PUT", "/v1/policy", "", "".into(), "400", "has no policy and no rule"),
        (
            "PUT",
            "/v1/policy",
            "",
            "{endpointSelector: {}, ingress: [{}], nosuch: 1}".into(),
            "400",
            "nosuch: 1: unknown field",
        ),
        ("POST", "/v1/policy", "", "".into(), "405", "method POST is not allowed, but [GET,PUT,DELETE] are"),
        ("PATCH", "/v1/config", JSON, r#"{"policy-enforcement":"maybe"}"#.into(), "400", "default, always or never"),
        ("GET", "/v1/map/nosuch", "", "".into(), "404", ""),
        ("GET", "/v1/map/..%2f..%2fetc%2fpasswd", "", "".into(), "404", ""),
        ("GET", "/v1/ip?cidr=junk", "", "".into(), "400", r#""invalid CIDR address: junk""#),
        ("GET", "/v1/ip?cidr=192.0.2.1/32", "", "".into(), "404", ""),
        (
            "POST",
            "/v1/ipam?family=bogus",
            "",
            "".into(),
            "422",
            r#"{"code":606,"message":"family in query should be one of [ipv4 ipv6]"}"#,
        ),
        (
            "POST",
            "/v1/ipam",
            "text/plain\r\nExpiration: maybe",
            "".into(),
            "422",
            r#"{"code":601,"message":"expiration in header must be of type boolean: \"maybe\""}"#,
        ),
        (
            "PUT",
            "/v1/policy?replace=1",
            "",
            "".into(),
            "422",
            r#"{"code":601,"message":"replace in query must be of type boolean: \"1\""}"#,
        ),
        ("POST", "/v1/ipam?owner=router", "", "".into(), "400", "reserved"),
        ("POST", "/v1/ipam/junk", "", "".into(), "400", r#""Invalid IP address: junk""#),
        ("DELETE", "/v1/ipam/junk", "", "".into(), "400", r#""Invalid IP address: junk""#),
        ("GET", "/v1/monitor?type=bogus", "", "".into(), "400", "should be one of [agent drop policy-verdict trace]"),
        ("GET", "/v1/monitor?from=0", "", "".into(), "400", "not a number from 1 to 65535"),
    ];
    for (method, path, kind, body, status, expected) in cases {
        let shown: String = format!("{method} {path} {body}").chars().take(120).collect();
        let (got, answer) = parts(&raw(&node.socket(), &request(method, path, kind, &body)));
        assert_eq!(got, status, "{shown}: {answer}");
        match expected {
            "" => assert_eq!(answer, "", "{shown}"),
            _ => assert!(answer.contains(expected), "{shown}: {answer}"),
        }
    }
    let left = node.client().status(false).expect("the agent serves on");
    assert_eq!(left.ipam.expect("addresses").allocations.len(), 2, "refused requests leave nothing allocated");
}

#[test]
fn what_is_too_long_or_no_http_is_refused() {
    let node = Node::new();
    let _agent = node.start();
    let long_query = format!("/v1/ip?cidr={}", "a".repeat(1 << 20));
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        (
            "a body of 2 MiB",
            request("PUT", "/v1/endpoint/cilium-local:0", "application/json", &"x".repeat(2 << 20)),
            &["413"],
        ),
        ("a query of 1 MiB", request("GET", &long_query, "", ""), &["414", "431"]),
        ("no HTTP", b"\x16\x03\x01 hello there\r\n\r\n".to_vec(), &["400"]),
        (
            "a length that is none",
            b"PUT /v1/config HTTP/1.1\r\nHost: l\r\nContent-Length: -5\r\n\r\n".to_vec(),
            &["400"],
        ),
        (
            "raw bytes in the path",
            b"GET /v1/\xff HTTP/1.1\r\nHost: l\r\nConnection: close\r\n\r\n".to_vec(),
            &["400", "404"],
        ),
    ];
    for (what, bytes, expected) in cases {
        let (status, answer) = parts(&raw(&node.socket(), &bytes));
        assert!(expected.contains(&status.as_str()), "{what}: {status} {answer}");
        node.client().status(true).unwrap_or_else(|error| panic!("after {what}: {error}"));
    }
}
