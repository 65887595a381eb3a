//! The timer wheel: one deadline for each of a shard's tokens, set, moved and cleared in O(1).
//!
//! A token is a connection's slot, so the wheel needs no allocation for a timer: the links of the
//! lists lie in one flat array, 16 bytes a token. Time is cut into ticks. A deadline goes to the
//! tick that ends at or after it, so no timer fires early, and one fires at most a tick late.
//!
//! The wheel has three levels of 4,096 lists. A list of the lowest level is one tick; a list of
//! the level above is 4,096 ticks, and its tokens are dealt out to lower levels when the wheel
//! gets there. Levels are wide so that this seldom happens: with ticks of 64 ms whatever is due
//! within 262 s goes to the lowest level and is never dealt out, which covers the timers that every
//! connection has (handshake, activity, ping). Of longer ones up to 262 s' worth are dealt out at
//! once.
//!
//! Invariants, `now` being the tick that the wheel has advanced to:
//! - A token is in one list or in none. The lists that `now` lies in are empty on every level.
//! - A list of level L holds the deadlines of one span of `4096^L` ticks, and that span begins
//!   after `now`. Only the last list of the highest level may hold later ones.
//! - A list's bit is set exactly if the list is not empty: empty ticks are skipped, not walked.
//!
//! A shard owns the wheel: it sleeps no longer than [`Wheel::next_deadline_ms`] says and calls
//! [`Wheel::advance`] once a turn.

/// The lists of a level are numbered by this many bits of a tick.
const LISTS_LOG2: u32 = 12;
const LISTS: usize = 1 << LISTS_LOG2;
/// With ticks of 64 ms the highest of three levels ends 139 years ahead.
const LEVELS: usize = 3;
/// No token, at the end of a list.
const NONE: u32 = u32::MAX;
/// In `Timer::previous` this bit says that the timer is the first of a list, whose number the
/// other bits are; hence tokens are smaller than this.
const FIRST: u32 = 1 << 31;

/// Deadlines of the tokens `0..capacity`.
#[derive(Debug)]
pub struct Wheel {
    resolution_ms: u64,
    /// The tick up to which everything due was handed out.
    now: u64,
    capacity: u32,
    /// By token, up to the highest that ever had a deadline. The memory of the others is reserved
    /// but not touched, and growing moves nothing.
    timers: Vec<Timer>,
    levels: [Level; LEVELS],
}

impl Wheel {
    /// A wheel whose ticks are `resolution_ms` long and which starts at `now_ms`.
    pub fn new(capacity: u32, resolution_ms: u64, now_ms: u64) -> Self {
        assert!(capacity <= FIRST, "a token has 31 bits");
        assert!(resolution_ms > 0, "a tick has a length");
        Self {
            resolution_ms,
            now: now_ms / resolution_ms,
            capacity,
            timers: Vec::with_capacity(capacity as usize),
            levels: std::array::from_fn(|_| Level::new()),
        }
    }

    /// Sets the token's deadline, or moves it. One that has already passed is due with the next
    /// tick.
    pub fn set(&mut self, token: u32, deadline_ms: u64) {
        assert!(
            token < self.capacity,
            "token {token} is beyond the wheel's capacity of {}",
            self.capacity
        );
        if token as usize >= self.timers.len() {
            self.timers.resize(token as usize + 1, Timer::UNSET);
        }
        let tick = deadline_ms.div_ceil(self.resolution_ms).max(self.now + 1);
        if self.timers[token as usize].is_set() {
            if self.timers[token as usize].tick == tick {
                return;
            }
            self.unlink(token);
        }
        self.link(token, tick);
    }

    /// Takes the token's deadline away, if it has one.
    pub fn clear(&mut self, token: u32) {
        if self.is_set(token) {
            self.unlink(token);
            self.timers[token as usize] = Timer::UNSET;
        }
    }

    pub fn is_set(&self, token: u32) -> bool {
        self.timers.get(token as usize).is_some_and(Timer::is_set)
    }

    /// Advances to `now_ms` and pushes the tokens that are due, earlier ticks first; within a tick
    /// in no order that means anything, but in the same one each time. Their deadlines are gone.
    pub fn advance(&mut self, now_ms: u64, due: &mut Vec<u32>) {
        let target = now_ms / self.resolution_ms;
        assert!(target >= self.now, "the clock never goes back");
        if target == self.now {
            return;
        }
        while let Some(tick) = self.next_event() {
            if tick > target {
                break;
            }
            self.now = tick;
            // Highest first: what it deals out may belong to this tick's list of no lower level,
            // since those hold only what comes after `now`.
            for level in (0..LEVELS).rev() {
                self.deal_out(level, due);
            }
        }
        self.now = target;
    }

