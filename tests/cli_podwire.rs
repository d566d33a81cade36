//! The command line against a server that answers with the fixtures: what it prints, and how it ends.
#![cfg(feature = "programs")]

#[path = "common/example.rs"]
mod example;
#[path = "common/fake_agent.rs"]
mod fake_agent;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fake_agent::{FakeAgent, fixture_text, podwire, stderr};
use serde_json::Value;
use tempfile::TempDir;

/// Asserts that every line of `expected`, blanks at its start aside, is a line of `text`.
fn assert_lines(text: &str, expected: &str) {
    for line in expected.lines().map(str::trim).filter(|line| !line.is_empty()) {
        assert!(text.lines().any(|got| got.trim() == line), "no line {line:?} in\n{text}");
    }
}

#[test]
fn errors_do_not_repeat_values_without_end() {
    let long = "x".repeat(100_000);
    let cases: &[&[&str]] = &[
        &["--socket", &long, "status"],
        &["-o", &long, "status"],
        &["-H", &long, "status"],
        &["endpoint", "get", &long],
        &["endpoint", "health", &format!("pod-name:{long}")],
        &["policy", "import", &long],
        &["policy", "trace", "--from", "1", "--to", "2", "--dport", &long],
        &[&long],
        &[&format!("--{long}")],
        &["endpoint", "ports", "1", "--add", &format!("{0} {0}:x", &long[..50_000])],
    ];
    for args in cases {
        let output =
            podwire().env("PODWIRE_SOCKET", "/nosuch/podwire.sock").args(*args).output().expect("the program starts");
        let told = stderr(&output);
        assert!(
            !output.status.success() && told.contains("xxx…"),
            "{}: {}",
            args[0].len(),
            &told[..told.len().min(500)]
        );
        assert!(told.len() < 2000 && told.lines().count() == 1, "{} bytes", told.len());
    }
}

#[test]
fn endpoints_in_a_table() {
    let agent = FakeAgent::new(&[("/v1/endpoint", "endpoint-list.three")]);
    let expected = "\
ENDPOINT   POLICY (ingress)   POLICY (egress)   IDENTITY   LABELS (source:key[=value])                IPv6             IPv4         STATUS
           ENFORCEMENT        ENFORCEMENT
1650       Disabled           Disabled          42491      k8s:app=client                             fd00:7:1::4ed8   10.7.1.207   ready
                                                           k8s:io.cilium.k8s.policy.cluster=default
                                                           k8s:io.kubernetes.pod.namespace=default
2621       Disabled           Disabled          1          reserved:host                                                            ready
2669       Disabled           Disabled          5          reserved:init                                                            not-ready
";
    assert_eq!(agent.prints(&["endpoint", "list"]), expected);
    let without = agent.prints(&["endpoint", "ls", "--no-headers"]);
    assert!(without.starts_with("1650   Disabled   Disabled   42491   k8s:app=client"), "{without}");
    let json: Value = serde_json::from_str(&agent.prints(&["endpoint", "list", "-o", "json"])).expect("JSON");
    assert_eq!(json[0]["status"]["networking"]["addressing"][0]["ipv4"], "10.7.1.207");
}

#[test]
fn sparse_endpoints_in_a_table() {
    let audit = r#"json:[{"id":7},{"id":8,"status":{"state":"regenerating","policy":{"realized":{"policy-enabled":"audit-both"}},"networking":{"addressing":[{"ipv4":"10.0.1.7"}]}}}]"#;
    let agent = FakeAgent::new(&[("/v1/endpoint", audit)]);
    assert_lines(
        &agent.prints(&["endpoint", "list"]),
        "7          Unknown            Unknown            <no label id>   no labels                     Unknown   Unknown    Unknown
         8          Disabled (Audit)   Disabled (Audit)   <no label id>   no labels                               10.0.1.7   regenerating",
    );
    let none = FakeAgent::new(&[("/v1/endpoint", "json:[]")]);
    assert!(none.prints(&["endpoint", "list"]).starts_with("ENDPOINT   POLICY (ingress)"));
    assert_eq!(none.prints(&["endpoint", "list", "-o", "json"]), "[]\n");
}

/// What a command prints in a terminal of this width.
fn in_terminal(agent: &FakeAgent, columns: u16, args: &str) -> String {
    let program = podwire().get_program().to_string_lossy().into_owned();
    let command = format!("stty cols {columns}; {program} --socket {} {args}", agent.socket.display());
    let output = Command::new("script").args(["-qec", &command, "/dev/null"]).env("NO_COLOR", "1").output();
    let output = output.expect("util-linux is installed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n")
}

