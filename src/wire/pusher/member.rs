//! The members of presence channels: what a client says of its user, and how a roster and its
//! changes are told.
//!
//! A roster reaches clients as JSON inside of a JSON string, so each member's part of it is escaped
//! twice. That work is done once a member, in [`MemberText`]; an acknowledgement, an arrival and a
//! departure are put together from those pieces by copying.
//!
//! Source: Pusher Channels documentation, "Presence channels" (`user_id`, `user_info`, the limits)
//! and "WebSocket protocol" (`pusher_internal:subscription_succeeded`, `member_added`,
//! `member_removed`). Ids are strings in a roster even where a client gave a number; the events of
//! one member echo the type that was given, as captures of the vendor's service show.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::delivery::Position;
use crate::wire::json::{self, RawString};

/// Who a connection is in a presence channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// The JSON token as it came, a string or a whole number.
    pub user_id: Cow<'a, str>,
    /// What that token says: users are the same when these are equal.
    pub id: Cow<'a, str>,
    /// A JSON token, any.
    pub user_info: Option<Cow<'a, str>>,
}

/// What one member may be. Beyond a limit it does not join.
#[derive(Clone, Copy, Debug)]
pub struct MemberLimits {
    /// Of `user_id` and `user_info` together, as they came.
    pub user_bytes_max: usize,
    pub id_characters_max: usize,
}

impl<'a> Member<'a> {
    /// Reads the `channel_data` of a subscription, whose signature the caller has checked:
    /// `{"user_id":"11","user_info":{..}}`. Other fields are ignored.
    pub fn parse(channel_data: &'a str, limits: &MemberLimits) -> Result<Self, MemberError> {
        let fields: MemberFields<'a> =
            json::parse_object(channel_data).map_err(|_| MemberError::Malformed)?;
        let (user_id, id) = read_id(fields.user_id).ok_or(MemberError::Malformed)?;
        let user_info = fields.user_info.map(RawValue::get);
        if user_info.is_some_and(json::has_lone_surrogate) {
            return Err(MemberError::Malformed);
        }
        let member = Self {
            user_id: user_id.into(),
            id,
            user_info: user_info.map(Cow::Borrowed),
        };
        member.checked(limits)
    }

    /// The same member if it is within the limits.
    pub(super) fn checked(self, limits: &MemberLimits) -> Result<Self, MemberError> {
        let id_max = limits.id_characters_max;
        if self.id.len() > id_max && self.id.chars().count() > id_max {
            return Err(MemberError::IdTooLong { max: id_max });
        }
        let info_bytes = self.user_info.as_ref().map_or(0, |info| info.len());
        if self.user_id.len() + info_bytes > limits.user_bytes_max {
            return Err(MemberError::TooLarge {
                max: limits.user_bytes_max,
            });
        }
        Ok(self)
    }
}

/// Why a member does not join. The connection stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberError {
    /// Not an object with a `user_id`, a string that is not empty or a whole number up to 2^53.
    Malformed,
    IdTooLong {
        max: usize,
    },
    TooLarge {
        max: usize,
    },
}

impl MemberError {
    /// The `type` and `status` of the `pusher:subscription_error`; those of limits are soketi's.
    pub fn kind_and_status(self) -> (&'static str, u16) {
        match self {
            Self::Malformed => ("InvalidMember", 400),
            Self::IdTooLong { .. } | Self::TooLarge { .. } => ("LimitReached", 4301),
        }
    }
}

impl fmt::Display for MemberError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => formatter.write_str(
                "Invalid channel_data: expected an object with a user_id, a string or a number",
            ),
            Self::IdTooLong { max } => {
                write!(formatter, "The user_id is longer than {max} characters")
            }
            Self::TooLarge { max } => {
                write!(
                    formatter,
                    "The user object is larger than {max} bytes (user_id and user_info)"
                )
            }
        }
    }
}

impl std::error::Error for MemberError {}