    /// Until when an idle shard may sleep: no later than the first deadline's tick. It is earlier
    /// than that at most twice for a deadline, when the wheel has something to deal out; calling
    /// [`Wheel::advance`] at that time always moves it on.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.next_event()
            .map(|tick| tick.saturating_mul(self.resolution_ms))
    }

    /// The first tick after `now` at which a list that is not empty begins.
    fn next_event(&self) -> Option<u64> {
        (0..LEVELS)
            .filter_map(|level| self.levels[level].next_start(level, self.now))
            .min()
    }

    /// If a list of this level begins at `now`, its tokens are due or go further down.
    fn deal_out(&mut self, level: usize, due: &mut Vec<u32>) {
        let span_log2 = LISTS_LOG2 * level as u32;
        if self.now & ((1 << span_log2) - 1) != 0 {
            return;
        }
        let list = list_of(self.now >> span_log2);
        let mut token = self.levels[level].take(list);
        while token != NONE {
            let timer = &mut self.timers[token as usize];
            let Timer { tick, next, .. } = *timer;
            *timer = Timer::UNSET;
            assert!(tick >= self.now, "the wheel went past a deadline");
            if tick == self.now {
                due.push(token);
            } else {
                self.link(token, tick);
            }
            token = next;
        }
    }

    /// Puts a token that is in no list before the others of its list.
    fn link(&mut self, token: u32, tick: u64) {
        let (level, list) = self.place(tick);
        let level_of_list = &mut self.levels[level];
        let next = level_of_list.firsts[list];
        level_of_list.firsts[list] = token;
        level_of_list.occupied.insert(list);
        self.timers[token as usize] = Timer {
            tick,
            next,
            previous: FIRST | (level * LISTS + list) as u32,
        };
        if next != NONE {
            self.timers[next as usize].previous = token;
        }
    }

    /// Takes a token out of its list; its timer is stale afterwards.
    fn unlink(&mut self, token: u32) {
        let Timer { next, previous, .. } = self.timers[token as usize];
        if next != NONE {
            self.timers[next as usize].previous = previous;
        }
        if previous & FIRST == 0 {
            self.timers[previous as usize].next = next;
            return;
        }
        let number = (previous ^ FIRST) as usize;
        let level = &mut self.levels[number / LISTS];
        let list = number % LISTS;
        assert!(
            level.firsts[list] == token,
            "the first of a list is the list's first"
        );
        level.firsts[list] = next;
        if next == NONE {
            level.occupied.remove(list);
        }
    }

    /// The level and list that a deadline after `now` belongs to: the lowest level whose lists
    /// reach that far.
    fn place(&self, tick: u64) -> (usize, usize) {
        let highest = LEVELS - 1;
        for level in 0..highest {
            let span_log2 = LISTS_LOG2 * level as u32;
            if (tick >> span_log2) - (self.now >> span_log2) < LISTS as u64 {
                return (level, list_of(tick >> span_log2));
            }
        }
        let span_log2 = LISTS_LOG2 * highest as u32;
        let last = (self.now >> span_log2) + (LISTS as u64 - 1);
        (highest, list_of((tick >> span_log2).min(last)))
    }
}

/// A token's deadline and its neighbours in the list.
#[derive(Clone, Copy, Debug)]
struct Timer {
    tick: u64,
    next: u32,
    /// A token; or [`FIRST`] and the list's number; or, in no list, [`NONE`].
    previous: u32,
}

impl Timer {
    const UNSET: Self = Self {
        tick: 0,
        next: NONE,
        previous: NONE,
    };

    fn is_set(&self) -> bool {
        self.previous != NONE
    }
}

/// The lists of one level, in a circle.
#[derive(Debug)]
struct Level {
    firsts: Box<[u32]>,
    occupied: Occupied,
}

impl Level {
    fn new() -> Self {
        Self {
            firsts: vec![NONE; LISTS].into_boxed_slice(),
            occupied: Occupied::new(),
        }
    }

    /// The tick at which the first span after `now` begins whose list is not empty.
    fn next_start(&self, level: usize, now: u64) -> Option<u64> {
        let span_log2 = LISTS_LOG2 * level as u32;
        let here = now >> span_log2;
        let list = self.occupied.first_from(list_of(here + 1))?;
        let distance = list.wrapping_sub(list_of(here)) % LISTS;
        assert!(distance > 0, "the list that now lies in is empty");
        Some((here + distance as u64) << span_log2)
    }

    /// Empties a list and returns its first token.
    fn take(&mut self, list: usize) -> u32 {
        self.occupied.remove(list);
        std::mem::replace(&mut self.firsts[list], NONE)
    }
}

