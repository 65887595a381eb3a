//! What the ring must know of a slot: one byte, so that no close meets a shutdown that still runs, and
//! nothing meets a connection that is on its way to another ring.

use super::tag::GENERATION_MASK;
use crate::ring::Socket;

/// What the ring knows of each slot, in one byte: how many shutdowns run, whether it is to be
/// closed, and whether its connection moves.
///
/// open -> shutting down (begin_shutdown) -> open (end_shutdown)
/// open -> closing (begin_close) -> empty (end_close)
/// shutting down -> held (begin_close) -> closing (end_shutdown of the last)
/// empty -> connecting (begin_connect) -> open (end_connect) -> closing, if it failed (begin_close)
/// open -> moving (begin_move) -> open (fail_move), or closing what is left here -> empty (end_close)
pub(super) struct Slots {
    states: Box<[u8]>,
}

const IS_CLOSING: u8 = 0x80;
const IS_MOVING: u8 = 0x40;
const IS_CONNECTING: u8 = 0x20;
const SHUTDOWNS: u8 = 0x1f;

/// How a slot became empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Emptied {
    Closed,
    Moved,
}

impl Slots {
    pub(super) fn new(count: u32) -> Slots {
        Slots {
            states: vec![0; count as usize].into_boxed_slice(),
        }
    }

    pub(super) fn assert_open(&self, socket: Socket) {
        assert!(socket.generation <= GENERATION_MASK);
        let state = self.states[socket.slot as usize];
        assert!(state & IS_CLOSING == 0, "slot {} is closing", socket.slot);
        assert!(state & IS_MOVING == 0, "slot {} is moving", socket.slot);
        assert!(
            state & IS_CONNECTING == 0,
            "slot {} is connecting",
            socket.slot
        );
    }

    pub(super) fn begin_connect(&mut self, socket: Socket) {
        self.assert_open(socket);
        let state = &mut self.states[socket.slot as usize];
        assert!(*state == 0, "slot {} is not empty", socket.slot);
        *state = IS_CONNECTING;
    }

    /// False if it was told before: a chain of submissions that the kernel took in two parts may
    /// fail twice.
    pub(super) fn end_connect(&mut self, slot: u32) -> bool {
        let state = &mut self.states[slot as usize];
        let was_connecting = *state == IS_CONNECTING;
        if was_connecting {
            *state = 0;
        }
        was_connecting
    }

    pub(super) fn is_shutting_down(&self, slot: u32) -> bool {
        self.states[slot as usize] & SHUTDOWNS != 0
    }

    pub(super) fn begin_shutdown(&mut self, socket: Socket) {
        self.assert_open(socket);
        let state = &mut self.states[socket.slot as usize];
        *state += 1;
        assert!(*state <= SHUTDOWNS, "32 shutdowns of one socket");
    }

    /// True if a close waited for this.
    pub(super) fn end_shutdown(&mut self, slot: u32) -> bool {
        let state = &mut self.states[slot as usize];
        assert!(*state & SHUTDOWNS != 0);
        *state -= 1;
        *state == IS_CLOSING
    }

    pub(super) fn begin_close(&mut self, socket: Socket) {
        self.assert_open(socket);
        self.states[socket.slot as usize] |= IS_CLOSING;
    }

    pub(super) fn begin_move(&mut self, socket: Socket) {
        self.assert_open(socket);
        let state = &mut self.states[socket.slot as usize];
        assert!(*state == 0, "slot {} is shutting down", socket.slot);
        *state = IS_MOVING;
    }

    /// The connection stays.
    pub(super) fn fail_move(&mut self, slot: u32) {
        let state = &mut self.states[slot as usize];
        assert_eq!(*state, IS_MOVING);
        *state = 0;
    }

    pub(super) fn end_close(&mut self, slot: u32) -> Emptied {
        let state = &mut self.states[slot as usize];
        let emptied = match *state {
            IS_CLOSING => Emptied::Closed,
            IS_MOVING => Emptied::Moved,
            state => panic!("slot {slot} was closed in state {state}"),
        };
        *state = 0;
        emptied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_waits_for_every_shutdown() {
        let mut slots = Slots::new(2);
        let socket = Socket {
            slot: 1,
            generation: 9,
        };
        slots.begin_shutdown(socket);
        slots.begin_shutdown(socket);
        assert!(!slots.end_shutdown(1));
        slots.begin_shutdown(socket);
        slots.begin_close(socket);
        assert!(slots.is_shutting_down(1) && !slots.is_shutting_down(0));
        assert!(!slots.end_shutdown(1));
        assert!(slots.end_shutdown(1));
        assert!(!slots.is_shutting_down(1));
        assert_eq!(slots.end_close(1), Emptied::Closed);
        slots.assert_open(socket);
    }

    #[test]
    fn what_moved_leaves_an_empty_slot_and_what_did_not_an_open_one() {
        let mut slots = Slots::new(1);
        let socket = Socket {
            slot: 0,
            generation: 1,
        };
        slots.begin_move(socket);
        slots.fail_move(0);
        slots.begin_move(socket);
        assert_eq!(slots.end_close(0), Emptied::Moved);
        slots.begin_close(socket);
        assert_eq!(slots.end_close(0), Emptied::Closed);
    }

    #[test]
    #[should_panic(expected = "slot 0 is connecting")]
    fn a_slot_that_connects_takes_nothing_else() {
        let mut slots = Slots::new(1);
        let socket = Socket {
            slot: 0,
            generation: 1,
        };
        slots.begin_connect(socket);
        assert!(slots.end_connect(0) && !slots.end_connect(0));
        slots.begin_connect(socket);
        slots.begin_close(socket);
    }

    #[test]
    #[should_panic(expected = "slot 0 is shutting down")]
    fn a_connection_that_shuts_down_does_not_move() {
        let mut slots = Slots::new(1);
        let socket = Socket {
            slot: 0,
            generation: 0,
        };
        slots.begin_shutdown(socket);
        slots.begin_move(socket);
    }
}
