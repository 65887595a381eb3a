//! The bodies of answers: JSON, appended to a buffer.
//!
//! A body holds what was asked for and nothing else. The list of all channels may be put together
//! from pieces that several shards wrote.
//!
//! Source: Pusher Channels documentation, "HTTP API reference"; where soketi answers otherwise, its
//! `http-handler`.

use super::attributes::Attributes;
use crate::base::dialect::Dialect;
use crate::wire::json;
use crate::wire::pusher::delivery::Serial;

/// What there is to tell of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Of a presence channel: its members.
    pub users: u64,
    /// Connections that are subscribed.
    pub subscriptions: u64,
    /// Of a cache channel: what it holds.
    pub cached: Option<Cached<'a>>,
    /// Of a publish: what its event has, if the channel has serials.
    pub serial: Option<Serial>,
    /// Of a publish: how many subscribers' sockets have taken it, if they could be counted.
    pub delivered: Option<u64>,
}

/// The event that a cache channel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached<'a> {
    /// Its data, a JSON token.
    pub data: &'a str,
    /// For how long it will be held.
    pub ttl_s: u64,
}

/// Appends the answer to a publish, a batch or a call that is accepted and tells nothing.
pub fn encode_accepted(out: &mut Vec<u8>, dialect: Dialect) {
    out.extend_from_slice(match dialect {
        Dialect::Pusher => b"{}",
        Dialect::Soketi => br#"{"ok":true}"#,
    });
}

/// Appends the answer to an event that asked for `info`: each of its channels, with what applies.
pub fn encode_event_answer<'a>(
    out: &mut Vec<u8>,
    channels: impl IntoIterator<Item = (&'a str, Attributes, Facts<'a>)>,
) {
    let mut entries = Vec::new();
    for (name, told, facts) in channels {
        write_channel_entry(&mut entries, name, told, &facts);
    }
    out.extend(channel_list(vec![entries]).concat());
}