/// The list for a span's number.
fn list_of(span: u64) -> usize {
    span as usize % LISTS
}

/// The set of a level's lists that are not empty: a bit for each, and a bit for each word of them.
#[derive(Debug)]
struct Occupied {
    words: [u64; LISTS / 64],
    summary: u64,
}

impl Occupied {
    fn new() -> Self {
        Self {
            words: [0; LISTS / 64],
            summary: 0,
        }
    }

    fn insert(&mut self, list: usize) {
        self.words[list / 64] |= 1 << (list % 64);
        self.summary |= 1 << (list / 64);
    }

    fn remove(&mut self, list: usize) {
        self.words[list / 64] &= !(1 << (list % 64));
        if self.words[list / 64] == 0 {
            self.summary &= !(1 << (list / 64));
        }
    }

    /// The first member from `start` on, going round once.
    fn first_from(&self, start: usize) -> Option<usize> {
        let word = start / 64;
        let ahead = self.words[word] >> (start % 64);
        if ahead != 0 {
            return Some(start + ahead.trailing_zeros() as usize);
        }
        // The word of `start` itself comes last here, with the members before `start`.
        let after = (word + 1) % 64;
        let turned = self.summary.rotate_right(after as u32);
        if turned == 0 {
            return None;
        }
        let found = (after + turned.trailing_zeros() as usize) % 64;
        Some(found * 64 + self.words[found].trailing_zeros() as usize)
    }
}

