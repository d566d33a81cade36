//! What one packet brought about, and what it should have.
#![allow(dead_code)]

use std::mem::size_of;

use podwire::abi::{DropNotify, ForwardPoint, MetricsKey, MetricsValue, TraceNotify};

use super::{A, EGRESS, FROM_CONTAINER, FROM_HOST, INGRESS, SHOT, TO_CONTAINER};

/// A record of the event ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Drop(DropNotify, Vec<u8>),
    Trace(TraceNotify, Vec<u8>),
}

impl Event {
    pub(super) fn parse(record: &[u8]) -> Self {
        match record[0] {
            DropNotify::TYPE => {
                let (head, packet) = record.split_at(size_of::<DropNotify>());
                let notify: DropNotify = bytemuck::pod_read_unaligned(head);
                Self::Drop(notify, packet[..usize::from(notify.len_cap)].to_vec())
            }
            TraceNotify::TYPE => {
                let (head, packet) = record.split_at(size_of::<TraceNotify>());
                let notify: TraceNotify = bytemuck::pod_read_unaligned(head);
                Self::Trace(notify, packet[..usize::from(notify.len_cap)].to_vec())
            }
            other => panic!("a record of unknown type {other}: {record:02x?}"),
        }
    }
}

/// What one packet brought about.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(super) program: String,
    pub(super) input: Vec<u8>,
    pub(crate) verdict: i32,
    pub(crate) packet: Vec<u8>,
    /// Counters that moved, by how much.
    pub(crate) forwards: Vec<(u32, MetricsValue)>,
    pub(crate) drops: Vec<(MetricsKey, MetricsValue)>,
    pub(crate) events: Vec<Event>,
}

impl Outcome {
    /// The verdict and the bytes are these, the packet was counted once at this point (or not at all), nothing was reported.
    #[track_caller]
    pub(crate) fn forwarded(&self, verdict: i32, packet: &[u8], point: Option<ForwardPoint>) {
        assert_eq!(self.verdict, verdict, "{self:02x?}");
        assert_eq!(hex(&self.packet), hex(packet));
        let counted = MetricsValue { count: 1, bytes: self.input.len() as u64 };
        let expected: Vec<_> = point.iter().map(|point| (*point as u32, counted)).collect();
        assert_eq!(self.forwards, expected, "forwards");
        assert_eq!(self.drops, [], "nothing was dropped");
        assert_eq!(self.events, [], "nothing was reported");
    }

    /// The packet was dropped unchanged for this reason, counted once and reported once, as of the endpoint A.
    #[track_caller]
    pub(crate) fn dropped(&self, reason: u8) {
        self.dropped_of(reason, sender_of(&self.program));
    }

    #[track_caller]
    pub(crate) fn dropped_of(&self, reason: u8, sender: (u16, u32)) {
        assert_eq!(self.verdict, SHOT, "{self:02x?}");
        assert_eq!(hex(&self.packet), hex(&self.input), "a dropped packet is left as it was");
        assert_eq!(self.forwards, [], "forwards");
        self.reported(reason, sender);
    }

    /// One drop counted and reported; says nothing about the verdict.
    #[track_caller]
    pub(crate) fn reported(&self, reason: u8, (source, identity): (u16, u32)) {
        let [(key, value)] = self.drops.as_slice() else { panic!("one drop is to be counted: {self:02x?}") };
        assert_eq!(key.reason, reason, "the reason; from {}", source_line(key.file, key.line));
        assert_eq!(*value, MetricsValue { count: 1, bytes: self.input.len() as u64 });
        let direction = if self.program == FROM_CONTAINER { EGRESS } else { INGRESS };
        assert_eq!((key.dir, key.reserved), (direction, [0; 3]));
        let line = source_line(key.file, key.line);
        let named = [format!("DROP({})", reason_name(reason)), "DROP(row->reason)".to_owned()];
        assert!(named.iter().any(|drop| line.contains(drop)), "{reason} is counted for the line {line:?}");

        let [Event::Drop(notify, head)] = self.events.as_slice() else { panic!("one event is due: {self:02x?}") };
        let expected = DropNotify {
            r#type: 1,
            subtype: reason,
            source,
            hash: notify.hash,
            len_orig: self.input.len() as u32,
            len_cap: self.input.len().min(128) as u16,
            version: 3,
            src_label: identity,
            // Whom it was for is known only once addresses and ports were read: the tests of policies look at it.
            dst_label: notify.dst_label,
            dst_id: notify.dst_id,
            line: key.line,
            file: key.file,
            ifindex: 1,
            flags: u8::from(self.input[12..14] == [0x86, 0xdd]),
            ..DropNotify::default()
        };
        assert_eq!(*notify, expected);
        assert_eq!(hex(head), hex(&self.input[..self.input.len().min(128)]), "the head of the packet");
    }
}

/// Endpoint id and identity that a drop is put down to.
fn sender_of(program: &str) -> (u16, u32) {
    match program {
        FROM_CONTAINER => (A.id, A.identity),
        TO_CONTAINER => (A.id, 0),
        FROM_HOST => (0, 1),
        _ => (0, 2),
    }
}

/// The line of the programs' source that a counter names.
pub(crate) fn source_line(file: u8, line: u16) -> String {
    let path = match file {
        1 => "host.bpf.c",
        2 => "lxc.bpf.c",
        6 => "netdev.bpf.c",
        40 => "lib/ipv4.h",
        41 => "lib/ipv6.h",
        42 => "lib/arp.h",
        43 => "lib/ndp.h",
        44 => "lib/deliver.h",
        45 => "lib/transport.h",
        46 => "lib/admit.h",
        _ => panic!("a source file of unknown number {file}"),
    };
    let text =
        std::fs::read_to_string(format!("{}/bpf/{path}", env!("CARGO_MANIFEST_DIR"))).expect("the source is there");
    let line = text.lines().nth(usize::from(line) - 1).expect("the line is there");
    line.trim().to_owned()
}

fn reason_name(reason: u8) -> String {
    let text = include_str!("../../bpf/lib/common.h");
    let ending = format!(" = {reason},");
    let line = text.lines().find(|line| line.trim().starts_with("REASON_") && line.ends_with(&ending));
    line.expect("a reason of that number").trim().trim_end_matches(&ending).to_owned()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let rows: Vec<String> =
        bytes.chunks(16).map(|row| row.iter().map(|byte| format!("{byte:02x} ")).collect::<String>()).collect();
    rows.join("\n")
}
