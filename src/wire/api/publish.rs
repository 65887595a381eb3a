//! The bodies of the HTTP API's publishing calls, parsed once into events that are fit to publish.
//!
//! What comes out has passed every limit: names and channels are allowed, data is a JSON string
//! token ready for the frame, no channel stands twice in one event. What does not pass is an
//! [`ApiError`], the answer as it goes back.
//!
//! Source: Pusher Channels documentation, "HTTP API: publishing events" (`POST /events`,
//! `POST /batch_events`).

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use smallvec::{SmallVec, smallvec};

use super::attributes::Attributes;
use super::idempotency;
use super::refusal::ApiError;
use crate::base::limits;
use crate::wire::channel;
use crate::wire::http::query_pairs;
use crate::wire::json::{self, RawString};
use crate::wire::pusher::{InvalidSocketId, SocketId};

/// What an event may be. Beyond a limit the whole call is refused.
#[derive(Clone, Copy, Debug)]
pub struct EventLimits {
    /// Of the decoded data in UTF-8.
    pub data_bytes_max: usize,
    /// Each counted once.
    pub channels_per_event_max: usize,
    pub batch_events_max: usize,
    pub channel_name_bytes_max: usize,
    pub event_name_characters_max: usize,
}

/// One event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    pub name: RawString<'a>,
    /// In the order given: at least one, each once, all with allowed names.
    pub channels: ChannelNames<'a>,
    pub data: RawString<'a>,
    /// What the event is the newest of; empty if it is of nothing.
    pub key: Cow<'a, str>,
    /// The connection that is left out.
    pub socket_id: Option<SocketId>,
    /// What the answer shall tell of each channel, as far as it applies; nothing if the publisher
    /// did not ask.
    pub info: Option<Attributes>,
    /// Under which it may be repeated.
    pub idempotency_key: Option<Cow<'a, str>>,
}

/// Most events go to one channel: its name stands here without an allocation.
pub type ChannelNames<'a> = SmallVec<[Cow<'a, str>; 1]>;

/// Reads the body of `POST /events`: an object with `name`, `data`, `channels` or `channel`, and
/// perhaps `socket_id`, `info`, `key` and `idempotency_key`.
///
/// All may come in the query instead (`channels[]=a&channels[]=b`); the query counts for what the
/// body lacks. When `name` is in the query and `data` is not, the body is the data, whatever it holds.
pub fn parse_event<'a>(
    body: &'a [u8],
    query: Option<&'a str>,
    limits: &EventLimits,
) -> Result<Event<'a>, ApiError> {
    let body = utf8(body)?;
    let query = QueryFields::parse(query);
    let fields = match query.name {
        Some(_) => EventFields::of_data(query.data.as_deref().unwrap_or(body)),
        None => parse_object(body)?,
    };
    event(fields, query, limits)
}

/// Reads `POST /channels/C/events`, which is deprecated: the body is the data, whatever it holds, and
/// `name` and perhaps `socket_id` are in the query.
pub fn parse_channel_event<'a>(
    channel: Cow<'a, str>,
    body: &'a [u8],
    query: Option<&'a str>,
    limits: &EventLimits,
) -> Result<Event<'a>, ApiError> {
    let query = QueryFields {
        channels: smallvec![channel],
        data: None,
        info: None,
        ..QueryFields::parse(query)
    };
    event(EventFields::of_data(utf8(body)?), query, limits)
}

/// Reads the body of `POST /batch_events`, `{"batch":[..]}`: events on one channel each, in order.
pub fn parse_batch<'a>(body: &'a [u8], limits: &EventLimits) -> Result<Vec<Event<'a>>, ApiError> {
    let batch: BatchFields<'a> = parse_object(utf8(body)?)?;
    if batch.batch.len() > limits.batch_events_max {
        return Err(ApiError::bad_request(format!(
            "Batch too large ({} > {})",
            batch.batch.len(),
            limits.batch_events_max
        )));
    }
    batch
        .batch
        .into_iter()
        .map(|fields| match fields.channels {
            Some(_) => Err(ApiError::bad_request(
                "An event of a batch has one channel, not channels",
            )),
            None => event(fields, QueryFields::default(), limits),
        })
        .collect()
}

