//! The slab: entries that stay where they are, found by index or by a key that can go stale.
//!
//! Entries lie in pages of a fixed number. Growing adds a page, so no entry is ever moved or
//! copied and no insertion stalls for the size of what is there; the memory of a page is touched
//! entry by entry. Beside its value an entry costs 8 bytes (up to alignments of 8): whether it is
//! live, and its generation. The page table adds 48 bytes a page.
//!
//! Invariants:
//! - A key finds the very entry it was given for or nothing: an index's generation moves on when
//!   its entry is removed, and a page that is given back begins again behind all of its
//!   generations. After 2^32 removals of one index an old key would be taken for new.
//! - Of a page, the index freed last is used next, so live entries stay dense and their memory warm.
//! - A page without live entries has no memory, but for one, so that an entry that comes and goes
//!   does not take a page with it each time.
//! - A page is in the list of those with room exactly if it has room.
//!
//! The slab has no bound of its own but the 2^32 - 1 indexes; whoever inserts keeps the count of
//! what they admit.

use std::ops::{Index, IndexMut};

const PAGE_LOG2: u32 = 10;
/// A thousand connections of 200 bytes make a page of 200 KB: 1,000 pages for a million.
const ENTRIES_PER_PAGE: usize = 1 << PAGE_LOG2;
/// No place and no page, at the ends of lists.
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
    pages: Vec<Page<T>>,
    live: u32,
    /// The first of the pages with room.
    open: u32,
    /// The page that lost its last entry last.
    emptied: u32,
}

impl<T> Slab<T> {
    pub const fn new() -> Self {
        Self {
            pages: Vec::new(),
            live: 0,
            open: NONE,
            emptied: NONE,
        }
    }

