//! The example programs, built as this bench is, and as they are to be installed.

use std::path::PathBuf;
use std::process::Command;

/// The path of an example's program, built from the current sources.
pub fn example(name: &str) -> PathBuf {
    // This program is target/<profile>/deps/<bench>.
    let own = std::env::current_exe().expect("a running program has a path");
    let profile = own.ancestors().nth(2).expect("two folders above");
    let mut build = Command::new(env!("CARGO"));
    build.args(["rustc", "--quiet", "--features", "programs", "--example", name]);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    if name == "podwire-cni" {
        // a plugin runs on whatever host it is copied to, and starts as quickly as one written in Go
        build.args(["--", "-C", "target-feature=+crt-static", "-C", "relocation-model=static"]);
    }
    let status =
        build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs, since it started this bench");
    assert!(status.success(), "example {name} does not build");
    profile.join("examples").join(name)
}
