//! The clsact queueing discipline: the place on a device where filters see packets come and go.

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Rtm, Tca};
use neli::rtnl::{Tcmsg, TcmsgBuilder};

use super::link::signed;
use super::request::Request;
use super::socket::Socket;
use super::wire::{self, Attributes, Frame};
use crate::{Error, ErrorKind, IfIndex, Result};

/// Where a device's clsact or ingress discipline sits (`TC_H_CLSACT`, the same number as `TC_H_INGRESS`).
pub(super) const TC_H_CLSACT: u32 = 0xffff_fff1;

/// The handle that such a discipline always has.
const CLSACT_HANDLE: u32 = 0xffff_0000;

const CLSACT: &str = "clsact";

impl Socket {
    /// Adds clsact to a device, and returns whether it was not there before.
    ///
    /// # Errors
    ///
    /// [`Foreign`](crate::ErrorKind::Foreign) when the older ingress discipline holds its place.
    pub fn clsact_add(&self, device: IfIndex) -> Result<bool> {
        let refused = match self.execute(&Request::clsact_add(device)?) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => error,
            Err(error) => return Err(error),
        };
        match self.ingress_kind(device)?.as_deref() {
            Some(CLSACT) => Ok(false),
            Some(kind) => Err(Error::Foreign {
                object: format!("queueing discipline {kind} of device {device}"),
                owner: "somebody else".to_owned(),
                remedy: "clsact takes the same place: remove it with \"tc qdisc del dev DEVICE ingress\"".into(),
            }),
            None => Err(refused),
        }
    }

    /// Removes clsact from a device, with all filters on it, whoever made them.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) or [`InvalidInput`](crate::ErrorKind::InvalidInput), depending on the
    /// kernel, when the device has none.
    pub fn clsact_delete(&self, device: IfIndex) -> Result<()> {
        self.execute(&Request::clsact_delete(device)?)
    }

    /// Whether a device has clsact.
    pub fn clsact_exists(&self, device: IfIndex) -> Result<bool> {
        Ok(self.ingress_kind(device)?.as_deref() == Some(CLSACT))
    }

    /// What sits in the place of clsact.
    fn ingress_kind(&self, device: IfIndex) -> Result<Option<String>> {
        let body = body(device, 0, TC_H_CLSACT, 0, Attributes::new())?;
        let object = format!("device {device}");
        // Without ECHO the kernel tells the listeners of the group, but not who asked.
        let request = Request::new("query queueing discipline of", object, Rtm::Getqdisc, NlmF::ECHO, &body)?;
        match self.query(&request, parse_kind) {
            Ok(kinds) => Ok(kinds.into_iter().next()),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Request {
    /// The request of [`Socket::clsact_add`]; alone it fails when clsact is there already.
    pub fn clsact_add(device: IfIndex) -> Result<Self> {
        Self::new(
            "add clsact to",
            format!("device {device}"),
            Rtm::Newqdisc,
            NlmF::CREATE | NlmF::EXCL,
            &clsact(device)?,
        )
    }

    /// The request of [`Socket::clsact_delete`].
    pub fn clsact_delete(device: IfIndex) -> Result<Self> {
        Self::new("delete clsact of", format!("device {device}"), Rtm::Delqdisc, NlmF::empty(), &clsact(device)?)
    }
}

fn clsact(device: IfIndex) -> Result<Tcmsg> {
    let mut attributes = Attributes::new();
    attributes.put(Tca::Kind, CLSACT)?;
    body(device, CLSACT_HANDLE, TC_H_CLSACT, 0, attributes)
}

pub(super) fn body(device: IfIndex, handle: u32, parent: u32, info: u32, attributes: Attributes<Tca>) -> Result<Tcmsg> {
    TcmsgBuilder::default()
        .tcm_family(libc::AF_UNSPEC as u8)
        .tcm_ifindex(signed(Some(device)))
        .tcm_handle(handle)
        .tcm_parent(parent)
        .tcm_info(info)
        .rtattrs(attributes.finish())
        .build()
        .map_err(wire::encode_error)
}

pub(super) fn parse_kind(frame: &Frame<'_>) -> Result<Option<String>> {
    if !frame.is(Rtm::Newqdisc) {
        return Ok(None);
    }
    let message: Tcmsg = frame.parse()?;
    let kind = wire::kinds(message.rtattrs()).find(|(kind, _)| *kind == u16::from(Tca::Kind));
    Ok(kind.map(|(_, payload)| wire::string(payload)))
}
