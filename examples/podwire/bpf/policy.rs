//! `podwire bpf policy`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use podwire::abi::{PolicyEntry, PolicyKey};
use podwire::api::Client;
use podwire::tables::{PolicyAction, PolicyCount, PolicyMap, PolicyMatch, PolicyStats, PolicyVerdict};
use podwire::{EndpointId, ErrorKind, SecurityId};
use serde_json::{Value, json};

use super::open;
use crate::report::Report;
use crate::table;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Show the policy map of one endpoint, or of all.
    #[command(group(clap::ArgGroup::new("which").required(true).args(["endpoint", "all"])))]
    Get {
        /// The endpoint's number.
        endpoint: Option<EndpointId>,
        /// All endpoints.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        style: Style,
    },
    /// Show the policy maps of all endpoints.
    #[command(visible_alias = "ls")]
    List(Style),
}

#[derive(clap::Args)]
pub(super) struct Style {
    /// Print identities as numbers, without asking the agent for their labels.
    #[arg(short, long)]
    numeric: bool,
}

pub(super) fn run(command: &Command, pins: &Path, agent: &Client) -> anyhow::Result<Report> {
    match command {
        Command::Get { endpoint: Some(endpoint), style, .. } => {
            let rows = Row::all(pins, *endpoint, &counts(pins)?)?;
            let text = text(&rows, &Names::of(agent, style));
            Ok(Report::new(text, &rows.iter().map(Row::json).collect::<Vec<_>>())?)
        }
        Command::Get { style, .. } | Command::List(style) => all(pins, &Names::of(agent, style)),
    }
}

fn all(pins: &Path, names: &Names) -> anyhow::Result<Report> {
    let counts = counts(pins)?;
    let (mut texts, mut json) = (Vec::new(), Vec::new());
    for (endpoint, path) in maps(pins)? {
        let rows = match Row::all(pins, endpoint, &counts) {
            // Its endpoint went since the folder was read.
            Err(_) if !path.exists() => continue,
            rows => rows?,
        };
        texts.push(format!("Endpoint ID: {endpoint}\nPath: {}\n\n{}\n", path.display(), text(&rows, names)));
        let content: Vec<_> = rows.iter().map(Row::json).collect();
        json.push(json!({"EndpointID": endpoint.to_string(), "Path": path, "Content": content}));
    }
    Ok(Report::new(texts.join("\n"), &json)?)
}

/// The endpoints that have a policy map, and its pin.
fn maps(pins: &Path) -> anyhow::Result<Vec<(EndpointId, PathBuf)>> {
    let folder = fs::read_dir(pins).with_context(|| format!("cannot list the pins in {}", pins.display()))?;
    let mut maps = Vec::new();
    for file in folder {
        let file = file.with_context(|| format!("cannot list the pins in {}", pins.display()))?;
        maps.extend(PolicyMap::endpoint_of(&file.file_name().to_string_lossy()).map(|id| (id, file.path())));
    }
    maps.sort();
    Ok(maps)
}

/// Whether there are pins at all.
fn is_pinned(pins: &Path) -> bool {
    fs::read_dir(pins).is_ok_and(|mut pins| pins.next().is_some())
}

/// The counters of all entries, where somebody counts.
fn counts(pins: &Path) -> anyhow::Result<Option<PolicyStats>> {
    match PolicyStats::open_pinned(pins) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        stats => Ok(Some(stats?)),
    }
}

/// An entry as it stands in the map, and what it means.
struct Row {
    key: PolicyKey,
    value: PolicyEntry,
    matched: PolicyMatch,
    verdict: PolicyVerdict,
    count: Option<PolicyCount>,
}

impl Row {
    /// An endpoint's entries: by direction, what denies first, then by identity and port.
    fn all(pins: &Path, endpoint: EndpointId, counts: &Option<PolicyStats>) -> anyhow::Result<Vec<Self>> {
        let map = match open(pins, |pins| PolicyMap::open_pinned(pins, endpoint)) {
            // There are maps, but none of this endpoint.
            Err(_) if is_pinned(pins) && !pins.join(PolicyMap::name(endpoint)).exists() => {
                bail!("there is no endpoint {endpoint}: see `podwire bpf policy list`")
            }
            map => map?,
        };
        let mut rows = Vec::new();
        for row in map.map() {
            let (key, value) = row.with_context(|| format!("cannot read {}", PolicyMap::name(endpoint)))?;
            let Some(matched) = key.matched() else { bail!("{}: {key:?} is no key", PolicyMap::name(endpoint)) };
            let count = match counts {
                Some(counts) => counts.count(endpoint, &matched).context("cannot read cilium_policystats")?,
                None => None,
            };
            rows.push(Self { key, value, matched, verdict: value.into(), count });
        }
        rows.sort_by_key(|row| (row.matched.direction, row.verdict.action != PolicyAction::Deny, row.matched));
        Ok(rows)
    }

