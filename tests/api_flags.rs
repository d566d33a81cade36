//! The agent's settings: flags, files, and what is wrong with them.
#![cfg(feature = "programs")]

mod common {
    #![allow(dead_code, reason = "every test program uses a part of what they share")]
    pub mod agent;
    pub mod bpf;
    pub mod example;
    pub mod netns;
}

use std::fs;
use std::path::{Path, PathBuf};

use common::agent::{Node, private_folder};

fn config_dir(node: &Node, files: &[(&str, &str)]) -> PathBuf {
    let folder = private_folder(node.folder.path(), "config");
    for (name, content) in files {
        fs::write(folder.join(name), content).expect("a file in our own folder");
    }
    folder
}

fn flag(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn files_configure_and_flags_beat_them() {
    let node = Node::new();
    let folder = config_dir(
        &node,
        &[
            ("ipv4-range", "10.66.0.0/24\n"),
            ("node-name", "from-file"),
            ("cluster-name", "lab"),
            ("attach-mode", "clsact"),
            ("metrics-addr", ""),
            ("enable-policy", "always"),
            ("bpf-ct-timeout-regular-tcp", "2h13m20s\n"),
            ("bpf-ct-timeout-regular-any", "30s"),
            ("conntrack-gc-max-interval", "5m0s"),
            ("enable-hubble", "true"),
            ("..data", "hidden"),
        ],
    );
    let agent = node.spawn(&["--config-dir", &flag(&folder), "--node-name", "from-flag"]);
    node.client().status(true).unwrap_or_else(|error| panic!("{error}\n{}", node.log()));
    let config = node.client().config().expect("the configuration").status.daemon_configuration_map;
    assert_eq!(config["NodeName"], "from-flag");
    assert_eq!(config["ClusterName"], "lab");
    assert_eq!(config["IPv4Range"], "10.66.0.0/24");
    assert_eq!(config["EnablePolicy"], "always");
    assert_eq!(config["CTMapEntriesTimeoutTCP"], 8_000_000_000_000_u64);
    assert_eq!(config["CTMapEntriesTimeoutAny"], 30_000_000_000_u64);
    assert_eq!(config["CTMapEntriesTimeoutFIN"], 10_000_000_000_u64);
    let log = node.log();
    assert!(log.contains("enable-hubble is no setting of this agent"), "{log}");
    assert!(!log.contains("data is no setting"), "hidden files are left alone: {log}");
    assert!(agent.terminate().success());
}

#[test]
fn a_bad_value_is_one_line_with_key_value_and_reason() {
    let node = Node::new();
    let good = ["--ipv4-range", "10.66.0.0/24"];
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &["ipv4-range", "without either there are no addresses"]),
        (&["--ipv4-range", "10.66.0.0"], &["ipv4-range", "10.66.0.0", "expected a prefix length"]),
        (&["--ipv4-range", "fd00::/64"], &["ipv4-range", "fd00::/64"]),
        (&["--ipv4-range", "10.66.0.0/33"], &["ipv4-range", "10.66.0.0/33"]),
        (&["--ipv6-range", "10.66.0.0/24"], &["ipv6-range", "10.66.0.0/24"]),
        (&[good[0], good[1], "--attach-mode", "xdp"], &["attach-mode", "xdp", "auto, tcx or clsact"]),
        (&[good[0], good[1], "--enable-policy", "maybe"], &["enable-policy", "maybe", "default, always or never"]),
        (&[good[0], good[1], "--policy-audit-mode", "yes"], &["policy-audit-mode", "yes", "true or false"]),
        (&[good[0], good[1], "--allow-localhost", "no"], &["allow-localhost", "no", "always or policy"]),
        (&[good[0], good[1], "--metrics-addr", "9962"], &["metrics-addr", "9962", "127.0.0.1:9962"]),
        (&[good[0], good[1], "--bpf-ct-timeout-regular-any", "60"], &["bpf-ct-timeout-regular-any", "60", "2h13m20s"]),
        (&[good[0], good[1], "--bpf-ct-timeout-regular-tcp", "24h"], &["bpf-ct-timeout-regular-tcp", "65535"]),
        (&[good[0], good[1], "--bpf-ct-timeout-regular-tcp-fin", "0s"], &["bpf-ct-timeout-regular-tcp-fin", "65535"]),
        (&[good[0], good[1], "--conntrack-gc-interval", "0s"], &["conntrack-gc-interval", "at most a day"]),
        (&[good[0], good[1], "--conntrack-gc-interval", "1ns"], &["conntrack-gc-interval", "1ns", "at least 1s"]),
        (&[good[0], good[1], "--conntrack-gc-max-interval", "25h"], &["conntrack-gc-max-interval", "25h"]),
        (&[good[0], good[1], "--node-name", "a b"], &["node-name", "a b"]),
        (&[good[0], good[1], "--device", "a-name-that-is-too-long"], &["device", "a-name-that-is-too-long", "1 to 15"]),
        (&[good[0], good[1], "--device", "nosuch0"], &["nosuch0"]),
        (&[good[0], good[1], "--config-dir", "/nosuch"], &["config-dir: \"/nosuch\": can't be read: No such"]),
        (&["--no-such-flag"], &["--no-such-flag"]),
        (&["--ipv4-range"], &["--ipv4-range"]),
    ];
    let long = "x".repeat(100_000);
    let long: &[(&[&str], &[&str])] = &[
        (&["--ipv4-range", &long], &["ipv4-range: \"xxx", "xxx…\": "]),
        (&[good[0], good[1], "--device", &long], &["device: \"xxx", "xxx…\": "]),
        (&[good[0], good[1], "--config-dir", &long], &["config-dir: \"xxx", "xxx…\": "]),
        (&[&long], &["xxx…"]),
    ];
    for (flags, expected) in cases.iter().chain(long) {
        let before = node.log().len();
        let status = node.spawn(flags).wait();
        assert!(!status.success(), "{flags:?} was accepted");
        let log = node.log();
        let told: Vec<_> = log[before..].lines().filter(|line| !line.starts_with('[')).collect();
        assert_eq!(told.len(), 1, "{flags:?}: {told:?}");
        assert!(told[0].len() < 1000, "{} bytes of {}", told[0].len(), flags[0]);
        for part in *expected {
            assert!(told[0].contains(part), "{flags:?}: no {part:?} in {told:?}");
        }
    }
}

#[test]
fn a_bad_file_is_one_line_too() {
    let node = Node::new();
    let folder = config_dir(&node, &[("ipv4-range", "junk\n")]);
    assert_eq!(node.spawn(&["--config-dir", &flag(&folder)]).wait().code(), Some(1));
    let log = node.log();
    assert!(log.lines().any(|line| line.starts_with("podwire-agent: ipv4-range: \"junk\": ")), "{log}");
    fs::write(folder.join("ipv4-range"), b"\xff\xfe").expect("a file");
    assert_eq!(node.spawn(&["--config-dir", &flag(&folder)]).wait().code(), Some(1));
    let log = node.log();
    assert!(
        log.lines().any(|line| line.starts_with("podwire-agent: ipv4-range: \"/") && line.contains("UTF-8")),
        "{log}"
    );
    fs::write(folder.join("ipv4-range"), " ".repeat(5000)).expect("a file");
    assert_eq!(node.spawn(&["--config-dir", &flag(&folder)]).wait().code(), Some(1));
    assert!(node.log().contains("config/ipv4-range\": can't be read: it is longer than 4096 bytes"), "{}", node.log());
}
