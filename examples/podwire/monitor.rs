//! `podwire monitor`.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{process, thread};

use anyhow::Context as _;
use clap::Args as ClapArgs;
use podwire::EndpointId;
use podwire::api::{Client, MonitorFilter, MonitorType};
use serde_json::Value;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::report::{Format, is_reader_gone};

/// Filters that are given more than once let through what any of their values names.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Only packets from these endpoints.
    #[arg(long, value_delimiter = ',', value_name = "ENDPOINT")]
    from: Vec<EndpointId>,
    /// Only packets to these endpoints.
    #[arg(long, value_delimiter = ',', value_name = "ENDPOINT")]
    to: Vec<EndpointId>,
    /// Only packets from or to these endpoints.
    #[arg(long, value_delimiter = ',', value_name = "ENDPOINT")]
    related_to: Vec<EndpointId>,
    /// Only events of these types.
    #[arg(short = 't', long = "type", value_delimiter = ',', value_name = "TYPE", value_parser = event_type)]
    types: Vec<MonitorType>,
    /// Print JSON, one object a line; the same as -o json.
    #[arg(short, long)]
    json: bool,
}

fn event_type(text: &str) -> Result<MonitorType, String> {
    let kind = MonitorType::from(text.to_owned());
    if kind.is_known() { Ok(kind) } else { Err(format!("expected one of {}", MonitorType::TEXTS.join(", "))) }
}

pub(crate) fn run(args: &Args, socket: &Path, format: Option<Format>) -> anyhow::Result<ExitCode> {
    let filter = MonitorFilter {
        types: args.types.clone(),
        from: args.from.clone(),
        to: args.to.clone(),
        related_to: args.related_to.clone(),
    };
    let client = Client::builder(socket).request_timeout(None).build();
    let events = client.monitor(&filter).context("cannot listen for events")?;
    let json = args.json || format == Some(Format::Json);
    let lost = Arc::new(AtomicU64::new(0));
    end_on_signal(Arc::clone(&lost))?;
    let _ = writeln!(io::stderr(), "Listening for events. Press Ctrl-C to quit");
    for event in events {
        let event = event.context("cannot read events")?;
        if event["type"] == "lost" {
            lost.fetch_add(event["count"].as_u64().unwrap_or_default(), Ordering::Relaxed);
        }
        let line = if json { without_text(event).to_string() } else { text(&event) };
        match writeln!(io::stdout().lock(), "{line}") {
            Err(cause) if is_reader_gone(&cause) => break,
            printed => printed.context("print")?,
        }
    }
    tell_lost(&lost);
    Ok(ExitCode::SUCCESS)
}

/// The agent sends every event with its one-line form.
fn text(event: &Value) -> String {
    event["text"].as_str().map_or_else(|| event.to_string(), str::to_owned)
}

fn without_text(mut event: Value) -> Value {
    if let Some(fields) = event.as_object_mut() {
        fields.remove("text");
    }
    event
}

/// Ends the process when the user has seen enough, without cutting a line in half.
fn end_on_signal(lost: Arc<AtomicU64>) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build().context("listen for signals")?;
    let _entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    drop(_entered);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        let _whole_lines = io::stdout().lock();
        tell_lost(&lost);
        process::exit(0);
    });
    Ok(())
}

fn tell_lost(lost: &AtomicU64) {
    match lost.load(Ordering::Relaxed) {
        0 => {}
        lost => drop(writeln!(io::stderr(), "{lost} events were lost: reading was too slow")),
    }
}
