//! The keys under which events of a channel were published lately, so that a publish that is repeated
//! under its key is known, and answered as it was the first time.
//!
//! A key is kept for a time, and as long as it is among so many of the latest; then it is free again.
//!
//! Invariants:
//! - `known` has keys in the order in which their events were published.
//! - `places` has, of each key that is known, the place of its latest event.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// For how long, and among how many, a key is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub age_s: u32,
    pub keys_max: usize,
}

#[derive(Debug)]
pub struct Repeats {
    window: Window,
    known: VecDeque<Known>,
    /// The number of the oldest in `known`; each has a number, and the next has the next one.
    first: u64,
    /// Numbers, by the hash of their keys.
    places: HashTable<u64>,
    hasher: RandomState,
    text_bytes: usize,
}

#[derive(Debug)]
struct Known {
    key: Box<str>,
    serial: u64,
    second: u32,
}

impl Repeats {
    pub fn new(window: Window) -> Repeats {
        Repeats {
            window,
            known: VecDeque::new(),
            first: 0,
            places: HashTable::new(),
            hasher: RandomState::new(),
            text_bytes: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub fn length(&self) -> usize {
        self.known.len()
    }

    /// The serial of the event that was published under this key, at a time in seconds.
    pub fn serial_of(&self, key: &str, now_s: u32) -> Option<u64> {
        let is_it = |number: &u64| *self.at(*number).key == *key;
        let number = self.places.find(self.hasher.hash_one(key), is_it)?;
        let known = self.at(*number);
        (self.over_s(known) > now_s).then_some(known.serial)
    }

    /// An event is published under this key.
    pub fn note(&mut self, key: &str, serial: u64, now_s: u32) {
        let number = self.first + self.known.len() as u64;
        self.text_bytes += key.len();
        self.known.push_back(Known {
            key: key.into(),
            serial,
            second: now_s,
        });
        let (known, first, hasher) = (&self.known, self.first, &self.hasher);
        let text = |number: &u64| &*known[(number - first) as usize].key;
        let entry = self.places.entry(
            hasher.hash_one(key),
            |number| *text(number) == *key,
            |number| hasher.hash_one(text(number)),
        );
        // Of one that is over and not forgotten yet, this takes the place.
        entry.insert(number);
        self.trim(now_s);
    }

    /// Forgets what is over, at a time in seconds.
    pub fn trim(&mut self, now_s: u32) {
        while let Some(oldest) = self.known.front()
            && (self.known.len() > self.window.keys_max || self.over_s(oldest) <= now_s)
        {
            self.forget_oldest();
        }
    }

    /// When the oldest will be over; nothing if there is none.
    pub fn next_over_s(&self) -> Option<u32> {
        self.known.front().map(|oldest| self.over_s(oldest))
    }

    /// Forgets the older half, and gives back its memory. Returns how many those were.
    pub fn forget_half(&mut self) -> u64 {
        let count = self.known.len().div_ceil(2);
        for _ in 0..count {
            self.forget_oldest();
        }
        self.known.shrink_to_fit();
        let (known, first, hasher) = (&self.known, self.first, &self.hasher);
        self.places.shrink_to_fit(|number| {
            let known = &known[(number - first) as usize];
            hasher.hash_one(&*known.key)
        });
        count as u64
    }

    /// Bytes of memory, but for what the allocator adds.
    pub fn bytes(&self) -> usize {
        self.text_bytes
            + self.known.capacity() * size_of::<Known>()
            + self.places.capacity() * size_of::<u64>()
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.known.front() else {
            return;
        };
        let (hash, number) = (self.hasher.hash_one(&*oldest.key), self.first);
        self.text_bytes -= oldest.key.len();
        if let Ok(place) = self.places.find_entry(hash, |other| *other == number) {
            place.remove();
        }
        self.known.pop_front();
        self.first += 1;
    }

    fn at(&self, number: u64) -> &Known {
        &self.known[(number - self.first) as usize]
    }

    /// The second from which on its key is free. Seconds are whole: the one in which it was
    /// published had begun before.
    fn over_s(&self, known: &Known) -> u32 {
        known.second.saturating_add(self.window.age_s + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: Window = Window {
        age_s: 10,
        keys_max: 3,
    };

    // Broken on purpose once by a window of one second less, and by forgetting nothing.
    #[test]
    fn a_key_is_known_for_its_time_and_among_the_latest() {
        let mut repeats = Repeats::new(WINDOW);
        repeats.note("a", 1, 100);
        assert_eq!(repeats.serial_of("a", 110), Some(1));
        assert_eq!(repeats.serial_of("a", 111), None);
        assert_eq!(repeats.next_over_s(), Some(111));
        for (key, serial) in [("b", 2), ("c", 3)] {
            repeats.note(key, serial, 101);
        }
        assert_eq!(repeats.serial_of("a", 101), Some(1));
        repeats.note("d", 4, 101);
        let serials = ["a", "b", "c", "d"].map(|key| repeats.serial_of(key, 101));
        assert_eq!(serials, [None, Some(2), Some(3), Some(4)]);
        repeats.trim(112);
        assert!(repeats.is_empty());
    }

    proptest! {
        /// Against a list of all that was noted.
        #[test]
        fn a_repeat_is_known_exactly_within_the_window(
            steps in prop::collection::vec((0..12_u8, 0..4_u32, prop::bool::weighted(0.05)), 0..200),
            keys_max in 1..8_usize,
        ) {
            let mut repeats = Repeats::new(Window { age_s: 10, keys_max });
            let mut noted: Vec<(String, u64, u32)> = Vec::new();
            let mut now_s = 0;
            for (serial, (key, passed_s, is_halved)) in (1..).zip(steps) {
                now_s += passed_s;
                let key = format!("key-{key}");
                noted.retain(|(_, _, second)| second + 10 >= now_s);
                let known = noted.iter().rev().find(|(other, ..)| *other == key);
                prop_assert_eq!(repeats.serial_of(&key, now_s), known.map(|(_, serial, _)| *serial));
                if known.is_none() {
                    repeats.note(&key, serial, now_s);
                    noted.push((key, serial, now_s));
                    noted.drain(..noted.len().saturating_sub(keys_max));
                    prop_assert_eq!(repeats.length(), noted.len());
                }
                if is_halved {
                    repeats.trim(now_s);
                    let forgotten = repeats.forget_half() as usize;
                    prop_assert_eq!(forgotten, noted.len().div_ceil(2));
                    noted.drain(..forgotten);
                }
                prop_assert_eq!(repeats.bytes() == 0, repeats.known.capacity() == 0);
            }
            repeats.trim(now_s + 11);
            prop_assert!(repeats.places.is_empty());
            prop_assert_eq!(repeats.text_bytes, 0);
        }
    }
}
