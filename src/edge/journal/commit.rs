//! Decides what is written when: groups of records, the segments they go to, and who is told.
//!
//! ```text
//! idle      -- something waits, and the time for it has come --> writing
//! writing   -- synced --> idle                everybody in the group is told
//! writing   -- failed --> broken              everybody in the group or behind it is told
//! broken    -- an append, before the time --> broken    told at once
//! broken    -- an append, JOURNAL_RETRY_MS later --> writing, in a new segment
//! ```
//!
//! It knows neither file nor clock; [`super::writer`] carries out what it says.
//!
//! Invariants:
//! - At most one group is being written, and the next gathers behind it.
//! - A sequence is given again only if the record that had it was never confirmed.
//! - What waits is bounded by what shards may have waiting.

use std::io;

use super::ledger::{Keep, Ledger, Note};
use super::record::{Content, Entry, Record};
use super::segment;
use crate::base::limits;
use crate::hub::durable::{Append, Written};

/// How a journal is written.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub segment_bytes_max: u64,
    /// The least time from the beginning of one write to that of the next.
    pub gather_ms: u64,
}

#[derive(Debug)]
pub struct Commit {
    pace: Pace,
    /// The sequence of the first record that gathers, if none is being written, or of the first
    /// that is being written.
    confirmed: u64,
    gathering: Group,
    writing: Option<Writing>,
    /// A group's buffer, to be used again.
    spare: Vec<u8>,
    segment: Option<Active>,
    /// The last write failed.
    broken: Option<Broken>,
    /// By shard, the last round that failed.
    failed_rounds: Vec<Option<u32>>,
    ledger: Ledger,
    last_write_ms: u64,
}

/// The segment that is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    pub first: u64,
    /// Up to here everything is confirmed.
    pub length: u64,
}

#[derive(Debug)]
struct Broken {
    retry_ms: u64,
}

/// Records that are written together.
#[derive(Debug, Default)]
struct Group {
    bytes: Vec<u8>,
    records: u32,
    /// By shard, the last ticket and its round.
    tickets: Vec<Option<(u64, u32)>>,
    notes: Vec<Note>,
}

#[derive(Debug)]
struct Writing {
    records: u32,
    bytes: u64,
    tickets: Vec<Option<(u64, u32)>>,
    notes: Vec<Note>,
    active: Active,
}

/// Something to be written and synced.
#[derive(Debug, PartialEq, Eq)]
pub struct Write {
    /// Where it goes: the segment by its first sequence, and the offset.
    pub first: u64,
    pub offset: u64,
    /// The segment is made for it, whatever stands under its name.
    pub is_new: bool,
    pub bytes: Vec<u8>,
}

/// A shard is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub shard: u16,
    pub written: Written,
}

/// What an append comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Waits,
    /// It belongs to a round that has failed already.
    Late,
    /// Nothing can be written now.
    Refused(Told),
}

impl Commit {
    /// Goes on behind what was recovered, whose events were noted in the ledger.
    pub fn new(
        pace: Pace,
        shards: u16,
        next: u64,
        segment: Option<Active>,
        ledger: Ledger,
    ) -> Commit {
        let shards = usize::from(shards);
        Commit {
            pace,
            confirmed: next,
            gathering: Group::new(shards),
            writing: None,
            spare: Vec::new(),
            segment,
            broken: None,
            failed_rounds: vec![None; shards],
            ledger,
            last_write_ms: 0,
        }
    }

