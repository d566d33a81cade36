//! What has been asked and what is still to be answered: the protocol without the socket.

use neli::consts::nl::Nlmsg;

use super::wire::{self, Frame, Verdict};
use crate::Result;

/// Requests sent together, with consecutive sequence numbers, of which the last is to be acknowledged.
///
/// The kernel works them off in their order and always says what failed, so that the end of the last one tells of all.
#[derive(Debug)]
pub(super) struct Pending {
    first: u32,
    verdicts: Vec<Option<Verdict>>,
}

impl Pending {
    pub(super) fn new(first: u32, count: usize) -> Self {
        Self { first, verdicts: (0..count).map(|_| None).collect() }
    }

    pub(super) fn is_done(&self) -> bool {
        self.verdicts.last().is_none_or(Option::is_some)
    }

    /// Takes a datagram; what is not an acknowledgement goes to `reply` with the number of the request it answers.
    /// Messages that answer something else (an earlier request that was given up) are skipped.
    pub(super) fn feed(&mut self, datagram: &[u8], mut reply: impl FnMut(usize, Frame<'_>)) -> Result<()> {
        for frame in wire::frames(datagram) {
            let frame = frame?;
            let number = frame.seq.wrapping_sub(self.first) as usize;
            let Some(verdict) = self.verdicts.get_mut(number) else {
                log::debug!("netlink reply to sequence number {} skipped", frame.seq);
                continue;
            };
            if frame.is(Nlmsg::Error) {
                *verdict = Some(wire::error_verdict(&frame)?);
            } else if !frame.is(Nlmsg::Noop) {
                reply(number, frame);
            }
        }
        Ok(())
    }

    /// One verdict for each request, in their order, once the last one is answered.
    pub(super) fn into_verdicts(self) -> impl Iterator<Item = Verdict> {
        self.verdicts.into_iter().map(Option::unwrap_or_default)
    }
}

/// A dump that is being received.
#[derive(Debug)]
pub(super) struct Dump {
    seq: u32,
    interrupted: bool,
    end: Option<Verdict>,
}

impl Dump {
    pub(super) fn new(seq: u32) -> Self {
        Self { seq, interrupted: false, end: None }
    }

    /// Takes a datagram; each object goes to `object`.
    pub(super) fn feed(&mut self, datagram: &[u8], mut object: impl FnMut(Frame<'_>)) -> Result<()> {
        for frame in wire::frames(datagram) {
            let frame = frame?;
            if frame.seq != self.seq {
                log::debug!("netlink reply to sequence number {} skipped", frame.seq);
                continue;
            }
            self.interrupted |= frame.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
            if frame.is(Nlmsg::Done) {
                self.end = Some(wire::done_verdict(&frame)?);
            } else if frame.is(Nlmsg::Error) {
                self.end = Some(wire::error_verdict(&frame)?);
            } else if !frame.is(Nlmsg::Noop) {
                object(frame);
            }
        }
        Ok(())
    }

    /// How it ended, once it has.
    pub(super) fn end(&mut self) -> Option<Verdict> {
        self.end.take()
    }

    /// Whether the objects changed in the middle, so that some may be missing or there twice.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted
    }
}
