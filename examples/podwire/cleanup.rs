//! `podwire cleanup`: needs no agent, and refuses while one runs.

use std::path::PathBuf;

use anyhow::Context as _;
use podwire::Datapath;
use serde_json::json;

use crate::report::Report;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Really remove it; without this, what would be removed is listed.
    #[arg(short, long)]
    force: bool,
    /// The state directory of the agent.
    #[arg(long, default_value = "/var/run/podwire/state", value_name = "PATH")]
    state_dir: PathBuf,
    /// Where the BPF file system is mounted.
    #[arg(long, default_value = "/sys/fs/bpf", value_name = "PATH")]
    bpf_root: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let (root, state) = (&args.bpf_root, &args.state_dir);
    if args.force {
        let cleaned = Datapath::cleanup(root, state).context("cannot clean up")?;
        let lines = [&*cleaned.done, &*cleaned.kept].concat();
        let text = if lines.is_empty() { "Nothing to remove".to_owned() } else { lines.join("\n") };
        let report = Report::new(text, &json!({"done": cleaned.done, "kept": cleaned.kept}))?;
        return Ok(report.failing(!cleaned.kept.is_empty()));
    }
    let plan = Datapath::cleanup_preview(root, state).context("cannot see what to clean up")?;
    if plan.is_empty() {
        return Ok(Report::new("Nothing to remove", &json!({"done": []}))?);
    }
    let text = format!("Nothing is removed without --force, which would remove or put back:\n  {}", plan.join("\n  "));
    Ok(Report::new(text, &json!({"planned": plan}))?.failing(true))
}
