//! `podwire policy`.

use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use podwire::api::{Client, NumberedRule, Policy, PolicyLabel, SelectorIdentityMapping};
use podwire::{Error, shortened};

use crate::report::Report;
use crate::table;
use crate::{policy_trace, policy_wait};

/// What names the policy that a rule comes from, among the rule's labels.
const POLICY_NAME: &str = "io.cilium.k8s.policy.name";
const POLICY_NAMESPACE: &str = "io.cilium.k8s.policy.namespace";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Put policies in force in the place of those with their names, or beside them.
    Import {
        /// A file of YAML or JSON; - for standard input.
        file: PathBuf,
        /// Put rules that are part of no policy in the place of those in force that are part of none either.
        #[arg(long)]
        replace: bool,
    },
    /// Show the rules in force as JSON, all or those with given labels.
    Get {
        /// Labels that a rule must have, as in k8s:io.cilium.k8s.policy.name=web.
        labels: Vec<String>,
    },
    /// Remove rules.
    #[command(group(clap::ArgGroup::new("which").required(true).args(["labels", "all"])))]
    Delete {
        /// Labels, all of which a rule must have, as in k8s:io.cilium.k8s.policy.name=web.
        labels: Vec<String>,
        /// All rules.
        #[arg(long)]
        all: bool,
    },
    /// Show the rules in force by the numbers that map entries, connections and verdicts have.
    Rules,
    /// Show the selectors of peers in use, and whom they select.
    Selectors(Style),
    /// Show the selectors of the endpoints that rules are about, and the identities they select.
    SubjectSelectors(Style),
    /// Show what would become of a packet, now or with other policies; changes nothing. Ends with 0 if it is allowed, 1 if
    /// not, 2 if that can't be told.
    Trace(policy_trace::Args),
    /// Wait until a revision is in force at all endpoints.
    Wait(policy_wait::Args),
}

#[derive(clap::Args)]
pub(crate) struct Style {
    /// Print all labels of the rules, not just the names of their policies.
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) fn run(command: &Command, client: &Client) -> anyhow::Result<Report> {
    match command {
        Command::Import { file, replace } => import(client, file, *replace),
        Command::Get { labels } => get(client, labels),
        Command::Delete { labels, .. } => {
            let left = client.delete_policy(labels).context("cannot delete rules")?;
            Ok(Report::new(revision(&left), &left)?)
        }
        Command::Rules => rules(client),
        Command::Selectors(style) => selectors(client.policy_selectors().context("cannot get selectors")?, style),
        Command::SubjectSelectors(style) => {
            selectors(client.policy_subject_selectors().context("cannot get selectors")?, style)
        }
        Command::Trace(args) => policy_trace::run(args, client),
        Command::Wait(args) => policy_wait::run(args, client),
    }
}

fn revision(policy: &Policy) -> String {
    format!("Revision: {}", policy.revision)
}

fn import(client: &Client, file: &Path, replace: bool) -> anyhow::Result<Report> {
    let document = read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let imported = if replace { client.replace_policy(&document) } else { client.import_policy(&document) };
    let policy = imported.map_err(|error| match error {
        Error::Api { status: 409, message, .. } => anyhow!("{}: {message}: see --replace", file.display()),
        Error::Api { status: 400..500, message, .. } => anyhow!("{}: {message}", file.display()),
        error => anyhow::Error::new(error).context(format!("cannot import {}", file.display())),
    })?;
    for warning in &policy.warnings {
        // What cannot be written there is no reason to fail: the policies are in force.
        let _ = writeln!(io::stderr(), "Warning: {warning}");
    }
    Ok(Report::new(revision(&policy), &policy)?)
}

pub(crate) fn read(file: &Path) -> io::Result<String> {
    if file != Path::new("-") {
        return fs::read_to_string(file);
    }
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text)?;
    Ok(text)
}

fn get(client: &Client, labels: &[String]) -> anyhow::Result<Report> {
    let policy = client.policy(labels).context("cannot get the policy")?;
    for warning in &policy.warnings {
        // What cannot be written there is no reason to fail: the policies are in force.
        let _ = writeln!(io::stderr(), "Warning: {warning}");
    }
    let rules = policy.policy.as_deref().unwrap_or("[]");
    Ok(Report::new(format!("{rules}\n{}", revision(&policy)), &policy)?)
}

fn rules(client: &Client) -> anyhow::Result<Report> {
    let rules = client.policy_rules().context("cannot get the rules")?;
    let row = |rule: &NumberedRule| {
        let description = shortened(rule.description.as_deref().unwrap_or_default()).into_owned();
        [rule.number.to_string(), rule.name.clone(), rule.labels.join("\n"), description]
    };
    let headers = ["NUMBER", "RULE", "LABELS (source:key[=value])", "DESCRIPTION"];
    Ok(Report::new(table::of(&headers, rules.iter().map(row)), &rules)?)
}

/// Labels have a column where the agent tells those of the rules that use a selector.
fn selectors(mut selectors: Vec<SelectorIdentityMapping>, style: &Style) -> anyhow::Result<Report> {
    selectors.sort_by(|a, b| a.selector.cmp(&b.selector));
    let labelled = selectors.iter().any(|selector| !selector.labels.is_empty());
    let rows = selectors.iter().map(|selector| {
        let identities: Vec<_> = selector.identities.iter().map(ToString::to_string).collect();
        let labels = if style.verbose { all_labels(&selector.labels) } else { policy_name(&selector.labels) };
        let mut row = vec![selector.selector.clone().unwrap_or_default()];
        row.extend(labelled.then_some(labels));
        row.extend([selector.users.to_string(), identities.join("\n")]);
        row
    });
    let mut headers = vec!["SELECTOR"];
    headers.extend(labelled.then_some("LABELS"));
    headers.extend(["USERS", "IDENTITIES"]);
    Ok(Report::new(table::of(&headers, rows), &selectors)?)
}

fn all_labels(labels: &[PolicyLabel]) -> String {
    let text = |label: &PolicyLabel| format!("{}:{}={}", label.source, label.key, label.value);
    labels.iter().map(text).collect::<Vec<_>>().join("\n")
}

/// The policy's namespace and name, where the labels say them.
fn policy_name(labels: &[PolicyLabel]) -> String {
    let value = |key| labels.iter().find(|label| label.key == key).map(|label| label.value.as_str());
    match (value(POLICY_NAMESPACE), value(POLICY_NAME)) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        (None, Some(name)) => name.to_owned(),
        _ => String::new(),
    }
}
