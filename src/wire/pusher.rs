//! What Pusher clients send and what they are sent: the text of each message, and what a
//! connection's address says.
//!
//! Decoders turn one text message into a [`ClientMessage`]; encoders append one JSON message to a
//! buffer, without a WebSocket header. [`encode_event`] is the one encode of a publish, and
//! [`encoded_event_length`] says beforehand what it will append, so that the header can be written
//! first.
//!
//! Invariants:
//! - Event names, data and user ids from outside appear in a message only as JSON tokens that were
//!   parsed or escaped. A channel name is copied bare only where it has passed
//!   [`check_channel_name`](super::channel::check_channel_name), whose characters need no escaping.
//! - `data` of an event is a JSON string (that holds JSON), of an error an object, as the
//!   documentation's examples show them.
//!
//! Source: Pusher Channels documentation, "WebSocket protocol", version 7. What deployed clients
//! and servers do beyond it is said where it matters.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::json::{self, RawString};

/// One message of a client.
#[derive(Clone, Debug)]
pub enum ClientMessage<'a> {
    Ping,
    Pong,
    Subscribe {
        channel: Cow<'a, str>,
        /// `KEY:signature`. Absent when the client sent none, null or "" (pusher-js sends "" for
        /// public channels).
        auth: Option<Cow<'a, str>>,
        /// The text that was signed along, on a presence channel the member. Absent when the client
        /// sent none, null or "".
        channel_data: Option<Cow<'a, str>>,
    },
    Unsubscribe {
        channel: Cow<'a, str>,
    },
    Signin {
        /// `KEY:signature`.
        auth: Cow<'a, str>,
        /// The text that was signed: JSON with the user's id.
        user_data: Cow<'a, str>,
    },
    /// An event of the client's own: its name begins with `client-`.
    ClientEvent {
        /// The name as it goes into the frame.
        event: RawString<'a>,
        name: Cow<'a, str>,
        channel: Cow<'a, str>,
        /// Any JSON, or nothing at all; relayed as it came.
        data: Option<&'a RawValue>,
    },
    /// A name that is neither a command nor a client's own.
    Other {
        event: Cow<'a, str>,
    },
}

/// Reads one text message. Fields that the protocol does not know are ignored.
pub fn parse_client_message(text: &str) -> Result<ClientMessage<'_>, Malformed> {
    let envelope: Envelope<'_> = json::parse_object(text).map_err(|_| Malformed::NotJson)?;
    let event = envelope.event.ok_or(Malformed::Missing("event"))?;
    let name = event.clone().into_decoded();
    if name.starts_with("client-") {
        let channel = envelope.channel.ok_or(Malformed::Missing("channel"))?;
        if envelope
            .data
            .is_some_and(|data| json::has_lone_surrogate(data.get()))
        {
            return Err(Malformed::NotJson);
        }
        return Ok(ClientMessage::ClientEvent {
            event,
            name,
            channel: channel.into_decoded(),
            data: envelope.data,
        });
    }
    Ok(match &*name {
        "pusher:ping" => ClientMessage::Ping,
        "pusher:pong" => ClientMessage::Pong,
        "pusher:subscribe" => {
            let fields = parse_command_fields(envelope.data)?;
            ClientMessage::Subscribe {
                channel: required(fields.channel, "data.channel")?,
                auth: filled(fields.auth),
                channel_data: filled(fields.channel_data),
            }
        }
        "pusher:unsubscribe" => {
            let fields = parse_command_fields(envelope.data)?;
            ClientMessage::Unsubscribe {
                channel: required(fields.channel, "data.channel")?,
            }
        }
        "pusher:signin" => {
            let fields = parse_command_fields(envelope.data)?;
            ClientMessage::Signin {
                auth: required(fields.auth, "data.auth")?,
                user_data: required(fields.user_data, "data.user_data")?,
            }
        }
        _ => ClientMessage::Other { event: name },
    })
}

/// Why a text message says nothing. The connection stays open: the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not a JSON object, or one whose known fields have other types.
    NotJson,
    Missing(&'static str),
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson => formatter.write_str("Invalid message: not an event in JSON"),
            Self::Missing(field) => write!(formatter, "Invalid message: {field} is missing"),
        }
    }
}

