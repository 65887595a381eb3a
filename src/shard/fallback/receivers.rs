//! The connections through which sessions send: a stream, or one poll after the other.
//!
//! A receiver is an HTTP connection whose answer goes on. Its own outbox holds what is HTTP's, the
//! head of the answer and its end; the session's frames are sent to the same socket by the session's
//! own visits, while the receiver's outbox is empty. So neither is ever cut into by the other.
//!
//! pusher-js asks for another stream when it has more than so many characters of one, and drops
//! what is still on its way. So each body is counted, and nothing follows the first frame that
//! crosses that bound: the client has everything when it asks again. Behind that frame SockJS's
//! streams, and polls, end.

use std::mem;

use smallvec::SmallVec;

use crate::base::metrics::Metric;
use crate::base::socket::Socket;
use crate::hub::fallback::SessionCall;
use crate::hub::log::Log;
use crate::wire::fallback::{self, Call, Cors};
use crate::wire::http::{self, Body, Persistence};
use crate::wire::pusher::CloseCode;

use super::SCRIPT;
use super::sessions::Fallback;
use crate::shard::Engine;
use crate::shard::connections::{Http, Outbox, Protocol, State};

/// Where the frames of a session go.
pub struct Receiver {
    pub socket: Socket,
    is_poll: bool,
    /// Characters of the body that are sent or about to be.
    body_bytes: u64,
    body_bytes_max: u64,
}

impl Receiver {
    /// Whether another frame may follow.
    pub fn has_room(&self) -> bool {
        self.body_bytes <= self.body_bytes_max
    }

    /// So many frames are about to be sent.
    pub fn count(&mut self, bytes: u64, frames: u64) {
        self.body_bytes += bytes - frames * fallback::FRAMING_BYTES as u64;
    }

    /// So many frames were not sent after all.
    fn take_back(&mut self, bytes: u64, frames: u64) {
        self.body_bytes -= bytes - frames * fallback::FRAMING_BYTES as u64;
    }
}

/// Runs of a log, from one position to another.
type Runs = SmallVec<[(u64, u64); 2]>;

impl Fallback {
    /// Cuts runs of a log behind the first frame that crosses the bound of the body, and counts them.
    /// Returns the position up to which nothing is owed: `head`, or where the cut is.
    pub fn cut(&mut self, log: &Log, runs: Runs, head: u64) -> (Runs, u64) {
        let Some(receiver) = self.receiver.as_mut() else {
            unreachable!("a session without a receiver is blocked");
        };
        let mut taken = Runs::new();
        for (from, to) in runs {
            let mut end = from;
            for next in log.ends_between(from, to) {
                if !receiver.has_room() {
                    break;
                }
                receiver.count(next - end, 1);
                end = next;
            }
            if end > from {
                taken.push((from, end));
            }
            if end < to {
                return (taken, end);
            }
        }
        (taken, head)
    }

    /// The last frames of a visit stayed here.
    pub fn take_back(&mut self, bytes: u64, frames: u64) {
        if let Some(receiver) = self.receiver.as_mut() {
            receiver.take_back(bytes, frames);
        }
    }

    /// Moves what waited to the outbox, as far as the body has room.
    fn commit_backlog(&mut self, outbox: &mut Outbox) {
        let Some(receiver) = self.receiver.as_mut() else {
            return;
        };
        let mut committed = 0;
        for length in fallback::frame_lengths(&self.backlog) {
            if !receiver.has_room() {
                break;
            }
            receiver.count(length as u64, 1);
            committed += length;
        }
        outbox.bytes.extend_from_slice(&self.backlog[..committed]);
        self.backlog.drain(..committed);
        if self.backlog.is_empty() {
            self.backlog = Vec::new();
        }
    }
}

impl Engine {
    /// The client wants to receive: from its session, or from a new one.
    pub(in crate::shard) fn receive_for_session(
        &mut self,
        slot: u32,
        call: &SessionCall,
    ) -> Option<Protocol> {
        let name = call.name();
        let known = self.sessions.get(&name).copied();
        let known = known.filter(|session| self.displace(*session));
        match known.or_else(|| self.open_session(name, call)) {
            Some(session) => Some(self.attach(session, slot, call)),
            None => {
                self.metrics.add(Metric::FallbackSessionsRefused, 1);
                self.turn_away(slot, call, CloseCode::OverCapacity);
                None
            }
        }
    }

