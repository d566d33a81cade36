//! The CNI plugin: attaches containers to the node's agent. All of it is in the library's module `cni`.

use std::process::ExitCode;

fn main() -> ExitCode {
    podwire::cni::main(podwire::cni::About { name: "podwire-cni", version: env!("CARGO_PKG_VERSION") })
}