impl std::error::Error for Malformed {}

/// An event's `data`, as it goes into the message.
#[derive(Clone, Copy, Debug)]
pub enum EventData<'a> {
    /// What the API publishes: a string.
    String(&'a RawString<'a>),
    /// What a client triggers: any JSON.
    Value(&'a RawValue),
    /// The message has no `data`.
    Absent,
}

/// Appends `{"event":..,"channel":..,"data":..}`: the one encode of a publish. The channel's name
/// must be a checked one. `user_id` tells on presence channels which member triggered the event.
pub fn encode_event(
    out: &mut Vec<u8>,
    event: &RawString<'_>,
    channel: &str,
    data: EventData<'_>,
    user_id: Option<&str>,
) {
    out.reserve(encoded_event_length(event, channel, data, user_id));
    for piece in event_pieces(event, channel, data) {
        out.extend_from_slice(piece.as_bytes());
    }
    if let Some(user_id) = user_id {
        out.extend_from_slice(USER_ID.as_bytes());
        json::write_string(user_id, out);
    }
    out.push(b'}');
}

/// Appends the same for an event whose name and data are JSON tokens; no data is an empty token.
pub fn encode_event_tokens(out: &mut Vec<u8>, event: &str, channel: &str, data: &str) {
    let label = if data.is_empty() { "" } else { DATA };
    for piece in [EVENT, event, CHANNEL, channel, "\"", label, data, "}"] {
        out.extend_from_slice(piece.as_bytes());
    }
}

/// Bytes that [`encode_event_tokens`] appends.
pub fn event_length(event: &str, channel: &str, data: &str) -> usize {
    let label = if data.is_empty() { "" } else { DATA };
    [EVENT, event, CHANNEL, channel, "\"", label, data, "}"]
        .iter()
        .map(|piece| piece.len())
        .sum()
}

const EVENT: &str = r#"{"event":"#;
const CHANNEL: &str = r#","channel":""#;
const DATA: &str = r#","data":"#;

/// Bytes that [`encode_event`] appends.
pub fn encoded_event_length(
    event: &RawString<'_>,
    channel: &str,
    data: EventData<'_>,
    user_id: Option<&str>,
) -> usize {
    let pieces: usize = event_pieces(event, channel, data)
        .iter()
        .map(|piece| piece.len())
        .sum();
    let user_id = user_id.map_or(0, |user_id| USER_ID.len() + json::string_length(user_id));
    pieces + user_id + "}".len()
}