    /// An event is to be written. `time_ms` counts from 1970, `now_ms` from any moment.
    pub fn append(
        &mut self,
        shard: u16,
        append: &Append,
        app_id: &str,
        time_ms: u64,
        now_ms: u64,
    ) -> Taken {
        let place = usize::from(shard);
        if self.failed_rounds[place].is_some_and(|failed| append.round <= failed) {
            return Taken::Late;
        }
        let is_barred = self
            .broken
            .as_ref()
            .is_some_and(|broken| now_ms < broken.retry_ms);
        if is_barred {
            return Taken::Refused(self.fail(shard, append.round));
        }
        let content = Content::Event(Entry {
            app_id,
            channel: &append.channel,
            epoch: append.epoch,
            serial: append.serial,
            time_ms,
            origin: append.origin,
            name: &append.name,
            data: &append.data,
            user_id: &append.user_id,
            idempotency_key: &append.idempotency_key,
        });
        self.gather(content);
        self.gathering.tickets[place] = Some((append.ticket, append.round));
        self.gathering.notes.push(Note {
            channel: self.ledger.channel(app_id, &append.channel),
            bytes: (append.name.len() + append.data.len()) as u64,
            time_ms,
            has_key: !append.idempotency_key.is_empty(),
        });
        Taken::Waits
    }

    /// The server ends: says so behind everything else. Nobody is told when that is written.
    pub fn end(&mut self) {
        if self.broken.is_none() {
            self.gather(Content::End);
        }
    }

    /// What is to be written now, if anything is. It is to be settled.
    pub fn next_write(&mut self, now_ms: u64) -> Option<Write> {
        if self.next_ms().is_none_or(|next_ms| now_ms < next_ms) {
            return None;
        }
        self.last_write_ms = now_ms;
        let spare = std::mem::take(&mut self.spare);
        let shards = self.failed_rounds.len();
        let Group {
            bytes,
            records,
            tickets,
            notes,
        } = std::mem::replace(&mut self.gathering, Group::with(spare, shards));
        let length = bytes.len() as u64;
        let room = |active: &Active| {
            let is_begun = active.length > segment::HEAD_BYTES as u64;
            !is_begun || active.length + length <= self.pace.segment_bytes_max
        };
        let kept = self
            .segment
            .filter(|active| self.broken.is_none() && room(active));
        let active = kept.unwrap_or(Active {
            first: self.confirmed,
            length: segment::HEAD_BYTES as u64,
        });
        self.writing = Some(Writing {
            records,
            bytes: length,
            tickets,
            notes,
            active,
        });
        Some(Write {
            first: active.first,
            offset: active.length,
            is_new: kept.is_none(),
            bytes,
        })
    }

    /// The next write goes to a new segment.
    #[cfg(test)]
    pub fn begin_segment(&mut self) {
        self.segment = None;
    }

    /// When something is to be written that waits.
    pub fn next_ms(&self) -> Option<u64> {
        let waits = self.writing.is_none() && self.gathering.records > 0;
        waits.then_some(self.last_write_ms + self.pace.gather_ms)
    }

    /// A write has been synced, or not; `told` gets who is to know.
    pub fn settle(
        &mut self,
        result: &io::Result<()>,
        mut bytes: Vec<u8>,
        now_ms: u64,
        told: &mut Vec<Told>,
    ) {
        let writing = self
            .writing
            .take()
            .expect("only what is written is settled");
        if bytes.capacity() <= limits::JOURNAL_SPARE_BYTES_MAX {
            bytes.clear();
            self.spare = bytes;
        }
        match result {
            Ok(()) => self.confirm(writing, told),
            Err(_) => self.give_up(writing, now_ms, told),
        }
    }

    /// Nothing waits, and nothing is being written.
    pub fn is_idle(&self) -> bool {
        self.writing.is_none() && self.gathering.records == 0
    }

    /// Events that are being written.
    pub fn events_writing(&self) -> u64 {
        self.writing
            .as_ref()
            .map_or(0, |writing| writing.notes.len() as u64)
    }

    pub fn segments(&self) -> usize {
        self.ledger.segments()
    }

    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// The oldest segment, if nobody needs it any more.
    pub fn expired(&self, time_ms: u64, keep: impl Fn(&str, &str) -> Keep) -> Option<u64> {
        self.ledger.expired(time_ms, keep)
    }

    /// That segment is removed.
    pub fn forget_oldest(&mut self) {
        self.ledger.forget_oldest();
    }

