//! A set of slots as one bit each: dense enough to stay in cache beside a sweep of millions.

/// Which slots of a shard have some property.
pub struct SlotSet {
    words: Vec<u64>,
}

impl SlotSet {
    pub fn new(slots: u32) -> SlotSet {
        SlotSet {
            words: vec![0; (slots as usize).div_ceil(64)],
        }
    }

    pub fn contains(&self, slot: u32) -> bool {
        self.words[(slot / 64) as usize] & (1 << (slot % 64)) != 0
    }

    pub fn set(&mut self, slot: u32, member: bool) {
        let word = &mut self.words[(slot / 64) as usize];
        let bit = 1 << (slot % 64);
        *word = if member { *word | bit } else { *word & !bit };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_independent() {
        let mut set = SlotSet::new(130);
        set.set(63, true);
        set.set(64, true);
        set.set(129, true);
        set.set(64, false);
        let members: Vec<u32> = (0..130).filter(|slot| set.contains(*slot)).collect();
        assert_eq!(members, [63, 129]);
    }
}