#[derive(Deserialize)]
struct BatchFields<'a> {
    #[serde(borrow)]
    batch: Vec<EventFields<'a>>,
}

#[derive(Deserialize)]
struct EventFields<'a> {
    #[serde(borrow)]
    name: Option<RawString<'a>>,
    #[serde(borrow, default, deserialize_with = "data_of_any_type")]
    data: Option<RawString<'a>>,
    #[serde(borrow)]
    channel: Option<RawString<'a>>,
    #[serde(borrow)]
    channels: Option<ChannelList<'a>>,
    #[serde(borrow)]
    socket_id: Option<RawString<'a>>,
    #[serde(borrow)]
    info: Option<RawString<'a>>,
    #[serde(borrow)]
    idempotency_key: Option<RawString<'a>>,
    #[serde(borrow)]
    key: Option<RawString<'a>>,
}

impl EventFields<'_> {
    /// The body is the data; an empty one is none.
    fn of_data(body: &str) -> Self {
        Self {
            name: None,
            data: Some(body)
                .filter(|body| !body.is_empty())
                .map(RawString::encode),
            channel: None,
            channels: None,
            socket_id: None,
            info: None,
            idempotency_key: None,
            key: None,
        }
    }
}

/// What the query of `POST /events` may say.
#[derive(Default)]
struct QueryFields<'a> {
    name: Option<Cow<'a, str>>,
    data: Option<Cow<'a, str>>,
    channels: ChannelNames<'a>,
    socket_id: Option<Cow<'a, str>>,
    info: Option<Cow<'a, str>>,
    idempotency_key: Option<Cow<'a, str>>,
}

impl<'a> QueryFields<'a> {
    /// The parameters of the call's signature, and unknown ones, say nothing about the event.
    fn parse(query: Option<&'a str>) -> Self {
        let mut fields = Self::default();
        for (key, value) in query_pairs(query.unwrap_or("")) {
            match &*key {
                "name" => fields.name = Some(value),
                "data" => fields.data = Some(value),
                "channel" | "channels[]" => fields.channels.push(value),
                "socket_id" => fields.socket_id = Some(value),
                "info" => fields.info = Some(value),
                "idempotency_key" => fields.idempotency_key = Some(value),
                _ => {}
            }
        }
        fields
    }
}

/// A JSON array of strings, without an allocation when it holds one.
struct ChannelList<'a>(ChannelNames<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for ChannelList<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<'a>(PhantomData<&'a str>);

        impl<'de: 'a, 'a> Visitor<'de> for ListVisitor<'a> {
            type Value = ChannelNames<'a>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array of channel names")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut names = SmallVec::new();
                while let Some(name) = list.next_element::<RawString<'de>>()? {
                    names.push(name.into_decoded());
                }
                Ok(names)
            }
        }

        deserializer
            .deserialize_seq(ListVisitor(PhantomData))
            .map(ChannelList)
    }
}

/// Clients expect a string, and the documentation asks for one. Publishers that send an object or
/// a number mean the JSON that they wrote: it becomes the string that holds it.
fn data_of_any_type<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<RawString<'a>>, D::Error> {
    let value = <&'de RawValue>::deserialize(deserializer)?;
    if value.get().starts_with('"') {
        return RawString::from_value(value)
            .map(Some)
            .map_err(D::Error::custom);
    }
    if json::has_lone_surrogate(value.get()) {
        return Err(D::Error::custom(json::NotAString::LoneSurrogate));
    }
    Ok(Some(RawString::encode(value.get())))
}

