//! Whole journals on a disk: recovered, cut, damaged, looked at and repaired.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::record::{Content, Entry, Record};
use super::recovery::{self, Recovered, Step, Torn};
use super::{JournalError, inspect, repair, segment};
use crate::hub::letter::Origin;

/// Channel and serial, in epoch 1.
type Told = (&'static str, u64);

fn entry((channel, serial): Told) -> Entry<'static> {
    Entry {
        app_id: "1",
        channel,
        epoch: 1,
        serial,
        time_ms: 1000,
        origin: Origin::Api,
        name: r#""said""#,
        data: r#""{\"a\":1}""#,
        user_id: "",
        idempotency_key: "",
    }
}

/// One segment for each list of groups. Returns where the records begin, and the end, of each.
fn journal(segments: &[&[&[Told]]]) -> (TempDir, Vec<Vec<usize>>) {
    let directory = tempfile::tempdir().unwrap();
    let (mut sequence, mut offsets) = (1, Vec::new());
    for groups in segments {
        let (first, mut bytes) = (sequence, segment::encode_head(sequence));
        let mut begins = vec![bytes.len()];
        for group in *groups {
            for (place, told) in (0..).zip(*group) {
                let content = Content::Event(entry(*told));
                let record = Record {
                    sequence,
                    place,
                    content,
                };
                record.encode(&mut bytes);
                begins.push(bytes.len());
                sequence += 1;
            }
        }
        fs::write(segment::path(directory.path(), first), bytes).unwrap();
        offsets.push(begins);
    }
    (directory, offsets)
}

/// What a start knows of each channel, and how it goes on.
fn recover(directory: &Path) -> Result<(BTreeMap<String, Vec<u64>>, Recovered), JournalError> {
    let mut channels: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let recovered = recovery::recover(directory, |step| {
        let Step::Event(replayed) = step else { return };
        let serials = channels.entry(replayed.entry.channel.into()).or_default();
        if replayed.is_beginning {
            serials.clear();
        }
        serials.push(replayed.entry.serial);
    })?;
    for (_, channel) in recovered.continuity.uncertain() {
        channels.remove(channel);
    }
    Ok((channels, recovered))
}

fn serials(directory: &Path) -> BTreeMap<String, Vec<u64>> {
    recover(directory).unwrap().0
}

