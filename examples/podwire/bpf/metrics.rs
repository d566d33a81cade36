//! `podwire bpf metrics`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use clap::Subcommand;
use podwire::ErrorKind;
use podwire::tables::{Counter, ForwardsMap, MetricsMap};
use serde_json::{Value, json};

use super::open;
use crate::report::Report;
use crate::table;

#[derive(Subcommand)]
pub(super) enum Command {
    /// List all counters, summed over the CPUs.
    #[command(visible_alias = "ls")]
    List,
}

pub(super) fn run(command: &Command, pins: &Path) -> anyhow::Result<Report> {
    match command {
        Command::List => list(pins),
    }
}

fn list(pins: &Path) -> anyhow::Result<Report> {
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
