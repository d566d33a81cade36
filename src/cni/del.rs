//! DEL: always succeeds in the end, whatever of namespace, endpoint and agent is gone.

use std::time::Duration;

use super::agent::Agent;
use super::attachment::Attachment;
use super::conf::NetConf;
use super::device;
use super::error::{CniError, ErrorCode};
use super::queue::DeletionQueue;
use crate::netlink::Socket;
use crate::{ErrorKind, Result};

/// How long to wait for the queue's lock: an agent that adopts a thousand endpoints holds it for a second or two.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Detaches a container. The agent deletes endpoint, addresses and device; the kernel's wait for the device's end is the
/// agent's, not the runtime's. Where no agent can do it, the device is deleted here and the rest is queued.
pub(super) fn del(agent: &impl Agent, conf: &NetConf, attachment: &Attachment) -> Result<(), CniError> {
    let outcome = delete_endpoint(agent, conf, attachment)?;
    if outcome == Outcome::Deleted {
        log::info!("{attachment} detached");
        return Ok(());
    }
    // what an ADD that did not end, or an agent that is away, leaves behind
    if device::remove(&Socket::open()?, attachment)? {
        log::info!("{} deleted", attachment.host_ifname());
        if outcome == Outcome::Unknown {
            // the last request of an ADD that was killed may have reached the agent after the question
            delete_endpoint(agent, conf, attachment)?;
        }
    }
    Ok(())
}

/// What became of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The agent deleted it, and its device.
    Deleted,
    /// The agent has none.
    Unknown,
    /// The agent will delete it when it starts.
    Queued,
}

fn delete_endpoint(agent: &impl Agent, conf: &NetConf, attachment: &Attachment) -> Result<Outcome, CniError> {
    let error = match agent.delete_endpoint(attachment) {
        Ok(()) => return Ok(Outcome::Deleted),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Outcome::Unknown),
        Err(error) => error,
    };
    log::warn!("delete the endpoint of {attachment}: {error}");
    let queue = DeletionQueue::beside(&conf.socket);
    let lock = queue.lock(LOCK_PATIENCE).map_err(not_queued)?;
    if error.kind() == ErrorKind::AgentUnavailable {
        // an agent that started meanwhile has read the queue already; one that hangs reads it again, as does the next
        match agent.delete_endpoint(attachment) {
            Ok(()) => return Ok(Outcome::Deleted),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Outcome::Unknown),
            Err(_) => {}
        }
    }
    lock.push(attachment).map_err(not_queued)?;
    log::warn!("deletion of {attachment} queued in {}", queue.dir().display());
    Ok(Outcome::Queued)
}

/// Has the agent do what is still queued of an attachment that is about to be made anew: at its next look into the queue it would
/// delete the new endpoint.
pub(super) fn carry_out_queued(agent: &impl Agent, conf: &NetConf, attachment: &Attachment) -> Result<()> {
    let queue = DeletionQueue::beside(&conf.socket);
    if !queue.holds(attachment) {
        return Ok(());
    }
    // not waited for here: an agent that holds it is at work on the queue, and does not listen yet perhaps
    let lock = queue.lock(Duration::ZERO)?;
    match agent.delete_endpoint(attachment) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => lock.remove(attachment)?,
    }
    log::info!("{attachment}: the deletion that was queued is done");
    Ok(())
}

fn not_queued(error: crate::Error) -> CniError {
    CniError::new(ErrorCode::TryAgainLater, "no agent answers, and the deletion can't be queued")
        .with_details(error.to_string())
}
