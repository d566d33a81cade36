//! `podwire version`.

use podwire::api::Client;
use serde_json::json;

use crate::report::Report;

pub(crate) fn run(client: &Client) -> Report {
    let own = env!("CARGO_PKG_VERSION");
    let machine = format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH);
    let agent = match client.debug_info() {
        Ok(info) => info.cilium_version.unwrap_or_else(|| "unknown".to_owned()),
        Err(error) => format!("Not responding ({error})"),
    };
    let text = format!("Client: {own} {machine}\nDaemon: {agent}");
    match Report::new(text.clone(), &json!({"Client": {"Version": own, "Arch": machine}, "Daemon": {"Version": agent}}))
    {
        Ok(report) => report,
        Err(_) => Report::text(text),
    }
}
