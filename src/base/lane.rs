//! A lane: the lock-free bounded ring that carries letters from one shard to one other.
//!
//! There is one lane for each ordered pair of shards, so each end has one owner: a [`Sender`] in
//! the shard that writes, a [`Receiver`] in the shard that reads. Both ends count letters, from
//! the first one on: `pushed` is written by the sender alone and `popped` by the receiver alone.
//! A letter lies in slot `count % capacity`. Each end keeps the other's count as it last read it,
//! so that the two shards share a cache line only when a lane seems full or seems empty.
//!
//! Invariants:
//! - `popped <= pushed <= popped + capacity`, in counts that may go round.
//! - A slot holds a letter exactly while its count is in `popped..pushed`. Outside of that range
//!   it belongs to the sender, inside to the receiver.
//! - A full lane refuses: the letter comes back and the sender decides. Neither end ever waits.
//! - The memory of a slot is touched by the first letter that lies in it, not before.
//!
//! Whoever has pushed rings the peer's [`Doorbell`](super::sleep::Doorbell) afterwards.

use std::mem::MaybeUninit;

use crossbeam::utils::CachePadded;

use super::atomics::{Arc, AtomicUsize, Ordering, UnsafeCell};

/// Makes a lane for `capacity` letters, a power of two.
pub fn lane<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    lane_counting_from(0, capacity)
}

/// The end that posts.
pub struct Sender<T> {
    ring: Arc<Ring<T>>,
    /// Letters pushed so far: the sender's own copy of `ring.pushed`.
    pushed: usize,
    /// `ring.popped` as last read; the true count is this one or higher.
    popped_seen: usize,
}

impl<T: Send> Sender<T> {
    /// Puts the letter behind all others, or gives it back because the lane is full.
    pub fn push(&mut self, letter: T) -> Result<(), T> {
        if !self.has_room(1) {
            return Err(letter);
        }
        self.ring.slot(self.pushed).with_mut(|slot| {
            // SAFETY: has_room says that this slot's last letter was popped, and the receiver
            // leaves a slot alone until `pushed` passes it; there is only one sender.
            unsafe { (*slot).write(letter) };
        });
        self.pushed = self.pushed.wrapping_add(1);
        self.ring.pushed.store(self.pushed, Ordering::Release);
        Ok(())
    }

    /// Whether the next `letters` pushes will all succeed. Reads the receiver's count only when
    /// the one last seen does not answer. Asking for more than the capacity is our own fault:
    /// that room would never come.
    pub fn has_room(&mut self, letters: usize) -> bool {
        assert!(
            letters <= self.capacity(),
            "a lane never has room for more letters than its capacity"
        );
        if self.free_seen() < letters {
            self.popped_seen = self.ring.popped.load(Ordering::Acquire);
        }
        self.free_seen() >= letters
    }

    /// How many pushes will succeed now, or more if the receiver pops meanwhile. Reads the
    /// receiver's count; where a yes or no is enough, [`Sender::has_room`] is cheaper.
    pub fn free(&mut self) -> usize {
        self.popped_seen = self.ring.popped.load(Ordering::Acquire);
        self.free_seen()
    }

    pub fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    fn free_seen(&self) -> usize {
        let in_flight = self.pushed.wrapping_sub(self.popped_seen);
        assert!(
            in_flight <= self.capacity(),
            "a lane holds at most its capacity"
        );
        self.capacity() - in_flight
    }
}

/// The end that reads.
pub struct Receiver<T> {
    ring: Arc<Ring<T>>,
    /// Letters popped so far: the receiver's own copy of `ring.popped`.
    popped: usize,
    /// `ring.pushed` as last read; the true count is this one or higher.
    pushed_seen: usize,
}

impl<T: Send> Receiver<T> {
    /// Takes the oldest letter.
    pub fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let letter = self.ring.slot(self.popped).with_mut(|slot| {
            // SAFETY: `pushed` has passed this slot, so the sender wrote a letter into it and
            // leaves it alone until `popped` passes too, which happens below, once.
            unsafe { (*slot).assume_init_read() }
        });
        self.popped = self.popped.wrapping_add(1);
        self.ring.popped.store(self.popped, Ordering::Release);
        Some(letter)
    }

    /// Whether there is no letter. Reads the sender's count when all letters known of are popped,
    /// so after [`Doorbell::announce`](super::sleep::Doorbell::announce) this is the second look.
    pub fn is_empty(&mut self) -> bool {
        if self.popped == self.pushed_seen {
            self.pushed_seen = self.ring.pushed.load(Ordering::Acquire);
        }
        self.popped == self.pushed_seen
    }

    pub fn capacity(&self) -> usize {
        self.ring.capacity()
    }
}

