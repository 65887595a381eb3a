//! The subscribers of one channel on one shard, and the sweep that brings them to the head.
//!
//! A subscriber is a cursor. A sweep goes round the array of subscribers and hands out one visit
//! for each whose cursor is behind the head; it is over when everyone was looked at since the head
//! last moved. The head may move while a sweep is under way: those not yet visited then get more
//! in the same visit. Nothing is queued for a subscriber, so a sweep can stop after any visit and go
//! on later.
//!
//! Invariants:
//! - Everyone below `next` in the array was visited in this lap, everyone from it on in the lap
//!   before. Leaving keeps it so: a hole is never filled across that line.
//! - No cursor of a subscriber that takes its bytes is below the floor, so the log before the floor
//!   is not needed by them.

use smallvec::SmallVec;

use crate::base::limits;
use crate::base::slots::SlotSet;
use crate::base::slow::Slow;
use crate::hub::log::Log;

/// One subscription as the sweep sees it: 16 bytes, read in sequence.
#[derive(Clone, Copy, Debug)]
pub struct Subscriber {
    /// The position up to which its socket was given the channel's frames, or [`WAITING`],
    /// [`CATCHING_UP`] or, of one that is parked ([`parking`](super::parking)), a serial.
    pub cursor: u64,
    pub slot: u32,
    /// What becomes of it when it is slow.
    pub slow: Slow,
}

const _: () = assert!(size_of::<Subscriber>() == 16);

/// The cursor of a subscriber whose channel has not yet been joined at its home.
pub const WAITING: u64 = u64::MAX;

/// The cursor of a subscriber that gets retained events before live ones: like every cursor at a
/// head or past it, no sweep has anything for it.
pub const CATCHING_UP: u64 = u64::MAX - 1;

/// What a cursor says of its subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    AtHead,
    /// It was given the frames before this position, which is before the head.
    Behind(u64),
    /// [`WAITING`]: its first frame is not sequenced yet, as far as is known here.
    Waiting,
    /// [`CATCHING_UP`]: its backlog says how far it is.
    CatchingUp,
    /// It has the channel's events up to this serial, and goes on from what is retained when its
    /// socket takes bytes again.
    Parked(u64),
}

impl Subscriber {
    /// Every look at cursors that is not the sweep's own asks this: beyond the head a cursor is a
    /// word, not a position.
    pub fn standing(&self, head: u64) -> Standing {
        match self.cursor {
            WAITING => Standing::Waiting,
            CATCHING_UP => Standing::CatchingUp,
            cursor if cursor < head => Standing::Behind(cursor),
            _ => match self.parked_at() {
                Some(serial) => Standing::Parked(serial),
                None => Standing::AtHead,
            },
        }
    }
}

/// A frame that one subscriber does not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    pub slot: u32,
    pub start: u64,
    pub end: u64,
}

/// One send straight from the log: from `start` to the head, to the socket in `slot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    pub start: u64,
    pub slot: u32,
    /// Its place in the array of subscribers.
    pub index: u32,
}

/// The sweep of a channel that moved, and the log it reads. A channel that is quiet has none.
#[derive(Debug, Default)]
pub struct Sweep {
    pub log: Log,
    /// Frames that some subscriber does not get.
    pub exceptions: Vec<Exception>,
    /// Whose turn it is.
    next: usize,
    /// How many are to be looked at before everyone was, since the head last moved.
    remaining: usize,
    /// The head when the sweep last came to the end of the array, and the time before.
    wrapped: u64,
    wrapped_before: u64,
    /// The lowest cursor of those that could not be sent to, in the last lap and in this one.
    held_back: u64,
    held_back_this_lap: u64,
    /// When the lap that is measured began, in whatever unit the caller counts, and how many are to
    /// be looked at before it is over. None are left when no lap is measured.
    lap_began: u64,
    lap_left: usize,
}

/// What a sweep did before it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Visits and indirect subscribers handed out.
    pub handed_out: usize,
    pub looked_at: usize,
    /// When the lap began that is over.
    pub lap: Option<u64>,
}

