//! `podwire bpf`: reads and writes pinned maps, whether or not an agent runs.

mod ct;
mod endpoint;
mod ipcache;
mod metrics;
mod policy;

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Subcommand;
use podwire::ErrorKind;
use podwire::api::Client;

use crate::report::Report;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the BPF file system is mounted.
    #[arg(long, global = true, default_value = "/sys/fs/bpf", value_name = "PATH")]
    bpf_root: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Connections.
    #[command(subcommand)]
    Ct(ct::Command),
    /// Endpoints by address.
    #[command(subcommand)]
    Endpoint(endpoint::Command),
    /// Identities by address.
    #[command(subcommand)]
    Ipcache(ipcache::Command),
    /// Packets and bytes by what became of them.
    #[command(subcommand)]
    Metrics(metrics::Command),
    /// What each endpoint lets in and out.
    #[command(subcommand)]
    Policy(policy::Command),
}

/// `agent` is asked only for what makes the content easier to read, and only if it is there.
pub(crate) fn run(args: &Args, agent: &Client) -> anyhow::Result<Report> {
    let pins = args.bpf_root.join("tc/globals");
    match &args.command {
        Command::Ct(command) => ct::run(command, &args.bpf_root),
        Command::Endpoint(command) => endpoint::run(command, &pins),
        Command::Ipcache(command) => ipcache::run(command, &pins),
        Command::Metrics(command) => metrics::run(command, &pins),
        Command::Policy(command) => policy::run(command, &pins, agent),
    }
}

/// Opens a map pinned below `pins`; says where to look for the pins when there is none.
fn open<T>(pins: &Path, open: impl FnOnce(PathBuf) -> podwire::Result<T>) -> anyhow::Result<T> {
    match open(pins.to_owned()) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("{error}: has an agent been started with this BPF file system? choose another with --bpf-root")
        }
        result => Ok(result?),
    }
}
