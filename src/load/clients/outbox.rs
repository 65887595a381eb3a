//! What clients send in one turn, as one batch of the ring.
//!
//! Bytes of one client never interleave: within a batch they are one send, and while its socket is full everything
//! that comes later waits behind what is left.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::ring::{Sends, ShortSend};

#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Slots and their runs of bytes, in the order of slots once it is sealed.
    parts: Vec<(u32, Range<usize>)>,
    /// The parts of each send.
    sends: Vec<Range<usize>>,
    /// What did not fit into a socket, by slot. Bounded by what a client may ask unanswered.
    unsent: BTreeMap<u32, Vec<u8>>,
}

impl Outbox {
    pub fn write(&mut self, slot: u32, compose: impl FnOnce(&mut Vec<u8>)) {
        if let Some(unsent) = self.unsent.get_mut(&slot) {
            compose(unsent);
            return;
        }
        let start = self.bytes.len();
        compose(&mut self.bytes);
        if self.bytes.len() > start {
            self.parts.push((slot, start..self.bytes.len()));
        }
    }

    /// Makes one send of the parts of each slot.
    pub fn seal(&mut self) {
        // Stable: a client's parts stay in their order.
        self.parts.sort_by_key(|part| part.0);
        let mut start = 0;
        for same in self.parts.chunk_by(|one, next| one.0 == next.0) {
            self.sends.push(start..start + same.len());
            start += same.len();
        }
    }

    /// Keeps what a socket did not take. True if it takes bytes again later.
    pub fn keep(&mut self, short: ShortSend) -> bool {
        let Ok(taken) = short.taken else {
            return false;
        };
        let parts = &self.parts[self.sends[short.index as usize].clone()];
        let (slot, first) = parts[0].clone();
        let mut left = Vec::new();
        left.extend_from_slice(&self.bytes[first]);
        for (_, part) in &parts[1..] {
            left.extend_from_slice(&self.bytes[part.clone()]);
        }
        left.drain(..taken as usize);
        self.unsent.insert(slot, left);
        true
    }

    /// The batch has gone.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.parts.clear();
        self.sends.clear();
    }

    /// The socket takes bytes again.
    pub fn release(&mut self, slot: u32) {
        if let Some(unsent) = self.unsent.remove(&slot) {
            self.write(slot, |out| out.extend_from_slice(&unsent));
        }
    }

    /// The client is gone. True if its socket is waited for.
    pub fn forget(&mut self, slot: u32) -> bool {
        self.parts.retain(|part| part.0 != slot);
        self.unsent.remove(&slot).is_some()
    }

    pub fn is_blocked(&self, slot: u32) -> bool {
        self.unsent.contains_key(&slot)
    }
}

impl Sends for Outbox {
    fn count(&self) -> usize {
        self.sends.len()
    }

    fn slot(&self, index: usize) -> u32 {
        self.parts[self.sends[index].start].0
    }

    fn piece(&self, index: usize, piece: usize) -> Option<&[u8]> {
        let parts = &self.parts[self.sends[index].clone()];
        parts.get(piece).map(|part| &self.bytes[part.1.clone()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_client_are_one_send_and_wait_behind_what_was_left() {
        let mut outbox = Outbox::default();
        for (slot, text) in [(5, "one "), (2, "two"), (5, "three"), (7, "")] {
            outbox.write(slot, |out| out.extend_from_slice(text.as_bytes()));
        }
        outbox.seal();
        assert_eq!((outbox.count(), outbox.slot(0), outbox.slot(1)), (2, 2, 5));
        assert_eq!(outbox.piece(1, 0), Some(&b"one "[..]));
        assert_eq!(outbox.piece(1, 1), Some(&b"three"[..]));
        assert_eq!(outbox.piece(1, 2), None);
        assert!(outbox.keep(ShortSend {
            index: 1,
            taken: Ok(2)
        }));
        outbox.clear();
        outbox.write(5, |out| out.extend_from_slice(b" four"));
        outbox.seal();
        assert_eq!(outbox.count(), 0);
        outbox.release(5);
        outbox.seal();
        assert_eq!(outbox.piece(0, 0), Some(&b"e three four"[..]));
        assert!(!outbox.is_blocked(5));
    }
}
