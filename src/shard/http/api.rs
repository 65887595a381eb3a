//! The HTTP API: calls are checked and carried out, or wait for homes.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::base::dialect::Dialect;
use crate::base::memory;
use crate::hub::ask::Question;
use crate::hub::letter::{Event, Origin};
use crate::hub::query::{Publish, Query};
use crate::hub::users;
use crate::wire::api::{self, Call, Endpoint, MemoryUse, NoEndpoint, PublishForm, StatusPage};
use crate::wire::fallback;
use crate::wire::http::{Persistence, Request};
use crate::wire::signature::{self, SignedRequest};

use super::{Answer, JSON, Outcome, TEXT};
use crate::shard::Engine;
use crate::shard::connections::Pending;
use crate::shard::publish::Routed;

const ALLOW_POST: &[(&str, &str)] = &[TEXT[0], ("Allow", "POST")];
const ALLOW_GET: &[(&str, &str)] = &[TEXT[0], ("Allow", "GET, HEAD")];

impl Engine {
    /// A request to `path`, which is `/apps/` and `below`.
    pub(in crate::shard) fn serve_app(
        &mut self,
        slot: u32,
        request: &Request<'_>,
        path: &str,
        below: &str,
        persistence: Persistence,
    ) -> Outcome {
        let id = below.split('/').next().unwrap_or("");
        let call = &below[id.len()..];
        let events_of = match request.method() {
            "GET" | "HEAD" => fallback::event_stream_channel(call),
            _ => None,
        };
        let is_page =
            events_of.is_some() && api::asks_for_page(request.query(), request.header("Accept"));
        if request.method() == "GET"
            && let Some(channel) = events_of.filter(|_| !is_page)
        {
            return match self.open_event_stream(slot, request, path, id, channel) {
                Ok(next) => Outcome::Becomes(next),
                Err(answer) => Outcome::Answer(answer),
            };
        }
        let found = match events_of.filter(|_| is_page) {
            Some(channel) => Ok(Endpoint::ChannelHistory { channel }),
            None => Endpoint::find(request.method(), call),
        };
        let endpoint = match found {
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
        let (query, body, key) = (request.query(), request.body(), request.idempotency_key());
        let (limits, compat) = (&app.limits, self.options.compat);
        let call = match Call::parse(endpoint, query, body, key, limits, compat) {
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
            more: Vec::new(),
        }
    }

    /// A page that tells soketi's users how the server is.
    pub(in crate::shard) fn status_page(&self, page: StatusPage) -> Answer {
        let mut body = Vec::new();
        let (used_bytes, total_bytes) = memory::in_use().unwrap_or_default();
        let memory = MemoryUse {
            used_bytes,
            total_bytes,
        };
        match page {
            StatusPage::Usage => api::encode_usage(&mut body, memory),
            StatusPage::Ready | StatusPage::AcceptTraffic if self.is_draining => {
                return Answer::refusal(500, "The server is shutting down");
            }
            StatusPage::Ready => return Answer::ok(),
            StatusPage::AcceptTraffic => api::encode_accept_traffic(&mut body, memory),
        }
        Answer::json(200, body)
    }

    fn carry_out(&mut self, slot: u32, app: u16, call: Call<'_>) -> Outcome {
        match call {
            Call::Publish { events, form } => return self.publish(slot, app, &events, form),
            Call::Channels { prefix, told } => {
                self.query_list(slot, app, prefix.as_deref().unwrap_or(""), told);
            }
            Call::Laggards { prefix, search } => {
                self.query_laggards(slot, app, prefix.as_deref().unwrap_or(""), search);
            }
            Call::Channel { name, told, .. } => {
                self.query(slot, app, &name, Question::Channel { told });
            }
            Call::History { name, page } => {
                if self.apps.app(app).retention_of(&name).is_none() {
                    return Outcome::Answer(self.refuse(404, "The channel retains no events"));
                }
                self.ask_for_events(slot, app, &name, page);
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
        if let Some(channel) = self.forgetful_channel(app, parsed) {
            let error = format!(
                "Nothing was published: the event has an idempotency key, and the channel {channel} \
                 has no serials, so that a repeat would not be known"
            );
            return Outcome::Answer(self.refuse(400, error));
        }
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
                key: &event.key,
                user_id: "",
                idempotency_key: event.idempotency_key.as_deref().unwrap_or(""),
                excluded,
                serial: None,
            }));
        }
        let mut query = Publish::new(app, form, parsed);
        if let Some(publish) = &mut query {
            for (entry, event) in publish.entries.iter_mut().zip(&events) {
                entry.excluded = event.excluded;
            }
        }
        let query = query.map(|publish| Box::new(Query::Publish(publish)));
        let is_plain = query.is_none();
        // Homes here tell serials while they are routed.
        if let Some(query) = query {
            self.connections.waiting(slot).pending = Some(Pending::Query(query));
        }
        let is_following = self.connections[slot].is_waiting();
        let receipts = match self.route(&events, Some(self.connections.socket(slot))) {
            Routed::Posted { receipts: 0 } if is_following && is_plain => 0,
            Routed::Posted { receipts: 0 } => {
                let waiting = self.connections[slot].waiting.as_mut();
                return match waiting.and_then(|waiting| waiting.pending.take()) {
                    Some(Pending::Query(query)) => match self.conclude_query(slot, query) {
                        Some(answer) => Outcome::Answer(answer),
                        None => Outcome::Later,
                    },
                    Some(Pending::SignIn(_) | Pending::Repeat(_) | Pending::Turn(_)) => {
                        unreachable!("a publish waits for none of those")
                    }
                    None => Outcome::Answer(Answer::accepted(self.options.compat)),
                };
            }
            Routed::Posted { receipts } => receipts,
            Routed::Behind => {
                self.park(slot, &events);
                0
            }
        };
        let app = self.apps.app(app);
        let is_certain = is_plain
            && app.hook.is_none()
            && !events.iter().any(|event| app.is_durable(event.channel));
        let waiting = self.connections.waiting(slot);
        waiting.receipts += receipts;
        waiting.is_certain = is_certain && waiting.parked.is_empty();
        waiting.since_us.get_or_insert(self.now_us);
        Outcome::Later
    }

    /// A channel that cannot know repeats, of an event that may be repeated.
    fn forgetful_channel<'a>(&self, app: u16, events: &'a [api::Event<'_>]) -> Option<&'a str> {
        let with_key = events
            .iter()
            .filter(|event| event.idempotency_key.is_some());
        let mut channels = with_key.flat_map(|event| &event.channels);
        let app = self.apps.app(app);
        let forgetful = channels.find(|channel| app.retention_of(channel).is_none())?;
        Some(forgetful)
    }
}

/// How far a request's timestamp may be off.
pub(in crate::shard) const SIGNATURE_GRACE_S: u64 = 600;