/// Appends the first message of every connection. Clients close when the timeout is 0.
pub fn encode_connection_established(
    out: &mut Vec<u8>,
    socket_id: SocketId,
    activity_timeout_s: u32,
) {
    let data = format!(r#"{{"socket_id":"{socket_id}","activity_timeout":{activity_timeout_s}}}"#);
    out.extend_from_slice(br#"{"event":"pusher:connection_established","data":"#);
    json::write_string(&data, out);
    out.push(b'}');
}

/// Appends the answer to `pusher:ping`.
pub fn encode_pong(out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"event":"pusher:pong","data":{}}"#);
}

/// Appends the acknowledgement of a subscription without members. The channel's name must be a
/// checked one.
pub fn encode_subscription_succeeded(out: &mut Vec<u8>, channel: &str) {
    out.extend_from_slice(br#"{"event":"pusher_internal:subscription_succeeded","channel":""#);
    out.extend_from_slice(channel.as_bytes());
    out.extend_from_slice(br#"","data":"{}"}"#);
}

/// Appends the refusal of a subscription. The channel's name may be the very thing that is wrong.
///
/// Pusher itself answers with `pusher:error`, which names no channel; this is the shape of soketi,
/// whose `channel` lets pusher-js and Laravel Echo raise the error where the application listens.
pub fn encode_subscription_error(
    out: &mut Vec<u8>,
    channel: &str,
    kind: &str,
    error: &str,
    status: u16,
) {
    out.extend_from_slice(br#"{"event":"pusher:subscription_error","channel":"#);
    json::write_string(channel, out);
    out.extend_from_slice(br#","data":{"type":"#);
    json::write_string(kind, out);
    out.extend_from_slice(br#","error":"#);
    json::write_string(error, out);
    out.extend_from_slice(format!(r#","status":{status}}}}}"#).as_bytes());
}

/// Appends `pusher:error`. Its code is a close code, one of the constants here, or null. Pusher
/// names no channel; with one, clients that listen on the channel hear of it.
pub fn encode_error(out: &mut Vec<u8>, message: &str, code: Option<u16>, channel: Option<&str>) {
    out.extend_from_slice(br#"{"event":"pusher:error""#);
    if let Some(channel) = channel {
        out.extend_from_slice(br#","channel":"#);
        json::write_string(channel, out);
    }
    match code {
        Some(code) => {
            out.extend_from_slice(format!(r#","data":{{"code":{code},"message":"#).as_bytes());
        }
        None => out.extend_from_slice(br#","data":{"code":null,"message":"#),
    }
    json::write_string(message, out);
    out.extend_from_slice(b"}}");
}

/// The code of a `pusher:error` that refuses a client event; the connection stays open.
pub const CLIENT_EVENT_REJECTED: u16 = 4301;
/// The code of a `pusher:error` for a watchlist that was cut; the connection stays open.
pub const WATCHLIST_LIMIT_EXCEEDED: u16 = 4302;

/// Why the server ends a connection. Clients give up on 4000-4099 (4000: they come back with TLS),
/// come back after a pause on 4100-4199, and at once on 4200-4299.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum CloseCode {
    TlsRequired = 4000,
    ApplicationUnknown = 4001,
    ApplicationDisabled = 4003,
    OverConnectionQuota = 4004,
    PathNotFound = 4005,
    InvalidVersionFormat = 4006,
    UnsupportedProtocol = 4007,
    ProtocolMissing = 4008,
    Unauthorized = 4009,
    OverCapacity = 4100,
    ReconnectImmediately = 4200,
    PongNotReceived = 4201,
    Inactive = 4202,
}

impl CloseCode {
    pub const ALL: [CloseCode; 13] = [
        Self::TlsRequired,
        Self::ApplicationUnknown,
        Self::ApplicationDisabled,
        Self::OverConnectionQuota,
        Self::PathNotFound,
        Self::InvalidVersionFormat,
        Self::UnsupportedProtocol,
        Self::ProtocolMissing,
        Self::Unauthorized,
        Self::OverCapacity,
        Self::ReconnectImmediately,
        Self::PongNotReceived,
        Self::Inactive,
    ];

    pub fn number(self) -> u16 {
        self as u16
    }

    /// The documented text; it fits into a close frame's 123 bytes (RFC 6455, section 5.5).
    pub fn reason(self) -> &'static str {
        match self {
            Self::TlsRequired => "Application only accepts SSL connections, reconnect using wss://",
            Self::ApplicationUnknown => "Application does not exist",
            Self::ApplicationDisabled => "Application disabled",
            Self::OverConnectionQuota => "Application is over connection quota",
            Self::PathNotFound => "Path not found",
            Self::InvalidVersionFormat => "Invalid version string format",
            Self::UnsupportedProtocol => "Unsupported protocol version",
            Self::ProtocolMissing => "No protocol version supplied",
            Self::Unauthorized => "Connection is unauthorized",
            Self::OverCapacity => "Over capacity",
            Self::ReconnectImmediately => "Generic reconnect immediately",
            Self::PongNotReceived => "Pong reply not received",
            Self::Inactive => "Closed after inactivity",
        }
    }
}

/// The protocol version that a connection's `protocol` parameter asks for, 4 to 7.
///
/// A connection without the parameter is refused. Pusher documents that it guesses a version from
/// the library's and falls back on protocol 1, which it no longer serves, and that it will answer
/// 4008 one day.
pub fn check_protocol(protocol: Option<&str>) -> Result<u8, CloseCode> {
    let protocol = protocol.ok_or(CloseCode::ProtocolMissing)?;
    if !is_digits(protocol) {
        return Err(CloseCode::InvalidVersionFormat);
    }
    match protocol.parse() {
        Ok(version @ 4..=7) => Ok(version),
        Ok(0..=3 | 8..) | Err(_) => Err(CloseCode::UnsupportedProtocol),
    }
}

/// The application's key in a connection's path, `{prefix}/app/{key}`. The prefix is the configured
/// one, empty or `/like/this`.
pub fn app_key<'path>(path: &'path str, prefix: &str) -> Result<&'path str, CloseCode> {
    path.strip_prefix(prefix)
        .and_then(|path| path.strip_prefix("/app/"))
        .filter(|key| !key.is_empty() && !key.contains('/'))
        .ok_or(CloseCode::PathNotFound)
}

/// Names a connection to its client and to the publishers who leave it out. Reads `first.second`
/// in decimal: the server libraries accept digits, a dot and digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    pub first: u64,
    pub second: u64,
}

impl fmt::Display for SocketId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.first, self.second)
    }
}

impl FromStr for SocketId {
    type Err = InvalidSocketId;

    fn from_str(text: &str) -> Result<Self, InvalidSocketId> {
        let (first, second) = text.split_once('.').ok_or(InvalidSocketId)?;
        Ok(Self {
            first: parse_digits(first)?,
            second: parse_digits(second)?,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSocketId;

impl fmt::Display for InvalidSocketId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Invalid socket id")
    }
}

impl std::error::Error for InvalidSocketId {}

const USER_ID: &str = r#","user_id":"#;

fn event_pieces<'a>(
    event: &'a RawString<'_>,
    channel: &'a str,
    data: EventData<'a>,
) -> [&'a str; 7] {
    let (label, token) = match data {
        EventData::String(string) => (r#","data":"#, string.token()),
        EventData::Value(value) => (r#","data":"#, value.get()),
        EventData::Absent => ("", ""),
    };
    [
        r#"{"event":"#,
        event.token(),
        r#","channel":""#,
        channel,
        "\"",
        label,
        token,
    ]
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Option<RawString<'a>>,
    #[serde(borrow)]
    channel: Option<RawString<'a>>,
    #[serde(borrow, default, deserialize_with = "value_even_if_null")]
    data: Option<&'a RawValue>,
}

/// What commands carry in `data`; each uses some of it.
#[derive(Deserialize)]
struct CommandFields<'a> {
    #[serde(borrow)]
    channel: Option<RawString<'a>>,
    #[serde(borrow)]
    auth: Option<RawString<'a>>,
    #[serde(borrow)]
    channel_data: Option<RawString<'a>>,
    #[serde(borrow)]
    user_data: Option<RawString<'a>>,
}

/// A client's `"data":null` is relayed as null, not left out.
fn value_even_if_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Most clients send `data` as an object; pysher among others sends a string that holds one.
fn parse_command_fields(data: Option<&RawValue>) -> Result<CommandFields<'_>, Malformed> {
    let data = data.ok_or(Malformed::Missing("data"))?;
    if !data.get().starts_with('"') {
        return json::parse_object(data.get()).map_err(|_| Malformed::NotJson);
    }
    let string = RawString::from_value(data).map_err(|_| Malformed::NotJson)?;
    let text = string.decoded();
    let fields: CommandFields<'_> = json::parse_object(&text).map_err(|_| Malformed::NotJson)?;
    let owned = |field: Option<RawString<'_>>| field.map(RawString::into_owned);
    Ok(CommandFields {
        channel: owned(fields.channel),
        auth: owned(fields.auth),
        channel_data: owned(fields.channel_data),
        user_data: owned(fields.user_data),
    })
}

fn required<'a>(
    field: Option<RawString<'a>>,
    name: &'static str,
) -> Result<Cow<'a, str>, Malformed> {
    filled(field).ok_or(Malformed::Missing(name))
}

fn filled(field: Option<RawString<'_>>) -> Option<Cow<'_, str>> {
    field
        .map(RawString::into_decoded)
        .filter(|text| !text.is_empty())
}

fn parse_digits(text: &str) -> Result<u64, InvalidSocketId> {
    // The number parser alone would take a sign.
    if !is_digits(text) {
        return Err(InvalidSocketId);
    }
    text.parse().map_err(|_| InvalidSocketId)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// What `encode` appends, read by another parser.
    fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Value {
        let mut out = Vec::new();
        encode(&mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn pings_and_pongs_are_read_with_any_data() {
        for data in ["", r#","data":{}"#, r#","data":"{}""#, r#","data":null"#] {
            let ping = format!(r#"{{"event":"pusher:ping"{data}}}"#);
            let pong = format!(r#"{{"event":"pusher:pong"{data}}}"#);
            assert!(matches!(
                parse_client_message(&ping),
                Ok(ClientMessage::Ping)
            ));
            assert!(matches!(
                parse_client_message(&pong),
                Ok(ClientMessage::Pong)
            ));
        }
    }

    #[test]
    fn a_subscription_is_read_from_an_object_and_from_a_string_that_holds_one() {
        let fields =
            r#"{"channel":"presence-a","auth":"k:s","channel_data":"{\"user_id\":\"1\"}","x":1}"#;
        let string = serde_json::to_string(fields).unwrap();
        for data in [fields, &string] {
            let text = format!(r#" {{"event":"pusher:subscribe","data":{data},"more":[]}} "#);
            let Ok(ClientMessage::Subscribe {
                channel,
                auth,
                channel_data,
            }) = parse_client_message(&text)
            else {
                panic!("{text}");
            };
            assert_eq!(channel, "presence-a");
            assert_eq!(auth.as_deref(), Some("k:s"));
            assert_eq!(channel_data.as_deref(), Some(r#"{"user_id":"1"}"#));
        }
    }

    #[test]
    fn a_public_subscription_may_carry_an_empty_auth_or_none() {
        for rest in [
            "",
            r#","auth":"""#,
            r#","auth":null,"channel_data":null"#,
            r#","auth":"","channel_data":"""#,
        ] {
            let text =
                format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"room"{rest}}}}}"#);
            let Ok(ClientMessage::Subscribe {
                channel,
                auth: None,
                channel_data: None,
            }) = parse_client_message(&text)
            else {
                panic!("{text}");
            };
            assert!(matches!(channel, Cow::Borrowed("room")));
        }
    }

    #[test]
    fn unsubscribe_and_signin_are_read() {
        assert!(matches!(
            parse_client_message(r#"{"event":"pusher:unsubscribe","data":{"channel":"room"}}"#),
            Ok(ClientMessage::Unsubscribe { channel }) if channel == "room"
        ));
        assert!(matches!(
            parse_client_message(
                r#"{"event":"pusher:signin","data":{"auth":"k:s","user_data":"{\"id\":\"u\"}"}}"#
            ),
            Ok(ClientMessage::Signin { auth, user_data })
                if auth == "k:s" && user_data == r#"{"id":"u"}"#
        ));
    }

    #[test]
    fn a_client_event_keeps_its_name_and_data_as_they_came() {
        let text = r#"{"event":"client-\u0061","channel":"private-a","data": [1, "\n"] }"#;
        let Ok(ClientMessage::ClientEvent {
            event,
            name,
            channel,
            data,
        }) = parse_client_message(text)
        else {
            panic!();
        };
        assert_eq!(event.token(), r#""client-\u0061""#);
        assert_eq!(name, "client-a");
        assert_eq!(channel, "private-a");
        assert_eq!(data.unwrap().get(), r#"[1, "\n"]"#);
    }

    #[test]
    fn a_client_event_may_have_no_data_or_null() {
        for (rest, expected) in [("", None), (r#","data":null"#, Some("null"))] {
            let text = format!(r#"{{"event":"client-a","channel":"private-a"{rest}}}"#);
            let Ok(ClientMessage::ClientEvent { data, .. }) = parse_client_message(&text) else {
                panic!("{text}");
            };
            assert_eq!(data.map(RawValue::get), expected);
        }
    }

    #[test]
    fn any_other_name_is_handed_on() {
        for name in [
            "typing",
            "pusher:other",
            "pusher_internal:x",
            "Client-a",
            "",
        ] {
            let text = format!(r#"{{"event":"{name}","channel":"a","data":1}}"#);
            assert!(matches!(
                parse_client_message(&text),
                Ok(ClientMessage::Other { event }) if event == name
            ));
        }
    }

    #[test]
    fn what_says_nothing_is_malformed() {
        for (text, why) in [
            ("", Malformed::NotJson),
            ("hello", Malformed::NotJson),
            (r#"["pusher:ping"]"#, Malformed::NotJson),
            (r#"{"event":1}"#, Malformed::NotJson),
            (r#"{"event":"\ud800"}"#, Malformed::NotJson),
            (
                r#"{"event":"client-a","channel":"private-a","data":{"a":"\udc00"}}"#,
                Malformed::NotJson,
            ),
            (
                r#"{"event":"pusher:subscribe","data":[]}"#,
                Malformed::NotJson,
            ),
            (
                r#"{"event":"pusher:subscribe","data":"["}"#,
                Malformed::NotJson,
            ),
            (
                r#"{"event":"pusher:subscribe","data":{"channel":7}}"#,
                Malformed::NotJson,
            ),
            ("{}", Malformed::Missing("event")),
            (r#"{"event":null}"#, Malformed::Missing("event")),
            (r#"{"event":"client-a"}"#, Malformed::Missing("channel")),
            (
                r#"{"event":"pusher:subscribe"}"#,
                Malformed::Missing("data"),
            ),
            (
                r#"{"event":"pusher:subscribe","data":{"channel":""}}"#,
                Malformed::Missing("data.channel"),
            ),
            (
                r#"{"event":"pusher:signin","data":{"user_data":"{}"}}"#,
                Malformed::Missing("data.auth"),
            ),
        ] {
            assert_eq!(parse_client_message(text).unwrap_err(), why, "{text}");
        }
    }

    #[test]
    fn the_servers_messages_are_those_of_the_documentation() {
        let socket_id = SocketId {
            first: 123,
            second: 456,
        };
        assert_eq!(
            encoded(|out| encode_connection_established(out, socket_id, 120)),
            json!({
                "event": "pusher:connection_established",
                "data": r#"{"socket_id":"123.456","activity_timeout":120}"#,
            })
        );
        assert_eq!(
            encoded(encode_pong),
            json!({"event": "pusher:pong", "data": {}})
        );
        assert_eq!(
            encoded(|out| encode_subscription_succeeded(out, "room")),
            json!({
                "event": "pusher_internal:subscription_succeeded",
                "channel": "room",
                "data": "{}",
            })
        );
    }

    #[test]
    fn a_refused_subscription_names_the_channel_however_bad_its_name() {
        assert_eq!(
            encoded(|out| encode_subscription_error(out, "ro\"om\n", "AuthError", "\"no\"", 401)),
            json!({
                "event": "pusher:subscription_error",
                "channel": "ro\"om\n",
                "data": {"type": "AuthError", "error": "\"no\"", "status": 401},
            })
        );
    }

    #[test]
    fn an_error_has_a_code_or_null_and_a_channel_or_none() {
        assert_eq!(
            encoded(|out| encode_error(out, "a \"b\"", None, None)),
            json!({"event": "pusher:error", "data": {"code": null, "message": "a \"b\""}})
        );
        assert_eq!(
            encoded(|out| encode_error(out, "no", Some(CLIENT_EVENT_REJECTED), Some("room"))),
            json!({
                "event": "pusher:error",
                "channel": "room",
                "data": {"code": 4301, "message": "no"},
            })
        );
    }

    #[test]
    fn close_codes_have_their_numbers_and_fit_into_a_close_frame() {
        let numbers = CloseCode::ALL.map(CloseCode::number);
        assert_eq!(
            numbers,
            [
                4000, 4001, 4003, 4004, 4005, 4006, 4007, 4008, 4009, 4100, 4200, 4201, 4202
            ]
        );
        for code in CloseCode::ALL {
            assert!((1..=123).contains(&code.reason().len()), "{code:?}");
        }
    }

    #[test]
    fn protocols_four_to_seven_are_spoken() {
        for (protocol, answer) in [
            (Some("7"), Ok(7)),
            (Some("4"), Ok(4)),
            (Some("3"), Err(CloseCode::UnsupportedProtocol)),
            (Some("0"), Err(CloseCode::UnsupportedProtocol)),
            (Some("8"), Err(CloseCode::UnsupportedProtocol)),
            (Some("99"), Err(CloseCode::UnsupportedProtocol)),
            (Some("999999999999"), Err(CloseCode::UnsupportedProtocol)),
            (Some("abc"), Err(CloseCode::InvalidVersionFormat)),
            (Some("7.1"), Err(CloseCode::InvalidVersionFormat)),
            (Some("-7"), Err(CloseCode::InvalidVersionFormat)),
            (Some("+7"), Err(CloseCode::InvalidVersionFormat)),
            (Some(""), Err(CloseCode::InvalidVersionFormat)),
            (None, Err(CloseCode::ProtocolMissing)),
        ] {
            assert_eq!(check_protocol(protocol), answer, "{protocol:?}");
        }
    }

    #[test]
    fn a_path_holds_the_key_behind_the_prefix() {
        for (path, prefix, answer) in [
            ("/app/key", "", Ok("key")),
            ("/ws/app/key", "/ws", Ok("key")),
            ("/app/key", "/ws", Err(CloseCode::PathNotFound)),
            ("/app/", "", Err(CloseCode::PathNotFound)),
            ("/app", "", Err(CloseCode::PathNotFound)),
            ("/app/key/more", "", Err(CloseCode::PathNotFound)),
            ("/apps/key", "", Err(CloseCode::PathNotFound)),
        ] {
            assert_eq!(app_key(path, prefix), answer, "{path}");
        }
    }

    #[test]
    fn a_socket_id_is_digits_a_dot_and_digits() {
        assert_eq!(
            "123.456".parse(),
            Ok(SocketId {
                first: 123,
                second: 456
            })
        );
        for text in [
            "",
            ".",
            "1",
            "1.",
            ".1",
            "1.2.3",
            "+1.2",
            "1.-2",
            " 1.2",
            "1.2 ",
            "1.2\n",
            "a.b",
            "1.٣",
            "1.18446744073709551616",
        ] {
            assert_eq!(text.parse::<SocketId>(), Err(InvalidSocketId), "{text:?}");
        }
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[\\x00-\\x7f]{0,20}"]
    }

    proptest! {
        #[test]
        fn a_socket_id_reads_back_the_same(first: u64, second: u64) {
            let id = SocketId { first, second };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn an_encoded_event_reads_back_the_same_and_has_the_length_that_was_said(
            event in text(),
            channel in "[A-Za-z0-9_=@,.;-]{1,40}",
            data in proptest::option::of(text()),
            user_id in proptest::option::of(text()),
        ) {
            let name = RawString::encode(&event);
            let string = data.as_deref().map(RawString::encode);
            let token = string.as_ref().map_or(EventData::Absent, EventData::String);
            let mut out = b"header".to_vec();
            encode_event(&mut out, &name, &channel, token, user_id.as_deref());
            let length = encoded_event_length(&name, &channel, token, user_id.as_deref());
            prop_assert_eq!(out.len(), b"header".len() + length);

            let mut expected = json!({"event": event, "channel": channel});
            if let Some(data) = data {
                expected["data"] = data.into();
            }
            if let Some(user_id) = user_id {
                expected["user_id"] = user_id.into();
            }
            let read: Value = serde_json::from_slice(&out[b"header".len()..]).unwrap();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn a_client_event_passes_through_with_its_data_untouched(
            data in prop_oneof![
                text().prop_map(|text| json!({"a": text, "b": [1, null]})),
                any::<i64>().prop_map(Value::from),
                text().prop_map(Value::from),
            ],
        ) {
            let sent = json!({"event": "client-a", "channel": "private-a", "data": data});
            let text = sent.to_string();
            let Ok(ClientMessage::ClientEvent { event, channel, data: Some(data), .. }) =
                parse_client_message(&text)
            else {
                return Err(TestCaseError::fail(text));
            };
            let mut out = Vec::new();
            encode_event(&mut out, &event, &channel, EventData::Value(data), None);
            prop_assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), sent);
            prop_assert_eq!(
                out.len(),
                encoded_event_length(&event, &channel, EventData::Value(data), None)
            );
        }

        #[test]
        fn random_text_never_panics(text in any::<String>(), data in any::<String>()) {
            parse_client_message(&text).ok();
            for event in ["pusher:subscribe", "pusher:signin", "client-a"] {
                parse_client_message(&json!({"event": event, "data": data}).to_string()).ok();
                parse_client_message(&format!(r#"{{"event":"{event}","data":{data}}}"#)).ok();
            }
            text.parse::<SocketId>().ok();
            check_protocol(Some(&text)).ok();
            app_key(&text, "").ok();
        }
    }
}
