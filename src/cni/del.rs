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
    match agent.delete_endpoint(attachment) {
        Ok(()) => {
            log::info!("{attachment} detached");
            return Ok(());
        }
        Err(error) if error.kind() == ErrorKind::NotFound => log::info!("the agent does not know {attachment}"),
        Err(error) => {
            log::warn!("delete the endpoint of {attachment}: {error}");
            queue(agent, conf, attachment)?;
        }
    }
    // what an ADD that did not end, or an agent that could not, leaves behind
    if device::remove(&Socket::open()?, attachment)? {
        log::info!("{} deleted", attachment.host_ifname());
    }
    Ok(())
}

/// Leaves the deletion to the agent's next start, unless it starts this moment.
fn queue(agent: &impl Agent, conf: &NetConf, attachment: &Attachment) -> Result<(), CniError> {
    let queue = DeletionQueue::beside(&conf.socket);
    let lock = queue.lock(LOCK_PATIENCE).map_err(not_queued)?;
    match agent.delete_endpoint(attachment) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    lock.push(attachment).map_err(not_queued)?;
    log::warn!("deletion of {attachment} queued in {}", queue.dir().display());
    Ok(())
}

fn not_queued(error: crate::Error) -> CniError {
    CniError::new(ErrorCode::TryAgainLater, "no agent answers, and the deletion can't be queued")
        .with_details(error.to_string())
}