    /// The client asks anew: whatever received so far has no reader. False if the session is gone
    /// with it.
    fn displace(&mut self, session: u32) -> bool {
        let fallback = self.fallback_mut(session);
        let receiver = fallback.and_then(|fallback| fallback.receiver.as_ref());
        if let Some(socket) = receiver.map(|receiver| receiver.socket) {
            self.end(socket.slot);
        }
        self.connections[session].state == State::Open
    }

    fn attach(&mut self, session: u32, slot: u32, call: &SessionCall) -> Protocol {
        let is_poll = call.call == Call::Poll;
        let mut headers = Cors::new(call.origin.as_deref()).headers();
        headers.push(SCRIPT);
        // nginx would gather the answer before it passes it on.
        headers.push(("X-Accel-Buffering", "no"));
        let mut head = Vec::new();
        http::encode_response(200, &headers, Body::Chunked, call.persistence, &mut head);
        if !is_poll {
            head.extend_from_slice(fallback::PRELUDE);
        }
        self.reply_bytes(slot, &head);
        let waiting = self.connections.waiting(slot);
        waiting.receipts = 1;
        waiting.persistence_closes = call.persistence == Persistence::Close;
        self.wheel.clear(slot);
        let socket = self.connections.socket(slot);
        let due_ms = self.now_ms + self.options.fallback_heartbeat_ms;
        let connection = &mut self.connections[session];
        // Until the head is sent.
        connection.is_blocked = true;
        let Protocol::Fallback(fallback) = &mut connection.protocol else {
            unreachable!("a receiver is attached to a session");
        };
        let prelude = fallback::PRELUDE.len() - fallback::FRAMING_BYTES;
        fallback.receiver = Some(Receiver {
            socket,
            is_poll,
            body_bytes: if is_poll { 0 } else { prelude as u64 },
            body_bytes_max: match fallback.is_sockjs {
                true => fallback::SOCKJS_BODY_BYTES_MAX,
                false => fallback::STREAM_BODY_BYTES_MAX,
            },
        });
        fallback.due_ms = due_ms;
        if !fallback.backlog.is_empty() {
            let outbox = connection.outbox.get_or_insert_default();
            fallback.commit_backlog(outbox);
        }
        self.refresh_session_timer(session);
        let session = self.connections.socket(session);
        Protocol::Receiver { session }
    }

    /// The session stays, and waits for the next receiver; the answer of this one ends.
    pub(in crate::shard) fn detach(&mut self, session: u32) {
        if let Some(receiver) = self.vacate(session) {
            self.end_response(receiver.socket.slot);
        }
    }

    fn vacate(&mut self, session: u32) -> Option<Receiver> {
        let due_ms = self.now_ms + self.options.fallback_gap_ms_max;
        self.connections[session].is_blocked = true;
        let fallback = self.fallback_mut(session)?;
        let receiver = mem::take(&mut fallback.receiver);
        fallback.due_ms = due_ms;
        self.refresh_session_timer(session);
        receiver
    }

    /// Ends the answer of a receiver that is no longer one, and reads what came behind its request.
    pub(in crate::shard) fn end_response(&mut self, slot: u32) {
        if self.connections[slot].state != State::Open {
            return;
        }
        let mut end = Vec::new();
        http::encode_last_chunk(&mut end);
        self.reply_bytes(slot, &end);
        let connection = &mut self.connections[slot];
        connection.protocol = Protocol::Http(Box::<Http>::default());
        let waiting = connection.waiting.as_mut();
        let closes = waiting.is_none_or(|waiting| {
            waiting.receipts = 0;
            waiting.persistence_closes
        });
        if closes || self.is_draining {
            return self.close_after_flush(slot);
        }
        self.read_on(slot);
        if self.connections[slot].lacks_receive() {
            self.receive(slot);
        }
        self.refresh_timer(slot);
    }

    /// A connection that received for a session ended. What it was sent may have been lost with it,
    /// and a client that was cut off within a frame does not go on: only a session that had nothing
    /// under way stays.
    pub(in crate::shard) fn on_receiver_lost(&mut self, session: Socket) {
        if !self.connections.is_current(session) {
            return;
        }
        let has_outbox = self.connections[session.slot].outbox.is_some();
        let is_lost = self.vacate(session.slot).is_some();
        if is_lost && has_outbox {
            self.end_session(session.slot);
        }
    }

