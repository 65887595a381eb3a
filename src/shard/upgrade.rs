//! Requests that open a WebSocket: the handshake, whether there is an app and room for it, and what
//! it subscribes to at once.

use std::mem;

use crate::base::dialect::Dialect;
use crate::base::limits;
use crate::base::metrics::Metric;
use crate::hub::session::Session;
use crate::hub::variant::Variant;
use crate::wire::http::{self, Body, Persistence, Request};
use crate::wire::pusher::{self, CloseCode};
use crate::wire::websocket::{self, Agreement, Decoder, Opcode, Refusal};

use super::Engine;
use super::connections::Protocol;

impl Engine {
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
        if let Some(Agreement { window, .. }) = agreement {
            self.connections[slot].variant = Variant::Deflated { window };
        }
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
                self.subscribe_at_once(slot, request.query().unwrap_or(""));
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

    /// What the address asks for is read as if the client had sent it first, ahead of anything that
    /// came behind its request; no more than a client may send ahead.
    fn subscribe_at_once(&mut self, slot: u32, query: &str) {
        for message in pusher::subscriptions(query) {
            let input = &mut self.connections.waiting(slot).input;
            if input.len() + message.len() > limits::READ_AHEAD_BYTES_MAX {
                let error = "The address asks for more subscriptions than are read at once";
                self.metrics.add(Metric::MessagesRefused, 1);
                let mut text = Vec::new();
                pusher::encode_error(&mut text, error, None, None);
                return self.reply_text(slot, &text);
            }
            websocket::encode_as_client(Opcode::Text, &message, input);
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
        match pusher::app_key(request.path(), &self.options.path_prefix) {
            Ok(key) => self.admit_to(slot, key, request.query().unwrap_or("")),
            Err(code) => Err((code, code.reason().to_string())),
        }
    }

    pub(super) fn admit_to(
        &mut self,
        slot: u32,
        key: &str,
        query: &str,
    ) -> Result<Session, (CloseCode, String)> {
        let plain = |code: CloseCode| (code, code.reason().to_string());
        if self.is_draining {
            return Err(plain(CloseCode::ReconnectImmediately));
        }
        if self.is_over_capacity() {
            self.metrics.add(Metric::ConnectionsRefused, 1);
            return Err(plain(CloseCode::OverCapacity));
        }
        let app = self.apps.with_key(key).ok_or_else(|| {
            let reason = format!(
                "App key {key} not in this cluster. Did you forget to specify the cluster?"
            );
            (CloseCode::ApplicationUnknown, reason)
        })?;
        if !self.apps.app(app).is_enabled {
            return Err(plain(CloseCode::ApplicationDisabled));
        }
        let protocol = http::query_pairs(query).find(|(name, _)| name == "protocol");
        let protocol = protocol.as_ref().map(|(_, value)| value.as_ref());
        let protocol = pusher::check_protocol(protocol).map_err(plain)?;
        let record = self.apps.app(app);
        if !record.quota.take_connection() {
            return Err(plain(match self.options.compat {
                Dialect::Pusher => CloseCode::OverConnectionQuota,
                Dialect::Soketi => CloseCode::OverCapacity,
            }));
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
