//! What the ring must know of a slot: one byte, so that no close meets a shutdown that still runs.

use super::tag::GENERATION_MASK;
use crate::ring::Socket;

/// What the ring knows of each slot, in one byte: how many shutdowns run, and whether it is to be
/// closed.
///
/// open -> shutting down (begin_shutdown) -> open (end_shutdown)
/// open -> closing (begin_close) -> empty (end_close)
/// shutting down -> held (begin_close) -> closing (end_shutdown of the last)
pub(super) struct Slots {
    states: Box<[u8]>,
}

const IS_CLOSING: u8 = 0x80;

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
    }

    pub(super) fn is_shutting_down(&self, slot: u32) -> bool {
        self.states[slot as usize] & !IS_CLOSING != 0
    }

    pub(super) fn begin_shutdown(&mut self, socket: Socket) {
        self.assert_open(socket);
        let state = &mut self.states[socket.slot as usize];
        *state += 1;
        assert!(*state & IS_CLOSING == 0, "127 shutdowns of one socket");
    }

    /// True if a close waited for this.
    pub(super) fn end_shutdown(&mut self, slot: u32) -> bool {
        let state = &mut self.states[slot as usize];
        assert!(*state & !IS_CLOSING != 0);
        *state -= 1;
        *state == IS_CLOSING
    }

    pub(super) fn begin_close(&mut self, socket: Socket) {
        self.assert_open(socket);
        self.states[socket.slot as usize] |= IS_CLOSING;
    }

    pub(super) fn end_close(&mut self, slot: u32) {
        let state = &mut self.states[slot as usize];
        assert_eq!(*state, IS_CLOSING);
        *state = 0;
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
        slots.end_close(1);
        slots.assert_open(socket);
    }
}
