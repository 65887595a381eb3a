//! HTTP requests: answered, opened as WebSockets, or kept waiting while the engine is behind.
//!
//! Answers of a connection go in the order of its requests. What waits for other shards holds up the
//! next request, but for publishes that nothing can refuse any more: behind such a one the next call
//! that publishes is carried out at once, so that a back end that pipelines is bound by the engine
//! and not by the way to another shard and back. One call at most waits for more than receipts.
//!
//! | file | what it answers |
//! |---|---|
//! | `api` | which call a request makes; those that publish |
//! | `queries` | questions about channels, members and users, asked of their homes |
//! | `laggards` | who is furthest behind |
//! | `poll` | a page of what is retained, when its first event comes |
//! | `event_stream` | a channel as Server-Sent Events |

pub mod api;
pub mod event_stream;
pub mod laggards;
pub mod poll;
pub mod queries;

use std::borrow::Cow;
use std::mem;

use smallvec::SmallVec;

use crate::base::dialect::Dialect;
use crate::base::lag::{self, LagCells};
use crate::base::limits;
use crate::base::metrics::{self, Latency, Metric, Metrics};
use crate::base::socket::Socket;
use crate::hub::letter::{Event, Publication, Refusal};
use crate::wire::api::StatusPage;
use crate::wire::http::{self, Body, Parsed, Persistence, Request};
use crate::wire::pusher::{self, library};

use super::Engine;
use super::connections::{Http, Pending, Protocol, State};
use super::publish::Routed;

/// An answer to an HTTP request.
#[derive(Debug)]
pub struct Answer {
    pub(super) status: u16,
    pub(super) headers: &'static [(&'static str, &'static str)],
    pub(super) body: Cow<'static, str>,
    /// What follows the body: a list may be long, and is copied once.
    pub(super) more: Vec<Vec<u8>>,
}

pub(super) const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];
pub(super) const TEXT: &[(&str, &str)] = &[("Content-Type", "text/plain; charset=utf-8")];
const RETRY: &[(&str, &str)] = &[
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Retry-After", "1"),
];

impl Answer {
    pub(super) fn ok() -> Answer {
        Answer {
            status: 200,
            headers: TEXT,
            body: "OK".into(),
            more: Vec::new(),
        }
    }

    pub(super) fn refusal(status: u16, text: impl Into<Cow<'static, str>>) -> Answer {
        Answer {
            status,
            headers: TEXT,
            body: text.into(),
            more: Vec::new(),
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
            more: Vec::new(),
        }
    }

    pub(super) fn json(status: u16, body: Vec<u8>) -> Answer {
        let body = String::from_utf8(body).expect("JSON of text is text");
        Answer {
            status,
            headers: JSON,
            body: body.into(),
            more: Vec::new(),
        }
    }

    fn refused(refusal: Refusal) -> Answer {
        let body = match refusal {
            Refusal::Hook => "The app's hook did not let an event be published",
            Refusal::Journal => {
                "An event could not be written to the journal and is not published: its disk may \
                 be full"
            }
        };
        Answer {
            status: 503,
            headers: RETRY,
            body: body.into(),
            more: Vec::new(),
        }
    }

    pub(super) fn behind() -> Answer {
        Answer {
            status: 503,
            headers: RETRY,
            body: "The server is behind with this channel; nothing was published".into(),
            more: Vec::new(),
        }
    }
}

