//! Reads the bytes of one segment: record after record, and where that ends, why.
//!
//! What cannot be read is one of two things. If records of a later group follow, it was whole once,
//! since that group was written only after everything before it was synced: it is damaged. If none
//! follow, it is a write that a crash cut off and that nobody was told of: it is torn, and may go.
//! A record of an event cannot be imitated by what somebody publishes: texts are UTF-8 without control
//! characters, and a sequence has zeros.

use super::record::{self, Fault, Record};
use super::segment::{self, Head};

/// How far the sequence of a record may be ahead of one that is missing.
const NEAR: u64 = 1 << 40;

/// A segment's bytes and how far they have been read.
#[derive(Debug)]
pub struct Scan<'a> {
    bytes: &'a [u8],
    offset: usize,
    /// The sequence that the next record has to have.
    next: u64,
    /// Where the next segment begins, if there is one: what stands here with such a sequence or a
    /// higher one was given up by the writer and does not count.
    until: Option<u64>,
    head: Head,
    is_head_told: bool,
}

/// What was found next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Record {
        offset: usize,
        record: Record<'a>,
    },
    /// The records from `lost` up to `next` cannot be read, though they were whole once. The scan
    /// goes on behind them.
    Damage {
        offset: usize,
        /// Where it goes on.
        end: usize,
        lost: u64,
        next: u64,
    },
    /// A newer version wrote this, so nothing behind it can be told.
    Foreign {
        offset: usize,
    },
    /// A write that was cut off.
    Torn {
        offset: usize,
    },
    /// What counts of the segment is read; it ends at `offset`.
    End {
        offset: usize,
    },
}

impl<'a> Scan<'a> {
    pub fn new(bytes: &'a [u8], first: u64, until: Option<u64>) -> Scan<'a> {
        let head = Head::read(bytes, first);
        Scan {
            bytes,
            offset: segment::HEAD_BYTES.min(bytes.len()),
            next: first,
            until,
            head,
            is_head_told: head == Head::Good,
        }
    }

    /// The sequence that comes after what was read.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// What comes next. After `Foreign`, `Torn` or `End` nothing does.
    pub fn find(&mut self) -> Found<'a> {
        if !std::mem::replace(&mut self.is_head_told, true) {
            return self.bad_head();
        }
        let offset = self.offset;
        if self.until.is_some_and(|until| self.next >= until) {
            return Found::End { offset };
        }
        let rest = &self.bytes[offset..];
        match Record::decode(rest) {
            Ok((record, length)) if record.sequence == self.next => {
                self.offset += length;
                self.next = record.next();
                Found::Record { offset, record }
            }
            Err(Fault::Unknown) => Found::Foreign { offset },
            Err(Fault::Short) if rest.is_empty() && self.until.is_none() => Found::End { offset },
            Ok(_) | Err(Fault::Short | Fault::Checksum) => self.gone(offset),
        }
    }

