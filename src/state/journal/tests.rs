use std::fs;

use super::*;
use crate::ErrorKind;

type Strings = Journal<String>;

fn open(path: &Path) -> (Strings, Replay<String>) {
    Journal::open(path).expect("opens")
}

/// A journal with these units of records, and the offset at which each unit ends.
fn journal_of(path: &Path, units: &[&[&str]]) -> Vec<(u64, usize)> {
    let (mut journal, _) = open(path);
    let mut ends = vec![(journal.size(), 0)];
    for unit in units {
        let records: Vec<_> = unit.iter().map(|&record| record.to_owned()).collect();
        journal.append(&records).expect("appended");
        ends.push((journal.size(), journal.records()));
    }
    ends
}

const UNITS: &[&[&str]] = &[&["one"], &["two", "three", "with\nnewline and ü"], &["four"], &[""]];

#[test]
fn records_survive_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    journal_of(&path, UNITS);
    let (journal, replay) = open(&path);
    assert_eq!(replay.records, UNITS.concat());
    assert_eq!(replay.torn, None);
    assert_eq!(journal.records(), 6);
    assert_eq!(journal.size(), fs::metadata(&path).expect("there").len());
}

/// A crash at every byte: what was appended whole is there, what was not is gone, and the journal goes on from there.
#[test]
fn every_prefix_loads_its_whole_units() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    let ends = journal_of(&path, UNITS);
    let whole = fs::read(&path).expect("readable");
    for length in 0..=whole.len() {
        fs::write(&path, &whole[..length]).expect("cut");
        let (mut journal, replay) = open(&path);
        let (end, count) = ends.iter().rev().find(|(end, _)| *end <= length as u64).copied().unwrap_or((0, 0));
        assert_eq!(replay.records, UNITS.concat()[..count], "cut at {length}");
        assert_eq!(replay.torn.map(|torn| (torn.offset, torn.bytes)).unwrap_or((end, 0)), (end, length as u64 - end));

        journal.append(&["afterwards".to_owned()]).expect("appended");
        drop(journal);
        let (_, replay) = open(&path);
        assert_eq!(replay.records.len(), count + 1, "cut at {length}");
        assert_eq!(replay.records.last().map(String::as_str), Some("afterwards"));
        assert_eq!(replay.torn, None);
    }
}

/// Some file systems leave zeroes, or parts of the blocks, where a write was under way.
#[test]
fn a_garbled_last_unit_is_cut_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    let ends = journal_of(&path, UNITS);
    let whole = fs::read(&path).expect("readable");
    let last = ends[ends.len() - 2].0 as usize;
    for start in last..whole.len() {
        let mut garbled = whole.clone();
        garbled[start..].fill(0);
        fs::write(&path, &garbled).expect("garbled");
        let (_, replay) = open(&path);
        assert_eq!(replay.records.len(), 5, "zeroes from {start}");
        assert_eq!(replay.torn.map(|torn| torn.offset), Some(last as u64));
    }
}

/// Every bit flipped before the last unit is found, and named by file and offset; the file is not touched.
#[test]
fn damage_in_the_middle_is_reported() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    let ends = journal_of(&path, UNITS);
    let whole = fs::read(&path).expect("readable");
    let last = ends[ends.len() - 2].0 as usize;
    for byte in 0..last {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1 << bit;
            fs::write(&path, &damaged).expect("damaged");
            let error = Strings::open(&path).expect_err("damaged");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {byte} bit {bit}");
            let text = error.to_string();
            assert!(text.contains(&path.display().to_string()), "{text}");
            if byte >= frame::HEADER.len() {
                let unit = ends.iter().rev().find(|(end, _)| *end <= byte as u64).expect("the header ends first").0;
                assert!(text.contains(&format!("offset {unit}")), "byte {byte}: {text}");
            }
            assert_eq!(fs::read(&path).expect("readable"), damaged);
        }
    }
}

#[test]
fn a_record_of_another_form_is_corrupt() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    journal_of(&path, UNITS);
    let error = Journal::<u32>::open(&path).expect_err("strings are no numbers");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("offset 12"), "{error}");
}

#[test]
fn rewriting_keeps_what_is_given_and_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    let (mut journal, _) = open(&path);
    let many: Vec<_> = (0..10_000).map(|number| number.to_string()).collect();
    journal.append(&many).expect("appended");
    assert!(journal.is_mostly_garbage(2_000));
    assert!(!journal.is_mostly_garbage(3_000));
    let before = journal.size();
    journal.rewrite(&many[..5_000]).expect("rewritten");
    assert!(journal.size() < before);
    journal.append(&["more".to_owned()]).expect("appended");
    assert_eq!(journal.records(), 5_001);
    drop(journal);
    let (_, replay) = open(&path);
    assert_eq!(replay.records[..5_000], many[..5_000]);
    assert_eq!(replay.records[5_000], "more");
    assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 1, "nothing is left aside");
}

/// The old journal stays whole and in use when there is no way to write a new one.
#[test]
fn a_failed_rewrite_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    let (mut journal, _) = open(&path);
    journal.append(&["kept".to_owned()]).expect("appended");
    // a directory where the file aside should be
    fs::create_dir(dir.path().join(".journal.podwire-tmp")).expect("in the way");
    let error = journal.rewrite(&[]).expect_err("no file can be made");
    assert_eq!(error.errno(), Some(libc::EISDIR), "{error}");
    journal.append(&["also kept".to_owned()]).expect("appended");
    drop(journal);
    assert_eq!(open(&path).1.records, ["kept", "also kept"]);
}

#[test]
fn a_journal_in_doubt_takes_no_more_until_it_is_rewritten() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    let (mut journal, _) = open(&path);
    journal.append(&["kept".to_owned()]).expect("appended");
    // a descriptor that can't be written to stands for a disk that fails
    let good = std::mem::replace(&mut journal.file, File::open(&path).expect("opens for reading"));
    let error = journal.append(&["lost".to_owned()]).expect_err("not writable");
    assert_eq!(error.errno(), Some(libc::EBADF), "{error}");
    journal.file = good;
    let error = journal.append(&["refused".to_owned()]).expect_err("in doubt");
    assert_eq!(error.kind(), ErrorKind::WrongState);
    journal.rewrite(&["kept".to_owned()]).expect("rewritten");
    journal.append(&["taken".to_owned()]).expect("appended");
    drop(journal);
    assert_eq!(open(&path).1.records, ["kept", "taken"]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Whatever is in the file: it opens, or it is reported and left as it is.
    #[test]
    fn any_bytes_are_survived(
        edits in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), 0_u8..), 0..12),
        tail in proptest::collection::vec(0_u8.., 0..40),
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal");
        journal_of(&path, UNITS);
        let mut bytes = fs::read(&path).expect("readable");
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend(tail);
        fs::write(&path, &bytes).expect("garbled");
        match Strings::open(&path) {
            Ok((_, replay)) => proptest::prop_assert!(UNITS.concat().iter().zip(&replay.records).all(|(was, is)| was == is)),
            Err(error) => {
                proptest::prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
                proptest::prop_assert_eq!(fs::read(&path).expect("readable"), bytes);
            }
        }
    }
}
