//! What a command prints and how the process ends.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// JSON, indented.
    Json,
}

/// The result of a command, as text and as JSON.
pub(crate) struct Report {
    text: String,
    json: Value,
    code: ExitCode,
}

impl Report {
    /// A result with both forms.
    pub(crate) fn new(text: impl Into<String>, json: &impl Serialize) -> serde_json::Result<Self> {
        Ok(Self { text: text.into(), json: serde_json::to_value(json)?, code: ExitCode::SUCCESS })
    }

    /// A result that is text in either form.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { json: Value::String(text.clone()), text, code: ExitCode::SUCCESS }
    }

    /// A result that is JSON in either form.
    pub(crate) fn json(json: &impl Serialize) -> serde_json::Result<Self> {
        let json = serde_json::to_value(json)?;
        Ok(Self { text: format!("{json:#}"), json, code: ExitCode::SUCCESS })
    }

    /// A command that did what it should and has nothing to show.
    pub(crate) fn done() -> Self {
        Self { text: String::new(), json: serde_json::json!({}), code: ExitCode::SUCCESS }
    }

    /// The same result, but the process fails.
    pub(crate) fn failing(mut self, failing: bool) -> Self {
        if failing {
            self.code = ExitCode::FAILURE;
        }
        self
    }

    /// Prints it. Colours are left out unless standard output is a terminal that shows them.
    pub(crate) fn print(&self, format: Option<Format>) -> io::Result<ExitCode> {
        let mut out = anstream::AutoStream::auto(io::stdout()).lock();
        let printed = match format {
            Some(Format::Json) => writeln!(out, "{:#}", self.json),
            None if self.text.is_empty() => Ok(()),
            None => writeln!(out, "{}", self.text.trim_end_matches('\n')),
        };
        match printed.and_then(|()| out.flush()) {
            Err(cause) if !is_reader_gone(&cause) => Err(cause),
            _ => Ok(self.code),
        }
    }
}

/// Whether whoever reads our output has stopped, which may be because it has seen enough.
pub(crate) fn is_reader_gone(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::BrokenPipe
}