fn event<'a>(
    fields: EventFields<'a>,
    query: QueryFields<'a>,
    limits: &EventLimits,
) -> Result<Event<'a>, ApiError> {
    let name = fields
        .name
        .or_else(|| query.name.map(|name| RawString::encode(&name)))
        .ok_or_else(|| ApiError::missing("name"))?;
    check_event_name(&name, limits)?;

    let data = fields.data.ok_or_else(|| ApiError::missing("data"))?;
    check_data(&data, limits)?;

    let key = fields.key.map(RawString::into_decoded).unwrap_or_default();
    if key.len() > limits::EVENT_KEY_BYTES_MAX {
        return Err(ApiError::bad_request(format!(
            "The key of an event has {} bytes at most",
            limits::EVENT_KEY_BYTES_MAX
        )));
    }

    let given: ChannelNames<'a> = match (fields.channels, fields.channel) {
        (Some(ChannelList(channels)), _) => channels,
        (None, Some(channel)) => smallvec![channel.into_decoded()],
        (None, None) => query.channels,
    };
    let channels = each_once(given, limits.channels_per_event_max)?;
    for channel in &channels {
        channel::check_channel_name(channel, limits.channel_name_bytes_max)
            .map_err(|error| ApiError::bad_name("channel", channel, error))?;
    }

    let socket_id = fields.socket_id.map(RawString::into_decoded);
    let info = fields.info.map(RawString::into_decoded);
    let idempotency_key = fields.idempotency_key.map(RawString::into_decoded);
    Ok(Event {
        name,
        channels,
        data,
        key,
        socket_id: parse_socket_id(socket_id.or(query.socket_id))?,
        info: info
            .or(query.info)
            .filter(|info| !info.is_empty())
            .map(|info| Attributes::parse_of_publish(&info)),
        idempotency_key: idempotency_key
            .or(query.idempotency_key)
            .map(idempotency::checked)
            .transpose()?,
    })
}

fn check_event_name(name: &RawString<'_>, limits: &EventLimits) -> Result<(), ApiError> {
    let name = name.decoded();
    channel::check_published_event_name(&name, limits.event_name_characters_max)
        .map_err(|error| ApiError::bad_name("event", &name, error))
}

fn check_data(data: &RawString<'_>, limits: &EventLimits) -> Result<(), ApiError> {
    // Decoding only shortens: a token within the limit needs no counting.
    let max = limits.data_bytes_max;
    if data.token().len() > max && data.decoded_length() > max {
        return Err(ApiError {
            status: 413,
            message: format!(
                "The data content of this event exceeds the allowed maximum ({max} bytes). See \
                 https://pusher.com/docs/channels/server_api/http-api#publishing-events for more \
                 info"
            )
            .into(),
        });
    }
    Ok(())
}

