//! The CNI plugin: attaches containers to the node's agent. All of it is in the library's module `cni`.

use std::process::ExitCode;

use dlmalloc::GlobalDlmalloc;

/// musl's own gives a page back to the kernel as soon as nothing is left in it, and asks for it again: 64 of the 159
/// system calls of an ADD. This one keeps what it has, until the process ends.
#[global_allocator]
static ALLOCATOR: GlobalDlmalloc = GlobalDlmalloc;

fn main() -> ExitCode {
    podwire::cni::main(podwire::cni::About { name: "podwire-cni", version: env!("CARGO_PKG_VERSION") })
}
