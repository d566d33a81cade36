//! `podwire ipam`.

use anyhow::Context as _;
use clap::Subcommand;
use podwire::api::Client;

use crate::report::Report;
use crate::table;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// List all allocated addresses and their owners.
    #[command(visible_alias = "ls")]
    List,
}

pub(crate) fn run(command: &Command, client: &Client) -> anyhow::Result<Report> {
    match command {
        Command::List => {
            let status = client.status(false).context("cannot get allocations")?;
            let ipam = status.ipam.unwrap_or_default();
            let rows = ipam.allocations.iter().map(|(address, owner)| [address.to_string(), owner.clone()]);
            let mut text = table::of(&["ADDRESS", "OWNER"], rows);
            if let Some(summary) = &ipam.status {
                text.push_str(&format!("\n\n{summary}"));
            }
            Ok(Report::new(text, &ipam)?)
        }
    }
}
