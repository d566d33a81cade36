//! GC: frees what belongs to no valid attachment of the network.

use std::collections::HashSet;

use super::agent::{Agent, AttachedEndpoint};
use super::attachment::Attachment;
use super::conf::NetConf;
use super::device::{self, Mark};
use super::error::{CniError, ErrorCode};
use crate::ErrorKind;
use crate::netlink::Socket;

/// Deletes every endpoint and device of this network whose attachment is not in the list of valid ones. The network is
/// in the mark on the host-side device; an endpoint whose device is gone serves no network any more and is freed too. One whose
/// device is there, but bears no mark, is somebody else's to delete.
/// Addresses are freed with their endpoints; those that no endpoint ever claimed expire by themselves.
pub(super) fn gc(agent: &impl Agent, conf: &NetConf) -> Result<(), CniError> {
    let Some(valid) = &conf.valid_attachments else {
        let message = "invalid network configuration: cni.dev/valid-attachments is missing";
        return Err(CniError::new(ErrorCode::InvalidConfig, message)
            .with_details("without the list everything would have to go, which is never assumed"));
    };
    let valid: HashSet<&Attachment> = valid.iter().collect();
    let host = Socket::open()?;
    let known = agent.attachments()?;
    let links = host.links()?;
    let marks: Vec<Mark> = links.iter().filter_map(device::mark_of).collect();

    let is_gone = |endpoint: &&AttachedEndpoint| {
        !endpoint.host_ifname.is_empty()
            && links.iter().all(|link| link.name != endpoint.host_ifname)
            && marks.iter().all(|mark| mark.attachment != endpoint.attachment)
    };
    let orphans = known.iter().filter(is_gone).map(|endpoint| &endpoint.attachment);
    let ours = marks.iter().filter(|mark| mark.is_of(&conf.name)).map(|mark| &mark.attachment);
    let stale: HashSet<&Attachment> = ours.chain(orphans).filter(|attachment| !valid.contains(attachment)).collect();

    let failures: Vec<String> = stale
        .into_iter()
        .filter_map(|attachment| free(agent, &host, attachment).err().map(|error| format!("{attachment}: {error}")))
        .collect();
    if failures.is_empty() {
        return Ok(());
    }
    let message = format!("{} stale attachments could not be freed", failures.len());
    Err(CniError::new(ErrorCode::GarbageRemains, message).with_details(failures.join("; ")))
}

fn free(agent: &impl Agent, host: &Socket, attachment: &Attachment) -> crate::Result<()> {
    log::info!("{attachment} is no longer valid: freed");
    match agent.delete_endpoint(attachment) {
        Err(error) if error.kind() == ErrorKind::NotFound => device::remove(host, attachment).map(drop),
        done => done,
    }
}
