//! `podwire bpf endpoint`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use podwire::tables::LxcMap;

use super::open;
use crate::report::Report;
use crate::table;

#[derive(Subcommand)]
pub(super) enum Command {
    /// List all addresses and the endpoints behind them.
    #[command(visible_alias = "ls")]
    List,
    /// Remove an address. A running agent puts it back if an endpoint has it.
    Delete {
        /// The address, as in 10.0.0.7.
        #[arg(value_name = "IP")]
        address: IpAddr,
    },
}

pub(super) fn run(command: &Command, pins: &Path) -> anyhow::Result<Report> {
    match command {
        Command::List => list(pins),
        Command::Delete { address } => delete(pins, *address),
    }
}

fn list(pins: &Path) -> anyhow::Result<Report> {
    let entries = open(pins, LxcMap::open_pinned)?.entries().context("cannot read cilium_lxc")?;
    let keys: Vec<_> = entries.iter().map(|(address, entry)| (format!("{address}:0"), entry.to_string())).collect();
    let rows = keys.iter().map(|(key, entry)| [key.as_str(), entry.trim_end()]);
    let json: BTreeMap<_, _> = keys.iter().map(|(key, entry)| (key, [entry])).collect();
    Ok(Report::new(table::of(&["IP ADDRESS", "LOCAL ENDPOINT INFO"], rows), &json)?)
}

fn delete(pins: &Path, address: IpAddr) -> anyhow::Result<Report> {
    let map = open(pins, LxcMap::open_pinned)?;
    if !map.delete(address).with_context(|| format!("cannot delete {address} from cilium_lxc"))? {
        bail!("cilium_lxc has no entry for {address}: see `podwire bpf endpoint list`");
    }
    Ok(Report::done())
}
