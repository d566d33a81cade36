//! Bytes in and out: attributes, frames, the kernel's error messages. (include/uapi/linux/netlink.h)

use std::fmt::Display;
use std::io::{self, Cursor};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use neli::consts::rtnl::{RtAddrFamily, RtaType};
use neli::rtnl::{Rtattr, RtattrBuilder};
use neli::types::{Buffer, RtBuffer};
use neli::{FromBytes, FromBytesWithInput, Size, ToBytes};

use crate::{Error, MacAddr, Result};

/// Length of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;

/// Marks an attribute that holds attributes, where the kernel insists on it.
pub(super) const NESTED: u16 = libc::NLA_F_NESTED as u16;

/// What remains of an attribute's type when its flags are taken off.
const TYPE_MASK: u16 = libc::NLA_TYPE_MASK as u16;

/// The extended acknowledgement's attribute that holds the kernel's text.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// The attributes of a message, or of an attribute that holds attributes.
#[derive(Debug)]
pub(super) struct Attributes<T>(RtBuffer<T, Buffer>);

impl<T: RtaType> Attributes<T> {
    pub(super) fn new() -> Self {
        Self(RtBuffer::new())
    }

    /// Adds an attribute; `payload` may be a number in host byte order, a string (which gets its final zero byte), bytes,
    /// a message, or the finished attributes of a nest.
    pub(super) fn put<P: Size + ToBytes>(&mut self, kind: impl Into<T>, payload: P) -> Result<()> {
        if payload.unpadded_size() > usize::from(u16::MAX) - 4 {
            return Err(encode_error("attribute longer than 65,531 bytes"));
        }
        let attribute = RtattrBuilder::default().rta_type(kind.into()).rta_payload(payload).build();
        self.0.push(attribute.map_err(encode_error)?);
        Ok(())
    }

    /// Adds an attribute unless there is no value for it.
    pub(super) fn put_some<P: Size + ToBytes>(&mut self, kind: impl Into<T>, payload: Option<P>) -> Result<()> {
        payload.map_or(Ok(()), |payload| self.put(kind, payload))
    }

    pub(super) fn put_ip(&mut self, kind: impl Into<T>, address: IpAddr) -> Result<()> {
        match address {
            IpAddr::V4(address) => self.put(kind, address.octets()),
            IpAddr::V6(address) => self.put(kind, address.octets()),
        }
    }

    pub(super) fn finish(self) -> RtBuffer<T, Buffer> {
        self.0
    }
}

/// Serialises a message's body.
pub(super) fn to_bytes(body: &(impl ToBytes + Size)) -> Result<Vec<u8>> {
    let mut cursor = Cursor::new(Vec::with_capacity(body.padded_size()));
    body.to_bytes(&mut cursor).map_err(encode_error)?;
    Ok(cursor.into_inner())
}

/// A message that could not be put together; its parts are checked before, so that this stands for a limit of the format.
pub(super) fn encode_error(cause: impl Display) -> Error {
    Error::system("encode", "netlink message", io::Error::new(io::ErrorKind::InvalidInput, cause.to_string()))
}

/// One message of a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) seq: u32,
    pub(super) body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Parses the body as one of neli's messages.
    pub(super) fn parse<M: FromBytesWithInput<Input = usize>>(&self) -> Result<M> {
        M::from_bytes_with_input(&mut Cursor::new(self.body), self.body.len()).map_err(decode_error)
    }

    pub(super) fn is(&self, kind: impl Into<u16>) -> bool {
        self.kind == kind.into()
    }
}

/// Cuts a datagram into messages; ends with an error at the first header that is cut short or lies about its length.
pub(super) fn frames(mut datagram: &[u8]) -> impl Iterator<Item = Result<Frame<'_>>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let frame = first_frame(datagram);
        datagram = match &frame {
            Ok((_, rest)) => rest,
            Err(_) => &[],
        };
        Some(frame.map(|(frame, _)| frame))
    })
}

fn first_frame(datagram: &[u8]) -> Result<(Frame<'_>, &[u8])> {
    let mut cursor = Cursor::new(datagram);
    let length = u32::from_bytes(&mut cursor).map_err(decode_error)? as usize;
    let kind = u16::from_bytes(&mut cursor).map_err(decode_error)?;
    let flags = u16::from_bytes(&mut cursor).map_err(decode_error)?;
    let seq = u32::from_bytes(&mut cursor).map_err(decode_error)?;
    let body = datagram
        .get(HEADER..length)
        .ok_or_else(|| decode_error(format!("a message of {length} bytes in {} bytes", datagram.len())))?;
    let rest = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    Ok((Frame { kind, flags, seq, body }, rest))
}