    fn bad_head(&mut self) -> Found<'a> {
        if let Head::Foreign { .. } = self.head {
            return Found::Foreign { offset: 0 };
        }
        // A head is synced before the first record is written.
        match self.later_record(self.offset, self.next, 0) {
            Some((end, next)) => {
                let lost = std::mem::replace(&mut self.next, next);
                self.offset = end;
                Found::Damage {
                    offset: 0,
                    end,
                    lost,
                    next,
                }
            }
            None if self.until == Some(self.next) => Found::End { offset: 0 },
            None => self.gone(0),
        }
    }

    /// Nothing that can be read stands at `offset`, where there should be something or nothing.
    fn gone(&mut self, offset: usize) -> Found<'a> {
        let later = self.later_record(offset, self.next, 1);
        let (end, next) = match (later, self.until) {
            (Some(later), _) => later,
            (None, Some(until)) => (self.bytes.len(), until),
            (None, None) => return Found::Torn { offset },
        };
        let lost = std::mem::replace(&mut self.next, next);
        self.offset = end;
        Found::Damage {
            offset,
            end,
            lost,
            next,
        }
    }

    /// The first whole record from `from` on that proves that the one with sequence `missing` was
    /// synced once, by a group that begins at least so many behind it; and where reading goes on,
    /// which may be at an earlier one of the same group as the missing one.
    fn later_record(&self, from: usize, missing: u64, behind: u64) -> Option<(usize, u64)> {
        let mut first_whole = None;
        let mut at = from;
        while let Some(head) = record::Head::read(&self.bytes[at..]) {
            // So a checksum is computed of one in a million places at most, whatever stands there.
            let is_near = head.sequence >= missing
                && head.sequence - missing < NEAR
                && self.until.is_none_or(|until| head.sequence < until);
            let decoded = match is_near {
                true => Record::decode(&self.bytes[at..]).ok(),
                false => None,
            };
            let Some((record, length)) = decoded else {
                at += 1;
                continue;
            };
            let place = *first_whole.get_or_insert((at, record.sequence));
            let is_proof = self.until.is_some() || record.group() >= missing + behind;
            if is_proof {
                return Some(place);
            }
            at += length;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::journal::record::{Content, Entry};
    use crate::hub::letter::Origin;
    use proptest::prelude::*;

    /// A segment of groups of so many records, and where each record begins; the end comes last.
    fn segment(first: u64, groups: &[u32]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = segment::encode_head(first);
        let (mut sequence, mut offsets) = (first, vec![bytes.len()]);
        for records in groups {
            for place in 0..*records {
                let data = "7".repeat((sequence % 40) as usize);
                let content = Content::Event(Entry {
                    app_id: "1",
                    channel: "room",
                    epoch: 5,
                    serial: sequence,
                    time_ms: 9,
                    origin: Origin::Api,
                    name: "\"said\"",
                    data: &data,
                    user_id: "",
                    idempotency_key: "",
                });
                let record = Record {
                    sequence,
                    place,
                    content,
                };
                record.encode(&mut bytes);
                offsets.push(bytes.len());
                sequence += 1;
            }
        }
        (bytes, offsets)
    }

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Read {
        sequences: Vec<u64>,
        damages: Vec<(usize, u64, u64)>,
        torn: Option<usize>,
    }

    fn read(bytes: &[u8], first: u64, until: Option<u64>) -> Read {
        let mut read = Read::default();
        let mut scan = Scan::new(bytes, first, until);
        loop {
            match scan.find() {
                Found::Record { record, .. } => read.sequences.push(record.sequence),
                Found::Damage {
                    offset,
                    end,
                    lost,
                    next,
                } => {
                    assert!(offset <= end && lost <= next);
                    read.damages.push((offset, lost, next));
                }
                Found::Torn { offset } => {
                    read.torn = Some(offset);
                    return read;
                }
                Found::End { .. } => return read,
                Found::Foreign { offset } => panic!("foreign at {offset}"),
            }
        }
    }

    /// Fails if the last record is believed without its checksum, or the ones before are given up.
    #[test]
    fn a_journal_cut_at_every_byte_of_its_last_record_has_all_before_it() {
        for groups in [&[3, 1][..], &[1, 3], &[1]] {
            let (bytes, offsets) = segment(1, groups);
            let last = offsets.len() - 2;
            let before: Vec<u64> = (1..=last as u64).collect();
            for cut in offsets[last]..bytes.len() {
                let read = read(&bytes[..cut], 1, None);
                assert_eq!(read.sequences, before, "cut at {cut}");
                let is_whole = cut == offsets[last];
                assert_eq!(read.torn, (!is_whole).then_some(offsets[last]));
                assert_eq!(read.damages, []);
                // A crash may also leave a file's length and not what was written.
                let mut zeros = bytes[..cut].to_vec();
                zeros.resize(bytes.len(), 0);
                let read = self::read(&zeros, 1, None);
                assert_eq!(
                    (read.sequences, read.torn),
                    (before.clone(), Some(offsets[last]))
                );
            }
        }
    }

    #[test]
    fn a_head_that_is_cut_is_a_segment_that_never_was_and_one_that_is_changed_is_damage() {
        let (bytes, _) = segment(4, &[2, 1]);
        for cut in 0..segment::HEAD_BYTES {
            assert_eq!(read(&bytes[..cut], 4, None).torn, Some(0));
        }
        let mut changed = bytes.clone();
        changed[3] ^= 1;
        let read = read(&changed, 4, None);
        assert_eq!(read.sequences, [4, 5, 6]);
        assert_eq!(read.damages, [(0, 4, 4)]);
    }

    #[test]
    fn what_the_writer_gave_up_does_not_count_and_what_is_missing_does() {
        let (bytes, offsets) = segment(1, &[2, 2]);
        assert_eq!(read(&bytes, 1, Some(3)).sequences, [1, 2]);
        assert_eq!(read(&bytes[..bytes.len() - 1], 1, Some(4)).damages, []);
        let short = read(&bytes[..offsets[3]], 1, Some(5));
        assert_eq!(short.sequences, [1, 2, 3]);
        assert_eq!(
            (short.damages, short.torn),
            (vec![(offsets[3], 4, 5)], None)
        );
    }

    #[test]
    fn a_record_with_a_wrong_sequence_is_no_successor() {
        let (mut bytes, offsets) = segment(1, &[1, 1, 1]);
        bytes.drain(offsets[1]..offsets[2]);
        let read = read(&bytes, 1, None);
        assert_eq!(
            (read.sequences, read.damages),
            (vec![1, 3], vec![(offsets[1], 2, 3)])
        );
    }

    proptest! {
        /// Changed bytes lose the records they lie in and no other, are told unless they lie in the
        /// last group, and never lead to a record that was not written.
        #[test]
        fn damage_is_told_with_its_place(
            groups in prop::collection::vec(1..4_u32, 1..6),
            place in any::<prop::sample::Index>(),
            length in 1..80_usize,
            change in 1..=255_u8,
            has_next in any::<bool>(),
        ) {
            let (bytes, offsets) = segment(1, &groups);
            let start = place.index(bytes.len() - segment::HEAD_BYTES) + segment::HEAD_BYTES;
            let end = (start + length).min(bytes.len());
            let mut changed = bytes.clone();
            for byte in &mut changed[start..end] {
                *byte ^= change;
            }
            let count = offsets.len() as u64 - 1;
            let hit = |sequence: u64| {
                let (from, to) = (offsets[sequence as usize - 1], offsets[sequence as usize]);
                from < end && start < to
            };
            let until = has_next.then_some(count + 1);
            let read = read(&changed, 1, until);
            let group_of = |sequence: u64| {
                let mut first = 1;
                let starts = groups.iter().map(|records| {
                    first += u64::from(*records);
                    first
                });
                1 + starts.take_while(|start| *start <= sequence).last().map_or(0, |start| start - 1)
            };
            let mut expected = Read::default();
            let mut sequence = 1;
            while sequence <= count {
                if !hit(sequence) {
                    expected.sequences.push(sequence);
                    sequence += 1;
                    continue;
                }
                let offset = offsets[sequence as usize - 1];
                let mut whole = (sequence..=count).filter(|later| !hit(*later));
                let is_proved = whole.clone().any(|later| group_of(later) > sequence);
                if !is_proved && !has_next {
                    expected.torn = Some(offset);
                    break;
                }
                let next = whole.next().unwrap_or(count + 1);
                expected.damages.push((offset, sequence, next));
                sequence = next;
            }
            prop_assert_eq!(read, expected);
        }
    }
}
