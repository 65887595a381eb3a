//! The sleep protocol: a shard that wants to sleep says so, and whoever posts to it rings.
//!
//! ```text
//!  the owner                                  a sender, any number of them
//!
//!  announce   swap asleep for true            push letters
//!             fence                           ring   fence
//!  look at every lane again                          asleep? no: nothing to do
//!    a letter: withdraw, go on                       yes: swap asleep for false;
//!    none:     sleep in the ring                     who got true out sends the wake
//!  withdraw   swap asleep for false
//! ```
//!
//! Each side writes, fences, and then reads what the other wrote. The fences are in one order that
//! all threads agree on: if the owner's comes first, the sender reads `asleep`; if the sender's
//! comes first, the owner's second look finds the letters. So no letter waits for a shard that
//! sleeps. `sleep::models` has loom try this in every order that three preemptions can make.
//!
//! Every change of `asleep` is a swap, so that the changes stand in one order and each one sees
//! the pushes before it: an owner that was rung finds the letters on its next look, whatever
//! order the wake itself has to memory. Owners change it only when they sleep, so this is cheap.
//!
//! A wake is kept until it is consumed (it is a completion in the peer's ring), so one that is
//! sent between the second look and the sleep is not lost. One that arrives after the owner has
//! withdrawn costs an idle turn, nothing else.
//!
//! A peer that is awake costs its senders one fence and one load of a line that nobody writes.

use crossbeam::utils::CachePadded;

use super::atomics::{AtomicBool, Ordering, fence};

/// Whether one shard sleeps; that shard owns it, and all that post to it share it in an `Arc`.
///
/// ```text
/// awake     -- announce --> announced
/// announced -- ring (true, to one sender) --> rung
/// announced -- withdraw --> awake
/// rung      -- withdraw --> awake
/// ```
///
/// Rung and awake look alike to senders: none of them has anything more to do.
#[derive(Debug, Default)]
pub struct Doorbell {
    asleep: CachePadded<AtomicBool>,
}

impl Doorbell {
    /// The owner means to sleep. It must look at its lanes once more before it does, and must
    /// [`withdraw`](Doorbell::withdraw) whether it slept or not.
    pub fn announce(&self) {
        let announced = self.asleep.swap(true, Ordering::AcqRel);
        assert!(!announced, "a shard withdraws before it announces again");
        fence(Ordering::SeqCst);
    }

    /// The owner is awake: it found letters after all, or it has slept. True if somebody rang, so
    /// that the wake has come or will come.
    pub fn withdraw(&self) -> bool {
        !self.asleep.swap(false, Ordering::AcqRel)
    }

    /// For a sender, after its pushes: whether it has to send the wake. True at most once for each
    /// announcement, and to exactly one sender if the owner sleeps on letters of theirs.
    #[must_use = "true obliges the caller to send the wake; nobody else will"]
    pub fn ring(&self) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;
    use crate::base::lane::lane;

    #[test]
    fn only_the_first_to_ring_after_an_announcement_sends_the_wake() {
        let doorbell = Doorbell::default();
        assert!(!doorbell.ring());
        doorbell.announce();
        assert!(doorbell.ring());
        assert!(!doorbell.ring());
        assert!(doorbell.withdraw());
        doorbell.announce();
        assert!(!doorbell.withdraw());
        assert!(!doorbell.ring());
    }

    #[test]
    #[should_panic(expected = "withdraws before it announces again")]
    fn announcing_twice_is_our_own_fault() {
        let doorbell = Doorbell::default();
        doorbell.announce();
        doorbell.announce();
    }

    #[test]
    fn a_shard_that_sleeps_whenever_it_can_reads_every_letter() {
        const LETTERS: usize = 50_000;
        let doorbell = Arc::new(Doorbell::default());
        let peer = doorbell.clone();
        let (mut sender, mut receiver) = lane(LETTERS.next_power_of_two());
        let (wake, woken) = mpsc::channel();
        let writer = std::thread::spawn(move || {
            for number in 0..LETTERS {
                sender.push(number).unwrap();
                if peer.ring() {
                    wake.send(()).unwrap();
                }
            }
        });
        for number in 0..LETTERS {
            while receiver.is_empty() {
                doorbell.announce();
                if receiver.is_empty() {
                    woken.recv().unwrap();
                }
                doorbell.withdraw();
            }
            assert_eq!(receiver.pop(), Some(number));
        }
        writer.join().unwrap();
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::{Arc, mpsc};
    use loom::thread;

    use super::*;
    use crate::base::lane::{Receiver, lane};

    /// A wake that never came would leave this model blocked for ever, which loom reports.
    #[test]
    fn an_owner_that_found_nothing_is_always_rung() {
        loom::model(|| {
            let doorbell = Arc::new(Doorbell::default());
            let peer = doorbell.clone();
            let (mut sender, receiver) = lane(2);
            let (wake, woken) = mpsc::channel();
            let writer = thread::spawn(move || {
                for number in 0..2 {
                    sender.push(number).unwrap();
                    if peer.ring() {
                        wake.send(()).unwrap();
                    }
                }
            });
            let mut lanes = [receiver];
            assert_eq!(next_letter(&doorbell, &mut lanes, &woken), 0);
            assert_eq!(next_letter(&doorbell, &mut lanes, &woken), 1);
            writer.join().unwrap();
        });
    }

    #[test]
    fn of_two_senders_one_wakes_an_owner_that_sleeps() {
        loom::model(|| {
            let doorbell = Arc::new(Doorbell::default());
            let (wake, woken) = mpsc::channel();
            let mut lanes = Vec::new();
            let mut writers = Vec::new();
            for number in 0..2 {
                let (mut sender, receiver) = lane(1);
                lanes.push(receiver);
                let peer = doorbell.clone();
                let wake = wake.clone();
                writers.push(thread::spawn(move || {
                    sender.push(number).unwrap();
                    if peer.ring() {
                        wake.send(()).unwrap();
                    }
                }));
            }
            let first = next_letter(&doorbell, &mut lanes, &woken);
            let second = next_letter(&doorbell, &mut lanes, &woken);
            assert_eq!(first + second, 1);
            for writer in writers {
                writer.join().unwrap();
            }
        });
    }

    #[test]
    fn an_announcement_is_answered_once() {
        loom::model(|| {
            let doorbell = Arc::new(Doorbell::default());
            doorbell.announce();
            let peer = doorbell.clone();
            let other = thread::spawn(move || peer.ring());
            let here = doorbell.ring();
            assert!(here != other.join().unwrap());
        });
    }

    /// A shard's turns until one of them finds a letter, with a channel for the wakes that its
    /// ring would keep.
    fn next_letter(
        doorbell: &Doorbell,
        lanes: &mut [Receiver<i32>],
        woken: &mpsc::Receiver<()>,
    ) -> i32 {
        loop {
            if let Some(letter) = lanes.iter_mut().find_map(Receiver::pop) {
                return letter;
            }
            doorbell.announce();
            if lanes.iter_mut().all(Receiver::is_empty) {
                woken.recv().expect("a sender's wake");
            }
            doorbell.withdraw();
        }
    }
}
