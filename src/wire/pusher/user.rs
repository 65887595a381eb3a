//! Signed-in users: what a client says of its user, and what it is told of itself and of those it
//! watches.
//!
//! Source: Pusher Channels documentation, "User authentication", "Watchlist events" and "Terminating
//! user connections". The texts of refusals are soketi's, whose tests clients were written against.

use std::borrow::Cow;
use std::fmt;
use std::iter;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::member::{Member, MemberError, MemberLimits, read_id};
use crate::wire::json::{self, RawString};

/// Whom a connection belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User<'a> {
    /// Not empty; what a number says, if the id was one.
    pub id: Cow<'a, str>,
    /// A JSON token, any.
    pub user_info: Option<&'a str>,
    /// The users whose coming and going this one is told, each once, in the order given.
    pub watchlist: Vec<Cow<'a, str>>,
    /// The watchlist was longer than it may be: the client is told [`watchlist_limit_exceeded`].
    pub is_watchlist_cut: bool,
}

/// What a user may be.
#[derive(Clone, Copy, Debug)]
pub struct UserLimits {
    /// Of an id, the user's own or one that it watches.
    pub id_characters_max: usize,
    /// The ids that are watched; more are left out.
    pub watchlist_users_max: usize,
}

impl<'a> User<'a> {
    /// Reads the `user_data` of a sign-in, whose signature the caller has checked:
    /// `{"id":"u1","user_info":{..},"watchlist":["u2"]}`. Other fields are ignored.
    pub fn parse(user_data: &'a str, limits: &UserLimits) -> Result<Self, UserError> {
        let fields: UserFields<'a> =
            json::parse_object(user_data).map_err(|_| UserError::NotJson)?;
        let id = fields.id.and_then(read_id).ok_or(UserError::NoId)?.1;
        let user_info = fields.user_info.map(RawValue::get);
        if user_info.is_some_and(json::has_lone_surrogate) {
            return Err(UserError::NotJson);
        }
        let given = fields.watchlist.map_or_else(Vec::new, |list| list.0);
        let (watchlist, is_watchlist_cut) = watched(given, limits.watchlist_users_max);
        let max = limits.id_characters_max;
        let is_long = |id: &str| id.len() > max && id.chars().count() > max;
        if is_long(&id) || watchlist.iter().any(|id| is_long(id)) {
            return Err(UserError::IdTooLong { max });
        }
        Ok(Self {
            id,
            user_info,
            watchlist,
            is_watchlist_cut,
        })
    }
}

impl<'a> Member<'a> {
    /// The member that a signed-in user is where its client sends no `channel_data` of its own.
    pub fn of_user(
        id: &'a str,
        user_info: Option<&'a str>,
        limits: &MemberLimits,
    ) -> Result<Self, MemberError> {
        let member = Self {
            user_id: RawString::encode(id).token().to_owned().into(),
            id: id.into(),
            user_info: user_info.map(Cow::Borrowed),
        };
        member.checked(limits)
    }
}

/// Why a sign-in fails. The text goes with code 4009, and the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserError {
    NotJson,
    NoId,
    IdTooLong { max: usize },
}

impl fmt::Display for UserError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson => formatter.write_str("The returned user data is not as documented."),
            Self::NoId => {
                formatter.write_str("The returned user data must contain the \"id\" field.")
            }
            Self::IdTooLong { max } => {
                write!(formatter, "A user id is longer than {max} characters.")
            }
        }
    }
}

impl std::error::Error for UserError {}

/// The texts of the other errors with code 4009.
///
/// The API's call to end a user's connections.
pub const TERMINATED: &str = "You got disconnected by the app.";
/// Neither a sign-in nor a subscription that was authorized came in time.
pub const NOT_AUTHORIZED_IN_TIME: &str = "Connection not authorized within timeout.";
/// The signature of a sign-in proves nothing.
pub const NOT_AUTHORIZED: &str = "Connection not authorized.";
/// The connection is signed in, and now as someone else.
pub const OTHER_USER: &str = "The connection is signed in as another user.";

/// The text of the error with code 4302.
pub fn watchlist_limit_exceeded(watchlist_users_max: usize) -> String {
    format!("Watchlist limit exceeded. Only the first {watchlist_users_max} user IDs are accepted.")
}

/// Appends the acknowledgement of a sign-in, which repeats the text that was signed.
pub fn encode_signin_success(out: &mut Vec<u8>, user_data: &str) {
    out.extend_from_slice(br#"{"event":"pusher:signin_success","data":{"user_data":"#);
    json::write_string(user_data, out);
    out.extend_from_slice(b"}}");
}

/// Whether a user has a signed-in connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchedState {
    Online,
    Offline,
}

impl WatchedState {
    fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }
}

