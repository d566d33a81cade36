//! From a ring buffer's record to an event.

use bytemuck::Pod;

use super::packet::PacketSummary;
use super::point::TracePoint;
use super::verdict::PolicyVerdictEvent;
use crate::abi::{DropNotify, PolicyVerdictNotify, TraceNotify};
use crate::tables::{DropReason, PolicyDirection, SourceFile};
use crate::{Error, Result, SecurityId};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A packet was dropped.
    Drop(DropEvent),
    /// A packet passed an observation point.
    Trace(TraceEvent),
    /// A policy judged a connection.
    PolicyVerdict(PolicyVerdictEvent),
}

/// A dropped packet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DropEvent {
    /// The reason's number; [`DropReason::from_number`] knows its name.
    pub reason: u8,
    /// The endpoint whose program dropped it; 0 for the host's and the network's.
    pub source: u16,
    /// The kernel's hash of the flow; 0 where it had none.
    pub hash: u32,
    /// Identity of the sender; 0 when unknown.
    pub source_identity: SecurityId,
    /// Identity of the destination; 0 when unknown.
    pub destination_identity: SecurityId,
    /// The destination endpoint; 0 when unknown.
    pub destination: u32,
    /// The line that dropped it.
    pub line: u16,
    /// The file in which that line stands.
    pub file: SourceFile,
    /// The device whose program dropped it.
    pub ifindex: u32,
    /// The packet's length in bytes.
    pub length: u32,
    /// Its first bytes.
    pub head: Vec<u8>,
}

/// A packet seen on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceEvent {
    /// Where it was seen.
    pub point: TracePoint,
    /// The endpoint that sent it; 0 for none.
    pub source: u16,
    /// The endpoint it goes to; 0 for none.
    pub destination: u16,
    /// The kernel's hash of the flow; 0 where it had none.
    pub hash: u32,
    /// Identity of the sender; 0 when unknown.
    pub source_identity: SecurityId,
    /// Identity of the destination; 0 when unknown.
    pub destination_identity: SecurityId,
    /// The device whose program saw it.
    pub ifindex: u32,
    /// The packet's length in bytes.
    pub length: u32,
    /// Its first bytes.
    pub head: Vec<u8>,
}

impl Event {
    /// Decodes a record of the ring buffer.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a record of an unknown type, or one that is shorter than its type's head.
    pub fn decode(record: &[u8]) -> Result<Self> {
        match record.first() {
            Some(&DropNotify::TYPE) => {
                let (notify, rest) = split::<DropNotify>(record)?;
                Ok(Self::Drop(drop_event(&notify, rest)))
            }
            Some(&TraceNotify::TYPE) => {
                let (notify, rest) = split::<TraceNotify>(record)?;
                Ok(Self::Trace(trace_event(&notify, rest)))
            }
            Some(&PolicyVerdictNotify::TYPE) => {
                let (notify, rest) = split::<PolicyVerdictNotify>(record)?;
                Ok(Self::PolicyVerdict(PolicyVerdictEvent::of(&notify, rest)))
            }
            Some(other) => {
                let reason = "neither a drop (1) nor a trace (4) nor a policy's verdict (5)";
                Err(Error::invalid("event type", other.to_string(), reason))
            }
            None => Err(Error::invalid("event", "", "an empty record")),
        }
    }

    /// The packet's first bytes.
    pub fn head(&self) -> &[u8] {
        match self {
            Self::Drop(drop) => &drop.head,
            Self::Trace(trace) => &trace.head,
            Self::PolicyVerdict(verdict) => &verdict.head,
        }
    }

    /// What those bytes say.
    pub fn packet(&self) -> PacketSummary {
        PacketSummary::of(self.head())
    }

    /// The endpoint it comes from; 0 for none, and in a verdict on what comes to an endpoint.
    pub fn source(&self) -> u16 {
        match self {
            Self::Drop(drop) => drop.source,
            Self::Trace(trace) => trace.source,
            Self::PolicyVerdict(verdict) if verdict.direction == PolicyDirection::Egress => verdict.endpoint,
            Self::PolicyVerdict(_) => 0,
        }
    }

