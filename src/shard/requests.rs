//! HTTP requests: answered, opened as WebSockets, or kept waiting while the engine is behind.

use std::borrow::Cow;
use std::mem;

use smallvec::SmallVec;

use crate::base::dialect::Dialect;
use crate::base::metrics::{self, Latency, Metric};
use crate::base::socket::Socket;
use crate::hub::ask::Question;
use crate::hub::letter::{Event, Origin, Publication};
use crate::hub::query::{Publish, Query};
use crate::hub::session::Session;
use crate::hub::users;
use crate::wire::api::{self, Call, Endpoint, NoEndpoint, PublishForm};
use crate::wire::http::{self, Body, Parsed, Persistence, Request};
use crate::wire::pusher::{self, CloseCode};
use crate::wire::signature::{self, SignedRequest};
use crate::wire::websocket::{self, Agreement, Decoder, Refusal};

use super::Engine;
use super::connections::{Http, Pending, Protocol, State};
use super::publish::Routed;

/// An answer to an HTTP request.
struct Answer {
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: Cow<'static, str>,
}

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];
const TEXT: &[(&str, &str)] = &[("Content-Type", "text/plain; charset=utf-8")];
const ALLOW_POST: &[(&str, &str)] = &[TEXT[0], ("Allow", "POST")];
const ALLOW_GET: &[(&str, &str)] = &[TEXT[0], ("Allow", "GET, HEAD")];
const RETRY: &[(&str, &str)] = &[
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Retry-After", "1"),
];

impl Answer {
    pub(super) fn refusal(status: u16, text: impl Into<Cow<'static, str>>) -> Answer {
        Answer {
            status,
            headers: TEXT,
            body: text.into(),
        }
    }

    pub(super) fn accepted(dialect: Dialect) -> Answer {
        let body = match dialect {
            Dialect::Pusher => "{}",
            Dialect::Soketi => r#"{"ok":true}"#,
        };
        Answer {
            status: 200,
            headers: JSON,
            body: body.into(),
        }
    }

    fn json(status: u16, body: Vec<u8>) -> Answer {
        let body = String::from_utf8(body).expect("JSON of text is text");
        Answer {
            status,
            headers: JSON,
            body: body.into(),
        }
    }

    pub(super) fn refused() -> Answer {
        Answer {
            status: 503,
            headers: RETRY,
            body: "The app's hook did not let an event be published".into(),
        }
    }

    pub(super) fn behind() -> Answer {
        Answer {
            status: 503,
            headers: RETRY,
            body: "The server is behind with this channel; nothing was published".into(),
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
    /// Reads one request. Nothing if the rest of it has to come first.
    pub(super) fn read_http<'a>(
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
                    self.tell(slot, refusal.reason());
                    let mut text = mem::take(&mut self.text);
                    text.clear();
                    http::encode_refusal(refusal, &mut text);
                    self.reply_bytes(slot, &text);
                    self.text = text;
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
                            _ if self.is_draining
                                || self.is_over_capacity()
                                || self.connections[slot].has_ended =>
                            {
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
            *http = Http::default();
            self.connections[slot].protocol = Protocol::Http(http);
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
                let edge = self.edge.as_ref().map(|edge| &edge.metrics);
                let body = metrics::exposition(&self.all_metrics, edge);
                let headers = &[("Content-Type", "text/plain; version=0.0.4")];
                return Outcome::Answer(Answer {
                    status: 200,
                    headers,
                    body: body.into(),
                });
            }
        }
        let Some(below) = path.strip_prefix("/apps/") else {
            return Outcome::Answer(Answer::refusal(404, "Not found"));
        };
        let id = below.split('/').next().unwrap_or("");
        let endpoint = match Endpoint::find(request.method(), &below[id.len()..]) {
            Ok(endpoint) => endpoint,
            Err(error) => {
                let answer = Answer::refusal(error.status(), error.to_string());
                return Outcome::Answer(match error {
                    NoEndpoint::OtherMethod { allowed: "POST" } => Answer {
                        headers: ALLOW_POST,
                        ..answer
                    },
                    NoEndpoint::OtherMethod { .. } => Answer {
                        headers: ALLOW_GET,
                        ..answer
                    },
                    NoEndpoint::Unknown => answer,
                });
            }
        };
        let Some(number) = self.apps.with_id(id) else {
            return Outcome::Answer(self.refuse(404, "Unknown app id"));
        };
        let app = self.apps.app(number);
        let signed = SignedRequest {
            method: request.method(),
            path,
            query: request.query().unwrap_or(""),
            body: request.body(),
        };
        if let Err(error) = signature::check_request(
            &app.key,
            &app.signer,
            signed,
            self.wall_s,
            SIGNATURE_GRACE_S,
        ) {
            return Outcome::Answer(self.refuse(401, error.to_string()));
        }
        if !app.is_enabled {
            return Outcome::Answer(self.refuse(403, "The app is disabled"));
        }
        let (query, body) = (request.query(), request.body());
        let call = match Call::parse(endpoint, query, body, &app.limits, self.options.compat) {
            Ok(call) => call,
            Err(error) => return Outcome::Answer(self.refuse(error.status, error.message)),
        };
        let outcome = self.carry_out(slot, number, call);
        if matches!(outcome, Outcome::Later) {
            let waiting = self.connections.waiting(slot);
            waiting.persistence_closes = persistence == Persistence::Close;
            waiting.is_head = request.method() == "HEAD";
        }
        outcome
    }