    pub fn insert(&mut self, value: T) -> Key {
        if self.open == NONE {
            self.open = u32::try_from(self.pages.len()).unwrap_or(NONE);
            self.pages.push(Page::new());
        }
        let number = self.open;
        assert!(number < NONE >> PAGE_LOG2, "a slab has 2^32 - 1 indexes");
        let page = &mut self.pages[number as usize];
        let (place, generation) = page.insert(value);
        if !page.has_room() {
            self.open = page.next_open;
        }
        self.live += 1;
        let index = (number << PAGE_LOG2) + place;
        Key { index, generation }
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
        let number = page_of(key.index);
        let page = &mut self.pages[number];
        let had_room = page.has_room();
        let value = page.remove(place_of(key.index));
        if !had_room {
            page.next_open = self.open;
            self.open = number as u32;
        }
        if page.live == 0 {
            let other = std::mem::replace(&mut self.emptied, number as u32);
            if other != NONE && other != self.emptied && self.pages[other as usize].live == 0 {
                self.pages[other as usize].give_back();
            }
        }
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
        let last = self.pages.last().map_or(0, |page| page.entries.len());
        let full = self.pages.len().saturating_sub(1) * ENTRIES_PER_PAGE;
        u32::try_from(full + last).expect("indexes are below 2^32")
    }

    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// All live entries, by index.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0..).zip(&self.pages).flat_map(|(number, page)| {
            let first: u32 = number << PAGE_LOG2;
            (first..)
                .zip(&page.entries)
                .filter_map(|(index, entry)| match entry {
                    Entry::Live { generation, value } => {
                        let generation = *generation;
                        Some((Key { index, generation }, value))
                    }
                    Entry::Free { .. } => None,
                })
        })
    }

    fn entry(&self, index: u32) -> Option<&Entry<T>> {
        self.pages.get(page_of(index))?.entries.get(place_of(index))
    }

    fn entry_mut(&mut self, index: u32) -> Option<&mut Entry<T>> {
        let page = self.pages.get_mut(page_of(index))?;
        page.entries.get_mut(place_of(index))
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

/// A thousand entries, and what is known of them.
#[derive(Debug)]
struct Page<T> {
    /// Up to the highest that was used since there is memory. Never outgrows its allocation.
    entries: Vec<Entry<T>>,
    live: u32,
    /// The place that was freed last.
    free: u32,
    /// The generation that entries begin with.
    generation: u32,
    /// The next page with room.
    next_open: u32,
}

impl<T> Page<T> {
    fn new() -> Page<T> {
        Page {
            entries: Vec::new(),
            live: 0,
            free: NONE,
            generation: 0,
            next_open: NONE,
        }
    }

    fn has_room(&self) -> bool {
        self.free != NONE || self.entries.len() < ENTRIES_PER_PAGE
    }

    /// The entry's place and generation.
    fn insert(&mut self, value: T) -> (u32, u32) {
        self.live += 1;
        if self.free == NONE {
            if self.entries.capacity() == 0 {
                self.entries.reserve_exact(ENTRIES_PER_PAGE);
            }
            let generation = self.generation;
            self.entries.push(Entry::Live { generation, value });
            return (self.entries.len() as u32 - 1, generation);
        }
        let place = self.free;
        let entry = &mut self.entries[place as usize];
        let Entry::Free { generation, next } = *entry else {
            unreachable!("the list of free places holds free ones");
        };
        *entry = Entry::Live { generation, value };
        self.free = next;
        (place, generation)
    }

    fn remove(&mut self, place: usize) -> T {
        let entry = &mut self.entries[place];
        let (Entry::Live { generation, .. } | Entry::Free { generation, .. }) = *entry;
        let freed = Entry::Free {
            generation: generation.wrapping_add(1),
            next: self.free,
        };
        let Entry::Live { value, .. } = std::mem::replace(entry, freed) else {
            unreachable!("a key that finds an entry names a live one");
        };
        self.free = place as u32;
        self.live -= 1;
        value
    }

    /// Frees the memory of a page without live entries. Keys that were given out stay stale.
    fn give_back(&mut self) {
        let generations = self.entries.iter().map(|entry| match entry {
            Entry::Live { generation, .. } | Entry::Free { generation, .. } => *generation,
        });
        self.generation = generations.fold(self.generation, u32::max);
        self.entries = Vec::new();
        self.free = NONE;
    }
}

#[derive(Debug)]
enum Entry<T> {
    Live {
        generation: u32,
        value: T,
    },
    /// `generation` is the one that the next entry here gets; the place `next` was freed before.
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

    #[test]
    fn the_memory_of_pages_goes_with_their_last_entries_and_keys_stay_stale() {
        let mut slab = Slab::new();
        let keys: Vec<Key> = (0..10_000).map(|number| slab.insert(number)).collect();
        let kept = keys[5_000];
        for &key in keys.iter().filter(|key| **key != kept) {
            slab.remove(key).unwrap();
        }
        let pages = slab.pages.iter();
        let with_memory = pages.filter(|page| page.entries.capacity() > 0);
        assert_eq!(
            with_memory.count(),
            2,
            "that of the one left, and a spare one"
        );
        assert_eq!(slab[kept.index], 5_000);
        for number in 0..10_000 {
            slab.insert(number);
        }
        assert_eq!(slab.pages.len(), 10, "pages are used again");
        for &key in keys.iter().filter(|key| **key != kept) {
            assert_eq!(slab.get(key), None);
        }
        assert_eq!(slab.get(kept), Some(&5_000));
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// So many at once, to fill pages.
        Insert(usize),
        /// The key given out so long ago, stale or not.
        Remove(usize),
        Replace(usize),
        /// So many of those given out last, to empty pages.
        Empty(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (1..4_usize).prop_map(Step::Insert),
            1 => (1..700_usize).prop_map(Step::Insert),
            4 => (0..50_usize).prop_map(Step::Remove),
            2 => (0..50_usize).prop_map(Step::Replace),
            1 => (0..5_000_usize).prop_map(Step::Empty),
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
                    Step::Empty(count) => {
                        for &key in given.iter().rev().take(count) {
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
