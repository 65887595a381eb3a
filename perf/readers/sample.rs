//! One decoded connection: are its messages complete, in order, and how late?

use std::collections::BTreeSet;

use crate::frames::Stamp;

/// Numbers remembered as missing, per connection; later ones are only counted.
const MISSING_MAX: usize = 100_000;

#[derive(Default)]
pub struct Sample {
    pub messages: u64,
    pub gaps: u64,
    pub repeated: u64,
    pub reordered: u64,
    pub arrival_gap_ns_max: u64,
    /// The length of the first message's frame, and whether another had a different one.
    pub frame_bytes: Option<u64>,
    pub is_uneven: bool,
    expected: u64,
    missing: BTreeSet<u64>,
    missing_beyond: u64,
    last_arrival_ns: u64,
}

impl Sample {
    /// Notes one message, and returns its delay.
    pub fn note(&mut self, stamp: Stamp, frame_bytes: u64, now_ns: u64) -> u64 {
        self.messages += 1;
        self.note_length(frame_bytes);
        self.note_order(stamp.sequence);
        if self.last_arrival_ns != 0 {
            let gap_ns = now_ns - self.last_arrival_ns;
            self.arrival_gap_ns_max = self.arrival_gap_ns_max.max(gap_ns);
        }
        self.last_arrival_ns = now_ns;
        now_ns.saturating_sub(stamp.due_ns)
    }

    pub fn missing(&self) -> u64 {
        self.missing.len() as u64 + self.missing_beyond
    }

    fn note_length(&mut self, frame_bytes: u64) {
        let first = *self.frame_bytes.get_or_insert(frame_bytes);
        self.is_uneven |= first != frame_bytes;
    }

    fn note_order(&mut self, sequence: u64) {
        if sequence == self.expected {
            self.expected += 1;
        } else if sequence > self.expected {
            self.gaps += 1;
            for number in self.expected..sequence {
                if self.missing.len() < MISSING_MAX {
                    self.missing.insert(number);
                } else {
                    self.missing_beyond += 1;
                }
            }
            self.expected = sequence + 1;
        } else if self.missing.remove(&sequence) {
            self.reordered += 1;
        } else {
            self.repeated += 1;
        }
    }
}
