//! A request that is ready to be sent.

use neli::consts::nl::NlmF;
use neli::consts::rtnl::Rtm;
use neli::nl::{NlPayload, NlmsghdrBuilder};
use neli::types::Buffer;
use neli::{Size, ToBytes};

use super::wire;
use crate::{Error, Result};

/// One request to the kernel, checked and serialised; send it with [`Socket::execute`](super::Socket::execute) or
/// together with others with [`Socket::execute_all`](super::Socket::execute_all).
///
/// Device indices in it belong to the namespace of the socket that sends it. Namespaces and programs are in it as numbers
/// of descriptors: keep those open until it is sent.
#[derive(Clone, Debug)]
pub struct Request {
    op: &'static str,
    object: String,
    kind: Rtm,
    flags: NlmF,
    body: Vec<u8>,
}

impl Request {
    pub(super) fn new(
        op: &'static str,
        object: impl Into<String>,
        kind: Rtm,
        flags: NlmF,
        body: &(impl ToBytes + Size),
    ) -> Result<Self> {
        let body = wire::to_bytes(body)?;
        Ok(Self { op, object: object.into(), kind, flags: flags | NlmF::REQUEST, body })
    }

    /// What the request does and to what, as errors name it.
    pub fn describe(&self) -> String {
        format!("{} {}", self.op, self.object)
    }

    /// The whole message with this sequence number, in host byte order, as it goes to the kernel when it is sent alone.
    pub fn to_bytes(&self, seq: u32) -> Result<Vec<u8>> {
        self.encode(self.flags | NlmF::ACK, seq)
    }

    pub(super) fn encode(&self, flags: NlmF, seq: u32) -> Result<Vec<u8>> {
        let message = NlmsghdrBuilder::default()
            .nl_type(self.kind)
            .nl_flags(flags)
            .nl_seq(seq)
            .nl_payload(NlPayload::Payload(Buffer::from(self.body.as_slice())))
            .build()
            .map_err(wire::encode_error)?;
        wire::to_bytes(&message)
    }

    pub(super) fn flags(&self) -> NlmF {
        self.flags
    }

    /// The same request, whose object is to be sent back to the sender.
    pub(super) fn with_echo(mut self) -> Self {
        self.flags |= NlmF::ECHO;
        self
    }

    /// The kernel's answer as a result.
    pub(super) fn outcome(&self, verdict: wire::Verdict) -> Result<()> {
        if verdict.errno == 0 {
            return Ok(());
        }
        Err(Error::Netlink { op: self.op, object: self.object.clone(), errno: verdict.errno, text: verdict.text })
    }

    /// An error below the protocol, such as a failed system call.
    pub(super) fn system(&self, error: impl Into<std::io::Error>) -> Error {
        Error::system(self.op, self.object.clone(), error)
    }

    /// A reply to this request that can't be understood.
    pub(super) fn malformed(&self, cause: Error) -> Error {
        self.system(std::io::Error::new(std::io::ErrorKind::InvalidData, cause.to_string()))
    }
}
