//! Sessions over HTTP: connections without a socket of their own.
//!
//! A session has a slot like any connection, so that subscriptions, replies and timers are those of
//! every connection; no socket is ever in it. Its frames go out through another connection, the
//! receiver, which comes and goes (`receivers`). Without one the session is what a full socket is:
//! its cursors stay where they are.
//!
//! ```text
//! open -- no receiver for fallback_gap_ms_max --> gone
//! open -- closed by us --> over -- the close was sent, or no receiver came --> gone
//! open -- its receiver broke off within a frame --> gone
//! ```
//!
//! Bounds: so many sessions a shard (`fallback_sessions_per_shard_max`: the next is told 4100), so
//! many bytes of replies that wait (`fallback_backlog_bytes_max`: the session ends), so many bytes of
//! messages that wait for an answer of a home (`READ_AHEAD_BYTES_MAX`: likewise).

use std::collections::VecDeque;
use std::mem;

use crate::base::limits;
use crate::base::metrics::Metric;
use crate::hub::fallback::SessionCall;
use crate::hub::session::Session;
use crate::hub::variant::Variant;
use crate::wire::fallback;
use crate::wire::pusher::{self, CloseCode, user};

use super::receivers::Receiver;
use crate::shard::Engine;
use crate::shard::connections::{Protocol, State};

/// What a session has beyond a connection.
pub struct Fallback {
    name: Box<str>,
    /// The conversation; not yet there before a SockJS client named its app, and no more once it
    /// is over.
    conversation: Option<Session>,
    pub is_sockjs: bool,
    /// It was closed, and the close is still to be sent.
    pub is_over: bool,
    pub receiver: Option<Receiver>,
    /// Frames for this client alone that no receiver takes now.
    pub backlog: Vec<u8>,
    /// Messages that were not read yet, because a home has still to answer.
    inbox: VecDeque<String>,
    inbox_bytes: usize,
    /// When the next sign of life is sent, or when the session is given up.
    pub due_ms: u64,
}

impl Fallback {
    fn new(name: Box<str>, is_sockjs: bool, due_ms: u64) -> Fallback {
        Fallback {
            name,
            conversation: None,
            is_sockjs,
            is_over: false,
            receiver: None,
            backlog: Vec::new(),
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            due_ms,
        }
    }

    #[cfg(test)]
    pub fn sample(receiver: Receiver) -> Fallback {
        Fallback {
            receiver: Some(receiver),
            ..Fallback::new("/sample".into(), false, 0)
        }
    }
}

impl Engine {
    /// Opens a session; nothing if there are as many as there may be.
    pub(in crate::shard) fn open_session(
        &mut self,
        name: Box<str>,
        call: &SessionCall,
    ) -> Option<u32> {
        let most = self.options.fallback_sessions_per_shard_max;
        if self.sessions.len() >= most as usize {
            return None;
        }
        let slot = self.connections.take_slot()?.slot;
        let connection = &mut self.connections[slot];
        connection.state = State::Open;
        connection.heard_s = self.now_s;
        connection.variant = Variant::Xhr;
        connection.is_blocked = true;
        // Nobody is to arm a receive: there is no socket.
        connection.is_receiving = true;
        let due_ms = self.now_ms + self.options.fallback_gap_ms_max;
        let fallback = Fallback::new(name.clone(), call.key.is_none(), due_ms);
        connection.protocol = Protocol::Fallback(Box::new(fallback));
        self.sessions.insert(name, slot);
        self.metrics.add(Metric::FallbackSessions, 1);
        self.take_frame(slot, fallback::OPEN);
        if let Some(key) = &call.key {
            self.begin_conversation(slot, key, &call.query);
        }
        Some(slot)
    }

    pub(in crate::shard) fn fallback_mut(&mut self, slot: u32) -> Option<&mut Fallback> {
        match &mut self.connections[slot].protocol {
            Protocol::Fallback(fallback) => Some(fallback),
            Protocol::Http(_)
            | Protocol::WebSocket { .. }
            | Protocol::Echo { .. }
            | Protocol::Receiver { .. }
            | Protocol::EventStream
            | Protocol::Departing(_)
            | Protocol::Arriving(_)
            | Protocol::Absent => None,
        }
    }