/// One member as it stands in frames: escaped for the inside of a JSON string.
///
/// Two members with the same id have the same [`id_escaped`](Self::id_escaped), however a client
/// spelt the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberText {
    /// `\"11\":{\"name\":\"A\"}`
    entry: Box<str>,
    id_bytes: u32,
    is_number: bool,
}

impl MemberText {
    pub fn new(member: &Member<'_>) -> Self {
        let user_info = member.user_info.as_deref().unwrap_or(NO_USER_INFO);
        let mut entry = Vec::with_capacity(member.id.len() + user_info.len() + 16);
        json::write_string_body(RawString::encode(&member.id).token(), &mut entry);
        let id_bytes = u32::try_from(entry.len()).expect("an id is held to a limit");
        entry.push(b':');
        json::write_string_body(user_info, &mut entry);
        let entry = String::from_utf8(entry).expect("escaping keeps UTF-8");
        Self {
            entry: entry.into_boxed_str(),
            id_bytes,
            is_number: !member.user_id.starts_with('"'),
        }
    }

    /// The id in a roster's `ids`: `\"11\"`.
    pub fn id_escaped(&self) -> &str {
        &self.entry[..self.id_bytes as usize]
    }

    /// The member in a roster's `hash`: `\"11\":{\"name\":\"A\"}`.
    pub fn hash_entry_escaped(&self) -> &str {
        &self.entry
    }

    /// The id as a JSON string token, as client events and the API tell it: `"11"`.
    pub fn id_token(&self) -> String {
        unescaped(self.id_escaped())
    }

    /// The `user_info` as a JSON token; `{}` if the member has none.
    pub fn user_info_token(&self) -> String {
        unescaped(self.user_info_escaped())
    }

    /// The `data` token of [`MEMBER_ADDED`].
    pub fn added_data(&self) -> String {
        let (user_id, user_info) = (self.user_id_escaped(), self.user_info_escaped());
        format!(r#""{{\"user_id\":{user_id},\"user_info\":{user_info}}}""#)
    }

    /// The `data` token of [`MEMBER_REMOVED`].
    pub fn removed_data(&self) -> String {
        format!(r#""{{\"user_id\":{}}}""#, self.user_id_escaped())
    }

    /// The id with the type that was given.
    fn user_id_escaped(&self) -> &str {
        let id = self.id_escaped();
        match self.is_number {
            true => &id[QUOTE.len()..id.len() - QUOTE.len()],
            false => id,
        }
    }

    fn user_info_escaped(&self) -> &str {
        &self.entry[self.id_bytes as usize + ":".len()..]
    }
}

/// The name tokens of the events that tell the others of an arrival and of a departure.
pub const MEMBER_ADDED: &str = r#""pusher_internal:member_added""#;
pub const MEMBER_REMOVED: &str = r#""pusher_internal:member_removed""#;

/// Appends the acknowledgement of a subscription with its roster of `count` members. The channel's
/// name must be a checked one.
///
/// Each item of `runs` is one or more members as `ids` and as `hash` have them, joined by commas:
/// of one member [`MemberText::id_escaped`] and [`MemberText::hash_entry_escaped`].
pub fn encode_presence_succeeded<'a>(
    out: &mut Vec<u8>,
    channel: &str,
    count: usize,
    runs: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    position: Option<&Position>,
) {
    let count = count.to_string();
    out.reserve(presence_succeeded_length(channel, &count, runs.clone()));
    for piece in [SUCCEEDED, channel, COUNT, &count, IDS] {
        out.extend_from_slice(piece.as_bytes());
    }
    join(out, runs.clone().map(|(ids, _)| ids));
    out.extend_from_slice(HASH.as_bytes());
    join(out, runs.map(|(_, entries)| entries));
    out.extend_from_slice(ROSTER_END.as_bytes());
    if let Some(position) = position {
        out.push(b',');
        out.extend_from_slice(position.escaped_members().as_bytes());
    }
    out.extend_from_slice(END.as_bytes());
}

const SUCCEEDED: &str = r#"{"event":"pusher_internal:subscription_succeeded","channel":""#;
const COUNT: &str = r#"","data":"{\"presence\":{\"count\":"#;
const IDS: &str = r#",\"ids\":["#;
const HASH: &str = r#"],\"hash\":{"#;
const ROSTER_END: &str = "}}";
const END: &str = r#"}"}"#;

/// A quote inside of a JSON string.
const QUOTE: &str = r#"\""#;

/// What a member without `user_info` has in a roster: clients look up every id in `hash`.
const NO_USER_INFO: &str = "{}";

/// The largest number that every client reads as it was written.
const NUMBER_MAX: u64 = 1 << 53;

#[derive(Deserialize)]
struct MemberFields<'a> {
    #[serde(borrow)]
    user_id: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "json::value_even_if_null")]
    user_info: Option<&'a RawValue>,
}

