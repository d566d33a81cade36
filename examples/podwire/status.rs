//! `podwire status`.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args as ClapArgs;
use podwire::api::{Client, ControllerStatus, NEVER, Status, StatusResponse};

use crate::report::Report;
use crate::table;

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Only print one line.
    #[arg(long)]
    brief: bool,
    /// How long to wait for the agent, as in 5s.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Show all recurring work, not just what fails.
    #[arg(long)]
    all_controllers: bool,
    /// Show all allocated addresses, not just their count.
    #[arg(long)]
    all_addresses: bool,
    /// Everything that can be shown.
    #[arg(long)]
    verbose: bool,
}

/// What to show in full.
pub(crate) struct Detail {
    controllers: bool,
    addresses: bool,
    maps: bool,
}

impl Detail {
    pub(crate) fn everything() -> Self {
        Self { controllers: true, addresses: true, maps: true }
    }
}

pub(crate) fn run(args: &Args, socket: &Path) -> anyhow::Result<Report> {
    let client = Client::builder(socket).request_timeout(Some(args.timeout)).build();
    let status = client.status(args.brief).context("cannot get the status")?;
    let degraded: Vec<_> = status.degraded().iter().map(|(part, status)| failure(part, status)).collect();
    let detail = Detail {
        controllers: args.all_controllers || args.verbose,
        addresses: args.all_addresses || args.verbose,
        maps: args.verbose,
    };
    let text = match (args.brief, degraded.is_empty()) {
        (true, true) => "OK".to_owned(),
        (true, false) => degraded.join("\n"),
        (false, _) => text(&status, &detail),
    };
    Ok(Report::new(text, &status)?.failing(!degraded.is_empty()))
}

fn failure(part: &str, status: &Status) -> String {
    format!("error in {part}: {}", status.msg.as_deref().unwrap_or("no reason given"))
}

/// The sections, one a line, details indented below.
pub(crate) fn text(status: &StatusResponse, detail: &Detail) -> String {
    let mut lines = Lines::default();
    if let Some(chaining) = &status.cni_chaining {
        lines.add("CNI Chaining", chaining.mode.as_deref().unwrap_or("none"));
    }
    if let Some(file) = &status.cni_file {
        lines.add("CNI Config file", file.msg.as_deref().unwrap_or_default());
    }
    if let Some(agent) = &status.cilium {
        lines.add_status("Podwire", agent);
    }
    lines.add("NodeMonitor", &monitor(status));
    ipam(&mut lines, status, detail);
    if let Some(policy) = &status.policy {
        lines.add_status("Policy", policy);
    }
    if let Some(routing) = &status.routing {
        let inter = routing.inter_host_routing_mode.as_deref().unwrap_or("unknown");
        let tunnel = routing.tunnel_protocol.as_ref().map(|protocol| format!(" [{protocol}]")).unwrap_or_default();
        let intra = routing.intra_host_routing_mode.as_deref().unwrap_or("unknown");
        lines.add("Routing", &format!("Network: {inter}{tunnel}   Host: {intra}"));
    }
    if let Some(mode) = &status.attach_mode {
        lines.add("Attach Mode", if mode == "tcx" { "TCX" } else { "Legacy TC" });
    }
    if let Some(mode) = &status.datapath_mode {
        lines.add("Device Mode", mode);
    }
    if let Some(clock) = status.clock_source.as_ref().filter(|_| detail.maps) {
        lines.add("Clock Source for BPF", clock.mode.as_deref().unwrap_or("unknown"));
    }
    controllers(&mut lines, &status.controllers, detail.controllers);
    if let Some(range) = &status.identity_range {
        lines.add("Global Identity Range", &format!("min {}, max {}", range.min_identity, range.max_identity));
    }
    if let Some(maps) = status.bpf_maps.as_ref().filter(|_| detail.maps) {
        lines.add("BPF Maps", "");
        let rows = maps.maps.iter().map(|map| [map.name.clone(), map.size.to_string()]);
        lines.indent(&table::beside(INDENT, &["Name", "Size"], rows));
    }
    if let Some(health) = status.cluster.as_ref().and_then(|cluster| cluster.cilium_health.as_ref()) {
        lines.add_status("Cluster health", health);
    }
    for (probe, since) in &status.stale {
        lines.add("Stale", &format!("{probe} has not answered since {since}"));
    }
    lines.0
}

fn monitor(status: &StatusResponse) -> String {
    match &status.node_monitor {
        Some(monitor) if monitor.npages > 0 => {
            let lost = if monitor.lost > 0 { format!(" ({} lost)", monitor.lost) } else { String::new() };
            let (cpus, pages, size) = (monitor.cpus, monitor.npages, monitor.pagesize);
            format!("Listening for events on {cpus} CPUs with {pages}x{size} of shared memory{lost}")
        }
        _ => "Disabled".to_owned(),
    }
}

fn ipam(lines: &mut Lines, status: &StatusResponse, detail: &Detail) {
    let Some(ipam) = &status.ipam else { return };
    lines.add("IPAM", ipam.status.as_deref().unwrap_or_default());
    if detail.addresses {
        lines.0.push_str("Allocated addresses:\n");
        for (address, owner) in &ipam.allocations {
            lines.0.push_str(&format!("  {address} ({owner})\n"));
        }
    }
}

fn controllers(lines: &mut Lines, controllers: &[ControllerStatus], all: bool) {
    let fails = |controller: &&ControllerStatus| controller.status.consecutive_failure_count > 0;
    let failing = controllers.iter().filter(fails).count();
    lines.add("Controller Status", &format!("{}/{} healthy", controllers.len() - failing, controllers.len()));
    let mut shown: Vec<_> = controllers.iter().filter(|controller| all || fails(controller)).collect();
    if shown.is_empty() {
        return;
    }
    shown.sort_by(|a, b| a.name.cmp(&b.name));
    let rows = shown.into_iter().map(|controller| {
        let runs = &controller.status;
        let when = |time: &Option<String>| match time.as_deref() {
            None | Some(NEVER) => "never".to_owned(),
            Some(time) => time.to_owned(),
        };
        let message = runs.last_failure_msg.clone().filter(|_| fails(&controller)).unwrap_or("no error".to_owned());
        let count = runs.consecutive_failure_count.to_string();
        [
            controller.name.clone(),
            when(&runs.last_success_timestamp),
            when(&runs.last_failure_timestamp),
            count,
            message,
        ]
    });
    lines.indent(&table::beside(INDENT, &["Name", "Last success", "Last error", "Count", "Message"], rows));
}

/// How far tables are set off.
const INDENT: u16 = 2;

/// The text so far.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: &str) {
        self.0.push_str(format!("{:<25}{value}", format!("{name}:")).trim_end());
        self.0.push('\n');
    }

    fn add_status(&mut self, name: &str, status: &Status) {
        let state = status.state.as_ref().map_or("Unknown", |state| state.as_str());
        let msg = status.msg.as_deref().unwrap_or_default();
        self.add(name, &format!("{}   {msg}", table::coloured(state)));
    }

    fn indent(&mut self, text: &str) {
        for line in text.lines() {
            self.0.push_str(&format!("{:width$}{line}\n", "", width = usize::from(INDENT)));
        }
    }
}
