//! The slab: entries that stay where they are, found by index or by a key that can go stale.
//!
//! Entries lie in pages of a fixed number. Growing adds a page, so no entry is ever moved or
//! copied and no insertion stalls for the size of what is there; the memory of a page is touched
//! entry by entry. Beside its value an entry costs 8 bytes (up to alignments of 8): whether it is
//! live, and its generation. The page table adds 24 bytes a page.
//!
//! Invariants:
//! - A key finds the very entry it was given for or nothing: an index's generation moves on when
//!   its entry is removed. After 2^32 removals of one index an old key would be taken for new.
//! - The index freed last is used next, so live entries stay dense and their memory warm.
//! - Memory is kept: pages are not given back before the slab is dropped.
//!
//! The slab has no bound of its own but the 2^32 - 1 indexes; whoever inserts keeps the count of
//! what they admit.

use std::ops::{Index, IndexMut};

const PAGE_LOG2: u32 = 10;
/// A thousand connections of 200 bytes make a page of 200 KB: 1,000 pages for a million.
const ENTRIES_PER_PAGE: usize = 1 << PAGE_LOG2;
/// No index, at the end of the list of free ones.
const NONE: u32 = u32::MAX;

/// Where an entry is, and which of the entries that were ever there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub index: u32,
    /// Counts the entries removed from the index, modulo 2^32.
    pub generation: u32,
}

/// Entries that never move.
#[derive(Debug)]
pub struct Slab<T> {
    /// All pages but the last are full of entries, live or free. None ever outgrows its allocation.
    pages: Vec<Vec<Entry<T>>>,
    live: u32,
    /// The index that was freed last.
    free: u32,
}

impl<T> Slab<T> {
    pub const fn new() -> Self {
        Self {
            pages: Vec::new(),
            live: 0,
            free: NONE,
        }
    }

    pub fn insert(&mut self, value: T) -> Key {
        let key = if self.free == NONE {
            self.insert_at_end(value)
        } else {
            self.insert_at_free(value)
        };
        self.live += 1;
        key
    }

    /// The entry, unless it was removed.
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.entry(key.index)? {
            Entry::Live { generation, value } if *generation == key.generation => Some(value),
            Entry::Live { .. } | Entry::Free { .. } => None,
        }
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.entry_mut(key.index)? {
            Entry::Live { generation, value } if *generation == key.generation => Some(value),
            Entry::Live { .. } | Entry::Free { .. } => None,
        }
    }

    /// Takes the entry out, unless that was done before. The key is stale from now on.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let freed = Entry::Free {
            generation: key.generation.wrapping_add(1),
            next: self.free,
        };
        let entry = self.entry_mut(key.index)?;
        let Entry::Live { value, .. } = std::mem::replace(entry, freed) else {
            unreachable!("a key that finds an entry names a live one");
        };
        self.free = key.index;
        self.live -= 1;
        Some(value)
    }

    /// The key of the entry that lives at `index`. Asking for one that does not is our own fault.
    pub fn key_of(&self, index: u32) -> Key {
        let Some(&Entry::Live { generation, .. }) = self.entry(index) else {
            not_live(index);
        };
        Key { index, generation }
    }

    /// Whether an entry lives at `index`.
    pub fn is_live(&self, index: u32) -> bool {
        matches!(self.entry(index), Some(Entry::Live { .. }))
    }

    /// How many entries live.
    pub fn len(&self) -> usize {
        self.live as usize
    }

    /// No entry lives at this index or a higher one.
    pub fn end(&self) -> u32 {
        let last = self.pages.last().map_or(0, Vec::len);
        let full = self.pages.len().saturating_sub(1) * ENTRIES_PER_PAGE;
        u32::try_from(full + last).expect("indexes are below 2^32")
    }

    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// All live entries, by index.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        let entries = self.pages.iter().flatten();
        (0..).zip(entries).filter_map(|(index, entry)| match entry {
            Entry::Live { generation, value } => {
                let generation = *generation;
                Some((Key { index, generation }, value))
            }
            Entry::Free { .. } => None,
        })
    }

    fn insert_at_end(&mut self, value: T) -> Key {
        if self
            .pages
            .last()
            .is_none_or(|page| page.len() == ENTRIES_PER_PAGE)
        {
            self.pages.push(Vec::with_capacity(ENTRIES_PER_PAGE));
        }
        let before = (self.pages.len() - 1) * ENTRIES_PER_PAGE;
        let page = self.pages.last_mut().expect("a page with room is last");
        let index = u32::try_from(before + page.len()).unwrap_or(NONE);
        assert!(index != NONE, "a slab has 2^32 - 1 indexes");
        let generation = 0;
        page.push(Entry::Live { generation, value });
        Key { index, generation }
    }

    fn insert_at_free(&mut self, value: T) -> Key {
        let index = self.free;
        let entry = self.entry_mut(index).expect("a free index has an entry");
        let Entry::Free { generation, next } = *entry else {
            unreachable!("the list of free indexes holds free ones");
        };
        *entry = Entry::Live { generation, value };
        self.free = next;
        Key { index, generation }
    }

    fn entry(&self, index: u32) -> Option<&Entry<T>> {
        self.pages.get(page_of(index))?.get(place_of(index))
    }

    fn entry_mut(&mut self, index: u32) -> Option<&mut Entry<T>> {
        self.pages.get_mut(page_of(index))?.get_mut(place_of(index))
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// For ids that are known to be live; one that is not is our own fault.
impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        let Some(Entry::Live { value, .. }) = self.entry(index) else {
            not_live(index);
        };
        value
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        let Some(Entry::Live { value, .. }) = self.entry_mut(index) else {
            not_live(index);
        };
        value
    }
}