impl Sweep {
    /// Starts anew for a channel whose subscribers all stand at `head`.
    pub fn restart(&mut self, head: u64) {
        self.log.restart(head);
        self.exceptions.clear();
        (self.next, self.remaining) = (0, 0);
        (self.wrapped, self.wrapped_before) = (head, head);
        (self.held_back, self.held_back_this_lap) = (u64::MAX, u64::MAX);
        self.lap_left = 0;
    }

    /// Measures how long it takes until all of `subscribers` were looked at, unless that is being
    /// measured.
    pub fn begin_lap(&mut self, subscribers: usize, now: u64) {
        if self.lap_left == 0 {
            (self.lap_began, self.lap_left) = (now, subscribers);
        }
    }

    /// The head moved on from `before`: all of `subscribers` are to be looked at.
    pub fn head_moved(&mut self, subscribers: usize, before: u64) {
        if self.is_done() {
            // Everyone was brought there, wherever in the array that ended.
            (self.wrapped, self.wrapped_before) = (before, before);
        }
        self.remaining = subscribers;
        if self.next >= subscribers {
            self.next = 0;
        }
    }

    /// Whether everyone was looked at since the head last moved.
    pub fn is_done(&self) -> bool {
        self.remaining == 0
    }

    /// Looks at subscribers in turn. Those behind the head go into `visits`, with their cursor
    /// moved to the head, if their socket is `direct` and the log has what they need; else their
    /// place goes into `indirect`.
    pub fn run(
        &mut self,
        subscribers: &mut [Subscriber],
        direct: &SlotSet,
        budget: usize,
        visits: &mut Vec<Visit>,
        indirect: &mut Vec<u32>,
    ) -> Progress {
        let (tail, head) = (self.log.tail(), self.log.head());
        let (mut handed_out, mut looked_at) = (0, 0);
        while self.remaining > 0 && handed_out < budget && looked_at < limits::LOOKS_PER_TURN {
            let run = self
                .remaining
                .min(subscribers.len() - self.next)
                .min(limits::LOOKS_PER_TURN);
            let first = self.next;
            let mut looked = 0;
            for (offset, subscriber) in subscribers[first..first + run].iter_mut().enumerate() {
                if handed_out == budget {
                    break;
                }
                looked += 1;
                if subscriber.cursor >= head {
                    continue;
                }
                handed_out += 1;
                let index = (first + offset) as u32;
                // Frames may have been evicted from one that was blocked until this turn.
                if direct.contains(subscriber.slot) && subscriber.cursor >= tail {
                    visits.push(Visit {
                        start: subscriber.cursor,
                        slot: subscriber.slot,
                        index,
                    });
                    subscriber.cursor = head;
                } else {
                    indirect.push(index);
                }
            }
            looked_at += looked;
            self.next += looked;
            self.remaining -= looked;
            if self.next == subscribers.len() {
                self.wrap(head);
            }
        }
        let was_measured = self.lap_left > 0;
        self.lap_left = match self.is_done() {
            true => 0,
            false => self.lap_left.saturating_sub(looked_at),
        };
        Progress {
            handed_out,
            looked_at,
            lap: (was_measured && self.lap_left == 0).then_some(self.lap_began),
        }
    }

    /// A subscriber stays at `cursor` because its socket takes nothing.
    pub fn hold_back(&mut self, cursor: u64) {
        self.held_back = self.held_back.min(cursor);
        self.held_back_this_lap = self.held_back_this_lap.min(cursor);
    }

    /// No subscriber that takes its bytes is behind this position.
    pub fn floor(&self) -> u64 {
        if self.is_done() {
            self.log.head()
        } else {
            self.wrapped_before
        }
    }

    /// No subscriber at all is behind this position, unless its frames were evicted.
    pub fn floor_of_all(&self) -> u64 {
        self.floor()
            .min(self.held_back)
            .min(self.held_back_this_lap)
    }

    /// Looks at everyone at once, to find what those that were held back still need.
    pub fn audit(&mut self, subscribers: &[Subscriber]) {
        let lowest = subscribers.iter().map(|subscriber| subscriber.cursor).min();
        let lowest = lowest
            .filter(|cursor| *cursor < self.log.head())
            .unwrap_or(u64::MAX);
        (self.held_back, self.held_back_this_lap) = (lowest, lowest);
    }