    /// The client named its app: the conversation begins, or the client is told why not.
    fn begin_conversation(&mut self, slot: u32, key: &str, query: &str) {
        match self.admit_to(slot, key, query) {
            Ok(conversation) => {
                if let Some(fallback) = self.fallback_mut(slot) {
                    fallback.conversation = Some(conversation);
                }
                let mut text = Vec::new();
                let timeout = self.options.activity_timeout_s as u32;
                pusher::encode_connection_established(&mut text, self.socket_id(slot), timeout);
                self.reply_text(slot, &text);
            }
            Err((code, reason)) => self.refuse_session(slot, code, &reason),
        }
    }

    /// Messages of the client, in their order.
    pub(in crate::shard) fn take_messages(&mut self, slot: u32, messages: Vec<String>) {
        self.connections[slot].heard_s = self.now_s;
        let Some(fallback) = self.fallback_mut(slot) else {
            return;
        };
        fallback.inbox_bytes += messages.iter().map(String::len).sum::<usize>();
        fallback.inbox.extend(messages);
        self.read_inbox(slot);
        if let Some(fallback) = self.fallback_mut(slot)
            && fallback.inbox_bytes > limits::READ_AHEAD_BYTES_MAX
        {
            self.broken.push(slot);
        }
    }

    /// Reads messages until one has to wait.
    pub(in crate::shard) fn read_inbox(&mut self, slot: u32) {
        while self.connections[slot].state == State::Open && !self.connections[slot].is_waiting() {
            let Some(fallback) = self.fallback_mut(slot) else {
                return;
            };
            let Some(message) = fallback.inbox.pop_front() else {
                return;
            };
            fallback.inbox_bytes -= message.len();
            self.read_message(slot, &message);
        }
    }

    fn read_message(&mut self, slot: u32, message: &str) {
        let bytes_max = self.options.message_bytes_max;
        let Some(fallback) = self.fallback_mut(slot) else {
            return;
        };
        if fallback.is_over {
            return;
        }
        let conversation = mem::take(&mut fallback.conversation);
        self.metrics.add(Metric::Messages, 1);
        if message.len() > bytes_max {
            return self.close_session(slot, 1009, "the message is too large");
        }
        let Some(mut conversation) = conversation else {
            return match fallback::parse_first_message(message) {
                Some((key, query)) => self.begin_conversation(slot, &key, &query),
                None => {
                    let code = CloseCode::PathNotFound;
                    self.refuse_session(slot, code, code.reason());
                }
            };
        };
        self.on_text(slot, &mut conversation, message);
        if let Some(fallback) = self.fallback_mut(slot)
            && !fallback.is_over
        {
            fallback.conversation = Some(conversation);
        }
    }

    /// Sends a message to the client of a session.
    pub(in crate::shard) fn reply_to_session(&mut self, slot: u32, text: &str) {
        let mut frame = Vec::new();
        fallback::encode_message(text, &mut frame);
        self.take_frame(slot, &frame);
    }

    /// Frames that lie one after the other, each as [`Engine::take_frame`] takes one.
    pub(in crate::shard) fn take_frames(&mut self, slot: u32, frames: &[u8]) {
        let mut rest = frames;
        for length in fallback::frame_lengths(frames) {
            let (frame, behind) = rest.split_at(length);
            self.take_frame(slot, frame);
            rest = behind;
        }
    }

    /// A frame for this client alone: to its receiver, or to what waits for one.
    pub(in crate::shard) fn take_frame(&mut self, slot: u32, frame: &[u8]) {
        let bytes_max = self.options.fallback_backlog_bytes_max;
        let connection = &mut self.connections[slot];
        let is_blocked = connection.is_blocked;
        let Protocol::Fallback(fallback) = &mut connection.protocol else {
            return;
        };
        let held = match fallback.receiver.as_mut() {
            Some(receiver) if receiver.has_room() && fallback.backlog.is_empty() => {
                receiver.count(frame.len() as u64, 1);
                let outbox = connection.outbox.get_or_insert_default();
                outbox.bytes.extend_from_slice(frame);
                self.gather.push((slot, 0));
                match is_blocked {
                    true => outbox.replies_bytes(),
                    false => 0,
                }
            }
            Some(_) | None => {
                fallback.backlog.extend_from_slice(frame);
                fallback.backlog.len()
            }
        };
        if held > bytes_max {
            self.broken.push(slot);
        }
    }

    /// The session is over: the client is told as soon as it receives.
    pub(in crate::shard) fn close_session(&mut self, slot: u32, code: u16, reason: &str) {
        let Some(fallback) = self.fallback_mut(slot) else {
            return;
        };
        if mem::replace(&mut fallback.is_over, true) {
            return;
        }
        fallback.conversation = None;
        self.end_subscriptions(slot);
        self.leave_quota(slot);
        if let Some(waiting) = self.connections[slot].waiting.take() {
            self.connections.put_back(waiting);
        }
        let mut frame = Vec::new();
        fallback::encode_close(code, reason, &mut frame);
        self.take_frame(slot, &frame);
    }

