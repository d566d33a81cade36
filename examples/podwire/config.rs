//! `podwire config`.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use podwire::api::{Client, DaemonConfiguration, DaemonConfigurationSpec, Options};
use serde_json::Value;

use crate::report::Report;

/// When policy is enforced, which is no option of the agent's model but shown as one.
const ENFORCEMENT: &str = "PolicyEnforcement";

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// Options to set, as in TraceNotification=enable or PolicyEnforcement=always.
    #[arg(value_name = "OPTION=VALUE", value_parser = assignment)]
    options: Vec<(String, String)>,
    /// Show what can't be changed at run time too.
    #[arg(short, long)]
    all: bool,
    /// Show only what can't be changed at run time.
    #[arg(short, long, conflicts_with = "all")]
    read_only: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show one value.
    Get {
        /// Its name.
        name: String,
    },
}

/// Splits `NAME=VALUE`.
pub(crate) fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected a name, `=` and a value".to_owned()),
    }
}

/// Names and values under each other.
pub(crate) fn listing(options: &Options) -> String {
    options.iter().map(|(name, value)| format!("{name:<34}: {value}\n")).collect()
}

pub(crate) fn run(args: &Args, client: &Client) -> anyhow::Result<Report> {
    let config = client.config().context("cannot get the configuration")?;
    if let Some(Command::Get { name }) = &args.command {
        return get(&config, name);
    }
    if !args.options.is_empty() {
        return set(client, config, &args.options);
    }
    let (mutable, fixed) = (mutable(&config), fixed(&config));
    let (mut text, mut json) = (String::new(), BTreeMap::new());
    if args.all || args.read_only {
        text.push_str(&format!("#### Read-only configurations ####\n{}\n", listing(&fixed)));
        json.extend(fixed);
    }
    if !args.read_only {
        text.push_str(&format!("##### Read-write configurations #####\n{}", listing(&mutable)));
        json.extend(mutable);
    }
    Ok(Report::new(text, &json)?)
}

fn get(config: &DaemonConfiguration, name: &str) -> anyhow::Result<Report> {
    match mutable(config).get(name).or(fixed(config).get(name)) {
        Some(value) => Ok(Report::new(value, &BTreeMap::from([(name, value)]))?),
        None => bail!("unknown configuration option {name:?}: see `podwire config --all`"),
    }
}

fn set(client: &Client, config: DaemonConfiguration, options: &[(String, String)]) -> anyhow::Result<Report> {
    let realized = config.status.realized.unwrap_or(config.spec);
    let mut spec = DaemonConfigurationSpec { options: realized.options, ..Default::default() };
    for (name, value) in options {
        if name == ENFORCEMENT {
            spec.policy_enforcement = Some(value.clone());
            continue;
        }
        let Some(known) = spec.options.get_mut(name) else {
            bail!("unknown option {name:?}: see `podwire config` for those that can be changed");
        };
        known.clone_from(value);
    }
    client.change_config(&spec).context("cannot change the configuration")?;
    Ok(Report::done())
}

/// What can be changed at run time.
fn mutable(config: &DaemonConfiguration) -> Options {
    let realized = config.status.realized.as_ref().unwrap_or(&config.spec);
    let mut options = realized.options.clone();
    options.extend(realized.policy_enforcement.iter().map(|value| (ENFORCEMENT.to_owned(), value.clone())));
    options
}

/// What can't.
fn fixed(config: &DaemonConfiguration) -> Options {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    config.status.daemon_configuration_map.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}
