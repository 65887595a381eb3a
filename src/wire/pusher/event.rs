//! The one encode of a publish: the text of an event as every subscriber gets it.

/// Appends `{"event":..,"channel":..,"data":..}`: the one encode of a publish. The event's name and
/// its data are JSON tokens; no data is an empty token. The channel's name must be a checked one.
pub fn encode_event_tokens(out: &mut Vec<u8>, event: &str, channel: &str, data: &str) {
    encode_client_event_tokens(out, event, channel, data, "", 0);
}

/// Bytes that [`encode_event_tokens`] appends.
pub fn event_length(event: &str, channel: &str, data: &str) -> usize {
    client_event_length(event, channel, data, "", 0)
}

/// Appends the same for an event that a client triggered. On presence channels `user_id` tells which
/// member did, as a JSON token; elsewhere the token is empty, and the event says nothing of it. A
/// serial of 0 is none.
pub fn encode_client_event_tokens(
    out: &mut Vec<u8>,
    event: &str,
    channel: &str,
    data: &str,
    user_id: &str,
    serial: u64,
) {
    for piece in pieces(event, channel, data) {
        out.extend_from_slice(piece.as_bytes());
    }
    if !user_id.is_empty() {
        out.extend_from_slice(USER_ID.as_bytes());
        out.extend_from_slice(user_id.as_bytes());
    }
    if serial > 0 {
        out.extend_from_slice(SERIAL.as_bytes());
        out.extend_from_slice(Digits::of(serial).text());
    }
    out.push(b'}');
}

/// Bytes that [`encode_client_event_tokens`] appends.
pub fn client_event_length(
    event: &str,
    channel: &str,
    data: &str,
    user_id: &str,
    serial: u64,
) -> usize {
    let mut length = "}".len();
    for piece in pieces(event, channel, data) {
        length += piece.len();
    }
    if !user_id.is_empty() {
        length += USER_ID.len() + user_id.len();
    }
    if serial > 0 {
        length += SERIAL.len() + Digits::of(serial).text().len();
    }
    length
}

/// The serial of a message that was encoded here, if it has one. What has none ends with a string: its
/// channel, its user, or its data, which the server's own messages have as a string.
pub fn serial_of(message: &[u8]) -> Option<u64> {
    let members = message.strip_suffix(b"}")?;
    let digits = members
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_digit());
    let (rest, digits) = members.split_at(members.len() - digits.count());
    let digits = std::str::from_utf8(digits).expect("they are digits");
    rest.ends_with(SERIAL.as_bytes())
        .then(|| digits.parse().ok())
        .flatten()
}

const USER_ID: &str = r#","user_id":"#;
const SERIAL: &str = r#","serial":"#;

/// What every event begins with.
fn pieces<'a>(event: &'a str, channel: &'a str, data: &'a str) -> [&'a str; 7] {
    let label = if data.is_empty() { "" } else { r#","data":"# };
    [
        r#"{"event":"#,
        event,
        r#","channel":""#,
        channel,
        "\"",
        label,
        data,
    ]
}

/// A number in decimal digits, without an allocation; of 0 there are none.
struct Digits {
    text: [u8; 20],
    start: usize,
}

impl Digits {
    fn of(mut number: u64) -> Digits {
        let mut digits = Digits {
            text: [b'0'; 20],
            start: 20,
        };
        while number > 0 {
            digits.start -= 1;
            digits.text[digits.start] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        digits
    }

    fn text(&self) -> &[u8] {
        &self.text[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::RawString;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn an_event_has_its_members_in_the_order_of_the_documentation() {
        let mut out = Vec::new();
        encode_client_event_tokens(&mut out, r#""client-a""#, "presence-b", "[1]", r#""11""#, 0);
        assert_eq!(
            str::from_utf8(&out).unwrap(),
            r#"{"event":"client-a","channel":"presence-b","data":[1],"user_id":"11"}"#
        );
    }

    proptest! {
        #[test]
        fn an_encoded_event_reads_back_the_same_and_has_the_length_that_was_said(
            event in any::<String>(),
            channel in "[A-Za-z0-9_=@,.;-]{1,40}",
            data in proptest::option::of(any::<String>()),
            user_id in proptest::option::of(any::<String>()),
            serial in prop_oneof![Just(0), 1..200_u64, any::<u64>()],
        ) {
            let token = |text: &String| RawString::encode(text).token().to_owned();
            let name = token(&event);
            let data_token = data.as_ref().map(token).unwrap_or_default();
            let user_id_token = user_id.as_ref().map(token).unwrap_or_default();
            let mut expected = json!({"event": event, "channel": channel});
            if let Some(data) = data {
                expected["data"] = data.into();
            }

            let mut out = b"header".to_vec();
            encode_event_tokens(&mut out, &name, &channel, &data_token);
            let length = event_length(&name, &channel, &data_token);
            prop_assert_eq!(out.len(), b"header".len() + length);
            let read: Value = serde_json::from_slice(&out[b"header".len()..]).unwrap();
            prop_assert_eq!(&read, &expected);

            if let Some(user_id) = user_id {
                expected["user_id"] = user_id.into();
            }
            if serial > 0 {
                expected["serial"] = serial.into();
            }
            out.clear();
            let (data, user) = (&data_token, &user_id_token);
            encode_client_event_tokens(&mut out, &name, &channel, data, user, serial);
            let length = client_event_length(&name, &channel, data, user, serial);
            prop_assert_eq!(out.len(), length);
            prop_assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
            prop_assert_eq!(serial_of(&out), (serial > 0).then_some(serial));
        }
    }
}