    /// The session is gone. Its slot is given back at the end of the turn, when nobody names it any
    /// more.
    pub(in crate::shard) fn end_session(&mut self, slot: u32) {
        self.end_subscriptions(slot);
        self.leave_quota(slot);
        let connection = &mut self.connections[slot];
        let protocol = mem::replace(&mut connection.protocol, Protocol::Absent);
        let Protocol::Fallback(fallback) = protocol else {
            return;
        };
        connection.state = State::Closing;
        if let Some(waiting) = connection.waiting.take() {
            self.connections.put_back(waiting);
        }
        self.connections.empty_outbox(slot);
        self.connections.refresh_direct(slot);
        self.wheel.clear(slot);
        self.sessions.remove(&fallback.name);
        self.metrics.subtract(Metric::FallbackSessions, 1);
        self.vacated.push(slot);
        if let Some(receiver) = fallback.receiver {
            self.end_response(receiver.socket.slot);
        }
    }

    pub(in crate::shard) fn on_session_timer(&mut self, slot: u32) {
        if self.parked_until_ms(slot) <= self.now_ms {
            self.refuse_parked(slot);
        }
        if self.authorized_until_ms(slot) <= self.now_ms {
            let reason = user::NOT_AUTHORIZED_IN_TIME;
            self.refuse_session(slot, CloseCode::Unauthorized, reason);
        }
        let (now_ms, is_draining) = (self.now_ms, self.is_draining);
        let heartbeat_ms = self.options.fallback_heartbeat_ms;
        let is_quiet = {
            let connection = &self.connections[slot];
            !connection.is_blocked && connection.outbox.is_none()
        };
        let Some(fallback) = self.fallback_mut(slot) else {
            return;
        };
        let has_receiver = fallback.receiver.is_some();
        if is_draining && !fallback.is_over {
            self.catch_up(slot);
            let code = CloseCode::ReconnectImmediately;
            self.close_session(slot, code.number(), code.reason());
        } else if now_ms >= fallback.due_ms {
            fallback.due_ms = now_ms + heartbeat_ms;
            let is_full = fallback
                .receiver
                .as_ref()
                .is_some_and(|receiver| !receiver.has_room());
            if !has_receiver {
                return self.end_session(slot);
            } else if is_full {
                // The client did not ask for another stream by itself: the end of this one has it.
                self.detach(slot);
            } else if is_quiet {
                self.take_frame(slot, fallback::HEARTBEAT);
            }
        }
        if is_draining && !has_receiver {
            return self.end_session(slot);
        }
        self.refresh_session_timer(slot);
    }

    /// Sets the timer to the next moment at which the session has to be looked at.
    pub(in crate::shard) fn refresh_session_timer(&mut self, slot: u32) {
        let others_ms = self
            .parked_until_ms(slot)
            .min(self.authorized_until_ms(slot));
        let is_draining = self.is_draining;
        let is_set = self.wheel.is_set(slot);
        let Some(fallback) = self.fallback_mut(slot) else {
            return;
        };
        let mut due_ms = fallback.due_ms.min(others_ms);
        if is_draining && !fallback.is_over {
            // The timer that closes it is set, unless it waited until now.
            if is_set {
                return;
            }
            due_ms = self.now_ms;
        }
        self.wheel.set(slot, due_ms);
    }

    /// When the time of a publish that waits is up; never if none waits.
    fn parked_until_ms(&self, slot: u32) -> u64 {
        let waiting = self.connections[slot].waiting.as_ref();
        waiting
            .filter(|waiting| !waiting.parked.is_empty())
            .map_or(u64::MAX, |waiting| waiting.parked_until_ms)
    }

    /// Until when a client may go without an authorization; for ever if its app asks for none.
    fn authorized_until_ms(&mut self, slot: u32) -> u64 {
        let fallback = self.fallback_mut(slot);
        let conversation = fallback.and_then(|fallback| fallback.conversation.as_ref());
        match conversation.map_or(0, |conversation| conversation.authorize_by_s) {
            0 => u64::MAX,
            by_s => u64::from(by_s) * 1000,
        }
    }

    /// Gives back the slots of sessions that are gone.
    pub(in crate::shard) fn free_vacated(&mut self) {
        while let Some(slot) = self.vacated.pop() {
            self.connections.free_slot(slot);
        }
    }
}
