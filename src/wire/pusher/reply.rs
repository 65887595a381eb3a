//! What the server says to one client: greeting, answers and errors.

use super::socket_id::SocketId;
use crate::wire::json;

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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// What `encode` appends, read by another parser.
    fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Value {
        let mut out = Vec::new();
        encode(&mut out);
        serde_json::from_slice(&out).unwrap()
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
}
