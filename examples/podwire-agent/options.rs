//! What can be changed while the agent runs.

use std::sync::atomic::{AtomicBool, Ordering};

use podwire::api::Options;
use podwire::{Error, Result};

use crate::agent::Agent;

/// Lets through and reports what policy denies.
pub(crate) const AUDIT: &str = "PolicyAuditMode";

/// Puts an option's value in force.
type PutInForce = fn(&Agent, bool) -> Result<()>;

/// Options by name, and what puts each in force.
const OPTIONS: [(&str, PutInForce); 4] = [
    ("DropNotification", |agent, on| agent.monitor.allow_drops(on)),
    (AUDIT, |agent, on| agent.datapath.set_policy_audit(on)),
    ("PolicyVerdictNotification", |agent, on| agent.monitor.allow_verdicts(on)),
    ("TraceNotification", |agent, on| agent.monitor.allow_traces(on)),
];

/// The options in force.
pub(crate) struct RunOptions([AtomicBool; OPTIONS.len()]);

impl RunOptions {
    /// Monitors are told of everything; policy is audited or not.
    pub(crate) fn new(audit: bool) -> Self {
        Self(OPTIONS.map(|(name, _)| AtomicBool::new(name != AUDIT || audit)))
    }

    /// All options and their values.
    pub(crate) fn all(&self) -> Options {
        let values = self.0.iter().map(|value| text_of(value.load(Ordering::Relaxed)));
        OPTIONS.iter().map(|(name, _)| (*name).to_owned()).zip(values).collect()
    }

    /// The names whose wanted value is not the one in force.
    pub(crate) fn difference(&self, wanted: &Options) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for (name, value) in wanted {
            if self.0[index(name)?].load(Ordering::Relaxed) != parse_option(name, value)? {
                names.push(name.clone());
            }
        }
        Ok(names)
    }

    /// Puts the wanted values in force: all, or none if one of them is unknown.
    pub(crate) fn change(&self, wanted: &Options, agent: &Agent) -> Result<()> {
        for name in self.difference(wanted)? {
            let (value, index) = (parse_option(&name, &wanted[&name])?, index(&name)?);
            let (_, put_in_force) = OPTIONS[index];
            let outcome = put_in_force(agent, value);
            // Audit is in force wherever it could be, and comes to the others with the rest that they lack.
            if outcome.is_ok() || name == AUDIT {
                self.0[index].store(value, Ordering::Relaxed);
            }
            outcome?;
            log::info!("option {name} is {} now", text_of(value));
        }
        Ok(())
    }
}

/// A value as it is shown.
pub(crate) fn text_of(value: bool) -> String {
    if value { "Enabled" } else { "Disabled" }.to_owned()
}

fn index(name: &str) -> Result<usize> {
    OPTIONS.iter().position(|(known, _)| *known == name).ok_or_else(|| {
        let known = OPTIONS.map(|(known, _)| known).join(", ");
        Error::invalid("configuration option", name, format!("unknown option; known are {known}"))
    })
}

/// A value as it is asked for.
pub(crate) fn parse_option(name: &str, value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "enable" | "enabled" | "true" | "on" | "1" => Ok(true),
        "disable" | "disabled" | "false" | "off" | "0" => Ok(false),
        _ => Err(Error::invalid(name.to_owned(), value, "expected Enabled or Disabled")),
    }
}
