//! `podwire ip`.

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use ipnetwork::IpNetwork;
use podwire::api::{Client, IpListEntry};
use podwire::{ErrorKind, SecurityId};

use crate::report::Report;
use crate::table;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// List all addresses and prefixes.
    #[command(visible_alias = "ls")]
    List(Style),
    /// Show the addresses within a prefix, or those of an identity.
    Get {
        /// The prefix, as in 10.0.0.0/24, or an address.
        #[arg(required_unless_present = "labels", conflicts_with = "labels")]
        cidr: Option<IpNetwork>,
        /// The labels of an identity.
        #[arg(short, long, value_delimiter = ',')]
        labels: Vec<String>,
        #[command(flatten)]
        style: Style,
    },
}

#[derive(Args)]
pub(crate) struct Style {
    /// Print identities as numbers.
    #[arg(short, long)]
    numeric: bool,
    /// Print the node, the pod and the key too.
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) fn run(command: &Command, client: &Client) -> anyhow::Result<Report> {
    let (style, cidr, labels): (_, _, &[String]) = match command {
        Command::List(style) => (style, None, &[]),
        Command::Get { cidr, labels, style } => (style, cidr.as_ref(), labels),
    };
    let mut entries = match client.addresses(cidr.map(ToString::to_string).as_deref()) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let within = cidr.map(|cidr| format!(" within {cidr}")).unwrap_or_default();
            bail!("nothing is known{within}: see `podwire ip list`")
        }
        entries => entries.context("cannot get addresses")?,
    };
    // IPv4 first, the widest prefix first.
    entries.sort_by_key(|entry| (entry.cidr.is_ipv6(), entry.cidr.prefix(), entry.cidr.ip()));
    let names = if style.numeric && labels.is_empty() { HashMap::new() } else { names(client)? };
    if !labels.is_empty() {
        let has_all =
            |id: &SecurityId| names.get(id).is_some_and(|known| labels.iter().all(|label| known.contains(label)));
        entries.retain(|entry| has_all(&entry.identity));
        if entries.is_empty() {
            bail!("no address has an identity with the labels {}: see `podwire ip list`", labels.join(", "));
        }
    }
    let headers: &[_] = if style.verbose {
        &["IP", "IDENTITY", "SOURCE", "HOST", "POD", "ENCRYPT KEY"]
    } else {
        &["IP", "IDENTITY", "SOURCE"]
    };
    let rows = entries.iter().map(|entry| row(entry, &names, style));
    Ok(Report::new(table::of(headers, rows), &entries)?)
}

/// The labels of every identity that the agent knows.
fn names(client: &Client) -> anyhow::Result<HashMap<SecurityId, Vec<String>>> {
    let identities = client.identities().context("cannot get identities")?;
    Ok(identities.into_iter().map(|identity| (identity.id, identity.labels)).collect())
}

fn row(entry: &IpListEntry, names: &HashMap<SecurityId, Vec<String>>, style: &Style) -> Vec<String> {
    let identity = match names.get(&entry.identity) {
        Some(labels) if !style.numeric => labels.join("\n"),
        _ => entry.identity.to_string(),
    };
    let metadata = entry.metadata.clone().unwrap_or_default();
    let mut row = vec![entry.cidr.to_string(), identity, metadata.source.unwrap_or_default()];
    if style.verbose {
        let pod = match (metadata.namespace, metadata.name) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            (_, name) => name.unwrap_or_default(),
        };
        row.extend([entry.host_ip.map(|ip| ip.to_string()).unwrap_or_default(), pod, entry.encrypt_key.to_string()]);
    }
    row
}