/// The token of an id, and what it says. Of numbers only those are taken that are written as every
/// client would write them, so that equal numbers are equal ids.
pub(super) fn read_id(value: &RawValue) -> Option<(&str, Cow<'_, str>)> {
    let token = value.get();
    if token.starts_with('"') {
        let id = RawString::from_value(value).ok()?.into_decoded();
        return (!id.is_empty()).then_some((token, id));
    }
    let digits = token.strip_prefix('-').unwrap_or(token);
    let number: u64 = digits.parse().ok()?;
    let is_minus_zero = number == 0 && digits.len() < token.len();
    (number <= NUMBER_MAX && !is_minus_zero).then_some((token, Cow::Borrowed(token)))
}

/// Bytes that [`encode_presence_succeeded`] appends, up to one comma more in either list.
fn presence_succeeded_length<'a>(
    channel: &str,
    count: &str,
    runs: impl Iterator<Item = (&'a str, &'a str)>,
) -> usize {
    let around = [SUCCEEDED, channel, COUNT, count, IDS, HASH, ROSTER_END, END];
    let around: usize = around.iter().map(|piece| piece.len()).sum();
    let members = runs.map(|(ids, entries)| ids.len() + entries.len() + 2 * ",".len());
    around + members.sum::<usize>()
}

fn join<'a>(out: &mut Vec<u8>, pieces: impl Iterator<Item = &'a str>) {
    let mut separator = "";
    for piece in pieces {
        out.extend_from_slice(separator.as_bytes());
        out.extend_from_slice(piece.as_bytes());
        separator = ",";
    }
}

