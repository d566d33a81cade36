//! `podwire map`.

use anyhow::Context as _;
use clap::Subcommand;
use podwire::api::{BpfMap, Client};

use crate::report::Report;
use crate::table;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// List all maps.
    #[command(visible_alias = "ls")]
    List {
        /// Print what each map should hold.
        #[arg(long)]
        verbose: bool,
    },
    /// Show what one map should hold, and whether it does.
    Get {
        /// The map's name, as in cilium_lxc.
        name: String,
    },
}

pub(crate) fn run(command: &Command, client: &Client) -> anyhow::Result<Report> {
    match command {
        Command::List { verbose } => {
            let maps = client.maps().context("cannot list maps")?;
            let text = if *verbose {
                maps.maps.iter().map(|map| format!("## Map: {}\n{}\n\n", map.name(), content(map))).collect()
            } else {
                overview(&maps.maps)
            };
            Ok(Report::new(text, &maps)?)
        }
        Command::Get { name } => {
            let map = client.map(name).with_context(|| format!("cannot get map {name}"))?;
            Ok(Report::new(content(&map), &map)?)
        }
    }
}

fn overview(maps: &[BpfMap]) -> String {
    let rows = maps.iter().map(|map| {
        let entries = map.cache.as_ref().map_or_else(|| "unknown".to_owned(), |cache| cache.len().to_string());
        [map.name().to_owned(), entries, map.errors().to_string(), map.cache.is_some().to_string()]
    });
    table::of(&["Name", "Num entries", "Num errors", "Cache enabled"], rows)
}

fn content(map: &BpfMap) -> String {
    match &map.cache {
        None => "Cache is disabled".to_owned(),
        Some(cache) if cache.is_empty() => "Cache is empty".to_owned(),
        Some(cache) => {
            let rows = cache.iter().map(|entry| {
                let state = entry.desired_action.as_ref().map(ToString::to_string).unwrap_or_default();
                let error = entry.last_error.clone().unwrap_or_default();
                [entry.key.clone(), entry.value.trim_end().to_owned(), state, error]
            });
            table::of(&["Key", "Value", "State", "Error"], rows)
        }
    }
}
