//! `podwire metrics`.

use anyhow::Context as _;
use clap::Subcommand;
use podwire::api::{Client, Metric};

use crate::report::Report;
use crate::table;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// List all metrics and their values.
    #[command(visible_alias = "ls")]
    List {
        /// Show only metrics whose names contain this text.
        #[arg(short = 'p', long, value_name = "TEXT")]
        match_pattern: Option<String>,
    },
}

pub(crate) fn run(command: &Command, client: &Client) -> anyhow::Result<Report> {
    match command {
        Command::List { match_pattern } => {
            let mut metrics = client.metrics().context("cannot list metrics")?;
            if let Some(pattern) = match_pattern {
                metrics.retain(|metric| metric.name.contains(pattern));
            }
            metrics.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
            Ok(Report::new(table::of(&["Metric", "Labels", "Value"], metrics.iter().map(row)), &metrics)?)
        }
    }
}

fn row(metric: &Metric) -> [String; 3] {
    let labels: Vec<_> = metric.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    [metric.name.clone(), labels.join(" "), format!("{:.6}", metric.value)]
}
