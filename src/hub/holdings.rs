//! How much all channels of a shard retain together, and which of them hold most.
//!
//! When it is more than it may be, the channels that hold most lose their oldest segments. To find
//! them costs the same however many channels there are: they are kept in classes, each for twice the
//! bytes of the one before, and one of the highest class is taken.

use crate::base::slab::Key;

/// What one channel holds, as far as the others are concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    bytes: usize,
    /// Its place in its class.
    place: u32,
    is_listed: bool,
}

#[derive(Debug)]
pub struct Holdings {
    bytes: usize,
    /// Homes by the number of digits that their bytes have in binary.
    classes: [Vec<Key>; CLASSES],
}

const CLASSES: usize = usize::BITS as usize + 1;

/// The home whose holding stands at this place now, where another one stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    pub home: Key,
    place: u32,
}

impl Default for Holdings {
    fn default() -> Holdings {
        Holdings {
            bytes: 0,
            classes: [const { Vec::new() }; CLASSES],
        }
    }
}

impl Holdings {
    /// Bytes that all hold together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A home of those that hold most, if any holds something.
    pub fn heaviest(&self) -> Option<Key> {
        let holding = self.classes[1..].iter().rev();
        holding.filter_map(|class| class.last()).copied().next()
    }

    /// A home holds so many bytes now. If another one comes to stand elsewhere for that, it is to be
    /// told by [`Holding::moved`].
    #[must_use = "the one that moved is to be told"]
    pub fn weigh(&mut self, home: Key, holding: &mut Holding, bytes: usize) -> Option<Moved> {
        self.bytes = self.bytes + bytes - holding.bytes;
        if holding.is_listed && class(holding.bytes) == class(bytes) {
            holding.bytes = bytes;
            return None;
        }
        let moved = self.unlist(holding);
        let listed = &mut self.classes[class(bytes)];
        *holding = Holding {
            bytes,
            place: listed.len() as u32,
            is_listed: true,
        };
        listed.push(home);
        moved
    }

    /// A home holds nothing any more, and is forgotten.
    #[must_use = "the one that moved is to be told"]
    pub fn forget(&mut self, holding: &mut Holding) -> Option<Moved> {
        self.bytes -= holding.bytes;
        let moved = self.unlist(holding);
        *holding = Holding::default();
        moved
    }

    fn unlist(&mut self, holding: &Holding) -> Option<Moved> {
        if !holding.is_listed {
            return None;
        }
        let place = holding.place;
        let listed = &mut self.classes[class(holding.bytes)];
        listed.swap_remove(place as usize);
        let home = *listed.get(place as usize)?;
        Some(Moved { home, place })
    }
}

impl Holding {
    pub fn moved(&mut self, moved: Moved) {
        self.place = moved.place;
    }
}

fn class(bytes: usize) -> usize {
    (usize::BITS - bytes.leading_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(index: usize) -> Key {
        Key {
            index: index as u32,
            generation: 0,
        }
    }

    proptest! {
        /// Whatever grows, shrinks and goes: the sum is right, and the one that is found holds at
        /// least half of what any holds.
        #[test]
        fn the_heaviest_holds_half_of_the_most(
            steps in prop::collection::vec((0..20usize, prop::option::of(0..5000usize)), 1..300),
        ) {
            let mut holdings = Holdings::default();
            let mut held = vec![(Holding::default(), 0); 20];
            for (home, bytes) in steps {
                let mut holding = held[home].0;
                let moved = match bytes {
                    Some(bytes) => holdings.weigh(key(home), &mut holding, bytes),
                    None => holdings.forget(&mut holding),
                };
                held[home] = (holding, bytes.unwrap_or(0));
                if let Some(moved) = moved {
                    held[moved.home.index as usize].0.moved(moved);
                }
                let most = held.iter().map(|(_, bytes)| *bytes).max().unwrap();
                prop_assert_eq!(holdings.bytes(), held.iter().map(|(_, bytes)| bytes).sum::<usize>());
                match holdings.heaviest() {
                    Some(heaviest) => prop_assert!(held[heaviest.index as usize].1 * 2 > most),
                    None => prop_assert_eq!(most, 0),
                }
            }
        }
    }
}
