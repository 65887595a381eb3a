//! Bytes that arrived: read as HTTP or WebSocket, decided on by the hub, carried out here.

use std::mem;

use crate::base::limits;
use crate::base::metrics::{self, Metric};
use crate::base::socket::{Address, GENERATION_BITS, Socket};
use crate::hub::letter::{Event, Publication};
use crate::hub::session::{self, Decision, Session};
use crate::ring::Operation;
use crate::wire::api;
use crate::wire::http::{self, Body, Parsed, Persistence, Request};
use crate::wire::pusher::{self, CloseCode, SocketId};
use crate::wire::signature::{self, SignedRequest};
use crate::wire::websocket::{self, Decoder, Message, Opcode};

use super::Engine;
use super::connections::{Http, Protocol, Source, State};
use super::publish::Routed;

/// An answer to an HTTP request.
struct Answer {
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: String,
}

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];
const TEXT: &[(&str, &str)] = &[("Content-Type", "text/plain; charset=utf-8")];
const RETRY: &[(&str, &str)] = &[
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Retry-After", "1"),
];

impl Answer {
    fn refusal(status: u16, text: impl Into<String>) -> Answer {
        Answer {
            status,
            headers: TEXT,
            body: text.into(),
        }
    }

    fn accepted() -> Answer {
        Answer {
            status: 200,
            headers: JSON,
            body: "{}".to_string(),
        }
    }

    fn behind() -> Answer {
        let body = "The server is behind with this channel; nothing was published".to_string();
        Answer {
            status: 503,
            headers: RETRY,
            body,
        }
    }
}

/// What a request came to.
enum Outcome {
    Answer(Answer),
    /// The answer comes later: events are under way or parked.
    Later,
}

impl Engine {
    pub fn socket_id(&self, slot: u32) -> SocketId {
        let boot = (self.seed >> 32) & 0xFFFF_FFFF;
        let generation = u64::from(self.connections[slot].generation);
        SocketId {
            first: boot << 10 | u64::from(self.index),
            second: generation << GENERATION_BITS | u64::from(slot),
        }
    }

    /// The connection that an id of this process names.
    fn address_of(&self, id: SocketId) -> Option<Address> {
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
        if connection.state != State::Open {
            return;
        }
        match connection.waiting.as_mut() {
            None => self.read(slot, bytes),
            Some(waiting) => {
                waiting.input.extend_from_slice(bytes);
                if !waiting.is_waiting() {
                    self.read_on(slot);
                } else if waiting.input.len() > limits::READ_AHEAD_BYTES_MAX {
                    let socket = self.connections.socket(slot);
                    self.operations.push(Operation::StopReceiving { socket });
                }
            }
        }
    }

    /// Goes on with the bytes that were kept.
    pub fn read_on(&mut self, slot: u32) {
        let Some(waiting) = self.connections[slot].waiting.as_mut() else {
            return;
        };
        if waiting.is_waiting() {
            return;
        }
        let mut input = mem::take(&mut waiting.input);
        self.connections[slot].waiting = None;
        self.read(slot, &mut input);
    }

    /// Reads as much as can be read; what is left is kept with the connection.
    fn read(&mut self, slot: u32, mut bytes: &mut [u8]) {
        loop {
            let connection = &mut self.connections[slot];
            if connection.state != State::Open {
                return;
            }
            if connection.is_waiting() {
                return self.keep(slot, bytes);
            }
            let protocol = mem::replace(&mut connection.protocol, Protocol::Absent);
            let rest = match protocol {
                Protocol::Http(http) => match self.read_http(slot, http, bytes) {
                    Some(rest) => rest,
                    None => return,
                },
                Protocol::WebSocket { decoder, session } => {
                    self.read_websocket(slot, decoder, session, bytes)
                }
                Protocol::Echo { decoder } => self.read_echo(slot, decoder, bytes),
                Protocol::Absent => return,
            };
            if rest.is_empty() {
                return self.refresh_timer(slot);
            }
            bytes = rest;
        }
    }