/// The names without repetitions, at least one and at most `max`. Stops at the first too many, so
/// that a long list costs no more than a full one.
fn each_once(given: ChannelNames<'_>, max: usize) -> Result<ChannelNames<'_>, ApiError> {
    let mut channels = ChannelNames::new();
    for name in given {
        if channels.contains(&name) {
            continue;
        }
        if channels.len() == max {
            return Err(ApiError::bad_request(format!(
                "Too many channels: an event goes to {max} at most"
            )));
        }
        channels.push(name);
    }
    match channels.is_empty() {
        true => Err(ApiError::missing("channels")),
        false => Ok(channels),
    }
}

fn parse_socket_id(given: Option<Cow<'_, str>>) -> Result<Option<SocketId>, ApiError> {
    given
        .filter(|text| !text.is_empty())
        .map(|text| text.parse())
        .transpose()
        .map_err(|error: InvalidSocketId| ApiError::bad_request(error.to_string()))
}

fn utf8(body: &[u8]) -> Result<&str, ApiError> {
    str::from_utf8(body).map_err(|_| ApiError::bad_request("The body is not UTF-8"))
}

fn parse_object<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, ApiError> {
    json::parse_object(body)
        .map_err(|error| ApiError::bad_request(format!("The body is not as documented: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const LIMITS: EventLimits = EventLimits {
        data_bytes_max: 10_240,
        channels_per_event_max: 100,
        batch_events_max: 10,
        channel_name_bytes_max: 200,
        event_name_characters_max: 200,
    };

    fn parse(body: &str) -> Result<Event<'_>, ApiError> {
        parse_event(body.as_bytes(), None, &LIMITS)
    }

    /// Checks that the body is refused with this status, for a reason that holds this text.
    fn refused(body: &str, status: u16, reason: &str) {
        let error = parse(body).unwrap_err();
        assert_eq!(error.status, status, "{body}: {error}");
        assert!(error.message.contains(reason), "{body}: {error}");
    }

    #[test]
    fn an_event_of_the_official_libraries_is_read_without_a_copy() {
        let event = parse(
            r#"{"name":"foo","data":"{\"some\":\"d\u00e4\"}","channels":["project-3","project-4"],
                "socket_id":"123.456","info":"user_count","other":[1]}"#,
        )
        .unwrap();
        assert_eq!(event.name.token(), r#""foo""#);
        assert_eq!(event.data.token(), r#""{\"some\":\"d\u00e4\"}""#);
        assert_eq!(event.channels[..], ["project-3", "project-4"]);
        assert!(matches!(event.channels[0], Cow::Borrowed(_)));
        assert_eq!(
            event.socket_id,
            Some(SocketId {
                first: 123,
                second: 456
            })
        );
        assert_eq!(event.info, Some(Attributes::parse_of_publish("user_count")));
    }

    #[test]
    fn one_channel_may_be_given_as_channel() {
        let event = parse(r##"{"name":"n","data":"","channel":"#server-to-user-u"}"##).unwrap();
        assert_eq!(event.channels[..], ["#server-to-user-u"]);
        assert!(!event.channels.spilled());
        assert_eq!(event.socket_id, None);
        assert_eq!(event.info, None);
    }

    #[test]
    fn a_channel_that_is_named_twice_counts_once() {
        let mut names = vec!["b"; 150];
        names.extend(["a", "b", "a"]);
        let body = json!({"name": "n", "data": "d", "channels": names}).to_string();
        assert_eq!(parse(&body).unwrap().channels[..], ["b", "a"]);
    }

    #[test]
    fn an_event_goes_to_one_to_a_hundred_channels() {
        let body = |count: usize| {
            let names: Vec<_> = (0..count).map(|at| format!("room-{at}")).collect();
            json!({"name": "n", "data": "d", "channels": names}).to_string()
        };
        assert_eq!(parse(&body(100)).unwrap().channels.len(), 100);
        refused(&body(101), 400, "Too many channels");
        refused(&body(0), 400, "channels");
    }

    #[test]
    fn data_of_another_type_becomes_the_string_that_holds_its_json() {
        for data in [
            r#"{"a": ["é\n", 1.50]}"#,
            "12345678901234567890",
            "true",
            "null",
            "[]",
        ] {
            let body = format!(r#"{{"name":"n","channel":"c","data": {data} }}"#);
            let event = parse(&body).unwrap();
            assert_eq!(event.data.decoded(), data);
            assert_eq!(
                serde_json::from_str::<String>(event.data.token()).unwrap(),
                data
            );
        }
    }

    #[test]
    fn data_is_measured_as_it_reads_when_decoded() {
        let body = |data: String| format!(r#"{{"name":"n","channel":"c","data":"{data}"}}"#);
        assert!(parse(&body("a".repeat(10_240))).is_ok());
        assert!(parse(&body("\\\"".repeat(10_240))).is_ok());
        assert!(parse(&body("\\u00e9".repeat(5_120))).is_ok());
        let message = "The data content of this event exceeds the allowed maximum (10240 bytes)";
        refused(&body("a".repeat(10_241)), 413, message);
        refused(&body("\\\"".repeat(10_241)), 413, message);
        refused(&body("\\u00e9".repeat(5_121)), 413, message);
        let object = format!(
            r#"{{"name":"n","channel":"c","data":{{"a":"{}"}}}}"#,
            "a".repeat(10_240)
        );
        refused(&object, 413, message);
    }

    #[test]
    fn what_is_missing_is_named() {
        refused("{}", 400, "name");
        refused(r#"{"name":null,"data":"d","channel":"c"}"#, 400, "name");
        refused(r#"{"name":"n","channel":"c"}"#, 400, "data");
        refused(r#"{"name":"n","data":"d"}"#, 400, "channels");
    }

    #[test]
    fn what_is_wrong_is_refused() {
        refused("", 400, "expected an object");
        refused("[1]", 400, "expected an object");
        refused(
            r#"{"name":1,"data":"d","channel":"c"}"#,
            400,
            "expected a string",
        );
        refused(
            r#"{"name":"n","data":"d","channels":"c"}"#,
            400,
            "array of channel names",
        );
        refused(
            r#"{"name":"n","data":"d","channels":[1]}"#,
            400,
            "expected a string",
        );
        refused(
            r#"{"name":"n","data":"\ud800","channel":"c"}"#,
            400,
            "lone surrogate",
        );
        refused(
            r#"{"name":"n","data":["\ud800"],"channel":"c"}"#,
            400,
            "lone surrogate",
        );
        refused(
            r#"{"name":"pusher:error","data":"d","channel":"c"}"#,
            400,
            "reserved",
        );
        refused(
            r#"{"name":"pusher\u003aerror","data":"d","channel":"c"}"#,
            400,
            "reserved",
        );
        refused(r#"{"name":"","data":"d","channel":"c"}"#, 400, "is empty");
        refused(r#"{"name":"n","data":"d","channel":""}"#, 400, "is empty");
        refused(
            r#"{"name":"n","data":"d","channel":"a b"}"#,
            400,
            "contains ' '",
        );
        refused(
            r#"{"name":"n","data":"d","channels":["a","b/"]}"#,
            400,
            "contains '/'",
        );
        refused(
            r#"{"name":"n","data":"d","channel":"c","socket_id":"1"}"#,
            400,
            "socket id",
        );
        let long = "n".repeat(201);
        refused(
            &format!(r#"{{"name":"{long}","data":"d","channel":"c"}}"#),
            400,
            "longer than 200",
        );
        refused(
            &format!(r#"{{"name":"n","data":"d","channel":"{long}"}}"#),
            400,
            "longer than 200",
        );
        assert_eq!(
            parse_event(b"{\"\xff\"}", None, &LIMITS)
                .unwrap_err()
                .status,
            400
        );
    }

    #[test]
    fn an_empty_socket_id_leaves_nobody_out() {
        for socket_id in ["\"\"", "null"] {
            let body =
                format!(r#"{{"name":"n","data":"d","channel":"c","socket_id":{socket_id}}}"#);
            assert_eq!(parse(&body).unwrap().socket_id, None);
        }
    }

    #[test]
    fn with_the_name_in_the_query_the_body_is_the_data() {
        let query = "auth_key=k&name=my%20event&channels[]=a&channels%5B%5D=b&channels[]=a\
                     &socket_id=1.2&info=user_count";
        let event = parse_event(br#"{"data":"\ud800"}"#, Some(query), &LIMITS).unwrap();
        assert_eq!(event.name.token(), r#""my event""#);
        assert_eq!(event.channels[..], ["a", "b"]);
        assert_eq!(event.data.decoded(), r#"{"data":"\ud800"}"#);
        assert_eq!(
            event.socket_id,
            Some(SocketId {
                first: 1,
                second: 2
            })
        );
        assert_eq!(event.info, Some(Attributes::parse_of_publish("user_count")));

        let error = parse_event(b"", Some("name=n&channel=c"), &LIMITS).unwrap_err();
        assert_eq!(error.message, "Missing required parameter: data");
    }

    #[test]
    fn the_query_counts_for_what_the_body_lacks() {
        let query = Some("channel=c&socket_id=1.2&info=user_count");
        let event = parse_event(br#"{"name":"n","data":"d"}"#, query, &LIMITS).unwrap();
        assert_eq!(event.channels[..], ["c"]);
        assert_eq!(
            event.socket_id,
            Some(SocketId {
                first: 1,
                second: 2
            })
        );
        assert_eq!(event.info, Some(Attributes::parse_of_publish("user_count")));

        let body = br#"{"name":"n","data":"d","channel":"b","socket_id":"3.4","info":"cache"}"#;
        let event = parse_event(body, query, &LIMITS).unwrap();
        assert_eq!(event.channels[..], ["b"]);
        assert_eq!(
            event.socket_id,
            Some(SocketId {
                first: 3,
                second: 4
            })
        );
        assert_eq!(event.info, Some(Attributes::default()));
    }

    #[test]
    fn an_event_of_the_deprecated_call_has_its_body_as_data() {
        let parse = |body, query| parse_channel_event("room".into(), body, query, &LIMITS);
        let query = "name=n&socket_id=1.2&channels[]=other&data=other&info=user_count";
        let event = parse(br#""text""#, Some(query)).unwrap();
        assert_eq!(event.channels[..], ["room"]);
        assert_eq!(event.name.decoded(), "n");
        assert_eq!(event.data.decoded(), r#""text""#);
        assert_eq!(event.info, None);
        assert_eq!(
            event.socket_id,
            Some(SocketId {
                first: 1,
                second: 2
            })
        );
        for (body, query) in [
            (&b"d"[..], None),
            (b"d", Some("name=pusher:error")),
            (b"", Some("name=n&data=d")),
            (b"\xff", Some("name=n")),
        ] {
            assert_eq!(parse(body, query).unwrap_err().status, 400, "{query:?}");
        }
        assert_eq!(
            parse(&[b'a'; 10_241], Some("name=n")).unwrap_err().status,
            413
        );
    }

    fn batch(count: usize) -> String {
        let events: Vec<_> = (0..count)
            .map(|at| json!({"name": format!("n{at}"), "data": {"at": at}, "channel": "c"}))
            .collect();
        json!({ "batch": events }).to_string()
    }

    #[test]
    fn a_batch_is_read_in_order() {
        let body = batch(10);
        let events = parse_batch(body.as_bytes(), &LIMITS).unwrap();
        for (at, event) in events.iter().enumerate() {
            assert_eq!(event.name.decoded(), format!("n{at}"));
            assert_eq!(event.data.decoded(), format!("{{\"at\":{at}}}"));
            assert_eq!(event.channels[..], ["c"]);
        }
        assert_eq!(events.len(), 10);
        assert_eq!(parse_batch(br#"{"batch":[]}"#, &LIMITS), Ok(vec![]));
    }

    #[test]
    fn a_batch_is_refused_whole() {
        let error = |body: &str| parse_batch(body.as_bytes(), &LIMITS).unwrap_err();
        assert_eq!(error(&batch(11)).message, "Batch too large (11 > 10)");
        let one = r#"{"name":"n","data":"d","channel":"c"}"#;
        for (other, status) in [
            (r#"{"name":"n","data":"d"}"#.to_owned(), 400),
            (
                r#"{"name":"n","data":"d","channels":["c"]}"#.to_owned(),
                400,
            ),
            (
                format!(
                    r#"{{"name":"n","channel":"c","data":"{}"}}"#,
                    "a".repeat(10_241)
                ),
                413,
            ),
        ] {
            let error = error(&format!(r#"{{"batch":[{one},{other}]}}"#));
            assert_eq!(error.status, status, "{error}");
        }
        assert_eq!(error("{}").status, 400);
        assert_eq!(error(one).status, 400);
    }

    proptest! {
        #[test]
        fn an_event_reads_as_it_was_written(
            name in "[^:]{1,40}",
            data in any::<String>(),
            channels in proptest::collection::btree_set("[A-Za-z0-9_=@,.;-]{1,20}", 1..5),
            ids in proptest::option::of(any::<(u64, u64)>()),
        ) {
            let socket_id = ids.map(|(first, second)| SocketId { first, second });
            let body = json!({
                "name": name,
                "data": data,
                "channels": channels,
                "socket_id": socket_id.map(|id| id.to_string()),
            })
            .to_string();
            let event = parse(&body).unwrap();
            prop_assert_eq!(event.name.decoded(), name);
            prop_assert_eq!(event.data.decoded(), data);
            prop_assert!(event.channels.iter().eq(channels.iter()));
            prop_assert_eq!(event.socket_id, socket_id);
        }

        #[test]
        fn random_bytes_never_panic(
            body in any::<Vec<u8>>(),
            text in any::<String>(),
            query in any::<String>(),
        ) {
            let data = format!(r#"{{"name":"n","channel":"c","data":{text}}}"#);
            for body in [&body[..], text.as_bytes(), data.as_bytes()] {
                parse_event(body, Some(&query), &LIMITS).ok();
                parse_event(body, Some(&format!("name=n&channel=c&{query}")), &LIMITS).ok();
                parse_batch(body, &LIMITS).ok();
            }
        }
    }
}