    fn columns(&self, names: &Names) -> Vec<String> {
        let (policy, proxy) = match self.verdict.action {
            PolicyAction::Allow => ("Allow", "NONE".to_owned()),
            PolicyAction::Redirect(port) => ("Allow", port.to_string()),
            PolicyAction::Deny => ("Deny", "NONE".to_owned()),
        };
        let rule = names.rules.get(&self.verdict.cookie).cloned();
        let counted = |of: fn(PolicyCount) -> u64| self.count.map_or("-".to_owned(), |count| of(count).to_string());
        let columns = [
            policy.to_owned(),
            self.matched.direction.to_string(),
            names.text(self.matched.identity),
            self.matched.l4.to_string(),
            proxy,
            authentication(self.verdict.auth_type),
            counted(|count| count.bytes),
            counted(|count| count.packets),
            self.matched.l4.bits().to_string(),
            self.verdict.cookie.to_string(),
        ];
        columns.into_iter().chain(names.tell_rules().then(|| rule.unwrap_or_default())).collect()
    }

    /// The fields as they stand in the map, ports in network order, by the names of Cilium's tool. It writes the largest number
    /// for what was not counted.
    fn json(&self) -> Value {
        let (packets, bytes) = self.count.map_or((u64::MAX, u64::MAX), |count| (count.packets, count.bytes));
        json!({
            "ProxyPortNetwork": self.value.proxy_port_be,
            "Flags": self.value.flags,
            "AuthRequirement": self.value.auth,
            "Precedence": self.value.precedence,
            "Cookie": self.value.cookie,
            "Packets": packets,
            "Bytes": bytes,
            "Key": {
                "Prefixlen": self.key.prefixlen,
                "Identity": self.key.sec_label,
                "TrafficDirection": self.key.egress,
                "Nexthdr": self.key.protocol,
                "DestPortNetwork": self.key.dport_be,
            },
        })
    }
}

fn text(rows: &[Row], names: &Names) -> String {
    let who = if names.labels.is_some() { "LABELS (source:key[=value])" } else { "IDENTITY" };
    let mut headers = vec![
        "POLICY",
        "DIRECTION",
        who,
        "PORT/PROTO",
        "PROXY PORT",
        "AUTH TYPE",
        "BYTES",
        "PACKETS",
        "PREFIX",
        "COOKIE",
    ];
    headers.extend(names.tell_rules().then_some("RULE"));
    table::of(&headers, rows.iter().map(|row| row.columns(names)))
}

/// Cilium's names of authentication types.
fn authentication(kind: u8) -> String {
    match kind {
        0 => "disabled".to_owned(),
        1 => "spire".to_owned(),
        127 => "test-always-fail".to_owned(),
        other => other.to_string(),
    }
}

/// What an agent told of numbers.
#[derive(Default)]
struct Names {
    /// The labels of identities; `None` without an agent.
    labels: Option<HashMap<SecurityId, Vec<String>>>,
    /// The names of rules.
    rules: HashMap<u32, String>,
}

impl Names {
    fn of(agent: &Client, style: &Style) -> Self {
        // Without an agent the numbers do.
        let Some(identities) = (!style.numeric).then(|| agent.identities().ok()).flatten() else {
            return Self::default();
        };
        let labels = identities.into_iter().map(|identity| (identity.id, identity.labels)).collect();
        // Another's agent does not know the path.
        let rules = agent.policy_rules().unwrap_or_default();
        Self { labels: Some(labels), rules: rules.into_iter().map(|rule| (rule.number, rule.name)).collect() }
    }

    fn tell_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    fn text(&self, identity: SecurityId) -> String {
        match &self.labels {
            Some(_) if identity == SecurityId::UNKNOWN => "ANY".to_owned(),
            Some(known) => known.get(&identity).map_or_else(|| identity.to_string(), |labels| labels.join("\n")),
            None => identity.to_string(),
        }
    }
}