    fn refuse(&self, status: u16, text: impl Into<Cow<'static, str>>) -> Answer {
        let (content_type, body) = api::refusal_body(self.options.compat, status, &text.into());
        let headers = if content_type == JSON[0].1 {
            JSON
        } else {
            TEXT
        };
        Answer {
            status,
            headers,
            body: body.into(),
        }
    }

    fn carry_out(&mut self, slot: u32, app: u16, call: Call<'_>) -> Outcome {
        match call {
            Call::Publish { events, form } => return self.publish(slot, app, &events, form),
            Call::Channels { prefix, told } => {
                self.query_list(slot, app, prefix.as_deref().unwrap_or(""), told);
            }
            Call::Channel { name, told, .. } => {
                self.query(slot, app, &name, Question::Channel { told });
            }
            Call::Users {
                name,
                with_user_info,
            } => self.query(slot, app, &name, Question::Users { with_user_info }),
            Call::Terminate { user_id } => {
                let name = users::own_channel(&user_id);
                self.query(slot, app, &name, Question::Terminate);
            }
        }
        Outcome::Later
    }

    /// Publishes what a request asked for, or keeps it until that can be done.
    fn publish(
        &mut self,
        slot: u32,
        app: u16,
        parsed: &[api::Event<'_>],
        form: PublishForm,
    ) -> Outcome {
        let events = parsed.iter().map(|event| event.channels.len() as u32);
        let quota = &self.apps.app(app).quota;
        if !quota.take_events(events.sum(), self.wall_s as u32) {
            let status = match self.options.compat {
                Dialect::Pusher => 403,
                Dialect::Soketi => 429,
            };
            let error = "The app has published as many events in this second as it may";
            return Outcome::Answer(self.refuse(status, error));
        }
        let mut events = SmallVec::<[Event<'_>; 1]>::new();
        for event in parsed {
            let excluded = event.socket_id.and_then(|id| self.address_of(id));
            events.extend(event.channels.iter().map(|channel| Event {
                app,
                origin: Origin::Api,
                channel,
                name: event.name.token(),
                data: event.data.token(),
                user_id: "",
                excluded,
            }));
        }
        let query = Publish::new(app, form, parsed);
        let query = query.map(|publish| Box::new(Query::Publish(publish)));
        let receipts = match self.route(&events, Some(self.connections.socket(slot))) {
            Routed::Posted { receipts: 0 } => {
                return match query {
                    None => Outcome::Answer(Answer::accepted(self.options.compat)),
                    Some(query) => match self.conclude_query(slot, query) {
                        Some((status, body)) => Outcome::Answer(Answer::json(status, body)),
                        None => Outcome::Later,
                    },
                };
            }
            Routed::Posted { receipts } => receipts,
            Routed::Behind => {
                self.park(slot, &events);
                0
            }
        };
        let waiting = self.connections.waiting(slot);
        waiting.receipts = receipts;
        waiting.since_us = Some(self.now_us);
        waiting.pending = query.map(Pending::Query);
        Outcome::Later
    }

    /// Keeps the events until they can be published, or their time is up.
    pub(super) fn park(&mut self, slot: u32, events: &[Event<'_>]) {
        self.metrics.add(Metric::PublishesParked, 1);
        let socket = self.connections.socket(slot);
        let arena = &mut self.arena;
        let parked = events
            .iter()
            .map(|event| Publication::new(event, Some(socket), arena));
        let waiting = self.connections.waiting(slot);
        waiting.parked.extend(parked);
        waiting.parked_until_ms = self.now_ms + self.options.publish_wait_ms_max;
        waiting.since_us = Some(self.now_us);
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
            let events: SmallVec<[Event<'_>; 1]> = parked.iter().map(Publication::event).collect();
            let requester = self.is_http(slot).then_some(socket);
            let routed = self.route(&events, requester);
            drop(events);
            match routed {
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
                        self.conclude(slot);
                    }
                }
            }
        }
    }

    pub(super) fn is_http(&self, slot: u32) -> bool {
        matches!(self.connections[slot].protocol, Protocol::Http(_))
    }

    /// A home confirmed or answered one thing that the connection waits for.
    pub fn on_receipt(&mut self, requester: Socket) {
        if !self.connections.is_current(requester) {
            return;
        }
        let slot = requester.slot;
        let Some(waiting) = self.connections[slot].waiting.as_mut() else {
            return;
        };
        waiting.receipts = waiting.receipts.saturating_sub(1);
        if waiting.receipts == 0 {
            self.conclude(slot);
        }
    }

    /// The last thing that the connection waited for is there.
    fn conclude(&mut self, slot: u32) {
        if self.connections[slot].state != State::Open {
            return;
        }
        let waiting = self.connections.waiting(slot);
        if mem::take(&mut waiting.is_refused) {
            waiting.pending = None;
            return self.end_wait(slot, &Answer::refused());
        }
        let answer = match waiting.pending.take() {
            None => Answer::accepted(self.options.compat),
            Some(Pending::SignIn(sign_in)) => {
                self.conclude_sign_in(slot, &sign_in);
                Answer::accepted(self.options.compat)
            }
            Some(Pending::Query(query)) => match self.conclude_query(slot, query) {
                Some((status, body)) => Answer::json(status, body),
                None => return,
            },
        };
        self.end_wait(slot, &answer);
    }

    /// The time of a parked publish is up: nothing of it was published.
    pub fn refuse_parked(&mut self, slot: u32) {
        self.metrics.add(Metric::PublishesRefused, 1);
        let waiting = self.connections[slot]
            .waiting
            .as_mut()
            .expect("it was parked");
        let parked = mem::take(&mut waiting.parked);
        waiting.pending = None;
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
        let waiting = self.connections[slot].waiting.as_mut();
        if let Some(since_us) = waiting.and_then(|waiting| waiting.since_us.take()) {
            let wait_us = self.now_us - since_us;
            self.latencies.record(Latency::PublishWait, wait_us);
        }
        if self.is_http(slot) {
            let waiting = self.connections[slot].waiting.as_ref().expect("it waited");
            let closes = waiting.persistence_closes || self.is_draining;
            let persistence = if closes {
                Persistence::Close
            } else {
                Persistence::OpenAnnounced
            };
            let is_head = waiting.is_head;
            self.answer(slot, answer, is_head, persistence);
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
    pub(super) fn upgrade(&mut self, slot: u32, request: &Request<'_>) -> Option<Protocol> {
        let minor = request.minor_version();
        let checked = websocket::check_upgrade(request.method(), minor, request.headers())
            .and_then(|upgrade| Ok((upgrade, self.agree(request)?)));
        let (upgrade, agreement) = match checked {
            Ok(checked) => checked,
            Err(refusal) => {
                self.metrics.add(Metric::RequestsRefused, 1);
                self.tell(slot, refusal.reason());
                let mut text = mem::take(&mut self.text);
                text.clear();
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
                self.text = text;
                self.close_after_flush(slot);
                return None;
            }
        };
        let accept = websocket::accept_key(upgrade.key);
        let extensions = agreement.map_or(String::new(), |agreement| {
            format!("Sec-WebSocket-Extensions: {}\r\n", agreement.answer())
        });
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{extensions}\r\n"
        );
        self.connections[slot].window = agreement.map(|agreement| agreement.window);
        self.reply_bytes(slot, head.as_bytes());
        let is_echo = self.options.echo.as_deref() == Some(request.path());
        if is_echo && !self.is_over_capacity() {
            return Some(Protocol::Echo {
                decoder: Decoder::default(),
            });
        }
        match self.admit(slot, request) {
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

    /// What of the extensions that the client offers is taken.
    fn agree(&self, request: &Request<'_>) -> Result<Option<Agreement>, Refusal> {
        match self.options.compression {
            true => websocket::agree(request.headers()),
            false => Ok(None),
        }
    }

    /// Whether there is room, an app and a protocol to speak.
    pub(super) fn admit(
        &mut self,
        slot: u32,
        request: &Request<'_>,
    ) -> Result<Session, (CloseCode, String)> {
        let plain = |code: CloseCode| (code, code.reason().to_string());
        if self.is_draining {
            return Err(plain(CloseCode::ReconnectImmediately));
        }
        if self.is_over_capacity() {
            self.metrics.add(Metric::ConnectionsRefused, 1);
            return Err(plain(CloseCode::OverCapacity));
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
        let record = self.apps.app(app);
        if !record.quota.take_connection() {
            return Err(plain(CloseCode::OverConnectionQuota));
        }
        self.connections[slot].counted_for = Some(app);
        let mut session = Session::new(app, protocol);
        if record.authorization_timeout_s > 0 {
            session.authorize_by_s = self.now_s + record.authorization_timeout_s;
        }
        Ok(session)
    }

    /// Tells a client why it is refused, as an event and as the reason of the close.
    pub(super) fn refuse_session(&mut self, slot: u32, code: CloseCode, reason: &str) {
        self.metrics.add(Metric::MessagesRefused, 1);
        self.tell(slot, reason);
        let mut text = mem::take(&mut self.text);
        text.clear();
        pusher::encode_error(&mut text, reason, Some(code.number()), None);
        self.reply_text(slot, &text);
        self.text = text;
        self.close_websocket(slot, code.number(), reason);
    }
}

/// How far a request's timestamp may be off.
const SIGNATURE_GRACE_S: u64 = 600;
