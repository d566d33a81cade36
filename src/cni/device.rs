//! Marks by which a host-side device tells whose it is, so that what an interrupted call left can be found and freed.

use super::attachment::Attachment;
use crate::endpoint::PLUGIN_MARK;
use crate::netlink::{Link, Socket};
use crate::{ErrorKind, IfIndex, Result};

/// The longest alias the kernel keeps, in bytes (IFALIASZ less the final zero).
const ALIAS_MAX: usize = 255;

/// Whose device it is. None of the parts has a colon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) network: String,
    pub(super) attachment: Attachment,
}

impl Mark {
    /// The alias; a network's name that would make it too long is cut, in the same way each time.
    pub(super) fn alias(&self) -> String {
        let rest = self.attachment.to_string();
        let room = ALIAS_MAX - PLUGIN_MARK.len() - 2 - rest.len().min(ALIAS_MAX - PLUGIN_MARK.len() - 2);
        let mut network = self.network.as_str();
        network = network.get(..room.min(network.len())).unwrap_or_default();
        format!("{PLUGIN_MARK}:{network}:{rest}")
    }

    /// Whether the mark is of a network, whose name may be cut in it.
    pub(super) fn is_of(&self, network: &str) -> bool {
        let whole = Self { network: network.to_owned(), attachment: self.attachment.clone() };
        whole.alias() == self.alias()
    }

    /// Reads an alias; `None` when it is not one of ours.
    pub(super) fn parse(alias: &str) -> Option<Self> {
        let rest = alias.strip_prefix(PLUGIN_MARK)?.strip_prefix(':')?;
        let (network, attachment) = rest.split_once(':')?;
        Some(Self { network: network.to_owned(), attachment: attachment.parse().ok()? })
    }
}

/// The host-side device of an attachment, if it is there and bears its mark. One that bears no alias at all is taken for
/// it too: a process can die between making the device and marking it.
pub(super) fn find(host: &Socket, attachment: &Attachment) -> Result<Option<IfIndex>> {
    let link = match host.link_by_name(&attachment.host_ifname()) {
        Ok(link) => link,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let is_ours = match &link.alias {
        Some(alias) => Mark::parse(alias).is_some_and(|mark| mark.attachment == *attachment),
        None => link.kind.as_deref() == Some("veth"),
    };
    Ok(is_ours.then_some(link.index))
}

/// The mark of a device; `None` when it is none of ours.
pub(super) fn mark_of(link: &Link) -> Option<Mark> {
    Mark::parse(link.alias.as_deref()?)
}

/// Deletes the host-side device of an attachment; says whether there was one.
pub(super) fn remove(host: &Socket, attachment: &Attachment) -> Result<bool> {
    let Some(index) = find(host, attachment)? else { return Ok(false) };
    match host.link_delete(index) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_read_back() {
        let attachment = Attachment::new("abc", "eth0").expect("valid");
        let mark = Mark { network: "pods".into(), attachment: attachment.clone() };
        assert_eq!(mark.alias(), "podwire_cni:pods:abc:eth0");
        assert_eq!(Mark::parse(&mark.alias()), Some(mark));
        let long = Mark {
            network: "n".repeat(500),
            attachment: Attachment::new(&"c".repeat(160), "fifteen-bytes-x").expect("valid"),
        };
        assert_eq!(long.alias().len(), ALIAS_MAX);
        let read = Mark::parse(&long.alias()).expect("ours");
        assert_eq!(read.attachment, long.attachment);
        assert!(long.network.starts_with(&read.network));
        assert!(read.is_of(&long.network) && !read.is_of("other"));
        for foreign in ["", "uplink", "podwire_cni", "podwire_cni:pods", "podwire_cni:pods:abc", "podwire_cnix:a:b:c"] {
            assert_eq!(Mark::parse(foreign), None, "{foreign}");
        }
    }
}
