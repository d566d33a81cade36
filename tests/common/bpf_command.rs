//! `podwire bpf` on a test's own pins, without an agent.
#![allow(unreachable_pub, reason = "every test program compiles this as a private module")]

use std::process::Output;

use serde_json::Value;

use super::bpf::BpfRoot;
use super::fake_agent::{podwire, stderr};

pub fn run(root: &BpfRoot, args: &[&str]) -> Output {
    let mut command = podwire();
    command.args(["--socket", "/nonexistent/podwire.sock", "bpf", "--bpf-root"]).arg(root.path()).args(args);
    command.output().expect("the program starts")
}

pub fn prints(root: &BpfRoot, args: &[&str]) -> String {
    let output = run(root, args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

pub fn prints_json(root: &BpfRoot, args: &[&str]) -> Value {
    serde_json::from_str(&prints(root, &[args, &["-o", "json"]].concat())).expect("JSON")
}

/// Fails with this status, and with one line that says why.
pub fn fails(root: &BpfRoot, args: &[&str], code: i32, reason: &str) {
    let output = run(root, args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
    let text = stderr(&output);
    assert!(text.contains(reason) && text.trim_end().lines().count() == 1, "{args:?}: {text}");
}
