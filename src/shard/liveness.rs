//! A connection's timer: how long it may be silent, slow or waited for, and what follows.

use crate::base::limits;
use crate::base::metrics::Metric;
use crate::wire::pusher::{CloseCode, user};
use crate::wire::websocket::Opcode;

use super::Engine;
use super::connections::{Protocol, State};

impl Engine {
    /// Sets the connection's timer to the next moment at which it has to be looked at.
    pub fn refresh_timer(&mut self, slot: u32) {
        let options = &self.options;
        let connection = &self.connections[slot];
        if connection.state != State::Open {
            return;
        }
        if let Some(waiting) = &connection.waiting
            && !waiting.parked.is_empty()
        {
            return self.wheel.set(slot, waiting.parked_until_ms);
        }
        if let Some(poll) = connection.poll() {
            return self.wheel.set(slot, poll.until_ms.max(self.now_ms));
        }
        let deadline_ms = match &connection.protocol {
            Protocol::Http(http) => match http.begun_ms {
                Some(begun_ms) => {
                    begun_ms
                        + self
                            .handshake_timeout_ms()
                            .max(if connection.waiting.is_some() {
                                options.message_timeout_ms
                            } else {
                                0
                            })
                }
                None => self.now_ms + limits::KEEP_ALIVE_MS,
            },
            // The timer that closes the connection is set, unless its request waited until now.
            Protocol::Fallback(_) => return self.refresh_session_timer(slot),
            Protocol::WebSocket { .. } | Protocol::Echo { .. } if self.is_draining => {
                match self.wheel.is_set(slot) {
                    true => return,
                    false => self.now_ms,
                }
            }
            Protocol::WebSocket { decoder, .. } | Protocol::Echo { decoder }
                if decoder.is_mid_message() =>
            {
                // The message has this long from when it was first seen incomplete.
                match self.wheel.is_set(slot) && connection.was_mid_message {
                    true => return,
                    false => self.now_ms + options.message_timeout_ms,
                }
            }
            Protocol::WebSocket { .. } | Protocol::Echo { .. } => {
                // A timer that is set looks at the time of the last message when it fires.
                if connection.was_mid_message || !connection.has_activity_timer {
                    self.activity_deadline_ms(slot, self.now_ms)
                } else {
                    return self.note_mid_message(slot);
                }
            }
            Protocol::Receiver { .. }
            | Protocol::EventStream
            | Protocol::Departing(_)
            | Protocol::Arriving(_)
            | Protocol::Absent => return,
        };
        self.wheel.set(slot, deadline_ms);
        self.note_mid_message(slot);
    }

    /// When a client that was last heard at `heard_ms` is to be looked at.
    fn activity_deadline_ms(&self, slot: u32, heard_ms: u64) -> u64 {
        let idle = heard_ms + self.options.activity_timeout_s * 1000;
        match &self.connections[slot].protocol {
            Protocol::WebSocket { session, .. } if session.authorize_by_s > 0 => {
                idle.min(u64::from(session.authorize_by_s) * 1000)
            }
            Protocol::WebSocket { .. }
            | Protocol::Echo { .. }
            | Protocol::Http(_)
            | Protocol::Fallback(_)
            | Protocol::Receiver { .. }
            | Protocol::EventStream
            | Protocol::Departing(_)
            | Protocol::Arriving(_)
            | Protocol::Absent => idle,
        }
    }

    fn note_mid_message(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        let (is_websocket, is_mid_message) = match &connection.protocol {
            Protocol::WebSocket { decoder, .. } | Protocol::Echo { decoder } => {
                (true, decoder.is_mid_message())
            }
            Protocol::Http(_)
            | Protocol::Fallback(_)
            | Protocol::Receiver { .. }
            | Protocol::EventStream
            | Protocol::Departing(_)
            | Protocol::Arriving(_)
            | Protocol::Absent => (false, false),
        };
        connection.was_mid_message = is_mid_message;
        connection.has_activity_timer = is_websocket && !is_mid_message;
    }

    /// The time that was set has come.
    pub(super) fn on_timer(&mut self, slot: u32) {
        match self.connections[slot].state {
            State::Open => {}
            State::Flushing | State::Lingering => return self.end(slot),
            State::Free
            | State::Accepting
            | State::Ending
            | State::Closing
            | State::Departing
            | State::Moving
            | State::Arriving => return,
        }
        if self.connections[slot].is_session() {
            return self.on_session_timer(slot);
        }
        if self.connections[slot].poll().is_some() {
            return self.on_poll_timer(slot);
        }
        if let Some(waiting) = &self.connections[slot].waiting {
            if !waiting.parked.is_empty() {
                if self.now_ms >= waiting.parked_until_ms {
                    return self.refuse_parked(slot);
                }
            } else if waiting.receipts > 0 {
                let look_ms = match self.is_draining {
                    true => limits::DRAINED_LOOK_MS,
                    false => limits::KEEP_ALIVE_MS,
                };
                return self.wheel.set(slot, self.now_ms + look_ms);
            }
        }
        if self.is_draining {
            return self.close_for_drain(slot);
        }
        let connection = &mut self.connections[slot];
        connection.has_activity_timer = false;
        match &connection.protocol {
            Protocol::Http(_) | Protocol::Absent => self.close_after_flush(slot),
            Protocol::EventStream => self.on_reader_timer(slot),
            Protocol::Fallback(_)
            | Protocol::Receiver { .. }
            | Protocol::Departing(_)
            | Protocol::Arriving(_) => {}
            Protocol::Echo { .. } => self.close_websocket(slot, 1001, "idle"),
            Protocol::WebSocket {
                decoder, session, ..
            } => {
                if decoder.is_mid_message() {
                    self.metrics.add(Metric::Violations, 1);
                    self.tell(slot, "the message took too long");
                    return self.close_websocket(slot, 1008, "the message took too long");
                }
                if session.authorize_by_s > 0 && self.now_s >= session.authorize_by_s {
                    let reason = user::NOT_AUTHORIZED_IN_TIME;
                    return self.refuse_session(slot, CloseCode::Unauthorized, reason);
                }
                let idle_ms = 1000 * u64::from(self.now_s - connection.heard_s);
                let activity_ms = self.options.activity_timeout_s * 1000;
                if idle_ms + 1000 < activity_ms {
                    connection.has_activity_timer = true;
                    let deadline_ms = self.activity_deadline_ms(slot, self.now_ms - idle_ms);
                    self.wheel.set(slot, deadline_ms);
                } else if !connection.was_pinged {
                    connection.was_pinged = true;
                    connection.has_activity_timer = true;
                    self.reply_frame(slot, Opcode::Ping, &[]);
                    self.wheel
                        .set(slot, self.now_ms + self.options.pong_timeout_s * 1000);
                } else {
                    self.metrics.add(Metric::Unheard, 1);
                    let code = CloseCode::PongNotReceived;
                    self.tell(slot, code.reason());
                    self.close_websocket(slot, code.number(), code.reason());
                }
            }
        }
    }
}
