//! The worst of many, as far as there is room: one pass, memory for twice as many as are kept.

use std::cmp::Reverse;

/// How bad something is: the first number decides, the second where the first ones are equal.
pub type Badness = (u64, u64);

#[derive(Debug)]
pub struct Worst<T> {
    room: usize,
    /// What is not worse than this has no chance any more, once there was a choice.
    floor: Option<Badness>,
    kept: Vec<(Badness, T)>,
}

impl<T> Worst<T> {
    /// Keeps so many.
    pub fn new(room: usize) -> Worst<T> {
        assert!(room > 0, "somebody is the worst");
        Worst {
            room,
            floor: None,
            kept: Vec::new(),
        }
    }

    /// Whether it would be kept: what it takes to describe it can be saved otherwise.
    pub fn has_room(&self, badness: Badness) -> bool {
        self.floor.is_none_or(|floor| badness > floor)
    }

    /// Of those that are equally bad, who came first stays.
    pub fn add(&mut self, badness: Badness, item: T) {
        if !self.has_room(badness) {
            return;
        }
        self.kept.push((badness, item));
        if self.kept.len() == 2 * self.room {
            self.choose();
        }
    }

    /// What was kept, the worst first; nothing is kept any more.
    pub fn take(&mut self) -> Vec<(Badness, T)> {
        self.choose();
        self.floor = None;
        std::mem::take(&mut self.kept)
    }

    fn choose(&mut self) {
        self.kept.sort_by_key(|(badness, _)| Reverse(*badness));
        self.kept.truncate(self.room);
        if self.kept.len() == self.room {
            self.floor = self.kept.last().map(|(badness, _)| *badness);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn they_are_the_first_of_all_in_order(
            all in prop::collection::vec((0_u64..9, 0_u64..3), 0..200),
            room in 1_usize..12,
        ) {
            let mut worst = Worst::new(room);
            for (number, badness) in all.iter().enumerate() {
                worst.add(*badness, number);
            }
            let mut sorted: Vec<(Badness, usize)> = all.into_iter().zip(0..).collect();
            sorted.sort_by_key(|(badness, _)| Reverse(*badness));
            sorted.truncate(room);
            prop_assert_eq!(worst.take(), sorted);
            prop_assert!(worst.take().is_empty());
        }
    }
}
