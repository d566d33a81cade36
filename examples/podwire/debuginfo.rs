//! `podwire debuginfo`.

use anyhow::Context as _;
use podwire::api::Client;

use crate::report::Report;
use crate::status;

pub(crate) fn run(client: &Client) -> anyhow::Result<Report> {
    let info = client.debug_info().context("cannot get debugging information")?;
    let mut sections = vec![("Version", info.cilium_version.clone().unwrap_or_default())];
    sections.push(("Kernel version", info.kernel_version.clone().unwrap_or_default()));
    sections.push(("Configuration", info.environment_variables.join("\n")));
    if let Some(status) = &info.cilium_status {
        sections.push(("Status", status::text(status, &status::Detail::everything())));
    }
    sections.push(("Endpoints", format!("{:#}", serde_json::to_value(&info.endpoint_list)?)));
    sections.extend(info.subsystem.iter().map(|(name, text)| (name.as_str(), text.clone())));
    if let Some(memory) = &info.cilium_memory_map {
        sections.push(("Memory map", memory.clone()));
    }
    let mut text = String::from("# Podwire debug information\n");
    for (title, body) in sections {
        text.push_str(&format!("\n#### {title}\n\n```\n{}\n```\n", body.trim_end()));
    }
    Ok(Report::new(text, &info)?)
}