// One word of summary covers a level.
const _: () = assert!(LISTS / 64 == 64);
// What a connection pays for its timer.
const _: () = assert!(size_of::<Timer>() == 16);

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const TICK_MS: u64 = 64;

    fn advanced(wheel: &mut Wheel, now_ms: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.advance(now_ms, &mut due);
        due
    }

    #[test]
    fn a_timer_fires_once_with_the_tick_at_or_after_its_deadline() {
        let mut wheel = Wheel::new(4, TICK_MS, 0);
        wheel.set(0, 100);
        wheel.set(1, 128);
        wheel.set(2, 129);
        assert_eq!(advanced(&mut wheel, 127), [0u32; 0]);
        assert_eq!(wheel.next_deadline_ms(), Some(128));
        assert_eq!(advanced(&mut wheel, 128), [1, 0]);
        assert_eq!(wheel.next_deadline_ms(), Some(192));
        assert_eq!(advanced(&mut wheel, 5_000), [2]);
        assert_eq!(wheel.next_deadline_ms(), None);
        assert!(!wheel.is_set(2));
    }

    #[test]
    fn a_deadline_that_has_passed_is_due_with_the_next_tick() {
        let mut wheel = Wheel::new(1, TICK_MS, 1_000_000);
        wheel.set(0, 5);
        let next_ms = wheel.next_deadline_ms().unwrap();
        assert!(next_ms > 1_000_000 && next_ms <= 1_000_000 + TICK_MS);
        assert_eq!(advanced(&mut wheel, next_ms), [0]);
    }

    #[test]
    fn a_deadline_can_be_moved_and_cleared_wherever_it_lies_in_its_list() {
        let mut wheel = Wheel::new(8, TICK_MS, 0);
        for token in 0..5 {
            wheel.set(token, 640);
        }
        wheel.clear(0);
        wheel.clear(4);
        wheel.set(2, 6_400);
        wheel.clear(7);
        assert_eq!(advanced(&mut wheel, 640), [3, 1]);
        wheel.set(2, 960);
        assert_eq!(advanced(&mut wheel, 960), [2]);
        assert_eq!(wheel.next_deadline_ms(), None);
    }

    #[test]
    fn a_deadline_beyond_the_highest_level_goes_round_until_its_time() {
        const FAR_MS: u64 = 5 << 36;
        let mut wheel = Wheel::new(2, 1, 0);
        wheel.set(0, FAR_MS);
        wheel.set(1, u64::MAX);
        assert_eq!(advanced(&mut wheel, FAR_MS - 1), [0u32; 0]);
        assert_eq!(wheel.next_deadline_ms(), Some(FAR_MS));
        assert_eq!(advanced(&mut wheel, FAR_MS), [0]);
        assert!(wheel.is_set(1));
    }

    #[test]
    fn a_timer_that_is_far_away_wakes_its_shard_at_most_twice_before() {
        let mut wheel = Wheel::new(1, TICK_MS, 12_345);
        wheel.set(0, 40 * 24 * 3_600_000);
        let mut due = Vec::new();
        let mut wakes = 0;
        while due.is_empty() {
            wheel.advance(wheel.next_deadline_ms().unwrap(), &mut due);
            wakes += 1;
        }
        assert!(wakes <= 3, "{wakes} wakes for one timer");
    }

    #[test]
    fn growth_moves_nothing() {
        let mut wheel = Wheel::new(1_000_000, TICK_MS, 0);
        wheel.set(0, 1_000);
        let first = &raw const wheel.timers[0];
        wheel.set(999_999, 1_000);
        assert_eq!(first, &raw const wheel.timers[0]);
    }

    #[test]
    #[should_panic(expected = "beyond the wheel's capacity")]
    fn a_token_beyond_the_capacity_is_our_own_fault() {
        Wheel::new(4, TICK_MS, 0).set(4, 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// The token's deadline becomes so many ms from a second ago.
        Set(u32, u64),
        Clear(u32),
        Advance(u64),
        /// Sleep as long as the wheel allows.
        Sleep,
    }

    /// Lengths of time of all orders of magnitude, so that every level is met.
    fn milliseconds(bits_max: u32) -> impl Strategy<Value = u64> {
        (0..=bits_max, any::<u64>()).prop_map(|(bits, random)| random & ((1 << bits) - 1))
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..24_u32, milliseconds(44)).prop_map(|(token, ms)| Step::Set(token, ms)),
            2 => (0..24_u32, milliseconds(12)).prop_map(|(token, ms)| Step::Set(token, ms)),
            1 => (0..24_u32).prop_map(Step::Clear),
            2 => milliseconds(36).prop_map(Step::Advance),
            3 => Just(Step::Sleep),
        ]
    }

    proptest! {
        #[test]
        fn a_wheel_is_a_sorted_map_of_deadlines(
            steps in prop::collection::vec(step(), 1..300),
            start_ms in milliseconds(50),
            resolution_ms in prop_oneof![Just(1_u64), Just(64), Just(100), 1..5_000_u64],
        ) {
            let mut now_ms = start_ms;
            let mut wheel = Wheel::new(24, resolution_ms, now_ms);
            let mut model = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Set(token, ms) => {
                        let earliest_ms = (now_ms + ms).saturating_sub(1_000);
                        let latest_ms = earliest_ms.max(now_ms) + resolution_ms;
                        wheel.set(token, earliest_ms);
                        model.insert(token, Window { earliest_ms, latest_ms });
                    }
                    Step::Clear(token) => {
                        wheel.clear(token);
                        model.remove(&token);
                    }
                    Step::Advance(ms) => {
                        now_ms += ms;
                        check_advance(&mut wheel, &mut model, now_ms)?;
                    }
                    Step::Sleep => {
                        if let Some(next_ms) = wheel.next_deadline_ms() {
                            prop_assert!(next_ms > now_ms);
                            now_ms = next_ms;
                            check_advance(&mut wheel, &mut model, now_ms)?;
                        }
                    }
                }
                prop_assert_eq!(wheel.next_deadline_ms().is_none(), model.is_empty());
                if let Some(next_ms) = wheel.next_deadline_ms() {
                    prop_assert!(model.values().all(|window| next_ms <= window.latest_ms));
                }
                for token in 0..24 {
                    prop_assert_eq!(wheel.is_set(token), model.contains_key(&token));
                }
            }
        }

        #[test]
        fn occupied_finds_the_first_member_going_round(
            members in prop::collection::btree_set(0..LISTS, 0..6),
            gone in prop::collection::btree_set(0..LISTS, 0..6),
            start in 0..LISTS,
        ) {
            let mut occupied = Occupied::new();
            for &list in members.union(&gone) {
                occupied.insert(list);
            }
            for &list in &gone {
                occupied.remove(list);
            }
            let members: BTreeSet<usize> = members.difference(&gone).copied().collect();
            let expected = members.range(start..).chain(members.range(..start)).next();
            prop_assert_eq!(occupied.first_from(start), expected.copied());
        }
    }

    /// When a timer may fire.
    struct Window {
        earliest_ms: u64,
        latest_ms: u64,
    }

    fn check_advance(
        wheel: &mut Wheel,
        model: &mut BTreeMap<u32, Window>,
        now_ms: u64,
    ) -> Result<(), TestCaseError> {
        for token in advanced(wheel, now_ms) {
            let Some(window) = model.remove(&token) else {
                return Err(TestCaseError::fail(format!(
                    "token {token} had no deadline"
                )));
            };
            prop_assert!(window.earliest_ms <= now_ms, "token {token} fired early");
        }
        for (token, window) in model {
            prop_assert!(now_ms < window.latest_ms, "token {token} is late");
        }
        Ok(())
    }
}