    /// The endpoint it goes to; 0 for none or unknown, and in a verdict on what leaves an endpoint.
    pub fn destination(&self) -> u32 {
        match self {
            Self::Drop(drop) => drop.destination,
            Self::Trace(trace) => trace.destination.into(),
            Self::PolicyVerdict(verdict) if verdict.direction == PolicyDirection::Ingress => verdict.endpoint.into(),
            Self::PolicyVerdict(_) => 0,
        }
    }
}

impl DropEvent {
    /// The reason, as operators read it.
    pub fn reason_text(&self) -> String {
        DropReason::from_number(self.reason).map_or_else(|| self.reason.to_string(), |reason| reason.text().to_owned())
    }
}

fn drop_event(notify: &DropNotify, rest: &[u8]) -> DropEvent {
    DropEvent {
        reason: notify.subtype,
        source: notify.source,
        hash: notify.hash,
        source_identity: SecurityId::new(notify.src_label),
        destination_identity: SecurityId::new(notify.dst_label),
        destination: notify.dst_id,
        line: notify.line,
        file: SourceFile::new(notify.file),
        ifindex: notify.ifindex,
        length: notify.len_orig,
        head: captured(rest, notify.len_cap),
    }
}

fn trace_event(notify: &TraceNotify, rest: &[u8]) -> TraceEvent {
    TraceEvent {
        point: TracePoint::from_number(notify.subtype),
        source: notify.source,
        destination: notify.dst_id,
        hash: notify.hash,
        source_identity: SecurityId::new(notify.src_label),
        destination_identity: SecurityId::new(notify.dst_label),
        ifindex: notify.ifindex,
        length: notify.len_orig,
        head: captured(rest, notify.len_cap),
    }
}

/// The bytes that were captured: a record is longer, its end means nothing.
pub(super) fn captured(rest: &[u8], length: u16) -> Vec<u8> {
    rest[..rest.len().min(length.into())].to_vec()
}

fn split<T: Pod>(record: &[u8]) -> Result<(T, &[u8])> {
    let size = size_of::<T>();
    let (head, rest) = record
        .split_at_checked(size)
        .ok_or_else(|| Error::invalid("event", format!("{} bytes", record.len()), format!("its head has {size}")))?;
    Ok((bytemuck::pod_read_unaligned(head), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(len_cap: u16, rest: &[u8]) -> Vec<u8> {
        let r#type = DropNotify::TYPE;
        let notify = DropNotify { r#type, subtype: 132, source: 7, len_cap, file: 2, line: 30, ..Default::default() };
        [bytemuck::bytes_of(&notify), rest].concat()
    }

    #[test]
    fn a_drop_and_its_head() {
        let event = Event::decode(&record(3, &[1, 2, 3, 4, 5])).expect("whole");
        assert_eq!(event.head(), [1, 2, 3]);
        assert_eq!(event.source(), 7);
        let Event::Drop(drop) = event else { panic!("not a drop") };
        assert_eq!(drop.reason_text(), "Invalid source ip");
    }

    #[test]
    fn a_captured_length_beyond_the_record_is_cut() {
        assert_eq!(Event::decode(&record(500, &[9; 4])).expect("whole").head(), [9; 4]);
    }

    #[test]
    fn every_truncation_and_unknown_type_is_an_error() {
        let trace = TraceNotify { r#type: TraceNotify::TYPE, ..Default::default() };
        let verdict = PolicyVerdictNotify { r#type: PolicyVerdictNotify::TYPE, ..Default::default() };
        for record in [&record(0, &[])[..], bytemuck::bytes_of(&trace), bytemuck::bytes_of(&verdict)] {
            assert!(Event::decode(record).is_ok(), "{record:?}");
            for length in 0..record.len() {
                assert!(Event::decode(&record[..length]).is_err(), "{record:?} cut to {length}");
            }
        }
        assert!(Event::decode(&[99; 200]).is_err());
    }
}