/// What the kernel says at the end of a request: `errno` 0 is success, as is saying nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) errno: i32,
    pub(super) text: String,
}

/// Reads an acknowledgement or an error (`struct nlmsgerr`): a negative errno, the request's header, the request's body
/// unless it was left out, then the extended acknowledgement, if there is one.
pub(super) fn error_verdict(frame: &Frame<'_>) -> Result<Verdict> {
    let mut cursor = Cursor::new(frame.body);
    let code = i32::from_bytes(&mut cursor).map_err(decode_error)?;
    let request = u32::from_bytes(&mut cursor).map_err(decode_error)? as usize;
    let capped = frame.flags & libc::NLM_F_CAPPED as u16 != 0;
    let quoted = if capped { HEADER } else { request.max(HEADER) };
    let tlvs = quoted.checked_next_multiple_of(4).and_then(|quoted| frame.body.get(4 + quoted..));
    Ok(verdict(frame, code, tlvs.unwrap_or_default()))
}

/// Reads the end of a dump: a negative errno or a count, then the extended acknowledgement, if there is one.
pub(super) fn done_verdict(frame: &Frame<'_>) -> Result<Verdict> {
    if frame.body.is_empty() {
        return Ok(Verdict { errno: 0, text: String::new() });
    }
    let code = i32::from_bytes(&mut Cursor::new(frame.body)).map_err(decode_error)?;
    Ok(verdict(frame, code.min(0), frame.body.get(4..).unwrap_or_default()))
}

fn verdict(frame: &Frame<'_>, code: i32, tlvs: &[u8]) -> Verdict {
    let text = if frame.flags & libc::NLM_F_ACK_TLVS as u16 != 0 { kernel_text(tlvs) } else { String::new() };
    Verdict { errno: code.saturating_abs(), text }
}

/// The text is a courtesy: where it can't be read there is none.
fn kernel_text(tlvs: &[u8]) -> String {
    let parsed = RtBuffer::<u16, Buffer>::from_bytes_with_input(&mut Cursor::new(tlvs), tlvs.len());
    let Ok(parsed) = parsed else { return String::new() };
    kinds(&parsed).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG).map_or_else(String::new, |(_, text)| string(text))
}

/// A reply that can't be understood.
pub(super) fn decode_error(cause: impl Display) -> Error {
    Error::system("decode", "netlink reply", io::Error::new(io::ErrorKind::InvalidData, cause.to_string()))
}

/// The attributes with their types' flags taken off.
pub(super) fn kinds<T: RtaType>(attributes: &RtBuffer<T, Buffer>) -> impl Iterator<Item = (u16, &[u8])> {
    attributes.iter().map(|attribute| (kind_of(attribute), attribute.rta_payload().as_ref()))
}

fn kind_of<T: RtaType>(attribute: &Rtattr<T, Buffer>) -> u16 {
    let kind: u16 = (*attribute.rta_type()).into();
    kind & TYPE_MASK
}

/// The attributes within an attribute.
pub(super) fn nested(payload: &[u8]) -> Result<RtBuffer<u16, Buffer>> {
    RtBuffer::from_bytes_with_input(&mut Cursor::new(payload), payload.len()).map_err(decode_error)
}

/// A number in host byte order.
pub(super) fn number<N: FromBytes>(payload: &[u8]) -> Result<N> {
    N::from_bytes(&mut Cursor::new(payload)).map_err(decode_error)
}

/// A string up to its final zero byte.
pub(super) fn string(payload: &[u8]) -> String {
    let text = payload.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// An Ethernet address; links of other kinds have addresses of other lengths.
pub(super) fn mac(payload: &[u8]) -> Option<MacAddr> {
    payload.try_into().ok().map(MacAddr::new)
}

/// An address of either family, told by its length.
pub(super) fn ip(payload: &[u8]) -> Result<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(payload) {
        Ok(Ipv4Addr::from(octets).into())
    } else if let Ok(octets) = <[u8; 16]>::try_from(payload) {
        Ok(Ipv6Addr::from(octets).into())
    } else {
        Err(decode_error(format!("an address of {} bytes", payload.len())))
    }
}

/// The family in a message's header.
pub(super) fn family(address: IpAddr) -> RtAddrFamily {
    if address.is_ipv4() { RtAddrFamily::Inet } else { RtAddrFamily::Inet6 }
}

/// The unspecified address of a family; `None` for other families than IPv4 and IPv6.
pub(super) fn unspecified(family: RtAddrFamily) -> Option<IpAddr> {
    match family {
        RtAddrFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
        RtAddrFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    }
}