/// What a request came to.
pub(super) enum Outcome {
    Answer(Answer),
    /// The answer comes later: events are under way or parked.
    Later,
    /// The answer has begun, and the connection speaks this from here on.
    Becomes(Protocol),
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
        let is_following = self.connections[slot].is_waiting();
        let (consumed, answer, persistence, upgrade) =
            match http::parse(bytes, &mut http.progress, &limits) {
                Ok(Parsed::Partial {
                    keep,
                    continue_wanted,
                }) => {
                    if continue_wanted && is_following {
                        self.connections.waiting(slot).owes_continue = true;
                    } else if continue_wanted {
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
                    self.tell(slot, refusal.reason());
                    if is_following {
                        self.connections[slot].protocol = Protocol::Http(http);
                        let answer = Answer::refusal(refusal.status(), refusal.reason());
                        self.take_place(slot);
                        self.answer_in_turn(slot, answer, false, Persistence::Close);
                        return None;
                    }
                    self.metrics.add(Metric::RequestsRefused, 1);
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
                    if is_following {
                        self.take_place(slot);
                    }
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
                        if let Some(route) = self.fallback_route(&request) {
                            let next = self.serve_fallback(slot, &request, route, persistence);
                            (consumed, None, persistence, next)
                        } else {
                            let is_head = request.method() == "HEAD";
                            match self.serve(slot, &request, persistence) {
                                Outcome::Answer(answer) if is_following => {
                                    self.answer_in_turn(slot, answer, is_head, persistence);
                                    (consumed, None, persistence, None)
                                }
                                Outcome::Answer(answer) => {
                                    (consumed, Some((answer, is_head)), persistence, None)
                                }
                                Outcome::Later => (consumed, None, persistence, None),
                                Outcome::Becomes(next) => (consumed, None, persistence, Some(next)),
                            }
                        }
                    }
                }
            };
        if let Some(protocol) = upgrade {
            let is_websocket = matches!(protocol, Protocol::WebSocket { .. });
            self.connections[slot].protocol = protocol;
            if is_websocket && self.connections[slot].waiting.is_some() {
                // It subscribes at once: what its address asked for comes before what followed it.
                self.keep(slot, &bytes[consumed..]);
                self.read_on(slot);
                return None;
            }
        } else if self.connections[slot].state == State::Open {
            *http = Http::default();
            self.connections[slot].protocol = Protocol::Http(http);
        }
        if let Some((answer, is_head)) = answer {
            self.answer(slot, &answer, is_head, persistence);
        }
        debug_assert!(consumed <= bytes_end);
        if self.connections[slot].state == State::Departing {
            self.keep_for_departure(slot, &bytes[consumed..]);
            self.try_depart(slot);
            return None;
        }
        Some(&mut bytes[consumed..])
    }

    fn answer(&mut self, slot: u32, answer: &Answer, is_head: bool, persistence: Persistence) {
        if answer.status >= 400 {
            self.metrics.add(Metric::RequestsRefused, 1);
        }
        let more: usize = answer.more.iter().map(Vec::len).sum();
        let head = Body::Omitted {
            bytes: answer.body.len() + more,
        };
        let mut text = mem::take(&mut self.text);
        text.clear();
        http::encode_response(answer.status, answer.headers, head, persistence, &mut text);
        if !is_head {
            text.extend_from_slice(answer.body.as_bytes());
        }
        self.reply_bytes(slot, &text);
        self.text = text;
        if more > 0 && !is_head && self.connections[slot].state == State::Open {
            let outbox = self.connections.outbox(slot);
            outbox.bytes.reserve(more);
            for piece in &answer.more {
                outbox.bytes.extend_from_slice(piece);
            }
        }
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
                return Outcome::Answer(Answer::ok());
            }
            if path == library::PATH {
                return Outcome::Answer(Answer {
                    status: 200,
                    headers: library::HEADERS,
                    body: library::TEXT.into(),
                    more: Vec::new(),
                });
            }
            if path == "/metrics" && self.options.metrics_are_served() {
                let edge = self.edge.as_ref().map(|edge| &edge.metrics);
                let mut body = metrics::exposition(&self.all_metrics, edge);
                let lags: Vec<&LagCells> = self.all_metrics.iter().map(Metrics::lag).collect();
                body += &lag::exposition(&lags, &self.apps.ids());
                let headers = &[("Content-Type", "text/plain; version=0.0.4")];
                return Outcome::Answer(Answer {
                    status: 200,
                    headers,
                    body: body.into(),
                    more: Vec::new(),
                });
            }
            if self.options.compat == Dialect::Soketi
                && let Some(page) = StatusPage::at(path)
            {
                return Outcome::Answer(self.status_page(page));
            }
        }
        match path.strip_prefix("/apps/") {
            Some(below) => self.serve_app(slot, request, path, below, persistence),
            None => Outcome::Answer(Answer::refusal(404, "Not found")),
        }
    }

    /// Keeps the events until they can be published, or their time is up.
    pub(super) fn park(&mut self, slot: u32, events: &[Event<'_>]) {
        self.metrics.add(Metric::PublishesParked, 1);
        let socket = self.connections.socket(slot);
        let arena = &mut self.arena;
        let parked = events
            .iter()
            .map(|event| Publication::new(event, None, arena));
        let waiting = self.connections.waiting(slot);
        waiting.parked.extend(parked);
        waiting.parked_until_ms = self.now_ms + self.options.publish_wait_ms_max;
        waiting.since_us.get_or_insert(self.now_us);
        self.parked.push_back((socket, waiting.parked_until_ms));
        self.wheel.set(slot, waiting.parked_until_ms);
    }

    /// Tries again what was parked, in the order in which it came.
    pub fn retry_parked(&mut self) {
        if !mem::take(&mut self.has_relief) {
            return;
        }
        for _ in 0..self.parked.len() {
            let Some((socket, until_ms)) = self.parked.pop_front() else {
                break;
            };
            if !self.connections.is_current(socket) {
                continue;
            }
            let slot = socket.slot;
            // One that was refused meanwhile may have been followed by another.
            let waiting = self.connections[slot].waiting.as_mut();
            let Some(waiting) = waiting.filter(|waiting| waiting.parked_until_ms == until_ms)
            else {
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
                    self.parked.push_back((socket, until_ms));
                }
                Routed::Posted { receipts } => {
                    self.refresh_timer(slot);
                    let receipts = if requester.is_some() { receipts } else { 0 };
                    let waiting = self.connections[slot].waiting.as_mut();
                    let waiting = waiting.expect("it was just read");
                    waiting.receipts += receipts;
                    if waiting.receipts == 0 {
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
        if waiting.receipts == 0 && waiting.parked.is_empty() {
            self.conclude(slot);
        }
    }

    /// Reads on while a request waits that others may follow.
    pub(super) fn read_following(&mut self, slot: u32) {
        let mut input = mem::take(&mut self.connections.waiting(slot).input);
        self.read(slot, &mut input);
        if let Some(waiting) = self.connections[slot].waiting.as_mut()
            && waiting.input.is_empty()
        {
            input.clear();
            waiting.input = input;
        }
    }

    /// Whether the request that these bytes begin may be carried out before the one that waits is
    /// answered: one that changes something in an app, as publishes do, after a publish.
    pub(super) fn may_follow(&self, slot: u32, bytes: &[u8]) -> bool {
        let waiting = self.connections[slot].waiting.as_ref();
        let path = bytes.strip_prefix(b"POST ");
        let path = path.and_then(|path| path.strip_prefix(self.options.path_prefix.as_bytes()));
        waiting.is_some_and(|waiting| waiting.lets_follow())
            && path.is_some_and(|path| path.starts_with(b"/apps/"))
    }

    /// A request follows one that is not answered yet, a publish that is certain.
    fn take_place(&mut self, slot: u32) {
        let waiting = self.connections.waiting(slot);
        waiting.ahead += 1;
        waiting.is_certain = false;
    }

    /// The answer to a request whose turn comes when those ahead of it are answered.
    fn answer_in_turn(
        &mut self,
        slot: u32,
        answer: Answer,
        is_head: bool,
        persistence: Persistence,
    ) {
        let waiting = self.connections.waiting(slot);
        waiting.pending = Some(Pending::Turn(Box::new(answer)));
        waiting.is_head = is_head;
        waiting.persistence_closes = persistence == Persistence::Close;
    }

    /// The last thing that the connection waited for is there.
    fn conclude(&mut self, slot: u32) {
        if self.connections[slot].state != State::Open {
            return;
        }
        let waiting = self.connections.waiting(slot);
        if let Some(refusal) = waiting.refusal.take() {
            waiting.pending = None;
            return self.end_wait(slot, &Answer::refused(refusal));
        }
        let answer = match waiting.pending.take() {
            None => Answer::accepted(self.options.compat),
            Some(Pending::SignIn(sign_in)) => {
                self.conclude_sign_in(slot, &sign_in);
                Answer::accepted(self.options.compat)
            }
            Some(Pending::Query(query)) => match self.conclude_query(slot, query) {
                Some(answer) => answer,
                None => return,
            },
            Some(Pending::Repeat(channel)) => {
                self.refuse_repeat(slot, &channel);
                Answer::accepted(self.options.compat)
            }
            Some(Pending::Turn(answer)) => *answer,
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
        if waiting.receipts > 0 {
            waiting.pending = Some(Pending::Turn(Box::new(Answer::behind())));
            return self.refresh_timer(slot);
        }
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
            let waiting = self.connections[slot].waiting.as_mut().expect("it waited");
            let closes = waiting.persistence_closes || self.is_draining;
            let persistence = if closes {
                Persistence::Close
            } else {
                Persistence::OpenAnnounced
            };
            waiting.is_certain = false;
            let is_head = waiting.is_head;
            let owes_continue = mem::take(&mut waiting.owes_continue);
            for _ in 0..mem::take(&mut waiting.ahead) {
                let accepted = Answer::accepted(self.options.compat);
                self.answer(slot, &accepted, false, Persistence::OpenAnnounced);
            }
            self.answer(slot, answer, is_head, persistence);
            if owes_continue && !closes {
                self.reply_bytes(slot, http::CONTINUE);
            }
        }
        self.go_on(slot);
    }

    /// Reads what came while the connection waited, and receives again.
    fn go_on(&mut self, slot: u32) {
        self.read_on(slot);
        if self.connections[slot].lacks_receive() {
            self.receive(slot);
        }
        if self.connections[slot].has_ended && !self.connections[slot].is_waiting() {
            self.close_after_flush(slot);
        }
        self.refresh_timer(slot);
    }

    /// Whether answers wait to be sent, more than may wait for one connection: small requests can
    /// ask for large answers, many in one buffer.
    pub(super) fn asks_too_fast(&self, slot: u32) -> bool {
        let outbox = self.connections[slot].outbox.as_ref();
        let owed = outbox.map_or(0, |outbox| outbox.replies_bytes());
        owed > limits::OUTBOX_BYTES_MAX && self.is_http(slot)
    }

    /// Keeps the requests that came, until the answers to those before have gone.
    pub(super) fn read_after_flush(&mut self, slot: u32, bytes: &[u8]) {
        self.connections.waiting(slot).is_flushing = true;
        self.wheel
            .set(slot, self.now_ms + self.options.message_timeout_ms);
        self.keep(slot, bytes);
    }

    /// Goes on with connections whose answers have gone.
    pub(super) fn read_flushed(&mut self) {
        while let Some(socket) = self.flushed.pop() {
            if !self.connections.is_current(socket) {
                continue;
            }
            let slot = socket.slot;
            if let Some(waiting) = self.connections[slot].waiting.as_mut()
                && mem::take(&mut waiting.is_flushing)
            {
                self.go_on(slot);
            }
        }
    }
}