/// Appends what follows a sign-in with a watchlist: which of its users are there and which are not.
/// A list that is empty is left out; when both are, nothing is appended and nothing is to be sent.
pub fn encode_watchlist_events<'a>(
    out: &mut Vec<u8>,
    online: impl IntoIterator<Item = &'a str>,
    offline: impl IntoIterator<Item = &'a str>,
) {
    let mut data = Vec::new();
    write_watchlist_event(WatchedState::Online, online, &mut data);
    write_watchlist_event(WatchedState::Offline, offline, &mut data);
    if data.is_empty() {
        return;
    }
    let data = String::from_utf8(data).expect("JSON of text is text");
    out.extend_from_slice(br#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":["#);
    json::write_string_body(&data, out);
    out.extend_from_slice(br#"]}"}"#);
}

/// Appends what watchers are told when one user comes or goes.
pub fn encode_watchlist_transition(out: &mut Vec<u8>, id: &str, state: WatchedState) {
    match state {
        WatchedState::Online => encode_watchlist_events(out, [id], iter::empty()),
        WatchedState::Offline => encode_watchlist_events(out, iter::empty(), [id]),
    }
}

#[derive(Deserialize)]
struct UserFields<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "json::value_even_if_null")]
    user_info: Option<&'a RawValue>,
    #[serde(borrow)]
    watchlist: Option<IdList<'a>>,
}

/// A JSON array of ids.
struct IdList<'a>(Vec<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for IdList<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values: Vec<&'de RawValue> = Deserialize::deserialize(deserializer)?;
        let ids: Option<Vec<Cow<'a, str>>> = values
            .into_iter()
            .map(|value| read_id(value).map(|(_, id)| id))
            .collect();
        ids.map(IdList)
            .ok_or_else(|| D::Error::custom("expected ids"))
    }
}

/// The first `max` ids, each once, and whether others were left out.
fn watched(given: Vec<Cow<'_, str>>, max: usize) -> (Vec<Cow<'_, str>>, bool) {
    let mut watchlist: Vec<Cow<'_, str>> = Vec::new();
    for id in given {
        if watchlist.contains(&id) {
            continue;
        }
        if watchlist.len() == max {
            return (watchlist, true);
        }
        watchlist.push(id);
    }
    (watchlist, false)
}