#[test]
fn tables_fit_the_terminal() {
    let agent = FakeAgent::new(&[("/v1/endpoint", "endpoint-list.three"), ("/v1/map/cilium_lxc", "map.lxc")]);
    let whole = agent.prints(&["endpoint", "list"]);
    assert_eq!(in_terminal(&agent, 200, "endpoint list"), whole);
    for columns in [80, 90, 120, 140] {
        for args in ["endpoint list", "map get cilium_lxc"] {
            let shown = in_terminal(&agent, columns, args);
            assert!(shown.lines().all(|line| line.chars().count() <= usize::from(columns)), "{columns}:\n{shown}");
        }
    }
    assert!(
        in_terminal(&agent, 120, "endpoint list").starts_with("ENDPOINT POLICY (ingress) POLICY (egress) IDENTITY")
    );
    let narrow = "\
ENDPOINT                       1650
POLICY (ingress) ENFORCEMENT   Disabled
POLICY (egress) ENFORCEMENT    Disabled
IDENTITY                       42491
LABELS (source:key[=value])    k8s:app=client
                               k8s:io.cilium.k8s.policy.cluster=default
                               k8s:io.kubernetes.pod.namespace=default
IPv6                           fd00:7:1::4ed8
IPv4                           10.7.1.207
STATUS                         ready

ENDPOINT                       2621
";
    for columns in [80, 20] {
        let shown = in_terminal(&agent, columns, "endpoint list");
        assert!(shown.starts_with(narrow), "{shown}");
    }
}

