//! The keys of the events that a channel retains: of each event whether there is a newer one with the same
//! key.
//!
//! Invariants: the events stand in the order of their serials; for each key that one of them has, the
//! table has the newest of these.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use hashbrown::HashTable;

#[derive(Debug, Default)]
pub struct Keys {
    hasher: FixedState,
    events: VecDeque<Keyed>,
    /// Serials of the newest of each key.
    newest: HashTable<u64>,
    text_bytes: usize,
}

#[derive(Debug)]
struct Keyed {
    serial: u64,
    key: Box<str>,
    is_superseded: bool,
}

impl Keys {
    /// Bytes of memory, but for what the allocator adds.
    pub fn bytes(&self) -> usize {
        self.text_bytes
            + self.events.len() * size_of::<Keyed>()
            + self.newest.len() * size_of::<u64>()
    }

    /// The next event, which has this key, comes.
    pub fn push(&mut self, serial: u64, key: &str) {
        let hash = self.hasher.hash_one(key);
        let (events, hasher) = (&mut self.events, &self.hasher);
        let known = self
            .newest
            .find_mut(hash, |known| *of(events, *known).key == *key);
        match known {
            Some(known) => {
                let place = place(events, *known);
                events[place].is_superseded = true;
                *known = serial;
            }
            None => {
                self.newest.insert_unique(hash, serial, |known| {
                    hasher.hash_one(&*of(events, *known).key)
                });
            }
        }
        self.text_bytes += key.len();
        self.events.push_back(Keyed {
            serial,
            key: key.into(),
            is_superseded: false,
        });
    }

    /// The events before this serial are forgotten.
    pub fn forget_before(&mut self, serial: u64) {
        while let Some(first) = self.events.front()
            && first.serial < serial
        {
            if !first.is_superseded {
                let hash = self.hasher.hash_one(&*first.key);
                let entry = self.newest.find_entry(hash, |one| *one == first.serial);
                entry.expect("the newest of a key is known").remove();
            }
            self.text_bytes -= first.key.len();
            self.events.pop_front();
        }
    }

    /// Whether there is a newer event with the same key.
    pub fn is_superseded(&self, serial: u64) -> bool {
        let keyed = self.events.get(place(&self.events, serial));
        keyed.is_some_and(|keyed| keyed.serial == serial && keyed.is_superseded)
    }
}

fn place(events: &VecDeque<Keyed>, serial: u64) -> usize {
    events.partition_point(|keyed| keyed.serial < serial)
}

fn of(events: &VecDeque<Keyed>, serial: u64) -> &Keyed {
    &events[place(events, serial)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a list that is looked through. (Tried: fails where what is forgotten stays known as
        /// the newest.)
        #[test]
        fn an_event_is_superseded_by_a_later_one_with_its_key(
            steps in prop::collection::vec((prop::option::of("[abcdef]{0,2}"), 0..4u64), 1..200),
        ) {
            let (mut keys, mut all, mut tail) = (Keys::default(), Vec::new(), 0);
            for (serial, (key, forgotten)) in (0u64..).zip(steps) {
                if let Some(key) = &key {
                    keys.push(serial, key);
                }
                all.push(key);
                if forgotten == 0 {
                    tail = (tail + 7).min(serial);
                    keys.forget_before(tail);
                }
                for (place, key) in all.iter().enumerate().skip(tail as usize) {
                    let is_newer = |other: &Option<String>| key.is_some() && other == key;
                    let expected = all[place + 1..].iter().any(is_newer);
                    prop_assert_eq!(keys.is_superseded(place as u64), expected);
                }
                let held = all[tail as usize..].iter().flatten();
                let text: usize = held.clone().map(String::len).sum();
                prop_assert_eq!((keys.text_bytes, keys.events.len()), (text, held.count()));
            }
            keys.forget_before(u64::MAX);
            prop_assert_eq!(keys.bytes(), 0);
            prop_assert!(keys.newest.is_empty());
        }
    }
}
