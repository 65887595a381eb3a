//! How many visits a turn may plan, so that it takes about as long as it should.
//!
//! A visit costs what the socket, the kernel and the bytes make it cost: some 4 us for a short frame
//! to an open loopback socket, 30 us for 10 KiB on a busy machine. So the bound of a turn is a time,
//! and the number of visits follows from what the last ones cost. The cost is that of the whole turn:
//! when receiving or letters take much of it, fewer visits are left, down to a least.
//!
//! The time is read once a turn, by whoever runs the shard.

use crate::base::limits::{
    TURN_US, VISITS_PER_TURN_LEAST, VISITS_PER_TURN_MOST, VISITS_TO_LEARN_FROM,
};

/// What a visit has cost of late.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    visit_ns: u64,
}

impl Default for Pace {
    /// Nothing is known yet: a send to a cold socket takes some 5 us.
    fn default() -> Pace {
        Pace { visit_ns: 5_000 }
    }
}

impl Pace {
    /// How many visits the next turn may plan.
    pub fn visits(self) -> usize {
        let visits = TURN_US * 1_000 / self.visit_ns;
        (visits as usize).clamp(VISITS_PER_TURN_LEAST, VISITS_PER_TURN_MOST)
    }

    /// A turn with so many visits took so long.
    pub fn learn(&mut self, visits: usize, spent_us: u64) {
        if visits < VISITS_TO_LEARN_FROM {
            return;
        }
        // A turn that was interrupted by another process says little about the next: it counts as
        // twice as dear as the others at most.
        let visit_ns = (spent_us * 1_000 / visits as u64).clamp(1, 2 * self.visit_ns);
        self.visit_ns = (3 * self.visit_ns + visit_ns).div_ceil(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long turns take after many, when a visit costs so much and the rest of a turn that.
    fn settled_us(visit_ns: u64, rest_us: u64) -> u64 {
        let mut pace = Pace::default();
        let mut spent_us = 0;
        for _ in 0..100 {
            spent_us = rest_us + pace.visits() as u64 * visit_ns / 1_000;
            pace.learn(pace.visits(), spent_us);
        }
        spent_us
    }

    #[test]
    fn a_turn_comes_to_take_as_long_as_it_should() {
        for (visit_ns, rest_us) in [(6_000, 0), (20_000, 100), (30_000, 500), (6_000, 3_000)] {
            let spent_us = settled_us(visit_ns, rest_us);
            assert!(
                spent_us.abs_diff(TURN_US) <= TURN_US / 20,
                "{visit_ns}: {spent_us}"
            );
        }
    }

    #[test]
    fn visits_are_neither_too_few_nor_too_many() {
        let most_us = VISITS_PER_TURN_MOST as u64;
        assert_eq!(settled_us(1_000, 0), most_us);
        assert_eq!(
            settled_us(1_000, 60_000),
            60_000 + VISITS_PER_TURN_LEAST as u64
        );
    }

    #[test]
    fn one_interruption_takes_little_away() {
        let mut pace = Pace { visit_ns: 10_000 };
        let before = pace.visits();
        pace.learn(before, 1_000_000);
        assert!(pace.visits() * 5 >= before * 3);
    }
}
