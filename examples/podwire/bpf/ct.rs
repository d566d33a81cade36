//! `podwire bpf ct`.

use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use podwire::EndpointId;
use podwire::conntrack::{Conntrack, CtFilter, Moment};
use podwire::tables::{Connection, CtFlags, CtPath, CtPathFlags, LxcEntry, LxcMap};
use serde_json::{Value, json};

use super::open;
use crate::report::Report;

#[derive(Subcommand)]
pub(super) enum Command {
    /// List connections: those of the node, or those of an endpoint.
    #[command(visible_alias = "ls")]
    List {
        /// The node's, or an endpoint's by its number.
        #[arg(value_name = "global|ENDPOINT", default_value = "global")]
        scope: Scope,
        /// Also print how long each is kept if no packet comes.
        #[arg(short = 'd', long)]
        time_diff: bool,
    },
    /// Remove connections, whether they have ended or not. The next packet of one that has not opens it anew.
    Flush {
        /// The node's, or an endpoint's by its number.
        #[arg(value_name = "global|ENDPOINT", default_value = "global")]
        scope: Scope,
    },
}

/// Whose connections.
#[derive(Clone, Copy)]
pub(super) enum Scope {
    Global,
    Endpoint(EndpointId),
}

impl FromStr for Scope {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "global" => Ok(Self::Global),
            _ => text.parse().map(Self::Endpoint).map_err(|_| "expected global, or the number of an endpoint"),
        }
    }
}

pub(super) fn run(command: &Command, root: &Path) -> anyhow::Result<Report> {
    let pins = root.join("tc/globals");
    let conntrack = open(&pins, |pins| Conntrack::open_pinned(&pins, &root.join("podwire/programs")))?;
    match command {
        Command::List { scope, time_diff } => list(&conntrack, &filter(*scope, &pins)?, *time_diff),
        Command::Flush { scope } => {
            let flushed = conntrack.flush(&filter(*scope, &pins)?).context("cannot flush podwire_ct")?;
            let text = format!("Flushed {flushed} entries from {}", pins.join("podwire_ct").display());
            Ok(Report::new(text, &json!({ "flushed": flushed }))?)
        }
    }
}

fn filter(scope: Scope, pins: &Path) -> anyhow::Result<CtFilter> {
    let Scope::Endpoint(id) = scope else { return Ok(CtFilter::all()) };
    let entries = open(pins, LxcMap::open_pinned)?.entries().context("cannot read cilium_lxc")?;
    let own = |(address, entry): &(IpAddr, LxcEntry)| match entry {
        LxcEntry::Endpoint(endpoint) if endpoint.id == id => Some(*address),
        _ => None,
    };
    let addresses: Vec<_> = entries.iter().filter_map(own).collect();
    if addresses.is_empty() {
        bail!("endpoint {id} has no address: see `podwire bpf endpoint list`");
    }
    Ok(CtFilter::endpoint(id, addresses))
}

fn list(conntrack: &Conntrack, filter: &CtFilter, time_diff: bool) -> anyhow::Result<Report> {
    let connections = conntrack.list(filter).context("cannot read podwire_ct")?;
    let now = conntrack.clock().now().context("cannot tell the time")?;
    let lines: Vec<_> = connections.iter().map(|connection| line(connection, &now, time_diff)).collect();
    let json: Vec<_> = connections.iter().map(|connection| entry(connection, &now)).collect();
    Ok(Report::new(lines.join("\n"), &json)?)
}

/// As Cilium prints an entry, with both directions in one line: Tx is what the opener sends, Rx what comes back. No connection
/// goes through a service, of which RevNAT and BackendID would tell.
fn line(connection: &Connection, now: &Moment, time_diff: bool) -> String {
    let Connection { opener, state, forward, reply, .. } = connection;
    let state = state.to_string().to_uppercase();
    let remaining = match time_diff {
        true => format!(" (remaining: {} sec(s))", now.seconds_until(connection.expires())),
        false => String::new(),
    };
    let flags: String = flag_names(connection).iter().map(|(name, _)| format!("{name} ")).collect();
    format!(
        "{} {state} {} -> {} expires={}{remaining} TxPackets={} TxBytes={} TxFlagsSeen={:#04x} RxPackets={} RxBytes={} \
         RxFlagsSeen={:#04x} Flags={:#06x} [ {flags}] RevNAT=0 SourceSecurityID={} DestinationSecurityID={} BackendID=0 \
         EgressRule={} IngressRule={}",
        opener.protocol(),
        opener.source(),
        opener.destination(),
        now.since_boot_at(connection.expires()),
        forward.packets,
        forward.bytes,
        forward.tcp_flags,
        reply.packets,
        reply.bytes,
        reply.tcp_flags,
        connection.flags.bits(),
        connection.source_identity,
        connection.destination_identity,
        connection.egress_rule,
        connection.ingress_rule,
    )
}

fn entry(connection: &Connection, now: &Moment) -> Value {
    let flags: Vec<_> = flag_names(connection).into_iter().map(|(_, name)| name).collect();
    json!({
        "protocol": connection.opener.protocol().to_string(),
        "source": connection.opener.source(),
        "destination": connection.opener.destination(),
        "state": connection.state.to_string(),
        "flags": flags,
        "expires": now.since_boot_at(connection.expires()),
        "remaining": now.seconds_until(connection.expires()),
        "source-identity": connection.source_identity,
        "destination-identity": connection.destination_identity,
        "egress-rule": connection.egress_rule,
        "ingress-rule": connection.ingress_rule,
        "forward": path(&connection.forward, now),
        "reply": path(&connection.reply, now),
    })
}

fn path(path: &CtPath, now: &Moment) -> Value {
    let judged = path.flags.contains(CtPathFlags::JUDGED);
    json!({
        "packets": path.packets,
        "bytes": path.bytes,
        "tcp-flags": path.tcp_flags,
        "lifetime": path.lifetime,
        "remaining": now.seconds_until(path.expires),
        "generation": path.generation,
        "allowed": judged.then(|| path.flags.contains(CtPathFlags::ALLOWED)),
        "audited": path.flags.contains(CtPathFlags::AUDITED),
        "receiver": path.receiver,
        "in-device": path.in_device,
        "out-device": path.out_device,
    })
}

/// The names of a connection's flags, as Cilium prints them and as JSON has them.
fn flag_names(connection: &Connection) -> Vec<(&'static str, &'static str)> {
    const NAMES: [(CtFlags, &str, &str); 2] =
        [(CtFlags::SEEN_NON_SYN, "SeenNonSyn", "seen-non-syn"), (CtFlags::RST, "Reset", "reset")];
    let set = NAMES.into_iter().filter(|(flag, ..)| connection.flags.contains(*flag));
    set.map(|(_, text, json)| (text, json)).collect()
}