    /// Forgets the exceptions that nobody can come to any more, and adds their slots to `passed`.
    pub fn forget_passed_exceptions(&mut self, passed: &mut Vec<u32>) {
        let floor = self.floor_of_all();
        self.exceptions.retain(|exception| {
            let is_passed = exception.end <= floor;
            if is_passed {
                passed.push(exception.slot);
            }
            !is_passed
        });
    }

    /// The runs from `cursor` to the head that the subscriber in `slot` gets, in order.
    pub fn pieces(&self, slot: u32, cursor: u64) -> SmallVec<[(u64, u64); 2]> {
        let mut pieces = SmallVec::new();
        let mut from = cursor;
        for exception in self
            .exceptions
            .iter()
            .filter(|exception| exception.slot == slot)
        {
            if exception.end <= from {
                continue;
            }
            if exception.start > from {
                pieces.push((from, exception.start));
            }
            from = exception.end;
        }
        if from < self.log.head() {
            pieces.push((from, self.log.head()));
        }
        pieces
    }

    /// Notes that the subscriber in `slot` does not get the frame between two positions. Returns
    /// whether it is a new entry: adjoining frames share one.
    pub fn except(&mut self, exception: Exception) -> bool {
        let last = self
            .exceptions
            .iter_mut()
            .rev()
            .find(|noted| noted.slot == exception.slot);
        if let Some(last) = last
            && last.end == exception.start
        {
            last.end = exception.end;
            return false;
        }
        self.exceptions.push(exception);
        true
    }

    fn wrap(&mut self, head: u64) {
        self.next = 0;
        self.wrapped_before = self.wrapped;
        self.wrapped = head;
        self.held_back = self.held_back_this_lap;
        self.held_back_this_lap = u64::MAX;
    }
}

/// The subscribers of a channel; one costs no allocation.
pub type Subscribers = SmallVec<[Subscriber; 1]>;

/// A slot, and the new place of its subscriber in the array.
pub type Moved = (u32, u32);

/// Adds a subscriber, and returns its place.
pub fn join(
    subscribers: &mut Subscribers,
    sweep: Option<&mut Sweep>,
    subscriber: Subscriber,
) -> u32 {
    if let Some(sweep) = sweep
        && !sweep.is_done()
    {
        // Those before the line come one place later in the round.
        sweep.remaining += 1;
    }
    subscribers.push(subscriber);
    (subscribers.len() - 1) as u32
}

