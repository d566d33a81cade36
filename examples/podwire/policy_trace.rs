//! `podwire policy trace`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use podwire::api::{Client, PolicyTrace, PolicyTraceRequest, TraceConnection, TraceDevice, TracePolicy, TraceSide};

use crate::policy;
use crate::report::Report;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Who sends: an endpoint's id, namespace/pod, an address, host or world.
    #[arg(long, value_name = "PLACE")]
    from: String,
    /// Who is to receive, likewise.
    #[arg(long, value_name = "PLACE", required_unless_present = "raw")]
    to: Option<String>,
    /// The port, and the protocol behind a slash, as in 53/UDP; ICMP needs none.
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_parser = port)]
    dport: Option<(u16, Option<String>)>,
    /// TCP, UDP, SCTP, ICMP (of IPv4) or ICMPv6 [default: TCP]
    #[arg(long)]
    protocol: Option<String>,
    /// The sender's port; of an ICMP echo request the identifier.
    #[arg(long, value_name = "PORT")]
    sport: Option<u16>,
    /// The type of an ICMP message [default: that of an echo request]
    #[arg(long, value_name = "TYPE")]
    icmp_type: Option<u8>,
    /// Flags of a TCP segment, separated by commas, as in syn,ack [default: syn]
    #[arg(long, value_name = "FLAGS", value_delimiter = ',')]
    flags: Vec<String>,
    /// The time to live, or hop limit [default: 64]
    #[arg(long, value_name = "HOPS")]
    hop_limit: Option<u8>,
    /// IPv6 where both families would do.
    #[arg(short = '6', long)]
    ipv6: bool,
    /// An Ethernet frame, in the place of all that describes a packet: hexadecimal digits, or @ and a file of its bytes. It comes from
    /// an endpoint, from world to the first native device, or from host to the endpoint that --to names.
    #[arg(long, value_name = "HEX|@FILE")]
    raw: Option<String>,
    /// Policies to try out in the place of those with their names: a file of YAML or JSON; - for standard input. Rules that are part of
    /// no policy stand in the place of all such rules in force, as with import --replace.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

fn port(text: &str) -> Result<(u16, Option<String>), String> {
    let (port, protocol) = text.split_once('/').map_or((text, None), |(port, protocol)| (port, Some(protocol)));
    let port = port.parse().map_err(|_| format!("{port} is no port"))?;
    Ok((port, protocol.map(str::to_owned)))
}

/// The digits of a frame that is given as digits, or as a file.
fn frame(text: &str) -> anyhow::Result<String> {
    let Some(file) = text.strip_prefix('@') else { return Ok(text.to_owned()) };
    let bytes = fs::read(file).with_context(|| format!("cannot read {file}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(crate) fn run(args: &Args, client: &Client) -> anyhow::Result<Report> {
    let (port, behind) = args.dport.clone().map_or((None, None), |(port, protocol)| (Some(port), protocol));
    if let (Some(behind), Some(protocol)) = (&behind, &args.protocol) {
        anyhow::ensure!(behind.eq_ignore_ascii_case(protocol), "--dport says {behind}, --protocol {protocol}");
    }
    let document = |file: &PathBuf| policy::read(file).with_context(|| format!("cannot read {}", file.display()));
    let request = PolicyTraceRequest {
        from: args.from.clone(),
        to: args.to.clone().unwrap_or_default(),
        protocol: behind.or_else(|| args.protocol.clone()),
        destination_port: port,
        source_port: args.sport,
        icmp_type: args.icmp_type,
        tcp_flags: args.flags.clone(),
        hop_limit: args.hop_limit,
        ipv6: args.ipv6,
        raw: args.raw.as_deref().map(frame).transpose()?,
        policy: args.policy.as_ref().map(document).transpose()?,
    };
    let trace = client.trace_policy(&request).context("cannot trace the packet")?;
    Ok(Report::new(text(&trace), &trace)?.failing(!trace.allowed))
}

fn text(trace: &PolicyTrace) -> String {
    let verdict = match &trace.drop {
        _ if trace.allowed => "allowed".to_owned(),
        Some(drop) => format!("denied: {} ({}), {}:{}", drop.reason, drop.code, drop.file, drop.line),
        None => "denied".to_owned(),
    };
    let mut rows = vec![("Verdict", verdict)];
    rows.extend(trace.source.as_ref().map(|source| ("From", side(source))));
    rows.extend(trace.destination.as_ref().map(|destination| ("To", side(destination))));
    for direction in ["egress", "ingress"] {
        let asked: Vec<_> = trace.policies.iter().filter(|policy| policy.direction == direction).collect();
        let name = if direction == "egress" { "Egress" } else { "Ingress" };
        if asked.is_empty() {
            rows.push((name, "not asked".to_owned()));
        }
        rows.extend(asked.into_iter().map(|policy| (name, judgement(policy))));
    }
    rows.push(("Connection", connection(trace)));
    rows.push(("Way", way(trace)));
    rows.extend(
        trace
            .changes
            .iter()
            .map(|change| ("Changed", format!("{} {} -> {}", change.field, change.before, change.after))),
    );
    rows.push(("Program", trace.program.clone()));
    let lines = rows.iter().map(|(name, value)| format!("{:<12}{value}", format!("{name}:")));
    lines.collect::<Vec<_>>().join("\n")
}

fn side(side: &TraceSide) -> String {
    let endpoint = match (side.endpoint, &side.name) {
        (Some(id), Some(name)) => format!(", endpoint {id} ({name})"),
        (Some(id), None) => format!(", endpoint {id}"),
        _ => String::new(),
    };
    let labels = if side.labels.is_empty() { String::new() } else { format!(" ({})", side.labels.join(", ")) };
    format!("{}{endpoint}, identity {}{labels}", side.address, side.identity)
}

fn judgement(policy: &TracePolicy) -> String {
    let rule = match (policy.rule, &policy.rule_name) {
        (Some(number), Some(name)) => format!("rule {name} (#{number})"),
        (Some(number), None) => format!("rule #{number}"),
        (None, _) if policy.r#match == "none" => "no rule matches".to_owned(),
        (None, _) => "no rule".to_owned(),
    };
    let enforced = if policy.enforced { "enforced" } else { "not enforced" };
    let description = policy.rule_description.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    format!(
        "{} by endpoint {}, {enforced}; {rule}, match {}{description}",
        policy.action, policy.endpoint, policy.r#match
    )
}

fn connection(trace: &PolicyTrace) -> String {
    let state = |connection: &Option<TraceConnection>| match connection {
        Some(known) => format!("{} ({} packets, {} back)", known.state, known.forward_packets, known.reply_packets),
        None => "none".to_owned(),
    };
    let (before, after) = (state(&trace.connection_before), state(&trace.connection_after));
    let opener = trace.connection_after.as_ref().or(trace.connection_before.as_ref());
    let opener = opener.map(|connection| format!("; {}", connection.opener)).unwrap_or_default();
    format!("{}: {before} -> {after}{opener}", trace.relation)
}

fn way(trace: &PolicyTrace) -> String {
    let device = |device: &TraceDevice| format!(" through {} (index {})", device.name, device.ifindex);
    let to = match trace.way.as_str() {
        "endpoint" => "to the endpoint",
        "stack" => "to the host's stack",
        "back" => "back to the sender",
        other => other,
    };
    format!("{to}{}", trace.device.as_ref().map(device).unwrap_or_default())
}
