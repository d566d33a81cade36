//! STATUS: can ADD be served?

use super::agent::Agent;
use super::error::{CniError, ErrorCode};

/// Succeeds when the agent answers, is well, and says what an ADD needs.
pub(super) fn status(agent: &impl Agent) -> Result<(), CniError> {
    let unavailable =
        |msg: &str, error: crate::Error| CniError::new(ErrorCode::NotAvailable, msg).with_details(error.to_string());
    agent.health().map_err(|error| unavailable("the agent is not ready", error))?;
    agent.settings().map_err(|error| unavailable("the agent does not say what ADD needs", error)).map(drop)
}