fn verified(directory: &Path) -> (bool, String) {
    let mut out = Vec::new();
    let is_good = inspect::verify(directory, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    (is_good, text.replace(directory.to_str().unwrap(), "D"))
}

fn change(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

const THREE: &[&[&[Told]]] = &[
    &[&[("a", 1), ("b", 1)], &[("a", 2)]],
    &[&[("a", 3), ("c", 1)], &[("b", 2), ("a", 4)]],
    &[&[("a", 5)], &[("a", 6), ("b", 3)]],
];

#[test]
fn a_journal_is_read_as_it_was_written_and_none_is_an_empty_one() {
    let (directory, offsets) = journal(THREE);
    let (channels, recovered) = recover(directory.path()).unwrap();
    assert_eq!(channels["a"], [1, 2, 3, 4, 5, 6]);
    assert_eq!(
        (&*channels["b"], &*channels["c"]),
        (&[1, 2, 3][..], &[1][..])
    );
    assert_eq!((recovered.next, recovered.records), (11, 10));
    let length = *offsets[2].last().unwrap() as u64;
    assert_eq!(
        (recovered.active, recovered.torn),
        (Some((8, length)), None)
    );
    let empty = directory.path().join("new").join("deep");
    let (channels, recovered) = recover(&empty).unwrap();
    assert_eq!(
        (channels.len(), recovered.next, recovered.active),
        (0, 1, None)
    );
}

#[test]
fn a_journal_cut_at_every_byte_of_its_last_record_recovers_all_before_it() {
    for segments in [THREE, &[&[&[("a", 1)]], &[&[("a", 2)]]]] {
        let (directory, offsets) = journal(segments);
        let directory = directory.path();
        let first = segment::list(directory).unwrap().pop().unwrap();
        let path = segment::path(directory, first);
        let whole = fs::read(&path).unwrap();
        let begins = offsets.last().unwrap();
        let last = begins[begins.len() - 2];
        let mut before = BTreeMap::<String, Vec<u64>>::new();
        let told: Vec<Told> = segments.concat().concat();
        for (channel, serial) in &told[..told.len() - 1] {
            before.entry((*channel).into()).or_default().push(*serial);
        }
        for cut in last..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (channels, recovered) = recover(directory).unwrap();
            assert_eq!(channels, before, "cut at {cut}");
            assert_eq!(recovered.next, told.len() as u64);
            assert_eq!(recovered.active, Some((first, last as u64)));
            let torn = (cut > last).then(|| Torn {
                path: path.clone(),
                offset: last as u64,
                bytes: (cut - last) as u64,
            });
            assert_eq!(recovered.torn, torn);
            drop(recovered);
            assert_eq!(fs::metadata(&path).unwrap().len(), last as u64);
        }
        // A segment of which not even the head was written is as good as none.
        for cut in 0..segment::HEAD_BYTES {
            fs::write(&path, &whole[..cut]).unwrap();
            let (_, recovered) = recover(directory).unwrap();
            assert_eq!((recovered.next, recovered.active), (first, None));
        }
    }
}

#[test]
fn damage_is_refused_told_with_its_place_and_repaired_once() {
    let (directory, offsets) = journal(THREE);
    let directory = directory.path();
    let path = segment::path(directory, 4);
    let at = offsets[1][1];
    let whole = fs::read(&path).unwrap();
    change(&path, at + 30);
    let Err(JournalError::Damaged {
        path: told,
        offset,
        what,
        ..
    }) = recover(directory)
    else {
        panic!("damage is used");
    };
    assert_eq!(
        (told, offset, &*what),
        (path.clone(), at as u64, "record 5 cannot be read")
    );
    let (is_good, text) = verified(directory);
    assert!(!is_good);
    let expected = format!("D/00000000000000000004.journal, byte {at}: record 5 cannot be read\n");
    assert!(text.contains(&expected), "{text}");
    assert!(
        text.ends_with("3 segments, 9 records, 2 channels, 1 damaged places\n"),
        "{text}"
    );

    let changed = fs::read(&path).unwrap();
    let done = repair::repair(directory).unwrap();
    assert_eq!(done.len(), 2, "{done:?}");
    let aside = directory.join("00000000000000000004.journal.damaged");
    assert_eq!(fs::read(aside).unwrap(), changed);
    let (is_good, text) = verified(directory);
    assert!(
        is_good && text.contains("repaired: record 5 cannot be read"),
        "{text}"
    );
    // The event of channel c is the one that was lost: it begins anew, and the others go on.
    let channels = serials(directory);
    assert_eq!(channels["a"], [1, 2, 3, 4, 5, 6]);
    assert_eq!(channels["b"], [1, 2, 3]);
    assert_eq!(channels.len(), 2);
    assert_eq!(repair::repair(directory).unwrap(), []);
    assert_ne!(fs::read(&path).unwrap(), whole);
}

#[test]
fn a_channel_that_lost_events_keeps_those_after_them() {
    for offset in [40, 200] {
        let (directory, offsets) = journal(THREE);
        let directory = directory.path();
        let path = segment::path(directory, 4);
        assert!(offset < offsets[1][4]);
        change(&path, offset);
        repair::repair(directory).unwrap();
        let channels = serials(directory);
        let first = channels["a"][0];
        assert_eq!(channels["a"], (first..=6).collect::<Vec<_>>());
        assert_eq!(recover(directory).unwrap().1.next, 11);
    }
}

#[test]
fn every_changed_byte_is_told_and_repaired() {
    let (directory, offsets) = journal(THREE);
    let directory = directory.path();
    for (first, begins, is_last) in [
        (1, &offsets[0], false),
        (4, &offsets[1], false),
        (8, &offsets[2], true),
    ] {
        let path = segment::path(directory, first);
        let whole = fs::read(&path).unwrap();
        // Of the last group nothing says that it was ever whole.
        let end = if is_last { begins[1] } else { whole.len() };
        for offset in 0..end {
            change(&path, offset);
            assert!(recover(directory).is_err(), "{first}: {offset}");
            assert!(!verified(directory).0, "{first}: {offset}");
            // Each repair waits for the disk several times.
            if offset % 13 > 0 {
                change(&path, offset);
                continue;
            }
            assert_eq!(repair::repair(directory).unwrap().len(), 2);
            assert!(verified(directory).0, "{first}: {offset}");
            for (channel, serials) in serials(directory) {
                let last = BTreeMap::from([("a", 6), ("b", 3), ("c", 1)])[&*channel];
                assert_eq!(serials.last(), Some(&last), "{first}: {offset}: {channel}");
                assert!(serials.windows(2).all(|pair| pair[1] == pair[0] + 1));
            }
            fs::write(&path, &whole).unwrap();
            let aside = format!("{}.damaged", path.display());
            fs::remove_file(aside).unwrap();
        }
    }
}

#[test]
fn a_segment_that_is_gone_is_damage_and_can_be_done_without() {
    let (directory, _) = journal(THREE);
    let directory = directory.path();
    fs::remove_file(segment::path(directory, 4)).unwrap();
    assert!(recover(directory).is_err());
    assert_eq!(repair::repair(directory).unwrap().len(), 2);
    let channels = serials(directory);
    assert_eq!((&*channels["a"], &*channels["b"]), (&[5, 6][..], &[3][..]));
}

#[test]
fn a_serial_that_is_missing_among_whole_records_is_damage() {
    let (directory, offsets) = journal(&[&[&[("a", 1)], &[("a", 3)], &[("a", 4)]]]);
    let directory = directory.path();
    let Err(JournalError::Damaged { offset, .. }) = recover(directory) else {
        panic!("a jump is used");
    };
    assert_eq!(offset, offsets[0][1] as u64);
    assert!(!verified(directory).0);
    repair::repair(directory).unwrap();
    assert!(verified(directory).0);
    assert_eq!(serials(directory)["a"], [3, 4]);
}

#[test]
fn what_a_newer_version_wrote_is_left_alone() {
    let (directory, offsets) = journal(THREE);
    let directory = directory.path();
    let path = segment::path(directory, 4);
    let mut bytes = fs::read(&path).unwrap();
    let record = offsets[1][0]..offsets[1][1];
    bytes[record.start + 20] = 200;
    let checksum = crc32c::crc32c(&bytes[record.start..record.start + 4]);
    let checksum = crc32c::crc32c_append(checksum, &bytes[record.start + 8..record.end]);
    bytes[record.start + 4..record.start + 8].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let is_foreign = |result| matches!(result, Err(JournalError::Foreign { .. }));
    assert!(is_foreign(recover(directory).map(|_| ())));
    assert!(is_foreign(repair::repair(directory).map(|_| ())));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_journal_in_use_is_neither_used_nor_repaired_but_can_be_looked_at() {
    let (directory, _) = journal(THREE);
    let directory = directory.path();
    let (_, recovered) = recover(directory).unwrap();
    let is_in_use = |result| matches!(result, Err(JournalError::InUse { .. }));
    assert!(is_in_use(recover(directory).map(|_| ())));
    assert!(is_in_use(repair::repair(directory).map(|_| ())));
    assert!(verified(directory).0);
    drop(recovered);
    assert!(recover(directory).is_ok());
}

#[test]
fn a_dump_is_a_line_of_json_for_each_record() {
    let (directory, _) = journal(&[&[&[("a\"b", 1)], &[("c", 1)]]]);
    let mut out = Vec::new();
    inspect::dump(directory.path(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let first = text.lines().next().unwrap();
    assert_eq!(
        first,
        r#"{"sequence":1,"epoch":1,"serial":1,"time_ms":1000,"origin":"api","app_id":"1","channel":"a\"b","event":"said","data":"{\"a\":1}"}"#
    );
    for line in text.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    assert_eq!(text.lines().count(), 2);
}
