//! The one encode of a publish: the text of an event as every subscriber gets it.

use serde_json::value::RawValue;

use crate::wire::json::{self, RawString};

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[\\x00-\\x7f]{0,20}"]
    }

    proptest! {
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
    }
}
