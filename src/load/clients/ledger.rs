//! One client that decodes: are its messages complete, each there once, and in order?

use std::collections::BTreeSet;

use crate::load::orders::Wrong;

/// Numbers remembered as missing, per client; later ones are only counted.
const MISSING_MAX: usize = 100_000;

#[derive(Debug, Default)]
pub struct Ledger {
    pub gaps: u64,
    pub repeated: u64,
    pub reordered: u64,
    expected: u64,
    missing: BTreeSet<u64>,
    missing_beyond: u64,
    last_arrival_ns: u64,
    pub arrival_gap_ns_max: u64,
}

impl Ledger {
    /// Notes one message. What is wrong with it comes back, and the number that should have come.
    pub fn note(&mut self, sequence: u64, now_ns: u64) -> Option<(Wrong, u64)> {
        if self.last_arrival_ns != 0 {
            let gap_ns = now_ns - self.last_arrival_ns;
            self.arrival_gap_ns_max = self.arrival_gap_ns_max.max(gap_ns);
        }
        self.last_arrival_ns = now_ns;
        let expected = self.expected;
        if sequence == expected {
            self.expected += 1;
            return None;
        }
        if sequence > expected {
            self.gaps += 1;
            self.miss(expected, sequence);
            // No run is that long: a stamp that was garbled.
            self.expected = sequence.saturating_add(1);
            return Some((Wrong::Gap, expected));
        }
        if self.missing.remove(&sequence) {
            self.reordered += 1;
            return Some((Wrong::Reorder, expected));
        }
        self.repeated += 1;
        Some((Wrong::Repeat, expected))
    }

    /// Numbers that were left out and have not come since.
    pub fn missing(&self) -> u64 {
        self.missing.len() as u64 + self.missing_beyond
    }

    fn miss(&mut self, from: u64, to: u64) {
        let room = (MISSING_MAX - self.missing.len()) as u64;
        let kept_to = to.min(from.saturating_add(room));
        self.missing.extend(from..kept_to);
        self.missing_beyond = self.missing_beyond.saturating_add(to - kept_to);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::load::dialect::{Dialect, Heard, Mqtt, Nats, Speaker, upgrade};
    use crate::load::stamp::{STAMP_BYTES, Stamp};
    use crate::wire::websocket::{Opcode, encode_frame};

    /// Judges a whole list at once.
    fn naive(sequences: &[u64]) -> (u64, u64, u64, u64) {
        let (mut gaps, mut reordered, mut repeated) = (0, 0, 0);
        for (place, &sequence) in sequences.iter().enumerate() {
            let before = &sequences[..place];
            let next = before.iter().max().map_or(0, |highest| highest + 1);
            if before.contains(&sequence) {
                repeated += 1;
            } else if sequence > next {
                gaps += 1;
            } else if sequence < next {
                reordered += 1;
            }
        }
        let end = sequences.iter().max().map_or(0, |highest| highest + 1);
        let missing = (0..end).filter(|sequence| !sequences.contains(sequence));
        (gaps, missing.count() as u64, reordered, repeated)
    }

    proptest! {
        #[test]
        fn a_ledger_says_what_a_look_at_the_whole_list_says(
            sequences in prop::collection::vec(0_u64..30, 0..60),
        ) {
            let mut ledger = Ledger::default();
            for (now_ns, &sequence) in (1..).zip(&sequences) {
                ledger.note(sequence, now_ns);
            }
            let said = (ledger.gaps, ledger.missing(), ledger.reordered, ledger.repeated);
            prop_assert_eq!(said, naive(&sequences));
        }
    }

    #[test]
    fn evidence_says_what_should_have_come() {
        let mut ledger = Ledger::default();
        let said: Vec<_> = [0, 1, 3, 2, 2, 4]
            .map(|sequence| ledger.note(sequence, 1))
            .into();
        let gap = Some((Wrong::Gap, 2));
        let (late, again) = (Some((Wrong::Reorder, 4)), Some((Wrong::Repeat, 4)));
        assert_eq!(said, [None, None, gap, late, again, None]);
    }

    /// The numbers that a client of a dialect hears, of a server that says these frames after the upgrade.
    fn heard(dialect: &dyn Dialect, frames: &[&[u8]]) -> Vec<u64> {
        let accept = format!("Sec-WebSocket-Accept: {}", upgrade::PROOF);
        let mut wire = format!("HTTP/1.1 101 Switching Protocols\r\n{accept}\r\n\r\n").into_bytes();
        for frame in frames {
            encode_frame(Opcode::Binary, frame, &mut wire);
        }
        let (mut speaker, mut out) = (Speaker::default(), Vec::new());
        dialect.open(&mut speaker, &mut out);
        let (mut sequences, mut rest) = (Vec::new(), wire.as_slice());
        while let Some((length, heard)) = dialect.take(&mut speaker, rest, &mut out).unwrap() {
            let stamp = match &heard {
                Heard::Message(payload) => Stamp::find(payload),
                Heard::Joined(payload) => Stamp::find(payload),
                Heard::Nothing
                | Heard::Greeted
                | Heard::Subscribed
                | Heard::Answered
                | Heard::Goodbye(_) => None,
            };
            sequences.extend(stamp.map(|stamp| stamp.sequence));
            rest = &rest[length..];
        }
        assert!(rest.is_empty(), "all of it is heard");
        sequences
    }

    /// What a dialect's server says before messages, and around the data of one.
    type Saying = (
        Box<dyn Dialect>,
        &'static [&'static [u8]],
        fn(&str) -> Vec<u8>,
    );

