//! Bytes that arrived: read as HTTP or WebSocket, decided on by the hub, carried out here.

use std::mem;

use crate::base::limits;
use crate::base::metrics::Metric;
use crate::base::slow::Slow;
use crate::base::socket::{Address, GENERATION_BITS, Socket};
use crate::hub::audience::WAITING;
use crate::hub::letter::{Event, Origin};
use crate::hub::session::{self, Decision, Session};
use crate::hub::variant::Variant;
use crate::ring::Operation;
use crate::wire::pusher::delivery::Begin;
use crate::wire::pusher::member::MemberText;
use crate::wire::pusher::{self, SocketId};
use crate::wire::websocket::{self, Decoder, Message, Opcode, Violation};

use super::Engine;
use super::connections::{Pending, Protocol, State};
use super::membership::Standing;
use super::publish::Routed;

/// How a client comes to a channel.
struct Arrival {
    member: Option<MemberText>,
    begin: Begin,
    slow: Option<Slow>,
}

impl Engine {
    pub fn socket_id(&self, slot: u32) -> SocketId {
        self.socket_id_at(Address {
            shard: self.index,
            socket: self.connections.socket(slot),
        })
    }

    /// The id of a connection on any shard.
    pub(super) fn socket_id_at(&self, address: Address) -> SocketId {
        let boot = (self.seed >> 32) & 0xFFFF_FFFF;
        let Socket { slot, generation } = address.socket;
        SocketId {
            first: boot << 10 | u64::from(address.shard),
            second: u64::from(generation) << GENERATION_BITS | u64::from(slot),
        }
    }

    /// The connection that an id of this process names.
    pub(super) fn address_of(&self, id: SocketId) -> Option<Address> {
        let boot = (self.seed >> 32) & 0xFFFF_FFFF;
        let slot = (id.second & ((1 << GENERATION_BITS) - 1)) as u32;
        let generation = u32::try_from(id.second >> GENERATION_BITS).ok()?;
        let shard = (id.first & 0x3FF) as u16;
        let is_ours = id.first >> 10 == boot && usize::from(shard) < self.mesh.shards();
        is_ours.then_some(Address {
            shard,
            socket: Socket { slot, generation },
        })
    }

    /// Bytes came for an open connection.
    pub fn on_received(&mut self, slot: u32, bytes: &mut [u8]) {
        let connection = &mut self.connections[slot];
        connection.heard_s = self.now_s;
        connection.was_pinged = false;
        if connection.state == State::Departing {
            return self.keep_for_departure(slot, bytes);
        }
        if connection.state != State::Open {
            return;
        }
        match connection.waiting.as_mut() {
            None => self.read(slot, bytes),
            Some(waiting) => {
                waiting.input.extend_from_slice(bytes);
                if !waiting.is_waiting() {
                    self.read_on(slot);
                } else if waiting.lets_follow() {
                    self.read_following(slot);
                } else if waiting.is_full() {
                    let socket = self.connections.socket(slot);
                    self.operations.push(Operation::StopReceiving { socket });
                }
            }
        }
    }

    /// Goes on with the bytes that were kept.
    pub fn read_on(&mut self, slot: u32) {
        let waiting = &mut self.connections[slot].waiting;
        let Some(mut over) = waiting.take_if(|waiting| !waiting.is_waiting()) else {
            return;
        };
        self.read(slot, &mut over.input);
        self.connections.put_back(over);
    }

    /// Reads as much as can be read; what is left is kept with the connection.
    pub(super) fn read(&mut self, slot: u32, mut bytes: &mut [u8]) {
        if self.connections[slot].is_session() {
            return self.read_inbox(slot);
        }
        loop {
            let connection = &mut self.connections[slot];
            if connection.state != State::Open {
                return;
            }
            if bytes.is_empty() {
                return self.refresh_timer(slot);
            }
            if connection.is_waiting() && !self.may_follow(slot, bytes) {
                return self.keep(slot, bytes);
            }
            if self.asks_too_fast(slot) {
                return self.read_after_flush(slot, bytes);
            }
            let connection = &mut self.connections[slot];
            let protocol = mem::replace(&mut connection.protocol, Protocol::Absent);
            bytes = match protocol {
                Protocol::Http(http) => match self.read_http(slot, http, bytes) {
                    Some(rest) => rest,
                    None => return,
                },
                Protocol::WebSocket { decoder, session } => {
                    self.read_websocket(slot, decoder, session, bytes)
                }
                Protocol::Echo { decoder } => self.read_echo(slot, decoder, bytes),
                // A reader of events says nothing that matters, and a session has no bytes.
                protocol @ (Protocol::EventStream
                | Protocol::Receiver { .. }
                | Protocol::Fallback(_)
                | Protocol::Departing(_)
                | Protocol::Arriving(_)) => {
                    self.connections[slot].protocol = protocol;
                    return;
                }
                Protocol::Absent => return,
            };
        }
    }

