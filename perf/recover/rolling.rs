//! A checksum of a run of events that can be compared wherever two readers' runs overlap.
//!
//! `state = state * FACTOR + checksum of the event`, so that what lies between two events follows
//! from the states behind them. One reader gets everything and keeps all states; every other one
//! keeps its own state, and is compared at the end, wherever it began.

/// Odd, so that no event is ever multiplied away.
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

/// The checksum of the events so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rolling(u64);

impl Rolling {
    pub fn push(&mut self, event: &[u8]) {
        let checksum = u64::from(crc32c::crc32c(event)) + 1;
        self.0 = self.0.wrapping_mul(FACTOR).wrapping_add(checksum);
    }
}

/// The states of a reader that got every event of the channel.
#[derive(Debug)]
pub struct History {
    states: Vec<Rolling>,
}

impl Default for History {
    fn default() -> History {
        History {
            states: vec![Rolling::default()],
        }
    }
}

impl History {
    /// The event with the next serial; the first has 1.
    pub fn push(&mut self, event: &[u8]) {
        let mut state = *self.states.last().expect("there is one at the beginning");
        state.push(event);
        self.states.push(state);
    }

    /// What a reader has that got the events behind one serial and up to another; nothing if they
    /// have not all been seen.
    pub fn between(&self, after: u64, up_to: u64) -> Option<Rolling> {
        let before = self.states.get(after as usize)?;
        let behind = self.states.get(up_to as usize)?;
        let events = u32::try_from(up_to.checked_sub(after)?).ok()?;
        let shifted = before.0.wrapping_mul(FACTOR.wrapping_pow(events));
        Some(Rolling(behind.0.wrapping_sub(shifted)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The state of a reader of these events.
    fn rolled(events: &[&str]) -> Rolling {
        let mut state = Rolling::default();
        for event in events {
            state.push(event.as_bytes());
        }
        state
    }

    #[test]
    fn a_reader_has_what_lies_between_and_nothing_else_will_do() {
        let events = ["a", "b", "c", "b", ""];
        let mut history = History::default();
        for event in events {
            history.push(event.as_bytes());
        }
        for after in 0..=5 {
            for up_to in after..=5 {
                let expected = Some(rolled(&events[after..up_to]));
                assert_eq!(history.between(after as u64, up_to as u64), expected);
            }
        }
        assert_ne!(history.between(0, 3), Some(rolled(&["a", "c", "b"])));
        assert_ne!(history.between(0, 3), Some(rolled(&["a", "b", "b", "c"])));
        assert_ne!(history.between(0, 3), Some(rolled(&["a", "c"])));
        assert_ne!(history.between(4, 5), history.between(4, 4), "empty events");
        assert_eq!(history.between(3, 2), None);
        assert_eq!(history.between(3, 6), None);
    }
}