/// Appends the answer to a batch of which an event asked for `info`: for each event, in order, what
/// applies to its channel, or nothing where it did not ask.
pub fn encode_batch_answer<'a>(
    out: &mut Vec<u8>,
    events: impl IntoIterator<Item = Option<(Attributes, Facts<'a>)>>,
) {
    out.extend_from_slice(br#"{"batch":["#);
    let mut separator = "";
    for event in events {
        out.extend_from_slice(separator.as_bytes());
        let (told, facts) = event.unwrap_or_default();
        write_attributes(out, told, &facts);
        separator = ",";
    }
    out.extend_from_slice(b"]}");
}

/// Appends one channel of a list, behind a comma if something stands before it. The name must be a
/// checked one.
pub fn write_channel_entry(out: &mut Vec<u8>, name: &str, told: Attributes, facts: &Facts<'_>) {
    if !out.is_empty() {
        out.push(b',');
    }
    for piece in ["\"", name, "\":"] {
        out.extend_from_slice(piece.as_bytes());
    }
    write_attributes(out, told, facts);
}

/// The list of channels whose pieces [`write_channel_entry`] wrote, as parts that follow each other;
/// a piece may be empty. The pieces are not copied: the list may be long.
pub fn channel_list(pieces: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut parts = vec![br#"{"channels":{"#.to_vec()];
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
        if parts.len() > 1 {
            parts.push(b",".to_vec());
        }
        parts.push(piece);
    }
    parts.push(b"}}".to_vec());
    parts
}

/// Appends what there is to tell of one channel.
pub fn encode_channel(out: &mut Vec<u8>, told: Attributes, facts: &Facts<'_>) {
    write_attributes(out, told, facts);
}

/// Appends the members of a channel: the JSON token of each one's id, and of its information where
/// that was asked for.
pub fn encode_users<'a>(
    out: &mut Vec<u8>,
    users: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) {
    out.extend_from_slice(br#"{"users":["#);
    let mut separator = "";
    for (id, user_info) in users {
        for piece in [separator, r#"{"id":"#, id] {
            out.extend_from_slice(piece.as_bytes());
        }
        if let Some(user_info) = user_info {
            out.extend_from_slice(br#","user_info":"#);
            out.extend_from_slice(user_info.as_bytes());
        }
        out.push(b'}');
        separator = ",";
    }
    out.extend_from_slice(b"]}");
}

/// The content type and the body of a refusal. The vendor writes plain text, and its libraries read
/// the status alone; soketi writes JSON.
pub fn refusal_body(dialect: Dialect, status: u16, message: &str) -> (&'static str, String) {
    match dialect {
        Dialect::Pusher => ("text/plain; charset=utf-8", message.to_owned()),
        Dialect::Soketi => {
            let error = json::RawString::encode(message);
            let body = format!(r#"{{"error":{},"code":{status}}}"#, error.token());
            ("application/json", body)
        }
    }
}

/// The memory that the process uses, and what it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    pub used_bytes: u64,
    pub total_bytes: u64,
}

impl MemoryUse {
    fn percent(self) -> f64 {
        // Exact to 2^53 bytes.
        100.0 * self.used_bytes as f64 / self.total_bytes.max(1) as f64
    }
}

/// Appends soketi's `/usage`.
pub fn encode_usage(out: &mut Vec<u8>, memory: MemoryUse) {
    let MemoryUse {
        used_bytes,
        total_bytes,
    } = memory;
    let free_bytes = total_bytes.saturating_sub(used_bytes);
    let percent = memory.percent();
    let body = format!(
        r#"{{"memory":{{"free":{free_bytes},"used":{used_bytes},"total":{total_bytes},"percent":{percent}}}}}"#
    );
    out.extend_from_slice(body.as_bytes());
}

/// Appends soketi's `/accept-traffic`, while it accepts.
pub fn encode_accept_traffic(out: &mut Vec<u8>, memory: MemoryUse) {
    let MemoryUse {
        used_bytes,
        total_bytes,
    } = memory;
    let percent = memory.percent();
    let body = format!(
        r#"{{"memory":{{"usedSize":{used_bytes},"totalSize":{total_bytes},"percentUsage":{percent}}}}}"#
    );
    out.extend_from_slice(body.as_bytes());
}

/// Appends `{"occupied":true,"user_count":1,..}`, in the order of the documentation.
fn write_attributes(out: &mut Vec<u8>, told: Attributes, facts: &Facts<'_>) {
    out.push(b'{');
    let mut separator = "";
    let mut write = |is_told: bool, name: &str, value: &str| {
        if !is_told {
            return;
        }
        for piece in [separator, "\"", name, "\":", value] {
            out.extend_from_slice(piece.as_bytes());
        }
        separator = ",";
    };
    let is_occupied = facts.subscriptions > 0;
    write(
        told.occupied,
        "occupied",
        if is_occupied { "true" } else { "false" },
    );
    write(told.user_count, "user_count", &facts.users.to_string());
    write(
        told.subscription_count,
        "subscription_count",
        &facts.subscriptions.to_string(),
    );
    let cache = match (told.cache, facts.cached) {
        (true, Some(Cached { data, ttl_s })) => format!(r#"{{"data":{data},"ttl":{ttl_s}}}"#),
        (true, None) | (false, _) => "null".to_owned(),
    };
    write(told.cache, "cache", &cache);
    if let Some(Serial { epoch, number }) = facts.serial.filter(|_| told.serial) {
        write(true, "epoch", &format!(r#""{epoch:016x}""#));
        write(true, "serial", &number.to_string());
    }
    let delivered = facts.delivered.map(|subscribers| subscribers.to_string());
    let delivered = delivered.as_deref().unwrap_or("null");
    write(told.delivered, "delivered", delivered);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const NONE: Attributes = Attributes {
        occupied: false,
        user_count: false,
        subscription_count: false,
        cache: false,
        serial: false,
        delivered: false,
    };

    const COUNTS: Attributes = Attributes {
        user_count: true,
        subscription_count: true,
        ..NONE
    };

    const FACTS: Facts<'static> = Facts {
        users: 42,
        subscriptions: 51,
        cached: None,
        serial: None,
        delivered: None,
    };

    fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        encode(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_that_asked_is_told_of_each_of_its_channels() {
        let only_subscriptions = Attributes {
            subscription_count: true,
            ..NONE
        };
        let others = Facts {
            subscriptions: 13,
            ..FACTS
        };
        assert_eq!(
            encoded(|out| encode_event_answer(
                out,
                [
                    ("presence-a", COUNTS, FACTS),
                    ("b", only_subscriptions, others),
                    ("c", NONE, others),
                ]
            )),
            concat!(
                r#"{"channels":{"presence-a":{"user_count":42,"subscription_count":51},"#,
                r#""b":{"subscription_count":13},"c":{}}}"#
            )
        );
    }

    #[test]
    fn a_batch_is_told_of_each_event_in_its_place() {
        let empty = Facts::default();
        assert_eq!(
            encoded(|out| encode_batch_answer(
                out,
                [Some((COUNTS, FACTS)), None, Some((COUNTS, empty))]
            )),
            concat!(
                r#"{"batch":[{"user_count":42,"subscription_count":51},{},"#,
                r#"{"user_count":0,"subscription_count":0}]}"#
            )
        );
    }

    #[test]
    fn how_many_have_an_event_is_told_where_it_was_asked_for_and_known() {
        let asked = Attributes {
            delivered: true,
            ..NONE
        };
        let reached = Facts {
            delivered: Some(1234),
            ..FACTS
        };
        let channels = [
            ("a", asked, reached),
            ("b", asked, FACTS),
            ("c", NONE, reached),
        ];
        assert_eq!(
            encoded(|out| encode_event_answer(out, channels)),
            r#"{"channels":{"a":{"delivered":1234},"b":{"delivered":null},"c":{}}}"#
        );
    }

    #[test]
    fn a_serial_is_told_where_there_is_one_and_it_was_asked_for() {
        let asked = Attributes {
            serial: true,
            subscription_count: true,
            ..NONE
        };
        let published = Facts {
            serial: Some(Serial {
                epoch: 0xc0_ffee,
                number: 17,
            }),
            ..FACTS
        };
        assert_eq!(
            encoded(|out| encode_batch_answer(
                out,
                [
                    Some((asked, published)),
                    Some((asked, FACTS)),
                    Some((NONE, published))
                ]
            )),
            concat!(
                r#"{"batch":[{"subscription_count":51,"epoch":"0000000000c0ffee","serial":17},"#,
                r#"{"subscription_count":51},{}]}"#
            )
        );
    }

    #[test]
    fn a_channel_tells_what_was_asked_for_and_nothing_else() {
        let all = Attributes {
            occupied: true,
            cache: true,
            ..COUNTS
        };
        let cached = Facts {
            cached: Some(Cached {
                data: r#""event data""#,
                ttl_s: 60,
            }),
            users: 42,
            subscriptions: 42,
            serial: None,
            delivered: None,
        };
        assert_eq!(
            encoded(|out| encode_channel(out, all, &cached)),
            concat!(
                r#"{"occupied":true,"user_count":42,"subscription_count":42,"#,
                r#""cache":{"data":"event data","ttl":60}}"#
            )
        );
        let only = |told| encoded(|out| encode_channel(out, told, &Facts::default()));
        let cache = Attributes {
            cache: true,
            ..NONE
        };
        let occupied = Attributes {
            occupied: true,
            ..NONE
        };
        assert_eq!(only(cache), r#"{"cache":null}"#);
        assert_eq!(only(occupied), r#"{"occupied":false}"#);
        assert_eq!(only(NONE), "{}");
    }

    #[test]
    fn channels_are_listed_from_the_pieces_of_many() {
        let mut one = Vec::new();
        write_channel_entry(&mut one, "a", NONE, &FACTS);
        write_channel_entry(&mut one, "b", NONE, &FACTS);
        let mut other = Vec::new();
        write_channel_entry(&mut other, "presence-c", COUNTS, &FACTS);
        assert_eq!(
            encoded(|out| out.extend(channel_list(vec![one, Vec::new(), other]).concat())),
            concat!(
                r#"{"channels":{"a":{},"b":{},"#,
                r#""presence-c":{"user_count":42,"subscription_count":51}}}"#
            )
        );
        assert_eq!(
            encoded(|out| out.extend(channel_list(vec![Vec::new()]).concat())),
            r#"{"channels":{}}"#
        );
    }

    #[test]
    fn users_are_listed_by_id() {
        assert_eq!(
            encoded(|out| encode_users(out, [(r#""1""#, None), (r#""2""#, None)])),
            r#"{"users":[{"id":"1"},{"id":"2"}]}"#
        );
        assert_eq!(
            encoded(|out| encode_users(out, [(r#""1""#, Some("[1]"))])),
            r#"{"users":[{"id":"1","user_info":[1]}]}"#
        );
        assert_eq!(encoded(|out| encode_users(out, [])), r#"{"users":[]}"#);
    }

    #[test]
    fn what_tells_nothing_is_an_empty_object_or_soketi_s() {
        assert_eq!(encoded(|out| encode_accepted(out, Dialect::Pusher)), "{}");
        assert_eq!(
            encoded(|out| encode_accepted(out, Dialect::Soketi)),
            r#"{"ok":true}"#
        );
    }

    #[test]
    fn a_refusal_is_text_or_soketi_s_json() {
        let (kind, body) = refusal_body(Dialect::Pusher, 400, "a \"b\"");
        assert_eq!((kind, &*body), ("text/plain; charset=utf-8", "a \"b\""));
        let (kind, body) = refusal_body(Dialect::Soketi, 400, "a \"b\"");
        assert_eq!(kind, "application/json");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body, json!({"error": "a \"b\"", "code": 400}));
    }

    #[test]
    fn the_memory_in_use_is_told_as_soketi_does() {
        let memory = MemoryUse {
            used_bytes: 25,
            total_bytes: 200,
        };
        let read = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        assert_eq!(
            read(encoded(|out| encode_usage(out, memory))),
            json!({"memory": {"free": 175, "used": 25, "total": 200, "percent": 12.5}})
        );
        assert_eq!(
            read(encoded(|out| encode_accept_traffic(out, memory))),
            json!({"memory": {"usedSize": 25, "totalSize": 200, "percentUsage": 12.5}})
        );
        let nothing_known = MemoryUse {
            used_bytes: 25,
            total_bytes: 0,
        };
        let text = encoded(|out| encode_usage(out, nothing_known));
        assert_eq!(read(text)["memory"]["free"], 0);
    }

    proptest! {
        #[test]
        fn every_answer_is_json(
            occupied: bool, user_count: bool, subscription_count: bool, cache: bool,
            users: u64, subscriptions: u64, data in proptest::option::of(any::<String>()),
        ) {
            let told = Attributes { occupied, user_count, subscription_count, cache, serial: false, delivered: false };
            let token = data.as_ref().map(|data| json::RawString::encode(data));
            let cached = token.as_ref().map(|token| Cached { data: token.token(), ttl_s: 7 });
            let facts = Facts { users, subscriptions, cached, serial: None, delivered: None };
            let mut expected = json!({});
            if occupied {
                expected["occupied"] = (subscriptions > 0).into();
            }
            if user_count {
                expected["user_count"] = users.into();
            }
            if subscription_count {
                expected["subscription_count"] = subscriptions.into();
            }
            if cache {
                expected["cache"] = match data {
                    Some(data) => json!({"data": data, "ttl": 7}),
                    None => Value::Null,
                };
            }
            let text = encoded(|out| encode_channel(out, told, &facts));
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
        }
    }
}
