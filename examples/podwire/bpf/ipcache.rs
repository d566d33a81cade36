//! `podwire bpf ipcache`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use ipnetwork::IpNetwork;
use podwire::tables::{IpCache, IpCacheEntry};

use super::open;
use crate::report::Report;
use crate::table;

#[derive(Subcommand)]
pub(super) enum Command {
    /// List all prefixes and the identities behind them.
    #[command(visible_alias = "ls")]
    List,
    /// Show what the longest prefix around an address says.
    Get {
        /// The address, as in 10.0.0.7.
        #[arg(value_name = "IP")]
        address: IpAddr,
    },
    /// Show what exactly this prefix says.
    Match {
        /// The prefix, as in 10.0.0.0/24.
        prefix: IpNetwork,
    },
}

pub(super) fn run(command: &Command, pins: &Path) -> anyhow::Result<Report> {
    let cache = open(pins, IpCache::open_pinned)?;
    let read = "cannot read cilium_ipcache_v2";
    match command {
        Command::List => list(&cache.entries().context(read)?),
        Command::Get { address } => match cache.lookup(*address).context(read)? {
            Some(entry) => one(address, &entry, format!("{address} maps to identity {entry}")),
            None => bail!("{address} does not map to any identity: see `podwire bpf ipcache list`"),
        },
        Command::Match { prefix } => match cache.exact(*prefix).context(read)? {
            Some(entry) => one(prefix, &entry, format!("key {prefix} has value \"{entry}\"")),
            None => bail!(
                "cilium_ipcache_v2 has no entry for exactly {prefix}: `podwire bpf ipcache get` finds the prefix around an address"
            ),
        },
    }
}

fn list(entries: &[(IpNetwork, IpCacheEntry)]) -> anyhow::Result<Report> {
    let rows = entries.iter().map(|(prefix, entry)| [prefix.to_string(), entry.to_string()]);
    let json: BTreeMap<_, _> = entries.iter().map(|(prefix, entry)| (prefix, [entry.to_string()])).collect();
    Ok(Report::new(table::of(&["IP PREFIX/ADDRESS", "IDENTITY"], rows), &json)?)
}

fn one(key: &impl ToString, entry: &IpCacheEntry, text: String) -> anyhow::Result<Report> {
    Ok(Report::new(text, &BTreeMap::from([(key.to_string(), [entry.to_string()])]))?)
}
