//! Connections: what collections found, how often they come, what could not be noted.

use std::fmt;

use podwire::Datapath;

use super::out::Out;

pub(super) fn encode(datapath: &Datapath, out: &mut Out<'_>) -> fmt::Result {
    let conntrack = datapath.conntrack();
    let passes = conntrack.passes();
    let status = |name: &str| vec![("status", name.to_owned())];
    let runs = [(status("completed"), passes.complete), (status("uncompleted"), passes.incomplete)];
    out.counters("cilium_datapath_conntrack_gc_runs", "Collections of ended connections", runs)?;
    let entries = passes.last.iter().flat_map(|pass| [("alive", pass.left()), ("deleted", pass.removed)]);
    let entries = entries.map(|(name, count)| (status(name), count as f64));
    out.gauges("cilium_datapath_conntrack_gc_entries", "Connections at the end of the last collection", entries)?;
    let interval = [(vec![], passes.interval.as_secs_f64())];
    out.gauges("cilium_datapath_conntrack_gc_interval_seconds", "Time until the next collection", interval)?;
    let errors = conntrack.errors().counts().unwrap_or_else(|error| {
        log::warn!("errors of connection tracking can't be read: {error}");
        Vec::new()
    });
    let errors = errors.iter().map(|(errno, count)| (vec![("errno", errno.to_string())], *count));
    out.counters("podwire_conntrack_insert_errors", "Packets that could not be noted", errors)
}
