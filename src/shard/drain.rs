//! The drain: no more connections, what was accepted is finished, clients are told to come back.

use crate::base::metrics::Metric;
use crate::ring::Operation;
use crate::wire::pusher::CloseCode;

use super::Engine;
use super::connections::{Protocol, State};

impl Engine {
    /// Accepts no more, and closes clients one by one over `drain_ms`.
    pub fn begin_drain(&mut self, drain_ms: u64) {
        if std::mem::replace(&mut self.is_draining, true) {
            return;
        }
        self.operations.push(Operation::StopAccepting);
        let slots = self.connections.slots_in_use();
        for slot in 0..slots {
            if self.connections[slot].state == State::Open {
                self.hurry_poll(slot);
            }
            let connection = &self.connections[slot];
            if connection.state != State::Open || connection.is_parked() {
                continue;
            }
            let is_waiting = connection.is_waiting();
            match &connection.protocol {
                Protocol::Fallback(_) | Protocol::EventStream if is_waiting => {}
                // One that waits for homes is closed when they have answered.
                Protocol::WebSocket { .. }
                | Protocol::Echo { .. }
                | Protocol::Fallback(_)
                | Protocol::EventStream => {
                    // The slot's place in a random order, spread over the time that there is.
                    let order = u64::from(slot).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ self.seed;
                    let delay_ms = ((order >> 32) * drain_ms) >> 32;
                    self.wheel.set(slot, self.now_ms + delay_ms);
                }
                Protocol::Http(_) if connection.waiting.is_none() => {
                    self.close_after_flush(slot);
                }
                Protocol::Http(_)
                | Protocol::Receiver { .. }
                | Protocol::Departing(_)
                | Protocol::Arriving(_)
                | Protocol::Absent => {}
            }
        }
    }

    pub(super) fn close_for_drain(&mut self, slot: u32) {
        match &self.connections[slot].protocol {
            Protocol::Http(_) | Protocol::Absent => self.close_after_flush(slot),
            Protocol::Receiver { .. } | Protocol::Departing(_) | Protocol::Arriving(_) => {}
            Protocol::WebSocket { .. }
            | Protocol::Echo { .. }
            | Protocol::Fallback(_)
            | Protocol::EventStream => {
                self.catch_up(slot);
                let code = CloseCode::ReconnectImmediately;
                self.close_websocket(slot, code.number(), code.reason());
            }
        }
    }

    /// Whether no connection is open any more on any shard, and this one owes no other a letter and
    /// waits for no word of the journal. It
    /// ends when all are that far: until then it may be the home of what others publish and leave.
    pub fn is_drained(&self) -> bool {
        let mut shards = self.all_metrics.iter();
        shards.all(|shard| shard.read(Metric::Connections) == 0)
            && !self.has_work()
            && self.durable.length() == 0
    }
}
