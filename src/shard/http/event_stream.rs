//! Server-Sent Events: an HTTP connection that is subscribed to one channel, and only reads.
//!
//! It is a connection like a WebSocket's, in a variant of its own: its frames are sent straight
//! from the log. Whoever may sign a request to the API may read any channel that has no members.
//! Where the channel has serials, each event has an id that tells the epoch and the serial; a reader
//! that comes back names the last one that it got, and resumes like any other subscriber.

use crate::base::metrics::Metric;
use crate::wire::channel;
use crate::wire::fallback::{self, Cors};
use crate::wire::http::{self, Body, Request};
use crate::wire::pusher::delivery::{self, Begin, Serial};
use crate::wire::signature::{self, SignedRequest};

use super::Answer;
use super::api::SIGNATURE_GRACE_S;
use crate::hub::variant::Variant;
use crate::shard::Engine;
use crate::shard::connections::Protocol;
use crate::shard::membership::Standing;

/// Where a reader begins that says nothing of the last event that it got: `rewind=20`, `rewind=2m`.
fn begin_of(query: Option<&str>) -> Option<Begin> {
    let mut pairs = http::query_pairs(query.unwrap_or(""));
    match pairs.find(|(name, _)| name == "rewind") {
        Some((_, rewind)) => delivery::parse_rewind(&rewind),
        None => Some(Begin::Head),
    }
}

impl Engine {
    /// Opens a stream of the channel's events, or answers why not. `path` is what was signed.
    pub(in crate::shard) fn open_event_stream(
        &mut self,
        slot: u32,
        request: &Request<'_>,
        path: &str,
        id: &str,
        channel: &str,
    ) -> Result<Protocol, Answer> {
        let number = self
            .apps
            .with_id(id)
            .ok_or_else(|| Answer::refusal(404, "Unknown app id"))?;
        let apps = self.apps.clone();
        let app = apps.app(number);
        let signed = SignedRequest {
            method: request.method(),
            path,
            query: request.query().unwrap_or(""),
            body: request.body(),
        };
        let (key, signer) = (&app.key, &app.signer);
        signature::check_request(key, signer, signed, self.wall_s, SIGNATURE_GRACE_S)
            .map_err(|error| Answer::refusal(401, error.to_string()))?;
        if !app.is_enabled {
            return Err(Answer::refusal(403, "The app is disabled"));
        }
        let unknown = || Answer::refusal(400, "There is no channel of this name");
        let name = http::percent_decode(channel).ok_or_else(unknown)?;
        let kind = channel::check_channel_name(&name, app.limits.channel_name_bytes_max)
            .map_err(|_| unknown())?;
        if kind.is_presence() || name.starts_with('#') {
            let text = "A channel of this kind has members, and a reader is none";
            return Err(Answer::refusal(400, text));
        }
        if request.minor_version() == 0 {
            return Err(Answer::refusal(505, "HTTP/1.1 is needed"));
        }
        if self.is_draining || self.is_over_capacity() {
            return Err(Answer::refusal(503, "Over capacity"));
        }
        let last = request.header("Last-Event-ID");
        let last = last.and_then(|last| std::str::from_utf8(last).ok());
        let begin = match last.and_then(delivery::parse_serial) {
            Some(serial) => Begin::After(serial, None),
            None => begin_of(request.query())
                .ok_or_else(|| Answer::refusal(400, "rewind is a number of events or a time"))?,
        };
        let mut headers = Cors::new(request.header("Origin")).headers();
        headers.push(("Content-Type", "text/event-stream"));
        // nginx would gather the answer before it passes it on.
        headers.push(("X-Accel-Buffering", "no"));
        let mut head = Vec::new();
        let persistence = request.persistence();
        http::encode_response(200, &headers, Body::Chunked, persistence, &mut head);
        self.reply_bytes(slot, &head);
        self.connections[slot].variant = Variant::Sse;
        if self.enters(number, &name) {
            self.come_in(slot, number, &name, None, begin);
        } else if self.subscribe(slot, number, &name) == Standing::Stands {
            self.confirm_subscription(slot, &name);
        }
        self.metrics.add(Metric::EventStreams, 1);
        self.wheel
            .set(slot, self.now_ms + self.options.fallback_heartbeat_ms);
        Ok(Protocol::EventStream)
    }

    pub(in crate::shard) fn is_reader(&self, slot: u32) -> bool {
        self.connections[slot].variant == Variant::Sse
    }

    /// Sends a message to a reader, who comes back behind `serial` if nothing follows.
    pub(in crate::shard) fn reply_to_reader(
        &mut self,
        slot: u32,
        text: &[u8],
        serial: Option<Serial>,
    ) {
        let text = std::str::from_utf8(text).expect("messages are JSON");
        let mut frame = Vec::new();
        fallback::encode_event(text, serial, &mut frame);
        self.reply_bytes(slot, &frame);
    }

    /// A comment now and then keeps what lies between from taking silence for an end.
    pub(in crate::shard) fn on_reader_timer(&mut self, slot: u32) {
        if !self.connections[slot].is_blocked {
            self.reply_bytes(slot, fallback::SSE_HEARTBEAT);
        }
        self.wheel
            .set(slot, self.now_ms + self.options.fallback_heartbeat_ms);
    }

    /// The stream ends, and its reader comes back.
    pub(in crate::shard) fn close_event_stream(&mut self, slot: u32) {
        self.end_subscriptions(slot);
        let mut end = Vec::new();
        http::encode_last_chunk(&mut end);
        self.reply_bytes(slot, &end);
        self.close_after_flush(slot);
    }
}