    fn gather(&mut self, content: Content<'_>) {
        let before = self.writing.as_ref().map_or(0, |writing| writing.records);
        let place = self.gathering.records;
        let record = Record {
            sequence: self.confirmed + u64::from(before) + u64::from(place),
            place,
            content,
        };
        record.encode(&mut self.gathering.bytes);
        self.gathering.records += 1;
    }

    fn confirm(&mut self, writing: Writing, told: &mut Vec<Told>) {
        self.confirmed += u64::from(writing.records);
        let Active { first, length } = writing.active;
        self.segment = Some(Active {
            first,
            length: length + writing.bytes,
        });
        self.broken = None;
        self.ledger.begin(first);
        for note in writing.notes {
            self.ledger.note(note);
        }
        for (shard, ticket) in (0..).zip(writing.tickets) {
            told.extend(ticket.map(|(ticket, _)| Told {
                shard,
                written: Written::Synced { ticket },
            }));
        }
    }

    /// What was being written may be on the disk in part, and what gathers would follow it.
    fn give_up(&mut self, writing: Writing, now_ms: u64, told: &mut Vec<Told>) {
        self.broken = Some(Broken {
            retry_ms: now_ms + limits::JOURNAL_RETRY_MS,
        });
        let shards = self.failed_rounds.len();
        let gathered = std::mem::replace(&mut self.gathering, Group::new(shards));
        for note in writing.notes.iter().chain(&gathered.notes) {
            self.ledger.release(note.channel);
        }
        let tickets = writing.tickets.iter().zip(&gathered.tickets);
        for (shard, (written, gathered)) in (0..).zip(tickets) {
            if let Some((_, round)) = gathered.or(*written) {
                told.push(self.fail(shard, round));
            }
        }
    }

    fn fail(&mut self, shard: u16, round: u32) -> Told {
        self.failed_rounds[usize::from(shard)] = Some(round);
        Told {
            shard,
            written: Written::Failed { round },
        }
    }
}

impl Group {
    fn new(shards: usize) -> Group {
        Group::with(Vec::new(), shards)
    }

