//! What clients say: one text message to a [`ClientMessage`].

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::delivery::{self, Begin, ResumeFields};
use crate::base::slow::{SLOW_POLICIES, Slow};
use crate::wire::json::{self, RawString};

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
        /// From where on, if the channel has serials.
        begin: Begin,
        /// What is to become of it when it is slow, if it says so.
        slow: Option<Slow>,
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
                begin: fields.begin,
                slow: fields.slow,
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
    /// `resume` or `rewind` does not say where to begin.
    NoBegin,
    /// `slow` is no policy.
    NoSlow,
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson => formatter.write_str("Invalid message: not an event in JSON"),
            Self::NoBegin => formatter.write_str(
                "Invalid message: data.resume has an epoch, a serial and perhaps a socket_id, data.rewind is \
                 a number of events or a time such as \"2m\"",
            ),
            Self::NoSlow => formatter.write_str("Invalid message: data.slow is no such policy"),
            Self::Missing(field) => write!(formatter, "Invalid message: {field} is missing"),
        }
    }
}

impl std::error::Error for Malformed {}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Option<RawString<'a>>,
    #[serde(borrow)]
    channel: Option<RawString<'a>>,
    #[serde(borrow, default, deserialize_with = "json::value_even_if_null")]
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
    #[serde(borrow)]
    resume: Option<ResumeFields<'a>>,
    #[serde(borrow)]
    rewind: Option<&'a RawValue>,
    #[serde(borrow)]
    slow: Option<RawString<'a>>,
}

struct Command<'a> {
    channel: Option<RawString<'a>>,
    auth: Option<RawString<'a>>,
    channel_data: Option<RawString<'a>>,
    user_data: Option<RawString<'a>>,
    begin: Begin,
    slow: Option<Slow>,
}

impl<'a> CommandFields<'a> {
    fn read(self) -> Result<Command<'a>, Malformed> {
        let begin = delivery::parse_begin(self.resume.as_ref(), self.rewind);
        let slow = match self.slow {
            Some(slow) => Some(parse_slow(&slow.decoded()).ok_or(Malformed::NoSlow)?),
            None => None,
        };
        Ok(Command {
            slow,
            channel: self.channel,
            auth: self.auth,
            channel_data: self.channel_data,
            user_data: self.user_data,
            begin: begin.ok_or(Malformed::NoBegin)?,
        })
    }
}

/// Most clients send `data` as an object; pysher among others sends a string that holds one.
fn parse_command_fields(data: Option<&RawValue>) -> Result<Command<'_>, Malformed> {
    let data = data.ok_or(Malformed::Missing("data"))?;
    if !data.get().starts_with('"') {
        let fields: CommandFields<'_> =
            json::parse_object(data.get()).map_err(|_| Malformed::NotJson)?;
        return fields.read();
    }
    let string = RawString::from_value(data).map_err(|_| Malformed::NotJson)?;
    let text = string.decoded();
    let fields: CommandFields<'_> = json::parse_object(&text).map_err(|_| Malformed::NotJson)?;
    let fields = fields.read()?;
    let owned = |field: Option<RawString<'_>>| field.map(RawString::into_owned);
    Ok(Command {
        begin: fields.begin,
        slow: fields.slow,
        channel: owned(fields.channel),
        auth: owned(fields.auth),
        channel_data: owned(fields.channel_data),
        user_data: owned(fields.user_data),
    })
}

fn parse_slow(text: &str) -> Option<Slow> {
    let mut policies = SLOW_POLICIES.iter();
    let (_, slow) = policies.find(|(name, _)| *name == text)?;
    Some(*slow)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pusher::{SocketId, encode_event_tokens};
    use proptest::prelude::*;
    use serde_json::{Value, json};

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
                begin: Begin::Head,
                slow: None,
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
                begin: Begin::Head,
                slow: None,
            }) = parse_client_message(&text)
            else {
                panic!("{text}");
            };
            assert!(matches!(channel, Cow::Borrowed("room")));
        }
    }

    #[test]
    fn a_subscription_says_where_it_begins() {
        let serial = delivery::Serial {
            epoch: 255,
            number: 41,
        };
        let resumed = Begin::After(serial, None);
        let formerly = SocketId {
            first: 12,
            second: 34,
        };
        for (more, begin) in [
            (
                r#""resume":{"epoch":"00000000000000ff","serial":41}"#,
                resumed,
            ),
            (
                r#""resume":{"epoch":"00000000000000ff","serial":41,"socket_id":"12.34"}"#,
                Begin::After(serial, Some(formerly)),
            ),
            (r#""resume":null,"rewind":null"#, Begin::Head),
            (r#""rewind":12"#, Begin::Messages(12)),
            (r#""rewind":"2m""#, Begin::Seconds(120)),
        ] {
            let fields = format!(r#"{{"channel":"room",{more}}}"#);
            let string = serde_json::to_string(&fields).unwrap();
            for data in [fields, string] {
                let text = format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#);
                match parse_client_message(&text) {
                    Ok(ClientMessage::Subscribe { begin: read, .. }) => assert_eq!(read, begin),
                    other => panic!("{text}: {other:?}"),
                }
            }
        }
        for more in [
            r#""resume":{"epoch":"ff","serial":41}"#,
            r#""rewind":-1"#,
            r#""rewind":"2w""#,
            r#""rewind":[]"#,
        ] {
            let text =
                format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"room",{more}}}}}"#);
            let read = parse_client_message(&text).map(|_| ());
            assert_eq!(read, Err(Malformed::NoBegin), "{text}");
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

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[\\x00-\\x7f]{0,20}"]
    }

    proptest! {
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
            encode_event_tokens(&mut out, event.token(), &channel, data.get());
            prop_assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), sent);
        }

        #[test]
        fn random_text_never_panics(text in any::<String>(), data in any::<String>()) {
            parse_client_message(&text).ok();
            for event in ["pusher:subscribe", "pusher:signin", "client-a"] {
                parse_client_message(&json!({"event": event, "data": data}).to_string()).ok();
                parse_client_message(&format!(r#"{{"event":"{event}","data":{data}}}"#)).ok();
            }
        }
    }
}
