//! `podwire endpoint`.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use podwire::Label;
use podwire::api::{
    AddressPair, Client, Endpoint, EndpointKey, EndpointPolicyEnabled, EndpointStatus, LabelConfigurationSpec, Port,
};

use crate::report::Report;
use crate::{endpoint_config, table};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// List all endpoints.
    #[command(visible_alias = "ls")]
    List {
        /// Do not print headers.
        #[arg(long)]
        no_headers: bool,
    },
    /// Show all about one endpoint, or about those with given labels, as JSON.
    #[command(visible_aliases = ["inspect", "show"])]
    Get(Selection),
    /// Show or change an endpoint's options.
    Config(endpoint_config::Args),
    /// Remove an endpoint from the network.
    #[command(visible_alias = "disconnect")]
    Delete(Named),
    /// Write everything that belongs to an endpoint anew.
    Regenerate(Named),
    /// Show or change an endpoint's labels.
    Labels(Labels),
    /// Show or change the names by which rules call an endpoint's ports.
    Ports(Ports),
    /// Show how well an endpoint does.
    Health(Named),
    /// Show what happened to an endpoint, newest first.
    Log(Named),
}

#[derive(Args)]
pub(crate) struct Named {
    /// A number, or ipv4:, ipv6:, container-id:, cni-attachment-id: or pod-name: and a name.
    #[arg(value_name = "ENDPOINT", value_parser = named)]
    key: EndpointKey,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Selection {
    /// A number, or ipv4:, ipv6:, container-id:, cni-attachment-id: or pod-name: and a name.
    #[arg(value_name = "ENDPOINT", value_parser = named)]
    key: Option<EndpointKey>,
    /// Those that have all of these labels.
    #[arg(short, long, value_delimiter = ',')]
    labels: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Labels {
    #[command(flatten)]
    endpoint: Named,
    /// Labels to add, as source:key=value.
    #[arg(short, long, value_delimiter = ',', value_name = "LABELS")]
    add: Vec<String>,
    /// Labels to take away.
    #[arg(short, long, value_delimiter = ',', value_name = "LABELS")]
    delete: Vec<String>,
}

/// An endpoint that there can be: 0 stands for one that is to be created.
pub(crate) fn named(text: &str) -> Result<EndpointKey, String> {
    match text.parse() {
        Ok(EndpointKey::New) => Err("0 is the number of no endpoint".to_owned()),
        key => key.map_err(|error: podwire::Error| error.to_string()),
    }
}

#[derive(Args)]
pub(crate) struct Ports {
    #[command(flatten)]
    endpoint: Named,
    /// Names to give, as name:port/protocol; TCP unless it is said.
    #[arg(short, long, value_delimiter = ',', value_name = "PORTS", value_parser = named_port)]
    add: Vec<Port>,
    /// Names to take away.
    #[arg(short, long, value_delimiter = ',', value_name = "NAMES")]
    delete: Vec<String>,
}

fn named_port(text: &str) -> Result<Port, String> {
    let expected = || format!("{text}: expected a name and a port, as in http:8080 or dns:53/UDP");
    let (name, port) = text.split_once(':').ok_or_else(expected)?;
    let (port, protocol) = port.split_once('/').unwrap_or((port, "TCP"));
    let port = port.parse().map_err(|_| expected())?;
    Ok(Port { name: name.to_owned(), port, protocol: Some(protocol.to_uppercase()) })
}

pub(crate) fn run(command: &Command, client: &Client) -> anyhow::Result<Report> {
    match command {
        Command::List { no_headers } => list(client, *no_headers),
        Command::Get(selection) => get(client, selection),
        Command::Config(args) => endpoint_config::run(args, client),
        Command::Delete(Named { key }) => {
            client.delete_endpoint(key).with_context(|| format!("cannot delete endpoint {key}"))?;
            Ok(Report::text(format!("Endpoint {key} deleted")))
        }
        Command::Regenerate(Named { key }) => {
            client.regenerate_endpoint(key).with_context(|| format!("cannot regenerate endpoint {key}"))?;
            Ok(Report::text(format!("Endpoint {key} regenerated")))
        }
        Command::Labels(labels) => self::labels(client, labels),
        Command::Ports(args) => ports(client, args),
        Command::Health(Named { key }) => health(client, key),
        Command::Log(Named { key }) => log(client, key),
    }
}

fn list(client: &Client, no_headers: bool) -> anyhow::Result<Report> {
    let mut endpoints = client.endpoints(&[]).context("cannot list endpoints")?;
    endpoints.sort_by_key(|endpoint| endpoint.id);
    let headers: &[_] = if no_headers {
        &[]
    } else {
        &[
            "ENDPOINT",
            "POLICY (ingress)\nENFORCEMENT",
            "POLICY (egress)\nENFORCEMENT",
            "IDENTITY",
            "LABELS (source:key[=value])",
            "IPv6",
            "IPv4",
            "STATUS",
        ]
    };
    Ok(Report::new(table::of(headers, endpoints.iter().map(row)), &endpoints)?)
}

fn row(endpoint: &Endpoint) -> Vec<String> {
    let status = endpoint.status.clone().unwrap_or_default();
    let unknown = || "Unknown".to_owned();
    let (ingress, egress) = enforcement(&status);
    let identity = status.identity.map_or_else(|| "<no label id>".to_owned(), |identity| identity.id.to_string());
    let labels = status.labels.map(|labels| labels.security_relevant).unwrap_or_default();
    let labels = if labels.is_empty() { "no labels".to_owned() } else { labels.join("\n") };
    let address = |of: fn(&AddressPair) -> Option<String>| match &status.networking {
        Some(networking) => networking.addressing.iter().filter_map(of).collect::<Vec<_>>().join("\n"),
        None => unknown(),
    };
    let ipv6 = address(|pair| pair.ipv6.map(|address| address.to_string()));
    let ipv4 = address(|pair| pair.ipv4.map(|address| address.to_string()));
    let id = endpoint.id.map_or_else(unknown, |id| id.to_string());
    let connected = status.health.as_ref().is_none_or(|health| health.connected);
    let state = status.state.map_or_else(unknown, |state| state.to_string());
    let state = if connected || state != "ready" { state } else { format!("{state}\nnot connected") };
    vec![id, ingress.to_owned(), egress.to_owned(), identity, labels, ipv6, ipv4, state]
}

/// Whether policy is enforced on what reaches the endpoint, and on what leaves it.
fn enforcement(status: &EndpointStatus) -> (&'static str, &'static str) {
    use EndpointPolicyEnabled::{AuditBoth, AuditEgress, AuditIngress, Both, Egress, Ingress, None};
    let (on, off, audit) = ("Enabled", "Disabled", "Disabled (Audit)");
    let policy = status.policy.as_ref().and_then(|policy| policy.realized.as_ref());
    match policy.and_then(|policy| policy.policy_enabled.as_ref()) {
        Some(None) => (off, off),
        Some(Ingress) => (on, off),
        Some(Egress) => (off, on),
        Some(Both) => (on, on),
        Some(AuditIngress) => (audit, off),
        Some(AuditEgress) => (off, audit),
        Some(AuditBoth) => (audit, audit),
        _ => ("Unknown", "Unknown"),
    }
}

fn get(client: &Client, selection: &Selection) -> anyhow::Result<Report> {
    let endpoints = match &selection.key {
        Some(key) => vec![client.endpoint(key).with_context(|| format!("cannot get endpoint {key}"))?],
        None => client.endpoints(&selection.labels).context("cannot get endpoints")?,
    };
    if endpoints.is_empty() {
        bail!("no endpoint has the labels {}: see `podwire endpoint list`", selection.labels.join(", "));
    }
    Ok(Report::json(&endpoints)?)
}

fn labels(client: &Client, args: &Labels) -> anyhow::Result<Report> {
    let key = &args.endpoint.key;
    let current = client.endpoint_labels(key).with_context(|| format!("cannot get the labels of endpoint {key}"))?;
    if args.add.is_empty() && args.delete.is_empty() {
        let rows = current.status.security_relevant.iter().map(|label| [label.as_str(), "Enabled"]);
        let disabled = current.status.disabled.iter().map(|label| [label.as_str(), "Disabled"]);
        return Ok(Report::new(table::of(&[], rows.chain(disabled)), &current)?);
    }
    let mut user = current.status.realized.user;
    for label in &args.delete {
        let had = user.len();
        // By any way to write it: `web` is `unspec:web`, and is what the label's key is enough for.
        let whole = label.parse::<Label>().map_or_else(|_| label.clone(), |label| label.to_string());
        user.retain(|known| *known != whole && known.split_once('=').is_none_or(|(name, _)| *name != whole));
        if user.len() == had {
            bail!("endpoint {key} has no label {label} that could be taken away: see `podwire endpoint labels {key}`");
        }
    }
    for label in &args.add {
        if !user.contains(label) {
            user.push(label.clone());
        }
    }
    let change = client.change_endpoint_labels(key, &LabelConfigurationSpec { user });
    change.with_context(|| format!("cannot change the labels of endpoint {key}"))?;
    Ok(Report::done())
}

fn ports(client: &Client, args: &Ports) -> anyhow::Result<Report> {
    let key = &args.endpoint.key;
    let endpoint = client.endpoint(key).with_context(|| format!("cannot get endpoint {key}"))?;
    let mut ports = endpoint.status.unwrap_or_default().named_ports;
    if args.add.is_empty() && args.delete.is_empty() {
        let protocol = |port: &Port| port.protocol.clone().unwrap_or_default();
        let rows = ports.iter().map(|port| [port.name.clone(), format!("{}/{}", port.port, protocol(port))]);
        return Ok(Report::new(table::of(&["NAME", "PORT"], rows), &ports)?);
    }
    for name in &args.delete {
        let had = ports.len();
        ports.retain(|port| !port.name.eq_ignore_ascii_case(name));
        if ports.len() == had {
            bail!("endpoint {key} has no port named {name}: see `podwire endpoint ports {key}`");
        }
    }
    ports.extend(args.add.iter().filter(|port| !ports.contains(port)).cloned().collect::<Vec<_>>());
    client.name_endpoint_ports(key, ports).with_context(|| format!("cannot name the ports of endpoint {key}"))?;
    Ok(Report::done())
}

fn health(client: &Client, key: &EndpointKey) -> anyhow::Result<Report> {
    let health = client.endpoint_health(key).with_context(|| format!("cannot get the health of endpoint {key}"))?;
    let text = |status: &Option<_>| match status {
        Some(status) => table::coloured(&ToString::to_string(status)),
        None => "Unknown".to_owned(),
    };
    let rows = [
        ("Overall Health", text(&health.overall_health)),
        ("BPF Health", text(&health.bpf)),
        ("Policy Health", text(&health.policy)),
        ("Connected", if health.connected { "yes" } else { "no" }.to_owned()),
    ];
    let reasons = health.reasons.iter().map(|reason| ("Reason", reason.clone()));
    let rows = rows.into_iter().chain(reasons);
    let lines: Vec<_> = rows.map(|(name, value)| format!("{:<18}{value}", format!("{name}:"))).collect();
    let failing = matches!(health.overall_health, Some(podwire::api::EndpointHealthStatus::Failure));
    Ok(Report::new(lines.join("\n"), &health)?.failing(failing))
}

fn log(client: &Client, key: &EndpointKey) -> anyhow::Result<Report> {
    let log = client.endpoint_log(key).with_context(|| format!("cannot get the log of endpoint {key}"))?;
    let rows = log.iter().map(|entry| {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let state = entry.state.as_ref().map(ToString::to_string).unwrap_or_default();
        [text(&entry.timestamp), text(&entry.code), state, text(&entry.message)]
    });
    Ok(Report::new(table::of(&["Timestamp", "Status", "State", "Message"], rows), &log)?)
}
