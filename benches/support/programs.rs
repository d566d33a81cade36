//! The example programs, built from the current sources.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The path of the agent's program, built as this bench is.
pub fn agent() -> PathBuf {
    example("podwire-agent")
}

/// The path of the CNI plugin's program: built as it is to be installed, unless this is no more than a check.
pub fn plugin() -> PathBuf {
    if !profile().ends_with("release") {
        return example("podwire-cni");
    }
    let mut build = Command::new("scripts/plugin.sh");
    build.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit());
    let output = build.output().expect("the script runs");
    assert!(output.status.success(), "the plugin does not build");
    String::from_utf8(output.stdout).expect("a path in UTF-8").trim_end().into()
}

fn example(name: &str) -> PathBuf {
    let profile = profile();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--features", "programs", "--example", name]);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    let status =
        build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs, since it started this bench");
    assert!(status.success(), "example {name} does not build");
    profile.join("examples").join(name)
}

/// The folder of everything built as this program is: it is target/<profile>/deps/<bench> itself.
fn profile() -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    own.ancestors().nth(2).expect("two folders above").to_owned()
}