/// Takes the subscriber at `index` out. Returns who moved, and where to. A sweep that is under way
/// still looks at everyone it had not looked at.
pub fn leave(
    subscribers: &mut Subscribers,
    sweep: Option<&mut Sweep>,
    index: u32,
) -> SmallVec<[Moved; 2]> {
    let mut moved = SmallVec::new();
    let mut hole = index as usize;
    if let Some(sweep) = sweep {
        if hole < sweep.next {
            // The hole is among those visited in this lap: the last of them fills it, so that the
            // hole comes to lie on the line between them and the others.
            sweep.next -= 1;
            if hole != sweep.next {
                subscribers[hole] = subscribers[sweep.next];
                moved.push((subscribers[hole].slot, hole as u32));
                hole = sweep.next;
            }
            // Whoever comes to stand on the line is looked at, at worst once too often.
            sweep.remaining = if sweep.is_done() {
                0
            } else {
                sweep.remaining + 1
            };
        }
        sweep.remaining = sweep.remaining.min(subscribers.len() - 1);
    }
    subscribers.swap_remove(hole);
    if hole < subscribers.len() {
        moved.push((subscribers[hole].slot, hole as u32));
    }
    if subscribers.spilled() && subscribers.len() * 4 < subscribers.capacity() {
        subscribers.grow(subscribers.len() * 2);
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Publish(usize),
        Run(usize),
        Join,
        Leave(usize),
        Block(usize),
        Unblock(usize),
        Audit,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (1usize..9).prop_map(Step::Publish),
            6 => (0usize..7).prop_map(Step::Run),
            2 => Just(Step::Join),
            2 => any::<prop::sample::Index>().prop_map(|at| Step::Leave(at.index(1 << 20))),
            1 => any::<prop::sample::Index>().prop_map(|at| Step::Block(at.index(1 << 20))),
            1 => any::<prop::sample::Index>().prop_map(|at| Step::Unblock(at.index(1 << 20))),
            1 => Just(Step::Audit),
        ];
        prop::collection::vec(step, 1..300)
    }

    const SLOTS: u32 = 512;

    fn subscriber(slot: u32, cursor: u64) -> Subscriber {
        let slow = Slow::Disconnect;
        Subscriber { cursor, slot, slow }
    }

    /// A channel with sockets that only remember what they were sent.
    struct Model {
        subscribers: Subscribers,
        sweep: Sweep,
        direct: SlotSet,
        sent: std::collections::HashMap<u32, u64>,
        slots: u32,
    }

    impl Model {
        fn join(&mut self) {
            if self.slots == SLOTS {
                return;
            }
            let slot = self.slots;
            self.slots += 1;
            self.direct.set(slot, true);
            let head = self.sweep.log.head();
            let index = join(
                &mut self.subscribers,
                Some(&mut self.sweep),
                subscriber(slot, head),
            );
            assert_eq!(self.subscribers[index as usize].slot, slot);
            self.sent.insert(slot, head);
        }

        fn run(&mut self, budget: usize) {
            let (mut visits, mut indirect) = (Vec::new(), Vec::new());
            let head = self.sweep.log.head();
            let sweep = &mut self.sweep;
            sweep.run(
                &mut self.subscribers,
                &self.direct,
                budget,
                &mut visits,
                &mut indirect,
            );
            for visit in visits {
                let had = self.sent.insert(visit.slot, head);
                assert_eq!(
                    had,
                    Some(visit.start),
                    "a visit starts where the last one ended"
                );
                assert_eq!(self.subscribers[visit.index as usize].slot, visit.slot);
                sweep.log.slice(visit.start, head);
            }
            for index in indirect {
                sweep.hold_back(self.subscribers[index as usize].cursor);
            }
            sweep.log.trim(sweep.floor_of_all());
            for subscriber in &self.subscribers {
                assert!(subscriber.cursor >= sweep.floor_of_all());
                if self.direct.contains(subscriber.slot) {
                    assert!(subscriber.cursor >= sweep.floor());
                    assert!(
                        !sweep.is_done() || subscriber.cursor == head,
                        "nobody is left out"
                    );
                }
            }
        }
    }

    #[test]
    fn a_lap_is_over_when_everyone_was_looked_at_though_the_head_moves_on() {
        let mut sweep = Sweep::default();
        sweep.restart(0);
        let mut direct = SlotSet::new(SLOTS);
        let mut subscribers = Subscribers::new();
        for slot in 0..6 {
            direct.set(slot, true);
            join(&mut subscribers, None, subscriber(slot, 0));
        }
        let mut run = |sweep: &mut Sweep, budget| {
            let (visits, indirect) = (&mut Vec::new(), &mut Vec::new());
            sweep
                .run(&mut subscribers, &direct, budget, visits, indirect)
                .lap
        };
        let publish = |sweep: &mut Sweep, now| {
            let before = sweep.log.head();
            sweep.log.append(b"frame", [5].into_iter(), 0);
            sweep.head_moved(6, before);
            sweep.begin_lap(6, now);
        };
        publish(&mut sweep, 100);
        assert_eq!(run(&mut sweep, 4), None);
        publish(&mut sweep, 200);
        assert_eq!(run(&mut sweep, 4), Some(100));
        sweep.begin_lap(6, 300);
        assert_eq!(run(&mut sweep, 1), None);
        assert_eq!(run(&mut sweep, 4), Some(300), "it is over when all is done");
        assert_eq!(run(&mut sweep, 4), None);
        publish(&mut sweep, 400);
        assert_eq!(run(&mut sweep, 6), Some(400));
    }

    proptest! {
        /// Whoever joins, leaves or blocks while sweeps stop and go on: nobody misses a byte or
        /// gets one twice, and the log keeps what anyone still needs.
        #[test]
        fn a_sweep_leaves_nobody_out(steps in steps()) {
            let mut model = Model {
                subscribers: Subscribers::new(),
                sweep: Sweep::default(),
                direct: SlotSet::new(SLOTS),
                sent: Default::default(),
                slots: 0,
            };
            model.sweep.restart(1000);
            model.join();
            let mut floor = model.sweep.floor();
            for step in steps {
                let count = model.subscribers.len();
                match step {
                    Step::Publish(length) => {
                        let before = model.sweep.log.head();
                        model.sweep.log.append(&vec![7; length], [length].into_iter(), 0);
                        model.sweep.head_moved(count, before);
                    }
                    Step::Run(budget) => model.run(budget),
                    Step::Join => model.join(),
                    Step::Leave(at) if count > 1 => {
                        let index = (at % count) as u32;
                        for (slot, place) in leave(&mut model.subscribers, Some(&mut model.sweep), index) {
                            prop_assert_eq!(model.subscribers[place as usize].slot, slot);
                        }
                        prop_assert_eq!(model.subscribers.len(), count - 1);
                    }
                    Step::Block(at) if count > 0 => {
                        model.direct.set(model.subscribers[at % count].slot, false);
                        model.sweep.hold_back(model.subscribers[at % count].cursor);
                    }
                    Step::Unblock(at) if count > 0 => {
                        let head = model.sweep.log.head();
                        let subscriber = &mut model.subscribers[at % count];
                        if !model.direct.contains(subscriber.slot) {
                            model.sweep.log.slice(subscriber.cursor, head);
                            subscriber.cursor = head;
                            model.sent.insert(subscriber.slot, head);
                            model.direct.set(subscriber.slot, true);
                        }
                    }
                    Step::Audit => model.sweep.audit(&model.subscribers),
                    Step::Leave(_) | Step::Block(_) | Step::Unblock(_) => {}
                }
                prop_assert!(model.sweep.floor() >= floor, "what everyone has, everyone has had");
                floor = model.sweep.floor();
            }
            model.run(usize::MAX);
            prop_assert!(model.sweep.is_done());
        }
    }

    #[test]
    fn exceptions_cut_a_visit_into_pieces() {
        let mut sweep = Sweep::default();
        sweep.restart(0);
        for _ in 0..4 {
            sweep.log.append(b"0123456789", [10].into_iter(), 0);
        }
        assert!(sweep.except(Exception {
            slot: 3,
            start: 10,
            end: 20
        }));
        assert!(!sweep.except(Exception {
            slot: 3,
            start: 20,
            end: 30
        }));
        assert_eq!(sweep.pieces(3, 0).as_slice(), [(0, 10), (30, 40)]);
        assert_eq!(sweep.pieces(3, 10).as_slice(), [(30, 40)]);
        assert_eq!(sweep.pieces(4, 5).as_slice(), [(5, 40)]);
        assert_eq!(sweep.pieces(3, 40).as_slice(), []);
    }

    #[test]
    fn what_a_busy_sweep_sends_in_one_visit_is_all_that_came() {
        let mut subscribers = Subscribers::new();
        let mut sweep = Sweep::default();
        let mut direct = SlotSet::new(8);
        sweep.restart(0);
        for slot in 0..4 {
            direct.set(slot, true);
            join(&mut subscribers, Some(&mut sweep), subscriber(slot, 0));
        }
        let (mut visits, mut indirect) = (Vec::new(), Vec::new());
        sweep.log.append(b"first", [5].into_iter(), 0);
        sweep.head_moved(4, 0);
        sweep.run(&mut subscribers, &direct, 2, &mut visits, &mut indirect);
        sweep.log.append(b"second", [6].into_iter(), 0);
        sweep.head_moved(4, 5);
        sweep.run(&mut subscribers, &direct, 9, &mut visits, &mut indirect);
        let starts: Vec<(u32, u64)> = visits
            .iter()
            .map(|visit| (visit.slot, visit.start))
            .collect();
        assert_eq!(starts, [(0, 0), (1, 0), (2, 0), (3, 0), (0, 5), (1, 5)]);
        assert!(sweep.is_done());
    }
}
