//! `podwire endpoint config`.

use anyhow::{Context as _, bail};
use podwire::api::{Client, EndpointConfigurationSpec, EndpointKey, Options};

use crate::config::{assignment, listing};
use crate::endpoint;
use crate::report::Report;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A number, or ipv4:, ipv6:, container-id:, cni-attachment-id: or pod-name: and a name.
    #[arg(value_name = "ENDPOINT", value_parser = endpoint::named)]
    key: EndpointKey,
    /// Options to set, as in PolicyAuditMode=enable.
    #[arg(value_name = "OPTION=VALUE", value_parser = assignment)]
    options: Vec<(String, String)>,
}

pub(crate) fn run(args: &Args, client: &Client) -> anyhow::Result<Report> {
    let key = &args.key;
    let config =
        client.endpoint_config(key).with_context(|| format!("cannot get the configuration of endpoint {key}"))?;
    let current = config.realized.clone().unwrap_or_default().options;
    if args.options.is_empty() {
        return Ok(Report::new(listing(&current), &config)?);
    }
    let mut options = Options::new();
    for (name, value) in &args.options {
        if !current.contains_key(name) {
            bail!("unknown option {name:?}: see `podwire endpoint config {key}` for those that can be changed");
        }
        options.insert(name.clone(), value.clone());
    }
    let spec = EndpointConfigurationSpec { options, ..Default::default() };
    let change = client.change_endpoint_config(key, &spec);
    change.with_context(|| format!("cannot change the configuration of endpoint {key}"))?;
    Ok(Report::text(format!("Endpoint {key} configuration updated successfully")))
}