    pub(super) fn keep(&mut self, slot: u32, bytes: &[u8]) {
        let waiting = self.connections.waiting(slot);
        waiting.input.extend_from_slice(bytes);
        if waiting.is_full() && self.connections[slot].is_receiving {
            let socket = self.connections.socket(slot);
            self.operations.push(Operation::StopReceiving { socket });
        }
    }

    pub(super) fn read_websocket<'a>(
        &mut self,
        slot: u32,
        mut decoder: Decoder,
        mut session: Session,
        bytes: &'a mut [u8],
    ) -> &'a mut [u8] {
        let limits = websocket::Limits {
            message_bytes_max: self.options.message_bytes_max,
            takes_compressed: self.connections[slot].variant.window().is_some(),
        };
        // Out of its place while a message may lie in it.
        let mut inflater = mem::take(&mut self.inflater);
        let mut at = 0;
        while self.connections[slot].state == State::Open {
            if self.connections[slot].is_waiting() {
                break;
            }
            match decoder.decode(&mut bytes[at..], &limits, &mut inflater) {
                Ok((consumed, message)) => {
                    at += consumed;
                    let Some(message) = message else { break };
                    self.metrics.add(Metric::Messages, 1);
                    self.on_message(slot, &mut session, message);
                }
                Err(violation) => self.on_violation(slot, violation),
            }
        }
        self.inflater = inflater;
        if self.connections[slot].state != State::Open {
            return &mut [];
        }
        self.connections[slot].protocol = Protocol::WebSocket { decoder, session };
        &mut bytes[at..]
    }

    /// The peer broke the protocol: it is told how, and that is the end.
    fn on_violation(&mut self, slot: u32, violation: Violation) {
        self.metrics.add(Metric::Violations, 1);
        if violation == Violation::LongInflated {
            self.metrics.add(Metric::LongInflated, 1);
        }
        self.tell(slot, violation.reason());
        self.close_websocket(slot, violation.close_code(), violation.reason());
    }

    /// Writes to the log, if that is wanted, why a peer was refused or closed.
    pub(super) fn tell(&self, slot: u32, why: impl std::fmt::Display) {
        let peer = self.connections[slot].peer;
        tracing::debug!(shard = self.index, %peer, "{why}");
    }

    pub(super) fn on_message(&mut self, slot: u32, session: &mut Session, message: Message<'_>) {
        match message {
            Message::Text(text) => self.on_text(slot, session, text),
            Message::Binary(_) => {
                self.close_websocket(slot, 1003, "binary messages are not supported");
            }
            Message::Ping(payload) => self.reply_frame(slot, Opcode::Pong, payload),
            Message::Pong(_) => {}
            Message::Close(reason) => self.answer_close(slot, reason.map(|(code, _)| code)),
        }
    }

    /// The peer closes: the same code goes back, and its subscriptions end at once.
    pub(super) fn answer_close(&mut self, slot: u32, code: Option<u16>) {
        match code {
            Some(code) => self.close_websocket(slot, code, ""),
            None => {
                self.end_subscriptions(slot);
                self.reply_frame(slot, Opcode::Close, &[]);
                self.close_after_flush(slot);
            }
        }
    }

    pub(super) fn on_text(&mut self, slot: u32, session: &mut Session, text: &str) {
        let mut reply = mem::take(&mut self.text);
        reply.clear();
        let app = self.apps.app(session.app);
        let id = self.socket_id(slot);
        match session.read(app, id, text, self.now_s, &mut reply) {
            Decision::Answered => {}
            Decision::Refused => self.metrics.add(Metric::MessagesRefused, 1),
            Decision::Subscribe {
                channel,
                member,
                begin,
                slow,
            } => {
                let arrival = Arrival {
                    member,
                    begin,
                    slow,
                };
                self.on_subscribe(slot, session.app, &channel, arrival, &mut reply);
            }
            Decision::Unsubscribe { channel } => {
                if let Some(place) = self.place_of(slot, session.app, &channel) {
                    self.unsubscribe(slot, place);
                }
            }
            Decision::Trigger {
                channel,
                name,
                data,
            } => {
                if self.place_of(slot, session.app, &channel).is_none() {
                    session::refuse_unsubscribed(&channel, &mut reply);
                    self.metrics.add(Metric::MessagesRefused, 1);
                } else {
                    let socket = self.connections.socket(slot);
                    let excluded = Some(Address {
                        shard: self.index,
                        socket,
                    });
                    let event = Event {
                        app: session.app,
                        origin: Origin::Client,
                        channel: &channel,
                        name: &name,
                        data,
                        key: "",
                        user_id: "",
                        idempotency_key: "",
                        excluded,
                        serial: None,
                    };
                    if self.route(&[event], None) == Routed::Behind {
                        self.park(slot, &[event]);
                    }
                }
            }
            Decision::SignIn(sign_in) => self.on_sign_in(slot, session.app, sign_in),
            Decision::Close { code, reason } => {
                reply.clear();
                self.refuse_session(slot, code, &reason);
            }
        }
        if !reply.is_empty() {
            self.reply_text(slot, &reply);
        }
        self.text = reply;
    }

    fn on_subscribe(
        &mut self,
        slot: u32,
        app: u16,
        channel: &str,
        arrival: Arrival,
        reply: &mut Vec<u8>,
    ) {
        let held = self.connections[slot].subscriptions.len();
        let most = self.apps.app(app).subscriptions_per_connection_max;
        if let Some(place) = self.place_of(slot, app, channel) {
            if self.is_awaited(slot, place) {
                let waiting = self.connections.waiting(slot);
                waiting.receipts += 1;
                waiting.pending = Some(Pending::Repeat(channel.into()));
            } else {
                self.refuse_repeat(slot, channel);
            }
        } else if held >= most as usize {
            let error = "The connection is subscribed to as many channels as it may be";
            pusher::encode_subscription_error(reply, channel, "LimitReached", error, 4004);
            self.metrics.add(Metric::MessagesRefused, 1);
        } else if arrival.slow.is_some() && !self.apps.app(app).lets_choose_slow(channel) {
            let error =
                "A subscription to this channel may not say what becomes of it when it is slow";
            pusher::encode_subscription_error(reply, channel, "NotAllowed", error, 403);
            self.metrics.add(Metric::MessagesRefused, 1);
        } else if self.enters(app, channel) {
            self.come_in(slot, app, channel, arrival.member, arrival.begin);
            if let Some(slow) = arrival.slow {
                self.choose_slow(slot, app, channel, slow);
            }
        } else if self.subscribe(slot, app, channel) == Standing::Stands {
            pusher::encode_subscription_succeeded(reply, channel);
        }
    }

    /// Refuses a subscription that the connection has.
    pub(super) fn refuse_repeat(&mut self, slot: u32, channel: &str) {
        self.metrics.add(Metric::MessagesRefused, 1);
        let error = format!("Existing subscription to channel {channel}");
        let mut text = Vec::new();
        pusher::encode_error(&mut text, &error, None, Some(channel));
        self.reply_text(slot, &text);
    }

    /// Whether a subscription has not been answered yet.
    fn is_awaited(&self, slot: u32, place: usize) -> bool {
        let held = self.connections[slot].subscriptions[place];
        self.channels[held.channel].subscribers[held.index as usize].cursor == WAITING
    }

    pub(super) fn place_of(&self, slot: u32, app: u16, channel: &str) -> Option<usize> {
        let channel = self
            .channels
            .find(app, channel, self.connections[slot].variant)?;
        let held = &self.connections[slot].subscriptions;
        held.iter().position(|held| held.channel == channel)
    }

    pub fn confirm_subscription(&mut self, slot: u32, channel: &str) {
        let mut text = mem::take(&mut self.text);
        text.clear();
        pusher::encode_subscription_succeeded(&mut text, channel);
        self.reply_text(slot, &text);
        self.text = text;
    }

    pub(super) fn read_echo<'a>(
        &mut self,
        slot: u32,
        mut decoder: Decoder,
        bytes: &'a mut [u8],
    ) -> &'a mut [u8] {
        let limits = websocket::Limits {
            message_bytes_max: self.options.echo_message_bytes_max,
            takes_compressed: self.connections[slot].variant.window().is_some(),
        };
        let mut inflater = mem::take(&mut self.inflater);
        let mut at = 0;
        while self.connections[slot].state == State::Open {
            match decoder.decode(&mut bytes[at..], &limits, &mut inflater) {
                Ok((consumed, message)) => {
                    at += consumed;
                    match message {
                        None => break,
                        Some(Message::Text(text)) => {
                            self.echo(slot, Opcode::Text, text.as_bytes());
                        }
                        Some(Message::Binary(payload)) => {
                            self.echo(slot, Opcode::Binary, payload);
                        }
                        Some(Message::Ping(payload)) => {
                            self.reply_frame(slot, Opcode::Pong, payload);
                        }
                        Some(Message::Pong(_)) => {}
                        Some(Message::Close(reason)) => {
                            self.answer_close(slot, reason.map(|(code, _)| code));
                        }
                    }
                }
                Err(violation) => self.on_violation(slot, violation),
            }
        }
        self.inflater = inflater;
        if self.connections[slot].state == State::Open {
            self.connections[slot].protocol = Protocol::Echo { decoder };
        }
        &mut []
    }

    /// Sends a message back, compressed if the client takes that, however short it is: the endpoint
    /// is there to try what the wire can.
    fn echo(&mut self, slot: u32, opcode: Opcode, payload: &[u8]) {
        let Some(window) = self.connections[slot].variant.window() else {
            return self.reply_frame(slot, opcode, payload);
        };
        let mut frame = mem::take(&mut self.frame);
        frame.clear();
        self.encoder
            .deflater
            .encode_compressed_frame(opcode, payload, window, &mut frame);
        self.metrics.add(Metric::Deflates, 1);
        self.reply_bytes(slot, &frame);
        self.frame = frame;
    }

    /// Sends a text message to one client.
    pub fn reply_text(&mut self, slot: u32, text: &[u8]) {
        let as_text = || std::str::from_utf8(text).expect("messages are JSON");
        match self.connections[slot].variant {
            Variant::Plain | Variant::Deflated { .. } => {
                self.reply_frame(slot, Opcode::Text, text);
            }
            Variant::Xhr => self.reply_to_session(slot, as_text()),
            Variant::Sse => self.reply_to_reader(slot, text, None),
        }
    }

    pub fn reply_frame(&mut self, slot: u32, opcode: Opcode, payload: &[u8]) {
        let header = websocket::header(opcode, payload.len());
        self.reply_bytes(slot, header.as_ref());
        self.reply_bytes(slot, payload);
    }

    /// Adds bytes to the connection's outbox. A peer that asks on and does not read is closed: what
    /// waits for it is bounded, but for the last thing that it asked for.
    pub(super) fn reply_bytes(&mut self, slot: u32, bytes: &[u8]) {
        let is_echo = self.options.echo.is_some();
        let connection = &mut self.connections[slot];
        if connection.state != State::Open {
            return;
        }
        let is_blocked = connection.is_blocked;
        let outbox = self.connections.outbox(slot);
        let held = outbox.replies_bytes();
        outbox.bytes.extend_from_slice(bytes);
        if is_blocked && held > limits::OUTBOX_BYTES_MAX && !is_echo {
            self.broken.push(slot);
        }
        self.gather.push((slot, 0));
        self.connections.refresh_direct(slot);
    }

    /// Ends the session: a close frame after what was begun, then the connection.
    pub fn close_websocket(&mut self, slot: u32, code: u16, reason: &str) {
        match self.connections[slot].variant {
            Variant::Plain | Variant::Deflated { .. } => {}
            Variant::Xhr => return self.close_session(slot, code, reason),
            Variant::Sse => return self.close_event_stream(slot),
        }
        self.end_subscriptions(slot);
        let mut frame = mem::take(&mut self.frame);
        frame.clear();
        websocket::encode_close(code, reason, &mut frame);
        self.reply_bytes(slot, &frame);
        self.frame = frame;
        self.close_after_flush(slot);
    }

    pub fn end_subscriptions(&mut self, slot: u32) {
        while let Some(last) = self.connections[slot].subscriptions.len().checked_sub(1) {
            self.unsubscribe(slot, last);
        }
    }
}