    fn keep(&mut self, slot: u32, bytes: &[u8]) {
        let waiting = self.connections[slot].waiting.get_or_insert_default();
        waiting.input.extend_from_slice(bytes);
        if waiting.is_waiting() && waiting.input.len() > limits::READ_AHEAD_BYTES_MAX {
            let socket = self.connections.socket(slot);
            self.operations.push(Operation::StopReceiving { socket });
        }
    }

    /// Reads one request. Nothing if the rest of it has to come first.
    fn read_http<'a>(
        &mut self,
        slot: u32,
        mut http: Box<Http>,
        bytes: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        let limits = http::Limits {
            head_bytes_max: self.options.http_head_bytes_max,
            body_bytes_max: self.options.http_body_bytes_max,
        };
        let bytes_end = bytes.len();
        let (consumed, answer, persistence, upgrade) =
            match http::parse(bytes, &mut http.progress, &limits) {
                Ok(Parsed::Partial {
                    keep,
                    continue_wanted,
                }) => {
                    if continue_wanted {
                        self.reply_bytes(slot, http::CONTINUE);
                    }
                    http.begun_ms.get_or_insert(self.now_ms);
                    self.connections[slot].protocol = Protocol::Http(http);
                    if keep > 0 {
                        self.keep(slot, &bytes[..keep]);
                    }
                    self.refresh_timer(slot);
                    return None;
                }
                Err(refusal) => {
                    self.metrics.add(Metric::Requests, 1);
                    self.metrics.add(Metric::RequestsRefused, 1);
                    let mut text = Vec::new();
                    http::encode_refusal(refusal, &mut text);
                    self.reply_bytes(slot, &text);
                    self.close_after_flush(slot);
                    return None;
                }
                Ok(Parsed::Whole { request, consumed }) => {
                    self.metrics.add(Metric::Requests, 1);
                    if request.upgrades_to_websocket() {
                        let upgrade = self.upgrade(slot, &request);
                        (consumed, None, Persistence::Close, upgrade)
                    } else {
                        let persistence = match request.persistence() {
                            _ if self.is_draining || self.connections[slot].has_ended => {
                                Persistence::Close
                            }
                            persistence => persistence,
                        };
                        let answer = match self.serve(slot, &request, persistence) {
                            Outcome::Answer(answer) => Some((answer, request.method() == "HEAD")),
                            Outcome::Later => None,
                        };
                        (consumed, answer, persistence, None)
                    }
                }
            };
        if let Some(protocol) = upgrade {
            self.connections[slot].protocol = protocol;
        } else if self.connections[slot].state == State::Open {
            self.connections[slot].protocol = Protocol::Http(Box::default());
        }
        if let Some((answer, is_head)) = answer {
            self.answer(slot, &answer, is_head, persistence);
        }
        debug_assert!(consumed <= bytes_end);
        Some(&mut bytes[consumed..])
    }

    fn answer(&mut self, slot: u32, answer: &Answer, is_head: bool, persistence: Persistence) {
        if answer.status >= 400 {
            self.metrics.add(Metric::RequestsRefused, 1);
        }
        let body = match is_head {
            true => Body::Omitted {
                bytes: answer.body.len(),
            },
            false => Body::Bytes(answer.body.as_bytes()),
        };
        let mut text = mem::take(&mut self.text);
        text.clear();
        http::encode_response(answer.status, answer.headers, body, persistence, &mut text);
        self.reply_bytes(slot, &text);
        self.text = text;
        if persistence == Persistence::Close {
            self.close_after_flush(slot);
        }
    }

    /// Decides on a request that is not an upgrade.
    fn serve(&mut self, slot: u32, request: &Request<'_>, persistence: Persistence) -> Outcome {
        let path = request.path();
        let Some(path) = path.strip_prefix(self.options.path_prefix.as_str()) else {
            return Outcome::Answer(Answer::refusal(404, "Not found"));
        };
        if matches!(request.method(), "GET" | "HEAD") {
            if path == "/" {
                return Outcome::Answer(Answer {
                    status: 200,
                    headers: TEXT,
                    body: "OK".into(),
                });
            }
            if path == "/metrics" && self.options.metrics_are_served() {
                let body = metrics::exposition(&self.all_metrics);
                let headers = &[("Content-Type", "text/plain; version=0.0.4")];
                return Outcome::Answer(Answer {
                    status: 200,
                    headers,
                    body,
                });
            }
        }
        let Some((id, call)) = path
            .strip_prefix("/apps/")
            .and_then(|rest| rest.split_once('/'))
        else {
            return Outcome::Answer(Answer::refusal(404, "Not found"));
        };
        if !matches!(call, "events" | "batch_events") {
            return Outcome::Answer(Answer::refusal(404, "Not found"));
        }
        if request.method() != "POST" {
            return Outcome::Answer(Answer::refusal(405, "Method not allowed"));
        }
        let Some(number) = self.apps.with_id(id) else {
            return Outcome::Answer(Answer::refusal(404, "Unknown app id"));
        };
        let apps = self.apps.clone();
        let app = apps.app(number);
        let query = request.query().unwrap_or("");
        let signed = SignedRequest {
            method: "POST",
            path,
            query,
            body: request.body(),
        };
        if let Err(error) = signature::check_request(
            &app.key,
            &app.signer,
            signed,
            self.wall_s,
            SIGNATURE_GRACE_S,
        ) {
            return Outcome::Answer(Answer::refusal(401, error.to_string()));
        }
        if !app.is_enabled {
            return Outcome::Answer(Answer::refusal(403, "The app is disabled"));
        }
        let parsed = match call {
            "events" => api::parse_event(request.body(), request.query(), &app.limits)
                .map(|event| vec![event]),
            _ => api::parse_batch(request.body(), &app.limits),
        };
        let parsed = match parsed {
            Ok(events) => events,
            Err(error) => {
                return Outcome::Answer(Answer::refusal(error.status, error.message));
            }
        };
        let mut events: Vec<Event<'_>> = Vec::with_capacity(parsed.len());
        for event in &parsed {
            let excluded = event.socket_id.and_then(|id| self.address_of(id));
            events.extend(event.channels.iter().map(|channel| Event {
                app: number,
                channel,
                name: event.name.token(),
                data: event.data.token(),
                excluded,
            }));
        }
        match self.route(&events, Some(self.connections.socket(slot))) {
            Routed::Posted { receipts: 0 } => Outcome::Answer(Answer::accepted()),
            Routed::Posted { receipts } => {
                let waiting = self.connections[slot].waiting.get_or_insert_default();
                waiting.receipts = receipts;
                waiting.persistence_closes = persistence == Persistence::Close;
                Outcome::Later
            }
            Routed::Behind => {
                self.park(slot, &events);
                let waiting = self.connections[slot].waiting.get_or_insert_default();
                waiting.persistence_closes = persistence == Persistence::Close;
                Outcome::Later
            }
        }
    }

    /// Keeps the events until they can be published, or their time is up.
    fn park(&mut self, slot: u32, events: &[Event<'_>]) {
        self.metrics.add(Metric::PublishesParked, 1);
        let socket = self.connections.socket(slot);
        let arena = &mut self.arena;
        let parked = events
            .iter()
            .map(|event| Publication::new(event, Some(socket), arena));
        let waiting = self.connections[slot].waiting.get_or_insert_default();
        waiting.parked.extend(parked);
        waiting.parked_until_ms = self.now_ms + self.options.publish_wait_ms_max;
        self.parked.push_back(socket);
        self.wheel.set(slot, waiting.parked_until_ms);
    }

    /// Tries again what was parked, in the order in which it came.
    pub fn retry_parked(&mut self) {
        if !mem::take(&mut self.has_relief) {
            return;
        }
        for _ in 0..self.parked.len() {
            let Some(socket) = self.parked.pop_front() else {
                break;
            };
            if !self.connections.is_current(socket) {
                continue;
            }
            let slot = socket.slot;
            let Some(waiting) = self.connections[slot].waiting.as_mut() else {
                continue;
            };
            let parked = mem::take(&mut waiting.parked);
            if parked.is_empty() {
                continue;
            }
            let events: Vec<Event<'_>> = parked.iter().map(Publication::event).collect();
            let requester = self.is_http(slot).then_some(socket);
            match self.route(&events, requester) {
                Routed::Behind => {
                    let waiting = self.connections[slot].waiting.as_mut();
                    waiting.expect("it was just read").parked = parked;
                    self.parked.push_back(socket);
                }
                Routed::Posted { receipts } => {
                    self.refresh_timer(slot);
                    let receipts = if requester.is_some() { receipts } else { 0 };
                    let waiting = self.connections[slot].waiting.as_mut();
                    waiting.expect("it was just read").receipts = receipts;
                    if receipts == 0 {
                        self.end_wait(slot, &Answer::accepted());
                    }
                }
            }
        }
    }

    fn is_http(&self, slot: u32) -> bool {
        matches!(self.connections[slot].protocol, Protocol::Http(_))
    }

    /// A home confirmed one of the events of a request.
    pub fn on_receipt(&mut self, requester: Socket) {
        if !self.connections.is_current(requester) {
            return;
        }
        let slot = requester.slot;
        let Some(waiting) = self.connections[slot].waiting.as_mut() else {
            return;
        };
        waiting.receipts = waiting.receipts.saturating_sub(1);
        if waiting.receipts == 0 && self.connections[slot].state == State::Open {
            self.end_wait(slot, &Answer::accepted());
        }
    }

    /// The time of a parked publish is up: nothing of it was published.
    pub fn refuse_parked(&mut self, slot: u32) {
        self.metrics.add(Metric::PublishesRefused, 1);
        let waiting = self.connections[slot]
            .waiting
            .as_mut()
            .expect("it was parked");
        let parked = mem::take(&mut waiting.parked);
        if !self.is_http(slot) {
            let event = parked[0].event();
            let mut text = mem::take(&mut self.text);
            text.clear();
            let error = "Client event rejected - the server is behind with this channel";
            let code = Some(pusher::CLIENT_EVENT_REJECTED);
            pusher::encode_error(&mut text, error, code, Some(event.channel));
            self.reply_text(slot, &text);
            self.text = text;
        }
        self.end_wait(slot, &Answer::behind());
    }

    /// Answers the request that waited, and reads on.
    fn end_wait(&mut self, slot: u32, answer: &Answer) {
        if self.is_http(slot) {
            let waiting = self.connections[slot].waiting.as_ref().expect("it waited");
            let closes = waiting.persistence_closes || self.is_draining;
            let persistence = if closes {
                Persistence::Close
            } else {
                Persistence::OpenAnnounced
            };
            self.answer(slot, answer, false, persistence);
        }
        self.read_on(slot);
        let connection = &self.connections[slot];
        if connection.state == State::Open && !connection.is_receiving && !connection.has_ended {
            self.receive(slot);
        }
        if self.connections[slot].has_ended && !self.connections[slot].is_waiting() {
            self.close_after_flush(slot);
        }
        self.refresh_timer(slot);
    }

    /// Opens a WebSocket, or answers why not.
    fn upgrade(&mut self, slot: u32, request: &Request<'_>) -> Option<Protocol> {
        let minor = request.minor_version();
        let upgrade = match websocket::check_upgrade(request.method(), minor, request.headers()) {
            Ok(upgrade) => upgrade,
            Err(refusal) => {
                self.metrics.add(Metric::RequestsRefused, 1);
                let mut text = Vec::new();
                let body = Body::Bytes(refusal.reason().as_bytes());
                let headers = refusal.headers();
                http::encode_response(
                    refusal.status(),
                    headers,
                    body,
                    Persistence::Close,
                    &mut text,
                );
                self.reply_bytes(slot, &text);
                self.close_after_flush(slot);
                return None;
            }
        };
        let accept = websocket::accept_key(upgrade.key);
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        self.reply_bytes(slot, head.as_bytes());
        if self.options.echo.as_deref() == Some(request.path()) {
            return Some(Protocol::Echo {
                decoder: Decoder::default(),
            });
        }
        match self.admit(request) {
            Ok(session) => {
                let mut text = mem::take(&mut self.text);
                text.clear();
                let timeout = self.options.activity_timeout_s as u32;
                pusher::encode_connection_established(&mut text, self.socket_id(slot), timeout);
                self.reply_text(slot, &text);
                self.text = text;
                Some(Protocol::WebSocket {
                    decoder: Decoder::default(),
                    session,
                })
            }
            Err((code, reason)) => {
                self.refuse_session(slot, code, &reason);
                None
            }
        }
    }

    /// Whether there is an app and a protocol to speak.
    fn admit(&self, request: &Request<'_>) -> Result<Session, (CloseCode, String)> {
        let plain = |code: CloseCode| (code, code.reason().to_string());
        if self.is_draining {
            return Err(plain(CloseCode::ReconnectImmediately));
        }
        let key = pusher::app_key(request.path(), &self.options.path_prefix).map_err(plain)?;
        let app = self.apps.with_key(key).ok_or_else(|| {
            let reason = format!(
                "App key {key} not in this cluster. Did you forget to specify the cluster?"
            );
            (CloseCode::ApplicationUnknown, reason)
        })?;
        if !self.apps.app(app).is_enabled {
            return Err(plain(CloseCode::ApplicationDisabled));
        }
        let query = request.query().unwrap_or("");
        let protocol = http::query_pairs(query).find(|(name, _)| name == "protocol");
        let protocol = protocol.as_ref().map(|(_, value)| value.as_ref());
        let protocol = pusher::check_protocol(protocol).map_err(plain)?;
        Ok(Session::new(app, protocol))
    }

    /// Tells a client why it is refused, as an event and as the reason of the close.
    fn refuse_session(&mut self, slot: u32, code: CloseCode, reason: &str) {
        self.metrics.add(Metric::MessagesRefused, 1);
        let mut text = mem::take(&mut self.text);
        text.clear();
        pusher::encode_error(&mut text, reason, Some(code.number()), None);
        self.reply_text(slot, &text);
        self.text = text;
        self.close_websocket(slot, code.number(), reason);
    }

    fn read_websocket<'a>(
        &mut self,
        slot: u32,
        mut decoder: Decoder,
        mut session: Session,
        bytes: &'a mut [u8],
    ) -> &'a mut [u8] {
        let limits = websocket::Limits {
            message_bytes_max: self.options.message_bytes_max,
        };
        let mut at = 0;
        while self.connections[slot].state == State::Open {
            if self.connections[slot].is_waiting() {
                self.connections[slot].protocol = Protocol::WebSocket { decoder, session };
                return &mut bytes[at..];
            }
            match decoder.decode(&mut bytes[at..], &limits) {
                Ok((consumed, message)) => {
                    at += consumed;
                    let Some(message) = message else { break };
                    self.metrics.add(Metric::Messages, 1);
                    self.on_message(slot, &mut session, message);
                }
                Err(violation) => {
                    self.metrics.add(Metric::Violations, 1);
                    self.close_websocket(slot, violation.close_code(), violation.reason());
                }
            }
        }
        if self.connections[slot].state == State::Open {
            self.connections[slot].protocol = Protocol::WebSocket { decoder, session };
        }
        &mut []
    }

    fn on_message(&mut self, slot: u32, session: &mut Session, message: Message<'_>) {
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
    fn answer_close(&mut self, slot: u32, code: Option<u16>) {
        match code {
            Some(code) => self.close_websocket(slot, code, ""),
            None => {
                self.end_subscriptions(slot);
                self.reply_frame(slot, Opcode::Close, &[]);
                self.close_after_flush(slot);
            }
        }
    }

    fn on_text(&mut self, slot: u32, session: &mut Session, text: &str) {
        let mut reply = mem::take(&mut self.text);
        reply.clear();
        let apps = self.apps.clone();
        let app = apps.app(session.app);
        let id = self.socket_id(slot);
        match session.read(app, id, text, self.now_s, &mut reply) {
            Decision::Answered => {}
            Decision::Refused => self.metrics.add(Metric::MessagesRefused, 1),
            Decision::Subscribe { channel } => {
                let place = self.place_of(slot, session.app, &channel);
                let held = self.connections[slot].subscriptions.len();
                let most = self.options.subscriptions_per_connection_max;
                if place.is_some() {
                    let error = format!("Existing subscription to channel {channel}");
                    pusher::encode_error(&mut reply, &error, None, Some(&channel));
                    self.metrics.add(Metric::MessagesRefused, 1);
                } else if held >= most as usize {
                    let error = "The connection is subscribed to as many channels as it may be";
                    let kind = "LimitReached";
                    pusher::encode_subscription_error(&mut reply, &channel, kind, error, 4004);
                    self.metrics.add(Metric::MessagesRefused, 1);
                } else if self.subscribe(slot, session.app, &channel) {
                    self.confirm_subscription(slot, &channel);
                }
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
                        channel: &channel,
                        name: &name,
                        data,
                        excluded,
                    };
                    if self.route(&[event], None) == Routed::Behind {
                        self.park(slot, &[event]);
                    }
                }
            }
            Decision::Close(code) => {
                reply.clear();
                self.refuse_session(slot, code, code.reason());
            }
        }
        if !reply.is_empty() {
            self.reply_text(slot, &reply);
        }
        self.text = reply;
    }

    fn place_of(&self, slot: u32, app: u16, channel: &str) -> Option<usize> {
        let channel = self.channels.find(app, channel)?;
        let held = &self.connections[slot].subscriptions;
        held.iter().position(|held| held.channel == channel)
    }

    pub fn confirm_subscription(&mut self, slot: u32, channel: &str) {
        let mut text = Vec::new();
        pusher::encode_subscription_succeeded(&mut text, channel);
        self.reply_text(slot, &text);
    }

    fn read_echo<'a>(
        &mut self,
        slot: u32,
        mut decoder: Decoder,
        bytes: &'a mut [u8],
    ) -> &'a mut [u8] {
        let limits = websocket::Limits {
            message_bytes_max: self.options.echo_message_bytes_max,
        };
        let mut at = 0;
        while self.connections[slot].state == State::Open {
            match decoder.decode(&mut bytes[at..], &limits) {
                Ok((consumed, message)) => {
                    at += consumed;
                    match message {
                        None => break,
                        Some(Message::Text(text)) => {
                            self.reply_frame(slot, Opcode::Text, text.as_bytes());
                        }
                        Some(Message::Binary(payload)) => {
                            self.reply_frame(slot, Opcode::Binary, payload);
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
                Err(violation) => {
                    self.metrics.add(Metric::Violations, 1);
                    self.close_websocket(slot, violation.close_code(), violation.reason());
                }
            }
        }
        if self.connections[slot].state == State::Open {
            self.connections[slot].protocol = Protocol::Echo { decoder };
        }
        &mut []
    }

    /// Sends a text message to one client.
    pub fn reply_text(&mut self, slot: u32, text: &[u8]) {
        self.reply_frame(slot, Opcode::Text, text);
    }

    pub fn reply_frame(&mut self, slot: u32, opcode: Opcode, payload: &[u8]) {
        let header = websocket::header(opcode, payload.len());
        self.reply_bytes(slot, header.as_ref());
        self.reply_bytes(slot, payload);
    }

    /// Adds bytes to the connection's outbox. A peer that asks and does not read is closed.
    fn reply_bytes(&mut self, slot: u32, bytes: &[u8]) {
        let is_echo = self.options.echo.is_some();
        let connection = &mut self.connections[slot];
        if connection.state != State::Open {
            return;
        }
        let outbox = connection.outbox.get_or_insert_default();
        outbox.bytes.extend_from_slice(bytes);
        let held = outbox.bytes.len() - outbox.sent;
        if connection.is_blocked && held > limits::OUTBOX_BYTES_MAX && !is_echo {
            self.broken.push(slot);
        }
        self.gather.push((slot, 0));
        self.connections.refresh_direct(slot);
    }

    /// Ends the session: a close frame after what was begun, then the connection.
    pub fn close_websocket(&mut self, slot: u32, code: u16, reason: &str) {
        self.end_subscriptions(slot);
        let mut frame = Vec::new();
        websocket::encode_close(code, reason, &mut frame);
        self.reply_bytes(slot, &frame);
        self.close_after_flush(slot);
    }

    pub fn end_subscriptions(&mut self, slot: u32) {
        if let Source::Channel(channel) = self.connections[slot].unfinished {
            self.finish_frame(slot, channel);
        }
        while let Some(last) = self.connections[slot].subscriptions.len().checked_sub(1) {
            self.unsubscribe(slot, last);
        }
    }
}

/// How far a request's timestamp may be off.
const SIGNATURE_GRACE_S: u64 = 600;