/// What both ends share.
struct Ring<T> {
    pushed: CachePadded<AtomicUsize>,
    popped: CachePadded<AtomicUsize>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: the ends hand each slot to and fro by the Release stores and Acquire loads of the two
// counts, so that a slot has one user at a time. Letters go from thread to thread, hence T: Send;
// no two threads ever see the same letter, so T need not be Sync.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    fn slot(&self, count: usize) -> &UnsafeCell<MaybeUninit<T>> {
        // The capacity is a power of two, so this is the remainder, also where counts go round.
        &self.slots[count & (self.slots.len() - 1)]
    }

    fn capacity(&self) -> usize {
        self.slots.len()
    }
}

impl<T> Drop for Ring<T> {
    /// Both ends are gone; the letters nobody popped go with the ring.
    fn drop(&mut self) {
        let pushed = self.pushed.load(Ordering::Relaxed);
        let mut count = self.popped.load(Ordering::Relaxed);
        while count != pushed {
            self.slot(count).with_mut(|slot| {
                // SAFETY: counts in popped..pushed are letters that were written and not yet
                // popped. Arc runs this drop once, after both ends' last access.
                unsafe { (*slot).assume_init_drop() };
            });
            count = count.wrapping_add(1);
        }
    }
}

/// Tests start the counts just before they go round.
fn lane_counting_from<T: Send>(start: usize, capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(
        capacity.is_power_of_two(),
        "a lane's capacity is a power of two, not {capacity}"
    );
    let ring = Arc::new(Ring {
        pushed: CachePadded::new(AtomicUsize::new(start)),
        popped: CachePadded::new(AtomicUsize::new(start)),
        slots: (0..capacity)
            .map(|_| UnsafeCell::new(MaybeUninit::uninit()))
            .collect(),
    });
    let sender = Sender {
        ring: ring.clone(),
        pushed: start,
        popped_seen: start,
    };
    let receiver = Receiver {
        ring,
        popped: start,
        pushed_seen: start,
    };
    (sender, receiver)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use crossbeam::utils::Backoff;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_lane_gives_the_letter_back() {
        let (mut sender, mut receiver) = lane(2);
        assert_eq!(sender.push('a'), Ok(()));
        assert_eq!(sender.push('b'), Ok(()));
        assert_eq!(sender.push('c'), Err('c'));
        assert_eq!(receiver.pop(), Some('a'));
        assert_eq!(sender.push('d'), Ok(()));
        assert_eq!(receiver.pop(), Some('b'));
        assert_eq!(receiver.pop(), Some('d'));
        assert_eq!(receiver.pop(), None);
    }

    #[test]
    fn each_letter_is_dropped_once_whether_it_was_popped_or_not() {
        let letter = Arc::new(());
        let (mut sender, mut receiver) = lane(8);
        for _ in 0..5 {
            sender.push(letter.clone()).unwrap();
        }
        drop(receiver.pop());
        assert_eq!(Arc::strong_count(&letter), 5);
        drop(receiver);
        sender.push(letter.clone()).unwrap();
        assert_eq!(Arc::strong_count(&letter), 6);
        drop(sender);
        assert_eq!(Arc::strong_count(&letter), 1);
    }

    #[test]
    fn letters_without_a_size_can_be_counted_too() {
        let (mut sender, mut receiver) = lane(1);
        assert_eq!(sender.push(()), Ok(()));
        assert_eq!(sender.push(()), Err(()));
        assert_eq!(receiver.pop(), Some(()));
        assert!(receiver.is_empty());
    }

    #[test]
    fn a_lane_that_carries_nothing_touches_no_memory() {
        const CAPACITY_BYTES: u64 = 256 << 20;
        let before = resident_bytes();
        let (mut sender, _receiver) = lane::<[u64; 8]>(CAPACITY_BYTES as usize / 64);
        sender.push([7; 8]).unwrap();
        let grown = resident_bytes().saturating_sub(before);
        // Tests run side by side in this process, hence the margin.
        assert!(grown < CAPACITY_BYTES / 4, "the lane touched {grown} bytes");
    }

    #[test]
    #[should_panic(expected = "power of two")]
    fn a_capacity_that_is_no_power_of_two_is_refused() {
        lane::<u8>(3);
    }

    #[test]
    fn two_threads_pass_every_letter_in_order() {
        const LETTERS: usize = 200_000;
        let (mut sender, mut receiver) = lane(64);
        let writer = std::thread::spawn(move || {
            let backoff = Backoff::new();
            for number in 0..LETTERS {
                while sender.push(Box::new(number)).is_err() {
                    backoff.snooze();
                }
                backoff.reset();
            }
        });
        let backoff = Backoff::new();
        for number in 0..LETTERS {
            let letter = loop {
                match receiver.pop() {
                    Some(letter) => break letter,
                    None => backoff.snooze(),
                }
            };
            backoff.reset();
            assert_eq!(*letter, number);
        }
        writer.join().unwrap();
        assert!(receiver.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Pop,
        HasRoom(usize),
        Free,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Push),
            3 => Just(Step::Pop),
            1 => (0..=16_usize).prop_map(Step::HasRoom),
            1 => Just(Step::Free),
        ]
    }

    proptest! {
        #[test]
        fn a_lane_is_a_bounded_queue(
            steps in prop::collection::vec(step(), 0..200),
            capacity_log2 in 0..5_u32,
            counts_before_going_round in 0..40_usize,
        ) {
            let capacity = 1 << capacity_log2;
            let start = 0_usize.wrapping_sub(counts_before_going_round);
            // Letters on the heap, so that one dropped twice or never read shows.
            let (mut sender, mut receiver) = lane_counting_from(start, capacity);
            let mut model = VecDeque::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push => {
                        let pushed = sender.push(Box::new(number));
                        if model.len() < capacity {
                            prop_assert_eq!(pushed, Ok(()));
                            model.push_back(Box::new(number));
                        } else {
                            prop_assert_eq!(pushed, Err(Box::new(number)));
                        }
                    }
                    Step::Pop => prop_assert_eq!(receiver.pop(), model.pop_front()),
                    Step::HasRoom(letters) => {
                        let letters = letters.min(capacity);
                        prop_assert_eq!(
                            sender.has_room(letters),
                            model.len() + letters <= capacity
                        );
                    }
                    Step::Free => prop_assert_eq!(sender.free(), capacity - model.len()),
                }
                prop_assert_eq!(receiver.is_empty(), model.is_empty());
            }
        }
    }

    fn resident_bytes() -> u64 {
        let sizes = std::fs::read_to_string("/proc/self/statm").expect("Linux tells of memory");
        let resident = sizes.split(' ').nth(1).map(str::parse::<u64>);
        let pages = resident.expect("a second field").expect("a number");
        pages * rustix::param::page_size() as u64
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn the_receiver_sees_nothing_or_the_letter() {
        loom::model(|| {
            let (mut sender, mut receiver) = lane(2);
            let writer = thread::spawn(move || sender.push(7));
            assert!(matches!(receiver.pop(), None | Some(7)));
            assert_eq!(writer.join().unwrap(), Ok(()));
        });
    }

    #[test]
    fn a_full_lane_takes_a_letter_only_after_one_was_popped() {
        loom::model(|| {
            let (mut sender, mut receiver) = lane(1);
            sender.push(1).unwrap();
            let writer = thread::spawn(move || sender.push(2));
            assert_eq!(receiver.pop(), Some(1));
            let second = writer.join().unwrap();
            assert_eq!(receiver.pop(), second.is_ok().then_some(2));
            assert_eq!(receiver.pop(), None);
        });
    }

    #[test]
    fn letters_keep_their_order_where_the_counts_go_round() {
        const LETTERS: usize = 4;
        loom::model(|| {
            let (mut sender, mut receiver) = lane_counting_from(usize::MAX - 1, 2);
            let writer = thread::spawn(move || {
                for number in 0..LETTERS {
                    while sender.push(number).is_err() {
                        thread::yield_now();
                    }
                }
            });
            for number in 0..LETTERS {
                let letter = loop {
                    match receiver.pop() {
                        Some(letter) => break letter,
                        None => thread::yield_now(),
                    }
                };
                assert_eq!(letter, number);
            }
            writer.join().unwrap();
            assert!(receiver.is_empty());
        });
    }

    #[test]
    fn letters_left_behind_are_dropped_with_the_lane() {
        loom::model(|| {
            let letter = Arc::new(());
            let (mut sender, mut receiver) = lane(2);
            let posted = letter.clone();
            let writer = thread::spawn(move || {
                sender.push(posted.clone()).unwrap();
                sender.push(posted).unwrap();
            });
            drop(receiver.pop());
            drop(receiver);
            writer.join().unwrap();
            assert_eq!(Arc::strong_count(&letter), 1);
        });
    }
}
