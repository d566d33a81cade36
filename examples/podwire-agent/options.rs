//! What can be changed while the agent runs.

use std::sync::atomic::{AtomicBool, Ordering};

use podwire::api::Options;
use podwire::{Error, Result};

use crate::monitor::Monitor;

/// Puts an option's value in force.
type PutInForce = fn(&Monitor, bool) -> Result<()>;

/// Options by name, and what puts each in force.
const OPTIONS: [(&str, PutInForce); 3] = [
    ("DropNotification", Monitor::allow_drops),
    ("PolicyVerdictNotification", Monitor::allow_verdicts),
    ("TraceNotification", Monitor::allow_traces),
];

/// The options in force. Each lets the agent tell monitors of a kind of events.
pub(crate) struct RunOptions([AtomicBool; OPTIONS.len()]);

impl Default for RunOptions {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicBool::new(true)))
    }
}

impl RunOptions {
    /// All options and their values.
    pub(crate) fn all(&self) -> Options {
        let text = |value: &AtomicBool| if value.load(Ordering::Relaxed) { "Enabled" } else { "Disabled" }.to_owned();
        OPTIONS.iter().zip(&self.0).map(|((name, _), value)| ((*name).to_owned(), text(value))).collect()
    }

    /// The names whose wanted value is not the one in force.
    pub(crate) fn difference(&self, wanted: &Options) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for (name, value) in wanted {
            if self.0[index(name)?].load(Ordering::Relaxed) != parse(name, value)? {
                names.push(name.clone());
            }
        }
        Ok(names)
    }

    /// Puts the wanted values in force: all, or none if one of them is unknown.
    pub(crate) fn change(&self, wanted: &Options, monitor: &Monitor) -> Result<()> {
        for name in self.difference(wanted)? {
            let (value, index) = (parse(&name, &wanted[&name])?, index(&name)?);
            let (_, put_in_force) = OPTIONS[index];
            put_in_force(monitor, value)?;
            self.0[index].store(value, Ordering::Relaxed);
            log::info!("option {name} is {} now", if value { "Enabled" } else { "Disabled" });
        }
        Ok(())
    }
}

fn index(name: &str) -> Result<usize> {
    OPTIONS.iter().position(|(known, _)| *known == name).ok_or_else(|| {
        let known = OPTIONS.map(|(known, _)| known).join(", ");
        Error::invalid("configuration option", name, format!("unknown option; known are {known}"))
    })
}

fn parse(name: &str, value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "enable" | "enabled" | "true" | "on" | "1" => Ok(true),
        "disable" | "disabled" | "false" | "off" | "0" => Ok(false),
        _ => Err(Error::invalid(name.to_owned(), value, "expected Enabled or Disabled")),
    }
}
