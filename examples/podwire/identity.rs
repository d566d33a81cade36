//! `podwire identity`.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use podwire::SecurityId;
use podwire::api::{Client, Identity};

use crate::report::Report;
use crate::table;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// List identities, all or those with given labels.
    #[command(visible_alias = "ls")]
    List {
        /// Those that have all of these labels.
        labels: Vec<String>,
        /// Those of this node's endpoints, and how many endpoints have them.
        #[arg(long, conflicts_with = "labels")]
        endpoints: bool,
    },
    /// Show one identity, or those with given labels.
    Get(Selection),
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Selection {
    /// The identity's number.
    #[arg(value_name = "ID")]
    id: Option<SecurityId>,
    /// Those that have all of these labels.
    #[arg(short, long = "label", value_delimiter = ',', value_name = "LABEL")]
    labels: Vec<String>,
}

pub(crate) fn run(command: &Command, client: &Client) -> anyhow::Result<Report> {
    match command {
        Command::List { endpoints: true, .. } => of_endpoints(client),
        Command::List { labels, .. } if labels.is_empty() => {
            list(client.identities().context("cannot list identities")?)
        }
        Command::List { labels, .. } | Command::Get(Selection { id: None, labels }) => with(client, labels),
        Command::Get(Selection { id: Some(id), .. }) => {
            list(vec![client.identity(*id).with_context(|| format!("cannot get identity {id}"))?])
        }
    }
}

fn with(client: &Client, labels: &[String]) -> anyhow::Result<Report> {
    let identities = client.identities_with(labels);
    list(identities.with_context(|| format!("cannot get identities with the labels {}", labels.join(", ")))?)
}

fn list(mut identities: Vec<Identity>) -> anyhow::Result<Report> {
    identities.sort_by_key(|identity| identity.id);
    let rows = identities.iter().map(|identity| [identity.id.to_string(), lines(identity)]);
    Ok(Report::new(table::of(&["ID", "LABELS"], rows), &identities)?)
}

fn of_endpoints(client: &Client) -> anyhow::Result<Report> {
    let mut counted = client.identities_of_endpoints().context("cannot list identities of endpoints")?;
    counted.sort_by_key(|counted| counted.identity.id);
    let rows = counted
        .iter()
        .map(|counted| [counted.identity.id.to_string(), lines(&counted.identity), counted.ref_count.to_string()]);
    Ok(Report::new(table::of(&["ID", "LABELS", "REFCOUNT"], rows), &counted)?)
}

fn lines(identity: &Identity) -> String {
    let mut labels = identity.labels.clone();
    labels.sort();
    labels.join("\n")
}