    /// After the system call, so that nobody may leave yet: what was sent through `slot` has gone,
    /// or waits.
    pub(in crate::shard) fn on_carried(&mut self, slot: u32) {
        let connection = &self.connections[slot];
        let is_sent = connection.outbox.is_none() && !connection.is_blocked;
        match connection.protocol {
            Protocol::Fallback(_) if is_sent => self.delivered.push(slot),
            Protocol::Receiver { session } if is_sent => self.on_writable(session.slot),
            Protocol::Departing(_) => self.try_depart(slot),
            Protocol::Fallback(_)
            | Protocol::Receiver { .. }
            | Protocol::Http(_)
            | Protocol::WebSocket { .. }
            | Protocol::Echo { .. }
            | Protocol::EventStream
            | Protocol::Arriving(_)
            | Protocol::Absent => {}
        }
    }

    /// Looks at the sessions that were sent from in the last turn: polls end, and what is over.
    pub(in crate::shard) fn review_delivered(&mut self) {
        let mut delivered = mem::take(&mut self.delivered);
        for slot in delivered.drain(..) {
            let connection = &mut self.connections[slot];
            let Protocol::Fallback(fallback) = &mut connection.protocol else {
                continue;
            };
            let Some(receiver) = fallback.receiver.as_ref() else {
                continue;
            };
            // More was said meanwhile, which goes along.
            if connection.outbox.is_some() {
                continue;
            }
            if fallback.is_over && fallback.backlog.is_empty() {
                self.end_session(slot);
            } else if receiver.is_poll || (fallback.is_sockjs && !receiver.has_room()) {
                self.detach(slot);
            } else if !receiver.has_room() {
                // The client has what it counts to, and asks anew.
                connection.is_blocked = true;
            }
        }
        self.delivered = delivered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn receiver(body_bytes_max: u64) -> Receiver {
        Receiver {
            socket: Socket {
                slot: 0,
                generation: 0,
            },
            is_poll: false,
            body_bytes: 0,
            body_bytes_max,
        }
    }

    proptest! {
        /// A client that counts characters has everything when it asks for another stream, whatever
        /// visits the frames went out in and wherever a socket was full.
        #[test]
        fn a_body_ends_behind_the_first_frame_that_crosses_its_bound(
            texts in prop::collection::vec("[a-z\"é]{0,60}", 1..60),
            visits in prop::collection::vec((1usize..9, any::<prop::sample::Index>()), 1..60),
            bound in 0u64..2_000,
        ) {
            let mut log = Log::default();
            let mut frames = Vec::new();
            for text in &texts {
                let mut frame = Vec::new();
                fallback::encode_message(text, &mut frame);
                log.append(&frame, [frame.len()].into_iter(), 0);
                frames.push(frame.len() as u64);
            }
            let ends: Vec<u64> = log.ends_between(0, log.head()).collect();
            let mut session = Fallback::sample(receiver(bound));
            let mut cursor = 0;
            for (count, taken) in visits {
                let first = ends.partition_point(|end| *end <= cursor);
                let Some(head) = ends.get((first + count - 1).min(ends.len() - 1)).copied() else {
                    break;
                };
                if head <= cursor {
                    break;
                }
                let (runs, reached) = session.cut(&log, Runs::from_elem((cursor, head), 1), head);
                let sent: Vec<u64> = ends
                    .iter()
                    .copied()
                    .filter(|end| *end > cursor && *end <= reached)
                    .collect();
                prop_assert_eq!(runs.is_empty(), sent.is_empty());
                // The socket took some of them whole.
                let kept = taken.index(sent.len() + 1);
                let stayed_at = if kept == 0 { cursor } else { sent[kept - 1] };
                session.take_back(reached - stayed_at, (sent.len() - kept) as u64);
                cursor = stayed_at;
            }
            let body: u64 = frames
                .iter()
                .zip(&ends)
                .filter(|(_, end)| **end <= cursor)
                .map(|(length, _)| length - fallback::FRAMING_BYTES as u64)
                .sum();
            let last = frames.iter().zip(&ends).find(|(_, end)| **end == cursor);
            let last = last.map_or(0, |(length, _)| length - fallback::FRAMING_BYTES as u64);
            prop_assert_eq!(session.receiver.as_ref().map(|receiver| receiver.body_bytes), Some(body));
            prop_assert!(body - last <= bound, "{body} characters, {last} of them in the last frame");
        }
    }
}
