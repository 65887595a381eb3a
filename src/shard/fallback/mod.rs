//! Requests below the path of the HTTP fallbacks: which call each makes, and the answers that need no
//! session.
//!
//! | file | reason |
//! |---|---|
//! | `sessions` | the record of a client that has no socket |
//! | `receivers` | requests through which it receives |
//! | `transfer` | a connection moves to the shard of its session |

pub mod receivers;
pub mod sessions;
pub mod transfer;

use crate::base::metrics::Metric;
use crate::hub::fallback::SessionCall;
use crate::wire::fallback::{self, Call, Cors, Route};
use crate::wire::http::{self, Body, Persistence, Request};
use crate::wire::pusher::CloseCode;

use super::Engine;
use super::connections::Protocol;

const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=UTF-8");
pub(super) const SCRIPT: (&str, &str) = ("Content-Type", "application/javascript; charset=UTF-8");
const JSON: (&str, &str) = ("Content-Type", "application/json; charset=UTF-8");

impl Engine {
    /// Where the request leads below the path of the fallbacks, if it is there and they are served.
    pub(super) fn fallback_route<'r>(&self, request: &Request<'r>) -> Option<Route<'r>> {
        fallback::route(request.path(), self.options.http_path.as_deref()?)
    }

    /// Serves the request. What the connection then speaks, if that is not HTTP any more.
    pub(super) fn serve_fallback(
        &mut self,
        slot: u32,
        request: &Request<'_>,
        route: Route<'_>,
        persistence: Persistence,
    ) -> Option<Protocol> {
        let cors = Cors::new(request.header("Origin"));
        let (method, minor) = (request.method(), request.minor_version());
        match (route, method) {
            (Route::Session { .. } | Route::Info, "OPTIONS") => {
                let headers = cors.preflight_headers();
                let status = fallback::PREFLIGHT_STATUS;
                self.answer_fallback(slot, status, &headers, "", persistence);
                None
            }
            (Route::Greeting, "GET") => {
                self.answer_page(slot, cors, 200, TEXT, fallback::GREETING, persistence);
                None
            }
            (Route::Info, "GET") => {
                let entropy = (self.now_ms as u32).wrapping_mul(0x9E37_79B9) ^ slot;
                let info = fallback::encode_info(entropy);
                self.answer_page(slot, cors, 200, JSON, &info, persistence);
                None
            }
            // The answers are chunks, which HTTP/1.0 does not know.
            (Route::Session { call, .. }, "POST") if minor == 0 && call != Call::Upload => {
                let text = "HTTP/1.1 is needed";
                self.answer_page(slot, cors, 505, TEXT, text, persistence);
                None
            }
            (Route::Session { name, call }, "POST") => {
                let call = SessionCall {
                    key: name.key.map(|key| key.as_ref().into()),
                    drawn: name.drawn.into(),
                    call,
                    query: request.query().unwrap_or("").into(),
                    body: request.body().into(),
                    origin: request.header("Origin").map(Into::into),
                    persistence,
                };
                let home = self.home_of(self.channels.hash(u16::MAX, &call.name()));
                if home == self.index {
                    return self.on_session_call(slot, &call);
                }
                if self.is_draining {
                    self.turn_away(slot, &call, CloseCode::ReconnectImmediately);
                    return None;
                }
                Some(self.depart(slot, home, call))
            }
            (Route::Unknown, _) => {
                self.answer_page(slot, cors, 404, TEXT, "Not found", persistence);
                None
            }
            (Route::Session { .. } | Route::Info | Route::Greeting, _) => {
                self.answer_page(slot, cors, 405, TEXT, "Method not allowed", persistence);
                None
            }
        }
    }

    /// Serves a call whose session has its home here, for a connection that is here.
    pub(super) fn on_session_call(&mut self, slot: u32, call: &SessionCall) -> Option<Protocol> {
        match call.call {
            Call::Stream | Call::Poll => self.receive_for_session(slot, call),
            Call::Upload => {
                self.upload(slot, call);
                None
            }
        }
    }

    /// What the client sends goes to its session, and is answered before it is acted on: the answer
    /// says that it came.
    fn upload(&mut self, slot: u32, call: &SessionCall) {
        let cors = Cors::new(call.origin.as_deref());
        let Some(session) = self.sessions.get(&call.name()).copied() else {
            return self.answer_page(slot, cors, 404, TEXT, "No such session", call.persistence);
        };
        match fallback::parse_upload(&call.body) {
            Ok(messages) => {
                self.answer_fallback(slot, 204, &cors.headers(), "", call.persistence);
                self.take_messages(session, messages);
            }
            Err(refusal) => {
                let text = refusal.to_string();
                self.answer_page(slot, cors, 400, TEXT, &text, call.persistence);
            }
        }
    }

    /// There is no session to be had: who wants to receive is told with what code that ends.
    pub(super) fn turn_away(&mut self, slot: u32, call: &SessionCall, code: CloseCode) {
        let cors = Cors::new(call.origin.as_deref());
        match call.call {
            Call::Stream | Call::Poll => {
                let close = format!("c[{},\"{}\"]\n", code.number(), code.reason());
                self.answer_page(slot, cors, 200, SCRIPT, &close, call.persistence);
            }
            Call::Upload => {
                self.answer_page(slot, cors, 503, TEXT, code.reason(), call.persistence);
            }
        }
    }

    fn answer_page(
        &mut self,
        slot: u32,
        cors: Cors<'_>,
        status: u16,
        content: (&'static str, &'static str),
        body: &str,
        persistence: Persistence,
    ) {
        let mut headers = cors.headers();
        headers.push(content);
        self.answer_fallback(slot, status, &headers, body, persistence);
    }

    fn answer_fallback(
        &mut self,
        slot: u32,
        status: u16,
        headers: &[(&str, &str)],
        body: &str,
        persistence: Persistence,
    ) {
        if status >= 400 {
            self.metrics.add(Metric::RequestsRefused, 1);
        }
        let mut text = Vec::new();
        let body = Body::Bytes(body.as_bytes());
        http::encode_response(status, headers, body, persistence, &mut text);
        self.reply_bytes(slot, &text);
        if persistence == Persistence::Close {
            self.close_after_flush(slot);
        }
    }
}
