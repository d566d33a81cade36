//! The ring buffer end to end, with a small program as its producer (tests/bpf/ring.bpf.c).

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::Duration;

use libbpf_rs::{MapCore, Object, ObjectBuilder, ProgramInput};
use podwire::maps::{MapSpec, RingBuffer};

const SIZE: u32 = 4096;
/// Bytes of the packet in front of the payload.
const ETH_HLEN: usize = 14;

struct Producer {
    object: Object,
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Written,
    Discarded,
    NoRoom,
}

impl Producer {
    fn new() -> Self {
        let image = include_bytes!(concat!(env!("OUT_DIR"), "/ring.bpf.o"));
        let object = ObjectBuilder::default().open_memory(image).expect("a valid object");
        Self { object: object.load().expect("tests run as root") }
    }

    fn ring(&self) -> RingBuffer {
        let map = self.object.maps().find(|map| map.name() == "ring_records").expect("the object has it");
        let fd = map.as_fd().try_clone_to_owned().expect("descriptors are left");
        RingBuffer::from_fd(fd, &MapSpec::ring_buffer("ring_records", SIZE)).expect("as specified")
    }

    /// Writes a record of `len` bytes, the payload's all `fill`.
    fn write(&mut self, len: usize, fill: u8) -> Outcome {
        let program =
            self.object.progs_mut().find(|program| program.name() == "ring_write").expect("the object has it");
        let input = ProgramInput { data_in: Some(&record(len, fill)), ..Default::default() };
        match program.test_run(input).expect("the program runs").return_value {
            0 => Outcome::Written,
            1 => Outcome::Discarded,
            _ => Outcome::NoRoom,
        }
    }
}

fn record(len: usize, fill: u8) -> Vec<u8> {
    // The kernel classifies a test packet by its first bytes: an experimental EtherType.
    let mut packet = vec![fill; len];
    packet[..ETH_HLEN].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
    packet
}

#[test]
fn records_come_in_order_and_whole() {
    let mut producer = Producer::new();
    let mut ring = producer.ring();
    assert!(!ring.wait(Some(Duration::ZERO)).expect("pollable"));
    for (len, fill) in [(15, 1), (64, 2), (77, 3)] {
        assert_eq!(producer.write(len, fill), Outcome::Written);
    }
    assert!(ring.wait(Some(Duration::from_secs(5))).expect("pollable"), "records wait");
    assert!(ring.pending_bytes() >= 15 + 64 + 77 + 3 * 8);
    let mut records = Vec::new();
    assert_eq!(ring.consume(|bytes| records.push(bytes.to_vec())), 3);
    assert_eq!(records, [record(15, 1), record(64, 2), record(77, 3)]);
    assert_eq!((ring.pending_bytes(), ring.consume(|_| ())), (0, 0));
    assert!(!ring.wait(Some(Duration::ZERO)).expect("pollable"));
}

#[test]
fn discarded_records_are_passed_over() {
    let mut producer = Producer::new();
    let mut ring = producer.ring();
    assert_eq!(producer.write(20, 1), Outcome::Written);
    assert_eq!(producer.write(20, 0xff), Outcome::Discarded);
    assert_eq!(producer.write(20, 2), Outcome::Written);
    let mut records = Vec::new();
    assert_eq!(ring.consume(|bytes| records.push(bytes[ETH_HLEN])), 2);
    assert_eq!((records, ring.pending_bytes()), (vec![1, 2], 0));
}

#[test]
fn a_reader_that_breaks_off_goes_on_with_the_next_record() {
    let mut producer = Producer::new();
    let mut ring = producer.ring();
    for fill in 1..=3 {
        assert_eq!(producer.write(40, fill), Outcome::Written);
    }
    assert_eq!(ring.consume_while(|_| ControlFlow::Break(())), 1);
    let mut records = Vec::new();
    assert_eq!(ring.consume(|bytes| records.push(bytes[ETH_HLEN])), 2);
    assert_eq!(records, [2, 3]);
}

#[test]
fn records_that_wrap_around_the_end_are_whole() {
    let mut producer = Producer::new();
    let mut ring = producer.ring();
    // Odd lengths, over twenty times the ring's size in all, three records at a time.
    for round in 0..50u8 {
        let expected: Vec<Vec<u8>> =
            (0..3).map(|n| record(400 + usize::from(round) * 3 + n, (round * 3 + n as u8) % 0xff)).collect();
        for record in &expected {
            assert_eq!(producer.write(record.len(), record[ETH_HLEN]), Outcome::Written);
        }
        let mut records = Vec::new();
        ring.consume(|bytes| records.push(bytes.to_vec()));
        assert!(records == expected, "round {round}");
    }
}

#[test]
fn consuming_makes_room() {
    let mut producer = Producer::new();
    let mut ring = producer.ring();
    let written = (0..100).take_while(|_| producer.write(1000, 1) == Outcome::Written).count();
    // 4096 bytes hold four records of 1008.
    assert_eq!(written, 4);
    assert_eq!(producer.write(1000, 1), Outcome::NoRoom);
    assert_eq!(ring.consume(|_| ()), 4);
    assert_eq!(producer.write(1000, 1), Outcome::Written);
}

#[test]
fn a_reader_ends_though_more_is_written_meanwhile() {
    let mut producer = Producer::new();
    let mut ring = producer.ring();
    assert_eq!((producer.write(100, 1), producer.write(100, 1)), (Outcome::Written, Outcome::Written));
    let seen = ring.consume_while(|_| {
        assert_eq!(producer.write(100, 2), Outcome::Written, "the record before has made room");
        ControlFlow::Continue(())
    });
    assert_eq!((seen, ring.consume(|bytes| assert_eq!(bytes[ETH_HLEN], 2))), (2, 2));
}