/// Writes `{"name":"online","user_ids":["u1"]}`, behind a comma if something stands before it;
/// nothing if there are no ids.
fn write_watchlist_event<'a>(
    state: WatchedState,
    ids: impl IntoIterator<Item = &'a str>,
    out: &mut Vec<u8>,
) {
    let mut ids = ids.into_iter().peekable();
    if ids.peek().is_none() {
        return;
    }
    if !out.is_empty() {
        out.push(b',');
    }
    out.extend_from_slice(br#"{"name":"#);
    json::write_string(state.name(), out);
    out.extend_from_slice(br#","user_ids":["#);
    while let Some(id) = ids.next() {
        json::write_string(id, out);
        if ids.peek().is_some() {
            out.push(b',');
        }
    }
    out.extend_from_slice(b"]}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const LIMITS: UserLimits = UserLimits {
        id_characters_max: 128,
        watchlist_users_max: 100,
    };

    const MEMBER_LIMITS: MemberLimits = MemberLimits {
        user_bytes_max: 1024,
        id_characters_max: 128,
    };

    fn parse(user_data: &str) -> Result<User<'_>, UserError> {
        User::parse(user_data, &LIMITS)
    }

    /// What `encode` appends, with its `data` read once more if that is a string.
    fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Value {
        let mut out = Vec::new();
        encode(&mut out);
        let mut message: Value = serde_json::from_slice(&out).unwrap();
        if let Some(data) = message["data"].as_str() {
            message["data"] = serde_json::from_str(data).unwrap();
        }
        message
    }

    #[test]
    fn a_user_is_read_from_what_was_signed() {
        let user = parse(r#"{"id":"u1","user_info":{"a":1},"watchlist":["u2",3,"u2"],"x":[]}"#);
        assert_eq!(
            user,
            Ok(User {
                id: "u1".into(),
                user_info: Some(r#"{"a":1}"#),
                watchlist: vec!["u2".into(), "3".into()],
                is_watchlist_cut: false,
            })
        );
        let user = parse(r#"{"id":7,"watchlist":null}"#).unwrap();
        assert_eq!((&*user.id, user.user_info), ("7", None));
        assert!(user.watchlist.is_empty());
    }

    #[test]
    fn who_has_no_id_is_no_user() {
        for text in [
            "{}",
            r#"{"id":""}"#,
            r#"{"id":null}"#,
            r#"{"id":{}}"#,
            r#"{"id":1.5}"#,
        ] {
            assert_eq!(parse(text), Err(UserError::NoId), "{text}");
        }
        for text in [
            "",
            "u1",
            r#"["u1"]"#,
            r#"{"id":"u1","watchlist":"u2"}"#,
            r#"{"id":"u1","watchlist":[null]}"#,
            r#"{"id":"u1","watchlist":[""]}"#,
            r#"{"id":"u1","user_info":"\ud800"}"#,
        ] {
            assert_eq!(parse(text), Err(UserError::NotJson), "{text}");
        }
        let long = "u".repeat(129);
        for value in [json!({"id": long}), json!({"id": "u", "watchlist": [long]})] {
            assert_eq!(
                parse(&value.to_string()),
                Err(UserError::IdTooLong { max: 128 })
            );
        }
    }

    #[test]
    fn the_first_hundred_of_a_watchlist_are_watched() {
        let ids = |count: usize| (0..count).map(|at| format!("u{at}")).collect::<Vec<_>>();
        let of = |ids: Vec<String>| json!({"id": "me", "watchlist": ids}).to_string();
        let text = of([ids(100), ids(50)].concat());
        let user = parse(&text).unwrap();
        assert_eq!((user.watchlist.len(), user.is_watchlist_cut), (100, false));
        let text = of(ids(101));
        let user = parse(&text).unwrap();
        assert!(user.is_watchlist_cut);
        assert!(user.watchlist.iter().eq(ids(100).iter()));
        assert_eq!(
            watchlist_limit_exceeded(100),
            "Watchlist limit exceeded. Only the first 100 user IDs are accepted."
        );
    }

    #[test]
    fn a_user_is_a_member_within_the_limits_of_members() {
        let member = Member::of_user("a\"", Some("[1]"), &MEMBER_LIMITS).unwrap();
        assert_eq!(
            (&*member.user_id, &*member.id, member.user_info.as_deref()),
            (r#""a\"""#, "a\"", Some("[1]"))
        );
        let long = format!("{:?}", "i".repeat(1022));
        assert_eq!(
            Member::of_user("a", Some(&long), &MEMBER_LIMITS),
            Err(MemberError::TooLarge { max: 1024 })
        );
    }

    #[test]
    fn a_sign_in_is_answered_with_the_text_that_was_signed() {
        let user_data = r#"{"id": "u1", "user_info": {"a": "\n"}}"#;
        assert_eq!(
            encoded(|out| encode_signin_success(out, user_data)),
            json!({"event": "pusher:signin_success", "data": {"user_data": user_data}})
        );
    }

    #[test]
    fn watchlist_events_are_those_of_the_documentation() {
        let mut out = Vec::new();
        encode_watchlist_events(&mut out, ["u2"], ["u9", "u8"]);
        assert_eq!(
            str::from_utf8(&out).unwrap(),
            concat!(
                r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":["#,
                r#"{\"name\":\"online\",\"user_ids\":[\"u2\"]},"#,
                r#"{\"name\":\"offline\",\"user_ids\":[\"u9\",\"u8\"]}]}"}"#,
            )
        );
        for (state, name) in [
            (WatchedState::Online, "online"),
            (WatchedState::Offline, "offline"),
        ] {
            assert_eq!(
                encoded(|out| encode_watchlist_transition(out, "u\"2", state)),
                json!({
                    "event": "pusher_internal:watchlist_events",
                    "data": {"events": [{"name": name, "user_ids": ["u\"2"]}]},
                })
            );
        }
    }

    #[test]
    fn a_watchlist_of_nobody_has_no_events() {
        let mut out = Vec::new();
        encode_watchlist_events(&mut out, [], []);
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn watchlists_read_back_the_same(
            online in proptest::collection::vec(any::<String>(), 1..4),
            offline in proptest::collection::vec(any::<String>(), 1..4),
        ) {
            let read = encoded(|out| {
                let (online, offline) = (online.iter(), offline.iter());
                encode_watchlist_events(
                    out,
                    online.map(String::as_str),
                    offline.map(String::as_str),
                );
            });
            prop_assert_eq!(
                &read["data"],
                &json!({"events": [
                    {"name": "online", "user_ids": online},
                    {"name": "offline", "user_ids": offline},
                ]})
            );
        }

        #[test]
        fn a_user_reads_as_it_was_written(
            id in "\\PC{1,20}",
            watchlist in proptest::collection::btree_set("\\PC{1,20}", 0..5),
        ) {
            let text = json!({"id": id, "watchlist": watchlist}).to_string();
            let user = parse(&text).unwrap();
            prop_assert_eq!(user.id, id);
            prop_assert!(user.watchlist.iter().eq(watchlist.iter()));
        }

        #[test]
        fn random_text_never_panics(text in any::<String>(), value in any::<String>()) {
            parse(&text).ok();
            parse(&format!(r#"{{"id":{value},"watchlist":[{value}]}}"#)).ok();
        }
    }
}
