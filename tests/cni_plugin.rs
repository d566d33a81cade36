//! The plugin as a process: what a runtime, or a person, gets to see. Needs root, and no agent.
mod common {
    #![allow(dead_code, unreachable_pub, reason = "every test program uses a part of what they share")]
    pub mod example;
    pub mod netns;
}

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use std::{fs, thread};

use common::example;
use common::netns::TestNetns;
use podwire::cni::DeletionQueue;
use serde_json::{Value, json};

fn run(variables: &[(&str, &str)], input: &[u8]) -> Output {
    static PLUGIN: LazyLock<PathBuf> = LazyLock::new(|| example::example("podwire-cni"));
    let mut child = Command::new(&*PLUGIN)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the plugin starts");
    // it may well end before it has read everything
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("the plugin ends")
}

fn answer(output: &Output, success: bool) -> Value {
    assert_eq!(output.status.code(), Some(i32::from(!success)), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn attachment<'a>(command: &'a str, netns: &'a str) -> Vec<(&'a str, &'a str)> {
    let fixed = [("CNI_CONTAINERID", "abc"), ("CNI_IFNAME", "eth0"), ("CNI_PATH", "/opt/cni/bin")];
    [("CNI_COMMAND", command), ("CNI_NETNS", netns)].into_iter().chain(fixed).collect()
}

fn conf(dir: &Path) -> Value {
    json!({ "cniVersion": "1.1.0", "name": "pods", "socket": dir.join("podwire.sock"), "agent-timeout": 0 })
}

#[test]
fn a_person_is_told_what_it_is() {
    let output = run(&[], b"");
    assert!(output.status.success() && output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.contains("CNI protocol versions supported: 0.3.1, 0.4.0, 1.0.0, 1.1.0"), "{text}");
}

#[test]
fn version_answers_with_the_callers_version() {
    let supported = json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    // podman asks like this before anything else
    for (input, echoed) in [(r#"{"cniVersion":"0.4.0"}"#, "0.4.0"), ("{}", "1.1.0"), ("", "1.1.0")] {
        let output =
            run(&[("CNI_COMMAND", "VERSION"), ("CNI_IFNAME", "dummy"), ("CNI_NETNS", "dummy")], input.as_bytes());
        assert_eq!(answer(&output, true), json!({ "cniVersion": echoed, "supportedVersions": supported }));
    }
    assert_eq!(answer(&run(&[("CNI_COMMAND", "VERSION")], b"{"), false)["code"], 6);
}

/// Variables, configuration, and the code and a word of the answer.
type Case<'a> = (Vec<(&'a str, &'a str)>, &'a [u8], u64, &'a str);

#[test]
fn bad_input_gets_the_specifications_codes() {
    let netns = TestNetns::new();
    let path = netns.path().to_str().expect("ASCII");
    let full = attachment("ADD", path);
    let long_id = "c".repeat(1000);
    let with = |name: &'static str, value: &'static str| -> Vec<(&str, &str)> {
        full.iter().map(|(key, old)| (*key, if *key == name { value } else { *old })).collect()
    };
    let mut too_long = full.clone();
    too_long.retain(|(key, _)| *key != "CNI_CONTAINERID");
    too_long.push(("CNI_CONTAINERID", &long_id));
    let valid = br#"{"cniVersion":"1.0.0","name":"pods"}"#;
    let cases: Vec<Case<'_>> = vec![
        (vec![("CNI_COMMAND", "ADD")], valid, 4, "[CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME]"),
        (vec![("CNI_COMMAND", "JUMP")], valid, 4, "JUMP"),
        (with("CNI_IFNAME", "much-too-long-a-name"), valid, 4, "CNI_IFNAME"),
        (with("CNI_IFNAME", "../eth0"), valid, 4, "CNI_IFNAME"),
        (with("CNI_CONTAINERID", "../../etc"), valid, 4, "CNI_CONTAINERID"),
        (too_long, valid, 4, "CNI_CONTAINERID"),
        (with("CNI_NETNS", "/run/netns/podwire-no-such"), valid, 3, "/run/netns/podwire-no-such"),
        (with("CNI_NETNS", "/etc/hostname"), valid, 4, "/etc/hostname"),
        (full.clone(), b"{", 6, "JSON"),
        (full.clone(), b"\xff\xfe", 6, "JSON"),
        (full.clone(), b"[]", 7, "object"),
        (full.clone(), br#"{"cniVersion":"9.9.9","name":"pods"}"#, 1, "incompatible"),
        (full.clone(), br#"{"name":"pods"}"#, 1, "incompatible"),
        (full.clone(), br#"{"cniVersion":"1.0.0"}"#, 7, "name"),
        (full.clone(), br#"{"cniVersion":"1.0.0","name":"pods","mtu":-1}"#, 7, "mtu"),
    ];
    for (variables, input, code, named) in cases {
        let error = answer(&run(&variables, input), false);
        assert_eq!(error["code"], code, "{error}");
        assert!(error["msg"].as_str().expect("text").contains(named), "{named}: {error}");
        assert!(error["cniVersion"].is_string(), "{error}");
    }
    assert!(netns.socket().link_by_name("eth0").is_err(), "nothing was made");
}

#[test]
fn without_an_agent() {
    let (dir, netns) = (tempfile::tempdir().expect("a directory"), TestNetns::new());
    let path = netns.path().to_str().expect("ASCII");
    let conf = conf(dir.path()).to_string();
    let mut check: Value = serde_json::from_str(&conf).expect("JSON");
    check["prevResult"] = json!({ "cniVersion": "1.1.0", "interfaces": [{ "name": "eth0", "sandbox": path }] });
    for (command, input, code) in [("ADD", &conf, 11), ("STATUS", &conf, 50), ("CHECK", &check.to_string(), 102)] {
        let error = answer(&run(&attachment(command, path), input.as_bytes()), false);
        assert_eq!(error["code"], code, "{error}");
    }
    for netns in [path, "", "/run/netns/podwire-no-such"] {
        let output = run(&attachment("DEL", netns), conf.as_bytes());
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    }
    let mut queued = Vec::new();
    let queue = DeletionQueue::beside(&dir.path().join("podwire.sock"));
    let drained = queue.drain(|attachment| {
        queued.push(attachment.to_string());
        Ok(())
    });
    assert!(drained.expect("drained").is_empty().expect("readable"));
    assert_eq!(queued, ["abc:eth0"]);
}

/// It takes connections and never answers, as a process that was stopped does.
#[test]
fn an_agent_that_hangs_costs_five_seconds() {
    let (dir, netns) = (tempfile::tempdir().expect("a directory"), TestNetns::new());
    let _listener = UnixListener::bind(dir.path().join("podwire.sock")).expect("the socket");
    let (path, conf) = (netns.path().to_str().expect("ASCII"), conf(dir.path()).to_string());
    let began = Instant::now();
    thread::scope(|scope| {
        let calls = [("ADD", "one", Some(11)), ("STATUS", "", Some(50)), ("DEL", "two", None), ("DEL", "three", None)];
        let asked = calls.map(|(command, container, code)| {
            let mut variables = attachment(command, path);
            variables.push(("CNI_CONTAINERID", container));
            let conf = &conf;
            (code, scope.spawn(move || run(&variables, conf.as_bytes())))
        });
        for (code, output) in asked {
            let output = output.join().expect("no panic");
            match code {
                Some(code) => assert_eq!(answer(&output, false)["code"], code, "{output:?}"),
                None => assert!(output.status.success(), "{output:?}"),
            }
        }
    });
    // once the question, and once the undoing of what it may have done
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(netns.socket().link_by_name("eth0").is_err(), "nothing is left");
}

#[test]
fn an_agent_that_dies_with_a_request_is_to_be_asked_again() {
    let (dir, netns) = (tempfile::tempdir().expect("a directory"), TestNetns::new());
    let listener = UnixListener::bind(dir.path().join("podwire.sock")).expect("the socket");
    let (path, conf) = (netns.path().to_str().expect("ASCII"), conf(dir.path()).to_string());
    thread::spawn(move || listener.incoming().flatten().for_each(|mut stream| drop(stream.read(&mut [0; 64]))));
    let error = answer(&run(&attachment("ADD", path), conf.as_bytes()), false);
    assert_eq!(error["code"], 11, "{error}");
    assert!(netns.socket().link_by_name("eth0").is_err(), "nothing is left");
}

#[test]
fn messages_go_to_the_log_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("cni.log");
    let mut conf = conf(dir.path());
    conf["log-file"] = json!(file);
    conf["enable-debug"] = json!(true);
    let output = run(&attachment("DEL", ""), conf.to_string().as_bytes());
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    let text = fs::read_to_string(&file).expect("the log");
    assert!(text.contains("DEL abc eth0") && text.contains("queued"), "{text}");
    assert_eq!(fs::metadata(&file).expect("the log").permissions().mode() & 0o777, 0o600);

    // a log that can't be written is no reason to fail
    conf["log-file"] = json!(dir.path().join("no/such/directory/cni.log"));
    let output = run(&attachment("DEL", ""), conf.to_string().as_bytes());
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("log-file"), "{output:?}");
}
