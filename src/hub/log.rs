//! The log of a channel: frames as they go on the wire, one after the other in memory.
//!
//! A place in the log is a position: the number of bytes of the channel before it, counted since
//! the channel came to be. Positions only grow; trimming the log changes which of them can still
//! be read, never what they mean. A send reads any run between two positions as one slice, so a
//! subscriber that is many frames behind costs one send.
//!
//! Invariants: the tail and the head lie between frames; what lies between them is contiguous.
//! Bytes may move within the process's memory when the log grows, which is safe because a send
//! borrows them only for the length of one system call.

use std::collections::VecDeque;

use crate::base::limits;

/// Frames between a tail and a head.
#[derive(Debug, Default)]
pub struct Log {
    bytes: Vec<u8>,
    /// The position of `bytes[0]`.
    base: u64,
    /// Bytes in front that are before the tail and wait to be overwritten.
    dead: usize,
    /// Where each frame ends.
    ends: VecDeque<u64>,
    /// Frames by when they came: the position that was reached within [`limits::LOG_AGE_STEP_MS`] of
    /// a time, and that time.
    ages: VecDeque<(u64, u64)>,
    /// Where events have serials: the last one that was given before the head.
    serial: Option<u64>,
}

impl Log {
    /// Empties the log; the next frame comes at `head`.
    pub fn restart(&mut self, head: u64) {
        self.bytes.clear();
        self.base = head;
        self.dead = 0;
        self.ends.clear();
        self.ages.clear();
        self.serial = None;
    }

    /// The position after the last frame.
    pub fn head(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// The first position that can be read.
    pub fn tail(&self) -> u64 {
        self.base + self.dead as u64
    }

    /// Bytes that are held.
    pub fn length(&self) -> usize {
        self.bytes.len() - self.dead
    }

    /// Bytes of memory owned.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Appends frames that lie one after the other in `frames`, whose lengths are `lengths`.
    pub fn append(&mut self, frames: &[u8], lengths: impl Iterator<Item = usize>, now_ms: u64) {
        if self.bytes.capacity() - self.bytes.len() < frames.len() {
            self.make_room(frames.len());
        }
        let mut end = self.head();
        self.bytes.extend_from_slice(frames);
        for length in lengths {
            end += length as u64;
            self.ends.push_back(end);
        }
        assert_eq!(end, self.head(), "the lengths are those of the frames");
        match self.ages.back_mut() {
            Some((position, since_ms)) if now_ms < *since_ms + limits::LOG_AGE_STEP_MS => {
                *position = end;
            }
            Some(_) | None => self.ages.push_back((end, now_ms)),
        }
    }

    /// The last serial that was given before the head; nothing on a channel without serials.
    pub fn serial(&self) -> Option<u64> {
        self.serial
    }

    /// With what was appended last, events came up to this serial.
    pub fn reach(&mut self, serial: Option<u64>) {
        self.serial = serial;
    }

    /// The bytes between two positions, which the log must still hold.
    pub fn slice(&self, from: u64, to: u64) -> &[u8] {
        assert!(from >= self.tail(), "position {from} has left the log");
        &self.bytes[(from - self.base) as usize..(to - self.base) as usize]
    }

    /// How many frames end in the run after `from`, up to `to`.
    pub fn frames_between(&self, from: u64, to: u64) -> u64 {
        if (self.ends.front(), self.ends.back()) == (Some(&to), Some(&to)) {
            return 1;
        }
        let before = self.ends.partition_point(|end| *end <= from);
        let until = self.ends.partition_point(|end| *end <= to);
        (until - before) as u64
    }

    /// Where the frames end of the run between two positions.
    pub fn ends_between(&self, from: u64, to: u64) -> impl Iterator<Item = u64> + '_ {
        let first = self.ends.partition_point(|end| *end <= from);
        let ends = self.ends.range(first..).copied();
        ends.take_while(move |end| *end <= to)
    }

    /// Where the frame ends that `position` lies within; nothing if it lies between frames.
    pub fn frame_end_after(&self, position: u64) -> Option<u64> {
        let next = self.ends.partition_point(|end| *end <= position);
        let start = next
            .checked_sub(1)
            .map_or(self.tail(), |last| self.ends[last]);
        (start != position).then(|| self.ends[next])
    }

    /// Where the tail comes to lie when the log is trimmed to `position`.
    pub fn tail_at(&self, position: u64) -> u64 {
        let next = self.ends.partition_point(|end| *end <= position);
        next.checked_sub(1)
            .map_or(self.tail(), |last| self.ends[last])
    }

    /// Forgets the frames that lie wholly before `position`.
    pub fn trim(&mut self, position: u64) {
        let mut tail = self.tail();
        while let Some(end) = self.ends.front()
            && *end <= position
        {
            tail = *end;
            self.ends.pop_front();
        }
        while let Some((end, _)) = self.ages.front()
            && *end <= tail
        {
            self.ages.pop_front();
        }
        self.dead = (tail - self.base) as usize;
        if self.dead == self.bytes.len() {
            self.bytes.clear();
            self.base = tail;
            self.dead = 0;
        }
    }

