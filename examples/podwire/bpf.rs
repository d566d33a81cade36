//! `podwire bpf`: reads and writes pinned maps, whether or not an agent runs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use podwire::ErrorKind;
use podwire::tables::{Counter, ForwardsMap, LxcMap, MetricsMap};
use serde_json::{Value, json};

use crate::report::Report;
use crate::table;

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
    /// Endpoints by address.
    #[command(subcommand)]
    Endpoint(Endpoint),
    /// Packets and bytes by what became of them.
    #[command(subcommand)]
    Metrics(Metrics),
}

#[derive(Subcommand)]
enum Endpoint {
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

#[derive(Subcommand)]
enum Metrics {
    /// List all counters, summed over the CPUs.
    #[command(visible_alias = "ls")]
    List,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let pins = args.bpf_root.join("tc/globals");
    match &args.command {
        Command::Endpoint(Endpoint::List) => endpoints(&pins),
        Command::Endpoint(Endpoint::Delete { address }) => delete(&pins, *address),
        Command::Metrics(Metrics::List) => metrics(&pins),
    }
}

fn endpoints(pins: &Path) -> anyhow::Result<Report> {
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

fn metrics(pins: &Path) -> anyhow::Result<Report> {
    let counted = open(pins, MetricsMap::open_pinned)?.counters().context("cannot read cilium_metrics")?;
    let mut counters: BTreeMap<_, _> = counted.into_iter().map(|counter| (counter.counted, counter)).collect();
    // Forwarded packets are counted elsewhere, and copied there only now and then, while an agent runs.
    match ForwardsMap::open_pinned(pins) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        forwards => {
            let fresh = forwards.and_then(|map| map.counters()).context("cannot read podwire_forwards")?;
            counters.extend(fresh.into_iter().map(|counter| (counter.counted, counter)));
        }
    }
    let mut counters: Vec<_> = counters.into_values().collect();
    counters.sort_by_key(|counter| (counter.counted.reason.to_string(), counter.counted));
    let headers = ["REASON", "DIRECTION", "PACKETS", "BYTES", "LINE", "FILE"];
    let json: Vec<_> = counters.iter().map(counter_json).collect();
    Ok(Report::new(table::of(&headers, counters.iter().map(counter_row)), &json)?)
}

fn counter_row(counter: &Counter) -> [String; 6] {
    let counted = &counter.counted;
    [
        counted.reason.to_string(),
        counted.direction.to_string(),
        counter.packets.to_string(),
        counter.bytes.to_string(),
        counted.line.to_string(),
        counted.file.to_string(),
    ]
}

fn counter_json(counter: &Counter) -> Value {
    let counted = &counter.counted;
    json!({
        "reason": counted.reason.to_string(),
        "direction": counted.direction.name(),
        "packets": counter.packets,
        "bytes": counter.bytes,
        "line": counted.line,
        "file": counted.file.to_string(),
    })
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