#[derive(Debug)]
enum Entry<T> {
    Live {
        generation: u32,
        value: T,
    },
    /// `generation` is the one that the next entry here gets; `next` was freed before this.
    Free {
        generation: u32,
        next: u32,
    },
}

fn page_of(index: u32) -> usize {
    (index >> PAGE_LOG2) as usize
}

fn place_of(index: u32) -> usize {
    index as usize % ENTRIES_PER_PAGE
}

#[cold]
fn not_live(index: u32) -> ! {
    panic!("slab index {index} is not live");
}

// The state and the generation share the 8 bytes before the value.
const _: () = assert!(size_of::<Entry<[u64; 8]>>() == 64 + 8);
const _: () = assert!(size_of::<Entry<[u32; 9]>>() == 36 + 8);

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slab = Slab::new();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"second"));
        assert_eq!(slab.key_of(second.index), second);
        assert_eq!(
            slab.get(Key {
                index: 1 << 20,
                generation: 0
            }),
            None
        );
    }

    #[test]
    fn the_index_freed_last_is_used_next() {
        let mut slab = Slab::new();
        let keys: Vec<Key> = (0..4).map(|number| slab.insert(number)).collect();
        slab.remove(keys[1]).unwrap();
        slab.remove(keys[3]).unwrap();
        slab.remove(keys[0]).unwrap();
        let reused: Vec<u32> = (0..4).map(|number| slab.insert(number).index).collect();
        assert_eq!(reused, [0, 3, 1, 4]);
    }

    #[test]
    fn entries_stay_where_they_are_while_the_slab_grows() {
        let mut slab = Slab::new();
        let places: Vec<*const u64> = (0..5_000)
            .map(|number| {
                let key = slab.insert(number);
                &raw const slab[key.index]
            })
            .collect();
        for (number, place) in (0..).zip(places) {
            assert_eq!(place, &raw const slab[number]);
            assert_eq!(slab[number], u64::from(number));
        }
    }

    #[test]
    #[should_panic(expected = "slab index 0 is not live")]
    fn an_index_that_was_freed_is_our_own_fault() {
        let mut slab = Slab::new();
        let key = slab.insert(1);
        slab.remove(key).unwrap();
        slab[0] += 1;
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// So many at once, to fill pages.
        Insert(usize),
        /// The key given out so long ago, stale or not.
        Remove(usize),
        Replace(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (1..4_usize).prop_map(Step::Insert),
            1 => (1..700_usize).prop_map(Step::Insert),
            4 => (0..50_usize).prop_map(Step::Remove),
            2 => (0..50_usize).prop_map(Step::Replace),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_slab_is_a_map_that_chooses_its_keys(
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let mut slab = Slab::new();
            let mut model: HashMap<Key, usize> = HashMap::new();
            let mut given: Vec<Key> = Vec::new();
            for step in steps {
                match step {
                    Step::Insert(count) => {
                        for _ in 0..count {
                            let key = slab.insert(given.len());
                            let before = model.insert(key, given.len());
                            prop_assert_eq!(before, None, "a key was given twice");
                            given.push(key);
                        }
                    }
                    Step::Remove(age) => {
                        if let Some(&key) = given.iter().rev().nth(age) {
                            prop_assert_eq!(slab.remove(key), model.remove(&key));
                        }
                    }
                    Step::Replace(age) => {
                        if let Some(key) = given.iter().rev().nth(age) {
                            let value = slab.get_mut(*key);
                            prop_assert_eq!(value.as_deref(), model.get(key));
                            if let Some(value) = value {
                                *value += 1;
                                *model.get_mut(key).unwrap() += 1;
                                prop_assert_eq!(slab.key_of(key.index), *key);
                            }
                        }
                    }
                }
                prop_assert_eq!(slab.len(), model.len());
            }
            for key in &given {
                prop_assert_eq!(slab.get(*key), model.get(key));
            }
            let live: Vec<(Key, usize)> = slab.iter().map(|(key, value)| (key, *value)).collect();
            prop_assert!(live.is_sorted_by_key(|(key, _)| key.index));
            prop_assert_eq!(live.into_iter().collect::<HashMap<_, _>>(), model);
        }
    }
}
