//! What can be changed while the agent runs.

use std::sync::atomic::{AtomicBool, Ordering};

use podwire::api::Options;
use podwire::{Error, Result};

use crate::monitor::Monitor;

const DROPS: &str = "DropNotification";
const TRACES: &str = "TraceNotification";

/// The options in force.
pub(crate) struct RunOptions {
    /// Drops are told to monitors.
    drops: AtomicBool,
    /// Monitors that ask for traces get them.
    traces: AtomicBool,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { drops: AtomicBool::new(true), traces: AtomicBool::new(true) }
    }
}

impl RunOptions {
    /// All options and their values.
    pub(crate) fn all(&self) -> Options {
        let text = |value: &AtomicBool| if value.load(Ordering::Relaxed) { "Enabled" } else { "Disabled" }.to_owned();
        Options::from([(DROPS.to_owned(), text(&self.drops)), (TRACES.to_owned(), text(&self.traces))])
    }

    /// The names whose wanted value is not the one in force.
    pub(crate) fn difference(&self, wanted: &Options) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for (name, value) in wanted {
            if self.named(name)?.load(Ordering::Relaxed) != parse(name, value)? {
                names.push(name.clone());
            }
        }
        Ok(names)
    }

    /// Puts the wanted values in force: all, or none if one of them is unknown.
    pub(crate) fn change(&self, wanted: &Options, monitor: &Monitor) -> Result<()> {
        for name in self.difference(wanted)? {
            let value = parse(&name, &wanted[&name])?;
            match name.as_str() {
                DROPS => monitor.allow_drops(value)?,
                _ => monitor.allow_traces(value)?,
            }
            self.named(&name)?.store(value, Ordering::Relaxed);
            log::info!("option {name} is {} now", if value { "Enabled" } else { "Disabled" });
        }
        Ok(())
    }

    fn named(&self, name: &str) -> Result<&AtomicBool> {
        match name {
            DROPS => Ok(&self.drops),
            TRACES => Ok(&self.traces),
            _ => Err(Error::invalid(
                "configuration option",
                name,
                format!("unknown option; known are {DROPS}, {TRACES}"),
            )),
        }
    }
}

fn parse(name: &str, value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "enable" | "enabled" | "true" | "on" | "1" => Ok(true),
        "disable" | "disabled" | "false" | "off" | "0" => Ok(false),
        _ => Err(Error::invalid(name.to_owned(), value, "expected Enabled or Disabled")),
    }
}
