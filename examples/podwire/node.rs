//! `podwire node`.

use anyhow::Context as _;
use clap::Subcommand;
use podwire::api::{Client, NodeAddressingElement, NodeElement};

use crate::report::Report;
use crate::table;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// List all nodes.
    #[command(visible_alias = "ls")]
    List,
}

pub(crate) fn run(command: &Command, client: &Client) -> anyhow::Result<Report> {
    match command {
        Command::List => {
            let mut nodes = client.nodes().context("cannot list nodes")?.nodes_added.unwrap_or_default();
            nodes.sort_by(|a, b| a.name.cmp(&b.name));
            let headers = ["Name", "IPv4 Address", "Endpoint CIDR", "IPv6 Address", "Endpoint CIDR", "Source"];
            Ok(Report::new(table::of(&headers, nodes.iter().map(row)), &nodes)?)
        }
    }
}

fn row(node: &NodeElement) -> Vec<String> {
    let address = |element: Option<&NodeAddressingElement>| {
        let element = element.cloned().unwrap_or_default();
        [element.ip.map(|ip| ip.to_string()), element.alloc_range.map(|range| range.to_string())]
    };
    let primary = node.primary_address.as_ref();
    let ipv4 = address(primary.and_then(|primary| primary.ipv4.as_ref()));
    let ipv6 = address(primary.and_then(|primary| primary.ipv6.as_ref()));
    let addresses = ipv4.into_iter().chain(ipv6).map(Option::unwrap_or_default);
    let source = node.source.clone().unwrap_or_default();
    [node.name.clone()].into_iter().chain(addresses).chain([source]).collect()
}
