//! Tests: replies that no kernel should send get a typed error, never a panic or an endless loop.

use proptest::collection::vec;
use proptest::prelude::*;

use super::exchange::{Dump, Pending};
use super::wire::{self, Frame, Verdict};
use super::{Direction, address, filter, link, neighbour, qdisc, route};
use crate::{Error, Result};

const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;
const CAPPED: u16 = libc::NLM_F_CAPPED as u16;
const TLVS: u16 = libc::NLM_F_ACK_TLVS as u16;
const INTERRUPTED: u16 = libc::NLM_F_DUMP_INTR as u16;

/// A message as the kernel would send it.
fn message(kind: u16, flags: u16, seq: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(seq.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + payload.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The body of an error message for a request of `quoted` bytes, of which the header alone comes back.
fn error_body(code: i32, quoted: u32, tlvs: &[u8]) -> Vec<u8> {
    let mut body = code.to_ne_bytes().to_vec();
    body.extend(quoted.to_ne_bytes());
    body.extend([0; 12]);
    body.extend(tlvs);
    body
}

fn only_frame(bytes: &[u8]) -> Result<Frame<'_>> {
    let frames: Vec<_> = wire::frames(bytes).collect();
    assert_eq!(frames.len(), 1);
    frames.into_iter().next().expect("one")
}

/// Every parser of objects.
fn parse_as_everything(frame: &Frame<'_>) -> Vec<Result<bool>> {
    vec![
        link::parse(frame).map(|found| found.is_some()),
        address::parse(frame).map(|found| found.is_some()),
        route::parse(frame).map(|found| found.is_some()),
        neighbour::parse(frame).map(|found| found.is_some()),
        qdisc::parse_kind(frame).map(|found| found.is_some()),
        filter::parse(frame, Direction::Egress).map(|found| found.is_some()),
    ]
}

/// The types of messages that hold objects, in the parsers' order, with the lengths of their headers.
const OBJECTS: [(u16, usize); 6] = [
    (libc::RTM_NEWLINK, 16),
    (libc::RTM_NEWADDR, 8),
    (libc::RTM_NEWROUTE, 12),
    (libc::RTM_NEWNEIGH, 12),
    (libc::RTM_NEWQDISC, 20),
    (libc::RTM_NEWTFILTER, 20),
];

#[test]
fn lengths_that_lie() {
    let good = message(libc::RTM_NEWLINK, 0, 1, &[0; 16]);
    assert!(only_frame(&good).is_ok());
    for length in [0, 1, 15, good.len() as u32 + 1, u32::MAX - 2, u32::MAX] {
        let mut bad = good.clone();
        bad[..4].copy_from_slice(&length.to_ne_bytes());
        only_frame(&bad).expect_err("the length lies");
    }
    for cut in 1..good.len() {
        only_frame(&good[..cut]).expect_err("cut short");
    }
    // what follows a liar can't be found; what precedes it is good
    let mut both = good.clone();
    both.extend(&good[..10]);
    let frames: Vec<_> = wire::frames(&both).map(|frame| frame.is_ok()).collect();
    assert_eq!(frames, [true, false]);
}

#[test]
fn attributes_that_lie() {
    for (number, (kind, header)) in OBJECTS.into_iter().enumerate() {
        for length in [0_u16, 1, 3, 9, u16::MAX] {
            let mut body = vec![0; header];
            body[0] = if kind == libc::RTM_NEWLINK { 0 } else { libc::AF_INET as u8 };
            body[4..8].copy_from_slice(&1_i32.to_ne_bytes());
            let mut lie = attribute(1, &[0; 4]);
            lie[..2].copy_from_slice(&length.to_ne_bytes());
            body.extend(lie);
            let bytes = message(kind, 0, 1, &body);
            let outcome = parse_as_everything(&only_frame(&bytes).expect("whole"));
            assert!(outcome[number].is_err(), "attribute of length {length} in message {kind}");
        }
        for cut in 0..header {
            let bytes = message(kind, 0, 1, &vec![0; cut]);
            let outcome = parse_as_everything(&only_frame(&bytes).expect("whole"));
            assert!(outcome[number].is_err(), "header of {cut} bytes in message {kind}");
        }
    }
}

#[test]
fn the_kernels_text_is_found_behind_the_request() {
    let text = attribute(1, b"mtu greater than device maximum\0");
    let expected = Verdict { errno: libc::EINVAL, text: "mtu greater than device maximum".to_owned() };
    let verdict = |flags, quoted, tlvs: &[u8]| {
        let bytes = message(ERROR, flags, 1, &error_body(-libc::EINVAL, quoted, tlvs));
        wire::error_verdict(&only_frame(&bytes).expect("whole"))
    };
    assert_eq!(verdict(CAPPED | TLVS, 64, &text).expect("parse"), expected);
    // without CAPPED the request's body comes first
    let mut quoted = vec![0xff; 48];
    quoted.extend(&text);
    assert_eq!(verdict(TLVS, 64, &quoted).expect("parse"), expected);
    let mut offset_first = attribute(2, &20_u32.to_ne_bytes());
    offset_first.extend(&text);
    assert_eq!(verdict(CAPPED | TLVS, 64, &offset_first).expect("parse"), expected);
    // the errno counts even where the text is missing or damaged
    let without = Verdict { errno: libc::EINVAL, text: String::new() };
    assert_eq!(verdict(CAPPED, 64, &[]).expect("parse"), without);
    assert_eq!(verdict(CAPPED | TLVS, 64, &text[..20]).expect("parse"), without);
    assert_eq!(verdict(TLVS, u32::MAX, &text).expect("parse"), without);

    let mut done = (-libc::ENODEV).to_ne_bytes().to_vec();
    done.extend(attribute(1, b"gone\0"));
    let bytes = message(DONE, TLVS, 1, &done);
    let end = wire::done_verdict(&only_frame(&bytes).expect("whole")).expect("parse");
    assert_eq!(end, Verdict { errno: libc::ENODEV, text: "gone".to_owned() });
}

#[test]
fn answers_find_their_requests() {
    let ack = |seq, code| message(ERROR, CAPPED, seq, &error_body(code, 16, &[]));
    // the numbers wrap around
    let mut pending = Pending::new(u32::MAX, 3);
    let mut replies = Vec::new();
    let mut datagram = ack(7, -libc::EPERM); // somebody else's
    datagram.extend(message(libc::RTM_NEWLINK, 0, 0, &[]));
    datagram.extend(ack(0, -libc::ENODEV));
    pending.feed(&datagram, |number, _| replies.push(number)).expect("parse");
    assert_eq!((replies.as_slice(), pending.is_done()), (&[1][..], false));
    pending.feed(&ack(0, -libc::ENODEV), |_, _| ()).expect("twice is harmless");
    assert!(!pending.is_done());
    // the first is not heard of: it succeeded
    pending.feed(&ack(1, 0), |_, _| ()).expect("parse");
    assert!(pending.is_done());
    assert_eq!(pending.into_verdicts().map(|verdict| verdict.errno).collect::<Vec<_>>(), [0, libc::ENODEV, 0]);
}

#[test]
fn dumps_end_and_tell_of_interruption() {
    let mut dump = Dump::new(5);
    let mut objects = 0;
    dump.feed(&message(libc::RTM_NEWLINK, 0, 4, &[]), |_| objects += 1).expect("another's");
    dump.feed(&message(libc::RTM_NEWLINK, INTERRUPTED, 5, &[]), |_| objects += 1).expect("parse");
    assert_eq!(dump.end(), None);
    dump.feed(&message(DONE, 0, 5, &0_i32.to_ne_bytes()), |_| objects += 1).expect("parse");
    assert_eq!((dump.end().map(|end| end.errno), dump.is_interrupted(), objects), (Some(0), true, 1));

    let mut refused = Dump::new(5);
    let bytes = message(ERROR, CAPPED, 5, &error_body(-libc::EOPNOTSUPP, 16, &[]));
    refused.feed(&bytes, |_| ()).expect("parse");
    assert_eq!(refused.end().map(|end| end.errno), Some(libc::EOPNOTSUPP));
    assert!(matches!(Dump::new(5).feed(&bytes[..8], |_| ()), Err(Error::System { .. })));
}

proptest! {
    #[test]
    fn random_datagrams(bytes in vec(any::<u8>(), 0..200)) {
        let frames = wire::frames(&bytes).count();
        prop_assert!(frames <= bytes.len() / 16 + 1);
        let _ = Pending::new(0, 3).feed(&bytes, |_, _| ());
        let _ = Dump::new(0).feed(&bytes, |_| ());
    }

    #[test]
    fn random_bodies(
        kind in prop_oneof![Just(ERROR), Just(DONE), proptest::sample::select(OBJECTS.map(|(kind, _)| kind).to_vec())],
        flags in prop_oneof![Just(0), Just(CAPPED | TLVS), Just(TLVS)],
        family in prop_oneof![Just(0), Just(libc::AF_INET as u8), Just(libc::AF_INET6 as u8), any::<u8>()],
        header in vec(any::<u8>(), 1..24),
        attributes in vec((0..64_u16, vec(any::<u8>(), 0..24), -6..6_i16), 0..6),
    ) {
        let mut body = header;
        body[0] = family;
        for (kind, payload, lie) in attributes {
            let start = body.len();
            body.extend(attribute(kind, &payload));
            // lengths that are a little wrong, about half of them
            let length = (4 + payload.len() as u16).saturating_add_signed(lie.max(0));
            body[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        }
        let bytes = message(kind, flags, 0, &body);
        let frame = only_frame(&bytes).expect("whole");
        let _ = parse_as_everything(&frame);
        let _ = wire::error_verdict(&frame);
        let _ = wire::done_verdict(&frame);
        let _ = Pending::new(0, 1).feed(&bytes, |_, _| ());
        let _ = Dump::new(0).feed(&bytes, |_| ());
    }
}