/// The text behind the escapes that a [`MemberText`] wrote.
fn unescaped(escaped: &str) -> String {
    serde_json::from_str(&format!("\"{escaped}\"")).expect("it was escaped for a string")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pusher::encode_event_tokens;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const LIMITS: MemberLimits = MemberLimits {
        user_bytes_max: 1024,
        id_characters_max: 128,
    };

    fn parse(channel_data: &str) -> Result<Member<'_>, MemberError> {
        Member::parse(channel_data, &LIMITS)
    }

    fn text(channel_data: &str) -> MemberText {
        MemberText::new(&parse(channel_data).unwrap())
    }

    /// The envelope, and its `data` read once more.
    fn read(frame: &[u8]) -> (Value, Value) {
        let envelope: Value = serde_json::from_slice(frame).unwrap();
        let data = serde_json::from_str(envelope["data"].as_str().unwrap()).unwrap();
        (envelope, data)
    }

    fn acknowledged(members: &[MemberText]) -> (Value, Value) {
        let runs = members
            .iter()
            .map(|member| (member.id_escaped(), member.hash_entry_escaped()));
        let mut frame = Vec::new();
        encode_presence_succeeded(&mut frame, "presence-a", members.len(), runs, None);
        read(&frame)
    }

    #[test]
    fn a_member_has_an_id_and_perhaps_information() {
        let member = parse(r#"{"user_id":"11","user_info":{"name":"A"},"more":[1]}"#).unwrap();
        assert_eq!(
            (&*member.user_id, &*member.id),
            (r#""11""#, "11"),
            "{member:?}"
        );
        assert_eq!(member.user_info.as_deref(), Some(r#"{"name":"A"}"#));
        assert!(matches!(member.id, Cow::Borrowed("11")));
        assert_eq!(parse(r#" {"user_id":"11"} "#).unwrap().user_info, None);
        let null = parse(r#"{"user_id":"11","user_info":null}"#).unwrap();
        assert_eq!(null.user_info.as_deref(), Some("null"));
    }

    #[test]
    fn a_number_is_an_id_up_to_two_to_the_power_of_53() {
        for token in ["0", "10", "-3", "9007199254740992"] {
            let text = format!(r#"{{"user_id":{token}}}"#);
            let member = parse(&text).unwrap();
            assert_eq!((&*member.user_id, &*member.id), (token, token));
        }
        for token in ["9007199254740993", "1e3", "1.5", "1.0", "-0", "1E400"] {
            let text = format!(r#"{{"user_id":{token}}}"#);
            assert_eq!(parse(&text), Err(MemberError::Malformed), "{token}");
        }
    }

    #[test]
    fn what_names_no_user_is_malformed() {
        for text in [
            "",
            "11",
            r#"["11"]"#,
            r#"{"user_id":"11""#,
            "{}",
            r#"{"user_id":""}"#,
            r#"{"user_id":null}"#,
            r#"{"user_id":true}"#,
            r#"{"user_id":{"id":1}}"#,
            r#"{"user_id":["1"]}"#,
            r#"{"user_id":"\ud800"}"#,
            r#"{"user_id":"1","user_id":"2"}"#,
            r#"{"user_id":"1","user_info":{"name":"\udc00"}}"#,
            r#"{"user_info":{}}"#,
        ] {
            assert_eq!(parse(text), Err(MemberError::Malformed), "{text}");
        }
    }

    #[test]
    fn a_member_is_held_to_its_limits() {
        let with = |id: &str, info: &str| json!({"user_id": id, "user_info": info}).to_string();
        assert!(parse(&with(&"é".repeat(128), "")).is_ok());
        assert_eq!(
            parse(&with(&"é".repeat(129), "")),
            Err(MemberError::IdTooLong { max: 128 })
        );
        // Two tokens with their quotes.
        assert!(parse(&with("11", &"a".repeat(1024 - 6))).is_ok());
        let error = parse(&with("11", &"a".repeat(1024 - 5))).unwrap_err();
        assert_eq!(error, MemberError::TooLarge { max: 1024 });
        assert_eq!(error.kind_and_status(), ("LimitReached", 4301));
    }

    #[test]
    fn the_acknowledgement_is_that_of_the_documentation() {
        let members = [
            text(r#"{"user_id":11,"user_info":{"name":"A"}}"#),
            text(r#"{"user_id":"22"}"#),
        ];
        let runs = members
            .iter()
            .map(|member| (member.id_escaped(), member.hash_entry_escaped()));
        let mut frame = Vec::new();
        encode_presence_succeeded(&mut frame, "presence-a", 2, runs, None);
        assert_eq!(
            str::from_utf8(&frame).unwrap(),
            concat!(
                r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-a","#,
                r#""data":"{\"presence\":{\"count\":2,\"ids\":[\"11\",\"22\"],"#,
                r#"\"hash\":{\"11\":{\"name\":\"A\"},\"22\":{}}}}"}"#,
            )
        );
    }

    #[test]
    fn members_may_be_joined_before_they_are_acknowledged() {
        let members =
            ["1", "2", "3"].map(|id| text(&format!(r#"{{"user_id":{id},"user_info":"i{id}"}}"#)));
        let joined = |of: fn(&MemberText) -> &str| {
            let pieces: Vec<&str> = members[..2].iter().map(of).collect();
            pieces.join(",")
        };
        let ids = joined(MemberText::id_escaped);
        let entries = joined(MemberText::hash_entry_escaped);
        let last = &members[2];
        let runs = [
            (&*ids, &*entries),
            (last.id_escaped(), last.hash_entry_escaped()),
        ];
        let mut frame = Vec::new();
        encode_presence_succeeded(&mut frame, "presence-a", 3, runs.into_iter(), None);
        assert_eq!(read(&frame), acknowledged(&members));
    }

    #[test]
    fn arrivals_and_departures_echo_the_type_of_the_id() {
        for (channel_data, added, removed) in [
            (
                r#"{"user_id":11,"user_info":{"name":"A"}}"#,
                json!({"user_id": 11, "user_info": {"name": "A"}}),
                json!({"user_id": 11}),
            ),
            (
                r#"{"user_id":"11"}"#,
                json!({"user_id": "11", "user_info": {}}),
                json!({"user_id": "11"}),
            ),
            (
                r#"{"user_id":"a\"\n","user_info":null}"#,
                json!({"user_id": "a\"\n", "user_info": null}),
                json!({"user_id": "a\"\n"}),
            ),
        ] {
            let member = text(channel_data);
            for (name, token, data, expected) in [
                ("member_added", MEMBER_ADDED, member.added_data(), added),
                (
                    "member_removed",
                    MEMBER_REMOVED,
                    member.removed_data(),
                    removed,
                ),
            ] {
                let mut frame = Vec::new();
                encode_event_tokens(&mut frame, token, "presence-a", &data);
                let (envelope, data) = read(&frame);
                assert_eq!(envelope["event"], format!("pusher_internal:{name}"));
                assert_eq!(envelope["channel"], "presence-a");
                assert_eq!(data, expected);
            }
        }
    }

    #[test]
    fn an_id_is_the_same_however_it_is_spelt() {
        let plain = text(r#"{"user_id":"1é"}"#);
        let escaped = text(r#"{"user_id":"\u0031\u00e9"}"#);
        assert_eq!(plain.id_escaped(), escaped.id_escaped());
        let number = text(r#"{"user_id":1}"#);
        assert_eq!(number.id_escaped(), text(r#"{"user_id":"1"}"#).id_escaped());
        assert_eq!(number.id_token(), r#""1""#);
    }

    proptest! {
        #[test]
        fn a_roster_reads_back_the_same(
            users in proptest::collection::btree_map(
                prop_oneof!["[a-z0-9]{1,8}", "\\PC{1,8}", "[\\x00-\\x7f]{1,8}"],
                proptest::option::of(any::<String>()),
                0..6,
            )
        ) {
            let given: Vec<String> = users
                .iter()
                .map(|(id, info)| match info {
                    Some(info) => json!({"user_id": id, "user_info": {"text": info}}),
                    None => json!({"user_id": id}),
                })
                .map(|value| value.to_string())
                .collect();
            let members: Vec<MemberText> = given.iter().map(|data| text(data)).collect();
            let hash: serde_json::Map<String, Value> = users
                .iter()
                .map(|(id, info)| match info {
                    Some(info) => (id.clone(), json!({"text": info})),
                    None => (id.clone(), json!({})),
                })
                .collect();
            for (member, (id, value)) in members.iter().zip(&hash) {
                prop_assert_eq!(&serde_json::from_str::<String>(&member.id_token()).unwrap(), id);
                let info: Value = serde_json::from_str(&member.user_info_token()).unwrap();
                prop_assert_eq!(&info, value);
            }
            let ids: Vec<&String> = users.keys().collect();
            let (_, data) = acknowledged(&members);
            prop_assert_eq!(
                data,
                json!({"presence": {"count": users.len(), "ids": ids, "hash": hash}})
            );
        }

        #[test]
        fn random_text_never_panics(text in any::<String>(), value in any::<String>()) {
            for text in [text, format!(r#"{{"user_id":{value},"user_info":{value}}}"#)] {
                if let Ok(member) = parse(&text) {
                    MemberText::new(&member).added_data();
                }
            }
        }
    }
}