    /// The position up to which every frame came before `before_ms`.
    pub fn older_than(&self, before_ms: u64) -> u64 {
        let ages = self.ages.iter();
        let old = ages.take_while(|(_, since_ms)| since_ms + limits::LOG_AGE_STEP_MS <= before_ms);
        old.last().map_or(self.tail(), |(end, _)| *end)
    }

    /// When the first frame behind `position` came that is still held, at most
    /// [`limits::LOG_AGE_STEP_MS`] too early; nothing if there is none.
    pub fn came_ms(&self, position: u64) -> Option<u64> {
        let place = self.ages.partition_point(|(end, _)| *end <= position);
        self.ages.get(place).map(|(_, since_ms)| *since_ms)
    }

    /// Moves what is held to the front where that frees half of the memory; else takes more.
    /// Either way a byte is moved a bounded number of times on average.
    fn make_room(&mut self, more: usize) {
        if self.dead >= self.length().max(more) {
            self.bytes.copy_within(self.dead.., 0);
            self.bytes.truncate(self.length());
            self.base += self.dead as u64;
            self.dead = 0;
        } else {
            self.bytes.reserve(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn append(log: &mut Log, frame: &[u8], now_ms: u64) {
        log.append(frame, [frame.len()].into_iter(), now_ms);
    }

    #[test]
    fn several_frames_read_as_one_slice() {
        let mut log = Log::default();
        append(&mut log, b"one", 0);
        append(&mut log, b"three", 0);
        assert_eq!(log.slice(0, log.head()), b"onethree");
        assert_eq!(log.slice(3, 8), b"three");
        assert_eq!(log.frames_between(0, 8), 2);
        assert_eq!(log.ends_between(0, 8).collect::<Vec<u64>>(), [3, 8]);
        assert_eq!(log.ends_between(3, 8).collect::<Vec<u64>>(), [8]);
        assert_eq!(log.ends_between(3, 7).count(), 0);
    }

    #[test]
    fn trimming_keeps_the_frame_that_a_position_lies_within() {
        let mut log = Log::default();
        append(&mut log, b"one", 0);
        append(&mut log, b"three", 0);
        log.trim(5);
        assert_eq!(log.tail(), 3);
        assert_eq!(log.frame_end_after(5), Some(8));
        assert_eq!(log.frame_end_after(3), None);
        assert_eq!(log.frame_end_after(8), None);
        assert_eq!(log.slice(5, 8), b"ree");
    }

    #[test]
    fn positions_survive_emptying() {
        let mut log = Log::default();
        append(&mut log, b"one", 0);
        log.trim(3);
        assert_eq!((log.tail(), log.head(), log.length()), (3, 3, 0));
        append(&mut log, b"two", 0);
        assert_eq!(log.slice(3, 6), b"two");
    }

    #[test]
    fn age_is_known_to_a_step() {
        const STEP: u64 = limits::LOG_AGE_STEP_MS;
        let mut log = Log::default();
        append(&mut log, b"one", 10);
        append(&mut log, b"two", 9 + STEP);
        append(&mut log, b"three", 10 + STEP);
        assert_eq!(log.older_than(9 + STEP), 0);
        assert_eq!(log.older_than(10 + STEP), 6);
        assert_eq!(log.older_than(10 + 2 * STEP), 11);
        for (position, came_ms) in [
            (0, Some(10)),
            (5, Some(10)),
            (6, Some(10 + STEP)),
            (11, None),
        ] {
            assert_eq!(log.came_ms(position), came_ms, "{position}");
        }
        log.trim(6);
        assert_eq!(
            log.came_ms(0),
            Some(10 + STEP),
            "what is gone is not waited for"
        );
    }

    proptest! {
        /// Against a log that never forgets.
        #[test]
        fn reads_what_was_appended(steps in prop::collection::vec((1usize..40, 0u64..60), 1..200)) {
            let mut log = Log::default();
            let (mut all, mut boundaries, mut trimmed) = (Vec::new(), vec![0u64], 0);
            for (number, (length, keep)) in steps.into_iter().enumerate() {
                let frame = vec![number as u8; length];
                all.extend_from_slice(&frame);
                boundaries.push(all.len() as u64);
                append(&mut log, &frame, number as u64);
                trimmed = trimmed.max(log.head().saturating_sub(keep));
                log.trim(trimmed);
                prop_assert_eq!(log.head(), all.len() as u64);
                prop_assert!(boundaries.contains(&log.tail()));
                prop_assert!(log.tail() <= trimmed);
                prop_assert_eq!(log.slice(log.tail(), log.head()), &all[log.tail() as usize..]);
                for position in log.tail()..log.head() {
                    let end = boundaries.iter().find(|end| **end >= position).copied();
                    prop_assert_eq!(log.frame_end_after(position), end.filter(|end| *end != position));
                }
                prop_assert!(log.capacity() < 8 * (keep as usize + 80));
            }
        }
    }
}
