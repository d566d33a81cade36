//! `podwire bpf metrics`.

use std::collections::{BTreeMap, BTreeSet};
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
    // Packets that were forwarded, or denied by policy, are counted elsewhere by the way they went, and copied there only now and
    // then, while an agent runs.
    let mut ways = BTreeSet::new();
    match ForwardsMap::open_pinned(pins) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        forwards => {
            let fresh = forwards.and_then(|map| map.counters()).context("cannot read podwire_forwards")?;
            ways.extend(fresh.iter().map(|counter| counter.counted));
            counters.extend(fresh.into_iter().map(|counter| (counter.counted, counter)));
        }
    }
    let mut counters: Vec<_> = counters.into_values().collect();
    counters.sort_by_key(|counter| (counter.counted.reason.to_string(), counter.counted));
    let headers = ["REASON", "DIRECTION", "PACKETS", "BYTES", "LINE", "FILE"];
    let json: Vec<_> = counters.iter().map(counter_json).collect();
    let rows = counters.iter().map(|counter| counter_row(counter, ways.contains(&counter.counted)));
    Ok(Report::new(table::of(&headers, rows), &json)?)
}

/// A way has a number, from 0, and no line.
fn counter_row(counter: &Counter, is_way: bool) -> [String; 6] {
    let counted = &counter.counted;
    let line = if is_way { format!("way {}", counted.line.saturating_sub(1)) } else { counted.line.to_string() };
    [
        counted.reason.to_string(),
        counted.direction.to_string(),
        counter.packets.to_string(),
        counter.bytes.to_string(),
        line,
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