    fn with(bytes: Vec<u8>, shards: usize) -> Group {
        Group {
            bytes,
            tickets: vec![None; shards],
            ..Group::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::edge::journal::scan::{Found, Scan};
    use crate::hub::letter::Origin;

    #[derive(Clone, Debug)]
    enum Step {
        Append {
            shard: u16,
        },
        Write,
        /// The write succeeds, or fails after so much of it, and the cut after it perhaps too.
        Settle {
            failed_at: Option<(prop::sample::Index, bool)>,
        },
        /// A shard reads what it was told.
        Read {
            shard: u16,
        },
        Pass,
    }

    fn step() -> impl Strategy<Value = Step> {
        let failed = (any::<prop::sample::Index>(), any::<bool>());
        prop_oneof![
            6 => (0..2_u16).prop_map(|shard| Step::Append { shard }),
            3 => Just(Step::Write),
            3 => prop::option::weighted(0.3, failed).prop_map(|failed_at| Step::Settle { failed_at }),
            3 => (0..2_u16).prop_map(|shard| Step::Read { shard }),
            1 => Just(Step::Pass),
        ]
    }

    /// A home of one channel, as a shard keeps it.
    #[derive(Default)]
    struct Home {
        ticket: u64,
        round: u32,
        /// The last serial that is on disk, as far as it knows.
        serial: u64,
        /// Tickets and serials.
        waiting: Vec<(u64, u64)>,
        letters: Vec<Written>,
    }

    impl Home {
        fn read(&mut self) {
            for letter in self.letters.drain(..) {
                match letter {
                    Written::Synced { ticket } => {
                        let synced = self.waiting.iter().take_while(|(at, _)| *at <= ticket);
                        let synced = synced.count();
                        self.serial = self.waiting[synced - 1].1;
                        self.waiting.drain(..synced);
                    }
                    Written::Failed { round } => {
                        assert_eq!(round, self.round);
                        self.round += 1;
                        self.waiting.clear();
                    }
                }
            }
        }
    }

    proptest! {
        /// Against files in memory: what homes were told is on the disk is what is read back, in
        /// order and nothing else, whatever of failed writes is left.
        #[test]
        fn what_was_confirmed_is_what_is_read(steps in prop::collection::vec(step(), 0..200)) {
            let pace = Pace { segment_bytes_max: 400, gather_ms: 0 };
            let mut commit = Commit::new(pace, 2, 1, None, Ledger::default());
            let mut homes = [Home::default(), Home::default()];
            let mut files: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
            let mut write: Option<Write> = None;
            let (mut now_ms, mut told) = (0, Vec::new());
            let finish = [Step::Settle { failed_at: None }, Step::Read { shard: 0 }, Step::Read { shard: 1 },
                Step::Pass, Step::Append { shard: 0 }, Step::Append { shard: 1 }, Step::Write,
                Step::Settle { failed_at: None }, Step::Write, Step::Settle { failed_at: None },
                Step::Read { shard: 0 }, Step::Read { shard: 1 }];
            for step in steps.into_iter().chain(finish) {
                match step {
                    Step::Append { shard } => {
                        let home = &mut homes[usize::from(shard)];
                        home.ticket += 1;
                        let serial = home.waiting.last().map_or(home.serial, |(_, serial)| *serial) + 1;
                        home.waiting.push((home.ticket, serial));
                        let append = Append {
                            ticket: home.ticket,
                            round: home.round,
                            app: 0,
                            origin: Origin::Api,
                            epoch: 1,
                            serial,
                            channel: shard.to_string().into(),
                            name: "".into(),
                            data: "".into(),
                            user_id: "".into(),
                            idempotency_key: "".into(),
                        };
                        if let Taken::Refused(word) = commit.append(shard, &append, "1", 0, now_ms) {
                            told.push(word);
                        }
                    }
                    Step::Write => {
                        if let Some(next) = commit.next_write(now_ms) {
                            prop_assert!(write.is_none());
                            write = Some(next);
                        }
                    }
                    Step::Settle { failed_at } => {
                        let Some(Write { first, offset, is_new, bytes }) = write.take() else { continue };
                        if is_new {
                            files.insert(first, segment::encode_head(first));
                        }
                        let file = files.get_mut(&first).unwrap();
                        prop_assert_eq!(file.len() as u64, offset);
                        let result = match failed_at {
                            None => {
                                file.extend_from_slice(&bytes);
                                Ok(())
                            }
                            Some((at, is_cut)) => {
                                file.extend_from_slice(&bytes[..at.index(bytes.len() + 1)]);
                                if is_cut {
                                    file.truncate(if is_new { 0 } else { offset as usize });
                                }
                                Err(io::ErrorKind::StorageFull.into())
                            }
                        };
                        commit.settle(&result, bytes, now_ms, &mut told);
                    }
                    Step::Read { shard } => homes[usize::from(shard)].read(),
                    Step::Pass => now_ms += limits::JOURNAL_RETRY_MS,
                }
                for Told { shard, written } in told.drain(..) {
                    homes[usize::from(shard)].letters.push(written);
                }
            }
            let mut read = [0; 2];
            let firsts: Vec<u64> = files.keys().copied().collect();
            for (place, first) in firsts.iter().enumerate() {
                let until = firsts.get(place + 1).copied();
                let mut scan = Scan::new(&files[first], *first, until);
                loop {
                    match scan.find() {
                        Found::Record { record, .. } => {
                            let Content::Event(entry) = record.content else { continue };
                            let serial = &mut read[entry.channel.parse::<usize>().unwrap()];
                            prop_assert_eq!(entry.serial, *serial + 1);
                            *serial += 1;
                        }
                        Found::End { .. } => break,
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
            }
            prop_assert!(commit.is_idle());
            prop_assert_eq!(read, [homes[0].serial, homes[1].serial]);
            prop_assert!(homes.iter().all(|home| home.waiting.is_empty()));
        }
    }
}