#[test]
fn labels_are_changed_from_what_they_are() {
    let agent = FakeAgent::new(&[
        ("GET /v1/endpoint/7/labels", "endpoint-labels.user"),
        ("PATCH /v1/endpoint/7/labels", "json:"),
    ]);
    let shown = FakeAgent::new(&[("/v1/endpoint/7/labels", "endpoint-labels.plain")]);
    assert_lines(&shown.prints(&["endpoint", "labels", "7"]), "k8s:app=client                             Enabled");
    agent.prints(&["endpoint", "labels", "7", "--add", "k8s:tier=db,k8s:app=web"]);
    let change = agent.seen().pop().expect("a request");
    let user: Value =
        serde_json::from_str(change.strip_prefix("PATCH /v1/endpoint/7/labels ").expect(&change)).expect("JSON");
    let before: Value = serde_json::from_slice(&fixture_text("endpoint-labels.user")).expect("JSON");
    let mut expected = before["status"]["realized"]["user"].as_array().cloned().unwrap_or_default();
    expected.extend(["k8s:tier=db", "k8s:app=web"].map(Value::from));
    assert_eq!(user["user"], Value::from(expected));
    let output = agent.run(&["endpoint", "labels", "7", "--delete", "k8s:nosuch=x"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("endpoint 7 has no label k8s:nosuch=x"), "{}", stderr(&output));
    // By the words by which it was added.
    let agent = FakeAgent::new(&[
        ("GET /v1/endpoint/7/labels", r#"json:{"status":{"realized":{"user":["unspec:web","k8s:a=b"]}}}"#),
        ("PATCH /v1/endpoint/7/labels", "json:"),
    ]);
    for (given, left) in [("web", "k8s:a=b"), ("unspec:web", "k8s:a=b"), ("k8s:a", "unspec:web")] {
        agent.prints(&["endpoint", "labels", "7", "--delete", given]);
        let change = agent.seen().pop().expect("a request");
        assert!(change.ends_with(&format!(r#"{{"user":["{left}"]}}"#)), "{given}: {change}");
    }
}

#[test]
fn other_tables() {
    let agent = FakeAgent::new(&[
        ("/v1/endpoint/7/log", "endpoint-log.regenerated"),
        ("/v1/endpoint/7/healthz", "endpoint-health.ok"),
        ("/v1/map", "map-list.mixed"),
        ("/v1/map/cilium_lxc", "map.lxc"),
        ("/v1/ip", "ip-list.all"),
        ("/v1/identity", r#"json:[{"id":6,"labels":["reserved:remote-node","reserved:kube-apiserver"]}]"#),
        ("/v1/metrics", "metrics.endpoint"),
        ("/v1/cluster/nodes", "nodes.two"),
        ("/v1/healthz", "status.full"),
        ("/v1/config", "config.full"),
        ("/v1/debuginfo", "debuginfo.small"),
    ]);
    let cases: &[(&[&str], &str)] = &[
        (
            &["endpoint", "log", "7"],
            "Timestamp              Status   State                   Message
             2026-11-22T12:10:49Z   OK       regenerating            Regenerating endpoint: endpoint was updated via API",
        ),
        (
            &["endpoint", "health", "7"],
            "Overall Health:   OK
             BPF Health:       OK
             Policy Health:    OK
             Connected:        yes",
        ),
        (
            &["map", "list"],
            "Name                Num entries   Num errors   Cache enabled
             cilium_lxc          2             1            true
             cilium_lb4_maglev   0             0            true
             cilium_metrics      unknown       0            false",
        ),
        (
            &["map", "list", "--verbose"],
            "## Map: cilium_lb4_maglev
             Cache is empty
             Cache is disabled",
        ),
        (
            &["map", "get", "cilium_lxc"],
            "Key              Value                                                                                                             State   Error
             10.7.0.4:0       id=1135  sec_id=16403 flags=0x0000 ifindex=15  mac=22:DD:11:9E:ED:90 nodemac=BE:E8:16:FF:85:2D parent_ifindex=0   sync",
        ),
        (
            &["ip", "list"],
            "IP                   IDENTITY                  SOURCE
             10.7.1.185/32        reserved:remote-node
             reserved:kube-apiserver",
        ),
        (&["ip", "list", "-n"], "10.7.1.185/32        6"),
        (
            &["ipam", "list"],
            "ADDRESS        OWNER
             10.7.0.215     router
             IPv4: 4/254 allocated from 10.7.0.0/24, IPv6: 4/4294967294 allocated from fd00:7::/96",
        ),
        (
            &["metrics", "list", "-p", "regeneration"],
            "Metric                                            Labels                                Value
             cilium_endpoint_regeneration_time_stats_seconds   scope=bpfLoadProg status=success      6.700000",
        ),
        (
            &["node", "list"],
            "Name    IPv4 Address   Endpoint CIDR   IPv6 Address   Endpoint CIDR   Source
             node2   198.51.100.2   10.7.1.0/24     2001:db8::2    fd00:7:1::/96   local",
        ),
        (&["config"], "DropNotification                  : Enabled"),
        (&["config", "get", "EnableIPv4"], "true"),
        (&["config", "--all"], "EnableIPv4                        : true\nDebug                             : Disabled"),
        (&["debuginfo"], "# Podwire debug information\n#### Kernel version\n6.18.44"),
        (&["version"], "Daemon: 0.1.0"),
        (
            &["status", "--verbose"],
            "NodeMonitor:             Listening for events on 2 CPUs with 64x4096 of shared memory
             Routing:                 Network: Tunnel [vxlan]   Host: BPF
             Attach Mode:             TCX
             Controller Status:       3/3 healthy
             Name                                        Last success               Last error   Count   Message
             Non-TCP connection tracking   110861
             10.7.0.215 (router)",
        ),
        (&["status", "--brief"], "OK"),
    ];
    for (args, expected) in cases {
        assert_lines(&agent.prints(args), expected);
        let json: Vec<_> = args.iter().copied().chain(["-o", "json"]).collect();
        let text = agent.prints(&json);
        serde_json::from_str::<Value>(&text).unwrap_or_else(|cause| panic!("{json:?}: {cause}: {text}"));
    }
}

#[test]
fn a_degraded_node_fails_the_command() {
    let ill = r#"json:{"cilium":{"state":"Failure","msg":"cilium_lxc: 2 entries not in the kernel"}}"#;
    let agent = FakeAgent::new(&[("/v1/healthz", ill)]);
    for (args, expected) in [
        (&["status"][..], "Podwire:                 Failure   cilium_lxc: 2 entries not in the kernel"),
        (&["status", "--brief"], "error in cilium: cilium_lxc: 2 entries not in the kernel"),
    ] {
        let output = agent.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert_lines(&String::from_utf8_lossy(&output.stdout), expected);
    }
}

#[test]
fn failures_are_one_line_and_name_thing_cause_remedy() {
    let agent = FakeAgent::new(&[("/v1/endpoint", "json:[]")]);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["endpoint", "get", "9"], 1, "Error: cannot get endpoint 9: not found\n"),
        (&["endpoint", "get", "0"], 2, "0 is the number of no endpoint"),
        (&["ip", "get", "10.0.0.7"], 1, "nothing is known within 10.0.0.7/32: see `podwire ip list`"),
        (&["ip", "get", "10.0.0"], 2, "invalid value '10.0.0'"),
        (&["endpoint", "get", "-l", "k8s:a=b"], 1, "no endpoint has the labels k8s:a=b: see `podwire endpoint list`"),
        (&["endpoint", "get", "bogus:1"], 2, "unknown endpoint ID prefix"),
        (&["endpoint", "get", "70000"], 2, "endpoint id too large"),
        (&["map", "get", "no such"], 1, "cannot get map no such"),
        (&["monitor", "--type", "nosuch"], 2, "expected one of agent, drop, policy-verdict, trace"),
        (&["monitor", "--from", "0"], 2, "not a number from 1 to 65535"),
        (&["config", "NoSuch"], 2, "expected a name, `=` and a value"),
        (&["nosuch"], 2, "unrecognized subcommand 'nosuch'"),
        (&["-H", "tcp://127.0.0.1:9", "status"], 2, "expected unix://"),
        (&["endpoint", "get"], 2, "the following required arguments were not provided: <ENDPOINT|--labels <LABELS>>"),
    ];
    for (args, code, expected) in cases {
        let output = agent.run(args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {text}");
        assert!(text.contains(expected), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn an_absent_agent_is_told_with_its_socket_and_a_remedy() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("none.sock");
    let uri = format!("unix://{}", socket.display());
    for args in [&["status"][..], &["endpoint", "list"], &["map", "list"], &["ip", "list"], &["monitor"], &["config"]] {
        let output = podwire().args(["-H", &uri]).args(args).output().expect("the program starts");
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(text.contains(&*socket.to_string_lossy()) && text.contains("is it running"), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    }
    let output = podwire().env("PODWIRE_SOCKET", &socket).arg("version").output().expect("the program starts");
    assert!(output.status.success(), "version needs no agent");
    assert!(String::from_utf8_lossy(&output.stdout).contains("Daemon: Not responding"));
}

#[test]
fn completions_exist() {
    for shell in ["bash", "zsh", "fish"] {
        let output = podwire().args(["completion", shell]).output().expect("the program starts");
        assert!(output.status.success() && output.stdout.len() > 1000, "{shell}");
    }
}

#[test]
fn a_reader_that_stops_is_no_error() {
    let agent = FakeAgent::new(&[("/v1/config", "config.full")]);
    let mut child = podwire()
        .arg("--socket")
        .arg(&agent.socket)
        .args(["config", "-a"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(output.stderr.is_empty(), "{}", stderr(&output));
}

/// A stream of events that goes on until the client leaves.
fn endless_events(count: usize) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).expect("a socket in an empty folder");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut head = String::new();
        let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
        while !head.ends_with("\r\n\r\n") {
            reader.read_line(&mut head).expect("a header");
        }
        let mut text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
        for number in 0..count {
            let event = format!("{{\"type\":\"drop\",\"source\":{number},\"text\":\"xx drop {number}\"}}\n");
            text.push_str(&format!("{:x}\r\n{event}\r\n", event.len()));
        }
        let lost = "{\"type\":\"lost\",\"count\":3,\"text\":\"3 events lost\"}\n";
        text.push_str(&format!("{:x}\r\n{lost}\r\n", lost.len()));
        stream.write_all(text.as_bytes()).expect("the client reads");
        // Ends when the client is gone.
        let _ = reader.read_line(&mut head);
    });
    (folder, socket)
}

fn monitor(socket: &Path, args: &[&str]) -> Child {
    let mut command = podwire();
    command.arg("--socket").arg(socket).arg("monitor").args(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

#[test]
fn monitor_prints_counts_losses_and_ends_on_a_signal() {
    for (args, last) in [(&[][..], "3 events lost"), (&["-o", "json"], r#"{"count":3,"type":"lost"}"#)] {
        let (_folder, socket) = endless_events(5);
        let mut child = monitor(&socket, args);
        let mut reader = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut lines = Vec::new();
        while lines.last().map(String::as_str) != Some(last) {
            let mut line = String::new();
            assert_ne!(reader.read_line(&mut line).expect("text"), 0, "{lines:?}");
            lines.push(line.trim_end().to_owned());
        }
        assert_eq!(lines.len(), 6, "{lines:?}");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("our own child");
        let deadline = Instant::now() + Duration::from_secs(10);
        let status = loop {
            match child.try_wait().expect("our own child") {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "it goes on after SIGINT"),
            }
            thread::yield_now();
        };
        assert_eq!(status.code(), Some(0));
        let mut errors = String::new();
        child.stderr.take().expect("it is piped").read_to_string(&mut errors).expect("text");
        assert!(errors.contains("3 events were lost"), "{errors}");
    }
}

#[test]
fn monitor_ends_when_nobody_reads() {
    let (_folder, socket) = endless_events(50_000);
    let mut child = monitor(&socket, &[]);
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends by itself");
    assert!(output.status.success(), "{}", stderr(&output));
}