    #[test]
    fn what_servers_of_other_dialects_do_wrong_is_noticed() {
        let host = ([127, 0, 0, 1], 80).into();
        let sayings: [Saying; 2] = [
            (
                Box::new(Nats::new("/", host)),
                &[b"INFO {}\r\n", b"PONG\r\n", b"PONG\r\n"],
                |data| format!("MSG room 1 {}\r\n{data}\r\n", data.len()).into_bytes(),
            ),
            (
                Box::new(Mqtt::new("/", host)),
                &[b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x00"],
                |data| {
                    let length = (2 + "room".len() + data.len()) as u8;
                    [&[0x30, length, 0, 4], b"room".as_slice(), data.as_bytes()].concat()
                },
            ),
        ];
        for (dialect, greeting, message) in &sayings {
            for (sequences, expected) in [
                ([0, 1, 2, 3], (0, 0, 0)),
                ([0, 1, 3, 4], (1, 0, 0)),
                ([0, 1, 1, 2], (0, 1, 0)),
                ([0, 2, 1, 3], (0, 0, 1)),
            ] {
                let stamps = sequences.map(|sequence| Stamp {
                    sequence,
                    due_ns: 1,
                });
                let said = stamps
                    .map(|stamp| message(&stamp.data(STAMP_BYTES)))
                    .concat();
                // Messages end where they like, and so do frames.
                let (one, another) = said.split_at(said.len() / 3);
                let frames: Vec<&[u8]> = greeting.iter().copied().chain([one, another]).collect();
                let heard = heard(dialect.as_ref(), &frames);
                assert_eq!(heard, sequences);
                let mut ledger = Ledger::default();
                for sequence in heard {
                    ledger.note(sequence, 1);
                }
                let seen = (ledger.missing(), ledger.repeated, ledger.reordered);
                assert_eq!(seen, expected);
            }
        }
    }

    #[test]
    fn a_gap_of_any_length_is_counted_and_costs_bounded_memory() {
        let mut ledger = Ledger::default();
        ledger.note(u64::MAX - 1, 1);
        assert_eq!(ledger.missing(), u64::MAX - 1);
        assert_eq!(ledger.missing.len(), MISSING_MAX);
    }
}
